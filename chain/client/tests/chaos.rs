//! Calls through a proxy that drops, delays, reorders and garbles, with a client that is killed again and again. Needs a
//! node that runs chain/dist/development.json, named by `POTLUCK_CHAIN_URL` (`ws://127.0.0.1:PORT`); without it nothing
//! is tested here. `POTLUCK_CHAIN_KILLS` says how often the client is killed at least (10 without it).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::time::{Duration, Instant};

use potluck_chain_client::{
    Answer, Call, Client, Key, Settings,
    proxy::{Faults, Proxy},
    signer::Pace,
    spec::known_key,
};
use potluck_primitives::{Account, Block, MicroCredits, PUBLIC_POOL, SignedVoucher, Voucher};

async fn ask<T>(url: &str, question: impl AsyncFn(&potluck_chain_client::Live) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let client = start(url, known_key("dave"), dir.path());
    let live = client.handle().reached(Duration::from_secs(20)).await.unwrap();
    let answer = question(&live).await;
    client.shutdown().await;
    answer
}

fn start(url: &str, key: Key, folder: &std::path::Path) -> Client {
    let pace = Pace {
        poll: Duration::from_millis(300),
        resend: Duration::from_secs(2),
        patience: Duration::from_secs(2),
    };
    Client::bind(Settings { endpoint: url.into(), folder: folder.into(), key, pace })
}

async fn escrow_and_free(url: &str, account: Account) -> (u128, u128) {
    ask(url, async |live| {
        let (_, at) = live.node.latest().await.unwrap();
        let balance = live.node.balance(&at, account).await.unwrap();
        (balance.escrow.0, balance.free.0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_chain_holds_is_what_was_asked_whatever_happens_on_the_way() {
    let Ok(url) = std::env::var("POTLUCK_CHAIN_URL") else { return };
    let least: u32 =
        std::env::var("POTLUCK_CHAIN_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let upstream = url.trim_start_matches("ws://").parse().unwrap();
    let proxy = Proxy::start(upstream, 7).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Nobody else pays this payee on a chain that tests share.
    let (payer, payee) = (known_key("bob"), known_key("verifier3"));
    // Vouchers are refused as long as there is nothing to pay them from.
    let funded = start(&url, payer.clone(), &dir.path().join("first"));
    let live = funded.handle().reached(Duration::from_secs(20)).await.unwrap();
    let deposit = Call::Deposit(MicroCredits::CREDIT);
    assert!(matches!(live.ask(deposit, Duration::from_secs(60)).await.unwrap(), Answer::Ended(_)));
    funded.shutdown().await;
    drop(live);
    let (before, _) = escrow_and_free(&url, payer.account()).await;
    let (_, earned_before) = escrow_and_free(&url, payee.account()).await;
    let wanted = 10_u128;
    let base = 1_000_000_u128;
    let faults = Faults {
        disconnect: 8,
        lost_request: 15,
        lost_answer: 15,
        delayed: 200,
        delay: Duration::from_millis(400),
        reordered: 30,
        garbage: 10,
        refuse: false,
    };
    let mut calls: Vec<Call> = (1..=wanted).map(|n| Call::Deposit(MicroCredits(base + n))).collect();
    let lane = u32::try_from(earned_before % 1_000_000_007).unwrap();
    let genesis = ask(&url, async |live| live.genesis()).await;
    let voucher = |nonce: u64| -> SignedVoucher {
        let voucher = Voucher {
            pool: PUBLIC_POOL,
            payer: payer.account(),
            payee: payee.account(),
            lane,
            nonce,
            cumulative: MicroCredits(100_000 * u128::from(nonce)),
            expires: Block(1_000_000),
            receipts_root: [0; 32],
        };
        payer.voucher(voucher, &genesis)
    };
    calls.extend((1..=5).map(|nonce| Call::Redeem(vec![voucher(nonce)])));
    let began = Instant::now();
    let (mut kills, mut asked) = (0, 0);
    let mut open = usize::MAX;
    proxy.set(faults);
    while kills < least || asked < calls.len() || open > 0 {
        assert!(began.elapsed() < Duration::from_secs(540), "{asked} asked, {open} open after {kills} kills");
        let client = start(&proxy.url(), payer.clone(), dir.path());
        let life = Duration::from_millis(400 + u64::from(kills) * 733 % 4_000);
        let deadline = tokio::time::Instant::now() + life;
        if let Ok(live) = client.handle().reached(life).await {
            while asked < calls.len() && tokio::time::Instant::now() < deadline {
                // The answer may be lost with the process: it is asked again then, and done once.
                match live.signer.ask(calls[asked].clone()).await {
                    Ok(_) => asked += 1,
                    Err(error) => println!("{error}"),
                }
                if asked % 3 == 0 {
                    break;
                }
            }
            tokio::time::sleep_until(deadline).await;
            open = live.signer.standing().borrow().open.len();
            if open == 0 && asked == calls.len() {
                let done = live.signer.history().await.unwrap_or_default();
                let bad: Vec<_> = done.iter().filter(|it| !it.outcome.is_success()).collect();
                assert!(bad.is_empty(), "{bad:?}");
            }
        }
        if kills >= least && asked == calls.len() {
            proxy.set(Faults { disconnect: 0, garbage: 0, ..faults });
        }
        // Killed: nothing is finished, nothing is closed.
        drop(client);
        kills += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (after, _) = escrow_and_free(&url, payer.account()).await;
    let (_, earned_after) = escrow_and_free(&url, payee.account()).await;
    let deposits: u128 = (1..=wanted).map(|n| base + n).sum();
    println!(
        "{kills} kills, {} connections, {} messages harmed, {:?}",
        proxy.connections(),
        proxy.harmed(),
        began.elapsed()
    );
    assert_eq!(earned_after - earned_before, 490_000, "5 vouchers of one lane: 0.5 credits less the share");
    assert_eq!(after + 500_000 - before, deposits, "each deposit once, and nothing else");
}
