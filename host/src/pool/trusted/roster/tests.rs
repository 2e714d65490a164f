use proptest::prelude::*;

use super::super::clock::{DAY, HOUR, MINUTE};
use super::super::grants::Grants;
use super::super::papers::{
    Certificate, Delegation, Discovery, InviteId, InviteTerms, Leave, Motion, Pool, Rename, Revocation,
    Target, Vote,
};
use super::*;
use crate::identity::Signer;

const NOW: Millis = 1_800_000_000_000;
const LIFE: Millis = 14 * DAY;

fn signer(byte: u8) -> Signer {
    Signer::from_seed([byte; 32])
}

fn node(byte: u8) -> NodeId {
    signer(byte).node()
}

fn pool() -> PoolId {
    PoolId(node(0))
}

fn sign(statement: Statement, by: u8) -> Paper {
    Paper::sign(statement, &signer(by)).unwrap()
}

fn invite_id(number: u8) -> InviteId {
    InviteId(node(200 + number))
}

fn delegation(to: u8) -> Paper {
    sign(Statement::Delegation(Delegation { pool: pool(), node: node(to), issued: NOW }), 0)
}

fn invite(number: u8, uses: u32, by: u8) -> Paper {
    let terms = InviteTerms {
        pool: pool(),
        invite: invite_id(number),
        grants: Grants::default(),
        issued: NOW,
        expires: NOW + DAY,
        uses,
        hint: None,
    };
    sign(Statement::Invite(terms), by)
}

fn certificate(to: u8, name: &str, joined: Millis, serial: u64, with: Option<u8>, by: u8) -> Paper {
    let it = Certificate {
        pool: pool(),
        node: node(to),
        name: name.into(),
        grants: Grants::default(),
        joined,
        issued: joined,
        expires: joined + LIFE,
        serial,
        invite: with.map(invite_id),
    };
    sign(Statement::Certificate(it), by)
}

fn revoke(target: Target, at: Millis, by: u8) -> Paper {
    sign(Statement::Revocation(Revocation { pool: pool(), target, reason: "gone".into(), at }), by)
}

fn rename(to: u8, name: &str, at: Millis, by: u8) -> Paper {
    sign(Statement::Rename(Rename { pool: pool(), node: node(to), name: name.into(), at }), by)
}

fn leave(who: u8, at: Millis) -> Paper {
    sign(Statement::Leave(Leave { pool: pool(), node: node(who), at }), who)
}

/// A pool with the issuers 1 and 2.
fn base() -> Roster {
    let name = Pool { pool: pool(), name: "home".into(), created: NOW, quorum: None };
    roster(vec![
        sign(Statement::Pool(name), 0),
        delegation(1),
        delegation(2),
        certificate(1, "one", NOW, 1, None, 1),
        certificate(2, "two", NOW, 1, None, 1),
    ])
}

fn roster(papers: Vec<Paper>) -> Roster {
    let mut roster = Roster::new(pool());
    for paper in papers {
        roster.insert(paper, NOW).unwrap();
    }
    roster
}

fn with(mut roster: Roster, papers: Vec<Paper>) -> Roster {
    for paper in papers {
        roster.insert(paper, NOW).unwrap();
    }
    roster
}

#[test]
fn refusals_are_typed() {
    let mut roster = base();
    let mut refused = |paper: Paper| roster.insert(paper, NOW).unwrap_err();
    let unauthorised = |error| matches!(error, PaperError::Unauthorised { .. });
    assert!(unauthorised(refused(invite(1, 1, 9))));
    assert!(unauthorised(refused(certificate(9, "nine", NOW, 1, None, 9))));
    assert!(unauthorised(refused(revoke(Target::Node(node(1)), NOW, 9))));
    assert!(unauthorised(refused(rename(1, "x", NOW, 9))));
    assert!(unauthorised(refused(leave(9, NOW))));
    let by_issuer = Delegation { pool: pool(), node: node(9), issued: NOW };
    assert!(unauthorised(refused(sign(Statement::Delegation(by_issuer), 1))));
    let key = Discovery { pool: pool(), epoch: 1, key: [0; 32], at: NOW };
    assert!(unauthorised(refused(sign(Statement::Discovery(key), 0))));
    let admin = InviteTerms {
        pool: pool(),
        invite: invite_id(1),
        grants: Grants { admin: true, ..Grants::default() },
        issued: NOW,
        expires: NOW + DAY,
        uses: 1,
        hint: None,
    };
    assert!(unauthorised(refused(sign(Statement::Invite(admin), 1))));
    let early = refused(certificate(9, "nine", NOW + 3 * HOUR, 1, None, 1));
    assert!(early.to_string().contains("3 h in the future: the clock of this machine"), "{early}");
    assert!(roster.insert(certificate(9, "nine", NOW + 9 * MINUTE, 1, None, 1), NOW).unwrap());
    let old = certificate(9, "nine", NOW - LAPSE - LIFE - DAY, 1, None, 2);
    assert!(matches!(roster.insert(old, NOW), Err(PaperError::Expired { .. })));
}

