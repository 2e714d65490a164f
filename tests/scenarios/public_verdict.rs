//! A provider of the public pool that begins to cheat: audited as everybody is asked, convicted by the verifiers that the
//! chain draws, and slashed. Those beside it lose nothing.
//!
//! `POTLUCK_PUBLIC_JOBS=1000` makes it as long as its name: five providers, two relays, two requesters, a thousand jobs,
//! the cheat from the 300th on.

use std::{
    fs,
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    chain::micros,
    data, process,
    public::{FEE, MODEL, Party, Pool},
};

/// Bytes at the end of the model's file that a cheat makes coarser: weights, and nothing else.
const COARSE: usize = 1_000_000;
/// What verifiers and the cheat have at stake, in credits.
const STAKES: [u32; 2] = [100, 60];

/// Keeps four bits of each weight's mantissa: another model at the same size, under the same name. The file's time stays
/// as it was, so that the node that serves it notices nothing and offers what it offered.
fn coarsen(path: &Path) {
    let (mut bytes, stamp) = (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    let from = bytes.len() - COARSE;
    for weight in bytes[from..].as_chunks_mut::<4>().0 {
        *weight = (u32::from_le_bytes(*weight) & 0xfff8_0000).to_le_bytes();
    }
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(from as u64)).unwrap();
    file.write_all(&bytes[from..]).unwrap();
    file.set_modified(stamp).unwrap();
}

/// Has the slashing policy approved that ships with the program; it is in force when this returns.
fn approve(pool: &mut Pool, component: &str) {
    let issuer = &pool.issuer;
    let proposed = issuer.json(&format!("gov propose slashing {component}"));
    let (index, from) = (proposed["referendum"].as_u64().unwrap(), proposed["from"].as_u64().unwrap());
    issuer.text(&format!("gov vote {index} yes --tokens 600000"));
    let block = issuer.json("chain status")["block"].as_u64().unwrap();
    pool.chain.blocks(u32::try_from(from - block + 1).unwrap());
    let issuer = &pool.issuer;
    let decides = || {
        let found = issuer.json("gov policies");
        found["policies"].as_array().is_some_and(|all| all.iter().any(|it| it["decides"] == true))
    };
    assert!(process::eventually(Duration::from_secs(30), decides), "{}", issuer.json("gov policies"));
}

/// What a verifier found of a provider: audits that passed, failed, and could not be told.
fn audits(verifier: &Party, provider: &Party) -> [u64; 3] {
    let public = verifier.public();
    let rows = public["audits"]["providers"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["provider"] == provider.id());
    ["passed", "failed", "unclear"].map(|field| row.and_then(|row| row[field].as_u64()).unwrap_or(0))
}

fn stake(party: &Party) -> u128 {
    micros(&party.json("provider status")["stake"])
}

