use potluck_chain_client::journal::fault;

use super::*;

const GENESIS: Genesis = Genesis([0x45; 32]);
const PLENTY: MicroCredits = MicroCredits(1 << 100);

fn key(seed: u8) -> Key {
    Key::from_seed([seed; 32])
}

fn open(dir: &tempfile::TempDir, seed: u8) -> Book {
    Book::open(&dir.path().join(format!("{seed}")), key(seed), GENESIS).unwrap()
}

fn promise(book: &mut Book, payee: u8, amount: u128) -> Result<SignedVoucher, BookError> {
    book.promise(key(payee).account(), MicroCredits(amount), Block(1_000), [0; 32], PLENTY)
}

#[test]
fn vouchers_grow_and_are_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut payer, mut payee) = (open(&dir, 1), open(&dir, 2));
    let first = promise(&mut payer, 2, 10).unwrap();
    let second = promise(&mut payer, 2, 5).unwrap();
    assert_eq!((second.voucher.nonce, second.voucher.cumulative), (2, MicroCredits(15)));
    let now = Block(10);
    assert_eq!(payee.accept(&first, now, 100, 1).unwrap(), Gained(MicroCredits(10)));
    assert_eq!(payee.accept(&first, now, 100, 2).unwrap(), Gained(MicroCredits(0)));
    assert_eq!(payee.accept(&second, now, 100, 3).unwrap(), Gained(MicroCredits(5)));
    assert!(matches!(payee.accept(&first, now, 100, 4), Err(BookError::Old { found: 1, known: 2 })));
    assert_eq!((payee.due(), payer.outstanding()), (MicroCredits(15), MicroCredits(15)));
    let lane = Lane::from(&first.voucher);
    payee.redeemed(&lane, MicroCredits(10)).unwrap();
    payer.redeemed(&lane, MicroCredits(10)).unwrap();
    drop((payee, payer));
    let (payer, payee) = (open(&dir, 1), open(&dir, 2));
    assert_eq!((payee.due(), payer.outstanding()), (MicroCredits(5), MicroCredits(5)));
    assert_eq!(payee.earning().next().unwrap().1.since_ms, 1, "the oldest that waits counts");
    assert_eq!(payer.last(key(2).account()), Some(&second), "it can be sent again as it was");
}

#[test]
fn vouchers_that_are_worth_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut payer, mut payee) = (open(&dir, 1), open(&dir, 2));
    let good = promise(&mut payer, 2, 10).unwrap();
    let now = Block(10);
    let mut refused = |change: &dyn Fn(&mut SignedVoucher)| {
        let mut it = good.clone();
        change(&mut it);
        payee.accept(&it, now, 100, 0).unwrap_err()
    };
    assert!(matches!(refused(&|it| it.signature[3] ^= 1), BookError::Forged));
    assert!(matches!(refused(&|it| it.voucher.cumulative.0 += 1), BookError::Forged));
    assert!(matches!(refused(&|it| it.voucher.payee = [9; 32]), BookError::NotOurs));
    assert!(matches!(refused(&|it| it.voucher.pool = [1; 32]), BookError::NotOurs));
    assert!(matches!(refused(&|it| it.voucher.payer = key(2).account()), BookError::NotOurs));
    assert!(matches!(refused(&|it| it.voucher.expires = Block(109)), BookError::TooShort { .. }));
    let elsewhere = key(1).voucher(good.voucher.clone(), &Genesis([1; 32]));
    assert!(matches!(payee.accept(&elsewhere, now, 100, 0), Err(BookError::Forged)));
    payee.accept(&good, now, 100, 0).unwrap();
    let sign = |change: &dyn Fn(&mut Voucher)| {
        let mut voucher = Voucher { nonce: 2, ..good.voucher.clone() };
        change(&mut voucher);
        key(1).voucher(voucher, &GENESIS)
    };
    let less = sign(&|it| it.cumulative.0 -= 1);
    assert!(matches!(payee.accept(&less, now, 100, 0), Err(BookError::Less { .. })));
    let shorter = sign(&|it| it.expires.0 -= 1);
    assert!(matches!(payee.accept(&shorter, now, 100, 0), Err(BookError::Shorter { .. })));
    for lane in 1..MAX_PER_PAYER {
        payee.accept(&sign(&|it| it.lane = lane as u32), now, 100, 0).unwrap();
    }
    assert!(matches!(payee.accept(&sign(&|it| it.lane = 999), now, 100, 0), Err(BookError::Lanes(_))));
}

