use super::Vector;
use crate::policy::{
    Kind, MAX_AUDITS, MAX_CANDIDATES, MAX_NAME, MAX_PREFIX, MILLION,
    sample::Sampler,
    types::{
        Audit, Candidate, Circle, Evidence, Hardware, Health, Input, Job, Market, Method, Outcome, Path,
    },
};

/// A day in November 2026, in milliseconds since 1970.
const NOW: u64 = 1_793_491_200_000;

/// The host's own vectors for a kind of policy.
pub fn vectors(kind: Kind) -> Vec<Vector> {
    match kind {
        Kind::Routing => routing(),
        Kind::Pricing => pricing(),
        Kind::Slashing => slashing(),
    }
}

fn vector(name: &str, input: Input) -> Vector {
    Vector { name: name.to_owned(), input, output: None }
}

fn job() -> Job {
    Job {
        model: "llama-3.2-3b-instruct-q4_k_m".into(),
        circle: Circle::Trusted,
        prompt_least: 400,
        prompt_most: 600,
        answer_room: 1024,
        answer_expected: 256,
        resumed: 0,
        prefix: vec![0x1111, 0x2222, 0x3333],
        max_price: None,
    }
}

/// A job with the largest numbers there are.
fn huge_job() -> Job {
    Job {
        model: "ü".repeat(MAX_NAME / 2),
        circle: Circle::Public,
        prompt_least: u64::MAX,
        prompt_most: u64::MAX,
        answer_room: u64::MAX,
        answer_expected: u64::MAX,
        resumed: u64::MAX,
        prefix: vec![u64::MAX; MAX_PREFIX],
        max_price: Some(u64::MAX),
    }
}

fn machine(machine: u64) -> Candidate {
    Candidate {
        machine,
        path: Path::Direct,
        round_trip: Some(2_000),
        health: Health::Healthy,
        context: 8192,
        loaded: true,
        slots: 4,
        free_tokens: 16_384,
        claimed_prefill: 400_000,
        claimed_decode: 30_000,
        ..Candidate::default()
    }
}

fn huge_machine(id: u64) -> Candidate {
    Candidate {
        machine: id,
        path: Path::Relayed,
        round_trip: Some(u64::MAX),
        health: Health::Failed,
        failures: u32::MAX,
        context: u64::MAX,
        loaded: false,
        slots: u32::MAX,
        running: u32::MAX,
        queued: u32::MAX,
        in_flight: u32::MAX,
        free_tokens: u64::MAX,
        claimed_prefill: u64::MAX,
        claimed_decode: u64::MAX,
        seen_prefill: Some(u64::MAX),
        seen_decode: Some(u64::MAX),
        seen_first: Some(u64::MAX),
        prefix_blocks: u32::MAX,
        price: Some(u64::MAX),
        stake: u64::MAX,
        audits_passed: u32::MAX,
        audits_failed: u32::MAX,
    }
}

fn routing() -> Vec<Vector> {
    let ask = |name: &str, job: Job, candidates: Vec<Candidate>, seed: u64| {
        vector(name, Input::Routing { job, candidates, now: NOW, seed })
    };
    let mixed = |id: u64, health: Health| Candidate { health, running: 2, queued: 1, ..machine(id) };
    let healths = [Health::Paused, Health::Failed, Health::Unknown, Health::Healthy];
    let paid = |id: u64| Candidate { price: Some(id * 100), stake: id * 1_000, ..machine(id) };
    vec![
        ask("no machine", job(), Vec::new(), 1),
        ask("one machine of which nothing is known", job(), vec![Candidate::default()], 2),
        ask("one machine with zeroes that were seen", Job::default(), vec![zeroes()], 0),
        ask("machines of each health", job(), (0u64..).zip(healths).map(|(id, h)| mixed(id, h)).collect(), 3),
        ask("all machines paused", job(), (0..4).map(|id| mixed(id, Health::Paused)).collect(), 4),
        ask("eight equal machines", job(), vec![machine(7); 8], 5),
        ask("eight machines that are full", job(), (0..8).map(full).collect(), 6),
        ask("a machine too small for the job", job(), vec![Candidate { context: 1, ..machine(1) }], 7),
        ask("strangers with prices", public_job(), (1..9).map(paid).collect(), 8),
        ask(
            "a job that was begun elsewhere",
            Job { resumed: 900, ..job() },
            (0..3).map(machine).collect(),
            9,
        ),
        ask("the largest numbers", huge_job(), (0..8).map(huge_machine).collect(), u64::MAX),
        ask("the largest and the least numbers", huge_job(), vec![zeroes(), huge_machine(1), zeroes()], 0),
        ask("as many machines as there can be", job(), Sampler::new(1).candidates(MAX_CANDIDATES), 10),
        ask("as many huge machines as there can be", huge_job(), vec![huge_machine(3); MAX_CANDIDATES], 11),
    ]
}

