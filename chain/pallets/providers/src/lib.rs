//! Providers of the public pool: who offers to compute, what they have at stake, and who judges them.
//!
//! *Registration* costs work, not money: whoever has neither tokens nor credits can begin to earn. It is signed by
//! the account, so anyone may carry it to the chain, and a newer one replaces it.
//!
//! *Stake* is credits on hold. It leaves after an unbonding period, in which it can be slashed like the rest.
//!
//! *Verifiers* are accounts with a stake. Their set changes at the beginning of an era, and the sets of recent blocks
//! are remembered, so that everyone draws the same verifiers for a job and a block, whatever has happened since.
//!
//! *Verdicts* name a job, the evidence, the slashing policy and a part of the stake. One counts when the policy was
//! in force and enough of the drawn verifiers signed. The provider can appeal within a window; governance rules on
//! appeals. What is not appealed, or upheld, or not ruled on in time, is executed by anyone. A provider is judged once
//! for a job.

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

mod api;
#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
#[cfg(any(feature = "std", feature = "try-runtime"))]
mod check;
#[cfg(any(test, feature = "runtime-benchmarks"))]
mod fixtures;
#[cfg(test)]
mod mock;
mod register;
mod stake;
#[cfg(test)]
mod tests;
mod types;
mod verdicts;
mod verifiers;
mod weights;

pub use api::*;
pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

#[frame_support::pallet]
#[allow(clippy::expect_used, clippy::let_unit_value, reason = "macros of the framework write them")]
#[allow(deprecated, reason = "clients build unsigned transactions in one step, and authorised ones in many")]
pub mod pallet {
    use frame_support::{
        pallet_prelude::*,
        storage::{TransactionOutcome, with_storage_layer, with_transaction},
        traits::fungible::{self, hold},
    };
    use frame_system::pallet_prelude::*;
    use potluck_primitives::{Account, SignedRegistration, SignedVerdict};
    use sp_core::H256;
    use sp_runtime::{AccountId32, traits::UniqueSaturatedInto};

    use crate::{types::*, weights::WeightInfo};

    /// The layout of what is stored.
    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32, Hash = H256> {
        /// The ledger of credits.
        type Credits: fungible::Mutate<Self::AccountId, Balance = u128>
            + hold::Mutate<Self::AccountId, Reason = Self::RuntimeHoldReason>;
        /// The names of all holds.
        type RuntimeHoldReason: From<HoldReason>;
        /// Who changes parameters.
        type GovernanceOrigin: EnsureOrigin<Self::RuntimeOrigin>;
        /// Who rules on appeals.
        type AppealOrigin: EnsureOrigin<Self::RuntimeOrigin>;
        /// Which slashing policies were approved when. A verdict by any other is refused.
        type Policies: SlashingPolicies;
        /// How calls are paid in credits.
        type CallFee: CallFee<Self::AccountId>;
        /// Where slashes and lost bonds go, but for the part of who signed.
        #[pallet::constant]
        type Treasury: Get<Self::AccountId>;
        /// What the calls weigh.
        type WeightInfo: WeightInfo;
    }

    /// Why credits are held.
    #[pallet::composite_enum]
    pub enum HoldReason {
        /// A provider's or a verifier's stake, also while it is on its way out.
        #[codec(index = 0)]
        Stake,
        /// An appeal's.
        #[codec(index = 1)]
        AppealBond,
    }

    /// How long windows last and what things cost.
    #[pallet::storage]
    pub type Settings<T: Config> = StorageValue<_, Parameters, ValueQuery>;

    /// Providers that offer themselves.
    #[pallet::storage]
    pub type Registrations<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, Entry, OptionQuery>;

    /// The last sequence number of accounts that took their registration back, so that nobody brings it again.
    #[pallet::storage]
    pub type LastSequence<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, u64, OptionQuery>;

    /// What accounts have at stake.
    #[pallet::storage]
    pub type Stakes<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, Stake, ValueQuery>;

    /// Who is a verifier from the next era on, by rising account.
    #[pallet::storage]
    pub type Verifiers<T: Config> = StorageValue<_, BoundedVec<Account, ConstU32<MAX_VERIFIERS>>, ValueQuery>;

