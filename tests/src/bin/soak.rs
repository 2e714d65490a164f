//! Puts a node under mixed load at full queue and tells whether it leaks, sticks or loses an answer.
//!
//! `cargo run --release -p potluck-tests --bin soak -- --seconds 600 --json`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a panic is how it reports"
)]

use std::{path::Path, process::ExitCode, time::Duration};

use potluck_tests::{
    gguf::Tiny,
    load::{self, Plan, Report},
    node::{Node, NodeOptions},
};

fn main() -> ExitCode {
    let (mut seconds, mut clients, mut seed, mut json) = (600u64, 32usize, 1u64, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> u64 {
            args.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{arg} needs a number"))
        };
        match arg.as_str() {
            "--seconds" => seconds = number(),
            "--clients" => clients = usize::try_from(number()).expect("a small number"),
            "--seed" => seed = number(),
            "--json" => json = true,
            _ => {
                eprintln!("usage: soak [--seconds N] [--clients N] [--seed N] [--json]");
                return ExitCode::FAILURE;
            }
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = soak(folder.path(), seconds, clients, seed);
    let complaints = report.complaints();
    if json {
        println!("{:#}", report.json());
    } else {
        print(&report);
    }
    for complaint in &complaints {
        eprintln!("failed: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn soak(folder: &Path, seconds: u64, clients: usize, seed: u64) -> Report {
    let model = Tiny { context: 2048, ..Tiny::default() };
    let path = model.write(&folder.join("tiny.gguf"));
    let node = Node::start(NodeOptions::new().model(path).args(["--parallel", "4", "--max-queue", "8"]));
    let plan = Plan {
        clients,
        time: Duration::from_secs(seconds),
        warm_up: Duration::from_secs((seconds / 5).clamp(5, 60)),
        seed,
        model: "tiny".into(),
        context: 2048,
    };
    let report = load::run(&node, &plan);
    node.shutdown();
    report
}

fn print(report: &Report) {
    for (what, count) in &report.endings {
        println!("{count:>8}  {what}");
    }
    let mib = |bytes: u64| bytes >> 20;
    println!("{:>8}  in all, in {:.0} s", report.requests(), report.time.as_secs_f64());
    println!(
        "memory {} → {} MiB ({:+.1} %), descriptors {:?}, threads {:?}, stuck {}",
        mib(report.rss_before),
        mib(report.rss_after),
        report.growth(),
        report.descriptors,
        report.threads,
        report.stuck
    );
}
