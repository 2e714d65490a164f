//! Escrow, fees in credits, and how many credits there are.

use frame_support::{
    ensure,
    pallet_prelude::DispatchResult,
    storage::{TransactionOutcome, with_storage_layer, with_transaction},
    traits::{
        Get,
        fungible::{Inspect, InspectHold, Mutate, MutateHold},
        tokens::{Fortitude, Precision, Preservation, Restriction},
    },
};
use frame_system::{ensure_signed, pallet_prelude::OriginFor};
use potluck_primitives::Genesis;
use sp_runtime::{
    AccountId32, DispatchError,
    traits::{AccountIdConversion, BadOrigin, UniqueSaturatedInto},
};

use crate::{Burnt, Config, Error, Escrow, Event, Granted, HoldReason, Pallet, Settings, Thaw, Thaws};

impl<T: Config> Pallet<T> {
    /// The current block.
    pub fn now() -> u32 {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }

    /// The hash of the first block: what vouchers are signed for.
    pub fn genesis() -> Genesis {
        Genesis(
            frame_system::Pallet::<T>::block_hash(
                frame_system::pallet_prelude::BlockNumberFor::<T>::default(),
            )
            .0,
        )
    }

    /// The account that holds the pots of all batches.
    pub fn pot_account() -> AccountId32 {
        T::PalletId::get().into_account_truncating()
    }

    /// What a call costs that is paid in credits, in micro-credits.
    pub fn call_fee() -> u128 {
        Settings::<T>::get().call_fee
    }

    /// What `payer` has in escrow.
    pub fn escrow_of(payer: &AccountId32) -> Escrow {
        let thaw = Thaws::<T>::get(payer);
        Escrow {
            held: Self::held(HoldReason::Escrow, payer),
            thawing: thaw.as_ref().map_or(0, |thaw| thaw.amount),
            thawed_at: thaw.map(|thaw| thaw.at),
        }
    }

    /// Takes the fee of a call in credits.
    ///
    /// # Errors
    /// Those of the ledger: `who` has too few free credits. One micro-credit always stays.
    pub fn take_call_fee(who: &AccountId32) -> DispatchResult {
        let treasury = T::Treasury::get();
        T::Credits::transfer(who, &treasury, Self::call_fee(), Preservation::Preserve).map(|_| ())
    }

    /// Whether `call` of this origin succeeds and its fee can be taken in credits. Then it needs no other fee, and
    /// [`Self::in_credits`] takes that one. A call that fails is never free: its fee would be rolled back with it.
    pub fn feeless(origin: &OriginFor<T>, call: impl FnOnce(&AccountId32) -> DispatchResult) -> bool {
        let Ok(who) = ensure_signed(origin.clone()) else { return false };
        Self::rehearse(|| Self::take_call_fee(&who).and_then(|()| call(&who))).is_ok()
    }

    /// Runs `call`, and takes its fee in credits where [`Self::feeless`] holds.
    ///
    /// # Errors
    /// Those of `call`.
    pub fn in_credits(who: &AccountId32, call: impl Fn() -> DispatchResult) -> DispatchResult {
        with_storage_layer(|| Self::take_call_fee(who).and_then(|()| call())).or_else(|_| call())
    }

    /// What `run` would give, without any trace of it.
    pub(crate) fn rehearse<R>(run: impl FnOnce() -> Result<R, DispatchError>) -> Result<R, DispatchError> {
        with_transaction(|| TransactionOutcome::Rollback(run()))
    }

