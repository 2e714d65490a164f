//! Providers for tests: real sessions over streams in memory, real or scripted engines, and money that is counted.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use potluck_primitives::{Bounded, Class, MicroCredits, UnixMillis};
use tokio::{io::DuplexStream, sync::mpsc};

use super::{
    guard::{Guard, Limits, tests::Told},
    market::{Market, tests::Known},
    meter::{Rates, UNIT},
    offer::{ModelOffer, Offer, SignedOffer, tests::offer},
    receipts::{ReceiptBook, now_ms},
    session::{
        Circuits, PaymentError, Purse, Till, Timers, Unreached,
        serve::{Engine, Goods, PublicServer, Serving, Unseal},
    },
};
use crate::{
    dispatch::{fixture::Scripted, provider::Provider},
    identity::{NodeId, Signer},
    inference::{Device, Inference, InferenceConfig},
    job::{Input, Job, JobError, Reply},
    mesh::streams::{BoxFuture, Inbound, Stream},
};

pub(crate) const RATES: Rates = Rates { prompt: MicroCredits(2_000), completion: MicroCredits(14_000) };

/// The engine with the small trained model, where the shared test data is.
pub(crate) async fn stories() -> Option<Inference> {
    let root = std::env::var_os("POTLUCK_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = root.join("models/stories260K-f32.gguf");
    if !path.is_file() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    let config = InferenceConfig {
        home: tempfile::tempdir().unwrap().keep(),
        models: vec![path.display().to_string()],
        device: Device::Cpu,
        threads: Some(1),
        caches: false,
        ..InferenceConfig::default()
    };
    Some(Inference::bind(config).await.unwrap())
}

/// A job for it that continues a text, greedily.
pub(crate) fn story(tokens: u32) -> Job {
    Job {
        model: "stories260K-f32".into(),
        mode: crate::job::Mode::Local,
        input: Input::Text { text: "Once upon a time, there was a little girl".into(), special: false },
        sampling: potluck_kernels::sample::SamplingParams::greedy(),
        max_tokens: Some(tokens),
        ..crate::dispatch::fixture::job(3)
    }
}

/// An issuer that counts in memory: tokens are numbers and what they are worth.
#[derive(Debug, Default)]
pub(crate) struct Mint {
    next: AtomicU64,
    pub(crate) issued: AtomicU64,
    spent: Mutex<HashSet<u64>>,
    /// How long it takes to answer.
    pub(crate) lag: Mutex<Duration>,
    /// Gives every token twice.
    pub(crate) twice: AtomicBool,
    /// After so many payments nothing is given any more.
    pub(crate) most: Mutex<Option<usize>>,
    pub(crate) takes: AtomicUsize,
    last: Mutex<Option<Vec<u8>>>,
}

impl Purse for Mint {
    fn take(&self, amount: MicroCredits) -> BoxFuture<'_, Result<Vec<Vec<u8>>, PaymentError>> {
        Box::pin(async move {
            assert!(amount.0 > 0 && amount.0.is_multiple_of(UNIT.0), "{amount} is no sum of tokens");
            let takes = self.takes.fetch_add(1, Relaxed);
            if self.most.lock().unwrap().is_some_and(|most| takes >= most) {
                return std::future::pending().await;
            }
            if self.twice.load(Relaxed)
                && let Some(last) = self.last.lock().unwrap().clone()
            {
                return Ok(vec![last]);
            }
            let (serial, worth) = (self.next.fetch_add(1, Relaxed), u64::try_from(amount.0).unwrap());
            self.issued.fetch_add(worth, Relaxed);
            let token = [serial.to_le_bytes(), worth.to_le_bytes()].concat();
            *self.last.lock().unwrap() = Some(token.clone());
            Ok(vec![token])
        })
    }
}

fn read(token: &[u8]) -> Option<(u64, u64)> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    Some((number(token.get(..8)?)?, number(token.get(8..)?)?))
}

impl Till for Mint {
    fn verify(&self, tokens: &[Vec<u8>]) -> Result<MicroCredits, PaymentError> {
        let worth = tokens.iter().map(|token| read(token).map(|(_, worth)| u128::from(worth)));
        let sum = worth.sum::<Option<u128>>().map(MicroCredits);
        sum.ok_or_else(|| PaymentError::Invalid("no token".into()))
    }

    fn deposit(&self, tokens: Vec<Vec<u8>>) -> BoxFuture<'_, Result<MicroCredits, PaymentError>> {
        Box::pin(async move {
            let lag = *self.lag.lock().unwrap();
            tokio::time::sleep(lag).await;
            let mut spent = self.spent.lock().unwrap();
            let fresh =
                tokens.iter().filter_map(|token| read(token)).filter(|(serial, _)| spent.insert(*serial));
            Ok(MicroCredits(fresh.map(|(_, worth)| u128::from(worth)).sum()))
        })
    }
}

