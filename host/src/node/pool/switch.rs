//! The mesh as it is needed: it listens while this machine is in a pool, and not before.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dispatch::pool::routing::Distances,
    identity::NodeId,
    mesh::{
        Config, Gate, Link, Mesh, MeshHandle,
        streams::{BoxFuture, Inbound, Incoming, OpenError, Stream, Streams},
    },
    pool::trusted::service::{GateView, PeerEvent},
};

/// Streams of one protocol that wait to be taken.
const QUEUE: usize = 64;
/// Connections that came or went and are not dealt with yet.
const EVENTS: usize = 256;
/// Pause before a mesh that could not start is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// What the others are told when this machine leaves gets this time to reach them.
const FAREWELL: Duration = Duration::from_millis(1_500);

type Links = BTreeMap<NodeId, Link>;

/// Starts and ends the mesh as the pool's gate opens and closes.
pub(crate) struct Switch {
    config: Config,
    seed: [u8; 32],
    doors: Vec<(&'static str, mpsc::Sender<Inbound>)>,
    events: mpsc::Sender<PeerEvent>,
    up: watch::Sender<Option<MeshHandle>>,
    addresses: watch::Sender<Arc<Vec<String>>>,
    links: watch::Sender<Arc<Links>>,
    trouble: Mutex<Option<String>>,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch").field("up", &self.up.borrow().is_some()).finish_non_exhaustive()
    }
}

/// What comes out of a switch.
#[derive(Debug)]
pub(crate) struct Outlets<const N: usize> {
    pub(crate) incoming: [Incoming; N],
    pub(crate) events: mpsc::Receiver<PeerEvent>,
    pub(crate) addresses: watch::Receiver<Arc<Vec<String>>>,
}

impl Distances for Switch {
    fn round_trip(&self, node: NodeId) -> Option<Duration> {
        self.links.borrow().get(&node)?.rtt
    }
}

impl Switch {
    /// A switch for these protocols.
    pub(crate) fn new<const N: usize>(
        config: Config,
        seed: [u8; 32],
        protocols: [&'static str; N],
    ) -> (Self, Outlets<N>) {
        let mut doors = Vec::with_capacity(N);
        let incoming = protocols.map(|protocol| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            doors.push((protocol, sender));
            receiver
        });
        let (events, received) = mpsc::channel(EVENTS);
        let addresses = watch::Sender::default();
        let outlets = Outlets { incoming, events: received, addresses: addresses.subscribe() };
        let (up, links, trouble) = (watch::Sender::default(), watch::Sender::default(), Mutex::default());
        (Self { config, seed, doors, events, up, addresses, links, trouble }, outlets)
    }

    /// The mesh, while there is one.
    pub(crate) fn mesh(&self) -> Option<MeshHandle> {
        self.up.borrow().clone()
    }

    /// The mesh, once there is one.
    pub(crate) async fn wait(&self, patience: Duration) -> Option<MeshHandle> {
        let mut up = self.up.subscribe();
        let found = tokio::time::timeout(patience, up.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Where this machine can be reached.
    pub(crate) fn addresses(&self) -> watch::Receiver<Arc<Vec<String>>> {
        self.addresses.subscribe()
    }

    /// How members are connected.
    pub(crate) fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links.borrow())
    }

    /// Why the mesh does not start.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the gate until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, mut gate: watch::Receiver<GateView>, stop: CancellationToken) {
        let mut running: Option<Running> = None;
        loop {
            let view = gate.borrow_and_update().clone();
            let wanted = view != GateView::default();
            if !wanted && running.is_some() {
                let rejoined = tokio::time::timeout(FAREWELL, gate.changed()).await;
                if rejoined.is_ok_and(|changed| changed.is_ok()) {
                    continue;
                }
                self.end(running.take()).await;
            }
            if wanted && running.is_none() {
                running = self.start().await;
            }
            if let Some(running) = &running {
                running.mesh.handle().set_gate(opened(view));
            }
            let again = wanted && running.is_none();
            tokio::select! {
                changed = gate.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
                () = tokio::time::sleep(AGAIN), if again => {}
            }
        }
        self.end(running).await;
    }

    async fn start(&self) -> Option<Running> {
        let mesh = match Mesh::bind(self.config.clone(), self.seed).await {
            Ok(mesh) => mesh,
            Err(error) => {
                let known =
                    self.trouble.lock().unwrap_or_else(PoisonError::into_inner).replace(error.to_string());
                if known.as_deref() != Some(&error.to_string()) {
                    tracing::error!(%error, "the pool cannot be reached");
                }
                return None;
            }
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let handle = mesh.handle();
        let mut tasks = JoinSet::new();
        for (protocol, door) in &self.doors {
            tasks.spawn(pass(handle.bind(protocol), door.clone()));
        }
        tasks.spawn(tell(handle.addresses(), self.addresses.clone()));
        tasks.spawn(watch_links(handle.connections(), self.links.clone(), self.events.clone()));
        self.up.send_replace(Some(handle));
        Some(Running { mesh, tasks })
    }

    async fn end(&self, running: Option<Running>) {
        let Some(mut running) = running else { return };
        self.up.send_replace(None);
        running.mesh.shutdown().await;
        running.tasks.shutdown().await;
        let gone = self.links.send_replace(Arc::default());
        for node in gone.keys() {
            let _ = self.events.send(PeerEvent::Disconnected { node: *node }).await;
        }
        self.addresses.send_replace(Arc::default());
    }
}

