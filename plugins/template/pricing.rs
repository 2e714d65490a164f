//! `{{name}}`: say here what the rule is, and why.
//!
//! As it stands, it asks for the list's price, and for a tenth more while jobs wait.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

use potluck_policy::prelude::*;

/// For how long a price holds, in milliseconds.
const VALID_MS: u64 = 60_000;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct {{Name}};

impl Pricing for {{Name}} {
    fn quote(job: &Job, hardware: &Hardware, market: &Market, _now: u64) -> Result<Price, String> {
        let class = tariff::class(hardware).ok_or("the size of the model is not known")?;
        let mut price = tariff::price(class, VALID_MS, format!("a {} model", class.name));
        if market.waiting > 0 {
            price.per_thousand_answer = fixed::of(price.per_thousand_answer, 1_100_000);
        }
        // Between the pool's floor and ceiling, and no more than the job may cost.
        tariff::settle(job, market, price)
    }
}

export_pricing!({{Name}});

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    #[test]
    fn answers_as_its_vectors_say() {
        golden::pricing::<{{Name}}>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn a_queue_makes_answers_dearer() {
        let quote = |waiting| {
            let market = Market { waiting, ..sample::market() };
            {{Name}}::quote(&sample::job(), &sample::hardware(), &market, 0).unwrap().per_thousand_answer
        };
        assert!(quote(1) > quote(0));
    }

    #[test]
    fn anything_is_answered_without_a_panic() {
        for seed in 0..1000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, hardware, market) = (any.job(), any.hardware(), any.market());
            let _ = {{Name}}::quote(&job, &hardware, &market, any.number());
        }
    }
}
