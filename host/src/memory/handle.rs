//! What stands behind [`Memory`](super::Memory): the threads, and each call's way through them.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, TrySendError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::{Notify, mpsc as channel, oneshot};

use crate::identity::Signer;

use super::{
    Briefing, Change, Draft, Embedder, Filter, ForgetRequest, Forgotten, Found, Item, Lane, MemoryError,
    RecallRequest, Recalled, RecordId, Remembered, Stats, Verifying,
    digest::digest,
    engine::{Engine, model_name},
    keeper, recall,
    redact::redact,
    reindex,
    request::{MAX_LIMIT, MAX_QUERY},
    show,
    text::Analyzer,
    writer::{self, Prepared, QUEUE, Task},
};

mod brief;
mod export;
mod near;
mod stats;

/// Most drafts or lines in one call.
const MOST: usize = 1_024;
/// Longest that a question waits for its vector before words alone answer it.
const PATIENCE: Duration = Duration::from_secs(3);

/// The memory and its threads.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) engine: Arc<Engine>,
    pub(super) tasks: mpsc::SyncSender<Task>,
    pub(super) wake: Arc<Notify>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Running>,
}

/// What runs until the memory is closed.
#[derive(Debug, Default)]
struct Running {
    threads: Vec<JoinHandle<()>>,
    embedding: Option<tokio::task::JoinHandle<()>>,
}

impl Inner {
    pub(super) async fn open(
        folder: PathBuf,
        signer: Signer,
        embedder: Arc<dyn Embedder>,
    ) -> Result<Self, MemoryError> {
        let (engine, pen) = blocking(move || Engine::open(&folder, signer, embedder)).await?;
        for repair in &engine.repairs {
            tracing::warn!("memory: {repair}");
        }
        let arrivals = pen.arrivals.handle().map_err(|error| MemoryError::io(&engine.folder, &error))?;
        let engine = Arc::new(engine);
        let (tasks, queue) = mpsc::sync_channel(QUEUE);
        let (wake, stop) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let writing = Arc::clone(&engine);
        let writer = spawn("memory-writer", move || writer::run(&writing, pen, &queue))?;
        let (keeping, stopping) = (Arc::clone(&engine), Arc::clone(&stop));
        let keeper = spawn("memory-keeper", move || keeper::run(&keeping, &arrivals, &stopping))?;
        let embedding = tokio::spawn(keeper::embed(Arc::clone(&engine), tasks.clone(), Arc::clone(&wake)));
        let threads = Mutex::new(Running { threads: vec![writer, keeper], embedding: Some(embedding) });
        Ok(Self { engine, tasks, wake, stop, threads })
    }

    pub(super) async fn close(&self) {
        let Running { threads, embedding } =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(embedding) = embedding {
            embedding.abort();
            let _ = embedding.await;
        }
        let (tasks, stop) = (self.tasks.clone(), Arc::clone(&self.stop));
        let _ = tokio::task::spawn_blocking(move || {
            let _ = tasks.send(Task::Stop);
            stop.store(true, Ordering::Release);
            for thread in threads {
                thread.thread().unpark();
                let _ = thread.join();
            }
        })
        .await;
    }

    fn send(&self, task: Task) -> Result<(), MemoryError> {
        self.tasks.try_send(task).map_err(|error| match error {
            TrySendError::Full(_) => MemoryError::Busy,
            TrySendError::Disconnected(_) => MemoryError::Closed,
        })
    }

    /// Has the writer do something and waits until it is on disk.
    async fn ask<T>(
        &self,
        task: impl FnOnce(oneshot::Sender<Result<T, MemoryError>>) -> Task,
    ) -> Result<T, MemoryError> {
        let (answer, done) = oneshot::channel();
        self.send(task(answer))?;
        let outcome = done.await.map_err(|_| MemoryError::Closed)?;
        self.wake.notify_one();
        outcome
    }

