//! The rules of a relay, over pipes.

use super::*;
use crate::pool::public::relay::{
    dial::{Circuit, RelayError, dial},
    frame::Control,
};

/// Who takes the streams of which protocol at which node.
type Takers = HashMap<(NodeId, &'static str), mpsc::Sender<Inbound>>;

/// Nodes that reach each other through pipes.
#[derive(Clone, Debug)]
struct Pipes {
    me: NodeId,
    all: Arc<Mutex<Takers>>,
}

impl Pipes {
    fn of(&self, me: NodeId) -> Self {
        Self { me, ..self.clone() }
    }

    fn bind(&self, protocol: &'static str) -> Incoming {
        let (sender, incoming) = mpsc::channel(16);
        self.all.lock().unwrap().insert((self.me, protocol), sender);
        incoming
    }
}

impl Streams for Pipes {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(async move {
            let to = self.all.lock().unwrap().get(&(peer, protocol)).cloned();
            let unreachable = OpenError::Unreachable { peer, reason: "not there".into() };
            let to = to.ok_or_else(|| unreachable.clone())?;
            let (ours, theirs) = duplex(32 << 10);
            let inbound = Inbound { peer: self.me, stream: Box::new(theirs) };
            to.send(inbound).await.map_err(|_| unreachable)?;
            Ok(Box::new(ours) as Stream)
        })
    }
}

/// Takes tolls that are numbers: so many cells.
#[derive(Debug, Default)]
struct Numbers {
    taken: Mutex<Vec<u64>>,
}

impl Tolls for Numbers {
    fn take<'a>(&'a self, toll: &'a [u8]) -> BoxFuture<'a, Result<Budget, String>> {
        Box::pin(async move {
            let cells = toll.try_into().map(u64::from_be_bytes).map_err(|_| "no number".to_owned())?;
            self.taken.lock().unwrap().push(cells);
            Ok(Budget { cells })
        })
    }
}

struct Lab {
    requester: Pipes,
    relay: Relay,
    relay_at: NodeId,
    provider: NodeId,
    key: SealingKey,
    tolls: Arc<Numbers>,
}

fn lab(limits: Limits) -> Lab {
    let (relay_at, provider) = (node(2), node(3));
    let requester = Pipes { me: node(1), all: Arc::default() };
    let (keys, key) = sealing(provider);
    echo(requester.of(provider).bind(SEALED), keys);
    let (tolls, at) = (Arc::new(Numbers::default()), requester.of(relay_at));
    let incoming = at.bind(RELAY);
    let relay = Relay::bind(Arc::new(at), incoming, Arc::clone(&tolls) as Arc<dyn Tolls>, limits);
    Lab { requester, relay, relay_at, provider, key, tolls }
}

impl Lab {
    async fn dial(&self, cells: u64) -> Result<Circuit, RelayError> {
        dial(&self.requester, self.relay_at, self.provider, cells.to_be_bytes().to_vec()).await
    }
}

