//! Credits: what work in the public pool is paid in.
//!
//! Nobody transfers credits. A payer locks them in an escrow, signs vouchers off the chain, and whoever holds a
//! voucher has it paid from there: one by one ([`Call::redeem`]), or as the net of an epoch that a bonded settler
//! submits and anyone can dispute ([`Call::submit_batch`]). Credits come into being by grants of governance, and
//! cease by burning; nothing else changes how many there are.
//!
//! Which of the two ways a lane goes is written in its vouchers. A lane of the public pool (a pool of zeros) is only
//! redeemed one by one. A lane whose pool is a settler's account is numbered by an epoch, and is that settler's to
//! net; it is redeemed one by one only when the settler submitted nothing in time, when the batch was shown to be
//! wrong, or for what the batch provably left out. So no voucher is ever paid twice.
//!
//! The README of this crate says all rules in plain words.

#![cfg_attr(not(feature = "std"), no_std)]
#![allow(missing_docs, reason = "macros of the framework write many items of this crate")]
#![cfg_attr(
    any(test, feature = "runtime-benchmarks"),
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "only tests and benchmarks"
    )
)]

extern crate alloc;

mod batch;
#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
#[cfg(any(feature = "std", feature = "try-runtime"))]
mod check;
mod claim;
mod dispute;
mod errors;
mod escrow;
mod events;
#[cfg(any(test, feature = "runtime-benchmarks"))]
mod fixtures;
#[cfg(test)]
mod mock;
mod redeem;
mod storage;
#[cfg(test)]
mod tests;
mod types;
pub mod weights;

use frame_support::pallet_macros::import_section;

pub use pallet::*;
pub use potluck_primitives::acknowledgement;
pub use types::*;
pub use weights::WeightInfo;

#[allow(
    deprecated,
    clippy::expect_used,
    clippy::let_unit_value,
    reason = "macros of the framework write so; `ValidateUnsigned` serves clients without general transactions"
)]
#[import_section(storage::storage)]
#[import_section(events::events)]
#[import_section(errors::errors)]
#[frame_support::pallet]
pub mod pallet {
    use alloc::vec::Vec;

    use frame_support::{
        PalletId,
        pallet_prelude::*,
        traits::{
            StorageVersion,
            fungible::{self, hold},
        },
    };
    use frame_system::pallet_prelude::*;
    use potluck_primitives::{BadSum, Duplicate, Leaf, SignedVoucher, SumNode, SumProof};
    use sp_core::H256;
    use sp_runtime::AccountId32;

    use crate::{types::*, weights::WeightInfo};

    /// The layout of what is stored.
    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    /// Vouchers of one redemption.
    pub type Vouchers = BoundedVec<SignedVoucher, ConstU32<MAX_REDEEM>>;
    /// Vouchers of one leaf.
    pub type Listed = BoundedVec<SignedVoucher, ConstU32<MAX_LISTED>>;

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32, Hash = H256> {
        /// The ledger of credits. Its least balance must be one micro-credit, or dust would be lost.
        type Credits: fungible::Mutate<Self::AccountId, Balance = u128>
            + hold::Mutate<Self::AccountId, Reason = Self::RuntimeHoldReason>;
        /// The names of all holds.
        type RuntimeHoldReason: From<HoldReason>;
        /// Who grants, burns, and changes parameters.
        type GovernanceOrigin: EnsureOrigin<Self::RuntimeOrigin>;
        /// Where call fees and the protocol's share go.
        #[pallet::constant]
        type Treasury: Get<Self::AccountId>;
        /// Names the account that holds the pots of batches.
        #[pallet::constant]
        type PalletId: Get<PalletId>;
        /// What the calls weigh.
        type WeightInfo: WeightInfo;
    }

