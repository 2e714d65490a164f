//! How each pallet is set up.

use frame_support::{
    derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{
        ConstBool, ConstU8, ConstU32, ConstU64, StorageMapShim, VariantCountOf, tokens::imbalance::ResolveTo,
    },
    weights::{ConstantMultiplier, IdentityFee, constants::RocksDbWeight},
};
use frame_system::{
    EnsureRoot,
    limits::{BlockLength, BlockWeights},
};
use pallet_transaction_payment::FungibleAdapter;
use potluck_primitives::{PolicyHash, PolicyKind, PoolClass};
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_runtime::{DispatchResult, Perbill, traits::AccountIdConversion};
use sp_version::RuntimeVersion;

use crate::{
    AccountId, Aura, Balance, Balances, Block, CreditBalances, Credits, Hash, MAXIMUM_BLOCK_WEIGHT,
    MILLIS_PER_BLOCK, MILLITOKEN, Nonce, OriginCaller, PalletInfo, ParachainInfo, Policies, Runtime,
    RuntimeCall, RuntimeEvent, RuntimeFreezeReason, RuntimeHoldReason, RuntimeOrigin, RuntimeTask, System,
    VERSION, governance::TreasuryPalletId,
};

/// The second instance of balances: credits.
pub type CreditsInstance = pallet_balances::Instance2;

/// Part of a block that ordinary transactions may fill.
const NORMAL_RATIO: Perbill = Perbill::from_percent(75);

parameter_types! {
    pub const Version: RuntimeVersion = VERSION;
    pub RuntimeBlockWeights: BlockWeights =
        BlockWeights::with_sensible_defaults(MAXIMUM_BLOCK_WEIGHT, NORMAL_RATIO);
    pub RuntimeBlockLength: BlockLength =
        BlockLength::builder()
            .max_length(5 * 1024 * 1024)
            .modify_max_length_for_class(DispatchClass::Normal, |m| *m = NORMAL_RATIO * *m)
            .build();
    pub const SS58Prefix: u16 = 42;
    pub const ExistentialDeposit: Balance = MILLITOKEN;
    // A micro-credit: whoever earned any has an account.
    pub const CreditDeposit: Balance = 1;
    pub const ByteFee: Balance = MILLITOKEN / 1_000_000;
    pub TreasuryAccount: AccountId = TreasuryPalletId::get().into_account_truncating();
}

#[derive_impl(frame_system::config_preludes::ParaChainDefaultConfig)]
impl frame_system::Config for Runtime {
    type AccountData = pallet_balances::AccountData<Balance>;
    type AccountId = AccountId;
    type Block = Block;
    type BlockHashCount = ConstU32<4096>;
    type BlockLength = RuntimeBlockLength;
    type BlockWeights = RuntimeBlockWeights;
    type DbWeight = RocksDbWeight;
    type Hash = Hash;
    type Nonce = Nonce;
    type OnSetCode = cumulus_pallet_parachain_system::ParachainSetCode<Self>;
    type SS58Prefix = SS58Prefix;
    type SystemWeightInfo = frame_system::weights::SubstrateWeight<Runtime>;
    type Version = Version;
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = Aura;
    type MinimumPeriod = ConstU64<0>;
    type WeightInfo = pallet_timestamp::weights::SubstrateWeight<Runtime>;
}

impl pallet_aura::Config for Runtime {
    type AuthorityId = AuraId;
    type MaxAuthorities = ConstU32<100>;
    type DisabledValidators = ();
    type AllowMultipleBlocksPerSlot = ConstBool<true>;
    type SlotDuration = ConstU64<MILLIS_PER_BLOCK>;
}

impl cumulus_pallet_aura_ext::Config for Runtime {}

impl staging_parachain_info::Config for Runtime {}

/// One block for each block of a relay chain, at most three of them not yet included.
pub(crate) type ConsensusHook = cumulus_pallet_aura_ext::FixedVelocityConsensusHook<Runtime, 6_000, 1, 3>;

parameter_types! {
    pub const RelayOrigin: cumulus_primitives_core::AggregateMessageOrigin =
        cumulus_primitives_core::AggregateMessageOrigin::Parent;
    pub const ReservedWeight: frame_support::weights::Weight = frame_support::weights::Weight::zero();
}

