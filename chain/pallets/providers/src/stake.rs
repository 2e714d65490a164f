//! Stakes: credits on hold, their way out, and their way to others.

use frame_support::{
    pallet_prelude::*,
    traits::{
        fungible::MutateHold as _,
        tokens::{Fortitude, Precision, Restriction},
    },
};
use sp_runtime::AccountId32;

use crate::{Config, Error, Event, HoldReason, OpenCases, Pallet, Settings, Stakes, Unbonding};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_stake(who: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        T::Credits::hold(&HoldReason::Stake.into(), who, amount)?;
        let active = Stakes::<T>::try_mutate(who, |stake| {
            stake.active = stake.active.checked_add(amount).ok_or(Error::<T>::Overflow)?;
            Ok::<_, DispatchError>(stake.active)
        })?;
        Self::note_stake(who, active);
        Self::deposit_event(Event::Staked { account: who.clone(), amount, active });
        Ok(())
    }

    pub(crate) fn do_unstake(who: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::Zero);
        let settings = Settings::<T>::get();
        let at = Self::now().checked_add(settings.unbonding_period).ok_or(Error::<T>::Overflow)?;
        let active = Stakes::<T>::try_mutate(who, |stake| {
            stake.active = stake.active.checked_sub(amount).ok_or(Error::<T>::ExceedsStake)?;
            let short = stake.active < settings.verifier_stake;
            ensure!(!(short && Self::is_verifier(who)), Error::<T>::VerifierStake);
            match stake.unbonding.last_mut() {
                Some(last) if last.at == at => {
                    last.amount = last.amount.checked_add(amount).ok_or(Error::<T>::Overflow)?;
                }
                _ => {
                    let part = Unbonding { amount, at };
                    stake.unbonding.try_push(part).map_err(|_| Error::<T>::TooManyUnbonding)?;
                }
            }
            // The period may have been shortened meanwhile.
            stake.unbonding.sort_by_key(|it| it.at);
            Ok::<_, DispatchError>(stake.active)
        })?;
        Self::note_stake(who, active);
        Self::deposit_event(Event::Unstaked { account: who.clone(), amount, at });
        Ok(())
    }

    pub(crate) fn do_withdraw_unstaked(who: &AccountId32) -> DispatchResult {
        ensure!(OpenCases::<T>::get(who) == 0, Error::<T>::UnderVerdict);
        let now = Self::now();
        let mut stake = Stakes::<T>::get(who);
        let due = stake.unbonding.iter().filter(|it| it.at <= now);
        let amount =
            due.map(|it| it.amount).try_fold(0u128, u128::checked_add).ok_or(Error::<T>::Overflow)?;
        ensure!(amount > 0, Error::<T>::NothingToWithdraw);
        stake.unbonding.retain(|it| it.at > now);
        if stake.total() == Some(0) {
            Stakes::<T>::remove(who);
        } else {
            Stakes::<T>::insert(who, stake);
        }
        T::Credits::release(&HoldReason::Stake.into(), who, amount, Precision::Exact)?;
        Self::deposit_event(Event::Withdrawn { account: who.clone(), amount });
        Ok(())
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
        if from == to {
            return T::Credits::release(&reason.into(), from, amount, Precision::Exact).map(|_| ());
        }
        let (exact, free, force) = (Precision::Exact, Restriction::Free, Fortitude::Force);
        T::Credits::transfer_on_hold(&reason.into(), from, to, amount, exact, free, force).map(|_| ())
    }
}
