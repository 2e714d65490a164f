//! Everything together: requester, relay and provider over loopback sockets, an issuer with real tokens, and the real
//! small model.

mod linkability;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parity_scale_codec::Encode;
use potluck_primitives::{Bounded, Class, MicroCredits, UnixMillis};

use super::{
    budget::{Budget, Budgets},
    bulletin,
    fixture::{Flat, RATES, stories, story},
    guard::{Guard, Limits, tests::Told},
    issuer::{Issuer, tests::World},
    market::{Market, Native, tests::Known},
    meter::Rates,
    net::{Config, NetHandle, PublicNet},
    offer::{ModelOffer, Offer, RelayAt, SignedOffer, VERSION},
    provider::{AskConfig, Given, Parts, PublicProvider},
    receipts::{ReceiptBook, now_ms},
    relay::{self, RELAY, Relay},
    seal::{self, SEALED, SealingKeys},
    session::{
        Coins, Counter, Timers,
        serve::{PublicServer, Serving, Unseal},
    },
    till::Till,
    ways::Ways,
};
use crate::{
    config::public::at,
    dispatch::provider::Provider,
    identity::{NodeId, Signer},
    inference::Inference,
    job::{Event, Job, Mode},
    mesh::streams::{BoxFuture, Incoming, Stream},
};

struct Seals(SealingKeys);

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seals")
    }
}

impl Unseal for Seals {
    fn unseal(&self, stream: Stream) -> BoxFuture<'_, Result<Stream, String>> {
        Box::pin(async move {
            let pace = Some(super::cell::TICK);
            seal::accept(stream, &self.0, pace).await.map_err(|error| error.to_string())
        })
    }
}

/// Three machines and an issuer.
struct Street {
    world: World,
    issuer: Issuer,
    relay: Relay,
    relay_till: Arc<Till>,
    till: Arc<Till>,
    server: PublicServer,
    receipts: Arc<ReceiptBook>,
    parts: Arc<Parts>,
    provider: PublicProvider,
    /// Whoever opened streams at the provider.
    callers: Arc<Mutex<BTreeSet<NodeId>>>,
    nets: [PublicNet; 3],
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    seed
}

async fn net(seed: [u8; 32], listens: bool, first: &[&PublicNet]) -> PublicNet {
    let listen = if listens { vec!["127.0.0.1:0".parse().unwrap()] } else { Vec::new() };
    let bootstrap = first.iter().flat_map(|net| net.handle().addresses().borrow().to_vec()).collect();
    let config = Config { listen, reachable: Some(listens), bootstrap, ..Config::new(seed) };
    PublicNet::bind(config).await.unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same streams; whoever opened them is written down.
fn watched(mut incoming: Incoming, callers: Arc<Mutex<BTreeSet<NodeId>>>) -> Incoming {
    let (sender, watched) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(inbound) = incoming.recv().await {
            callers.lock().unwrap().insert(inbound.peer);
            if sender.send(inbound).await.is_err() {
                return;
            }
        }
    });
    watched
}

fn market() -> Arc<Market> {
    Arc::new(Market::new(Arc::new(Known(Mutex::default(), true))))
}

/// Takes what is published.
fn listen(handle: &NetHandle, market: &Arc<Market>) {
    let (mut heard, market) = (handle.subscribe(), Arc::clone(market));
    tokio::spawn(async move {
        while let Ok(message) = heard.recv().await {
            let _ = market.take(&message.data, UnixMillis(now_ms()));
        }
    });
}

fn offer(signer: &Signer, relays: &[&PublicNet], key: [u8; 32], issuer: NodeId, rates: Rates) -> SignedOffer {
    let place = |relay: &&PublicNet| {
        let addresses = relay.handle().addresses().borrow().to_vec();
        let addresses: Vec<_> =
            addresses.iter().map(|address| at(&address.to_string()).unwrap().address).collect();
        RelayAt::new(relay.me(), &addresses)
    };
    let model = ModelOffer {
        name: Bounded::new(b"stories260K-f32".to_vec()).unwrap(),
        digest: [7; 32],
        quantisation: Class::new("F32"),
        context: 512,
        rates,
    };
    let now = now_ms();
    let offer = Offer {
        version: VERSION,
        provider: signer.node().0,
        models: Bounded::new(vec![model]).unwrap(),
        capacity: 2,
        sealing: key,
        relays: Bounded::new(relays.iter().map(place).collect()).unwrap(),
        issuer: issuer.0,
        registration: 0,
        issued_at: UnixMillis(now),
        expires_at: UnixMillis(now + 480_000),
    };
    SignedOffer::sign(offer, signer).unwrap()
}

