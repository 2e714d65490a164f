//! Verifiers: who they are, since when, and who of them is drawn for a job.

use alloc::vec::Vec;

use frame_support::pallet_prelude::*;
use potluck_primitives::{Account, MicroCredits, sample, sample_seed};
use sp_runtime::AccountId32;

use crate::{
    Changed, Config, Error, Event, Job, MAX_SETS, Pallet, SetStarts, Sets, Settings, Stakes, VerifierSet,
    Verifiers,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn is_verifier(who: &AccountId32) -> bool {
        Verifiers::<T>::get().binary_search(who.as_ref()).is_ok()
    }

    pub(crate) fn do_register_verifier(who: &AccountId32) -> DispatchResult {
        let enough = Stakes::<T>::get(who).active >= Settings::<T>::get().verifier_stake;
        ensure!(enough, Error::<T>::VerifierStake);
        Verifiers::<T>::try_mutate(|verifiers| {
            let key: &Account = who.as_ref();
            let Err(place) = verifiers.binary_search(key) else { return Err(Error::<T>::AlreadyVerifier) };
            verifiers.try_insert(place, *key).map_err(|_| Error::<T>::TooManyVerifiers)
        })?;
        Changed::<T>::put(true);
        Self::deposit_event(Event::VerifierJoined { account: who.clone() });
        Ok(())
    }

    pub(crate) fn do_leave_verifiers(who: &AccountId32) -> DispatchResult {
        ensure!(Self::remove_verifier(who), Error::<T>::NotVerifier);
        Ok(())
    }

    /// Removes a verifier; false where it was none.
    fn remove_verifier(who: &AccountId32) -> bool {
        let removed = Verifiers::<T>::mutate(|verifiers| match verifiers.binary_search(who.as_ref()) {
            Ok(place) => {
                verifiers.remove(place);
                true
            }
            Err(_) => false,
        });
        if removed {
            Changed::<T>::put(true);
            Self::deposit_event(Event::VerifierLeft { account: who.clone() });
        }
        removed
    }

    /// Tells that the active stake of an account is another one. A verifier that has too little is none any more.
    pub(crate) fn note_stake(who: &AccountId32, active: u128) {
        if !Self::is_verifier(who) {
            return;
        }
        Changed::<T>::put(true);
        if active < Settings::<T>::get().verifier_stake {
            Self::remove_verifier(who);
        }
    }

    /// Makes the set of this block the one to draw from, where an era begins and something has changed. Forgets sets
    /// that no verdict can need. Says whether it did anything.
    pub(crate) fn turn() -> bool {
        let (now, settings) = (Self::now(), Settings::<T>::get());
        let begins = now.checked_rem(settings.era_length) == Some(0);
        if !begins || !Changed::<T>::get() {
            return false;
        }
        let stake = |key: &Account| (*key, MicroCredits(Stakes::<T>::get(AccountId32::new(*key)).active));
        let set = VerifierSet::truncate_from(Verifiers::<T>::get().iter().map(stake).collect());
        let oldest = now.saturating_sub(settings.verdict_age);
        SetStarts::<T>::mutate(|starts| {
            // The second is old enough for every block that can be asked for, so the first is not needed; and where
            // all are needed, the oldest blocks can no longer be.
            while starts.get(1).is_some_and(|second| *second <= oldest) || starts.len() as u32 >= MAX_SETS {
                Sets::<T>::remove(starts.remove(0));
            }
            // There is room now.
            let _ = starts.try_push(now);
        });
        let verifiers = set.len() as u32;
        Sets::<T>::insert(now, set);
        Changed::<T>::kill();
        Self::deposit_event(Event::SetChanged { from: now, verifiers });
        true
    }

    /// The set that jobs of a block draw from.
    pub fn set_at(at: u32) -> Option<VerifierSet> {
        let start = SetStarts::<T>::get().into_iter().rev().find(|start| *start <= at)?;
        Sets::<T>::get(start)
    }

    /// The verifiers of a job of a provider and a block: always the same ones. The provider is never among them.
    ///
    /// # Errors
    /// [`Error::BadBlock`], [`Error::NoVerifiers`].
    pub fn draw(provider: &Account, job: &Job, at: u32) -> Result<Vec<Account>, Error<T>> {
        let settings = Settings::<T>::get();
        let age = Self::now().checked_sub(at).ok_or(Error::<T>::BadBlock)?;
        // The hash of this block is not known in it.
        ensure!(age > 0 && age <= settings.verdict_age, Error::<T>::BadBlock);
        let hash = frame_system::Pallet::<T>::block_hash(
            frame_system::pallet_prelude::BlockNumberFor::<T>::from(at),
        );
        ensure!(hash != Default::default(), Error::<T>::BadBlock);
        let mut set = Self::set_at(at).ok_or(Error::<T>::NoVerifiers)?.into_inner();
        set.retain(|(account, _)| account != provider);
        Ok(sample(&set, sample_seed(job, &hash.0), settings.sample))
    }
}
