//! Listening: the sockets of the mesh, and what follows when the machine's addresses change.

use std::{
    collections::HashSet,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{Multiaddr, core::transport::ListenerId, swarm::SwarmEvent};

use super::Actor;
use crate::mesh::{MeshError, address, handle::MeshEvent};

/// The longest the sockets may take to say where they listen.
const SETTLE: Duration = Duration::from_secs(3);

impl Actor {
    /// Opens the sockets and waits until they listen. Where several addresses are asked for, one that this
    /// machine does not have (no IPv6, say) is passed over.
    pub(crate) async fn listen(&mut self) -> Result<(), MeshError> {
        self.check_free()?;
        let mut waiting = HashSet::new();
        let mut failed = None;
        for address in self.wanted() {
            match self.swarm.listen_on(address.clone()) {
                Ok(id) => {
                    waiting.insert(id);
                }
                Err(error) => {
                    let reason = super::plain_reason(&error);
                    tracing::warn!(%address, reason, "not listened on");
                    failed = Some(MeshError::Listen { address: address.to_string(), reason });
                }
            }
        }
        if waiting.is_empty() {
            return failed.map_or(Ok(()), Err);
        }
        let _ = tokio::time::timeout(SETTLE, self.settle_listeners(waiting)).await;
        for address in self.config.announce.clone() {
            self.told.announce(address);
        }
        self.tell();
        Ok(())
    }

    /// Fails if another program has a port that is asked for. libp2p would share a TCP port with it, and each would
    /// get some of the other's connections.
    fn check_free(&self) -> Result<(), MeshError> {
        for at in self.config.listen.iter().filter(|at| at.port() != 0) {
            let tcp = if self.config.tcp { TcpListener::bind(at).err() } else { None };
            let udp = if self.config.quic { UdpSocket::bind(at).err() } else { None };
            let taken =
                tcp.into_iter().chain(udp).find(|error| error.kind() == std::io::ErrorKind::AddrInUse);
            if let Some(error) = taken {
                return Err(MeshError::Listen { address: at.to_string(), reason: error.to_string() });
            }
        }
        Ok(())
    }

    async fn settle_listeners(&mut self, mut waiting: HashSet<ListenerId>) {
        while !waiting.is_empty() {
            let event = self.swarm.select_next_some().await;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. }
                | SwarmEvent::ListenerClosed { listener_id, .. } => {
                    waiting.remove(listener_id);
                }
                _ => {}
            }
            self.on_swarm(event);
        }
    }

    /// The addresses to listen on: both transports on the same port.
    fn wanted(&self) -> Vec<Multiaddr> {
        let free = free_port(&self.config.listen);
        let mut wanted = Vec::new();
        for at in &self.config.listen {
            let port = if at.port() == 0 { free } else { at.port() };
            let at = SocketAddr::new(at.ip(), port);
            wanted.extend(self.config.quic.then(|| address::listen(at, true)));
            wanted.extend(self.config.tcp.then(|| address::listen(at, false)));
        }
        wanted
    }

    pub(super) fn listening(&mut self, address: Multiaddr) {
        if address::is_relayed(&address) {
            return;
        }
        tracing::info!(%address, "the mesh listens");
        let _ = self.events.send(MeshEvent::Listening { address: address.clone() });
        self.told.listening.insert(address);
        self.network_changed();
    }

    pub(super) fn not_listening(&mut self, address: &Multiaddr) {
        if self.told.listening.remove(address) {
            tracing::info!(%address, "the mesh no longer listens: the address is gone");
            self.network_changed();
        }
    }

    /// The machine is somewhere else now: others are told, every connection is asked whether it still lives, and
    /// whoever is not connected is dialled again.
    fn network_changed(&mut self) {
        self.told.forget_observed();
        self.tell();
        for connection in self.connections.values() {
            connection.line.kick.notify_one();
        }
        self.hurry();
    }
}

/// A port that is free for both transports, or 0 where none could be found.
fn free_port(listen: &[SocketAddr]) -> u16 {
    let zero: Vec<_> = listen.iter().filter(|at| at.port() == 0).map(|at| at.ip()).collect();
    for _ in 0..16 {
        let Some(first) = zero.first() else { return 0 };
        let Ok(socket) = TcpListener::bind((*first, 0)) else { return 0 };
        let Ok(port) = socket.local_addr().map(|at| at.port()) else { return 0 };
        drop(socket);
        if zero
            .iter()
            .all(|ip| UdpSocket::bind((*ip, port)).is_ok() && TcpListener::bind((*ip, port)).is_ok())
        {
            return port;
        }
    }
    0
}
