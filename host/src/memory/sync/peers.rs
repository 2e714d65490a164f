//! With whom there is a stream, and when the next attempt is due.
//!
//! Of two machines the one with the smaller id opens the stream, so that there is one. A peer that cannot be reached is
//! tried again after growing pauses; one that broke the rules has to wait longer, also when it knocks itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    super::record::NodeId,
    message::PROTOCOL,
    session::{self, Common, End},
    status::PeerState,
};
use crate::mesh::streams::{Inbound, Incoming, Streams};

/// A stream that lived this long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(10);

/// A member with rights to the memory.
#[derive(Debug, Default)]
struct Peer {
    /// What runs for it.
    session: Option<(Id, AbortHandle)>,
    started: Option<Instant>,
    /// When to try next.
    due: Option<Instant>,
    failures: u32,
    offences: u32,
    /// Until when it is not listened to.
    penalised: Option<Instant>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Peers {
    common: Arc<Common>,
    streams: Arc<dyn Streams>,
    peers: BTreeMap<NodeId, Peer>,
    sessions: JoinSet<End>,
    /// Whose session a task is.
    tasks: BTreeMap<Id, NodeId>,
}

impl Peers {
    pub(super) fn new(common: Arc<Common>, streams: Arc<dyn Streams>) -> Self {
        Self { common, streams, peers: BTreeMap::new(), sessions: JoinSet::new(), tasks: BTreeMap::new() }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, mut incoming: Incoming) {
        let mut members = self.common.membership.watch();
        let mut stop = self.common.stop.subscribe();
        let mut retry = interval(self.common.options.retry);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.reconcile();
        loop {
            let due = self.peers.values().filter_map(|peer| peer.due).min();
            tokio::select! {
                biased;
                Ok(_) = stop.wait_for(|stop| *stop) => break,
                Ok(()) = members.changed() => {
                    members.mark_unchanged();
                    self.reconcile();
                }
                Some(ended) = self.sessions.join_next_with_id() => self.ended(ended),
                Some(inbound) = incoming.recv() => self.welcome(inbound),
                _ = retry.tick() => self.retry(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.dial(),
            }
        }
        // Sessions see the same signal, say goodbye and end.
        let farewell = async { while self.sessions.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
        self.sessions.shutdown().await;
    }

    /// Brings peers in line with who is a member.
    fn reconcile(&mut self) {
        let me = self.common.replica.node();
        let admitted = Arc::clone(&self.common.membership.watch().borrow());
        let allowed = |node: NodeId| node != me && self.common.reaches(node).is_some();
        let gone: Vec<NodeId> = self.peers.keys().copied().filter(|node| !allowed(*node)).collect();
        for node in gone {
            // At once: nothing that is under way is finished.
            if let Some((_, session)) = self.peers.remove(&node).and_then(|peer| peer.session) {
                session.abort();
            }
            self.common.board.edit(node, |status| {
                status.state = PeerState::Apart;
                status.retry_ms = None;
                status.last_error = Some("it may not replicate the memory (any more)".into());
            });
        }
        for member in admitted.iter().filter(|member| allowed(member.node)) {
            let peer = self.peers.entry(member.node).or_default();
            if peer.session.is_none() && peer.penalised.is_none() && me < member.node {
                peer.due.get_or_insert_with(Instant::now);
                // It has only just come: an old pause means nothing.
                if peer.failures > 0 {
                    (peer.due, peer.failures) = (Some(Instant::now()), 0);
                }
            }
            self.common.board.edit(member.node, |status| status.name.clone_from(&member.name));
        }
        let known = &self.peers;
        self.common.board.retain(|node| known.contains_key(&node));
        self.common.intake.unbar();
        self.common.changes.send_modify(|count| *count += 1);
    }

    /// Opens the streams that are due.
    fn dial(&mut self) {
        let now = Instant::now();
        let due: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.due.is_some_and(|due| due <= now))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            let (common, streams) = (Arc::clone(&self.common), Arc::clone(&self.streams));
            if let Some(peer) = self.peers.get_mut(&node) {
                (peer.due, peer.penalised) = (None, None);
            }
            common.board.edit(node, |status| (status.state, status.retry_ms) = (PeerState::Opening, None));
            self.start(node, async move {
                match streams.open(node, PROTOCOL).await {
                    Ok(stream) => session::run(common, node, stream).await,
                    Err(error) => End::Broken(error.to_string()),
                }
            });
        }
    }

