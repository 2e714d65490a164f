//! The memory as replication sees it.

use std::{
    ops::ControlFlow,
    sync::{Arc, mpsc::TrySendError},
};

use tokio::sync::oneshot;

use super::{
    MemoryError,
    engine::Engine,
    handle::{Inner, blocking},
    record::{Millis, NodeId, RecordId},
    sync::{Candidate, Catalogue, Raw, Replica, ReplicaError, Runs, Verdict},
    text::Analyzer,
    writer::{Received, Task},
};
use crate::mesh::streams::BoxFuture;

/// Entries of the log that are noted at once.
const CHUNK: usize = 4_096;
/// Entries that are read on the runtime's own thread: just written, they are still in memory.
const FEW: u64 = 8;
/// Entries that are digested on the runtime's own thread.
const FEW_TEXTS: usize = 2;

/// The memory as replication sees it.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Arc<Inner>,
}

impl Shared {
    /// Makes the catalogue, unless it is there, and finishes erasures that were cut short.
    pub(super) async fn of(inner: Arc<Inner>) -> Result<Self, MemoryError> {
        if !inner.engine.feed.is_on() {
            // From here on new entries are noted as they are written; the others are read from the log.
            inner.engine.feed.catalogue();
            let engine = Arc::clone(&inner.engine);
            blocking(move || scan(&engine)).await?;
            let overdue = inner.engine.read().table.overdue();
            if !overdue.is_empty() {
                let (answer, done) = oneshot::channel();
                inner.queue(Task::Erase { targets: overdue, answer }).await?;
                done.await.map_err(|_| MemoryError::Closed)??;
            }
        }
        Ok(Self { inner })
    }
}

/// Notes all that is in the log.
fn scan(engine: &Engine) -> Result<(), MemoryError> {
    let mut entries = Vec::with_capacity(CHUNK);
    engine.reader.for_each(None, 0, |_, entry| {
        // Its text is of no interest, and would be a lot.
        entries.push(entry.erased());
        if entries.len() >= CHUNK {
            engine.feed.note(engine, &entries);
            entries.clear();
        }
        ControlFlow::Continue(())
    })?;
    engine.feed.note(engine, &entries);
    Ok(())
}

impl Inner {
    /// Has the writer do something, and waits for a place in its queue where there is none.
    async fn queue(&self, task: Task) -> Result<(), MemoryError> {
        match self.tasks.try_send(task) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(MemoryError::Closed),
            Err(TrySendError::Full(task)) => {
                let tasks = self.tasks.clone();
                blocking(move || tasks.send(task).map_err(|_| MemoryError::Closed)).await
            }
        }
    }
}

fn failed(error: MemoryError) -> ReplicaError {
    match error {
        MemoryError::Closed => ReplicaError::Closed,
        error => ReplicaError::Failed(error.to_string()),
    }
}

/// Reads entries as bytes, up to a budget.
fn read(
    engine: &Engine,
    origin: NodeId,
    wanted: &Runs,
    budget: usize,
) -> Result<(Vec<Raw>, u64), MemoryError> {
    let last = wanted.next().saturating_sub(1);
    let Some(first) = wanted.iter().next().map(|run| run.first) else { return Ok((Vec::new(), 0)) };
    let (mut found, mut bytes, mut upto) = (Vec::new(), 0, last);
    engine.reader.for_each(Some(origin), first, |_, entry| {
        let sequence = entry.sequence();
        if sequence > last {
            return ControlFlow::Break(());
        }
        if wanted.contains(sequence) {
            // An entry that was read has an encoding.
            if let Ok(raw) = entry.encode() {
                bytes += raw.len();
                found.push((sequence, raw));
            }
        }
        if bytes >= budget {
            upto = sequence;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, upto))
}

fn digest_all(entries: Vec<Candidate>) -> Vec<Received> {
    let mut analyzer = Analyzer::default();
    entries.into_iter().map(|candidate| Received::new(candidate, &mut analyzer)).collect()
}

impl Replica for Shared {
    fn node(&self) -> NodeId {
        self.inner.engine.node
    }

    fn catalogue(&self) -> &Arc<Catalogue> {
        self.inner.engine.feed.catalogue()
    }

    fn read(
        &self,
        origin: NodeId,
        wanted: Runs,
        budget: usize,
    ) -> BoxFuture<'_, Result<(Vec<Raw>, u64), ReplicaError>> {
        let engine = Arc::clone(&self.inner.engine);
        Box::pin(async move {
            if wanted.len() <= FEW {
                return read(&engine, origin, &wanted, budget).map_err(failed);
            }
            blocking(move || read(&engine, origin, &wanted, budget)).await.map_err(failed)
        })
    }

    fn apply(&self, entries: Vec<Candidate>) -> BoxFuture<'_, Result<Vec<Verdict>, ReplicaError>> {
        Box::pin(async move {
            let entries = if entries.len() <= FEW_TEXTS {
                digest_all(entries)
            } else {
                blocking(move || Ok(digest_all(entries))).await.map_err(failed)?
            };
            let (answer, done) = oneshot::channel();
            self.inner.queue(Task::Receive { entries, answer }).await.map_err(failed)?;
            let verdicts = done.await.map_err(|_| ReplicaError::Closed)?.map_err(failed)?;
            self.inner.wake.notify_one();
            Ok(verdicts)
        })
    }

    fn project(&self, version: RecordId) -> Option<Option<String>> {
        let state = self.inner.engine.read();
        state.table.project(version).map(|project| project.map(str::to_owned))
    }

    fn conflicts(&self) -> u64 {
        self.inner.engine.read().table.conflicts_in_all()
    }

    fn now(&self) -> i64 {
        Millis::now().0
    }
}
