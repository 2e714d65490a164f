//! Members, what they do, and how their answers are audited.

use serde::Serialize;

use crate::memory::random::Random;

use super::{
    lot::{happens, normal, unit, whole},
    money::{MILLION, MicroCredits, MoneyError, Share},
    settings::Settings,
    sprt::Test,
};

/// How a member behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Does the work, and audits.
    Honest,
    /// Skips the work on some jobs, and passes what it should audit.
    Lazy,
    /// Skips the work on every job, and passes what it should audit.
    Cheating,
    /// Works until its earnings are paid out and skips the work then; passes its friends, and may accuse others.
    Colluding,
    /// Honest, goes often, and comes back under a new key.
    Churning,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Honest, Self::Lazy, Self::Cheating, Self::Colluding, Self::Churning];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Lazy => "lazy",
            Self::Cheating => "cheating",
            Self::Colluding => "colluding",
            Self::Churning => "churning",
        }
    }

    /// On which share of its jobs it skips the work, before and after its earnings are paid out.
    pub const fn bad(self, settings: &Settings, released: bool) -> Share {
        match self {
            Self::Honest | Self::Churning => Share(0),
            Self::Lazy => settings.skipped,
            Self::Cheating => Share(MILLION),
            Self::Colluding if released => settings.ring_skips,
            Self::Colluding => Share(0),
        }
    }

    /// Whether it does the work.
    pub const fn good(self) -> bool {
        matches!(self, Self::Honest | Self::Churning)
    }
}

/// Those who audit: how many there are of each kind.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    seats: Vec<(Kind, usize)>,
    all: usize,
}

/// How an audit ended.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    /// Whether it counts as failed.
    pub failed: bool,
    /// How many verifiers looked.
    pub looks: u32,
}

impl Panel {
    /// Of so many of each kind.
    pub fn new(seats: Vec<(Kind, usize)>) -> Self {
        let all = seats.iter().map(|(_, count)| count).sum();
        Self { seats, all }
    }

    /// Seats of all kinds.
    pub const fn seats(&self) -> usize {
        self.all
    }

    /// Draws one. Where nobody has a seat yet, the founders audit.
    fn draw(&self, random: &mut Random) -> Kind {
        let mut place = random.below(self.all);
        for (kind, count) in &self.seats {
            if place < *count {
                return *kind;
            }
            place -= count;
        }
        Kind::Honest
    }

    /// Audits an answer. All verifiers compute the same, so that the audit's own errors are drawn once; what they say
    /// depends on who they are.
    pub fn audit(&self, target: Kind, bad: bool, settings: &Settings, random: &mut Random) -> Audit {
        let found = if bad { !happens(random, settings.miss) } else { happens(random, settings.alarm) };
        let says = |random: &mut Random| match self.draw(random) {
            Kind::Honest | Kind::Churning => found,
            Kind::Lazy | Kind::Cheating => false,
            Kind::Colluding => target != Kind::Colluding && (happens(random, settings.accuse) || found),
        };
        if !says(random) {
            return Audit { failed: false, looks: 1 };
        }
        let looks = settings.confirm + 1;
        let failed = 1 + (0..settings.confirm).filter(|_| says(random)).count();
        Audit { failed: failed * 2 > usize::try_from(looks).unwrap_or(usize::MAX), looks }
    }
}

/// Whether a member serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does, until this day at least.
    Serving(u32),
    /// It does not, until this day.
    Away(u32),
}

/// What the pool knows of a member under its present key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// Since which day.
    pub since: u32,
    /// Jobs it has done.
    pub jobs: u64,
    /// Audits it has had.
    pub audits: u64,
    /// The present test.
    pub test: Test,
    /// Whether its earnings are paid out.
    pub released: bool,
    /// How many jobs it will still do before all know that it was convicted.
    pub sentence: Option<u64>,
}

impl Identity {
    /// A key that first serves today.
    pub fn new(since: u32, settings: &Settings) -> Self {
        let released = settings.ramp_audits == 0 && settings.ramp_days == 0;
        Self { since, released, ..Self::default() }
    }
}

