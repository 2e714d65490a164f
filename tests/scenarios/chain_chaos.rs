//! A node that is killed again and again, behind a connection that drops, delays, reorders and garbles, settles to the
//! last millionth what was asked of it.
//!
//! `POTLUCK_CHAIN_KILLS` says how often it is killed (6 times without it).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use potluck_chain_client::{
    Answer, Call, Key,
    proxy::{Faults, Proxy},
    spec::known_key,
};
use potluck_primitives::{Account, Block, Genesis, MicroCredits, PUBLIC_POOL, SignedVoucher, Voucher};
use potluck_tests::{
    chain::{Chain, micros, runtime},
    http::Client,
    node::{Node, NodeOptions},
    process,
    random::Random,
};
use serde_json::{Value, json};

const GRANTED: u128 = 10_000_000_000;
const FEE: u128 = 1_000;
/// Each voucher of a lane is for this much more.
const STEP: u128 = 100_000;
/// Lanes of each payer.
const LANES: u32 = 3;

const FAULTS: Faults = Faults {
    disconnect: 8,
    lost_request: 5,
    lost_answer: 5,
    delayed: 250,
    delay: Duration::from_millis(200),
    reordered: 20,
    garbage: 8,
    refuse: false,
};

/// What is asked, and what the ledger has to come to.
struct Plan {
    deposits: Vec<u128>,
    vouchers: Vec<SignedVoucher>,
}

impl Plan {
    fn new(payers: &[Key], payee: Account, genesis: &Genesis, size: u32) -> Self {
        let deposits = (1..=size).map(|n| 1_000_000 + u128::from(n)).collect();
        let mut vouchers = Vec::new();
        for nonce in 1..=size.div_ceil(LANES) {
            for payer in payers {
                for lane in 0..LANES {
                    let voucher = Voucher {
                        pool: PUBLIC_POOL,
                        payer: payer.account(),
                        payee,
                        lane,
                        nonce: u64::from(nonce),
                        // Lanes differ, and roundings with them.
                        cumulative: MicroCredits(u128::from(nonce) * (STEP + u128::from(lane) * 17 + 3)),
                        expires: Block(1_000_000),
                        receipts_root: [7; 32],
                    };
                    vouchers.push(payer.voucher(voucher, genesis));
                }
            }
        }
        Self { deposits, vouchers }
    }

    /// What each lane comes to.
    fn lanes(&self) -> Vec<(Account, u128)> {
        let last = self.vouchers.iter().map(|it| it.voucher.nonce).max().unwrap();
        let last = self.vouchers.iter().filter(|it| it.voucher.nonce == last);
        last.map(|it| (it.voucher.payer, it.voucher.cumulative.0)).collect()
    }

    /// What the payee is paid: the treasury has two parts of a hundred of each lane, rounded down.
    fn paid(&self) -> u128 {
        self.lanes().iter().map(|(_, all)| all - all / 50).sum()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The next voucher of each lane that a node's book does not have yet.
fn next<'a>(plan: &'a Plan, book: &Value) -> Vec<&'a SignedVoucher> {
    let known = |of: &Voucher| {
        let payer = hex(&of.payer);
        let lanes = book["earning"].as_array().unwrap();
        let lane = lanes.iter().find(|it| it["payer"] == payer.as_str() && it["lane"] == of.lane);
        lane.map_or(0, |lane| lane["number"].as_u64().unwrap())
    };
    plan.vouchers.iter().filter(|it| it.voucher.nonce == known(&it.voucher) + 1).collect()
}

/// The amounts of all deposits that a node knows of, with how often each was done.
fn known(history: &Value) -> (BTreeSet<u128>, Vec<u128>) {
    let amount = |call: &Value| {
        let what = call["what"].as_str()?.strip_prefix("deposit ")?.strip_suffix(" credits")?;
        Some(micros(&what.into()))
    };
    let open = history["under_way"].as_array().unwrap().iter().filter_map(amount);
    let done = history["done"].as_array().unwrap().iter();
    let done: Vec<u128> = done.filter(|it| it["state"] == "done").filter_map(amount).collect();
    (open.chain(done.iter().copied()).collect(), done)
}

