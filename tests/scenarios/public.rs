//! Strangers on one machine: asked through a relay, paid with an issuer's tokens, settled on the real runtime.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    chain::micros,
    http::Response,
    process,
    public::{FEE, MODEL, Party, Pool, job},
};
use serde_json::json;

use crate::common::text;

/// What no file and no log of a stranger may hold.
const MARK: &str = "Zanzibarquartz";
/// What is granted to an account of the development chain that has credits.
const GRANTED: u128 = 10_000_000_000;
/// What a machine that is killed may have taken with it for one job: a chunk at the prices of these scenarios, and the
/// tolls of a circuit.
const CHUNK: u128 = 6_400;
const TOLL: u128 = 100;

fn cost(answer: &Response) -> u128 {
    micros(&answer.header("x-potluck-cost").expect("the reply says what it cost").into())
}

/// What a machine says to the same job without anybody's help.
fn own_answer(party: &Party, prompt: &str, seed: u64, tokens: u32) -> String {
    let answer = party.client().post("/v1/completions", &job(prompt, seed, tokens)).expect(200);
    text(&answer).to_owned()
}

/// Whether any file below a folder holds the mark.
fn holds_mark(folder: &Path) -> Option<String> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = holds_mark(&path) {
                return Some(found);
            }
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(MARK.len()).any(|it| it == MARK.as_bytes()))
        {
            return Some(path.display().to_string());
        }
    }
    None
}

fn leaves_no_trace(party: &Party) {
    assert_eq!(holds_mark(party.home()), None, "a file holds a stranger's words");
    let said = party.node().stderr() + &party.node().stdout();
    assert!(!said.contains(MARK), "the log holds a stranger's words: {said}");
}

#[test]
fn a_stranger_answers_as_it_would_itself_and_is_paid_to_the_last_millionth() {
    let began = Instant::now();
    let Some(pool) = Pool::start(1, 1, 1) else { return };
    println!("the pool: {:?}", began.elapsed());
    let (bob, dave) = (&pool.requesters[0], &pool.providers[0]);
    let prompt = format!("Once upon a time {MARK}");

    let began = Instant::now();
    let first = bob.ask(&prompt, 7, 150, "0.05");
    println!("the first answer: {:?}", began.elapsed());
    let answer = first.expect(200);
    let mut spent = cost(&first);
    assert!(spent > 0 && spent <= 50_000, "{spent}");
    assert_eq!(answer["usage"]["completion_tokens"], 150, "{answer}");
    // Before its owner asks it the same.
    leaves_no_trace(dave);
    leaves_no_trace(&pool.relays[0]);
    leaves_no_trace(&pool.issuer);
    assert_eq!(text(&answer), own_answer(dave, &prompt, 7, 150), "a stranger's answer is its own");
    assert!(first.header("x-potluck-audit").is_some_and(|class| !class.is_empty()));
    let receipt = first.header("x-potluck-receipt").expect("the reply gives a receipt").to_owned();
    assert!(receipt.len() > 200 && receipt.bytes().all(|it| it.is_ascii_hexdigit()), "{receipt}");

    spent += refusals(bob);
    spent += streams(bob, dave);
    let settled = || pool.issuer.promised() == pool.earned() && pool.earned() == spent;
    process::eventually(Duration::from_secs(20), settled);
    pool.balances(spent, 0);
    let said = dave.json("public earnings");
    assert!(micros(&said["served"]["credits"]) > 0, "{said}");
    assert_eq!(said["served"]["jobs"], 2, "{said}");
    let receipts = dave.json("public receipts");
    assert_eq!(receipts["receipts"].as_array().unwrap().len(), 2, "{receipts}");
    redeems(&pool);
}

/// What is not asked of strangers, and what it says; gives what was spent all the same.
fn refusals(bob: &Party) -> u128 {
    let ask = |headers: &[(&str, &str)]| bob.ask_with(headers, &job("abc", 1, 8));
    let key = |key: &str| format!("Bearer {key}");
    let home = ask(&[("authorization", &key("stays-at-home-0123456789-0123456789"))]);
    assert_eq!(home.openai_error(403)["code"], "mode_not_allowed");
    let dear = ask(&[("x-potluck-max-price", "0.0001")]);
    let error = dear.openai_error(402);
    assert!(error["message"].as_str().unwrap().contains("credits"), "{error}");
    assert_eq!(ask(&[("x-potluck-max-price", "many")]).status, 400);
    let nobody = bob.ask_with(&[], &json!({"model": "no-such-model", "prompt": "a", "max_tokens": 1}));
    assert!(nobody.status >= 400, "{}", nobody.text());
    0
}

