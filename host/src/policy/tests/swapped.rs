use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::fixture::{BAD, Guest, load, question, scoring, when};
use crate::policy::{
    CallError, Decider, Event, Kind, NoDecision, NothingBefore, Policies, PoliciesConfig, Reason, Soonest,
    sample::Sampler, types::Input,
};

fn policies() -> Policies {
    Policies::new("pool-1", PoliciesConfig::default(), Arc::new(Soonest))
}

#[test]
fn without_a_policy_the_default_decides_or_nobody() {
    let policies = policies();
    let (job, candidates) = question(4);
    let routed = policies.rank(&job, &candidates, 1, 2);
    assert_eq!(routed.by, Decider::Native(NoDecision::None(Kind::Routing)));
    assert_eq!(routed.ranking.order.len(), 4);
    let mut sampler = Sampler::new(1);
    for kind in [Kind::Pricing, Kind::Slashing] {
        assert_eq!(policies.decide(&sampler.input(kind)).unwrap_err(), NoDecision::None(kind));
    }
    assert!(policies.standing().is_empty());
    assert_eq!(policies.scope(), "pool-1");
}

/// Callers never wait for a swap, none fails, and each answer is wholly one policy's.
#[test]
fn a_thousand_swaps_under_sixty_four_callers() {
    let policies = policies();
    let of = [load(&scoring(1001)), load(&scoring(1002))];
    policies.activate(of[0].clone(), "test", 0);
    let (job, candidates) = question(8);
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let both = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        for caller in 0..64u64 {
            let (policies, job, candidates, of) = (&policies, &job, &candidates, &of);
            let (stop, answers, both) = (&stop, &answers, &both);
            scope.spawn(move || {
                let mut seed = caller << 32;
                while !stop.load(Ordering::Relaxed) {
                    seed += 1;
                    let routed = policies.rank(job, candidates, 1, seed);
                    let Decider::Policy(hash) = routed.by else { panic!("{:?}", routed.by) };
                    let which = of.iter().position(|policy| policy.hash() == hash).unwrap();
                    let score = 1001 + i64::try_from(which).unwrap();
                    assert_eq!(routed.ranking.order.len(), 8);
                    assert!(routed.ranking.order.iter().all(|choice| choice.score == score));
                    both[which].fetch_add(1, Ordering::Relaxed);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let start = Instant::now();
        for swap in 0..1000 {
            policies.activate(of[(swap + 1) % 2].clone(), "test", 0);
            // So that answers come between swaps, however busy the machine is.
            let seen = answers.load(Ordering::Relaxed);
            while answers.load(Ordering::Relaxed) < seen + 8 && start.elapsed() < Duration::from_secs(120) {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let [one, two] = both.map(|count| count.load(Ordering::Relaxed));
    assert!(one > 500 && two > 500, "{one} {two}");
    let standing = policies.standing();
    assert!(!standing[0].aside);
    assert_eq!(standing[0].reading.failures(), 0);
    drop(policies);
    assert!(of.iter().all(|policy| Arc::strong_count(policy) == 1), "a set that was replaced is still there");
}

#[test]
fn a_policy_that_fails_again_and_again_is_set_aside() {
    let policies = policies();
    let mut events = policies.events();
    let bad = load(&Guest { prelude: when(BAD, "(unreachable)"), ..Guest::default() }.routing());
    policies.activate(bad.clone(), "owner", 5);
    let (job, candidates) = question(4);
    // Four failures and a decision: it goes on.
    for seed in [BAD, BAD, BAD, BAD, 2, BAD, BAD, BAD, BAD] {
        let routed = policies.rank(&job, &candidates, 1, seed);
        assert_eq!(routed.ranking.order.len(), 4, "the native order is used");
        match routed.by {
            Decider::Policy(_) => assert_eq!(seed, 2),
            Decider::Native(why) => assert!(matches!(why, NoDecision::Failed(CallError::Trap(_))), "{why}"),
        }
    }
    assert!(!policies.standing()[0].aside);
    assert!(matches!(policies.rank(&job, &candidates, 1, BAD).by, Decider::Native(_)));
    assert!(policies.standing()[0].aside);
    // It is not asked any more, not even a question it could answer.
    let calls = policies.standing()[0].reading.calls;
    assert_eq!(policies.rank(&job, &candidates, 1, 2).by, Decider::Native(NoDecision::Aside(bad.hash())));
    let reading = &policies.standing()[0].reading;
    assert_eq!((reading.calls, reading.failures()), (calls, 9));
    assert_eq!(reading.reasons.get(&Reason::Trap), Some(&9));

    assert!(matches!(events.try_recv().unwrap(), Event::Activated { replaced: None, .. }));
    let Event::SetAside { kind, hash, failures, error } = events.try_recv().unwrap() else { panic!() };
    assert_eq!((kind, hash, failures), (Kind::Routing, bad.hash(), 5));
    assert!(error.contains("broke off"), "{error}");
    assert!(events.try_recv().is_err(), "it is told once");

    policies.activate(bad, "owner", 6);
    assert!(matches!(policies.rank(&job, &candidates, 1, 2).by, Decider::Policy(_)), "another chance");
}

#[test]
fn a_question_that_is_wrong_is_not_the_policys_fault() {
    let policies = policies();
    policies.activate(load(&scoring(3)), "owner", 5);
    let (mut job, candidates) = question(4);
    job.model = "m".repeat(300);
    for _ in 0..20 {
        let why = policies.rank(&job, &candidates, 1, 2).by;
        assert!(matches!(why, Decider::Native(NoDecision::Failed(CallError::Question(_)))));
    }
    assert!(!policies.standing()[0].aside);
}

#[test]
fn pricing_refuses_and_slashing_gives_no_verdict_when_they_fail() {
    let policies = policies();
    let odd = "(if (i64.eq (i64.load offset=48 (local.get $args)) (i64.const 2989)) (then (unreachable)))";
    policies.activate(load(&Guest { prelude: odd.into(), ..Guest::default() }.pricing()), "owner", 0);
    let odd = "(if (i64.eq (local.get $provider) (i64.const 2989)) (then (loop $l (br $l))))";
    policies.activate(load(&Guest { prelude: odd.into(), ..Guest::default() }.slashing()), "owner", 0);
    let mut sampler = Sampler::new(6);
    let Input::Pricing { mut job, hardware, market, now } = sampler.input(Kind::Pricing) else { panic!() };
    let Input::Slashing { mut evidence, .. } = sampler.input(Kind::Slashing) else { panic!() };
    assert!(policies.quote(&job, &hardware, &market, now).is_ok());
    assert!(policies.judge(&evidence, now).is_ok());
    (job.resumed, evidence.provider) = (2989, 2989);
    for _ in 0..5 {
        let none = policies.quote(&job, &hardware, &market, now).unwrap_err();
        assert!(matches!(none, NoDecision::Failed(CallError::Trap(_))), "{none}");
        let none = policies.judge(&evidence, now).unwrap_err();
        assert!(matches!(none, NoDecision::Failed(CallError::Fuel { .. })), "{none}");
    }
    assert!(matches!(policies.quote(&job, &hardware, &market, now), Err(NoDecision::Aside(_))));
    assert!(matches!(policies.judge(&evidence, now), Err(NoDecision::Aside(_))));
}

#[test]
fn one_step_back_leads_to_what_decided_before() {
    let policies = policies();
    assert_eq!(policies.rollback(Kind::Routing), Err(NothingBefore(Kind::Routing)));
    let (one, two) = (load(&scoring(51)), load(&scoring(52)));
    policies.activate(one.clone(), "owner", 1);
    policies.activate(two.clone(), "owner", 2);
    policies.activate(two, "owner", 3);
    assert_eq!(policies.rollback(Kind::Routing), Ok(Some(one.hash())), "the same policy again is no step");
    let (job, candidates) = question(2);
    assert_eq!(policies.rank(&job, &candidates, 1, 2).by, Decider::Policy(one.hash()));
    assert_eq!(policies.rollback(Kind::Routing), Err(NothingBefore(Kind::Routing)));
    policies.deactivate(Kind::Routing);
    assert!(policies.active(Kind::Routing).is_none());
    assert_eq!(policies.rollback(Kind::Routing), Ok(Some(one.hash())));
    // To the default, where that was before.
    policies.deactivate(Kind::Routing);
    policies.activate(one, "owner", 9);
    assert_eq!(policies.rollback(Kind::Routing), Ok(None));
    assert!(policies.active(Kind::Routing).is_none());
}
