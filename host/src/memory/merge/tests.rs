//! Tests of the merge: the same versions make the same state, on every machine and in every order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::record::{Digest, Kind, Millis, NodeId, Tombstone, body_hash};
use super::*;

fn id(n: u16) -> RecordId {
    let mut random = [0; 10];
    random[8..].copy_from_slice(&n.to_be_bytes());
    RecordId::new(Millis(1_700_000_000_000), random)
}

/// A version `n` that says `text`, written at the time `n`.
fn header(n: u16, text: &str, supersedes: &[u16]) -> Header {
    let mut supersedes: Vec<RecordId> = supersedes.iter().map(|n| id(*n)).collect();
    supersedes.sort_unstable();
    supersedes.dedup();
    Header {
        id: id(n),
        kind: Kind::Fact,
        project: None,
        tags: vec![format!("tag {}", n % 3)],
        occurred_at: None,
        valid_until: None,
        supersedes,
        tombstone: None,
        source: None,
        stamp: Stamp::new(i64::from(n), 0),
        origin: NodeId([1; 32]),
        sequence: u64::from(n) + 1,
        body_hash: body_hash(text),
        content_hash: Digest::of(text.as_bytes()),
        body_len: u32::try_from(text.len()).unwrap(),
    }
}

fn forget(n: u16, targets: &[u16], hard: bool) -> Header {
    Header {
        tombstone: Some(Tombstone { reason: String::new(), hard }),
        body_len: 0,
        ..header(n, "", targets)
    }
}

fn state(headers: &[Header]) -> State {
    let mut state = State::default();
    for header in headers {
        state.apply(header);
    }
    state
}

/// Everything a state says, in a form that compares.
fn view(state: &State, ids: &BTreeSet<RecordId>) -> impl PartialEq + std::fmt::Debug + use<> {
    let each: Vec<_> = ids
        .iter()
        .map(|id| {
            let memory = state.memory(*id).map(|memory| (memory.canonical, memory.copies, memory.tags));
            let edges = (state.superseded_by(*id), state.forgotten_copy(*id), state.stamp(*id));
            (
                *id,
                state.standing(*id),
                state.heads(*id),
                state.lineage(*id),
                edges,
                memory,
                state.in_conflict(*id),
            )
        })
        .collect();
    let live: BTreeSet<RecordId> = state.live().collect();
    assert_eq!(live.len(), state.live_count());
    (each, live, state.conflicts(), state.contested(), state.len())
}

fn all_ids(headers: &[Header]) -> BTreeSet<RecordId> {
    headers.iter().flat_map(|header| header.supersedes.iter().copied().chain([header.id])).collect()
}

#[test]
fn an_update_takes_the_place_of_what_it_updates() {
    let mut state = State::default();
    let effect = state.apply(&header(1, "a", &[]));
    assert_eq!((effect.outcome, effect.live, effect.conflict), (Outcome::Added, true, false));
    let effect = state.apply(&header(2, "b", &[1]));
    assert_eq!((effect.retired, effect.live), (vec![id(1)], true));
    assert_eq!(state.heads(id(1)), [id(2)]);
    assert_eq!(state.lineage(id(2)), [id(1), id(2)]);
    assert_eq!(state.standing(id(1)), Some(Standing::Superseded));
    let effect = state.apply(&header(1, "a", &[]));
    assert_eq!((effect.outcome, effect.live, effect.retired), (Outcome::Known, false, vec![]));
    assert_eq!((state.len(), state.live_count()), (2, 1));
    assert_eq!(state.standing(id(7)), None);
}

#[test]
fn two_updates_at_once_are_a_conflict_until_one_supersedes_both() {
    let mut state = state(&[header(2, "b", &[1]), header(3, "c", &[1])]);
    assert_eq!(state.standing(id(1)), Some(Standing::Awaited));
    assert_eq!(state.conflicts(), [Conflict { heads: vec![id(2), id(3)] }]);
    assert!(!state.apply(&header(1, "a", &[])).live);
    assert!(state.in_conflict(id(1)));
    let effect = state.apply(&header(4, "d", &[2, 3]));
    assert!(!effect.conflict);
    assert_eq!(state.conflicts(), []);
    assert_eq!(state.heads(id(1)), [id(4)]);
}

