//! A WireGuard tunnel between two hosts, in user space.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};

use super::{
    Host,
    device::{self, Carries, Device},
};

/// Room for a packet and what the tunnel adds to it.
const ROOM: usize = device::LONGEST + 160;
/// How often a tunnel looks at its timers.
const TICK: Duration = Duration::from_millis(100);
/// What a tunnel carries whole inside packets of 1500 bytes.
const MTU: u16 = 1420;
/// Where a machine listens, as everywhere.
const PORT: u16 = 51_820;

/// Tunnels made by this process.
static SERIAL: AtomicU16 = AtomicU16::new(0);

/// A tunnel: both hosts have an interface with an address that reaches only the other one, through UDP between
/// their ordinary addresses. It follows a host that roams. Dropping it takes the interfaces away.
#[must_use = "a tunnel that is dropped is gone"]
#[derive(Debug)]
pub struct WireGuard {
    addresses: [Ipv4Addr; 2],
    port: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// One side of a tunnel.
struct Side {
    tunnel: Tunn,
    device: Device,
    socket: UdpSocket,
    /// Where the other side was last heard from, or said to be.
    peer: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl WireGuard {
    /// Lays a tunnel between the present addresses of two hosts. Either may be behind a NAT, not both.
    pub fn between(a: &Host, b: &Host) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let [high, low] = serial.to_be_bytes();
        // Each tunnel has four addresses of 10.99.0.0/16 for itself, after which they start again.
        let base = Ipv4Addr::new(10, 99, (high << 2) | (low >> 6), low << 2).to_bits();
        let addresses = [Ipv4Addr::from_bits(base + 1), Ipv4Addr::from_bits(base + 2)];
        let port = PORT + (serial & 0x0fff);
        let stop = Arc::new(AtomicBool::new(false));
        let keys = [secret(), secret()];
        let public = [PublicKey::from(&keys[0]), PublicKey::from(&keys[1])];
        let [first, second] = keys;
        let sides = [(a, b, first, public[1], addresses[0]), (b, a, second, public[0], addresses[1])];
        let threads = sides
            .into_iter()
            .map(|(host, other, secret, public, address)| {
                let name = format!("wg{serial}");
                let device = Device::open(host.namespace_path(), &name, Carries::Packets);
                host.ip(&format!("link set {name} mtu {MTU} up\naddr add {address}/30 dev {name}\n"));
                let socket = host.enter(|| UdpSocket::bind(("0.0.0.0", port)));
                let socket = socket.expect("nobody else has this port");
                socket.set_nonblocking(true).expect("a socket can be told not to block");
                let peer = SocketAddr::from((other.addr_v4(), port));
                // Both sides speak up every second, so that a NAT between them stays open.
                let tunnel = Tunn::new(secret, public, None, Some(1), u32::from(serial), None);
                let side = Side { tunnel, device, socket, peer, stop: stop.clone() };
                thread::Builder::new().name(name).spawn(move || side.run()).expect("a thread can be made")
            })
            .collect();
        Self { addresses, port, stop, threads }
    }

    /// The first host's address in the tunnel.
    pub fn addr_a(&self) -> Ipv4Addr {
        self.addresses[0]
    }

    /// The second host's address in the tunnel.
    pub fn addr_b(&self) -> Ipv4Addr {
        self.addresses[1]
    }

    /// The UDP port of both hosts that the tunnel uses.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for WireGuard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Side {
    /// Packets that are taken from one direction before the other has its turn.
    const BURST: usize = 64;

    fn run(mut self) {
        device::wake_precisely();
        let (mut from, mut to) = (vec![0; ROOM], vec![0; ROOM]);
        let mut tick = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if Instant::now() >= tick {
                tick = Instant::now() + TICK;
                if let TunnResult::WriteToNetwork(packet) = self.tunnel.update_timers(&mut to) {
                    let _ = self.socket.send_to(packet, self.peer);
                }
            }
            let busy = self.outwards(&mut from, &mut to) | self.inwards(&mut from, &mut to);
            if !busy {
                device::wait(&[self.device.fd(), self.socket.as_fd()], Some(tick), TICK);
            }
        }
    }

    /// Seals what the host sends. Gives whether there was anything.
    fn outwards(&mut self, from: &mut [u8], to: &mut [u8]) -> bool {
        let mut count = 0;
        while count < Self::BURST {
            let Some(length) = self.device.read(from) else { break };
            count += 1;
            if let TunnResult::WriteToNetwork(packet) = self.tunnel.encapsulate(&from[..length], to) {
                let _ = self.socket.send_to(packet, self.peer);
            }
        }
        count > 0
    }

    /// Opens what comes from the other side. Gives whether there was anything.
    fn inwards(&mut self, from: &mut [u8], to: &mut [u8]) -> bool {
        let mut count = 0;
        while count < Self::BURST {
            let Ok((length, sender)) = self.socket.recv_from(from) else { break };
            count += 1;
            self.open(&from[..length], sender, to);
        }
        count > 0
    }

    fn open(&mut self, datagram: &[u8], sender: SocketAddr, to: &mut [u8]) {
        let mut rest = datagram;
        loop {
            match self.tunnel.decapsulate(Some(sender.ip()), rest, to) {
                TunnResult::WriteToNetwork(packet) => {
                    self.peer = sender;
                    let _ = self.socket.send_to(packet, sender);
                    // There may be packets that waited for the handshake: an empty datagram asks for them.
                    rest = &[];
                }
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    self.peer = sender;
                    return self.device.write(packet);
                }
                TunnResult::Done => {
                    // A keepalive is authentic too, and all that a silent host sends from a new address.
                    if !rest.is_empty() {
                        self.peer = sender;
                    }
                    return;
                }
                TunnResult::Err(_) => return,
            }
        }
    }
}

/// A key that is random enough for a tunnel between two namespaces.
fn secret() -> StaticSecret {
    let mut bytes = [0; 32];
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&RandomState::new().hash_one(at).to_be_bytes());
    }
    StaticSecret::from(bytes)
}
