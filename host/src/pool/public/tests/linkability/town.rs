//! A small town: persons with accounts and purses of their own, two relays, two providers and an issuer, each a node of
//! the real network with a key and sockets of its own.

use std::{sync::Arc, time::Duration};

use parity_scale_codec::Encode;
use potluck_kernels::sample::SamplingParams;
use potluck_primitives::{MicroCredits, UnixMillis};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use super::{
    super::{market, net, offer, public, seed},
    attack::Dice,
    taps::{Listening, Seen},
};
use crate::{
    dispatch::provider::Provider,
    identity::{NodeId, Signer},
    inference::Inference,
    job::{Input, Job, Mode, random_seed},
    pool::public::{
        budget::{Budget, Budgets},
        fixture::{Flat, story},
        guard::{Guard, Limits, tests::Told},
        issuer::{
            self, ISSUER, Issuer, IssuerLink,
            tests::{GENESIS, LENGTH, World},
        },
        market::{Market, Native, tests::Known},
        meter::Rates,
        net::PublicNet,
        offer::SignedOffer,
        provider::{AskConfig, Given, Parts, PublicProvider},
        purse::{self, Purse},
        receipts::{ReceiptBook, now_ms},
        relay::{self, RELAY, Relay},
        seal::{SEALED, SealingKeys},
        session::{
            Coins, Counter, Timers,
            serve::{PublicServer, Serving},
        },
        till::{self, Till},
        token::Schedule,
        ways::Ways,
    },
};

/// What a thousand tokens cost here.
pub(super) const PRICE: Rates = Rates { prompt: MicroCredits(500), completion: MicroCredits(4_000) };
/// What is asked for: the same length each, so that only their words differ.
pub(super) const TOPICS: [&str; 4] = [
    "Once upon a time, there was a little girl named",
    "One day, a big dog went to the park to play and",
    "Tom and his mom had a red car, and they wanted a",
    "The sun was hot and the birds sang in the tree a",
];
/// Tokens of a short and of a long answer.
pub(super) const SIZES: [u32; 2] = [8, 32];
/// Jobs at the same time.
const CROWD: usize = 6;

/// How much happens.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Plan {
    pub(super) persons: usize,
    pub(super) jobs: usize,
    /// Jobs after these in which each person draws tokens at a temperature of its own.
    pub(super) habits: usize,
    /// Jobs a second, of all persons together.
    pub(super) rate: f64,
    /// The purse's delay, in seconds.
    pub(super) delay: f64,
}

/// A job, and who asked for it: what the attacker wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) person: usize,
    pub(super) topic: usize,
    pub(super) size: usize,
    pub(super) habit: bool,
    pub(super) answered: bool,
}

struct Person {
    account: NodeId,
    net: PublicNet,
    provider: Arc<PublicProvider>,
    filling: JoinHandle<()>,
}

pub(super) struct Town {
    world: World,
    pub(super) seen: Arc<Seen>,
    persons: Vec<Person>,
    relays: Vec<(Relay, PublicNet)>,
    servers: Vec<(PublicServer, PublicNet)>,
    issuer: (Issuer, PublicNet),
    crier: JoinHandle<()>,
}

/// The way to the issuer over a node's own network.
fn link(net: &PublicNet, issuer: &PublicNet) -> IssuerLink {
    let handle = net.handle();
    handle.learn(issuer.me(), issuer.handle().addresses().borrow().to_vec());
    IssuerLink::new(Arc::new(handle), issuer.me(), GENESIS)
}

async fn till(world: &World, signer: &Signer, name: &str, link: IssuerLink) -> Arc<Till> {
    let path = world.path(&format!("{name}.till"));
    let vouchers = world.vouchers(signer, &format!("{name}.book"), &path).unwrap();
    let parts = till::Parts { signer: signer.clone(), vouchers, link, clock: world.clock() };
    let till = Arc::new(Till::open(&path, parts).unwrap());
    till.refresh(None).await.unwrap();
    till
}