#[test]
fn a_paper_of_another_pool_is_refused() {
    let elsewhere = PoolId(node(77));
    let it = Delegation { pool: elsewhere, node: node(9), issued: NOW };
    let sealed = Paper::sign(Statement::Delegation(it), &signer(77)).unwrap().sealed().clone();
    assert!(matches!(base().receive(sealed, NOW), Err(PaperError::OtherPool { .. })));
}

#[test]
fn too_many_users_of_an_invite_have_one_outcome() {
    let common = with(base(), vec![invite(1, 1, 1)]);
    // Two issuers admit one machine each, without knowing of each other.
    let left = with(common.clone(), vec![certificate(8, "eight", NOW + 20, 1, Some(1), 1)]);
    let right = with(common, vec![certificate(7, "seven", NOW + 10, 1, Some(1), 2)]);
    assert_eq!(left.view(NOW).standing(node(8)), Some(Standing::Member));
    for (mut a, b) in [(left.clone(), &right), (right.clone(), &left)] {
        a.merge(b, NOW);
        let view = a.view(NOW);
        assert_eq!(view.standing(node(7)), Some(Standing::Member));
        assert_eq!(view.standing(node(8)), Some(Standing::Surplus));
        assert!(view.invites.is_empty());
        assert_eq!(a.renewal(&view, node(8), LIFE), None);
    }
}

#[test]
fn admission_counts_and_names() {
    let mut roster = with(base(), vec![invite(1, 2, 1)]);
    let admit =
        |roster: &Roster, who: u8, now| roster.admit(&roster.view(now), invite_id(1), node(who), "two", LIFE);
    let Ok(Admission::Issue(first)) = admit(&roster, 5, NOW) else { panic!() };
    assert_eq!((first.name.as_str(), first.serial), ("two-2", 1));
    roster.insert(sign(Statement::Certificate(*first), 1), NOW).unwrap();
    assert_eq!(admit(&roster, 5, NOW), Ok(Admission::Held));
    assert_eq!(roster.view(NOW).invites[&invite_id(1)].left, 1);
    let late = admit(&roster, 6, NOW + DAY + 3 * HOUR).unwrap_err();
    assert_eq!(late.to_string(), "this invite expired 3 h ago; ask one for a new one");
    let Ok(Admission::Issue(second)) = admit(&roster, 6, NOW) else { panic!() };
    roster.insert(sign(Statement::Certificate(*second), 2), NOW).unwrap();
    let full = admit(&roster, 7, NOW).unwrap_err();
    assert_eq!(full.to_string(), "this invite is used up (2 of 2); ask one for a new one");
    roster.insert(revoke(Target::Node(node(5)), NOW, 2), NOW).unwrap();
    assert!(matches!(admit(&roster, 5, NOW), Err(JoinRefusal::NodeRevoked { .. })));
    assert!(matches!(admit(&roster, 7, NOW), Err(JoinRefusal::UsedUp { .. })));
    roster.insert(revoke(Target::Invite(invite_id(1)), NOW, 2), NOW).unwrap();
    assert!(matches!(admit(&roster, 7, NOW), Err(JoinRefusal::InviteRevoked { .. })));
    assert_eq!(admit(&roster, 6, NOW), Ok(Admission::Held));
    let unknown = roster.admit(&roster.view(NOW), invite_id(9), node(7), "x", LIFE);
    assert_eq!(unknown, Err(JoinRefusal::Unknown));
}

