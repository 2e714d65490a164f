//! How nodes find each other and stay connected.

use libp2p::core::multiaddr::Protocol;

use super::*;
use crate::mesh::streams::OpenError;

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_found_by_a_key_through_a_third_peer_and_spoken_with() {
    let third = start(server(), &[]).await;
    let provider = start(server(), &[&third]).await;
    echo(&provider);
    connected(&provider, &third).await;
    let key = *blake3::hash(b"model").as_bytes();
    // The record lies with the third peer once it knows the provider.
    until_found(&third, &provider, key).await;

    // A requester that listens nowhere and knows the third peer only.
    let requester = start(client(), &[&third]).await;
    connected(&requester, &third).await;
    let found = async {
        loop {
            let found = requester.handle().providers(key).await.unwrap();
            if !found.is_empty() {
                return found;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    assert_eq!(timeout(Duration::from_secs(20), found).await.unwrap(), [provider.me()]);
    assert!(requester.handle().providers([9; 32]).await.unwrap().is_empty());
    // Where it is comes from the network too.
    echoes(&requester, provider.me()).await;

    let nobody = crate::identity::Signer::from_seed([9; 32]).node();
    let error = requester.handle().open(nobody, ECHO).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
}

async fn until_found(third: &PublicNet, provider: &PublicNet, key: [u8; 32]) {
    let began = Instant::now();
    while third.handle().providers(key).await.unwrap() != [provider.me()] {
        provider.handle().provide(key).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "the record never came");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_listens_nowhere_is_reached_through_what_it_keeps_also_after_a_restart() {
    let seed = seed();
    let config = || Config { seed: Zeroizing::new(seed), ..server() };
    let relay = start(config(), &[]).await;
    let at = relay.handle().addresses().borrow().to_vec();
    let provider = start(client(), &[]).await;
    echo(&provider);
    provider.handle().learn(relay.me(), at.clone());
    provider.handle().keep(BTreeSet::from([relay.me()]));
    connected(&relay, &provider).await;
    echoes(&relay, provider.me()).await;

    relay.shutdown().await;
    until("gone", Duration::from_secs(10), || !sees(&provider, relay.me())).await;
    let port = at.iter().find_map(|at| {
        at.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        })
    });
    let listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], port.unwrap()))];
    // The sockets of before are closed a moment after.
    let again = async {
        loop {
            match PublicNet::bind(Config { listen: listen.clone(), ..config() }).await {
                Err(NetError::Listen { .. }) => sleep(Duration::from_millis(50)).await,
                bound => return bound.unwrap(),
            }
        }
    };
    let again = timeout(Duration::from_secs(10), again).await.unwrap();
    until("back", Duration::from_secs(20), || sees(&again, provider.me())).await;
    echoes(&again, provider.me()).await;
    provider.handle().keep(BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_remembered_across_a_restart_in_a_bounded_file() {
    let dir = tempfile::tempdir().unwrap();
    let book = Some(dir.path().join("public/peers"));
    let peer = start(server(), &[]).await;
    let first = start(Config { book: book.clone(), ..client() }, &[&peer]).await;
    connected(&first, &peer).await;
    first.shutdown().await;
    let path = book.clone().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 4_096);
    // Another key, no first peers: what is remembered is enough.
    let again = start(Config { book: book.clone(), ..client() }, &[]).await;
    connected(&again, &peer).await;
    again.shutdown().await;
    std::fs::write(&path, b"damaged").unwrap();
    let damaged = start(Config { book, ..client() }, &[]).await;
    assert!(damaged.handle().peers().borrow().is_empty());
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_network_that_has_ended_are_typed() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { listen: vec![taken.local_addr().unwrap()], ..server() };
    assert!(matches!(PublicNet::bind(config).await, Err(NetError::Listen { .. })));
    let net = start(client(), &[]).await;
    let handle = net.handle();
    assert_eq!(handle.publish(vec![0; MESSAGE_BYTES + 1]).await, Err(NetError::TooLong(MESSAGE_BYTES + 1)));
    assert_eq!(handle.publish(vec![0; 10]).await, Err(NetError::Alone));
    net.shutdown().await;
    assert_eq!(handle.providers([0; 32]).await, Err(NetError::Closed));
}
