//! The client against the real runtime. Needs a node: `POTLUCK_CHAIN_URL` names a chopsticks or an omni-node that runs
//! chain/dist/development.json; without it nothing is tested here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::time::{Duration, Instant};

use potluck_chain_client::{Answer, Call, Client, Key, Settings, signer::Pace};
use potluck_primitives::{Block, MicroCredits, PUBLIC_POOL, Voucher, blake2_256};

fn key(name: &str) -> Key {
    Key::from_seed(blake2_256(&[b"potluck development ", name.as_bytes()]))
}

fn client(url: &str, name: &str, folder: &std::path::Path) -> Client {
    let pace = Pace { poll: Duration::from_millis(300), ..Pace::default() };
    Client::bind(Settings { endpoint: url.into(), folder: folder.join(name), key: key(name), pace })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_is_vouched_redeemed_and_seen() {
    let Ok(url) = std::env::var("POTLUCK_CHAIN_URL") else {
        return eprintln!("SKIPPED: POTLUCK_CHAIN_URL names no node that runs chain/dist/development.json");
    };
    let dir = tempfile::tempdir().unwrap();
    let (alice, dave) = (client(&url, "alice", dir.path()), client(&url, "dave", dir.path()));
    let alice_live = alice.handle().reached(Duration::from_secs(20)).await.unwrap();
    let live = dave.handle().reached(Duration::from_secs(20)).await.unwrap();
    let patience = Duration::from_secs(60);
    let (_, at) = alice_live.node.latest().await.unwrap();
    let before = alice_live.node.balance(&at, key("alice").account()).await.unwrap();
    let mine = live.node.balance(&at, key("dave").account()).await.unwrap();
    println!("terms {:?}", live.node.terms(&at).await.unwrap());
    let amount = MicroCredits(5_000_000);
    let began = Instant::now();
    let done = alice_live.ask(Call::Deposit(amount), patience).await.unwrap();
    println!("deposit: {done:?} in {:?}", began.elapsed());
    let Answer::Ended(done) = done else { panic!("not in time") };
    assert!(done.outcome.is_success(), "{:?}", done.outcome);
    let (head, at) = alice_live.node.latest().await.unwrap();
    let after = alice_live.node.balance(&at, key("alice").account()).await.unwrap();
    assert_eq!(after.escrow.0, before.escrow.0 + amount.0);
    let lane = u32::try_from(mine.free.0 % 1_000_000_007).unwrap();
    let voucher = Voucher {
        pool: PUBLIC_POOL,
        payer: key("alice").account(),
        payee: key("dave").account(),
        lane,
        nonce: 1,
        cumulative: MicroCredits(2_000_000),
        expires: Block(head.number + 1_000),
        receipts_root: [0; 32],
    };
    let signed = key("alice").voucher(voucher, &live.genesis());
    let began = Instant::now();
    let paid = live.ask(Call::Redeem(vec![signed.clone()]), patience).await.unwrap();
    println!("redeem: {paid:?} in {:?}", began.elapsed());
    let Answer::Ended(paid) = paid else { panic!("not in time") };
    assert!(paid.outcome.is_success());
    let (_, at) = live.node.latest().await.unwrap();
    let richer = live.node.balance(&at, key("dave").account()).await.unwrap();
    assert_eq!(richer.free.0 - mine.free.0, 1_960_000, "2 credits less the protocol's share");
    let again = live.ask(Call::Redeem(vec![signed]), patience).await.unwrap();
    println!("again: {again:?}");
    let Answer::Ended(again) = again else { panic!("not in time") };
    assert!(again.outcome.is_success(), "redeemed already is a success");
    let (_, at) = live.node.latest().await.unwrap();
    assert_eq!(live.node.balance(&at, key("dave").account()).await.unwrap(), richer);
    println!(
        "policies {:?} provider {:?}",
        live.node.policies(&at).await.unwrap(),
        live.node.provider(&at, key("dave").account()).await.unwrap()
    );
    println!(
        "verifiers {:?} referenda {:?}",
        live.node.verifiers(&at).await.unwrap(),
        live.node.referenda(&at, 5).await.unwrap()
    );
    alice.shutdown().await;
    dave.shutdown().await;
}
