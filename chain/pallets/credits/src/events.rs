//! What the chain tells.

use frame_support::pallet_macros::pallet_section;

#[pallet_section]
mod events {
    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// Free credits became escrow.
        Deposited { payer: T::AccountId, amount: u128, escrow: u128 },
        /// Escrow was asked back. It can be withdrawn from block `at`; until then and after, vouchers come first.
        WithdrawStarted { payer: T::AccountId, amount: u128, at: u32 },
        /// Escrow is no longer asked back.
        WithdrawCancelled { payer: T::AccountId },
        /// Escrow became free credits: as much of what was asked back as was left.
        Withdrawn { payer: T::AccountId, amount: u128 },
        /// A voucher was paid. `paid` left the payer's escrow, `share` of it went to the treasury; `owed` stays due.
        Redeemed { key: LaneKey, nonce: u64, paid: u128, share: u128, redeemed: u128, owed: u128 },
        /// The voucher at `index` of a redemption was not paid. The others were not touched by it.
        NotRedeemed { index: u32, reason: Refusal },
        /// Vouchers that name this account as their pool are netted by it from now on.
        SettlerRegistered { settler: T::AccountId },
        /// Batches of the settler may take so much each from the payer, from this epoch on.
        SettlerAllowed { payer: T::AccountId, settler: T::AccountId, limit: u128, from: Epoch },
        /// A batch can be disputed: its leaves until one block, other faults until the other.
        BatchSubmitted {
            batch: BatchId,
            settler: T::AccountId,
            epoch: Epoch,
            root: SumNode,
            leaf_count: u32,
            gross: u128,
            bond: u128,
            challenges_until: u32,
        },
        /// The settler must show the vouchers of a leaf until block `answer_by`.
        LeafChallenged { batch: BatchId, index: u32, challenger: T::AccountId, bond: u128, answer_by: u32 },
        /// The vouchers of a leaf were shown: half of the bond went to the settler, the rest was burnt.
        LeafAnswered { batch: BatchId, index: u32, compensation: u128, burnt: u128 },
        /// A batch was shown to be wrong: half of its bond went to who showed it, the rest was burnt.
        BatchVoided { batch: BatchId, fault: Fault, winner: T::AccountId, reward: u128, burnt: u128 },
        /// The bond of a challenge of a void batch went back.
        ChallengeReturned { batch: BatchId, index: u32, challenger: T::AccountId, bond: u128 },
        /// A final batch needs no bond any more.
        BondReleased { batch: BatchId, settler: T::AccountId, amount: u128 },
        /// A leaf was settled by `amount`; `share` of it went to the treasury, `due` is what is left.
        Claimed {
            batch: BatchId,
            index: u32,
            account: T::AccountId,
            debit: bool,
            amount: u128,
            share: u128,
            due: u128,
        },
        /// A batch is settled for good; what its pot still had went to the treasury.
        BatchClosed { batch: BatchId, remainder: u128 },
        /// Credits came into being.
        Granted { account: T::AccountId, amount: u128 },
        /// Credits of the treasury ceased to be.
        Burnt { amount: u128 },
        /// Credits of the treasury were given away.
        Disbursed { account: T::AccountId, amount: u128 },
        /// Other parameters hold from now on. Running windows stay as they were.
        ParametersSet { parameters: Parameters },
    }
}
