//! The price list: what a token costs the reference machine.
//!
//! One credit is one hour of the reference machine: 3,600 seconds are 1,000,000 micro-credits. It is a machine of 8
//! cores that reads 50 GB of weights and multiplies and adds 200 billion times in a second. An answer's token needs
//! all weights to be read once; a prompt's token needs one multiplication and addition for each parameter, and the
//! weights are read once for many. So the size of a model decides, and models are put into classes by their weights:
//!
//! | class  | weights up to | thousand tokens of a prompt | of an answer | for them, micro-credits |
//! |--------|--------------:|----------------------------:|-------------:|------------------------:|
//! | tiny   |        0.5 GB |                         5 s |         10 s |           1,389 / 2,778 |
//! | small  |        2.5 GB |                        20 s |         50 s |          5,556 / 13,889 |
//! | medium |          6 GB |                        50 s |        120 s |         13,889 / 33,334 |
//! | large  |         20 GB |                       170 s |        400 s |        47,223 / 111,112 |
//! | huge   |         80 GB |                       700 s |      1,600 s |       194,445 / 444,445 |
//! | giant  |          more |                     3,500 s |      8,000 s |     972,223 / 2,222,223 |
//!
//! A job as such costs a second: 278 micro-credits. All prices are rounded up.
//!
//! A price does not depend on who serves: a machine that is twice as fast as the reference earns two credits in an
//! hour.

use alloc::{format, string::String};

use crate::{Hardware, Job, Market, MicroCredits, Price, fixed};

/// Micro-credits in 3,600 seconds.
const CREDIT: u64 = 1_000_000;
/// Seconds in an hour.
const HOUR: u64 = 3600;
/// Seconds of the reference machine for a job as such.
const START: u64 = 1;

/// Models of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// What it is called.
    pub name: &'static str,
    /// Largest weights, in millions of bytes.
    pub megabytes: u64,
    /// Seconds of the reference machine for a thousand tokens of a prompt.
    pub prompt: u64,
    /// Seconds of the reference machine for a thousand tokens of an answer.
    pub answer: u64,
}

/// The list, the smallest first; the last one has everything else.
pub const CLASSES: [Class; 5] = [
    Class { name: "tiny", megabytes: 500, prompt: 5, answer: 10 },
    Class { name: "small", megabytes: 2_500, prompt: 20, answer: 50 },
    Class { name: "medium", megabytes: 6_000, prompt: 50, answer: 120 },
    Class { name: "large", megabytes: 20_000, prompt: 170, answer: 400 },
    Class { name: "huge", megabytes: 80_000, prompt: 700, answer: 1_600 },
];

/// What is larger than all others.
pub const GIANT: Class = Class { name: "giant", megabytes: u64::MAX, prompt: 3_500, answer: 8_000 };

/// Millions of bytes that a model's weights have, rounded up; `None`: not known.
pub fn megabytes(hardware: &Hardware) -> Option<u64> {
    // Millions of parameters, times thousandths of bits, by bits in a byte.
    let megabytes = fixed::mul_div_up(hardware.parameters, hardware.bits.into(), 8_000).unwrap_or(u64::MAX);
    (megabytes > 0).then_some(megabytes)
}

/// The class of the model that a machine would serve; `None`: its size is not known.
pub fn class(hardware: &Hardware) -> Option<Class> {
    let size = megabytes(hardware)?;
    Some(CLASSES.into_iter().find(|class| size <= class.megabytes).unwrap_or(GIANT))
}

/// What seconds of the reference machine cost, in micro-credits, rounded up.
pub fn seconds(seconds: u64) -> MicroCredits {
    fixed::mul_div_up(seconds, CREDIT, HOUR).unwrap_or(u64::MAX)
}

/// The list's price for a class, for a time and with a note that the caller gives.
pub fn price(class: Class, valid_ms: u64, note: String) -> Price {
    Price {
        start: seconds(START),
        per_thousand_prompt: seconds(class.prompt),
        per_thousand_answer: seconds(class.answer),
        valid_ms,
        note,
    }
}

