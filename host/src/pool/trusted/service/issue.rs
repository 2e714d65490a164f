//! What administrators do: invite, revoke, rename.

use serde::Serialize;

use super::super::{
    clock::{DAY, MINUTE, Millis, draw},
    grants::Grants,
    names,
    papers::{
        Invite, InviteId, InviteTerms, MAX_ADDRESSES, MAX_REASON, Paper, Rename, Revocation, Route,
        Statement, Target,
    },
    roster::Standing,
};
use super::{PoolError, actor::Actor, settle::fresh_key};
use crate::identity::{NodeId, Signer};

/// What an invite is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteOptions {
    /// What its users may do. Only the owner of the pool can grant `admin`.
    pub grants: Grants,
    /// How long it can be used, in milliseconds: a day. At least a minute.
    pub life: Millis,
    /// By how many machines: one.
    pub uses: u32,
    /// A name for the machine that uses it.
    pub hint: Option<String>,
    /// Where other issuers can be dialled; this machine's addresses come first.
    pub routes: Vec<Route>,
}

impl Default for InviteOptions {
    fn default() -> Self {
        Self { grants: Grants::default(), life: DAY, uses: 1, hint: None, routes: Vec::new() }
    }
}

/// An invite that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invited {
    /// The printed form, with the secret.
    pub invite: String,
    /// Its public name.
    pub id: InviteId,
    /// Until when it can be used, in milliseconds since the Unix epoch.
    pub expires: Millis,
    /// By how many machines.
    pub uses: u32,
    /// How many addresses it holds; with none it can be used on the same machine only.
    pub addresses: usize,
}

/// What was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// `node` or `invite`.
    pub kind: &'static str,
    /// Its public key.
    pub id: NodeId,
    /// Its name, if it has one.
    pub name: Option<String>,
}

impl Actor {
    /// Makes an invite; it is on disk, and on its way to the other members, when this returns.
    pub(super) async fn invite(&mut self, options: InviteOptions) -> Result<Invited, PoolError> {
        options.grants.check()?;
        let hint = options.hint.as_deref().map(names::clean).transpose()?;
        let (now, me) = (self.now(), self.me());
        let seed = draw(&*self.random)?;
        let mine = Route { node: me, addresses: self.addresses.borrow().as_ref().clone() };
        let routes = shorten(std::iter::once(mine).chain(options.routes));
        let home = self.home.as_mut().ok_or(PoolError::NoPool)?;
        let issuer = match (&home.root, options.grants.admin) {
            (Some(root), true) => &root.signer,
            (None, true) => return Err(PoolError::NotOwner),
            _ => home.issuer(&self.signer).ok_or_else(|| not_admin(&home.view))?,
        };
        let id = InviteId(Signer::from_seed(seed).node());
        let expires = now.saturating_add(options.life.max(MINUTE));
        let terms = InviteTerms {
            pool: home.roster.pool(),
            invite: id,
            grants: options.grants,
            issued: now,
            expires,
            uses: options.uses,
            hint,
        };
        let paper = Paper::sign(Statement::Invite(terms), issuer)?;
        let delegation = home.delegation(paper.author());
        let addresses = routes.iter().map(|route| route.addresses.len()).sum();
        let invite = Invite::new(paper.clone(), delegation, seed, routes)?.print()?;
        let (fresh, refused) = home.record(vec![paper], None, now).await?;
        refused.into_iter().next().map_or(Ok(()), Err)?;
        self.push(&fresh, None);
        self.settle().await;
        Ok(Invited { invite, id, expires, uses: options.uses, addresses })
    }

