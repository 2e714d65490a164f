//! Copying one model from several sources at once.
//!
//! Each source has a task and a stream of its own; they share a plan of blocks. A block is checked before it is
//! kept, whoever sent it. A source that sends wrong bytes is not asked again; one that breaks off is, after a pause;
//! its blocks are fetched from the others meanwhile. When nothing has come from anybody for a while the copy ends, and
//! what is there stays for the next try.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, sleep, timeout},
};

use super::{
    Config, FetchError, SourceError, Wanted,
    line::Line,
    partial::Partial,
    plan::{Plan, Who},
};
use crate::{
    blob::{Kind, trees::Tree},
    identity::NodeId,
    mesh::{
        protocol::blob::{
            tree,
            wire::{Ask, BlobId},
        },
        streams::Streams,
    },
};

/// Blocks that a source is asked for ahead of the one that comes next.
const WINDOW: usize = 4;
/// How often a source with nothing to do looks for blocks that another one is late with.
const LOOK: Duration = Duration::from_millis(250);
/// A source with nothing to do says so often that it is still wanted.
const STAY: Duration = Duration::from_secs(5);

/// A member that may have the file, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The member.
    pub node: NodeId,
    /// Its name.
    pub member: String,
    /// What the file is called there.
    pub file: String,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes that are here and checked.
    pub completed: u64,
    /// Bytes in all.
    pub total: u64,
    /// Sources that bring blocks now.
    pub sources: usize,
}

/// What a copy is made of.
pub(super) struct Copy<'a> {
    pub(super) config: Config,
    pub(super) streams: Arc<dyn Streams>,
    pub(super) wanted: Wanted,
    pub(super) candidates: Vec<Candidate>,
    pub(super) base: &'a Path,
    pub(super) progress: watch::Sender<Copied>,
}

/// What the tasks of a copy share.
struct Shared {
    config: Config,
    streams: Arc<dyn Streams>,
    wanted: Wanted,
    plan: Mutex<Plan>,
    /// Rung when blocks came back, or the last one came.
    bell: Notify,
    partial: Partial,
    progress: watch::Sender<Copied>,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the work with one source ended.
enum Stop {
    /// All blocks are here.
    Whole,
    /// The source is of no more use.
    Source(SourceError),
    /// This machine cannot keep what comes.
    Disk(io::Error),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl Copy<'_> {
    /// Copies until the file is whole; returns where it is, and its hashes.
    pub(super) async fn run(self) -> Result<(PathBuf, Arc<Tree>), FetchError> {
        let (id, size) = (self.wanted.id, self.wanted.size);
        let base = self.base.to_owned();
        let kept = blocking({
            let base = base.clone();
            move || Ok(Partial::tree(&base, id, size))
        });
        let mut lost = Vec::new();
        let tree = match kept.await.map_err(|error| self.disk(&error))? {
            Some(tree) => Arc::new(tree),
            None => Arc::new(self.hashes(&mut lost).await?),
        };
        let opened = blocking({
            let tree = tree.clone();
            move || Partial::open(&base, tree)
        });
        let (partial, have) = opened.await.map_err(|error| self.disk(&error))?;
        let done =
            (0..).zip(&have).filter(|(_, have)| **have).map(|(index, _)| tree::length(size, index)).sum();
        self.progress.send_replace(Copied { completed: done, total: size, sources: 0 });
        let shared = Arc::new(Shared {
            config: self.config,
            streams: self.streams.clone(),
            wanted: self.wanted,
            plan: Mutex::new(Plan::new(have)),
            bell: Notify::new(),
            partial,
            progress: self.progress.clone(),
        });
        self.gather(&shared, lost).await?;
        let finish = blocking(move || shared.partial.finish());
        Ok((finish.await.map_err(|error| self.disk(&error))?, tree))
    }

    /// The block hashes, from the first source that has the right ones.
    async fn hashes(&self, lost: &mut Vec<(String, SourceError)>) -> Result<Tree, FetchError> {
        let Wanted { id, size } = self.wanted;
        if tree::blocks(size) == 1 {
            // The one block's hash is the file's.
            return Ok(Tree { size, id, hashes: vec![id.0] });
        }
        for candidate in &self.candidates {
            let asked = async {
                let mut line = meet(&self.streams, &self.config, candidate, self.wanted).await?;
                let hashes = line.hashes(size).await?;
                Tree::new(size, id, hashes).ok_or(SourceError::Lied("sent hashes of another file"))
            };
            match asked.await {
                Ok(tree) => return Ok(tree),
                Err(error) => {
                    tracing::warn!(member = candidate.member, %error, "no block hashes from there");
                    lost.push((candidate.member.clone(), error));
                }
            }
        }
        Err(FetchError::Lost { completed: 0, why: std::mem::take(lost) })
    }

