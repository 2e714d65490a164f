//! Made-up questions, the same for the same seed on every machine: for vectors, tests and measurements.

use super::{
    Kind, MILLION,
    types::{
        Audit, Candidate, Circle, Evidence, Hardware, Health, Input, Job, Market, Method, Outcome, Path,
    },
};

/// Makes up questions. The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Clone, Debug)]
pub struct Sampler {
    state: u64,
}

impl Sampler {
    /// A sampler with a seed of its own.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, or 0 where that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let bits = self.next_u64();
        match bits.checked_rem(bound) {
            Some(rest) => rest,
            None => 0,
        }
    }

    /// A number of any order of magnitude: small ones, all bits and the edges come up often.
    pub const fn wild(&mut self) -> u64 {
        match self.below(16) {
            0 => 0,
            1 => u64::MAX,
            2 => self.next_u64(),
            _ => {
                let shift = self.below(64);
                self.next_u64() >> shift
            }
        }
    }

    fn wild_u32(&mut self) -> u32 {
        u32::try_from(self.wild() >> 32).unwrap_or(0) >> u32::try_from(self.below(32)).unwrap_or(0)
    }

    fn maybe(&mut self, value: u64) -> Option<u64> {
        (self.below(3) != 0).then_some(value)
    }

    fn one_of<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let count = u64::try_from(others.len()).unwrap_or(0) + 1;
        let place = usize::try_from(self.below(count)).unwrap_or(0);
        others.get(place).copied().unwrap_or(first)
    }

    fn small(&mut self, bound: u64) -> u32 {
        u32::try_from(self.below(bound)).unwrap_or(0)
    }

    /// A job as people ask for it.
    pub fn job(&mut self) -> Job {
        let prompt = 1 + self.below(8000);
        let blocks = self.below(16);
        Job {
            model: format!("model-{}", self.below(20)),
            circle: self.one_of(Circle::Trusted, &[Circle::Public]),
            prompt_least: prompt,
            prompt_most: prompt + self.below(200),
            answer_room: 64 + self.below(4096),
            answer_expected: 32 + self.below(1024),
            resumed: if self.below(20) == 0 { self.below(500) } else { 0 },
            prefix: (0..blocks).map(|_| self.next_u64()).collect(),
            max_price: (self.below(4) == 0).then(|| self.below(1_000_000)),
        }
    }

    /// A machine as there are some.
    pub fn candidate(&mut self) -> Candidate {
        let decode = 5_000 + self.below(100_000);
        let slots = 1 + self.below(8);
        let running = self.below(slots + 1);
        let (round_trip, prefill, seen, first) = (
            100 + self.below(200_000),
            decode * (5 + self.below(20)),
            decode / 2 + self.below(decode),
            10_000 + self.below(3_000_000),
        );
        Candidate {
            machine: self.next_u64(),
            path: self.one_of(Path::Direct, &[Path::Own, Path::Relayed]),
            round_trip: self.maybe(round_trip),
            health: self.one_of(Health::Healthy, &[Health::Unknown, Health::Failed, Health::Paused]),
            failures: self.small(4),
            context: 2048 << self.below(6),
            loaded: self.below(3) != 0,
            slots: u32::try_from(slots).unwrap_or(1),
            running: u32::try_from(running).unwrap_or(0),
            queued: self.small(6),
            in_flight: self.small(3),
            free_tokens: self.below(100_000),
            claimed_prefill: prefill,
            claimed_decode: decode,
            seen_prefill: self.maybe(prefill),
            seen_decode: self.maybe(seen),
            seen_first: self.maybe(first),
            prefix_blocks: self.small(16),
            price: (self.below(3) == 0).then(|| self.below(10_000)),
            stake: self.below(100_000_000),
            audits_passed: self.small(100),
            audits_failed: self.small(3),
        }
    }

    /// Machines as there are some.
    pub fn candidates(&mut self, count: usize) -> Vec<Candidate> {
        (0..count).map(|_| self.candidate()).collect()
    }

    /// Audits, the oldest first.
    pub fn audits(&mut self, count: usize) -> Vec<Audit> {
        (0u64..).take(count).map(|place| self.audit(place)).collect()
    }

    fn audit(&mut self, place: u64) -> Audit {
        use Method::{Accounts, Activations, Canary, Exact, Forced};
        Audit {
            verifier: self.below(30),
            method: self.one_of(Forced, &[Activations, Exact, Canary, Accounts]),
            outcome: self.one_of(Outcome::Passed, &[Outcome::Passed, Outcome::Failed, Outcome::Unclear]),
            distance: self.below(4_000_000),
            tokens: 1 + self.below(1000),
            time: 1_793_000_000_000 + place * 1000,
        }
    }

    /// A question as it is asked, now and then with numbers as nobody would.
    pub fn input(&mut self, kind: Kind) -> Input {
        let wild = self.below(4) == 0;
        let now = if wild { self.wild() } else { 1_793_491_200_000 + self.below(1 << 32) };
        match kind {
            Kind::Routing => self.routing(wild, now),
            Kind::Pricing => self.pricing(wild, now),
            Kind::Slashing => self.slashing(wild, now),
        }
    }

    fn routing(&mut self, wild: bool, now: u64) -> Input {
        // Few machines as a rule, since that is what pools have.
        let count = if self.below(50) == 0 { self.below(1025) } else { self.below(17) };
        let mut candidates = self.candidates(usize::try_from(count).unwrap_or(0));
        let mut job = self.job();
        if wild {
            self.make_wild(&mut job);
            candidates.iter_mut().for_each(|machine| self.make_machine_wild(machine));
        }
        Input::Routing { job, candidates, now, seed: self.next_u64() }
    }

    fn make_wild(&mut self, job: &mut Job) {
        job.prompt_least = self.wild();
        job.prompt_most = self.wild();
        job.answer_room = self.wild();
        job.answer_expected = self.wild();
        job.resumed = self.wild();
        let price = self.wild();
        job.max_price = self.maybe(price);
    }

    fn make_machine_wild(&mut self, machine: &mut Candidate) {
        let numbers = [(); 6].map(|()| self.wild());
        let [round_trip, prefill, decode, first, price, stake] = numbers;
        machine.round_trip = self.maybe(round_trip);
        machine.seen_prefill = self.maybe(prefill);
        machine.seen_decode = self.maybe(decode);
        machine.seen_first = self.maybe(first);
        machine.price = self.maybe(price);
        machine.stake = stake;
        machine.failures = self.wild_u32();
        machine.context = self.wild();
        machine.slots = self.wild_u32();
        machine.running = self.wild_u32();
        machine.queued = self.wild_u32();
        machine.in_flight = self.wild_u32();
        machine.free_tokens = self.wild();
        machine.claimed_prefill = self.wild();
        machine.claimed_decode = self.wild();
        machine.prefix_blocks = self.wild_u32();
        machine.audits_passed = self.wild_u32();
        machine.audits_failed = self.wild_u32();
    }

    fn pricing(&mut self, wild: bool, now: u64) -> Input {
        let floor = self.below(1000);
        let mut market = Market {
            waiting: self.below(100),
            running: self.below(50),
            capacity: self.below(60),
            used: self.small(u64::from(MILLION) + 1),
            floor,
            ceiling: floor + self.below(100_000),
            last: None,
        };
        let last = self.below(100_000);
        market.last = self.maybe(last);
        let mut hardware = Hardware {
            class: self.one_of("cpu-8", &["cpu-16", "gpu-24g"]).to_owned(),
            prefill: self.below(5_000_000),
            decode: self.below(200_000),
            parameters: self.below(70_000),
            bits: self.small(16_001),
        };
        let job = self.job();
        if wild {
            market.waiting = self.wild();
            market.running = self.wild();
            market.capacity = self.wild();
            let last = self.wild();
            market.last = self.maybe(last);
            hardware.prefill = self.wild();
            hardware.decode = self.wild();
            hardware.parameters = self.wild();
            hardware.bits = self.wild_u32();
        }
        Input::Pricing { job, hardware, market, now }
    }

    fn slashing(&mut self, wild: bool, now: u64) -> Input {
        let count = if self.below(200) == 0 { self.below(4097) } else { self.below(20) };
        let mut evidence = Evidence {
            provider: self.next_u64(),
            audits: self.audits(usize::try_from(count).unwrap_or(0)),
            drawn: self.small(10),
            quorum: self.small(8),
            stake: self.below(1 << 40),
            earned: self.below(1 << 30),
            convictions: self.small(4),
            served: self.below(100_000),
        };
        if wild {
            evidence.drawn = self.wild_u32();
            evidence.quorum = self.wild_u32();
            evidence.stake = self.wild();
            evidence.earned = self.wild();
            evidence.convictions = self.wild_u32();
            evidence.served = self.wild();
            for audit in &mut evidence.audits {
                audit.distance = self.wild();
                audit.tokens = self.wild();
                audit.time = self.wild();
            }
        }
        Input::Slashing { evidence, now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::check_input;

    #[test]
    fn questions_are_within_bounds_and_the_same_for_the_same_seed() {
        for kind in Kind::ALL {
            let (mut one, mut two) = (Sampler::new(9), Sampler::new(9));
            for _ in 0..2000 {
                let input = one.input(kind);
                assert_eq!(check_input(&input), Ok(()));
                assert_eq!(input, two.input(kind));
            }
            assert_ne!(one.input(kind), Sampler::new(10).input(kind));
        }
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first numbers for the seed 1234567, as other implementations give them.
        let mut sampler = Sampler::new(1_234_567);
        let first = [(); 3].map(|()| sampler.next_u64());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
