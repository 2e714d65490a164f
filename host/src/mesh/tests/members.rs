//! Members among themselves.

use super::*;
use crate::mesh::address;

#[tokio::test(flavor = "multi_thread")]
async fn members_connect_over_quic_and_exchange_bytes() {
    let (a, b) = (start(local()).await, start(local()).await);
    echo(b.handle().bind(ECHO));
    echo(a.handle().bind(ECHO));
    befriend(&[&a, &b]);
    assert_eq!(connected(&a, &b).await, Path::DirectV4);
    assert_eq!(connected(&b, &a).await, Path::DirectV4);
    let link = a.handle().connections().borrow()[&b.me()].clone();
    assert!(!address::is_tcp(&link.address), "{}", link.address);
    echoes(&a, &b).await.unwrap();
    echoes(&b, &a).await.unwrap();
    a.shutdown().await;
    let links = b.handle().connections();
    until("gone", Duration::from_secs(2), || links.borrow().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_connect_over_tcp_only_and_over_ipv6() {
    let tcp = || Config { quic: false, listen: vec!["[::1]:0".parse().unwrap()], ..local() };
    let (a, b) = (start(tcp()).await, start(tcp()).await);
    echo(b.handle().bind(ECHO));
    befriend(&[&a, &b]);
    assert_eq!(connected(&a, &b).await, Path::DirectV6);
    let link = a.handle().connections().borrow()[&b.me()].clone();
    assert!(address::is_tcp(&link.address), "{}", link.address);
    echoes(&a, &b).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_an_error() {
    for quic in [true, false] {
        let config = Config { quic, tcp: !quic, ..local() };
        let a = start(config.clone()).await;
        let at = a.handle().addresses().borrow()[0].to_string();
        let port: u16 = at.split('/').nth(4).unwrap().parse().unwrap();
        let config = Config { listen: vec![([127, 0, 0, 1], port).into()], ..config };
        let error = Mesh::bind(config, seed()).await.err().unwrap();
        assert!(error.to_string().contains("in use"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_makes_the_connection_it_needs() {
    let (a, b) = (start(local()).await, start(local()).await);
    echo(b.handle().bind(ECHO));
    befriend(&[&a, &b]);
    echoes(&a, &b).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_from_the_gate_ends_connections_and_streams_at_once() {
    let (a, b) = (start(local()).await, start(local()).await);
    echo(b.handle().bind(ECHO));
    befriend(&[&a, &b]);
    let mut stream = a.handle().open(b.me(), ECHO).await.unwrap();
    says(&mut stream, b"still here").await;
    let began = Instant::now();
    b.handle().set_gate(gate(&[]));
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the stream lived on");
    let links = a.handle().connections();
    until("gone", Duration::from_secs(1), || links.borrow().is_empty().then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(b.handle().connections().borrow().is_empty());
    let error = b.handle().open(a.me(), ECHO).await.err().unwrap();
    assert!(error.to_string().contains("not a member"), "{error}");
    // It comes back when the gate lets it in again.
    b.handle().set_gate(gate(&[a.me(), b.me()]));
    until("back", Duration::from_secs(10), || links.borrow().get(&b.me()).map(|_| ())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_nobody_takes_is_refused() {
    let (a, b) = (start(local()).await, start(local()).await);
    befriend(&[&a, &b]);
    connected(&a, &b).await;
    sleep(Duration::from_millis(300)).await;
    let error = a.handle().open(b.me(), ECHO).await.err().unwrap();
    assert_eq!(error, OpenError::Refused { peer: b.me(), protocol: ECHO });
    // Bound later, it is taken.
    echo(b.handle().bind(ECHO));
    let began = Instant::now();
    while echoes(&a, &b).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5));
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_leave_nothing_behind() {
    let (a, b) = (start(local()).await, start(local()).await);
    echo(b.handle().bind(ECHO));
    befriend(&[&a, &b]);
    connected(&a, &b).await;
    let began = Instant::now();
    for n in 0..10_000_u32 {
        let mut stream = a.handle().open(b.me(), ECHO).await.unwrap();
        says(&mut stream, &n.to_be_bytes()).await;
        if n % 2_000 == 1_999 {
            println!("{} streams in {:?}", n + 1, began.elapsed());
        }
    }
    println!("10,000 streams in {:?}", began.elapsed());
    // As many at once as the cap allows, and not one more; all of them are free again afterwards.
    for _ in 0..2 {
        let mut open = Vec::new();
        let refusal = loop {
            match a.handle().open(b.me(), ECHO).await {
                Ok(mut stream) => {
                    says(&mut stream, b"x").await;
                    open.push(stream);
                }
                Err(error) => break error,
            }
            assert!(open.len() <= crate::mesh::limits::STREAMS_PER_CONNECTION);
        };
        assert!(refusal.to_string().contains("too many streams"), "{refusal}");
        assert_eq!(open.len(), crate::mesh::limits::STREAMS_PER_CONNECTION);
        drop(open);
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_and_dropped_arrives() {
    for quic in [true, false] {
        let config = || Config { quic, ..local() };
        let (a, b) = (start(config()).await, start(config()).await);
        let mut incoming = b.handle().bind(ECHO);
        befriend(&[&a, &b]);
        for n in 0..50_u8 {
            let mut stream = a.handle().open(b.me(), ECHO).await.unwrap();
            stream.write_all(&[n; 100]).await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream);
            let mut inbound = timeout(Duration::from_secs(2), incoming.recv()).await.unwrap().unwrap();
            let mut all = Vec::new();
            inbound.stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [n; 100]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_somebody_else_behind_it_spoils_nothing() {
    let (a, b, c) = (start(local()).await, start(local()).await, start(local()).await);
    let others = c.handle().addresses().borrow().iter().map(address::bare).collect();
    a.handle().learn(b.me(), others);
    a.handle().learn(b.me(), a.handle().addresses().borrow().iter().map(address::bare).collect());
    befriend(&[&a, &b]);
    connected(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_learnt_while_a_dial_waits_for_a_relay_is_dialled_at_once() {
    let (a, b, gone) = (start(local()).await, start(local()).await, start(local()).await);
    let all = [a.me(), b.me(), gone.me()];
    gone.shutdown().await;
    let gate = Gate { relays: set(&all), ..gate(&all) };
    a.handle().set_gate(gate.clone());
    b.handle().set_gate(gate);
    // The dial of b knows no address, and the third one may yet come and relay.
    sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    introduce(&a.handle(), &b.handle());
    connected(&a, &b).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_once_has_written_down_whom_it_met() {
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join("addresses");
    let (a, b) = (start(Config { book: Some(book.clone()), ..local() }).await, start(local()).await);
    introduce(&a.handle(), &b.handle());
    // Nothing of the actor's end is waited for: this is what a machine that dies now would find.
    let copy = folder.path().join("copy");
    until("written", Duration::from_secs(1), || std::fs::copy(&book, &copy).ok()).await;
    let again = start(Config { book: Some(copy), ..local() }).await;
    let all = [a.me(), b.me(), again.me()];
    b.handle().set_gate(gate(&all));
    again.handle().set_gate(gate(&all));
    connected(&again, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attention_is_silent_while_all_is_well() {
    let (a, b) = (start(local()).await, start(local()).await);
    befriend(&[&a, &b]);
    connected(&a, &b).await;
    sleep(Duration::from_millis(500)).await;
    let mut events = a.handle().events();
    let attention = a.handle().attend(b.me());
    sleep(Duration::from_secs(2)).await;
    assert!(!matches!(events.try_recv(), Ok(crate::mesh::MeshEvent::Quiet { .. })), "quiet without reason");
    drop(attention);
}

async fn pour(config: impl Fn() -> Config) -> f64 {
    let (a, b) = (start(config()).await, start(config()).await);
    let mut incoming = b.handle().bind(ECHO);
    befriend(&[&a, &b]);
    connected(&a, &b).await;
    const TOTAL: usize = 64 << 20;
    let mut stream = a.handle().open(b.me(), ECHO).await.unwrap();
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let chunk = vec![7; 64 << 10];
        for _ in 0..TOTAL / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let mut end = Vec::new();
        stream.read_to_end(&mut end).await.unwrap();
        end
    });
    let mut inbound = incoming.recv().await.unwrap();
    let (mut have, mut chunk) = (0, vec![0; 64 << 10]);
    loop {
        match inbound.stream.read(&mut chunk).await.unwrap() {
            0 => break,
            n => have += n,
        }
    }
    inbound.stream.write_all(b"done").await.unwrap();
    inbound.stream.shutdown().await.unwrap();
    assert_eq!((have, sending.await.unwrap()), (TOTAL, b"done".to_vec()));
    (TOTAL >> 20) as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_carries_much() {
    println!("QUIC {:.0} MiB/s", pour(local).await);
    println!("TCP {:.0} MiB/s", pour(|| Config { quic: false, ..local() }).await);
}
