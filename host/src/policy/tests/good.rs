use std::time::Duration;

use parity_scale_codec::Encode;

use super::fixture::{BAD, Guest, component, config, engine, load, question, scoring, when, with_section};
use crate::policy::{
    Abi, CallError, Engine, EngineConfig, GOLDEN_SECTION, Kind, LoadError, PolicyHash, Vector, check_output,
    sample::Sampler,
    steady::{self, SteadyError, Way},
    types::{Input, Judgement, Output},
    vectors,
};

#[test]
fn a_policy_of_each_kind_is_loaded_and_decides() {
    let guest = Guest::default();
    for (bytes, kind) in [
        (guest.routing(), Kind::Routing),
        (guest.pricing(), Kind::Pricing),
        (guest.slashing(), Kind::Slashing),
    ] {
        let policy = load(&bytes);
        assert_eq!((policy.kind(), policy.abi(), policy.size()), (kind, Abi::V0_1, bytes.len()));
        assert_eq!(policy.hash(), PolicyHash::of(&bytes));
        assert_eq!(policy.describe().name, "test-policy");
        assert_eq!(policy.report().vectors.len(), vectors(kind).len());
        let mut sampler = Sampler::new(3);
        for _ in 0..200 {
            let input = sampler.input(kind);
            let decided = policy.decide(&input).unwrap();
            assert_eq!(check_output(&input, &decided.output), Ok(()));
            assert!(decided.fuel > 0);
        }
        let other = Kind::ALL.into_iter().find(|other| *other != kind).unwrap();
        let asked = policy.decide(&sampler.input(other)).unwrap_err();
        assert_eq!(asked, CallError::WrongKind { policy: kind, asked: other });
    }
}