    /// Takes a stream that another machine opened; one that it opened before is worth nothing any more.
    fn welcome(&mut self, inbound: Inbound) {
        let Inbound { peer: node, stream } = inbound;
        let now = Instant::now();
        let peer = self.peers.get(&node);
        let penalised = peer.and_then(|peer| peer.penalised).is_some_and(|until| until > now);
        // Who is admitted this very moment may not be in the list yet.
        let allowed = self.common.reaches(node).is_some();
        if !allowed || penalised || node >= self.common.replica.node() {
            tracing::debug!(%node, allowed, penalised, "a stream for the memory was not taken");
            return;
        }
        let common = Arc::clone(&self.common);
        self.start(node, session::run(common, node, stream));
    }

    fn start(&mut self, node: NodeId, session: impl Future<Output = End> + Send + 'static) {
        let task = self.sessions.spawn(session);
        self.tasks.insert(task.id(), node);
        let peer = self.peers.entry(node).or_default();
        peer.started = Some(Instant::now());
        if let Some((_, before)) = peer.session.replace((task.id(), task)) {
            before.abort();
        }
    }

    /// A session is over.
    fn ended(&mut self, ended: Result<(Id, End), JoinError>) {
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let Some(node) = self.tasks.remove(&id) else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.session.as_ref().is_none_or(|(current, _)| *current != id) {
            return;
        }
        peer.session = None;
        let reason = end.as_ref().map_or_else(|| "it failed".to_owned(), End::to_string);
        let offence = matches!(end, Some(End::Offence(_)));
        let options = self.common.options;
        if peer.started.is_some_and(|started| started.elapsed() >= GOOD) {
            peer.failures = 0;
        }
        let pause = if offence {
            peer.offences = peer.offences.saturating_add(1);
            grown(options.penalty, peer.offences, options.penalty_most)
        } else {
            peer.failures = peer.failures.saturating_add(1);
            grown(options.backoff, peer.failures, options.backoff_most)
        };
        let me = self.common.replica.node();
        let pause = pause.mul_f64(1.0 + jitter(me, node, peer.failures.wrapping_add(peer.offences)) / 4.0);
        let until = Instant::now() + pause;
        peer.penalised = offence.then_some(until);
        peer.due = (me < node).then_some(until);
        if offence {
            tracing::warn!(peer = %node, "replication stopped for {pause:?}: {reason}");
        } else {
            tracing::debug!(peer = %node, "the stream for the memory ended: {reason}");
        }
        self.common.board.edit(node, |status| {
            status.state = if offence { PeerState::Penalised } else { PeerState::Apart };
            status.retry_ms = Some(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            status.last_error = Some(reason);
        });
    }

    /// Tries what had to wait.
    fn retry(&mut self) {
        let intake = Arc::clone(&self.common.intake);
        // Without an own session: it counts as one that ended, and nobody waits for it.
        self.sessions.spawn(async move {
            if let Err(error) = intake.retry().await {
                tracing::warn!(%error, "entries that wait could not be tried");
            }
            End::Closed
        });
    }
}

/// A pause that doubles with each time.
fn grown(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.saturating_sub(1).min(16)).unwrap_or(u32::MAX)).min(most)
}

/// A number from 0 to 1 that differs between pairs and attempts, so that not all come back at once.
fn jitter(me: NodeId, peer: NodeId, attempt: u32) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&me.0).update(&peer.0).update(&attempt.to_le_bytes());
    let bits = hasher.finalize().as_bytes().first_chunk().copied().map_or(0, u32::from_le_bytes);
    f64::from(bits) / f64::from(u32::MAX)
}
