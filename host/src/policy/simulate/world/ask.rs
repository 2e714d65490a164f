//! One machine decides who is asked, from what it knows.

use crate::policy::types::{Candidate, Hardware, Health, Job as Told, Path, Price};

use super::{
    super::{
        job::{self, Size, speed},
        number::{Random, mix_all},
        prices::{Demand, millis},
        tally::Failure,
        trace::{Job, Machine, Model},
        view::{HOPELESS, Pair, Seen},
    },
    Event, Try, World,
};

/// A machine that may be asked.
struct Offer {
    machine: u32,
    view: Candidate,
    price: Option<Price>,
}

impl World<'_> {
    pub(super) fn ask(&mut self, number: u32) -> Option<()> {
        let trace = self.trace;
        let job = trace.jobs.get(number as usize)?;
        let model = trace.models.get(job.model as usize)?;
        let run = self.runs.get_mut(number as usize)?;
        run.asked += 1;
        let (asked, made, full, tried) = (run.asked, run.made, run.full, run.tried.len());
        if tried >= self.rules.tries as usize {
            return if full { self.put_off(number, job) } else { self.fail(number, Failure::Tries) };
        }
        let size = Size::of(job, made, run.counted);
        let told = job::told(job, size, model, made, self.prices.are_asked());
        let (mut offers, busy) = self.offers(number, job, model, size, &told)?;
        if offers.is_empty() {
            let why = if tried > 0 { Failure::Tries } else { Failure::Nobody };
            return if busy || full { self.put_off(number, job) } else { self.fail(number, why) };
        }
        let seed = mix_all(&[self.rules.seed, 4, number.into(), asked]);
        // A node passes equal machines in turns, so no order gains or loses by taking the first of equals.
        let mut random = Random::new(seed, 0);
        for last in (1..offers.len()).rev() {
            let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(0);
            offers.swap(last, other);
        }
        let views: Vec<Candidate> = offers.iter_mut().map(|offer| std::mem::take(&mut offer.view)).collect();
        let ranking = self.router.rank(&told, &views, millis(self.now), seed);
        let chosen = ranking.order.first().and_then(|first| usize::try_from(first.candidate).ok());
        let Some(place) = chosen.filter(|place| *place < offers.len()) else {
            return if full { self.put_off(number, job) } else { self.fail(number, Failure::LeftOut) };
        };
        let offer = offers.swap_remove(place);
        self.send(number, job, offer)
    }

    fn send(&mut self, number: u32, job: &Job, offer: Offer) -> Option<()> {
        let run = self.runs.get_mut(number as usize)?;
        run.sent += 1;
        run.machine = Some(offer.machine);
        (run.sent_at, run.first_here, run.price) = (self.now, None, offer.price);
        let try_ = Try { job: number, number: run.sent };
        self.views.begin(Pair { asker: job.from, machine: offer.machine, model: job.model });
        self.tally.totals.tries += 1;
        let at = self.now + self.round_trip(job.from, offer.machine) / 2;
        self.events.plan(at, Event::Request { try_, machine: offer.machine });
        Some(())
    }

    /// Whom a node would ask its policy about, and whether somebody is missing only because it has enough to do.
    fn offers(
        &mut self,
        number: u32,
        job: &Job,
        model: &Model,
        size: Size,
        told: &Told,
    ) -> Option<(Vec<Offer>, bool)> {
        let trace = self.trace;
        let members = self.members(job.from, job.model);
        let (mut offers, mut busy) = (Vec::with_capacity(members.len()), false);
        for &machine in members.iter() {
            let it = trace.machines.get(machine as usize)?;
            let own = machine == job.from;
            if self.runs.get(number as usize)?.tried.contains(&machine) || !self.heard_of(machine, own)? {
                continue;
            }
            let pair = Pair { asker: job.from, machine, model: job.model };
            let seen = if own { Seen::default() } else { self.seen(pair)? };
            let small = size.least.saturating_add(size.room.max(1)) > it.context;
            if small || (seen.health == Health::Paused && seen.failures >= HOPELESS) {
                continue;
            }
            if seen.there >= self.rules.in_flight {
                busy = true;
                continue;
            }
            // Nobody pays for the own machine.
            let price = if self.prices.are_asked() && !own {
                let Some(price) = self.price(machine, it, job.model, model, told) else { continue };
                Some(price)
            } else {
                None
            };
            let asks = price.as_ref().map(|price: &Price| {
                price.total(size.most, size.room.max(size.expected)).unwrap_or(u64::MAX)
            });
            let view = self.view(job, machine, it, model, seen)?;
            offers.push(Offer { machine, view: Candidate { price: asks, ..view }, price });
        }
        Some((offers, busy))
    }

    /// Whether a machine counts as there: its last report holds. Of itself a machine knows.
    fn heard_of(&mut self, machine: u32, own: bool) -> Option<bool> {
        let server = self.servers.get_mut(machine as usize)?;
        if own {
            return Some(server.is_up());
        }
        let at = server.said(self.now).at;
        Some(self.now.saturating_sub(at) <= self.rules.valid_us)
    }

    fn seen(&mut self, pair: Pair) -> Option<Seen> {
        let probed = self.servers.get_mut(pair.machine as usize)?.said(self.now).loaded.contains(&pair.model);
        Some(self.views.seen(pair, probed, self.now))
    }

    /// A machine as the one who asks sees it.
    fn view(
        &mut self,
        job: &Job,
        machine: u32,
        it: &Machine,
        model: &Model,
        seen: Seen,
    ) -> Option<Candidate> {
        let own = machine == job.from;
        let round_trip = self.round_trip(job.from, machine);
        let walled = it.walled && self.trace.machines.get(job.from as usize)?.walled;
        let server = self.servers.get_mut(machine as usize)?;
        let fresh;
        let said = if own {
            fresh = server.now(self.now);
            &fresh
        } else {
            server.said(self.now)
        };
        let claims = |base: u64| {
            let claim = u128::from(speed(base, model)) * u128::from(it.claims) / 1_000_000;
            u64::try_from(claim).unwrap_or(u64::MAX)
        };
        Some(Candidate {
            machine: if own { 0 } else { mix_all(&[5, machine.into()]) },
            path: match (own, walled) {
                (true, _) => Path::Own,
                (false, true) => Path::Relayed,
                (false, false) => Path::Direct,
            },
            round_trip: (!own).then_some(round_trip),
            health: if own { Health::Healthy } else { seen.health },
            failures: seen.failures,
            context: it.context,
            loaded: said.loaded.contains(&job.model),
            slots: it.slots,
            running: said.running,
            queued: said.queued,
            in_flight: seen.in_flight,
            free_tokens: said.free_tokens,
            claimed_prefill: claims(it.prefill),
            claimed_decode: claims(it.decode),
            seen_prefill: seen.prefill,
            seen_decode: seen.decode,
            seen_first: seen.first,
            prefix_blocks: self.known.get(job.from as usize)?.shared(machine, job),
            price: None,
            stake: it.stake,
            audits_passed: it.audits_passed,
            audits_failed: it.audits_failed,
        })
    }

    /// A machine's price list.
    fn price(
        &mut self,
        machine: u32,
        it: &Machine,
        number: u32,
        model: &Model,
        told: &Told,
    ) -> Option<Price> {
        if self.prices.is_old(number, self.now) {
            let demand = self.demand(number);
            self.prices.look(number, demand, self.now);
        }
        let hardware = || Hardware {
            class: it.class.clone(),
            prefill: speed(it.prefill, model),
            decode: speed(it.decode, model),
            parameters: model.parameters,
            bits: model.bits,
        };
        self.prices.list(machine, number, told, hardware, self.now).cloned()
    }

    fn demand(&self, model: u32) -> Demand {
        let mut demand = Demand::default();
        for &machine in self.holders.get(model as usize).into_iter().flatten() {
            let found = (self.servers.get(machine as usize), self.trace.machines.get(machine as usize));
            let (Some(server), Some(it)) = found else { continue };
            if server.is_up() {
                let (waiting, running) = server.jobs_of(model);
                demand.waiting += waiting;
                demand.running += running;
                demand.capacity += u64::from(it.slots);
            }
        }
        demand
    }
}
