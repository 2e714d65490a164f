//! Routers, and the four ways in which they translate addresses.
//!
//! Which port a router shows the world for an inside socket is its *mapping*, whom it lets answer there its
//! *filtering* (the words of RFC 4787). Netfilter alone does the strictest filtering: a packet passes when it
//! answers one that went out. Its mapping depends on the destination, unless told otherwise. Here two tables,
//! filled by what goes out, tell it otherwise: which outside port an inside socket got (`out`), and which inside
//! socket an outside port leads to (`back`).

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{Host, Lab, Link, Net, Shape, cable::Cable, cable::Plugged, namespace::Namespace};

const INSIDE: &str = "in0";
const OUTSIDE: &str = "out0";

/// How a router translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// One outside port for an inside socket, whoever it talks to; whoever knows the port may send to it.
    FullCone,
    /// One outside port; only hosts that the inside socket has sent to may send to it, from any port.
    Restricted,
    /// One outside port; only those host and port pairs that the inside socket has sent to may send to it.
    PortRestricted,
    /// Another, random outside port for every destination; only that destination may answer there.
    Symmetric,
    /// No translation: both nets are routed.
    None,
}

/// What every translating router does besides: it never answers strangers, not even with an error, and keeps no
/// track of a stranger's packet, which would take the port away from the answer to come.
const FILTER: &str = "
    chain input {
        type filter hook input priority filter; policy drop;
        iifname lo accept
        ct state established,related accept
        meta l4proto icmp accept
    }
    chain forward {
        type filter hook forward priority filter;
        iifname \"out0\" ct state established,related accept
        iifname \"out0\" ct status dnat accept
        iifname \"out0\" drop
    }\n";

/// A router between two nets. Clones are the same router; when the last is dropped, it is gone, and the inner net
/// may get another one.
#[must_use = "a router that is dropped is gone"]
#[derive(Clone, Debug)]
pub struct Nat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    outer: Mutex<Cable>,
    inner: Cable,
    settings: Mutex<Settings>,
    space: Arc<Namespace>,
    _lab: Lab,
}

#[derive(Clone, Debug)]
struct Settings {
    kind: NatKind,
    /// How long a mapping outlives its last packet out, in seconds.
    life: u64,
    /// Ports that lead to inside sockets, as nft's elements.
    forwarded: Vec<String>,
    /// Who may send to inside hosts over IPv6; `None` where nobody can.
    v6: Option<InwardV6>,
}

/// What a router lets in over IPv6, which it never translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InwardV6 {
    /// Everything.
    All,
    /// What answers.
    Answers,
}

impl Settings {
    /// Loads the rules into a router, with empty tables.
    fn load(&self, space: &Namespace) {
        space.nft(&(rules(self) + rules_v6(self.v6)));
        let life = self.life.to_string();
        space.enter(|| {
            super::set("net/netfilter/nf_conntrack_udp_timeout", &life);
            super::set("net/netfilter/nf_conntrack_udp_timeout_stream", &life);
        });
    }
}

impl Nat {
    pub(super) fn new(
        lab: &Lab,
        name: &str,
        kind: NatKind,
        (inner, outer): (&Net, &Net),
        shape: Option<Shape>,
    ) -> Self {
        let space = Arc::new(Namespace::create(lab.name(name)));
        let v6 = inner.has_public_v6().then_some(InwardV6::Answers);
        let settings = Settings { kind, life: 120, forwarded: Vec::new(), v6 };
        // Before the first packet: one that waits for the router would pass untranslated, and so would all that
        // follow it.
        settings.load(&space);
        space.enter(|| super::set("net/ipv4/ip_forward", "1"));
        inner.leave_through(&space);
        let inside = Cable::plug(lab, &space, INSIDE, inner, None, true);
        let outside = Cable::plug(lab, &space, OUTSIDE, outer, shape, false);
        if kind == NatKind::None {
            outer.route(inner, outside.v4());
        }
        if v6.is_some() {
            let via = outside.v6().expect("public IPv6 needs an outer net that has it too");
            space.enter(|| super::set("net/ipv6/conf/all/forwarding", "1"));
            outer.route_v6(inner, via);
        }
        Self(Arc::new(Inner {
            outer: Mutex::new(outside),
            inner: inside,
            settings: Mutex::new(settings),
            space,
            _lab: lab.clone(),
        }))
    }

