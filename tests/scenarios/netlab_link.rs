//! Links are as slow, as lossy and as fast as they say; tunnels are what they say.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use potluck_tests::netlab::{Host, NatKind, Shape, Way, WireGuard};

use crate::netlab::{at, lab, seen, socket};

/// Those who measure do it one after another.
fn alone() -> MutexGuard<'static, ()> {
    static MEASURES: Mutex<()> = Mutex::new(());
    MEASURES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Round trips of small datagrams, shortest first.
fn round_trips(from: &Host, to: &Host, address: Ipv4Addr, count: usize) -> Vec<Duration> {
    let stop = Arc::new(AtomicBool::new(false));
    let server = socket(to, 0);
    let target = SocketAddr::from((address, server.local_addr().unwrap().port()));
    let echo = {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut buffer = [0; 2000];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(&buffer[..length], from);
                }
            }
        })
    };
    let client: UdpSocket = socket(from, 0);
    client.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut trips = Vec::new();
    for number in 0..count as u64 {
        let start = Instant::now();
        client.send_to(&number.to_be_bytes(), target).unwrap();
        let mut answer = [0; 8];
        while client.recv(&mut answer).is_ok() {
            if answer == number.to_be_bytes() {
                trips.push(start.elapsed());
                break;
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    stop.store(true, Ordering::Relaxed);
    echo.join().unwrap();
    trips.sort_unstable();
    trips
}

/// Mbit/s of one TCP stream that lasts this long.
fn throughput(from: &Host, to: &Host, address: Ipv4Addr, time: Duration) -> f64 {
    let listener = to.enter(|| TcpListener::bind(("0.0.0.0", 0))).unwrap();
    let target = SocketAddr::from((address, listener.local_addr().unwrap().port()));
    let mut stream = from.enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(5))).unwrap();
    let sender = thread::spawn(move || {
        let (start, block) = (Instant::now(), vec![0; 256 << 10]);
        while start.elapsed() < time {
            stream.write_all(&block).unwrap();
        }
    });
    let (mut accepted, _) = listener.accept().unwrap();
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    let start = Instant::now();
    while let Ok(length @ 1..) = accepted.read(&mut buffer) {
        bytes += length;
    }
    let seconds = start.elapsed().as_secs_f64();
    sender.join().unwrap();
    bytes as f64 * 8.0 / 1e6 / seconds
}

#[test]
fn a_round_trip_takes_twice_the_delay() {
    let Some(lab) = lab("delay") else { return };
    let net = lab.internet();
    let _alone = alone();
    let (a, b) = (lab.host_over("a", &net, Shape::default()), lab.host("b", &net));
    for delay in [0, 10, 50] {
        a.link(|link| link.set(Shape::delay(delay)));
        let exact = Duration::from_millis(2 * delay);
        // The median, and three tries, because a busy machine delays whom it likes.
        let good = (0..3).any(|_| {
            let trips = round_trips(&a, &b, b.addr_v4(), 40);
            assert_eq!(trips.len(), 40, "{delay} ms: packets were lost");
            let (least, median, most) = (trips[0], trips[20], trips[39]);
            println!("{delay} ms each way: round trip {least:?} {median:?} {most:?} (least, median, most)");
            assert!(least >= exact, "{delay} ms: {least:?}");
            median < exact + Duration::from_millis(1)
        });
        assert!(good, "{delay} ms each way: the round trip is more than a millisecond longer");
    }
}