impl Streams for Switch {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        let mesh = self.mesh();
        Box::pin(async move {
            match mesh {
                Some(mesh) => mesh.open(peer, protocol).await,
                None => {
                    let reason = "this machine is in no pool, or its port is taken".to_owned();
                    Err(OpenError::Unreachable { peer, reason })
                }
            }
        })
    }
}

/// A mesh at work.
struct Running {
    mesh: Mesh,
    tasks: JoinSet<()>,
}

fn opened(view: GateView) -> Gate {
    let GateView { members, guests, relays, discovery, .. } = view;
    Gate { members, guests, relays, discovery }
}

/// Hands streams on; one that nobody takes in time is dropped.
async fn pass(mut from: Incoming, to: mpsc::Sender<Inbound>) {
    while let Some(inbound) = from.recv().await {
        if to.try_send(inbound).is_err() {
            tracing::warn!("a member's stream was dropped: too many wait");
        }
    }
}

async fn tell(mut from: watch::Receiver<Arc<Vec<Multiaddr>>>, to: watch::Sender<Arc<Vec<String>>>) {
    loop {
        let addresses = from.borrow_and_update().iter().map(undirected).collect();
        to.send_replace(Arc::new(addresses));
        if from.changed().await.is_err() {
            return;
        }
    }
}

/// An address without the machine's own name at its end, which whoever gets it knows.
fn undirected(address: &Multiaddr) -> String {
    let text = address.to_string();
    match text.rsplit_once("/p2p/") {
        Some((before, name)) if !name.contains('/') && !before.is_empty() => before.to_owned(),
        _ => text,
    }
}

/// Tells what changed between two looks at the connections.
async fn watch_links(
    mut from: watch::Receiver<Arc<Links>>,
    to: watch::Sender<Arc<Links>>,
    events: mpsc::Sender<PeerEvent>,
) {
    let mut before = Arc::new(Links::new());
    loop {
        let now = Arc::clone(&from.borrow_and_update());
        to.send_replace(Arc::clone(&now));
        for event in changes(&before, &now) {
            if events.send(event).await.is_err() {
                return;
            }
        }
        before = now;
        if from.changed().await.is_err() {
            return;
        }
    }
}

fn changes(before: &Links, now: &Links) -> Vec<PeerEvent> {
    let mut events = Vec::new();
    for node in before.keys().filter(|node| !now.contains_key(node)) {
        events.push(PeerEvent::Disconnected { node: *node });
    }
    for (node, link) in now {
        let (node, path) = (*node, link.path.to_string());
        match before.get(&node) {
            None => events.push(PeerEvent::Connected { node, path }),
            Some(old) if old.path != link.path => events.push(PeerEvent::PathChanged { node, path }),
            Some(_) => {}
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_only_the_machines_own_name() {
        let name = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        for (address, wanted) in [
            (format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{name}"), "/ip4/192.0.2.1/udp/1/quic-v1".to_owned()),
            (
                format!("/ip4/192.0.2.1/tcp/1/p2p/{name}/p2p-circuit/p2p/{name}"),
                format!("/ip4/192.0.2.1/tcp/1/p2p/{name}/p2p-circuit"),
            ),
        ] {
            assert_eq!(undirected(&address.parse().unwrap()), wanted);
        }
    }
}