    fn outer(&self) -> MutexGuard<'_, Cable> {
        self.0.outer.lock().expect("no holder panics")
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.0.settings.lock().expect("no holder panics")
    }

    /// Loads the rules, with empty tables.
    fn apply(&self) {
        self.settings().clone().load(&self.0.space);
    }

    /// Its address on the outer net.
    pub fn public_v4(&self) -> Ipv4Addr {
        self.outer().v4()
    }

    /// Its address on the inner net.
    pub fn inner_v4(&self) -> Ipv4Addr {
        self.0.inner.v4()
    }

    /// Forgets a UDP mapping this long after its last packet (rounded up to seconds; 120 s at first), and gives
    /// new ones to those who talk to somebody new.
    pub fn set_udp_life(&self, life: Duration) {
        self.settings().life = life.as_secs() + u64::from(life.subsec_nanos() > 0);
        self.apply();
    }

    /// Leads a port of the outer address, UDP and TCP, to the same port of an inside host, as somebody does on
    /// the router's own page.
    pub fn forward(&self, port: u16, to: &Host) {
        let to = to.addr_v4();
        for protocol in ["tcp", "udp"] {
            let element = format!("{protocol} . {port} : {to} . {port}");
            // A plain router has nothing to translate.
            if self.settings().kind != NatKind::None {
                self.0.space.nft(&format!("add element ip lab forwarded {{ {element} }}\n"));
            }
            self.settings().forwarded.push(element);
        }
    }

    /// Lets everybody send to inside hosts over IPv6, as routers without a firewall do; at first only answers pass.
    pub fn open_v6(&self) {
        let mut settings = self.settings();
        assert!(settings.v6.is_some(), "the inner net has no public IPv6: make it with `with_public_v6`");
        settings.v6 = Some(InwardV6::All);
        drop(settings);
        self.apply();
    }

    /// Loses, in both directions and whoever began, what matches one of these conditions of nftables, as a
    /// company's firewall does (`meta l4proto udp`, `tcp dport != 443`). An empty list lets everything pass.
    pub fn block(&self, conditions: &[&str]) {
        let drops: String =
            conditions.iter().map(|condition| format!("        {condition} drop\n")).collect();
        self.0.space.nft(&format!(
            "table ip blocked\ndelete table ip blocked\ntable ip blocked {{
    chain forward {{
        type filter hook forward priority filter - 1;
{drops}    }}
}}\n"
        ));
    }

    /// Gets another outer address, as at a provider's nightly reconnect: every mapping is forgotten.
    pub fn renumber(&self) -> Ipv4Addr {
        let address = {
            let mut outer = self.outer();
            // The kernel forgets masqueraded connections of an address that it loses.
            outer.renumber();
            outer.v4()
        };
        if self.settings().kind == NatKind::None {
            self.outer().net().route(self.0.inner.net(), address);
        }
        self.apply();
        address
    }

    /// Loses everything between it and the outer net, without a word to anybody.
    pub fn cut(&self) {
        self.outer().cut();
    }

    /// Ends [`cut`](Self::cut).
    pub fn heal(&self) {
        self.outer().heal();
    }

    /// A command that runs on the router.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        self.0.space.command(program)
    }

    /// Works with the link that is its outer cable; panics when the cable is a plain one.
    pub fn link<T>(&self, work: impl FnOnce(&Link) -> T) -> T {
        work(self.outer().link().expect("this router's cable is a plain one: make it with `nat_over`"))
    }
}

