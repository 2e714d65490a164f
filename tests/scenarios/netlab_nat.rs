//! Each kind of router maps and filters as its name says (the words are those of RFC 4787).

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use potluck_tests::netlab::{Host, Lab, Nat, NatKind, Net};

use crate::netlab::{at, lab, seen, socket};

const TRANSLATING: [NatKind; 4] =
    [NatKind::FullCone, NatKind::Restricted, NatKind::PortRestricted, NatKind::Symmetric];

/// A home behind a router.
struct Home {
    net: Net,
    nat: Nat,
    host: Host,
}

impl Home {
    fn new(lab: &Lab, kind: NatKind, internet: &Net) -> Self {
        let net = lab.net("home");
        let nat = lab.nat("router", kind, &net, internet);
        let host = lab.host("inside", &net);
        Self { net, nat, host }
    }
}

/// Two hosts of the internet, the first with two sockets.
struct World {
    internet: Net,
    first: Host,
    second: Host,
    sockets: [UdpSocket; 3],
    addresses: [SocketAddr; 3],
}

impl World {
    fn new(lab: &Lab) -> Self {
        let internet = lab.internet();
        let (first, second) = (lab.host("first", &internet), lab.host("second", &internet));
        let sockets = [socket(&first, 3478), socket(&first, 3479), socket(&second, 3478)];
        let addresses = [at(&first, &sockets[0]), at(&first, &sockets[1]), at(&second, &sockets[2])];
        Self { internet, first, second, sockets, addresses }
    }

    /// How each of the three sees a socket that sends to it.
    fn mappings(&self, inside: &UdpSocket) -> [SocketAddr; 3] {
        [0, 1, 2].map(|i| seen(inside, self.addresses[i], &self.sockets[i]).expect("what goes out passes"))
    }
}

#[test]
fn mapping_depends_on_the_destination_only_where_it_should() {
    let Some(lab) = lab("mapping") else { return };
    let world = World::new(&lab);
    for kind in TRANSLATING {
        let home = Home::new(&lab, kind, &world.internet);
        let inside = socket(&home.host, 4001);
        let mappings = world.mappings(&inside);
        assert!(mappings.iter().all(|m| m.ip() == home.nat.public_v4()), "{kind:?}: {mappings:?}");
        let [one, two, three] = mappings;
        let same = one == two && two == three;
        assert_eq!(same, kind != NatKind::Symmetric, "{kind:?}: {mappings:?}");
        if kind == NatKind::Symmetric {
            assert!(one != two && two != three && one != three, "{mappings:?}");
        }
        // It stays what it is, and another host with the same port gets another one.
        assert_eq!(world.mappings(&inside), mappings, "{kind:?}");
        let neighbour = lab.host("neighbour", &home.net);
        let theirs = world.mappings(&socket(&neighbour, 4001));
        assert!(theirs.iter().all(|m| !mappings.contains(m)), "{kind:?}: {mappings:?} {theirs:?}");
        assert_eq!(world.mappings(&inside), mappings, "{kind:?}");
    }
}

#[test]
fn filtering_lets_in_whom_it_should() {
    let Some(lab) = lab("filtering") else { return };
    let expected = [
        (NatKind::FullCone, [true, true, true]),
        (NatKind::Restricted, [true, true, false]),
        (NatKind::PortRestricted, [true, false, false]),
        (NatKind::Symmetric, [true, false, false]),
    ];
    thread::scope(|scope| {
        for (kind, expected) in expected {
            let lab = &lab;
            scope.spawn(move || filters(lab, kind, expected));
        }
    });
}

fn filters(lab: &Lab, kind: NatKind, expected: [bool; 3]) {
    let world = World::new(lab);
    let home = Home::new(lab, kind, &world.internet);
    let inside = socket(&home.host, 4001);
    let stranger = SocketAddr::from((home.nat.public_v4(), 4001));
    assert_eq!(seen(&world.sockets[0], stranger, &inside), None, "{kind:?} lets a stranger in");
    // The inside host has talked to the first socket of the first host, and to nobody else.
    let mapped = seen(&inside, world.addresses[0], &world.sockets[0]).unwrap();
    let passed = [0, 1, 2].map(|i| seen(&world.sockets[i], mapped, &inside));
    assert_eq!(passed.map(|from| from.is_some()), expected, "{kind:?}");
    // Whoever passes is seen under their own address.
    for (from, address) in passed.iter().zip(&world.addresses) {
        assert!(from.is_none_or(|from| from == *address), "{kind:?}: {from:?}");
    }
    // A reply to whoever was let in leaves from the same port.
    if kind == NatKind::FullCone {
        assert_eq!(seen(&inside, world.addresses[2], &world.sockets[2]), Some(mapped));
    }
}

