//! A trace that is made up: machines as people have them, jobs as people ask for them.
//!
//! Lengths are log-normal, askers are as busy as Zipf's law says, half of the jobs go on with a conversation,
//! and most begin with the text of some application that others use too. A day's ups and downs are squeezed into the
//! trace, and one job of ten comes in a burst. How long the trace lasts follows from how busy the machines are to be.

mod hardware;
mod texts;

use super::{
    job::{alone, work},
    number::{Random, whole},
    trace::{Job, Machine, Model, Trace, TraceHead, VERSION},
};
use hardware::{MODELS, machine};
use texts::Texts;

/// Tokens of the prompt and the answer of a usual job.
const USUAL: [u32; 2] = [1_100, 230];

/// What is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Machines; 1 to 10,000.
    pub machines: u32,
    /// Jobs; 1 to 2,000,000.
    pub jobs: u32,
    /// The same seed gives the same trace, on every machine.
    pub seed: u64,
    /// How much of what the machines can do is asked for, in hundredths; 1 to 200.
    pub load: u32,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { machines: 1000, jobs: 100_000, seed: 1, load: 60 }
    }
}

impl Scenario {
    /// Makes the trace. Numbers out of their bounds are brought into them.
    pub fn trace(&self) -> Trace {
        let machines = self.machines.clamp(1, 10_000);
        let jobs = self.jobs.clamp(1, 2_000_000);
        let load = self.load.clamp(1, 200);
        let models: Vec<Model> = MODELS.iter().map(hardware::Kind::model).collect();
        let mut machines: Vec<Machine> = (0..machines)
            .map(|number| machine(&mut Random::new(self.seed, 1000 + u64::from(number))))
            .collect();
        everything_somewhere(&mut machines);
        let able = Able::of(&machines, &models);
        let mut jobs = self.jobs(jobs, machines.len(), &models, &able.asked());
        let span = able.span(&jobs, load);
        self.times(&mut jobs, span);
        self.absences(&mut machines, span);
        let note =
            format!("made up with seed {}, for {load} hundredths of what the machines can do", self.seed);
        Trace { head: TraceHead { version: VERSION, note }, models, machines, jobs }
    }

    fn jobs(&self, count: u32, machines: usize, models: &[Model], popular: &Popular) -> Vec<Job> {
        let mut random = Random::new(self.seed, 1);
        let askers = Popular::new((1_u32..).take(machines).map(|rank| power(rank, -0.6)));
        let mut texts = Texts::new(machines);
        let mut job = || {
            let from = askers.draw(&mut random);
            let text = texts.next(from, |random| popular.draw(random), &mut random);
            // Four of ten say how long the answer may be; most of these leave much room.
            let limited = random.happens(400_000);
            let room = u64::from(text.answer).max(random.below(2048));
            let limit = limited.then(|| u32::try_from(room).unwrap_or(text.answer));
            let fair = models
                .get(text.model as usize)
                .map(|model| work(text.prompt.into(), limit.unwrap_or(text.answer).into(), model));
            let most = fair.map(|fair| fair.saturating_mul(50 + random.below(400)) / 100 + 500);
            let max_price = most.filter(|_| random.happens(300_000));
            let texts::Text { model, prompt, answer, prefix } = text;
            Job { at_us: 0, from, model, prompt, answer, max_tokens: limit, prefix, max_price }
        };
        (0..count).map(|_| job()).collect()
    }

    /// Nine of ten jobs follow the day, with twice as many at its height as at its ebb; the others come in bursts.
    fn times(&self, jobs: &mut [Job], span: u64) {
        let mut random = Random::new(self.seed, 2);
        let bursts: Vec<u64> = (0..(jobs.len() / 2000).max(1)).map(|_| random.below(span)).collect();
        let mut time = || {
            let burst = usize::try_from(random.below(bursts.len() as u64)).unwrap_or(0);
            if let Some(start) = bursts.get(burst).filter(|_| random.happens(100_000)) {
                return start + whole(random.exponential() * 5e6);
            }
            loop {
                let at = random.unit();
                // Half waves of two parabolas: near enough to a sine, and the same bits everywhere.
                let half = (2.0 * at).fract();
                let wave = 4.0 * half * (1.0 - half) * if at < 0.5 { 1.0 } else { -1.0 };
                if random.unit() * 1.35 < 1.0 + 0.35 * wave {
                    return whole(at * span as f64);
                }
            }
        };
        let mut times: Vec<u64> = jobs.iter().map(|_| time()).collect();
        times.sort_unstable();
        for (job, at) in jobs.iter_mut().zip(times) {
            job.at_us = at;
        }
    }

