//! `potluck:policy@0.1`: the bindings of its three worlds, and translations from and to the host's own words.

use wasmtime::{Store, component::InstancePre};

use self::{
    pricing::PricingPolicyPre, routing::RoutingPolicyPre, routing::potluck::policy::types as wit,
    slashing::SlashingPolicyPre,
};
use crate::policy::{Kind, engine::limits::Limits, types};

/// The bindings of one world. This is the one place that knows where the WIT lies, seen from the crate's folder.
macro_rules! world {
    ($world:literal, $($with:tt)*) => {
        wasmtime::component::bindgen!({
            path: "../wit/policy",
            world: $world,
            ownership: Borrowing { duplicate_if_necessary: false },
            with: { $($with)* },
        });
    };
}

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "made by a macro"
)]
mod routing {
    world!("routing-policy",);
}

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "made by a macro"
)]
mod pricing {
    world!("pricing-policy", "potluck:policy/types@0.1.0": crate::policy::abi::v0_1::routing::potluck::policy::types);
}

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "made by a macro"
)]
mod slashing {
    world!("slashing-policy", "potluck:policy/types@0.1.0": crate::policy::abi::v0_1::routing::potluck::policy::types);
}

use pricing::exports::potluck::policy::pricing as wit_pricing;
use routing::exports::potluck::policy::routing as wit_routing;
use slashing::exports::potluck::policy::slashing as wit_slashing;

/// A component whose exports were found.
#[derive(Clone)]
pub(crate) enum Program {
    Routing(RoutingPolicyPre<Limits>),
    Pricing(PricingPolicyPre<Limits>),
    Slashing(SlashingPolicyPre<Limits>),
}

impl Program {
    pub(super) fn new(pre: InstancePre<Limits>, kind: Kind) -> wasmtime::Result<Self> {
        Ok(match kind {
            Kind::Routing => Self::Routing(RoutingPolicyPre::new(pre)?),
            Kind::Pricing => Self::Pricing(PricingPolicyPre::new(pre)?),
            Kind::Slashing => Self::Slashing(SlashingPolicyPre::new(pre)?),
        })
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Routing(_) => Kind::Routing,
            Self::Pricing(_) => Kind::Pricing,
            Self::Slashing(_) => Kind::Slashing,
        }
    }

    pub(super) fn instantiate(&self, store: &mut Store<Limits>) -> wasmtime::Result<Guest> {
        Ok(match self {
            Self::Routing(pre) => Guest::Routing(pre.instantiate(store)?),
            Self::Pricing(pre) => Guest::Pricing(pre.instantiate(store)?),
            Self::Slashing(pre) => Guest::Slashing(pre.instantiate(store)?),
        })
    }
}

/// An instance.
pub(crate) enum Guest {
    Routing(routing::RoutingPolicy),
    Pricing(pricing::PricingPolicy),
    Slashing(slashing::SlashingPolicy),
}

/// The label is the same record in all three worlds, but three types.
macro_rules! label {
    ($label:expr) => {{
        let label = $label;
        types::Description {
            name: label.name,
            version: label.version,
            summary: label.summary,
            licence: label.licence,
        }
    }};
}

impl Guest {
    pub(super) fn describe(&self, store: &mut Store<Limits>) -> wasmtime::Result<types::Description> {
        Ok(match self {
            Self::Routing(guest) => label!(guest.potluck_policy_about().call_describe(store)?),
            Self::Pricing(guest) => label!(guest.potluck_policy_about().call_describe(store)?),
            Self::Slashing(guest) => label!(guest.potluck_policy_about().call_describe(store)?),
        })
    }

