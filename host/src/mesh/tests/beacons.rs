//! Finding each other on the local network, and remembering.

use super::*;

fn port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_find_each_other_by_beacon() {
    let config = Config { lan: true, loopback: true, beacon_port: port(), ..local() };
    let (a, b, c) = (start(config.clone()).await, start(config.clone()).await, start(config).await);
    let all = [a.me(), b.me(), c.me()];
    let with = |key: [u8; 32]| Gate { discovery: Some(key), ..gate(&all) };
    a.handle().set_gate(with([1; 32]));
    b.handle().set_gate(with([1; 32]));
    c.handle().set_gate(with([2; 32]));
    let began = Instant::now();
    connected(&a, &b).await;
    println!("found after {:?}", began.elapsed());
    sleep(Duration::from_secs(1)).await;
    assert!(c.handle().connections().borrow().is_empty(), "found without the key");
    // The key has changed, and everybody has the new one.
    c.handle().set_gate(with([1; 32]));
    connected(&c, &a).await;
    connected(&c, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_remembered_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { book: Some(folder.path().join("addresses")), ..local() };
    let own = seed();
    let (a, b) = (Mesh::bind(config.clone(), own).await.unwrap(), start(local()).await);
    befriend(&[&a, &b]);
    connected(&a, &b).await;
    a.shutdown().await;
    let a = Mesh::bind(config, own).await.unwrap();
    a.handle().set_gate(gate(&[b.me()]));
    connected(&a, &b).await;
}