#[test]
fn who_left_or_slept_may_come_back_as_the_papers_say() {
    let mut roster = with(base(), vec![invite(1, 1, 1), certificate(5, "five", NOW, 1, Some(1), 1)]);
    let later = NOW + LIFE + DAY;
    let view = roster.view(later);
    assert_eq!(view.standing(node(5)), Some(Standing::Expired));
    let renewed = roster.renewal(&view, node(5), LIFE).unwrap();
    assert_eq!((renewed.serial, renewed.joined, renewed.expires), (2, NOW, later + LIFE));
    roster.insert(sign(Statement::Certificate(renewed), 2), later).unwrap();
    assert!(roster.view(later).is_member(node(5)));
    roster.insert(leave(5, later), later).unwrap();
    assert_eq!(roster.view(later).standing(node(5)), Some(Standing::Left));
    roster.insert(invite(2, 1, 2), later).unwrap();
    let Ok(Admission::Issue(again)) =
        roster.admit(&roster.view(NOW + HOUR), invite_id(2), node(5), "five", LIFE)
    else {
        panic!()
    };
    assert!(again.joined > later);
    roster.insert(sign(Statement::Certificate(*again), 2), later + 1).unwrap();
    assert!(roster.view(later + 1).is_member(node(5)));
}

#[test]
fn a_revoked_issuer_takes_what_it_signed_with_it_unless_another_vouches() {
    let mut roster =
        with(base(), vec![certificate(5, "five", NOW, 1, None, 2), certificate(6, "six", NOW, 1, None, 2)]);
    // Only the root can revoke an issuer: two of them cannot throw each other out.
    roster.insert(revoke(Target::Node(node(2)), NOW, 1), NOW).unwrap();
    assert!(roster.view(NOW).is_member(node(2)));
    let view = roster.view(NOW);
    let vouched = roster.again(&view, &view.members[&node(5)].certificate, "five", LIFE);
    roster.insert(sign(Statement::Certificate(vouched), 1), NOW).unwrap();
    roster.insert(revoke(Target::Node(node(2)), NOW, 0), NOW).unwrap();
    let view = roster.view(NOW);
    assert_eq!(view.standing(node(2)), Some(Standing::Revoked));
    assert_eq!(view.standing(node(5)), Some(Standing::Member));
    assert_eq!(view.standing(node(6)), Some(Standing::Void));
    // What it signs from now on, whatever date and serial it gives, changes nothing.
    roster.insert(certificate(5, "mallory", NOW, u64::MAX, None, 2), NOW).unwrap();
    roster.insert(certificate(9, "friend", NOW, 1, None, 2), NOW).unwrap();
    let view = roster.view(NOW);
    assert_eq!(view.members[&node(5)].name, "five");
    assert!(!view.is_member(node(9)));
    assert!(!view.is_issuer(node(2)));
}

#[test]
fn names_are_one_each() {
    let roster = with(
        base(),
        vec![
            certificate(5, "two", NOW + 1, 1, None, 1),
            certificate(6, "two", NOW + 2, 1, None, 2),
            rename(5, "five", NOW + 5, 5),
        ],
    );
    let view = roster.view(NOW);
    let name = |who| view.members[&node(who)].name.as_str();
    assert_eq!((name(2), name(5), name(6)), ("two", "five", "two-2"));
    let view = with(roster, vec![rename(5, "one", NOW + 6, 2)]).view(NOW);
    assert_eq!(view.members[&node(5)].name, "one-2");
}

#[test]
fn pruning_drops_what_decides_nothing() {
    let mut roster = with(
        base(),
        vec![
            certificate(5, "five", NOW, 1, None, 1),
            certificate(5, "five", NOW, 2, None, 1),
            rename(5, "x", NOW, 5),
        ],
    );
    assert_eq!(roster.len(), 7);
    assert_eq!(roster.prune(NOW), 0);
    let late = NOW + LIFE + LAPSE + 1;
    roster.insert(revoke(Target::Node(node(5)), late, 1), late).unwrap();
    assert_eq!(roster.prune(late), 4);
    assert_eq!(roster.view(late).standing(node(5)), Some(Standing::Revoked));
}

#[test]
fn there_is_a_cap_for_each_kind() {
    let mut roster = base();
    for number in 0..MAX_KIND as u64 {
        let target = Target::Node(NodeId(Digest::of(&number.to_le_bytes()).0));
        roster.insert(revoke(target, NOW, 1), NOW).unwrap();
    }
    let full = roster.insert(revoke(Target::Node(NodeId([1; 32])), NOW, 1), NOW);
    assert!(matches!(full, Err(PaperError::Full { most: MAX_KIND, .. })));
    assert!(roster.insert(certificate(5, "five", NOW, 1, None, 1), NOW).unwrap());
}

