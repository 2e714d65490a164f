//! Which models there are: the node's own content-addressed store, files given at start, the built-in model, and
//! what other programs have downloaded; and which of them a name means.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    ModelEntry, Origin, builtin,
    caches::{CacheRoots, modified},
    embed, quant,
};

/// How long a listing is used before folders are looked at again.
const FRESH: Duration = Duration::from_secs(3);
/// How long a name means what it meant.
const MEANT: Duration = Duration::from_secs(30);
/// Most names remembered.
const MAX_MEANT: usize = 1024;
/// Largest manifest read, in bytes.
const MAX_MANIFEST: u64 = 1 << 16;
/// Longest name of a manifest, in bytes.
const MAX_FILE_NAME: usize = 240;
/// Names listed in an error.
const MAX_NAMES: usize = 8;

/// Why the store refuses or fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// No such model.
    #[error("model `{name}` is not here; `potluck models` lists what is, `potluck pull` gets more")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// The name means several models.
    #[error("`{name}` could be any of {}; ask for one of them by its full name", candidates.join(", "))]
    Ambiguous {
        /// The name asked for.
        name: String,
        /// What it could mean.
        candidates: Vec<String>,
    },
    /// The model belongs to another program.
    #[error("`{name}` belongs to {owner} ({path}); remove it there")]
    NotOurs {
        /// The model.
        name: String,
        /// Whose it is.
        owner: &'static str,
        /// The file.
        path: String,
    },
    /// The file cannot be used as a model.
    #[error("model `{name}` cannot be read: {reason}")]
    Unreadable {
        /// The model.
        name: String,
        /// Why.
        reason: String,
    },
    /// The file system refused.
    #[error("{path}: {reason}")]
    Io {
        /// The file or folder.
        path: String,
        /// The system's reason.
        reason: String,
    },
}

impl StoreError {
    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.display().to_string(), reason: error.to_string() }
    }
}

/// What is kept about a pulled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) name: String,
    /// SHA-256, 64 hex digits.
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) source: String,
    /// Seconds since 1970.
    pub(super) pulled_at: u64,
}

/// The listing of everything that can be asked for.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    /// Files given at start: the words they were given by, and the entry.
    given: Vec<(String, ModelEntry)>,
    caches: Option<CacheRoots>,
    listing: Mutex<Option<(Instant, Arc<Vec<ModelEntry>>)>>,
    /// What names meant a short while ago, so that a busy node does not walk folders for every job.
    meant: Mutex<HashMap<String, (Instant, ModelEntry)>>,
}

impl Store {
    /// Makes the folders and checks the given files.
    pub(super) fn open(
        home: &Path,
        models: &[String],
        caches: Option<CacheRoots>,
    ) -> Result<Self, StoreError> {
        let root = home.join("models");
        for folder in ["blobs", "manifests", "partial"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(|e| StoreError::io(&folder, &e))?;
        }
        embed::Installed::adopt(&embed::Installed::folder(&root), now());
        let given = models.iter().filter_map(|word| given(word).transpose()).collect::<Result<_, _>>()?;
        Ok(Self { root, given, caches, listing: Mutex::new(None), meant: Mutex::default() })
    }

