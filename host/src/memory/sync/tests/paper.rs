//! A memory on paper: what survives a crash is a list of entries, everything else is made from it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::{
    identity::{NodeId, Signer},
    memory::{
        clock::Clock,
        merge,
        record::{Context, Draft, Entry, Forget, Millis, RecordId, Row, Vectors, Version},
        sync::{
            Candidate, Catalogue, Raw, Replica, ReplicaError, Runs, Verdict,
            judge::{Facts, Hollows, Judge},
        },
    },
    mesh::streams::BoxFuture,
};

/// Entries as bytes, by machine and number.
pub(super) type Entries = BTreeMap<(NodeId, u64), Vec<u8>>;

/// What survives.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(pub(super) Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct State {
    merge: merge::State,
    clock: Clock,
    projects: HashMap<RecordId, Option<String>>,
    places: HashMap<RecordId, Vec<(NodeId, u64)>>,
    hollows: Hollows,
}

#[derive(Debug)]
pub(super) struct Paper {
    pub(super) signer: Signer,
    disk: Disk,
    state: Mutex<State>,
    catalogue: Arc<Catalogue>,
    /// How far the wall clock is wrong, in milliseconds.
    pub(super) skew: AtomicI64,
    /// Entries that may still be written before the machine dies; negative: it does not.
    pub(super) dies_after: AtomicI64,
}

impl Paper {
    pub(super) fn open(seed: u8, disk: Disk, skew: i64) -> Arc<Self> {
        let paper = Self {
            signer: Signer::from_seed([seed; 32]),
            disk: disk.clone(),
            state: Mutex::default(),
            catalogue: Arc::default(),
            skew: AtomicI64::new(skew),
            dies_after: AtomicI64::new(-1),
        };
        let entries: Vec<Entry> =
            disk.0.lock().unwrap().values().map(|bytes| Entry::decode(bytes).unwrap()).collect();
        let mut state = paper.state.lock().unwrap();
        let last = entries.iter().map(Entry::stamp).max().unwrap_or_default();
        state.clock = Clock::starting_at(last);
        entries.iter().for_each(|entry| state.learn(entry));
        let doomed: Vec<RecordId> =
            state.projects.keys().copied().filter(|id| state.merge.is_doomed(*id)).collect();
        paper.erase(&mut state, &doomed);
        paper.catalogue.note(&entries, |id| state.projects.get(&id).cloned());
        drop(state);
        Arc::new(paper)
    }

    fn erase(&self, state: &mut State, doomed: &[RecordId]) {
        let mut disk = self.disk.0.lock().unwrap();
        for place in doomed.iter().flat_map(|id| state.places.get(id).cloned().unwrap_or_default()) {
            let Some(bytes) = disk.get_mut(&place) else { continue };
            let entry = Entry::decode(bytes).unwrap();
            let tombstone = matches!(&entry, Entry::Version(version) if version.header.is_tombstone());
            if !tombstone {
                *bytes = entry.erased().encode().unwrap();
            }
        }
    }

    /// Writes entries, and with them the effects of hard forgets.
    fn commit(&self, state: &mut State, entries: &[Entry]) -> Result<(), ReplicaError> {
        for (done, entry) in entries.iter().enumerate() {
            if self.dies_after.load(Ordering::SeqCst) == 0 {
                // Half a batch is on disk, and nobody knows.
                let _ = done;
                return Err(ReplicaError::Closed);
            }
            self.dies_after.fetch_sub(1, Ordering::SeqCst);
            let place = (entry.origin(), entry.sequence());
            let before = self.disk.0.lock().unwrap().insert(place, entry.encode().unwrap());
            assert!(before.is_none(), "an entry was written twice");
        }
        entries.iter().for_each(|entry| state.learn(entry));
        let mut doomed = Vec::new();
        for entry in entries {
            let Entry::Version(version) = entry else { continue };
            doomed.extend(version.header.supersedes.iter().copied().filter(|id| state.merge.is_doomed(*id)));
        }
        self.erase(state, &doomed);
        self.catalogue.note(entries, |id| state.projects.get(&id).cloned());
        Ok(())
    }

    fn context(&self, state: &mut State) -> Context {
        let stamp = state.clock.now(self.now());
        let sequence = self.catalogue.next(self.node());
        Context { id: RecordId::generate(Millis(stamp.wall_ms())), stamp, sequence }
    }

    pub(super) fn write(&self, draft: Draft) -> RecordId {
        self.try_write(draft).unwrap()
    }

    /// Fails when the machine dies before the write is acknowledged.
    pub(super) fn try_write(&self, draft: Draft) -> Result<RecordId, ReplicaError> {
        let mut state = self.state.lock().unwrap();
        let context = self.context(&mut state);
        let version = Version::seal(draft, context, &self.signer).unwrap();
        self.commit(&mut state, &[Entry::Version(Box::new(version))])?;
        Ok(context.id)
    }

    pub(super) fn say(&self, text: &str, project: Option<&str>) -> RecordId {
        self.write(Draft { content: text.into(), project: project.map(str::to_owned), ..Draft::default() })
    }

