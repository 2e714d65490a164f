//! What nodes ask of a block about policies.

use alloc::vec::Vec;

use codec::{Decode, Encode};
use potluck_primitives::{PolicyHash, PolicyKind, PoolClass};
use scale_info::TypeInfo;

/// A policy that is in force, or will be.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
pub struct PolicyView {
    /// What it decides.
    pub kind: PolicyKind,
    /// For which class of pool.
    pub class: PoolClass,
    /// BLAKE3 of the component.
    pub hash: PolicyHash,
    /// The first block at which it is in force.
    pub from: u32,
    /// Where to fetch it, as UTF-8 or not at all.
    pub uri: Vec<u8>,
}

sp_api::decl_runtime_apis! {
    /// The approved policies.
    pub trait PoliciesApi {
        /// The policy in force at a block, as far as it is decided now.
        fn active_policy(kind: PolicyKind, class: PoolClass, at: u32) -> Option<PolicyHash>;

        /// The policies that are in force now and those to come, by kind and class, the earlier first.
        fn policies() -> Vec<PolicyView>;
    }
}

impl<T: crate::Config> crate::Pallet<T> {
    /// See [`PoliciesApi::policies`].
    pub fn views() -> Vec<PolicyView> {
        use frame_system::pallet_prelude::BlockNumberFor;
        use sp_runtime::traits::UniqueSaturatedInto;

        let now = frame_system::Pallet::<T>::block_number();
        let view =
            |(kind, class, it): (PolicyKind, PoolClass, crate::Approval<BlockNumberFor<T>>)| PolicyView {
                kind,
                class,
                hash: it.hash,
                from: it.from.unique_saturated_into(),
                uri: it.uri.into_inner(),
            };
        let mut views: Vec<PolicyView> = crate::Approved::<T>::iter()
            // One whose successor has come is over, though it still lies there.
            .filter(|(kind, class, _)| {
                crate::Scheduled::<T>::get(kind, class).is_none_or(|to_come| to_come.from > now)
            })
            .chain(crate::Scheduled::<T>::iter())
            .map(view)
            .collect();
        views.sort_by_key(|view| (view.kind, view.class, view.from));
        views
    }
}
