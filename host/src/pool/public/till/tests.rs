use std::sync::atomic::Ordering;

use super::*;
use crate::pool::public::{
    issuer::{
        Refusal,
        disk::fault,
        tests::{EPOCH, GENESIS, LENGTH, World},
    },
    token::Denomination,
};

const LEVEL: u128 = 5_000;

fn worth(sum: u128) -> MicroCredits {
    MicroCredits(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bought_token_spends_once_and_a_second_payee_is_shown_the_first_claim() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(LEVEL, 100_000).await;
    let till = world.open_till(&world.provider, "till").await;
    let tokens = purse.take(worth(1_230)).await.unwrap();
    assert_eq!(Token::worth(&tokens), worth(1_300), "rounded up to what tokens can pay");
    till.refresh(None).await.unwrap();
    assert_eq!(till.verify(&tokens).unwrap(), worth(1_300));
    assert_eq!(till.deposit(tokens.clone()).await.unwrap(), worth(1_300));
    assert_eq!(till.paid(), worth(1_300));
    // Again by the same payee: paid once.
    let TillError::Spent(proofs) = till.deposit(tokens.clone()).await.unwrap_err() else { panic!() };
    assert_eq!(proofs.len(), tokens.len());
    // By another: the first claim is the proof, signed by the one who made it.
    let other = crate::identity::Signer::from_seed([4; 32]);
    let second = world.open_till(&other, "second").await;
    let TillError::Spent(proofs) = second.deposit(tokens.clone()).await.unwrap_err() else { panic!() };
    for (proof, token) in proofs.iter().zip(&tokens) {
        assert_eq!(proof.claim.said.payee, world.provider.node().0);
        assert!(proof.holds(&token.name(), &world.issuer.node().0, &[0; 32], &GENESIS));
        let earlier = proof.claim.digest(&GENESIS);
        assert!(
            !proof.holds(&token.name(), &world.issuer.node().0, &earlier, &GENESIS),
            "its own claim is no proof"
        );
        assert!(!proof.holds(&[1; 32], &world.issuer.node().0, &[0; 32], &GENESIS), "of another token");
    }
    // Together with fresh ones, the fresh ones are paid.
    let more = purse.take(worth(400)).await.unwrap();
    let mixed = [more, tokens].concat();
    assert_eq!(second.deposit(mixed).await.unwrap(), worth(400));
    assert_eq!((second.paid(), till.paid()), (worth(400), worth(1_300)));
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_money_is_refused_without_asking_anybody() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(LEVEL, 100_000).await;
    let till = world.open_till(&world.provider, "till").await;
    let good = purse.take(worth(2_000)).await.unwrap();
    assert!(matches!(till.verify(&good), Err(TillError::NoKeys)));
    till.refresh(None).await.unwrap();
    issuer.shutdown().await;
    let asked = world.net.seen.lock().unwrap().len();
    let flaw = async |change: &dyn Fn(&mut Token)| {
        let mut tokens = good.clone();
        change(tokens.last_mut().unwrap());
        let offline = till.verify(&tokens).unwrap_err().to_string();
        let TillError::Flawed { index, flaw } = till.deposit(tokens).await.unwrap_err() else { panic!() };
        assert!(offline.contains(&flaw.to_string()));
        assert_eq!(index + 1, good.len());
        flaw
    };
    assert_eq!(flaw(&|it| it.signature[100] ^= 1).await, Flaw::Forged);
    assert_eq!(flaw(&|it| it.serial[0] ^= 1).await, Flaw::Forged);
    assert_eq!(flaw(&|it| it.value = Denomination::TenThousand).await, Flaw::Forged);
    assert_eq!(flaw(&|it| it.epoch = EPOCH + 1).await, Flaw::Forged);
    assert_eq!(flaw(&|it| *it = good[0].clone()).await, Flaw::Twice);
    let mut foreign = good.clone();
    foreign[0].epoch = EPOCH + 5;
    assert!(matches!(till.verify(&foreign), Err(TillError::Flawed { index: 0, flaw: Flaw::Foreign })));
    assert!(matches!(till.verify(&[]), Err(TillError::Count(0))));
    assert!(matches!(till.verify(&vec![good[0].clone(); 129]), Err(TillError::Count(129))));
    world.time.fetch_add(2 * LENGTH, Ordering::SeqCst);
    assert!(matches!(till.verify(&good), Err(TillError::Flawed { index: 0, flaw: Flaw::Expired })));
    assert_eq!(world.net.seen.lock().unwrap().len(), asked, "nobody was asked");
    assert_eq!((till.paid(), till.pending()), (worth(0), worth(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_pay_yet_pays_later_and_once() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(LEVEL, 100_000).await;
    let till = world.open_till(&world.provider, "till").await;
    let tokens = purse.take(worth(1_000)).await.unwrap();
    world.chain.escrow.store(999, Ordering::SeqCst);
    let later = till.deposit(tokens.clone()).await.unwrap_err();
    assert!(matches!(later, TillError::Link(LinkError::Refused(Refusal::Later))), "{later}");
    assert_eq!((till.pending(), till.paid()), (worth(1_000), worth(0)));
    issuer.shutdown().await;
    drop(till);
    let till = world.open_till(&world.provider, "till").await;
    assert_eq!(till.pending(), worth(1_000), "it is asked for again after a restart");
    assert!(till.settle().await.is_err(), "nobody answers");
    let issuer = world.start_issuer().await;
    world.chain.escrow.store(1_000_000, Ordering::SeqCst);
    assert_eq!(till.settle().await.unwrap(), worth(1_000));
    assert!(matches!(till.deposit(tokens).await, Err(TillError::Spent(_))));
    assert_eq!((till.pending(), till.paid()), (worth(0), worth(1_000)));
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_of_the_till_loses_no_money() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(LEVEL, 100_000).await;
    let till = world.open_till(&world.provider, "till").await;
    let (first, second) = (purse.take(worth(700)).await.unwrap(), purse.take(worth(300)).await.unwrap());
    // Dies when the claim was sent and paid, before the voucher is in the book.
    let path = world.path("till.journal");
    fault::after(&path, Some(4));
    assert!(till.deposit(first).await.is_err());
    fault::after(&path, None);
    drop(till);
    std::fs::remove_file(&path).unwrap();
    let till = world.open_till(&world.provider, "till").await;
    assert_eq!(till.deposit(second).await.unwrap(), worth(300));
    drop(till);
    let key = potluck_chain_client::Key::from_seed(world.provider.seed());
    let book = crate::settlement::book::Book::open(&world.path("till-book"), key, GENESIS).unwrap();
    assert_eq!(book.due(), worth(1_000), "the next voucher counts both");
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_no_longer_sold_come_back_as_credits() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let purse = world.open_purse(2_500, 100_000).await;
    purse.fill().await.unwrap();
    let held = purse.balance();
    assert!(purse.take_old().await.unwrap().is_empty(), "they are still sold");
    world.time.fetch_add(LENGTH, Ordering::SeqCst);
    let old = purse.take_old().await.unwrap();
    assert_eq!((Token::worth(&old), purse.balance()), (held, worth(0)));
    let own = world.open_till(&world.requester, "own").await;
    assert_eq!(own.deposit(old).await.unwrap(), held);
    issuer.shutdown().await;
}
