//! The text index of record: milli, for filters, typo tolerance and plain keyword search.
//!
//! Documents are versions by ordinal and never change, so that what is alive is decided by the table alone. Writes
//! come in groups, since a transaction costs about the same for one document as for a hundred; until then the
//! overlay (table and lexicon tail) answers. What milli is not used for, because it was measured to be slower or
//! weaker at it: its embedder (small writes become O(n)), its fusion, and ranking (it has no BM25).

use std::{
    collections::{BTreeSet, HashSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock},
};

use memmap2::{Mmap, MmapMut};
use milli::{
    FilterableAttributesRule, Index, TermsMatchingStrategy, ThreadPoolNoAbort, ThreadPoolNoAbortBuilder,
    heed::EnvOpenOptions,
    progress::Progress,
    proximity::ProximityPrecision,
    update::{IndexerConfig, Settings, new::indexer},
    vector::EmbeddingConfigs,
};
use roaring::RoaringBitmap;
use serde_json::json;

use super::{
    record::{Kind, Millis, Version},
    request::Filter,
    text::STOP_WORDS,
};

/// The layout of the documents; another number makes the index be rebuilt from the log.
const LAYOUT: &str = "1";
/// Address space for the index. Sparse: it costs nothing until it is used.
const MAP: u64 = 1 << 38;
/// Where the process may have only so much address space, the index takes one part in so many.
const SHARE: u64 = 8;
/// Words of a query that are looked at: more cost seconds and find nothing more.
const WORDS: usize = 15;
/// Most bytes of a body that keyword search sees; the lexical legs see all of it.
const TEXT: usize = 64 << 10;

/// Why the text index fails. It is then rebuilt from the log.
#[derive(Debug, thiserror::Error)]
pub enum KeywordError {
    /// The file system failed.
    #[error("the text index in {path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was written by another version.
    #[error("the text index in {path} has another layout")]
    Layout {
        /// The folder.
        path: PathBuf,
    },
    /// milli failed.
    #[error("the text index: {0}")]
    Index(String),
}

impl From<milli::Error> for KeywordError {
    fn from(error: milli::Error) -> Self {
        Self::Index(error.to_string())
    }
}

impl From<milli::heed::Error> for KeywordError {
    fn from(error: milli::heed::Error) -> Self {
        Self::Index(error.to_string())
    }
}

/// A version as the text index holds it.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its text.
    pub text: String,
    /// Its kind.
    pub kind: Kind,
    /// Its project.
    pub project: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it occurred or was written.
    pub at: Millis,
}

impl Document {
    /// A version's document; `None` when it has no text.
    pub fn of(ordinal: u32, version: Version, at: Millis) -> Option<Self> {
        let Version { header, body, .. } = version;
        let text = body.filter(|_| !header.is_tombstone())?;
        Some(Self { ordinal, text, kind: header.kind, project: header.project, tags: header.tags, at })
    }
}

/// The text index.
pub struct Keyword {
    index: Index,
    pool: ThreadPoolNoAbort,
    writing: Mutex<()>,
    ordinals: RwLock<Ordinals>,
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyword").field("next", &self.next()).finish_non_exhaustive()
    }
}

/// Which ordinal each of milli's document numbers stands for.
#[derive(Debug, Default)]
struct Ordinals {
    of: Vec<u32>,
    /// Every number stands for itself, so that bitmaps need no translation.
    identical: bool,
    /// One above the highest ordinal.
    next: u32,
}

impl Ordinals {
    fn read(index: &Index) -> Result<Self, KeywordError> {
        let rtxn = index.read_txn()?;
        let mut of = Vec::new();
        let mut next = 0;
        for entry in index.external_documents_ids().iter(&rtxn)? {
            let (external, internal) = entry?;
            let Ok(ordinal) = external.parse::<u32>() else {
                return Err(KeywordError::Index(format!("it holds the foreign document `{external}`")));
            };
            let at = internal as usize;
            if of.len() <= at {
                of.resize(at + 1, u32::MAX);
            }
            if let Some(slot) = of.get_mut(at) {
                *slot = ordinal;
            }
            next = next.max(ordinal + 1);
        }
        let identical =
            of.iter().enumerate().all(|(at, ordinal)| *ordinal == u32::MAX || at == *ordinal as usize);
        Ok(Self { of, identical, next })
    }

    fn translate(&self, documents: RoaringBitmap) -> RoaringBitmap {
        if self.identical {
            return documents;
        }
        documents.iter().filter_map(|document| self.of.get(document as usize).copied()).collect()
    }
}

