//! What a pool of several machines does, measured on networks that are made for it. Needs root.
//!
//! Without a flag that names another measurement: what asking through the pool costs. `--json` writes one JSON object
//! instead of tables; what is being done is said on stderr.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement: a panic is how it reports"
)]

use std::{env, path::Path, process::ExitCode, time::Duration};

use potluck_tests::{
    measure::{
        Spread, converge, failover, first,
        memory::{self, Bulk, Plan, Way},
        ms, nat, overhead,
    },
    netlab::Lab,
};
use serde_json::{Value, json};

const HELP: &str = "\
pool_bench [--json] [MEASUREMENT]

  (none)              a job through the pool, held against the same one over HTTP
      --asks N        answers of each sort (30)
  --first-token [N]   from nothing to the first token of another machine, N times (10)
  --failover [N]      the answering machine is killed in each of N streams (100)
      --seed N        draws the moments (1)
  --memory            a write on one machine until a recall on another finds it
      --sizes N,N     records (5000,10000,100000)
      --ways W,W      veth, wireguard, or a delay in ms each way (veth,5,wireguard)
      --writes N      facts at each size (200)
      --text FILE     texts of the records: JSON Lines of {turns}, or each line one
      --words-only    without the embedder that POTLUCK_TEST_MINILM names
      --no-newcomer   no third machine that takes everything in the end
  --converge [N]      N stories of three machines under random trouble (1000)
      --seed N        the seed of the first (1)
  --nat               every pair of routers: the path, and the time to it
      --patience S    seconds until a path counts as final (40)
      --restarts N    restarts of the relay (10)
";

/// The words of the command line.
struct Words(Vec<String>);

impl Words {
    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|word| word == flag)
    }

    /// The word after a flag, unless that is a flag too.
    fn after(&self, flag: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == flag)?;
        self.0.get(at + 1).map(String::as_str).filter(|word| !word.starts_with("--"))
    }

    fn number(&self, flag: &str, default: u64) -> u64 {
        self.after(flag)
            .map_or(default, |word| word.parse().unwrap_or_else(|_| panic!("{flag} needs a number")))
    }

    fn count(&self, flag: &str, default: u64) -> usize {
        usize::try_from(self.number(flag, default)).expect("a small number")
    }

    fn list(&self, flag: &str, default: &str) -> Vec<String> {
        self.after(flag).unwrap_or(default).split(',').map(str::to_owned).collect()
    }
}

fn main() -> ExitCode {
    let words = Words(env::args().skip(1).collect());
    if words.has("--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if let Err(why) = Lab::available() {
        eprintln!("no networks can be made here: {why}");
        return ExitCode::FAILURE;
    }
    let (table, figures) = measured(&words);
    if words.has("--json") {
        println!("{figures}");
    } else {
        print!("{table}");
    }
    ExitCode::SUCCESS
}

/// What was asked for, as a table and as JSON.
fn measured(words: &Words) -> (String, Value) {
    if words.has("--first-token") {
        let all = first::run(words.count("--first-token", 10));
        (first::table(&all), first::json(&all))
    } else if words.has("--failover") {
        let report = failover::run(words.count("--failover", 100), words.number("--seed", 1));
        (report.table(), report.json())
    } else if words.has("--memory") {
        let report = memory_of(words);
        (report.table(), report.json())
    } else if words.has("--converge") {
        let first = words.number("--seed", 1);
        let report = converge::run(first..first + words.number("--converge", 1000));
        let report = report.unwrap_or_else(|why| panic!("{why}"));
        (report.line() + "\n", report.json())
    } else if words.has("--nat") {
        nats(words)
    } else {
        let rows = overhead::run(&[0, 10, 50], words.count("--asks", 30));
        (overhead::table(&rows), json!({"rows": rows}))
    }
}

fn memory_of(words: &Words) -> memory::Report {
    let sizes = words.list("--sizes", "5000,10000,100000");
    let sizes: Vec<usize> = sizes.iter().map(|size| size.parse().expect("--sizes needs numbers")).collect();
    assert!(sizes.is_sorted(), "--sizes must ascend");
    let way = |name: &String| match name.as_str() {
        "veth" => Way::Veth,
        "wireguard" => Way::WireGuard,
        delay => Way::Slow(delay.parse().unwrap_or_else(|_| panic!("{delay} is no way"))),
    };
    let plan = Plan {
        ways: words.list("--ways", "veth,5,wireguard").iter().map(way).collect(),
        writes: words.count("--writes", 200),
        newcomer: !words.has("--no-newcomer"),
        sizes,
    };
    let most = plan.sizes.last().copied().unwrap_or_default();
    let texts = memory::texts(words.after("--text").map(Path::new));
    memory::run(&plan, &Bulk::new(texts, most, words.has("--words-only")))
}

fn nats(words: &Words) -> (String, Value) {
    let meetings = nat::matrix(Duration::from_secs(words.number("--patience", 40)));
    let back = nat::relay_restarts(words.count("--restarts", 10));
    let spread = Spread::of(back.iter().copied());
    let table = format!(
        "{}\nThe relay was killed and started again {} times: an answer came {:.1} s after it was back (median), at \
         most {:.1} s.\n",
        nat::table(&meetings),
        spread.len(),
        spread.quantile(0.5).as_secs_f64(),
        spread.quantile(1.0).as_secs_f64()
    );
    let meetings: Vec<Value> = meetings.iter().map(nat::Meeting::json).collect();
    let back: Vec<f64> = back.into_iter().map(ms).collect();
    (table, json!({"meetings": meetings, "relay_back_ms": back}))
}
