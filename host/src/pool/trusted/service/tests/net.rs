//! Machines in one process: streams are pipes that can be cut, clocks are numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::super::super::{
    clock::{Clock, Millis, Random},
    exchange::ROSTER,
    join::{JOIN, JoinError},
    papers::{Hardness, Invite},
    roster::{JoinRefusal, Standing},
};
use super::super::*;
use crate::{
    identity::{NodeId, Signer},
    mesh::streams::{BoxFuture, Inbound, OpenError, Stream, Streams},
};

pub(super) const START: Millis = 1_800_000_000_000;

#[derive(Debug)]
pub(super) struct TestClock(pub(super) Arc<AtomicI64>, pub(super) AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst) + self.1.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
pub(super) struct TestRandom(u8, AtomicU64);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        let count = self.1.fetch_add(1, Ordering::SeqCst);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[self.0]).update(&count.to_le_bytes());
        hasher.finalize_xof().fill(bytes);
        Ok(())
    }
}

type Ends = (mpsc::Sender<Inbound>, mpsc::Sender<Inbound>, mpsc::Sender<PeerEvent>);

#[derive(Debug, Default)]
pub(super) struct Wires {
    ends: BTreeMap<u8, (NodeId, Ends)>,
    pub(super) links: BTreeSet<(u8, u8)>,
    cables: Vec<((u8, u8), AbortHandle)>,
}

#[derive(Debug, Clone)]
pub(super) struct Net {
    pub(super) wires: Arc<Mutex<Wires>>,
    pub(super) wall: Arc<AtomicI64>,
    boots: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Port {
    me: u8,
    node: NodeId,
    wires: Arc<Mutex<Wires>>,
}

fn pair(a: u8, b: u8) -> (u8, u8) {
    (a.min(b), a.max(b))
}

/// Two ends of a pipe that a task joins: cut when that is aborted.
fn cable() -> (Stream, Stream, AbortHandle) {
    let (left, mut a) = tokio::io::duplex(64 << 10);
    let (right, mut b) = tokio::io::duplex(64 << 10);
    let task = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut a, &mut b).await;
    });
    (Box::new(left), Box::new(right), task.abort_handle())
}

impl Streams for Port {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(async move {
            let far = || OpenError::Unreachable { peer, reason: "no wire".into() };
            let (queue, stream, inbound) = {
                let mut wires = self.wires.lock().unwrap();
                // Several ends may have one key: any of those that are wired.
                let to = wires
                    .ends
                    .iter()
                    .filter(|(_, (node, _))| *node == peer)
                    .map(|(end, _)| *end)
                    .find(|end| wires.links.contains(&pair(self.me, *end)))
                    .ok_or_else(far)?;
                let (_, (joins, rosters, _)) = wires.ends[&to].clone();
                let (stream, other, abort) = cable();
                wires.cables.push((pair(self.me, to), abort));
                let queue = if protocol == JOIN { joins } else { rosters };
                (queue, stream, Inbound { peer: self.node, stream: other })
            };
            queue.try_send(inbound).map_err(|_| OpenError::Refused { peer, protocol: ROSTER })?;
            Ok(stream)
        })
    }
}

pub(super) struct Machine {
    pub(super) end: u8,
    pub(super) key: u8,
    pub(super) pool: TrustedPool,
    pub(super) handle: PoolHandle,
    pub(super) clock: Arc<TestClock>,
    pub(super) dir: Arc<TempDir>,
}

pub(super) fn signer(key: u8) -> Signer {
    Signer::from_seed([key; 32])
}

