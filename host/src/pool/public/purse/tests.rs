use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::Ordering,
};

use parity_scale_codec::{Decode as _, Encode as _};

use super::*;
use crate::pool::public::{
    issuer::{
        Issuer,
        disk::fault,
        tests::{EPOCH, GENESIS, LENGTH, World, rand_bytes},
        wire::{self, Settled},
    },
    till::{Till, TillError},
    token::Epoch,
};

fn sum(tokens: &[Token]) -> u128 {
    Token::worth(tokens).0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purse_fills_to_its_level_within_its_budget_and_gives_exact_sums() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(4_000, 7_000).await;
    assert_eq!(purse.fill().await.unwrap(), MicroCredits(4_000));
    assert_eq!(purse.fill().await.unwrap(), MicroCredits(0), "it is full");
    let tokens = purse.take(MicroCredits(1_750)).await.unwrap();
    assert_eq!((sum(&tokens), purse.balance().0), (1_800, 2_200));
    purse.put_back(tokens.clone()).await.unwrap();
    assert_eq!(purse.balance().0, 4_000);
    purse.put_back(tokens).await.unwrap();
    assert_eq!(purse.balance().0, 4_000, "put back once");
    let most = purse.take(MicroCredits(5_900)).await.unwrap();
    assert_eq!(sum(&most), 5_900, "it buys what is missing");
    assert_eq!(purse.fill().await.unwrap().0, 1_100, "no more than the budget");
    let refused = purse.take(MicroCredits(5_000)).await.unwrap_err();
    assert!(matches!(refused, PurseError::Budget { .. }), "{refused}");
    assert!(matches!(purse.take(MicroCredits(1 << 40)).await, Err(PurseError::TooMuch(_))));
    assert_eq!(sum(&purse.take(MicroCredits(300)).await.unwrap()), 300);
    drop(purse);
    let purse = world.open_purse(4_000, 7_000).await;
    assert_eq!(purse.balance().0, 800, "what was handed out stays handed out");
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_was_not_answered_is_asked_for_again_and_paid_once() {
    let world = World::new();
    let purse = world.open_purse(1_000, 10_000).await;
    let issuer = world.start_issuer().await;
    // The issuer writes the sale down and dies before it answers.
    let file = world.net.issuer_file.clone();
    fault::after(&file, Some(3));
    assert!(purse.fill().await.is_err());
    assert_eq!((purse.pending().0, purse.balance().0), (1_000, 0));
    drop(issuer);
    drop(purse);
    fault::after(&file, None);
    let purse = world.open_purse(1_000, 10_000).await;
    let issuer = world.start_issuer().await;
    assert_eq!(purse.fill().await.unwrap().0, 1_000);
    assert_eq!((purse.pending().0, purse.balance().0), (0, 1_000));
    assert_eq!(spent_of(&world, issuer).await, 1_000, "sold once");
}

/// What the books of the issuer say the requester has used up.
async fn spent_of(world: &World, issuer: Issuer) -> u128 {
    issuer.shutdown().await;
    let desk = crate::pool::public::issuer::tests::desk(world).await;
    desk.used_up().get(&world.requester.node().0).copied().unwrap_or_default().0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_shows_two_faces_is_found_out() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(1_000, 10_000).await;
    purse.fill().await.unwrap();
    let mut said = issuer.catalogue().said.clone();
    let mut epochs: Vec<Epoch> = said.epochs.to_vec();
    epochs[0].keys[1][77] ^= 1;
    said.epochs = Bounded::new(epochs).unwrap();
    let other = Signed::new(said, &GENESIS, &world.issuer);
    let evidence = purse.store().learn(other).unwrap().unwrap();
    let facts = crate::pool::public::evidence::Facts { genesis: GENESIS, bond: MicroCredits(1 << 40) };
    assert_eq!(evidence.verify(&facts), Ok(world.issuer.node().0));
    issuer.shutdown().await;
}

/// All windows of eight bytes that say something: those with more than three bytes that are not zero, so that small
/// numbers do not count, and none that everybody knows.
fn windows(seen: &[Vec<u8>], known: &[&[u8]]) -> HashSet<[u8; 8]> {
    let public: HashSet<&[u8]> = known.iter().flat_map(|bytes| bytes.windows(8)).collect();
    let says =
        |window: &&[u8]| window.iter().filter(|byte| **byte != 0).count() > 3 && !public.contains(window);
    let all = seen.iter().flat_map(|bytes| bytes.windows(8));
    all.filter(says).map(|window| <[u8; 8]>::try_from(window).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_issuer_sees_of_a_purchase_has_nothing_in_common_with_what_it_sees_of_a_spend() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(2_000, 10_000).await;
    purse.fill().await.unwrap();
    let seen = |at: u8| -> Vec<Vec<u8>> {
        let all = world.net.seen.lock().unwrap();
        let of_kind = all.iter().filter(|(question, _)| question.first() == Some(&at));
        of_kind.flat_map(|(question, answer)| [question.clone(), answer.clone()]).collect()
    };
    // Whoever stamps both knows when it did: what it stamps at another time is another number.
    world.time.fetch_add(0x12_3456, Ordering::SeqCst);
    let till = world.open_till(&world.provider, "till").await;
    let tokens = purse.take(MicroCredits(2_000)).await.unwrap();
    till.deposit(tokens.clone()).await.unwrap();
    let (bought, spent) = (seen(1), seen(2));
    assert_eq!((bought.len(), spent.len()), (2, 2));
    // The one thing in both is the issuer's own name.
    let name = world.issuer.node().0;
    let (at_buy, at_spend) = (windows(&bought, &[&name]), windows(&spent, &[&name]));
    assert!(at_buy.len() > 5_000 && at_spend.len() > 5_000, "{} {}", at_buy.len(), at_spend.len());
    assert_eq!(at_buy.intersection(&at_spend).count(), 0);
    for token in &tokens {
        let of_token = windows(&[token.encode()], &[]);
        assert_eq!(of_token.intersection(&at_buy).count(), 0, "neither serial nor signature was seen");
        assert!(of_token.iter().all(|window| at_spend.contains(window)), "the search finds what is there");
    }
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bought_says_nothing_about_what_was_spent() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(8_000, 1_000_000).await;
    purse.fill().await.unwrap();
    let first = world.net.seen.lock().unwrap().len();
    let keeper = purse.clone();
    let keeping = tokio::spawn(async move { keeper.keep_filled().await });
    for sum in [100, 300, 700, 1_900, 200, 1_000, 500, 2_300, 400, 900, 600] {
        assert_eq!(sum_of(&purse, sum).await, sum);
        let full = async {
            while purse.is_low() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), full).await.expect("it is filled again");
    }
    keeping.abort();
    let seen = world.net.seen.lock().unwrap()[first..].to_vec();
    let price = |(question, _): &(Vec<u8>, Vec<u8>)| match wire::decode(question).unwrap() {
        Question::Buy(purchase) => Some(purchase.said.price().0),
        _ => None,
    };
    let prices: Vec<u128> = seen.iter().filter_map(price).collect();
    assert!(prices.len() > 2 && prices.iter().all(|price| *price == 2_000), "{prices:?}");
    issuer.shutdown().await;
}

async fn sum_of(purse: &Purse, amount: u128) -> u128 {
    sum(&purse.take(MicroCredits(amount)).await.unwrap())
}

/// How far an operation got.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Tokens that were handed out and are not paid yet.
    out: Vec<Vec<Token>>,
    handed: u128,
    /// What was asked for where no answer came.
    lost_at_most: u128,
}

