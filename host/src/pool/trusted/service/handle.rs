//! What the rest of the node holds.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::super::{
    clock::{Random, draw},
    grants::Grants,
    join::{self, Ask},
    ledger::Ledger,
    papers::{Hardness, Invite, Motion, PoolId, RootKey},
};
use super::{
    Admitted, BallotRow, GateView, InviteOptions, Invited, MemberDetail, MemberRow, Membership, PoolError,
    Revoked, Status,
    actor::{Command, Reply},
    outputs::Access,
};
use crate::{
    identity::{NodeId, Signer},
    mesh::streams::Stream,
};

/// A handle on the pool of this machine. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct PoolHandle {
    commands: mpsc::Sender<Command>,
    access: Arc<Access>,
    ledger: Arc<Ledger>,
    signer: Signer,
    random: Arc<dyn Random>,
    hardness: Hardness,
}

impl PoolHandle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        access: Arc<Access>,
        ledger: Arc<Ledger>,
        (signer, random): (Signer, Arc<dyn Random>),
        hardness: Hardness,
    ) -> Self {
        Self { commands, access, ledger, signer, random, hardness }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| PoolError::Closed)?;
        answer.await.map_err(|_| PoolError::Closed)?
    }

    /// Makes a pool; its root key stays on this machine. With a quorum, so many members must vote for a policy;
    /// without one its owner decides.
    ///
    /// # Errors
    /// [`PoolError::AlreadyIn`], a name or quorum that cannot be used, or a disk that cannot be written.
    pub async fn create(&self, name: impl Into<String>, quorum: Option<u32>) -> Result<PoolId, PoolError> {
        let name = name.into();
        self.ask(|reply| Command::Create { name, quorum, reply }).await
    }

    /// The motions about policies, the newest activation first.
    ///
    /// # Errors
    /// [`PoolError::NoPool`].
    pub async fn ballots(&self) -> Result<Vec<BallotRow>, PoolError> {
        self.ask(|reply| Command::Ballots { reply }).await
    }

    /// Votes on a motion; the first vote proposes it. On disk when this returns.
    ///
    /// # Errors
    /// [`PoolError::NoPool`], or [`PoolError::NotOwner`] where the owner decides and is not here.
    pub async fn vote(
        &self,
        motion: Motion,
        yes: bool,
        note: impl Into<String>,
    ) -> Result<BallotRow, PoolError> {
        let note = note.into();
        self.ask(|reply| Command::Vote { motion, yes, note, reply }).await
    }

    /// Policies that the pool has approved; changes as votes come in. Empty without a pool.
    pub fn approved(&self) -> watch::Receiver<Arc<Vec<Motion>>> {
        self.access.approved()
    }

    /// Makes an invite. It is on disk when this returns.
    ///
    /// # Errors
    /// [`PoolError::NoPool`], [`PoolError::NotAdmin`], [`PoolError::NotOwner`] for one that makes administrators,
    /// or what is wrong with the options.
    pub async fn invite(&self, options: InviteOptions) -> Result<Invited, PoolError> {
        self.ask(|reply| Command::Invite { options: Box::new(options), reply }).await
    }

    /// Fails at once where [`join`](Self::join) would, before anything is dialled.
    ///
    /// # Errors
    /// [`PoolError::AlreadyIn`] when this machine is in another pool.
    pub async fn may_join(&self, invite: &Invite) -> Result<(), PoolError> {
        let pool = invite.pool();
        self.ask(|reply| Command::MayJoin { pool, reply }).await.map(drop)
    }

    /// Becomes a member with an invite, over a stream of [`JOIN`](join::JOIN) with one of its issuers that was
    /// dialled under [`Invite::key`]. Without a name, this machine takes that of the invite, or its own. On disk
    /// when this returns. The same machine may use the same invite again without using it up.
    ///
    /// # Errors
    /// [`PoolError::AlreadyIn`] when this machine is in another pool; [`PoolError::Join`] with what the issuer
    /// says.
    pub async fn join(
        &self,
        invite: &Invite,
        stream: &mut Stream,
        name: Option<&str>,
    ) -> Result<MemberRow, PoolError> {
        let pool = invite.pool();
        let own = self.ask(|reply| Command::MayJoin { pool, reply }).await?;
        let name = name.or(invite.terms().hint.as_deref()).unwrap_or(&own);
        let (nonce, clock) = (draw(&*self.random)?, &*self.access.clock);
        let joined = join::request(stream, Ask { invite, signer: &self.signer, name, nonce, clock }).await?;
        self.ask(|reply| Command::Adopt { joined: Box::new(joined), reply }).await
    }

    /// All machines that are or were members.
    ///
    /// # Errors
    /// [`PoolError::NoPool`].
    pub async fn members(&self) -> Result<Vec<MemberRow>, PoolError> {
        self.ask(|reply| Command::Members { reply }).await
    }

    /// Everything about the member with that name, id, or beginning of an id (four digits or more).
    ///
    /// # Errors
    /// [`PoolError::NoPool`], [`PoolError::Unknown`] or [`PoolError::Ambiguous`].
    pub async fn show(&self, wanted: impl Into<String>) -> Result<MemberDetail, PoolError> {
        let wanted = wanted.into();
        self.ask(|reply| Command::Show { wanted, reply }).await
    }

    /// Revokes a machine or an invite, by name, id, or beginning of an id; for good.
    ///
    /// # Errors
    /// As [`show`](Self::show); [`PoolError::NotAdmin`], [`PoolError::NotOwner`] for an administrator,
    /// [`PoolError::Oneself`].
    pub async fn revoke(
        &self,
        wanted: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<Revoked, PoolError> {
        let (wanted, reason) = (wanted.into(), reason.into());
        self.ask(|reply| Command::Revoke { wanted, reason, reply }).await
    }

    /// Gives a member another name; without `wanted`, this machine. Returns the name it has then.
    ///
    /// # Errors
    /// As [`show`](Self::show); [`PoolError::NotAdmin`] for another machine, [`PoolError::NameTaken`].
    pub async fn rename(&self, wanted: Option<String>, name: impl Into<String>) -> Result<String, PoolError> {
        let name = name.into();
        self.ask(|reply| Command::Rename { wanted, name, reply }).await
    }

    /// Leaves the pool: connected members are told, the papers are deleted. A root key stays on the disk.
    ///
    /// # Errors
    /// [`PoolError::NoPool`], or a disk that cannot be written.
    pub async fn leave(&self) -> Result<(), PoolError> {
        self.ask(|reply| Command::Leave { reply }).await
    }

    /// The pool in short, and what went wrong lately.
    ///
    /// # Errors
    /// [`PoolError::Closed`].
    pub async fn status(&self) -> Result<Status, PoolError> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// The root key, sealed under a passphrase, as text on one line.
    ///
    /// # Errors
    /// [`PoolError::NotOwner`] where it is not, [`PoolError::Export`] for a passphrase that is too short.
    pub async fn export_root(&self, passphrase: impl Into<String>) -> Result<String, PoolError> {
        let root = self.ask(|reply| Command::Root { reply }).await?;
        let (passphrase, random, hardness) = (passphrase.into(), Arc::clone(&self.random), self.hardness);
        let sealed = tokio::task::spawn_blocking(move || root.export(&passphrase, hardness, &*random)).await;
        Ok(sealed.map_err(|_| PoolError::Closed)??)
    }

    /// Takes a root key over that [`export_root`](Self::export_root) made elsewhere: a machine that is in no pool
    /// begins the pool again, a member of that pool becomes its owner.
    ///
    /// # Errors
    /// [`PoolError::Export`] for a wrong passphrase or other text, [`PoolError::AlreadyIn`] in another pool.
    pub async fn import_root(
        &self,
        sealed: impl Into<String>,
        passphrase: impl Into<String>,
    ) -> Result<PoolId, PoolError> {
        let (sealed, passphrase) = (sealed.into(), passphrase.into());
        let key = tokio::task::spawn_blocking(move || RootKey::import(&sealed, &passphrase)).await;
        let key = Box::new(key.map_err(|_| PoolError::Closed)??);
        self.ask(|reply| Command::ImportRoot { key, reply }).await
    }

    /// The pool that this machine is in, by its root key.
    pub fn pool(&self) -> Option<NodeId> {
        self.access.gate().borrow().pool
    }

    /// Which machines may connect; changes at once when a machine is revoked.
    pub fn gate(&self) -> watch::Receiver<GateView> {
        self.access.gate()
    }

    /// Who gave and took how much.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Who is admitted, as the rest of the node sees it.
    pub fn membership(&self) -> Arc<dyn Membership> {
        Arc::clone(&self.access) as Arc<dyn Membership>
    }

    pub(super) async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
    }
}

impl Membership for PoolHandle {
    fn me(&self) -> NodeId {
        self.access.me()
    }

    fn grants(&self, node: NodeId) -> Option<Grants> {
        self.access.grants(node)
    }

    fn watch(&self) -> watch::Receiver<Arc<Vec<Admitted>>> {
        self.access.watch()
    }
}
