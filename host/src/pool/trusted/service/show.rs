//! What people see of the pool.

use serde::Serialize;

use super::super::{
    clock::Millis,
    grants::Grants,
    papers::{InviteId, PoolId, Statement, Target},
    roster::{Member, Standing},
};
use super::{PoolError, Problem, actor::Actor};
use crate::identity::NodeId;

/// Shortest part of an id that stands for all of it, in digits.
const MIN_PREFIX: usize = 4;

/// A line of `pool members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberRow {
    /// The machine.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it is this machine.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Whether it is admitted now. This machine always is, as long as it is a member.
    pub online: bool,
    /// Which way the connection takes.
    pub path: Option<String>,
    /// When something was heard of it last, in milliseconds since the Unix epoch.
    pub last_seen: Option<Millis>,
    /// What it may do, while it is a member.
    pub grants: Grants,
    /// Until when its certificate holds, in milliseconds since the Unix epoch.
    pub expires: Millis,
    /// When it ceased to be a member, in milliseconds since the Unix epoch.
    pub ended: Option<Millis>,
    /// Whether it counts as a member.
    pub status: Standing,
}

/// Everything about one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberDetail {
    /// As in the list.
    #[serde(flatten)]
    pub row: MemberRow,
    /// When it joined, in milliseconds since the Unix epoch.
    pub joined: Millis,
    /// When its certificate was issued, in milliseconds since the Unix epoch.
    pub issued: Millis,
    /// Counts its certificates.
    pub serial: u64,
    /// Who signed its certificate.
    pub issuer: NodeId,
    /// The name of that machine.
    pub issuer_name: String,
    /// The invite that it came with.
    pub invite: Option<InviteId>,
    /// Why it was revoked.
    pub reason: Option<String>,
    /// How far its clock is ahead of this machine's, in milliseconds, while it is connected.
    pub clock_ahead: Option<Millis>,
}

/// What this machine is in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It holds the root key.
    Owner,
    /// It may issue papers.
    Admin,
    /// A member.
    Member,
    /// Not a member any more, or not yet again.
    Outside,
}

/// The pool in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Its id.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// What this machine is in it.
    pub role: Role,
    /// How this machine stands.
    pub status: Option<Standing>,
    /// Until when this machine's certificate holds, in milliseconds since the Unix epoch.
    pub expires: Option<Millis>,
    /// Which discovery key holds.
    pub epoch: u64,
    /// How many members there are.
    pub members: usize,
    /// How many of the others are admitted now.
    pub online: usize,
    /// How many invites are open.
    pub invites: usize,
    /// How many machines were revoked.
    pub revoked: usize,
    /// How many papers there are.
    pub papers: usize,
}

/// What `pool status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// This machine.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The pool that it is in.
    pub pool: Option<PoolStatus>,
    /// The last problems, the newest first.
    pub problems: Vec<Problem>,
}

impl Actor {
    /// All machines that are or were members; those that are come first, by name.
    pub(super) fn members(&self) -> Result<Vec<MemberRow>, PoolError> {
        let home = self.home.as_ref().ok_or(PoolError::NoPool)?;
        let mut rows: Vec<MemberRow> = home.view.members.values().map(|member| self.row(member)).collect();
        rows.sort_by(|a, b| (a.status, &a.name, a.id).cmp(&(b.status, &b.name, b.id)));
        Ok(rows)
    }

    fn row(&self, member: &Member) -> MemberRow {
        let node = member.node;
        let is_self = node == self.me();
        let admitted = self.talks.get(&node).is_some_and(|talk| talk.admitted.is_some());
        let admin = self.home.as_ref().is_some_and(|home| home.view.issuers.contains(&node));
        let online = if is_self { member.standing == Standing::Member } else { admitted };
        MemberRow {
            id: node,
            name: member.name.clone(),
            is_self,
            online,
            path: self.links.get(&node).map(|link| link.path.clone()),
            last_seen: if online { Some(self.now()) } else { self.last_seen.get(&node).copied() },
            grants: Grants { admin, ..member.certificate.grants.clone() },
            expires: member.certificate.expires,
            ended: member.ended,
            status: member.standing,
        }
    }

