//! `sprt`: Wald's sequential probability ratio test over audits, and a share of the stake in proportion.
//!
//! Two suppositions are weighed. Honest: an audit fails by mistake, with a probability `p0` that depends on its
//! method ([`mistake`]). Cheating: at least one job in five is answered wrongly, so that an audit fails with
//! [`P1`]. Each audit that passed or failed adds its logarithm of how much likelier it is for a cheat:
//!
//! * failed: `ln(p1 / p0)`
//! * passed: `ln((1 − p1) / (1 − p0))`
//!
//! Where the sum reaches `ln((1 − β) / α)` the provider is convicted, where it falls to `ln(β / (1 − α))` it is
//! acquitted and the next audit begins a new test; in between more audits are needed. With [`ALPHA`] an honest
//! provider is convicted in one test of a million, with [`BETA`] a cheat is acquitted in one of a hundred (Wald,
//! Sequential Tests of Statistical Hypotheses, 1945). Unclear audits count for nothing.
//!
//! One verifier alone convicts nobody: audits that failed must come from as many verifiers as the case's quorum, and
//! from two at least.
//!
//! The share: of the audits since the test began, the part that failed, times one more than the convictions so far;
//! at least [`LEAST`], and at least [`TIMES`] what was earned with the jobs of the case, so that cheating never pays.
//!
//! All logarithms are in fixed point with an error below 2⁻²⁶ each, too little to matter in 4,096 audits.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::prelude::*;

/// How probable it is that an audit of a cheat fails, in millionths.
pub const P1: u64 = 200_000;
/// How probable it is at most that an honest provider is convicted in one test, in millionths.
pub const ALPHA: u64 = 1;
/// How probable it is at most that a cheat is acquitted in one test, in millionths.
pub const BETA: u64 = 10_000;
/// The least share of the stake that is lost, in millionths.
pub const LEAST: u64 = 50_000;
/// At least so many times what was earned is lost.
pub const TIMES: u64 = 20;
/// Verifiers whose audits must have failed, whatever the case's quorum.
pub const VERIFIERS: usize = 2;

/// How probable it is that an audit of an honest provider fails, in millionths.
pub const fn mistake(method: Method) -> u64 {
    match method {
        // Other kernels, other rounding: the sampler takes another token where two are nearly alike.
        Method::Forced => 5_000,
        Method::Activations => 5_000,
        // The same bits: only broken memory is an excuse, or a verifier that has it.
        Method::Exact => 100,
        Method::Canary => 1_000,
        Method::Accounts => 100,
    }
}

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Sprt;

/// One test: what was found since it began.
#[derive(Default)]
struct Test {
    /// Logarithm of the likelihood ratio, in 2⁻³².
    ratio: i64,
    failed: u64,
    decided: u64,
    /// Verifiers whose audits failed, in order.
    accusers: Vec<u64>,
}

impl Test {
    fn take(&mut self, audit: &Audit) {
        let p0 = mistake(audit.method);
        let step = match audit.outcome {
            Outcome::Unclear => return,
            Outcome::Failed => {
                self.failed = self.failed.saturating_add(1);
                if let Err(place) = self.accusers.binary_search(&audit.verifier) {
                    self.accusers.insert(place, audit.verifier);
                }
                fixed::ln_ratio(P1, p0)
            }
            Outcome::Passed => fixed::ln_ratio(fixed::ONE.saturating_sub(P1), fixed::ONE.saturating_sub(p0)),
        };
        self.decided = self.decided.saturating_add(1);
        self.ratio = self.ratio.saturating_add(step.unwrap_or(0));
    }
}

impl Slashing for Sprt {
    fn judge(evidence: &Evidence, _now: u64) -> Result<Verdict, String> {
        let upper = fixed::ln_ratio(fixed::ONE.saturating_sub(BETA), ALPHA).unwrap_or(i64::MAX);
        let lower = fixed::ln_ratio(BETA, fixed::ONE.saturating_sub(ALPHA)).unwrap_or(i64::MIN);
        let accusers = usize::try_from(evidence.quorum).unwrap_or(usize::MAX).max(VERIFIERS);
        let (mut test, mut acquittals) = (Test::default(), 0_u64);
        for audit in &evidence.audits {
            test.take(audit);
            if test.ratio >= upper && test.accusers.len() >= accusers {
                return Ok(convict(evidence, &test, upper));
            }
            if test.ratio <= lower {
                test = Test::default();
                acquittals = acquittals.saturating_add(1);
            }
        }
        let judgement =
            if acquittals > 0 && test.decided == 0 { Judgement::Acquit } else { Judgement::Undecided };
        let reason = if test.decided == 0 {
            format!("{acquittals} tests ended with an acquittal, and no audit has been decided since")
        } else {
            format!(
                "{} of {} audits failed, of {} verifiers of {accusers} that are needed; log ratio {}, convicted at {}, \
                 acquitted at {}, in thousandths",
                test.failed,
                test.decided,
                test.accusers.len(),
                fixed::thousandths(test.ratio),
                fixed::thousandths(upper),
                fixed::thousandths(lower),
            )
        };
        Ok(Verdict { judgement, reason })
    }
}

fn convict(evidence: &Evidence, test: &Test, upper: i64) -> Verdict {
    let times = u64::from(evidence.convictions).saturating_add(1);
    let part = fixed::share(test.failed, test.decided).saturating_mul(times);
    let gain = fixed::share(evidence.earned.saturating_mul(TIMES), evidence.stake);
    let share = part.max(gain).clamp(LEAST, fixed::ONE);
    let reason = format!(
        "{} of {} audits failed, of {} verifiers; log ratio {}, convicted at {}, in thousandths; {} convictions before",
        test.failed,
        test.decided,
        test.accusers.len(),
        fixed::thousandths(test.ratio),
        fixed::thousandths(upper),
        evidence.convictions,
    );
    Verdict { judgement: Judgement::Convict(u32::try_from(share).unwrap_or(1_000_000)), reason }
}

export_slashing!(Sprt);

#[cfg(test)]
mod tests;