    pub(super) async fn remember(&self, draft: Draft) -> Result<Remembered, MemoryError> {
        let engine = Arc::clone(&self.engine);
        let prepared = blocking(move || {
            let mut prepared = prepare(draft, &mut Analyzer::default())?;
            prepared.near = near::find(&engine, &prepared);
            Ok(prepared)
        })
        .await?;
        self.audit(std::slice::from_ref(&prepared));
        let mut answers = self.ask(|answer| Task::Remember { drafts: vec![prepared], answer }).await?;
        answers.pop().ok_or(MemoryError::Closed)
    }

    pub(super) async fn remember_all(
        &self,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Result<Remembered, MemoryError>>, MemoryError> {
        at_most(drafts.len())?;
        let prepared = blocking(move || {
            let mut analyzer = Analyzer::default();
            Ok(drafts.into_iter().map(|draft| prepare(draft, &mut analyzer)).collect::<Vec<_>>())
        })
        .await?;
        let mut results = Vec::with_capacity(prepared.len());
        let mut drafts = Vec::new();
        for one in prepared {
            results.push(
                one.as_ref()
                    .err()
                    .map(|error| MemoryError::Invalid { field: "content", reason: error.to_string() }),
            );
            drafts.extend(one);
        }
        self.audit(&drafts);
        let mut answers = self.ask(|answer| Task::Remember { drafts, answer }).await?.into_iter();
        Ok(results
            .into_iter()
            .map(|refused| refused.map_or_else(|| answers.next().ok_or(MemoryError::Closed), Err))
            .collect())
    }

    /// Notes what kinds of secrets were removed, never what they were.
    fn audit(&self, drafts: &[Prepared]) {
        for redaction in drafts.iter().flat_map(|draft| &draft.redactions) {
            tracing::info!(kind = %redaction.kind, count = redaction.count, "a secret was removed from a memory");
            let mut state = self.engine.write();
            *state.redactions.entry(redaction.kind.to_string()).or_default() += redaction.count as u64;
        }
    }

    pub(super) async fn restore(
        &self,
        lines: Vec<Value>,
    ) -> Result<Vec<Result<bool, MemoryError>>, MemoryError> {
        at_most(lines.len())?;
        let entries = blocking(move || Ok(lines.into_iter().map(show::entry).collect::<Vec<_>>())).await?;
        let mut results = Vec::with_capacity(entries.len());
        let mut good = Vec::new();
        for entry in entries {
            results.push(
                entry
                    .as_ref()
                    .err()
                    .map(|error| MemoryError::Invalid { field: "line", reason: error.to_string() }),
            );
            good.extend(entry);
        }
        let mut new = self.ask(|answer| Task::Restore { entries: good, answer }).await?.into_iter();
        Ok(results
            .into_iter()
            .map(|refused| refused.map_or_else(|| new.next().ok_or(MemoryError::Closed), Err))
            .collect())
    }

    pub(super) async fn recall(&self, mut request: RecallRequest) -> Result<Recalled, MemoryError> {
        let started = Instant::now();
        if request.query.trim().is_empty() {
            return Err(MemoryError::Invalid {
                field: "query",
                reason: "it is empty; ask something, or use `recent`".into(),
            });
        }
        request.query.truncate(request.query.floor_char_boundary(MAX_QUERY));
        request.limit = Some(request.limit.unwrap_or(10).clamp(1, MAX_LIMIT));
        let (vector, note) = self.vector(&request.query).await;
        let embed_ms = started.elapsed().as_secs_f64() * 1e3;
        let embedder = vector.as_ref().and_then(|_| self.engine.read().model.clone());
        let engine = Arc::clone(&self.engine);
        let items = blocking(move || {
            let hits = recall::recall(&engine, &request, vector.as_deref())?;
            hits.into_iter()
                .map(|hit| {
                    let item = show::item(&engine, hit.ordinal)?;
                    Ok(Item { score: hit.score, explain: hit.explain, ..item })
                })
                .collect::<Result<Vec<_>, MemoryError>>()
        })
        .await?;
        let pending = self.engine.read().pending();
        let took_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Recalled { items, embedder, note, took_ms, embed_ms, pending })
    }