impl Keyword {
    /// Opens the index in a folder, or makes one.
    ///
    /// # Errors
    /// [`KeywordError`]; after one the folder can be deleted and everything added again.
    pub fn open(folder: &Path) -> Result<Self, KeywordError> {
        let io = |source| KeywordError::Io { path: folder.to_owned(), source };
        let stamp = folder.join("layout");
        let fresh = !folder.join("data.mdb").exists();
        if !fresh && fs::read_to_string(&stamp).map_err(io)?.trim() != LAYOUT {
            return Err(KeywordError::Layout { path: folder.to_owned() });
        }
        fs::create_dir_all(folder).map_err(io)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_size());
        let index = Index::new(options, folder, fresh)?;
        let pool = ThreadPoolNoAbortBuilder::new()
            .num_threads(2)
            .thread_name(|n| format!("text-index-{n}"))
            .build()
            .map_err(|error| KeywordError::Index(error.to_string()))?;
        if fresh {
            configure(&index)?;
            fs::write(&stamp, LAYOUT).map_err(io)?;
        }
        let ordinals = RwLock::new(Ordinals::read(&index)?);
        Ok(Self { index, pool, writing: Mutex::new(()), ordinals })
    }

    /// One above the highest ordinal it holds: documents from here on are the overlay's.
    pub fn next(&self) -> u32 {
        self.ordinals.read().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Bytes it takes on disk.
    pub fn bytes(&self) -> u64 {
        self.index.used_size().unwrap_or(0)
    }

    /// Adds documents in one transaction; they are flushed when this returns.
    ///
    /// # Errors
    /// [`KeywordError`]; nothing was added then.
    pub fn add(&self, documents: &[Document]) -> Result<(), KeywordError> {
        if documents.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for document in documents {
            let line = json!({
                "id": document.ordinal,
                "text": cut(&document.text, TEXT),
                "kind": document.kind,
                "project": document.project,
                "tags": document.tags,
                "at": document.at.0,
            });
            serde_json::to_writer(&mut lines, &line)
                .map_err(|error| KeywordError::Index(error.to_string()))?;
            lines.push(b'\n');
        }
        let payload = map(&lines)?;
        self.write(|operation| Ok(operation.replace_documents(&payload)?))
    }

    /// Takes documents out, for good.
    ///
    /// # Errors
    /// [`KeywordError`]; nothing was removed then.
    pub fn remove(&self, ordinals: &[u32]) -> Result<(), KeywordError> {
        let ids: Vec<String> = ordinals.iter().map(u32::to_string).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.write(|operation| {
            operation.delete_documents(&ids);
            Ok(())
        })
    }

    fn write<'p>(
        &'p self,
        fill: impl FnOnce(&mut indexer::DocumentOperation<'p>) -> Result<(), KeywordError>,
    ) -> Result<(), KeywordError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let rtxn = self.index.read_txn()?;
        let known = self.index.fields_ids_map(&rtxn)?;
        let mut fields = known.clone();
        let mut operation = indexer::DocumentOperation::new();
        fill(&mut operation)?;
        let arena = bumpalo::Bump::new();
        let progress = Progress::default();
        let (changes, outcomes, key) = operation.into_changes(
            &arena,
            &self.index,
            &rtxn,
            None,
            &mut fields,
            &|| false,
            progress.clone(),
        )?;
        if let Some(error) = outcomes.into_iter().find_map(|outcome| outcome.error) {
            return Err(KeywordError::Index(error.to_string()));
        }
        let mut wtxn = self.index.write_txn()?;
        // Never within `pool.install`: there it waits for itself when the pool has one thread.
        indexer::index(
            &mut wtxn,
            &self.index,
            &self.pool,
            IndexerConfig::default().grenad_parameters(),
            &known,
            fields,
            key,
            &changes,
            EmbeddingConfigs::default(),
            &|| false,
            &progress,
        )?;
        wtxn.commit()?;
        drop(rtxn);
        let ordinals = Ordinals::read(&self.index)?;
        *self.ordinals.write().unwrap_or_else(PoisonError::into_inner) = ordinals;
        Ok(())
    }

    /// The ordinals that a filter describes; `None` when it describes all.
    ///
    /// # Errors
    /// [`KeywordError::Index`].
    pub fn filter(&self, filter: &Filter) -> Result<Option<RoaringBitmap>, KeywordError> {
        let Some(expression) = expression(filter) else { return Ok(None) };
        let rtxn = self.index.read_txn()?;
        let condition = milli::Filter::from_str(&expression)?;
        let documents = milli::filtered_universe(&self.index, &rtxn, &condition)?;
        Ok(Some(self.ordinals.read().unwrap_or_else(PoisonError::into_inner).translate(documents)))
    }

    /// The ordinals of texts that hold the query's words, spelled nearly so, best first.
    ///
    /// # Errors
    /// [`KeywordError::Index`].
    pub fn search(&self, words: &[String], limit: usize) -> Result<Vec<u32>, KeywordError> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let rtxn = self.index.read_txn()?;
        let mut search = self.index.search(&rtxn);
        // Words hold letters and digits only: nothing in them can be an operator.
        search.query(words.join(" ")).limit(limit).words_limit(WORDS);
        search.terms_matching_strategy(TermsMatchingStrategy::Frequency);
        let found = search.execute()?;
        let ordinals = self.ordinals.read().unwrap_or_else(PoisonError::into_inner);
        Ok(found.documents_ids.iter().filter_map(|id| ordinals.of.get(*id as usize).copied()).collect())
    }
}

/// Bytes of address space for the index: whole pages.
fn map_size() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    let bytes = limit.map_or(MAP, |limit| (limit / SHARE).min(MAP));
    usize::try_from(bytes).unwrap_or(usize::MAX) & !0xffff
}

