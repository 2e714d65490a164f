//! Who decides: votes with the governance token, on two tracks, enacted by the scheduler.

use alloc::borrow::Cow;

use frame_support::{
    PalletId, parameter_types,
    traits::{
        EitherOf, EqualPrivilegeOnly, LinearStoragePrice, OriginTrait,
        fungible::HoldConsideration,
        tokens::{PayFromAccount, UnityAssetBalanceConversion},
    },
};
use frame_system::{EnsureRoot, EnsureSigned};
use pallet_referenda::{Curve, Track, TrackInfo, TracksInfo};
use sp_runtime::{Perbill, Permill, traits::IdentityLookup};

use crate::{
    AccountId, Balance, Balances, BlockNumber, DAYS, MAXIMUM_BLOCK_WEIGHT, MILLITOKEN, OriginCaller,
    Preimage, Referenda, Runtime, RuntimeCall, RuntimeEvent, RuntimeHoldReason, RuntimeOrigin, Scheduler,
    System, TOKEN, Treasury, TreasuryAccount,
    origins::{EnsurePolicies, Origin},
    parameters::{Current, Periods, VoteLock},
};

/// Governance as the pallets of the public pool know it: the root, or the track of policies.
pub(crate) type PolicyOrigin = EitherOf<EnsureRoot<AccountId>, EnsurePolicies>;

parameter_types! {
    pub const PreimageHoldReason: RuntimeHoldReason =
        RuntimeHoldReason::Preimage(pallet_preimage::HoldReason::Preimage);
    pub const PreimageBase: Balance = 10 * MILLITOKEN;
    pub const PreimageByte: Balance = MILLITOKEN / 100;
    pub MaximumSchedulerWeight: frame_support::weights::Weight = MAXIMUM_BLOCK_WEIGHT / 2;
    pub const SubmissionDeposit: Balance = TOKEN;
    pub const UndecidingTimeout: BlockNumber = 14 * DAYS;
    pub const SpendPeriod: BlockNumber = DAYS;
    pub const PayoutPeriod: BlockNumber = 30 * DAYS;
    pub const TreasuryPalletId: PalletId = PalletId(*b"potltrsy");
    pub const NothingBurnt: Permill = Permill::zero();
}

impl pallet_preimage::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_preimage::weights::SubstrateWeight<Runtime>;
    type Currency = Balances;
    type ManagerOrigin = EnsureRoot<AccountId>;
    type Consideration = HoldConsideration<
        AccountId,
        Balances,
        PreimageHoldReason,
        LinearStoragePrice<PreimageBase, PreimageByte, Balance>,
    >;
}

impl pallet_scheduler::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeOrigin = RuntimeOrigin;
    type PalletsOrigin = OriginCaller;
    type RuntimeCall = RuntimeCall;
    type MaximumWeight = MaximumSchedulerWeight;
    type ScheduleOrigin = EnsureRoot<AccountId>;
    type OriginPrivilegeCmp = EqualPrivilegeOnly;
    type MaxScheduledPerBlock = frame_support::traits::ConstU32<50>;
    type WeightInfo = pallet_scheduler::weights::SubstrateWeight<Runtime>;
    type Preimages = Preimage;
    type BlockNumberProvider = System;
}

/// The tracks: 0 is the root, 1 approves policies and rules on appeals. Their periods are settings.
#[derive(Debug)]
pub struct Tracks;

impl Tracks {
    fn track(id: u16, name: &str, deposit: Balance, periods: Periods) -> Track<u16, Balance, BlockNumber> {
        let mut padded = [0; 25];
        for (to, from) in padded.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        let whole = Perbill::from_percent(100);
        let half = Perbill::from_percent(50);
        Track {
            id,
            info: TrackInfo {
                name: padded,
                max_deciding: 10,
                decision_deposit: deposit,
                prepare_period: periods.prepare,
                decision_period: periods.decision,
                confirm_period: periods.confirm,
                min_enactment_period: periods.enactment,
                min_approval: Curve::LinearDecreasing { length: whole, floor: half, ceil: whole },
                // Few may decide only after many had the time to object.
                min_support: Curve::LinearDecreasing {
                    length: whole,
                    floor: Perbill::from_percent(if id == 0 { 10 } else { 5 }),
                    ceil: half,
                },
            },
        }
    }
}