    /// Why credits are held.
    #[pallet::composite_enum]
    pub enum HoldReason {
        /// To be paid to whoever holds vouchers.
        #[codec(index = 0)]
        Escrow,
        /// A settler's, for a batch.
        #[codec(index = 1)]
        SettlerBond,
        /// A challenger's, for a leaf.
        #[codec(index = 2)]
        ChallengerBond,
    }

    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// How long windows last and what things cost.
        pub parameters: Parameters,
        /// Who begins with credits, in micro-credits.
        pub grants: Vec<(T::AccountId, u128)>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            // A chain without sound parameters must not start.
            assert!(self.parameters.sound(), "the parameters of credits are not sound");
            Settings::<T>::put(&self.parameters);
            for (account, amount) in &self.grants {
                let minted = <T::Credits as fungible::Mutate<_>>::mint_into(account, *amount);
                assert!(minted.is_ok(), "more credits are granted than can be counted");
            }
            Granted::<T>::put(<T::Credits as fungible::Inspect<_>>::total_issuance());
        }
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn integrity_test() {
            // Dust would vanish, and sums would not be constant.
            assert!(<T::Credits as fungible::Inspect<T::AccountId>>::minimum_balance() <= 1);
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    /// A call that can be paid in credits runs once to see whether it can, once for good, and, where it cannot, once
    /// more for a fee in tokens.
    fn thrice(weight: Weight) -> Weight {
        weight.saturating_mul(3)
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Makes free credits escrow, from which the caller's vouchers are paid.
        #[pallet::call_index(0)]
        #[pallet::weight(thrice(T::WeightInfo::deposit()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, amount: &u128| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_deposit(who, *amount))
        })]
        pub fn deposit(origin: OriginFor<T>, amount: u128) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_deposit(&who, amount))
        }

        /// Asks for escrow back. It can be withdrawn after the thaw delay; until it is, vouchers are paid from it.
        #[pallet::call_index(1)]
        #[pallet::weight(thrice(T::WeightInfo::start_withdraw()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, amount: &u128| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_start_withdraw(who, *amount))
        })]
        pub fn start_withdraw(origin: OriginFor<T>, amount: u128) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_start_withdraw(&who, amount))
        }

        /// Leaves in escrow what was asked back.
        #[pallet::call_index(2)]
        #[pallet::weight(thrice(T::WeightInfo::cancel_withdraw()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_cancel_withdraw(who))
        })]
        pub fn cancel_withdraw(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_cancel_withdraw(&who))
        }

        /// Takes out what was asked back, as far as vouchers have left it.
        #[pallet::call_index(3)]
        #[pallet::weight(thrice(T::WeightInfo::withdraw()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_withdraw(who))
        })]
        pub fn withdraw(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_withdraw(&who))
        }

        /// Pays vouchers, each for itself: one that is refused is an event and spoils no other.
        ///
        /// Nobody has to sign this. Without a signature it is free where all that it pays comes to at least
        /// [`Parameters::min_redeem`] for each voucher, and not accepted otherwise.
        #[pallet::call_index(4)]
        #[pallet::weight(T::WeightInfo::redeem(vouchers.len() as u32))]
        #[pallet::authorize(|_source: TransactionSource, vouchers: &Vouchers| {
            Pallet::<T>::validate_redeem(vouchers).map(|valid| (valid, Weight::zero()))
        })]
        #[pallet::weight_of_authorize(T::WeightInfo::check_redeem(vouchers.len() as u32))]
        pub fn redeem(origin: OriginFor<T>, vouchers: Vouchers) -> DispatchResult {
            Self::ensure_open(origin)?;
            Self::do_redeem(&vouchers);
            Ok(())
        }

        /// Makes the caller a settler: vouchers that name it as their pool are then netted by it.
        #[pallet::call_index(5)]
        #[pallet::weight(thrice(T::WeightInfo::register_settler()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_register_settler(who))
        })]
        pub fn register_settler(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_register_settler(&who))
        }

        /// Submits what the last epoch's vouchers of the caller net to, under a bond.
        #[pallet::call_index(6)]
        #[pallet::weight(thrice(T::WeightInfo::submit_batch()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, epoch: &Epoch, root: &SumNode, leaf_count: &u32, gross: &u128| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_submit_batch(who, *epoch, *root, *leaf_count, *gross))
        })]
        pub fn submit_batch(
            origin: OriginFor<T>,
            epoch: Epoch,
            root: SumNode,
            leaf_count: u32,
            gross: u128,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_submit_batch(&who, epoch, root, leaf_count, gross))
        }

        /// Asks the settler to show the vouchers of a leaf, under a bond that an answer takes.
        #[pallet::call_index(7)]
        #[pallet::weight(thrice(T::WeightInfo::challenge_leaf()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, index: &u32| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_challenge_leaf(who, *batch, *index))
        })]
        pub fn challenge_leaf(origin: OriginFor<T>, batch: BatchId, index: u32) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_challenge_leaf(&who, batch, index))
        }

        /// Shows the vouchers of a challenged leaf, in rising order of payer and payee. Anyone may.
        #[pallet::call_index(8)]
        #[pallet::weight(thrice(T::WeightInfo::answer_leaf(vouchers.len() as u32)))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, leaf: &Leaf, proof: &SumProof, vouchers: &Listed| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_answer_leaf(*batch, leaf, proof, vouchers))
        })]
        pub fn answer_leaf(
            origin: OriginFor<T>,
            batch: BatchId,
            leaf: Leaf,
            proof: SumProof,
            vouchers: Listed,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_answer_leaf(batch, &leaf, &proof, &vouchers))
        }

        /// Voids a batch whose settler did not answer a challenge in time. Anyone may; the challenger wins.
        #[pallet::call_index(9)]
        #[pallet::weight(thrice(T::WeightInfo::expire_challenge()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, index: &u32| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_expire_challenge(*batch, *index))
        })]
        pub fn expire_challenge(origin: OriginFor<T>, batch: BatchId, index: u32) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_expire_challenge(batch, index))
        }

        /// Gives back the bond of a challenge that another proof made needless.
        #[pallet::call_index(10)]
        #[pallet::weight(thrice(T::WeightInfo::reclaim_challenge()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, index: &u32| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_reclaim_challenge(*batch, *index))
        })]
        pub fn reclaim_challenge(origin: OriginFor<T>, batch: BatchId, index: u32) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_reclaim_challenge(batch, index))
        }

        /// Voids a batch by a node whose stated sum is not that of what is beneath it.
        #[pallet::call_index(11)]
        #[pallet::weight(thrice(T::WeightInfo::prove_bad_sum()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, fault: &BadSum| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_prove_bad_sum(who, *batch, fault))
        })]
        pub fn prove_bad_sum(origin: OriginFor<T>, batch: BatchId, fault: BadSum) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_prove_bad_sum(&who, batch, &fault))
        }

        /// Voids a batch by two leaves of one account, or two out of order.
        #[pallet::call_index(12)]
        #[pallet::weight(thrice(T::WeightInfo::prove_duplicate()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, fault: &Duplicate| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_prove_duplicate(who, *batch, fault))
        })]
        pub fn prove_duplicate(origin: OriginFor<T>, batch: BatchId, fault: Duplicate) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_prove_duplicate(&who, batch, &fault))
        }

        /// Voids a batch that counts less of a lane than a voucher that its settler had.
        #[pallet::call_index(13)]
        #[pallet::weight(thrice(T::WeightInfo::prove_stale()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId, evidence: &Evidence, voucher: &SignedVoucher, knowledge: &Knowledge| -> bool {
            Pallet::<T>::feeless(origin, |who| {
                Pallet::<T>::do_prove_stale(who, *batch, evidence, voucher, knowledge)
            })
        })]
        pub fn prove_stale(
            origin: OriginFor<T>,
            batch: BatchId,
            evidence: Evidence,
            voucher: SignedVoucher,
            knowledge: Knowledge,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_prove_stale(&who, batch, &evidence, &voucher, &knowledge))
        }

        /// Settles a leaf of a final batch, as far as can be: a debit as far as the payer's escrow goes, a credit as
        /// far as the pot goes. Can be repeated until all is settled.
        ///
        /// Nobody has to sign this, under the terms of [`Call::redeem`].
        #[pallet::call_index(14)]
        #[pallet::weight(T::WeightInfo::claim())]
        #[pallet::authorize(|_source: TransactionSource, batch: &BatchId, leaf: &Leaf, proof: &SumProof| {
            Pallet::<T>::validate_claim(*batch, leaf, proof).map(|valid| (valid, Weight::zero()))
        })]
        #[pallet::weight_of_authorize(T::WeightInfo::check_claim())]
        pub fn claim(origin: OriginFor<T>, batch: BatchId, leaf: Leaf, proof: SumProof) -> DispatchResult {
            Self::ensure_open(origin)?;
            Self::do_claim(batch, &leaf, &proof).map(|_| ())
        }

        /// Pays a voucher that a final batch provably left out, or counted for less.
        ///
        /// Nobody has to sign this, under the terms of [`Call::redeem`].
        #[pallet::call_index(15)]
        #[pallet::weight(T::WeightInfo::redeem_omitted())]
        #[pallet::authorize(|_source: TransactionSource, batch: &BatchId, evidence: &Evidence, voucher: &SignedVoucher| {
            Pallet::<T>::validate_redeem_omitted(*batch, evidence, voucher).map(|valid| (valid, Weight::zero()))
        })]
        #[pallet::weight_of_authorize(T::WeightInfo::redeem_omitted())]
        pub fn redeem_omitted(
            origin: OriginFor<T>,
            batch: BatchId,
            evidence: Evidence,
            voucher: SignedVoucher,
        ) -> DispatchResult {
            Self::ensure_open(origin)?;
            Self::do_redeem_omitted(batch, &evidence, &voucher).map(|_| ())
        }

        /// Gives a settler the bond of a final batch back.
        #[pallet::call_index(16)]
        #[pallet::weight(thrice(T::WeightInfo::release_bond()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_release_bond(*batch))
        })]
        pub fn release_bond(origin: OriginFor<T>, batch: BatchId) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_release_bond(batch))
        }

        /// Ends a final batch, once all is settled or the time to claim is over. Takes at most [`CLEAR_LIMIT`] entries
        /// of each kind out of storage: repeat it for a large batch.
        #[pallet::call_index(17)]
        #[pallet::weight(thrice(T::WeightInfo::close_batch()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, batch: &BatchId| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_close_batch(*batch))
        })]
        pub fn close_batch(origin: OriginFor<T>, batch: BatchId) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_close_batch(batch))
        }

        /// Brings credits into being. Governance only; nothing else does.
        #[pallet::call_index(18)]
        #[pallet::weight(T::WeightInfo::grant())]
        pub fn grant(origin: OriginFor<T>, account: T::AccountId, amount: u128) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            Self::do_grant(&account, amount)
        }

        /// Burns credits of the treasury. Governance only.
        #[pallet::call_index(19)]
        #[pallet::weight(T::WeightInfo::burn())]
        pub fn burn(origin: OriginFor<T>, amount: u128) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            Self::do_burn(amount)
        }

        /// Gives credits of the treasury away. Governance only.
        #[pallet::call_index(20)]
        #[pallet::weight(T::WeightInfo::disburse())]
        pub fn disburse(origin: OriginFor<T>, account: T::AccountId, amount: u128) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            Self::do_disburse(&account, amount)
        }

        /// Replaces the parameters, but for the length of an epoch. Governance only.
        #[pallet::call_index(21)]
        #[pallet::weight(T::WeightInfo::set_parameters())]
        pub fn set_parameters(origin: OriginFor<T>, parameters: Parameters) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            ensure!(parameters.sound(), Error::<T>::Unsound);
            ensure!(
                parameters.epoch_length == Settings::<T>::get().epoch_length,
                Error::<T>::EpochLengthFixed
            );
            Settings::<T>::put(&parameters);
            Self::deposit_event(Event::ParametersSet { parameters });
            Ok(())
        }

        /// Lets each batch of a settler take so much of the caller's escrow, in micro-credits; nothing by default.
        ///
        /// More holds at once. Less holds from the next epoch on, as vouchers of this one were accepted for more, and
        /// can be lowered again only after the thaw delay.
        #[pallet::call_index(22)]
        #[pallet::weight(thrice(T::WeightInfo::allow_settler()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, settler: &T::AccountId, limit: &u128| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_allow_settler(who, settler, *limit))
        })]
        pub fn allow_settler(origin: OriginFor<T>, settler: T::AccountId, limit: u128) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_allow_settler(&who, &settler, limit))
        }
    }

    /// The same terms for transactions without extensions, which more clients can build.
    #[pallet::validate_unsigned]
    impl<T: Config> ValidateUnsigned for Pallet<T> {
        type Call = Call<T>;

        fn validate_unsigned(_source: TransactionSource, call: &Self::Call) -> TransactionValidity {
            match call {
                Call::redeem { vouchers } => Self::validate_redeem(vouchers),
                Call::claim { batch, leaf, proof } => Self::validate_claim(*batch, leaf, proof),
                Call::redeem_omitted { batch, evidence, voucher } => {
                    Self::validate_redeem_omitted(*batch, evidence, voucher)
                }
                _ => Err(InvalidTransaction::Call.into()),
            }
        }
    }

    #[pallet::view_functions]
    impl<T: Config> Pallet<T> {
        /// What a payer has in escrow, and what of it may be gone soon.
        pub fn escrow(payer: T::AccountId) -> Escrow {
            Self::escrow_of(&payer)
        }

        /// What a payer lets a settler's batch of an epoch take.
        pub fn allowance(payer: T::AccountId, settler: T::AccountId, epoch: Epoch) -> u128 {
            Allowances::<T>::get(payer, settler).of(epoch)
        }

        /// What a lane has come to.
        pub fn lane(key: LaneKey) -> Lane {
            Lanes::<T>::get(key)
        }

        /// What a settler must sign to promise that it counts the voucher with this digest.
        pub fn acknowledgement_of(digest: SignatureDigest) -> SignatureDigest {
            crate::acknowledgement(&digest, &Self::genesis())
        }
    }

    /// 32 bytes to be signed.
    pub type SignatureDigest = [u8; 32];
}
