//! The one thread that writes: it groups what waits, appends it to the log with one flush, makes it findable, and
//! only then answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, mpsc},
};

use tokio::sync::oneshot;

use super::{
    MemoryError,
    digest::{Digested, digest},
    engine::{Engine, Pen},
    log::LogError,
    record::{
        Context, Digest, Draft, Entry, Forget, MAX_SUPERSEDES, Millis, NodeId, RecordId, Row, Vectors,
        Version, body_hash,
    },
    redact::Redaction,
    request::Remembered,
    sync::{Verdict, judge::Hollows},
    text::Analyzer,
};

mod receive;

pub(super) use receive::Received;

/// Entries that share a flush at most.
const GROUP: usize = 1_024;
/// Jobs that may wait.
pub(super) const QUEUE: usize = 256;

/// A draft that was checked, freed of secrets, and digested.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) draft: Draft,
    pub(super) digested: Digested,
    pub(super) redactions: Vec<Redaction>,
    pub(super) near: Vec<RecordId>,
}

type Answer<T> = oneshot::Sender<Result<T, MemoryError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Write drafts.
    Remember { drafts: Vec<Prepared>, answer: Answer<Vec<Remembered>> },
    /// Write a tombstone over these; erase their texts too when `hard`.
    Forget { targets: Vec<RecordId>, reason: String, hard: bool, answer: Answer<()> },
    /// Take entries of an export or of another machine, verified already; whether each was new.
    Restore { entries: Vec<Entry>, answer: Answer<Vec<bool>> },
    /// Take entries that other machines sent.
    Receive { entries: Vec<Received>, answer: Answer<Vec<Verdict>> },
    /// Erase texts whose tombstone is written.
    Erase { targets: Vec<RecordId>, answer: Answer<()> },
    /// Write vectors that were computed here.
    Embed { model: String, rows: Vec<(RecordId, Vec<Row>)>, answer: Answer<()> },
    /// Finish.
    Stop,
}

/// The next write's place in the log and in time.
struct Draw<'a> {
    pen: &'a mut Pen,
    next: u64,
    wall: Millis,
}

impl Draw<'_> {
    fn context(&mut self) -> Context {
        let stamp = self.pen.clock.now(self.wall.0);
        let sequence = self.next;
        self.next += 1;
        Context { id: RecordId::generate(Millis(stamp.wall_ms())), stamp, sequence }
    }
}

/// What is to be written for one task, and who waits for it.
struct Group {
    entries: Vec<Entry>,
    digests: Vec<Option<Digested>>,
    done: Vec<Done>,
}

enum Done {
    Remember(Vec<Remembered>, Answer<Vec<Remembered>>),
    Unit(Answer<()>),
    Restore(Vec<bool>, Answer<Vec<bool>>),
    Receive(Vec<Verdict>, Answer<Vec<Verdict>>),
}

impl Group {
    fn new() -> Self {
        Self { entries: Vec::new(), digests: Vec::new(), done: Vec::new() }
    }
}

/// Runs until it is told to stop or nobody can ask it any more.
pub(super) fn run(engine: &Arc<Engine>, mut pen: Pen, tasks: &mpsc::Receiver<Task>) {
    let mut analyzer = Analyzer::default();
    let mut last = None;
    let mut hollows = Hollows::default();
    while let Some(first) = last.take().or_else(|| tasks.recv().ok()) {
        let mut group = Group::new();
        let mut fresh = HashMap::new();
        let mut erase: Option<(Vec<RecordId>, Answer<()>)> = None;
        let mut next = Some(first);
        let mut stop = false;
        while let Some(task) = next.take() {
            match task {
                Task::Stop => stop = true,
                Task::Forget { targets, reason, hard: true, answer } => {
                    forget(engine, &mut pen, &mut group, &targets, &reason, true);
                    erase = Some((targets, answer));
                }
                Task::Forget { targets, reason, hard: false, answer } => {
                    forget(engine, &mut pen, &mut group, &targets, &reason, false);
                    group.done.push(Done::Unit(answer));
                }
                Task::Remember { drafts, answer } => {
                    remember(engine, &mut pen, &mut group, &mut fresh, drafts, answer);
                }
                Task::Restore { entries, answer } => {
                    restore(engine, &mut pen, &mut group, &mut analyzer, entries, answer);
                }
                Task::Receive { entries, answer } => {
                    // What came before may be the same entries: it is finished first.
                    commit(engine, &mut pen, std::mem::replace(&mut group, Group::new()));
                    fresh.clear();
                    receive::receive(engine, &mut pen, &mut hollows, entries, answer);
                }
                Task::Erase { targets, answer } => {
                    commit(engine, &mut pen, std::mem::replace(&mut group, Group::new()));
                    fresh.clear();
                    let _ = answer.send(erase_texts(engine, &mut pen, &targets));
                }
                Task::Embed { model, rows, answer } => {
                    embed(engine, &mut pen, &mut group, &model, rows);
                    group.done.push(Done::Unit(answer));
                }
            }
            // An erasure rewrites files, so what came before it is finished first.
            if !stop && erase.is_none() && group.entries.len() < GROUP {
                next = tasks.try_recv().ok();
            }
        }
        commit(engine, &mut pen, group);
        if let Some((targets, answer)) = erase {
            let _ = answer.send(erase_texts(engine, &mut pen, &targets));
        }
        if stop {
            break;
        }
    }
}

