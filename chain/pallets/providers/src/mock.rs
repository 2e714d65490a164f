//! A runtime with this pallet, and credits as the real one has them: a second balance without calls.

use frame_support::{
    derive_impl, parameter_types,
    traits::{
        ConstU32, Hooks as _, StorageMapShim, VariantCountOf, fungible::Mutate as _, tokens::Preservation,
    },
};
use frame_system::EnsureRoot;
use potluck_primitives::{Genesis, PolicyHash};
use sp_core::H256;
use sp_io::TestExternalities;
use sp_runtime::{AccountId32, BuildStorage as _, DispatchResult, Permill, traits::IdentityLookup};

use crate::{CallFee, Parameters, SlashingPolicies, fixtures::account};

type Block = frame_system::mocking::MockBlockU32<Test>;

#[frame_support::runtime]
mod runtime {
    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeTask
    )]
    pub struct Test;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;
    #[runtime::pallet_index(1)]
    #[runtime::disable_call]
    pub type Ledger = pallet_balances<Instance2>;
    #[runtime::pallet_index(2)]
    pub type Providers = crate;
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type AccountId = AccountId32;
    type Block = Block;
    type BlockHashCount = ConstU32<256>;
    type Lookup = IdentityLookup<AccountId32>;
}

parameter_types! {
    pub const CreditDeposit: u128 = 1;
    pub Treasury: AccountId32 = AccountId32::new([7; 32]);
}

impl pallet_balances::Config<pallet_balances::Instance2> for Test {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeHoldReason = RuntimeHoldReason;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type WeightInfo = ();
    type Balance = u128;
    type DustRemoval = ();
    type ExistentialDeposit = CreditDeposit;
    type AccountStore = StorageMapShim<
        pallet_balances::Account<Test, pallet_balances::Instance2>,
        AccountId32,
        pallet_balances::AccountData<u128>,
    >;
    type ReserveIdentifier = [u8; 8];
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxLocks = ConstU32<0>;
    type MaxReserves = ConstU32<0>;
    type MaxFreezes = VariantCountOf<RuntimeFreezeReason>;
    type DoneSlashHandler = ();
}

/// The slashing policy that is approved in tests, from block [`POLICY_FROM`] on.
pub(crate) const POLICY: PolicyHash = PolicyHash([1; 32]);
/// See [`POLICY`].
pub(crate) const POLICY_FROM: u32 = 1;
/// What a call costs in tests that is paid in credits.
pub(crate) const FEE: u128 = 10;

/// Approves [`POLICY`].
pub struct Policies;

impl SlashingPolicies for Policies {
    fn in_force(policy: &PolicyHash, at: u32) -> bool {
        *policy == POLICY && at >= POLICY_FROM
    }
}

/// Takes [`FEE`].
pub struct Fee;

impl CallFee<AccountId32> for Fee {
    fn take(who: &AccountId32) -> DispatchResult {
        Ledger::transfer(who, &Treasury::get(), FEE, Preservation::Preserve).map(|_| ())
    }
}

impl crate::Config for Test {
    type Credits = Ledger;
    type RuntimeHoldReason = RuntimeHoldReason;
    type GovernanceOrigin = EnsureRoot<AccountId32>;
    type AppealOrigin = EnsureRoot<AccountId32>;
    type Policies = Policies;
    type CallFee = Fee;
    type Treasury = Treasury;
    type WeightInfo = ();
}

/// Small windows and round prices.
pub(crate) fn parameters() -> Parameters {
    Parameters {
        work_bits: 4,
        registration_age: 10,
        registration_life: 50,
        unbonding_period: 20,
        verifier_stake: 1_000,
        era_length: 5,
        verdict_age: 20,
        sample: 3,
        quorum: 2,
        appeal_window: 5,
        ruling_window: 8,
        appeal_bond: 500,
        signer_share: Permill::from_percent(20),
    }
}

/// What each of the first ten accounts begins with.
pub(crate) const START: u128 = 1_000_000;

/// A chain in block 1, whose accounts 0 to 9 have credits.
pub(crate) fn new_test_ext() -> TestExternalities {
    let config = RuntimeGenesisConfig {
        ledger: pallet_balances::GenesisConfig {
            balances: (0..10).map(|number| (account(number), START)).collect(),
            ..Default::default()
        },
        providers: crate::GenesisConfig { parameters: parameters(), ..Default::default() },
        ..Default::default()
    };
    let mut chain = TestExternalities::new(config.build_storage().unwrap());
    chain.execute_with(|| {
        frame_system::BlockHash::<Test>::insert(0, H256([0x45; 32]));
        begin(1);
    });
    chain
}

/// What signatures of the tests' chain are made for.
pub(crate) const GENESIS: Genesis = Genesis([0x45; 32]);

fn begin(block: u32) {
    System::set_block_number(block);
    // The hash of the block before is known in this one.
    if block > 1 {
        let hash = potluck_primitives::blake2_256(&[&block.to_le_bytes()]);
        frame_system::BlockHash::<Test>::insert(block - 1, H256(hash));
    }
    Providers::on_initialize(block);
}

/// Goes to a block, by all between.
pub(crate) fn go_to(block: u32) {
    for next in System::block_number() + 1..=block {
        begin(next);
    }
}

/// Runs a test on a new chain, and checks the state after it.
pub(crate) fn run(test: impl FnOnce()) {
    new_test_ext().execute_with(|| {
        test();
        check();
    });
}

/// Checks what must always hold, here also that no credits came or went.
pub(crate) fn check() {
    assert_eq!(Providers::do_try_state(), Ok(()));
    assert_eq!(pallet_balances::TotalIssuance::<Test, pallet_balances::Instance2>::get(), 10 * START);
    let sum: u128 = pallet_balances::Account::<Test, pallet_balances::Instance2>::iter_values()
        .map(|account| account.free + account.reserved)
        .sum();
    assert_eq!(sum, 10 * START);
}
