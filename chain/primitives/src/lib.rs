//! What the nodes and the chain share: formats that need neither a system nor the rest of this program.
//!
//! Nothing here uses more than `core`, `alloc`, SCALE, BLAKE2b and ed25519. Integers carry their unit in their type;
//! time is an argument. A trusted pool writes the same receipts as a public one and settles them nowhere.
//!
//! What is settled on a chain: a payer signs a [`Voucher`] for what a lane is worth so far; a settler nets many of
//! them into a [`SumTree`]. A machine offers itself by a [`Registration`], and a [`Verdict`] takes of its stake. Each
//! of these signs a digest that names the format and the chain, so that no signature is good for anything else.

#![no_std]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")
)]

extern crate alloc;

mod bounded;
mod crypto;
mod merkle;
mod receipt;
mod registration;
mod sample;
mod shape;
mod sum;
#[cfg(test)]
mod tests;
mod units;
mod verdict;
mod voucher;

pub use bounded::{Bounded, TooMany};
pub use crypto::{blake2_256, signed_by};
pub use merkle::{MerkleProof, merkle_root, receipts_root, vouchers_root};
pub use receipt::{
    Class, MAX_CLASS, MAX_JOB, MAX_RECEIPT, Micros, Party, Receipt, ReceiptError, Signed, Tokens, UnixMillis,
};
pub use registration::{MAX_MODELS, Registration, SignedRegistration, find_work, work_bits};
pub use sample::{sample, sample_seed};
pub use sum::{BadSum, Beneath, Duplicate, Leaf, SumNode, SumProof, SumTree, TreeError};
pub use units::{
    Account, Block, Genesis, Hash, MILLION, MicroCredits, PUBLIC_POOL, ParseCredits, PolicyHash, PolicyKind,
    Pool, PoolClass, SignatureBytes,
};
pub use verdict::{MAX_SIGNERS, SignedVerdict, Verdict, VerdictError};
pub use voucher::{Forged, SignedVoucher, Voucher, acknowledgement, verify_batch};

pub use ed25519_dalek::SigningKey;
