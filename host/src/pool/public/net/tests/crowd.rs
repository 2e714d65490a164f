//! Many keys in one place.

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm,
    swarm::{self, SwarmEvent, dummy},
};

use super::*;
use crate::mesh::behaviour::direct_transport;

/// One that is elsewhere, as far as QUIC shows it: over TCP it would seem to be where all are.
async fn elsewhere(newcomer: &PublicNet) -> PublicNet {
    logs();
    let mut bootstrap = newcomer.handle().addresses().borrow().to_vec();
    bootstrap.retain(|at| at.to_string().contains("/quic-v1"));
    let listen = vec!["127.0.1.1:0".parse().unwrap()];
    PublicNet::bind(Config { listen, bootstrap, ..server() }).await.unwrap()
}

/// One of a crowd: a key that connects and holds on.
async fn hold_on(to: Multiaddr) {
    let key = peer::keypair(seed()).unwrap();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(120));
    let mut swarm =
        Swarm::new(direct_transport(&key).unwrap(), dummy::Behaviour, key.public().to_peer_id(), config);
    for _ in 0..4 {
        swarm.dial(to.clone()).unwrap();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => break,
                _ => {}
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_keys_in_one_place_get_the_share_of_one_place() {
    let newcomer = start(server(), &[]).await;
    let at = newcomer.handle().addresses().borrow().to_vec();
    let tcp = at.into_iter().find(|at| at.to_string().contains("/tcp/")).unwrap();
    let crowd: Vec<_> = (0..200).map(|_| tokio::spawn(hold_on(tcp.clone()))).collect();
    let peers = newcomer.handle().peers();
    let share = Limits::default().per_prefix;
    until("the crowd fills its share", Duration::from_secs(30), || peers.borrow().len() == share).await;
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(peers.borrow().len());
        sleep(Duration::from_millis(20)).await;
    }
    println!("200 keys of one /24: {most} connections");
    assert_eq!(most, share);
    // Somebody elsewhere still gets in.
    let elsewhere = elsewhere(&newcomer).await;
    connected(&newcomer, &elsewhere).await;
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_place_has_its_share_of_the_routing_table_and_no_more() {
    let limits = Limits { table_per_prefix: 3, ..Limits::default() };
    let newcomer = start(Config { limits, ..server() }, &[]).await;
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(start(server(), &[&newcomer]).await);
    }
    for net in &crowd {
        connected(&newcomer, net).await;
    }
    let elsewhere = elsewhere(&newcomer).await;
    connected(&newcomer, &elsewhere).await;
    // Three of the crowd, and whoever is elsewhere.
    let mut table = newcomer.handle().table().await;
    let began = Instant::now();
    while table.len() < 4 && began.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(100)).await;
        table = newcomer.handle().table().await;
    }
    assert!(table.contains(&elsewhere.me()), "{table:?}");
    assert_eq!(table.len(), 4, "{table:?}");
}
