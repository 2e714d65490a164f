//! From nothing to the first token of another machine, step by step.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Spread, ms};
use crate::{gguf::Tiny, member::Member, netlab::Lab};

/// What each step took.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Both programs, until they serve.
    pub start: Duration,
    /// `potluck pool create`.
    pub create: Duration,
    /// `potluck pool invite`.
    pub invite: Duration,
    /// `potluck join`, until the machine is a member.
    pub join: Duration,
    /// From then to the first token, of a request that is sent again until it is answered.
    pub token: Duration,
}

impl Steps {
    /// All of it.
    pub fn sum(&self) -> Duration {
        self.start + self.create + self.invite + self.join + self.token
    }
}

/// Founds so many pools of two machines on one net, each from nothing.
pub fn run(rounds: usize) -> Vec<Steps> {
    (0..rounds).map(|_| once()).collect()
}

fn once() -> Steps {
    let lab = Lab::new("first");
    let net = lab.net("office");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let model = Tiny::default().write(&scratch.path().join("tiny.gguf"));
    let (left, right) = (lab.host("anna", &net), lab.host("bert", &net));
    let mut last = Instant::now();
    let mut lap = || {
        let now = Instant::now();
        now - std::mem::replace(&mut last, now)
    };
    let anna = Member::on(left, "anna", None);
    let bert = Member::on(right, "bert", Some(&model));
    let start = lap();
    anna.found();
    let create = lap();
    let invite = anna.invite();
    let invited = lap();
    bert.take(&invite);
    let join = lap();
    let answer = anna.answered("tiny", Duration::from_secs(20));
    let token = lap();
    assert_eq!(answer.expect(200)["usage"]["completion_tokens"], 3);
    assert_eq!(answer.header("x-potluck-node"), Some(bert.id().as_str()));
    Steps { start, create, invite: invited, join, token }
}

/// The steps by name.
fn columns(all: &[Steps]) -> [(&'static str, Spread); 6] {
    let of = |what: fn(&Steps) -> Duration| Spread::of(all.iter().map(what));
    [
        ("both programs started", of(|steps| steps.start)),
        ("`pool create`", of(|steps| steps.create)),
        ("`pool invite`", of(|steps| steps.invite)),
        ("`join`", of(|steps| steps.join)),
        ("first token of the other machine", of(|steps| steps.token)),
        ("all", of(Steps::sum)),
    ]
}

/// A table.
pub fn table(all: &[Steps]) -> String {
    let mut text = "| step | median | longest |\n|---|---|---|\n".to_owned();
    for (name, spread) in columns(all) {
        text += &format!("| {name} | {:.0} ms | {:.0} ms |\n", spread.ms(0.5), spread.ms(1.0));
    }
    text
}

/// Everything.
pub fn json(all: &[Steps]) -> Value {
    let longest = all.iter().map(|steps| ms(steps.sum())).fold(0.0, f64::max);
    let steps: serde_json::Map<String, Value> =
        columns(all).into_iter().map(|(name, spread)| (name.to_owned(), spread.json())).collect();
    json!({"rounds": all.len(), "longest_ms": longest, "steps_ms": steps})
}