/// Sends both ways until something arrives on both sides; each aims at what a third party saw of the other.
fn punch(lab: &Lab, world: &World, kinds: [NatKind; 2]) -> bool {
    let homes = kinds.map(|kind| Home::new(lab, kind, &world.internet));
    let sockets = [socket(&homes[0].host, 4001), socket(&homes[1].host, 4001)];
    let seen_at = [0, 1].map(|i| seen(&sockets[i], world.addresses[0], &world.sockets[0]).unwrap());
    let (mut targets, mut heard) = ([seen_at[1], seen_at[0]], [false; 2]);
    for _ in 0..4 {
        for side in 0..2 {
            sockets[side].send_to(b"punch", targets[side]).unwrap();
        }
        for side in 0..2 {
            let mut buffer = [0; 16];
            sockets[side].set_read_timeout(Some(Duration::from_millis(60))).unwrap();
            while let Ok((_, from)) = sockets[side].recv_from(&mut buffer) {
                // The answer goes where the packet came from, which need not be where we aimed.
                (targets[side], heard[side]) = (from, true);
            }
        }
    }
    heard == [true; 2]
}

#[test]
fn hole_punching_works_except_between_symmetric_and_the_strict() {
    let Some(lab) = lab("punch") else { return };
    let world = World::new(&lab);
    use NatKind::{FullCone, PortRestricted, Restricted, Symmetric};
    for (kinds, expected) in [
        ([PortRestricted, PortRestricted], true),
        ([FullCone, Symmetric], true),
        ([Restricted, Symmetric], true),
        ([PortRestricted, Symmetric], false),
        ([Symmetric, Symmetric], false),
    ] {
        assert_eq!(punch(&lab, &world, kinds), expected, "{kinds:?}");
    }
}

#[test]
fn tcp_goes_out_and_comes_in_only_through_a_forwarded_port() {
    let Some(lab) = lab("tcp") else { return };
    let world = World::new(&lab);
    let listener = world.first.enter(|| TcpListener::bind(("0.0.0.0", 80))).unwrap();
    let out = SocketAddr::from((world.first.addr_v4(), 80));
    for kind in TRANSLATING {
        let home = Home::new(&lab, kind, &world.internet);
        home.host.enter(|| TcpStream::connect_timeout(&out, Duration::from_secs(2))).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), home.nat.public_v4(), "{kind:?}");
        let _server = home.host.enter(|| TcpListener::bind(("0.0.0.0", 8080))).unwrap();
        let into = SocketAddr::from((home.nat.public_v4(), 8080));
        let knock = || world.second.enter(|| TcpStream::connect_timeout(&into, Duration::from_millis(300)));
        assert_eq!(knock().unwrap_err().kind(), std::io::ErrorKind::TimedOut, "{kind:?}");
        home.nat.forward(8080, &home.host);
        knock().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn a_firewall_lets_through_what_it_is_told_to() {
    let Some(lab) = lab("firewall") else { return };
    let world = World::new(&lab);
    let home = Home::new(&lab, NatKind::PortRestricted, &world.internet);
    let listeners =
        [443, 4001].map(|port| world.first.enter(|| TcpListener::bind(("0.0.0.0", port))).unwrap());
    let inside = socket(&home.host, 4001);
    let connects = || {
        [0, 1].map(|i| {
            let to = (world.first.addr_v4(), listeners[i].local_addr().unwrap().port()).into();
            home.host.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(300))).is_ok()
        })
    };
    let talks = || seen(&inside, world.addresses[0], &world.sockets[0]).is_some();
    assert!(talks() && connects() == [true, true]);
    home.nat.block(&["meta l4proto udp"]);
    assert!(!talks() && connects() == [true, true]);
    home.nat.block(&["meta l4proto udp", "tcp dport != 443 ct direction original"]);
    assert!(!talks() && connects() == [true, false]);
    home.nat.block(&[]);
    assert!(talks() && connects() == [true, true]);
}

#[test]
fn a_plain_router_translates_nothing() {
    let Some(lab) = lab("plain") else { return };
    let world = World::new(&lab);
    let home = Home::new(&lab, NatKind::None, &world.internet);
    let inside = socket(&home.host, 0);
    let here = at(&home.host, &inside);
    assert_eq!(seen(&world.sockets[2], here, &inside), Some(world.addresses[2]));
    assert_eq!(world.mappings(&inside), [here; 3]);
    home.nat.renumber();
    assert_eq!(seen(&world.sockets[2], here, &inside), Some(world.addresses[2]));
}

