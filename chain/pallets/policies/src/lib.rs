//! Which policy component is approved, by kind and class of pool, from which block on.
//!
//! The chain keeps names, not components: a hash that nodes check what they load against, and a hint where to fetch
//! it. Only the governance origin decides. A decision takes effect at a height that it names, so that all nodes
//! switch at the same block; nothing has to run at that height, because what is active follows from the height.
//!
//! Per kind and class there is at most one policy in force, at most one to come, and the last
//! [`MAX_HISTORY`] that were in force. A decision replaces one that has not taken effect yet. A revocation takes
//! effect at once: a component found harmful must not run until a replacement is voted.

#![cfg_attr(not(feature = "std"), no_std)]
#![allow(missing_docs, reason = "macros of the framework write items of this crate")]

extern crate alloc;

mod api;
#[cfg(feature = "runtime-benchmarks")]
mod benchmarking;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
mod weights;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{BoundedVec, traits::ConstU32};
use potluck_primitives::PolicyHash;
use scale_info::TypeInfo;

pub use api::*;
pub use pallet::*;
pub use weights::WeightInfo;

/// Most bytes of a hint where to fetch a component.
pub const MAX_URI: u32 = 256;
/// How many policies that are no longer in force are remembered, per kind and class.
pub const MAX_HISTORY: u32 = 64;

/// Where to fetch a component: a hint, as what is fetched is checked against its hash.
pub type Uri = BoundedVec<u8, ConstU32<MAX_URI>>;

/// A decision for a policy.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Approval<BlockNumber> {
    /// BLAKE3 of the component.
    pub hash: PolicyHash,
    /// The first block at which it is in force.
    pub from: BlockNumber,
    /// The block of the decision.
    pub decided: BlockNumber,
    /// Where to fetch it.
    pub uri: Uri,
}

/// A policy that was in force.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Past<BlockNumber> {
    /// BLAKE3 of the component.
    pub hash: PolicyHash,
    /// The first block at which it was in force.
    pub from: BlockNumber,
    /// The first block at which it no longer was.
    pub until: BlockNumber,
}

