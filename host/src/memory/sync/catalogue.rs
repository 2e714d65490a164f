//! What of the log is here: for each machine which sequences, of which project, and a fingerprint of each entry.
//!
//! Sixteen bytes an entry, in pages of 64, so that what a peer lacks and may read is found without the disk. It also
//! tells all who listen what has just become durable.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::broadcast;

use super::super::record::{Entry, NodeId, RecordId, Signature};
use super::{
    runs::{Run, Runs},
    scope::Reach,
};

/// The most machines whose entries a memory keeps.
pub const MAX_ORIGINS: usize = 1_024;
/// Entries in a page.
const PAGE: u64 = 64;
/// News that wait for a slow listener; one that falls behind looks everything through instead.
const NEWS: usize = 1_024;
/// The project of an embedding whose version is not here.
const UNKNOWN: u32 = u32::MAX;
/// No entry.
const ABSENT: Mark = Mark { project: u32::MAX - 1, print: 0 };

/// What has become durable: runs, by the machine that wrote them.
pub type News = Arc<[(NodeId, Run)]>;

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Number of its project; 0: none.
    project: u32,
    print: u64,
}

/// Entries of one machine.
#[derive(Debug, Default)]
struct Shelf {
    here: Runs,
    pages: BTreeMap<u64, Box<[Mark; PAGE as usize]>>,
}

#[derive(Debug, Default)]
struct Inner {
    shelves: BTreeMap<NodeId, Shelf>,
    projects: HashMap<String, u32>,
    /// Embeddings whose version is not here, by that version.
    orphans: HashMap<RecordId, Vec<(NodeId, u64)>>,
}

/// What of the log is here. Shared by everything that replicates.
#[derive(Debug)]
pub struct Catalogue {
    inner: RwLock<Inner>,
    news: broadcast::Sender<News>,
}

/// How many entries there are in a range, and the exclusive or of their fingerprints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// The exclusive or.
    pub print: u64,
}

/// The fingerprint of an entry: the same whether its text was erased or not, since the signature is.
pub fn print(entry: &Entry) -> u64 {
    let Signature(signature) = match entry {
        Entry::Version(version) => version.signature,
        Entry::Vectors(vectors) => vectors.signature,
    };
    let hash = blake3::hash(&signature);
    hash.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes)
}

impl Default for Catalogue {
    fn default() -> Self {
        Self { inner: RwLock::default(), news: broadcast::Sender::new(NEWS) }
    }
}

