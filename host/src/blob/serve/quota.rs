//! How many streams members may have.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ServeConfig;
use crate::identity::NodeId;

/// Further streams of all members that are only told to come back later.
const REFUSALS: usize = 64;

/// The streams of all members.
#[derive(Debug)]
pub(super) struct Quota {
    config: ServeConfig,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    members: HashMap<NodeId, usize>,
    all: usize,
    refusals: usize,
}

/// The place of a stream. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Slot {
    quota: Arc<Quota>,
    peer: NodeId,
    /// Whether its questions are answered; else it is told that there are too many.
    pub(super) served: bool,
}

impl Quota {
    pub(super) fn new(config: ServeConfig) -> Self {
        Self { config, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Streams that are served now.
    pub(super) fn open(&self) -> usize {
        self.lock().all
    }

    /// A place for a stream; `None` when it is one of far too many.
    pub(super) fn enter(self: &Arc<Self>, peer: NodeId) -> Option<Slot> {
        let mut open = self.lock();
        let own = open.members.get(&peer).copied().unwrap_or_default();
        let served = own < self.config.streams_per_member && open.all < self.config.streams;
        if served {
            open.all += 1;
            *open.members.entry(peer).or_default() += 1;
        } else if open.refusals < REFUSALS {
            open.refusals += 1;
        } else {
            return None;
        }
        drop(open);
        Some(Slot { quota: Arc::clone(self), peer, served })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.quota.lock();
        if !self.served {
            open.refusals = open.refusals.saturating_sub(1);
            return;
        }
        open.all = open.all.saturating_sub(1);
        if let Some(own) = open.members.get_mut(&self.peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.members.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places() {
        let config = ServeConfig { streams: 3, streams_per_member: 2, ..ServeConfig::default() };
        let quota = Arc::new(Quota::new(config));
        let enter = |n: u8| quota.enter(NodeId([n; 32]));
        let first: Vec<_> = (0..3).map(|_| enter(1).unwrap()).collect();
        assert_eq!(first.iter().map(|slot| slot.served).collect::<Vec<_>>(), [true, true, false]);
        let second = enter(2).unwrap();
        assert!(second.served && !enter(3).unwrap().served, "all places are taken");
        drop(first);
        assert!(enter(3).unwrap().served);
        assert_eq!(quota.open(), 1);
        let held: Vec<_> = (0..REFUSALS + 2).map_while(|_| enter(2)).collect();
        assert_eq!(held.len(), REFUSALS + 1);
    }
}
