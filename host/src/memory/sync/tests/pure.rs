//! Sets, messages and sums by themselves.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::{
    identity::{NodeId, Signer},
    memory::sync::{
        Run, Runs,
        message::{Ack, Audit, AuditRow, Bye, Have, HaveRow, Hello, Message, Near, Ops},
    },
    mesh::frame,
};

fn message() -> impl Strategy<Value = Message> {
    let node = any::<[u8; 32]>().prop_map(NodeId);
    let runs = proptest::collection::vec((1_u64..5_000, 0_u64..50), 0..20).prop_map(|runs| {
        runs.into_iter().map(|(first, len)| Run { first, last: first + len }).collect::<Runs>()
    });
    let row = (node.clone(), runs).prop_map(|(origin, runs)| HaveRow { origin, runs });
    let rows = proptest::collection::vec(row, 0..5);
    prop_oneof![
        (any::<u16>(), any::<i64>())
            .prop_map(|(version, wall_ms)| Message::Hello(Hello { version, wall_ms })),
        (rows.clone(), any::<bool>()).prop_map(|(rows, more)| Message::Have(Have { rows, more })),
        (any::<u64>(), proptest::collection::vec(any::<Vec<u8>>(), 0..9)).prop_map(|(number, entries)| {
            Message::Ops(Ops { number, entries: entries.into_iter().map(Into::into).collect() })
        }),
        (any::<u64>(), rows).prop_map(|(number, rows)| Message::Ack(Ack { number, rows })),
        proptest::collection::vec(node.clone(), 0..9).prop_map(|nodes| Message::Near(Near { nodes })),
        (node, any::<[u64; 4]>(), any::<Option<String>>()).prop_map(
            |(origin, [first, last, count, print], project)| {
                Message::Audit(Audit { rows: vec![AuditRow { origin, first, last, project, count, print }] })
            }
        ),
        any::<String>().prop_map(|reason| Message::Bye(Bye { reason })),
    ]
}

proptest! {
    #[test]
    fn runs_are_the_set_of_what_was_put_in(
        puts in proptest::collection::vec((1_u64..200, 0_u64..20), 0..40),
        out in proptest::collection::vec(1_u64..220, 0..10),
        others in proptest::collection::vec((1_u64..200, 0_u64..20), 0..20),
    ) {
        let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
        for (first, len) in puts {
            runs.insert(Run { first, last: first + len });
            set.extend(first..=first + len);
        }
        for sequence in out {
            runs.remove(sequence);
            set.remove(&sequence);
        }
        prop_assert_eq!(runs.sequences().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(runs.len(), set.len() as u64);
        let others: Runs = others.into_iter().map(|(first, len)| Run { first, last: first + len }).collect();
        let other: BTreeSet<u64> = others.sequences().collect();
        let minus: Vec<u64> = runs.minus(&others).sequences().collect();
        prop_assert_eq!(minus, set.difference(&other).copied().collect::<Vec<_>>());
        let mut bytes = Vec::new();
        minicbor::encode(&runs, &mut bytes).unwrap();
        prop_assert_eq!(minicbor::decode::<Runs>(&bytes).unwrap(), runs);
    }

    #[test]
    fn messages_come_back_as_they_were(message in message()) {
        let bytes = minicbor::to_vec(&message).unwrap();
        prop_assert_eq!(frame::decode::<Message>(&bytes).unwrap(), message);
    }

    #[test]
    fn garbage_is_refused_and_never_more(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = frame::decode::<Message>(&bytes);
        let _ = minicbor::decode::<Runs>(&bytes);
    }

    #[test]
    fn a_damaged_message_is_refused_or_is_another(message in message(), at in any::<usize>(), bit in 0_u8..8) {
        let mut bytes = minicbor::to_vec(&message).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = frame::decode::<Message>(&bytes);
    }
}

#[test]
fn a_short_frame_cannot_claim_a_long_list() {
    // An array of four billion entries in nine bytes.
    let bytes = [0x82, 0x02, 0x81, 0x82, 0x01, 0x9a, 0xff, 0xff, 0xff, 0xff];
    assert!(frame::decode::<Message>(&bytes).is_err());
}

#[test]
fn a_set_with_many_holes_is_cut_at_its_end() {
    let runs: Runs = (1..100_000_u64).map(|n| Run::one(2 * n)).collect();
    let bytes = minicbor::to_vec(&runs).unwrap();
    assert!(bytes.len() < 65 << 10);
    let back: Runs = minicbor::decode(&bytes).unwrap();
    assert!(back.len() > 30_000 && back.minus(&runs).is_empty());
}

#[test]
fn what_is_here_is_said_in_frames_that_fit() {
    let node = |n: u16| {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_le_bytes());
        Signer::from_seed(seed).node()
    };
    let holey: Runs = (1..20_000_u64).map(|n| Run::one(2 * n)).collect();
    let frames = Have::frames((0..100).map(|n| (node(n), holey.clone())));
    assert!(frames.len() > 2);
    assert_eq!(frames.iter().map(|frame| frame.rows.len()).sum::<usize>(), 100);
    assert!(frames.iter().rev().skip(1).all(|frame| frame.more) && !frames.last().unwrap().more);
    assert!(frames.iter().all(|frame| minicbor::to_vec(frame).unwrap().len() <= (1 << 20) + 64));
}