struct Stage {
    chain: Chain,
    proxy: Proxy,
    options: NodeOptions,
    plan: Arc<Plan>,
}

/// The answer of a node that has reached the chain, unless it is killed first.
fn get(client: &Client, path: &str) -> Option<Value> {
    let answer = client.send("GET", path, &[], b"").ok()?;
    (answer.status == 200).then(|| answer.json())
}

fn history(client: &Client) -> Option<Value> {
    get(client, "/potluck/v1/credits/history")
}

fn book(client: &Client) -> Option<Value> {
    get(client, "/potluck/v1/credits/vouchers")
}

/// Asks, and does not wait for the answer; its status, unless the node was killed first.
fn post(client: &Client, path: &'static str, body: Value) -> JoinHandle<Option<u16>> {
    let client = client.clone();
    thread::spawn(move || {
        let json = [("content-type", "application/json")];
        client.send("POST", path, &json, body.to_string().as_bytes()).ok().map(|answer| answer.status)
    })
}

fn deposit(client: &Client, amount: u128) -> JoinHandle<Option<u16>> {
    post(client, "/potluck/v1/credits/deposit", json!({"amount": MicroCredits(amount).to_string()}))
}

fn hand_over(client: &Client, voucher: &SignedVoucher) -> JoinHandle<Option<u16>> {
    use parity_scale_codec::Encode;
    post(client, "/potluck/v1/credits/vouchers", json!({"voucher": hex(&voucher.encode())}))
}

/// Asks for the next things of the plan, and says when it begins to.
fn ask(client: &Client, plan: &Plan, begins: &SyncSender<()>) -> Option<()> {
    // Nothing that may have been asked for already is asked for again before the outbox has said so.
    let (seen, _) = known(&history(client)?);
    let book = book(client)?;
    let _ = begins.send(());
    let missing = plan.deposits.iter().filter(|amount| !seen.contains(amount)).take(2);
    let mut asked: Vec<_> = missing.map(|amount| deposit(client, *amount)).collect();
    // A voucher may be handed over as often as one likes.
    asked.extend(next(plan, &book).into_iter().map(|voucher| hand_over(client, voucher)));
    asked.into_iter().for_each(|it| drop(it.join()));
    Some(())
}

impl Stage {
    /// One life: it is asked for things, and killed wherever it is by then. Every fourth time that is before it has
    /// reached the chain, as a rule; else the time counts from the moment when it is asked.
    fn live(&self, number: u32, life: Duration) {
        let node = Node::start(self.options.clone());
        let (client, plan) = (node.client(), Arc::clone(&self.plan));
        let (begins, begun) = mpsc::sync_channel(1);
        let asking = thread::spawn(move || ask(&client, &plan, &begins));
        if !number.is_multiple_of(4) {
            let _ = begun.recv_timeout(Duration::from_secs(5));
        }
        thread::sleep(life);
        node.kill();
        asking.join().unwrap();
    }
}

fn escrow(chain: &Chain, of: Account) -> u128 {
    chain.with(known_key("carol"), async |live| {
        let (_, at) = live.node.latest().await.unwrap();
        live.node.balance(&at, of).await.unwrap().escrow.0
    })
}

fn account(home: &Path) -> Account {
    let seed: [u8; 32] = fs::read(home.join("node/node.key")).unwrap().try_into().unwrap();
    Key::from_seed(seed).account()
}

