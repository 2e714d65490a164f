//! Connections: which there are, which is the best with each member, and which are of no more use.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{identity::NodeId, mesh::streams::OpenError};
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::PortUse},
    dcutr,
    swarm::ConnectionId,
};
use tokio::sync::oneshot;

use super::{Actor, unix_ms};
use crate::mesh::{
    address,
    door::{PULSE, Wanted},
    handle::{Link, MeshEvent, Path},
    limits,
    line::Line,
    pulse::{self, Beat},
    roll::Role,
};

/// One connection.
pub(super) struct Connection {
    pub(super) node: NodeId,
    pub(super) peer: PeerId,
    pub(super) line: Arc<Line>,
    pub(super) path: Path,
    /// Where the other end is.
    pub(super) address: Multiaddr,
    /// Whether this side dialled it.
    pub(super) dialled: bool,
    /// Whether it left from the port that is listened on, or came in to it.
    own_port: bool,
    pub(super) since: Instant,
    pub(super) rtt: Option<Duration>,
    /// Since when it is known that the other side lets this node in.
    pub(super) proved: Option<Instant>,
    /// Made only to find out whether it can be.
    pub(super) probing: bool,
}

impl Connection {
    /// Whether the address at which the other side sees this node is one that others can use too.
    pub(super) fn shows_own_port(&self) -> bool {
        self.own_port && self.path != Path::Relayed
    }

    /// Whether both ends are on one machine.
    pub(super) fn is_local(&self) -> bool {
        self.path != Path::Relayed && address::is_loopback(&self.address)
    }

    /// Smaller is better.
    fn rank(&self) -> (bool, bool, Path, bool, Instant) {
        let unsure = self.proved.is_none() || self.line.is_doubted();
        (unsure, self.probing, self.path, address::is_tcp(&self.address), self.since)
    }
}

