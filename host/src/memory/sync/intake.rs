//! The gate for entries of others: what is theirs to write, what has to wait, what is refused and why.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minicbor::bytes::ByteVec;

use super::super::clock::MAX_DRIFT;
use super::super::record::{CodecError, Entry, NodeId, RecordId};
use super::{
    catalogue::{self, Catalogue},
    replica::{Candidate, Hold, Refusal, Replica, ReplicaError, Verdict},
    runs::{Run, Runs},
    scope::{Authors, Reach},
    status::{Board, HeldStatus},
};

/// The most entries that wait.
const MAX_HELD: usize = 4_096;
/// The most bytes that wait.
const MAX_HELD_BYTES: usize = 32 << 20;
/// The most runs of refused entries that are kept in mind for each machine; further ones are offered again.
const MAX_BARRED: usize = 4_096;
/// Signatures that are checked without leaving the runtime's thread.
const FEW: usize = 4;

/// What a peer did that no honest program does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// Bytes that are no entry.
    #[error("it sent bytes that are no entry: {0}")]
    Garbage(String),
    /// A signature that does not hold.
    #[error("it sent entry {sequence} of {origin}, which is forged: {reason}")]
    Forged {
        /// Whose entry it pretends to be.
        origin: NodeId,
        /// Its number.
        sequence: u64,
        /// What does not hold.
        reason: String,
    },
    /// A message that is none, is too long, or does not belong where it came.
    #[error("it broke the protocol: {0}")]
    Protocol(String),
}

type Rights = (Arc<Reach>, Option<i64>);

/// An entry, looked at.
#[derive(Debug)]
pub(super) struct Sifted {
    pub(super) origin: NodeId,
    pub(super) sequence: u64,
    bytes: usize,
    fate: Fate,
}

#[derive(Debug)]
enum Fate {
    Try(Box<Candidate>),
    Known,
    Refuse(Refusal),
}

#[derive(Debug)]
struct Waiting {
    candidate: Candidate,
    carrier: NodeId,
    why: Hold,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    held: VecDeque<Waiting>,
    held_bytes: usize,
    /// Refused entries: not asked for again until members change.
    barred: BTreeMap<NodeId, Runs>,
    /// Whether something came since what waits for others was tried.
    stirred: bool,
}

/// The gate.
#[derive(Debug)]
pub(super) struct Intake {
    replica: Arc<dyn Replica>,
    authors: Arc<dyn Authors>,
    board: Arc<Board>,
    inner: Mutex<Inner>,
    /// What waits is tried by one at a time.
    trying: tokio::sync::Mutex<()>,
}

impl Intake {
    pub(super) fn new(replica: Arc<dyn Replica>, authors: Arc<dyn Authors>, board: Arc<Board>) -> Self {
        Self { replica, authors, board, inner: Mutex::default(), trying: tokio::sync::Mutex::default() }
    }

