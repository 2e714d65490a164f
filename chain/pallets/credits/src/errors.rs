//! Why a call is refused.

use frame_support::pallet_macros::pallet_section;

#[pallet_section]
mod errors {
    #[pallet::error]
    pub enum Error<T> {
        /// A sum that cannot be counted.
        Overflow,
        /// An amount of nothing.
        Zero,
        /// More than the escrow holds.
        ExceedsEscrow,
        /// Escrow was asked back already: withdraw it or cancel first.
        AlreadyThawing,
        /// No escrow was asked back.
        NotThawing,
        /// The escrow that was asked back cannot be withdrawn yet.
        StillThawing,
        /// The account is a settler already.
        AlreadySettler,
        /// What a settler may take was lowered not long ago.
        LoweredBefore,
        /// The account is not a settler.
        NotSettler,
        /// The public pool's name cannot be a settler's.
        ReservedAccount,
        /// Batches of an epoch are submitted in the next one.
        WrongEpoch,
        /// The settler has submitted a batch for this epoch.
        AlreadySubmitted,
        /// The deltas do not sum to zero.
        NotZeroSum,
        /// No leaves, or more than allowed.
        LeafCount,
        /// There is no such batch.
        UnknownBatch,
        /// The batch can no longer be disputed, or not in this way.
        NotDisputable,
        /// The batch is not final.
        NotFinal,
        /// The batch is not void.
        NotVoid,
        /// The batch was settled for good.
        Closed,
        /// The batch has no such leaf.
        UnknownLeaf,
        /// The leaf was challenged before.
        AlreadyChallenged,
        /// No challenge of this leaf waits for an answer.
        NotChallenged,
        /// The time to answer is over.
        TooLate,
        /// The time to answer is not over.
        TooEarly,
        /// The leaf is not in the batch, or not there.
        BadProof,
        /// The vouchers are not those that the leaf counts, or do not add up to it.
        BadAnswer,
        /// What is shown is no fault.
        NoFault,
        /// The voucher is not one that the settler had to count.
        BadVoucher,
        /// The settler did not have the voucher, as far as this shows.
        NotKnown,
        /// The leaf is wholly settled.
        AlreadyClaimed,
        /// The payer has no escrow left or allows no more, or the batch has taken all it said it would.
        NothingToCollect,
        /// Nothing is in the pot: claim the debits first.
        PotEmpty,
        /// The bond was released or lost.
        NoBond,
        /// Leaves are unsettled and the time to claim them is not over.
        Unsettled,
        /// The parameters contradict each other.
        Unsound,
        /// The length of an epoch is fixed for ever.
        EpochLengthFixed,
    }
}