    pub(super) fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        self.root.join("blobs").join(format!("sha256-{digest}"))
    }

    /// The folder of block hashes.
    pub(super) fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    /// Whether a model may be called that: a name of its own, whose manifest's name fits a file system.
    pub(super) fn can_keep(&self, name: &str) -> bool {
        let fits = self.manifest(name).file_name().is_some_and(|file| file.len() <= MAX_FILE_NAME);
        fits && name != builtin::GUIDE && !embed::is_alias(name)
    }

    /// The folder of the embedder.
    pub(super) fn embedder_folder(&self) -> PathBuf {
        embed::Installed::folder(&self.root)
    }

    /// The installed embedder.
    pub(super) fn embedder(&self) -> Option<embed::Installed> {
        embed::Installed::read(&self.embedder_folder())
    }

    fn embedder_entry(&self) -> Option<ModelEntry> {
        self.embedder()?.entry(&self.embedder_folder())
    }

    fn manifest(&self, name: &str) -> PathBuf {
        let mut file = String::new();
        for c in name.chars() {
            match c {
                '/' => file.push_str("%2F"),
                ':' => file.push_str("%3A"),
                c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => file.push(c),
                c => file.push_str(&format!("%{:X}", u32::from(c))),
            }
        }
        self.root.join("manifests").join(format!("{file}.json"))
    }

    /// Records a pulled model whose blob is in place.
    pub(super) fn record(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.manifest(&manifest.name);
        let json =
            serde_json::to_vec_pretty(manifest).map_err(|e| StoreError::io(&path, &io::Error::other(e)))?;
        let partial = path.with_extension("partial");
        fs::write(&partial, json)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|e| StoreError::io(&path, &e))?;
        self.forget();
        Ok(())
    }

    /// Looks at the folders again at the next listing.
    pub(super) fn forget(&self) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.meant.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Everything, one entry per name: given files first, then the built-in model, the own store, other programs'.
    pub(super) fn list(&self) -> Arc<Vec<ModelEntry>> {
        {
            let listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, list)) = listing.as_ref()
                && at.elapsed() < FRESH
            {
                return list.clone();
            }
        }
        let mut all: Vec<ModelEntry> = self.given.iter().map(|(_, e)| e.clone()).collect();
        all.extend(built_in());
        all.extend(self.embedder_entry());
        all.extend(self.manifests().into_iter().map(|(_, e)| e));
        if let Some(caches) = &self.caches {
            all.extend(caches.find());
        }
        let mut seen = HashSet::new();
        all.retain(|e| seen.insert(e.name.clone()));
        let list = Arc::new(all);
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), list.clone()));
        list
    }

    fn manifests(&self) -> Vec<(PathBuf, ModelEntry)> {
        let Ok(files) = fs::read_dir(self.root.join("manifests")) else { return Vec::new() };
        let mut found: Vec<_> = files.flatten().filter_map(|f| self.read_manifest(&f.path())).collect();
        found.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        found
    }

    fn read_manifest(&self, path: &Path) -> Option<(PathBuf, ModelEntry)> {
        let json = path.extension()? == "json" && fs::metadata(path).ok()?.len() <= MAX_MANIFEST;
        let manifest: Manifest =
            json.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok()).flatten()?;
        let digest = super::caches::digest_of(&manifest.digest)?;
        let blob = self.blob(&digest);
        let meta = fs::metadata(&blob).ok().filter(fs::Metadata::is_file)?;
        let entry = ModelEntry {
            name: manifest.name,
            origin: Origin::Store,
            path: Some(blob),
            size: meta.len(),
            digest: Some(digest),
            modified: manifest.pulled_at,
        };
        Some((path.to_owned(), entry))
    }

    /// The entry that a name means.
    pub(super) fn resolve(&self, name: &str) -> Result<ModelEntry, StoreError> {
        if let Some((at, entry)) = self.meant.lock().unwrap_or_else(PoisonError::into_inner).get(name)
            && at.elapsed() < MEANT
            && entry.path.as_ref().is_none_or(|p| p.is_file())
        {
            return Ok(entry.clone());
        }
        let entry = match self.resolve_now(name) {
            Err(StoreError::NotFound { .. }) => {
                self.forget();
                self.resolve_now(name)?
            }
            other => other?,
        };
        let mut meant = self.meant.lock().unwrap_or_else(PoisonError::into_inner);
        if meant.len() >= MAX_MEANT {
            meant.clear();
        }
        meant.insert(name.to_owned(), (Instant::now(), entry.clone()));
        Ok(entry)
    }

    fn resolve_now(&self, name: &str) -> Result<ModelEntry, StoreError> {
        let name = name.trim();
        if let Some((_, entry)) = self.given.iter().find(|(word, _)| word == name) {
            return Ok(entry.clone());
        }
        if embed::is_alias(name)
            && let Some(entry) = self.embedder_entry()
        {
            return Ok(entry);
        }
        choose(name, &self.list())
    }

    /// Deletes a pulled model: its manifest, and its blob when no other manifest names it.
    pub(super) fn remove(&self, name: &str) -> Result<ModelEntry, StoreError> {
        let entry = self.resolve(name)?;
        let path = || entry.path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        if entry.origin != Origin::Store {
            let owner = owner(entry.origin);
            return Err(StoreError::NotOurs { name: entry.name.clone(), owner, path: path() });
        }
        if entry.is_embedder() {
            let folder = self.embedder_folder();
            fs::remove_dir_all(&folder).map_err(|e| StoreError::io(&folder, &e))?;
            self.forget();
            return Ok(entry);
        }
        let manifest = self.manifest(&entry.name);
        fs::remove_file(&manifest).map_err(|e| StoreError::io(&manifest, &e))?;
        let shared = self.manifests().iter().any(|(_, other)| other.digest == entry.digest);
        if let Some(blob) = entry.path.as_ref().filter(|_| !shared) {
            fs::remove_file(blob).map_err(|e| StoreError::io(blob, &e))?;
        }
        self.forget();
        Ok(entry)
    }
}