/// The next sequence of this machine: after the log's and after what the group has already.
fn draw<'a>(engine: &Engine, pen: &'a mut Pen, group: &Group) -> Draw<'a> {
    let mine = group.entries.iter().filter(|entry| entry.origin() == engine.node);
    let next =
        mine.map(|entry| entry.sequence() + 1).max().unwrap_or_else(|| pen.log.next_sequence(engine.node));
    Draw { pen, next, wall: Millis::now() }
}

fn remember(
    engine: &Engine,
    pen: &mut Pen,
    group: &mut Group,
    fresh: &mut HashMap<(Digest, Option<String>), RecordId>,
    drafts: Vec<Prepared>,
    answer: Answer<Vec<Remembered>>,
) {
    let mut answers = Vec::with_capacity(drafts.len());
    for prepared in drafts {
        let Prepared { draft, digested, redactions, near } = prepared;
        let key = (body_hash(&draft.content), draft.project.clone());
        let same =
            fresh.get(&key).copied().or_else(|| engine.read().table.same(key.0, draft.project.as_deref()));
        // Saying again what is known is no news, unless it is said in place of something else.
        if let Some(id) = same.filter(|id| draft.supersedes.iter().all(|old| old == id)) {
            answers.push(Remembered { id, duplicate_of: Some(id), near_duplicates: Vec::new(), redactions });
            continue;
        }
        let mut draw = draw(engine, pen, group);
        let context = draw.context();
        match Version::seal(draft, context, &pen.signer) {
            Ok(version) => {
                let id = version.header.id;
                fresh.insert(key, id);
                group.entries.push(Entry::Version(Box::new(version)));
                group.digests.push(Some(digested));
                answers.push(Remembered { id, duplicate_of: None, near_duplicates: near, redactions });
            }
            // Drafts were checked before they came here.
            Err(error) => {
                let _ = answer.send(Err(error.into()));
                return;
            }
        }
    }
    group.done.push(Done::Remember(answers, answer));
}

fn forget(engine: &Engine, pen: &mut Pen, group: &mut Group, targets: &[RecordId], reason: &str, hard: bool) {
    // A tombstone goes to whoever may read its project, so it names nothing of another one.
    let mut projects: BTreeMap<Option<String>, Vec<RecordId>> = BTreeMap::new();
    for id in targets {
        let project = engine.read().table.project(*id).flatten().map(str::to_owned);
        projects.entry(project).or_default().push(*id);
    }
    let orders = projects
        .iter()
        .flat_map(|(project, ids)| ids.chunks(MAX_SUPERSEDES).map(move |some| (project, some)));
    for (project, some) in orders {
        let project = project.clone();
        let order = Forget { targets: some.to_vec(), reason: reason.to_owned(), hard, project, source: None };
        let context = draw(engine, pen, group).context();
        if let Ok(version) = Version::forget(order, context, &pen.signer) {
            group.entries.push(Entry::Version(Box::new(version)));
            group.digests.push(Some(Digested::default()));
        }
    }
}

/// Removes texts and vectors from the log and the indexes, once their tombstone is written.
fn erase_texts(engine: &Engine, pen: &mut Pen, targets: &[RecordId]) -> Result<(), MemoryError> {
    engine.outdate()?;
    pen.log.erase(targets)?;
    let mut state = engine.write();
    let mut gone = Vec::new();
    for id in targets {
        let Some((ordinal, row)) = state.table.by_id(*id) else { continue };
        let (first, parts) = (row.first_span, row.parts);
        let spans = first..first + u32::from(parts.spans);
        if let Some(store) = &mut state.spans {
            spans.for_each(|span| {
                store.remove(span);
            });
        }
        if let Some(store) = &mut state.vectors {
            store.remove(ordinal);
        }
        state.marks.erase(ordinal, first, parts);
        state.table.erase(ordinal);
        gone.push(ordinal);
    }
    drop(state);
    engine.keyword().remove(&gone)?;
    Ok(())
}

