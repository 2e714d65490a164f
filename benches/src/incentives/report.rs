//! What a run found, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    agent::Kind,
    career::{self, Alarm, Ring, Row, Skipping, Throwaway},
    money::{MicroCredits, MoneyError, Share},
    settings::{Prices, Settings},
    sprt::Bounds,
    world::{Day, Sums, World},
};

/// What became of a kind of members.
#[derive(Clone, Debug, Serialize)]
pub struct Fate {
    /// Everything it did.
    pub sums: Sums,
    /// Profit for an hour of the reference machine, in credits.
    pub profit: f64,
    /// Profit in the last 30 days.
    pub late: f64,
    /// Keys that were convicted, of which this many in the trust ramp.
    pub convicted: usize,
    /// Of them in the trust ramp.
    pub in_ramp: usize,
    /// Days, jobs and audits under a key until its conviction: median and nine tenths.
    pub days: [u32; 2],
    /// Jobs.
    pub jobs: [u64; 2],
    /// Audits.
    pub audits: [u64; 2],
}

/// A whole pool in some numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What was set otherwise.
    pub name: String,
    /// By kind.
    pub fates: BTreeMap<Kind, Fate>,
    /// Share of bad answers in the last 30 days.
    pub bad: f64,
    /// Jobs served of those that members wanted, in the last 30 days.
    pub served: f64,
    /// Free credits that the richest tenth of the members has at the end.
    pub top_tenth: f64,
    /// Gini coefficients of honest members: of speed, of what was earned, of free credits.
    pub gini: [f64; 3],
    /// Fees of verifiers that the treasury could not pay, in credits.
    pub unpaid: MicroCredits,
    /// The last price of a job.
    pub price: MicroCredits,
    /// Wrong convictions that an appeal overturned.
    pub overturned: u64,
}

/// A Lorenz curve in hundredths, and its Gini coefficient.
#[derive(Clone, Debug, Serialize)]
pub struct Concentration {
    /// The part that the poorest so many hundredths have.
    pub curve: Vec<f64>,
    /// The coefficient.
    pub gini: f64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was set.
    pub settings: Settings,
    /// Failures that convict, the share of failures at which the test drifts nowhere, and the gain of a cheat.
    pub failures: u32,
    /// The share.
    pub indifferent: f64,
    /// The gain.
    pub gain: MicroCredits,
    /// The pool as set.
    pub summary: Summary,
    /// Its days.
    pub days: Vec<Day>,
    /// Speed, earnings and free credits of honest members.
    pub concentration: [Concentration; 3],
    /// Other pools, a fifth of the size.
    pub variants: Vec<Summary>,
    /// Where cheating pays.
    pub surface: Vec<Row>,
    /// Cheating a little.
    pub skipping: Vec<Skipping>,
    /// Wrong convictions.
    pub alarms: Vec<Alarm>,
    /// Collusion.
    pub rings: Vec<Ring>,
    /// Keys that are thrown away.
    pub throwaways: Vec<Throwaway>,
}

impl Concentration {
    /// Of these amounts.
    pub fn of(mut amounts: Vec<u128>) -> Self {
        amounts.sort_unstable();
        let all = amounts.iter().sum::<u128>().max(1) as f64;
        let count = amounts.len();
        let (mut sum, mut area) = (0.0, 0.0);
        let mut curve = vec![0.0];
        for (place, amount) in amounts.into_iter().enumerate() {
            let before = sum;
            sum += amount as f64 / all;
            area += (before + sum) / 2.0 / count.max(1) as f64;
            while curve.len() <= 100 && (place + 1) * 100 >= curve.len() * count {
                curve.push(sum);
            }
        }
        Self { gini: 1.0 - 2.0 * area, curve }
    }
}

fn concentrations(world: &World) -> [Concentration; 3] {
    let honest = || world.agents.iter().enumerate().filter(|(_, agent)| agent.kind == Kind::Honest);
    [
        Concentration::of(honest().map(|(_, agent)| agent.speed.into()).collect()),
        Concentration::of(honest().map(|(_, agent)| agent.earned.0).collect()),
        Concentration::of(honest().map(|(number, _)| world.ledger.account(number).free.0).collect()),
    ]
}

fn fate(world: &World, kind: Kind) -> Result<Fate, MoneyError> {
    let (mut all, mut late) = (Sums::default(), Sums::default());
    for (place, day) in world.days.iter().enumerate() {
        let sums = day.kinds.get(&kind).copied().unwrap_or_default();
        all.include(&sums)?;
        if place + 30 >= world.days.len() {
            late.include(&sums)?;
        }
    }
    let keys: Vec<_> = world.ejections.iter().filter(|it| it.kind == kind).collect();
    Ok(Fate {
        sums: all,
        profit: all.profit(),
        late: late.profit(),
        convicted: keys.len(),
        in_ramp: keys.iter().filter(|it| !it.released).count(),
        days: middle(keys.iter().map(|it| it.days).collect()),
        jobs: middle(keys.iter().map(|it| it.jobs).collect()),
        audits: middle(keys.iter().map(|it| it.audits).collect()),
    })
}

/// The median, and what nine tenths do not exceed.
fn middle<T: Ord + Copy + Default>(mut all: Vec<T>) -> [T; 2] {
    all.sort_unstable();
    [5, 9].map(|tenths| all.get(all.len() * tenths / 10).copied().unwrap_or_default())
}

