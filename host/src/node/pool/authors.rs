//! Who may have written what in the memory: members now, and former members while they were.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::task::JoinHandle;

use crate::{
    identity::NodeId,
    memory::{
        Millis,
        sync::{Author, Authors, Reach},
    },
    pool::trusted::{Membership, PoolHandle, roster::Standing},
};

/// How often the papers are looked through even when nobody came or went.
const LOOK: Duration = Duration::from_secs(2);

/// The roll of the pool as authors, kept up to date beside it.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    authors: Arc<RwLock<BTreeMap<NodeId, Author>>>,
    members: Arc<dyn Membership>,
}

impl Roll {
    pub(super) fn bind(handle: PoolHandle) -> (Self, JoinHandle<()>) {
        let roll = Self { authors: Arc::default(), members: handle.membership() };
        let task = tokio::spawn(roll.clone().follow(handle));
        (roll, task)
    }

    async fn follow(self, handle: PoolHandle) {
        let mut members = handle.watch();
        loop {
            let rows = handle.members().await.unwrap_or_default();
            let authors = rows.into_iter().map(|row| {
                let ended = row.ended.unwrap_or(row.expires);
                let until = (row.status != Standing::Member).then_some(Millis(ended));
                (row.id, Author { writes: Reach::writes(&row.grants.memory), until })
            });
            *self.authors.write().unwrap_or_else(PoisonError::into_inner) = authors.collect();
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, members.changed()).await {
                return;
            }
        }
    }
}

impl Authors for Roll {
    fn author(&self, origin: NodeId) -> Option<Author> {
        // Who is admitted may write from that moment on, whether the roll has been read again or not.
        if let Some(grants) = self.members.grants(origin) {
            return Some(Author { writes: Reach::writes(&grants.memory), until: None });
        }
        self.authors.read().unwrap_or_else(PoisonError::into_inner).get(&origin).cloned()
    }
}