fn random(below: u32) -> u32 {
    u32::from_le_bytes(rand_bytes()) % below
}

/// Hands out a sum and turns it in, as far as it gets.
async fn pay(purse: &Purse, till: &Till, amount: u128, tally: &mut Tally) {
    tally.lost_at_most += amount;
    let Ok(tokens) = purse.take(MicroCredits(amount)).await else { return };
    tally.lost_at_most -= amount;
    tally.handed += sum(&tokens);
    tally.out.push(tokens);
    turn_in(till, tally).await;
}

async fn turn_in(till: &Till, tally: &mut Tally) {
    while let Some(tokens) = tally.out.last() {
        match till.deposit(tokens.clone()).await {
            Ok(paid) => assert_eq!(paid.0, sum(tokens)),
            // By the same claim, before the till died.
            Err(TillError::Spent(proofs)) => {
                assert_eq!(proofs.len(), tokens.len());
                assert!(proofs.iter().all(|proof| proof.claim.said.payee == till_account()));
            }
            Err(TillError::Cheated(evidence)) => panic!("{evidence:?}"),
            Err(_) => return,
        }
        tally.out.pop();
    }
}

fn till_account() -> [u8; 32] {
    crate::identity::Signer::from_seed([3; 32]).node().0
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_two_hundred_points_nobody_gains_or_loses_a_microcredit() {
    const LEVEL: u128 = 600;
    let world = World::new();
    let files = [world.net.issuer_file.clone(), world.path("purse.journal"), world.path("till.journal")];
    let mut issuer = world.start_issuer().await;
    let mut purse = world.open_purse(LEVEL, 1 << 40).await;
    let mut till = world.open_till(&world.provider, "till").await;
    let mut tally = Tally::default();
    let mut by_victim = [0; 3];
    while tally.kills < 200 {
        let victim = random(3) as usize;
        let at_a_write = random(4) > 0;
        if at_a_write {
            fault::after(&files[victim], Some(random(7)));
        }
        let amount = u128::from(1 + random(4)) * 100;
        let patience = if at_a_write { 60_000 } else { u64::from(random(120)) };
        let op = async {
            let _ = purse.fill().await;
            pay(&purse, &till, amount, &mut tally).await;
        };
        let finished = tokio::time::timeout(Duration::from_millis(patience), op).await.is_ok();
        let died = fault::is_dead(&files[victim]) || !finished;
        match victim {
            _ if !died => {}
            0 => {
                drop(issuer);
                fault::after(&files[0], None);
                issuer = world.start_issuer().await;
            }
            1 => {
                drop(purse);
                fault::after(&files[1], None);
                purse = world.open_purse(LEVEL, 1 << 40).await;
            }
            _ => {
                drop(till);
                fault::after(&files[2], None);
                till = world.open_till(&world.provider, "till").await;
            }
        }
        fault::after(&files[victim], None);
        by_victim[victim] += usize::from(died);
        tally.kills += usize::from(died);
    }
    purse.fill().await.unwrap();
    till.settle().await.unwrap();
    turn_in(&till, &mut tally).await;
    assert!(tally.out.is_empty());
    let (balance, used) = (purse.balance().0, purse.store().used().0);
    let paid = till.paid().0;
    let lost = used - balance - tally.handed;
    println!(
        "killed {by_victim:?} (issuer, purse, till): bought {used}, paid {paid}, held {balance}, lost {lost} µcr"
    );
    assert!(by_victim.iter().all(|count| *count > 20), "{by_victim:?}");
    assert_eq!(paid, tally.handed, "every token that was handed out was paid once");
    assert!(lost <= tally.lost_at_most, "{lost} of {}", tally.lost_at_most);
    assert_eq!(purse.pending().0, 0);
    same_answers(&world);
    drop((purse, till));
    assert_eq!(spent_of(&world, issuer).await, used, "the issuer sold what the purse bought");
    let desk = crate::pool::public::issuer::tests::desk(&world).await;
    assert_eq!(desk.owed().get(&till_account()).map(|owed| owed.0), Some(paid));
    let book = |seed, name| {
        let key = potluck_chain_client::Key::from_seed([seed; 32]);
        crate::settlement::book::Book::open(&world.path(name), key, GENESIS).unwrap()
    };
    assert_eq!(book(3, "till-book").due().0, paid);
    assert_eq!(book(1, "issuer-book").outstanding().0, paid);
    let (promised, came) = (book(2, "requester-book").outstanding().0, book(1, "issuer-book").due().0);
    assert!(used <= came && came <= promised, "{used} {came} {promised}");
    assert!(promised - used <= LEVEL + 400, "the rest is for the next purchase");
}

/// One question that moved money was never answered in two ways.
fn same_answers(world: &World) {
    let mut known: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut repeated = 0;
    for (question, answer) in world.net.seen.lock().unwrap().iter() {
        let moved = match wire::Answer::decode(&mut answer.as_slice()).unwrap() {
            Answer::Sold(_) => true,
            Answer::Settled(Signed { said: Settled { voucher, .. }, .. }) => voucher.is_some(),
            _ => false,
        };
        if moved && let Some(first) = known.insert(question.clone(), answer.clone()) {
            assert_eq!(&first, answer);
            repeated += 1;
        }
    }
    println!("{} questions moved money, {repeated} were asked again and answered the same", known.len());
    assert!(repeated > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_first_are_handed_out_first_and_ended_ones_are_no_money() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(300, 10_000).await;
    purse.fill().await.unwrap();
    world.time.fetch_add(LENGTH, Ordering::SeqCst);
    let tokens = purse.take(MicroCredits(500)).await.unwrap();
    let old = tokens.iter().filter(|token| token.epoch == EPOCH).count();
    assert_eq!((old, sum(&tokens)), (3, 500), "the rest was bought with the keys of today");
    world.time.fetch_add(2 * LENGTH, Ordering::SeqCst);
    assert_eq!(purse.balance().0, 0);
    issuer.shutdown().await;
}