impl cumulus_pallet_parachain_system::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type OnSystemEvent = ();
    type SelfParaId = ParachainInfo;
    type OutboundXcmpMessageSource = ();
    // The chain takes no messages from others.
    type DmpQueue = frame_support::traits::EnqueueWithOrigin<(), RelayOrigin>;
    type ReservedDmpWeight = ReservedWeight;
    type XcmpMessageHandler = ();
    type ReservedXcmpWeight = ReservedWeight;
    type CheckAssociatedRelayNumber = cumulus_pallet_parachain_system::RelayNumberMonotonicallyIncreases;
    type WeightInfo = ();
    type ConsensusHook = ConsensusHook;
    type RelayParentOffset = ConstU32<0>;
    type SchedulingSignatureVerifier = ();
}

impl pallet_balances::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeHoldReason = RuntimeHoldReason;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type WeightInfo = pallet_balances::weights::SubstrateWeight<Runtime>;
    type Balance = Balance;
    type DustRemoval = ResolveTo<TreasuryAccount, Balances>;
    type ExistentialDeposit = ExistentialDeposit;
    type AccountStore = System;
    type ReserveIdentifier = [u8; 8];
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxLocks = ConstU32<50>;
    type MaxReserves = ConstU32<50>;
    type MaxFreezes = VariantCountOf<RuntimeFreezeReason>;
    type DoneSlashHandler = ();
}

impl pallet_balances::Config<CreditsInstance> for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeHoldReason = RuntimeHoldReason;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type WeightInfo = pallet_balances::weights::SubstrateWeight<Runtime>;
    type Balance = Balance;
    // Nothing is dust where the least balance is the least unit.
    type DustRemoval = ();
    type ExistentialDeposit = CreditDeposit;
    type AccountStore = StorageMapShim<
        pallet_balances::Account<Runtime, CreditsInstance>,
        AccountId,
        pallet_balances::AccountData<Balance>,
    >;
    type ReserveIdentifier = [u8; 8];
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxLocks = ConstU32<0>;
    type MaxReserves = ConstU32<0>;
    type MaxFreezes = VariantCountOf<RuntimeFreezeReason>;
    type DoneSlashHandler = ();
}

impl pallet_transaction_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type OnChargeTransaction = FungibleAdapter<Balances, ResolveTo<TreasuryAccount, Balances>>;
    type WeightToFee = IdentityFee<Balance>;
    type LengthToFee = ConstantMultiplier<Balance, ByteFee>;
    type FeeMultiplierUpdate = ();
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightInfo = pallet_transaction_payment::weights::SubstrateWeight<Runtime>;
}

impl pallet_skip_feeless_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
}

impl pallet_utility::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type PalletsOrigin = OriginCaller;
    type WeightInfo = pallet_utility::weights::SubstrateWeight<Runtime>;
}

impl crate::parameters::Config for Runtime {}

impl pallet_potluck_policies::Config for Runtime {
    type GovernanceOrigin = crate::governance::PolicyOrigin;
    type MinDelay = crate::parameters::PolicyDelay;
    type WeightInfo = ();
}

parameter_types! {
    pub const PotsPalletId: frame_support::PalletId = frame_support::PalletId(*b"potlpots");
}

impl pallet_potluck_credits::Config for Runtime {
    type Credits = CreditBalances;
    type RuntimeHoldReason = RuntimeHoldReason;
    // Not the track of policies: this origin makes credits.
    type GovernanceOrigin = EnsureRoot<AccountId>;
    type Treasury = TreasuryAccount;
    type PalletId = PotsPalletId;
    type WeightInfo = ();
}

/// A slashing policy counts when it was in force for the public pool.
pub struct Slashing;

impl pallet_potluck_providers::SlashingPolicies for Slashing {
    fn in_force(policy: &PolicyHash, at: u32) -> bool {
        Policies::active(PolicyKind::Slashing, PoolClass::PUBLIC, at) == Some(*policy)
    }
}

/// Calls of providers cost what those of credits do.
pub struct CreditFee;

impl pallet_potluck_providers::CallFee<AccountId> for CreditFee {
    fn take(who: &AccountId) -> DispatchResult {
        Credits::take_call_fee(who)
    }
}

impl pallet_potluck_providers::Config for Runtime {
    type Credits = CreditBalances;
    type RuntimeHoldReason = RuntimeHoldReason;
    type GovernanceOrigin = EnsureRoot<AccountId>;
    type AppealOrigin = crate::governance::PolicyOrigin;
    type Policies = Slashing;
    type CallFee = CreditFee;
    type Treasury = TreasuryAccount;
    type WeightInfo = ();
}
