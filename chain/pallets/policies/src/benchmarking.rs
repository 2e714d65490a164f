//! The worst case of each call: a full history, a policy to come, one whose height has come.

use frame_benchmarking::v2::*;
use frame_support::traits::{EnsureOrigin, Get as _};
use frame_system::pallet_prelude::BlockNumberFor;
use potluck_primitives::{PolicyHash, PolicyKind, PoolClass};
use sp_runtime::traits::{One, Zero};

use crate::{Approval, Approved, Call, Config, History, MAX_HISTORY, MAX_URI, Pallet, Past, Scheduled, Uri};

const KIND: PolicyKind = PolicyKind::Routing;
const CLASS: PoolClass = PoolClass(0);

fn uri() -> Uri {
    Uri::truncate_from(alloc::vec![b'x'; MAX_URI as usize])
}

fn approval<T: Config>(byte: u8, from: BlockNumberFor<T>) -> Approval<BlockNumberFor<T>> {
    Approval { hash: PolicyHash([byte; 32]), from, decided: Zero::zero(), uri: uri() }
}

/// Fills what a call has to move; the policy to come has the hash 2.
fn fill<T: Config>() {
    let one = BlockNumberFor::<T>::one();
    let mut history = History::<T>::get(KIND, CLASS);
    for _ in 0..MAX_HISTORY {
        let past = Past { hash: PolicyHash([0; 32]), from: Zero::zero(), until: one };
        history.try_push(past).unwrap_or_default();
    }
    History::<T>::insert(KIND, CLASS, history);
    Approved::<T>::insert(KIND, CLASS, approval::<T>(1, one));
    Scheduled::<T>::insert(KIND, CLASS, approval::<T>(2, one + one));
    frame_system::Pallet::<T>::set_block_number(10u32.into());
}

#[benchmarks]
mod benchmarks {
    use super::*;

    #[benchmark]
    fn approve() -> Result<(), BenchmarkError> {
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        fill::<T>();
        let at = frame_system::Pallet::<T>::block_number() + T::MinDelay::get();

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, KIND, CLASS, PolicyHash([3; 32]), at, uri());

        assert_eq!(Pallet::<T>::active(KIND, CLASS, at), Some(PolicyHash([3; 32])));
        Ok(())
    }

    #[benchmark]
    fn revoke() -> Result<(), BenchmarkError> {
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        fill::<T>();

        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, KIND, CLASS, PolicyHash([2; 32]));

        let now = frame_system::Pallet::<T>::block_number();
        assert_eq!(Pallet::<T>::active(KIND, CLASS, now), None);
        Ok(())
    }

    impl_benchmark_test_suite!(Pallet, crate::mock::new_test_ext(), crate::mock::Test);
}
