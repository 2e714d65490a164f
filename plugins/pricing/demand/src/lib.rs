//! `demand`: the price list, responsive to load, with caps and damping.
//!
//! What is asked for starts from the list ([`tariff`]) and is multiplied by how busy the pool is. The load is the
//! larger of the share of the capacity that is in use now and the share that was in use in the last hour:
//!
//! | load | times the list's price |
//! |-----:|-----------------------:|
//! | none | a half |
//! | half | one |
//! | full | two |
//!
//! between these in a straight line, and for every job that waits per job that could be answered at the same time one
//! more, to at most four. So idle machines are cheap and find work, and a queue pays for more machines to come.
//!
//! Damping: from what was last paid the price moves by an eighth at most, so that a short rush does not double it.
//! Caps: whatever was last paid, it stays between half and four times the list's price, so that nobody moves it out
//! of there by paying; and between the pool's floor and ceiling. The prompt's price moves with the answer's.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::prelude::*;

/// For how long a price holds, in milliseconds: half a minute.
pub const VALID_MS: u64 = 30_000;
/// The least that the list's price is multiplied by, in millionths.
pub const LEAST: u64 = 500_000;
/// The most that the list's price is multiplied by, in millionths.
pub const MOST: u64 = 4_000_000;
/// A price moves by one part in so many at once.
pub const STEP: u64 = 8;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Demand;

impl Pricing for Demand {
    fn quote(job: &Job, hardware: &Hardware, market: &Market, _now: u64) -> Result<Price, String> {
        let class = tariff::class(hardware).ok_or("the size of the model is not known")?;
        let list = tariff::price(class, VALID_MS, String::new());
        let wanted = fixed::of(list.per_thousand_answer, factor(market));
        let damped = match market.last {
            Some(last) => damp(last, wanted),
            None => wanted,
        };
        let cap = |share| fixed::of(list.per_thousand_answer, share);
        let answer = damped.clamp(cap(LEAST), cap(MOST));
        let moved = fixed::mul_div_saturating(fixed::ONE, answer, list.per_thousand_answer);
        let price = Price {
            per_thousand_prompt: fixed::of(list.per_thousand_prompt, moved),
            per_thousand_answer: answer,
            note: format!("{} hundredths of the list's price for a {} model", moved / 10_000, class.name),
            ..list
        };
        tariff::settle(job, market, price)
    }
}

/// What the list's price is multiplied by, in millionths.
pub fn factor(market: &Market) -> u64 {
    // Where nothing can be answered everything is full.
    let share = |jobs: u64| match market.capacity {
        0 => fixed::ONE.saturating_mul(u64::from(jobs > 0)),
        capacity => fixed::mul_div_saturating(jobs, fixed::ONE, capacity),
    };
    let busy = if market.capacity == 0 { fixed::ONE } else { share(market.running) };
    let load = busy.max(market.used.into()).min(fixed::ONE);
    let half = fixed::ONE / 2;
    // Half as steep below the half as above it.
    let by_load = if load <= half { half.saturating_add(load) } else { load.saturating_mul(2) };
    by_load.saturating_add(share(market.waiting)).clamp(LEAST, MOST)
}

/// `wanted`, but at most a step away from `last`.
fn damp(last: u64, wanted: u64) -> u64 {
    // A price of less than eight would never move.
    let step = (last / STEP).max(1);
    wanted.clamp(last.saturating_sub(step), last.saturating_add(step))
}

export_pricing!(Demand);

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    fn market(change: impl FnOnce(&mut Market)) -> Market {
        let mut market = Market { used: 0, ..sample::market() };
        change(&mut market);
        market
    }

    fn answer(market: &Market) -> u64 {
        Demand::quote(&sample::job(), &sample::hardware(), market, 0).unwrap().per_thousand_answer
    }

    #[test]
    fn answers_as_its_vectors_say() {
        golden::pricing::<Demand>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn the_factor_follows_the_load() {
        let factor = |running, used, waiting| {
            factor(&market(|m| (m.running, m.used, m.waiting) = (running, used, waiting)))
        };
        assert_eq!(factor(0, 0, 0), 500_000);
        assert_eq!(
            (factor(25, 0, 0), factor(50, 0, 0), factor(0, 500_000, 0)),
            (750_000, 1_000_000, 1_000_000)
        );
        assert_eq!(
            (factor(75, 0, 0), factor(100, 0, 0), factor(900, 0, 0)),
            (1_500_000, 2_000_000, 2_000_000)
        );
        assert_eq!(
            (factor(100, 0, 50), factor(100, 0, 200), factor(100, 0, 900)),
            (2_500_000, 4_000_000, 4_000_000)
        );
        let none = |waiting| super::factor(&market(|m| (m.capacity, m.waiting) = (0, waiting)));
        assert_eq!((none(0), none(1)), (2_000_000, 3_000_000));
    }

    #[test]
    fn prices_move_in_small_steps_and_stay_within_caps() {
        let list = 13_889;
        assert_eq!(answer(&market(|m| m.used = 500_000)), list);
        let rush = |last| market(|m| (m.running, m.waiting, m.last) = (100, 1_000, Some(last)));
        assert_eq!(answer(&rush(16_000)), 18_000, "an eighth at once");
        let mut price = list;
        let steps = (0..100).take_while(|_| {
            let next = answer(&rush(price));
            let moved = next > price;
            price = next;
            moved
        });
        assert_eq!((steps.count(), price), (12, 4 * list), "a rush that lasts arrives at the cap");
        // What somebody paid to move the price does not move it beyond the caps.
        assert_eq!(answer(&market(|m| m.last = Some(u64::MAX))), 4 * list);
        assert_eq!(answer(&rush(1)), list / 2);
    }

    #[test]
    fn the_prompt_moves_with_the_answer() {
        let busy = market(|m| m.running = 100);
        let price = Demand::quote(&sample::job(), &sample::hardware(), &busy, 0).unwrap();
        assert_eq!((price.per_thousand_prompt, price.per_thousand_answer), (2 * 5_556, 2 * 13_889));
    }

    #[test]
    fn any_price_lies_between_the_bounds() {
        for seed in 0..5000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, hardware, market) = (any.job(), any.hardware(), any.market());
            let Ok(price) = Demand::quote(&job, &hardware, &market, any.number()) else { continue };
            assert!((market.floor..=market.ceiling).contains(&price.per_thousand_answer), "{price:?}");
            assert!(
                tariff::most(&job, &price)
                    .is_some_and(|most| job.max_price.is_none_or(|limit| most <= limit))
            );
        }
    }
}
