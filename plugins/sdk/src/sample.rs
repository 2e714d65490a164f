//! Words to test with, on the author's machine: ordinary ones to change a field of, and any at all.

use crate::{
    Audit, Candidate, Circle, Evidence, Hardware, Health, Job, Market, Method, Outcome, Path, hash::mix,
};

/// An ordinary job: 100 to 400 tokens of prompt, 100 of answer.
pub fn job() -> Job {
    Job {
        model: "model".into(),
        circle: Circle::Trusted,
        prompt_least: 100,
        prompt_most: 400,
        answer_room: 100,
        answer_expected: 100,
        resumed: 0,
        prefix: Vec::new(),
        max_price: None,
    }
}

/// An ordinary machine: healthy, idle, 4 slots, the model in memory, 400 and 20 tokens per second as it says.
pub fn candidate(machine: u64) -> Candidate {
    Candidate {
        machine,
        path: Path::Direct,
        round_trip: Some(2_000),
        health: Health::Healthy,
        failures: 0,
        context: 4096,
        loaded: true,
        slots: 4,
        running: 0,
        queued: 0,
        in_flight: 0,
        free_tokens: 16_384,
        claimed_prefill: 400_000,
        claimed_decode: 20_000,
        seen_prefill: None,
        seen_decode: None,
        seen_first: None,
        prefix_blocks: 0,
        price: None,
        stake: 0,
        audits_passed: 0,
        audits_failed: 0,
    }
}

/// An ordinary machine to price: 8 cores, a model of 3.2 billion parameters at 4.5 bits.
pub fn hardware() -> Hardware {
    Hardware { class: "cpu-8".into(), prefill: 60_000, decode: 12_000, parameters: 3_200, bits: 4_500 }
}

/// A market at rest, without bounds.
pub fn market() -> Market {
    Market { waiting: 0, running: 0, capacity: 100, used: 500_000, floor: 0, ceiling: u64::MAX, last: None }
}

/// An audit by one computation in one pass.
pub fn audit(verifier: u64, outcome: Outcome) -> Audit {
    Audit { verifier, method: Method::Forced, outcome, distance: 0, tokens: 300, time: 1_793_491_200_000 }
}

/// A case of five drawn verifiers, of whom three must agree, against a stake of ten credits.
pub fn evidence(audits: Vec<Audit>) -> Evidence {
    Evidence {
        provider: 7,
        audits,
        drawn: 5,
        quorum: 3,
        stake: 10_000_000,
        earned: 20_000,
        convictions: 0,
        served: 1000,
    }
}

/// Anything: numbers of every size, edges more often than not by chance. The same seed gives the same.
#[derive(Clone, Debug)]
pub struct Any(u64);

impl Any {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number of any size, often at an edge.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        let random = mix(self.0, 0x5eed);
        match random & 7 {
            0 => 0,
            1 => u64::MAX,
            2 => 1,
            _ => random >> ((random >> 3) & 63),
        }
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0, 0xbe10).checked_rem(end).unwrap_or(0)
    }

    /// Something or nothing.
    pub fn option(&mut self) -> Option<u64> {
        (self.below(3) > 0).then(|| self.number())
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number() & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    fn list<T>(&mut self, most: u64, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most.saturating_add(1))).map(|_| one(self)).collect()
    }

    /// Any job.
    pub fn job(&mut self) -> Job {
        Job {
            model: "m".repeat(usize::try_from(self.below(20)).unwrap_or(0)),
            circle: if self.below(2) == 0 { Circle::Trusted } else { Circle::Public },
            prompt_least: self.number(),
            prompt_most: self.number(),
            answer_room: self.number(),
            answer_expected: self.number(),
            resumed: self.number(),
            prefix: self.list(64, Self::number),
            max_price: self.option(),
        }
    }

    /// Up to 64 candidates of any kind.
    pub fn candidates(&mut self) -> Vec<Candidate> {
        self.list(64, |any| Candidate {
            machine: any.number(),
            path: [Path::Own, Path::Direct, Path::Relayed]
                .get(any.below(3) as usize)
                .copied()
                .unwrap_or(Path::Own),
            round_trip: any.option(),
            health: [Health::Healthy, Health::Unknown, Health::Failed, Health::Paused]
                .get(any.below(4) as usize)
                .copied()
                .unwrap_or(Health::Healthy),
            failures: any.small(),
            context: any.number(),
            loaded: any.below(2) == 0,
            slots: any.small(),
            running: any.small(),
            queued: any.small(),
            in_flight: any.small(),
            free_tokens: any.number(),
            claimed_prefill: any.number(),
            claimed_decode: any.number(),
            seen_prefill: any.option(),
            seen_decode: any.option(),
            seen_first: any.option(),
            prefix_blocks: any.small(),
            price: any.option(),
            stake: any.number(),
            audits_passed: any.small(),
            audits_failed: any.small(),
        })
    }

    /// Any machine to price.
    pub fn hardware(&mut self) -> Hardware {
        Hardware {
            class: String::new(),
            prefill: self.number(),
            decode: self.number(),
            parameters: self.number(),
            bits: self.small(),
        }
    }

    /// Any market.
    pub fn market(&mut self) -> Market {
        Market {
            waiting: self.number(),
            running: self.number(),
            capacity: self.number(),
            used: self.small(),
            floor: self.number(),
            ceiling: self.number(),
            last: self.option(),
        }
    }

    /// Any case with up to 200 audits.
    pub fn evidence(&mut self) -> Evidence {
        let verifiers = self.below(12).saturating_add(1);
        let audits = self.list(200, |any| Audit {
            verifier: any.below(verifiers),
            method: [Method::Forced, Method::Activations, Method::Exact, Method::Canary, Method::Accounts]
                .get(any.below(5) as usize)
                .copied()
                .unwrap_or(Method::Forced),
            outcome: [Outcome::Passed, Outcome::Failed, Outcome::Unclear]
                .get(any.below(3) as usize)
                .copied()
                .unwrap_or(Outcome::Unclear),
            distance: any.number(),
            tokens: any.number(),
            time: any.number(),
        });
        Evidence {
            provider: self.number(),
            audits,
            drawn: if self.below(2) == 0 { self.small() } else { 12 },
            quorum: if self.below(2) == 0 { self.small() } else { 7 },
            stake: self.number(),
            earned: self.number(),
            convictions: self.small(),
            served: self.number(),
        }
    }
}