/// A member and its machine.
#[derive(Clone, Debug)]
pub struct Agent {
    /// How it behaves.
    pub kind: Kind,
    /// What its machine does in an hour of service, as work of the reference machine, in millionths of an hour.
    pub speed: u64,
    /// What it would ask for in a day, as work of the reference machine, in millionths of an hour.
    pub wants: u64,
    /// Whether it serves.
    pub state: State,
    /// Whether it has credits enough and takes no jobs today.
    pub rests: bool,
    /// Under which key.
    pub identity: Identity,
    /// All it ever earned, after the protocol share.
    pub earned: MicroCredits,
}

/// Machines: of a thousand members so many have one that is so many millionths as fast as the reference machine, whose
/// weights are read at 50 GB/s. From four cores of a laptop to a large accelerator.
const CLASSES: [(u64, u64); 6] = [
    (300, 500_000),
    (250, 1_000_000),
    (150, 2_000_000),
    (150, 6_000_000),
    (120, 20_000_000),
    (30, 60_000_000),
];

impl Agent {
    /// All members, in the proportions that are set. Demand grows with the root of the machine's speed, times a
    /// log-normal factor with a deviation of 1 (in logarithms).
    pub fn all(settings: &Settings, random: &mut Random) -> Vec<Self> {
        let count = |share: Share| u64::from(settings.nodes) * share.0 / MILLION;
        let mut kinds = Vec::new();
        for (kind, share) in [
            (Kind::Lazy, settings.lazy),
            (Kind::Cheating, settings.cheating),
            (Kind::Colluding, settings.colluding),
            (Kind::Churning, settings.churning),
        ] {
            kinds.extend((0..count(share)).map(|_| kind));
        }
        kinds.resize(usize::try_from(settings.nodes).unwrap_or(usize::MAX), Kind::Honest);
        random.shuffle(&mut kinds);
        let mut all: Vec<Self> = kinds
            .into_iter()
            .map(|kind| {
                let speed = class(random);
                let wants = (speed as f64).sqrt() * super::lot::exp(normal(random));
                let state = match kind {
                    Kind::Churning => State::Serving(stay(settings.stay, random)),
                    _ => State::Serving(u32::MAX),
                };
                // Scaled below; a thousandth of it is precise enough.
                let wants = whole(wants * 1e3);
                Self {
                    kind,
                    speed,
                    wants,
                    state,
                    rests: false,
                    identity: Identity::new(0, settings),
                    earned: MicroCredits::ZERO,
                }
            })
            .collect();
        let able: u128 = all.iter().map(|it| u128::from(it.speed) * u128::from(settings.hours)).sum();
        let wanted: u128 = all.iter().map(|it| u128::from(it.wants)).sum::<u128>().max(1);
        for it in &mut all {
            let scaled =
                u128::from(it.wants) * able * u128::from(settings.demand.0) / wanted / u128::from(MILLION);
            it.wants = u64::try_from(scaled).unwrap_or(u64::MAX);
        }
        all
    }

    /// What it must stake.
    ///
    /// # Errors
    /// It does not fit.
    pub fn stake(&self, settings: &Settings) -> Result<MicroCredits, MoneyError> {
        settings.stake.checked_add(MicroCredits(u128::from(self.speed)).times(settings.stake_hours.into())?)
    }

    /// Whether it is there today.
    pub const fn serves(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    /// Whether it takes jobs today.
    pub const fn works(&self) -> bool {
        self.serves() && !self.rests
    }
}

fn class(random: &mut Random) -> u64 {
    let mut place = u64::try_from(random.below(1000)).unwrap_or(0);
    for (share, speed) in CLASSES {
        if place < share {
            return speed;
        }
        place -= share;
    }
    MILLION
}

/// A number of days, exponentially distributed, one at least.
pub fn stay(mean: u32, random: &mut Random) -> u32 {
    let days = -super::lot::ln(1.0 - unit(random)) * f64::from(mean);
    u32::try_from(whole(days)).unwrap_or(u32::MAX).max(1)
}
