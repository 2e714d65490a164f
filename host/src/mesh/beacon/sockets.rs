//! The multicast sockets of the beacon: one for each IP version, joined on every interface that takes part.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use if_addrs::Interface;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// The group of the beacon, of the range that stays within a site.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 76, 85);
/// The same for IPv6, of the range that stays on a link.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x7685, 0x7687);

/// The sockets.
pub(super) struct Sockets {
    port: u16,
    loopback: bool,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    joined_v4: HashSet<Ipv4Addr>,
    joined_v6: HashSet<u32>,
}

impl Sockets {
    /// Opens what can be opened; the rest is done without.
    pub(super) fn open(port: u16, loopback: bool) -> Self {
        let said = |error: &io::Error| tracing::info!(port, %error, "no beacon on one IP version");
        let v4 = bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).inspect_err(said).ok();
        let v6 = bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).inspect_err(said).ok();
        let (joined_v4, joined_v6) = (HashSet::new(), HashSet::new());
        let mut sockets = Self { port, loopback, v4, v6, joined_v4, joined_v6 };
        sockets.interfaces();
        sockets
    }

    /// The interfaces that take part now; joins the group on new ones.
    fn interfaces(&mut self) -> Vec<Interface> {
        let mut all = if_addrs::get_if_addrs().unwrap_or_default();
        all.retain(|interface| self.loopback || !interface.is_loopback());
        let (mut here_v4, mut here_v6) = (HashSet::new(), HashSet::new());
        for interface in &all {
            match (interface.ip(), interface.index) {
                (IpAddr::V4(ip), _) => here_v4.insert(ip),
                (IpAddr::V6(_), Some(index)) => here_v6.insert(index),
                (IpAddr::V6(_), None) => false,
            };
        }
        if let Some(socket) = &self.v4 {
            self.joined_v4.retain(|ip| here_v4.contains(ip));
            let fresh = here_v4.difference(&self.joined_v4).copied().collect::<Vec<_>>();
            // Joining twice, or where multicast does not go, fails, and that is fine.
            self.joined_v4.extend(fresh.into_iter().inspect(|ip| {
                let _ = socket.join_multicast_v4(GROUP_V4, *ip);
            }));
        }
        if let Some(socket) = &self.v6 {
            self.joined_v6.retain(|index| here_v6.contains(index));
            let fresh = here_v6.difference(&self.joined_v6).copied().collect::<Vec<_>>();
            self.joined_v6.extend(fresh.into_iter().inspect(|index| {
                let _ = socket.join_multicast_v6(&GROUP_V6, *index);
            }));
        }
        all
    }

    /// Sends a packet on every interface.
    pub(super) async fn send(&mut self, packet: &[u8]) {
        self.interfaces();
        if let Some(socket) = &self.v4 {
            for ip in &self.joined_v4 {
                if SockRef::from(socket).set_multicast_if_v4(ip).is_ok() {
                    let _ = socket.send_to(packet, (GROUP_V4, self.port)).await;
                }
            }
        }
        if let Some(socket) = &self.v6 {
            for index in &self.joined_v6 {
                if SockRef::from(socket).set_multicast_if_v6(*index).is_ok() {
                    let to = std::net::SocketAddrV6::new(GROUP_V6, self.port, 0, *index);
                    let _ = socket.send_to(packet, to).await;
                }
            }
        }
    }

    /// The length of the next packet; `None` where there is nothing to hear or an error.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => loop {
                let ready = tokio::select! {
                    ready = v4.readable() => ready.map(|()| v4),
                    ready = v6.readable() => ready.map(|()| v6),
                };
                match ready.and_then(|socket| socket.try_recv(buffer)) {
                    Ok(length) => return Some(length),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return None,
                }
            },
            (Some(one), None) | (None, Some(one)) => one.recv(buffer).await.ok(),
            (None, None) => std::future::pending().await,
        }
    }
}

fn bind(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes on one machine hear the same port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(true)?;
        socket.set_multicast_hops_v6(1)?;
    } else {
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(1)?;
    }
    socket.bind(&at.into())?;
    UdpSocket::from_std(socket.into())
}