    /// Decodes entries, checks their signatures and what their machines may write.
    pub(super) async fn sift(self: &Arc<Self>, raw: Vec<ByteVec>) -> Result<Vec<Sifted>, Offence> {
        if raw.len() <= FEW {
            return self.sift_here(&raw);
        }
        let gate = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || gate.sift_here(&raw)).await;
        done.unwrap_or_else(|error| Err(Offence::Garbage(error.to_string())))
    }

    fn sift_here(&self, raw: &[ByteVec]) -> Result<Vec<Sifted>, Offence> {
        let mut sifting = Sifting { gate: self, rights: HashMap::new(), projects: HashMap::new() };
        raw.iter().filter_map(|bytes| sifting.one(bytes).transpose()).collect()
    }

    /// Gives entries to the memory; how many were added.
    pub(super) async fn take(&self, carrier: NodeId, sifted: Vec<Sifted>) -> Result<u64, ReplicaError> {
        let mut candidates = Vec::with_capacity(sifted.len());
        let mut sizes = Vec::with_capacity(sifted.len());
        for one in sifted {
            match one.fate {
                Fate::Try(candidate) => {
                    candidates.push(*candidate);
                    sizes.push(one.bytes);
                }
                Fate::Known => {}
                Fate::Refuse(why) => self.bar(carrier, one.origin, one.sequence, &why),
            }
        }
        self.give(carrier, candidates, sizes, true).await
    }

    /// Gives entries to the memory; `fresh` when they were not held before.
    async fn give(
        &self,
        carrier: NodeId,
        candidates: Vec<Candidate>,
        sizes: Vec<usize>,
        fresh: bool,
    ) -> Result<u64, ReplicaError> {
        if candidates.is_empty() {
            return Ok(0);
        }
        let verdicts = self.replica.apply(candidates.clone()).await?;
        let (mut added, mut stirred) = (0, false);
        for ((candidate, bytes), verdict) in candidates.into_iter().zip(sizes).zip(verdicts) {
            match verdict {
                Verdict::Added => added += 1,
                Verdict::Known => {}
                Verdict::Held(why) => {
                    // An entry without its text says at least what project it is of.
                    stirred |= fresh && why == Hold::Hollow;
                    self.hold(Waiting { candidate, carrier, why, bytes });
                }
                Verdict::Refused(why) => {
                    self.bar(carrier, candidate.entry.origin(), candidate.entry.sequence(), &why);
                }
            }
        }
        self.lock().stirred |= stirred || added > 0;
        Ok(added)
    }

    fn hold(&self, waiting: Waiting) {
        let (origin, sequence) = (waiting.candidate.entry.origin(), waiting.candidate.entry.sequence());
        let mut inner = self.lock();
        let same = |other: &Waiting| {
            (other.candidate.entry.origin(), other.candidate.entry.sequence()) == (origin, sequence)
        };
        if inner.held.iter().any(same) {
            return;
        }
        tracing::info!(%origin, sequence, carrier = %waiting.carrier, "an entry has to wait: {}", waiting.why);
        inner.held_bytes = inner.held_bytes.saturating_add(waiting.bytes);
        inner.held.push_back(waiting);
        while inner.held.len() > MAX_HELD || inner.held_bytes > MAX_HELD_BYTES {
            // It is not lost: whoever sent it has it, and it will be asked for again.
            let Some(oldest) = inner.held.pop_front() else { break };
            inner.held_bytes = inner.held_bytes.saturating_sub(oldest.bytes);
        }
    }

    fn bar(&self, carrier: NodeId, origin: NodeId, sequence: u64, why: &Refusal) {
        self.board.refuse(carrier, origin, sequence, why);
        let mut inner = self.lock();
        if inner.barred.len() < catalogue::MAX_ORIGINS || inner.barred.contains_key(&origin) {
            let barred = inner.barred.entry(origin).or_default();
            if barred.iter().count() < MAX_BARRED {
                barred.insert(Run::one(sequence));
            }
        }
    }

    /// Tries what waits, as far as that makes sense now; how many were added.
    pub(super) async fn retry(&self) -> Result<u64, ReplicaError> {
        let _trying = self.trying.lock().await;
        let mut added = 0;
        // What is taken may be what others wait for.
        loop {
            let due = self.due();
            if due.is_empty() {
                return Ok(added);
            }
            let mut step = 0;
            for waiting in due {
                let candidate = waiting.candidate.clone();
                let Some((rights, _)) = self.rights(candidate.entry.origin()) else { continue };
                let candidates = vec![Candidate { rights, ..candidate }];
                match self.give(waiting.carrier, candidates, vec![waiting.bytes], false).await {
                    Ok(new) => step += new,
                    Err(error) => {
                        self.hold(waiting);
                        return Err(error);
                    }
                }
            }
            added += step;
            if step == 0 {
                return Ok(added);
            }
        }
    }

    /// Takes out what may be tried now.
    fn due(&self) -> Vec<Waiting> {
        let now = self.replica.now();
        let mut inner = self.lock();
        let stirred = std::mem::take(&mut inner.stirred);
        let ready = |waiting: &Waiting| match waiting.why {
            Hold::Early { .. } => waiting.candidate.entry.stamp().wall_ms() <= now.saturating_add(MAX_DRIFT),
            Hold::Hollow | Hold::Unplaced => stirred,
        };
        let (due, rest): (Vec<_>, VecDeque<_>) = {
            let (due, rest): (Vec<_>, Vec<_>) = inner.held.drain(..).partition(ready);
            (due, rest.into())
        };
        inner.held_bytes = rest.iter().map(|waiting| waiting.bytes).sum();
        inner.held = rest;
        due
    }

    /// What a machine may write, and until when in milliseconds since the Unix epoch.
    fn rights(&self, origin: NodeId) -> Option<Rights> {
        if origin == self.replica.node() {
            return Some((Arc::new(Reach::All), None));
        }
        let author = self.authors.author(origin)?;
        Some((Arc::new(author.writes), author.until.map(|until| until.0)))
    }

    /// Members changed: what was refused may be taken now.
    pub(super) fn unbar(&self) {
        self.lock().barred.clear();
    }

    /// What is not wanted although it is not in the memory.
    pub(super) fn settled(&self) -> BTreeMap<NodeId, Runs> {
        let inner = self.lock();
        let mut settled = inner.barred.clone();
        // Whoever has the text of what came without one should still bring it: it may have been taken off in bad faith.
        for waiting in inner.held.iter().filter(|waiting| waiting.why != Hold::Hollow) {
            let entry = &waiting.candidate.entry;
            settled.entry(entry.origin()).or_default().insert(Run::one(entry.sequence()));
        }
        settled
    }

    /// What waits, by the machine that wrote it.
    pub(super) fn held(&self) -> Vec<HeldStatus> {
        let mut found: BTreeMap<NodeId, HeldStatus> = BTreeMap::new();
        for waiting in &self.lock().held {
            let origin = waiting.candidate.entry.origin();
            let reason = format!("{}; brought by {}", waiting.why, waiting.carrier.short());
            let row = found.entry(origin).or_insert(HeldStatus { origin, count: 0, reason: String::new() });
            row.count += 1;
            row.reason = reason;
        }
        found.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One batch on its way through the checks.
struct Sifting<'a> {
    gate: &'a Intake,
    rights: HashMap<NodeId, Option<Rights>>,
    /// Projects of the versions in this batch.
    projects: HashMap<RecordId, Option<String>>,
}

