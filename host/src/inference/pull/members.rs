//! Copying a model from members of the pool.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{Manifest, Progress, PullError, PullProgress, Puller, StoreError, digest_of_file, now};
use crate::{
    blob::{
        BlobId, Kind,
        fetch::{Candidate, Copied, FetchError, Fetcher, Identified, Shelf, SourceError, Wanted},
        trees::{Making, Tree, Trees},
    },
    inference::{ModelEntry, Origin, store::choose},
    pool::trusted::Admitted,
};

/// Stands for every member.
const EVERYBODY: &str = "pool";
/// Shortest beginning of a member's id that stands for it, in digits.
const MIN_ID: usize = 4;
/// Members, and models of each, that are named in an error.
const NAMED: usize = 8;
/// How often progress is told.
const REPORT: Duration = Duration::from_millis(100);

/// Pulls models from members into a store.
#[derive(Debug)]
pub(in crate::inference) struct Members<'a> {
    pub(in crate::inference) puller: &'a Puller,
    pub(in crate::inference) fetcher: &'a Fetcher,
    pub(in crate::inference) trees: &'a Trees,
}

/// The model that is wanted, and who has it.
#[derive(Debug, PartialEq)]
struct Meant {
    name: String,
    candidates: Vec<Candidate>,
}

impl Members<'_> {
    /// Copies a model and returns its name.
    ///
    /// # Errors
    /// [`PullError`]; what was copied stays on disk unless it is wrong.
    pub(in crate::inference) async fn pull(
        &self,
        name: &str,
        from: &str,
        progress: &Progress,
    ) -> Result<String, PullError> {
        let grants = self.fetcher.grants().ok_or(PullError::NoPool)?;
        if grants.fetch.is_none() {
            return Err(PullError::NotGranted);
        }
        let members = chosen(self.fetcher.members(), from)?;
        let _ = progress.send(Ok(PullProgress::Resolving { reference: name.to_owned() })).await;
        let mut shelves = self.fetcher.survey(Kind::Model, members).await;
        for items in shelves.iter_mut().filter_map(|shelf| shelf.items.as_mut().ok()) {
            items.retain(|item| self.puller.store.can_keep(&item.name));
        }
        let meant = meant(name, &shelves)?;
        let (identified, lost) = self.identify(&meant, progress).await;
        let wanted = agreed(&meant.name, &identified, &lost)?;
        let turn = self.puller.turn(&format!("blake3-{}", wanted.id));
        let _turn = turn.lock().await;
        if self.has(&meant.name, wanted, &identified).await? {
            return Ok(meant.name);
        }
        let digest = match self.known(&identified) {
            Some(digest) => digest,
            None => self.fetch(&meant, wanted, &identified, progress).await?,
        };
        let manifest = Manifest {
            name: meant.name.clone(),
            digest,
            size: wanted.size,
            source: format!("members: {}", names(identified.iter().map(|one| one.candidate.member.as_str()))),
            pulled_at: now(),
        };
        self.puller.store.record(&manifest)?;
        Ok(meant.name)
    }

    async fn identify(
        &self,
        meant: &Meant,
        progress: &Progress,
    ) -> (Vec<Identified>, Vec<(String, SourceError)>) {
        self.fetcher
            .identify(meant.candidates.clone(), |member, completed, total| {
                // Steps that a slow reader has no room for are left out.
                let step = PullProgress::Identifying { member: member.to_owned(), completed, total };
                let _ = progress.try_send(Ok(step));
            })
            .await
    }

    /// Whether the very file is here under that name; an error if another one is.
    async fn has(&self, name: &str, wanted: Wanted, identified: &[Identified]) -> Result<bool, PullError> {
        let list = self.puller.store.list();
        let Some(entry) = list.iter().find(|entry| entry.name == name) else { return Ok(false) };
        let digest = entry.digest.as_deref().and_then(BlobId::parse);
        if digest.is_some() && identified.iter().any(|one| one.sha256 == digest) {
            return Ok(true);
        }
        if let Some(path) = entry.path.clone().filter(|_| entry.size == wanted.size) {
            let (trees, file) = (self.trees.clone(), path.clone());
            let making = spawn_blocking(move || trees.make(&file)).await;
            let mut making = making.map_err(|_| PullError::Stopped)?;
            let made = making.wait_for(|making| !matches!(making, Making::Working { .. })).await;
            if matches!(made.as_deref(), Ok(Making::Done(tree)) if tree.id == wanted.id) {
                return Ok(true);
            }
        }
        let place = entry.path.as_ref().map_or_else(String::new, |path| format!(" ({})", path.display()));
        Err(PullError::Taken { name: name.to_owned(), place })
    }

    /// The digest of the file, if its bytes are in the store under another name.
    fn known(&self, identified: &[Identified]) -> Option<String> {
        let digests = identified.iter().filter_map(|one| one.sha256).map(|digest| digest.to_string());
        digests.into_iter().find(|digest| self.puller.store.blob(digest).is_file())
    }

    /// Copies, checks and puts the file in its place; returns its digest.
    async fn fetch(
        &self,
        meant: &Meant,
        wanted: Wanted,
        identified: &[Identified],
        progress: &Progress,
    ) -> Result<String, PullError> {
        let (partial, tree) = self.copy(meant, wanted, identified, progress).await?;
        let _ = progress.send(Ok(PullProgress::Verifying { file: meant.name.clone() })).await;
        let path = partial.clone();
        let hash = move || digest_of_file(&path).map_err(|e| StoreError::io(&path, &e).into());
        let digest = spawn_blocking(hash).await.unwrap_or(Err(PullError::Stopped))?;
        let said: Vec<BlobId> = identified.iter().filter_map(|one| one.sha256).collect();
        if !said.is_empty() && !said.iter().any(|said| said.to_string() == digest) {
            let _ = tokio::fs::remove_file(&partial).await;
            let expected = said.first().map(ToString::to_string).unwrap_or_default();
            return Err(PullError::Digest { file: meant.name.clone(), expected, got: digest });
        }
        let blob = self.puller.place(&partial, &digest, &meant.name).await?;
        // The copy can be copied from here at once.
        let trees = self.trees.clone();
        let _ = spawn_blocking(move || trees.put(&blob, &tree)).await;
        Ok(digest)
    }

    async fn copy(
        &self,
        meant: &Meant,
        wanted: Wanted,
        identified: &[Identified],
        progress: &Progress,
    ) -> Result<(PathBuf, std::sync::Arc<Tree>), PullError> {
        let mut candidates: Vec<Candidate> = identified.iter().map(|one| one.candidate.clone()).collect();
        // Members that did not answer in time may have the file all the same.
        let others = meant.candidates.iter().filter(|other| !candidates.contains(other)).cloned();
        let others: Vec<Candidate> = others.collect();
        candidates.extend(others);
        let folder = self.puller.store.partial();
        let (say, copied) = watch::channel(Copied { total: wanted.size, ..Copied::default() });
        let copying = self.fetcher.copy(wanted, candidates, &folder, say);
        tokio::pin!(copying);
        let mut ticks = interval(REPORT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last = Mutex::new(None);
        let digest = identified.iter().find_map(|one| one.sha256).map(|digest| digest.to_string());
        let report = || {
            // What is here of an earlier try is looked through first; until then nothing is known.
            if !copied.has_changed().unwrap_or(true) && last.lock().is_ok_and(|last| last.is_none()) {
                return;
            }
            let now = *copied.borrow();
            let before = last.lock().ok().and_then(|mut last| last.replace(now));
            if before.is_none_or(|before| before.completed != now.completed) {
                let _ = progress.try_send(Ok(PullProgress::Downloading {
                    file: meant.name.clone(),
                    digest: digest.clone(),
                    completed: now.completed,
                    total: now.total,
                }));
            }
        };
        let outcome = loop {
            tokio::select! {
                outcome = &mut copying => break outcome,
                _ = ticks.tick() => report(),
            }
        };
        report();
        outcome.map_err(|error| match error {
            FetchError::Lost { completed, .. } => {
                PullError::Sources { name: meant.name.clone(), reason: error.to_string(), completed }
            }
            FetchError::DiskFull { path, needed, available } => {
                PullError::DiskFull { path: path.display().to_string(), needed, available }
            }
            FetchError::Disk { path, source } => StoreError::io(&path, &source).into(),
        })
    }
}

