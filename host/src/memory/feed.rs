//! What replication hears of: the catalogue of all entries, kept once somebody asks for it, and whose vectors are still
//! to be expected from elsewhere.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use roaring::RoaringBitmap;

use super::{
    engine::Engine,
    record::{Entry, RecordId},
    sync::Catalogue,
};

/// How long a version of another machine waits for its vectors before they are computed here: longer than that machine
/// takes, and than a newcomer's snapshot.
const PATIENCE: Duration = Duration::from_secs(60);

/// What replication hears of.
#[derive(Debug, Default)]
pub(super) struct Feed {
    catalogue: OnceLock<Arc<Catalogue>>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<(Instant, RecordId)>,
    /// Versions that wait, by their ordinal once they have one.
    ordinals: HashMap<RecordId, Option<u32>>,
    bitmap: RoaringBitmap,
}

impl Feed {
    /// The catalogue, begun empty the first time.
    pub(super) fn catalogue(&self) -> &Arc<Catalogue> {
        self.catalogue.get_or_init(Arc::default)
    }

    /// Whether replication was ever asked for.
    pub(super) fn is_on(&self) -> bool {
        self.catalogue.get().is_some()
    }

    /// Notes entries that are durable and indexed.
    pub(super) fn note(&self, engine: &Engine, entries: &[Entry]) {
        let Some(catalogue) = self.catalogue.get().filter(|_| !entries.is_empty()) else { return };
        let state = engine.read();
        let mut waiting = self.lock();
        for entry in entries {
            let Some(ordinal) = state.table.ordinal(entry.version()) else { continue };
            match entry {
                Entry::Version(version) => waiting.arrived(version.header.id, ordinal),
                // Vectors that are of no use here are not worth waiting any longer.
                Entry::Vectors(vectors) => waiting.done(vectors.version),
            }
        }
        drop(waiting);
        catalogue.note(entries, |id| state.table.project(id).map(|project| project.map(str::to_owned)));
    }

    /// Versions whose vectors are to be expected from where they came.
    pub(super) fn spare(&self, versions: impl Iterator<Item = RecordId>) {
        let now = Instant::now();
        let mut waiting = self.lock();
        for id in versions {
            waiting.order.push_back((now, id));
            waiting.ordinals.insert(id, None);
        }
    }

    /// Ordinals of versions that must not be embedded yet.
    pub(super) fn spared(&self) -> RoaringBitmap {
        let mut waiting = self.lock();
        while let Some((_, id)) = waiting.order.pop_front_if(|(since, _)| since.elapsed() > PATIENCE) {
            waiting.done(id);
        }
        waiting.bitmap.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn arrived(&mut self, id: RecordId, ordinal: u32) {
        if let Some(place) = self.ordinals.get_mut(&id) {
            *place = Some(ordinal);
            self.bitmap.insert(ordinal);
        }
    }

    fn done(&mut self, id: RecordId) {
        if let Some(ordinal) = self.ordinals.remove(&id).flatten() {
            self.bitmap.remove(ordinal);
        }
    }
}
