//! The routing policy's part in choosing a machine.
//!
//! A policy orders what could serve; what could not, because the job does not fit there or the machine failed again
//! and again, never reaches it. Where no policy decides, or it fails, the order is [`score`]'s.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Candidate, Wanted,
    prefix::Prefixes,
    score::{self, Size},
};
use crate::{
    identity::NodeId,
    job::{Job, random_seed},
    policy::{
        Decider, Decisions, Kind, MAX_CANDIDATES, MAX_NAME, Policies,
        types::{self, Circle, Health, Input, Output, Path},
    },
};

/// How far away members are.
pub trait Distances: Send + Sync + Debug {
    /// The round trip to a member, as measured last.
    fn round_trip(&self, node: NodeId) -> Option<Duration>;
}

/// What orders candidates by the pool's policy. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Routing {
    /// The policies of the pool.
    pub policies: Policies,
    /// Where decisions are kept.
    pub decisions: Arc<Decisions>,
    /// How far away members are.
    pub distances: Arc<dyn Distances>,
}

impl Routing {
    /// The candidates in the policy's order; `None`: no policy decides this time. What the policy leaves out is not
    /// asked.
    pub(super) fn order(
        &self,
        ask: &Wanted<'_>,
        prefixes: &Prefixes,
        candidates: &[Candidate],
    ) -> Option<Vec<Candidate>> {
        self.policies.active(Kind::Routing)?;
        // A pool can hold more members than a policy is asked about at once; the nearest to the native order are.
        let asked = candidates.get(..candidates.len().min(MAX_CANDIDATES))?;
        let question = self.question(ask, prefixes, asked);
        let Input::Routing { job, candidates: views, now, seed } = &question else { return None };
        let routed = self.policies.rank(job, views, *now, *seed);
        let hash = match routed.by {
            Decider::Policy(hash) => hash,
            Decider::Native(why) => {
                tracing::warn!(job = %ask.job.id, %why, "the native order is used");
                return None;
            }
        };
        let places = routed.ranking.order.iter().map(|choice| usize::try_from(choice.candidate).ok());
        let order = places.map(|place| asked.get(place?).cloned()).collect::<Option<Vec<_>>>();
        let now = *now;
        self.decisions.record(ask.job.id, hash, now, question, Output::Routing(Ok(routed.ranking)));
        order
    }

    fn question(&self, ask: &Wanted<'_>, prefixes: &Prefixes, candidates: &[Candidate]) -> Input {
        let prefix = prefixes.of(ask.job);
        let view = |candidate: &Candidate| {
            let distance = candidate.node.and_then(|node| self.distances.round_trip(node));
            view(candidate, distance, prefixes.shared(candidate.node, &prefix))
        };
        Input::Routing {
            job: job(ask.job, ask.size, prefix.clone()),
            candidates: candidates.iter().map(view).collect(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
            seed: random_seed(),
        }
    }
}

fn job(job: &Job, size: Size, prefix: Vec<u64>) -> types::Job {
    types::Job {
        model: job.model.get(..job.model.floor_char_boundary(MAX_NAME)).unwrap_or_default().to_owned(),
        circle: Circle::Trusted,
        prompt_least: size.least,
        prompt_most: size.most,
        answer_room: size.answer,
        answer_expected: size.expected,
        resumed: job.resume.len() as u64,
        prefix,
        max_price: None,
    }
}

/// A machine as policies see it.
fn view(candidate: &Candidate, round_trip: Option<Duration>, prefix_blocks: u32) -> types::Candidate {
    let Candidate { node, path, load, seen, .. } = candidate;
    types::Candidate {
        machine: node.map_or(0, number),
        path: match path.as_str() {
            _ if node.is_none() => Path::Own,
            "relayed" => Path::Relayed,
            _ => Path::Direct,
        },
        round_trip: round_trip.map(micros),
        health: match (node, seen.healthy) {
            (None, _) => Health::Healthy,
            _ if seen.open => Health::Paused,
            (_, Some(true)) => Health::Healthy,
            (_, None) => Health::Unknown,
            (_, Some(false)) => Health::Failed,
        },
        failures: seen.failures,
        context: load.context,
        loaded: load.loaded,
        slots: load.slots,
        running: load.running,
        queued: load.queued,
        in_flight: seen.in_flight,
        free_tokens: load.free_tokens,
        claimed_prefill: thousandths(f64::from(load.prefill)),
        claimed_decode: thousandths(f64::from(load.decode)),
        seen_prefill: seen.prefill.map(thousandths),
        seen_decode: seen.decode.map(thousandths),
        seen_first: seen.first_ms.map(thousandths),
        prefix_blocks,
        price: None,
        stake: 0,
        audits_passed: 0,
        audits_failed: 0,
    }
}

/// A number for a machine: the beginning of its key. This machine is 0.
fn number(node: NodeId) -> u64 {
    node.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Thousandths of a speed, and microseconds of milliseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
fn thousandths(value: f64) -> u64 {
    (value * 1_000.0).round() as u64
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The candidates that can serve at all, the nearest to the native order first.
pub(super) fn able(size: Size, candidates: Vec<Candidate>, turn: u64) -> Vec<Candidate> {
    score::rank(size, candidates, turn).into_iter().map(|(_, candidate)| candidate).collect()
}