#[test]
fn answers_are_what_the_guest_said() {
    let (job, machines) = question(5);
    let ranking = load(&scoring(-7)).rank(&job, &machines, 1, 2).unwrap();
    assert_eq!(ranking.note, "test-policy");
    assert_eq!(ranking.order.iter().map(|choice| choice.candidate).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(ranking.order.iter().all(|choice| choice.score == -7));

    // What is passed arrives in its place: the guest gives a field back as the score.
    for (offset, field) in [
        (0, machines.iter().map(|machine| machine.machine).collect::<Vec<_>>()),
        (168, machines.iter().map(|machine| machine.stake).collect()),
        (64, machines.iter().map(|machine| machine.in_flight.into()).collect()),
    ] {
        let load_field = if offset == 64 { "i64.load32_u" } else { "i64.load" };
        let score = format!(
            "({load_field} offset={offset} (i32.add (local.get $list) (i32.mul (local.get $i) (i32.const 184))))"
        );
        let policy = load(&Guest { score, ..Guest::default() }.routing());
        let ranking = policy.rank(&job, &machines, 1, 2).unwrap();
        let scores: Vec<_> = ranking.order.iter().map(|choice| choice.score.cast_unsigned()).collect();
        assert_eq!(scores, field, "{offset}");
    }

    let pricing = load(&Guest::default().pricing());
    let mut sampler = Sampler::new(8);
    for _ in 0..50 {
        let Input::Pricing { job, hardware, market, now } = sampler.input(Kind::Pricing) else { panic!() };
        let price = pricing.quote(&job, &hardware, &market, now).unwrap();
        assert_eq!((price.per_thousand_answer, price.valid_ms), (market.floor, 60_000));
    }
    let slashing = load(&Guest { score: "(i64.const 250000)".into(), ..Guest::default() }.slashing());
    let Input::Slashing { evidence, now } = sampler.input(Kind::Slashing) else { panic!() };
    assert_eq!(slashing.judge(&evidence, now).unwrap().judgement, Judgement::Convict(250_000));
}

#[test]
fn a_policy_that_is_in_use_is_there_once() {
    let bytes = scoring(31);
    let (one, two) = (load(&bytes), load(&bytes));
    assert!(std::sync::Arc::ptr_eq(&one, &two));
}

#[test]
fn the_answer_is_the_same_in_a_fresh_instance_and_a_warm_one() {
    let policy = load(&scoring(5));
    assert!(policy.keeps_warm());
    let (job, candidates) = question(8);
    for seed in 0..2500 {
        let ranked = policy.rank_counted(&job, &candidates, 1, seed).unwrap();
        let input = Input::Routing { job: job.clone(), candidates: candidates.clone(), now: 1, seed };
        let decided = policy.decide(&input).unwrap();
        assert_eq!(decided.output, Output::Routing(Ok(ranked.ranking)));
        assert_eq!(decided.fuel, ranked.fuel, "a warm instance did other work");
        assert!(ranked.warm || seed == 0);
    }
    assert!(policy.keeps_warm());
}

/// Counts its calls and tells. A fresh instance always counts one, so the policy is steady and may be used; its
/// instances are never kept.
#[test]
fn a_policy_that_remembers_gets_a_new_instance_for_each_call() {
    let policy = load(&Guest { score: "(global.get $calls)".into(), ..Guest::default() }.routing());
    assert!(!policy.report().keeps_nothing);
    assert!(!policy.keeps_warm());
    let (job, candidates) = question(3);
    for _ in 0..20 {
        let ranked = policy.rank_counted(&job, &candidates, 1, 2).unwrap();
        assert!(!ranked.warm);
        assert!(ranked.ranking.order.iter().all(|choice| choice.score == 1));
    }
}

/// Answers otherwise only after many calls, so that no vector notices.
#[test]
fn a_policy_that_remembers_late_is_found_out() {
    let config = EngineConfig { compare_every: 4, ..config() };
    let engine = Engine::new(config).unwrap();
    let score = "(i64.extend_i32_u (i64.gt_u (global.get $calls) (i64.const 100)))".to_owned();
    let policy = engine.load(&Guest { score, ..Guest::default() }.routing()).unwrap();
    assert!(policy.keeps_warm());
    let (job, candidates) = question(3);
    let mut wrong = 0;
    for seed in 0..300 {
        let ranked = policy.rank_counted(&job, &candidates, 1, seed).unwrap();
        wrong += u32::from(ranked.ranking.order.iter().any(|choice| choice.score != 0));
    }
    assert!(!policy.keeps_warm());
    assert!(wrong < 4, "{wrong} answers came out of what earlier calls left behind");
}

/// Floating point is allowed, and is the same on every machine: a NaN has one form, and subnormal numbers count.
#[test]
fn no_float_depends_on_the_machine() {
    let engine = engine();
    let baseline = Engine::new(EngineConfig { baseline: true, ..engine.config().clone() }).unwrap();
    let now = "(f64.reinterpret_i64 (i64.xor (local.get $seed) (i64.const 0x7ff4deadbeef0000)))";
    let tiny = "(f64.mul (f64.const 0x1p-1050) (f64.convert_i64_u (local.get $now)))";
    for score in [
        "(i64.reinterpret_f64 (f64.div (f64.const 0) (f64.const 0)))".to_owned(),
        format!("(i64.reinterpret_f64 (f64.add {now} (f64.const 1)))"),
        format!("(i64.reinterpret_f64 (f64.sqrt (f64.neg {now})))"),
        format!("(i64.reinterpret_f64 (f64.mul {now} {tiny}))"),
        format!("(i64.reinterpret_f64 {tiny})"),
        format!("(i64.reinterpret_f64 (f64.nearest (f64.mul {tiny} (f64.const 0x1p1000))))"),
        "(i64.extend_i32_u (i32.reinterpret_f32 (f32.demote_f64 (f64.div (f64.const 0) (f64.const 0)))))"
            .to_owned(),
    ] {
        let bytes = Guest { score: score.clone(), ..Guest::default() }.routing();
        let (one, two) = (engine.load(&bytes).unwrap(), baseline.load(&bytes).unwrap());
        let (job, candidates) = question(2);
        for seed in [0, 1, 5, u64::MAX, 0x7ff4_dead_beef_0000] {
            let input = Input::Routing { job: job.clone(), candidates: candidates.clone(), now: 3, seed };
            let (one, two) = (one.decide(&input).unwrap(), two.decide(&input).unwrap());
            assert_eq!(one.output.encode(), two.output.encode(), "{score} {seed}");
            let Output::Routing(Ok(ranking)) = one.output else { panic!() };
            let float = f64::from_bits(ranking.order[0].score.cast_unsigned());
            if float.is_nan() {
                assert_eq!(float.to_bits(), 0x7ff8_0000_0000_0000, "{score} {seed}: another form of NaN");
            }
        }
    }
}

#[test]
fn own_vectors_are_asked_and_their_answers_expected() {
    let bytes = scoring(12);
    let (job, candidates) = question(2);
    let input = Input::Routing { job, candidates, now: 4, seed: 5 };
    let output = load(&bytes).decide(&input).unwrap().output;
    let mut vector = Vector { name: "two\u{1b} machines".into(), input, output: Some(output) };
    let own = |vector: &Vector| {
        with_section(bytes.clone(), GOLDEN_SECTION, &serde_json::to_vec(&[vector]).unwrap())
    };
    let policy = load(&own(&vector));
    let last = policy.report().vectors.last().unwrap();
    assert_eq!((last.vector.as_str(), last.expected), ("two machines", true));

    vector.output = Some(Output::Routing(Err("no".into())));
    let refused = engine().load(&own(&vector)).unwrap_err();
    assert_eq!(refused, LoadError::Unexpected { vector: "two machines".into() });

    for section in ["", "{}", "[{}]", "[{\"name\": 3}]"] {
        let refused = engine().load(&with_section(bytes.clone(), GOLDEN_SECTION, section.as_bytes()));
        assert!(matches!(refused, Err(LoadError::Golden(_))), "{section}");
    }
    let many = serde_json::to_vec(&vec![Vector { output: None, ..vector }; 65]).unwrap();
    let refused = engine().load(&with_section(bytes.clone(), GOLDEN_SECTION, &many));
    assert!(matches!(refused, Err(LoadError::Golden(_))));
    let twice = with_section(with_section(bytes, GOLDEN_SECTION, b"[]"), GOLDEN_SECTION, b"[]");
    assert!(matches!(engine().load(&twice), Err(LoadError::Many { .. })));
}

fn ways() -> Vec<Way> {
    let engine = engine().clone();
    let baseline = Engine::new(EngineConfig { baseline: true, ..engine.config().clone() }).unwrap();
    let way = |engine: &Engine, threads, warm, name: &str| Way {
        engine: engine.clone(),
        threads,
        warm,
        name: name.into(),
    };
    vec![
        way(&engine, 4, false, "this machine's instructions, 4 threads"),
        way(&engine, 2, true, "this machine's instructions, warm"),
        way(&baseline, 1, false, "the oldest instructions, 1 thread"),
    ]
}

#[test]
fn a_steady_policy_gives_the_same_bytes_in_every_way() {
    let guest = Guest::default();
    let ways = ways();
    for bytes in [guest.routing(), guest.pricing(), guest.slashing()] {
        let steady = steady::check(&bytes, &ways, 1200, 7).unwrap();
        assert_eq!((steady.inputs, steady.refused, steady.failed), (1200, 0, 0));
        let again = steady::check(&bytes, &ways[..1], 1200, 7).unwrap();
        assert_eq!(steady, again);
    }
    let of_seed = |seed| steady::check(&guest.routing(), &ways[..1], 600, seed).unwrap().digest;
    assert_ne!(of_seed(7), of_seed(8), "other questions have other answers");
    assert_eq!(steady::check(&guest.routing(), &[], 1, 1), Err(SteadyError::NoWay));
}

/// Shows that a difference would be found: two engines with unequal fuel, and a policy that runs out of it.
#[test]
fn a_difference_between_two_ways_is_found() {
    let loops =
        "(local.set $i (i32.const 20000)) (loop $l (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br_if $l (local.get $i)))";
    let prelude =
        format!("(if (i64.eq (i64.and (local.get $seed) (i64.const 0xff)) (i64.const 0x33)) (then {loops}))");
    let bytes = Guest { prelude, ..Guest::default() }.routing();
    let poor = EngineConfig { fuel: 60_000, ..engine().config().clone() };
    let poor = Engine::new(poor).unwrap();
    let way = |engine: &Engine| Way { engine: engine.clone(), threads: 1, warm: false, name: "w".into() };
    let found = steady::check(&bytes, &[way(engine()), way(&poor)], 3000, 1);
    assert!(matches!(found, Err(SteadyError::Differs { .. })), "{found:?}");
}

#[test]
fn callers_wait_for_an_instance_and_not_for_ever() {
    let config = EngineConfig {
        slots: 1,
        warm: 0,
        fuel: u64::MAX / 2,
        deadline: Duration::from_secs(4),
        patience: Duration::from_millis(20),
        ..config()
    };
    let engine = Engine::new(config).unwrap();
    let policy =
        engine.load(&Guest { prelude: when(BAD, "(loop $l (br $l))"), ..Guest::default() }.routing());
    let policy = policy.unwrap();
    let (job, candidates) = question(2);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| policy.rank(&job, &candidates, 1, BAD));
        let mut busy = false;
        while !slow.is_finished() {
            busy |= matches!(policy.rank(&job, &candidates, 1, 2), Err(CallError::Busy(_)));
            // So that the other one gets the place.
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(busy);
        assert_eq!(slow.join().unwrap(), Err(CallError::Time(Duration::from_secs(4))));
    });
    assert!(policy.rank(&job, &candidates, 1, 2).is_ok());
}

#[test]
fn what_the_tools_import_for_types_is_allowed() {
    // The import that tools emit: types only. If they stop doing so, this test can go.
    let module = Guest::default().module(Kind::Routing);
    let text = String::from_utf8_lossy(&component("routing-policy", &module)).into_owned();
    assert!(text.contains("potluck:policy/types@0.1.0"));
}

#[test]
fn a_setting_that_cannot_be_is_told() {
    for config in [
        EngineConfig { fuel: 0, ..EngineConfig::default() },
        EngineConfig { memory: 1000, ..EngineConfig::default() },
        EngineConfig { slots: 0, ..EngineConfig::default() },
    ] {
        assert!(Engine::new(config).unwrap_err().to_string().contains("configuration"));
    }
}