    /// One machine of four goes away once or more, for a minute on average.
    fn absences(&self, machines: &mut [Machine], span: u64) {
        for (number, machine) in (0_u64..).zip(machines) {
            let mut random = Random::new(self.seed, 3_000_000 + number);
            let restless = if machine.class.starts_with("gpu") { 0.1 } else { 0.35 };
            let mut at = 0_u64;
            loop {
                at = at.saturating_add(whole(random.exponential() * span as f64 / restless).max(1_000_000));
                if at >= span || machine.away.len() >= 32 {
                    break;
                }
                let back = at + whole(random.exponential() * 6e7).max(2_000_000);
                machine.away.push([at, back]);
                at = back;
            }
        }
    }
}

/// A model that nobody has gets a home with the machine that has most memory.
fn everything_somewhere(machines: &mut [Machine]) {
    for model in (0..).take(MODELS.len()) {
        if machines.iter().any(|machine| machine.models.contains(&model)) {
            continue;
        }
        if let Some(machine) = machines.iter_mut().max_by_key(|machine| machine.kv_tokens) {
            machine.models.push(model);
        }
    }
}

/// How much the machines can do.
struct Able {
    /// For each model, jobs in a microsecond if its holders do nothing else.
    alone: Vec<f64>,
    /// For each model, if each machine gives all its models the same time.
    shared: Vec<f64>,
}

impl Able {
    /// With jobs of a usual length.
    fn of(machines: &[Machine], models: &[Model]) -> Self {
        let mut able = Self { alone: vec![0.0; models.len()], shared: vec![0.0; models.len()] };
        for machine in machines {
            for number in &machine.models {
                let found = (models.get(*number as usize), able.alone.get_mut(*number as usize));
                let (Some(model), Some(sum)) = found else { continue };
                let usual = Job { prompt: USUAL[0], answer: USUAL[1], model: *number, ..Job::default() };
                let slots = f64::from(machine.slots);
                let together = slots / (1.0 + f64::from(machine.crowding) / 1e6 * (slots - 1.0));
                let rate = together / alone(&usual, machine, model).max(1) as f64;
                *sum += rate;
                if let Some(sum) = able.shared.get_mut(*number as usize) {
                    *sum += rate / machine.models.len() as f64;
                }
            }
        }
        able
    }

    /// How often each model is asked for: as often as it is liked, and as often as there is somebody to serve it, half
    /// and half, for people ask for what they get.
    fn asked(&self) -> Popular {
        let all: f64 = self.shared.iter().sum();
        let liked = (1_u32..).map(|rank| power(rank, -0.9));
        Popular::new(
            self.shared.iter().zip(liked).map(|(rate, liked)| (rate / all.max(1e-30) * liked).sqrt()),
        )
    }

    /// How long the trace must be, in microseconds, so that the machines are as busy as wanted: all of them with all
    /// jobs, and the holders of no model with its jobs alone.
    fn span(&self, jobs: &[Job], load: u32) -> u64 {
        let mut counts = vec![0_u64; self.alone.len()];
        for job in jobs {
            if let Some(count) = counts.get_mut(job.model as usize) {
                *count += 1;
            }
        }
        let time = |count: f64, rate: f64| if rate > 0.0 { count / rate } else { 0.0 };
        let all = time(jobs.len() as f64, self.shared.iter().sum());
        let longest = counts.iter().zip(&self.alone).map(|(count, rate)| time(*count as f64, *rate));
        whole(longest.fold(all, f64::max) * 100.0 / f64::from(load)).clamp(1_000_000, 30 * 86_400_000_000)
    }
}

/// A whole number to any power.
fn power(number: u32, power: f64) -> f64 {
    super::number::exp(power * super::number::ln(f64::from(number)))
}

/// Things of which some are drawn more often than others.
struct Popular(Vec<f64>);

impl Popular {
    fn new(weights: impl Iterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self(sums.collect())
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let at = random.unit() * self.0.last().copied().unwrap_or(0.0);
        let place = self.0.partition_point(|sum| *sum <= at).min(self.0.len().saturating_sub(1));
        u32::try_from(place).unwrap_or(0)
    }
}
