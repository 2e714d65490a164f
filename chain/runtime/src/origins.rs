//! The origins that tracks of referenda speak with, beside the root.

#![allow(missing_docs, reason = "macros of the framework write most items of this module")]

pub use pallet::*;

#[frame_support::pallet]
#[allow(clippy::expect_used, reason = "macros of the framework write them")]
pub mod pallet {
    use frame_support::pallet_prelude::*;

    /// Nothing is stored and nothing is called: the pallet only names origins.
    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config {}

    /// Who speaks, by the track of the referendum that passed.
    #[pallet::origin]
    #[derive(
        Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
    )]
    pub enum Origin {
        /// May approve and revoke policies, and rule on appeals.
        Policies,
    }
}

use frame_support::traits::EnsureOrigin;

/// Lets through what the track of policies decided.
#[derive(Debug)]
pub struct EnsurePolicies;

impl<O> EnsureOrigin<O> for EnsurePolicies
where
    O: Into<Result<Origin, O>> + From<Origin>,
{
    type Success = ();

    fn try_origin(o: O) -> Result<(), O> {
        o.into().map(|Origin::Policies| ())
    }
}
