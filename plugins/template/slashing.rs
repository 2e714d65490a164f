//! `{{name}}`: say here what the rule is, and why.
//!
//! As it stands, it convicts when more than half of the verifiers that were drawn found a wrong answer.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

use potluck_policy::prelude::*;

/// The share of the stake that is lost, in millionths: a tenth.
const SHARE: u32 = 100_000;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct {{Name}};

impl Slashing for {{Name}} {
    fn judge(evidence: &Evidence, _now: u64) -> Result<Verdict, String> {
        let failed = evidence.audits.iter().filter(|audit| audit.outcome == Outcome::Failed);
        let mut accusers: Vec<u64> = failed.map(|audit| audit.verifier).collect();
        accusers.sort();
        accusers.dedup();
        let (accusers, drawn) = (accusers.len() as u64, u64::from(evidence.drawn));
        let judgement = if accusers.saturating_mul(2) > drawn {
            Judgement::Convict(SHARE)
        } else {
            Judgement::Undecided
        };
        Ok(Verdict { judgement, reason: format!("{accusers} of {drawn} verifiers found a wrong answer") })
    }
}

export_slashing!({{Name}});

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    #[test]
    fn answers_as_its_vectors_say() {
        golden::slashing::<{{Name}}>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn a_majority_convicts() {
        let judge = |verifiers: u64| {
            let audits = (0..verifiers).map(|verifier| sample::audit(verifier, Outcome::Failed));
            {{Name}}::judge(&sample::evidence(audits.collect()), 0).unwrap().judgement
        };
        assert_eq!((judge(2), judge(3)), (Judgement::Undecided, Judgement::Convict(SHARE)));
    }

    #[test]
    fn anything_is_answered_without_a_panic() {
        for seed in 0..1000 {
            let mut any = sample::Any::new(seed << 20);
            {{Name}}::judge(&any.evidence(), any.number()).unwrap();
        }
    }
}
