//! What asking a stranger costs over asking a friend: the same requester, the same provider, the same job.
//!
//! `--asks N` (20) jobs of each sort, of `--tokens N` (200). `--json` writes one JSON object instead of a table.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement: a panic is how it reports"
)]

use std::{env, fs, process::ExitCode, time::Duration, time::Instant};

use potluck_tests::{
    measure::Spread,
    node::succeeded,
    process,
    public::{Party, Pool, job},
};
use serde_json::{Value, json};

fn number(flag: &str, default: u32) -> u32 {
    let words: Vec<String> = env::args().collect();
    let at = words.iter().position(|word| word == flag);
    let word = at.and_then(|at| words.get(at + 1));
    word.map_or(default, |word| word.parse().unwrap_or_else(|_| panic!("{flag} needs a number")))
}

/// Bytes that went over the loopback so far, everybody's.
fn loopback() -> u64 {
    let text = fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// What was seen of jobs in one mode.
#[derive(Default)]
struct Seen {
    first: Vec<Duration>,
    rates: Vec<f64>,
    bytes: Vec<u64>,
}

impl Seen {
    fn ask(&mut self, bob: &Party, mode: &str, seed: u64, tokens: u32) {
        let mut body = job("Once upon a time", seed, tokens);
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        let headers =
            [("content-type", "application/json"), ("x-potluck-mode", mode), ("x-potluck-max-price", "0.05")];
        let (bytes, began) = (loopback(), Instant::now());
        let stream = bob.client().open("POST", "/v1/completions", &headers, body.to_string().as_bytes());
        let mut stream = stream.expect("the node answers");
        let (mut first, mut count) = (None, 0.0);
        while let Some(event) = stream.event().expect("an event") {
            assert!(event["error"].is_null(), "{mode}: {event}");
            if event["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()) {
                first.get_or_insert_with(|| began.elapsed());
            }
            count = event["usage"]["completion_tokens"].as_f64().unwrap_or(count);
        }
        let first = first.expect("there is an answer");
        let rest = began.elapsed().saturating_sub(first).as_secs_f64();
        self.first.push(first);
        self.rates.push((count - 1.0) / rest);
        self.bytes.push(loopback().saturating_sub(bytes));
    }

    fn json(mut self) -> Value {
        self.rates.sort_by(f64::total_cmp);
        self.bytes.sort_unstable();
        let middle = self.rates.len() / 2;
        json!({
            "first_token_ms": Spread::of(self.first).json(),
            "tokens_per_second": self.rates.get(middle),
            "bytes": self.bytes.get(middle),
        })
    }
}

fn main() -> ExitCode {
    let (asks, tokens) = (number("--asks", 20), number("--tokens", 200));
    let Some(pool) = Pool::start(1, 1, 1) else { return ExitCode::FAILURE };
    let (bob, dave) = (&pool.requesters[0], &pool.providers[0]);
    bob.text("pool create bench");
    let invite = bob.json("pool invite")["invite"].as_str().expect("an invite").to_owned();
    succeeded(&dave.node().run(["join", &invite]));
    let trusted = || {
        let body = job("a", 1, 1).to_string();
        let headers = [("content-type", "application/json"), ("x-potluck-mode", "trusted")];
        let answer = bob.client().send("POST", "/v1/completions", &headers, body.as_bytes());
        answer.is_ok_and(|answer| answer.status == 200)
    };
    assert!(process::eventually(Duration::from_secs(30), trusted), "the friend does not answer");
    bob.ask("a", 1, 1, "0.05").expect(200);
    let (mut friend, mut stranger) = (Seen::default(), Seen::default());
    for seed in 0..asks {
        friend.ask(bob, "trusted", seed.into(), tokens);
        stranger.ask(bob, "public", seed.into(), tokens);
    }
    let cells = pool.relays[0].public()["relay"]["cells"].clone();
    let figures = json!({
        "asks": asks, "tokens": tokens, "trusted": friend.json(), "public": stranger.json(), "cells": cells,
    });
    if env::args().any(|word| word == "--json") {
        println!("{figures}");
    } else {
        for mode in ["trusted", "public"] {
            let row = &figures[mode];
            let first = row["first_token_ms"]["p50"].as_f64().unwrap_or(0.0);
            let rate = row["tokens_per_second"].as_f64().unwrap_or(0.0);
            println!("{mode:<8} {first:8.1} ms to the first token, {rate:8.1} tok/s, {} bytes", row["bytes"]);
        }
    }
    ExitCode::SUCCESS
}
