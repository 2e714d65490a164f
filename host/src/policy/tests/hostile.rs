use std::time::{Duration, Instant};

use super::fixture::{BAD, Guest, engine, load, question, when};
use crate::policy::{
    CallError, Fault, Kind, LoadError, MAX_COMPONENT, Policy, Reason, sample::Sampler, types::Input,
};

fn refusal(bytes: &[u8]) -> LoadError {
    let start = Instant::now();
    let error = engine().load(bytes).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(error.to_string().len() < 1000, "{error}");
    error
}

fn text(component: &str) -> LoadError {
    refusal(&wat::parse_str(component).unwrap())
}

/// Asks a policy whose guest misbehaves for one seed, and whether it is as good as before afterwards.
fn failure(policy: &Policy) -> CallError {
    let (job, candidates) = question(8);
    let before = policy.rank(&job, &candidates, 1, 2).unwrap();
    let (start, memory) = (Instant::now(), resident());
    let error = policy.rank(&job, &candidates, 1, BAD).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let grown = resident().saturating_sub(memory);
    assert!(grown < 64 << 20, "the host grew by {grown} bytes");
    assert_eq!(policy.rank(&job, &candidates, 1, 2).unwrap(), before);
    assert!(error.to_string().len() < 1000, "{error}");
    error
}

/// Bytes of this process in memory; 0 where that cannot be known.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn bad(prelude: &str) -> Guest {
    Guest { prelude: when(BAD, prelude), ..Guest::default() }
}

#[test]
fn a_loop_ends_when_the_fuel_does() {
    let policy = load(&bad("(loop $l (br $l))").routing());
    assert_eq!(failure(&policy), CallError::Fuel { budget: 10_000_000 });
    let refused = refusal(&Guest { prelude: "(loop $l (br $l))".into(), ..Guest::default() }.routing());
    assert!(matches!(refused, LoadError::Vector { error: CallError::Fuel { .. }, .. }), "{refused}");
    // Moving memory in bulk is paid for by the byte.
    let fill = "(loop $l (memory.fill (i32.const 65536) (i32.const 0) (i32.const 65536)) (br $l))";
    assert_eq!(failure(&load(&bad(fill).routing())).reason(), Reason::Fuel);
}

#[test]
fn memory_is_given_up_to_the_limit_only() {
    let grow = "(loop $l (drop (memory.grow (i32.const 16))) (br $l))";
    assert_eq!(failure(&load(&bad(grow).routing())), CallError::Memory { limit: 8 << 20 });
    let once = "(drop (memory.grow (i32.const 65000)))";
    assert_eq!(failure(&load(&bad(once).routing())), CallError::Memory { limit: 8 << 20 });
    let refused = refusal(&Guest { pages: 129, ..Guest::default() }.routing());
    assert_eq!(refused, LoadError::Memory { wants: 129 << 16, most: 8 << 20 });
    let refused = refusal(&Guest { pages: 65535, ..Guest::default() }.routing());
    assert!(matches!(refused, LoadError::Memory { .. }));
}

#[test]
fn a_maximum_of_its_own_is_no_way_to_learn_of_the_limits() {
    let fields =
        "(table $t 1 2 funcref) (func $grow (result i32) (table.grow $t (ref.null func) (i32.const 5)))";
    let policy = load(&Guest { fields: fields.into(), ..bad("(drop (call $grow))") }.routing());
    assert_eq!(failure(&policy).reason(), Reason::Memory);
}

#[test]
fn recursion_ends_with_the_stack() {
    let fields = "(func $deep (param i64) (result i64)
        (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))";
    let policy = load(&Guest { fields: fields.into(), ..bad("(drop (call $deep (i64.const 1)))") }.routing());
    assert_eq!(failure(&policy), CallError::Stack { limit: 256 << 10 });
}

#[test]
fn a_trap_is_told_in_words() {
    assert!(matches!(failure(&load(&bad("(unreachable)").routing())), CallError::Trap(_)));
    let read = "(drop (i64.load (i32.const -16)))";
    assert!(matches!(failure(&load(&bad(read).routing())), CallError::Trap(_)));
    let divide = "(drop (i32.div_u (i32.const 1) (local.get $i)))";
    assert!(matches!(failure(&load(&bad(divide).routing())), CallError::Trap(_)));
}

