//! The order in which providers are asked.

use std::{fmt::Debug, sync::Arc};

use potluck_primitives::{Account, MicroCredits};

use super::{Class, Listed};
use crate::{
    dispatch::{health::Seen, pool::score::Size},
    identity::NodeId,
    job::{Job, random_seed},
    policy::{
        Decider, Decisions, Kind, MAX_CANDIDATES, MAX_NAME, Policies,
        types::{self, Circle, Health as Healthy, Input, Output, Path},
    },
    pool::public::{
        meter::{Rates, UNIT, up},
        offer::ModelOffer,
        receipts::now_ms,
    },
};

/// Tokens per second of a provider of which nothing is known.
const UNKNOWN_DECODE: f64 = 10.0;
const UNKNOWN_PREFILL: f64 = 100.0;
/// After so many failures in a row a provider that is paused is not asked at all.
const HOPELESS: u32 = 3;

/// A provider that has the model.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its offer and standing.
    pub listed: Listed,
    /// The model.
    pub model: ModelOffer,
    /// What was seen of it.
    pub seen: Seen,
}

/// A job as far as its providers' order depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its size.
    pub size: Size,
    /// Most that is paid.
    pub limit: MicroCredits,
    /// This machine's own account: it never asks itself by way of strangers.
    pub me: Account,
}

/// Orders providers.
pub trait Chooser: Send + Sync + Debug {
    /// Those that are to be asked, the best first. All given can serve.
    fn order(&self, wish: &Wish<'_>, candidates: Vec<Candidate>) -> Vec<Candidate>;
}

/// The least that a job can cost: the way to its provider, its prompt and one token, in whole units.
pub fn floor(rates: Rates, prompt_tokens: u32) -> MicroCredits {
    MicroCredits(up(rates.owed(prompt_tokens, 1)).0.saturating_add(UNIT.0))
}

impl Candidate {
    /// Its id.
    pub fn provider(&self) -> NodeId {
        self.listed.offer().provider()
    }

    /// How well it is known to answer as it should.
    pub fn class(&self) -> Class {
        self.listed.standing.map_or(Class::New, |standing| standing.class())
    }

    /// What the job is expected to cost.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn cost(&self, size: Size) -> f64 {
        let Rates { prompt, completion } = self.model.rates;
        let tokens = (size.least + size.most) as f64 / 2.0;
        (tokens * prompt.0 as f64 + size.expected as f64 * completion.0 as f64) / 1_000.0
    }

    /// How long it is expected to take, in seconds.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn seconds(&self, size: Size, unknown: Speed) -> f64 {
        let prefill = self.seen.prefill.unwrap_or(unknown.prefill).max(1e-3);
        let decode = self.seen.decode.unwrap_or(unknown.decode).max(1e-3);
        (size.least + size.most) as f64 / 2.0 / prefill + size.expected as f64 / decode
    }

    /// Whether it can serve at all.
    pub fn able(&self, wish: &Wish<'_>) -> bool {
        let Wish { size, limit, me, job } = *wish;
        let resumed = job.resume.len() as u64;
        let least = size.least.saturating_add(resumed);
        let fits = least.saturating_add(size.answer.saturating_sub(resumed)) <= u64::from(self.model.context);
        let prompt = u32::try_from(least).unwrap_or(u32::MAX);
        let paid = floor(self.model.rates, prompt) <= limit;
        let hopeless = self.seen.open && self.seen.failures >= HOPELESS;
        fits && paid && !hopeless && self.listed.offer().provider != me
    }

    /// One that was never asked is as good as one that answered. Whoever stays with the first that answers shows it that
    /// its jobs are of few people.
    fn health(&self) -> u8 {
        match self.seen.healthy {
            _ if self.seen.open => 2,
            Some(false) => 1,
            Some(true) | None => 0,
        }
    }
}

/// Tokens per second.
#[derive(Clone, Copy, Debug)]
struct Speed {
    prefill: f64,
    decode: f64,
}

impl Speed {
    /// What is believed of providers of which nothing is known: that they are like the others.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn unknown(candidates: &[Candidate]) -> Self {
        let mean = |least: f64, of: fn(&Seen) -> Option<f64>| {
            let known: Vec<f64> = candidates.iter().filter_map(|candidate| of(&candidate.seen)).collect();
            least.max(known.iter().sum::<f64>() / known.len().max(1) as f64)
        };
        Self {
            prefill: mean(UNKNOWN_PREFILL, |seen| seen.prefill),
            decode: mean(UNKNOWN_DECODE, |seen| seen.decode),
        }
    }
}