fn restore(
    engine: &Engine,
    pen: &mut Pen,
    group: &mut Group,
    analyzer: &mut Analyzer,
    entries: Vec<Entry>,
    answer: Answer<Vec<bool>>,
) {
    let mut new = Vec::with_capacity(entries.len());
    let gaps = pen.log.gaps();
    let mut here: HashSet<(NodeId, u64)> =
        group.entries.iter().map(|entry| (entry.origin(), entry.sequence())).collect();
    for entry in entries {
        let (origin, sequence) = (entry.origin(), entry.sequence());
        let next = pen.log.next_sequence(origin);
        let gap = gaps.iter().any(|gap| gap.origin == origin && (gap.first..=gap.last).contains(&sequence));
        let known = sequence < next && !gap || !here.insert((origin, sequence));
        let early = pen.clock.observe(entry.stamp(), Millis::now().0).is_err();
        if known || early || knows(engine, &entry) {
            new.push(false);
            continue;
        }
        let ahead =
            here.iter().filter(|(of, _)| *of == origin).map(|(_, other)| *other + 1).max().unwrap_or(next);
        if sequence > next && ahead <= sequence + 1 {
            // An export may leave out what the log had (other projects): the gap can be filled later.
            pen.log.skip_to(origin, sequence);
        }
        let digested = match &entry {
            Entry::Version(version) => Some(digest(analyzer, version.body.as_deref().unwrap_or_default())),
            Entry::Vectors(_) => None,
        };
        group.entries.push(entry);
        group.digests.push(digested);
        new.push(true);
    }
    group.done.push(Done::Restore(new, answer));
}

/// Whether a version is in the log already, under whatever sequence.
fn knows(engine: &Engine, entry: &Entry) -> bool {
    match entry {
        Entry::Version(version) => engine.read().table.ordinal(version.header.id).is_some(),
        Entry::Vectors(_) => false,
    }
}

fn embed(engine: &Engine, pen: &mut Pen, group: &mut Group, model: &str, rows: Vec<(RecordId, Vec<Row>)>) {
    for (id, rows) in rows {
        let dims = rows.first().map_or(0, |row| u16::try_from(row.values.len()).unwrap_or(0));
        let Context { stamp, sequence, .. } = draw(engine, pen, group).context();
        let sealed = Vectors::seal(id, (model.to_owned(), dims), rows, (stamp, sequence), &pen.signer);
        if let Ok(vectors) = sealed {
            group.entries.push(Entry::Vectors(Box::new(vectors)));
            group.digests.push(None);
        }
    }
}

/// Appends, flushes, indexes, answers.
fn commit(engine: &Engine, pen: &mut Pen, group: Group) {
    let outcome =
        if group.entries.is_empty() { Ok(Vec::new()) } else { pen.log.append_sparse(&group.entries) };
    let places = match outcome {
        Ok(places) => places,
        Err(error) => return refuse(group.done, &error),
    };
    let mut arrived = Vec::new();
    {
        let mut state = engine.write();
        let mut bytes = 0;
        for ((entry, place), digested) in group.entries.iter().zip(places).zip(group.digests) {
            bytes += u64::from(place.len);
            match (entry, digested) {
                (Entry::Version(version), Some(digested)) => {
                    arrived.push((version.header.id, digested.parts));
                    state.add(version, place, &digested);
                }
                (Entry::Vectors(vectors), _) => state.embed(vectors),
                (Entry::Version(_), None) => {}
            }
        }
        engine.grew(bytes);
    }
    if let Err(error) = pen.arrivals.append(&arrived) {
        // The order is then made anew from the log at the next start.
        tracing::warn!(%error, "the order of arrival could not be written");
    }
    engine.feed.note(engine, &group.entries);
    for done in group.done {
        match done {
            Done::Receive(verdicts, answer) => {
                receive::erase_doomed(engine, pen, &group.entries);
                let _ = answer.send(Ok(verdicts));
            }
            Done::Remember(answers, answer) => drop(answer.send(Ok(answers))),
            Done::Unit(answer) => drop(answer.send(Ok(()))),
            Done::Restore(new, answer) => drop(answer.send(Ok(new))),
        }
    }
}

fn refuse(done: Vec<Done>, error: &LogError) {
    for done in done {
        let refusal = MemoryError::from_log(error);
        match done {
            Done::Receive(_, answer) => drop(answer.send(Err(refusal))),
            Done::Remember(_, answer) => drop(answer.send(Err(refusal))),
            Done::Unit(answer) => drop(answer.send(Err(refusal))),
            Done::Restore(_, answer) => drop(answer.send(Err(refusal))),
        }
    }
}