#[test]
fn an_answer_that_is_too_large_is_not_copied() {
    // As many choices as fit into the guest's memory: more bytes than an answer may have.
    let lie = |count: u32| {
        let answer = format!(
            "(i32.store offset=4 (i32.const 512) (i32.const 0)) (i32.store offset=8 (i32.const 512) (i32.const {count}))
             (i32.store8 (i32.const 512) (i32.const 0)) (return (i32.const 512))"
        );
        failure(&load(&bad(&answer).routing()))
    };
    assert_eq!(
        failure(&load(&bad("(local.set $count (i32.const 20000))").routing())),
        CallError::TooMuch { limit: 256 << 10 }
    );
    // 100 MiB, of which the guest has none.
    assert!(matches!(lie(100 << 16), CallError::Malformed(_) | CallError::TooMuch { .. }));
    assert!(matches!(lie(u32::MAX), CallError::Malformed(_) | CallError::TooMuch { .. }));
    // It has 100 machines where there are eight.
    let many = failure(&load(&bad("(local.set $count (i32.const 100))").routing()));
    assert!(matches!(many, CallError::Answer(Fault::Long { len: 100, most: 8, .. })), "{many}");
}

#[test]
fn texts_are_bounded_and_are_text() {
    let note = |at: u32, len: u32| {
        let set = format!("(local.set $note (i32.const {at})) (local.set $note_len (i32.const {len}))");
        failure(&load(&bad(&set).routing()))
    };
    assert!(matches!(note(1024, 1025), CallError::Answer(Fault::Long { len: 1025, most: 1024, .. })));
    assert!(
        matches!(note(0, 130_000), CallError::Malformed(_) | CallError::Answer(_)),
        "holds bytes that are no text"
    );
    assert!(matches!(note(32, 3), CallError::Malformed(_)), "no UTF-8");
    assert!(matches!(note(0xffff_0000, 0xffff), CallError::Malformed(_)), "beyond the memory");
    let pages = "(drop (memory.grow (i32.const 60))) (local.set $note (i32.const 200000)) (local.set $note_len (i32.const 3000000))";
    assert!(matches!(failure(&load(&bad(pages).routing())), CallError::TooMuch { .. }));
}

#[test]
fn a_label_that_cannot_be_shown_is_refused() {
    for (name, why) in [((1024, 2000), "long"), ((500, 3), "control"), ((16, 0), "empty")] {
        let refused = refusal(&Guest { name, ..Guest::default() }.routing());
        assert!(matches!(refused, LoadError::Label(_)), "{why}: {refused}");
    }
    let refused = refusal(&Guest { name: (32, 3), ..Guest::default() }.routing());
    assert!(matches!(refused, LoadError::Describe(CallError::Malformed(_))), "{refused}");
}

#[test]
fn only_machines_of_the_list_are_ranked_and_each_once() {
    let choose = |candidate: &str| {
        let candidate = format!(
            "(if (result i32) (i64.eq (local.get $seed) (i64.const {BAD})) (then {candidate}) (else (local.get $i)))"
        );
        failure(&load(&Guest { candidate, ..Guest::default() }.routing()))
    };
    let unknown = choose("(i32.add (local.get $i) (i32.const 1))");
    assert_eq!(unknown, CallError::Answer(Fault::Unknown { index: 8, len: 8 }));
    assert_eq!(choose("(i32.const -1)"), CallError::Answer(Fault::Unknown { index: u32::MAX, len: 8 }));
    assert_eq!(choose("(i32.const 3)"), CallError::Answer(Fault::Twice { index: 3 }));
    let always = Guest { candidate: "(i32.const 7)".into(), ..Guest::default() };
    let refused = refusal(&always.routing());
    assert!(matches!(refused, LoadError::Vector { error: CallError::Answer(_), .. }), "{refused}");
}

