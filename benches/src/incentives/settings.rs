//! Everything that can be set.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::money::{MicroCredits, Share};

/// Who decides about prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Prices {
    /// The list: a credit for each hour of the reference machine.
    List,
    /// The list times 0.5 to 2 by load, an eighth at a time, as the policy `demand` has it.
    Demand,
}

/// Rules of the pool and behaviour of its members. Shares are numbers from 0 to 1.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Settings {
    /// Members; each has a machine that serves, and asks others.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub nodes: u32,
    /// Days.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    /// Seed of all lots.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Share of members that skip the work on some jobs, and pass what they should audit.
    #[arg(long, default_value = "0.05")]
    pub lazy: Share,
    /// Share that skips the work on every job.
    #[arg(long, default_value = "0.05")]
    pub cheating: Share,
    /// Share that cheats and vouches for each other as verifiers.
    #[arg(long, default_value = "0.05")]
    pub colluding: Share,
    /// Share that is honest, goes often, and comes back under a new key.
    #[arg(long, default_value = "0.05")]
    pub churning: Share,

    /// Share of the jobs that are audited.
    #[arg(long, default_value = "0.05")]
    pub audit: Share,
    /// Share of audits of good answers that fail.
    #[arg(long, default_value = "0.005")]
    pub alarm: Share,
    /// Share of audits of bad answers that pass.
    #[arg(long, default_value = "0.05")]
    pub miss: Share,
    /// Further verifiers that look at a failed audit; the majority of all of them decides.
    #[arg(long, default_value_t = 2)]
    pub confirm: u32,
    /// Share of others' audits that colluding verifiers call failed.
    #[arg(long, default_value = "0")]
    pub accuse: Share,
    /// Share of its jobs on which a ring skips the work, once its earnings are paid out.
    #[arg(long, default_value = "1")]
    pub ring_skips: Share,
    /// What an audit takes of the work of the job.
    #[arg(long, default_value = "0.05")]
    pub audit_cost: Share,

    /// How often an audit of an honest provider fails, as the test supposes.
    #[arg(long, default_value = "0.005")]
    pub p0: Share,
    /// How often an audit of a cheat fails, as the test supposes.
    #[arg(long, default_value = "0.2")]
    pub p1: Share,
    /// How often the test may convict an honest provider.
    #[arg(long, default_value = "0.000001")]
    pub convict: Share,
    /// How often the test may acquit a cheat.
    #[arg(long, default_value = "0.01")]
    pub acquit: Share,

    /// Stake of a provider, in credits.
    #[arg(long, default_value = "10")]
    pub stake: MicroCredits,
    /// Stake beyond that, in hours of the provider's own machine.
    #[arg(long, default_value_t = 2)]
    pub stake_hours: u32,
    /// Least part of the stake that a conviction takes.
    #[arg(long, default_value = "0.05")]
    pub least: Share,
    /// A conviction takes at least so many times what the audited jobs earned.
    #[arg(long, default_value_t = 20)]
    pub times: u32,
    /// Part of what convictions take that is burnt; the treasury has the rest.
    #[arg(long, default_value = "0.5")]
    pub burn: Share,
    /// Hours that a convicted provider goes on serving until all know of it.
    #[arg(long, default_value_t = 1)]
    pub delay: u32,
    /// Share of wrong convictions that an appeal overturns.
    #[arg(long, default_value = "0")]
    pub appeals: Share,
    /// Audits until earnings are paid out (0: no trust ramp).
    #[arg(long, default_value_t = 20)]
    pub ramp_audits: u32,
    /// Days until earnings are paid out.
    #[arg(long, default_value_t = 7)]
    pub ramp_days: u32,

    /// Who decides about prices.
    #[arg(long, value_enum, default_value_t = Prices::List)]
    pub prices: Prices,
    /// Work of a job, in hours of the reference machine (as credits are).
    #[arg(long, default_value = "0.02")]
    pub job: MicroCredits,
    /// Hours of a day in which a machine serves.
    #[arg(long, default_value_t = 6)]
    pub hours: u32,
    /// What all members would ask for, as a share of what all machines can do.
    #[arg(long, default_value = "0.6")]
    pub demand: Share,
    /// Days of its own wants for which a member saves; it rests when it has more (0: it never rests).
    #[arg(long, default_value_t = 30)]
    pub enough: u32,
    /// Share of every payment that the treasury gets.
    #[arg(long, default_value = "0.02")]
    pub protocol: Share,
    /// What an honest hour costs its provider, in credits.
    #[arg(long, default_value = "0.4")]
    pub cost: MicroCredits,
    /// What a bad answer costs, as a share of a good one.
    #[arg(long, default_value = "0.05")]
    pub bad_cost: Share,
    /// Share of jobs on which lazy members skip the work.
    #[arg(long, default_value = "0.2")]
    pub skipped: Share,

    /// Credits granted to each member at the beginning.
    #[arg(long, default_value = "400")]
    pub welcome: MicroCredits,
    /// Credits granted each day, by lot, a credit at a time, among providers with a stake.
    #[arg(long, default_value = "500")]
    pub grants: MicroCredits,
    /// Share of the treasury that is granted each day in the same way.
    #[arg(long, default_value = "0.1")]
    pub recycle: Share,

    /// Days that a churning member stays, on average.
    #[arg(long, default_value_t = 14)]
    pub stay: u32,
    /// Days that it is away, on average.
    #[arg(long, default_value_t = 7)]
    pub away: u32,
    /// Days until a convicted member is back under a new key.
    #[arg(long, default_value_t = 3)]
    pub back: u32,
    /// What a new key costs in computing, in credits.
    #[arg(long, default_value = "0.01")]
    pub key_cost: MicroCredits,
}

impl Settings {
    /// Why these cannot be played; `None`: they can.
    pub fn wrong(&self) -> Option<&'static str> {
        let million = 1_000_000;
        let kinds = [self.lazy, self.cheating, self.colluding, self.churning];
        let shares = [
            self.audit,
            self.alarm,
            self.miss,
            self.accuse,
            self.audit_cost,
            self.least,
            self.burn,
            self.appeals,
            self.demand,
            self.ring_skips,
            self.protocol,
            self.bad_cost,
            self.skipped,
            self.recycle,
        ];
        if kinds.iter().fold(0_u64, |sum, share| sum.saturating_add(share.0)) > million {
            Some("the kinds of members are more than all members")
        } else if shares.iter().any(|share| share.0 > million) {
            Some("a share is above 1")
        } else if !(0 < self.p0.0 && self.p0 < self.p1 && self.p1.0 < million) {
            Some("the test needs 0 < p0 < p1 < 1")
        } else if [self.convict, self.acquit].iter().any(|share| share.0 == 0 || share.0 >= million / 2) {
            Some("the test's errors are above 0 and below 0.5")
        } else if self.job.0 < 100 || self.job.0 > 1_000_000_000 {
            Some("a job takes from 0.0001 to 1000 hours")
        } else if self.hours == 0 || self.hours > 24 || self.stay == 0 || self.away == 0 || self.confirm > 20
        {
            Some("hours are 1 to 24, stay and away at least a day, confirm at most 20")
        } else {
            None
        }
    }
}
