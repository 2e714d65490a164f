//! When which vouchers are redeemed: decided from numbers alone, so that it can be tried on any of them.
//!
//! A lane is due when it is worth a transaction, when it has waited long enough, when its voucher will expire, or when
//! its payer asked the escrow back. Lanes that are not due ride along where a batch has room, for they cost nothing.

use std::collections::BTreeSet;

use potluck_chain_client::{call::MAX_VOUCHERS, watch::Lane};
use potluck_primitives::{Account, Block, MicroCredits, SignedVoucher};

use super::book::Earning;

/// When a lane is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// At this much.
    pub amount: MicroCredits,
    /// After this long, in milliseconds.
    pub age_ms: u64,
    /// So many blocks before its voucher expires.
    pub margin: u32,
    /// What a batch has to pay for the chain to take it.
    pub least: MicroCredits,
}

/// Why a lane is due, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its payer asked the escrow back.
    Thawing,
    /// Its voucher will expire.
    Expiry,
    /// It is worth it.
    Amount,
    /// It has waited long enough.
    Age,
    /// It is not, but there is room.
    Room,
}

/// What is known of the moment.
#[derive(Clone, Debug)]
pub struct Moment<'a> {
    /// The last final block.
    pub block: Block,
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Payers that asked escrow back.
    pub thawing: &'a BTreeSet<Account>,
    /// Lanes that are being redeemed, or were refused not long ago.
    pub busy: &'a BTreeSet<Lane>,
}

/// Why a lane is due now.
pub fn why(lane: &Lane, earning: &Earning, rules: &Rules, now: &Moment<'_>) -> Why {
    let age = now.ms.saturating_sub(earning.since_ms);
    if now.thawing.contains(&lane.payer) {
        Why::Thawing
    } else if earning.best.voucher.expires.0.saturating_sub(now.block.0) <= rules.margin {
        Why::Expiry
    } else if earning.due() >= rules.amount {
        Why::Amount
    } else if age >= rules.age_ms {
        Why::Age
    } else {
        Why::Room
    }
}

/// The batches to redeem now, the most urgent first; `all` takes every lane that is worth anything as due.
pub fn plan<'a>(
    lanes: impl Iterator<Item = (&'a Lane, &'a Earning)>,
    rules: &Rules,
    now: &Moment<'_>,
    all: bool,
) -> Vec<Vec<SignedVoucher>> {
    let mut open: Vec<(Why, &Lane, &Earning)> = lanes
        .filter(|(lane, it)| it.due() > MicroCredits::ZERO && !now.busy.contains(lane))
        .filter(|(_, it)| it.best.voucher.expires >= now.block)
        .map(|(lane, it)| (why(lane, it, rules, now), lane, it))
        .collect();
    // Among equals the larger ones first, so that what does not fit is what matters least.
    open.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.due().cmp(&a.2.due())).then(a.1.cmp(b.1)));
    let mut batches = Vec::new();
    for batch in open.chunks(MAX_VOUCHERS) {
        let due = all || batch.iter().any(|(why, ..)| *why != Why::Room);
        let sum = batch.iter().try_fold(MicroCredits::ZERO, |sum, (_, _, it)| sum.checked_add(it.due()));
        if due && sum.is_none_or(|sum| sum >= rules.least) {
            batches.push(batch.iter().map(|(_, _, it)| it.best.clone()).collect());
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use potluck_primitives::Voucher;

    use super::*;

    const RULES: Rules =
        Rules { amount: MicroCredits(1_000), age_ms: 60_000, margin: 100, least: MicroCredits(10) };

    fn lane(payer: u8, number: u32, due: u128, expires: u32, since_ms: u64) -> (Lane, Earning) {
        let voucher = Voucher {
            pool: [0; 32],
            payer: [payer; 32],
            payee: [99; 32],
            lane: number,
            nonce: 1,
            cumulative: MicroCredits(due + 5),
            expires: Block(expires),
            receipts_root: [0; 32],
        };
        let lane = Lane::from(&voucher);
        let best = SignedVoucher { voucher, signature: [0; 64] };
        (lane, Earning { best, redeemed: MicroCredits(5), since_ms })
    }

    fn planned(lanes: &[(Lane, Earning)], block: u32, ms: u64, thawing: &[u8], all: bool) -> Vec<Vec<u32>> {
        let thawing = thawing.iter().map(|payer| [*payer; 32]).collect();
        let now = Moment { block: Block(block), ms, thawing: &thawing, busy: &BTreeSet::new() };
        let batches = plan(lanes.iter().map(|(lane, it)| (lane, it)), &RULES, &now, all);
        batches.iter().map(|batch| batch.iter().map(|it| it.voucher.lane).collect()).collect()
    }

    #[test]
    fn nothing_is_redeemed_before_its_time() {
        let lanes = [lane(1, 1, 999, 1_000, 0)];
        assert!(planned(&lanes, 899, 59_999, &[], false).is_empty());
        assert_eq!(planned(&lanes, 899, 59_999, &[], true), [[1]]);
        assert_eq!(planned(&lanes, 900, 0, &[], false), [[1]], "it will expire");
        assert_eq!(planned(&lanes, 0, 60_000, &[], false), [[1]], "it has waited");
        assert_eq!(planned(&lanes, 0, 0, &[1], false), [[1]], "its payer asked the escrow back");
        assert_eq!(planned(&[lane(1, 1, 1_000, 1_000, 0)], 0, 0, &[], false), [[1]], "it is worth it");
        assert!(planned(&lanes, 1_001, 60_000, &[1], true).is_empty(), "it has expired");
    }

    #[test]
    fn the_urgent_ones_go_first_and_others_ride_along() {
        let lanes = [
            lane(1, 1, 50, 10_000, 0),
            lane(2, 2, 5_000, 10_000, 0),
            lane(3, 3, 7_000, 10_000, 0),
            lane(4, 4, 60, 50, 0),
            lane(5, 5, 70, 10_000, 0),
        ];
        assert_eq!(planned(&lanes, 0, 0, &[5], false), [[5, 4, 3, 2, 1]]);
    }

    #[test]
    fn batches_are_full_before_there_are_more_and_small_change_waits() {
        let many: Vec<_> = (0..70).map(|n| lane(1, n, 2_000, 10_000, 0)).collect();
        let batches = planned(&many, 0, 0, &[], false);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 6]);
        let dust = [lane(1, 1, 4, 10_000, 0), lane(1, 2, 5, 10_000, 0)];
        assert!(planned(&dust, 0, 60_000, &[1], true).is_empty(), "the chain would not take it");
        let enough = [lane(1, 1, 4, 10_000, 0), lane(1, 2, 6, 10_000, 0)];
        assert_eq!(planned(&enough, 0, 60_000, &[], false), [[2, 1]]);
    }

    #[test]
    fn a_lane_under_way_is_not_sent_twice() {
        let (key, earning) = lane(1, 1, 5_000, 10_000, 0);
        let busy = BTreeSet::from([key]);
        let now = Moment { block: Block(0), ms: 0, thawing: &BTreeSet::new(), busy: &busy };
        assert!(plan([(&key, &earning)].into_iter(), &RULES, &now, true).is_empty());
    }
}
