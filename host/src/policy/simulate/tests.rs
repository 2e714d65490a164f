use std::sync::Arc;

use crate::policy::{
    Engine, EngineConfig, Kind, Native, Policy,
    types::{Candidate, Choice, Job as Told, Ranking},
};

use super::{
    trace::{Job, Machine, Model, TraceHead},
    *,
};

mod laws;
mod replayed;
mod traces;

fn small() -> Trace {
    Scenario { machines: 40, jobs: 1500, seed: 7, load: 60 }.trace()
}

/// Replays without a word.
fn quiet(trace: &Trace, contestants: &[Contestant], rules: &Rules) -> Report {
    simulate(trace, contestants, None, rules, &mut |_| true).unwrap().0
}

fn built_in(name: &str, native: impl Native + 'static) -> Contestant {
    Contestant { name: name.into(), order: Order::Native(Arc::new(native)) }
}

/// One of the policies that are shipped.
fn shipped(name: &str) -> Arc<Policy> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/");
    let bytes = std::fs::read(format!("{path}{name}.wasm")).unwrap();
    Engine::new(EngineConfig::default()).unwrap().load(&bytes).unwrap()
}

/// An order with nobody in it.
#[derive(Debug)]
struct Nobody;

impl Native for Nobody {
    fn rank(&self, _: &Told, _: &[Candidate], _: u64, _: u64) -> Ranking {
        Ranking::default()
    }
}

/// Always the machine with the smallest number.
#[derive(Debug)]
struct Same;

impl Native for Same {
    fn rank(&self, _: &Told, candidates: &[Candidate], _: u64, _: u64) -> Ranking {
        let mut order: Vec<_> = (0..).zip(candidates).map(|(place, it)| (it.machine, place)).collect();
        order.sort_unstable();
        let order = order.into_iter().map(|(_, candidate)| Choice { candidate, score: 0 }).collect();
        Ranking { order, note: String::new() }
    }
}

/// A pool of equal machines with one model each, where only tokens take time: 1,000 of a prompt or an answer in a
/// second. The first machine only asks.
fn plain(machines: u32, slots: u32) -> Trace {
    let machine = Machine {
        class: "plain".into(),
        prefill: 1_000_000,
        decode: 1_000_000,
        claims: 1_000_000,
        slots,
        kv_tokens: 1 << 30,
        context: 1 << 30,
        resident: 1,
        ..Machine::default()
    };
    let asker = Machine { models: Vec::new(), ..machine.clone() };
    let serving = Machine { models: vec![0], ..machine };
    let machines = std::iter::once(asker).chain((0..machines).map(|_| serving.clone())).collect();
    let model = Model { name: "one".into(), parameters: 1000, bits: 4500 };
    Trace { head: TraceHead { version: 1, note: String::new() }, models: vec![model], machines, jobs: vec![] }
}

fn job(at_us: u64, answer: u32) -> Job {
    Job { at_us, from: 0, model: 0, prompt: 1, answer, max_tokens: None, prefix: vec![], max_price: None }
}

/// No bound that would change a queue.
fn unbounded() -> Rules {
    Rules { in_flight: u32::MAX, queue_per_slot: 100_000, tries: 1000, ..Rules::default() }
}