impl Street {
    async fn new(inference: Inference) -> Self {
        let world = World::new();
        let issuer = world.start_issuer().await;
        let purse = world.open_purse(60_000, 100_000_000).await;
        purse.fill().await.unwrap();
        let keeper = Signer::from_seed(seed());
        let relay_till = Arc::new(world.open_till(&keeper, "relay").await);
        let till = Arc::new(world.open_till(&world.provider, "till").await);
        relay_till.refresh(None).await.unwrap();
        till.refresh(None).await.unwrap();

        let y = net(keeper.seed(), true, &[]).await;
        let p = net(world.provider.seed(), false, &[&y]).await;
        let relay = Relay::bind(
            Arc::new(y.handle()),
            y.handle().bind(RELAY),
            Arc::new(Counter(relay_till.clone())),
            relay::Limits::default(),
        );
        let heard = market();
        listen(&y.handle(), &heard);
        tokio::spawn(bulletin::serve(y.handle().bind(bulletin::PROTOCOL), heard.clone()));

        let keys = SealingKeys::new(world.provider.node(), Duration::ZERO).unwrap();
        let key = keys.current(Duration::ZERO).unwrap().public;
        let receipts = Arc::new(ReceiptBook::open(&world.path("served")).unwrap());
        let guard = Guard::new(Limits::default(), Arc::new(Told::default())).unwrap();
        guard.switch(true);
        let serving = Serving {
            signer: world.provider.clone(),
            engine: Arc::new(inference),
            goods: Arc::new(Flat(RATES)),
            till: Arc::new(Counter(till.clone())),
            guard,
            receipts: receipts.clone(),
            seals: Arc::new(Seals(keys)),
        };
        let callers = Arc::default();
        let incoming = watched(p.handle().bind(SEALED), Arc::clone(&callers));
        let server = PublicServer::bind(Timers::default(), serving, incoming);
        p.handle().keep([y.me()].into());
        until("the provider meets its relay", || p.handle().peers().borrow().contains(&y.me())).await;
        let signed = offer(&world.provider, &[&y], key, world.issuer.node(), RATES).encode();
        until("gossip", || {
            heard.len() == 1 || {
                let (handle, signed) = (p.handle(), signed.clone());
                tokio::spawn(async move { handle.publish(signed).await });
                false
            }
        })
        .await;

        let r = net(seed(), false, &[&y]).await;
        let known = market();
        let began = Instant::now();
        while known.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "nobody tells of the offer");
            for bytes in bulletin::fetch(&r.handle(), y.me()).await {
                known.take(&bytes, UnixMillis(now_ms())).unwrap();
            }
        }
        let purse = Arc::new(Coins(purse));
        let budget =
            Budget { job: MicroCredits(100_000), day: MicroCredits(10_000_000), keys: BTreeMap::new() };
        let parts = Arc::new(Parts {
            config: AskConfig::default(),
            me: world.requester.node().0,
            market: known,
            chooser: Arc::new(Native),
            circuits: Arc::new(Ways {
                net: r.handle(),
                purse: purse.clone(),
                registry: Arc::new(Known(Mutex::default(), true)),
                me: world.requester.node(),
            }),
            purse,
            budgets: Budgets::open(budget, world.path("spent.json")),
            receipts: Arc::new(ReceiptBook::open(&world.path("asked")).unwrap()),
            health: Arc::default(),
        });
        let provider = PublicProvider::new(Arc::new(Given(parts.clone())));
        let nets = [r, y, p];
        Self { world, issuer, relay, relay_till, till, server, receipts, parts, provider, callers, nets }
    }

    async fn end(self) {
        self.server.shutdown().await;
        self.relay.shutdown().await;
        self.issuer.shutdown().await;
        for net in self.nets {
            net.shutdown().await;
        }
    }
}

fn public(job: Job) -> Job {
    Job { mode: Mode::Public, ..job }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_answers_over_a_relay_for_real_tokens_and_sees_nobody() {
    let Some(inference) = stories().await else { return };
    let began = Instant::now();
    let local = inference.submit(story(200)).await.unwrap().collect().await.unwrap();
    let alone = began.elapsed();
    let street = Street::new(inference).await;
    for round in 0..3 {
        let began = Instant::now();
        let mut reply = street.provider.submit(public(story(200))).await.unwrap();
        let (bill, mut text, mut first) = (reply.bill.clone().unwrap(), String::new(), None);
        while let Some(event) = reply.next().await {
            if let Event::Text { text: more, .. } = event.unwrap() {
                first.get_or_insert_with(|| began.elapsed());
                text += &more;
            }
        }
        assert_eq!(text, local.text);
        let cost = bill.get().unwrap().cost;
        println!(
            "round {round}: first text {first:?}, all {:?} (alone {alone:?}), {cost} µcr",
            began.elapsed()
        );
        assert!(!bill.get().unwrap().receipt.is_empty());
    }
    let served = || street.receipts.sums().0;
    until("the last receipt", || served().jobs == 3).await;
    let spent = street.parts.budgets.today().0;
    let (earned, tolls) = (street.till.paid(), street.relay_till.paid());
    println!(
        "{spent} spent, {earned} earned by the provider, {tolls} by the relay, {:?}",
        street.relay.counters()
    );
    assert_eq!(MicroCredits(earned.0 + tolls.0), spent, "what was paid was earned, to the micro-credit");
    assert_eq!((served().amount, street.parts.receipts.sums().1.jobs), (earned, 3));
    // The provider met its relay and nobody else; the account that pays is known to nobody on the way.
    assert_eq!(*street.callers.lock().unwrap(), BTreeSet::from([street.nets[1].me()]));
    let (r, account) = (street.nets[0].me(), street.world.requester.node());
    assert!(r != account && !street.nets[1].handle().peers().borrow().contains(&account));
    street.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_noticed_through_the_relay() {
    let Some(inference) = stories().await else { return };
    let street = Street::new(inference).await;
    let mut reply = street.provider.submit(public(story(400))).await.unwrap();
    reply.next().await.unwrap().unwrap();
    let gone = AtomicBool::new(false);
    drop(reply);
    until("the provider notices", || {
        let counters = street.server.counters();
        gone.store(counters.cancelled + counters.completed == 1, Relaxed);
        gone.load(Relaxed)
    })
    .await;
    until("the circuit is closed", || street.relay.counters().open == 0).await;
    street.end().await;
}
