//! Values that a simulation can work with.

use super::{Job, MAX_JOBS, MAX_MODELS, MAX_PEERS, Machine, Model, Trace, TraceError, TraceHead, VERSION};

/// A year, in microseconds.
const MOST_TIME: u64 = 366 * 86_400 * 1_000_000;
/// Most tokens of a prompt or an answer.
const MOST_TOKENS: u32 = 1_000_000;
/// Most thousandths of a token per second.
const MOST_SPEED: u64 = 1_000_000_000_000;
/// Most texts of a prefix, and blocks of all of them.
const MOST_TEXTS: usize = 8;
const MOST_BLOCKS: u64 = 64;
/// Most absences of a machine.
const MOST_AWAY: usize = 256;

struct At(u64);

impl At {
    fn wrong(&self, field: &'static str, reason: String) -> Result<(), TraceError> {
        Err(TraceError::Value { line: self.0, field, reason })
    }

    fn within(&self, field: &'static str, value: u64, least: u64, most: u64) -> Result<(), TraceError> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        self.wrong(field, format!("is {value} and must be from {least} to {most}"))
    }

    fn text(&self, field: &'static str, value: &str, most: usize) -> Result<(), TraceError> {
        if value.len() <= most {
            return Ok(());
        }
        self.wrong(field, format!("has {} bytes and may have {most}", value.len()))
    }

    fn below(&self, field: &'static str, value: u32, count: usize, what: &str) -> Result<(), TraceError> {
        if (value as usize) < count {
            return Ok(());
        }
        self.wrong(field, format!("names {what} {value}, and there are {count}, counted from 0"))
    }
}

pub(super) fn head(head: &TraceHead, line: u64) -> Result<(), TraceError> {
    let at = At(line);
    if head.version != VERSION {
        return at.wrong("version", format!("is {} and this program reads {VERSION}", head.version));
    }
    at.text("note", &head.note, 1024)
}

pub(super) fn model(model: &Model, line: u64) -> Result<(), TraceError> {
    let at = At(line);
    at.text("name", &model.name, 256)?;
    at.within("parameters", model.parameters, 1, 100_000_000)?;
    at.within("bits", model.bits.into(), 1, 64_000)
}

pub(super) fn machine(machine: &Machine, models: usize, line: u64) -> Result<(), TraceError> {
    let at = At(line);
    at.text("class", &machine.class, 256)?;
    at.within("prefill", machine.prefill, 1, MOST_SPEED)?;
    at.within("decode", machine.decode, 1, MOST_SPEED)?;
    at.within("claims", machine.claims.into(), 0, 100_000_000)?;
    at.within("slots", machine.slots.into(), 1, 1024)?;
    at.within("crowding", machine.crowding.into(), 0, 1_000_000)?;
    at.within("kv_tokens", machine.kv_tokens, 1, 1 << 40)?;
    at.within("context", machine.context, 1, 1 << 40)?;
    at.within("resident", machine.resident.into(), 1, 64)?;
    at.within("load_us", machine.load_us, 0, 3_600_000_000)?;
    at.within("models", machine.models.len() as u64, 0, MAX_MODELS as u64)?;
    for (place, model) in machine.models.iter().enumerate() {
        at.below("models", *model, models, "model")?;
        if machine.models.iter().take(place).any(|other| other == model) {
            return at.wrong("models", format!("names model {model} twice"));
        }
    }
    for side in machine.place {
        at.within("place", side.into(), 0, 10_000_000)?;
    }
    at.within("access_us", machine.access_us.into(), 0, 10_000_000)?;
    at.within("faults", machine.faults.into(), 0, 1_000_000)?;
    at.within("away", machine.away.len() as u64, 0, MOST_AWAY as u64)?;
    let mut last = 0;
    for [from, to] in &machine.away {
        if from >= to || *from < last || *to > MOST_TIME {
            let reason = format!(
                "has [{from},{to}]; each begins before it ends, not before the last ended, within a year"
            );
            return at.wrong("away", reason);
        }
        last = *to;
    }
    Ok(())
}

pub(super) fn job(job: &Job, models: usize, machines: usize, last: u64, line: u64) -> Result<(), TraceError> {
    let at = At(line);
    at.within("at_us", job.at_us, last, MOST_TIME)?;
    at.below("from", job.from, machines, "machine")?;
    at.below("model", job.model, models, "model")?;
    at.within("prompt", job.prompt.into(), 1, MOST_TOKENS.into())?;
    at.within("answer", job.answer.into(), 1, MOST_TOKENS.into())?;
    if let Some(most) = job.max_tokens {
        at.within("max_tokens", most.into(), job.answer.into(), MOST_TOKENS.into())?;
    }
    at.within("prefix", job.prefix.len() as u64, 0, MOST_TEXTS as u64)?;
    for [_, blocks] in &job.prefix {
        at.within("prefix", *blocks, 1, MOST_BLOCKS)?;
    }
    at.within("prefix", job.prefix.iter().map(|[_, blocks]| *blocks).sum(), 0, MOST_BLOCKS)
}

impl Trace {
    /// Checks a trace that was not read but made. Lines are counted as they would be written.
    ///
    /// # Errors
    /// [`TraceError`], with the line.
    pub fn check(&self) -> Result<(), TraceError> {
        let line = |before: usize, place: usize| (before + place) as u64 + 2;
        let most = |count: usize, before: usize, most: usize, what: &'static str| {
            if count <= most {
                Ok(())
            } else {
                Err(TraceError::Many { line: line(before, most), what, most })
            }
        };
        let (models, machines) = (self.models.len(), self.machines.len());
        most(models, 0, MAX_MODELS, "models")?;
        most(machines, models, MAX_PEERS, "machines")?;
        most(self.jobs.len(), models + machines, MAX_JOBS, "jobs")?;
        head(&self.head, 1)?;
        for (place, it) in self.models.iter().enumerate() {
            model(it, line(0, place))?;
        }
        for (place, it) in self.machines.iter().enumerate() {
            machine(it, models, line(models, place))?;
        }
        let mut last = 0;
        for (place, it) in self.jobs.iter().enumerate() {
            job(it, models, machines, last, line(models + machines, place))?;
            last = it.at_us;
        }
        self.whole()
    }

    pub(super) fn whole(&self) -> Result<(), TraceError> {
        let parts = [
            ("models", self.models.is_empty()),
            ("machines", self.machines.is_empty()),
            ("jobs", self.jobs.is_empty()),
        ];
        parts.iter().find(|(_, empty)| *empty).map_or(Ok(()), |(what, _)| Err(TraceError::Empty(what)))
    }
}
