//! All that is in memory and on disk, and how an entry of the log enters it.
//!
//! [`Engine::open`] reads the log once and brings every index up to it: an index that is missing, damaged or of
//! another version is rebuilt from the log, which is said in [`Engine::repairs`].

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use crate::atomic;

use super::{
    MemoryError,
    arrivals::Arrivals,
    clock::{Clock, Stamp},
    digest::{Digested, digest, marks},
    embed::Embedder,
    feed::Feed,
    keyword::Keyword,
    lexicon::{Lexicon, Segment},
    log::{Location, Log, LogError, Options, Reader, Recovery},
    marks::Marks,
    record::{Entry, NodeId, RecordId, Signer, Vectors, Version},
    table::{Parts, Table},
    text::Analyzer,
    vectors::Store,
    vocabulary::Vocabulary,
};

/// Length of the vectors of all-MiniLM-L6-v2.
pub(super) const DIMS: usize = 384;

/// What recall reads and the writer changes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) table: Table,
    /// Terms of whole records; its units are ordinals.
    pub(super) records: Lexicon,
    /// Terms of passages; its units are passage numbers.
    pub(super) passages: Lexicon,
    /// Vectors of whole records by ordinal, once it is known which model they are of.
    pub(super) vectors: Option<Store>,
    /// Vectors of spans by span number.
    pub(super) spans: Option<Store>,
    /// Words with their vectors.
    pub(super) vocabulary: Vocabulary,
    /// What the sentences of all texts look like.
    pub(super) marks: Marks,
    /// The model the vectors are of, and how texts were cut for it.
    pub(super) model: Option<String>,
    /// Ordinals that have all their vectors.
    pub(super) embedded: roaring::RoaringBitmap,
    /// Audit: secrets removed by kind, since the node started.
    pub(super) redactions: BTreeMap<String, u64>,
}

/// Everything the memory consists of, shared by its threads.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) folder: PathBuf,
    pub(super) state: RwLock<State>,
    pub(super) reader: Reader,
    pub(super) keyword: RwLock<Arc<Keyword>>,
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) node: NodeId,
    pub(super) repairs: Vec<String>,
    /// Held by who changes the files of the indexes: the keeper, or a rebuild.
    pub(super) keeping: Mutex<()>,
    /// Whether an index may still have words of a text that was erased.
    stale: AtomicBool,
    pub(super) log_bytes: AtomicU64,
    /// Up to which ordinal the text index has seen all, those without a text included.
    pub(super) indexed: AtomicU32,
    /// What tells other machines of new entries.
    pub(super) feed: Feed,
}

/// What only the writer holds.
#[derive(Debug)]
pub(super) struct Pen {
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) signer: Signer,
    pub(super) arrivals: Arrivals,
}

/// Where things lie under the memory's folder.
pub(super) fn path(folder: &Path, part: Part) -> PathBuf {
    match part {
        Part::Log => folder.join("log"),
        Part::Index => folder.join("index"),
        Part::Arrivals => folder.join("index/arrivals"),
        Part::Marks => folder.join("index/marks"),
        Part::Records => folder.join("index/records.words"),
        Part::Passages => folder.join("index/passages.words"),
        Part::Text => folder.join("index/text"),
        Part::Vectors => folder.join("index/vectors"),
        Part::Spans => folder.join("index/spans"),
        Part::Words => folder.join("index/words"),
        Part::Vocabulary => folder.join("index/vocabulary"),
        Part::Stale => folder.join("index/stale"),
    }
}

/// A part of the memory's folder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Log,
    Index,
    Arrivals,
    Marks,
    Records,
    Passages,
    Text,
    Vectors,
    Spans,
    Words,
    Vocabulary,
    /// There while indexes may still have words of erased texts.
    Stale,
}

