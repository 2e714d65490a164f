use potluck_primitives::{Bounded, Leaf, PUBLIC_POOL, SumProof, Verdict, Voucher};

use super::*;

fn voucher() -> Voucher {
    Voucher {
        pool: PUBLIC_POOL,
        payer: [1; 32],
        payee: [2; 32],
        lane: 3,
        nonce: 4,
        cumulative: MicroCredits(5),
        expires: Block(6),
        receipts_root: [7; 32],
    }
}

fn shown() -> Shown {
    let leaf = Leaf { account: [1; 32], delta: -5, gross: 5, vouchers_root: [2; 32] };
    let proof = SumProof { index: 0, leaf_count: 1, siblings: Bounded::empty() };
    Shown { batch: 9, leaf, proof }
}

/// One of each that a settler, a challenger or a judge asks for.
fn calls() -> Vec<Call> {
    let Shown { batch, leaf, proof } = shown();
    let signed = SignedVoucher { voucher: voucher(), signature: [8; 64] };
    let node = leaf.node();
    let beneath = potluck_primitives::Beneath::Leaf(leaf);
    let bad_sum = BadSum { level: 0, index: 0, node, beneath, siblings: Bounded::empty() };
    let duplicate =
        Duplicate { first: leaf, first_proof: proof.clone(), second: leaf, second_proof: proof.clone() };
    let absent = Evidence::Absent { before: None, after: Some((leaf, proof.clone())) };
    let listed = Bounded::new(vec![voucher()]).unwrap();
    let listed = Evidence::Listed { leaf, proof: proof.clone(), listed };
    let membership = potluck_primitives::MerkleProof { index: 0, leaf_count: 1, siblings: Bounded::empty() };
    let counted = Knowledge::Counted { leaf, proof: proof.clone(), membership };
    let vouchers = Bounded::new(vec![signed.clone()]).unwrap();
    let verdict = Verdict {
        job: [1; 16],
        provider: [2; 32],
        evidence: [3; 32],
        policy: PolicyHash([4; 32]),
        parts: 5,
        at: Block(6),
    };
    let verdict = SignedVerdict::new(verdict, vec![([7; 32], [8; 64])]).unwrap();
    let acknowledged = Knowledge::Acknowledged([8; 64]);
    vec![
        Call::AllowSettler { settler: [1; 32], limit: MicroCredits(2) },
        Call::RegisterSettler,
        Call::SubmitBatch { epoch: 1, root: node, leaf_count: 1, gross: MicroCredits(5) },
        Call::ChallengeLeaf { batch, index: 0 },
        Call::AnswerLeaf(Box::new(Disclosure { batch, leaf, proof, vouchers })),
        Call::ExpireChallenge { batch, index: 0 },
        Call::ReclaimChallenge { batch, index: 0 },
        Call::ProveBadSum { batch, fault: Box::new(bad_sum) },
        Call::ProveDuplicate { batch, fault: Box::new(duplicate) },
        Call::ProveStale(Box::new(Stale {
            batch,
            evidence: absent.clone(),
            voucher: signed.clone(),
            knowledge: acknowledged,
        })),
        Call::Claim(Box::new(shown())),
        Call::RedeemOmitted(Box::new(Omission { batch, evidence: listed, voucher: signed.clone() })),
        Call::ReleaseBond { batch },
        Call::CloseBatch { batch },
        Call::SubmitVerdict(Box::new(verdict)),
        Call::Appeal { job: [1; 16] },
        Call::ExecuteVerdict { provider: [2; 32], job: [1; 16] },
        Call::ProveStale(Box::new(Stale { batch, evidence: absent, voucher: signed, knowledge: counted })),
        Call::Propose(Proposal::Rule { provider: [2; 32], job: [1; 16], upheld: true }),
    ]
}

#[test]
fn what_an_outbox_keeps_is_read_back_by_its_number() {
    for (call, number) in calls().into_iter().zip((15..=31).chain([24, 10])) {
        let bytes = call.encode();
        assert_eq!(bytes[0], number, "{call}");
        assert_eq!(Call::decode(&mut bytes.as_slice()), Ok(call));
    }
}

#[test]
fn every_call_has_a_name_of_its_own_and_only_what_carries_its_proof_goes_unsigned() {
    let calls = calls();
    let mut ids: Vec<_> = calls.iter().map(Call::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), calls.len());
    let unsigned: Vec<_> = calls.iter().filter(|call| !call.is_signed()).map(Call::word).collect();
    assert_eq!(unsigned, ["claim", "redeem_omitted"]);
}
