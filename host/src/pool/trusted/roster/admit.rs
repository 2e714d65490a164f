//! Whether a machine that shows an invite becomes a member, and with which certificate.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use super::super::{
    clock::{Millis, SKEW, spoken},
    papers::{Certificate, InviteId, InviteTerms, Statement, Target},
};
use super::{MAX_MEMBERS, Roster, Standing, View, view::free};
use crate::identity::NodeId;

/// A certificate to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The machine has one that holds: nothing to do, nothing used up.
    Held,
    /// This one is to be issued.
    Issue(Box<Certificate>),
}

/// Why a machine is not admitted. Travels as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Encode, Decode)]
pub enum JoinRefusal {
    /// Nobody here knows the invite.
    #[error("this invite is not known there: it may be damaged or of another pool; ask for a new one")]
    #[n(0)]
    Unknown,
    /// Too late.
    #[error("this invite expired {} ago; ask {by} for a new one", spoken(*since))]
    #[n(1)]
    Expired {
        /// How long ago, in milliseconds.
        #[n(0)]
        since: Millis,
        /// Who made it.
        #[n(1)]
        by: String,
    },
    /// As many machines as it allows have joined with it.
    #[error("this invite is used up ({uses} of {uses}); ask {by} for a new one")]
    #[n(2)]
    UsedUp {
        /// By how many it can be used.
        #[n(0)]
        uses: u32,
        /// Who made it.
        #[n(1)]
        by: String,
    },
    /// It was revoked.
    #[error("this invite was revoked; ask {by} for a new one")]
    #[n(3)]
    InviteRevoked {
        /// Who made it.
        #[n(0)]
        by: String,
    },
    /// The machine was thrown out.
    #[error(
        "this machine was revoked from the pool for good{}; to come back it needs a new key",
        because(reason)
    )]
    #[n(4)]
    NodeRevoked {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// The clocks differ.
    #[error(
        "the clock of this machine is {} {} that of {by}: set the right one (for instance with NTP), then join again",
        spoken(*ahead),
        if *ahead > 0 { "ahead of" } else { "behind" }
    )]
    #[n(5)]
    Clock {
        /// How far the joiner's clock is ahead, in milliseconds.
        #[n(0)]
        ahead: Millis,
        /// With whose clock it was compared.
        #[n(1)]
        by: String,
    },
    /// Too many join at once.
    #[error("too many machines are joining there: try again in {} s", wait.div_ceil(1000))]
    #[n(6)]
    Busy {
        /// How long to wait, in milliseconds.
        #[n(0)]
        wait: u64,
    },
    /// The pool is full.
    #[error("the pool has {members} members and can hold no more: revoke some that are gone")]
    #[n(7)]
    Full {
        /// How many there are.
        #[n(0)]
        members: u32,
    },
    /// That machine admits nobody.
    #[error("{by} may not admit members: ask an administrator of the pool for a new invite")]
    #[n(8)]
    NotIssuer {
        /// Its name.
        #[n(0)]
        by: String,
    },
    /// Only the holder of the root key makes administrators.
    #[error("this invite makes administrators, and {by} does not hold the pool's root key: dial its owner")]
    #[n(9)]
    NeedsRoot {
        /// Its name.
        #[n(0)]
        by: String,
    },
    /// The name cannot be used.
    #[error("{what}; choose another with --name")]
    #[n(10)]
    Name {
        /// What is wrong.
        #[n(0)]
        what: String,
    },
    /// The joiner did not prove what it claims.
    #[error("the proof of this machine's key does not hold: something on the way changes what is sent")]
    #[n(11)]
    Proof,
    /// Another pool.
    #[error("{by} is in another pool: this invite's address is out of date; ask for a new one")]
    #[n(12)]
    OtherPool {
        /// Its name.
        #[n(0)]
        by: String,
    },
    /// Its disk, for instance.
    #[error("{by} could not write the certificate down ({what}): try again later")]
    #[n(13)]
    Failed {
        /// Its name.
        #[n(0)]
        by: String,
        /// What went wrong.
        #[n(1)]
        what: String,
    },
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

