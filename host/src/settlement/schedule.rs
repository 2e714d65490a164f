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
    /// What a batch has to pay for each of its lanes, taken together, for the chain to take it without a fee.
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
    /// Lanes whose vouchers the chain was shown in time: it owes them also when they have expired.
    pub owed: &'a BTreeSet<Lane>,
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
        .filter(|(lane, it)| it.best.voucher.expires >= now.block || now.owed.contains(lane))
        .map(|(lane, it)| (why(lane, it, rules, now), lane, it))
        .collect();
    // Among equals the larger ones first, so that what does not fit is what matters least.
    open.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.due().cmp(&a.2.due())).then(a.1.cmp(b.1)));
    let mut batches = Vec::new();
    for batch in open.chunks(MAX_VOUCHERS) {
        let lanes = batch.iter().map(|(why, _, it)| ((*why, &it.best), it.due())).collect();
        let taken = worthwhile(lanes, rules.least);
        if !taken.is_empty() && (all || taken.iter().any(|(why, _)| *why != Why::Room)) {
            batches.push(taken.into_iter().map(|(_, voucher)| voucher.clone()).collect());
        }
    }
    batches
}

/// Of lanes and what each would pay, those that together pay `least` for each: what pays least is left out first.
/// Their order stays.
pub fn worthwhile<T>(mut lanes: Vec<(T, MicroCredits)>, least: MicroCredits) -> Vec<T> {
    lanes.retain(|(_, pays)| *pays > MicroCredits::ZERO);
    while !lanes.is_empty() {
        let sum = lanes.iter().fold(0_u128, |sum, (_, pays)| sum.saturating_add(pays.0));
        let count = u128::try_from(lanes.len()).unwrap_or(u128::MAX);
        if least.0.checked_mul(count).is_some_and(|wanted| sum >= wanted) {
            break;
        }
        let smallest = lanes.iter().enumerate().min_by_key(|(_, (_, pays))| *pays).map(|(index, _)| index);
        lanes.remove(smallest.unwrap_or_default());
    }
    lanes.into_iter().map(|(lane, _)| lane).collect()
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
        let none = BTreeSet::new();
        let now = Moment { block: Block(block), ms, thawing: &thawing, busy: &none, owed: &none };
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
        let enough = [lane(1, 1, 4, 10_000, 0), lane(1, 2, 16, 10_000, 0)];
        assert_eq!(planned(&enough, 0, 60_000, &[], false), [[2, 1]], "a large one carries a small one");
        let carried = [lane(1, 1, 4, 10_000, 0), lane(1, 2, 5, 10_000, 0), lane(1, 3, 16, 10_000, 0)];
        assert_eq!(planned(&carried, 0, 60_000, &[], false), [[3, 2]], "but not two");
    }

    #[test]
    fn a_lane_whose_payer_has_nothing_holds_up_no_other() {
        let least = MicroCredits(10);
        let lanes = |pays: &[u128]| pays.iter().map(|it| (*it, MicroCredits(*it))).collect();
        assert_eq!(worthwhile(lanes(&[0, 50, 0, 12]), least), [50, 12]);
        assert_eq!(worthwhile(lanes(&[1, 2, 3, 30]), least), [2, 3, 30]);
        assert!(worthwhile(lanes(&[9, 9, 9]), least).is_empty());
        assert!(worthwhile(lanes(&[]), least).is_empty());
        assert_eq!(worthwhile(lanes(&[u128::MAX, 1]), MicroCredits(u128::MAX)), [u128::MAX]);
    }

    #[test]
    fn a_lane_under_way_is_not_sent_twice() {
        let (key, earning) = lane(1, 1, 5_000, 10_000, 0);
        let busy = BTreeSet::from([key]);
        let (thawing, owed) = Default::default();
        let now = Moment { block: Block(0), ms: 0, thawing: &thawing, busy: &busy, owed: &owed };
        assert!(plan([(&key, &earning)].into_iter(), &RULES, &now, true).is_empty());
    }

    #[test]
    fn what_the_chain_was_shown_in_time_is_asked_for_afterwards() {
        let (key, earning) = lane(1, 1, 5_000, 100, 0);
        let (thawing, busy) = Default::default();
        for (owed, count) in [(BTreeSet::new(), 0), (BTreeSet::from([key]), 1)] {
            let now = Moment { block: Block(101), ms: 0, thawing: &thawing, busy: &busy, owed: &owed };
            assert_eq!(plan([(&key, &earning)].into_iter(), &RULES, &now, false).len(), count);
        }
    }
}
