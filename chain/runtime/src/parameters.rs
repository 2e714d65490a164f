//! How long the windows of governance last, as state: set in genesis, changed by the root.
//!
//! The same runtime so serves a development chain, where a vote takes five blocks, and a real one, where it takes
//! weeks.

#![allow(missing_docs, reason = "macros of the framework write most items of this module")]

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::traits::Get;
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::{BlockNumber, DAYS, HOURS};

pub use pallet::*;

/// The periods of a track of referenda, in blocks.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Periods {
    /// Before a decision can begin.
    pub prepare: BlockNumber,
    /// What a decision may take.
    pub decision: BlockNumber,
    /// For which approval must hold.
    pub confirm: BlockNumber,
    /// Between approval and enactment, at least.
    pub enactment: BlockNumber,
}

/// The windows of governance. Those of credits and of providers are kept by their pallets. Times are in blocks.
#[derive(
    Clone,
    PartialEq,
    Eq,
    Debug,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Between a decision on a policy and its activation, at least.
    pub policy_delay: BlockNumber,
    /// For which a vote locks tokens, times its conviction.
    pub vote_lock: BlockNumber,
    /// The track of the root.
    pub root: Periods,
    /// The track that approves policies and rules on appeals.
    pub policies: Periods,
}

impl Settings {
    /// Windows of a chain that serves people.
    pub const fn real() -> Self {
        Self {
            policy_delay: DAYS,
            vote_lock: 7 * DAYS,
            root: Periods { prepare: 2 * HOURS, decision: 14 * DAYS, confirm: DAYS, enactment: DAYS },
            policies: Periods {
                prepare: 2 * HOURS,
                decision: 7 * DAYS,
                confirm: 12 * HOURS,
                enactment: 2 * HOURS,
            },
        }
    }

    /// Windows of a chain on one desk: a vote takes five blocks.
    pub const fn development() -> Self {
        let track = Periods { prepare: 1, decision: 20, confirm: 2, enactment: 1 };
        Self { policy_delay: 2, vote_lock: 5, root: track, policies: track }
    }

    /// Whether a referendum can pass at all.
    pub fn sound(&self) -> bool {
        [self.root, self.policies].iter().all(|track| track.decision > 0 && track.confirm <= track.decision)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::real()
    }
}

#[frame_support::pallet]
#[allow(clippy::expect_used, reason = "macros of the framework write them")]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;

    use super::Settings;

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config {}

    /// What holds now.
    #[pallet::storage]
    pub type Current<T: Config> = StorageValue<_, Settings, ValueQuery>;

    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        pub settings: Settings,
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            // A chain that could never change anything must not start.
            assert!(self.settings.sound(), "the settings of governance are not sound");
            Current::<T>::put(&self.settings);
        }
    }

    #[pallet::event]
    #[pallet::generate_deposit(fn deposit_event)]
    pub enum Event<T: Config> {
        /// Other settings hold from now on.
        Changed { settings: Settings },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// A track on which nothing could ever be decided.
        Unsound,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Replaces all settings. Root only.
        ///
        /// # Errors
        /// [`Error::Unsound`].
        #[pallet::call_index(0)]
        #[pallet::weight(T::DbWeight::get().reads_writes(0, 1).saturating_add(Weight::from_parts(10_000_000, 0)))]
        pub fn set(origin: OriginFor<T>, settings: Settings) -> DispatchResult {
            ensure_root(origin)?;
            ensure!(settings.sound(), Error::<T>::Unsound);
            Current::<T>::put(&settings);
            Self::deposit_event(Event::Changed { settings });
            Ok(())
        }
    }
}

/// Names a setting as a type that pallets can ask.
macro_rules! settings {
    ($($name:ident: $field:ident -> $of:ty;)*) => {
        $(
            #[doc = concat!("[`Settings::", stringify!($field), "`] as it holds now.")]
            #[derive(Debug)]
            pub struct $name;

            impl Get<$of> for $name {
                fn get() -> $of {
                    Current::<crate::Runtime>::get().$field
                }
            }
        )*
    };
}

settings! {
    PolicyDelay: policy_delay -> BlockNumber;
    VoteLock: vote_lock -> BlockNumber;
}
