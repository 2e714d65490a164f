//! Guests: those who hold the key of an invite.

use super::*;
use crate::mesh::{knock, peer};

const JOIN: &str = "/potluck/join/1";

fn node_of(seed: [u8; 32]) -> NodeId {
    peer::node_of(&peer::keypair(seed).unwrap().public()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_opens_the_protocol_for_joining_and_nothing_else() {
    let (invite, host) = (seed(), start(local()).await);
    let guest = node_of(invite);
    echo(host.handle().bind(JOIN));
    echo(host.handle().bind(ECHO));
    host.handle().set_gate(Gate { guests: set(&[guest]), ..Gate::default() });
    let addresses = host.handle().addresses().borrow().to_vec();
    let mut stream = knock(invite, host.me(), addresses.clone()).await.unwrap();
    says(&mut stream, b"may I come in").await;
    // A whole mesh under the same key may connect, and gets no further either.
    let nosy = Mesh::bind(local(), invite).await.unwrap();
    introduce(&nosy.handle(), &host.handle());
    nosy.handle().set_gate(gate(&[host.me()]));
    let opened = nosy.handle().open(host.me(), ECHO).await;
    if let Ok(mut stream) = opened {
        let _ = stream.write_all(b"let me").await;
        let mut byte = [0];
        let read = timeout(Duration::from_secs(3), stream.read(&mut byte)).await.unwrap();
        assert!(!matches!(read, Ok(1..)), "a guest was served");
    }
    assert!(host.handle().connections().borrow().is_empty(), "a guest counts as a member");
    // The stream it has goes on, until the invite is no longer open.
    says(&mut stream, b"still here").await;
    host.handle().set_gate(Gate::default());
    let mut rest = Vec::new();
    assert!(timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await.is_ok());
    let error = knock(invite, host.me(), addresses).await.err().unwrap();
    assert!(error.to_string().contains("hung up"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_knock_says_what_was_tried() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap();
    let error = knock(seed(), node_of(seed()), vec![address]).await.err().unwrap();
    assert!(error.to_string().contains("no node listens"), "{error}");
    let error = knock(seed(), node_of(seed()), Vec::new()).await.err().unwrap();
    assert!(error.to_string().contains("no address"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reaches_the_host_through_a_relay() {
    let (invite, host) = (seed(), start(local()).await);
    let relay = start(Config { relay: true, quic: false, ..local() }).await;
    let guest = node_of(invite);
    echo(host.handle().bind(JOIN));
    let gate = Gate {
        members: set(&[host.me(), relay.me()]),
        guests: set(&[guest]),
        relays: set(&[relay.me()]),
        discovery: None,
    };
    introduce(&host.handle(), &relay.handle());
    host.handle().set_gate(gate.clone());
    relay.handle().set_gate(gate);
    let addresses = host.handle().addresses();
    let circuit = until("a relayed address", Duration::from_secs(10), || {
        addresses.borrow().iter().find(|at| crate::mesh::address::is_relayed(at)).cloned()
    });
    let mut stream = knock(invite, host.me(), vec![circuit.await]).await.unwrap();
    says(&mut stream, b"may I come in").await;
}
