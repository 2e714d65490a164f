//! The ledger of the public pool: credits, stakes, approved policies, and the votes that steer them.
//!
//! The runtime is parachain-style (Aura, a parachain's system, u32 blocks), so that the same bytes run as a
//! development chain, under a collator, and in a fork of a test. It has two assets. The native token votes and pays
//! ordinary fees. Credits are a second balance without calls of its own: only the pallets that settle work move them.
//!
//! Whoever earns credits needs no token: a redemption and a registration carry their own proofs, and the other calls
//! of the public pool can be paid in credits.

#![cfg_attr(not(feature = "std"), no_std)]
#![recursion_limit = "256"]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")
)]
#![allow(missing_docs, reason = "macros of the framework write most items of this crate")]

extern crate alloc;

mod apis;
mod configs;
pub mod genesis;
mod governance;
pub mod origins;
pub mod parameters;
#[cfg(test)]
mod tests;
pub mod views;

use alloc::{borrow::Cow, vec::Vec};

use frame_support::weights::{Weight, constants::WEIGHT_REF_TIME_PER_SECOND};
use sp_runtime::{
    AccountId32, MultiAddress, MultiSignature, generic,
    traits::{BlakeTwo256, IdentifyAccount, Verify},
};
use sp_version::{RuntimeVersion, runtime_version};

pub use apis::*;
pub use configs::{CreditsInstance, TreasuryAccount};
pub use governance::Tracks;

/// Blocks are counted by this.
pub type BlockNumber = u32;
/// The smallest unit of either asset: 10⁻¹² tokens, or one millionth of a credit.
pub type Balance = u128;
/// Signatures may be ed25519 (what nodes have), sr25519 or ECDSA.
pub type Signature = MultiSignature;
/// An ed25519 account is the public key of a node.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// How many transactions an account has sent.
pub type Nonce = u32;
/// BLAKE2b-256.
pub type Hash = sp_core::H256;
/// How transactions name accounts.
pub type Address = MultiAddress<AccountId, ()>;
/// Block header.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// Block.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// What a transaction carries beside its call, in order. A call that pays in credits skips the fee.
pub type TxExtension = (
    frame_system::AuthorizeCall<Runtime>,
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckMortality<Runtime>,
    frame_system::CheckNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    pallet_skip_feeless_payment::SkipCheckIfFeeless<
        Runtime,
        pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
    >,
    frame_system::WeightReclaim<Runtime>,
);
/// Transaction as it comes from the network.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// What runs blocks.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;

/// Milliseconds between blocks.
pub const MILLIS_PER_BLOCK: u64 = 6_000;
/// Blocks in an hour.
pub const HOURS: BlockNumber = 600;
/// Blocks in a day.
pub const DAYS: BlockNumber = 24 * HOURS;
/// One token of governance.
pub const TOKEN: Balance = 1_000_000_000_000;
/// A thousandth of a token.
pub const MILLITOKEN: Balance = TOKEN / 1_000;
/// One credit, in micro-credits: an hour of the reference machine.
pub const CREDIT: Balance = 1_000_000;
/// What a block may compute: two seconds of the reference machine, and what a relay chain takes as its proof.
pub const MAXIMUM_BLOCK_WEIGHT: Weight = Weight::from_parts(
    WEIGHT_REF_TIME_PER_SECOND.saturating_mul(2),
    cumulus_primitives_core::relay_chain::MAX_POV_SIZE as u64,
);

/// The version that clients pin.
#[runtime_version]
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: Cow::Borrowed("potluck"),
    impl_name: Cow::Borrowed("potluck"),
    authoring_version: 1,
    spec_version: 1,
    impl_version: 0,
    apis: apis::RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

#[frame_support::runtime]
#[allow(clippy::expect_used, reason = "macros of the framework write them")]
mod runtime {
    /// The runtime.
    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    pub struct Runtime;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;
    #[runtime::pallet_index(1)]
    pub type ParachainSystem = cumulus_pallet_parachain_system;
    #[runtime::pallet_index(2)]
    pub type Timestamp = pallet_timestamp;
    #[runtime::pallet_index(3)]
    pub type ParachainInfo = staging_parachain_info;
    #[runtime::pallet_index(4)]
    pub type Aura = pallet_aura;
    #[runtime::pallet_index(5)]
    pub type AuraExt = cumulus_pallet_aura_ext;

    /// How long the windows of governance last.
    #[runtime::pallet_index(9)]
    pub type Parameters = crate::parameters;

    /// The governance token.
    #[runtime::pallet_index(10)]
    pub type Balances = pallet_balances;
    #[runtime::pallet_index(11)]
    pub type TransactionPayment = pallet_transaction_payment;
    #[runtime::pallet_index(12)]
    pub type SkipFeeless = pallet_skip_feeless_payment;
    /// Credits. They have no calls: nobody transfers them.
    #[runtime::pallet_index(13)]
    #[runtime::disable_call]
    pub type CreditBalances = pallet_balances<Instance2>;

    #[runtime::pallet_index(20)]
    pub type Preimage = pallet_preimage;
    #[runtime::pallet_index(21)]
    pub type Scheduler = pallet_scheduler;
    #[runtime::pallet_index(22)]
    pub type Referenda = pallet_referenda;
    #[runtime::pallet_index(23)]
    pub type ConvictionVoting = pallet_conviction_voting;
    #[runtime::pallet_index(24)]
    pub type Treasury = pallet_treasury;
    #[runtime::pallet_index(25)]
    pub type Origins = crate::origins;
    #[runtime::pallet_index(26)]
    pub type Utility = pallet_utility;

    /// What work is paid in: escrow, vouchers, batches.
    #[runtime::pallet_index(30)]
    pub type Credits = pallet_potluck_credits;
    /// Who offers to compute, what they have at stake, and who judges them.
    #[runtime::pallet_index(31)]
    pub type Providers = pallet_potluck_providers;
    /// Which policy component is approved.
    #[runtime::pallet_index(32)]
    pub type Policies = pallet_potluck_policies;
}

sp_runtime::impl_opaque_keys! {
    /// What a block producer signs with.
    pub struct SessionKeys {
        pub aura: Aura,
    }
}

cumulus_pallet_parachain_system::register_validate_block! {
    Runtime = Runtime,
    BlockExecutor = cumulus_pallet_aura_ext::BlockExecutor::<Runtime, Executive>,
}

// The account of a node is its key: 32 bytes.
const _: () = assert!(core::mem::size_of::<AccountId32>() == 32);
