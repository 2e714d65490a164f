//! The sequential test that decides who is convicted, as the policy `sprt` has it, and the formulas about it.
//!
//! Wald, Sequential Tests of Statistical Hypotheses, 1945. An audit that failed adds `ln(p1 / p0)`, one that passed
//! `ln((1 − p1) / (1 − p0))`; the provider is convicted at `ln((1 − β) / α)`, and acquitted at `ln(β / (1 − α))`, where
//! the next test begins.

use super::{
    lot::{exp, ln},
    money::{MILLION, Share},
    settings::Settings,
};

/// Steps and bounds of the test.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    failed: f64,
    passed: f64,
    upper: f64,
    lower: f64,
}

/// What an audit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    More,
    /// The test, with an acquittal.
    Acquitted,
    /// The test, with a conviction.
    Convicted,
}

/// One test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Test {
    /// Logarithm of how much likelier a cheat is.
    pub ratio: f64,
    /// Audits that failed since it began.
    pub failed: u32,
    /// Audits since it began.
    pub decided: u32,
}

impl Bounds {
    /// As they are set.
    pub fn of(settings: &Settings) -> Self {
        let [p0, p1] = [settings.p0.unit(), settings.p1.unit()];
        let [alpha, beta] = [settings.convict.unit(), settings.acquit.unit()];
        Self {
            failed: ln(p1 / p0),
            passed: ln((1.0 - p1) / (1.0 - p0)),
            upper: ln((1.0 - beta) / alpha),
            lower: ln(beta / (1.0 - alpha)),
        }
    }

    /// Takes an audit into a test; a test that ended begins again.
    pub fn take(&self, test: &mut Test, failed: bool) -> Step {
        test.decided = test.decided.saturating_add(1);
        test.failed = test.failed.saturating_add(u32::from(failed));
        test.ratio += if failed { self.failed } else { self.passed };
        if test.ratio >= self.upper {
            return Step::Convicted;
        }
        if test.ratio <= self.lower {
            *test = Test::default();
            return Step::Acquitted;
        }
        Step::More
    }

    /// The failures in a row that convict: k.
    pub fn failures(&self) -> u32 {
        (1..1000).find(|k| f64::from(*k) * self.failed >= self.upper).unwrap_or(1000)
    }

    /// The share of failed audits at which the test drifts neither way. Who stays below it is acquitted again and again.
    pub fn indifferent(&self) -> f64 {
        -self.passed / (self.failed - self.passed)
    }

    /// Audits until a conviction or an acquittal, by Wald's approximation, where audits fail so often; and the
    /// probability of a conviction.
    pub fn expected(&self, fails: f64) -> (f64, f64) {
        let drift = fails * self.failed + (1.0 - fails) * self.passed;
        // The root h ≠ 0 of E[e^(h·step)] = 1, by bisection on the side where it is.
        let mean = |h: f64| fails * exp(h * self.failed) + (1.0 - fails) * exp(h * self.passed) - 1.0;
        let (mut near, mut far) = if drift > 0.0 { (-1e-9, -8.0) } else { (1e-9, 8.0) };
        for _ in 0..100 {
            let middle = (near + far) / 2.0;
            if mean(middle) < 0.0 { near = middle } else { far = middle }
        }
        let h = (near + far) / 2.0;
        let convicted = (1.0 - exp(h * self.lower)) / (exp(h * self.upper) - exp(h * self.lower));
        ((convicted * self.upper + (1.0 - convicted) * self.lower) / drift, convicted)
    }
}

/// The share of a stake that a conviction takes, as the policy `sprt` has it: what failed of the audits, at least
/// `least`, and at least `times` what the audited jobs earned.
pub fn part_of_stake(test: &Test, settings: &Settings, earned: u128, stake: u128) -> Share {
    let million = u128::from(MILLION);
    let failed = u128::from(test.failed) * million / u128::from(test.decided.max(1));
    let gain = earned
        .saturating_mul(settings.times.into())
        .saturating_mul(million)
        .checked_div(stake)
        .unwrap_or(million);
    Share(u64::try_from(failed.max(gain).max(settings.least.0.into()).min(million)).unwrap_or(MILLION))
}

/// The stake, in gains of one cheat, above which cheating does not pay, where `failures` audits that find a cheat
/// convict: k(1 − q)/q with q the probability that a cheat is audited and found. With k = 1 and audits that never miss
/// it is (1 − p)/p.
pub fn deterrent(failures: u32, audit: Share, miss: Share) -> f64 {
    let found = audit.unit() * (1.0 - miss.unit());
    f64::from(failures) * (1.0 - found) / found
}