/// The order where no policy decides: health, then audits, then price and time. Equals take turns, and who is not much
/// better is an equal: so the jobs of one person are spread, and no provider knows its customers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Chooser for Native {
    fn order(&self, wish: &Wish<'_>, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let turn = random_seed();
        let unknown = Speed::unknown(&candidates);
        let cost = |candidate: &Candidate| candidate.cost(wish.size).max(1.0);
        let time = |candidate: &Candidate| candidate.seconds(wish.size, unknown).max(1e-6);
        let best = |of: &dyn Fn(&Candidate) -> f64| {
            let good = candidates.iter().filter(|candidate| candidate.health() == 0);
            good.map(of).fold(f64::MAX, f64::min)
        };
        let (cheapest, fastest) = (best(&cost), best(&time));
        let key = |candidate: &Candidate| {
            // Not twice as long is no difference, and not 1.4 times as dear.
            let slow = (time(candidate) / fastest).log2().max(0.0).floor();
            let dear = ((cost(candidate) / cheapest).log2() * 2.0).max(0.0).floor();
            let rough = (slow + dear) as i64;
            // Newcomers get their share: only a provider that failed audits comes later for it.
            let failed = candidate.listed.standing.map_or(0, |standing| standing.failed);
            (candidate.health(), failed, rough, mix(candidate.provider(), turn))
        };
        let mut keyed: Vec<_> =
            candidates.into_iter().map(|candidate| (key(&candidate), candidate)).collect();
        keyed.sort_by_key(|(key, _)| *key);
        keyed.into_iter().map(|(_, candidate)| candidate).collect()
    }
}

/// A different order of providers for each turn.
fn mix(node: NodeId, turn: u64) -> u64 {
    node.0.iter().fold(turn ^ 0x9e37_79b9_7f4a_7c15, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(7)
    })
}

/// The order of the approved routing policy; where it does not decide, the native one.
#[derive(Clone, Debug)]
pub struct Approved {
    /// The policies of the public pool.
    pub policies: Policies,
    /// Where decisions are kept.
    pub decisions: Arc<Decisions>,
}

impl Chooser for Approved {
    fn order(&self, wish: &Wish<'_>, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let native = Native.order(wish, candidates);
        if self.policies.active(Kind::Routing).is_none() {
            return native;
        }
        let Some(asked) = native.get(..native.len().min(MAX_CANDIDATES)) else { return native };
        let (job, views) = (job(wish), asked.iter().map(|it| view(wish.size, it)).collect::<Vec<_>>());
        let (now, seed) = (now_ms(), random_seed());
        let routed = self.policies.rank(&job, &views, now, seed);
        let hash = match routed.by {
            Decider::Policy(hash) => hash,
            Decider::Native(why) => {
                tracing::warn!(job = %wish.job.id, %why, "the native order is used");
                return native;
            }
        };
        let places = routed.ranking.order.iter().map(|choice| usize::try_from(choice.candidate).ok());
        let Some(order) = places.map(|place| asked.get(place?).cloned()).collect::<Option<Vec<_>>>() else {
            return native;
        };
        let question = Input::Routing { job, candidates: views, now, seed };
        self.decisions.record(wish.job.id, hash, now, question, Output::Routing(Ok(routed.ranking)));
        order
    }
}

fn job(wish: &Wish<'_>) -> types::Job {
    let Wish { job, size, limit, .. } = *wish;
    types::Job {
        model: job.model.get(..job.model.floor_char_boundary(MAX_NAME)).unwrap_or_default().to_owned(),
        circle: Circle::Public,
        prompt_least: size.least,
        prompt_most: size.most,
        answer_room: size.answer,
        answer_expected: size.expected,
        resumed: job.resume.len() as u64,
        prefix: Vec::new(),
        max_price: u64::try_from(limit.0).ok(),
    }
}

