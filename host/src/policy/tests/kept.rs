use std::{fs, io::Write};

use proptest::prelude::*;
use uuid::Uuid;

use super::fixture::{BAD, Guest, load, scoring, when};
use crate::policy::{
    CallError, Decision, Decisions, DecisionsConfig, Kind, PaperError, PolicyHash, Replay,
    sample::Sampler,
    types::{Output, Ranking},
};

fn small() -> DecisionsConfig {
    DecisionsConfig { segment: 20_000 }
}

fn job(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn keep(store: &Decisions, n: u128, hash: PolicyHash) {
    let input = Sampler::new(u64::try_from(n).unwrap()).input(Kind::Slashing);
    while !store.record(job(n), hash, 7, input.clone(), Output::Slashing(Err(format!("no {n}")))) {
        std::thread::yield_now();
    }
}

#[test]
fn a_decision_is_found_by_its_job_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let hash = PolicyHash::of(b"p");
    let store = Decisions::open(dir.path(), &DecisionsConfig::default()).unwrap();
    (0..50).for_each(|n| keep(&store, n, hash));
    keep(&store, 7, PolicyHash::of(b"q"));
    store.flush().unwrap();
    let found = store.find(job(7)).unwrap();
    assert_eq!(
        found.iter().map(|decision| decision.policy).collect::<Vec<_>>(),
        [PolicyHash::of(b"q"), hash]
    );
    assert_eq!(found[0].answer().unwrap(), Output::Slashing(Err("no 7".into())));
    assert_eq!(found[0].question().unwrap(), Sampler::new(7).input(Kind::Slashing));
    assert!(store.find(job(99)).unwrap().is_empty());
    drop(store);
    let store = Decisions::open(dir.path(), &DecisionsConfig::default()).unwrap();
    assert_eq!(store.find(job(7)).unwrap(), found);
    assert_eq!(
        store.latest(3).unwrap().iter().map(|d| d.job).collect::<Vec<_>>(),
        [job(7), job(49), job(48)]
    );
    assert_eq!(store.dropped(), 0);
}

#[test]
fn the_store_is_bounded_and_forgets_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Decisions::open(dir.path(), &small()).unwrap();
    for n in 0..500 {
        keep(&store, n, PolicyHash::of(b"p"));
    }
    store.flush().unwrap();
    let bytes: u64 =
        fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 2 * 20_000 + 200_000, "{bytes}");
    let kept = store.latest(1000).unwrap();
    assert!(kept.len() > 5 && kept.len() < 400, "{}", kept.len());
    let jobs: Vec<_> = kept.iter().map(|decision| decision.job.as_u128()).collect();
    assert_eq!(jobs, (0..500).rev().take(jobs.len()).collect::<Vec<_>>(), "the latest, without a gap");
    assert!(store.find(job(0)).unwrap().is_empty());
}

#[test]
fn a_torn_end_is_cut_off_and_a_spoiled_middle_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Decisions::open(dir.path(), &DecisionsConfig::default()).unwrap();
    let store = open();
    (0..20).for_each(|n| keep(&store, n, PolicyHash::of(b"p")));
    drop(store);
    let path = dir.path().join("decisions.new");
    let whole = fs::read(&path).unwrap();
    // The power goes in the middle of a record.
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let store = open();
    assert_eq!(store.latest(100).unwrap().len(), 19);
    keep(&store, 20, PolicyHash::of(b"p"));
    store.flush().unwrap();
    assert_eq!(store.latest(100).unwrap().len(), 20);
    drop(store);
    // A byte in the middle is spoiled, and something was written behind the end.
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"plkdplkdplkd").unwrap();
    let store = open();
    let kept = store.latest(100).unwrap();
    assert_eq!(kept.len(), 19, "the first is lost, the others are there");
    assert_eq!(kept[0].job, job(20));
}