    /// Whether verifiers or their stakes changed since the last set was made.
    #[pallet::storage]
    pub type Changed<T: Config> = StorageValue<_, bool, ValueQuery>;

    /// The first block of each set that is remembered, rising.
    #[pallet::storage]
    pub type SetStarts<T: Config> = StorageValue<_, BoundedVec<u32, ConstU32<MAX_SETS>>, ValueQuery>;

    /// The sets of verifiers that jobs are drawn from, by their first block.
    #[pallet::storage]
    pub type Sets<T: Config> = StorageMap<_, Twox64Concat, u32, VerifierSet, OptionQuery>;

    /// Verdicts that wait.
    #[pallet::storage]
    pub type Cases<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Blake2_128Concat, Job, Case, OptionQuery>;

    /// How many verdicts wait for an account. Its stake cannot leave while there are any.
    #[pallet::storage]
    pub type OpenCases<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, u32, ValueQuery>;

    /// The jobs that an account was judged for. They stay: nobody is judged twice for one.
    #[pallet::storage]
    pub type Judged<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Blake2_128Concat, Job, (), OptionQuery>;

    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// How long windows last and what things cost.
        pub parameters: Parameters,
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            // A chain without sound parameters must not start.
            assert!(self.parameters.sound(), "the parameters of providers are not sound");
            Settings::<T>::put(&self.parameters);
        }
    }

    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A provider offers itself, or offers something else than before.
        Registered { account: T::AccountId, peer: [u8; 32], sequence: u64 },
        /// A provider no longer offers itself.
        Deregistered { account: T::AccountId },
        /// Free credits became stake.
        Staked { account: T::AccountId, amount: u128, active: u128 },
        /// Stake is on its way out. It can be withdrawn from block `at`, and slashed until it is.
        Unstaked { account: T::AccountId, amount: u128, at: u32 },
        /// Stake became free credits.
        Withdrawn { account: T::AccountId, amount: u128 },
        /// An account is a verifier from the next era on.
        VerifierJoined { account: T::AccountId },
        /// An account is no verifier from the next era on.
        VerifierLeft { account: T::AccountId },
        /// From this block on, jobs draw from another set.
        SetChanged { from: u32, verifiers: u32 },
        /// A verdict waits. It can be appealed until block `until`.
        VerdictSubmitted { provider: T::AccountId, job: Job, evidence: [u8; 32], parts: u32, until: u32 },
        /// A verdict was appealed. Governance may rule until block `until`.
        Appealed { provider: T::AccountId, job: Job, bond: u128, until: u32 },
        /// Governance ruled on an appeal. The bond went to the treasury if the verdict was upheld, and back if not.
        Ruled { provider: T::AccountId, job: Job, upheld: bool },
        /// A verdict was executed: `signers` of what was slashed went to those who signed, the rest to the treasury.
        Slashed { provider: T::AccountId, job: Job, slashed: u128, signers: u128 },
        /// Other parameters hold from now on. Running windows stay as they were.
        ParametersSet { parameters: Parameters },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// A sum or a block that cannot be counted.
        Overflow,
        /// An amount of nothing.
        Zero,
        /// The registration is too old, or of the future.
        Stale,
        /// The account registered with this sequence number or a higher one before.
        OldSequence,
        /// The registration has cost too little work.
        TooLittleWork,
        /// A signature is not of whom it should be of, or for another chain.
        Forged,
        /// The account is not registered.
        NotRegistered,
        /// The registration can still be renewed.
        NotExpired,
        /// More than the account has at stake.
        ExceedsStake,
        /// Too many parts of the stake are on their way out.
        TooManyUnbonding,
        /// Nothing can be withdrawn yet.
        NothingToWithdraw,
        /// Verdicts wait for the account: its stake stays until they are done.
        UnderVerdict,
        /// Less than a verifier must have at stake.
        VerifierStake,
        /// The account is a verifier already.
        AlreadyVerifier,
        /// The account is no verifier.
        NotVerifier,
        /// There are as many verifiers as there can be.
        TooManyVerifiers,
        /// The block that draws the verifiers is too old, or has not been.
        BadBlock,
        /// There were no verifiers at that block.
        NoVerifiers,
        /// The slashing policy was not in force at that block.
        NotApproved,
        /// The provider has nothing at stake.
        NothingAtStake,
        /// The verdict costs nothing, or more than the whole stake.
        BadParts,
        /// The signers are not in order.
        BadOrder,
        /// Someone signed who was not drawn.
        Stranger,
        /// Fewer signed than have to.
        TooFew,
        /// The provider was judged for this job.
        AlreadyJudged,
        /// Too many verdicts wait for the provider.
        TooManyCases,
        /// There is no such verdict.
        UnknownVerdict,
        /// The verdict was appealed, or upheld.
        NotOpen,
        /// The verdict was not appealed.
        NotAppealed,
        /// The time to appeal is over.
        TooLate,
        /// The verdict can still be appealed or ruled on.
        TooEarly,
        /// The parameters contradict each other.
        Unsound,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_: BlockNumberFor<T>) -> Weight {
            if Self::turn() { T::WeightInfo::turn() } else { T::WeightInfo::idle() }
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
        /// Registers a provider, or renews it. Nobody has to sign this: it carries the account's signature, and work.
        ///
        /// # Errors
        /// [`Error::Stale`], [`Error::OldSequence`], [`Error::TooLittleWork`], [`Error::Forged`].
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::register())]
        #[pallet::authorize(|_source: TransactionSource, signed: &SignedRegistration| {
            Pallet::<T>::validate_register(signed).map(|valid| (valid, Weight::zero()))
        })]
        #[pallet::weight_of_authorize(T::WeightInfo::check_register())]
        pub fn register(origin: OriginFor<T>, signed: SignedRegistration) -> DispatchResult {
            use frame_system::RawOrigin::{Authorized, None, Signed};
            match origin.into() {
                Ok(Authorized | None | Signed(_)) => Self::do_register(signed),
                _ => Err(DispatchError::BadOrigin),
            }
        }

        /// Takes the caller's registration back.
        ///
        /// # Errors
        /// [`Error::NotRegistered`].
        #[pallet::call_index(1)]
        #[pallet::weight(thrice(T::WeightInfo::deregister()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_deregister(who))
        })]
        pub fn deregister(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_deregister(&who))
        }

        /// Removes a registration that was not renewed in time.
        ///
        /// # Errors
        /// [`Error::NotRegistered`], [`Error::NotExpired`].
        #[pallet::call_index(2)]
        #[pallet::weight(thrice(T::WeightInfo::deregister()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, account: &T::AccountId| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_expire(account))
        })]
        pub fn expire(origin: OriginFor<T>, account: T::AccountId) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_expire(&account))
        }

        /// Makes free credits stake.
        #[pallet::call_index(3)]
        #[pallet::weight(thrice(T::WeightInfo::stake()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, amount: &u128| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_stake(who, *amount))
        })]
        pub fn stake(origin: OriginFor<T>, amount: u128) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_stake(&who, amount))
        }

        /// Sends stake on its way out. A verifier keeps the least stake of one, or leaves the verifiers first.
        #[pallet::call_index(4)]
        #[pallet::weight(thrice(T::WeightInfo::unstake()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, amount: &u128| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_unstake(who, *amount))
        })]
        pub fn unstake(origin: OriginFor<T>, amount: u128) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_unstake(&who, amount))
        }

        /// Makes stake free whose unbonding period is over.
        #[pallet::call_index(5)]
        #[pallet::weight(thrice(T::WeightInfo::withdraw_unstaked()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_withdraw_unstaked(who))
        })]
        pub fn withdraw_unstaked(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_withdraw_unstaked(&who))
        }

        /// Makes the caller a verifier from the next era on.
        #[pallet::call_index(6)]
        #[pallet::weight(thrice(T::WeightInfo::register_verifier()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_register_verifier(who))
        })]
        pub fn register_verifier(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_register_verifier(&who))
        }

        /// Makes the caller no verifier from the next era on.
        #[pallet::call_index(7)]
        #[pallet::weight(thrice(T::WeightInfo::leave_verifiers()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_leave_verifiers(who))
        })]
        pub fn leave_verifiers(origin: OriginFor<T>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_leave_verifiers(&who))
        }

        /// Submits a verdict. The signatures in it are what counts; who brings it does not.
        #[pallet::call_index(8)]
        #[pallet::weight(thrice(T::WeightInfo::submit_verdict(signed.signatures.len() as u32)))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, signed: &SignedVerdict| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_submit_verdict(signed))
        })]
        pub fn submit_verdict(origin: OriginFor<T>, signed: SignedVerdict) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_submit_verdict(&signed))
        }

        /// Appeals a verdict about the caller, with a bond.
        #[pallet::call_index(9)]
        #[pallet::weight(thrice(T::WeightInfo::appeal()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, job: &Job| -> bool {
            Pallet::<T>::feeless(origin, |who| Pallet::<T>::do_appeal(who, *job))
        })]
        pub fn appeal(origin: OriginFor<T>, job: Job) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_appeal(&who, job))
        }

        /// Rules on an appeal: the verdict is upheld, or does not count. Governance only.
        #[pallet::call_index(10)]
        #[pallet::weight(T::WeightInfo::rule())]
        pub fn rule(origin: OriginFor<T>, provider: T::AccountId, job: Job, upheld: bool) -> DispatchResult {
            T::AppealOrigin::ensure_origin(origin)?;
            Self::do_rule(&provider, job, upheld)
        }

        /// Executes a verdict that stands.
        #[pallet::call_index(11)]
        #[pallet::weight(thrice(T::WeightInfo::execute()))]
        #[pallet::feeless_if(|origin: &OriginFor<T>, provider: &T::AccountId, job: &Job| -> bool {
            Pallet::<T>::feeless(origin, |_| Pallet::<T>::do_execute(provider, *job))
        })]
        pub fn execute(origin: OriginFor<T>, provider: T::AccountId, job: Job) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::in_credits(&who, || Self::do_execute(&provider, job))
        }

        /// Replaces all parameters. Windows that run stay as they were. Governance only.
        ///
        /// # Errors
        /// [`Error::Unsound`].
        #[pallet::call_index(12)]
        #[pallet::weight(T::WeightInfo::set_parameters())]
        pub fn set_parameters(origin: OriginFor<T>, parameters: Parameters) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            ensure!(parameters.sound(), Error::<T>::Unsound);
            Settings::<T>::put(&parameters);
            Self::deposit_event(Event::ParametersSet { parameters });
            Ok(())
        }
    }

    /// The same terms for transactions without extensions, which more clients can build.
    #[pallet::validate_unsigned]
    impl<T: Config> ValidateUnsigned for Pallet<T> {
        type Call = Call<T>;

        fn validate_unsigned(_source: TransactionSource, call: &Self::Call) -> TransactionValidity {
            match call {
                Call::register { signed } => Self::validate_register(signed),
                _ => Err(InvalidTransaction::Call.into()),
            }
        }
    }

    impl<T: Config> Pallet<T> {
        /// Whether `call` of this origin succeeds and its fee can be taken in credits. A call that fails is never
        /// free: its fee would be rolled back with it.
        fn feeless(origin: &OriginFor<T>, call: impl FnOnce(&AccountId32) -> DispatchResult) -> bool {
            let Ok(who) = ensure_signed(origin.clone()) else { return false };
            let rehearsal = || T::CallFee::take(&who).and_then(|()| call(&who));
            with_transaction(|| TransactionOutcome::Rollback(rehearsal())).is_ok()
        }

        /// Runs `call` and takes its fee in credits, where that goes; else as one that was paid for in tokens.
        fn in_credits(who: &AccountId32, call: impl Fn() -> DispatchResult) -> DispatchResult {
            with_storage_layer(|| T::CallFee::take(who).and_then(|()| call())).or_else(|_| call())
        }

        /// The number of this block.
        pub(crate) fn now() -> u32 {
            frame_system::Pallet::<T>::block_number().unique_saturated_into()
        }
    }
}