impl Catalogue {
    /// Notes entries that are durable and tells listeners. `project` says which project a version that is already in
    /// the memory belongs to; the outer `None` means that it is not there.
    pub fn note<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
        project: impl Fn(RecordId) -> Option<Option<String>>,
    ) {
        let mut fresh: BTreeMap<NodeId, Runs> = BTreeMap::new();
        let mut inner = self.write();
        for entry in entries {
            inner.add(entry, &project, &mut fresh);
        }
        drop(inner);
        let news: News =
            fresh.iter().flat_map(|(origin, runs)| runs.iter().map(|run| (*origin, run))).collect();
        if !news.is_empty() {
            // Nobody listens while there are no peers.
            let _ = self.news.send(news);
        }
    }

    /// What becomes durable from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Which entries are here, by the machine that wrote them.
    pub fn held(&self) -> BTreeMap<NodeId, Runs> {
        self.read().shelves.iter().map(|(origin, shelf)| (*origin, shelf.here.clone())).collect()
    }

    /// The machines whose entries are here.
    pub fn origins(&self) -> Vec<NodeId> {
        self.read().shelves.keys().copied().collect()
    }

    /// Whether there is room for entries of a machine.
    pub fn admits(&self, origin: NodeId) -> bool {
        let inner = self.read();
        inner.shelves.contains_key(&origin) || inner.shelves.len() < MAX_ORIGINS
    }

    /// The fingerprint of an entry, if it is here.
    pub fn print(&self, origin: NodeId, sequence: u64) -> Option<u64> {
        self.read().shelves.get(&origin)?.mark(sequence).map(|mark| mark.print)
    }

    /// Entries of a machine, from a sequence on, that are here, not in `theirs`, and within reach: at most `most`, and
    /// the sequence to go on from, unless that was all.
    pub fn lacking(
        &self,
        origin: NodeId,
        from: u64,
        theirs: &Runs,
        reach: &Reach,
        most: usize,
    ) -> (Runs, Option<u64>) {
        let inner = self.read();
        let Some(shelf) = inner.shelves.get(&origin) else { return (Runs::default(), None) };
        let numbers = inner.numbers(reach);
        let mut found = Runs::default();
        let mut count = 0_usize;
        for run in shelf.here.iter().filter(|run| run.last >= from) {
            let run = Run { first: run.first.max(from), last: run.last };
            for part in theirs.lacking(run) {
                for sequence in part.first..=part.last {
                    if count >= most {
                        return (found, Some(sequence));
                    }
                    if shelf.mark(sequence).is_some_and(|mark| within(numbers.as_ref(), mark)) {
                        found.insert(Run::one(sequence));
                        count += 1;
                    }
                }
            }
        }
        (found, None)
    }

    /// The sum over a range of a machine's entries that are within reach.
    pub fn sum(&self, origin: NodeId, run: Run, reach: &Reach) -> Sum {
        let inner = self.read();
        let Some(shelf) = inner.shelves.get(&origin) else { return Sum::default() };
        let numbers = inner.numbers(reach);
        let pages = shelf.pages.range(run.first / PAGE..=run.last / PAGE);
        let marks = pages.flat_map(|(page, marks)| (page * PAGE..).zip(marks.iter()));
        let marks =
            marks.filter(|(sequence, mark)| (run.first..=run.last).contains(sequence) && **mark != ABSENT);
        marks.filter(|(_, mark)| within(numbers.as_ref(), **mark)).fold(Sum::default(), |sum, (_, mark)| {
            Sum { count: sum.count + 1, print: sum.print ^ mark.print }
        })
    }

    /// One after the highest sequence of a machine that is here; 1 without any.
    pub fn next(&self, origin: NodeId) -> u64 {
        self.read().shelves.get(&origin).map_or(1, |shelf| shelf.here.next())
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an entry is of one of these projects; `None`: of any.
fn within(numbers: Option<&HashSet<u32>>, mark: Mark) -> bool {
    numbers.is_none_or(|numbers| numbers.contains(&mark.project))
}

impl Inner {
    /// The numbers of the projects within reach; `None`: all.
    fn numbers(&self, reach: &Reach) -> Option<HashSet<u32>> {
        match reach {
            Reach::All => None,
            Reach::Projects(names) => {
                Some(names.iter().filter_map(|name| self.projects.get(name)).copied().collect())
            }
        }
    }

    fn number(&mut self, project: Option<&str>) -> u32 {
        let Some(name) = project else { return 0 };
        if let Some(number) = self.projects.get(name) {
            return *number;
        }
        let number = u32::try_from(self.projects.len()).unwrap_or(UNKNOWN).saturating_add(1).min(UNKNOWN - 2);
        self.projects.insert(name.to_owned(), number);
        number
    }

    fn add(
        &mut self,
        entry: &Entry,
        project: &impl Fn(RecordId) -> Option<Option<String>>,
        fresh: &mut BTreeMap<NodeId, Runs>,
    ) {
        let (origin, sequence) = (entry.origin(), entry.sequence());
        let number = match entry {
            Entry::Version(version) => {
                let number = self.number(version.header.project.as_deref());
                // Embeddings that waited for this version are of its project.
                for (of, sequence) in self.orphans.remove(&version.header.id).unwrap_or_default() {
                    if let Some(mark) = self.shelves.get_mut(&of).and_then(|shelf| shelf.mark_mut(sequence)) {
                        mark.project = number;
                        fresh.entry(of).or_default().insert(Run::one(sequence));
                    }
                }
                number
            }
            Entry::Vectors(vectors) => match project(vectors.version) {
                Some(name) => self.number(name.as_deref()),
                None => {
                    self.orphans.entry(vectors.version).or_default().push((origin, sequence));
                    UNKNOWN
                }
            },
        };
        let shelf = self.shelves.entry(origin).or_default();
        shelf.here.insert(Run::one(sequence));
        let page = shelf.pages.entry(sequence / PAGE).or_insert_with(|| Box::new([ABSENT; PAGE as usize]));
        if let Some(mark) = page.get_mut((sequence % PAGE) as usize) {
            *mark = Mark { project: number, print: print(entry) };
        }
        fresh.entry(origin).or_default().insert(Run::one(sequence));
    }
}

impl Shelf {
    fn mark(&self, sequence: u64) -> Option<Mark> {
        let mark = self.pages.get(&(sequence / PAGE))?.get((sequence % PAGE) as usize)?;
        Some(*mark).filter(|mark| *mark != ABSENT)
    }

    fn mark_mut(&mut self, sequence: u64) -> Option<&mut Mark> {
        self.pages.get_mut(&(sequence / PAGE))?.get_mut((sequence % PAGE) as usize)
    }
}