impl Town {
    pub(super) async fn new(inference: Inference, plan: &Plan) -> Self {
        let (world, seen) = (World::new(), Seen::new());
        let at = net(world.issuer.seed(), true, &[]).await;
        let file = world.net.issuer_file.clone();
        let parts = issuer::Parts {
            signer: world.issuer.clone(),
            vouchers: world.vouchers(&world.issuer, "issuer-book", &file).unwrap(),
            bond: Arc::clone(&world.chain) as _,
            incoming: seen.at_issuer(at.handle().bind(ISSUER)),
            clock: world.clock(),
        };
        let (folder, schedule) = (file.parent().unwrap().to_owned(), Schedule { length_ms: LENGTH });
        let issuer = Issuer::bind(issuer::Settings { folder, schedule }, parts).await.unwrap();

        let mut relays: Vec<(Relay, PublicNet)> = Vec::new();
        for index in 0..2 {
            let signer = Signer::from_seed(seed());
            let first: Vec<&PublicNet> = std::iter::once(&at).chain(relays.iter().map(|it| &it.1)).collect();
            let y = net(signer.seed(), true, &first).await;
            let till = till(&world, &signer, &format!("relay-{index}"), link(&y, &at)).await;
            let incoming = seen.at_relay(index, y.handle().bind(RELAY));
            let tolls = Arc::new(Counter(till));
            let relay = Relay::bind(Arc::new(y.handle()), incoming, tolls, relay::Limits::default());
            relays.push((relay, y));
        }
        let mut bootstrap: Vec<&PublicNet> = relays.iter().map(|it| &it.1).collect();
        bootstrap.push(&at);

        let (mut servers, mut goods) = (Vec::new(), Vec::new());
        for index in 0..2 {
            let signer = Signer::from_seed(seed());
            let p = net(signer.seed(), false, &bootstrap).await;
            p.handle().keep(relays.iter().map(|it| it.1.me()).collect());
            let keys = SealingKeys::new(signer.node(), Duration::ZERO).unwrap();
            let key = keys.current(Duration::ZERO).unwrap().public;
            let guard = Guard::new(
                Limits { jobs: 64, jobs_per_relay: 64, ..Limits::default() },
                Arc::new(Told::default()),
            );
            let guard = guard.unwrap();
            guard.switch(true);
            let till = till(&world, &signer, &format!("provider-{index}"), link(&p, &at)).await;
            let serving = Serving {
                signer: signer.clone(),
                engine: Arc::new(inference.clone()),
                goods: Arc::new(Flat(PRICE)),
                till: Arc::new(Counter(till)),
                guard,
                receipts: Arc::new(ReceiptBook::open(&world.path(&format!("served-{index}"))).unwrap()),
                seals: Arc::new(Listening { keys, seen: Arc::clone(&seen) }),
            };
            let incoming = seen.at_provider(index, p.handle().bind(SEALED));
            let server = PublicServer::bind(Timers::default(), serving, incoming);
            goods.push((signer, key));
            servers.push((server, p));
        }

        let (mut persons, mut markets) = (Vec::new(), Vec::new());
        for index in 0..plan.persons {
            let known = market();
            markets.push(Arc::clone(&known));
            let r = net(seed(), false, &bootstrap).await;
            persons.push(Person::new(&world, plan, index, r, &at, known).await);
        }
        let crier = cry(goods, &relays, world.issuer.node(), markets);
        Self { world, seen, persons, relays, servers, issuer: (issuer, at), crier }
    }

    pub(super) fn accounts(&self) -> Vec<[u8; 32]> {
        self.persons.iter().map(|person| person.account.0).collect()
    }

    /// Under which key each person's connections are seen.
    pub(super) fn peers(&self) -> Vec<NodeId> {
        self.persons.iter().map(|person| person.net.me()).collect()
    }

    pub(super) fn providers(&self) -> Vec<NodeId> {
        self.servers.iter().map(|it| it.1.me()).collect()
    }

    /// Jobs come one after another at random times, each of a random person with a random prompt: when one comes says
    /// nothing about whose it is.
    pub(super) async fn live(&self, plan: &Plan, dice: &mut Dice) -> Vec<Asked> {
        let (places, mut jobs) = (Arc::new(Semaphore::new(CROWD)), JoinSet::new());
        for index in 0..plan.jobs + plan.habits {
            tokio::time::sleep(Duration::from_secs_f64(-dice.part().ln() / plan.rate)).await;
            let (person, topic, size) =
                (dice.below(plan.persons), dice.below(TOPICS.len()), dice.below(SIZES.len()));
            let asked = Asked { person, topic, size, habit: index >= plan.jobs, answered: false };
            let (job, provider) = (prompt(index, asked), Arc::clone(&self.persons[person].provider));
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            jobs.spawn(async move {
                let answer = match provider.submit(job).await {
                    Ok(reply) => reply.collect().await.map(drop),
                    Err(error) => Err(error),
                };
                drop(place);
                if let Err(error) = &answer {
                    eprintln!("job {index} was not answered: {error}");
                }
                (index, Asked { answered: answer.is_ok(), ..asked })
            });
        }
        let mut all = jobs.join_all().await;
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, asked)| asked).collect()
    }

    pub(super) async fn end(self) {
        self.crier.abort();
        for (server, net) in self.servers {
            server.shutdown().await;
            net.shutdown().await;
        }
        for (relay, net) in self.relays {
            relay.shutdown().await;
            net.shutdown().await;
        }
        for person in self.persons {
            person.filling.abort();
            person.net.shutdown().await;
        }
        self.issuer.0.shutdown().await;
        self.issuer.1.shutdown().await;
        drop(self.world);
    }
}