/// The most that a job can cost at a price; `None`: more than a `u64` holds.
pub fn most(job: &Job, price: &Price) -> Option<MicroCredits> {
    let part = |tokens: u64, price: u64| u128::from(tokens).checked_mul(price.into());
    let prompt = part(job.prompt_most, price.per_thousand_prompt)?;
    let answer = part(job.answer_room, price.per_thousand_answer)?;
    let rest = prompt.checked_add(answer)?.div_ceil(1000);
    rest.checked_add(price.start.into())?.try_into().ok()
}

/// A price brought between the market's floor and ceiling, for a job that it suits.
///
/// # Errors
/// The market has no room between its bounds, or the job could cost more than it may; in words.
pub fn settle(job: &Job, market: &Market, mut price: Price) -> Result<Price, String> {
    let (floor, ceiling) = (market.floor, market.ceiling);
    if floor > ceiling {
        return Err(format!("the market's floor of {floor} lies above its ceiling of {ceiling}"));
    }
    price.per_thousand_answer = price.per_thousand_answer.clamp(floor, ceiling);
    price.per_thousand_prompt = price.per_thousand_prompt.min(ceiling);
    price.start = price.start.min(ceiling);
    let Some(most) = most(job, &price) else {
        return Err("the job has more tokens than can be paid for".into());
    };
    match job.max_price {
        Some(limit) if most > limit => {
            Err(format!("the job can cost {most} micro-credits and may cost {limit}"))
        }
        _ => Ok(price),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn sized(parameters: u64, bits: u32) -> Hardware {
        Hardware { parameters, bits, ..sample::hardware() }
    }

    #[test]
    fn classes_follow_the_weights() {
        let name = |parameters, bits| class(&sized(parameters, bits)).map(|class| class.name);
        assert_eq!(megabytes(&sized(3_200, 4_500)), Some(1_800));
        assert_eq!(name(600, 4_500), Some("tiny"));
        assert_eq!(name(3_200, 4_500), Some("small"));
        assert_eq!(name(8_000, 4_500), Some("medium"));
        assert_eq!(name(32_000, 4_500), Some("large"));
        assert_eq!(name(70_000, 4_500), Some("huge"));
        assert_eq!(name(u64::MAX, u32::MAX), Some("giant"));
        assert_eq!((name(0, 4_500), name(3_200, 0)), (None, None));
    }

    #[test]
    fn an_hour_of_the_reference_machine_is_a_credit() {
        assert_eq!((seconds(3600), seconds(1), seconds(0), seconds(u64::MAX)), (1_000_000, 278, 0, u64::MAX));
        // As in the table above.
        let prices =
            CLASSES.into_iter().chain([GIANT]).map(|class| (seconds(class.prompt), seconds(class.answer)));
        let table = [
            (1_389, 2_778),
            (5_556, 13_889),
            (13_889, 33_334),
            (47_223, 111_112),
            (194_445, 444_445),
            (972_223, 2_222_223),
        ];
        assert!(prices.eq(table));
    }

    #[test]
    fn prices_stay_between_the_bounds_and_below_what_the_job_may_cost() {
        let price = || price(CLASSES[1], 1, String::new());
        let market = |floor, ceiling| Market { floor, ceiling, ..sample::market() };
        let settled = settle(&sample::job(), &market(20_000, 30_000), price()).unwrap();
        assert_eq!((settled.per_thousand_answer, settled.per_thousand_prompt), (20_000, 5_556));
        let settled = settle(&sample::job(), &market(0, 100), price()).unwrap();
        assert_eq!(
            (settled.start, settled.per_thousand_answer, settled.per_thousand_prompt),
            (100, 100, 100)
        );
        assert!(settle(&sample::job(), &market(2, 1), price()).is_err());
        // 278 for the job, 400 · 5.556 and 100 · 13.889 rounded up once.
        let job = |max_price| Job { max_price, ..sample::job() };
        assert_eq!(most(&sample::job(), &price()), Some(278 + 3_612));
        assert!(settle(&job(Some(3_890)), &sample::market(), price()).is_ok());
        assert!(settle(&job(Some(3_889)), &sample::market(), price()).is_err());
        let endless = Job { prompt_most: u64::MAX, ..sample::job() };
        assert!(settle(&endless, &sample::market(), price()).is_err());
    }
}
