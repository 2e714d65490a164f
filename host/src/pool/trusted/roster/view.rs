//! What the papers say, taken together, at a moment.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::{
    clock::{DAY, Millis},
    grants::Grants,
    names,
    papers::{
        Certificate, InviteId, InviteTerms, Paper, Pool, PoolId, Rename, Revocation, Statement, Target, Vote,
    },
};
use super::{Ballot, LAPSE, Roster, votes};
use crate::identity::NodeId;

/// How long the holder of an invite that ended still hears why: a week.
const ANSWERED: Millis = 7 * DAY;

/// Whether a machine counts as a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It does.
    Member,
    /// It was thrown out, for good.
    Revoked,
    /// It left.
    Left,
    /// Its certificate ran out. An issuer renews it when they meet, for up to [`LAPSE`].
    Expired,
    /// It joined with an invite that others had used up at the same time elsewhere.
    Surplus,
    /// Its certificate is signed by a machine that may no longer issue any.
    Void,
}

/// A machine that is or was a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The machine.
    pub node: NodeId,
    /// Its name, which nobody else in the pool has.
    pub name: String,
    /// Whether it counts.
    pub standing: Standing,
    /// The certificate that holds, or the last that did.
    pub certificate: Certificate,
    /// Who signed that.
    pub issuer: NodeId,
    /// Why it was thrown out.
    pub reason: Option<String>,
    /// When it ceased to count, in milliseconds since the Unix epoch; `None` while it does.
    pub ended: Option<Millis>,
}

/// An invite that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenInvite {
    /// What it says.
    pub terms: InviteTerms,
    /// Who made it.
    pub issuer: NodeId,
    /// How many more machines can use it.
    pub left: u32,
}

/// What the papers of a pool say at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The pool.
    pub pool: PoolId,
    /// Its name.
    pub name: String,
    /// The moment, in milliseconds since the Unix epoch.
    pub now: Millis,
    /// Machines that may issue papers now.
    pub issuers: BTreeSet<NodeId>,
    /// Machines that are or were members.
    pub members: BTreeMap<NodeId, Member>,
    /// Machines that were thrown out, whether they were members or not.
    pub revoked: BTreeMap<NodeId, Revocation>,
    /// Invites that can be used now.
    pub invites: BTreeMap<InviteId, OpenInvite>,
    /// Invites whose holders are let in as far as the door: open ones, and those that were used up, ran out or were
    /// revoked lately, so that their holders get their certificate again, or hear why not. The second part says
    /// whether only the owner can answer.
    pub guests: BTreeMap<InviteId, bool>,
    /// How many members must vote for a policy; `None`: the owner decides.
    pub quorum: Option<u32>,
    /// Motions about policies, the newest activation first.
    pub ballots: Vec<Ballot>,
}

/// The papers by kind.
#[derive(Default)]
struct Sorted<'r> {
    pool: Option<&'r Pool>,
    delegated: BTreeSet<NodeId>,
    invites: Vec<(&'r InviteTerms, NodeId)>,
    certificates: BTreeMap<NodeId, Vec<(&'r Certificate, &'r Paper)>>,
    revocations: Vec<(&'r Revocation, NodeId)>,
    renames: Vec<(&'r Rename, &'r Paper)>,
    left: BTreeMap<NodeId, Millis>,
    votes: Vec<(&'r Vote, NodeId)>,
}

impl View {
    /// Whether `node` counts as a member.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.standing(node) == Some(Standing::Member)
    }

    /// How `node` stands; `None` for a machine that the papers do not know.
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        if self.revoked.contains_key(&node) {
            return Some(Standing::Revoked);
        }
        self.members.get(&node).map(|member| member.standing)
    }

    /// Whether `node` may issue papers.
    pub fn is_issuer(&self, node: NodeId) -> bool {
        node == self.pool.0 || self.issuers.contains(&node)
    }

    /// Members that count.
    pub fn current(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.standing == Standing::Member)
    }

    /// What `node` may do, if it is a member. Who may administer is for the root's papers to say, not for a
    /// certificate.
    pub fn grants(&self, node: NodeId) -> Option<Grants> {
        let member = self.members.get(&node).filter(|_| self.is_member(node))?;
        Some(Grants { admin: self.issuers.contains(&node), ..member.certificate.grants.clone() })
    }

    /// The name of `node` for people.
    pub fn name_of(&self, node: NodeId) -> String {
        if node == self.pool.0 {
            return "the pool's owner".into();
        }
        self.members.get(&node).map_or_else(|| node.short(), |member| member.name.clone())
    }

    /// Whether `node`'s certificate ran out so recently that it is renewed without a new invite.
    pub fn lapsed(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| {
            member.standing == Standing::Expired
                && !self.revoked.contains_key(&node)
                && member.certificate.expires.saturating_add(LAPSE) > self.now
        })
    }
}

