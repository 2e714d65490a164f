//! What nodes ask of a block about providers.

use alloc::vec::Vec;

use codec::{Decode, Encode};
use potluck_primitives::{Account, SignedRegistration};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;

use crate::{Config, Job, Pallet, Registrations, Settings, Stakes, Unbonding};

/// What is known of an account.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
pub struct ProviderView {
    /// What it offers, and since which block.
    pub registration: Option<(SignedRegistration, u32)>,
    /// Micro-credits that count as stake.
    pub active: u128,
    /// What is on its way out.
    pub unbonding: Vec<Unbonding>,
    /// Whether it is a verifier from the next era on.
    pub verifier: bool,
    /// How many verdicts wait for it.
    pub cases: u32,
}

/// Who judges a job.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
pub struct SampleView {
    /// The verifiers that are drawn.
    pub drawn: Vec<Account>,
    /// How many of them have to sign.
    pub quorum: u32,
}

sp_api::decl_runtime_apis! {
    /// Providers and those who judge them.
    pub trait ProvidersApi {
        /// The verifiers of a job of a provider and a block; `None` where the block is too old, or to come, or had
        /// no verifiers.
        fn verifier_sample(provider: [u8; 32], job: [u8; 16], at: u32) -> Option<SampleView>;

        /// What is known of an account.
        fn provider(account: [u8; 32]) -> ProviderView;
    }
}

impl<T: Config> Pallet<T> {
    /// See [`ProvidersApi::verifier_sample`].
    pub fn sample_view(provider: &Account, job: &Job, at: u32) -> Option<SampleView> {
        let drawn = Self::draw(provider, job, at).ok()?;
        Some(SampleView { drawn, quorum: Settings::<T>::get().quorum })
    }

    /// See [`ProvidersApi::provider`].
    pub fn provider_view(account: &Account) -> ProviderView {
        let account = AccountId32::new(*account);
        let stake = Stakes::<T>::get(&account);
        ProviderView {
            registration: Registrations::<T>::get(&account).map(|entry| (entry.signed, entry.since)),
            active: stake.active,
            unbonding: stake.unbonding.into_inner(),
            verifier: Self::is_verifier(&account),
            cases: crate::OpenCases::<T>::get(&account),
        }
    }
}
