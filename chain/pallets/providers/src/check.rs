//! What must always hold of the state.

use frame_support::{ensure, traits::fungible::InspectHold as _};
use sp_runtime::{AccountId32, TryRuntimeError};

use crate::{
    Cases, Config, HoldReason, Judged, OpenCases, Pallet, SetStarts, Sets, Settings, Stage, Stakes, Verifiers,
};

impl<T: Config> Pallet<T> {
    /// Checks what must always hold of the state.
    ///
    /// # Errors
    /// The first that does not.
    pub fn do_try_state() -> Result<(), TryRuntimeError> {
        let settings = Settings::<T>::get();
        ensure!(settings.sound(), "unsound parameters");
        for (account, stake) in Stakes::<T>::iter() {
            let total = stake.total().ok_or("a stake that cannot be counted")?;
            ensure!(total > 0, "an entry for no stake");
            let held = T::Credits::balance_on_hold(&HoldReason::Stake.into(), &account);
            ensure!(held == total, "a stake that is not on hold");
            ensure!(stake.unbonding.iter().all(|it| it.amount > 0), "nothing on its way out");
            ensure!(stake.unbonding.is_sorted_by_key(|it| it.at), "a way out that is not in order");
        }
        let verifiers = Verifiers::<T>::get();
        ensure!(verifiers.iter().is_sorted_by(|a, b| a < b), "verifiers out of order");
        for verifier in &verifiers {
            ensure!(Stakes::<T>::contains_key(AccountId32::new(*verifier)), "a verifier without a stake");
        }
        let starts = SetStarts::<T>::get();
        ensure!(starts.is_sorted_by(|a, b| a < b), "sets out of order");
        ensure!(starts.len() == Sets::<T>::iter().count(), "a set that nobody finds");
        ensure!(starts.iter().all(Sets::<T>::contains_key), "a set that is not there");
        for (account, open) in OpenCases::<T>::iter() {
            ensure!(open > 0, "an entry for no verdict");
            ensure!(
                Cases::<T>::iter_prefix(&account).count() == open as usize,
                "verdicts that are not counted"
            );
        }
        for (account, job, case) in Cases::<T>::iter() {
            ensure!(OpenCases::<T>::contains_key(&account), "a verdict that is not counted");
            ensure!(Judged::<T>::contains_key(&account, job), "a verdict without a judgement");
            ensure!(
                case.verdict.job == job && account == case.verdict.provider.into(),
                "a misplaced verdict"
            );
        }
        for account in OpenCases::<T>::iter_keys() {
            let bonds = Cases::<T>::iter_prefix(&account).map(|(_, case)| match case.stage {
                Stage::Appealed { bond, .. } => bond,
                _ => 0,
            });
            let held = T::Credits::balance_on_hold(&HoldReason::AppealBond.into(), &account);
            ensure!(held == bonds.sum::<u128>(), "a bond that is not on hold");
        }
        Ok(())
    }
}
