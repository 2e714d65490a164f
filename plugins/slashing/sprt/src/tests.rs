use super::*;
use potluck_policy::{golden, hash, sample};

/// Audits from a text: `f` failed, `p` passed, `u` unclear; the verifiers take turns.
fn audits(text: &str) -> Vec<Audit> {
    let outcome = |c| match c {
        'f' => Outcome::Failed,
        'p' => Outcome::Passed,
        _ => Outcome::Unclear,
    };
    text.chars().zip((0..5).cycle()).map(|(c, verifier)| sample::audit(verifier, outcome(c))).collect()
}

fn judge(audits: Vec<Audit>) -> Judgement {
    Sprt::judge(&sample::evidence(audits), 0).unwrap().judgement
}

#[test]
fn answers_as_its_vectors_say() {
    golden::slashing::<Sprt>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
}

#[test]
fn a_few_failures_convict_and_many_passes_acquit() {
    assert_eq!(judge(vec![]), Judgement::Undecided);
    // ln 40 = 3.69 each, and 13.8 are needed.
    assert_eq!(judge(audits("fff")), Judgement::Undecided);
    assert_eq!(judge(audits("ffff")), Judgement::Convict(1_000_000));
    // −0.218 each, and −4.605 are needed.
    assert_eq!(judge(audits(&"p".repeat(21))), Judgement::Undecided);
    assert_eq!(judge(audits(&"p".repeat(22))), Judgement::Acquit);
    assert_eq!(judge(audits(&"u".repeat(99))), Judgement::Undecided);
}

#[test]
fn an_acquittal_does_not_pay_for_later_cheating() {
    let text = "p".repeat(22) + "ffff";
    assert_eq!(judge(audits(&text)), Judgement::Convict(1_000_000));
    assert_eq!(judge(audits(&("p".repeat(22) + "f"))), Judgement::Undecided);
}

#[test]
fn one_verifier_alone_convicts_nobody() {
    let alone = vec![sample::audit(1, Outcome::Failed); 40];
    assert_eq!(judge(alone.clone()), Judgement::Undecided);
    let with = |verifiers: &[u64]| {
        let others = verifiers.iter().map(|&verifier| sample::audit(verifier, Outcome::Failed));
        judge(alone.iter().cloned().chain(others).collect())
    };
    assert_eq!(with(&[2]), Judgement::Undecided, "the quorum is three");
    assert_eq!(with(&[2, 3]), Judgement::Convict(1_000_000));
}

#[test]
fn the_share_is_in_proportion_to_what_failed_and_never_below_the_gain() {
    let text = "ppp".to_owned() + &"fppp".repeat(20);
    let share = |change: fn(&mut Evidence)| {
        let mut evidence = sample::evidence(audits(&text));
        change(&mut evidence);
        match Sprt::judge(&evidence, 0).unwrap().judgement {
            Judgement::Convict(share) => share,
            other => panic!("{other:?}"),
        }
    };
    let usual = share(|_| {});
    assert!((200_000..400_000).contains(&usual), "{usual}");
    assert!(share(|e| e.convictions = 1).abs_diff(2 * usual) <= 1);
    assert_eq!(share(|e| e.convictions = u32::MAX), 1_000_000);
    assert_eq!(share(|e| e.earned = 250_000), 500_000, "twenty times a fortieth");
    assert_eq!(share(|e| (e.earned, e.stake) = (u64::MAX, u64::MAX)), 1_000_000);
    assert_eq!(share(|e| (e.earned, e.stake) = (0, 0)), usual);
}

#[test]
fn honest_providers_are_not_convicted_and_cheats_are() {
    let run = |fail_millionths: u64, provider: u64| {
        let failed = |n: u64| hash::mix(provider, n) % 1_000_000 < fail_millionths;
        let audits = (0..400).map(|n| {
            sample::audit(
                hash::mix(n, provider) % 5,
                if failed(n) { Outcome::Failed } else { Outcome::Passed },
            )
        });
        matches!(judge(audits.collect()), Judgement::Convict(_))
    };
    assert_eq!((0..2000).filter(|&provider| run(5_000, provider)).count(), 0);
    let caught = (0..500).filter(|&provider| run(200_000, provider)).count();
    assert!(caught > 490, "{caught}");
}

#[test]
fn anything_gets_a_verdict_that_the_host_takes() {
    for seed in 0..3000 {
        let mut any = sample::Any::new(seed << 20);
        let verdict = Sprt::judge(&any.evidence(), any.number()).unwrap();
        assert!(verdict.reason.len() <= 1024);
        if let Judgement::Convict(share) = verdict.judgement {
            assert!((1..=1_000_000).contains(&share));
        }
    }
}
