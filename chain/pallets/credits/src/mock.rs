//! A runtime with this pallet, and credits as the real one has them: a second balance without calls.

use frame_support::{
    PalletId, derive_impl,
    dispatch::{DispatchResultWithPostInfo, GetDispatchInfo},
    parameter_types,
    traits::{ConstU32, Hooks, StorageMapShim, UnfilteredDispatchable, VariantCountOf},
};
use frame_system::EnsureRoot;
use potluck_primitives::Genesis;
use sp_io::TestExternalities;
use sp_runtime::{AccountId32, BuildStorage, Permill, traits::IdentityLookup};

use crate::{CREDIT, Parameters, fixtures::account};

pub(crate) type Block = frame_system::mocking::MockBlockU32<Test>;

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
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    pub struct Test;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;
    #[runtime::pallet_index(1)]
    #[runtime::disable_call]
    pub type Ledger = pallet_balances<Instance2>;
    #[runtime::pallet_index(2)]
    pub type Credits = crate;
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type AccountId = AccountId32;
    type Block = Block;
    type Lookup = IdentityLookup<AccountId32>;
}

parameter_types! {
    pub const CreditDeposit: u128 = 1;
    pub Treasury: AccountId32 = AccountId32::new([7; 32]);
    pub const Pots: PalletId = PalletId(*b"potlpots");
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

impl crate::Config for Test {
    type Credits = Ledger;
    type RuntimeHoldReason = RuntimeHoldReason;
    type GovernanceOrigin = EnsureRoot<AccountId32>;
    type Treasury = Treasury;
    type PalletId = Pots;
    type WeightInfo = ();
}

/// Small windows and round prices.
pub(crate) fn parameters() -> Parameters {
    Parameters {
        thaw_delay: 40,
        epoch_length: 10,
        dispute_window: 5,
        response_window: 3,
        claim_window: 30,
        call_fee: 10,
        min_redeem: 100,
        settler_bond: 10 * CREDIT,
        bond_share: Permill::from_percent(1),
        challenger_bond: CREDIT,
        protocol_share: Permill::from_percent(2),
    }
}

/// What each of the first ten accounts begins with.
pub(crate) const START: u128 = 1_000 * CREDIT;

/// A chain in block 1, whose accounts 0 to 9 have credits.
pub(crate) fn chain() -> TestExternalities {
    let config = RuntimeGenesisConfig {
        credits: crate::GenesisConfig {
            parameters: parameters(),
            grants: (0..10).map(|number| (account(number), START)).collect(),
        },
        ..Default::default()
    };
    let mut chain = TestExternalities::new(config.build_storage().unwrap());
    chain.execute_with(|| System::set_block_number(1));
    chain
}

/// Runs a test on a fresh chain and checks all invariants after it.
pub(crate) fn test(run: impl FnOnce()) {
    chain().execute_with(|| {
        run();
        check();
    });
}

/// Checks all invariants, and that nothing is held but for this pallet.
pub(crate) fn check() {
    use frame_support::traits::fungible::InspectHold;
    Credits::do_try_state().unwrap();
    for who in frame_system::Account::<Test>::iter_keys() {
        let ours: u128 =
            [crate::HoldReason::Escrow, crate::HoldReason::SettlerBond, crate::HoldReason::ChallengerBond]
                .map(|reason| Ledger::balance_on_hold(&reason.into(), &who))
                .iter()
                .sum();
        assert_eq!(ours, Ledger::total_balance_on_hold(&who));
    }
}

/// Sends a call as the chain would: what fails leaves no trace.
pub(crate) fn send(who: u32, call: crate::Call<Test>) -> DispatchResultWithPostInfo {
    let call = RuntimeCall::Credits(call);
    assert!(call.get_dispatch_info().call_weight.ref_time() > 0);
    call.dispatch_bypass_filter(RuntimeOrigin::signed(account(who)))
}

/// Sends a call that nobody signed.
pub(crate) fn send_bare(call: crate::Call<Test>) -> DispatchResultWithPostInfo {
    RuntimeCall::Credits(call).dispatch_bypass_filter(RuntimeOrigin::none())
}

/// Sends a call by governance.
pub(crate) fn send_root(call: crate::Call<Test>) -> DispatchResultWithPostInfo {
    RuntimeCall::Credits(call).dispatch_bypass_filter(RuntimeOrigin::root())
}

/// Goes on to a later block.
pub(crate) fn go_to(block: u32) {
    assert!(block >= System::block_number());
    System::set_block_number(block);
    <Credits as Hooks<u32>>::on_initialize(block);
}

/// The chain that vouchers are signed for here.
pub(crate) fn genesis() -> Genesis {
    Credits::genesis()
}