    /// Tells that another pallet burnt credits.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn note_burnt(amount: u128) -> DispatchResult {
        Burnt::<T>::try_mutate(|burnt| {
            *burnt = burnt.checked_add(amount).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })
    }

    /// A call that carries its own proofs: signed by anyone, or let in by [`Self::validate_redeem`] and its like.
    pub(crate) fn ensure_open(origin: OriginFor<T>) -> Result<(), BadOrigin> {
        use frame_system::RawOrigin::{Authorized, None, Signed};
        match origin.into() {
            Ok(Authorized | None | Signed(_)) => Ok(()),
            _ => Err(BadOrigin),
        }
    }

    pub(crate) fn held(reason: HoldReason, who: &AccountId32) -> u128 {
        T::Credits::balance_on_hold(&reason.into(), who)
    }

    pub(crate) fn hold(reason: HoldReason, who: &AccountId32, amount: u128) -> DispatchResult {
        T::Credits::hold(&reason.into(), who, amount)
    }

    pub(crate) fn release(reason: HoldReason, who: &AccountId32, amount: u128) -> DispatchResult {
        T::Credits::release(&reason.into(), who, amount, Precision::Exact).map(|_| ())
    }

    /// Moves what is held of one account to the free credits of another.
    pub(crate) fn pay_held(
        reason: HoldReason,
        from: &AccountId32,
        to: &AccountId32,
        amount: u128,
    ) -> DispatchResult {
        if amount == 0 {
            return Ok(());
        }
        let (exact, free, force) = (Precision::Exact, Restriction::Free, Fortitude::Force);
        T::Credits::transfer_on_hold(&reason.into(), from, to, amount, exact, free, force).map(|_| ())
    }

    /// Moves free credits of the pot account.
    pub(crate) fn pay_from_pot(to: &AccountId32, amount: u128) -> DispatchResult {
        if amount == 0 {
            return Ok(());
        }
        T::Credits::transfer(&Self::pot_account(), to, amount, Preservation::Expendable).map(|_| ())
    }

    pub(crate) fn burn_held(reason: HoldReason, who: &AccountId32, amount: u128) -> DispatchResult {
        T::Credits::burn_held(&reason.into(), who, amount, Precision::Exact, Fortitude::Force)?;
        Self::note_burnt(amount)
    }

    pub(crate) fn do_deposit(who: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        Self::hold(HoldReason::Escrow, who, amount)?;
        let escrow = Self::held(HoldReason::Escrow, who);
        Self::deposit_event(Event::Deposited { payer: who.clone(), amount, escrow });
        Ok(())
    }

    pub(crate) fn do_start_withdraw(who: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        ensure!(!Thaws::<T>::contains_key(who), Error::<T>::AlreadyThawing);
        ensure!(amount <= Self::held(HoldReason::Escrow, who), Error::<T>::ExceedsEscrow);
        let at = Self::now().checked_add(Settings::<T>::get().thaw_delay).ok_or(Error::<T>::Overflow)?;
        Thaws::<T>::insert(who, Thaw { amount, at });
        Self::deposit_event(Event::WithdrawStarted { payer: who.clone(), amount, at });
        Ok(())
    }

    pub(crate) fn do_cancel_withdraw(who: &AccountId32) -> DispatchResult {
        ensure!(Thaws::<T>::take(who).is_some(), Error::<T>::NotThawing);
        Self::deposit_event(Event::WithdrawCancelled { payer: who.clone() });
        Ok(())
    }

    pub(crate) fn do_withdraw(who: &AccountId32) -> DispatchResult {
        let thaw = Thaws::<T>::take(who).ok_or(Error::<T>::NotThawing)?;
        ensure!(Self::now() >= thaw.at, Error::<T>::StillThawing);
        let amount = thaw.amount.min(Self::held(HoldReason::Escrow, who));
        if amount > 0 {
            Self::release(HoldReason::Escrow, who, amount)?;
        }
        Self::deposit_event(Event::Withdrawn { payer: who.clone(), amount });
        Ok(())
    }

    pub(crate) fn do_grant(account: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        T::Credits::mint_into(account, amount)?;
        Granted::<T>::try_mutate(|granted| {
            *granted = granted.checked_add(amount).ok_or(Error::<T>::Overflow)?;
            Ok::<(), DispatchError>(())
        })?;
        Self::deposit_event(Event::Granted { account: account.clone(), amount });
        Ok(())
    }

    pub(crate) fn do_burn(amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        let (exact, polite) = (Precision::Exact, Fortitude::Polite);
        T::Credits::burn_from(&T::Treasury::get(), amount, Preservation::Expendable, exact, polite)?;
        Self::note_burnt(amount)?;
        Self::deposit_event(Event::Burnt { amount });
        Ok(())
    }

    pub(crate) fn do_disburse(account: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        T::Credits::transfer(&T::Treasury::get(), account, amount, Preservation::Expendable)?;
        Self::deposit_event(Event::Disbursed { account: account.clone(), amount });
        Ok(())
    }

    /// How many credits there are, in micro-credits.
    pub fn issuance() -> u128 {
        T::Credits::total_issuance()
    }
}
