//! How this machine gets into a pool and out of it, and what becomes of the root key.

use super::super::{
    clock::{Millis, draw},
    exchange::Bye,
    grants::Grants,
    join::Joined,
    names,
    papers::{Certificate, Delegation, Leave, Paper, Pool, PoolId, RootKey, Statement},
    roster::{Roster, Standing},
};
use super::{
    MemberRow, PoolError,
    actor::Actor,
    home::{Home, root_path},
    settle::fresh_key,
};
use crate::identity::Signer;

impl Actor {
    /// Makes a pool, whose root key stays on this machine. With a quorum, so many members approve its policies.
    pub(super) async fn create(&mut self, name: &str, quorum: Option<u32>) -> Result<PoolId, PoolError> {
        self.free()?;
        let name = names::clean(name)?;
        let seed = draw(&*self.random)?;
        let signer = Signer::from_seed(seed);
        let pool = PoolId(signer.node());
        let statement = Pool { pool, name, created: self.now(), quorum };
        let paper = Paper::sign(Statement::Pool(statement), &signer)?;
        let root = RootKey::new(seed, paper).ok_or(PoolError::NotOwner)?;
        self.found(&root).await?;
        Ok(pool)
    }

    /// Begins a pool of a root key, with this machine as its only member.
    async fn found(&mut self, root: &RootKey) -> Result<(), PoolError> {
        let now = self.now();
        self.keep_root(root).await?;
        let mut roster = Roster::new(root.pool());
        roster.insert(root.paper.clone(), now)?;
        roster.insert(self.delegate(root, now)?, now)?;
        let founder = Certificate {
            pool: root.pool(),
            node: self.me(),
            name: self.settings.name.clone(),
            grants: Grants::everything(),
            joined: now,
            issued: now,
            expires: now.saturating_add(self.settings.life),
            serial: 1,
            invite: None,
        };
        roster.insert(Paper::sign(Statement::Certificate(founder), &self.signer)?, now)?;
        let key = fresh_key(root.pool(), None, now, draw(&*self.random)?);
        let key = Paper::sign(key, &self.signer)?;
        self.home = Some(Home::begin(&self.settings.folder, roster, Some(key), now).await?);
        self.settle().await;
        Ok(())
    }

    fn delegate(&self, root: &RootKey, now: Millis) -> Result<Paper, PoolError> {
        let delegation = Delegation { pool: root.pool(), node: self.me(), issued: now };
        Ok(Paper::sign(Statement::Delegation(delegation), &root.signer)?)
    }

    async fn keep_root(&self, root: &RootKey) -> Result<(), PoolError> {
        let (root, path) = (root.clone(), root_path(&self.settings.folder, root.pool()));
        let stored = tokio::task::spawn_blocking(move || root.store(&path)).await;
        Ok(stored.map_err(|_| PoolError::Closed)??)
    }

    /// The name this machine would have in the pool, if it may join it.
    pub(super) fn may_join(&self, pool: PoolId) -> Result<String, PoolError> {
        match &self.home {
            Some(home) if home.roster.pool() == pool => Ok(home.view.name_of(self.me())),
            _ => self.free().map(|()| self.settings.name.clone()),
        }
    }

    fn free(&self) -> Result<(), PoolError> {
        match &self.home {
            Some(home) => {
                Err(PoolError::AlreadyIn { name: home.view.name.clone(), pool: home.roster.pool() })
            }
            None => Ok(()),
        }
    }

    /// Takes over what joining gave; this machine is a member when it returns.
    pub(super) async fn adopt(&mut self, joined: Joined) -> Result<MemberRow, PoolError> {
        let now = self.now();
        self.may_join(joined.roster.pool())?;
        match &mut self.home {
            Some(home) => {
                let papers = joined.roster.papers().cloned().collect();
                home.record(papers, joined.discovery, now).await?;
            }
            None => {
                let folder = &self.settings.folder;
                self.home = Some(Home::begin(folder, joined.roster, joined.discovery, now).await?);
            }
        }
        self.settle().await;
        let me = self.me();
        self.members()?.into_iter().find(|row| row.id == me).ok_or(PoolError::NoPool)
    }

    /// Leaves the pool: the others are told, the papers are deleted. A root key stays on the disk.
    pub(super) async fn leave(&mut self) -> Result<(), PoolError> {
        let (now, me) = (self.now(), self.me());
        let home = self.home.as_mut().ok_or(PoolError::NoPool)?;
        if matches!(home.view.standing(me), Some(Standing::Member | Standing::Expired)) {
            let joined = home.view.members.get(&me).map_or(now, |member| member.certificate.joined);
            let leave = Leave { pool: home.roster.pool(), node: me, at: now.max(joined) };
            let leave = Paper::sign(Statement::Leave(leave), &self.signer)?;
            self.push(&[leave], None);
        }
        self.hang_up(Bye::Leaving).await;
        if let Some(home) = self.home.take() {
            home.remove().await?;
        }
        self.runs.clear();
        self.settle().await;
        Ok(())
    }

    /// The root key, for its export.
    pub(super) fn root(&self) -> Result<RootKey, PoolError> {
        let home = self.home.as_ref().ok_or(PoolError::NoPool)?;
        home.root.clone().ok_or(PoolError::NotOwner)
    }

    /// Takes a root key over: a machine that is in no pool begins the pool again, a member of the pool becomes its
    /// owner.
    pub(super) async fn import_root(&mut self, root: RootKey) -> Result<PoolId, PoolError> {
        let (now, me, pool) = (self.now(), self.me(), root.pool());
        self.may_join(pool)?;
        if self.home.is_none() {
            self.found(&root).await?;
            return Ok(pool);
        }
        let delegation = self.delegate(&root, now)?;
        self.keep_root(&root).await?;
        let home = self.home.as_mut().ok_or(PoolError::NoPool)?;
        if let Some(revocation) = home.view.revoked.get(&me) {
            return Err(PoolError::Revoked { reason: Some(revocation.reason.clone()) });
        }
        home.root = Some(root);
        if !home.view.is_issuer(me) {
            let (fresh, _) = home.record(vec![delegation], None, now).await?;
            self.push(&fresh, None);
        }
        self.settle().await;
        Ok(pool)
    }
}