#[test]
fn prices_and_shares_beyond_their_bounds_are_refused() {
    let floor = Guest::default().answer;
    // Only for jobs of which no vector asks.
    let quoted = |bad: &str| {
        let odd = "(i64.eq (i64.load offset=48 (local.get $args)) (i64.const 2989))";
        let answer = format!("(if (result i64) {odd} (then {bad}) (else {floor}))");
        let policy = load(&Guest { answer, ..Guest::default() }.pricing());
        let mut sampler = Sampler::new(4);
        let Input::Pricing { mut job, hardware, mut market, now } = sampler.input(Kind::Pricing) else {
            panic!()
        };
        job.resumed = 2989;
        (market.floor, market.ceiling) = (10, 5000);
        policy.quote(&job, &hardware, &market, now).unwrap_err()
    };
    assert_eq!(quoted("(i64.const 0)"), CallError::Answer(Fault::BelowFloor { asked: 0, floor: 10 }));
    let most = quoted("(i64.const -1)");
    assert!(matches!(most, CallError::Answer(Fault::AboveCeiling { asked: u64::MAX, .. })), "{most}");
    for answer in ["(i64.const 0)", "(i64.const -1)"] {
        let refused = refusal(&Guest { answer: answer.into(), ..Guest::default() }.pricing());
        assert!(matches!(refused, LoadError::Vector { error: CallError::Answer(_), .. }), "{refused}");
    }
    for share in ["(i64.const 0)", "(i64.const 1000001)", "(i64.const -1)"] {
        let refused = refusal(&Guest { score: share.into(), ..Guest::default() }.slashing());
        let share =
            matches!(refused, LoadError::Vector { error: CallError::Answer(Fault::Share { .. }), .. });
        assert!(share, "{refused}");
    }
}

#[test]
fn what_is_no_component_is_refused() {
    assert_eq!(refusal(&wat::parse_str("(module)").unwrap()), LoadError::CoreModule);
    assert!(matches!(refusal(b""), LoadError::Invalid(_)));
    assert!(matches!(refusal(b"\0asm"), LoadError::Invalid(_)));
    assert!(matches!(refusal(&[0x20; 100_000]), LoadError::Invalid(_)));
    assert!(matches!(refusal(b"not a component at all"), LoadError::Invalid(_)));
    let large = vec![0; MAX_COMPONENT + 1];
    assert_eq!(refusal(&large), LoadError::Large { size: MAX_COMPONENT + 1, most: MAX_COMPONENT });
    let whole = Guest::default().routing();
    for len in (0..whole.len()).step_by(97) {
        assert!(matches!(refusal(&whole[..len]), LoadError::Invalid(_) | LoadError::World { .. }), "{len}");
    }
    // The text format is for people; only the binary one has a hash.
    assert!(matches!(refusal(b"(component)"), LoadError::Invalid(_)));
}

#[test]
fn a_policy_imports_nothing_that_could_be_called() {
    let wasi =
        r#"(component (import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "ok" bool))))))"#;
    assert_eq!(text(wasi), LoadError::Import("wasi:cli/exit@0.2.0".into()));
    let empty = r#"(component (import "wasi:io/poll@0.2.0" (instance)))"#;
    assert_eq!(text(empty), LoadError::Import("wasi:io/poll@0.2.0".into()));
    let ours =
        r#"(component (import "potluck:policy/types@0.1.0" (instance (export "now" (func (result u64))))))"#;
    assert_eq!(text(ours), LoadError::Import("potluck:policy/types@0.1.0".into()));
    let resource =
        r#"(component (import "potluck:policy/types@0.1.0" (instance (export "r" (type (sub resource))))))"#;
    assert_eq!(text(resource), LoadError::Import("potluck:policy/types@0.1.0".into()));
    for other in ["(func)", "(type (sub resource))", "(component)"] {
        let import = format!(r#"(component (import "log" {other}))"#);
        assert_eq!(text(&import), LoadError::Import("log".into()), "{other}");
    }
    let module = r#"(component (import "log" (core module)))"#;
    assert_eq!(text(module), LoadError::Import("log".into()));
}

#[test]
fn the_exports_make_up_one_world() {
    assert!(matches!(text("(component)"), LoadError::World { .. }));
    let instance = r#"(component (instance $i) (export "NAME" (instance $i)))"#;
    let named = |name: &str| text(&instance.replace("NAME", name));
    assert!(matches!(named("wasi:http/handler@0.2.0"), LoadError::World { .. }));
    assert!(matches!(named("potluck:policy/about@0.1.0"), LoadError::World { .. }), "decides nothing");
    assert!(matches!(named("potluck:policy/routing@0.1.0"), LoadError::World { .. }), "has no label");
    assert!(matches!(named("potluck:policy/weather@0.1.0"), LoadError::World { .. }));
    assert!(matches!(named("potluck:policy/routing@0.2.0"), LoadError::Version { .. }));
    assert!(matches!(named("potluck:policy/routing"), LoadError::World { .. }));
    let two = |other: &str| {
        text(&format!(
            r#"(component (instance $i) (export "potluck:policy/about@0.1.0" (instance $i))
                (export "potluck:policy/routing@0.1.0" (instance $i)) (export "{other}" (instance $i)))"#
        ))
    };
    assert!(matches!(two("potluck:policy/pricing@0.1.0"), LoadError::World { .. }));
    assert!(matches!(two("wasi:cli/run@0.2.0"), LoadError::World { .. }));
    // The names are right, and there is nothing in them.
    let hollow = r#"(component (instance $i) (export "potluck:policy/about@0.1.0" (instance $i))
        (export "potluck:policy/routing@0.1.0" (instance $i)))"#;
    assert!(matches!(text(hollow), LoadError::Shape(_)));
}