impl Engine for Scripted {
    fn count(&self, _: Job) -> BoxFuture<'_, Result<u64, JobError>> {
        Box::pin(async { Ok(7) })
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Provider::submit(self, job)
    }
}

/// One price for every model.
#[derive(Debug)]
pub(crate) struct Flat(pub(crate) Rates);

impl Goods for Flat {
    fn rates(&self, _: &str, limit: Rates) -> Option<Rates> {
        self.0.within(limit).then_some(self.0)
    }
}

/// No seal.
#[derive(Debug)]
pub(crate) struct Open;

impl Unseal for Open {
    fn unseal(&self, stream: Stream) -> BoxFuture<'_, Result<Stream, String>> {
        Box::pin(async { Ok(stream) })
    }
}

/// A provider that serves.
pub(crate) struct Booth {
    pub(crate) signer: Signer,
    pub(crate) server: PublicServer,
    pub(crate) guard: Guard,
    pub(crate) receipts: Arc<ReceiptBook>,
    door: mpsc::Sender<Inbound>,
    pub(crate) folder: tempfile::TempDir,
}

/// Fast clocks.
pub(crate) fn timers() -> Timers {
    Timers {
        payment: Duration::from_millis(600),
        receipt: Duration::from_millis(800),
        deadline: Duration::from_millis(1_500),
        heartbeat: Duration::from_millis(100),
        ..Timers::default()
    }
}

impl Booth {
    pub(crate) fn new(n: u8, engine: Arc<dyn Engine>, till: Arc<dyn Till>, rates: Rates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let receipts = Arc::new(ReceiptBook::open(&folder.path().join("receipts")).unwrap());
        let senses = Arc::new(Told::default());
        let limits = Limits { jobs: 8, jobs_per_relay: 8, ..Limits::default() };
        let guard = Guard::new(limits, senses).unwrap();
        guard.switch(true);
        let signer = Signer::from_seed([n; 32]);
        let serving = Serving {
            signer: signer.clone(),
            engine,
            goods: Arc::new(Flat(rates)),
            till,
            guard: guard.clone(),
            receipts: receipts.clone(),
            seals: Arc::new(Open),
        };
        let (door, incoming) = mpsc::channel(8);
        let server = PublicServer::bind(timers(), serving, incoming);
        Self { signer, server, guard, receipts, door, folder }
    }

    /// A stream that a relay opened.
    pub(crate) async fn stream(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let inbound = Inbound { peer: NodeId([200; 32]), stream: Box::new(theirs) };
        self.door.send(inbound).await.ok().unwrap();
        ours
    }

    /// Its offer of a model.
    pub(crate) fn offer(&self, model: &str, rates: Rates) -> Vec<u8> {
        let mut plain = offer(1, now_ms());
        plain.provider = self.signer.node().0;
        let model = ModelOffer {
            name: Bounded::new(model.as_bytes().to_vec()).unwrap(),
            digest: [7; 32],
            quantisation: Class::new("F32"),
            context: 512,
            rates,
        };
        plain.models = Bounded::new(vec![model]).unwrap();
        parity_scale_codec::Encode::encode(&SignedOffer::sign(plain, &self.signer).unwrap())
    }
}

/// Circuits in memory.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    doors: Mutex<HashMap<NodeId, mpsc::Sender<Inbound>>>,
    pub(crate) dialled: Mutex<Vec<NodeId>>,
}

impl Wires {
    pub(crate) fn add(&self, booth: &Booth) {
        self.doors.lock().unwrap().insert(booth.signer.node(), booth.door.clone());
    }

    pub(crate) fn cut(&self, booth: &Booth) {
        self.doors.lock().unwrap().remove(&booth.signer.node());
    }
}

impl Circuits for Wires {
    fn dial<'a>(&'a self, offer: &'a Offer, _: Arc<AtomicU64>) -> BoxFuture<'a, Result<Stream, Unreached>> {
        Box::pin(async move {
            self.dialled.lock().unwrap().push(offer.provider());
            let door = self.doors.lock().unwrap().get(&offer.provider()).cloned();
            let door = door.ok_or_else(|| Unreached::Away("no way to it".into()))?;
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let inbound = Inbound { peer: NodeId([200; 32]), stream: Box::new(theirs) };
            door.send(inbound).await.map_err(|_| Unreached::Away("it is gone".into()))?;
            Ok(Box::new(ours) as Stream)
        })
    }
}

/// A market of these booths.
pub(crate) fn market(booths: &[&Booth], model: &str, rates: Rates) -> Arc<Market> {
    let market = Market::new(Arc::new(Known(Mutex::default(), true)));
    for booth in booths {
        market.take(&booth.offer(model, rates), UnixMillis(now_ms())).unwrap();
    }
    Arc::new(market)
}
