//! What asking through a pool costs, held against asking the same machine directly over HTTP on the same cable.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Spread;
use crate::{
    gguf::Tiny,
    http::Client,
    netlab::{Host, Lab, Shape},
    node::{Node, NodeOptions, succeeded},
    process,
};

const KEY: &str = "a-key-for-measuring";
/// Tokens of an answer.
const TOKENS: u32 = 96;

/// What one answer took.
struct Taken {
    first: Duration,
    gaps: Vec<Duration>,
    all: Duration,
}

/// The figures over cables with these delays in milliseconds each way.
pub fn run(delays: &[u64], asks: usize) -> Vec<Value> {
    delays.iter().map(|delay| at(*delay, asks)).collect()
}

/// A table.
pub fn table(rows: &[Value]) -> String {
    let mut text =
        "| one way | first token direct / pool | added, less one round trip | gap p99 direct / pool | \
                    throughput |\n|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let ms = |path: &str| row.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        text += &format!(
            "| {} ms | {:.1} / {:.1} ms | {:+.1} ms | {:.1} / {:.1} ms | {:.1} % |\n",
            ms("/delay_ms"),
            ms("/first_ms/direct"),
            ms("/first_ms/pool"),
            ms("/first_ms/pool") - ms("/first_ms/direct") - 2.0 * ms("/delay_ms"),
            ms("/gap_p99_ms/direct"),
            ms("/gap_p99_ms/pool"),
            100.0 * ms("/tokens_per_s/pool") / ms("/tokens_per_s/direct"),
        );
    }
    text
}

/// Everything over a cable with this delay in milliseconds each way.
fn at(delay: u64, asks: usize) -> Value {
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
    let both = |what: &dyn Fn(&Taken) -> Vec<Duration>, share: f64| {
        let of = |taken: &[Taken]| Spread::of(taken.iter().flat_map(what)).ms(share);
        json!({"direct": of(&straight), "pool": of(&pooled)})
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
