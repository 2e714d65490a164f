//! Registrations: what is checked before one is taken, in the pool of transactions and in a block.

use frame_support::pallet_prelude::*;
use potluck_primitives::{Genesis, SignedRegistration};
use sp_runtime::AccountId32;

use crate::{Config, Entry, Error, Event, LastSequence, Pallet, Registrations, Settings};

impl<T: Config> Pallet<T> {
    /// What signatures of this chain are made for: the hash of its first block.
    pub(crate) fn genesis() -> Genesis {
        let zero = sp_runtime::traits::Zero::zero();
        Genesis(
            frame_system::Pallet::<T>::block_hash::<frame_system::pallet_prelude::BlockNumberFor<T>>(zero).0,
        )
    }

    /// Whether a registration may be taken now. The cheap questions first: anyone may ask.
    fn check_register(signed: &SignedRegistration) -> Result<(), Error<T>> {
        let settings = Settings::<T>::get();
        let of = &signed.registration;
        let age = Self::now().checked_sub(of.at.0).ok_or(Error::<T>::Stale)?;
        ensure!(age <= settings.registration_age, Error::<T>::Stale);
        let account = AccountId32::new(of.account);
        let last = match Registrations::<T>::get(&account) {
            Some(entry) => Some(entry.signed.registration.sequence),
            None => LastSequence::<T>::get(&account),
        };
        ensure!(last.is_none_or(|last| of.sequence > last), Error::<T>::OldSequence);
        let genesis = Self::genesis();
        ensure!(signed.work_bits(&genesis) >= settings.work_bits, Error::<T>::TooLittleWork);
        signed.verify(&genesis).map_err(|_| Error::<T>::Forged)
    }

    /// What the pool of transactions asks. Two registrations of an account exclude each other.
    pub(crate) fn validate_register(
        signed: &SignedRegistration,
    ) -> Result<ValidTransaction, TransactionValidityError> {
        Self::check_register(signed).map_err(|error| match error {
            Error::Stale => InvalidTransaction::Stale.into(),
            Error::OldSequence => InvalidTransaction::Custom(1).into(),
            Error::TooLittleWork => InvalidTransaction::Custom(2).into(),
            _ => TransactionValidityError::from(InvalidTransaction::BadProof),
        })?;
        ValidTransaction::with_tag_prefix("PotluckRegister")
            .and_provides(signed.registration.account)
            .priority(signed.work_bits(&Self::genesis()).into())
            .longevity(Settings::<T>::get().registration_age.into())
            .propagate(true)
            .build()
    }

    pub(crate) fn do_register(signed: SignedRegistration) -> DispatchResult {
        Self::check_register(&signed)?;
        let of = &signed.registration;
        let (account, peer, sequence) = (AccountId32::new(of.account), of.peer, of.sequence);
        LastSequence::<T>::remove(&account);
        Registrations::<T>::insert(&account, Entry { signed, since: Self::now() });
        Self::deposit_event(Event::Registered { account, peer, sequence });
        Ok(())
    }

    pub(crate) fn do_deregister(who: &AccountId32) -> DispatchResult {
        let entry = Registrations::<T>::take(who).ok_or(Error::<T>::NotRegistered)?;
        LastSequence::<T>::insert(who, entry.signed.registration.sequence);
        Self::deposit_event(Event::Deregistered { account: who.clone() });
        Ok(())
    }

    pub(crate) fn do_expire(account: &AccountId32) -> DispatchResult {
        let entry = Registrations::<T>::get(account).ok_or(Error::<T>::NotRegistered)?;
        let ends =
            entry.since.checked_add(Settings::<T>::get().registration_life).ok_or(Error::<T>::Overflow)?;
        ensure!(Self::now() > ends, Error::<T>::NotExpired);
        // Nobody can bring it again: it is older than a registration may be.
        Registrations::<T>::remove(account);
        Self::deposit_event(Event::Deregistered { account: account.clone() });
        Ok(())
    }
}
