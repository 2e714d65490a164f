//! One provider at a time: how long it lasts and what it gains, so that each closed formula has a number beside it.
//!
//! A career begins after the trust ramp, or is a ramp, and ends with a conviction. Gains and stakes are amounts; what
//! depends on neither is counted once and used for all stakes.

use serde::Serialize;

use crate::memory::random::Random;

use super::{
    agent::{Kind, Panel},
    lot::{Gaps, happens},
    money::{MicroCredits, MoneyError, Share},
    settings::Settings,
    sprt::{Bounds, Step, Test, deterrent, part_of_stake},
};

/// What convicts.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// The first audit that fails.
    First,
    /// The sequential test.
    Sequential(Bounds),
}

/// One career.
#[derive(Clone, Copy, Debug)]
pub struct Career {
    /// Bad answers that were paid.
    pub paid: u64,
    /// Audits.
    pub audits: u64,
    /// The test that ended it; `None`: it did not end in time.
    pub end: Option<Test>,
}

/// Plays a career: `bad` of the answers are bad, and a career is broken off after `most` audits.
pub fn career(
    rule: Rule,
    kind: Kind,
    bad: Share,
    panel: &Panel,
    settings: &Settings,
    most: u64,
    random: &mut Random,
) -> Career {
    let gaps = Gaps::of(settings.audit);
    let (mut paid, mut test) = (0, Test::default());
    for audits in 1..=most {
        let unseen = gaps.next(random) - 1;
        // Of those not audited their expected part is bad.
        paid += unseen * bad.0;
        let is_bad = happens(random, bad);
        let audit = panel.audit(kind, is_bad, settings, random);
        if is_bad && !audit.failed {
            paid += 1_000_000;
        }
        let convicted = match rule {
            Rule::First => {
                test =
                    Test { failed: test.failed + u32::from(audit.failed), decided: test.decided + 1, ..test };
                audit.failed
            }
            Rule::Sequential(bounds) => bounds.take(&mut test, audit.failed) == Step::Convicted,
        };
        if convicted {
            return Career { paid: paid / 1_000_000, audits, end: Some(test) };
        }
    }
    Career { paid: paid / 1_000_000, audits: most, end: None }
}

/// What a bad answer gains beyond none: its price less the protocol share and what it costs to make.
///
/// # Errors
/// It does not fit.
pub fn gain(settings: &Settings) -> Result<MicroCredits, MoneyError> {
    let cost = MicroCredits(settings.cost.0 * settings.job.0 / 1_000_000).part(settings.bad_cost)?;
    settings.job.checked_sub(settings.job.part(settings.protocol)?)?.checked_sub(cost)
}

/// Cheating on every answer at one audit rate.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The audit rate.
    pub audit: Share,
    /// Stake, in gains, at which the mean career gains nothing, where the first failed audit takes all of it.
    pub first: f64,
    /// The same by formula: (1 − q)/q.
    pub first_formula: f64,
    /// The same with the sequential test.
    pub sequential: f64,
    /// The same by formula: k(1 − q)/q.
    pub sequential_formula: f64,
    /// For each stake of [`STAKES`] the mean profit of a career in gains, with the policy's part of the stake.
    pub profits: Vec<f64>,
}

/// Stakes of the surface, in gains of one cheat: from 1 to 10,000, eight for a power of ten.
pub fn stakes() -> Vec<f64> {
    (0..=32).map(|step| super::lot::exp(f64::from(step) / 8.0 * super::lot::ln(10.0))).collect()
}

/// The surface of audit rate and stake. Without collusion, so that the formulas' suppositions hold.
///
/// # Errors
/// An amount does not fit.
pub fn surface(settings: &Settings, runs: u32) -> Result<Vec<Row>, MoneyError> {
    let bounds = Bounds::of(settings);
    let panel = Panel::default();
    let gain = gain(settings)?;
    let mut rows = Vec::new();
    for step in 0..=20 {
        // From 0.5 % to 50 %, ten for a power of ten.
        let rate = 0.005 * super::lot::exp(f64::from(step) / 10.0 * super::lot::ln(10.0));
        let audit = Share(super::lot::whole(rate * 1e6));
        let settings = Settings { audit, ..settings.clone() };
        let mut random = Random::of(settings.seed, &format!("surface {step}"));
        let play = |rule: Rule, random: &mut Random| -> Vec<Career> {
            let one = |_| career(rule, Kind::Cheating, Share(1_000_000), &panel, &settings, 100_000, random);
            (0..runs).map(one).collect()
        };
        let mean = |all: &[Career]| all.iter().map(|it| it.paid as f64).sum::<f64>() / f64::from(runs.max(1));
        let first = mean(&play(Rule::First, &mut random));
        let careers = play(Rule::Sequential(bounds), &mut random);
        let mut profits = Vec::new();
        for stake in stakes() {
            let stake = MicroCredits(super::lot::whole(stake * gain.0 as f64).into());
            let mut profit = 0_i128;
            for it in &careers {
                let test = it.end.unwrap_or_default();
                let earned = settings.job.times(test.decided.into())?;
                let lost = stake.part(part_of_stake(&test, &settings, earned.0, stake.0))?;
                profit += signed(gain.times(it.paid)?)? - signed(lost)?;
            }
            profits.push(profit as f64 / f64::from(runs.max(1)) / gain.0 as f64);
        }
        rows.push(Row {
            audit,
            first,
            first_formula: deterrent(1, audit, settings.miss),
            sequential: mean(&careers),
            sequential_formula: deterrent(bounds.failures(), audit, settings.miss),
            profits,
        });
    }
    Ok(rows)
}