#[test]
fn loss_and_jitter_are_what_was_asked_for() {
    let Some(lab) = lab("loss") else { return };
    let _alone = alone();
    let net = lab.internet();
    let (a, b) = (lab.host_over("a", &net, Shape::default()), lab.host("b", &net));
    a.link(|link| link.set(Shape { jitter: Duration::from_millis(10), ..Shape::delay(5) }));
    let trips = round_trips(&a, &b, b.addr_v4(), 60);
    let (least, most) = (trips[0], trips[59]);
    assert!(
        least >= Duration::from_millis(10) && most > least + Duration::from_millis(4),
        "{least:?} {most:?}"
    );

    a.link(|link| link.set_way(Way::Up, Shape { loss: 0.2, ..Shape::default() }));
    a.link(|link| link.set_way(Way::Down, Shape::default()));
    let (sender, receiver) = (socket(&a, 0), socket(&b, 0));
    let arrived = (0..1000).filter(|_| {
        sender.send_to(b"x", at(&b, &receiver)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    });
    let arrived = arrived.count();
    assert!((720..880).contains(&arrived), "{arrived} of 1000");
    let counts = a.link(|link| link.counts(Way::Up));
    assert!((120..280).contains(&counts.lost), "{counts:?}");
}

#[test]
fn a_link_goes_down_and_up_at_run_time() {
    let Some(lab) = lab("down") else { return };
    let (net, cafe) = (lab.internet(), lab.net("cafe"));
    let (a, b) = (lab.host_over("a", &net, Shape::default()), lab.host("b", &net));
    let (sender, receiver) = (socket(&a, 0), socket(&b, 0));
    let works = || seen(&sender, at(&b, &receiver), &receiver).is_some();
    assert!(works());
    a.link(|link| link.tell("down")).unwrap();
    assert!(!works());
    a.link(|link| link.tell("up")).unwrap();
    assert!(works());
    // The link is the host's cable wherever the host goes.
    let _router = lab.nat("router", NatKind::FullCone, &cafe, &net);
    a.link(|link| link.set(Shape::delay(20)));
    a.move_to(&cafe);
    assert!(works());
    assert!(round_trips(&a, &b, b.addr_v4(), 3)[0] >= Duration::from_millis(40));
}

#[test]
fn a_rate_is_kept_and_a_link_without_one_is_fast() {
    let Some(lab) = lab("rate") else { return };
    let _alone = alone();
    let net = lab.internet();
    let (a, b) = (lab.host_over("a", &net, Shape::default()), lab.host("b", &net));
    let fast = throughput(&a, &b, b.addr_v4(), Duration::from_secs(2));
    println!("one TCP stream over a link without delay: {fast:.0} Mbit/s");
    assert!(fast > 100.0, "{fast:.0} Mbit/s");
    for rate in [5, 50] {
        a.link(|link| link.set(Shape::rate(rate)));
        let measured = throughput(&a, &b, b.addr_v4(), Duration::from_millis(1500));
        println!("a link of {rate} Mbit/s carries {measured:.1} Mbit/s of a TCP stream");
        let part = measured / rate as f64;
        // The rest is what the headers take, and the start.
        assert!((0.75..1.0).contains(&part), "{measured:.1} of {rate} Mbit/s");
    }
    let plain = lab.host("plain", &net);
    let veth = throughput(&plain, &b, b.addr_v4(), Duration::from_secs(1));
    println!("one TCP stream over a plain cable: {veth:.0} Mbit/s");
}

#[test]
fn the_program_link_joins_namespaces_and_obeys_its_stdin() {
    let Some(lab) = lab("program") else { return };
    let (left, right) = (lab.net("left"), lab.net("right"));
    let (a, b) = (lab.host("a", &left), lab.host("b", &right));
    let mut program = Command::new(env!("CARGO_BIN_EXE_link"));
    program.args(["--a", a.namespace(), "--b", b.namespace(), "--delay-ms", "10"]);
    program.args(["--a-address", "10.7.0.1/24", "--b-address", "10.7.0.2/24"]);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answer = || {
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    assert_eq!(answer(), "ready");
    let there = Ipv4Addr::new(10, 7, 0, 2);
    let least = round_trips(&a, &b, there, 5)[0];
    assert!((20..30).contains(&least.as_millis()), "{least:?}");
    let mut tell = |line: &str| {
        writeln!(stdin, "{line}").unwrap();
        answer()
    };
    assert_eq!(tell("delay 0"), "ok");
    assert!(tell("delay quickly").starts_with("error: `delay` needs a number"));
    assert!(round_trips(&a, &b, there, 5)[0] < Duration::from_millis(5));
    assert!(tell("counts").contains("carried"));
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert!(round_trips_fail(&a, there), "the interfaces outlive the program");
}

fn round_trips_fail(from: &Host, to: Ipv4Addr) -> bool {
    let socket = socket(from, 0);
    socket.send_to(b"x", (to, 9)).is_err() || socket.recv(&mut [0; 8]).is_err()
}

#[test]
fn a_tunnel_carries_traffic_and_follows_a_host_that_roams() {
    let Some(lab) = lab("wireguard") else { return };
    let _alone = alone();
    let (net, home, cafe) = (lab.internet(), lab.net("home"), lab.net("cafe"));
    let _first = lab.nat("home-router", NatKind::PortRestricted, &home, &net);
    let _second = lab.nat("cafe-router", NatKind::Symmetric, &cafe, &net);
    let (laptop, server) = (lab.host("laptop", &home), lab.host("server", &net));
    let tunnel = WireGuard::between(&laptop, &server);
    let trips = round_trips(&laptop, &server, tunnel.addr_b(), 20);
    assert!(trips.len() >= 19, "{trips:?}");
    println!("a round trip through the tunnel: {:?} (median)", trips[10]);
    let speed = throughput(&laptop, &server, tunnel.addr_b(), Duration::from_secs(2));
    println!("one TCP stream through the tunnel: {speed:.0} Mbit/s");

    // The server's packets find the laptop first where it was, then, once it has spoken, where it is.
    laptop.move_to(&cafe);
    let until = Instant::now() + Duration::from_secs(10);
    while round_trips(&server, &laptop, tunnel.addr_a(), 1).is_empty() {
        assert!(Instant::now() < until, "the tunnel did not follow");
    }
    // There is no other way than the one that the tunnel's packets take.
    laptop.cut();
    assert!(round_trips(&server, &laptop, tunnel.addr_a(), 1).is_empty());
    laptop.heal();
    assert!(!round_trips(&server, &laptop, tunnel.addr_a(), 5).is_empty());
    drop(tunnel);
    let devices = laptop.command("ip").args(["-o", "link"]).output().unwrap().stdout;
    assert!(!String::from_utf8(devices).unwrap().contains("wg"), "the interface outlives the tunnel");
}