    /// The question's vector, or why there is none.
    async fn vector(&self, query: &str) -> (Option<Vec<f32>>, Option<String>) {
        let current = self.engine.embedder.model();
        let Some(model) = current else {
            return (
                None,
                Some(
                    "recall was by words alone: there is no embedder; `potluck pull embedder` fetches it"
                        .into(),
                ),
            );
        };
        if self.engine.read().model != Some(model_name(&model)) {
            return (None, Some("recall was by words alone: the embedder has only just been found".into()));
        }
        // What is only true when it is asked has no place among texts.
        let texts = vec![recall::question::Question::of(query).text.into_owned()];
        let found =
            tokio::time::timeout(PATIENCE, self.engine.embedder.embed(texts, Lane::Interactive)).await;
        match found {
            Ok(Ok(mut vectors)) => (vectors.pop(), None),
            Ok(Err(reason)) => (None, Some(format!("recall was by words alone: {reason}"))),
            Err(_) => (None, Some("recall was by words alone: the embedder took too long".into())),
        }
    }

    pub(super) async fn get(&self, id: RecordId, history: bool) -> Result<Found, MemoryError> {
        let engine = Arc::clone(&self.engine);
        blocking(move || {
            let (ordinal, lineage) = {
                let state = engine.read();
                let ordinal = state.table.ordinal(id).ok_or(MemoryError::NotFound { id })?;
                (ordinal, if history { state.table.lineage(ordinal) } else { Vec::new() })
            };
            let history =
                lineage.into_iter().map(|other| show::item(&engine, other)).collect::<Result<_, _>>()?;
            Ok(Found { item: show::item(&engine, ordinal)?, history })
        })
        .await
    }

    pub(super) async fn update(&self, id: RecordId, change: Change) -> Result<Remembered, MemoryError> {
        let engine = Arc::clone(&self.engine);
        let draft = blocking(move || change_of(&engine, id, change)).await?;
        self.remember(draft).await
    }

    pub(super) async fn forget(&self, request: ForgetRequest) -> Result<Forgotten, MemoryError> {
        let engine = Arc::clone(&self.engine);
        let (confirm, hard) = (request.confirm, request.hard);
        let reason = request.reason.clone().unwrap_or_else(|| "asked to".into());
        let (shown, targets) = blocking(move || targets(&engine, &request)).await?;
        let count = shown.len() as u64;
        if confirm && !targets.is_empty() {
            self.ask(|answer| Task::Forget { targets, reason, hard, answer }).await?;
        }
        let ids = shown.into_iter().take(MAX_LIMIT).collect();
        Ok(Forgotten { count, ids, dry_run: !confirm, hard })
    }

    pub(super) async fn recent(&self, filter: Filter, limit: usize) -> Result<Vec<Item>, MemoryError> {
        let engine = Arc::clone(&self.engine);
        blocking(move || brief::recent(&engine, &filter, limit.clamp(1, MAX_LIMIT))).await
    }

    pub(super) async fn context(
        &self,
        project: Option<String>,
        budget_tokens: usize,
    ) -> Result<Briefing, MemoryError> {
        let engine = Arc::clone(&self.engine);
        blocking(move || brief::brief(&engine, project, budget_tokens)).await
    }

    pub(super) async fn stats(&self) -> Result<Stats, MemoryError> {
        let engine = Arc::clone(&self.engine);
        blocking(move || Ok(stats::stats(&engine))).await
    }

    pub(super) fn export(
        &self,
        filter: Filter,
        vectors: bool,
    ) -> channel::Receiver<Result<Value, MemoryError>> {
        export::export(Arc::clone(&self.engine), filter, vectors)
    }

    pub(super) fn reindex(&self) -> channel::Receiver<Result<(u64, u64), MemoryError>> {
        reindex::reindex(Arc::clone(&self.engine))
    }

    pub(super) fn verify(&self) -> channel::Receiver<Result<Verifying, MemoryError>> {
        let (send, receive) = channel::channel(64);
        let reader = self.engine.reader.clone();
        tokio::task::spawn_blocking(move || {
            let step = |done, all| drop(send.blocking_send(Ok(Verifying::Files(done, all))));
            let outcome = reader.verify(step).map(Verifying::Done).map_err(MemoryError::from);
            let _ = send.blocking_send(outcome);
        });
        receive
    }
}