#[test]
fn no_more_is_promised_than_the_escrow_covers() {
    let dir = tempfile::tempdir().unwrap();
    let mut payer = open(&dir, 1);
    let mut promise = |payee: u8, amount, escrow| {
        payer.promise(key(payee).account(), MicroCredits(amount), Block(50), [0; 32], MicroCredits(escrow))
    };
    promise(2, 60, 100).unwrap();
    let refused = promise(3, 41, 100).unwrap_err();
    assert!(matches!(refused, BookError::Escrow { wanted: MicroCredits(101), .. }), "{refused}");
    promise(3, 40, 100).unwrap();
    assert!(promise(2, 1, 100).is_err());
    assert!(matches!(promise(2, u128::MAX, u128::MAX), Err(BookError::Overflow)));
    payer.redeemed(&payer.lane_to(key(2).account()), MicroCredits(60)).unwrap();
    assert_eq!(payer.outstanding(), MicroCredits(40));
    let early = payer.promise(key(2).account(), MicroCredits(1), Block(49), [0; 32], PLENTY);
    assert!(matches!(early, Err(BookError::Shorter { found: 49, least: 50 })));
}

#[test]
fn what_expired_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut payer, mut payee) = (open(&dir, 1), open(&dir, 2));
    let voucher = promise(&mut payer, 2, 10).unwrap();
    payee.accept(&voucher, Block(1), 1, 0).unwrap();
    payee.redeemed(&Lane::from(&voucher.voucher), MicroCredits(4)).unwrap();
    assert_eq!(payee.expire(Block(1_000), &BTreeSet::new()).unwrap(), MicroCredits(0));
    let owed = payee.earning().map(|(lane, _)| *lane).collect();
    assert_eq!(payee.expire(Block(1_001), &owed).unwrap(), MicroCredits(0), "the chain owes it anyway");
    assert_eq!(payee.expire(Block(1_001), &BTreeSet::new()).unwrap(), MicroCredits(6));
    assert_eq!(payee.earning().count(), 0);
}

/// Whatever is on the wire after a crash, the next voucher is for more, and nothing that was acknowledged is gone.
#[test]
fn a_crash_at_any_file_operation_costs_nobody_anything() {
    for steps in 0..80 {
        let dir = tempfile::tempdir().unwrap();
        let mut left = Vec::new();
        let mut acknowledged = MicroCredits(0);
        fault::after(Some(steps));
        let _: Result<(), BookError> = (|| {
            let mut payer = Book::open(&dir.path().join("1"), key(1), GENESIS)?;
            let mut payee = Book::open(&dir.path().join("2"), key(2), GENESIS)?;
            for amount in 1..6 {
                let voucher = promise(&mut payer, 2, amount)?;
                left.push(voucher.clone());
                payee.accept(&voucher, Block(1), 1, 0)?;
                acknowledged = voucher.voucher.cumulative;
            }
            Ok(())
        })();
        fault::after(None);
        let (mut payer, mut payee) = (open(&dir, 1), open(&dir, 2));
        assert!(payee.due() >= acknowledged, "after {steps} steps");
        let next = promise(&mut payer, 2, 7).unwrap();
        if let Some(last) = left.last() {
            assert!(next.voucher.nonce > last.voucher.nonce, "after {steps} steps");
            assert!(next.voucher.cumulative.0 >= last.voucher.cumulative.0 + 7, "after {steps} steps");
        }
        payee.accept(&next, Block(1), 1, 0).unwrap();
        assert_eq!(payee.due(), next.voucher.cumulative);
    }
}

#[test]
fn the_file_stays_short() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut payer = open(&dir, 1);
    for _ in 0..60_000 {
        promise(&mut payer, 2, 1).unwrap();
    }
    assert!(payer.journal.size() < COMPACT, "{} bytes", payer.journal.size());
    drop(payer);
    assert_eq!(open(&dir, 1).outstanding(), MicroCredits(60_000));
}

#[test]
fn a_book_that_is_put_aside_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut payer = open(&dir, 1);
    let signed = promise(&mut payer, 2, 10).unwrap();
    let copy = payer.put_aside(7).unwrap();
    assert_eq!(payer.outstanding(), MicroCredits::ZERO);
    drop(payer);
    assert!(open(&dir, 1).last(key(2).account()).is_none(), "it stays empty");
    let kept = Book::open(&copy, key(1), GENESIS).unwrap();
    assert_eq!(kept.last(key(2).account()), Some(&signed));
}
