//! Which tokens to pay with, and which to buy.

use potluck_primitives::MicroCredits;

use super::super::token::{BATCH, Denomination};

/// How many of each denomination, in the order of [`Denomination::ALL`].
pub(super) type Counts = [usize; 3];
/// Small tokens that a purse likes to have of each of the two smaller denominations.
const CHANGE: usize = 20;
/// Tokens of the smallest denomination in a lot of change.
const SMALL: usize = 80;

/// The sum as a multiple of the smallest token; `None` when no message can pay it.
pub(super) fn round_up(amount: MicroCredits) -> Option<MicroCredits> {
    let unit = Denomination::UNIT.0;
    let units = amount.0.div_ceil(unit);
    let most = Denomination::TenThousand.worth().0.checked_mul(u128::from(BATCH))?;
    units.checked_mul(unit).filter(|sum| *sum <= most).map(MicroCredits)
}

/// How many of each to pay exactly `sum` with, at most [`BATCH`] in all. Each denomination divides the next, so taking
/// the largest first finds a way wherever there is one, and the one with the fewest tokens.
pub(super) fn pay(counts: &Counts, sum: MicroCredits) -> Option<Counts> {
    let mut left = sum.0;
    let mut paid = [0; 3];
    for ((value, have), pay) in Denomination::ALL.iter().zip(counts).zip(&mut paid).rev() {
        let worth = value.worth().0;
        let fit = usize::try_from(left.checked_div(worth)?).unwrap_or(usize::MAX);
        *pay = fit.min(*have);
        left = left.checked_sub(worth.checked_mul(u128::try_from(*pay).ok()?)?)?;
    }
    let all = paid.iter().fold(0_usize, |sum, one| sum.saturating_add(*one));
    let fits = u32::try_from(all).is_ok_and(|all| all <= BATCH);
    (left == 0 && fits).then_some(paid)
}

/// The fewest tokens that are worth `sum`, rounded down to the smallest.
pub(super) fn exactly(sum: MicroCredits) -> Vec<Denomination> {
    let mut left = sum.0;
    let mut values = Vec::new();
    for value in Denomination::ALL.into_iter().rev() {
        while left >= value.worth().0 && values.len() < super::store::PURCHASE {
            left = left.saturating_sub(value.worth().0);
            values.push(value);
        }
    }
    values
}

/// What coins are worth together.
pub(super) fn worth(values: &[Denomination]) -> MicroCredits {
    MicroCredits(values.iter().map(|value| value.worth().0).sum())
}

/// Counts with further coins.
pub(super) fn with(have: &Counts, more: &[Denomination]) -> Counts {
    let mut all = *have;
    for (value, count) in Denomination::ALL.iter().zip(&mut all) {
        *count = count.saturating_add(more.iter().filter(|one| *one == value).count());
    }
    all
}

/// The coins of a lot of change for a level: a quarter of it, in small ones first. The same for the same level, whatever
/// is here and whatever it is for.
pub(super) fn change(level: MicroCredits) -> Vec<Denomination> {
    let fit = |sum: u128, value: Denomination| {
        usize::try_from(sum.checked_div(value.worth().0).unwrap_or_default()).unwrap_or(usize::MAX)
    };
    let quarter = level.0 / 4;
    let small = fit(quarter, Denomination::Hundred).min(SMALL);
    let mut values = vec![Denomination::Hundred; small];
    let rest = quarter.saturating_sub(worth(&values).0);
    let room = super::store::PURCHASE.saturating_sub(small);
    values.extend(vec![Denomination::Thousand; fit(rest, Denomination::Thousand).min(room)]);
    values
}

/// What to buy, if anything: change when less than three quarters of a lot of it is here, large coins when all is worth
/// less than the level.
pub(super) fn lot(have: &Counts, level: MicroCredits) -> Option<Vec<Denomination>> {
    let change = change(level);
    let whole = with(&[0; 3], &change);
    let few = |(have, whole): (&usize, &usize)| have.saturating_mul(4) < whole.saturating_mul(3);
    if have.iter().zip(&whole).any(few) {
        return Some(change);
    }
    let worth: u128 = Denomination::ALL
        .iter()
        .zip(have)
        .map(|(value, count)| value.worth().0.saturating_mul(u128::try_from(*count).unwrap_or(u128::MAX)))
        .fold(0, u128::saturating_add);
    (worth < level.0).then(|| exactly(MicroCredits(level.0.div_ceil(4)))).filter(|lot| !lot.is_empty())
}

/// What to buy for at most `sum`: first small ones until there is change, then large ones.
pub(super) fn to_buy(have: &Counts, sum: MicroCredits) -> Vec<Denomination> {
    let mut left = sum.0;
    let mut values = Vec::new();
    for (value, have) in Denomination::ALL.into_iter().zip(have).take(2) {
        for _ in *have..CHANGE {
            if left >= value.worth().0 {
                left = left.saturating_sub(value.worth().0);
                values.push(value);
            }
        }
    }
    values.extend(exactly(MicroCredits(left)));
    values.truncate(super::store::PURCHASE);
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn worth(counts: &Counts) -> u128 {
        Denomination::ALL.iter().zip(counts).map(|(value, count)| value.worth().0 * *count as u128).sum()
    }

    proptest! {
        #[test]
        fn what_can_be_paid_exactly_is(counts in [0_usize..14, 0_usize..14, 0_usize..4], units in 0_u128..600) {
            let sum = units * 100;
            let any = (0..=counts[0]).any(|a| (0..=counts[1]).any(|b| (0..=counts[2]).any(|c| worth(&[a, b, c]) == sum)));
            let paid = pay(&counts, MicroCredits(sum));
            prop_assert_eq!(paid.is_some(), any);
            if let Some(paid) = paid {
                prop_assert_eq!(worth(&paid), sum);
                prop_assert!(paid.iter().zip(&counts).all(|(paid, have)| paid <= have));
            }
        }

        #[test]
        fn nothing_is_bought_beyond_the_sum(counts in [0_usize..40, 0_usize..40, 0_usize..4], sum in 0_u128..2_000_000) {
            let bought: u128 = to_buy(&counts, MicroCredits(sum)).iter().map(|value| value.worth().0).sum();
            prop_assert!(bought <= sum);
        }
    }

    #[test]
    fn a_lot_is_the_same_whatever_was_spent() {
        let level = MicroCredits(100_000);
        let change = change(level);
        assert_eq!((change.len(), super::worth(&change).0), (96, 24_000));
        for small in 0..60 {
            assert_eq!(lot(&[small, 12, 10], level).as_ref(), Some(&change));
        }
        for large in 0..8 {
            let lot = lot(&[60, 12, large], level).unwrap();
            assert_eq!(super::worth(&lot).0, 25_000, "{large} large ones here");
        }
        assert_eq!(lot(&[60, 12, 9], level), None);
        assert_eq!(lot(&[0; 3], MicroCredits(0)), None);
    }

    #[test]
    fn sums_are_rounded_up_and_bounded() {
        assert_eq!(round_up(MicroCredits(0)), Some(MicroCredits(0)));
        assert_eq!(round_up(MicroCredits(1)), Some(MicroCredits(100)));
        assert_eq!(round_up(MicroCredits(1_280_000)), Some(MicroCredits(1_280_000)));
        assert_eq!(round_up(MicroCredits(1_280_001)), None);
        assert_eq!(pay(&[200, 0, 0], MicroCredits(12_900)), None, "more tokens than one message holds");
    }
}