fn owner(origin: Origin) -> &'static str {
    match origin {
        Origin::BuiltIn => "the program itself",
        Origin::Store => "the node",
        Origin::Path => "you (it was given with --model)",
        Origin::Ollama => "Ollama",
        Origin::HuggingFace => "the Hugging Face cache",
        Origin::LmStudio => "LM Studio",
        Origin::LlamaCpp => "llama.cpp",
    }
}

/// A word given at start: a path becomes an entry, a name is left to be resolved later.
fn given(word: &str) -> Result<Option<(String, ModelEntry)>, StoreError> {
    let path = Path::new(word);
    let is_path = word.contains(std::path::MAIN_SEPARATOR) && path.exists()
        || word.to_ascii_lowercase().ends_with(".gguf")
        || path.is_absolute();
    if !is_path {
        return Ok(None);
    }
    let path = path.canonicalize().map_err(|e| StoreError::io(path, &e))?;
    let meta = fs::metadata(&path).map_err(|e| StoreError::io(&path, &e))?;
    if !meta.is_file() {
        return Err(StoreError::Io { path: word.to_owned(), reason: "it is not a file".into() });
    }
    let entry = ModelEntry {
        name: quant::stem(word).to_owned(),
        origin: Origin::Path,
        size: meta.len(),
        digest: None,
        modified: modified(&meta),
        path: Some(path),
    };
    Ok(Some((word.to_owned(), entry)))
}

