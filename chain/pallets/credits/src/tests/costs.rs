//! What settling costs: bytes on the chain, weight, and time.

use std::time::Instant;

use potluck_primitives::{Leaf, SumTree, blake2_256};

use super::*;
use crate::{MAX_REDEEM, WeightInfo, mock::test, redeem::verify};

/// Bytes of a bare transaction around its call: length, version, and the two indexes of the call.
const AROUND: usize = 4 + 1 + 2;

#[test]
fn a_redeemed_voucher_costs_few_bytes_and_a_thousandth_of_a_block() {
    test(|| {
        let vouchers: Vec<_> = (0..MAX_REDEEM).map(|lane| sign(voucher(1, 2, lane, 1, 5), 1)).collect();
        let each = bytes(&vouchers[0]);
        let call = bytes(&vouchers) + AROUND;
        let weight = <() as WeightInfo>::redeem(MAX_REDEEM)
            .saturating_add(<() as WeightInfo>::check_redeem(MAX_REDEEM))
            .saturating_div(MAX_REDEEM.into());
        println!("a voucher: {each} bytes; in a redemption of 32: {} bytes, {weight:?}", call / 32);
        assert!(each <= 240 && call / 32 <= 240);
        // Two seconds of computing and 10 MiB of proof in a block.
        assert!(weight.ref_time() < 2_000_000_000 && weight.proof_size() < 64 * 1024);
    });
}

#[test]
fn a_batch_of_100_000_leaves_costs_a_hundred_bytes_to_submit_and_a_thousand_for_each_claim() {
    let leaf = |number: u32| {
        let account = blake2_256(&[&number.to_le_bytes()]);
        let delta = if number.is_multiple_of(2) { 1_000_000 } else { -1_000_000 };
        Leaf { account, delta, gross: 1_000_000, vouchers_root: [7; 32] }
    };
    let mut leaves: Vec<_> = (0..100_000).map(leaf).collect();
    leaves.sort_by_key(|leaf| leaf.account);
    let tree = SumTree::build(leaves).unwrap();
    assert_eq!(tree.root().sum, 0);
    let call =
        Call::<Test>::submit_batch { epoch: 0, root: tree.root(), leaf_count: 100_000, gross: 1 << 60 };
    let submit = bytes(&call) + 150;
    let leaf = tree.leaves()[77_777];
    let claim = bytes(&Call::<Test>::claim { batch: 0, leaf, proof: tree.prove(77_777).unwrap() }) + AROUND;
    let weight = <() as WeightInfo>::claim().saturating_add(<() as WeightInfo>::check_claim());
    println!(
        "to submit {submit} bytes, {:?}; to claim a leaf {claim} bytes, {weight:?}",
        <() as WeightInfo>::submit_batch()
    );
    println!(
        "with 1000 receipts in a leaf: {:.3} bytes a receipt",
        (claim as f64 + submit as f64 / 1e5) / 1e3
    );
    assert!(submit < 250 && claim < 1_000);
}

/// What the weight of a signature is set by. Run it with `-- --ignored one_signature --nocapture`.
#[test]
#[ignore = "a measurement"]
fn one_signature() {
    test(|| {
        let vouchers: Vec<_> = (0..2_000).map(|lane| sign(voucher(1, 2, lane, 1, 5), 1)).collect();
        let digests: Vec<_> = vouchers.iter().map(|it| it.voucher.digest(&genesis())).collect();
        let start = Instant::now();
        for (signed, digest) in vouchers.iter().zip(&digests) {
            assert!(verify(&signed.voucher.payer, digest, &signed.signature));
        }
        let each = start.elapsed().as_secs_f64() / 2_000.0;
        let start = Instant::now();
        let chunks = vouchers.chunks(32).map(|some| redeem(some.to_vec()).len()).sum::<usize>();
        println!("one signature: {:.1} µs", each * 1e6);
        println!(
            "one refused voucher, all told: {:.1} µs",
            start.elapsed().as_secs_f64() / chunks as f64 * 1e6
        );
    });
}