fn public_job() -> Job {
    Job { circle: Circle::Public, max_price: Some(400), ..job() }
}

fn zeroes() -> Candidate {
    Candidate {
        round_trip: Some(0),
        seen_prefill: Some(0),
        seen_decode: Some(0),
        seen_first: Some(0),
        price: Some(0),
        ..Candidate::default()
    }
}

fn full(id: u64) -> Candidate {
    Candidate { running: 4, queued: 20, in_flight: 3, free_tokens: 0, ..machine(id) }
}

fn pricing() -> Vec<Vector> {
    let hardware = Hardware {
        class: "gpu-24g".into(),
        prefill: 900_000,
        decode: 60_000,
        parameters: 8_000,
        bits: 4_500,
    };
    let market = Market {
        waiting: 3,
        running: 5,
        capacity: 10,
        used: 400_000,
        floor: 50,
        ceiling: 5_000,
        last: Some(700),
    };
    let full = Market { waiting: 1 << 40, running: 10, used: MILLION, ..market.clone() };
    let idle = Market { waiting: 0, running: 0, used: 0, last: None, ..market.clone() };
    let strict = |bound: u64| Market { floor: bound, ceiling: bound, last: Some(0), ..market.clone() };
    let wide = Market { floor: 0, ceiling: 1 << 53, last: Some(u64::MAX), ..market.clone() };
    let odd = Market { last: Some(u64::MAX), ..market.clone() };
    let huge_hardware = Hardware {
        class: "ß".repeat(MAX_NAME / 2),
        prefill: u64::MAX,
        decode: u64::MAX,
        parameters: u64::MAX,
        bits: u32::MAX,
    };
    let huge_market = Market {
        waiting: u64::MAX,
        running: u64::MAX,
        capacity: u64::MAX,
        used: MILLION,
        floor: 0,
        ceiling: 1,
        last: Some(u64::MAX),
    };
    let ask = |name: &str, job: Job, hardware: &Hardware, market: Market| {
        vector(name, Input::Pricing { job, hardware: hardware.clone(), market, now: NOW })
    };
    vec![
        ask("a usual job", job(), &hardware, market.clone()),
        ask("a market that is full", job(), &hardware, full),
        ask("a market that is idle", job(), &hardware, idle),
        ask("a market without capacity", job(), &hardware, Market { capacity: 0, ..market.clone() }),
        ask("a last price far above the ceiling", job(), &hardware, odd),
        ask("nothing known of the machine", job(), &Hardware::default(), market.clone()),
        ask("a job without tokens", Job::default(), &hardware, market.clone()),
        ask("floor and ceiling are the same", job(), &hardware, strict(321)),
        ask("everything is free", job(), &hardware, strict(0)),
        ask("a far ceiling", job(), &hardware, wide),
        ask("a job for strangers with a bound", public_job(), &hardware, market),
        ask("nothing known at all", Job::default(), &Hardware::default(), Market::default()),
        ask("the largest numbers", huge_job(), &huge_hardware, huge_market),
    ]
}

