//! The whole pool, day by day.
//!
//! Each day members come and go; those who have credits ask for work; the work is spread over the machines in
//! proportion to what they can do; some answers are audited and some providers convicted; providers and verifiers are
//! paid; the treasury grants. A job that fails its audit is not paid. Earnings are withheld until the trust ramp ends.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::memory::random::Random;

use super::{
    agent::{Agent, Identity, Kind, Panel, State, stay},
    ledger::{Into, Ledger},
    lot::{Gaps, happens},
    money::{MILLION, MicroCredits, MoneyError, Share},
    settings::{Prices, Settings},
    sprt::{Bounds, Step, part_of_stake},
};

/// What members of a kind did and got, in a day or longer.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sums {
    /// Earnings that were paid out, fees of verifiers included.
    pub earned: MicroCredits,
    /// What convictions took of stakes.
    pub slashed: MicroCredits,
    /// Withheld earnings that were lost.
    pub forfeited: MicroCredits,
    /// What the work, new keys and moves between keys cost.
    pub cost: MicroCredits,
    /// Work that was paid for or should have been, in millionths of an hour of the reference machine.
    pub work: u64,
    /// Jobs.
    pub jobs: u64,
    /// Jobs on which the work was skipped (their expected number).
    pub bad: u64,
    /// Convictions.
    pub convicted: u64,
}

impl Sums {
    /// What was gained in credits for each hour of the reference machine; 0 where nothing was done.
    pub fn profit(&self) -> f64 {
        if self.work == 0 {
            return 0.0;
        }
        (self.earned.credits() - self.slashed.credits() - self.cost.credits()) / (self.work as f64 / 1e6)
    }

    /// Adds another's.
    ///
    /// # Errors
    /// It does not fit.
    pub fn include(&mut self, other: &Self) -> Result<(), MoneyError> {
        self.earned = self.earned.checked_add(other.earned)?;
        self.slashed = self.slashed.checked_add(other.slashed)?;
        self.forfeited = self.forfeited.checked_add(other.forfeited)?;
        self.cost = self.cost.checked_add(other.cost)?;
        self.work += other.work;
        self.jobs += other.jobs;
        self.bad += other.bad;
        self.convicted += other.convicted;
        Ok(())
    }
}

/// The pool at the end of a day.
#[derive(Clone, Debug, Serialize)]
pub struct Day {
    /// Granted until now.
    pub granted: MicroCredits,
    /// Burnt until now.
    pub burnt: MicroCredits,
    /// Free credits of all members.
    pub free: MicroCredits,
    /// Staked.
    pub staked: MicroCredits,
    /// Withheld by the trust ramp.
    pub withheld: MicroCredits,
    /// The treasury's.
    pub treasury: MicroCredits,
    /// Free credits of the tenth of the members that have the most.
    pub top_tenth: MicroCredits,
    /// Paid for a job.
    pub price: MicroCredits,
    /// Jobs that members would ask for if they had the credits.
    pub wanted: u64,
    /// Jobs that were asked for and served.
    pub served: u64,
    /// Fees of verifiers that the treasury could not pay.
    pub unpaid: MicroCredits,
    /// What each kind did.
    pub kinds: BTreeMap<Kind, Sums>,
}

/// A key that was convicted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ejection {
    /// Of whom.
    pub kind: Kind,
    /// Days since the key first served.
    pub days: u32,
    /// Jobs under the key.
    pub jobs: u64,
    /// Audits under the key.
    pub audits: u64,
    /// Whether its earnings had been released.
    pub released: bool,
}

/// The pool.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    bounds: Bounds,
    random: Random,
    today: u32,
    /// By which the list's price is multiplied.
    level: Share,
    /// Members.
    pub agents: Vec<Agent>,
    /// Their credits.
    pub ledger: Ledger,
    /// All days so far.
    pub days: Vec<Day>,
    /// All keys that were convicted.
    pub ejections: Vec<Ejection>,
    /// Wrong convictions that an appeal overturned.
    pub overturned: u64,
}