#[test]
fn two_updates_that_say_the_same_are_no_conflict() {
    let mut state = state(&[header(1, "a", &[]), header(2, "b  x", &[1]), header(3, "b x", &[1])]);
    assert_eq!(state.conflicts(), []);
    let memory = state.memory(id(3)).unwrap();
    assert_eq!((memory.canonical, memory.copies), (id(2), vec![id(3)]));
    assert_eq!(memory.tags, ["tag 0", "tag 2"]);
    let task = Header { kind: Kind::Task, ..header(4, "b x", &[1]) };
    assert!(state.apply(&task).conflict, "the same text as something else is one");
}

#[test]
fn copies_are_of_one_project() {
    let elsewhere = Header { project: Some(String::new()), ..header(2, "a", &[]) };
    let mut state = state(&[header(1, "a", &[]), elsewhere]);
    assert_eq!(state.memory(id(2)).unwrap().copies, []);
    assert_eq!(state.apply(&header(3, "a", &[])).copy_of, Some(id(1)));
    assert_eq!(state.apply(&header(0, "a", &[])).copy_of, None, "the earliest speaks for all");
    assert_eq!(state.memory(id(3)).unwrap().canonical, id(0));
}

#[test]
fn a_tombstone_works_before_what_it_forgets_arrives() {
    let mut state = State::default();
    state.apply(&forget(5, &[1, 2], true));
    let effect = state.apply(&header(1, "a", &[]));
    assert_eq!((effect.live, effect.erase), (false, vec![id(1)]));
    assert_eq!(state.standing(id(1)), Some(Standing::Forgotten));
    assert_eq!(state.standing(id(2)), Some(Standing::Awaited));
    assert_eq!(state.standing(id(5)), Some(Standing::Tombstone));
    state.apply(&header(3, "a", &[]));
    assert_eq!(state.forgotten_copy(id(3)), Some(id(1)));
    let effect = state.apply(&forget(6, &[3], true));
    assert_eq!((effect.retired, effect.erase), (vec![id(3)], vec![id(3)]));
}

#[test]
fn forgetting_many_at_once_ties_nothing_together() {
    let edits = [header(1, "a", &[]), header(2, "b", &[]), header(3, "a2", &[1]), header(4, "b2", &[2])];
    let mut state = state(&edits);
    state.apply(&forget(9, &[1, 2], false));
    assert_eq!(state.conflicts(), []);
    let contested = |version| Contested { version: id(version), tombstone: id(9) };
    assert_eq!(state.contested(), [contested(3), contested(4)]);
    state.apply(&header(5, "a3", &[3, 9]));
    state.apply(&header(6, "b3", &[4, 9]));
    assert_eq!(state.contested(), []);
    assert_eq!(state.conflicts(), []);
    assert_eq!(state.heads(id(1)), [id(5)]);
}

#[test]
fn two_versions_of_one_name_are_reported_and_converge() {
    let (first, second) = (header(1, "a", &[2]), Header { stamp: Stamp::new(7, 0), ..header(1, "b", &[3]) });
    let ids = all_ids(&[first.clone(), second.clone()]);
    let mut one = state(&[first.clone(), second.clone()]);
    let other = state(&[second.clone(), first]);
    assert_eq!(view(&one, &ids), view(&other, &ids));
    assert_eq!(one.apply(&second).outcome, Outcome::Forked);
    assert_eq!(view(&one, &ids), view(&other, &ids));
    assert_eq!(one.stamp(id(1)), Some(Stamp::new(1, 0)));
}

