//! What calls cost. Upper bounds by hand: the reads and writes of each call, and a generous time for the rest. They
//! were not measured on a reference machine.

use frame_support::weights::{Weight, constants::RocksDbWeight};

/// What each call costs.
pub trait WeightInfo {
    /// [`approve`](crate::Pallet::approve).
    fn approve() -> Weight;
    /// [`revoke`](crate::Pallet::revoke).
    fn revoke() -> Weight;
}

/// A full history is a read and a write of 5 KiB.
const HISTORY_PROOF: u64 = 8 * 1024;

impl WeightInfo for () {
    fn approve() -> Weight {
        Weight::from_parts(60_000_000, HISTORY_PROOF).saturating_add(RocksDbWeight::get().reads_writes(4, 3))
    }

    fn revoke() -> Weight {
        Weight::from_parts(60_000_000, HISTORY_PROOF).saturating_add(RocksDbWeight::get().reads_writes(4, 3))
    }
}