fn signed(amount: MicroCredits) -> Result<i128, MoneyError> {
    i128::try_from(amount.0).map_err(|_| MoneyError::Overflow)
}

/// How long providers last that skip the work on a part of their jobs.
#[derive(Clone, Debug, Serialize)]
pub struct Skipping {
    /// The part.
    pub bad: Share,
    /// Audits until a tenth, a half and nine tenths are convicted; `None`: not within the most that were played.
    pub audits: [Option<u64>; 3],
    /// Share convicted within the most audits that were played.
    pub caught: f64,
    /// Bad answers that were paid, for each career, on average.
    pub paid: f64,
}

/// Audits after which a career is broken off in [`skipping`].
pub const LONGEST: u64 = 20_000;

/// Time to a conviction by the part of the jobs that is skipped.
pub fn skipping(settings: &Settings, runs: u32) -> Vec<Skipping> {
    let bounds = Bounds::of(settings);
    let panel = Panel::default();
    let parts = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50, 70, 100];
    parts
        .map(|hundredths| {
            let bad = Share(hundredths * 10_000);
            let mut random = Random::of(settings.seed, &format!("skipping {hundredths}"));
            let mut careers: Vec<Career> = (0..runs)
                .map(|_| {
                    let rule = Rule::Sequential(bounds);
                    career(rule, Kind::Cheating, bad, &panel, settings, LONGEST, &mut random)
                })
                .collect();
            careers.sort_by_key(|it| (it.end.is_none(), it.audits));
            let at = |tenths: usize| {
                let it = careers.get((careers.len() * tenths / 10).min(careers.len().saturating_sub(1)));
                it.filter(|it| it.end.is_some()).map(|it| it.audits)
            };
            let all = careers.len().max(1) as f64;
            Skipping {
                bad,
                audits: [at(1), at(5), at(9)],
                caught: careers.iter().filter(|it| it.end.is_some()).count() as f64 / all,
                paid: careers.iter().map(|it| it.paid as f64).sum::<f64>() / all,
            }
        })
        .to_vec()
}

/// Wrong convictions where audits of good answers fail so often.
#[derive(Clone, Debug, Serialize)]
pub struct Alarm {
    /// How often they fail.
    pub alarm: Share,
    /// Convictions for a million audits, simulated.
    pub convicted: f64,
    /// The same by Wald's approximation.
    pub formula: f64,
}

/// Convictions of honest providers by how often their audits fail, over so many audits each.
pub fn alarms(settings: &Settings, audits: u64) -> Vec<Alarm> {
    let bounds = Bounds::of(settings);
    [1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000, 80_000, 100_000]
        .map(|alarm| {
            let alarm = Share(alarm);
            let mut random = Random::of(settings.seed, &format!("alarms {}", alarm.0));
            let mut test = Test::default();
            let mut convicted = 0_u64;
            for _ in 0..audits {
                if bounds.take(&mut test, happens(&mut random, alarm)) == Step::Convicted {
                    convicted += 1;
                    test = Test::default();
                }
            }
            let (number, probability) = bounds.expected(alarm.unit());
            Alarm {
                alarm,
                convicted: convicted as f64 * 1e6 / audits.max(1) as f64,
                formula: probability * 1e6 / number,
            }
        })
        .to_vec()
}

/// What a ring can do that has a part of the verifiers' seats.
#[derive(Clone, Debug, Serialize)]
pub struct Ring {
    /// Its part of the seats.
    pub seats: Share,
    /// Further verifiers that look at a failed audit.
    pub confirm: u32,
    /// Audits until half of its own cheats are convicted; `None`: not within the most that were played.
    pub audits: Option<u64>,
    /// Convictions of honest providers for a million audits while the ring accuses everybody.
    pub wrong: f64,
    /// Stake that it takes, in credits, for each thousand honest seats with the least stake.
    pub stake: MicroCredits,
}