#[test]
fn a_decision_is_executed_again_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Decisions::open(dir.path(), &DecisionsConfig::default()).unwrap();
    let guest = Guest::default();
    let of = [load(&guest.routing()), load(&guest.pricing()), load(&guest.slashing())];
    let mut sampler = Sampler::new(9);
    for n in 0..100u128 {
        let policy = &of[usize::try_from(n % 3).unwrap()];
        let input = sampler.input(policy.kind());
        let output = policy.decide(&input).unwrap().output;
        assert!(store.record(job(n), policy.hash(), 5, input, output));
    }
    store.flush().unwrap();
    for n in 0..100u128 {
        let policy = &of[usize::try_from(n % 3).unwrap()];
        let paper = store.find(job(n)).unwrap().remove(0).export().to_string();
        // On another node.
        let decision = Decision::import(&paper).unwrap();
        assert_eq!(decision.replay(policy), Ok(Replay::Same));
    }
}

#[test]
fn a_decision_that_was_not_made_so_is_found_out() {
    let policy = load(&Guest { prelude: when(BAD, "(unreachable)"), ..Guest::default() }.routing());
    let mut sampler = Sampler::new(9);
    let mut input = sampler.input(Kind::Routing);
    let answer = Output::Routing(Ok(Ranking { order: Vec::new(), note: "as I like".into() }));
    let made = Decision::new(job(1), policy.hash(), 5, &input, &answer);
    let Ok(Replay::Different(output)) = made.replay(&policy) else { panic!() };
    assert_eq!(output, policy.decide(&input).unwrap().output);
    let other = load(&scoring(77));
    assert!(matches!(made.replay(&other), Err(PaperError::OtherPolicy { .. })));
    let spoiled = Decision { input: made.input[1..].to_vec(), ..made.clone() };
    assert_eq!(spoiled.replay(&policy), Err(PaperError::Bytes("question")));
    if let crate::policy::types::Input::Routing { seed, .. } = &mut input {
        *seed = BAD;
    }
    let failed = Decision::new(job(1), policy.hash(), 5, &input, &answer);
    assert!(matches!(failed.replay(&policy), Err(PaperError::Call(CallError::Trap(_)))));
}

#[test]
fn papers_of_another_form_are_refused() {
    let policy = PolicyHash::of(b"p");
    let input = Sampler::new(9).input(Kind::Pricing);
    let whole = Decision::new(job(1), policy, 5, &input, &Output::Pricing(Err("no".into())));
    let json = whole.export();
    assert_eq!(Decision::import(&json.to_string()), Ok(whole));
    let with = |field: &str, value: serde_json::Value| {
        let mut json = json.clone();
        json[field] = value;
        Decision::import(&json.to_string()).unwrap_err()
    };
    assert!(matches!(with("version", 2.into()), PaperError::Form(_)));
    assert!(matches!(with("policy", "0x12".into()), PaperError::Form(_)));
    assert!(matches!(with("more", 1.into()), PaperError::Form(_)));
    assert_eq!(with("input", "0x123".into()), PaperError::Bytes("question"));
    assert_eq!(with("output", "zz".into()), PaperError::Bytes("answer"));
    assert!(matches!(Decision::import(&" ".repeat(5 << 20)), Err(PaperError::Long(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever lies in the folder, it is opened, read and written to.
    #[test]
    fn any_file_can_be_opened(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400, at in 0usize..3000) {
        let dir = tempfile::tempdir().unwrap();
        let store = Decisions::open(dir.path(), &DecisionsConfig::default()).unwrap();
        (0..5).for_each(|n| keep(&store, n, PolicyHash::of(b"p")));
        drop(store);
        let path = dir.path().join("decisions.new");
        let mut file = fs::read(&path).unwrap();
        let at = at.min(file.len());
        file.splice(at..(at + cut).min(file.len()), bytes);
        fs::write(&path, &file).unwrap();
        let store = Decisions::open(dir.path(), &DecisionsConfig::default()).unwrap();
        prop_assert!(store.latest(100).unwrap().len() <= 5);
        keep(&store, 9, PolicyHash::of(b"p"));
        store.flush().unwrap();
        prop_assert_eq!(store.find(job(9)).unwrap().len(), 1);
    }
}
