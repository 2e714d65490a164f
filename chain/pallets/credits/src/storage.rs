//! What is stored.

use frame_support::pallet_macros::pallet_section;

#[pallet_section]
mod storage {
    /// How long windows last and what things cost.
    #[pallet::storage]
    pub type Settings<T: Config> = StorageValue<_, Parameters, ValueQuery>;

    /// What was ever granted, in micro-credits.
    #[pallet::storage]
    pub type Granted<T: Config> = StorageValue<_, u128, ValueQuery>;

    /// What was ever burnt, in micro-credits.
    #[pallet::storage]
    pub type Burnt<T: Config> = StorageValue<_, u128, ValueQuery>;

    /// Escrow that was asked back.
    #[pallet::storage]
    pub type Thaws<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, Thaw, OptionQuery>;

    /// What lanes have come to. A lane without an entry has paid nothing.
    #[pallet::storage]
    pub type Lanes<T: Config> = StorageMap<_, Blake2_128Concat, LaneKey, Lane, ValueQuery>;

    /// Accounts whose name in the pool of a voucher means: to be netted by them. Since which block.
    #[pallet::storage]
    pub type Settlers<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, u32, OptionQuery>;

    /// What each payer lets the batches of each settler take.
    #[pallet::storage]
    pub type Allowances<T: Config> = StorageDoubleMap<
        _,
        Blake2_128Concat,
        T::AccountId,
        Blake2_128Concat,
        T::AccountId,
        Allowance,
        ValueQuery,
    >;

    /// What a batch has taken from a payer, in micro-credits: more than one leaf may say it is the payer's.
    #[pallet::storage]
    pub type Taken<T: Config> =
        StorageDoubleMap<_, Twox64Concat, BatchId, Blake2_128Concat, T::AccountId, u128, ValueQuery>;

    /// How many batches there were.
    #[pallet::storage]
    pub type BatchCount<T: Config> = StorageValue<_, BatchId, ValueQuery>;

    /// Every batch. They stay: a settled epoch must never be settled again.
    #[pallet::storage]
    pub type Batches<T: Config> = StorageMap<_, Twox64Concat, BatchId, Batch, OptionQuery>;

    /// Which batch a settler submitted for an epoch.
    #[pallet::storage]
    pub type Epochs<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Twox64Concat, Epoch, BatchId, OptionQuery>;

    /// Challenges by batch and leaf.
    #[pallet::storage]
    pub type Challenges<T: Config> =
        StorageDoubleMap<_, Twox64Concat, BatchId, Twox64Concat, u32, Challenge, OptionQuery>;

    /// Which leaves are wholly settled: a bit each, by batch and the leaf's index divided by [`CHUNK`].
    #[pallet::storage]
    pub type Settled<T: Config> =
        StorageDoubleMap<_, Twox64Concat, BatchId, Twox64Concat, u32, [u8; 32], ValueQuery>;

    /// What of a leaf is settled, in micro-credits, where that is not all or nothing.
    #[pallet::storage]
    pub type Partly<T: Config> =
        StorageDoubleMap<_, Twox64Concat, BatchId, Twox64Concat, u32, u128, ValueQuery>;
}
