//! Networks on one machine: hosts, NATs, cables and what goes wrong with them, made of the kernel's own parts.
//!
//! Every [`Net`] is a bridge in a network namespace of its own, every [`Host`] a namespace with one cable to a
//! net, every [`Nat`] a router namespace between two nets whose translation is done by nftables. The machine's
//! own network is never touched. Cables are veth pairs, or, where delay, loss or a rate matter, a [`Link`]:
//! packets then pass through user space, which needs no kernel module. [`WireGuard`] lays an encrypted tunnel
//! between two hosts, in user space too.
//!
//! Everything of a lab disappears when the lab and its parts are dropped: the namespaces, and the processes in
//! them. What a killed process left behind is swept by the next lab on the machine, whoever makes it: names say
//! which process made them.
//!
//! ```no_run
//! use potluck_tests::netlab::{Lab, NatKind};
//!
//! let lab = Lab::new("two-homes");
//! let internet = lab.internet();
//! let (left, right) = (lab.net("left"), lab.net("right"));
//! let first = lab.nat("left-router", NatKind::Symmetric, &left, &internet);
//! let second = lab.nat("right-router", NatKind::FullCone, &right, &internet);
//! let (a, b) = (lab.host("a", &left), lab.host("b", &right));
//! let output = a.command("ip").args(["route"]).output();
//! first.cut();
//! ```

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

mod cable;
mod device;
mod host;
mod link;
mod names;
mod namespace;
mod nat;
mod net;
mod pipe;
mod wireguard;

pub use cable::Plugged;
pub use host::Host;
pub use link::{Counts, End, Link, Way};
pub use nat::{Nat, NatKind};
pub use net::Net;
pub use pipe::Shape;
pub use wireguard::WireGuard;

use namespace::Namespace;

/// What makes and ends a network. Clones are the same lab, which ends with the last of its parts.
#[derive(Clone, Debug)]
pub struct Lab(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What the names of its namespaces begin with.
    prefix: String,
    nets: AtomicU8,
    names: AtomicU32,
}

impl Lab {
    /// An empty lab; the name appears in `ip netns`. Sweeps first what dead processes left.
    pub fn new(name: &str) -> Self {
        names::sweep();
        let prefix = names::prefix(name);
        Self(Arc::new(Inner { prefix, nets: AtomicU8::new(0), names: AtomicU32::new(0) }))
    }

    /// Whether this process may make networks here; asks the system once.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn available() -> Result<(), String> {
        static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
        ANSWER.get_or_init(probe).clone()
    }

    /// A net of addresses that programs take for the public internet's. What is sent to an address that nobody
    /// has there vanishes without an answer.
    pub fn internet(&self) -> Net {
        Net::internet(self.clone())
    }

    /// A private net (192.168.N.0/24). Nothing leaves it but through a [`Nat`].
    pub fn net(&self, name: &str) -> Net {
        let number = self.0.nets.fetch_add(1, Ordering::Relaxed);
        Net::private(self.clone(), name, [192, 168, number, 0].into(), 24)
    }

    /// A private net with these addresses, for homes whose addresses are the same or that lie behind a
    /// provider's NAT (100.64.0.0).
    pub fn net_at(&self, name: &str, base: std::net::Ipv4Addr, prefix: u8) -> Net {
        Net::private(self.clone(), name, base, prefix)
    }

    /// A host on a net.
    pub fn host(&self, name: &str, net: &Net) -> Host {
        Host::new(self, name, net, None)
    }

    /// A host whose cable to the net is slow, lossy or narrow.
    pub fn host_over(&self, name: &str, net: &Net, shape: Shape) -> Host {
        Host::new(self, name, net, Some(shape))
    }

    /// A router between an inner net, whose hosts it becomes the way out for, and an outer one.
    pub fn nat(&self, name: &str, kind: NatKind, inner: &Net, outer: &Net) -> Nat {
        Nat::new(self, name, kind, (inner, outer), None)
    }

    /// A router whose cable to the outer net is slow, lossy or narrow.
    pub fn nat_over(&self, name: &str, kind: NatKind, inner: &Net, outer: &Net, shape: Shape) -> Nat {
        Nat::new(self, name, kind, (inner, outer), Some(shape))
    }

    /// What the names of this lab's namespaces begin with.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// A name for a namespace that no other one of the machine has.
    fn name(&self, part: &str) -> String {
        format!("{}{}-{}", self.0.prefix, self.number(), names::plain(part))
    }

    /// A name for an interface that is unique in this lab.
    fn port(&self) -> String {
        format!("p{}", self.number())
    }

    fn number(&self) -> u32 {
        self.0.names.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        names::end(|name| name.starts_with(&self.prefix));
    }
}

/// Tries everything that a lab does.
fn probe() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root: run the tests as root".to_owned());
    }
    for (program, arg, package) in
        [("ip", "-V", "iproute2"), ("nft", "--version", "nftables"), ("nsenter", "--version", "util-linux")]
    {
        let works = Command::new(program).arg(arg).output().is_ok_and(|out| out.status.success());
        if !works {
            return Err(format!("no program `{program}`: install {package} (Debian's name)"));
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("no /dev/net/tun: load the kernel module tun".to_owned());
    }
    let lab = Lab::new("probe");
    let space = Namespace::try_create(lab.name("probe")).map_err(|error| {
        format!("no network namespaces here ({error}): the kernel or a container forbids them")
    })?;
    space.try_nft(&(nat::probe() + net::RULES)).map_err(|error| {
        format!(
            "nft refuses the rules ({error}): they need nftables 1.0 and the kernel's nf_tables, \
             nft_chain_nat, nft_masq and nf_tables_bridge"
        )
    })
}

/// Puts a value into a file below `/proc/sys`, as the calling thread's namespace sees it.
fn set(sysctl: &str, value: &str) {
    let path = Path::new("/proc/sys").join(sysctl);
    fs::write(&path, value).unwrap_or_else(|error| panic!("cannot set {sysctl} to {value}: {error}"));
}
