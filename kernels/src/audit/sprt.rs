//! Wald's sequential probability ratio test over audits, in integers.
//!
//! An audit that failed adds `ln(p1 / p0)`, one that passed `ln((1 − p1) / (1 − p0))`; at `ln((1 − β) / α)` and above
//! the provider is convicted, at `ln(β / (1 − α))` and below it is acquitted and the next test begins at 0. Source: Wald,
//! Sequential Tests of Statistical Hypotheses, 1945. All of it is in thousandths of a nat, rounded in the provider's
//! favour: steps down, bounds up. Where the slashing policy weighs evidence itself, this says how much there is.

use crate::sample::math::ln;

/// A million: probabilities are in millionths.
const ONE: u32 = 1_000_000;

/// Probabilities of which no test can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SprtError {
    /// Not 0 < p0 < p1 < 1.
    #[error(
        "audits of the honest fail with {p0} and of cheats with {p1} millionths; 0 < p0 < p1 < 1,000,000 is needed"
    )]
    Rates {
        /// Of the honest.
        p0: u32,
        /// Of cheats.
        p1: u32,
    },
    /// Errors of 0, or together of 1 and more.
    #[error("errors of {alpha} and {beta} millionths; both must be above 0 and their sum below 1,000,000")]
    Errors {
        /// Of convictions.
        alpha: u32,
        /// Of acquittals.
        beta: u32,
    },
    /// The two rates are so near to each other that a step is less than a thousandth of a nat.
    #[error("rates of {p0} and {p1} millionths are too near to each other to be told apart")]
    Step {
        /// Of the honest.
        p0: u32,
        /// Of cheats.
        p1: u32,
    },
}

/// What a sum of log-likelihoods says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// More audits are needed.
    More,
    /// A cheat.
    Convict,
    /// Honest; the next audit begins a new test.
    Acquit,
}

/// Steps and bounds of a test, in thousandths of a nat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sprt {
    /// What an audit that failed adds.
    pub failed: i64,
    /// What one that passed adds: less than 0.
    pub passed: i64,
    /// Convicted from here on.
    pub convict: i64,
    /// Acquitted from here down: less than 0.
    pub acquit: i64,
}

/// `ln(a / b)` in thousandths of a nat, to within 10⁻⁹ of one; both are above 0.
fn ln_ratio(a: u32, b: u32) -> f64 {
    1000.0 * (ln(f64::from(a)) - ln(f64::from(b)))
}

#[allow(clippy::cast_possible_truncation, reason = "logarithms of millions are small")]
fn down(x: f64) -> i64 {
    x.floor() as i64
}

#[allow(clippy::cast_possible_truncation, reason = "logarithms of millions are small")]
fn up(x: f64) -> i64 {
    x.ceil() as i64
}

impl Sprt {
    /// From how often audits of the honest (`p0`) and of cheats (`p1`) fail, and how often a test may convict the honest
    /// (`alpha`) and acquit a cheat (`beta`), all in millionths.
    ///
    /// # Errors
    /// [`SprtError`] for rates and errors of which no test can be made.
    pub fn new(p0: u32, p1: u32, alpha: u32, beta: u32) -> Result<Self, SprtError> {
        if p0 == 0 || p0 >= p1 || p1 >= ONE {
            return Err(SprtError::Rates { p0, p1 });
        }
        if alpha == 0 || beta == 0 || alpha.saturating_add(beta) >= ONE {
            return Err(SprtError::Errors { alpha, beta });
        }
        let test = Self {
            failed: down(ln_ratio(p1, p0)),
            passed: down(ln_ratio(ONE - p1, ONE - p0)),
            convict: up(ln_ratio(ONE - beta, alpha)),
            acquit: up(ln_ratio(beta, ONE - alpha)),
        };
        if test.failed < 1 || test.convict < 1 || test.acquit > -1 {
            return Err(SprtError::Step { p0, p1 });
        }
        Ok(test)
    }

    /// The sum after one more audit.
    #[must_use]
    pub const fn add(&self, sum: i64, failed: bool) -> i64 {
        sum.saturating_add(if failed { self.failed } else { self.passed })
    }

    /// What the sum says.
    pub const fn decide(&self, sum: i64) -> Decision {
        if sum >= self.convict {
            Decision::Convict
        } else if sum <= self.acquit {
            Decision::Acquit
        } else {
            Decision::More
        }
    }