/// What must be true of a set of well-behaved versions, worked out the slow way.
fn reference(headers: &[Header]) -> (BTreeSet<RecordId>, Vec<Conflict>) {
    let known: BTreeMap<RecordId, &Header> = headers.iter().map(|header| (header.id, header)).collect();
    let superseded: BTreeSet<RecordId> =
        known.values().flat_map(|header| header.supersedes.clone()).collect();
    let live: BTreeSet<RecordId> =
        known.values().filter(|h| !h.is_tombstone() && !superseded.contains(&h.id)).map(|h| h.id).collect();
    // Lineages by spreading the smallest name until nothing changes.
    let mut names: BTreeMap<RecordId, RecordId> = all_ids(headers).into_iter().map(|id| (id, id)).collect();
    let dead = |id: &RecordId| known.get(id).is_some_and(|header| header.is_tombstone());
    loop {
        let before = names.clone();
        for header in known.values().filter(|header| !header.is_tombstone()) {
            for target in header.supersedes.iter().filter(|target| !dead(target)) {
                let least = names[&header.id].min(names[target]);
                names.insert(header.id, least);
                names.insert(*target, least);
            }
        }
        if names == before {
            break;
        }
    }
    let mut lineages: BTreeMap<RecordId, Vec<RecordId>> = BTreeMap::new();
    for id in &live {
        lineages.entry(names[id]).or_default().push(*id);
    }
    let says = |id: &RecordId| (known[id].project.clone(), known[id].body_hash, known[id].kind);
    let differ = |heads: &Vec<RecordId>| heads.iter().any(|head| says(head) != says(&heads[0]));
    let mut conflicts: Vec<Conflict> = lineages
        .into_values()
        .filter(differ)
        .map(|mut heads| {
            heads.sort_by_key(|id| (known[id].stamp, *id));
            Conflict { heads }
        })
        .collect();
    conflicts.sort();
    (live, conflicts)
}

/// Versions with names of their own that supersede any others, seen or not, also in circles.
fn any_headers() -> impl Strategy<Value = Vec<Header>> {
    let one = (prop::collection::vec(0u16..30, 0..4), 0u8..6, 0u8..8);
    prop::collection::vec(one, 1..24).prop_map(|all| {
        let make = |(n, (supersedes, text, kind)): (usize, (Vec<u16>, u8, u8))| {
            let n = u16::try_from(n).unwrap();
            match kind {
                0 => forget(n, &supersedes, false),
                1 => forget(n, &supersedes, true),
                2 => Header { kind: Kind::Task, ..header(n, &text.to_string(), &supersedes) },
                _ => header(n, &text.to_string(), &supersedes),
            }
        };
        all.into_iter().enumerate().map(make).collect()
    })
}

/// Several machines that write, update, forget and sometimes hear of each other; returns what each knows.
#[derive(Debug, Clone)]
enum Act {
    Write(u8),
    Update(Index, u8),
    Settle(Index),
    Forget(Index, bool),
    Hear(usize),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..5).prop_map(Act::Write),
        4 => (any::<Index>(), 0u8..5).prop_map(|(at, text)| Act::Update(at, text)),
        1 => any::<Index>().prop_map(Act::Settle),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(at, hard)| Act::Forget(at, hard)),
        2 => (0usize..3).prop_map(Act::Hear),
    ]
}

fn number(id: RecordId) -> u16 {
    let bytes = id.to_bytes();
    u16::from_be_bytes([bytes[14], bytes[15]])
}