    pub(super) fn decide(
        &self,
        store: &mut Store<Limits>,
        input: &types::Input,
    ) -> wasmtime::Result<Option<types::Output>> {
        match (self, input) {
            (Self::Routing(_), types::Input::Routing { job, candidates, now, seed }) => {
                Ok(self.rank(store, job, candidates, *now, *seed)?.map(types::Output::Routing))
            }
            (Self::Pricing(guest), types::Input::Pricing { job, hardware, market, now }) => {
                let (job, hardware) = (job_to(job), hardware_to(hardware));
                let pricing = guest.potluck_policy_pricing();
                let price = pricing.call_quote(store, job, hardware, market_to(market), *now)?;
                Ok(Some(types::Output::Pricing(price.map(price_from))))
            }
            (Self::Slashing(guest), types::Input::Slashing { evidence, now }) => {
                let audits: Vec<_> = evidence.audits.iter().map(audit_to).collect();
                let slashing = guest.potluck_policy_slashing();
                let verdict = slashing.call_judge(store, evidence_to(evidence, &audits), *now)?;
                Ok(Some(types::Output::Slashing(verdict.map(verdict_from))))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn rank(
        &self,
        store: &mut Store<Limits>,
        job: &types::Job,
        candidates: &[types::Candidate],
        now: u64,
        seed: u64,
    ) -> wasmtime::Result<Option<Result<types::Ranking, String>>> {
        let Self::Routing(guest) = self else { return Ok(None) };
        let candidates: Vec<_> = candidates.iter().map(candidate_to).collect();
        let ranking = guest.potluck_policy_routing().call_rank(store, job_to(job), &candidates, now, seed)?;
        Ok(Some(ranking.map(ranking_from)))
    }
}

fn job_to(job: &types::Job) -> wit::Job<'_> {
    wit::Job {
        model: &job.model,
        circle: match job.circle {
            types::Circle::Trusted => wit::Circle::Trusted,
            types::Circle::Public => wit::Circle::Public,
        },
        prompt_least: job.prompt_least,
        prompt_most: job.prompt_most,
        answer_room: job.answer_room,
        answer_expected: job.answer_expected,
        resumed: job.resumed,
        prefix: &job.prefix,
        max_price: job.max_price,
    }
}

fn candidate_to(machine: &types::Candidate) -> wit::Candidate {
    wit::Candidate {
        machine: machine.machine,
        path: match machine.path {
            types::Path::Own => wit::Path::Own,
            types::Path::Direct => wit::Path::Direct,
            types::Path::Relayed => wit::Path::Relayed,
        },
        round_trip: machine.round_trip,
        health: match machine.health {
            types::Health::Healthy => wit::Health::Healthy,
            types::Health::Unknown => wit::Health::Unknown,
            types::Health::Failed => wit::Health::Failed,
            types::Health::Paused => wit::Health::Paused,
        },
        failures: machine.failures,
        context: machine.context,
        loaded: machine.loaded,
        slots: machine.slots,
        running: machine.running,
        queued: machine.queued,
        in_flight: machine.in_flight,
        free_tokens: machine.free_tokens,
        claimed_prefill: machine.claimed_prefill,
        claimed_decode: machine.claimed_decode,
        seen_prefill: machine.seen_prefill,
        seen_decode: machine.seen_decode,
        seen_first: machine.seen_first,
        prefix_blocks: machine.prefix_blocks,
        price: machine.price,
        stake: machine.stake,
        audits_passed: machine.audits_passed,
        audits_failed: machine.audits_failed,
    }
}

fn ranking_from(ranking: wit_routing::Ranking) -> types::Ranking {
    let choice =
        |choice: wit_routing::Choice| types::Choice { candidate: choice.candidate, score: choice.score };
    types::Ranking { order: ranking.order.into_iter().map(choice).collect(), note: ranking.note }
}

fn hardware_to(hardware: &types::Hardware) -> wit_pricing::Hardware<'_> {
    wit_pricing::Hardware {
        class: &hardware.class,
        prefill: hardware.prefill,
        decode: hardware.decode,
        parameters: hardware.parameters,
        bits: hardware.bits,
    }
}

fn market_to(market: &types::Market) -> wit_pricing::Market {
    wit_pricing::Market {
        waiting: market.waiting,
        running: market.running,
        capacity: market.capacity,
        used: market.used,
        floor: market.floor,
        ceiling: market.ceiling,
        last: market.last,
    }
}

fn price_from(price: wit_pricing::Price) -> types::Price {
    types::Price {
        start: price.start,
        per_thousand_prompt: price.per_thousand_prompt,
        per_thousand_answer: price.per_thousand_answer,
        valid_ms: price.valid_ms,
        note: price.note,
    }
}

fn audit_to(audit: &types::Audit) -> wit_slashing::Audit {
    wit_slashing::Audit {
        verifier: audit.verifier,
        method: match audit.method {
            types::Method::Forced => wit_slashing::Method::Forced,
            types::Method::Activations => wit_slashing::Method::Activations,
            types::Method::Exact => wit_slashing::Method::Exact,
            types::Method::Canary => wit_slashing::Method::Canary,
            types::Method::Accounts => wit_slashing::Method::Accounts,
        },
        outcome: match audit.outcome {
            types::Outcome::Passed => wit_slashing::Outcome::Passed,
            types::Outcome::Failed => wit_slashing::Outcome::Failed,
            types::Outcome::Unclear => wit_slashing::Outcome::Unclear,
        },
        distance: audit.distance,
        tokens: audit.tokens,
        time: audit.time,
    }
}

fn evidence_to<'a>(
    evidence: &types::Evidence,
    audits: &'a [wit_slashing::Audit],
) -> wit_slashing::Evidence<'a> {
    wit_slashing::Evidence {
        provider: evidence.provider,
        audits,
        drawn: evidence.drawn,
        quorum: evidence.quorum,
        stake: evidence.stake,
        earned: evidence.earned,
        convictions: evidence.convictions,
        served: evidence.served,
    }
}

fn verdict_from(verdict: wit_slashing::Verdict) -> types::Verdict {
    types::Verdict {
        judgement: match verdict.judgement {
            wit_slashing::Judgement::Acquit => types::Judgement::Acquit,
            wit_slashing::Judgement::Undecided => types::Judgement::Undecided,
            wit_slashing::Judgement::Convict(share) => types::Judgement::Convict(share),
        },
        reason: verdict.reason,
    }
}
