//! Providers, relays, the issuer and the node that asks die at random while jobs go on; afterwards the accounts are gone
//! through. `POTLUCK_PUBLIC_KILLS=200` makes it long, `POTLUCK_PUBLIC_SEED` repeats it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    process,
    public::{MODEL, Party, Pool, job},
    random::Random,
};

/// What one death can take: a chunk at the prices of the pool, with the tolls of the circuits that it broke.
const AT_RISK: u128 = 6_400 + 2 * 100;

/// What came of the jobs.
#[derive(Debug, Default)]
struct Told {
    answered: u32,
    /// Refused with a typed error.
    refused: u32,
    /// The asking node itself was killed meanwhile.
    cut: u32,
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn of<T, R>(party: &Mutex<T>, act: impl FnOnce(&mut T) -> R) -> R {
    act(&mut party.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Asks one job after the other until it is told to stop.
fn ask(bob: &Mutex<Party>, deaths: &AtomicBool, stop: &AtomicBool) -> Told {
    let (mut told, mut seed) = (Told::default(), 0);
    while !stop.load(Relaxed) {
        seed += 1;
        deaths.store(false, Relaxed);
        let client = of(bob, |bob| bob.client());
        let headers = [
            ("content-type", "application/json"),
            ("x-potluck-mode", "public"),
            ("x-potluck-max-price", "0.02"),
        ];
        let body = job("Once upon a time", seed, 60).to_string();
        match client.send("POST", "/v1/completions", &headers, body.as_bytes()) {
            Ok(answer) if answer.status == 200 => told.answered += 1,
            Ok(answer) => {
                let error = answer.openai_error(answer.status);
                assert!(error["code"].is_string(), "an error without a type: {error}");
                told.refused += 1;
                thread::sleep(Duration::from_millis(200));
            }
            Err(error) => {
                assert!(deaths.load(Relaxed), "nobody killed the node that asks: {error}");
                told.cut += 1;
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
    told
}

#[test]
fn whoever_dies_when_nobody_loses_more_than_a_chunk_and_nothing_is_paid_twice() {
    let (kills, seed) = (env("POTLUCK_PUBLIC_KILLS", 6), env("POTLUCK_PUBLIC_SEED", 20_261_123));
    let mut dice = Random::new(seed);
    let Some(pool) = Pool::start(1, 2, 2) else { return };
    let began = Instant::now();
    let Pool { mut requesters, providers, relays, issuer, chain, .. } = pool;
    let bob = Mutex::new(requesters.remove(0));
    let others: Vec<Mutex<Party>> =
        providers.into_iter().chain(relays).chain([issuer]).map(Mutex::new).collect();
    let (deaths, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let told = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&bob, &deaths, &stop));
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(1_500 + dice.next() % 4_000));
            let victim = dice.below(others.len() + 1);
            let other = others.get(victim);
            let pause = Duration::from_millis(dice.next() % 600);
            of(other.unwrap_or(&bob), |party| {
                deaths.fetch_or(other.is_none(), Relaxed);
                party.kill();
                thread::sleep(pause);
                party.begin();
            });
        }
        stop.store(true, Relaxed);
        asking.join().expect("it asks")
    });
    println!("{kills} kills in {:?}: {told:?}", began.elapsed());
    assert!(told.answered > 0, "{told:?}");

    // All are there again, and what is owed is claimed.
    let (bob, others) = (bob.into_inner().unwrap(), others.into_iter().map(|it| it.into_inner().unwrap()));
    let mut others: Vec<Party> = others.collect();
    let issuer = others.pop().expect("the issuer");
    issuer.until("it issues", |public| public["issuer"] == true);
    for provider in &others[..2] {
        provider.until("it offers", |public| public["offer"]["models"][0]["name"] == MODEL);
    }
    let again = || bob.ask("Once upon a time", 1, 20, "0.02").status == 200;
    assert!(process::eventually(Duration::from_secs(60), again), "{}", bob.node().stderr());
    let earned = || others.iter().map(Party::earned).sum::<u128>();
    let settled = || issuer.promised() == earned() && bob.promised() == issuer.earned();
    assert!(process::eventually(Duration::from_secs(120), settled), "{} {}", issuer.promised(), earned());
    let (bought, held, earned) = (bob.promised(), bob.purse(), earned());
    let spent = bought.checked_sub(held).expect("nobody holds more than was bought");
    let lost = spent.checked_sub(earned).expect("nothing is paid that was not spent");
    println!("bought {bought}, held {held}, earned {earned}, lost {lost} millionths of a credit");
    assert!(lost <= u128::from(kills) * AT_RISK, "{lost} of {spent} are lost in {kills} deaths");
    drop(chain);
}