impl Sifting<'_> {
    /// Looks at one entry; `None` for one that cannot even be named.
    fn one(&mut self, bytes: &ByteVec) -> Result<Option<Sifted>, Offence> {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            // An honest peer may run a newer program. Where the entry is from cannot be read then.
            Err(CodecError::Format { .. } | CodecError::Kind { .. }) => return Ok(None),
            Err(error) => return Err(Offence::Garbage(error.to_string())),
        };
        let (origin, sequence) = (entry.origin(), entry.sequence());
        let print = catalogue::print(&entry);
        let catalogue: &Catalogue = self.gate.replica.catalogue();
        let here = catalogue.print(origin, sequence);
        let sifted = |fate| Ok(Some(Sifted { origin, sequence, bytes: bytes.len(), fate }));
        if here == Some(print) {
            return sifted(Fate::Known);
        }
        entry.verify().map_err(|error| Offence::Forged { origin, sequence, reason: error.to_string() })?;
        if here.is_some() {
            return sifted(Fate::Refuse(Refusal::Fork));
        }
        let rights = match self.check(&entry, catalogue) {
            Ok(rights) => rights,
            Err(why) => return sifted(Fate::Refuse(why)),
        };
        if let Entry::Version(version) = &entry {
            self.projects.insert(version.header.id, version.header.project.clone());
        }
        sifted(Fate::Try(Box::new(Candidate { entry, rights })))
    }

    /// What the machine of an entry may write, if that includes the entry.
    fn check(&mut self, entry: &Entry, catalogue: &Catalogue) -> Result<Arc<Reach>, Refusal> {
        let origin = entry.origin();
        let (rights, until) = self.rights(origin).ok_or(Refusal::Stranger)?;
        if until.is_some_and(|until| entry.stamp().wall_ms() > until) {
            return Err(Refusal::Late);
        }
        if !catalogue.admits(origin) {
            return Err(Refusal::Crowd);
        }
        let project = match entry {
            Entry::Version(version) => Some(version.header.project.clone()),
            Entry::Vectors(vectors) => {
                let here = self.projects.get(&vectors.version).cloned();
                here.or_else(|| self.gate.replica.project(vectors.version))
            }
        };
        match project {
            Some(project) if !rights.covers(project.as_deref()) => Err(Refusal::Project { project }),
            // An embedding before its version: the memory holds it back where it matters.
            _ => Ok(rights),
        }
    }

    fn rights(&mut self, origin: NodeId) -> Option<Rights> {
        self.rights.entry(origin).or_insert_with(|| self.gate.rights(origin)).clone()
    }
}
