//! What replication needs of the memory.

use std::{fmt, sync::Arc};

use super::super::record::{Entry, NodeId, RecordId};
use super::{catalogue::Catalogue, runs::Runs, scope::Reach};
use crate::mesh::streams::BoxFuture;

/// An entry that another machine sent: its signature was checked, and its origin may write its project.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The entry.
    pub entry: Entry,
    /// What its origin may write: versions that it replaces or forgets must lie within.
    pub rights: Arc<Reach>,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on disk now, and in every index.
    Added,
    /// It was there already.
    Known,
    /// It cannot be taken yet: keep it and try again.
    Held(Hold),
    /// It will never be taken.
    Refused(Refusal),
}

/// Why an entry cannot be taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// It was written later than now.
    #[error("it was written {ahead_ms} ms ahead of this machine's clock: one of the two clocks is wrong")]
    Early {
        /// How far its stamp lies ahead, in milliseconds.
        ahead_ms: i64,
    },
    /// Its text is gone, and whoever had it erased is not known yet.
    #[error("its text is gone and the order to erase it has not come yet")]
    Hollow,
    /// What it replaces or belongs to is not here, so that it is open whether its origin may do that.
    #[error("what it refers to has not come yet")]
    Unplaced,
}

/// Why an entry is never taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its machine never was a member.
    #[error("its machine is no member of the pool and never was")]
    Stranger,
    /// It was written after its machine's membership ended.
    #[error("it was written after its machine ceased to be a member")]
    Late,
    /// Its machine may not write its project.
    #[error("its machine may not write {}", in_words(project.as_deref()))]
    Project {
        /// The project.
        project: Option<String>,
    },
    /// It would replace or forget something in a project that its machine may not write.
    #[error("it would change {target} in {}, which its machine may not write", in_words(project.as_deref()))]
    Target {
        /// What it names.
        target: RecordId,
        /// The project of that.
        project: Option<String>,
    },
    /// Another entry of the same machine and number is here.
    #[error("another entry with the same number is here: two machines use the same key")]
    Fork,
    /// Another version has the same id.
    #[error("another version has the id {id}")]
    Name {
        /// The id.
        id: RecordId,
    },
    /// Entries of too many machines are here.
    #[error("the memory has entries of {} machines already", super::catalogue::MAX_ORIGINS)]
    Crowd,
    /// A newer program wrote it.
    #[error("it is of a newer format: update potluck")]
    Newer,
}

fn in_words(project: Option<&str>) -> String {
    project.map_or_else(|| "what is in no project".into(), |name| format!("the project {name:?}"))
}

/// Why the memory cannot do what replication asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// It is closed.
    #[error("the memory is closed")]
    Closed,
    /// It could not read or write; nothing of the batch was kept unless it is reported as news.
    #[error("{0}")]
    Failed(String),
}

/// An entry as it goes over the wire, with its sequence.
pub type Raw = (u64, Vec<u8>);

/// The memory, as replication sees it.
pub trait Replica: Send + Sync + fmt::Debug {
    /// This machine.
    fn node(&self) -> NodeId;

    /// What is here. Kept up to date by [`Replica::apply`] and by every local write, once they are durable.
    fn catalogue(&self) -> &Arc<Catalogue>;

    /// Entries of a machine as bytes, in order: of those wanted as many as `budget` bytes hold, at least one. An entry
    /// that cannot be read is left out; the second value is the highest sequence that was looked at.
    ///
    /// # Errors
    /// Any [`ReplicaError`].
    fn read(
        &self,
        origin: NodeId,
        wanted: Runs,
        budget: usize,
    ) -> BoxFuture<'_, Result<(Vec<Raw>, u64), ReplicaError>>;

    /// Takes entries, in any order and however often: one verdict each. Those added are durable and found by recall
    /// when it returns; texts that a hard forget among them names are gone from the disk.
    ///
    /// # Errors
    /// Any [`ReplicaError`]; the entries may be given again.
    fn apply(&self, entries: Vec<Candidate>) -> BoxFuture<'_, Result<Vec<Verdict>, ReplicaError>>;

    /// The project of a version; the outer `None`: it is not here.
    fn project(&self, version: RecordId) -> Option<Option<String>>;

    /// Memories with two living versions that say different things.
    fn conflicts(&self) -> u64;

    /// The wall clock, in milliseconds since the Unix epoch.
    fn now(&self) -> i64;
}
