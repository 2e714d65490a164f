//! What nodes ask about credits, in one question for all that they show or decide by.

#![allow(missing_docs, reason = "macros of the framework write items of this module")]

use codec::{Decode, Encode};
use frame_support::traits::fungible::Inspect as _;
use pallet_potluck_credits::{Escrow, Lane, LaneKey};
use potluck_primitives::Account;
use scale_info::TypeInfo;

use crate::{AccountId, CreditBalances, Credits};

/// The credits of an account, in micro-credits.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, TypeInfo)]
pub struct CreditsView {
    /// What it can spend, deposit or stake.
    pub free: u128,
    /// What it has on hold for all reasons: escrow, stake, bonds.
    pub held: u128,
    /// Its escrow, and what of it may be gone soon.
    pub escrow: Escrow,
}

sp_api::decl_runtime_apis! {
    /// Credits and lanes.
    pub trait CreditsApi {
        /// The credits of an account.
        fn account(account: Account) -> CreditsView;

        /// What a lane has come to.
        fn lane(key: LaneKey) -> Lane;
    }
}

/// See [`CreditsApi::account`].
pub(crate) fn credits(account: &AccountId) -> CreditsView {
    let free = CreditBalances::balance(account);
    let held = CreditBalances::total_balance(account).saturating_sub(free);
    CreditsView { free, held, escrow: Credits::escrow_of(account) }
}