impl Roster {
    /// Decides about `node`, which holds the key of `invite` and wants to be called `name`. `life` is how long
    /// the certificate is to hold, in milliseconds. Nothing is changed.
    ///
    /// # Errors
    /// [`JoinRefusal`].
    pub fn admit(
        &self,
        view: &View,
        invite: InviteId,
        node: NodeId,
        name: &str,
        life: Millis,
    ) -> Result<Admission, JoinRefusal> {
        if let Some(revocation) = view.revoked.get(&node) {
            return Err(JoinRefusal::NodeRevoked { reason: revocation.reason.clone() });
        }
        let member = view.members.get(&node);
        let known = member.filter(|member| member.certificate.invite == Some(invite));
        match known.map(|member| member.standing) {
            // It has its use of this invite already: its answer was lost, or it slept too long.
            Some(Standing::Member) => return Ok(Admission::Held),
            Some(Standing::Expired) if view.lapsed(node) => {
                return self
                    .renewal(view, node, life)
                    .map(|it| Admission::Issue(Box::new(it)))
                    .ok_or(JoinRefusal::Unknown);
            }
            _ => {}
        }
        let terms = self.usable(view, invite)?;
        if view.current().count() >= MAX_MEMBERS {
            return Err(JoinRefusal::Full { members: u32::try_from(MAX_MEMBERS).unwrap_or(u32::MAX) });
        }
        let taken: BTreeSet<String> = view
            .members
            .values()
            .filter(|other| other.node != node && other.standing != Standing::Left)
            .map(|other| other.name.clone())
            .collect();
        // After whatever it said when it left, even if that was signed by a clock slightly ahead.
        let joined = view.now.max(self.left_at(node).map_or(0, |at| at.saturating_add(1)));
        Ok(Admission::Issue(Box::new(Certificate {
            pool: view.pool,
            node,
            name: free(name, &taken),
            grants: terms.grants.clone(),
            joined,
            issued: joined,
            expires: joined.saturating_add(life),
            serial: self.next_serial(node),
            invite: Some(invite),
        })))
    }

    /// The next certificate of a member that has one or had one lately; `None` for any other machine.
    pub fn renewal(&self, view: &View, node: NodeId, life: Millis) -> Option<Certificate> {
        let member = view.members.get(&node)?;
        let renewable = view.is_member(node) || view.lapsed(node);
        renewable.then(|| self.again(view, &member.certificate, &member.name, life))
    }

    /// A certificate like `old`, as of now.
    pub(in super::super) fn again(
        &self,
        view: &View,
        old: &Certificate,
        name: &str,
        life: Millis,
    ) -> Certificate {
        Certificate {
            name: name.to_owned(),
            issued: view.now.max(old.joined),
            expires: view.now.max(old.joined).saturating_add(life),
            serial: self.next_serial(old.node),
            ..old.clone()
        }
    }

    /// The invite, if it can be used; otherwise why not.
    fn usable<'v>(&self, view: &'v View, invite: InviteId) -> Result<&'v InviteTerms, JoinRefusal> {
        if let Some(open) = view.invites.get(&invite) {
            return Ok(&open.terms);
        }
        let mut revoked = false;
        let mut found: Option<(&InviteTerms, NodeId)> = None;
        for paper in self.papers() {
            match paper.statement() {
                Statement::Invite(it) if it.invite == invite => found = Some((it, paper.author())),
                Statement::Revocation(it) => revoked |= it.target == Target::Invite(invite),
                _ => {}
            }
        }
        let (terms, issuer) = found.ok_or(JoinRefusal::Unknown)?;
        let by = view.name_of(issuer);
        Err(match view.now.saturating_sub(terms.expires) {
            _ if revoked || !view.is_issuer(issuer) => JoinRefusal::InviteRevoked { by },
            since if since >= 0 => JoinRefusal::Expired { since, by },
            _ => JoinRefusal::UsedUp { uses: terms.uses, by },
        })
    }

    fn left_at(&self, node: NodeId) -> Option<Millis> {
        self.papers().find_map(|paper| match paper.statement() {
            Statement::Leave(it) if it.node == node => Some(it.at),
            _ => None,
        })
    }

    fn next_serial(&self, node: NodeId) -> u64 {
        let serials = self.papers().filter_map(|paper| match paper.statement() {
            Statement::Certificate(it) if it.node == node => Some(it.serial),
            _ => None,
        });
        serials.max().map_or(1, |serial| serial.saturating_add(1))
    }
}

/// Whether two clocks are too far apart to make papers for each other.
pub(in super::super) fn clocks(ahead: Millis, by: &str) -> Result<(), JoinRefusal> {
    if ahead.saturating_abs() > SKEW { Err(JoinRefusal::Clock { ahead, by: by.to_owned() }) } else { Ok(()) }
}