#[test]
fn ipv6_keeps_its_addresses_and_is_let_in_as_the_router_is_told() {
    let Some(lab) = lab("v6") else { return };
    let internet = lab.internet().with_v6();
    let home = lab.net("home").with_public_v6();
    let router = lab.nat("router", NatKind::Symmetric, &home, &internet);
    let (inside, outside) = (lab.host("inside", &home), lab.host("outside", &internet));
    let bound = |host: &Host| {
        let socket = host.enter(|| UdpSocket::bind((host.addr_v6().unwrap(), 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    };
    let ((here, here_at), (there, there_at)) = (bound(&inside), bound(&outside));
    assert_eq!(seen(&there, here_at, &here), None);
    assert_eq!(seen(&here, there_at, &there), Some(here_at));
    assert_eq!(seen(&there, here_at, &here), Some(there_at));
    let (second, second_at) = bound(&inside);
    assert_eq!(seen(&there, second_at, &second), None);
    router.open_v6();
    assert_eq!(seen(&there, second_at, &second), Some(there_at));
}

#[test]
fn a_router_that_is_dropped_is_gone_and_can_be_replaced() {
    let Some(lab) = lab("replaced") else { return };
    let world = World::new(&lab);
    let net = lab.net("home");
    let host = lab.host("inside", &net);
    let inside = socket(&host, 4001);
    let outside = || seen(&inside, world.addresses[0], &world.sockets[0]).map(|from| from.ip());
    assert_eq!(outside(), None, "a net without a router is left");
    let first = lab.nat("first", NatKind::FullCone, &net, &world.internet);
    assert_eq!(outside(), Some(first.public_v4().into()));
    drop(first);
    assert_eq!(outside(), None, "the router is still there");
    let second = lab.nat("second", NatKind::Symmetric, &net, &world.internet);
    let until = Instant::now() + Duration::from_secs(5);
    while outside() != Some(second.public_v4().into()) {
        assert!(Instant::now() < until, "the new router is not found");
    }
}

#[test]
fn a_providers_nat_behind_a_homes_nat() {
    let Some(lab) = lab("double") else { return };
    let world = World::new(&lab);
    let provider = lab.net_at("provider", [100, 64, 0, 0].into(), 16);
    let outer = lab.nat("provider", NatKind::Symmetric, &provider, &world.internet);
    let home = Home::new(&lab, NatKind::FullCone, &provider);
    let mappings = world.mappings(&socket(&home.host, 4001));
    assert!(mappings.iter().all(|m| m.ip() == outer.public_v4()), "{mappings:?}");
    assert!(mappings[0] != mappings[2], "the stricter of the two decides: {mappings:?}");
    assert!(home.nat.public_v4().octets().starts_with(&[100, 64]));
}

#[test]
fn a_mapping_ends_with_its_life_and_with_the_address() {
    let Some(lab) = lab("life") else { return };
    thread::scope(|scope| {
        for kind in TRANSLATING {
            let lab = &lab;
            scope.spawn(move || forgets(lab, kind));
        }
    });
}

fn forgets(lab: &Lab, kind: NatKind) {
    let world = World::new(lab);
    let home = Home::new(lab, kind, &world.internet);
    home.nat.set_udp_life(Duration::from_secs(1));
    let inside = socket(&home.host, 4001);
    let mapped = seen(&inside, world.addresses[0], &world.sockets[0]).unwrap();
    assert!(seen(&world.sockets[0], mapped, &inside).is_some(), "{kind:?}");
    let until = Instant::now() + Duration::from_secs(8);
    thread::sleep(Duration::from_millis(2200));
    while seen(&world.sockets[0], mapped, &inside).is_some() {
        assert!(Instant::now() < until, "{kind:?} never forgets");
        thread::sleep(Duration::from_millis(1500));
    }
    home.nat.set_udp_life(Duration::from_secs(120));
    let mapped = seen(&inside, world.addresses[0], &world.sockets[0]).unwrap();
    let before = home.nat.public_v4();
    let now = home.nat.renumber();
    assert!(now != before && now == home.nat.public_v4());
    assert_eq!(seen(&world.sockets[0], mapped, &inside), None, "{kind:?}");
    let again = seen(&inside, world.addresses[0], &world.sockets[0]);
    assert_eq!(again.map(|from| from.ip()), Some(now.into()), "{kind:?}");
}