impl Roster {
    /// What the papers say at `now`.
    pub fn view(&self, now: Millis) -> View {
        let sorted = self.sort();
        let root = self.pool.0;
        let revoked = revoked(&sorted, root);
        let mut issuers = sorted.delegated.clone();
        issuers.retain(|node| !revoked.contains_key(node));
        let valid = |author: NodeId| author == root || issuers.contains(&author);
        let counted = count_uses(&sorted, &valid);
        let mut members = BTreeMap::new();
        for (node, certificates) in &sorted.certificates {
            let member = judge(*node, certificates, &valid, &counted.losers, now);
            members.extend(member.map(|member| (*node, member)));
        }
        for (node, member) in &mut members {
            if let Some(revocation) = revoked.get(node) {
                member.standing = Standing::Revoked;
                member.reason = Some(revocation.reason.clone()).filter(|reason| !reason.is_empty());
                member.ended = Some(revocation.at);
            } else if let Some(at) = sorted.left.get(node).filter(|at| **at >= member.certificate.joined) {
                member.standing = Standing::Left;
                member.ended = Some(*at);
            }
        }
        name(&mut members, &sorted.renames, &valid);
        issuers.retain(|node| members.get(node).is_none_or(|member| member.standing != Standing::Left));
        let (invites, guests) = open_invites(&sorted, &issuers, root, &counted.used, now);
        let quorum = sorted.pool.and_then(|pool| pool.quorum);
        let counts = |vote: &Vote, author| may_vote(vote, author, quorum, root, &members, &sorted.left);
        let ballots = votes::count(&sorted.votes, quorum, counts);
        let name = sorted.pool.map_or_else(String::new, |pool| pool.name.clone());
        View { pool: self.pool, name, now, issuers, members, revoked, invites, guests, quorum, ballots }
    }

    fn sort(&self) -> Sorted<'_> {
        let mut sorted = Sorted::default();
        for paper in self.papers() {
            match paper.statement() {
                Statement::Pool(it) => sorted.pool = Some(it),
                Statement::Delegation(it) => {
                    sorted.delegated.insert(it.node);
                }
                Statement::Invite(it) => sorted.invites.push((it, paper.author())),
                Statement::Certificate(it) => {
                    sorted.certificates.entry(it.node).or_default().push((it, paper));
                }
                Statement::Revocation(it) => sorted.revocations.push((it, paper.author())),
                Statement::Rename(it) => sorted.renames.push((it, paper)),
                Statement::Leave(it) => {
                    sorted.left.insert(it.node, it.at);
                }
                Statement::Vote(it) => sorted.votes.push((it, paper.author())),
                Statement::Discovery(_) => {}
            }
        }
        sorted
    }
}

/// The machines that were thrown out. Issuers are thrown out by the root alone: two that revoke each other would
/// otherwise have no outcome that everyone agrees on. A revocation outlives its author: rather one too many out.
fn revoked(sorted: &Sorted<'_>, root: NodeId) -> BTreeMap<NodeId, Revocation> {
    let mut revoked: BTreeMap<NodeId, Revocation> = BTreeMap::new();
    for (revocation, author) in &sorted.revocations {
        let Target::Node(node) = revocation.target else { continue };
        if *author != root && sorted.delegated.contains(&node) {
            continue;
        }
        match revoked.get(&node) {
            Some(held) if (held.at, &held.reason) <= (revocation.at, &revocation.reason) => {}
            _ => {
                revoked.insert(node, (*revocation).clone());
            }
        }
    }
    revoked
}

/// Who used which invite.
struct Uses {
    /// How many machines, by invite.
    used: BTreeMap<InviteId, u32>,
    /// Machines that came after the last use.
    losers: BTreeSet<(InviteId, NodeId)>,
}

fn count_uses(sorted: &Sorted<'_>, valid: &impl Fn(NodeId) -> bool) -> Uses {
    let mut users: BTreeMap<InviteId, BTreeMap<NodeId, Millis>> = BTreeMap::new();
    for (certificate, paper) in sorted.certificates.values().flatten() {
        let Some(invite) = certificate.invite.filter(|_| valid(paper.author())) else { continue };
        let joined = users.entry(invite).or_default().entry(certificate.node).or_insert(certificate.joined);
        *joined = (*joined).min(certificate.joined);
    }
    let mut uses = Uses { used: BTreeMap::new(), losers: BTreeSet::new() };
    for (invite, nodes) in users {
        uses.used.insert(invite, u32::try_from(nodes.len()).unwrap_or(u32::MAX));
        let of = |(terms, author): &&(&InviteTerms, NodeId)| terms.invite == invite && valid(*author);
        let Some(most) = sorted.invites.iter().filter(of).map(|(terms, _)| terms.uses).max() else {
            continue;
        };
        let mut order: Vec<(Millis, NodeId)> = nodes.iter().map(|(node, joined)| (*joined, *node)).collect();
        order.sort_unstable();
        let losers = order.into_iter().skip(usize::try_from(most).unwrap_or(usize::MAX));
        uses.losers.extend(losers.map(|(_, node)| (invite, node)));
    }
    uses
}

