//! What the calls weigh.
//!
//! These are upper bounds set by hand, not the output of a benchmark run on reference hardware; the benchmarks of
//! this crate run as tests and give the numbers to replace them by. One ed25519 check is counted as 60 µs: on the
//! two-core machine of this project it took 42 µs (`cargo test -- --ignored one_signature`). Reads and
//! writes are counted once for each key that a call can touch, with a proof of [`KEY_PROOF`] bytes.

use core::marker::PhantomData;

use frame_support::{
    traits::Get,
    weights::{RuntimeDbWeight, Weight, constants::RocksDbWeight},
};

/// Picoseconds in a microsecond.
const MICROS: u64 = 1_000_000;
/// One ed25519 check, in microseconds.
const SIGNATURE: u64 = 60;
/// One hash of a voucher or a node in the runtime's own code, in microseconds.
const HASH: u64 = 3;
/// What any call takes beside what it stores, in microseconds.
const BASE: u64 = 40;
/// What a key adds to a block's proof at most, in bytes: a path through a trie of some million entries.
pub const KEY_PROOF: u64 = 1_600;
/// Nodes on the way up a tree of the most leaves allowed.
const PATH: u64 = 20;

/// The weight of each call. For vouchers, `n` is how many.
pub trait WeightInfo {
    /// `deposit`
    fn deposit() -> Weight;
    /// `start_withdraw`
    fn start_withdraw() -> Weight;
    /// `cancel_withdraw`
    fn cancel_withdraw() -> Weight;
    /// `withdraw`
    fn withdraw() -> Weight;
    /// `redeem`
    fn redeem(n: u32) -> Weight;
    /// `redeem`, to see what it would pay: nothing is written.
    fn check_redeem(n: u32) -> Weight;
    /// `register_settler`
    fn register_settler() -> Weight;
    /// `submit_batch`
    fn submit_batch() -> Weight;
    /// `challenge_leaf`
    fn challenge_leaf() -> Weight;
    /// `answer_leaf`
    fn answer_leaf(n: u32) -> Weight;
    /// `expire_challenge`
    fn expire_challenge() -> Weight;
    /// `reclaim_challenge`
    fn reclaim_challenge() -> Weight;
    /// `prove_bad_sum`
    fn prove_bad_sum() -> Weight;
    /// `prove_duplicate`
    fn prove_duplicate() -> Weight;
    /// `prove_stale`
    fn prove_stale() -> Weight;
    /// `claim`
    fn claim() -> Weight;
    /// `claim`, to see what it would move.
    fn check_claim() -> Weight;
    /// `redeem_omitted`
    fn redeem_omitted() -> Weight;
    /// `release_bond`
    fn release_bond() -> Weight;
    /// `close_batch`
    fn close_batch() -> Weight;
    /// `grant`
    fn grant() -> Weight;
    /// `burn`
    fn burn() -> Weight;
    /// `disburse`
    fn disburse() -> Weight;
    /// `set_parameters`
    fn set_parameters() -> Weight;
    /// `allow_settler`
    fn allow_settler() -> Weight;
}

/// With the database of a runtime.
#[derive(Debug)]
pub struct SubstrateWeight<T>(PhantomData<T>);

fn weigh(db: RuntimeDbWeight, micros: u64, reads: u64, writes: u64) -> Weight {
    let time = Weight::from_parts(micros.saturating_mul(MICROS), reads.saturating_mul(KEY_PROOF));
    time.saturating_add(db.reads_writes(reads, writes))
}

macro_rules! weights {
    ($(#[$attribute:meta])* [$($generics:tt)*] $of:ty, $db:expr) => {
        $(#[$attribute])*
        impl $($generics)* WeightInfo for $of {
            fn deposit() -> Weight {
                weigh($db, BASE * 2, 7, 6)
            }
            fn start_withdraw() -> Weight {
                weigh($db, BASE, 6, 4)
            }
            fn cancel_withdraw() -> Weight {
                weigh($db, BASE, 5, 4)
            }
            fn withdraw() -> Weight {
                weigh($db, BASE * 2, 7, 6)
            }
            fn redeem(n: u32) -> Weight {
                let n = u64::from(n);
                // The lane, what holds it, both parties' accounts in two ledgers; the treasury's is shared.
                let item = weigh($db, SIGNATURE + HASH * 4 + BASE, 9, 6);
                weigh($db, BASE, 5, 2).saturating_add(item.saturating_mul(n))
            }
            fn check_redeem(n: u32) -> Weight {
                let item = weigh($db, SIGNATURE + HASH * 4 + BASE, 9, 0);
                let all = weigh($db, BASE, 5, 0).saturating_add(item.saturating_mul(u64::from(n)));
                // The keys are those that the call reads again: they are in its proof.
                all.set_proof_size(0)
            }
            fn register_settler() -> Weight {
                weigh($db, BASE, 5, 4)
            }
            fn submit_batch() -> Weight {
                weigh($db, BASE * 2, 10, 9)
            }
            fn challenge_leaf() -> Weight {
                weigh($db, BASE * 2, 9, 7)
            }
            fn answer_leaf(n: u32) -> Weight {
                let items = (SIGNATURE + HASH * 4).saturating_mul(u64::from(n));
                weigh($db, BASE * 2 + HASH * PATH + items, 12, 9)
            }
            fn expire_challenge() -> Weight {
                weigh($db, BASE * 3, 12, 10)
            }
            fn reclaim_challenge() -> Weight {
                weigh($db, BASE * 2, 8, 6)
            }
            fn prove_bad_sum() -> Weight {
                weigh($db, BASE * 3 + HASH * PATH, 11, 9)
            }
            fn prove_duplicate() -> Weight {
                weigh($db, BASE * 3 + HASH * PATH * 2, 11, 9)
            }
            fn prove_stale() -> Weight {
                weigh($db, BASE * 3 + SIGNATURE * 2 + HASH * (PATH * 3 + 64 * 4), 11, 9)
            }
            fn claim() -> Weight {
                weigh($db, BASE * 2 + HASH * PATH, 14, 10)
            }
            fn check_claim() -> Weight {
                weigh($db, BASE * 2 + HASH * PATH, 14, 0).set_proof_size(0)
            }
            fn redeem_omitted() -> Weight {
                weigh($db, BASE * 2 + SIGNATURE + HASH * (PATH * 2 + 64 * 4), 14, 8)
            }
            fn release_bond() -> Weight {
                weigh($db, BASE * 2, 8, 6)
            }
            fn close_batch() -> Weight {
                let cleared = u64::from(crate::CLEAR_LIMIT) * 4;
                weigh($db, BASE * 3 + cleared, 12 + cleared, 9 + cleared)
            }
            fn grant() -> Weight {
                weigh($db, BASE, 4, 4)
            }
            fn burn() -> Weight {
                weigh($db, BASE, 4, 4)
            }
            fn disburse() -> Weight {
                weigh($db, BASE, 5, 4)
            }
            fn set_parameters() -> Weight {
                weigh($db, BASE, 1, 1)
            }
            fn allow_settler() -> Weight {
                weigh($db, BASE, 7, 4)
            }
        }
    };
}

weights!([<T: frame_system::Config>] SubstrateWeight<T>, T::DbWeight::get());
weights!(
    /// For tests.
    [] (), RocksDbWeight::get()
);
