//! A net: a bridge in a namespace of its own.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU16, Ordering},
    },
};

use super::{Lab, cable::Plugged, namespace::Namespace};

/// The rules with which a bridge loses packets: those of silenced ports, and those between parted ones. A packet
/// that is lost here is lost as on a wire: no error reaches who sent it.
pub(super) const RULES: &str = "table bridge lab {
    set silent { type ifname; }
    set parted { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0;
        iifname @silent drop
        oifname @silent drop
        iifname . oifname @parted drop
    }
    chain input { type filter hook input priority 0; iifname @silent drop; }
    chain output { type filter hook output priority 0; oifname @silent drop; }
}\n";

/// Hosts and routers that reach each other directly. Clones are the same net.
#[must_use = "a net that is dropped is gone"]
#[derive(Clone, Debug)]
pub struct Net(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lab: Lab,
    space: Arc<Namespace>,
    base: Ipv4Addr,
    prefix: u8,
    internet: bool,
    v6: OnceLock<[u16; 4]>,
    next: AtomicU16,
    /// Who forwards what leaves the net.
    router: Mutex<Weak<Namespace>>,
}

impl PartialEq for Net {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Net {}

impl Net {
    pub(super) const BRIDGE: &str = "bridge";
    /// The number of the address that is the way out.
    pub(super) const GATEWAY: u16 = 1;
    const FIRST_HOST: u16 = 10;
    /// What public IPv6 addresses begin with.
    const PUBLIC: u16 = 0x3ffe;

    /// The addresses are of a block that once served radio amateurs' experiments: in no list of special
    /// addresses, so that programs treat them as public, and nobody's machine.
    pub(super) fn internet(lab: Lab) -> Self {
        let net = Self::make(lab, "internet", Ipv4Addr::new(44, 128, 0, 0), 16, true);
        net.space().enter(|| {
            super::set("net/ipv4/ip_forward", "1");
            super::set("net/ipv6/conf/all/forwarding", "1");
        });
        // What has no owner vanishes here, as it does out there.
        net.space().ip(&format!(
            "addr add {}/16 dev {}\nroute add blackhole default\nroute add blackhole ::/0\n",
            net.v4(Self::GATEWAY),
            Self::BRIDGE
        ));
        *net.0.router.lock().expect("no holder panics") = Arc::downgrade(&net.0.space);
        net
    }

    pub(super) fn private(lab: Lab, name: &str, base: Ipv4Addr, prefix: u8) -> Self {
        Self::make(lab, name, base, prefix, false)
    }

    fn make(lab: Lab, name: &str, base: Ipv4Addr, prefix: u8, internet: bool) -> Self {
        let space = Arc::new(Namespace::create(lab.name(name)));
        space.ip(&format!("link add {0} type bridge forward_delay 0\nlink set {0} up\n", Self::BRIDGE));
        space.nft(RULES);
        Self(Arc::new(Inner {
            lab,
            space,
            base,
            prefix,
            internet,
            v6: OnceLock::new(),
            next: AtomicU16::new(Self::FIRST_HOST),
            router: Mutex::new(Weak::new()),
        }))
    }

    /// Gives IPv6 addresses too to hosts that join from now on: public ones on the internet, unique local ones
    /// on a private net, which no router forwards.
    pub fn with_v6(self) -> Self {
        let block = if self.0.internet {
            // Of the retired 6bone: global unicast, and nobody's.
            [Self::PUBLIC, 0x4480, 0, 0]
        } else {
            let [_, _, third, _] = self.0.base.octets();
            [0xfd44, 0x8000, self.0.lab.number().try_into().unwrap_or(u16::MAX), third.into()]
        };
        if self.0.v6.set(block).is_ok() && self.0.internet {
            let gateway = self.v6(Self::GATEWAY).expect("the block was just set");
            self.space().ip(&format!("addr add {gateway}/64 dev {} nodad\n", Self::BRIDGE));
        }
        self
    }