#[test]
fn a_node_that_is_killed_again_and_again_pays_and_is_paid_once() {
    let home = tempfile::tempdir().unwrap();
    let Some(chain) = Chain::start(home.path()) else { return };
    let kills: u32 = std::env::var("POTLUCK_CHAIN_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(6);
    let size = kills.clamp(6, 60);
    let payers = [known_key("alice"), known_key("bob")];
    let genesis = chain.with(known_key("carol"), async |live| live.genesis());
    let plan = Arc::new(Plan::new(&payers, account(home.path()), &genesis, size));
    let before: Vec<u128> = payers
        .iter()
        .map(|payer| {
            chain.with(payer.clone(), async |live| {
                let call = Call::Deposit(MicroCredits(500_000_000));
                let done = live.ask(call, Duration::from_secs(60)).await.unwrap();
                assert!(matches!(done, Answer::Ended(done) if done.outcome.is_success()));
            });
            escrow(&chain, payer.account())
        })
        .collect();

    let config = home.path().join("user/.config/potluck");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[chain]\nredeem_amount = \"0.05\"\n").unwrap();
    let between = runtime();
    let upstream = chain.endpoint().trim_start_matches("ws://").parse().unwrap();
    let proxy = between.block_on(Proxy::start(upstream, 11)).unwrap();
    let options = NodeOptions::new().home(home.path()).args(["--chain-endpoint", &proxy.url()]);
    let stage = Stage { chain, proxy, options, plan: Arc::clone(&plan) };
    stage.proxy.set(FAULTS);
    let began = Instant::now();
    let mut random = Random::new(u64::from(kills));
    for number in 0..kills {
        let life = Duration::from_micros(u64::try_from(random.below(2_500_000)).unwrap());
        stage.live(number, life);
    }
    println!(
        "{kills} kills in {:?}: {} connections, {} messages harmed",
        began.elapsed(),
        stage.proxy.connections(),
        stage.proxy.harmed()
    );
    assert!(stage.proxy.harmed() > u64::from(kills), "the connection was bad");

    // The last life: a slow connection that lasts. What is missing is asked for until it is there.
    stage.proxy.set(Faults { delayed: FAULTS.delayed, delay: FAULTS.delay, ..Faults::default() });
    let node = Node::start(stage.options.clone());
    let client = node.client();
    let mut asked = BTreeMap::new();
    let everything = || {
        asked.retain(|_, it: &mut JoinHandle<_>| !it.is_finished());
        let Some(history) = history(&client) else { return false };
        let (seen, done) = known(&history);
        let missing = plan.deposits.iter().filter(|it| !seen.contains(it)).take(8).copied();
        for amount in missing {
            asked.entry(amount).or_insert_with(|| deposit(&client, amount));
        }
        let Some(book) = book(&client) else { return false };
        let missing = next(&plan, &book);
        let more = !missing.is_empty();
        let handed: Vec<_> = missing.into_iter().map(|voucher| hand_over(&client, voucher)).collect();
        handed.into_iter().for_each(|it| drop(it.join()));
        if more {
            return false;
        }
        let _ = post(&client, "/potluck/v1/credits/redeem", json!({})).join();
        let balance = client.get("/potluck/v1/credits");
        done.len() >= plan.deposits.len()
            && history["under_way"] == json!([])
            && balance.status == 200
            && balance.json()["earned"] == "0.000000"
    };
    let settled = process::eventually(Duration::from_secs(240), everything);
    let history = history(&client);
    assert!(settled, "{history:?}\n{}", node.stderr());
    println!("settled after {:?}", began.elapsed());

    // Everybody is told the same, and it is what the model says.
    let (_, mut done) = known(&history.unwrap());
    done.sort_unstable();
    assert_eq!(done, plan.deposits, "each deposit is told of once");
    let all: u128 = plan.deposits.iter().sum();
    let count = u128::try_from(plan.deposits.len()).unwrap();
    let balance = node.client().get("/potluck/v1/credits").expect(200);
    assert_eq!(micros(&balance["escrow"]), all, "each deposit once, and nothing else");
    assert_eq!(
        micros(&balance["free"]),
        GRANTED - all - count * FEE + plan.paid(),
        "paid once for each lane"
    );
    let book = node.client().get("/potluck/v1/credits/vouchers").expect(200);
    assert_eq!(book["earning"].as_array().unwrap().len(), plan.lanes().len());
    assert!(book["earning"].as_array().unwrap().iter().all(|it| it["open"] == "0.000000"), "{book}");
    for (payer, before) in payers.iter().zip(before) {
        let spent: u128 =
            plan.lanes().iter().filter(|(of, _)| *of == payer.account()).map(|(_, all)| all).sum();
        assert_eq!(before - escrow(&stage.chain, payer.account()), spent, "nothing is taken twice");
    }
    node.shutdown();
    stage.chain.stop();
}
