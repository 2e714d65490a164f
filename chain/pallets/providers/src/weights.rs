//! What calls weigh. Upper bounds by hand: the reads and writes of each call with the largest values there can be,
//! 60 µs for each signature, and a generous time for the rest. They were not measured on a reference machine.

use frame_support::weights::{Weight, constants::RocksDbWeight};

/// What each call weighs.
pub trait WeightInfo {
    /// Whether a [`register`](crate::Pallet::register) is let into the pool of transactions.
    fn check_register() -> Weight;
    /// [`register`](crate::Pallet::register).
    fn register() -> Weight;
    /// [`deregister`](crate::Pallet::deregister) and [`expire`](crate::Pallet::expire).
    fn deregister() -> Weight;
    /// [`stake`](crate::Pallet::stake).
    fn stake() -> Weight;
    /// [`unstake`](crate::Pallet::unstake).
    fn unstake() -> Weight;
    /// [`withdraw_unstaked`](crate::Pallet::withdraw_unstaked).
    fn withdraw_unstaked() -> Weight;
    /// [`register_verifier`](crate::Pallet::register_verifier).
    fn register_verifier() -> Weight;
    /// [`leave_verifiers`](crate::Pallet::leave_verifiers).
    fn leave_verifiers() -> Weight;
    /// [`submit_verdict`](crate::Pallet::submit_verdict) with so many signatures.
    fn submit_verdict(signatures: u32) -> Weight;
    /// [`appeal`](crate::Pallet::appeal).
    fn appeal() -> Weight;
    /// [`rule`](crate::Pallet::rule).
    fn rule() -> Weight;
    /// [`execute`](crate::Pallet::execute) of a verdict that as many signed as can.
    fn execute() -> Weight;
    /// [`set_parameters`](crate::Pallet::set_parameters).
    fn set_parameters() -> Weight;
    /// A block in which an era begins with another set, of as many verifiers as there can be.
    fn turn() -> Weight;
    /// Any other block.
    fn idle() -> Weight;
}

/// Picoseconds for a signature and its hash.
const SIGNATURE: u64 = 60_000_000;
/// Bytes of proof for a set of verifiers, or their list.
const SET: u64 = 16 * 1024;
/// Bytes of proof for an account: its stake, its registration, its credits.
const ACCOUNT: u64 = 8 * 1024;

fn bound(time: u64, proof: u64, reads: u64, writes: u64) -> Weight {
    Weight::from_parts(time, proof).saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
    fn check_register() -> Weight {
        bound(SIGNATURE + 30_000_000, ACCOUNT, 5, 0)
    }

    fn register() -> Weight {
        bound(SIGNATURE + 60_000_000, ACCOUNT, 5, 2)
    }

    fn deregister() -> Weight {
        bound(60_000_000, ACCOUNT, 5, 5)
    }

    fn stake() -> Weight {
        bound(120_000_000, ACCOUNT + SET, 8, 6)
    }

    fn unstake() -> Weight {
        bound(120_000_000, ACCOUNT + SET, 8, 6)
    }

    fn withdraw_unstaked() -> Weight {
        bound(120_000_000, ACCOUNT, 7, 5)
    }

    fn register_verifier() -> Weight {
        bound(100_000_000, ACCOUNT + SET, 7, 5)
    }

    fn leave_verifiers() -> Weight {
        bound(100_000_000, ACCOUNT + SET, 6, 5)
    }

    fn submit_verdict(signatures: u32) -> Weight {
        // A draw goes through the whole set once for each verifier that is drawn.
        bound(400_000_000, ACCOUNT + 3 * SET, 16, 6)
            .saturating_add(Weight::from_parts(SIGNATURE.saturating_mul(signatures.into()), 0))
    }

    fn appeal() -> Weight {
        bound(120_000_000, ACCOUNT, 7, 5)
    }

    fn rule() -> Weight {
        bound(150_000_000, 2 * ACCOUNT, 9, 8)
    }

    fn execute() -> Weight {
        // As many as can sign have to be paid.
        bound(32 * 80_000_000, 34 * ACCOUNT + SET, 10 + 2 * 34, 10 + 2 * 34)
    }

    fn set_parameters() -> Weight {
        bound(30_000_000, 1024, 0, 1)
    }

    fn turn() -> Weight {
        bound(2_000_000_000, 256 * 1024 + 3 * SET, 5 + 256, 70)
    }

    fn idle() -> Weight {
        bound(5_000_000, 1024, 2, 0)
    }
}