/// A provider as policies see it.
fn view(size: Size, candidate: &Candidate) -> types::Candidate {
    let Candidate { listed, model, seen, .. } = candidate;
    let (offer, standing) = (listed.offer(), listed.standing.unwrap_or_default());
    let amount = |amount: MicroCredits| u64::try_from(amount.0).unwrap_or(u64::MAX);
    types::Candidate {
        machine: offer.provider.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)),
        path: Path::Relayed,
        round_trip: None,
        health: match seen.healthy {
            _ if seen.open => Healthy::Paused,
            Some(true) => Healthy::Healthy,
            None => Healthy::Unknown,
            Some(false) => Healthy::Failed,
        },
        failures: seen.failures,
        context: model.context.into(),
        loaded: true,
        slots: offer.capacity.into(),
        running: 0,
        queued: 0,
        in_flight: seen.in_flight,
        free_tokens: model.context.into(),
        claimed_prefill: 0,
        claimed_decode: 0,
        seen_prefill: seen.prefill.map(thousandths),
        seen_decode: seen.decode.map(thousandths),
        seen_first: seen.first_ms.map(thousandths),
        prefix_blocks: 0,
        price: Some(price(size, model.rates)),
        stake: amount(standing.stake),
        audits_passed: standing.passed,
        audits_failed: standing.failed,
    }
}

/// What the job is expected to cost, in micro-credits.
fn price(size: Size, rates: Rates) -> u64 {
    let tokens = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
    let prompt = tokens(size.least.saturating_add(size.most) / 2);
    u64::try_from(rates.owed(prompt, tokens(size.expected)).0).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
fn thousandths(value: f64) -> u64 {
    (value * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dispatch::fixture,
        pool::public::{
            market::Standing,
            offer::{
                SignedOffer,
                tests::{offer, signer},
            },
        },
    };

    fn candidate(n: u8, change: impl FnOnce(&mut Candidate)) -> Candidate {
        let offer = offer(n, 1_800_000_000_000);
        let model = offer.models[0].clone();
        let signed = Arc::new(SignedOffer::sign(offer, &signer(n)).unwrap());
        let listed = Listed { signed, standing: Some(Standing::default()) };
        let mut candidate = Candidate { listed, model, seen: Seen::default() };
        change(&mut candidate);
        candidate
    }

    fn order(candidates: Vec<Candidate>) -> Vec<NodeId> {
        let job = fixture::job(1);
        let wish = Wish { job: &job, size: Size::of(&job), limit: MicroCredits(10_000), me: [0; 32] };
        let able = candidates.into_iter().filter(|candidate| candidate.able(&wish)).collect();
        Native.order(&wish, able).iter().map(Candidate::provider).collect()
    }

    #[test]
    fn cheap_fast_and_unblemished_come_first() {
        let id = |n| signer(n).node();
        let dear = candidate(2, |c| c.model.rates.completion = MicroCredits(28_000));
        let slow = candidate(3, |c| c.seen.decode = Some(2.0));
        let failed = candidate(4, |c| c.listed.standing.as_mut().unwrap().failed = 1);
        let order = order(vec![failed, slow, dear, candidate(1, |_| {})]);
        assert_eq!(order[0], id(1));
        assert_eq!(order[3], id(4), "a failed audit costs more than price and speed");
    }

    #[test]
    fn who_answered_before_is_not_asked_more_than_others() {
        let answered = |c: &mut Candidate| {
            (c.seen.healthy, c.seen.decode, c.seen.prefill) = (Some(true), Some(90.0), Some(800.0));
        };
        let both = || {
            vec![candidate(1, answered), candidate(2, |_| {}), candidate(3, |c| c.seen.decode = Some(70.0))]
        };
        let firsts: Vec<NodeId> = (0..300).map(|_| order(both())[0]).collect();
        for n in 1..4 {
            let times = firsts.iter().filter(|first| **first == signer(n).node()).count();
            assert!((50..150).contains(&times), "{n} was first {times} times");
        }
    }

    #[test]
    fn who_cannot_serve_is_not_asked() {
        let dear = candidate(1, |c| c.model.rates.completion = MicroCredits(20_000_000));
        let small = candidate(2, |c| c.model.context = 10);
        let broken = candidate(3, |c| (c.seen.open, c.seen.failures) = (true, 3));
        assert!(order(vec![dear, small, broken]).is_empty());
    }

    #[test]
    fn equals_take_turns() {
        let firsts: std::collections::HashSet<_> =
            (0..60).map(|_| order((1..4).map(|n| candidate(n, |_| {})).collect())[0]).collect();
        assert_eq!(firsts.len(), 3);
    }
}