/// The number in front is how the measurement knows a job again; the attacker does not look at it.
fn prompt(index: usize, asked: Asked) -> Job {
    let text = format!("{index:05} {}", TOPICS[asked.topic].repeat(1 + asked.size));
    let temperature = if asked.habit { 0.5 + 0.1 * asked.person as f32 } else { 0.8 };
    let sampling =
        SamplingParams { temperature, top_p: 0.95, seed: random_seed(), ..SamplingParams::default() };
    let (mode, max_tokens) = (Mode::Public, Some(SIZES[asked.size]));
    public(Job { mode, sampling, max_tokens, input: Input::Text { text, special: false }, ..story(1) })
}

/// The number of a job that a provider was asked for.
pub(super) fn number(text: &str) -> Option<usize> {
    text.get(..5)?.parse().ok()
}

impl Person {
    async fn new(
        world: &World,
        plan: &Plan,
        index: usize,
        r: PublicNet,
        issuer: &PublicNet,
        known: Arc<Market>,
    ) -> Self {
        let signer = Signer::from_seed(seed());
        let path = world.path(&format!("person-{index}.purse"));
        let parts = purse::Parts {
            signer: signer.clone(),
            vouchers: world.vouchers(&signer, &format!("person-{index}.book"), &path).unwrap(),
            link: link(&r, issuer),
            clock: world.clock(),
        };
        // A lot is change for about twelve jobs, as the node's is at usual prices. RSA takes its time in tests.
        let settings = purse::Settings {
            path,
            level: MicroCredits(12_000),
            budget: MicroCredits(1_000_000),
            delay: Duration::from_secs_f64(plan.delay),
        };
        let purse = Purse::open(settings, parts).unwrap();
        purse.fill().await.unwrap();
        let filling = purse.clone();
        let filling = tokio::spawn(async move { filling.keep_filled().await });
        let purse = Arc::new(Coins(purse));
        let budget =
            Budget { job: MicroCredits(10_000), day: MicroCredits(10_000_000), keys: Default::default() };
        let registry = Arc::new(Known(Default::default(), true));
        let parts = Parts {
            config: AskConfig { in_flight: 32, ..AskConfig::default() },
            me: signer.node().0,
            market: known,
            chooser: Arc::new(Native),
            circuits: Arc::new(Ways { net: r.handle(), purse: purse.clone(), registry, me: signer.node() }),
            purse,
            budgets: Budgets::open(budget, world.path(&format!("person-{index}.spent"))),
            receipts: Arc::new(ReceiptBook::open(&world.path(&format!("person-{index}.asked"))).unwrap()),
            health: Arc::default(),
        };
        let provider = Arc::new(PublicProvider::new(Arc::new(Given(Arc::new(parts)))));
        Self { account: signer.node(), net: r, provider, filling }
    }
}

/// Tells everybody what is offered, and again before it is too old.
fn cry(
    goods: Vec<(Signer, [u8; 32])>,
    relays: &[(Relay, PublicNet)],
    issuer: NodeId,
    markets: Vec<Arc<Market>>,
) -> JoinHandle<()> {
    let relays: Vec<&PublicNet> = relays.iter().map(|it| &it.1).collect();
    let sign = |(signer, key): &(Signer, [u8; 32])| offer(signer, &relays, *key, issuer, PRICE).encode();
    let mut signed: Vec<Vec<u8>> = goods.iter().map(sign).collect();
    for market in &markets {
        for bytes in &signed {
            market.take(bytes, UnixMillis(now_ms())).unwrap();
        }
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(120)).await;
            let now = now_ms();
            let anew = |((signer, _), bytes): (&(Signer, [u8; 32]), &Vec<u8>)| {
                let mut old = SignedOffer::open(bytes, UnixMillis(now)).unwrap().offer;
                (old.issued_at, old.expires_at) = (UnixMillis(now), UnixMillis(now + 480_000));
                SignedOffer::sign(old, signer).unwrap().encode()
            };
            signed = goods.iter().zip(&signed).map(anew).collect();
            for (market, bytes) in markets.iter().flat_map(|market| signed.iter().map(move |it| (market, it)))
            {
                let _ = market.take(bytes, UnixMillis(now));
            }
        }
    })
}
