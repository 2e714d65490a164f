//! What those outside see, and what they can do.

use futures::StreamExt;
use libp2p::{
    Swarm, identify,
    swarm::{self, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use std::sync::Arc;
use tokio::{net::TcpStream, sync::oneshot};

use super::*;
use crate::mesh::{
    address, behaviour,
    door::{Board, Door, Wanted},
    peer,
    probe::Outcome,
    roll::Roll,
};

/// A program that is curious about a node: asks who it is, and for a stream.
#[derive(NetworkBehaviour)]
struct Nosy {
    identify: identify::Behaviour,
    door: Door,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_no_protocol_and_gets_no_stream() {
    for quic in [true, false] {
        let node = start(local()).await;
        echo(node.handle().bind(ECHO));
        let mut refusals = node.handle().events();
        let key = peer::keypair(seed()).unwrap();
        let me = peer::node_of(&key.public()).unwrap();
        let roll = Roll::default();
        roll.set(&gate(&[node.me()]), me);
        let nosy = Nosy {
            identify: identify::Behaviour::new(identify::Config::new("nosy/1".into(), key.public())),
            door: Door::new(Arc::new(Board::default()), roll),
        };
        let (transport, _relay) = behaviour::transport(&key).unwrap();
        let mut swarm =
            Swarm::new(transport, nosy, key.public().to_peer_id(), swarm::Config::with_tokio_executor());
        let target = peer::peer_id(node.me()).unwrap();
        let addresses = node.handle().addresses().borrow().to_vec();
        let address = addresses.into_iter().find(|at| address::is_tcp(at) != quic).unwrap();
        swarm.dial(DialOpts::peer_id(target).addresses(vec![address]).build()).unwrap();
        let (mut asked, mut ended) = (None, false);
        let watching = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                        let (reply, answer) = oneshot::channel();
                        let wanted = Wanted { node: node.me(), protocol: ECHO, reply };
                        swarm.behaviour_mut().door.open(peer_id, connection_id, wanted);
                        asked = Some(answer);
                    }
                    SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => {
                        ended = true;
                    }
                    SwarmEvent::Behaviour(NosyEvent::Identify(identify::Event::Received {
                        info, ..
                    })) => {
                        panic!("it said what it speaks: {:?}", info.protocols)
                    }
                    _ => {}
                }
            }
        };
        let _ = timeout(Duration::from_secs(2), watching).await;
        assert!(ended, "still connected");
        if let Some(answer) = asked {
            assert!(!matches!(answer.await, Ok(Ok(_))), "it opened a stream");
        }
        let refused = refusals.recv().await.unwrap();
        assert!(
            matches!(&refused, crate::mesh::MeshEvent::Refused { reason, .. } if reason.contains("not a member"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_not_let_in_is_told_why() {
    let (a, b) = (start(local()).await, start(local()).await);
    introduce(&a.handle(), &b.handle());
    a.handle().set_gate(gate(&[b.me()]));
    let error = a.handle().open(b.me(), ECHO).await.err().unwrap();
    assert!(error.to_string().contains("not a member there"), "{error}");
    let attempts = a.handle().probe(b.me()).await.unwrap();
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|attempt| attempt.outcome == Outcome::NotMember), "{attempts:?}");
    assert!(a.handle().connections().borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_which_addresses_work() {
    let (a, b, c) = (start(local()).await, start(local()).await, start(local()).await);
    befriend(&[&a, &b]);
    connected(&a, &b).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap();
    let others = c.handle().addresses().borrow().to_vec();
    let wrong = address::bare(others.iter().find(|at| address::is_tcp(at)).unwrap());
    a.handle().learn(b.me(), vec![refused, wrong]);
    let attempts = a.handle().probe(b.me()).await.unwrap();
    let count = |outcome: &Outcome| attempts.iter().filter(|attempt| attempt.outcome == *outcome).count();
    assert_eq!(count(&Outcome::Connected), 2, "{attempts:?}");
    assert_eq!(count(&Outcome::Refused), 1, "{attempts:?}");
    assert_eq!(count(&Outcome::WrongKey(Some(c.me()))), 1, "{attempts:?}");
    echo(b.handle().bind(ECHO));
    until("one stays", Duration::from_secs(5), || {
        a.handle().connections().borrow().contains_key(&b.me()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_nothing() {
    let (a, b) = (start(local()).await, start(local()).await);
    echo(b.handle().bind(ECHO));
    befriend(&[&a, &b]);
    echoes(&a, &b).await.unwrap();
    let addresses = b.handle().addresses().borrow().to_vec();
    let tcp = addresses.iter().find(|at| address::is_tcp(at)).unwrap().to_string();
    let port: u16 = tcp.split('/').nth(4).unwrap().parse().unwrap();
    let mut held = Vec::new();
    for n in 0..64_u32 {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut garbage = vec![0; 70_000];
        getrandom::fill(&mut garbage).unwrap();
        match n % 3 {
            0 => drop(socket.write_all(&garbage).await),
            1 => drop(socket.write_all(b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f").await),
            // Says nothing at all.
            _ => {}
        }
        held.push(socket);
    }
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..1_000 {
        let mut garbage = vec![0; 1_200];
        getrandom::fill(&mut garbage).unwrap();
        let _ = udp.send_to(&garbage, ("127.0.0.1", port)).await;
    }
    echoes(&a, &b).await.unwrap();
    // Those who say nothing are thrown out when the time for a handshake is over.
    let mut byte = [0];
    for mut socket in held {
        let closed = timeout(crate::mesh::limits::HANDSHAKE + Duration::from_secs(4), async {
            while matches!(socket.read(&mut byte).await, Ok(1..)) {}
        });
        assert!(closed.await.is_ok(), "a socket that says nothing stays open");
    }
    echoes(&a, &b).await.unwrap();
}