/// A paper of a small world, so that many of them are about the same thing.
fn any_paper() -> impl Strategy<Value = Paper> {
    let (who, by, at) = (3..7_u8, 1..3_u8, 0..4_i64);
    prop_oneof![
        (who.clone(), by.clone(), at.clone(), 0..3_u64, proptest::option::of(1..3_u8))
            .prop_map(|(who, by, at, serial, invite)| certificate(who, "box", NOW + at, serial, invite, by)),
        (1..3_u8, 1..3_u32, by.clone()).prop_map(|(number, uses, by)| invite(number, uses, by)),
        (who.clone(), at.clone(), 0..3_u8).prop_map(|(who, at, by)| revoke(
            Target::Node(node(who)),
            NOW + at,
            by
        )),
        (1..3_u8, at.clone()).prop_map(|(who, at)| revoke(Target::Node(node(who)), NOW + at, 0)),
        (1..3_u8, by.clone()).prop_map(|(number, by)| revoke(Target::Invite(invite_id(number)), NOW, by)),
        (who.clone(), "[ab]", at.clone(), by).prop_map(|(who, name, at, by)| rename(
            who,
            &name,
            NOW + at,
            by
        )),
        (who.clone(), "[ab]", at.clone()).prop_map(|(who, name, at)| rename(who, &name, NOW + at, who)),
        (who, at).prop_map(|(who, at)| leave(who, NOW + at)),
    ]
}

/// A set as a machine can come to hold it: what a member says of itself comes after its certificate.
fn any_roster() -> impl Strategy<Value = Roster> {
    proptest::collection::vec(any_paper(), 0..12).prop_map(|mut papers| {
        papers.sort_by_key(|paper| paper.statement().kind());
        let mut roster = base();
        for paper in papers {
            let _ = roster.insert(paper, NOW);
        }
        roster
    })
}