    /// Gives public IPv6 addresses to hosts of a private net that join from now on: a provider's prefix, which a
    /// router to the internet (one [`with_v6`](Self::with_v6)) forwards without translating.
    pub fn with_public_v6(self) -> Self {
        let number = self.0.lab.number().try_into().unwrap_or(u16::MAX);
        // The block of the internet itself ends in 0.
        let _ = self.0.v6.set([Self::PUBLIC, 0x4480, number.max(1), 0]);
        self
    }

    /// Parts the net: hosts and routers of different groups lose what they send each other; those that are in no
    /// group reach everybody. A later call replaces an earlier one.
    pub fn partition(&self, groups: &[&[&dyn Plugged]]) {
        let ports: Vec<Vec<String>> = groups
            .iter()
            .map(|group| group.iter().filter_map(|member| member.port_on(self)).collect())
            .collect();
        let mut rules = "flush set bridge lab parted\n".to_owned();
        for (at, group) in ports.iter().enumerate() {
            for (_, others) in ports.iter().enumerate().filter(|(other, _)| *other != at) {
                for (from, to) in group.iter().flat_map(|from| others.iter().map(move |to| (from, to))) {
                    rules += &format!("add element bridge lab parted {{ \"{from}\" . \"{to}\" }}\n");
                }
            }
        }
        self.space().nft(&rules);
    }

    /// Ends a partition.
    pub fn mend(&self) {
        self.space().nft("flush set bridge lab parted\n");
    }

    pub(super) fn silence(&self, port: &str) {
        self.space().nft(&format!("add element bridge lab silent {{ \"{port}\" }}\n"));
    }

    pub(super) fn hear(&self, port: &str) {
        // Adding first makes the removal of what was not there succeed.
        self.silence(port);
        self.space().nft(&format!("delete element bridge lab silent {{ \"{port}\" }}\n"));
    }

    pub(super) fn space(&self) -> &Arc<Namespace> {
        &self.0.space
    }

    pub(super) fn prefix(&self) -> u8 {
        self.0.prefix
    }

    /// Whether its IPv6 addresses lead out.
    pub(super) fn has_public_v6(&self) -> bool {
        self.0.v6.get().is_some_and(|block| block[0] == Self::PUBLIC)
    }

    pub(super) fn is_internet(&self) -> bool {
        self.0.internet
    }

    /// The addresses of the net, as `ip` writes them.
    pub(super) fn subnet(&self) -> String {
        format!("{}/{}", self.0.base, self.0.prefix)
    }

    pub(super) fn next(&self) -> u16 {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let room = 1u32 << (32 - u32::from(self.0.prefix));
        assert!(u32::from(number) + 1 < room, "no more addresses in {}", self.subnet());
        number
    }

    pub(super) fn v4(&self, number: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.base.to_bits() + u32::from(number))
    }

    pub(super) fn v6(&self, number: u16) -> Option<Ipv6Addr> {
        self.0.v6.get().map(|&[a, b, c, d]| Ipv6Addr::new(a, b, c, d, 0, 0, 0, number))
    }

    /// Makes a router the way out; panics when there is one.
    pub(super) fn leave_through(&self, router: &Arc<Namespace>) {
        let mut present = self.0.router.lock().expect("no holder panics");
        assert!(present.upgrade().is_none(), "{} has a way out already", self.subnet());
        *present = Arc::downgrade(router);
    }

    /// Lets whoever forwards for this net know that an inner net lies behind an address of it.
    pub(super) fn route(&self, inner: &Self, via: Ipv4Addr) {
        let router = self.0.router.lock().expect("no holder panics").upgrade();
        let router = router.expect("a plain router needs an outer net that has a way out itself");
        router.ip(&format!("route replace {} via {via}\n", inner.subnet()));
    }

    /// The same for the public IPv6 addresses of the inner net.
    pub(super) fn route_v6(&self, inner: &Self, via: Ipv6Addr) {
        let router = self.0.router.lock().expect("no holder panics").upgrade();
        let router = router.expect("public IPv6 needs an outer net that has a way out itself");
        let base = inner.v6(0).expect("it has public addresses");
        router.ip(&format!("route replace {base}/64 via {via}\n"));
    }
}
