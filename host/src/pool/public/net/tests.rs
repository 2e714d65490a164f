//! Real swarms over loopback sockets.

mod crowd;
mod flood;
mod meet;

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::mesh::streams::{Inbound, Streams};

const ECHO: &str = "/potluck/test-echo/1";

fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    seed
}

/// One that listens and can be reached.
fn server() -> Config {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    Config { listen, reachable: Some(true), ..Config::new(seed()) }
}

/// One that others cannot reach.
fn client() -> Config {
    Config::new(seed())
}

async fn start(config: Config, first: &[&PublicNet]) -> PublicNet {
    logs();
    let bootstrap = first.iter().flat_map(|net| net.handle().addresses().borrow().to_vec()).collect();
    PublicNet::bind(Config { bootstrap, ..config }).await.unwrap()
}

async fn until(what: &str, within: Duration, mut check: impl FnMut() -> bool) {
    let began = Instant::now();
    while !check() {
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn sees(net: &PublicNet, other: NodeId) -> bool {
    net.handle().peers().borrow().contains(&other)
}

async fn connected(net: &PublicNet, other: &PublicNet) {
    until("connected", Duration::from_secs(10), || sees(net, other.me())).await;
}

fn echo(net: &PublicNet) {
    let mut incoming = net.handle().bind(ECHO);
    tokio::spawn(async move {
        while let Some(Inbound { stream, .. }) = incoming.recv().await {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        }
    });
}

async fn echoes(net: &PublicNet, other: NodeId) {
    let mut stream = net.handle().open(other, ECHO).await.unwrap();
    stream.write_all(b"hello over there").await.unwrap();
    stream.flush().await.unwrap();
    let mut back = [0; 16];
    timeout(Duration::from_secs(10), stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"hello over there");
}
