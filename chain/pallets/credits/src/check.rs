//! What must hold after every call.

use alloc::collections::BTreeMap;

use frame_support::{
    ensure,
    traits::fungible::{Inspect, InspectHold},
};
use sp_runtime::{AccountId32, TryRuntimeError};

use crate::{
    Batch, BatchCount, Batches, Burnt, Challenge, Challenges, Config, Epochs, Granted, HoldReason, Lanes,
    Pallet, Partly, Settings, Settled, Settlers, Standing, Taken, Thaws,
};

type Amounts = BTreeMap<AccountId32, u128>;

fn add(to: &mut u128, amount: u128) -> Result<(), TryRuntimeError> {
    *to = to.checked_add(amount).ok_or("a sum that cannot be counted")?;
    Ok(())
}

impl<T: Config> Pallet<T> {
    /// Checks the invariants of this pallet over all of its state. Expensive: for tests and try-runtime only.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn do_try_state() -> Result<(), TryRuntimeError> {
        ensure!(Settings::<T>::get().sound(), "unsound parameters");
        let (settlers, challengers) = Self::try_batches()?;
        Self::try_ledger(&settlers, &challengers)?;
        for (payer, thaw) in Thaws::<T>::iter() {
            ensure!(thaw.amount > 0, "nothing was asked back");
            ensure!(payer != Self::pot_account(), "the pot asked something back");
        }
        for (key, lane) in Lanes::<T>::iter() {
            ensure!(lane.redeemed <= lane.cumulative, "a lane paid more than was signed for");
            ensure!(key.payer != key.payee, "a lane of one party");
        }
        Ok(())
    }

    /// Batches and challenges; gives what must be held of settlers and challengers for them.
    fn try_batches() -> Result<(Amounts, Amounts), TryRuntimeError> {
        let (mut settlers, mut challengers) = (Amounts::new(), Amounts::new());
        let (mut pots, mut epochs) = (0, 0_usize);
        for (id, batch) in Batches::<T>::iter() {
            ensure!(id < BatchCount::<T>::get(), "a batch that was never counted");
            ensure!(Settlers::<T>::contains_key(&batch.settler), "a batch of no settler");
            let named = Epochs::<T>::get(&batch.settler, batch.epoch) == Some(id);
            ensure!(named, "a batch that is not its epoch's");
            Self::try_batch(id, &batch)?;
            add(&mut pots, batch.pot)?;
            add(settlers.entry(batch.settler).or_default(), batch.bond)?;
            epochs = epochs.saturating_add(1);
        }
        ensure!(Epochs::<T>::iter().count() == epochs, "an epoch of no batch");
        for (id, _, challenge) in Challenges::<T>::iter() {
            ensure!(Batches::<T>::contains_key(id), "a challenge of no batch");
            if let Challenge::Open { challenger, bond, .. } = challenge {
                add(challengers.entry(challenger).or_default(), bond)?;
            }
        }
        ensure!(T::Credits::balance(&Self::pot_account()) >= pots, "pots that are not there");
        Ok((settlers, challengers))
    }

    fn try_batch(id: u32, batch: &Batch) -> Result<(), TryRuntimeError> {
        ensure!(batch.root.sum == 0, "a batch that mints or burns");
        ensure!(batch.pot <= batch.debited && batch.debited <= batch.gross, "a batch that took too much");
        let open = Challenges::<T>::iter_prefix(id).filter(|(_, it)| matches!(it, Challenge::Open { .. }));
        ensure!(open.count() == batch.open as usize, "challenges that were not counted");
        let bits = Settled::<T>::iter_prefix(id)
            .flat_map(|(_, bits)| bits)
            .map(u8::count_ones)
            .fold(0, u32::saturating_add);
        match batch.standing {
            Standing::Submitted => {
                ensure!(bits == batch.settled, "leaves that were not counted");
                let started = batch.debited > 0 || batch.settled > 0;
                ensure!(!started || batch.is_final(Self::now()), "claims of a batch in dispute");
            }
            Standing::Void => {
                ensure!(
                    batch.bond == 0 && batch.debited == 0 && bits == 0,
                    "a void batch that moved something"
                );
            }
            Standing::Closed => {
                ensure!(batch.bond == 0 && batch.pot == 0, "a closed batch that has something")
            }
        }
        if batch.standing != Standing::Closed {
            let mut taken = 0;
            for (_, amount) in Taken::<T>::iter_prefix(id) {
                add(&mut taken, amount)?;
            }
            ensure!(taken == batch.debited, "debits of nobody");
        }
        for (index, _) in Partly::<T>::iter_prefix(id) {
            let whole = batch.standing != Standing::Closed && Self::is_settled(id, index);
            ensure!(!whole, "a leaf that is settled and is not");
        }
        Ok(())
    }

    fn try_ledger(settlers: &Amounts, challengers: &Amounts) -> Result<(), TryRuntimeError> {
        let mut total = 0;
        for account in frame_system::Account::<T>::iter_keys() {
            add(&mut total, T::Credits::total_balance(&account))?;
            let expected = |amounts: &Amounts| amounts.get(&account).copied().unwrap_or_default();
            let bond = Self::held(HoldReason::SettlerBond, &account);
            ensure!(bond == expected(settlers), "a settler's bond that is not its batches'");
            let bond = Self::held(HoldReason::ChallengerBond, &account);
            ensure!(bond == expected(challengers), "a challenger's bond that is not its challenges'");
            let ours = [HoldReason::Escrow, HoldReason::SettlerBond, HoldReason::ChallengerBond];
            let mut held = 0;
            for reason in ours {
                add(&mut held, Self::held(reason, &account))?;
            }
            ensure!(held <= T::Credits::total_balance_on_hold(&account), "holds that are not there");
        }
        let issuance = T::Credits::total_issuance();
        ensure!(total == issuance, "credits that nobody has");
        let made = Granted::<T>::get().checked_sub(Burnt::<T>::get());
        ensure!(made == Some(issuance), "credits that were neither granted nor burnt");
        Ok(())
    }
}
