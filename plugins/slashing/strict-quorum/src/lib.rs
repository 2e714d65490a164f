//! `strict-quorum`: a conviction needs a majority of the verifiers that were drawn.
//!
//! Each verifier has one voice, its latest audit that is not unclear. As soon as as many as the quorum say that the
//! answer was wrong, the provider is convicted. As soon as so many say that it was right that the quorum can no longer
//! be reached, it is acquitted. Until then, and where verifiers are silent or unclear, more audits are needed.
//!
//! A quorum that is not more than half of those drawn is refused, since both sides could reach it; so is a case in
//! which more verifiers speak than were drawn.
//!
//! The share is fixed beforehand: [`FIRST`] at the first conviction, and twice the one before at each further one,
//! until the whole stake is lost.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::prelude::*;

/// The share of the stake that is lost at the first conviction, in millionths.
pub const FIRST: u32 = 100_000;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct StrictQuorum;

impl Slashing for StrictQuorum {
    fn judge(evidence: &Evidence, _now: u64) -> Result<Verdict, String> {
        let (drawn, quorum) = (u64::from(evidence.drawn), u64::from(evidence.quorum));
        if quorum > drawn || quorum.saturating_mul(2) <= drawn {
            return Err(format!("a quorum of {quorum} of {drawn} is no majority"));
        }
        let (spoken, failed) = voices(&evidence.audits);
        if spoken > drawn {
            return Err(format!("{spoken} verifiers spoke, and {drawn} were drawn"));
        }
        let passed = spoken.saturating_sub(failed);
        let judgement = if failed >= quorum {
            Judgement::Convict(share(evidence.convictions))
        } else if drawn.saturating_sub(passed) < quorum {
            Judgement::Acquit
        } else {
            Judgement::Undecided
        };
        let reason = format!(
            "of {drawn} verifiers {failed} say failed and {passed} say passed, and {quorum} must agree; \
             {} convictions before",
            evidence.convictions
        );
        Ok(Verdict { judgement, reason })
    }
}

/// How many verifiers have spoken, and for how many of them the provider failed.
fn voices(audits: &[Audit]) -> (u64, u64) {
    let clear = audits.iter().zip(0_u32..).filter(|(audit, _)| audit.outcome != Outcome::Unclear);
    let mut voices: Vec<(u64, u32, bool)> =
        clear.map(|(audit, at)| (audit.verifier, at, audit.outcome == Outcome::Failed)).collect();
    voices.sort_unstable();
    let last = |pair: &[(u64, u32, bool)]| match pair {
        [one, next] => one.0 != next.0,
        _ => true,
    };
    let (mut spoken, mut failed) = (0_u64, 0_u64);
    for (at, voice) in voices.iter().enumerate() {
        let end = at.saturating_add(2).min(voices.len());
        if voices.get(at..end).is_some_and(last) {
            spoken = spoken.saturating_add(1);
            failed = failed.saturating_add(voice.2.into());
        }
    }
    (spoken, failed)
}

/// The share at one more conviction than there were, in millionths.
fn share(convictions: u32) -> u32 {
    let times = 1_u32.checked_shl(convictions.min(31)).unwrap_or(u32::MAX);
    FIRST.saturating_mul(times).min(1_000_000)
}

export_slashing!(StrictQuorum);

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    fn case(text: &str) -> Evidence {
        let outcome = |c| match c {
            'f' => Outcome::Failed,
            'p' => Outcome::Passed,
            _ => Outcome::Unclear,
        };
        sample::evidence(text.chars().zip(0..).map(|(c, n)| sample::audit(n, outcome(c))).collect())
    }

    fn judge(text: &str) -> Judgement {
        StrictQuorum::judge(&case(text), 0).unwrap().judgement
    }

    #[test]
    fn answers_as_its_vectors_say() {
        golden::slashing::<StrictQuorum>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn three_of_five_decide() {
        assert_eq!(judge(""), Judgement::Undecided);
        assert_eq!((judge("ffpp"), judge("ffppu")), (Judgement::Undecided, Judgement::Undecided));
        assert_eq!((judge("fff"), judge("ffppf")), (Judgement::Convict(FIRST), Judgement::Convict(FIRST)));
        assert_eq!(
            (judge("ppp"), judge("ffppp"), judge("uuppp")),
            (Judgement::Acquit, Judgement::Acquit, Judgement::Acquit)
        );
    }

    #[test]
    fn a_verifier_has_one_voice_the_latest() {
        let mut evidence = case("ff");
        for _ in 0..9 {
            evidence.audits.push(sample::audit(0, Outcome::Failed));
        }
        assert_eq!(StrictQuorum::judge(&evidence, 0).unwrap().judgement, Judgement::Undecided);
        evidence.audits.extend([sample::audit(0, Outcome::Passed), sample::audit(0, Outcome::Unclear)]);
        assert_eq!(voices(&evidence.audits), (2, 1));
    }

    #[test]
    fn each_conviction_doubles_the_share() {
        assert_eq!(
            (0..6).map(share).collect::<Vec<_>>(),
            [100_000, 200_000, 400_000, 800_000, 1_000_000, 1_000_000]
        );
        assert_eq!(share(u32::MAX), 1_000_000);
    }

    #[test]
    fn a_case_that_cannot_be_is_refused() {
        for (drawn, quorum) in [(0, 0), (4, 2), (5, 6), (u32::MAX, 1), (2, 0)] {
            let evidence = Evidence { drawn, quorum, ..case("ff") };
            assert!(StrictQuorum::judge(&evidence, 0).is_err(), "{quorum} of {drawn}");
        }
        assert!(StrictQuorum::judge(&case("ppffpf"), 0).is_err(), "six spoke of five");
    }

    #[test]
    fn anything_is_judged_or_refused() {
        for seed in 0..3000 {
            let mut any = sample::Any::new(seed << 20);
            if let Ok(verdict) = StrictQuorum::judge(&any.evidence(), any.number()) {
                assert!(verdict.reason.len() <= 1024);
            }
        }
    }
}
