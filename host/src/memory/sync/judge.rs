//! Whether an entry of another machine may enter the memory now, as every replica decides it.

use std::collections::{HashMap, HashSet};

use super::super::clock::MAX_DRIFT;
use super::super::record::{Entry, Header, NodeId, RecordId, Vectors};
use super::{
    catalogue,
    replica::{Candidate, Hold, Refusal, Verdict},
    scope::Reach,
};

/// Versions without a text whose project is kept in mind.
const MAX_HOLLOW: usize = 4_096;

/// What the memory knows.
pub trait Facts {
    /// The fingerprint of an entry that is here.
    fn print(&self, origin: NodeId, sequence: u64) -> Option<u64>;
    /// The project of a version that is here.
    fn project(&self, id: RecordId) -> Option<Option<String>>;
    /// Whether a known tombstone has the text of a version erased.
    fn doomed(&self, id: RecordId) -> bool;
}

/// Projects of versions that came without their text and wait for the order to erase it, which may wait for them.
#[derive(Debug, Default)]
pub struct Hollows(HashMap<RecordId, Option<String>>);

/// Judges one batch: what is taken counts for what follows it.
#[derive(Debug)]
pub struct Judge<'a, F> {
    facts: &'a F,
    hollows: &'a mut Hollows,
    now: i64,
    prints: HashMap<(NodeId, u64), u64>,
    projects: HashMap<RecordId, Option<String>>,
    doomed: HashSet<RecordId>,
}

impl<'a, F: Facts> Judge<'a, F> {
    /// A judge for a batch at `now`, in milliseconds since the Unix epoch.
    pub fn new(facts: &'a F, hollows: &'a mut Hollows, now: i64) -> Self {
        let (prints, projects, doomed) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { facts, hollows, now, prints, projects, doomed }
    }

    /// The entry as it is to be written, or what becomes of it instead.
    ///
    /// # Errors
    /// Any [`Verdict`] but [`Verdict::Added`].
    pub fn judge(&mut self, candidate: Candidate) -> Result<Entry, Verdict> {
        let Candidate { entry, rights } = candidate;
        let (place, print) = ((entry.origin(), entry.sequence()), catalogue::print(&entry));
        match self.prints.get(&place).copied().or_else(|| self.facts.print(place.0, place.1)) {
            Some(known) if known == print => return Err(Verdict::Known),
            Some(_) => return Err(Verdict::Refused(Refusal::Fork)),
            None => {}
        }
        let ahead_ms = entry.stamp().wall_ms().saturating_sub(self.now);
        if ahead_ms > MAX_DRIFT {
            return Err(Verdict::Held(Hold::Early { ahead_ms }));
        }
        match &entry {
            Entry::Version(version) => self.version(&version.header, &rights)?,
            Entry::Vectors(vectors) => self.vectors(vectors, &rights)?,
        }
        let subject = entry.version();
        let doomed = self.doomed.contains(&subject) || self.facts.doomed(subject);
        if entry.is_erased() && !doomed {
            if let Entry::Version(version) = &entry {
                self.hollows.note(&version.header);
            }
            return Err(Verdict::Held(Hold::Hollow));
        }
        self.prints.insert(place, print);
        if let Entry::Version(version) = &entry {
            let header = &version.header;
            self.projects.insert(header.id, header.project.clone());
            if header.tombstone.as_ref().is_some_and(|tombstone| tombstone.hard) {
                self.doomed.extend(header.supersedes.iter().copied());
            }
            self.hollows.0.remove(&header.id);
        }
        // What must be erased never reaches the disk.
        let erase = doomed && !matches!(&entry, Entry::Version(version) if version.header.is_tombstone());
        Ok(if erase { entry.erased() } else { entry })
    }

    /// Whether the origin of a version may change what it names.
    fn version(&self, header: &Header, rights: &Reach) -> Result<(), Verdict> {
        if self.project(header.id).is_some() {
            return Err(Verdict::Refused(Refusal::Name { id: header.id }));
        }
        if *rights == Reach::All {
            return Ok(());
        }
        for target in &header.supersedes {
            let hollow = || self.hollows.0.get(target).cloned();
            let project = self.project(*target).or_else(hollow).ok_or(Verdict::Held(Hold::Unplaced))?;
            if !rights.covers(project.as_deref()) {
                return Err(Verdict::Refused(Refusal::Target { target: *target, project }));
            }
        }
        Ok(())
    }

    /// Whether the origin of an embedding may give one to this version.
    fn vectors(&self, vectors: &Vectors, rights: &Reach) -> Result<(), Verdict> {
        if *rights == Reach::All {
            return Ok(());
        }
        let hollow = || self.hollows.0.get(&vectors.version).cloned();
        let project = self.project(vectors.version).or_else(hollow).ok_or(Verdict::Held(Hold::Unplaced))?;
        if rights.covers(project.as_deref()) {
            Ok(())
        } else {
            Err(Verdict::Refused(Refusal::Project { project }))
        }
    }

    fn project(&self, id: RecordId) -> Option<Option<String>> {
        self.projects.get(&id).cloned().or_else(|| self.facts.project(id))
    }
}

impl Hollows {
    fn note(&mut self, header: &Header) {
        if self.0.len() < MAX_HOLLOW {
            self.0.insert(header.id, header.project.clone());
        }
    }
}
