//! What asking through a pool costs, held against asking the same machine directly over HTTP on the same cable, and
//! how soon a memory written on one machine is found on another.
//!
//! Needs root (network namespaces). `--json` writes one JSON object.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement: a panic is how it reports"
)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use potluck_tests::{
    gguf::Tiny,
    http::Client,
    netlab::{Host, Lab, Shape},
    node::{Node, NodeOptions, succeeded},
    process,
};
use serde_json::{Value, json};

const KEY: &str = "a-key-for-measuring";
/// Tokens of an answer.
const TOKENS: u32 = 96;

/// What one answer took.
struct Taken {
    first: Duration,
    gaps: Vec<Duration>,
    all: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let as_json = args.iter().any(|arg| arg == "--json");
    let number = |flag: &str, default: usize| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1)).map_or(default, |text| text.parse().expect("a number"))
    };
    let (asks, writes) = (number("--asks", 30), number("--writes", 100));
    Lab::available().expect("networks can be made here");
    let delays = [0, 10, 50];
    let rows: Vec<Value> = delays.into_iter().map(|delay| at(delay, asks, writes)).collect();
    if as_json {
        println!("{}", json!({"rows": rows}));
        return;
    }
    println!(
        "| one way | first token direct / pool | added, less one round trip | gap p99 direct / pool | throughput | write found elsewhere p50 / p95 / p99 |"
    );
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let ms = |path: &str| row.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        println!(
            "| {} ms | {:.1} / {:.1} ms | {:+.1} ms | {:.1} / {:.1} ms | {:.1} % | {:.1} / {:.1} / {:.1} ms |",
            ms("/delay_ms"),
            ms("/first_ms/direct"),
            ms("/first_ms/pool"),
            ms("/first_ms/pool") - ms("/first_ms/direct") - 2.0 * ms("/delay_ms"),
            ms("/gap_p99_ms/direct"),
            ms("/gap_p99_ms/pool"),
            100.0 * ms("/tokens_per_s/pool") / ms("/tokens_per_s/direct"),
            ms("/found_ms/p50"),
            ms("/found_ms/p95"),
            ms("/found_ms/p99"),
        );
    }
}

/// Everything over a cable with this delay in milliseconds each way.
fn at(delay: u64, asks: usize, writes: usize) -> Value {
    let lab = Lab::new("pool-bench");
    let net = lab.net("office");
    let scratch = tempfile::tempdir().unwrap();
    let model = Tiny::slow().write(&scratch.path().join("slow.gguf"));
    let here = lab.host("here", &net);
    let there = lab.host_over("there", &net, Shape::delay(delay));
    let options = |name: &str, host: &Host| {
        NodeOptions::new().args(["--node-name", name, "--threads", "1"]).before(host.before())
    };
    let asking = Node::start(options("here", &here));
    let serving = options("there", &there).model(model).args(["--api-key", KEY]).listen("0.0.0.0:7685");
    let serving = Node::start(serving);
    here.enter(|| succeeded(&asking.run(["pool", "create", "bench"])));
    let made = here.enter(|| succeeded(&asking.run(["pool", "invite", "--json", "--memory", "*"])));
    let made: Value = serde_json::from_str(&made).unwrap();
    let invite = made["invite"].as_str().unwrap();
    there.enter(|| succeeded(&serving.run(["join", invite, "--api-key", KEY])));
    let direct = Client { address: SocketAddr::from((there.addr_v4(), 7685)), key: Some(KEY.into()) };
    let through = asking.client();
    let (mut straight, mut pooled) = (Vec::new(), Vec::new());
    here.enter(|| {
        let ready = || std::panic::catch_unwind(|| ask(&through, "slow@trusted", 4)).is_ok();
        assert!(process::eventually(Duration::from_secs(20), ready), "{}", asking.stderr());
        for _ in 0..asks {
            straight.push(ask(&direct, "slow", TOKENS));
            pooled.push(ask(&through, "slow@trusted", TOKENS));
        }
    });
    let found = lags((&here, &asking), (&there, &serving), writes);
    let sorted = |of: &[Taken], what: &dyn Fn(&Taken) -> Vec<Duration>| {
        let mut all: Vec<Duration> = of.iter().flat_map(what).collect();
        all.sort_unstable();
        all
    };
    let both = |what: &dyn Fn(&Taken) -> Vec<Duration>, share: f64| {
        json!({"direct": ms(quantile(&sorted(&straight, what), share)),
            "pool": ms(quantile(&sorted(&pooled, what), share))})
    };
    let speed = |of: &[Taken]| {
        let mut all: Vec<f64> = of.iter().map(|taken| f64::from(TOKENS) / taken.all.as_secs_f64()).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    json!({
        "delay_ms": delay,
        "asks": asks,
        "first_ms": both(&|taken| vec![taken.first], 0.5),
        "gap_p99_ms": both(&|taken| taken.gaps.clone(), 0.99),
        "tokens_per_s": {"direct": speed(&straight), "pool": speed(&pooled)},
        "found_ms": {"p50": ms(quantile(&found, 0.5)), "p95": ms(quantile(&found, 0.95)),
            "p99": ms(quantile(&found, 0.99)), "writes": writes},
    })
}

/// Asks for tokens and takes the time of each.
fn ask(client: &Client, model: &str, tokens: u32) -> Taken {
    let body = json!({"model": model, "prompt": "abc", "max_tokens": tokens, "temperature": 0, "stream": true,
        "ignore_eos": true});
    let began = Instant::now();
    let mut stream = client.stream("/v1/completions", &body).expect("an answer");
    assert_eq!(stream.status, 200);
    let mut first = None;
    let mut last = began;
    let mut gaps = Vec::new();
    while let Some(_event) = stream.event().expect("the stream goes on") {
        let now = Instant::now();
        match first {
            None => first = Some(now - began),
            Some(_) => gaps.push(now - last),
        }
        last = now;
    }
    Taken { first: first.expect("a token"), gaps, all: began.elapsed() }
}

/// From the acknowledgement of a write to the first recall elsewhere that has it.
fn lags((here, writing): (&Host, &Node), (there, reading): (&Host, &Node), writes: usize) -> Vec<Duration> {
    let (writer, reader) = (writing.client(), reading.client().with_key(KEY));
    let mut lags: Vec<Duration> = (0..writes)
        .map(|round| {
            let word = format!("quetzal{round}x");
            let body = json!({"content": format!("The word of the round is {word}")});
            here.enter(|| writer.post("/potluck/v1/memory", &body).expect(200));
            let began = Instant::now();
            let request = json!({"query": word, "limit": 1});
            there.enter(|| {
                loop {
                    let items =
                        reader.post("/potluck/v1/memory/recall", &request).expect(200)["items"].clone();
                    if items[0]["content"].as_str().is_some_and(|text| text.ends_with(&word)) {
                        return began.elapsed();
                    }
                    assert!(began.elapsed() < Duration::from_secs(10), "not found: {word}");
                }
            })
        })
        .collect();
    lags.sort_unstable();
    lags
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