impl Actor {
    pub(super) fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(line) = self.swarm.behaviour().door.line(id).cloned() else { return };
        let (node, now) = (line.node, Instant::now());
        let address = address::bare(endpoint.get_remote_address());
        let relayed = endpoint.is_relayed();
        let path = match address::path(&address) {
            _ if relayed => Path::Relayed,
            // A hole is punched in the first moments of a relayed connection.
            _ if endpoint.is_listener() && self.is_punching(node, now) => Path::Punched,
            path => path,
        };
        let own_port = match endpoint {
            ConnectedPoint::Dialer { port_use, .. } => *port_use == PortUse::Reuse,
            ConnectedPoint::Listener { .. } => true,
        };
        tracing::debug!(%node, %address, ?path, "connected");
        let connection = Connection {
            node,
            peer,
            line: Arc::clone(&line),
            path,
            address,
            dialled: endpoint.is_dialer(),
            own_port,
            since: now,
            rtt: None,
            proved: None,
            probing: self.is_probe(id),
        };
        self.connections.insert(id, connection);
        if line.role == Role::Member {
            self.doubt_others(node, id);
            self.start_pulse(peer, id, &line);
            self.dial_succeeded(node, id);
        }
    }

    /// Asks now whether the earlier connections with a node live. One that was killed and is back leaves dead ones
    /// behind, on which its members would wait for it.
    fn doubt_others(&self, node: NodeId, id: ConnectionId) {
        let earlier = self.connections.iter().filter(|(other, it)| it.node == node && **other != id);
        earlier.for_each(|(_, connection)| connection.line.doubt());
    }

    fn is_punching(&self, node: NodeId, now: Instant) -> bool {
        let of_node = || self.connections.values().filter(|connection| connection.node == node);
        let young =
            |connection: &Connection| now.duration_since(connection.since) < limits::TRIM_RELAYED_AFTER;
        of_node().any(|connection| connection.path == Path::Relayed && young(connection))
            && of_node().all(|connection| connection.path >= Path::Punched)
    }

    fn start_pulse(&mut self, peer: PeerId, id: ConnectionId, line: &Arc<Line>) {
        let (reply, opened) = oneshot::channel();
        let wanted = Wanted { node: line.node, protocol: PULSE, reply };
        self.swarm.behaviour_mut().door.open(peer, id, wanted);
        let relay = self.gate.relays.contains(&line.node);
        let idle = if relay { limits::PULSE_RELAY } else { limits::PULSE_IDLE };
        tokio::spawn(pulse::run(Arc::clone(line), opened, idle, self.beats.0.clone()));
    }

    pub(super) fn on_beat(&mut self, beat: Beat) {
        match beat {
            Beat::Alive(id, rtt) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                connection.rtt = Some(rtt);
                self.proved(id);
                self.publish_links();
            }
            Beat::Quiet(id) => {
                let node = self.connections.get(&id).map(|connection| connection.node);
                if let Some(node) = node.filter(|node| self.best(*node).is_some_and(|(best, _)| best == id)) {
                    let _ = self.events.send(MeshEvent::Quiet { node });
                }
            }
            Beat::Dead(id) => {
                if let Some(connection) = self.connections.get(&id) {
                    tracing::debug!(node = %connection.node, address = %connection.address, "no answer: closed");
                    self.close(id);
                }
            }
        }
    }

    /// The other side has answered on this connection: it lets this node in.
    pub(super) fn proved(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let now = Instant::now();
        if connection.line.role != Role::Member || connection.proved.is_some() {
            return;
        }
        connection.proved = Some(now);
        let (node, dialled, address) = (connection.node, connection.dialled, connection.address.clone());
        let direct = connection.path != Path::Relayed;
        if dialled && direct {
            self.book.worked(node, &address, unix_ms());
            self.note_book();
        }
        self.probe_proved(id);
        self.peer_up(node, direct, now);
        self.serve_waiters(node);
        self.refresh(node);
    }

    pub(super) fn closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        tracing::debug!(node = %connection.node, address = %connection.address, "connection closed");
        self.unobserved(id);
        self.probe_closed(id);
        self.refresh(connection.node);
        if !self.is_connected(connection.node) {
            self.peer_down(connection.node, connection.address, connection.proved.is_some());
        }
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.connections.values().any(|connection| connection.node == node)
    }

    /// The connection on which new streams to a node are opened.
    pub(super) fn best(&self, node: NodeId) -> Option<(ConnectionId, &Connection)> {
        let of_node = self.connections.iter().filter(|(_, connection)| connection.node == node);
        of_node.min_by_key(|(_, connection)| connection.rank()).map(|(id, connection)| (*id, connection))
    }

    /// A working direct connection with a node.
    pub(super) fn direct(&self, node: NodeId) -> Option<&Connection> {
        let (_, best) = self.best(node)?;
        (best.path != Path::Relayed && best.proved.is_some()).then_some(best)
    }

    /// Opens a stream on the best connection there is.
    pub(super) fn open_on_best(&mut self, wanted: Wanted) -> Result<(), Wanted> {
        // Until the other side has answered it may be about to hang up.
        let best = self.best(wanted.node).filter(|(_, best)| best.proved.is_some());
        let Some((id, best)) = best else { return Err(wanted) };
        let peer = best.peer;
        if self.peers.get(&wanted.node).is_some_and(|peer| peer.refuses(wanted.protocol)) {
            let error = OpenError::Refused { peer: wanted.node, protocol: wanted.protocol };
            let _ = wanted.reply.send(Err(error));
            return Ok(());
        }
        self.swarm.behaviour_mut().door.open(peer, id, wanted);
        Ok(())
    }

    /// Says what has changed about the way to a node.
    pub(super) fn refresh(&mut self, node: NodeId) {
        let path = self.best(node).filter(|(_, best)| best.proved.is_some()).map(|(_, best)| best.path);
        if let Some(peer) = self.peers.get_mut(&node) {
            let event = match (peer.shown, path) {
                (None, Some(path)) => Some(MeshEvent::Connected { node, path }),
                (Some(_), None) => Some(MeshEvent::Disconnected { node }),
                (Some(old), Some(path)) if old != path => Some(MeshEvent::PathChanged { node, path }),
                _ => None,
            };
            peer.shown = path;
            if let Some(event) = event {
                let _ = self.events.send(event);
            }
        }
        self.publish_links();
    }

    pub(super) fn publish_links(&self) {
        let of = |node: &NodeId| {
            let (_, best) = self.best(*node).filter(|(_, best)| best.proved.is_some())?;
            let (address, since) = (best.address.clone(), best.since);
            Some((*node, Link { path: best.path, address, since, rtt: best.rtt }))
        };
        let links = self.peers.keys().filter_map(of).collect();
        self.links.send_if_modified(|shown| {
            let changed = **shown != links;
            *shown = Arc::new(links);
            changed
        });
    }

    /// Ends a connection and all its streams now.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.swarm.behaviour().door.cut(id);
        self.swarm.close_connection(id);
    }

    pub(super) fn close_all(&mut self, which: impl Fn(&Connection) -> bool) {
        let ids = self.connections.iter().filter(|(_, connection)| which(connection));
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
    }

    /// Closes what a better connection has replaced and nobody uses. Only the node with the smaller name does
    /// so, or the two sides might each close the one that the other keeps.
    pub(super) fn trim(&mut self, now: Instant) {
        let age = |since: Instant| now.saturating_duration_since(since);
        let is_spare = |id: &ConnectionId, connection: &Connection| {
            let patience = match connection.path {
                Path::Relayed => limits::TRIM_RELAYED_AFTER,
                _ => limits::TRIM_AFTER,
            };
            let replaced = self.best(connection.node).is_some_and(|(best, by)| {
                best != *id && by.proved.is_some_and(|since| age(since) >= limits::TRIM_AFTER)
            });
            replaced && age(connection.since) >= patience && connection.line.streams() == 0
        };
        let mine = self.connections.iter().filter(|(_, connection)| self.me < connection.node);
        let spare: Vec<_> =
            mine.filter(|(id, connection)| is_spare(id, connection)).map(|(id, _)| *id).collect();
        for id in spare {
            self.close(id);
        }
    }

    pub(super) fn on_punch(&mut self, event: dcutr::Event) {
        match event.result {
            Ok(id) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                connection.path = Path::Punched;
                let node = connection.node;
                self.refresh(node);
            }
            Err(error) => tracing::debug!(peer = %event.remote_peer_id, %error, "no hole punched"),
        }
    }
}