    /// Runs all sources until the file is whole, or nothing comes any more.
    async fn gather(
        &self,
        shared: &Arc<Shared>,
        mut lost: Vec<(String, SourceError)>,
    ) -> Result<(), FetchError> {
        let mut tasks = JoinSet::new();
        for (who, candidate) in self.candidates.iter().enumerate() {
            // Who lied about the hashes will not be asked for bytes.
            let lied =
                |(member, error): &(String, SourceError)| *member == candidate.member && !error.passes();
            if !lost.iter().any(lied) {
                let (shared, candidate) = (shared.clone(), candidate.clone());
                tasks
                    .spawn(async move { (candidate.member.clone(), source(&shared, who, &candidate).await) });
            }
        }
        let mut progress = shared.progress.subscribe();
        let (mut came, mut last) = (Instant::now(), Instant::now());
        let mut looks = interval(self.config.patience / 8);
        loop {
            if shared.plan().is_done() {
                return Ok(());
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_ok() {
                    progress.borrow_and_update();
                    came = Instant::now();
                    last = came;
                },
                ended = tasks.join_next() => match ended {
                    Some(Ok((_, Stop::Whole))) => {}
                    Some(Ok((_, Stop::Disk(error)))) => return Err(self.disk(&error)),
                    Some(Ok((member, Stop::Source(error)))) => lost.push((member, error)),
                    Some(Err(_)) => {}
                    None => return Err(self.lost(shared, lost)),
                },
                _ = looks.tick() => {
                    if shared.progress.borrow().sources > 0 {
                        last = Instant::now();
                    }
                    if last.elapsed() < self.config.patience && came.elapsed() < self.config.stuck {
                        continue;
                    }
                    let silent = SourceError::Silent(self.config.patience);
                    if lost.is_empty() {
                        lost.extend(self.candidates.iter().map(|c| (c.member.clone(), silent.clone())));
                    }
                    return Err(self.lost(shared, lost));
                }
            }
        }
    }

    fn lost(&self, shared: &Shared, why: Vec<(String, SourceError)>) -> FetchError {
        FetchError::Lost { completed: shared.progress.borrow().completed, why }
    }

    fn disk(&self, error: &io::Error) -> FetchError {
        FetchError::of_disk(self.base, self.wanted.size, error)
    }
}

/// A stream that is about the file.
async fn meet(
    streams: &Arc<dyn Streams>,
    config: &Config,
    candidate: &Candidate,
    wanted: Wanted,
) -> Result<Line, SourceError> {
    let mut line = Line::open(&**streams, candidate.node, config.timers).await?;
    let ask = Ask::Find { kind: Kind::Model, name: candidate.file.clone() };
    let (item, id) = line.find(&ask, Kind::Model, config.hashing, |_, _| {}).await?;
    if (id, item.size) != (wanted.id, wanted.size) {
        return Err(SourceError::Lied("has another file under that name"));
    }
    Ok(line)
}

/// Works with one source, again and again while that makes sense.
async fn source(shared: &Arc<Shared>, who: Who, candidate: &Candidate) -> Stop {
    let mut pause = shared.config.again;
    loop {
        let mut brought = 0_u64;
        let end = bring(shared, who, candidate, &mut brought).await;
        shared.plan().give_up(who);
        shared.bell.notify_waiters();
        match end {
            Ok(()) => return Stop::Whole,
            Err(Stop::Source(error)) if error.passes() => {
                tracing::debug!(member = candidate.member, %error, "a source broke off");
                if brought > 0 {
                    pause = shared.config.again;
                }
            }
            Err(Stop::Source(error)) => {
                tracing::warn!(member = candidate.member, %error, "a source is not asked any more");
                return Stop::Source(error);
            }
            Err(stop) => return stop,
        }
        sleep(pause).await;
        pause = (pause * 2).min(shared.config.again_most);
    }
}

/// Counts a source while it brings blocks.
struct Active<'a>(&'a watch::Sender<Copied>);

impl<'a> Active<'a> {
    fn new(progress: &'a watch::Sender<Copied>) -> Self {
        // Not news of blocks: nobody is woken.
        progress.send_if_modified(|copied| {
            copied.sources += 1;
            false
        });
        Self(progress)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|copied| {
            copied.sources = copied.sources.saturating_sub(1);
            false
        });
    }
}

/// Fetches blocks over one stream until there are none left.
async fn bring(shared: &Arc<Shared>, who: Who, candidate: &Candidate, brought: &mut u64) -> Result<(), Stop> {
    let mut line = meet(&shared.streams, &shared.config, candidate, shared.wanted).await?;
    let _active = Active::new(&shared.progress);
    let mut ordered: VecDeque<u64> = VecDeque::new();
    let mut said = Instant::now();
    loop {
        // Registered before the plan is looked at, so that no bell in between is missed.
        let bell = shared.bell.notified();
        tokio::pin!(bell);
        bell.as_mut().enable();
        while ordered.len() < WINDOW {
            let taken = shared.plan().take(who, Instant::now());
            let Some(index) = taken else { break };
            line.want(index).await?;
            said = Instant::now();
            ordered.push_back(index);
        }
        let Some(index) = ordered.pop_front() else {
            if shared.plan().is_done() {
                return Ok(());
            }
            let _ = timeout(LOOK, bell).await;
            if said.elapsed() >= STAY {
                line.say(&Ask::Ping).await?;
                said = Instant::now();
            }
            continue;
        };
        let bytes = line.block(index).await?;
        // Another source was faster.
        if !shared.plan().has(index) {
            keep(shared, index, bytes).await?;
        }
        *brought += 1;
    }
}

/// Checks a block and writes it down.
async fn keep(shared: &Arc<Shared>, index: u64, bytes: Vec<u8>) -> Result<(), Stop> {
    let length = bytes.len() as u64;
    let keeper = Arc::clone(shared);
    let kept = blocking(move || keeper.partial.put(index, &bytes)).await;
    if !kept.map_err(Stop::Disk)? {
        return Err(Stop::Source(SourceError::Lied("sent bytes that are not those of the file")));
    }
    if shared.plan().done(index) {
        shared.progress.send_modify(|copied| copied.completed = copied.completed.saturating_add(length));
    }
    if shared.plan().is_done() {
        shared.bell.notify_waiters();
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The place of the unfinished copy of a file.
pub(super) fn base(folder: &Path, id: BlobId) -> PathBuf {
    folder.join(format!("blake3-{id}"))
}
