//! Hosts, nets, partitions, roaming, and what is left of a lab.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    data::skipped,
    netlab::{Host, Lab, NatKind},
};

/// A lab, or the words with which the running test is skipped.
pub(crate) fn lab(name: &str) -> Option<Lab> {
    match Lab::available() {
        Ok(()) => Some(Lab::new(name)),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

/// A UDP socket on a host that does not wait long for what will not come.
pub(crate) fn socket(host: &Host, port: u16) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    socket
}

/// Where a host's socket can be sent to.
pub(crate) fn at(host: &Host, socket: &UdpSocket) -> SocketAddr {
    SocketAddr::from((host.addr_v4(), socket.local_addr().unwrap().port()))
}

/// Sends a datagram and tells from where it came, if it came.
pub(crate) fn seen(from: &UdpSocket, to: SocketAddr, there: &UdpSocket) -> Option<SocketAddr> {
    let word = format!("{to} {:?}", Instant::now());
    from.send_to(word.as_bytes(), to).ok()?;
    loop {
        let mut buffer = [0; 200];
        let (length, sender) = there.recv_from(&mut buffer).ok()?;
        // What came late of an earlier try does not count.
        if &buffer[..length] == word.as_bytes() {
            return Some(sender);
        }
    }
}

/// Whether a packet from one host reaches the other now.
fn reaches(from: &Host, to: &Host) -> bool {
    let (sender, receiver) = (socket(from, 0), socket(to, 0));
    seen(&sender, at(to, &receiver), &receiver).is_some()
}

#[track_caller]
fn both(a: &Host, b: &Host) -> bool {
    let there = reaches(a, b);
    assert_eq!(there, reaches(b, a), "one way only");
    there
}

#[test]
fn hosts_of_a_net_reach_each_other_and_nobody_else() {
    let Some(lab) = lab("reach") else { return };
    let (home, other, internet) = (lab.net("home"), lab.net("other"), lab.internet().with_v6());
    let (a, b) = (lab.host("a", &home), lab.host("b", &home));
    let (c, d, e) = (lab.host("c", &other), lab.host("d", &internet), lab.host("e", &internet));
    assert!(both(&a, &b) && both(&d, &e));
    assert!(!both(&a, &c) && !both(&a, &d));
    assert!(a.addr_v4().is_private() && a.addr_v6().is_none());
    let public = d.addr_v4();
    assert!(!public.is_private() && !public.is_documentation() && !public.is_link_local(), "{public}");

    // IPv6 needs no second address detection to be over.
    let listener = e.enter(|| TcpListener::bind((IpAddr::from(e.addr_v6().unwrap()), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    d.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1))).unwrap();

    // Nobody's address swallows what it is sent: neither an answer nor an error.
    let nobody: SocketAddr = "44.200.1.1:9".parse().unwrap();
    let error = d.enter(|| TcpStream::connect_timeout(&nobody, Duration::from_millis(300))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    // And nothing reaches this machine's own network.
    assert!(!a.enter(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap()).contains("eth1"));
}

#[test]
fn a_cut_host_hears_nothing_until_it_is_healed() {
    let Some(lab) = lab("cut") else { return };
    let net = lab.internet();
    let (a, b, c) = (lab.host("a", &net), lab.host("b", &net), lab.host("c", &net));
    a.cut();
    assert!(!both(&a, &b) && both(&b, &c));
    // A lost packet is not an error to who sends it.
    let sender = socket(&a, 0);
    thread::sleep(Duration::from_millis(3500));
    for _ in 0..3 {
        sender.send_to(b"x", (b.addr_v4(), 9)).unwrap();
    }
    a.heal();
    a.heal();
    assert!(both(&a, &b));
    a.unplug();
    assert!(
        sender.send_to(b"x", (b.addr_v4(), 9)).is_err(),
        "the system must say that the interface is down"
    );
    let before = a.addr_v4();
    a.replug();
    assert_eq!(a.addr_v4(), before);
    assert!(both(&a, &b));
}

#[test]
fn a_partition_parts_groups_and_a_later_one_replaces_it() {
    let Some(lab) = lab("partition") else { return };
    let (net, home) = (lab.internet(), lab.net("home"));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| lab.host(name, &net));
    let router = lab.nat("router", NatKind::PortRestricted, &home, &net);
    let inside = lab.host("inside", &home);
    net.partition(&[&[&a, &b], &[&c, &router]]);
    assert!(both(&a, &b) && !both(&a, &c) && !both(&b, &c));
    // Who is in no group reaches everybody.
    assert!(both(&d, &a) && both(&d, &c));
    assert!(!reaches(&inside, &a) && reaches(&inside, &c));
    net.partition(&[&[&a], &[&b], &[&d]]);
    assert!(!both(&a, &b) && !both(&a, &d) && both(&a, &c) && reaches(&inside, &a));
    net.mend();
    assert!(both(&a, &b) && both(&a, &d));
}

#[test]
fn a_host_that_moves_keeps_its_sockets_and_gets_another_address() {
    let Some(lab) = lab("roam") else { return };
    let (internet, home, cafe) = (lab.internet(), lab.net("home"), lab.net("cafe"));
    let first = lab.nat("home-router", NatKind::PortRestricted, &home, &internet);
    let second = lab.nat("cafe-router", NatKind::Symmetric, &cafe, &internet);
    let (laptop, server) = (lab.host("laptop", &home), lab.host("server", &internet));
    let (sender, receiver) = (socket(&laptop, 0), socket(&server, 0));
    let to = at(&server, &receiver);
    assert_eq!(seen(&sender, to, &receiver).unwrap().ip(), first.public_v4());
    let before = laptop.addr_v4();
    laptop.cut();
    assert_ne!(laptop.move_to(&cafe), before);
    // The move heals, and a socket that is bound to no address goes along.
    assert_eq!(seen(&sender, to, &receiver).unwrap().ip(), second.public_v4());
    let here = laptop.move_to(&internet);
    assert_eq!(seen(&sender, to, &receiver).unwrap().ip(), here);
    assert_ne!(laptop.renumber(), here);
    assert_eq!(seen(&sender, to, &receiver).unwrap().ip(), laptop.addr_v4());
    laptop.move_to(&home);
    assert_eq!(seen(&sender, to, &receiver).unwrap().ip(), first.public_v4());
}

#[test]
fn a_command_runs_on_its_host_and_dies_with_it() {
    let Some(lab) = lab("command") else { return };
    let host = lab.host("a", &lab.internet());
    let output = host.command("ip").args(["-4", "-o", "address", "show"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&host.addr_v4().to_string()), "{text}");
    let echoed = host.command("sh").args(["-c", "echo $PATH"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(echoed).unwrap().trim(), env::var("PATH").unwrap());

    // The process, and the child that left its session.
    let mut child = host
        .command("sh")
        .args(["-c", "setsid sleep 1000 & echo $!; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let grandchild = line.trim().to_owned();
    assert!(lives(&grandchild));
    let name = host.namespace().to_owned();
    drop(host);
    assert!(!child.wait().unwrap().success());
    assert!(!lives(&grandchild));
    assert!(!names().contains(&name));
    let left = names().into_iter().filter(|name| name.starts_with(lab.prefix()));
    assert_eq!(left.collect::<Vec<_>>(), [] as [&str; 0]);
}

/// Whether a process is more than a corpse that nobody has buried yet.
fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn names() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Not a test of its own: a process that makes a lab and waits to be killed.
#[test]
fn a_lab_whose_process_is_killed() {
    if env::var_os("NETLAB_VICTIM").is_none() {
        return;
    }
    let lab = Lab::new("victim");
    let (net, home) = (lab.internet(), lab.net("home"));
    let _nat = lab.nat_over("router", NatKind::FullCone, &home, &net, Default::default());
    let host = lab.host_over("a", &home, Default::default());
    let mut sleeper = host.command("sleep").arg("1000").spawn().unwrap();
    println!("victim {} {}", lab.prefix(), sleeper.id());
    std::io::stdout().flush().unwrap();
    // Nobody came.
    thread::sleep(Duration::from_secs(60));
    sleeper.kill().and_then(|()| sleeper.wait()).unwrap();
}

#[test]
fn what_a_killed_process_left_is_swept_by_the_next_lab() {
    let Some(lab) = lab("sweep") else { return };
    let neighbour = lab.host("a", &lab.internet());
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "netlab::a_lab_whose_process_is_killed", "--nocapture"])
        .env("NETLAB_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line =
        lines.find_map(|line| line.unwrap().split_once("victim ").map(|(_, rest)| rest.to_owned())).unwrap();
    let (prefix, sleeper) = line.split_once(' ').unwrap();
    assert_eq!(names().iter().filter(|name| name.starts_with(prefix)).count(), 4);
    victim.kill().unwrap();
    victim.wait().unwrap();
    drop(Lab::new("next"));
    assert_eq!(names().iter().filter(|name| name.starts_with(prefix)).count(), 0);
    assert!(!lives(sleeper), "the host's process is still there");
    // The labs of living processes are left alone.
    assert!(neighbour.command("true").status().unwrap().success());
}

#[test]
fn labs_do_not_see_each_other() {
    let Some(first) = lab("labs") else { return };
    let labs: Vec<Lab> = std::iter::once(first).chain((0..3).map(|_| Lab::new("labs"))).collect();
    thread::scope(|scope| {
        for lab in &labs {
            scope.spawn(move || {
                let (net, home) = (lab.internet(), lab.net_at("home", Ipv4Addr::new(10, 0, 0, 0), 24));
                let router = lab.nat("router", NatKind::FullCone, &home, &net);
                let (inside, outside) = (lab.host("inside", &home), lab.host("outside", &net));
                let listener = outside.enter(|| TcpListener::bind(("0.0.0.0", 80))).unwrap();
                let address = SocketAddr::from((outside.addr_v4(), 80));
                let mut stream =
                    inside.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(3))).unwrap();
                let (mut accepted, from) = listener.accept().unwrap();
                assert_eq!(from.ip(), router.public_v4());
                stream.write_all(lab.prefix().as_bytes()).unwrap();
                drop(stream);
                let mut text = String::new();
                accepted.read_to_string(&mut text).unwrap();
                assert_eq!(text, lab.prefix());
            });
        }
    });
}