/// Whether a vote counts: the root's where the owner decides, otherwise one for each machine that is a member, or
/// was one when it voted and was not thrown out since.
fn may_vote(
    vote: &Vote,
    author: NodeId,
    quorum: Option<u32>,
    root: NodeId,
    members: &BTreeMap<NodeId, Member>,
    left: &BTreeMap<NodeId, Millis>,
) -> bool {
    if quorum.is_none() {
        return author == root;
    }
    members.get(&author).is_some_and(|member| match member.standing {
        Standing::Member | Standing::Expired => true,
        Standing::Left => left.get(&author).is_some_and(|at| vote.at < *at),
        Standing::Revoked | Standing::Surplus | Standing::Void => false,
    })
}

/// How a machine stands by its certificates alone: the highest serial that counts holds.
fn judge(
    node: NodeId,
    certificates: &[(&Certificate, &Paper)],
    valid: &impl Fn(NodeId) -> bool,
    losers: &BTreeSet<(InviteId, NodeId)>,
    now: Millis,
) -> Option<Member> {
    let weigh = |(certificate, paper): &(&Certificate, &Paper)| {
        let signed = valid(paper.author());
        let won = certificate.invite.is_none_or(|invite| !losers.contains(&(invite, node)));
        (signed, won)
    };
    let best = certificates.iter().max_by_key(|held| {
        let (certificate, paper) = held;
        let (signed, won) = weigh(held);
        (signed && won, signed, certificate.serial, certificate.issued, paper.digest())
    })?;
    let standing = match weigh(best) {
        (false, _) => Standing::Void,
        (true, false) => Standing::Surplus,
        (true, true) if best.0.expires <= now => Standing::Expired,
        (true, true) => Standing::Member,
    };
    Some(Member {
        node,
        name: String::new(),
        standing,
        certificate: best.0.clone(),
        issuer: best.1.author(),
        reason: None,
        ended: (standing != Standing::Member).then_some(best.0.expires),
    })
}

/// Gives each machine the name that it should have, or that with a number if another was there first. Members
/// choose before those that are gone.
fn name(
    members: &mut BTreeMap<NodeId, Member>,
    renames: &[(&Rename, &Paper)],
    valid: &impl Fn(NodeId) -> bool,
) {
    let mut wanted: BTreeMap<NodeId, (&Rename, &Paper)> = BTreeMap::new();
    for (rename, paper) in renames {
        if paper.author() != rename.node && !valid(paper.author()) {
            continue;
        }
        match wanted.get(&rename.node) {
            Some((held, by)) if (held.at, by.digest()) >= (rename.at, paper.digest()) => {}
            _ => {
                wanted.insert(rename.node, (rename, paper));
            }
        }
    }
    let mut order: Vec<(bool, Millis, NodeId)> = members
        .values()
        .map(|member| (member.standing != Standing::Member, member.certificate.joined, member.node))
        .collect();
    order.sort_unstable();
    let mut taken = BTreeSet::new();
    for (_, _, node) in order {
        let Some(member) = members.get_mut(&node) else { continue };
        // A name that was asked for before the machine joined again is of an earlier time.
        let rename = wanted.get(&node).filter(|(rename, _)| rename.at >= member.certificate.joined);
        let wish = rename.map_or(&member.certificate.name, |(rename, _)| &rename.name).clone();
        member.name = free(&wish, &taken);
        taken.insert(member.name.clone());
    }
}

/// `wish`, or with the lowest number from 2 on that makes it free.
pub(super) fn free(wish: &str, taken: &BTreeSet<String>) -> String {
    let numbered = (2_usize..).map(|number| names::numbered(wish, number));
    let mut candidates = std::iter::once(wish.to_owned()).chain(numbered);
    candidates.find(|name| !taken.contains(name)).unwrap_or_default()
}

/// Open invites, and those whose holders are still answered.
fn open_invites(
    sorted: &Sorted<'_>,
    issuers: &BTreeSet<NodeId>,
    root: NodeId,
    used: &BTreeMap<InviteId, u32>,
    now: Millis,
) -> (BTreeMap<InviteId, OpenInvite>, BTreeMap<InviteId, bool>) {
    let mut revoked: BTreeMap<InviteId, Millis> = BTreeMap::new();
    for (it, _) in &sorted.revocations {
        if let Target::Invite(invite) = it.target {
            let at = revoked.entry(invite).or_insert(it.at);
            *at = (*at).min(it.at);
        }
    }
    let (mut open, mut guests) = (BTreeMap::new(), BTreeMap::new());
    for (terms, author) in &sorted.invites {
        let ended = revoked.get(&terms.invite).map_or(terms.expires, |at| terms.expires.min(*at));
        if ended.saturating_add(ANSWERED) > now {
            guests.insert(terms.invite, terms.grants.admin);
        }
        let left = terms.uses.saturating_sub(used.get(&terms.invite).copied().unwrap_or(0));
        let valid = *author == root || issuers.contains(author);
        if valid && left > 0 && terms.expires > now && !revoked.contains_key(&terms.invite) {
            open.insert(terms.invite, OpenInvite { terms: (*terms).clone(), issuer: *author, left });
        }
    }
    (open, guests)
}
