//! Three swarms on loopback: a requester, a relay, a provider.

use std::collections::BTreeSet;

use tokio::time::timeout;

use super::*;
use crate::pool::public::{
    cell::{self, CellError, DATA, TICK},
    net::{self, NetHandle, PublicNet},
    relay::dial::{Circuit, dial},
};

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    seed
}

pub(super) async fn listening() -> PublicNet {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let config = net::Config { listen, reachable: Some(true), ..net::Config::new(seed()) };
    PublicNet::bind(config).await.unwrap()
}

/// One that listens nowhere.
pub(super) async fn silent() -> PublicNet {
    PublicNet::bind(net::Config::new(seed())).await.unwrap()
}

pub(super) async fn connected(net: &NetHandle, to: NodeId) {
    let mut peers = net.peers();
    timeout(Duration::from_secs(10), peers.wait_for(|peers| peers.contains(&to))).await.unwrap().unwrap();
}

/// Three swarms. Only the relay listens: the provider keeps a connection with it, the requester makes one.
pub(super) struct Three {
    pub(super) requester: PublicNet,
    pub(super) relay: PublicNet,
    pub(super) provider: PublicNet,
    pub(super) keys: Arc<SealingKeys>,
    pub(super) key: SealingKey,
}

impl Three {
    pub(super) async fn new() -> Self {
        let (requester, relay, provider) = (silent().await, listening().await, silent().await);
        let at = relay.handle().addresses().borrow().to_vec();
        assert!(!at.is_empty());
        requester.handle().learn(relay.me(), at.clone());
        provider.handle().learn(relay.me(), at);
        provider.handle().keep(BTreeSet::from([relay.me()]));
        connected(&relay.handle(), provider.me()).await;
        let (keys, key) = sealing(provider.me());
        Self { requester, relay, provider, keys, key }
    }

    pub(super) fn serve(&self, limits: Limits) -> (Relay, Seen) {
        let (handle, seen) = (self.relay.handle(), Seen::default());
        let incoming = tap(handle.bind(RELAY), seen.clone());
        (Relay::bind(Arc::new(handle), incoming, Arc::new(Gratis(TOKEN_CELLS)), limits), seen)
    }

    pub(super) async fn dial(&self) -> Circuit {
        dial(&self.requester.handle(), self.relay.me(), self.provider.me(), Vec::new()).await.unwrap()
    }
}