/// A draft without secrets, within all limits, and digested.
fn prepare(mut draft: Draft, analyzer: &mut Analyzer) -> Result<Prepared, MemoryError> {
    draft.check()?;
    let found = redact(&draft.content);
    let mut redactions = found.redactions;
    let text = found.text.into_owned();
    draft.content = text;
    for field in draft.tags.iter_mut().chain(&mut draft.project).chain(&mut draft.source) {
        let found = redact(field);
        redactions.extend(found.redactions);
        *field = found.text.into_owned();
    }
    draft.check()?;
    let digested = digest(analyzer, &draft.content);
    Ok(Prepared { draft, digested, redactions, near: Vec::new() })
}

/// The draft of a version that replaces another.
fn change_of(engine: &Engine, id: RecordId, change: Change) -> Result<Draft, MemoryError> {
    let (ordinal, copies) = {
        let state = engine.read();
        let (ordinal, _) = state.table.by_id(id).ok_or(MemoryError::NotFound { id })?;
        (ordinal, state.table.copies(ordinal))
    };
    let old = engine.version_of(ordinal)?;
    let header = old.header;
    let content = match (change.content, old.body) {
        (Some(content), _) => content,
        (None, Some(body)) => body,
        (None, None) => {
            return Err(MemoryError::Invalid {
                field: "content",
                reason: "the old text is gone; give a new one".into(),
            });
        }
    };
    let mut supersedes = change.supersedes;
    supersedes.push(id);
    supersedes.extend(copies);
    supersedes.sort_unstable();
    supersedes.dedup();
    Ok(Draft {
        content,
        kind: change.kind.unwrap_or(header.kind),
        project: change.project.or(header.project).filter(|name| !name.is_empty()),
        tags: change.tags.unwrap_or(header.tags),
        occurred_at: change.occurred_at.or(header.occurred_at),
        valid_until: change.valid_until.or(header.valid_until),
        supersedes,
        source: change.source.or(header.source),
    })
}

/// What is to be forgotten: the records as they are shown, and with them every copy and, when for good, every
/// earlier version.
fn targets(engine: &Engine, request: &ForgetRequest) -> Result<(Vec<RecordId>, Vec<RecordId>), MemoryError> {
    let state = engine.read();
    let table = &state.table;
    let mut ordinals = Vec::new();
    for id in &request.ids {
        ordinals.push(table.ordinal(*id).ok_or(MemoryError::NotFound { id: *id })?);
    }
    match &request.filter {
        Some(filter) if *filter == Filter::default() => {
            return Err(MemoryError::Invalid {
                field: "filter",
                reason: "it describes everything; name a project, kind, tag or time".into(),
            });
        }
        Some(filter) => {
            if let Some(known) = table.known(filter) {
                ordinals.extend(table.live().iter().filter(|ordinal| table.fits(*ordinal, &known)));
            }
        }
        None if request.ids.is_empty() => {
            return Err(MemoryError::Invalid {
                field: "ids",
                reason: "name what to forget by ids or by a filter".into(),
            });
        }
        None => {}
    }
    let mut all = Vec::new();
    for ordinal in &ordinals {
        if request.hard {
            let lineage = table.lineage(*ordinal);
            let rows = lineage.into_iter().filter_map(|other| table.row(other));
            all.extend(rows.filter(|row| !row.tombstone && !row.erased).map(|row| row.id));
        }
        all.extend(table.copies(*ordinal));
        all.extend(table.row(*ordinal).filter(|row| row.stands()).map(|row| row.id));
    }
    all.sort_unstable();
    all.dedup();
    let shown = ordinals.iter().filter_map(|ordinal| table.row(*ordinal)).map(|row| row.id).collect();
    Ok((shown, all))
}

fn at_most(count: usize) -> Result<(), MemoryError> {
    if count > MOST {
        return Err(MemoryError::Invalid {
            field: "batch",
            reason: format!("it has {count} objects and {MOST} fit"),
        });
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, MemoryError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| MemoryError::Failed { reason: format!("no thread could be started: {error}") })
}

/// Runs work that reads files or computes off the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MemoryError> + Send + 'static,
) -> Result<T, MemoryError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| MemoryError::Closed)?
}