fn slashing() -> Vec<Vector> {
    let audit = |verifier: u64, method: Method, outcome: Outcome| Audit {
        verifier,
        method,
        outcome,
        distance: if outcome == Outcome::Failed { 3_000_000 } else { 200_000 },
        tokens: 128,
        time: NOW - 60_000 + verifier,
    };
    let of = |outcome: Outcome, count: u64| {
        (0..count).map(|verifier| audit(verifier, Method::Forced, outcome)).collect::<Vec<_>>()
    };
    let case = |audits: Vec<Audit>| Evidence {
        provider: 42,
        audits,
        drawn: 5,
        quorum: 3,
        stake: 10_000_000,
        earned: 20_000,
        convictions: 0,
        served: 1_000,
    };
    let huge_audit = Audit {
        verifier: u64::MAX,
        distance: u64::MAX,
        tokens: u64::MAX,
        time: u64::MAX,
        ..audit(0, Method::Accounts, Outcome::Failed)
    };
    let huge = Evidence {
        provider: u64::MAX,
        audits: vec![huge_audit; MAX_AUDITS],
        drawn: u32::MAX,
        quorum: u32::MAX,
        stake: u64::MAX,
        earned: u64::MAX,
        convictions: u32::MAX,
        served: u64::MAX,
    };
    let mixed = [of(Outcome::Passed, 2), of(Outcome::Failed, 2), of(Outcome::Unclear, 2)].concat();
    let exact = vec![audit(1, Method::Exact, Outcome::Failed), audit(2, Method::Canary, Outcome::Failed)];
    let same = vec![audit(1, Method::Forced, Outcome::Failed); 5];
    let ask = |name: &str, evidence: Evidence, now: u64| vector(name, Input::Slashing { evidence, now });
    vec![
        ask("no audit", case(Vec::new()), NOW),
        ask("nothing known at all", Evidence::default(), 0),
        ask("one passed", case(of(Outcome::Passed, 1)), NOW),
        ask("one failed", case(of(Outcome::Failed, 1)), NOW),
        ask("all passed", case(of(Outcome::Passed, 5)), NOW),
        ask("all failed", case(of(Outcome::Failed, 5)), NOW),
        ask("all unclear", case(of(Outcome::Unclear, 5)), NOW),
        ask("some of each", case(mixed), NOW),
        ask("one verifier again and again", case(same), NOW),
        ask("methods that leave no doubt", case(exact), NOW),
        ask("convicted before", Evidence { convictions: 3, ..case(of(Outcome::Failed, 5)) }, NOW),
        ask("a quorum of none", Evidence { quorum: 0, drawn: 0, ..case(of(Outcome::Failed, 1)) }, NOW),
        ask("a quorum beyond those drawn", Evidence { quorum: 9, ..case(of(Outcome::Failed, 5)) }, NOW),
        ask("nothing at stake", Evidence { stake: 0, ..case(of(Outcome::Failed, 5)) }, NOW),
        ask("audits from the future", case(of(Outcome::Failed, 3)), 1),
        ask("as many audits as there can be", case(Sampler::new(2).audits(MAX_AUDITS)), NOW),
        ask("the largest numbers", huge, u64::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::policy::{check_input, check_output, types::Output};

    #[test]
    fn vectors_are_within_bounds_and_have_names_of_their_own() {
        for kind in Kind::ALL {
            let vectors = vectors(kind);
            let names: BTreeSet<_> = vectors.iter().map(|vector| &vector.name).collect();
            assert_eq!(names.len(), vectors.len());
            for vector in &vectors {
                assert_eq!(vector.input.kind(), kind);
                assert_eq!(check_input(&vector.input), Ok(()), "{}", vector.name);
            }
        }
    }

    /// A policy that asks for as much, or as little, as the market allows passes all of them.
    #[test]
    fn the_bounds_of_every_market_can_be_quoted() {
        use crate::policy::types::Price;
        for vector in vectors(Kind::Pricing) {
            let Input::Pricing { market, .. } = &vector.input else { panic!("{}", vector.name) };
            for bound in [market.floor, market.ceiling] {
                let price = Price {
                    start: bound,
                    per_thousand_prompt: bound,
                    per_thousand_answer: bound,
                    ..Price::default()
                };
                let output = Output::Pricing(Ok(price));
                assert_eq!(check_output(&vector.input, &output), Ok(()), "{}", vector.name);
            }
        }
    }
}