/// Whether any 24 bytes of `content` stand anywhere in `bytes`.
fn shows(bytes: &[u8], content: &[u8]) -> bool {
    let pieces: BTreeSet<&[u8]> = content.chunks_exact(24).collect();
    bytes.windows(24).any(|window| pieces.contains(window))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mebibyte_goes_there_and_back_in_frames_of_one_size_that_show_nothing() {
    let three = Three::new().await;
    echo(three.provider.handle().bind(SEALED), Arc::clone(&three.keys));
    let (relay, seen) = three.serve(Limits::default());
    let circuit = three.dial().await;
    let account = circuit.account.clone();
    let stream = seal::open(circuit.stream, &three.key).await.unwrap();

    let line = b"the person asks something that nobody else may read; ";
    let content: Vec<u8> = line.iter().copied().cycle().take(1 << 20).collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        to.write_all(&content).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) =
        timeout(Duration::from_secs(60), async { tokio::join!(sending, from.read_to_end(&mut back)) })
            .await
            .unwrap();
    assert_eq!(read.unwrap(), 1 << 20);
    assert!(back == content);

    let (up, down) = (seen.read.lock().unwrap().clone(), seen.written.lock().unwrap().clone());
    let cells = (1_usize << 20).div_ceil(DATA);
    // A first and a last frame, the hello and the data; and a first frame and the data.
    for (bytes, least, said) in [(&up, 3 + cells, 2), (&down, 1 + cells, 1)] {
        assert_eq!(bytes.len() % FRAME, 0, "every frame has {FRAME} bytes");
        let frames = bytes.len() / FRAME;
        assert!(frames >= least, "{frames} frames");
        let kinds: Vec<u8> = bytes.chunks(FRAME).map(|frame| frame[0]).collect();
        let messages = kinds.iter().filter(|kind| **kind == 1).count();
        assert_eq!(messages, said, "the rest are cells");
        assert!(!shows(bytes, &content), "the content shows");
        let different: BTreeSet<&[u8]> = bytes.chunks(FRAME).collect();
        assert_eq!(different.len(), frames, "equal content does not look equal");
        // Sealed bytes are spread evenly: 256 values, each near its share.
        let sealed: Vec<u8> = bytes
            .chunks(FRAME)
            .filter(|frame| frame[0] == 0)
            .flat_map(|frame| &frame[1..])
            .copied()
            .collect();
        let mut counts = [0_u32; 256];
        sealed.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let share = sealed.len() as f64 / 256.0;
        let chi: f64 = counts.iter().map(|n| (f64::from(*n) - share).powi(2) / share).sum();
        assert!(chi < 400.0, "chi-square with 255 degrees of freedom: {chi}");
    }
    assert!(!shows(&up, &three.key.public), "not even the provider's key");
    let counters = relay.counters();
    assert_eq!(counters.cells, TOKEN_CELLS - *account.left().borrow(), "both count the same cells");
    assert_eq!(counters.opened, 1);
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_that_drops_its_stream_is_noticed_by_the_provider() {
    let three = Three::new().await;
    let mut incoming = three.provider.handle().bind(SEALED);
    let (relay, _) = three.serve(Limits::default());
    let circuit = three.dial().await;
    let mut stream = seal::open(circuit.stream, &three.key).await.unwrap();
    stream.write_all(b"a question").await.unwrap();
    stream.flush().await.unwrap();
    let inbound = timeout(Duration::from_secs(10), incoming.recv()).await.unwrap().unwrap();
    assert_eq!(inbound.peer, three.relay.me(), "the provider sees the relay and nobody else");
    let served = seal::accept(inbound.stream, &three.keys, Some(TICK)).await.unwrap();
    let (mut from, mut to) = tokio::io::split(served);
    let mut question = [0; 10];
    from.read_exact(&mut question).await.unwrap();
    drop(stream);
    let error = timeout(Duration::from_secs(5), from.read_u8()).await.expect("noticed in time").unwrap_err();
    let typed = cell::reason(&error);
    assert!(matches!(typed, Some(CellError::Truncated { .. }) | None), "{error}");
    let writing = async { while to.write_all(&[0; 500]).await.is_ok() {} };
    timeout(Duration::from_secs(5), writing).await.expect("a provider that goes on writing is stopped");
    drop((from, to));
    let closed = async {
        while relay.counters().open > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), closed).await.expect("the relay forgets the circuit");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_at_uneven_times_leave_the_provider_on_even_ticks() {
    let three = Three::new().await;
    let mut incoming = three.provider.handle().bind(SEALED);
    let (_relay, _) = three.serve(Limits::default());
    let circuit = three.dial().await;
    let mut stream = seal::open(circuit.stream, &three.key).await.unwrap();
    let keys = Arc::clone(&three.keys);
    tokio::spawn(async move {
        let inbound = incoming.recv().await.unwrap();
        let mut out = seal::accept(inbound.stream, &keys, Some(TICK)).await.unwrap();
        for n in 0..60_u64 {
            tokio::time::sleep(Duration::from_millis(2 + n * 5 % 9)).await;
            out.write_all(b"token ").await.unwrap();
        }
        out.shutdown().await.unwrap();
    });
    let (began, mut times, mut said) = (std::time::Instant::now(), Vec::new(), Vec::<u8>::new());
    let mut bytes = [0; 4096];
    while let n @ 1.. = stream.read(&mut bytes).await.unwrap() {
        times.push(began.elapsed());
        said.extend(&bytes[..n]);
    }
    assert_eq!(said, b"token ".repeat(60));
    let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    println!("60 tokens in {} cells; gaps median {median:.1} ms, of {sorted:.1?}", times.len());
    assert!(times.len() < 45, "tokens of one tick share a cell");
    assert!((15.0..=45.0).contains(&median), "gaps are ticks: {gaps:.1?}");
}