impl Engine {
    /// Opens the memory in `folder`.
    pub(super) fn open(
        folder: &Path,
        signer: Signer,
        embedder: Arc<dyn Embedder>,
    ) -> Result<(Self, Pen), MemoryError> {
        fs::create_dir_all(folder).map_err(|error| MemoryError::io(folder, &error))?;
        let (log, recovery) =
            Log::open(&path(folder, Part::Log), Options::default()).map_err(|error| match error {
                LogError::InUse { .. } => MemoryError::InUse { path: folder.to_owned() },
                error => error.into(),
            })?;
        let mut repairs = describe(&recovery);
        let opened = match Opening::begin(folder, embedder.model().map(|model| model_name(&model)))? {
            Some(opening) => opening.read(&log)?,
            None => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None => {
                let fresh = recovery.entries == 0;
                if !fresh {
                    repairs.push("the indexes did not fit the log and were rebuilt from it".into());
                }
                wipe(folder)?;
                let opening = Opening::begin(folder, embedder.model().map(|model| model_name(&model)))?
                    .ok_or_else(mismatch)?;
                opening.read(&log)?.ok_or_else(mismatch)?
            }
        };
        repairs.extend(opened.repairs);
        let engine = Self {
            folder: folder.to_owned(),
            state: RwLock::new(opened.state),
            reader: log.reader(),
            indexed: AtomicU32::new(opened.keyword.next()),
            keyword: RwLock::new(Arc::new(opened.keyword)),
            embedder,
            node: signer.node(),
            repairs,
            keeping: Mutex::new(()),
            stale: AtomicBool::new(path(folder, Part::Stale).exists()),
            log_bytes: AtomicU64::new(folder_bytes(&path(folder, Part::Log))),
            feed: Feed::default(),
        };
        let pen = Pen { clock: Clock::starting_at(opened.last), log, signer, arrivals: opened.arrivals };
        Ok((engine, pen))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keyword(&self) -> Arc<Keyword> {
        Arc::clone(&self.keyword.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The version at a place in the log.
    pub(super) fn version(&self, place: Location) -> Result<Version, MemoryError> {
        match self.reader.read_at(place)? {
            Entry::Version(version) => Ok(*version),
            Entry::Vectors(_) => {
                Err(MemoryError::Failed { reason: "an entry is not where it should be".into() })
            }
        }
    }

    /// The version with this ordinal.
    pub(super) fn version_of(&self, ordinal: u32) -> Result<Version, MemoryError> {
        let place = self.read().table.row(ordinal).and_then(|row| row.place);
        self.version(place.ok_or_else(|| MemoryError::Failed { reason: "a version has no place".into() })?)
    }
}

impl State {
    /// Takes a new version in; its ordinal.
    pub(super) fn add(&mut self, version: &Version, place: Location, digested: &Digested) -> u32 {
        let ordinal = self.table.reserve(version.header.id, digested.parts);
        self.index(ordinal, digested);
        self.table.fill(ordinal, &version.header, place, version.body.is_none());
        ordinal
    }

    /// Adds the postings and marks of a version that they lack.
    fn index(&mut self, ordinal: u32, digested: &Digested) {
        for (term, word) in &digested.words {
            self.vocabulary.add(*term, word);
        }
        if self.records.units() == ordinal {
            self.records.push(ordinal, &digested.record);
        }
        let Some(row) = self.table.row(ordinal) else { return };
        if self.marks.versions() == ordinal {
            self.marks.push(row.parts, &digested.marks);
        }
        let first = row.first_passage;
        for (passage, counts) in (first..).zip(&digested.passages) {
            if self.passages.units() == passage {
                self.passages.push(passage, counts);
            }
        }
    }

    /// Takes the vectors of a version in, unless they are of another model or of another split.
    pub(super) fn embed(&mut self, vectors: &Vectors) {
        let Some((ordinal, row)) = self.table.by_id(vectors.version) else { return };
        let (first, count, erased) = (row.first_span, row.parts.spans, row.erased);
        let Some((whole, spans)) = vectors.rows.as_deref().and_then(<[_]>::split_first) else { return };
        let (Some(records), Some(store)) = (&mut self.vectors, &mut self.spans) else { return };
        let fits = self.model.as_deref() == Some(&vectors.model) && spans.len() == usize::from(count);
        if erased || !fits || self.embedded.contains(ordinal) {
            return;
        }
        for (span, row) in (first..).zip(spans) {
            if !store.contains(span) && store.push(span, &row.values, row.scale).is_err() {
                return;
            }
        }
        if records.contains(ordinal) || records.push(ordinal, &whole.values, whole.scale).is_ok() {
            self.embedded.insert(ordinal);
        }
    }

    /// Standing records that wait for vectors of the current model, and words that do.
    pub(super) fn pending(&self) -> u64 {
        if self.vectors.is_none() {
            return 0;
        }
        let live = self.table.live();
        live.len() - live.intersection_len(&self.embedded) + self.vocabulary.lacking()
    }

    /// Starts to use a model's vectors; those that the log has are read again by the caller.
    pub(super) fn use_model(&mut self, model: &str, stores: Stores) {
        self.model = Some(model.to_owned());
        self.vectors = Some(stores.records);
        self.spans = Some(stores.spans);
        self.vocabulary.adopt(Some(stores.words));
        self.embedded.clear();
    }
}

/// The indexes as they lie on disk, before the log has been read.
struct Opening {
    folder: PathBuf,
    state: State,
    keyword: Keyword,
    arrivals: Arrivals,
    repairs: Vec<String>,
    known: u32,
}

/// The indexes up to date with the log.
struct Opened {
    state: State,
    keyword: Keyword,
    arrivals: Arrivals,
    repairs: Vec<String>,
    last: Stamp,
}

impl Opening {
    /// Opens every index; `None` when they do not fit each other and must be rebuilt.
    fn begin(folder: &Path, model: Option<String>) -> Result<Option<Self>, MemoryError> {
        fs::create_dir_all(path(folder, Part::Index)).map_err(|error| MemoryError::io(folder, &error))?;
        let file = path(folder, Part::Arrivals);
        let (arrivals, known) = Arrivals::open(&file).map_err(|error| MemoryError::io(&file, &error))?;
        let mut repairs = Vec::new();
        let mut state =
            State { vocabulary: Vocabulary::load(&path(folder, Part::Vocabulary)), ..State::default() };
        for (id, parts) in &known {
            state.table.reserve(*id, *parts);
        }
        let file = path(folder, Part::Marks);
        match Marks::load(&file, &state.table) {
            Ok(marks) => state.marks = marks,
            Err(reason) => {
                repairs.push(format!("marks in {}: {reason}; made anew from the log", file.display()));
            }
        }
        for (lexicon, part) in [(&mut state.records, Part::Records), (&mut state.passages, Part::Passages)] {
            let file = path(folder, part);
            match file.exists().then(|| Segment::open(&file)) {
                Some(Ok(segment)) => *lexicon = Lexicon::with_segment(Some(segment)),
                Some(Err(error)) => repairs.push(format!("{error}; rebuilt from the log")),
                None => {}
            }
        }
        let (records, passages) = (state.table.len(), state.table.passages());
        let wordless = state.vocabulary.is_new() && state.records.units() > 0;
        if state.records.units() > records || state.passages.units() > passages || wordless {
            return Ok(None);
        }
        sweep(folder);
        let text = path(folder, Part::Text);
        let keyword = match Keyword::open(&text) {
            Ok(keyword) if keyword.next() <= records => keyword,
            Ok(_) => return Ok(None),
            Err(error) => {
                repairs.push(format!("{error}; rebuilt from the log"));
                fs::remove_dir_all(&text).map_err(|error| MemoryError::io(&text, &error))?;
                Keyword::open(&text)?
            }
        };
        if let Some(model) = model {
            let words = state.vocabulary.saved();
            state.use_model(&model, open_vectors(folder, &model, words, &mut repairs)?);
        }
        Ok(Some(Self { folder: folder.to_owned(), state, keyword, arrivals, repairs, known: records }))
    }

    /// Reads the log; `None` when the indexes know of versions that it does not have.
    fn read(mut self, log: &Log) -> Result<Option<Opened>, MemoryError> {
        let mut analyzer = Analyzer::default();
        let mut last = Stamp::ZERO;
        let mut late: BTreeMap<u32, Digested> = BTreeMap::new();
        let mut vectors: Vec<(RecordId, Location)> = Vec::new();
        let mut failed = None;
        log.for_each(None, 0, |place, entry| {
            last = last.max(entry.stamp());
            match entry {
                Entry::Version(version) => {
                    if let Err(error) = self.take(&version, place, &mut analyzer, &mut late) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                // Another machine's vectors may come before the version they belong to.
                Entry::Vectors(entry) if self.state.table.ordinal(entry.version).is_none() => {
                    vectors.push((entry.version, place));
                }
                Entry::Vectors(entry) => self.state.embed(&entry),
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        for (ordinal, digested) in late {
            self.state.index(ordinal, &digested);
        }
        for (_, place) in vectors {
            if let Entry::Vectors(entry) = log.read_at(place)? {
                self.state.embed(&entry);
            }
        }
        let unknown = (0..self.known)
            .any(|ordinal| self.state.table.row(ordinal).is_some_and(|row| row.place.is_none()));
        let whole = self.state.records.units() == self.state.table.len()
            && self.state.passages.units() == self.state.table.passages()
            && self.state.marks.versions() == self.state.table.len();
        if unknown || !whole {
            return Ok(None);
        }
        let Self { state, keyword, arrivals, repairs, .. } = self;
        Ok(Some(Opened { state, keyword, arrivals, repairs, last }))
    }

    fn take(
        &mut self,
        version: &Version,
        place: Location,
        analyzer: &mut Analyzer,
        late: &mut BTreeMap<u32, Digested>,
    ) -> Result<(), MemoryError> {
        let erased = version.body.is_none();
        let text = version.body.as_deref().unwrap_or_default();
        let Some(ordinal) = self.state.table.ordinal(version.header.id) else {
            let digested = digest(analyzer, text);
            let file = path(&self.folder, Part::Arrivals);
            self.arrivals
                .append(&[(version.header.id, digested.parts)])
                .map_err(|error| MemoryError::io(&file, &error))?;
            let ordinal = self.state.table.reserve(version.header.id, digested.parts);
            if self.state.records.units() == ordinal && self.state.marks.versions() == ordinal {
                self.state.index(ordinal, &digested);
            } else {
                late.insert(ordinal, digested);
            }
            self.state.table.fill(ordinal, &version.header, place, erased);
            return Ok(());
        };
        let row = self.state.table.row(ordinal);
        let (first, parts) = row.map_or((0, Parts::default()), |row| (row.first_passage, row.parts));
        let lacks = self.state.records.merged() <= ordinal
            || self.state.passages.merged() < first + u32::from(parts.passages);
        if lacks {
            let mut digested = digest(analyzer, text);
            // An erased text keeps its numbers, so that those after it stay what they are.
            digested.passages.resize_with(usize::from(parts.passages), Default::default);
            late.insert(ordinal, digested);
        } else if self.state.marks.versions() <= ordinal {
            late.insert(ordinal, Digested { marks: marks(text), ..Digested::default() });
        }
        self.state.table.fill(ordinal, &version.header, place, erased);
        Ok(())
    }
}

/// The stores of a model's vectors.
#[derive(Debug)]
pub(super) struct Stores {
    records: Store,
    spans: Store,
    words: Store,
}

/// The stores of a model's vectors; those of another model, or damaged ones, are begun anew. `words` is how many
/// words the list on disk has.
pub(super) fn open_vectors(
    folder: &Path,
    model: &str,
    words: usize,
    repairs: &mut Vec<String>,
) -> Result<Stores, MemoryError> {
    let mut open = |part| -> Result<Store, MemoryError> {
        let path = path(folder, part);
        let store = match Store::open(&path, DIMS, model) {
            Err(super::vectors::Error::Model { .. }) => {
                repairs
                    .push(format!("{} was of another model than {model} and is made anew", path.display()));
                Store::wipe(&path).and_then(|()| Store::open(&path, DIMS, model))
            }
            other => other,
        }?;
        let damage = store.damage().iter();
        repairs.extend(
            damage
                .map(|damage| format!("{}: {}; restored from the log", damage.path.display(), damage.cause)),
        );
        Ok(store)
    };
    let (records, spans, mut vocabulary) = (open(Part::Vectors)?, open(Part::Spans)?, open(Part::Words)?);
    if vocabulary.len() > words as u64 {
        // The list of words was lost, and these vectors' numbers with it.
        drop(vocabulary);
        Store::wipe(&path(folder, Part::Words))?;
        vocabulary = open(Part::Words)?;
    }
    Ok(Stores { records, spans, words: vocabulary })
}

/// What vectors of an embedder's model are called: they depend on how texts are cut, too.
pub(super) fn model_name(model: &str) -> String {
    format!("{model}+{}", super::spans::SPLIT)
}

/// The folder of a text index that is being built, or was replaced; `n` tells those of one process apart, which
/// LMDB needs.
pub(super) fn spare(folder: &Path, n: u64) -> PathBuf {
    path(folder, Part::Text).with_extension(format!("spare-{n}"))
}

/// Deletes what a rebuild that was cut short has left.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(path(folder, Part::Index)) else { return };
    let spare = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("text.spare-");
    for entry in entries.flatten().filter(spare) {
        // What cannot be deleted only takes room.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Deletes every index; the log stays.
pub(super) fn wipe(folder: &Path) -> Result<(), MemoryError> {
    let index = path(folder, Part::Index);
    match fs::remove_dir_all(&index) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(MemoryError::io(&index, &error)),
        _ => Ok(()),
    }
}

fn mismatch() -> MemoryError {
    MemoryError::Failed {
        reason: "the indexes could not be rebuilt from the log; `potluck memory reindex` starts over".into(),
    }
}

fn describe(recovery: &Recovery) -> Vec<String> {
    let mut lines = Vec::new();
    for torn in recovery.torn.iter() {
        lines.push(format!(
            "the log ended in {} bytes of an unfinished write, which are kept in {}; nothing acknowledged was in them",
            torn.len,
            torn.kept.display()
        ));
    }
    for damage in &recovery.damage {
        lines.push(format!(
            "{} bytes at {} of {} cannot be read{}",
            damage.len,
            damage.offset,
            damage.file.display(),
            damage
                .lost
                .map_or(String::new(), |(first, last)| format!("; entries {first} to {last} are lost here"))
        ));
    }
    lines
}

/// Bytes of all files in a folder.
pub(super) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

impl Engine {
    /// Notes that the log grew.
    pub(super) fn grew(&self, bytes: u64) {
        self.log_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes, on disk too, that texts are about to be erased whose words the indexes have.
    pub(super) fn outdate(&self) -> Result<(), MemoryError> {
        let mark = path(&self.folder, Part::Stale);
        atomic::write(&mark, |_| Ok(())).map_err(|error| MemoryError::io(&mark, &error))?;
        self.stale.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the indexes may have words of erased texts.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Notes that no index has words of erased texts any more.
    pub(super) fn freshened(&self) {
        self.stale.store(false, Ordering::Release);
        // One that stays behind costs a rebuild.
        let _ = fs::remove_file(path(&self.folder, Part::Stale));
    }
}