pub(super) fn id(key: u8) -> NodeId {
    signer(key).node()
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            wires: Arc::default(),
            wall: Arc::new(AtomicI64::new(START)),
            boots: Arc::new(AtomicU64::new(0)),
        }
    }

    pub(super) async fn machine(&self, end: u8) -> Machine {
        self.start(end, end, Arc::new(tempfile::tempdir().unwrap())).await
    }

    pub(super) async fn start(&self, end: u8, key: u8, dir: Arc<TempDir>) -> Machine {
        let (join_tx, joins) = mpsc::channel(64);
        let (roster_tx, rosters) = mpsc::channel(64);
        let (event_tx, events) = mpsc::channel(64);
        let clock = Arc::new(TestClock(Arc::clone(&self.wall), AtomicI64::new(0)));
        let node = id(key);
        self.wires.lock().unwrap().ends.insert(end, (node, (join_tx, roster_tx, event_tx)));
        let mut settings = Settings::new(dir.path().join("pool"), format!("box{end}"));
        settings.tick = Duration::from_millis(50);
        settings.hardness = Hardness { memory: 64, rounds: 1 };
        let run = self.boots.fetch_add(1, Ordering::SeqCst);
        let parts = Parts {
            signer: signer(key),
            streams: Arc::new(Port { me: end, node, wires: Arc::clone(&self.wires) }),
            joins,
            rosters,
            events,
            addresses: watch::channel(Arc::new(vec![format!("/ip4/10.0.0.{end}/udp/7685/quic-v1")])).1,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::new(TestRandom(end, AtomicU64::new(run << 32))),
        };
        let pool = TrustedPool::bind(settings, parts).await.unwrap();
        let handle = pool.handle();
        Machine { end, key, pool, handle, clock, dir }
    }

    /// Stops a machine as a crash would, and starts it again.
    pub(super) async fn restart(&self, machine: Machine) -> Machine {
        let (end, key, dir) = (machine.end, machine.key, Arc::clone(&machine.dir));
        let skew = machine.clock.1.load(Ordering::SeqCst);
        let links: Vec<_> = self.wires.lock().unwrap().links.clone().into_iter().collect();
        for (a, b) in links {
            if a == end || b == end {
                self.disconnect(a, b).await;
            }
        }
        machine.pool.shutdown().await;
        let fresh = self.start(end, key, dir).await;
        fresh.clock.1.store(skew, Ordering::SeqCst);
        fresh
    }

    fn tell(&self, end: u8, event: PeerEvent) -> impl Future<Output = ()> + use<> {
        let sender = self.wires.lock().unwrap().ends.get(&end).map(|(_, ends)| ends.2.clone());
        async move {
            if let Some(sender) = sender {
                let _ = sender.send(event).await;
            }
        }
    }

    fn node(&self, end: u8) -> NodeId {
        self.wires.lock().unwrap().ends[&end].0
    }

    pub(super) async fn connect(&self, a: u8, b: u8) {
        if !self.wires.lock().unwrap().links.insert(pair(a, b)) {
            return;
        }
        for (end, other) in [(a, b), (b, a)] {
            let path = "direct".to_owned();
            self.tell(end, PeerEvent::Connected { node: self.node(other), path }).await;
        }
    }

    pub(super) async fn disconnect(&self, a: u8, b: u8) {
        {
            let mut wires = self.wires.lock().unwrap();
            if !wires.links.remove(&pair(a, b)) {
                return;
            }
            wires.cables.retain(|(ends, abort)| {
                if *ends == pair(a, b) {
                    abort.abort();
                }
                *ends != pair(a, b)
            });
        }
        for (end, other) in [(a, b), (b, a)] {
            self.tell(end, PeerEvent::Disconnected { node: self.node(other) }).await;
        }
    }

    /// A stream of the join protocol, as the mesh makes one for the holder of an invite.
    pub(super) fn knock(&self, invite: &Invite, at: u8) -> Stream {
        let (stream, other, _) = cable();
        let joins = self.wires.lock().unwrap().ends[&at].1.0.clone();
        joins.try_send(Inbound { peer: invite.key().node(), stream: other }).unwrap();
        stream
    }

    /// A stream of any protocol that the holder of any key opens.
    pub(super) fn raw(&self, protocol: &'static str, peer: NodeId, at: u8) -> Stream {
        let (stream, other, _) = cable();
        let ends = self.wires.lock().unwrap().ends[&at].1.clone();
        let queue = if protocol == JOIN { ends.0 } else { ends.1 };
        queue.try_send(Inbound { peer, stream: other }).unwrap();
        stream
    }

    pub(super) async fn join(&self, machine: &Machine, text: &str, at: u8) -> Result<MemberRow, PoolError> {
        let invite = Invite::parse(text).unwrap();
        let mut stream = self.knock(&invite, at);
        machine.handle.join(&invite, &mut stream, None).await
    }

    pub(super) fn pass(&self, ms: Millis) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Machine {
    pub(super) async fn standing(&self, key: u8) -> Option<Standing> {
        let rows = self.handle.members().await.ok()?;
        rows.into_iter().find(|row| row.id == id(key)).map(|row| row.status)
    }

    pub(super) fn admits(&self, key: u8) -> bool {
        self.handle.grants(id(key)).is_some()
    }

    pub(super) async fn problems(&self) -> String {
        let problems = self.handle.status().await.unwrap().problems;
        problems.into_iter().map(|problem| problem.what + "\n").collect()
    }
}

/// Waits, in virtual time, until something holds.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// The refusal that joining met.
pub(super) fn refusal(error: PoolError) -> JoinRefusal {
    match error {
        PoolError::Join(JoinError::Refused(refusal)) => refusal,
        other => panic!("{other}"),
    }
}