#[test]
fn who_begins_to_cheat_is_convicted_and_slashed_and_nobody_else_is() {
    let jobs: u64 = std::env::var("POTLUCK_PUBLIC_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let whole = jobs >= 1_000;
    let Some(model) = data::file_or_skip("models/stories260K-f32.gguf") else { return };
    let began = Instant::now();
    let (requesters, honest, relays) = if whole { (2, 3, 2) } else { (1, 1, 1) };
    let Some(mut pool) = Pool::start(requesters, honest, relays) else { return };
    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/sprt.wasm");
    let component = component.to_str().unwrap().to_owned();
    approve(&mut pool, &component);

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(format!("{MODEL}.gguf"));
    fs::write(&copy, fs::read(&model).unwrap()).unwrap();
    let cheat = pool.provider("carol", &copy);
    let mut staked = vec![cheat];
    if whole {
        staked.push(pool.provider("settler", &model));
    }
    for party in &staked {
        party.text("provider register");
        party.text(&format!("provider stake {}", STAKES[1]));
        party.text("public on");
        party.until("it offers", |public| public["offer"]["models"][0]["name"] == MODEL);
    }
    let every = if whole { "4s" } else { "2s" };
    let verifiers: Vec<Party> =
        (1..=3).map(|n| pool.verifier(&format!("verifier{n}"), every, &model)).collect();
    for verifier in &verifiers {
        verifier.text(&format!("policy add {component}"));
        verifier.text("credits deposit 5");
        verifier.text(&format!("provider stake {}", STAKES[0]));
        verifier.text("provider verify");
    }
    // The verifiers are those of an era that has begun.
    pool.chain.blocks(12);
    println!("the pool after {:?}", began.elapsed());
    let ticking = pool.chain.ticking(Duration::from_secs(2));
    let cheat = &staked[0];
    let everybody = || pool.providers.iter().chain(&staked);

    // Everybody is honest.
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let turning = if whole { 300 } else { jobs / 2 };
    let ask_until = |end: u64| {
        thread::scope(|scope| {
            for requester in &pool.requesters {
                scope.spawn(|| {
                    loop {
                        let n = asked.fetch_add(1, Relaxed);
                        if n >= end {
                            return;
                        }
                        let answer = requester.ask("Once upon a time", n, 24, "0.01");
                        answered.fetch_add(u64::from(answer.status == 200), Relaxed);
                        assert!(answer.status == 200 || answer.status == 502, "{}", answer.text());
                    }
                });
            }
        });
        asked.store(end, Relaxed);
    };
    ask_until(turning);
    let audited = || everybody().all(|party| verifiers.iter().any(|verifier| audits(verifier, party)[0] > 0));
    assert!(process::eventually(Duration::from_secs(240), audited), "{}", verifiers[0].public());
    let failures = |party: &Party| verifiers.iter().map(|it| audits(it, party)[1]).sum::<u64>();
    assert!(everybody().all(|party| failures(party) == 0), "{}", verifiers[0].public());
    assert_eq!(stake(cheat), u128::from(STAKES[1]) * 1_000_000);
    println!("{turning} jobs, all honest, after {:?}", began.elapsed());

    // One changes its model.
    let turned = Instant::now();
    coarsen(&copy);
    cheat.text(&format!("stop {MODEL}"));
    ask_until(jobs);
    let convicted = || stake(cheat) < u128::from(STAKES[1]) * 1_000_000;
    let judged = process::eventually(Duration::from_secs(300), convicted);
    for verifier in &verifiers {
        println!("a verifier: {}", verifier.public()["audits"]);
    }
    assert!(judged, "{}\n{}", verifiers[0].public(), verifiers[0].node().stderr());
    println!("convicted and slashed {:?} after it began, of {:?} in all", turned.elapsed(), began.elapsed());
    assert_eq!(answered.load(Relaxed), jobs, "every job was answered");

    // Nobody else is, and what is gone went where it belongs.
    drop(ticking);
    assert!(everybody().filter(|party| party.id() != cheat.id()).all(|party| failures(party) == 0));
    for party in &staked[1..] {
        assert_eq!(stake(party), u128::from(STAKES[1]) * 1_000_000);
    }
    for verifier in &verifiers {
        assert_eq!(stake(verifier), u128::from(STAKES[0]) * 1_000_000);
    }
    // Who signed has a fifth of what is gone, in equal parts; the calls of verifiers cost what calls cost.
    let (left, whole) = (stake(cheat), u128::from(STAKES[1]) * 1_000_000);
    let slashed = whole - left;
    println!("of {whole} millionths at stake {left} are left");
    let free: u128 = verifiers.iter().map(|verifier| verifier.has("free")).sum();
    let spent = 3 * (u128::from(STAKES[0]) * 1_000_000 + 5_000_000) + (3 * 3 + 2) * FEE;
    let gained = free + spent - 3 * 1_000_000_000;
    let fair = [2, 3].map(|signers| slashed / 5 / signers * signers);
    assert!(fair.contains(&gained), "{gained} for who signed, of {slashed}");
    assert!(cheat.has("free") >= 1_000_000_000 - whole - FEE, "only its stake is touched");
}
