//! Members that cannot reach each other directly.

use super::*;

fn config_of(punch: bool) -> Config {
    Config { punch, loopback: punch, ..local() }
}

/// Two members that know a relay and nothing of each other.
async fn apart(punch: bool) -> (Mesh, Mesh, Mesh, [u8; 32], Config) {
    let config = Config { relay: true, quic: punch, ..local() };
    let relay_seed = seed();
    let relay = Mesh::bind(config.clone(), relay_seed).await.unwrap();
    let (a, b) = (start(config_of(punch)).await, start(config_of(punch)).await);
    for node in [&a, &b] {
        echo(node.handle().bind(ECHO));
        introduce(&node.handle(), &relay.handle());
    }
    let all = [a.me(), b.me(), relay.me()];
    for node in [&a, &b, &relay] {
        node.handle().set_gate(Gate { relays: set(&[relay.me()]), ..gate(&all) });
    }
    let port = relay.handle().addresses().borrow()[0].to_string();
    let port: u16 = port.split('/').nth(4).unwrap().parse().unwrap();
    let config = Config { listen: vec![([127, 0, 0, 1], port).into()], ..config };
    (a, b, relay, relay_seed, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_connects_them_and_does_so_again_after_a_restart() {
    logs();
    let (a, b, relay, relay_seed, config) = apart(false).await;
    let began = Instant::now();
    while let Err(error) = echoes(&a, &b).await {
        assert!(began.elapsed() < Duration::from_secs(15), "{error}");
    }
    println!("relayed after {:?}", began.elapsed());
    assert_eq!(connected(&a, &b).await, Path::Relayed);
    assert_eq!(connected(&b, &a).await, Path::Relayed);
    relay.shutdown().await;
    let links = a.handle().connections();
    until("all gone", Duration::from_secs(5), || links.borrow().is_empty().then_some(())).await;
    sleep(Duration::from_secs(3)).await;
    let relay = Mesh::bind(config, relay_seed).await.unwrap();
    let all = [a.me(), b.me(), relay.me()];
    relay.handle().set_gate(Gate { relays: set(&[relay.me()]), ..gate(&all) });
    let began = Instant::now();
    until("relayed again", Duration::from_secs(15), || links.borrow().get(&b.me()).map(|_| ())).await;
    echoes(&a, &b).await.unwrap();
    echoes(&b, &a).await.unwrap();
    println!("relayed again after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_punched_and_new_streams_go_through_it() {
    logs();
    let (a, b, _relay, ..) = apart(true).await;
    let began = Instant::now();
    while let Err(error) = echoes(&a, &b).await {
        assert!(began.elapsed() < Duration::from_secs(15), "{error}");
    }
    let links = a.handle().connections();
    until("punched", Duration::from_secs(20), || {
        links.borrow().get(&b.me()).filter(|link| link.path != Path::Relayed).map(|_| ())
    })
    .await;
    println!("{:?} after {:?}", links.borrow()[&b.me()], began.elapsed());
    echoes(&a, &b).await.unwrap();
}