/// Today's market.
struct Market {
    price: MicroCredits,
    askers: Vec<usize>,
    wanted: u64,
    /// Jobs that were asked for and can be served.
    jobs: u64,
    able: u64,
}

impl World {
    /// A pool on its first morning: everybody has the welcome grant.
    ///
    /// # Errors
    /// An amount does not fit.
    pub fn new(settings: &Settings) -> Result<Self, MoneyError> {
        let mut random = Random::of(settings.seed, "world");
        let agents = Agent::all(settings, &mut random);
        let mut ledger = Ledger::new(agents.len());
        for (number, agent) in agents.iter().enumerate() {
            ledger.grant(number, settings.welcome)?;
            ledger.stake_up_to(number, agent.stake(settings)?)?;
        }
        Ok(Self {
            bounds: Bounds::of(settings),
            settings: settings.clone(),
            random,
            today: 0,
            level: Share(MILLION),
            agents,
            ledger,
            days: Vec::new(),
            ejections: Vec::new(),
            overturned: 0,
        })
    }

    /// Plays all days.
    ///
    /// # Errors
    /// The books do not balance.
    pub fn play(settings: &Settings) -> Result<Self, MoneyError> {
        let mut world = Self::new(settings)?;
        for _ in 0..settings.days {
            world.day()?;
        }
        Ok(world)
    }

    /// Plays a day.
    ///
    /// # Errors
    /// The books do not balance.
    pub fn day(&mut self) -> Result<(), MoneyError> {
        let mut kinds: BTreeMap<Kind, Sums> =
            Kind::ALL.into_iter().map(|kind| (kind, Sums::default())).collect();
        self.come_and_go(&mut kinds)?;
        let panel = self.panel()?;
        let market = self.ask()?;
        let looks = self.serve(&market, &panel, &mut kinds)?;
        let unpaid = self.pay_verifiers(looks, &panel, &mut kinds)?;
        self.release(&mut kinds)?;
        self.hand_out(self.settings.grants, true)?;
        self.hand_out(self.ledger.treasury().part(self.settings.recycle)?, false)?;
        self.ledger.check()?;
        self.note(&market, unpaid, kinds)?;
        self.today += 1;
        Ok(())
    }

