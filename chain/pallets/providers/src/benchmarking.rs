//! The worst case of each call.

use alloc::vec::Vec;

use frame_benchmarking::v2::*;
use frame_support::{
    BoundedVec,
    traits::{EnsureOrigin, fungible::Mutate as _},
};
use frame_system::{RawOrigin, pallet_prelude::BlockNumberFor};
use potluck_primitives::{Account, Block, MAX_SIGNERS, MILLION, MicroCredits, PolicyHash, Verdict};
use sp_core::H256;
use sp_runtime::AccountId32;

use crate::{
    fixtures::{account as numbered, raw, registration, signed, verdict},
    *,
};

/// What accounts of benchmarks have.
const RICH: u128 = 1_000_000_000_000;
const JOB: Job = [1; 16];

/// An account with credits and a stake that leaves in as many parts as it can, one of them now.
fn staked<T: Config>(number: u32) -> AccountId32 {
    let who = numbered(number);
    T::Credits::set_balance(&who, RICH);
    let _ = Pallet::<T>::do_stake(&who, RICH / 2);
    Stakes::<T>::mutate(&who, |stake| {
        for at in 1..MAX_UNBONDING {
            let part = Unbonding { amount: 1_000, at };
            stake.active = stake.active.saturating_sub(part.amount);
            let _ = stake.unbonding.try_push(part);
        }
    });
    who
}

/// As many verifiers as there can be but one; the accounts 1 to 40 are among them, with all the stake.
fn verifiers<T: Config>() {
    let mut all: Vec<Account> = (1..MAX_VERIFIERS).map(raw).collect();
    all.sort();
    for key in &all {
        Stakes::<T>::insert(AccountId32::new(*key), Stake { active: 1, ..Default::default() });
    }
    for number in 1..=40 {
        staked::<T>(number);
    }
    Verifiers::<T>::put(BoundedVec::truncate_from(all));
    Changed::<T>::put(true);
}

/// Block 20, a set of verifiers of block 10, and the hashes in between.
fn judged<T: Config>() {
    verifiers::<T>();
    let parameters = Parameters {
        sample: MAX_SIGNERS,
        quorum: 1,
        era_length: 10,
        verdict_age: 100,
        appeal_bond: 1_000,
        verifier_stake: 1_000,
        ..Parameters::real()
    };
    Settings::<T>::put(parameters);
    at::<T>(10);
    assert!(Pallet::<T>::turn());
    at::<T>(20);
}

fn at<T: Config>(block: u32) {
    frame_system::Pallet::<T>::set_block_number(block.into());
    for block in 0..block {
        frame_system::BlockHash::<T>::insert(BlockNumberFor::<T>::from(block), H256([block as u8; 32]));
    }
}

/// A verdict about account 0 by so many signers, in the books as if it had been submitted.
fn case<T: Config>(stage: Stage) -> AccountId32 {
    let provider = staked::<T>(0);
    let signers: Vec<Account> = (1..=MAX_SIGNERS).map(raw).collect();
    let verdict = Verdict { at: Block(10), ..verdict(0, 1, PolicyHash([1; 32]), MILLION / 2, 10) };
    let case = Case { verdict, signers: BoundedVec::truncate_from(signers), stage };
    Cases::<T>::insert(&provider, JOB, case);
    Judged::<T>::insert(&provider, JOB, ());
    OpenCases::<T>::insert(&provider, 1);
    provider
}

/// A verdict that account 0 has appealed.
fn appealed<T: Config>() -> AccountId32 {
    let provider = case::<T>(Stage::Open { until: 100 });
    let _ = Pallet::<T>::do_appeal(&provider, JOB);
    provider
}

#[benchmarks]
mod benchmarks {
    use super::*;

    #[benchmark]
    fn register() -> Result<(), BenchmarkError> {
        at::<T>(2);
        let bits = Settings::<T>::get().work_bits.min(12);
        Settings::<T>::mutate(|settings| settings.work_bits = bits);
        let signed = registration(0, 1, 1, bits, &Pallet::<T>::genesis());
        T::Credits::set_balance(&numbered(1), RICH);

        #[extrinsic_call]
        _(RawOrigin::Signed(numbered(1)), signed);

        assert!(Registrations::<T>::contains_key(numbered(0)));
        Ok(())
    }