impl TracksInfo<Balance, BlockNumber> for Tracks {
    type Id = u16;
    type RuntimeOrigin = <RuntimeOrigin as OriginTrait>::PalletsOrigin;

    fn tracks() -> impl Iterator<Item = Cow<'static, Track<u16, Balance, BlockNumber>>> {
        let now = Current::<Runtime>::get();
        [
            Cow::Owned(Self::track(0, "root", 100 * TOKEN, now.root)),
            Cow::Owned(Self::track(1, "policies", 10 * TOKEN, now.policies)),
        ]
        .into_iter()
    }

    fn track_for(origin: &Self::RuntimeOrigin) -> Result<u16, ()> {
        match origin {
            OriginCaller::system(frame_system::RawOrigin::Root) => Ok(0),
            OriginCaller::Origins(Origin::Policies) => Ok(1),
            _ => Err(()),
        }
    }
}

impl pallet_referenda::Config for Runtime {
    type RuntimeCall = RuntimeCall;
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_referenda::weights::SubstrateWeight<Runtime>;
    type Scheduler = Scheduler;
    type Currency = Balances;
    type SubmitOrigin = frame_support::traits::AsEnsureOriginWithArg<EnsureSigned<AccountId>>;
    type CancelOrigin = EnsureRoot<AccountId>;
    type KillOrigin = EnsureRoot<AccountId>;
    type Slash = Treasury;
    type Votes = Balance;
    type Tally = pallet_conviction_voting::TallyOf<Runtime>;
    type SubmissionDeposit = SubmissionDeposit;
    type MaxQueued = frame_support::traits::ConstU32<100>;
    type UndecidingTimeout = UndecidingTimeout;
    type AlarmInterval = frame_support::traits::ConstU32<1>;
    type Tracks = Tracks;
    type Preimages = Preimage;
    type BlockNumberProvider = System;
}

impl pallet_conviction_voting::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_conviction_voting::weights::SubstrateWeight<Runtime>;
    type Currency = Balances;
    type Polls = Referenda;
    type MaxTurnout = frame_support::traits::TotalIssuanceOf<Balances, AccountId>;
    type MaxVotes = frame_support::traits::ConstU32<64>;
    type VoteLockingPeriod = VoteLock;
    type BlockNumberProvider = System;
    type VotingHooks = ();
}

impl pallet_treasury::Config for Runtime {
    type Currency = Balances;
    type RejectOrigin = EnsureRoot<AccountId>;
    type RuntimeEvent = RuntimeEvent;
    type SpendPeriod = SpendPeriod;
    type Burn = NothingBurnt;
    type PalletId = TreasuryPalletId;
    type BurnDestination = ();
    type WeightInfo = pallet_treasury::weights::SubstrateWeight<Runtime>;
    type SpendFunds = ();
    type MaxApprovals = frame_support::traits::ConstU32<0>;
    type SpendOrigin = frame_system::EnsureRootWithSuccess<AccountId, MaxSpend>;
    type AssetKind = ();
    type Beneficiary = AccountId;
    type BeneficiaryLookup = IdentityLookup<AccountId>;
    type Paymaster = PayFromAccount<Balances, TreasuryAccount>;
    type BalanceConverter = UnityAssetBalanceConversion;
    type PayoutPeriod = PayoutPeriod;
    type BlockNumberProvider = System;
}

parameter_types! {
    pub const MaxSpend: Balance = Balance::MAX;
}

impl crate::origins::Config for Runtime {}