/// Rings of several sizes, without and with confirmation.
///
/// # Errors
/// An amount does not fit.
pub fn rings(settings: &Settings, runs: u32) -> Result<Vec<Ring>, MoneyError> {
    let bounds = Bounds::of(settings);
    let mut found = Vec::new();
    for confirm in [0, settings.confirm.max(2)] {
        for hundredths in [1_usize, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 45, 50, 60] {
            let settings = Settings { confirm, accuse: Share(1_000_000), ..settings.clone() };
            let panel = Panel::new(vec![(Kind::Honest, 100 - hundredths), (Kind::Colluding, hundredths)]);
            let mut random = Random::of(settings.seed, &format!("rings {confirm} {hundredths}"));
            let rule = Rule::Sequential(bounds);
            let mut ends: Vec<u64> = (0..runs)
                .map(|_| {
                    career(rule, Kind::Colluding, Share(1_000_000), &panel, &settings, LONGEST, &mut random)
                })
                .map(|it| if it.end.is_some() { it.audits } else { u64::MAX })
                .collect();
            ends.sort_unstable();
            let (mut test, mut convicted) = (Test::default(), 0_u32);
            let audits = u64::from(runs) * 500;
            for _ in 0..audits {
                let failed = panel.audit(Kind::Honest, false, &settings, &mut random).failed;
                if bounds.take(&mut test, failed) == Step::Convicted {
                    convicted += 1;
                    test = Test::default();
                }
            }
            let many = u64::try_from(1000 * hundredths / (100 - hundredths)).unwrap_or(u64::MAX);
            found.push(Ring {
                seats: Share(u64::try_from(hundredths).unwrap_or(0) * 10_000),
                confirm,
                audits: ends.get(ends.len() / 2).copied().filter(|audits| *audits < u64::MAX),
                wrong: f64::from(convicted) * 1e6 / audits.max(1) as f64,
                stake: settings.stake.times(many)?,
            });
        }
    }
    Ok(found)
}

/// What a key gains that is made to cheat with and thrown away.
#[derive(Clone, Debug, Serialize)]
pub struct Throwaway {
    /// Its stake.
    pub stake: MicroCredits,
    /// Mean profit in credits where earnings are paid at once.
    pub at_once: f64,
    /// Where it cheats during the trust ramp.
    pub in_ramp: f64,
    /// Where it is honest until the ramp ends, what it gains from then on.
    pub patient: f64,
    /// The same with a machine 60 times as fast as the reference machine, which goes on until all know of its
    /// conviction.
    pub patient_fast: f64,
}

/// Profits of thrown away keys by stake.
///
/// # Errors
/// An amount does not fit.
pub fn throwaways(settings: &Settings, runs: u32) -> Result<Vec<Throwaway>, MoneyError> {
    let rule = Rule::Sequential(Bounds::of(settings));
    let gain = gain(settings)?;
    let panel = Panel::default();
    let mut random = Random::of(settings.seed, "throwaways");
    let all: Vec<Career> = (0..runs)
        .map(|_| career(rule, Kind::Cheating, Share(1_000_000), &panel, settings, LONGEST, &mut random))
        .collect();
    let late = 60_000_000 * u128::from(settings.delay) / settings.job.0.max(1);
    let late = u64::try_from(late).unwrap_or(u64::MAX);
    let mut found = Vec::new();
    for stake in ["0", "0.1", "0.2", "0.5", "1", "1.5", "2", "3", "5", "10", "20", "50", "100", "200"] {
        let stake: MicroCredits = stake.parse().unwrap_or_default();
        let mut sums = [0_i128; 3];
        for it in &all {
            let test = it.end.unwrap_or_default();
            let earned = settings.job.times(test.decided.into())?;
            let lost = signed(stake.part(part_of_stake(&test, settings, earned.0, stake.0))?)?;
            let fixed = lost + signed(settings.key_cost)?;
            let ramp = it.end.is_some() && it.audits < settings.ramp_audits.into();
            // What is forfeited cost something to make.
            let cost = signed(
                settings
                    .job
                    .checked_sub(gain)?
                    .checked_sub(settings.job.part(settings.protocol)?)?
                    .times(it.paid)?,
            )?;
            let values = [
                signed(gain.times(it.paid)?)? - fixed,
                if ramp { -cost - fixed } else { signed(gain.times(it.paid)?)? - fixed },
                signed(gain.times(it.paid.saturating_add(late))?)? - fixed,
            ];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
        let [at_once, in_ramp, patient_fast] = sums.map(|sum| sum as f64 / 1e6 / f64::from(runs.max(1)));
        found.push(Throwaway { stake, at_once, in_ramp, patient: at_once, patient_fast });
    }
    Ok(found)
}
