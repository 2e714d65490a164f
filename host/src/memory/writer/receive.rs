//! Entries of other machines on their way into the log and the indexes.

use crate::memory::{
    digest::{Digested, digest},
    engine::{Engine, Pen, State},
    record::{Entry, Millis, NodeId, RecordId},
    sync::{
        Candidate, Catalogue, Verdict,
        judge::{Facts, Hollows, Judge},
    },
    text::Analyzer,
};

use super::{Answer, Done, Group, commit, erase_texts};

/// An entry of another machine, digested.
#[derive(Debug)]
pub(in crate::memory) struct Received {
    candidate: Candidate,
    digested: Option<Digested>,
}

impl Received {
    /// Digests an entry, so that the writer need not.
    pub(in crate::memory) fn new(candidate: Candidate, analyzer: &mut Analyzer) -> Self {
        let digested = match &candidate.entry {
            Entry::Version(version) => Some(digest(analyzer, version.body.as_deref().unwrap_or_default())),
            Entry::Vectors(_) => None,
        };
        Self { candidate, digested }
    }
}

/// What the memory knows, for the judge.
struct Known<'a> {
    state: &'a State,
    catalogue: &'a Catalogue,
}

impl Facts for Known<'_> {
    fn print(&self, origin: NodeId, sequence: u64) -> Option<u64> {
        self.catalogue.print(origin, sequence)
    }

    fn project(&self, id: RecordId) -> Option<Option<String>> {
        self.state.table.project(id).map(|project| project.map(str::to_owned))
    }

    fn doomed(&self, id: RecordId) -> bool {
        self.state.table.doomed(id)
    }
}

/// Judges entries, writes those that may enter, and answers.
pub(super) fn receive(
    engine: &Engine,
    pen: &mut Pen,
    hollows: &mut Hollows,
    entries: Vec<Received>,
    answer: Answer<Vec<Verdict>>,
) {
    let now = Millis::now().0;
    let catalogue = engine.feed.catalogue();
    let mut group = Group::new();
    let mut verdicts = Vec::with_capacity(entries.len());
    {
        let state = engine.read();
        let known = Known { state: &state, catalogue };
        let mut judge = Judge::new(&known, hollows, now);
        for Received { candidate, digested } in entries {
            match judge.judge(candidate) {
                Ok(entry) => {
                    // A stamp too far ahead was held back by the judge.
                    let _ = pen.clock.observe(entry.stamp(), now);
                    let erased = entry.is_erased();
                    group
                        .digests
                        .push(digested.map(|digested| if erased { Digested::default() } else { digested }));
                    group.entries.push(entry);
                    verdicts.push(Verdict::Added);
                }
                Err(verdict) => verdicts.push(verdict),
            }
        }
    }
    engine.feed.spare(group.entries.iter().filter_map(|entry| match entry {
        Entry::Version(version) if version.body.is_some() => Some(version.header.id),
        _ => None,
    }));
    group.done.push(Done::Receive(verdicts, answer));
    commit(engine, pen, group);
}

/// Erases the texts that hard forgets among these entries name.
pub(super) fn erase_doomed(engine: &Engine, pen: &mut Pen, entries: &[Entry]) {
    let mut doomed = Vec::new();
    {
        let state = engine.read();
        let text =
            |id: &RecordId| state.table.by_id(*id).is_some_and(|(_, row)| !row.erased && !row.tombstone);
        for entry in entries {
            let Entry::Version(version) = entry else { continue };
            if version.header.tombstone.as_ref().is_some_and(|tombstone| tombstone.hard) {
                doomed.extend(version.header.supersedes.iter().copied().filter(text));
            }
        }
    }
    if !doomed.is_empty()
        && let Err(error) = erase_texts(engine, pen, &doomed)
    {
        // The next start finds texts that outlived their tombstone.
        tracing::error!(%error, "texts that another machine had erased are still on this disk");
    }
}