impl Plugged for Nat {
    fn port_on(&self, net: &Net) -> Option<String> {
        self.outer().port_on(net).or_else(|| self.0.inner.port_on(net))
    }
}

/// Rules that ask all of the kernel that a router's rules ever do.
pub(super) fn probe() -> String {
    rules(&Settings { kind: NatKind::Restricted, life: 1, forwarded: Vec::new(), v6: None })
        + rules_v6(Some(InwardV6::Answers))
}

/// The rules for IPv6, which replace those that a router has.
fn rules_v6(inward: Option<InwardV6>) -> &'static str {
    match inward {
        None => "",
        Some(InwardV6::All) => "table ip6 lab\ndelete table ip6 lab\n",
        Some(InwardV6::Answers) => {
            "table ip6 lab\ndelete table ip6 lab\ntable ip6 lab {
    chain forward {
        type filter hook forward priority filter;
        iifname \"out0\" ct state established,related accept
        iifname \"out0\" meta l4proto ipv6-icmp accept
        iifname \"out0\" drop
    }
}\n"
        }
    }
}

/// The rules of a router, which replace those that it has.
fn rules(settings: &Settings) -> String {
    let fresh = "table ip lab\ndelete table ip lab\n";
    let life = settings.life;
    let ways_in = |condition: &str| {
        format!(
            "    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname \"{OUTSIDE}\" dnat to meta l4proto . th dport map @forwarded
        {condition}
    }}\n"
        )
    };
    let forwarded = if settings.forwarded.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }};", settings.forwarded.join(", "))
    };
    let forwarded = format!(
        "    map forwarded {{ type inet_proto . inet_service : ipv4_addr . inet_service; {forwarded} }}\n"
    );
    let back = format!("iifname \"{OUTSIDE}\" dnat to meta l4proto . th dport map @back");
    let known = format!(
        "iifname \"{OUTSIDE}\" meta l4proto . th dport . ip saddr @asked dnat to meta l4proto . th dport map @back"
    );
    let body = match settings.kind {
        NatKind::None => return fresh.to_owned(),
        NatKind::FullCone => one_port(life) + &ways_in(&back),
        NatKind::Restricted => one_port(life) + &ways_in(&known),
        NatKind::PortRestricted => one_port(life) + &ways_in(""),
        NatKind::Symmetric => {
            format!(
                "    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname \"{OUTSIDE}\" masquerade fully-random
    }}\n"
            ) + &ways_in("")
        }
    };
    format!("{fresh}table ip lab {{\n{forwarded}{body}{FILTER}}}\n")
}

/// One outside port for an inside socket. The first packet gets a random one; what was given is learned once the
/// translation is done, from the packets that open a conversation outwards.
fn one_port(life: u64) -> String {
    let opened = format!("oifname \"{OUTSIDE}\" meta l4proto {{ tcp, udp }}");
    let inside = "meta l4proto . ct original ip saddr . ct original proto-src";
    format!(
        "    map out {{
        type inet_proto . ipv4_addr . inet_service : inet_service;
        flags dynamic,timeout; timeout {life}s; size 65535;
    }}
    map back {{
        type inet_proto . inet_service : ipv4_addr . inet_service;
        flags dynamic,timeout; timeout {life}s; size 65535;
    }}
    set asked {{
        type inet_proto . inet_service . ipv4_addr;
        flags dynamic,timeout; timeout {life}s; size 65535;
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        {opened} masquerade to :meta l4proto . ip saddr . th sport map @out
        oifname \"{OUTSIDE}\" masquerade fully-random
    }}
    chain learn {{
        type filter hook postrouting priority srcnat + 10;
        {opened} update @asked {{ meta l4proto . th sport . ip daddr }}
        ct direction reply accept
        {opened} update @out {{ {inside} : th sport }}
        {opened} update @back {{ meta l4proto . th sport : ct original ip saddr . ct original proto-src }}
    }}\n"
    )
}
