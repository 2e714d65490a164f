//! What calls about batches carry. These are written as the runtime's own types are, byte for byte.

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{Bounded, Leaf, MerkleProof, SignatureBytes, SignedVoucher, SumProof, Voucher};

/// Most vouchers that a leaf of a batch may count.
pub const MAX_LISTED: u32 = 64;

/// A leaf of a batch, and that it is in it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shown {
    /// Which batch.
    pub batch: u32,
    /// The leaf.
    pub leaf: Leaf,
    /// That it is in the batch.
    pub proof: SumProof,
}

/// The vouchers of a challenged leaf.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Disclosure {
    /// Which batch.
    pub batch: u32,
    /// The leaf.
    pub leaf: Leaf,
    /// That it is in the batch.
    pub proof: SumProof,
    /// All that the leaf counts, by rising payer and payee.
    pub vouchers: Bounded<SignedVoucher, MAX_LISTED>,
}

/// What a batch says of the lanes of one account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Evidence {
    /// Its leaf, and all the vouchers that the leaf counts, in their order.
    #[codec(index = 0)]
    Listed {
        /// The leaf.
        leaf: Leaf,
        /// That it is in the batch.
        proof: SumProof,
        /// What its `vouchers_root` is over.
        listed: Bounded<Voucher, MAX_LISTED>,
    },
    /// It has none: the leaves before and after where it would be.
    #[codec(index = 1)]
    Absent {
        /// The last leaf of a smaller account; none where the account would come first.
        before: Option<(Leaf, SumProof)>,
        /// The first leaf of a greater account; none where the account would come last.
        after: Option<(Leaf, SumProof)>,
    },
}

/// How it is known that a settler had a voucher.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Knowledge {
    /// The settler's [`acknowledgement`](potluck_primitives::acknowledgement), signed.
    #[codec(index = 0)]
    Acknowledged(SignatureBytes),
    /// Another leaf of the batch counts it.
    #[codec(index = 1)]
    Counted {
        /// That leaf.
        leaf: Leaf,
        /// That it is in the batch.
        proof: SumProof,
        /// That the voucher is under the leaf's `vouchers_root`.
        membership: MerkleProof,
    },
}

/// That a batch counts less of a lane than a voucher that its settler had.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stale {
    /// Which batch.
    pub batch: u32,
    /// What it says of the payer's or the payee's lanes.
    pub evidence: Evidence,
    /// The voucher.
    pub voucher: SignedVoucher,
    /// That the settler had it.
    pub knowledge: Knowledge,
}

/// A voucher that a final batch left out, or counted for less.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Omission {
    /// Which batch.
    pub batch: u32,
    /// What it says of the payee's lanes.
    pub evidence: Evidence,
    /// The voucher.
    pub voucher: SignedVoucher,
}