/// The members that are asked.
fn chosen(members: Vec<Admitted>, from: &str) -> Result<Vec<Admitted>, PullError> {
    let from = from.trim();
    if from == EVERYBODY {
        return Ok(members);
    }
    let named = |member: &&Admitted| member.name == from;
    let by_id = |member: &&Admitted| from.len() >= MIN_ID && member.node.to_string().starts_with(from);
    let found: Vec<Admitted> = members.iter().filter(named).cloned().collect();
    let found = if found.is_empty() { members.iter().filter(by_id).cloned().collect() } else { found };
    if found.is_empty() {
        let there = match names(members.iter().map(|member| member.name.as_str())) {
            nobody if nobody.is_empty() => "nobody is".into(),
            some => format!("connected are {some}"),
        };
        return Err(PullError::NoMember { wanted: from.chars().take(64).collect(), there });
    }
    Ok(found)
}

/// The model that a name means among all that can be copied, and who has it.
fn meant(name: &str, shelves: &[Shelf]) -> Result<Meant, PullError> {
    let items = || {
        shelves.iter().flat_map(|shelf| shelf.items.iter().flatten().map(move |item| (&shelf.member, item)))
    };
    let mut entries: Vec<ModelEntry> = Vec::new();
    for (_, item) in items() {
        if !entries.iter().any(|entry| entry.name == item.name) {
            entries.push(ModelEntry {
                name: item.name.clone(),
                origin: Origin::Store,
                // Two names are two files unless their digests say otherwise.
                path: Some(PathBuf::from(&item.name)),
                size: item.size,
                digest: item.sha256.map(|digest| digest.to_string()),
                modified: 0,
            });
        }
    }
    let entry = choose(name, &entries).map_err(|error| match error {
        StoreError::NotFound { name } => PullError::NotInPool { name, has: told(shelves) },
        other => other.into(),
    })?;
    let digest = entry.digest.as_deref().and_then(BlobId::parse);
    let same = |item: &crate::blob::Item| {
        item.name == entry.name || digest.is_some() && item.sha256 == digest && item.size == entry.size
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    for (member, item) in items().filter(|(_, item)| same(item)) {
        // One stream to each member; the name that was asked for comes first.
        let known = candidates.iter_mut().find(|candidate| candidate.node == member.node);
        match known {
            Some(candidate) if item.name == entry.name => candidate.file = item.name.clone(),
            Some(_) => {}
            None => candidates.push(Candidate {
                node: member.node,
                member: member.name.clone(),
                file: item.name.clone(),
            }),
        }
    }
    Ok(Meant { name: entry.name, candidates })
}

/// Who has what, in words.
fn told(shelves: &[Shelf]) -> String {
    if shelves.is_empty() {
        return "no other member is connected".into();
    }
    let line = |shelf: &Shelf| match &shelf.items {
        Ok(items) if items.is_empty() => format!("{} has none that it may give", shelf.member.name),
        Ok(items) => {
            format!("{} has {}", shelf.member.name, names(items.iter().map(|item| item.name.as_str())))
        }
        Err(error) => format!("{} cannot be asked ({error})", shelf.member.name),
    };
    shelves.iter().take(NAMED).map(line).collect::<Vec<_>>().join("; ")
}

/// Some names, in words.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    let shown = all.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The one file that all members mean.
fn agreed(
    name: &str,
    identified: &[Identified],
    lost: &[(String, SourceError)],
) -> Result<Wanted, PullError> {
    let Some(first) = identified.first() else {
        let why: Vec<String> = lost.iter().map(|(member, error)| format!("{member}: {error}")).collect();
        return Err(PullError::Sources { name: name.to_owned(), reason: why.join("; "), completed: 0 });
    };
    if identified.iter().all(|one| one.wanted == first.wanted) {
        return Ok(first.wanted);
    }
    let line = |one: &Identified| {
        let id = one.wanted.id.to_string();
        let short = id.get(..12).unwrap_or_default();
        format!("{} has {} bytes (BLAKE3 {short}…)", one.candidate.member, one.wanted.size)
    };
    let which = identified.iter().take(NAMED).map(line).collect::<Vec<_>>().join(", ");
    Err(PullError::Differs { name: name.to_owned(), which })
}