    /// Revokes a machine or an invite, for good. Connected members hear of it at once.
    pub(super) async fn revoke(&mut self, wanted: &str, reason: &str) -> Result<Revoked, PoolError> {
        let (now, me) = (self.now(), self.me());
        let target = self.find(wanted)?;
        if target == Target::Node(me) {
            return Err(PoolError::Oneself);
        }
        let home = self.home.as_ref().ok_or(PoolError::NoPool)?;
        let view = &home.view;
        let delegated = matches!(target, Target::Node(node) if home.delegation(node).is_some());
        let signer = match (&home.root, delegated) {
            (Some(root), true) => &root.signer,
            (None, true) => return Err(PoolError::NotOwner),
            _ => home.issuer(&self.signer).ok_or_else(|| not_admin(view))?,
        };
        let reason = reason.trim();
        let reason = reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or_default().to_owned();
        let revocation = Revocation { pool: view.pool, target, reason, at: now };
        let mut papers = Vec::new();
        if let Target::Node(node) = target {
            papers = self.vouch(node)?;
        }
        papers.push(Paper::sign(Statement::Revocation(revocation), signer)?);
        // A key that the revoked machine knows is worth nothing any more.
        let key = match target {
            Target::Node(_) => Some(Paper::sign(
                fresh_key(view.pool, home.discovery(), now, draw(&*self.random)?),
                &self.signer,
            )?),
            Target::Invite(_) => None,
        };
        let key = key.filter(|_| view.is_issuer(me));
        let (kind, id, name) = match target {
            Target::Node(node) => ("node", node, view.members.get(&node).map(|member| member.name.clone())),
            Target::Invite(invite) => ("invite", invite.0, None),
        };
        let home = self.home.as_mut().ok_or(PoolError::NoPool)?;
        let (fresh, refused) = home.record(papers, key, now).await?;
        refused.into_iter().next().map_or(Ok(()), Err)?;
        self.push(&fresh, None);
        self.settle().await;
        Ok(Revoked { kind, id, name })
    }

    /// Certificates by this machine for the members whose own would fall with their issuer `node`.
    fn vouch(&self, node: NodeId) -> Result<Vec<Paper>, PoolError> {
        let home = self.home.as_ref().ok_or(PoolError::NoPool)?;
        if !home.view.is_issuer(node) || !home.view.is_issuer(self.me()) {
            return Ok(Vec::new());
        }
        let orphans = home.view.current().filter(|member| member.issuer == node && member.node != node);
        let signed = orphans.map(|member| {
            let life = self.settings.life;
            let again = home.roster.again(&home.view, &member.certificate, &member.name, life);
            Ok(Paper::sign(Statement::Certificate(again), &self.signer)?)
        });
        signed.collect()
    }

    /// Gives a member another name; without `wanted`, this machine. Returns the name.
    pub(super) async fn rename(&mut self, wanted: Option<&str>, name: &str) -> Result<String, PoolError> {
        let name = names::clean(name)?;
        let (now, me) = (self.now(), self.me());
        let node = match wanted.map(|wanted| self.find(wanted)).transpose()? {
            None => me,
            Some(Target::Node(node)) => node,
            Some(Target::Invite(_)) => {
                return Err(PoolError::Unknown { what: "member", wanted: wanted.unwrap_or_default().into() });
            }
        };
        let home = self.home.as_mut().ok_or(PoolError::NoPool)?;
        if node != me && !home.view.is_issuer(me) {
            return Err(not_admin(&home.view));
        }
        let others = home.view.members.values().filter(|member| member.node != node);
        if others.into_iter().any(|member| member.standing == Standing::Member && member.name == name) {
            return Err(PoolError::NameTaken { name });
        }
        let earlier = home.roster.papers().filter_map(|paper| match paper.statement() {
            Statement::Rename(it) if it.node == node => Some(it.at.saturating_add(1)),
            _ => None,
        });
        let at = earlier.max().unwrap_or(now).max(now);
        let rename = Rename { pool: home.roster.pool(), node, name, at };
        let paper = Paper::sign(Statement::Rename(rename), &self.signer)?;
        let (fresh, refused) = home.record(vec![paper], None, now).await?;
        refused.into_iter().next().map_or(Ok(()), Err)?;
        let name = home.view.name_of(node);
        self.push(&fresh, None);
        self.settle().await;
        Ok(name)
    }
}

/// As many addresses as an invite holds, the first ones.
fn shorten(routes: impl Iterator<Item = Route>) -> Vec<Route> {
    let mut room = MAX_ADDRESSES;
    let mut short = Vec::new();
    for mut route in routes {
        route.addresses.truncate(room);
        room -= route.addresses.len();
        if !route.addresses.is_empty() || short.is_empty() {
            short.push(route);
        }
    }
    short
}

fn not_admin(view: &super::super::roster::View) -> PoolError {
    PoolError::NotAdmin { admins: view.issuers.iter().map(|node| view.name_of(*node)).collect() }
}
