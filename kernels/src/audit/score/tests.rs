use proptest::prelude::*;

use super::*;

fn trace(margins: &[i64]) -> Trace {
    Trace {
        numerics: Numerics::Float,
        faults: Vec::new(),
        margins: margins.to_vec(),
        end: None,
        past: Vec::new(),
        groups: Vec::new(),
    }
}

const SAME: Match = Match { points: 128, exponents: 128, mantissas: 0, median: 0 };

#[test]
fn margins_are_clipped_and_counted() {
    let limits = Limits { clip: 100, ..Limits::FLOAT };
    let score = trace(&[0, 30, OUTSIDE, 100, 0]).score(&limits);
    assert_eq!((score.margins, score.positions, score.differing, score.first), (230, 5, 3, Some(1)));
    assert_eq!(score.mean(), 46);
    assert_eq!(trace(&[]).score(&limits).mean(), 0);
}

#[test]
fn an_exact_provider_may_not_differ_by_a_micrologit() {
    let passes = |trace: &Trace| Limits::EXACT.judge(&trace.score(&Limits::EXACT));
    assert_eq!(passes(&trace(&[0; 9])).forced, Outcome::Passed);
    assert_eq!(passes(&trace(&[0, 1])).forced, Outcome::Failed);
    assert_eq!(passes(&Trace { end: Some(1), ..trace(&[0]) }).forced, Outcome::Failed);
    assert_eq!(passes(&trace(&[])).forced, Outcome::Unclear);
    let near = Match { mantissas: 1, ..SAME };
    assert_eq!(passes(&Trace { groups: vec![SAME; 2], ..trace(&[0]) }).activations, Outcome::Passed);
    assert_eq!(passes(&Trace { groups: vec![SAME, near], ..trace(&[0]) }).activations, Outcome::Failed);
}

#[test]
fn a_float_provider_has_room_but_not_for_ends_and_foreign_states() {
    let judge = |trace: &Trace| Limits::FLOAT.judge(&trace.score(&Limits::FLOAT));
    let one = Limits::FLOAT.clip;
    assert_eq!(judge(&trace(&[OUTSIDE])).forced, Outcome::Passed, "one near-tie");
    assert_eq!(judge(&trace(&[one; 10])).forced, Outcome::Failed);
    assert_eq!(judge(&Trace { end: Some(OUTSIDE), ..trace(&[0; 300]) }).forced, Outcome::Failed);
    let past = Trace { past: vec![(250, 2 * MICRO)], ..trace(&[0; 300]) };
    assert_eq!(judge(&past).forced, Outcome::Failed, "an answer that goes on past its end");
    assert_eq!(past.score_first(250, &Limits::FLOAT).end, None);
    let far = Match { exponents: 60, ..SAME };
    let few = Match { points: 8, exponents: 1, ..SAME };
    assert_eq!(judge(&Trace { groups: vec![SAME, far], ..trace(&[0; 64]) }).activations, Outcome::Failed);
    assert_eq!(judge(&Trace { groups: vec![SAME, few], ..trace(&[0; 33]) }).activations, Outcome::Passed);
    assert_eq!(judge(&Trace { groups: vec![few], ..trace(&[0; 3]) }).activations, Outcome::Unclear);
}

#[test]
fn a_prefix_has_no_end_and_only_whole_groups() {
    let whole = Trace { end: Some(7), groups: vec![SAME; 3], ..trace(&[0; 70]) };
    let score = |count| whole.score_first(count, &Limits::EXACT);
    assert_eq!(score(69).end, None);
    assert_eq!(score(69).activations.unwrap().groups, 2);
    assert_eq!(score(31).activations, None);
    assert_eq!((score(70).end, score(70).activations.unwrap().groups), (Some(7), 3));
}

proptest! {
    #[test]
    fn worse_margins_never_score_better(
        margins in proptest::collection::vec(prop_oneof![Just(OUTSIDE), 0..3 * MICRO], 1..80),
        at: proptest::sample::Index,
        more in 0..MICRO,
    ) {
        let mut worse = margins.clone();
        let place = at.index(worse.len());
        worse[place] = worse[place].saturating_add(more);
        let (a, b) = (trace(&margins).score(&Limits::FLOAT), trace(&worse).score(&Limits::FLOAT));
        prop_assert!(b.margins >= a.margins);
        let (a, b) = (Limits::FLOAT.judge(&a), Limits::FLOAT.judge(&b));
        prop_assert!(!a.failed() || b.failed());
    }
}
