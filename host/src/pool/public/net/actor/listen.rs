//! Listening, and what others are told of it.

use std::{
    collections::{BTreeSet, HashSet},
    io::ErrorKind,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{Multiaddr, swarm::SwarmEvent};

use super::Actor;
use crate::{
    mesh::{address, peer},
    pool::public::net::NetError,
};

/// The longest the sockets may take to say where they listen.
const SETTLE: Duration = Duration::from_secs(3);

impl Actor {
    /// Opens the sockets and waits until they listen. Where several addresses are asked for, one that this machine
    /// does not have is passed over.
    pub(in super::super) async fn listen(&mut self) -> Result<(), NetError> {
        check_free(&self.config.listen)?;
        let (mut waiting, mut failed) = (HashSet::new(), None);
        for at in same_port(&self.config.listen) {
            for address in [address::listen(at, true), address::listen(at, false)] {
                match self.swarm.listen_on(address.clone()) {
                    Ok(id) => {
                        waiting.insert(id);
                    }
                    Err(error) => {
                        tracing::warn!(%address, %error, "not listened on");
                        let reason = error.to_string();
                        failed = Some(NetError::Listen { address: address.to_string(), reason });
                    }
                }
            }
        }
        if waiting.is_empty() {
            failed.map_or(Ok(()), Err)?;
        }
        for address in self.config.announce.clone() {
            self.swarm.add_external_address(address::bare(&address));
        }
        let settle = async {
            while !waiting.is_empty() {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { listener_id, .. }
                | SwarmEvent::ListenerClosed { listener_id, .. } = &event
                {
                    waiting.remove(listener_id);
                }
                self.on_swarm(event);
            }
        };
        let _ = tokio::time::timeout(SETTLE, settle).await;
        self.tell();
        Ok(())
    }

    pub(super) fn listening(&mut self, address: Multiaddr) {
        tracing::info!(%address, "the public network listens");
        if self.config.reachable == Some(true) {
            self.swarm.add_external_address(address.clone());
        }
        self.listening.insert(address);
        self.tell();
    }

    pub(super) fn not_listening(&mut self, address: &Multiaddr) {
        self.swarm.remove_external_address(address);
        self.listening.remove(address);
        self.tell();
    }

    /// Says where this node can be dialled: on loopback only where it listens nowhere else.
    pub(super) fn tell(&self) {
        let Some(me) = peer::peer_id(self.me) else { return };
        let all: BTreeSet<_> = self.swarm.external_addresses().chain(&self.listening).cloned().collect();
        let wide = |at: &&Multiaddr| address::is_tellable(at) && !address::is_loopback(at);
        let mut told: Vec<_> = all.iter().filter(wide).collect();
        if told.is_empty() {
            told = all.iter().filter(|at| address::is_loopback(at)).collect();
        }
        let told: Vec<_> = told.into_iter().map(|at| address::named(at, me)).collect();
        self.addresses.send_if_modified(|addresses| {
            let changed = **addresses != *told;
            if changed {
                *addresses = told.into();
            }
            changed
        });
    }
}

/// Fails if another program has a port that is asked for: libp2p would share it.
fn check_free(listen: &[SocketAddr]) -> Result<(), NetError> {
    for at in listen.iter().filter(|at| at.port() != 0) {
        let failed = [TcpListener::bind(at).err(), UdpSocket::bind(at).err()];
        let taken = failed.into_iter().flatten().find(|error| error.kind() == ErrorKind::AddrInUse);
        if let Some(error) = taken {
            return Err(NetError::Listen { address: at.to_string(), reason: error.to_string() });
        }
    }
    Ok(())
}

/// The same free port for TCP and UDP wherever any is asked for; zero where none is found.
fn same_port(listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let choose = |at: &SocketAddr| {
        (0..16).find_map(|_| {
            let tcp = TcpListener::bind(at).ok()?.local_addr().ok()?;
            UdpSocket::bind(tcp).ok().map(|_| tcp)
        })
    };
    listen.iter().map(|at| if at.port() == 0 { choose(at).unwrap_or(*at) } else { *at }).collect()
}
