//! Real swarms over loopback sockets.

mod beacons;
mod guests;
mod members;
mod relays;
mod strangers;

use std::{collections::BTreeSet, time::Duration};

use crate::{
    identity::NodeId,
    mesh::streams::{Inbound, Incoming, OpenError, Stream, Streams},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::mesh::{Config, Gate, Mesh, MeshHandle, Path};

const ECHO: &str = "/potluck/test-echo/1";

/// Logs where `RUST_LOG` asks for it.
fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

fn local() -> Config {
    Config { listen: vec!["127.0.0.1:0".parse().unwrap()], lan: false, punch: false, ..Config::default() }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    seed
}

async fn start(config: Config) -> Mesh {
    logs();
    Mesh::bind(config, seed()).await.unwrap()
}

/// Answers every stream of a protocol with what comes in.
fn echo(mut incoming: Incoming) {
    tokio::spawn(async move {
        while let Some(Inbound { stream, .. }) = incoming.recv().await {
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
}

fn gate(members: &[NodeId]) -> Gate {
    Gate { members: members.iter().copied().collect(), ..Gate::default() }
}

/// Makes nodes members of each other, each knowing the addresses of those after it.
fn befriend(nodes: &[&Mesh]) {
    let all: Vec<_> = nodes.iter().map(|node| node.me()).collect();
    for (n, node) in nodes.iter().enumerate() {
        for other in &nodes[n + 1..] {
            introduce(&node.handle(), &other.handle());
        }
        node.handle().set_gate(gate(&all));
    }
}

fn introduce(to: &MeshHandle, whom: &MeshHandle) {
    to.learn(whom.me(), whom.addresses().borrow().to_vec());
}

async fn until<T>(what: &str, within: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn connected(from: &Mesh, to: &Mesh) -> Path {
    let (links, to) = (from.handle().connections(), to.me());
    until("connected", Duration::from_secs(15), || links.borrow().get(&to).map(|link| link.path)).await
}

async fn says(stream: &mut Stream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(Duration::from_secs(10), stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, text);
}

async fn echoes(from: &Mesh, to: &Mesh) -> Result<Duration, OpenError> {
    let began = Instant::now();
    let mut stream = from.handle().open(to.me(), ECHO).await?;
    says(&mut stream, b"hello over there").await;
    Ok(began.elapsed())
}

fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}