    /// Takes audits one after the other, beginning again after each acquittal, up to a conviction. Gives the sum of
    /// the test that is under way and, where there was a conviction, after how many audits.
    pub fn run(&self, audits: impl IntoIterator<Item = bool>) -> (i64, Option<usize>) {
        let mut sum = 0;
        for (place, failed) in audits.into_iter().enumerate() {
            sum = self.add(sum, failed);
            match self.decide(sum) {
                Decision::Convict => return (sum, Some(place + 1)),
                Decision::Acquit => sum = 0,
                Decision::More => {}
            }
        }
        (sum, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::synthetic::mix;

    #[test]
    fn known_numbers() {
        // ln 40 = 3.6889, ln(0.8/0.995) = −0.21813, ln(0.99/10⁻⁶) = 13.8055, ln(0.01/0.999999) = −4.60517.
        let test = Sprt::new(5_000, 200_000, 1, 10_000).unwrap();
        assert_eq!(test, Sprt { failed: 3688, passed: -219, convict: 13_806, acquit: -4605 });
        assert_eq!(test.run([true; 10]).1, Some(4));
        assert_eq!(test.run([false; 22]), (0, None), "22 passes acquit");
        assert_eq!(test.run([false; 21]), (-4599, None));
    }

    #[test]
    fn senseless_tests_are_refused() {
        for (p0, p1) in [(0, 5), (5, 5), (6, 5), (5, ONE), (5, u32::MAX)] {
            assert_eq!(Sprt::new(p0, p1, 1, 1), Err(SprtError::Rates { p0, p1 }));
        }
        for (alpha, beta) in [(0, 1), (1, 0), (500_000, 500_000), (u32::MAX, 1)] {
            assert_eq!(Sprt::new(1, 2, alpha, beta), Err(SprtError::Errors { alpha, beta }));
        }
        assert_eq!(Sprt::new(500_000, 500_001, 1, 1), Err(SprtError::Step { p0: 500_000, p1: 500_001 }));
    }

    /// Tests of audits that fail so often: convicted ones and acquitted ones.
    fn simulate(test: &Sprt, fails: u32, tests: u32) -> (u32, u32) {
        let (mut convicted, mut acquitted, mut draws) = (0, 0, 0u64);
        for _ in 0..tests {
            let mut sum = 0;
            loop {
                draws += 1;
                sum = test.add(sum, mix(draws) % u64::from(ONE) < u64::from(fails));
                match test.decide(sum) {
                    Decision::More => {}
                    Decision::Convict => break convicted += 1,
                    Decision::Acquit => break acquitted += 1,
                }
            }
        }
        (convicted, acquitted)
    }

    #[test]
    fn errors_are_as_rare_as_they_should_be() {
        let test = Sprt::new(10_000, 200_000, 1_000, 10_000).unwrap();
        let (convicted, _) = simulate(&test, 10_000, 40_000);
        assert!(convicted <= 40 + 19, "of the honest {convicted} of 40,000 (three deviations above 40)");
        let (_, acquitted) = simulate(&test, 200_000, 40_000);
        assert!(acquitted <= 400 + 60, "of the cheats {acquitted} of 40,000");
    }

    prop_compose! {
        fn tests()(p0 in 1..300_000u32, p1 in 400_000..999_999u32, alpha in 1..200_000u32, beta in 1..200_000u32)
            -> (u32, Sprt)
        {
            (p0, Sprt::new(p0, p1, alpha, beta).unwrap())
        }
    }

    proptest! {
        #[test]
        fn rounding_never_hurts_the_accused((p0, test) in tests(), p1 in 400_000..999_999u32) {
            prop_assert!(test.failed > 0 && test.passed < 0 && test.acquit < 0 && test.convict > 0);
            let step = Sprt::new(p0, p1, 1000, 1000).unwrap();
            prop_assert!(step.failed as f64 <= ln_ratio(p1, p0));
            prop_assert!(step.passed as f64 <= ln_ratio(ONE - p1, ONE - p0));
        }

        #[test]
        fn one_more_failure_never_helps((_, test) in tests(), audits in proptest::collection::vec(any::<bool>(), 1..60)) {
            let sum = |audits: &[bool]| audits.iter().fold(0, |sum, failed| test.add(sum, *failed));
            for place in 0..audits.len() {
                let mut worse = audits.clone();
                worse[place] = true;
                prop_assert!(sum(&worse) >= sum(&audits));
            }
            let failed = audits.iter().filter(|f| **f).count() as i64;
            let passed = audits.len() as i64 - failed;
            prop_assert_eq!(sum(&audits), failed * test.failed + passed * test.passed);
        }

        #[test]
        fn stricter_bounds_take_longer((_, test) in tests(), audits in proptest::collection::vec(any::<bool>(), 1..200)) {
            let strict = Sprt { convict: test.convict + 1000, ..test };
            let (loose, strict) = (test.run(audits.clone()).1, strict.run(audits).1);
            prop_assert!(strict.is_none_or(|strict| loose.is_some_and(|loose| loose <= strict)));
        }
    }
}