    /// One member.
    pub(super) fn show(&self, wanted: &str) -> Result<MemberDetail, PoolError> {
        let unknown = || PoolError::Unknown { what: "member", wanted: wanted.into() };
        let home = self.home.as_ref().ok_or(PoolError::NoPool)?;
        let Target::Node(node) = self.find(wanted)? else { return Err(unknown()) };
        let member = home.view.members.get(&node).ok_or_else(unknown)?;
        Ok(MemberDetail {
            row: self.row(member),
            joined: member.certificate.joined,
            issued: member.certificate.issued,
            serial: member.certificate.serial,
            issuer: member.issuer,
            issuer_name: home.view.name_of(member.issuer),
            invite: member.certificate.invite,
            reason: member.reason.clone(),
            clock_ahead: self.talks.get(&node).filter(|talk| talk.greeted).map(|talk| talk.ahead),
        })
    }

    /// The pool in short, and what went wrong lately.
    pub(super) fn status(&self) -> Status {
        let me = self.me();
        let pool = self.home.as_ref().map(|home| {
            let view = &home.view;
            let standing = view.standing(me);
            let role = match standing {
                Some(Standing::Member) if home.root.is_some() => Role::Owner,
                Some(Standing::Member) if view.is_issuer(me) => Role::Admin,
                Some(Standing::Member) => Role::Member,
                _ => Role::Outside,
            };
            PoolStatus {
                id: view.pool,
                name: view.name.clone(),
                role,
                status: standing,
                expires: view.members.get(&me).map(|member| member.certificate.expires),
                epoch: home.discovery().map_or(0, |key| key.epoch),
                members: view.current().count(),
                online: self.talks.values().filter(|talk| talk.admitted.is_some()).count(),
                invites: view.invites.len(),
                revoked: view.revoked.len(),
                papers: home.roster.len(),
            }
        });
        let name = self.home.as_ref().and_then(|home| Some(home.view.members.get(&me)?.name.clone()));
        let name = name.unwrap_or_else(|| self.settings.name.clone());
        Status { node: me, name, pool, problems: self.problems.list() }
    }

    /// What a name, an id, or the beginning of an id stands for. A name is stronger than an id, who is a member
    /// stronger than who was.
    pub(super) fn find(&self, wanted: &str) -> Result<Target, PoolError> {
        let wanted = wanted.trim();
        let view = &self.home.as_ref().ok_or(PoolError::NoPool)?.view;
        let mut named = view.members.values().filter(|member| member.name == wanted);
        if let Some(member) = named.next() {
            return Ok(Target::Node(member.node));
        }
        let digits = wanted.to_lowercase();
        let long = digits.len() >= MIN_PREFIX;
        let begins = |key: &NodeId| long && key.to_string().starts_with(&digits);
        let nodes = view.members.keys().filter(|node| begins(node)).map(|node| Target::Node(*node));
        let invites = self.home.iter().flat_map(|home| home.roster.papers()).filter_map(|paper| match paper
            .statement()
        {
            Statement::Invite(it) if begins(&it.invite.0) => Some(Target::Invite(it.invite)),
            _ => None,
        });
        let mut found: Vec<Target> = nodes.chain(invites).collect();
        found.dedup();
        match found.as_slice() {
            [] => Err(PoolError::Unknown { what: "member or invite", wanted: wanted.into() }),
            [one] => Ok(*one),
            many => {
                let name = |target: &Target| match target {
                    Target::Node(node) => format!("{} ({})", view.name_of(*node), node.short()),
                    Target::Invite(invite) => format!("invite {}", invite.0.short()),
                };
                let matches = many.iter().take(8).map(name).collect();
                Err(PoolError::Ambiguous { wanted: wanted.into(), matches })
            }
        }
    }
}