    pub(super) fn forget(&self, targets: Vec<RecordId>, hard: bool) -> Result<RecordId, ReplicaError> {
        let mut state = self.state.lock().unwrap();
        let project = state.projects.get(&targets[0]).cloned().flatten();
        let context = self.context(&mut state);
        let order = Forget { targets, reason: "test".into(), hard, project, source: None };
        let version = Version::forget(order, context, &self.signer).unwrap();
        self.commit(&mut state, &[Entry::Version(Box::new(version))])?;
        Ok(context.id)
    }

    pub(super) fn embed(&self, id: RecordId) -> Result<(), ReplicaError> {
        let mut state = self.state.lock().unwrap();
        let Context { stamp, sequence, .. } = self.context(&mut state);
        let rows = vec![Row { scale: 1.0, values: vec![1; 8] }];
        let vectors = Vectors::seal(id, ("m".into(), 8), rows, (stamp, sequence), &self.signer).unwrap();
        self.commit(&mut state, &[Entry::Vectors(Box::new(vectors))])
    }

    /// Puts an entry on the disk that another key signed or that is otherwise not ours to write.
    pub(super) fn smuggle(&self, entry: Entry) {
        let mut state = self.state.lock().unwrap();
        self.commit(&mut state, &[entry]).unwrap();
    }

    pub(super) fn live(&self) -> Vec<RecordId> {
        let state = self.state.lock().unwrap();
        let mut live: Vec<_> = state.merge.live().collect();
        live.sort_unstable();
        live
    }

    pub(super) fn conflict_list(&self) -> Vec<merge::Conflict> {
        self.state.lock().unwrap().merge.conflicts()
    }

    pub(super) fn has(&self, id: RecordId) -> bool {
        self.state.lock().unwrap().projects.contains_key(&id)
    }

    pub(super) fn entries(&self) -> Entries {
        self.disk.0.lock().unwrap().clone()
    }

    pub(super) fn text(&self, id: RecordId) -> Option<String> {
        let place = self.state.lock().unwrap().places.get(&id)?.first().copied()?;
        match Entry::decode(self.disk.0.lock().unwrap().get(&place)?).unwrap() {
            Entry::Version(version) => version.body,
            Entry::Vectors(_) => None,
        }
    }
}

impl State {
    fn learn(&mut self, entry: &Entry) {
        self.places.entry(entry.version()).or_default().push((entry.origin(), entry.sequence()));
        if let Entry::Version(version) = entry {
            self.merge.apply(&version.header);
            self.projects.insert(version.header.id, version.header.project.clone());
            // The version itself stands first, its embeddings follow.
            if let Some(places) = self.places.get_mut(&version.header.id) {
                places.rotate_right(1);
            }
        }
    }
}

struct Known<'a>(&'a State, &'a Catalogue);

impl Facts for Known<'_> {
    fn print(&self, origin: NodeId, sequence: u64) -> Option<u64> {
        self.1.print(origin, sequence)
    }

    fn project(&self, id: RecordId) -> Option<Option<String>> {
        self.0.projects.get(&id).cloned()
    }

    fn doomed(&self, id: RecordId) -> bool {
        self.0.merge.is_doomed(id)
    }
}

impl Replica for Paper {
    fn node(&self) -> NodeId {
        self.signer.node()
    }

    fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    fn read(
        &self,
        origin: NodeId,
        wanted: Runs,
        budget: usize,
    ) -> BoxFuture<'_, Result<(Vec<Raw>, u64), ReplicaError>> {
        Box::pin(async move {
            let disk = self.disk.0.lock().unwrap();
            let (mut found, mut bytes, mut upto) = (Vec::new(), 0, 0);
            for sequence in wanted.sequences() {
                if bytes >= budget {
                    break;
                }
                upto = sequence;
                if let Some(raw) = disk.get(&(origin, sequence)) {
                    bytes += raw.len();
                    found.push((sequence, raw.clone()));
                }
            }
            Ok((found, upto))
        })
    }

    fn apply(&self, entries: Vec<Candidate>) -> BoxFuture<'_, Result<Vec<Verdict>, ReplicaError>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            let mut hollows = std::mem::take(&mut state.hollows);
            let known = Known(&state, &self.catalogue);
            let mut judge = Judge::new(&known, &mut hollows, self.now());
            let (mut verdicts, mut good) = (Vec::new(), Vec::new());
            for candidate in entries {
                match judge.judge(candidate) {
                    Ok(entry) => {
                        verdicts.push(Verdict::Added);
                        good.push(entry);
                    }
                    Err(verdict) => verdicts.push(verdict),
                }
            }
            state.hollows = hollows;
            for entry in &good {
                let _ = state.clock.observe(entry.stamp(), self.now());
            }
            self.commit(&mut state, &good)?;
            Ok(verdicts)
        })
    }

    fn project(&self, version: RecordId) -> Option<Option<String>> {
        self.state.lock().unwrap().projects.get(&version).cloned()
    }

    fn conflicts(&self) -> u64 {
        self.state.lock().unwrap().merge.conflicts().len() as u64
    }

    fn now(&self) -> i64 {
        Millis::now().0 + self.skew.load(Ordering::SeqCst)
    }
}
