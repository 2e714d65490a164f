//! Copying files from members.
//!
//! First the members are asked what they have ([`Fetcher::survey`]); then those that have what is wanted, for its id
//! ([`Fetcher::identify`]), which for a large file that nobody asked for before takes a while; then all of them for its
//! blocks ([`Fetcher::copy`]).

mod copy;
mod line;
mod partial;
mod plan;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::sync::watch;

pub use copy::{Candidate, Copied};
pub use line::SourceError;

use super::{BlobId, Item, Kind, Timers, may, source::Bytes, trees::Tree};
use crate::{
    mesh::{
        protocol::blob::{tree, wire::Ask},
        streams::Streams,
    },
    pool::trusted::{Admitted, Grants, Membership},
};
use line::Line;

/// Members that are asked at the same time.
const AT_ONCE: usize = 16;
/// Sources of one copy. Each may hold a few blocks of a megabyte in memory.
const SOURCES: usize = 8;
/// Disk space left free for others, in bytes.
const SPARE: u64 = 64 << 20;

/// How patient the asking side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The clocks of a stream.
    pub timers: Timers,
    /// The longest that a member may take to compute a file's id.
    pub hashing: Duration,
    /// How long members that have a file are waited for once one has said its id.
    pub grace: Duration,
    /// A copy ends when no source was there for this long.
    pub patience: Duration,
    /// A copy ends when no byte came for this long, whoever is there.
    pub stuck: Duration,
    /// First pause before a source that broke off is asked again; doubles up to the next value.
    pub again: Duration,
    /// The longest such pause.
    pub again_most: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            hashing: Duration::from_secs(3600),
            grace: Duration::from_secs(3),
            patience: Duration::from_secs(30),
            stuck: Duration::from_secs(600),
            again: Duration::from_millis(500),
            again_most: Duration::from_secs(10),
        }
    }
}

/// A file as all its copies are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// What it is named by.
    pub id: BlobId,
    /// Bytes.
    pub size: u64,
}

/// What one member has.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The member.
    pub member: Admitted,
    /// What this machine may copy from it, or why that is not known.
    pub items: Result<Vec<Item>, SourceError>,
    /// Whether there is more than was told.
    pub more: bool,
}

/// A file that a member is ready to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The member, and what the file is called there.
    pub candidate: Candidate,
    /// The file.
    pub wanted: Wanted,
    /// Its SHA-256, if the member knows it.
    pub sha256: Option<BlobId>,
}

/// Why a copy failed. What came so far is kept.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No source is left.
    #[error("{}", told(why))]
    Lost {
        /// Bytes that are here.
        completed: u64,
        /// What became of each member.
        why: Vec<(String, SourceError)>,
    },
    /// The disk is too small.
    #[error("{needed} bytes are needed in {}, {available} are free", path.display())]
    DiskFull {
        /// The folder.
        path: PathBuf,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn told(why: &[(String, SourceError)]) -> String {
    let lines: Vec<String> = why.iter().map(|(member, error)| format!("{member}: {error}")).collect();
    if lines.is_empty() { "nobody has it".into() } else { lines.join("; ") }
}

impl FetchError {
    fn of_disk(base: &Path, size: u64, error: &io::Error) -> Self {
        let path = base.to_owned();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let folder = base.parent().unwrap_or(base).to_owned();
            return Self::DiskFull {
                available: free(&folder).unwrap_or_default(),
                path: folder,
                needed: size,
            };
        }
        Self::Disk { path, source: io::Error::new(error.kind(), error.to_string()) }
    }
}

/// Bytes that are free in a folder.
fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Copies files from members. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Fetcher {
    config: Config,
    streams: Arc<dyn Streams>,
    membership: Arc<dyn Membership>,
}

impl Fetcher {
    /// Asks over these streams the members that are admitted.
    pub fn new(config: Config, streams: Arc<dyn Streams>, membership: Arc<dyn Membership>) -> Self {
        Self { config, streams, membership }
    }

    /// What this machine may do in its pool; `None`: it is in none.
    pub fn grants(&self) -> Option<Grants> {
        self.membership.grants(self.membership.me())
    }

    /// The other members that are there.
    pub fn members(&self) -> Vec<Admitted> {
        let me = self.membership.me();
        let all = self.membership.watch();
        all.borrow().iter().filter(|member| member.node != me).cloned().collect()
    }

    /// What these members have that this machine may copy. What a member may not answer for, and names that lead
    /// somewhere, are left out.
    pub async fn survey(&self, kind: Kind, members: Vec<Admitted>) -> Vec<Shelf> {
        let ours = self.grants().unwrap_or_else(nothing);
        let ask = |member: Admitted| {
            let ours = &ours;
            async move {
                let asked = async {
                    Line::open(&*self.streams, member.node, self.config.timers).await?.list(kind).await
                };
                let (items, more) = match asked.await {
                    Ok((mut items, more)) => {
                        items.retain(|item| {
                            item.is_sound(kind) && may(&member.grants, ours, kind, &item.name)
                        });
                        (Ok(items), more)
                    }
                    Err(error) => (Err(error), false),
                };
                Shelf { member, items, more }
            }
        };
        stream::iter(members.into_iter().map(ask)).buffered(AT_ONCE).collect().await
    }