fn play(acts: &[(usize, Act)]) -> Vec<Vec<Header>> {
    let mut nodes: Vec<Vec<Header>> = vec![Vec::new(); 3];
    for (n, (node, act)) in acts.iter().enumerate() {
        let n = u16::try_from(n).unwrap();
        let known = state(&nodes[*node]);
        let live: Vec<RecordId> = known.live().collect::<BTreeSet<_>>().into_iter().collect();
        let made = match act {
            Act::Write(text) => header(n, &text.to_string(), &[]),
            Act::Hear(other) => {
                let news = nodes[*other].clone();
                nodes[*node].extend(news);
                continue;
            }
            _ if live.is_empty() => continue,
            Act::Update(at, text) => header(n, &text.to_string(), &[number(*at.get(&live))]),
            Act::Settle(at) => {
                let heads: Vec<u16> = known.heads(*at.get(&live)).into_iter().map(number).collect();
                header(n, "settled", &heads)
            }
            Act::Forget(at, hard) => forget(n, &[number(*at.get(&live))], *hard),
        };
        nodes[*node].push(made);
    }
    nodes
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(
        headers in any_headers(),
        picks in prop::collection::vec(any::<Index>(), 0..60),
    ) {
        let ids = all_ids(&headers);
        let expected = view(&state(&headers), &ids);
        // Some in any order and more than once, then all in reverse.
        let mut other: Vec<Header> = picks.iter().map(|pick| pick.get(&headers).clone()).collect();
        other.extend(headers.iter().rev().cloned());
        prop_assert_eq!(view(&state(&other), &ids), expected);
    }

    #[test]
    fn forked_names_converge(
        headers in any_headers(),
        names in prop::collection::vec(0u16..6, 24),
        picks in prop::collection::vec(any::<Index>(), 0..60),
    ) {
        let headers: Vec<Header> =
            headers.into_iter().zip(names).map(|(header, n)| Header { id: id(n), ..header }).collect();
        let ids = all_ids(&headers);
        let expected = view(&state(&headers), &ids);
        let mut other: Vec<Header> = picks.iter().map(|pick| pick.get(&headers).clone()).collect();
        other.extend(headers.iter().rev().cloned());
        prop_assert_eq!(view(&state(&other), &ids), expected);
    }

    #[test]
    fn the_state_is_what_the_versions_say(headers in any_headers()) {
        let headers: Vec<Header> = headers.into_iter().map(|mut header| {
            header.supersedes.retain(|target| *target != header.id);
            header
        }).collect();
        let state = state(&headers);
        let (live, conflicts) = reference(&headers);
        prop_assert_eq!(state.live().collect::<BTreeSet<_>>(), live);
        prop_assert_eq!(state.conflicts(), conflicts);
    }

    #[test]
    fn machines_that_heard_the_same_agree(acts in prop::collection::vec((0usize..3, any_act()), 1..50)) {
        let nodes = play(&acts);
        let everything: Vec<Header> = nodes.iter().flatten().cloned().collect();
        let ids = all_ids(&everything);
        // Any grouping, any order of machines, and everything twice.
        let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
        let views: Vec<_> = orders.iter().map(|order| {
            let heard: Vec<Header> = order.iter().chain(order).flat_map(|node| nodes[*node].clone()).collect();
            view(&state(&heard), &ids)
        }).collect();
        prop_assert_eq!(&views[0], &views[1]);
        prop_assert_eq!(&views[0], &views[2]);
        let (live, conflicts) = reference(&everything);
        let merged = state(&everything);
        prop_assert_eq!(merged.live().collect::<BTreeSet<_>>(), live);
        prop_assert_eq!(merged.conflicts(), conflicts);
    }

    #[test]
    fn what_is_retired_was_live_and_is_not_any_more(
        acts in prop::collection::vec((0usize..3, any_act()), 1..50),
    ) {
        let mut merged = State::default();
        let mut live: BTreeSet<RecordId> = BTreeSet::new();
        for header in play(&acts).iter().flatten() {
            let effect = merged.apply(header);
            for id in &effect.retired {
                prop_assert!(live.remove(id));
            }
            if effect.live {
                live.insert(header.id);
            }
            prop_assert_eq!(&merged.live().collect::<BTreeSet<_>>(), &live);
        }
    }
}

/// Many versions, a quarter of them updates of an earlier one.
#[test]
fn many_versions_leave_one_head_each() {
    let count = 50_000_u32;
    let name = |n: u32| {
        let mut random = [0; 10];
        random[6..].copy_from_slice(&n.to_be_bytes());
        RecordId::new(Millis(1_700_000_000_000), random)
    };
    let mut state = State::with_capacity(count as usize);
    let mut made = header(0, "", &[]);
    for n in 0..count {
        made.id = name(n);
        made.stamp = Stamp::new(i64::from(n), 0);
        made.body_hash = Digest::of(&n.to_be_bytes());
        made.supersedes = if n % 4 == 3 { vec![name(n - 2)] } else { Vec::new() };
        state.apply(&made);
    }
    assert_eq!(state.live_count(), 37_500);
    assert_eq!(state.conflicts(), []);
}