fn merged(parts: &[&Roster]) -> Roster {
    let mut whole = Roster::new(pool());
    for part in parts {
        assert_eq!(whole.merge(part, NOW), []);
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn merging_is_a_union(a in any_roster(), b in any_roster(), c in any_roster()) {
        let whole = merged(&[&a, &b, &c]);
        prop_assert_eq!(whole.digest(), merged(&[&c, &a, &b]).digest());
        prop_assert_eq!(whole.digest(), merged(&[&merged(&[&b, &c]), &a]).digest());
        prop_assert_eq!(whole.digest(), merged(&[&whole, &whole, &a]).digest());
        prop_assert_eq!(whole.view(NOW), merged(&[&b, &a, &c]).view(NOW));
    }

    #[test]
    fn pruning_and_merging_may_be_mixed(a in any_roster(), b in any_roster(), days in 0..300_i64) {
        let now = NOW + days * DAY;
        let mut both = merged(&[&a, &b]);
        both.prune(now);
        let (mut left, mut right) = (a, b);
        left.prune(now);
        right.prune(now);
        left.merge(&right, now);
        left.prune(now);
        prop_assert_eq!(both.digest(), left.digest());
    }

    #[test]
    fn a_view_keeps_its_promises(a in any_roster(), b in any_roster()) {
        let view = merged(&[&a, &b]).view(NOW + 10);
        let names: BTreeSet<_> = view.members.values().map(|member| &member.name).collect();
        prop_assert_eq!(names.len(), view.members.len());
        for member in view.current() {
            prop_assert!(!view.revoked.contains_key(&member.node));
            prop_assert!(view.is_issuer(member.issuer));
        }
        for open in view.invites.values() {
            prop_assert!(open.left > 0 && view.is_issuer(open.issuer));
        }
        prop_assert!(view.issuers.iter().all(|issuer| !view.revoked.contains_key(issuer)));
    }

    #[test]
    fn what_one_set_lacks_makes_it_equal(a in any_roster(), b in any_roster()) {
        let (mut left, mut right) = (a.clone(), b.clone());
        for sealed in b.lacking(&a.digests()) {
            left.receive(sealed, NOW).unwrap();
        }
        for sealed in a.lacking(&b.digests()) {
            right.receive(sealed, NOW).unwrap();
        }
        prop_assert_eq!(left.digest(), right.digest());
    }
}

fn motion(component: u8, from: Millis) -> Motion {
    Motion { kind: 0, component: [component; 32], from }
}

fn vote(motion: Motion, yes: bool, at: Millis, by: u8) -> Paper {
    sign(Statement::Vote(Vote { pool: pool(), motion, yes, at, note: String::new() }), by)
}

fn approved(roster: &Roster) -> Vec<Motion> {
    let ballots = roster.view(NOW).ballots;
    ballots.into_iter().filter(|ballot| ballot.approved).map(|ballot| ballot.motion).collect()
}

#[test]
fn where_the_owner_decides_the_roots_vote_alone_counts() {
    let mut roster = base();
    let stranger = roster.insert(vote(motion(1, NOW), true, NOW, 9), NOW).unwrap_err();
    assert!(matches!(stranger, PaperError::Unauthorised { kind: Kind::Vote, .. }));
    let roster = with(roster, vec![vote(motion(1, NOW), true, NOW, 1), vote(motion(1, NOW), true, NOW, 2)]);
    assert!(approved(&roster).is_empty() && roster.view(NOW).ballots.is_empty());
    let roster =
        with(roster, vec![vote(motion(1, NOW), true, NOW, 0), vote(motion(2, NOW + 1), true, NOW, 0)]);
    assert_eq!(approved(&roster), [motion(2, NOW + 1), motion(1, NOW)], "the newest activation comes first");
    let roster = with(roster, vec![vote(motion(2, NOW + 1), false, NOW + 1, 0)]);
    assert_eq!(approved(&roster), [motion(1, NOW)], "the last vote counts");
    let again = with(roster, vec![vote(motion(2, NOW + 1), true, NOW, 0)]);
    assert_eq!(approved(&again), [motion(1, NOW)], "an older vote changes nothing");
}

#[test]
fn with_a_quorum_each_member_has_one_vote() {
    let name = Pool { pool: pool(), name: "home".into(), created: NOW, quorum: Some(2) };
    let voted = motion(1, NOW);
    let roster = roster(vec![
        sign(Statement::Pool(name), 0),
        delegation(1),
        certificate(1, "one", NOW, 1, None, 1),
        certificate(2, "two", NOW, 1, None, 1),
        certificate(3, "three", NOW, 1, None, 1),
        vote(voted, true, NOW, 0),
        vote(voted, true, NOW + 1, 2),
        vote(voted, true, NOW + 2, 2),
    ]);
    assert!(approved(&roster).is_empty(), "neither the owner nor a second vote of the same member counts");
    let two = with(roster.clone(), vec![vote(voted, true, NOW + 3, 3)]);
    assert_eq!(approved(&two), [voted]);
    let ballot = two.view(NOW).ballots.remove(0);
    assert_eq!((ballot.yes, ballot.no, ballot.proposed), (vec![node(2), node(3)], vec![], NOW + 2));
    let revoked = with(two.clone(), vec![revoke(Target::Node(node(3)), NOW + 4, 1)]);
    assert!(approved(&revoked).is_empty(), "the vote of a machine that was thrown out is gone");
    let left = with(two.clone(), vec![leave(3, NOW + 4)]);
    assert_eq!(approved(&left), [voted], "who leaves has voted");
    let late = with(roster, vec![leave(3, NOW + 4), vote(voted, true, NOW + 5, 3)]);
    assert!(approved(&late).is_empty(), "who has left votes no more");
    assert_eq!(approved(&with(two, vec![vote(voted, false, NOW + 9, 2)])), []);
}

#[test]
fn a_vote_that_cannot_be_is_refused() {
    let sealed = |vote: Vote| Paper::sign(Statement::Vote(vote), &signer(1)).unwrap_err();
    let good = Vote { pool: pool(), motion: motion(1, NOW), yes: true, at: NOW, note: String::new() };
    let early = Motion { from: -1, ..good.motion };
    assert!(sealed(Vote { motion: early, ..good.clone() }).to_string().contains("activation"));
    assert!(sealed(Vote { note: "x".repeat(257), ..good.clone() }).to_string().contains("256 bytes"));
    assert!(sealed(Vote { note: "a\u{7}".into(), ..good }).to_string().contains("printed"));
}