/// Reads an answer as it comes, with a key that may.
fn streams(bob: &Party, dave: &Party) -> u128 {
    let before = bob.spent();
    let client = bob.client().with_key("open-to-the-public-pool-0123456789");
    let mut body = job("The boat", 9, 100);
    body["stream"] = true.into();
    let headers =
        [("content-type", "application/json"), ("x-potluck-mode", "public"), ("x-potluck-max-price", "0.05")];
    let mut stream = client.open("POST", "/v1/completions", &headers, body.to_string().as_bytes()).unwrap();
    let (mut said, mut events) = (String::new(), 0);
    while let Some(event) = stream.event().unwrap() {
        said += event["choices"][0]["text"].as_str().unwrap_or_default();
        events += 1;
    }
    assert_eq!(said, own_answer(dave, "The boat", 9, 100));
    assert!(events > 3, "it comes in parts: {events}");
    assert!(process::eventually(Duration::from_secs(5), || bob.spent() > before));
    thread::sleep(Duration::from_secs(1));
    bob.spent() - before
}

/// Turns vouchers into credits, and looks at every account.
fn redeems(pool: &Pool) {
    let (bob, dave, relay) = (&pool.requesters[0], &pool.providers[0], &pool.relays[0]);
    let (earned, tolls, bought) = (dave.earned(), relay.earned(), bob.promised());
    // The relay's tolls are fewer yet than are worth a call.
    for party in [dave, &pool.issuer] {
        let done = process::eventually(Duration::from_secs(40), || {
            let _ = party.node().run(["credits", "redeem"]);
            party.has("earned") == 0
        });
        assert!(done, "{}\n{}", party.json("credits balance"), party.node().stderr());
    }
    let kept = |all: u128| all - all / 50;
    assert_eq!(dave.has("free"), kept(earned), "what was served, less the protocol's share");
    assert_eq!((relay.has("free"), relay.has("earned")), (0, tolls));
    assert_eq!(bob.has("escrow"), 5_000_000 - bought);
    assert_eq!(bob.has("free"), GRANTED - 5_000_000 - FEE);
    assert_eq!(pool.issuer.has("escrow"), 100_000_000 - earned);
    let fees = 2 * FEE;
    let free = pool.issuer.has("free");
    assert_eq!(free, GRANTED - 200_000_000 - fees + kept(bought), "the issuer has what it sold");
    println!("served for {earned}, relayed for {tolls}, bought for {bought} millionths of a credit");
}

#[test]
fn whoever_dies_is_replaced_and_nothing_is_paid_twice() {
    let Some(mut pool) = Pool::start(1, 2, 2) else { return };
    let mut spent = 0;
    let mut ask = |pool: &Pool, seed: u64, tokens: u32| {
        let held = pool.requesters[0].purse();
        let promised = pool.requesters[0].promised();
        let answer = pool.requesters[0].ask("Once upon a time", seed, tokens, "0.09");
        let bob = &pool.requesters[0];
        let mut after = bob.purse();
        process::eventually(Duration::from_secs(3), || {
            let now = bob.purse();
            std::mem::replace(&mut after, now) == now
        });
        spent += held + bob.promised() - promised - after;
        answer
    };
    let local = own_answer(&pool.providers[0], "Once upon a time", 3, 200);
    assert_eq!(text(&ask(&pool, 3, 200).expect(200)), local);

    // A provider falls silent in the middle.
    let victim = pool.providers.iter().position(|party| party.public()["served"]["completed"] == 1).unwrap();
    let answer = thread::scope(|scope| {
        let dies = &pool.providers[victim];
        scope.spawn(move || {
            let runs = process::eventually(Duration::from_secs(10), || dies.public()["jobs"] != 0);
            if runs {
                dies.strike();
            }
        });
        ask(&pool, 4, 400)
    });
    pool.providers[victim].kill();
    let other = &pool.providers[1 - victim];
    assert_eq!(text(&answer.expect(200)), own_answer(other, "Once upon a time", 4, 400));

    // A relay dies; circuits go over the other.
    pool.relays[0].kill();
    let answer = ask(&pool, 5, 60);
    assert_eq!(text(&answer.expect(200)), own_answer(&pool.providers[1 - victim], "Once upon a time", 5, 60));

    // Without the issuer nobody can be sure to be paid.
    pool.issuer.kill();
    let answer = ask(&pool, 6, 400);
    assert!(answer.status == 200 || answer.status >= 400, "{}", answer.text());
    println!("without the issuer: {} {}", answer.status, answer.text());
    if answer.status != 200 {
        assert!(answer.openai_error(answer.status)["code"].is_string());
    }

    // All come back, and nothing is paid twice.
    pool.issuer.begin();
    pool.issuer.until("it issues", |public| public["issuer"] == true);
    pool.relays[0].begin();
    pool.providers[victim].begin();
    for party in &pool.providers {
        party.until("it offers", |public| public["offer"]["models"][0]["name"] == MODEL);
    }
    let answer = ask(&pool, 7, 60);
    assert_eq!(text(&answer.expect(200)), own_answer(&pool.providers[0], "Once upon a time", 7, 60));
    process::eventually(Duration::from_secs(70), || {
        pool.issuer.promised() == pool.earned() && spent - pool.earned() <= 2 * (CHUNK + TOLL)
    });
    println!("spent {spent}, earned {}", pool.earned());
    pool.balances(spent, 2 * (CHUNK + TOLL));
    for party in &mut pool.providers {
        party.stop();
    }
}