async fn echoes(stream: &mut Stream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text).await?;
    stream.flush().await?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, text);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_toll_pays_for_its_cells_and_no_more_until_another_is_paid() {
    let lab = lab(Limits::default());
    let circuit = lab.dial(11).await.unwrap();
    let account = circuit.account.clone();
    let mut stream = seal::open(circuit.stream, &lab.key).await.unwrap();
    // The hello, and five cells there and back.
    for n in 0..5 {
        echoes(&mut stream, &[n; 100]).await.unwrap();
    }
    assert_eq!(*account.left().borrow(), 0);
    let paying = account.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        paying.pay(100_u64.to_be_bytes().to_vec()).unwrap();
    });
    // Nothing leaves until then, and then it goes on.
    let began = tokio::time::Instant::now();
    echoes(&mut stream, b"after the second toll").await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(*account.left().borrow(), 98);
    assert_eq!(*lab.tolls.taken.lock().unwrap(), [11, 100]);
    assert_eq!(lab.relay.counters().cells, 13);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_whose_toll_is_used_up_is_closed_and_says_so() {
    let lab = lab(Limits::default());
    let circuit = lab.dial(6).await.unwrap();
    let mut stream = seal::open(circuit.stream, &lab.key).await.unwrap();
    // Half goes there; of what comes back only the rest is paid for.
    stream.write_all(&[7; 4_000]).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; 4_000];
    let error = stream.read_exact(&mut back).await.unwrap_err();
    assert_eq!(RelayError::of(&error), Some(&RelayError::Closed(Reason::Unpaid)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counters = lab.relay.counters();
    assert_eq!((counters.unpaid, counters.open), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_requester_that_sends_on_without_paying_is_stopped() {
    let lab = lab(Limits::default());
    // A provider that takes everything.
    let mut sealed = lab.requester.of(lab.provider).bind(SEALED);
    tokio::spawn(async move {
        let mut stream = sealed.recv().await.unwrap().stream;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    // Not through `dial`, which would stop by itself.
    let mut stream = lab.requester.open(lab.relay_at, RELAY).await.unwrap();
    let mut frame = Vec::new();
    let toll = 10_u64.to_be_bytes().to_vec();
    Control::Open { provider: lab.provider, toll }.frame(&mut frame).unwrap();
    stream.write_all(&frame).await.unwrap();
    stream.read_exact(&mut frame).await.unwrap();
    let sending = async {
        let mut sent = 0;
        let cell = [0; FRAME];
        while stream.write_all(&cell).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let sent = tokio::time::timeout(Duration::from_secs(60), sending).await.unwrap();
    let carried = lab.relay.counters().cells;
    assert_eq!(carried, 10 + CREDIT, "of {sent} sent");
}

#[tokio::test(start_paused = true)]
async fn refusals_say_why_and_cost_nothing() {
    let limits = Limits { circuits: 3, per_peer: 2, ..Limits::default() };
    let lab = lab(limits);
    let toll = || 100_u64.to_be_bytes().to_vec();
    let nobody = dial(&lab.requester, lab.relay_at, node(9), toll()).await.unwrap_err();
    assert_eq!(nobody, RelayError::Closed(Reason::Unreachable));
    assert!(lab.tolls.taken.lock().unwrap().is_empty(), "who cannot be reached is not paid for");
    let strange = dial(&lab.requester, lab.relay_at, lab.provider, b"abc".to_vec()).await.unwrap_err();
    assert_eq!(strange, RelayError::Closed(Reason::Toll("no number".into())));
    let long = dial(&lab.requester, lab.relay_at, lab.provider, vec![0; TOLL_BYTES + 1]).await.unwrap_err();
    assert_eq!(long, RelayError::Toll);

    let (first, second) = (lab.dial(100).await.unwrap(), lab.dial(100).await.unwrap());
    assert_eq!(lab.dial(100).await.unwrap_err(), RelayError::Closed(Reason::Busy));
    let other = lab.requester.of(node(5));
    let third = dial(&other, lab.relay_at, lab.provider, toll()).await.unwrap();
    let full = dial(&lab.requester.of(node(6)), lab.relay_at, lab.provider, toll()).await.unwrap_err();
    assert_eq!(full, RelayError::Closed(Reason::Full));
    assert_eq!(lab.relay.counters().open, 3);
    drop((first, second, third));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(lab.relay.counters().open, 0, "a place is given back");
    assert!(lab.dial(100).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn silence_and_nonsense_end_a_circuit() {
    let lab = lab(Limits { idle: Duration::from_secs(30), ..Limits::default() });
    let circuit = lab.dial(100).await.unwrap();
    let mut stream = seal::open(circuit.stream, &lab.key).await.unwrap();
    echoes(&mut stream, b"once").await.unwrap();
    let began = tokio::time::Instant::now();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(RelayError::of(&error), Some(&RelayError::Closed(Reason::Idle)));
    assert!(began.elapsed() >= Duration::from_secs(29));

    for nonsense in [vec![7; FRAME], vec![1; FRAME]] {
        let mut stream = lab.requester.open(lab.relay_at, RELAY).await.unwrap();
        stream.write_all(&nonsense).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(Control::parse(&answer[1..]), Some(Control::Closed { reason: Reason::Malformed }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_no_faster_than_its_share() {
    let lab = lab(Limits { circuit_rate: 200, ..Limits::default() });
    let circuit = lab.dial(10_000).await.unwrap();
    let stream = seal::open(circuit.stream, &lab.key).await.unwrap();
    let began = tokio::time::Instant::now();
    // 301 cells each way and a hello: 100 at once, the rest at 200 a second.
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        to.write_all(&vec![7; 300 * crate::pool::public::cell::DATA]).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(sending, from.read_to_end(&mut back));
    assert_eq!(read.unwrap(), 300 * crate::pool::public::cell::DATA);
    let took = began.elapsed().as_secs_f64();
    assert!((2.3..3.2).contains(&took), "{took} s");
}

#[tokio::test]
async fn a_relay_that_is_shut_down_closes_its_circuits() {
    let lab = lab(Limits::default());
    let circuit = lab.dial(100).await.unwrap();
    let mut stream = seal::open(circuit.stream, &lab.key).await.unwrap();
    echoes(&mut stream, b"still there").await.unwrap();
    lab.relay.shutdown().await;
    assert!(stream.read_u8().await.is_err());
    assert!(matches!(lab.dial(100).await, Err(RelayError::Open(_) | RelayError::Broken(_))));
}