/// The built-in model's entry.
pub(super) fn built_in() -> Option<ModelEntry> {
    builtin::GUIDE_BYTES.map(|bytes| ModelEntry {
        name: builtin::GUIDE.into(),
        origin: Origin::BuiltIn,
        path: None,
        size: bytes.len() as u64,
        digest: None,
        modified: 0,
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Ever looser ways to read a name; the first that matches something decides.
pub(super) fn choose(name: &str, all: &[ModelEntry]) -> Result<ModelEntry, StoreError> {
    let asked = plain(name);
    if asked.is_empty() || name.len() > 512 {
        let name = name.chars().take(100).collect();
        return Err(StoreError::NotFound { name });
    }
    let levels: [&dyn Fn(&ModelEntry) -> bool; 6] = [
        &|e| e.name == name,
        &|e| plain(&e.name) == asked,
        // Without the user: `Repo-GGUF:Q4_K_M`.
        &|e| after_user(&plain(&e.name)) == asked,
        // Without the tag: `USER/REPO`, `qwen2.5`.
        &|e| before_tag(&plain(&e.name)) == asked,
        &|e| {
            let whole = plain(&e.name);
            let repo = before_tag(after_user(&whole));
            let short = repo.strip_suffix("-gguf").unwrap_or(repo);
            let tag = whole.rsplit_once(':').map_or("", |(_, tag)| tag);
            repo == asked || short == asked || asked == format!("{short}:{tag}")
        },
        &|e| {
            let whole = plain(&e.name);
            whole.starts_with(&asked) || after_user(&whole).starts_with(&asked) || whole.ends_with(&asked)
        },
    ];
    for fits in levels {
        let found: Vec<&ModelEntry> = all.iter().filter(|e| fits(e)).collect();
        let mut files: Vec<&ModelEntry> = Vec::new();
        for entry in found {
            // The same bytes under two names are no ambiguity: the first place wins.
            let same =
                |o: &&ModelEntry| o.digest.is_some() && o.digest == entry.digest || o.path == entry.path;
            if !files.iter().any(same) {
                files.push(entry);
            }
        }
        match *files.as_slice() {
            [] => {}
            [entry] => return Ok(entry.clone()),
            _ => {
                let candidates = files.iter().take(MAX_NAMES).map(|e| e.name.clone()).collect();
                return Err(StoreError::Ambiguous { name: name.to_owned(), candidates });
            }
        }
    }
    Err(StoreError::NotFound { name: name.to_owned() })
}

/// Lower case, without the hub's address and without `:latest`.
fn plain(name: &str) -> String {
    let lower = name.to_lowercase();
    let bare = lower.strip_prefix("https://").unwrap_or(&lower);
    let bare = ["hf.co/", "huggingface.co/", "hf:"].iter().find_map(|p| bare.strip_prefix(p)).unwrap_or(bare);
    bare.strip_suffix(":latest").unwrap_or(bare).to_owned()
}

fn after_user(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, repo)| repo)
}

fn before_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => repo,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ModelEntry {
        ModelEntry {
            name: name.into(),
            origin: Origin::Store,
            path: Some(PathBuf::from(name)),
            size: 1,
            digest: None,
            modified: 0,
        }
    }

    #[test]
    fn names_are_forgiving_but_never_guessed() {
        let all: Vec<_> = [
            "guide",
            "bart/Qwen2.5-0.5B-GGUF:Q4_K_M",
            "bart/Qwen2.5-0.5B-GGUF:Q8_0",
            "a/Tiny-GGUF:F32",
            "llama3:latest",
            "llama3:8b",
            "qwen3:4b",
        ]
        .map(named)
        .into();
        let get = |name: &str| choose(name, &all).map(|e| e.name);
        assert_eq!(get("Guide").unwrap(), "guide");
        assert_eq!(get("guide:latest").unwrap(), "guide");
        assert_eq!(get("llama3").unwrap(), "llama3:latest");
        assert_eq!(get("qwen3").unwrap(), "qwen3:4b");
        assert_eq!(get("tiny").unwrap(), "a/Tiny-GGUF:F32");
        assert_eq!(get("hf.co/a/tiny-gguf").unwrap(), "a/Tiny-GGUF:F32");
        assert_eq!(get("qwen2.5-0.5b:q8_0").unwrap(), "bart/Qwen2.5-0.5B-GGUF:Q8_0");
        assert_eq!(get("bart/qwen2.5-0.5b-gguf:q4_k_m").unwrap(), "bart/Qwen2.5-0.5B-GGUF:Q4_K_M");
        match get("Qwen2.5-0.5B").unwrap_err() {
            StoreError::Ambiguous { candidates, .. } => assert_eq!(candidates.len(), 2),
            other => panic!("{other:?}"),
        }
        assert!(matches!(get("gpt-5"), Err(StoreError::NotFound { .. })));
        assert!(matches!(get(""), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn pulled_models_are_listed_and_removed_but_only_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("given-Q8_0.gguf");
        fs::write(&file, b"GGUF").unwrap();
        let word = file.display().to_string();
        let store = Store::open(dir.path(), &[word.clone(), "guide".into()], None).unwrap();
        let digest = "cd".repeat(32);
        fs::write(store.blob(&digest), b"GGUF").unwrap();
        for name in ["u/r:Q4_0", "u/r2:Q4_0"] {
            let manifest = Manifest {
                name: name.into(),
                digest: digest.clone(),
                size: 4,
                source: "t".into(),
                pulled_at: 7,
            };
            store.record(&manifest).unwrap();
        }
        fs::write(dir.path().join("models/manifests/bad.json"), b"{").unwrap();
        assert_eq!(store.resolve("r:q4_0").unwrap().modified, 7);
        assert_eq!(store.resolve(&word).unwrap().name, "given-Q8_0");
        assert!(matches!(store.remove("given-Q8_0"), Err(StoreError::NotOurs { .. })));
        assert!(file.exists());
        store.remove("u/r:Q4_0").unwrap();
        assert!(store.blob(&digest).exists(), "another model still needs the blob");
        store.remove("u/r2:Q4_0").unwrap();
        assert!(!store.blob(&digest).exists());
        assert!(matches!(store.resolve("u/r"), Err(StoreError::NotFound { .. })));
        let missing = Store::open(dir.path(), &["/not/there.gguf".into()], None);
        assert!(matches!(missing, Err(StoreError::Io { .. })));
    }
}