    #[benchmark]
    fn deregister() -> Result<(), BenchmarkError> {
        at::<T>(2);
        Settings::<T>::mutate(|settings| settings.work_bits = 0);
        let who = staked::<T>(0);
        let _ = Pallet::<T>::do_register(registration(0, 1, 1, 0, &Pallet::<T>::genesis()));

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()));

        assert!(!Registrations::<T>::contains_key(who));
        Ok(())
    }

    #[benchmark]
    fn stake() -> Result<(), BenchmarkError> {
        verifiers::<T>();
        let who = numbered(1);

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()), 1_000);

        assert!(Stakes::<T>::get(who).active > RICH / 2 - 16_000);
        Ok(())
    }

    #[benchmark]
    fn unstake() -> Result<(), BenchmarkError> {
        verifiers::<T>();
        Settings::<T>::mutate(|settings| settings.verifier_stake = 0);
        let who = numbered(1);

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()), 1_000);

        assert_eq!(Stakes::<T>::get(who).unbonding.len() as u32, MAX_UNBONDING);
        Ok(())
    }

    #[benchmark]
    fn withdraw_unstaked() -> Result<(), BenchmarkError> {
        let who = staked::<T>(0);
        at::<T>(100);

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()));

        assert!(Stakes::<T>::get(who).unbonding.is_empty());
        Ok(())
    }

    #[benchmark]
    fn register_verifier() -> Result<(), BenchmarkError> {
        verifiers::<T>();
        let who = staked::<T>(0);

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()));

        assert_eq!(Verifiers::<T>::get().len() as u32, MAX_VERIFIERS);
        Ok(())
    }

    #[benchmark]
    fn leave_verifiers() -> Result<(), BenchmarkError> {
        verifiers::<T>();

        #[extrinsic_call]
        _(RawOrigin::Signed(numbered(1)));

        assert_eq!(Verifiers::<T>::get().len() as u32, MAX_VERIFIERS - 2);
        Ok(())
    }

    #[benchmark]
    fn submit_verdict(n: Linear<1, MAX_SIGNERS>) -> Result<(), BenchmarkError> {
        judged::<T>();
        let provider = staked::<T>(0);
        let policy = PolicyHash([1; 32]);
        let drawn = Pallet::<T>::draw(&raw(0), &JOB, 15).map_err(|_| BenchmarkError::Weightless)?;
        let drawn: Vec<Account> = drawn.into_iter().take(n as usize).collect();
        let signed = signed(verdict(0, 1, policy, MILLION, 15), &drawn, &Pallet::<T>::genesis());

        #[extrinsic_call]
        _(RawOrigin::Signed(numbered(1)), signed);

        assert!(Cases::<T>::contains_key(provider, JOB));
        Ok(())
    }

    #[benchmark]
    fn appeal() -> Result<(), BenchmarkError> {
        let who = case::<T>(Stage::Open { until: 100 });

        #[extrinsic_call]
        _(RawOrigin::Signed(who.clone()), JOB);

        assert!(matches!(Cases::<T>::get(who, JOB), Some(Case { stage: Stage::Appealed { .. }, .. })));
        Ok(())
    }

    #[benchmark]
    fn rule() -> Result<(), BenchmarkError> {
        let origin = T::AppealOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        let provider = appealed::<T>();

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, provider.clone(), JOB, true);

        assert!(matches!(Cases::<T>::get(provider, JOB), Some(Case { stage: Stage::Upheld, .. })));
        Ok(())
    }

    #[benchmark]
    fn execute() -> Result<(), BenchmarkError> {
        verifiers::<T>();
        let provider = case::<T>(Stage::Upheld);

        #[extrinsic_call]
        _(RawOrigin::Signed(numbered(1)), provider.clone(), JOB);

        assert_eq!(Stakes::<T>::get(provider).total(), Some(RICH / 4));
        Ok(())
    }

    #[benchmark]
    fn set_parameters() -> Result<(), BenchmarkError> {
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, Parameters::development());

        assert_eq!(Settings::<T>::get(), Parameters::development());
        Ok(())
    }

    #[benchmark]
    fn turn() -> Result<(), BenchmarkError> {
        judged::<T>();
        let mut starts = SetStarts::<T>::get();
        for start in 11..10 + MAX_SETS {
            let set =
                BoundedVec::truncate_from(alloc::vec![(raw(1), MicroCredits(1)); MAX_VERIFIERS as usize]);
            Sets::<T>::insert(start, set);
            let _ = starts.try_push(start);
        }
        SetStarts::<T>::put(starts);
        Changed::<T>::put(true);
        frame_system::Pallet::<T>::set_block_number(10_000u32.into());

        #[block]
        {
            Pallet::<T>::turn();
        }

        assert_eq!(SetStarts::<T>::get().last(), Some(&10_000));
        Ok(())
    }

    impl_benchmark_test_suite!(Pallet, crate::mock::new_test_ext(), crate::mock::Test);
}
