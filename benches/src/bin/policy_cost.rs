//! What a decision costs: fresh and warm instances, few and many candidates, beside the native order in the same run.
//!
//! `policy_cost FILE… [--calls N] [--json]`. Fuel, the clock's backstop and all limits are on. Pricing and slashing
//! policies are asked in fresh instances only, as they are in use.

use std::{hint::black_box, time::Instant};

use potluck::policy::{Engine, EngineConfig, Kind, Native, Policy, Soonest, sample::Sampler, types::Input};

#[derive(serde::Serialize)]
struct Row {
    policy: String,
    way: &'static str,
    candidates: usize,
    calls: usize,
    p50_micros: f64,
    p99_micros: f64,
    fuel: u64,
}

fn measure(calls: usize, mut call: impl FnMut()) -> (f64, f64) {
    (0..calls / 10).for_each(|_| call());
    let mut took: Vec<u64> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            call();
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).map_or(0.0, |nanos| *nanos as f64 / 1000.0);
    (at(50), at(99))
}

fn routing(policy: &Policy, calls: usize, rows: &mut Vec<Row>) -> Result<(), Box<dyn std::error::Error>> {
    let name = policy.describe().name.clone();
    for candidates in [8, 256] {
        let mut sampler = Sampler::new(5);
        let (job, machines) = (sampler.job(), sampler.candidates(candidates));
        let input = Input::Routing { job: job.clone(), candidates: machines.clone(), now: 1, seed: 2 };
        let fuel = policy.decide(&input)?.fuel;
        let mut row = |way: &'static str, (p50_micros, p99_micros): (f64, f64), fuel: u64| {
            rows.push(Row { policy: name.clone(), way, candidates, calls, p50_micros, p99_micros, fuel });
        };
        row("native", measure(calls, || drop(black_box(Soonest.rank(&job, &machines, 1, 2)))), 0);
        row("fresh", measure(calls, || drop(black_box(policy.decide(&input)))), fuel);
        row("warm", measure(calls, || drop(black_box(policy.rank(&job, &machines, 1, 2)))), fuel);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut files, mut calls, mut json) = (Vec::new(), 20_000, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--calls" => calls = args.next().ok_or("--calls needs a number")?.parse()?,
            "--json" => json = true,
            _ => files.push(arg),
        }
    }
    if files.is_empty() {
        return Err("usage: policy_cost FILE… [--calls N] [--json]".into());
    }
    let engine = Engine::new(EngineConfig::default())?;
    let mut rows = Vec::new();
    for file in files {
        let policy = engine.load(&std::fs::read(&file)?)?;
        if policy.kind() == Kind::Routing {
            routing(&policy, calls, &mut rows)?;
            continue;
        }
        let input = Sampler::new(5).input(policy.kind());
        let fuel = policy.decide(&input)?.fuel;
        let (p50_micros, p99_micros) = measure(calls, || drop(black_box(policy.decide(&input))));
        let policy = policy.describe().name.clone();
        rows.push(Row { policy, way: "fresh", candidates: 0, calls, p50_micros, p99_micros, fuel });
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("| policy | way | candidates | p50 µs | p99 µs | fuel |\n|---|---|---|---|---|---|");
    for Row { policy, way, candidates, p50_micros, p99_micros, fuel, .. } in &rows {
        println!("| {policy} | {way} | {candidates} | {p50_micros:.2} | {p99_micros:.2} | {fuel} |");
    }
    println!("\n{calls} calls each, one after the other, on one thread.");
    Ok(())
}
