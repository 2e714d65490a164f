//! What the one who asks makes of what it hears.

use super::{
    super::{
        job::work,
        tally::Fate,
        trace::Job,
        view::{Blame, Measured},
    },
    News, Try, World,
};

impl World<'_> {
    pub(super) fn hear(&mut self, try_: Try, news: News) -> Option<()> {
        let trace = self.trace;
        let job = trace.jobs.get(try_.job as usize)?;
        let run = self.runs.get_mut(try_.job as usize)?;
        let machine = run.machine.filter(|_| run.sent == try_.number)?;
        if news == News::First {
            run.first_here = Some(self.now);
            run.first.get_or_insert(self.now);
            let pair = self.pair(try_.job, machine)?;
            self.views.token(pair, self.now);
            return Some(());
        }
        let pair = self.pair(try_.job, machine)?;
        self.views.end(pair);
        let own = machine == job.from;
        match news {
            News::First => {}
            News::Full => {
                self.tally.totals.refused += 1;
                self.runs.get_mut(try_.job as usize)?.full = true;
            }
            News::Small => self.runs.get_mut(try_.job as usize)?.counted = true,
            News::Broken { computed } => {
                self.tally.totals.broken += 1;
                self.settle(try_.job, job, machine, computed, 0)?;
                if !own {
                    self.views.failed(pair, Blame::Model, self.now);
                }
            }
            News::Silence { made } => {
                self.tally.totals.broken += 1;
                let more = made.saturating_sub(self.runs.get(try_.job as usize)?.made);
                let computed = if more > 0 { job.prompt } else { 0 };
                self.settle(try_.job, job, machine, computed, more)?;
                self.runs.get_mut(try_.job as usize)?.made = made;
                if !own {
                    self.views.failed(pair, Blame::Machine, self.now);
                }
            }
            News::Done { computed } => return self.done(try_.job, job, machine, computed),
        }
        self.runs.get_mut(try_.job as usize)?.tried.push(machine);
        self.ask(try_.job)
    }

    fn done(&mut self, number: u32, job: &Job, machine: u32, computed: u32) -> Option<()> {
        let run = self.runs.get(number as usize)?;
        let (made, first) = (run.made, run.first_here.unwrap_or(self.now));
        let measured = Measured {
            first: first.saturating_sub(run.sent_at),
            prompt: computed,
            tokens: job.answer.saturating_sub(made).saturating_sub(1),
            time: self.now.saturating_sub(first),
        };
        if machine != job.from {
            let pair = self.pair(number, machine)?;
            self.views.measured(pair, measured);
        }
        self.known.get_mut(job.from as usize)?.learn(machine, job);
        self.tally.prompts += u64::from(job.prompt) + u64::from(made);
        self.tally.computed += u64::from(computed);
        self.settle(number, job, machine, computed, job.answer.saturating_sub(made))?;
        self.end(number, Fate::Done)
    }

    /// A machine is paid for what it delivered: the prompt and so many tokens of the answer, nothing without one. What
    /// it computed counts as work all the same.
    fn settle(&mut self, number: u32, job: &Job, machine: u32, computed: u32, answer: u32) -> Option<()> {
        let model = self.trace.models.get(job.model as usize)?;
        let run = self.runs.get_mut(number as usize)?;
        let work = work(computed.into(), answer.into(), model);
        run.work = run.work.saturating_add(work);
        let own = machine == job.from;
        let price = run.price.take().filter(|_| answer > 0 && !own);
        let paid =
            price.as_ref().and_then(|price| price.total(job.prompt.into(), answer.into())).unwrap_or(0);
        run.paid = run.paid.saturating_add(paid);
        if let Some(price) = &price {
            self.prices.paid(job.model, price);
        }
        let earned = self.tally.earned.get_mut(machine as usize)?;
        let reward = if self.prices.are_asked() { paid } else { u64::from(answer > 0) * work };
        *earned = earned.saturating_add(reward);
        Some(())
    }
}
