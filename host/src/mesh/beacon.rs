//! The beacon: how members on one local network find each other without telling anybody else that they are there.
//!
//! A small multicast packet, sealed under a key that only members know. To others it is random bytes of one of a
//! few sizes. It says which node sends it and where that node listens; all it can bring about is that this node
//! dials those addresses and finds out whether that member answers there.

mod packet;
mod sockets;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::identity::NodeId;
use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use crate::mesh::{address, handle::Gate, limits};
pub(crate) use packet::Beacon;
use sockets::Sockets;

/// The first so many beacons after something has changed ask for an answer.
const ASKING: u32 = 3;
/// Answers are sent at most this often.
const ANSWER_GAP: Duration = Duration::from_secs(1);
/// An answer waits up to so long, so that not all answer at once.
const ANSWER_JITTER: Duration = Duration::from_millis(200);

/// A beacon of a member that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) node: NodeId,
    pub(crate) addresses: Vec<Multiaddr>,
    /// Whether its clock agrees with ours. If not it may be an old one played again, or a machine with a wrong
    /// clock: its addresses are remembered, but nothing is hurried for it.
    pub(crate) fresh: bool,
}

/// Sends and hears beacons.
pub(crate) struct Lighthouse {
    me: NodeId,
    sockets: Sockets,
    gates: watch::Receiver<Gate>,
    addresses: watch::Receiver<Arc<Vec<Multiaddr>>>,
    sightings: mpsc::Sender<Sighting>,
    key: Option<[u8; 32]>,
    sent: u32,
    next: Instant,
    answered: Option<Instant>,
    /// The second that is being counted, and the packets opened in it.
    budget: (Instant, u32),
}

impl Lighthouse {
    pub(crate) fn new(
        me: NodeId,
        (port, loopback): (u16, bool),
        gates: watch::Receiver<Gate>,
        addresses: watch::Receiver<Arc<Vec<Multiaddr>>>,
        sightings: mpsc::Sender<Sighting>,
    ) -> Self {
        let now = Instant::now();
        let sockets = Sockets::open(port, loopback);
        Self {
            me,
            sockets,
            gates,
            addresses,
            sightings,
            key: None,
            sent: 0,
            next: now,
            answered: None,
            budget: (now, 0),
        }
    }

    /// Runs until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut buffer = vec![0; limits::BEACON_BYTES + 1];
        self.rekey();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.gates.changed() => match changed {
                    Ok(()) => self.rekey(),
                    Err(_) => return,
                },
                Ok(()) = self.addresses.changed() => self.start_anew(),
                received = self.sockets.receive(&mut buffer) => match received.and_then(|n| buffer.get(..n)) {
                    Some(packet) => {
                        let packet = packet.to_vec();
                        self.hear(&packet);
                    }
                    // Nothing to hear, or an error that would come again at once.
                    None => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                () = sleep_until(self.next.into()), if self.key.is_some() => self.send().await,
            }
        }
    }

    fn rekey(&mut self) {
        let key = self.gates.borrow_and_update().discovery;
        if key != self.key {
            self.key = key;
            self.start_anew();
        }
    }

    fn start_anew(&mut self) {
        self.sent = 0;
        self.next = Instant::now() + jitter(Duration::from_millis(100));
    }

    async fn send(&mut self) {
        let pause =
            if self.sent < limits::BEACON_EAGER { limits::BEACON_FIRST } else { limits::BEACON_LATER };
        self.next = Instant::now() + pause.mul_f64(0.8) + jitter(pause.mul_f64(0.4));
        let asks = self.sent < ASKING;
        self.sent = self.sent.saturating_add(1);
        let addresses = self.addresses.borrow().iter().map(address::bare).collect::<Vec<_>>();
        let direct = addresses.into_iter().filter(|address| !address::is_relayed(address));
        let direct = direct.take(limits::BEACON_ADDRESSES).collect();
        let beacon = Beacon { node: self.me, addresses: direct, time: crate::mesh::actor::unix_ms(), asks };
        let mut nonce = [0; packet::NONCE];
        let Some(key) = self.key.filter(|_| getrandom::fill(&mut nonce).is_ok()) else { return };
        if let Some(packet) = packet::seal(&key, &beacon, nonce) {
            self.sockets.send(&packet).await;
        }
    }

    fn hear(&mut self, packet: &[u8]) {
        let now = Instant::now();
        if now.duration_since(self.budget.0) >= Duration::from_secs(1) {
            self.budget = (now, 0);
        }
        self.budget.1 += 1;
        let Some(key) = self.key.filter(|_| self.budget.1 <= limits::BEACONS_PER_SECOND) else { return };
        let Some(beacon) = packet::open(&key, packet).filter(|beacon| beacon.node != self.me) else { return };
        let skew = u128::from(crate::mesh::actor::unix_ms().abs_diff(beacon.time));
        let fresh = skew <= limits::BEACON_SKEW.as_millis();
        if beacon.asks && fresh && self.answered.is_none_or(|at| now.duration_since(at) >= ANSWER_GAP) {
            self.answered = Some(now);
            self.next = self.next.min(now + jitter(ANSWER_JITTER));
        }
        let sighting = Sighting { node: beacon.node, addresses: beacon.addresses, fresh };
        // A full queue means that the actor is busy; another beacon will come.
        let _ = self.sightings.try_send(sighting);
    }
}

fn jitter(most: Duration) -> Duration {
    crate::mesh::actor::jitter(most)
}