#[test]
fn nothing_runs_before_it_is_asked() {
    let fields = "(func $begin) (start $begin)";
    assert_eq!(refusal(&Guest { fields: fields.into(), ..Guest::default() }.routing()), LoadError::Start);
    // The initialiser that some tools export becomes a start function when it is wrapped.
    let fields = r#"(func (export "_initialize"))"#;
    assert_eq!(refusal(&Guest { fields: fields.into(), ..Guest::default() }.routing()), LoadError::Start);
}

#[test]
fn features_that_policies_do_not_have_are_refused() {
    for fields in [
        "(func (result v128) (v128.const i64x2 0 0))",
        "(func (return_call 0 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) unreachable)",
        "(memory $shared 1 2 shared)",
        "(memory $second 1)",
        "(memory $wide i64 1)",
        "(tag $t)",
    ] {
        let module = format!("(component (core module {fields}))");
        let Ok(bytes) = wat::parse_str(&module) else { panic!("{fields}") };
        let refused = refusal(&bytes);
        // A second memory alone is none too many in a module of its own.
        let fine = fields.contains("second") && matches!(refused, LoadError::World { .. });
        assert!(fine || matches!(refused, LoadError::Invalid(_)), "{fields}: {refused}");
    }
    let two = "(component (core module (memory 1)) (core module (memory 1)))";
    assert!(matches!(text(two), LoadError::Many { what: "memories", .. }));
}

#[test]
fn components_that_multiply_are_refused() {
    let nested = "(component (component (component)))";
    assert_eq!(text(nested), LoadError::Nested("components"));
    let inside = "(component (component (core module)))";
    assert_eq!(text(inside), LoadError::Nested("core modules"));
    let instances =
        "(component (component $c (component) ))".replace("(component) ", "(instance) (instance)");
    assert_eq!(text(&instances), LoadError::Nested("instances of components"));
    let many = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(9));
    assert!(matches!(text(&many), LoadError::Many { what: "core instances", .. }));
    let many = format!("(component {})", "(component)".repeat(17));
    assert!(matches!(text(&many), LoadError::Many { what: "components", .. }));
    let large = "(component (core module (table 10000 funcref)))";
    assert!(matches!(text(large), LoadError::Many { what: "table elements", .. }));
    let locals = format!("(component (core module (func (local {}))))", "i32 ".repeat(5000));
    assert!(matches!(text(&locals), LoadError::Many { .. }));
    let long = format!("(component (core module (func {})))", "(drop (i32.const 99999))".repeat(40_000));
    assert!(matches!(text(&long), LoadError::Many { .. }));
    let many = format!("(component (core module {}))", "(func)".repeat(10_001));
    assert!(matches!(text(&many), LoadError::Many { what: "functions", .. }));
}

/// As much code as is allowed, of the kind that compilers like least, is compiled in bounded time.
#[test]
fn the_worst_code_is_compiled_in_bounded_time() {
    let mut body = String::new();
    for n in 0..700 {
        body += &format!(
            "(block $b{n} (br_if $b{n} (local.get {})) (local.set {} (i32.const {n})))",
            n % 64,
            (n * 7) % 64
        );
    }
    let func = format!("(func (param i32) (local {}) {body})", "i32 ".repeat(64));
    let fields = func.repeat(40);
    let bytes = Guest { fields, ..Guest::default() }.routing();
    assert!(bytes.len() < MAX_COMPONENT, "{}", bytes.len());
    let start = Instant::now();
    engine().load(&bytes).unwrap();
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}