fn summary(name: &str, world: &World) -> Result<Summary, MoneyError> {
    let mut fates = BTreeMap::new();
    for kind in Kind::ALL {
        fates.insert(kind, fate(world, kind)?);
    }
    let late = || world.days.iter().rev().take(30);
    let share = |some: u64, all: u64| some as f64 / all.max(1) as f64;
    let sum = |of: &dyn Fn(&Sums) -> u64| late().flat_map(|day| day.kinds.values()).map(of).sum::<u64>();
    let last = world.days.last();
    Ok(Summary {
        name: name.to_owned(),
        fates,
        bad: share(sum(&|it| it.bad), sum(&|it| it.jobs)),
        served: share(late().map(|day| day.served).sum(), late().map(|day| day.wanted).sum()),
        top_tenth: last.map_or(0.0, |day| day.top_tenth.0 as f64 / day.free.0.max(1) as f64),
        gini: concentrations(world).map(|it| it.gini),
        unpaid: world.days.iter().try_fold(MicroCredits::ZERO, |sum, day| sum.checked_add(day.unpaid))?,
        price: last.map_or(MicroCredits::ZERO, |day| day.price),
        overturned: world.overturned,
    })
}

/// Pools in which one thing is otherwise.
fn variants(settings: &Settings) -> Vec<(&'static str, Settings)> {
    let [none, one] = [Share(0), Share(1_000_000)];
    let base = Settings { nodes: (settings.nodes / 5).max(10), ..settings.clone() };
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = base.clone();
        change(&mut settings);
        settings
    };
    vec![
        ("as set", base.clone()),
        ("no audits, no ramp", with(&|it| (it.audit, it.ramp_audits, it.ramp_days) = (Share(0), 0, 0))),
        ("1 % audited", with(&|it| it.audit = Share(10_000))),
        ("no trust ramp", with(&|it| (it.ramp_audits, it.ramp_days) = (0, 0))),
        (
            "no ramp, no stake",
            with(&|it| {
                (it.ramp_audits, it.ramp_days, it.stake_hours, it.stake) = (0, 0, 0, MicroCredits::ZERO);
            }),
        ),
        ("verdicts known after 24 h", with(&|it| it.delay = 24)),
        ("2 % of good answers fail", with(&|it| it.alarm = Share(20_000))),
        ("3 % of good answers fail", with(&|it| it.alarm = Share(30_000))),
        ("lazy on 5 % of jobs", with(&|it| it.skipped = Share(50_000))),
        ("ring of 5 % only accuses", with(&|it| (it.accuse, it.ring_skips) = (one, none))),
        ("the same, no confirmation", with(&|it| (it.accuse, it.ring_skips, it.confirm) = (one, none, 0))),
        (
            "ring of 25 % only accuses",
            with(&|it| {
                (it.accuse, it.ring_skips, it.colluding) = (one, none, Share(250_000));
            }),
        ),
        (
            "the same, nine of ten appeals right",
            with(&|it| {
                (it.accuse, it.ring_skips, it.colluding, it.appeals) =
                    (one, none, Share(250_000), Share(900_000));
            }),
        ),
        (
            "half of all cheat or collude",
            with(&|it| (it.cheating, it.colluding) = (Share(250_000), Share(250_000))),
        ),
        ("prices by demand", with(&|it| it.prices = Prices::Demand)),
        ("no daily grants", with(&|it| it.grants = MicroCredits::ZERO)),
        ("no grants, nothing recycled", with(&|it| (it.grants, it.recycle) = (MicroCredits::ZERO, Share(0)))),
        ("ten times the daily grants", with(&|it| it.grants.0 *= 10)),
        ("a tenth of the welcome", with(&|it| it.welcome.0 /= 10)),
        ("ten times the welcome", with(&|it| it.welcome.0 *= 10)),
        ("nobody rests", with(&|it| it.enough = 0)),
    ]
}

impl Report {
    /// Plays everything. `say` is told what is played next.
    ///
    /// # Errors
    /// The books do not balance.
    pub fn make(settings: &Settings, say: &dyn Fn(&str)) -> Result<Self, MoneyError> {
        say("the pool");
        let world = World::play(settings)?;
        let mut others = Vec::new();
        for (name, settings) in variants(settings) {
            say(name);
            others.push(summary(name, &World::play(&settings)?)?);
        }
        say("one provider at a time");
        Self::of(settings, world, others, 10)
    }

    /// The pool and a tenth of the careers, without other pools.
    #[cfg(test)]
    pub(super) fn small(settings: &Settings) -> Result<Self, MoneyError> {
        Self::of(settings, World::play(settings)?, Vec::new(), 1)
    }

    fn of(settings: &Settings, world: World, variants: Vec<Summary>, scale: u32) -> Result<Self, MoneyError> {
        let bounds = Bounds::of(settings);
        Ok(Self {
            failures: bounds.failures(),
            indifferent: bounds.indifferent(),
            gain: career::gain(settings)?,
            summary: summary("the pool", &world)?,
            concentration: concentrations(&world),
            variants,
            surface: career::surface(settings, 200 * scale)?,
            skipping: career::skipping(settings, 50 * scale),
            alarms: career::alarms(settings, 2_000_000 * u64::from(scale)),
            rings: career::rings(settings, 100 * scale)?,
            throwaways: career::throwaways(settings, 200 * scale)?,
            days: world.days,
            settings: settings.clone(),
        })
    }
}
