//! `linear`: a price list, by the size of the model and the number of tokens.
//!
//! The list is [`tariff`]: each token costs what it takes the reference machine, whose hour is a credit. Neither the
//! machine that serves nor what is asked for and offered changes it, but for the pool's floor and ceiling. A price
//! holds for [`VALID_MS`].
//!
//! It refuses a model whose size is not known, and a job that could cost more than it may.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::prelude::*;

/// For how long a price holds, in milliseconds: ten minutes.
pub const VALID_MS: u64 = 600_000;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Linear;

impl Pricing for Linear {
    fn quote(job: &Job, hardware: &Hardware, market: &Market, _now: u64) -> Result<Price, String> {
        let class = tariff::class(hardware).ok_or("the size of the model is not known")?;
        let note = format!("the list's price for a {} model", class.name);
        tariff::settle(job, market, tariff::price(class, VALID_MS, note))
    }
}

export_pricing!(Linear);

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    #[test]
    fn answers_as_its_vectors_say() {
        golden::pricing::<Linear>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn a_price_depends_on_the_model_alone() {
        let quote = |hardware: &Hardware, market: &Market| Linear::quote(&sample::job(), hardware, market, 0);
        let usual = quote(&sample::hardware(), &sample::market()).unwrap();
        assert_eq!((usual.start, usual.per_thousand_prompt, usual.per_thousand_answer), (278, 5_556, 13_889));
        let fast = Hardware { decode: 900_000, prefill: 9_000_000, ..sample::hardware() };
        let busy = Market { running: 100, waiting: 900, used: 1_000_000, last: Some(9), ..sample::market() };
        assert_eq!(quote(&fast, &busy), Ok(usual));
        assert!(quote(&Hardware { bits: 0, ..fast }, &busy).is_err());
    }

    #[test]
    fn any_price_lies_between_the_bounds() {
        for seed in 0..5000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, hardware, market) = (any.job(), any.hardware(), any.market());
            let Ok(price) = Linear::quote(&job, &hardware, &market, any.number()) else { continue };
            assert!((market.floor..=market.ceiling).contains(&price.per_thousand_answer), "{price:?}");
            assert!(
                tariff::most(&job, &price)
                    .is_some_and(|most| job.max_price.is_none_or(|limit| most <= limit))
            );
        }
    }
}