    fn come_and_go(&mut self, kinds: &mut BTreeMap<Kind, Sums>) -> Result<(), MoneyError> {
        for (number, agent) in self.agents.iter_mut().enumerate() {
            match agent.state {
                State::Away(until) if until <= self.today => {
                    let before = self.ledger.account(number).free;
                    let stake = agent.stake(&self.settings)?;
                    self.ledger.move_to_new_key(number, stake, self.settings.protocol)?;
                    let sums = kinds.entry(agent.kind).or_default();
                    let lost = before.checked_sub(self.ledger.account(number).free)?;
                    sums.cost = sums.cost.checked_add(lost)?.checked_add(self.settings.key_cost)?;
                    agent.identity = Identity::new(self.today, &self.settings);
                    let leaves = if agent.kind == Kind::Churning {
                        self.today.saturating_add(stay(self.settings.stay, &mut self.random))
                    } else {
                        u32::MAX
                    };
                    agent.state = State::Serving(leaves);
                    self.ledger.stake_up_to(number, stake)?;
                }
                State::Serving(until) if until <= self.today => {
                    // A key that is left behind does not end its trust ramp.
                    let [_, lost] = self.ledger.slash(number, Share(0), Share(0))?;
                    let sums = kinds.entry(agent.kind).or_default();
                    sums.forfeited = sums.forfeited.checked_add(lost)?;
                    self.ledger.unstake(number)?;
                    agent.state =
                        State::Away(self.today.saturating_add(stay(self.settings.away, &mut self.random)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a member serves, has ended its ramp and has its stake.
    fn established(&self, number: usize, agent: &Agent) -> Result<bool, MoneyError> {
        Ok(agent.serves()
            && agent.identity.released
            && agent.identity.sentence.is_none()
            && self.ledger.account(number).staked >= agent.stake(&self.settings)?)
    }

    fn panel(&self) -> Result<Panel, MoneyError> {
        let mut seats: BTreeMap<Kind, usize> = BTreeMap::new();
        for (number, agent) in self.agents.iter().enumerate() {
            if self.established(number, agent)? {
                *seats.entry(agent.kind).or_default() += 1;
            }
        }
        Ok(Panel::new(seats.into_iter().collect()))
    }

    /// Members ask for as much as they want and can pay, and pay for it.
    fn ask(&mut self) -> Result<Market, MoneyError> {
        let job = self.settings.job;
        let price = MicroCredits(job.part(self.level)?.0.max(1));
        let hours = u64::from(self.settings.hours);
        let per_job = u64::try_from(job.0).unwrap_or(u64::MAX);
        let enough = u128::from(self.settings.enough);
        for (number, agent) in self.agents.iter_mut().enumerate() {
            let saved = self.ledger.account(number).free.0;
            let saves = enough > 0 && !matches!(agent.kind, Kind::Cheating | Kind::Colluding);
            agent.rests = saves && saved > u128::from(agent.wants) * enough;
        }
        let able = self.agents.iter().filter(|it| it.works()).map(|it| it.speed * hours).sum::<u64>();
        let (mut wanted, mut funded) = (0_u64, 0_u64);
        let mut asks = Vec::new();
        for (number, agent) in self.agents.iter().enumerate().filter(|(_, agent)| agent.serves()) {
            let wants = agent.wants.div_ceil(per_job);
            let pays = u64::try_from(self.ledger.account(number).free.0 / price.0).unwrap_or(u64::MAX);
            wanted += wants;
            funded += wants.min(pays);
            asks.push((number, wants.min(pays)));
        }
        let most = able / per_job;
        let mut market = Market { price, askers: Vec::new(), wanted, jobs: 0, able: most };
        for (number, jobs) in asks {
            let jobs = if funded > most {
                u64::try_from(u128::from(jobs) * u128::from(most) / u128::from(funded)).unwrap_or(0)
            } else {
                jobs
            };
            if jobs > 0 {
                self.ledger.collect(number, price.times(jobs)?)?;
                market.jobs += jobs;
                market.askers.push(number);
            }
        }
        if self.settings.prices == Prices::Demand {
            self.level = moved(self.level, funded, most);
        }
        Ok(market)
    }

    /// The jobs are done, audited and paid. Tells how many looks of verifiers there were.
    fn serve(
        &mut self,
        market: &Market,
        panel: &Panel,
        kinds: &mut BTreeMap<Kind, Sums>,
    ) -> Result<u64, MoneyError> {
        let settings = self.settings.clone();
        let able: u128 = self.agents.iter().filter(|it| it.works()).map(|it| u128::from(it.speed)).sum();
        // A job falls to whoever the place falls to; where the first place is drawn by lot, all sizes get their part.
        let offset = u128::from(self.random.next() >> 32);
        let place = |sum: u128| -> u128 { ((sum * u128::from(market.jobs)) << 32) / able.max(1) + offset };
        let gaps = Gaps::of(settings.audit);
        let (mut sum, mut looks) = (0_u128, 0_u64);
        let mut refunds = Vec::new();
        let Self { agents, ledger, random, bounds, ejections, overturned, today, .. } = self;
        for (number, agent) in agents.iter_mut().enumerate().filter(|(_, agent)| agent.works()) {
            let before = place(sum) >> 32;
            sum += u128::from(agent.speed);
            let given = u64::try_from((place(sum) >> 32) - before).unwrap_or(0);
            let identity = &mut agent.identity;
            let skips = agent.kind.bad(&settings, identity.released);
            let mut done = identity.sentence.map_or(given, |left| left.min(given));
            let (mut at, mut unpaid) = (gaps.next(random), 0);
            while at <= done {
                let bad = happens(random, skips);
                let audit = panel.audit(agent.kind, bad, &settings, random);
                looks += u64::from(audit.looks);
                identity.audits += 1;
                unpaid += u64::from(audit.failed);
                if identity.sentence.is_none()
                    && bounds.take(&mut identity.test, audit.failed) == Step::Convicted
                {
                    if agent.kind.good() && happens(random, settings.appeals) {
                        identity.test = Default::default();
                        *overturned += 1;
                    } else {
                        // Machines are used evenly, so that an hour's jobs are this part of the day's.
                        let left = given * u64::from(settings.delay) / u64::from(settings.hours);
                        identity.sentence = Some(left + at);
                        done = done.min(left + at);
                    }
                }
                at = at.saturating_add(gaps.next(random));
            }
            identity.sentence = identity.sentence.map(|left| left - done);
            identity.jobs += done;

            let sums = kinds.entry(agent.kind).or_default();
            let into = if identity.released { Into::Free } else { Into::Withheld };
            let net = ledger.pay(number, market.price.times(done - unpaid)?, settings.protocol, into)?;
            if identity.released {
                sums.earned = sums.earned.checked_add(net)?;
                agent.earned = agent.earned.checked_add(net)?;
            }
            if given > done - unpaid {
                refunds.push(market.price.times(given - (done - unpaid))?);
            }
            let work = u64::try_from(settings.job.times(done)?.0).unwrap_or(u64::MAX);
            let bad = done * skips.0 / MILLION;
            sums.work += work;
            sums.jobs += done;
            sums.bad += bad;
            let hour = |jobs: u64, share: Share| -> Result<MicroCredits, MoneyError> {
                MicroCredits(settings.cost.times(jobs)?.0 * settings.job.0 / u128::from(MILLION)).part(share)
            };
            sums.cost = sums
                .cost
                .checked_add(hour(done - bad, Share(MILLION))?)?
                .checked_add(hour(bad, settings.bad_cost)?)?;

            if identity.sentence == Some(0) {
                let account = ledger.account(number);
                let earned = market.price.times(identity.test.decided.into())?;
                let part = part_of_stake(&identity.test, &settings, earned.0, account.staked.0);
                let [slashed, lost] = ledger.slash(number, part, settings.burn)?;
                sums.slashed = sums.slashed.checked_add(slashed)?;
                sums.forfeited = sums.forfeited.checked_add(lost)?;
                sums.convicted += 1;
                ejections.push(Ejection {
                    kind: agent.kind,
                    days: *today - identity.since,
                    jobs: identity.jobs,
                    audits: identity.audits,
                    released: identity.released,
                });
                ledger.unstake(number)?;
                agent.state = State::Away(today.saturating_add(settings.back.max(1)));
            }
        }
        // What was not delivered or failed goes back. Who had asked is drawn by lot.
        for amount in refunds {
            if let Some(asker) = market.askers.get(random.below(market.askers.len())) {
                ledger.refund(*asker, amount)?;
            }
        }
        Ok(looks)
    }

    /// Verifiers share what their looks cost. Tells what the treasury lacked.
    fn pay_verifiers(
        &mut self,
        looks: u64,
        panel: &Panel,
        kinds: &mut BTreeMap<Kind, Sums>,
    ) -> Result<MicroCredits, MoneyError> {
        let due = self.settings.job.part(self.settings.audit_cost)?.times(looks)?;
        let seats = u128::try_from(panel.seats()).unwrap_or(u128::MAX);
        if seats == 0 {
            return Ok(MicroCredits::ZERO);
        }
        let paid = due.min(self.ledger.treasury());
        let each = MicroCredits(paid.0 / seats);
        for number in 0..self.agents.len() {
            let Some(agent) = self.agents.get(number) else { continue };
            if !self.established(number, agent)? {
                continue;
            }
            // One who was convicted today may have had a seat, so that there are at most as many as seats.
            self.ledger.spend(number, each)?;
            let sums = kinds.entry(agent.kind).or_default();
            sums.earned = sums.earned.checked_add(each)?;
            // Who passes everything without looking has no work with it.
            if agent.kind.good() {
                sums.cost = sums
                    .cost
                    .checked_add(MicroCredits(each.0 * self.settings.cost.0 / u128::from(MILLION)))?;
            }
        }
        due.checked_sub(paid)
    }

    /// Ends ramps, and stakes what is missing.
    fn release(&mut self, kinds: &mut BTreeMap<Kind, Sums>) -> Result<(), MoneyError> {
        let settings = &self.settings;
        for (number, agent) in self.agents.iter_mut().enumerate().filter(|(_, agent)| agent.serves()) {
            let identity = &mut agent.identity;
            let old = self.today + 1 - identity.since >= settings.ramp_days;
            if !identity.released
                && old
                && identity.audits >= settings.ramp_audits.into()
                && identity.sentence.is_none()
            {
                identity.released = true;
                let amount = self.ledger.release(number)?;
                let sums = kinds.entry(agent.kind).or_default();
                sums.earned = sums.earned.checked_add(amount)?;
                agent.earned = agent.earned.checked_add(amount)?;
            }
            self.ledger.stake_up_to(number, agent.stake(settings)?)?;
        }
        Ok(())
    }

    /// Gives an amount to established members by lot, in at most a thousand pieces.
    fn hand_out(&mut self, amount: MicroCredits, fresh: bool) -> Result<(), MoneyError> {
        let mut members = Vec::new();
        for (number, agent) in self.agents.iter().enumerate() {
            if self.established(number, agent)? {
                members.push(number);
            }
        }
        let pieces = (amount.0 / u128::from(MILLION)).clamp(1, 1000);
        let piece = MicroCredits(amount.0 / pieces);
        for _ in 0..pieces {
            let Some(number) = members.get(self.random.below(members.len())) else { continue };
            if fresh { self.ledger.grant(*number, piece)? } else { self.ledger.spend(*number, piece)? }
        }
        Ok(())
    }

    fn note(
        &mut self,
        market: &Market,
        unpaid: MicroCredits,
        kinds: BTreeMap<Kind, Sums>,
    ) -> Result<(), MoneyError> {
        let mut free: Vec<MicroCredits> = self.ledger.accounts().iter().map(|it| it.free).collect();
        free.sort_unstable();
        let top = free.len() / 10;
        self.days.push(Day {
            granted: self.ledger.granted(),
            burnt: self.ledger.burnt(),
            free: total(free.iter().copied())?,
            staked: total(self.ledger.accounts().iter().map(|it| it.staked))?,
            withheld: total(self.ledger.accounts().iter().map(|it| it.withheld))?,
            treasury: self.ledger.treasury(),
            top_tenth: total(free.iter().rev().take(top).copied())?,
            price: market.price,
            wanted: market.wanted,
            served: market.jobs.min(market.able),
            unpaid,
            kinds,
        });
        Ok(())
    }
}

fn total(mut all: impl Iterator<Item = MicroCredits>) -> Result<MicroCredits, MoneyError> {
    all.try_fold(MicroCredits::ZERO, MicroCredits::checked_add)
}

/// The next level of prices: a half for an idle pool, one at half load, two at full load, in straight lines between,
/// and an eighth more or less at a time.
fn moved(level: Share, asked: u64, able: u64) -> Share {
    let load = (u128::from(asked) * u128::from(MILLION) / u128::from(able.max(1))).min(u128::from(MILLION));
    let load = u64::try_from(load).unwrap_or(MILLION);
    let wanted = if load <= MILLION / 2 { MILLION / 2 + load } else { load * 2 };
    Share(wanted.clamp(level.0 - level.0 / 8, level.0 + level.0 / 8))
}