    /// Has candidates compute a model's id. Ends a moment after the first one that knows it, so that a member that
    /// has to read its file first is not waited for. `progress` hears of the one that is furthest.
    pub async fn identify(
        &self,
        candidates: Vec<Candidate>,
        progress: impl Fn(&str, u64, u64),
    ) -> (Vec<Identified>, Vec<(String, SourceError)>) {
        let progress = &progress;
        let mut answers = stream::iter(candidates.into_iter().map(|candidate| async move {
            let asked = async {
                let mut line = Line::open(&*self.streams, candidate.node, self.config.timers).await?;
                let ask = Ask::Find { kind: Kind::Model, name: candidate.file.clone() };
                line.find(&ask, Kind::Model, self.config.hashing, |done, total| {
                    progress(&candidate.member, done, total);
                })
                .await
            };
            (asked.await, candidate)
        }))
        .buffer_unordered(SOURCES);
        let (mut known, mut lost) = (Vec::new(), Vec::new());
        let mut first: Option<tokio::time::Instant> = None;
        loop {
            let next = async {
                match first {
                    Some(at) => tokio::time::timeout_at(at + self.config.grace, answers.next()).await.ok(),
                    None => Some(answers.next().await),
                }
            };
            match next.await.flatten() {
                None => return (known, lost),
                Some((Ok((item, id)), candidate)) => {
                    first.get_or_insert_with(tokio::time::Instant::now);
                    let wanted = Wanted { id, size: item.size };
                    known.push(Identified { candidate, wanted, sha256: item.sha256 });
                }
                Some((Err(error), candidate)) => lost.push((candidate.member, error)),
            }
        }
    }

    /// Copies a model into a folder for unfinished files, from all candidates at once, at most eight. Returns where
    /// the whole file is, and its block hashes. Dropping the future stops the copy; another one goes on with what is
    /// there. There must be one copy of a file into a folder at a time.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn copy(
        &self,
        wanted: Wanted,
        mut candidates: Vec<Candidate>,
        folder: &Path,
        progress: watch::Sender<Copied>,
    ) -> Result<(PathBuf, Arc<Tree>), FetchError> {
        candidates.truncate(SOURCES);
        let base = copy::base(folder, wanted.id);
        self.check_space(wanted, folder, &base)?;
        let (config, streams) = (self.config, Arc::clone(&self.streams));
        copy::Copy { config, streams, wanted, candidates, base: &base, progress }.run().await
    }

    /// Throws away the unfinished copy of a model.
    pub fn discard(folder: &Path, id: BlobId) {
        partial::discard(&copy::base(folder, id));
    }

    fn check_space(&self, wanted: Wanted, folder: &Path, base: &Path) -> Result<(), FetchError> {
        // What is there of the file already takes its blocks on the disk, the rest of it does not.
        let there = std::fs::metadata(base.with_extension("part")).map_or(0, |meta| on_disk(&meta));
        let needed = wanted.size.saturating_sub(there);
        match free(folder) {
            Some(available) if needed.saturating_add(SPARE) > available => {
                Err(FetchError::DiskFull { path: folder.to_owned(), needed, available })
            }
            _ => Ok(()),
        }
    }

    /// The component of a policy with this id, from the first of these members that has the right bytes.
    ///
    /// # Errors
    /// [`FetchError::Lost`], with what became of each member.
    pub async fn component(&self, id: BlobId, members: &[Admitted]) -> Result<Vec<u8>, FetchError> {
        let ours = self.grants().unwrap_or_else(nothing);
        let mut why = Vec::new();
        for member in members.iter().filter(|member| may(&member.grants, &ours, Kind::Policy, "")) {
            match self.small(id, member).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => why.push((member.name.clone(), error)),
            }
        }
        Err(FetchError::Lost { completed: 0, why })
    }

    async fn small(&self, id: BlobId, member: &Admitted) -> Result<Vec<u8>, SourceError> {
        let kind = Kind::Policy;
        let mut line = Line::open(&*self.streams, member.node, self.config.timers).await?;
        let (item, _) = line.find(&Ask::Open { kind, id }, kind, self.config.timers.block, |_, _| {}).await?;
        let mut bytes = Vec::new();
        for index in 0..tree::blocks(item.size) {
            line.want(index).await?;
            let block = line.block(index).await?;
            if block.len() as u64 != tree::length(item.size, index) {
                return Err(SourceError::Lied("sent a block of another length"));
            }
            bytes.extend(block);
        }
        if Bytes::id(&bytes) != id {
            return Err(SourceError::Lied("sent bytes that are not those of the file"));
        }
        Ok(bytes)
    }
}

/// The grants of a machine that is in no pool.
fn nothing() -> Grants {
    Grants { serve: false, uses: false, relay: false, ..Grants::default() }
}

#[cfg(unix)]
fn on_disk(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta).saturating_mul(512)
}

#[cfg(not(unix))]
fn on_disk(meta: &std::fs::Metadata) -> u64 {
    meta.len()
}
