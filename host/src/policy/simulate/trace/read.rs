use std::io::{BufRead, Read, Write};

use super::{Line, MAX_JOBS, MAX_LINE, MAX_MODELS, MAX_PEERS, Trace, TraceError, check};

impl Trace {
    /// Reads a trace, and checks each line when it comes.
    ///
    /// # Errors
    /// [`TraceError`], with the line.
    pub fn read(mut from: impl BufRead) -> Result<Self, TraceError> {
        let mut trace: Option<Self> = None;
        let (mut bytes, mut line) = (Vec::new(), 0);
        loop {
            line += 1;
            bytes.clear();
            let mut part = from.by_ref().take(MAX_LINE as u64 + 1);
            let count =
                part.read_until(b'\n', &mut bytes).map_err(|source| TraceError::Read { line, source })?;
            if count == 0 {
                break;
            }
            if bytes.len() > MAX_LINE {
                return Err(TraceError::Long { line });
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            match (understood(&bytes, line, trace.is_none())?, &mut trace) {
                (Line::Trace(head), None) => {
                    check::head(&head, line)?;
                    let (models, machines, jobs) = (Vec::new(), Vec::new(), Vec::new());
                    trace = Some(Self { head, models, machines, jobs });
                }
                (_, None) => return Err(TraceError::Headless),
                (found, Some(trace)) => trace.add(found, line)?,
            }
        }
        let trace = trace.ok_or(TraceError::Headless)?;
        trace.whole()?;
        Ok(trace)
    }

    fn add(&mut self, found: Line, line: u64) -> Result<(), TraceError> {
        let late = |found| Err(TraceError::Order { line, found });
        let room = |count: usize, most: usize, what: &'static str| {
            if count < most { Ok(()) } else { Err(TraceError::Many { line, what, most }) }
        };
        match found {
            Line::Trace(_) => return late("head"),
            Line::Model(_) if !self.machines.is_empty() || !self.jobs.is_empty() => return late("model"),
            Line::Machine(_) if !self.jobs.is_empty() => return late("machine"),
            Line::Model(model) => {
                room(self.models.len(), MAX_MODELS, "models")?;
                check::model(&model, line)?;
                self.models.push(model);
            }
            Line::Machine(machine) => {
                room(self.machines.len(), MAX_PEERS, "machines")?;
                check::machine(&machine, self.models.len(), line)?;
                self.machines.push(machine);
            }
            Line::Job(job) => {
                room(self.jobs.len(), MAX_JOBS, "jobs")?;
                let last = self.jobs.last().map_or(0, |job| job.at_us);
                check::job(&job, self.models.len(), self.machines.len(), last, line)?;
                self.jobs.push(job);
            }
        }
        Ok(())
    }

    /// Writes it so that [`Self::read`] reads the same.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn write(&self, mut to: impl Write) -> Result<(), TraceError> {
        let head = std::iter::once(Line::Trace(self.head.clone()));
        let models = self.models.iter().cloned().map(Line::Model);
        let machines = self.machines.iter().cloned().map(Line::Machine);
        let jobs = self.jobs.iter().cloned().map(Line::Job);
        for line in head.chain(models).chain(machines).chain(jobs) {
            serde_json::to_writer(&mut to, &line).map_err(|error| TraceError::Write(error.into()))?;
            to.write_all(b"\n").map_err(TraceError::Write)?;
        }
        to.flush().map_err(TraceError::Write)
    }
}

fn understood(bytes: &[u8], line: u64, first: bool) -> Result<Line, TraceError> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The parser sees one line only, so that its own count of lines would mislead.
        let reason = error.to_string().replace(" at line 1 column", " at column");
        if first && error.is_syntax() { TraceError::Headless } else { TraceError::Malformed { line, reason } }
    })
}