#[frame_support::pallet]
#[allow(clippy::expect_used, reason = "macros of the framework write them")]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use potluck_primitives::{PolicyHash, PolicyKind, PoolClass};
    use sp_runtime::traits::CheckedAdd;

    use super::{Approval, MAX_HISTORY, Past, Uri, WeightInfo};

    const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

    #[pallet::pallet]
    #[pallet::storage_version(STORAGE_VERSION)]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config {
        /// Who decides. Whoever passes this chooses what code nodes run.
        type GovernanceOrigin: EnsureOrigin<Self::RuntimeOrigin>;
        /// Blocks between a decision and its effect, at least: in them nodes fetch the component. Shorter ones risk
        /// that nodes disagree on the policy; a change holds for decisions after it.
        type MinDelay: Get<BlockNumberFor<Self>>;
        /// What calls cost.
        type WeightInfo: WeightInfo;
    }

    /// The policy in force, unless one to come has come.
    #[pallet::storage]
    pub type Approved<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        PolicyKind,
        Twox64Concat,
        PoolClass,
        Approval<BlockNumberFor<T>>,
        OptionQuery,
    >;

    /// The policy to come. From its height on it is the one in force, also while it still lies here.
    #[pallet::storage]
    pub type Scheduled<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        PolicyKind,
        Twox64Concat,
        PoolClass,
        Approval<BlockNumberFor<T>>,
        OptionQuery,
    >;

    /// The last policies that were in force, oldest first.
    #[pallet::storage]
    pub type History<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        PolicyKind,
        Twox64Concat,
        PoolClass,
        BoundedVec<Past<BlockNumberFor<T>>, ConstU32<MAX_HISTORY>>,
        ValueQuery,
    >;

    #[pallet::event]
    #[pallet::generate_deposit(fn deposit_event)]
    pub enum Event<T: Config> {
        /// A policy will be in force from a block on.
        Approved { kind: PolicyKind, class: PoolClass, hash: PolicyHash, from: BlockNumberFor<T> },
        /// A policy that was to come no longer is: another decision took its place, or it was revoked.
        Dropped { kind: PolicyKind, class: PoolClass, hash: PolicyHash },
        /// A policy in force no longer is. No policy is, until another is approved.
        Revoked { kind: PolicyKind, class: PoolClass, hash: PolicyHash },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// The height is nearer than nodes need to fetch the component.
        TooSoon,
        /// The policy to revoke is neither in force nor to come.
        NotApproved,
        /// A block number beyond what can be counted.
        Overflow,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Approves a policy from the block `activates_at` on. A policy that was to come and has not is dropped.
        ///
        /// # Errors
        /// [`Error::TooSoon`]: the height is less than [`Config::MinDelay`] blocks away.
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::approve())]
        pub fn approve(
            origin: OriginFor<T>,
            kind: PolicyKind,
            class: PoolClass,
            hash: PolicyHash,
            activates_at: BlockNumberFor<T>,
            uri: Uri,
        ) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            let now = frame_system::Pallet::<T>::block_number();
            let soonest = now.checked_add(&T::MinDelay::get()).ok_or(Error::<T>::Overflow)?;
            ensure!(activates_at >= soonest, Error::<T>::TooSoon);
            Self::settle(kind, class, now);
            let approval = Approval { hash, from: activates_at, decided: now, uri };
            if let Some(dropped) = Scheduled::<T>::get(kind, class) {
                Self::deposit_event(Event::Dropped { kind, class, hash: dropped.hash });
            }
            Scheduled::<T>::insert(kind, class, approval);
            Self::deposit_event(Event::Approved { kind, class, hash, from: activates_at });
            Ok(())
        }

        /// Revokes a policy at once, whether it is to come or in force.
        ///
        /// # Errors
        /// [`Error::NotApproved`]: it is neither.
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::revoke())]
        pub fn revoke(
            origin: OriginFor<T>,
            kind: PolicyKind,
            class: PoolClass,
            hash: PolicyHash,
        ) -> DispatchResult {
            T::GovernanceOrigin::ensure_origin(origin)?;
            let now = frame_system::Pallet::<T>::block_number();
            Self::settle(kind, class, now);
            let names_it = |it: &Approval<BlockNumberFor<T>>| it.hash == hash;
            let to_come = Scheduled::<T>::get(kind, class).filter(names_it);
            let in_force = Approved::<T>::get(kind, class).filter(names_it);
            ensure!(to_come.is_some() || in_force.is_some(), Error::<T>::NotApproved);
            if to_come.is_some() {
                Scheduled::<T>::remove(kind, class);
                Self::deposit_event(Event::Dropped { kind, class, hash });
            }
            if let Some(revoked) = in_force {
                Approved::<T>::remove(kind, class);
                Self::remember(kind, class, revoked, now);
                Self::deposit_event(Event::Revoked { kind, class, hash });
            }
            Ok(())
        }
    }

    #[pallet::view_functions]
    impl<T: Config> Pallet<T> {
        /// The policy in force at a block; for one to come, as far as it is decided now.
        pub fn active(kind: PolicyKind, class: PoolClass, at: BlockNumberFor<T>) -> Option<PolicyHash> {
            if let Some(it) = Scheduled::<T>::get(kind, class)
                && it.from <= at
            {
                return Some(it.hash);
            }
            if let Some(it) = Approved::<T>::get(kind, class)
                && it.from <= at
            {
                return Some(it.hash);
            }
            let history = History::<T>::get(kind, class);
            history.iter().rev().find(|it| it.from <= at && at < it.until).map(|it| it.hash)
        }
    }

    impl<T: Config> Pallet<T> {
        /// Puts a policy whose height has come where policies in force are.
        fn settle(kind: PolicyKind, class: PoolClass, now: BlockNumberFor<T>) {
            let Some(come) = Scheduled::<T>::get(kind, class).filter(|it| it.from <= now) else { return };
            Scheduled::<T>::remove(kind, class);
            let from = come.from;
            if let Some(replaced) = Approved::<T>::get(kind, class) {
                Self::remember(kind, class, replaced, from);
            }
            Approved::<T>::insert(kind, class, come);
        }

        /// Appends to the history; the oldest entry makes room.
        fn remember(
            kind: PolicyKind,
            class: PoolClass,
            past: Approval<BlockNumberFor<T>>,
            until: BlockNumberFor<T>,
        ) {
            let Approval { hash, from, .. } = past;
            // One that was revoked in its first block was never in force for any.
            if from == until {
                return;
            }
            History::<T>::mutate(kind, class, |history| {
                if history.is_full() {
                    history.remove(0);
                }
                // There is room: an entry was removed where there was none.
                let _ = history.try_push(Past { hash, from, until });
            });
        }

        /// Checks what must always hold of the state.
        ///
        /// # Errors
        /// The first that does not.
        #[cfg(any(test, feature = "try-runtime"))]
        pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
            let now = frame_system::Pallet::<T>::block_number();
            for (kind, class, approved) in Approved::<T>::iter() {
                ensure!(approved.from <= now, "a policy in force before its height");
                ensure!(approved.decided <= approved.from, "a policy in force before it was decided");
                if let Some(past) = History::<T>::get(kind, class).last() {
                    ensure!(past.until <= approved.from, "two policies in force at once");
                }
            }
            for (kind, class, scheduled) in Scheduled::<T>::iter() {
                ensure!(scheduled.decided <= now, "a decision of the future");
                if let Some(approved) = Approved::<T>::get(kind, class) {
                    ensure!(approved.from <= scheduled.decided, "a decision that took effect late");
                }
            }
            for (_, _, history) in History::<T>::iter() {
                for past in &history {
                    ensure!(past.from < past.until && past.until <= now, "a policy that never was in force");
                }
                for (older, newer) in history.iter().zip(history.iter().skip(1)) {
                    ensure!(older.until <= newer.from, "a history out of order");
                }
            }
            Ok(())
        }
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        #[cfg(feature = "try-runtime")]
        fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }
}
