//! What the owner is shown: peers, how far behind they are, and what is wrong.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::super::record::NodeId;
use super::replica::Refusal;

/// The most forks that are kept in mind.
const MAX_FORKS: usize = 64;
/// The most peers that are kept in mind.
const MAX_PEERS: usize = 2_048;

/// How replication stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This machine.
    pub node: NodeId,
    /// Machines that it replicates with, or would.
    pub peers: Vec<PeerStatus>,
    /// Memories with two living versions that say different things.
    pub conflicts: u64,
    /// Entries that cannot be taken yet, by the machine that wrote them.
    pub held: Vec<HeldStatus>,
    /// Keys that two machines use.
    pub forks: Vec<Fork>,
}

/// How replication with one machine stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The machine.
    pub node: NodeId,
    /// Its name in the pool.
    pub name: String,
    /// Where the stream with it stands.
    pub state: PeerState,
    /// Entries that it lacks and may read, those on their way included.
    pub lag_ops: u64,
    /// Milliseconds since the oldest of those on their way was sent.
    pub lag_ms: u64,
    /// Entries sent to it since the node started.
    pub sent: u64,
    /// Entries received from it since the node started.
    pub received: u64,
    /// Entries to come from it, counted when the stream was opened, and how many have come since.
    pub expected: u64,
    /// How many of those have come.
    pub arrived: u64,
    /// Entries from it that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// The last refusal in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_refusal: Option<String>,
    /// How far its clock is ahead of ours, in milliseconds, when the stream was opened.
    pub skew_ms: i64,
    /// Milliseconds until the next attempt, while there is no stream.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_ms: Option<u64>,
    /// When both sides last compared all they have, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audited_at: Option<i64>,
    /// Why the last stream with it ended, or could not be opened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
}

/// Where the stream with a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// There is none.
    #[default]
    Apart,
    /// It is being opened.
    Opening,
    /// Both sides bring each other up to date.
    CatchingUp,
    /// Each has all that the other may give it.
    InStep,
    /// It broke the rules and has to wait.
    Penalised,
}

/// Entries of a machine that cannot be taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// The machine that wrote them.
    pub origin: NodeId,
    /// How many.
    pub count: u64,
    /// Why the latest of them waits.
    pub reason: String,
}

/// A sign that two machines use the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The key.
    pub origin: NodeId,
    /// The number that two different entries have.
    pub sequence: u64,
    /// Who brought the second.
    pub carrier: NodeId,
    /// In words.
    pub reason: String,
}

/// Where sessions write down how they stand.
#[derive(Debug)]
pub(super) struct Board {
    node: NodeId,
    peers: Mutex<BTreeMap<NodeId, PeerStatus>>,
    forks: Mutex<Vec<Fork>>,
}

impl Board {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, peers: Mutex::default(), forks: Mutex::default() }
    }

    /// Changes what is known of a peer.
    pub(super) fn edit(&self, node: NodeId, change: impl FnOnce(&mut PeerStatus)) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&node) {
            return;
        }
        change(peers.entry(node).or_insert_with(|| PeerStatus::new(node)));
    }

    /// Counts a refusal of an entry that a peer brought.
    pub(super) fn refuse(&self, carrier: NodeId, origin: NodeId, sequence: u64, why: &Refusal) {
        tracing::warn!(%carrier, %origin, sequence, "an entry was refused: {why}");
        self.edit(carrier, |peer| {
            *peer.refused.entry(why.name().to_owned()).or_default() += 1;
            peer.last_refusal = Some(format!("entry {sequence} of {}: {why}", origin.short()));
        });
        if *why == Refusal::Fork {
            self.fork(carrier, origin, sequence);
        }
    }

    /// Notes that two machines use one key.
    pub(super) fn fork(&self, carrier: NodeId, origin: NodeId, sequence: u64) {
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        if forks.len() >= MAX_FORKS
            || forks.iter().any(|fork| (fork.origin, fork.sequence) == (origin, sequence))
        {
            return;
        }
        let whose = if origin == self.node { "the key of this machine" } else { "the key" };
        let reason = format!(
            "two machines use {whose} {}: entry {sequence} exists twice with different contents, and the one that was here \
             first stays; give one of the machines a new key",
            origin.short()
        );
        tracing::error!(%origin, sequence, %carrier, "{reason}");
        forks.push(Fork { origin, sequence, carrier, reason });
    }

    /// All peers and forks.
    pub(super) fn read(&self) -> (Vec<PeerStatus>, Vec<Fork>) {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        (peers, self.forks.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Forgets peers that are no members any more and that nothing is to be said of.
    pub(super) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|node, peer| keep(*node) || !peer.refused.is_empty());
    }
}

impl PeerStatus {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            name: String::new(),
            state: PeerState::Apart,
            lag_ops: 0,
            lag_ms: 0,
            sent: 0,
            received: 0,
            expected: 0,
            arrived: 0,
            refused: BTreeMap::new(),
            last_refusal: None,
            skew_ms: 0,
            retry_ms: None,
            audited_at: None,
            last_error: None,
        }
    }
}

impl Refusal {
    /// One word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Late => "late",
            Self::Project { .. } => "project",
            Self::Target { .. } => "target",
            Self::Fork => "fork",
            Self::Name { .. } => "name",
            Self::Crowd => "crowd",
            Self::Newer => "newer",
        }
    }
}