fn configure(index: &Index) -> Result<(), KeywordError> {
    let mut wtxn = index.write_txn()?;
    let config = IndexerConfig::default();
    let mut settings = Settings::new(&mut wtxn, index, &config);
    settings.set_primary_key("id".into());
    settings.set_searchable_fields(vec!["text".into()]);
    // The type has no public constructor; this is its documented JSON.
    let rule: FilterableAttributesRule = serde_json::from_value(json!({
        "attributePatterns": ["kind", "project", "tags", "at"],
        "features": {"facetSearch": false, "filter": {"equality": true, "comparison": true}},
    }))
    .map_err(|error| KeywordError::Index(error.to_string()))?;
    settings.set_filterable_fields(vec![rule]);
    settings.set_sortable_fields(HashSet::new());
    settings.set_stop_words(STOP_WORDS.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>());
    // Questions are whole words, and pairs of neighbours cost most of a small write.
    settings.set_prefix_search(milli::index::PrefixSearch::Disabled);
    settings.set_proximity_precision(ProximityPrecision::ByAttribute);
    settings.set_facet_search(false);
    settings.execute(|_| {}, || false)?;
    wtxn.commit()?;
    Ok(())
}

/// A filter in milli's language; `None` when it does not restrict.
fn expression(filter: &Filter) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(project) = &filter.project {
        parts.push(format!("project = {}", quoted(project)));
    }
    if !filter.kinds.is_empty() {
        let kinds: Vec<String> = filter.kinds.iter().map(|kind| quoted(kind.name())).collect();
        parts.push(format!("kind IN [{}]", kinds.join(", ")));
    }
    parts.extend(filter.tags.iter().map(|tag| format!("tags = {}", quoted(tag))));
    if let Some(since) = filter.since {
        parts.push(format!("at >= {}", since.0));
    }
    if let Some(until) = filter.until {
        parts.push(format!("at < {}", until.0));
    }
    (!parts.is_empty()).then(|| parts.join(" AND "))
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// milli reads documents from a map only; this one is memory, not a file.
fn map(bytes: &[u8]) -> Result<Mmap, KeywordError> {
    let memory = |error: io::Error| KeywordError::Index(error.to_string());
    let mut map = MmapMut::map_anon(bytes.len()).map_err(memory)?;
    map.copy_from_slice(bytes);
    map.make_read_only().map_err(memory)
}

/// The first `limit` bytes, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(ordinal: u32, text: &str, project: Option<&str>, tags: &[&str]) -> Document {
        Document {
            ordinal,
            text: text.into(),
            kind: if ordinal.is_multiple_of(2) { Kind::Fact } else { Kind::Task },
            project: project.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            at: Millis(1_700_000_000_000 + i64::from(ordinal) * 1000),
        }
    }

    fn filled(folder: &Path) -> Keyword {
        let index = Keyword::open(folder).unwrap();
        index.add(&[document(0, "The kettle is broken", Some("home"), &["kitchen"])]).unwrap();
        let more = [
            document(1, "Buy a new kettle", Some("ho\"me\\'"), &["kitchen", "shop"]),
            document(2, "Rust compiles slowly", None, &[]),
        ];
        index.add(&more).unwrap();
        index
    }

    #[test]
    fn filters_and_typos() {
        let folder = tempfile::tempdir().unwrap();
        let index = filled(folder.path());
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(index.search(&words("ketle"), 5).unwrap(), [0, 1]);
        assert_eq!(index.next(), 3);
        let ask = |filter: Filter| -> Vec<u32> { index.filter(&filter).unwrap().unwrap().iter().collect() };
        assert_eq!(ask(Filter { project: Some("ho\"me\\'".into()), ..Filter::default() }), [1]);
        assert_eq!(ask(Filter { kinds: vec![Kind::Fact], ..Filter::default() }), [0, 2]);
        assert_eq!(ask(Filter { tags: vec!["kitchen".into(), "shop".into()], ..Filter::default() }), [1]);
        assert_eq!(ask(Filter { since: Some(Millis(1_700_000_001_000)), ..Filter::default() }), [1, 2]);
        assert_eq!(ask(Filter { until: Some(Millis(1_700_000_001_000)), ..Filter::default() }), [0]);
        assert!(index.filter(&Filter::default()).unwrap().is_none());
        index.remove(&[1]).unwrap();
        assert_eq!(index.search(&words("kettle"), 5).unwrap(), [0]);
    }

    #[test]
    fn it_is_there_again_and_refuses_another_layout() {
        let folder = tempfile::tempdir().unwrap();
        let index = filled(folder.path());
        index.index.clone().prepare_for_closing();
        drop(index);
        let index = Keyword::open(folder.path()).unwrap();
        assert_eq!((index.next(), index.search(&["rust".into()], 5).unwrap()), (3, vec![2]));
        drop(index);
        fs::write(folder.path().join("layout"), "0").unwrap();
        assert!(matches!(Keyword::open(folder.path()), Err(KeywordError::Layout { .. })));
    }
}
