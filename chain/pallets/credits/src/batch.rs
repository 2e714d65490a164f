//! Batches: who submits them, how long they can be disputed, and how they end.

use frame_support::{ensure, pallet_prelude::DispatchResult, traits::Get};
use potluck_primitives::{Leaf, PUBLIC_POOL, SumNode, SumProof};
use sp_runtime::AccountId32;

use crate::{
    Allowances, Batch, BatchCount, BatchId, Batches, CLEAR_LIMIT, Challenge, Challenges, Config, Epoch,
    Epochs, Error, Event, Fault, HoldReason, MAX_LEAVES, Pallet, Partly, Settings, Settled, Settlers,
    Standing, Taken,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_register_settler(who: &AccountId32) -> DispatchResult {
        // Its vouchers would be redeemed one by one and in batches too. Anyone can sign for this key: it is of
        // small order.
        ensure!(*who != AccountId32::new(PUBLIC_POOL), Error::<T>::ReservedAccount);
        ensure!(!Settlers::<T>::contains_key(who), Error::<T>::AlreadySettler);
        Settlers::<T>::insert(who, Self::now());
        Self::deposit_event(Event::SettlerRegistered { settler: who.clone() });
        Ok(())
    }

    pub(crate) fn do_allow_settler(who: &AccountId32, settler: &AccountId32, limit: u128) -> DispatchResult {
        ensure!(Settlers::<T>::contains_key(settler), Error::<T>::NotSettler);
        let now = Self::now();
        let mut allowance = Allowances::<T>::get(who, settler);
        if limit >= allowance.limit {
            allowance.before = allowance.before.max(limit);
        } else {
            let delay = Settings::<T>::get().thaw_delay;
            let free_from = allowance.lowered_at.map(|at| at.saturating_add(delay));
            ensure!(free_from.is_none_or(|from| now >= from), Error::<T>::LoweredBefore);
            allowance.before = allowance.limit;
            allowance.from = Self::epoch_of(now).checked_add(1).ok_or(Error::<T>::Overflow)?;
            allowance.lowered_at = Some(now);
        }
        allowance.limit = limit;
        let (payer, settler, from) = (who.clone(), settler.clone(), allowance.from);
        Allowances::<T>::insert(who, &settler, allowance);
        Self::deposit_event(Event::SettlerAllowed { payer, settler, limit, from });
        Ok(())
    }

    pub(crate) fn do_submit_batch(
        who: &AccountId32,
        epoch: Epoch,
        root: SumNode,
        leaf_count: u32,
        gross: u128,
    ) -> DispatchResult {
        ensure!(Settlers::<T>::contains_key(who), Error::<T>::NotSettler);
        let now = Self::now();
        ensure!(epoch.checked_add(1) == Some(Self::epoch_of(now)), Error::<T>::WrongEpoch);
        ensure!(!Epochs::<T>::contains_key(who, epoch), Error::<T>::AlreadySubmitted);
        ensure!(root.sum == 0, Error::<T>::NotZeroSum);
        ensure!((1..=MAX_LEAVES).contains(&leaf_count), Error::<T>::LeafCount);

        let settings = Settings::<T>::get();
        let of_gross = settings.bond_share.mul_ceil(gross);
        let bond = settings.settler_bond.checked_add(of_gross).ok_or(Error::<T>::Overflow)?;
        Self::hold(HoldReason::SettlerBond, who, bond)?;

        let after = |from: u32, blocks: u32| from.checked_add(blocks).ok_or(Error::<T>::Overflow);
        let challenges_until = after(now, settings.dispute_window)?;
        // Each answer may put off the end by a window, and the last comes a window after the last challenge.
        let latest = after(after(challenges_until, settings.response_window)?, settings.response_window)?;
        let closable_from = after(latest, settings.claim_window)?;
        let id = BatchCount::<T>::get();
        BatchCount::<T>::put(id.checked_add(1).ok_or(Error::<T>::Overflow)?);
        Epochs::<T>::insert(who, epoch, id);
        let batch = Batch {
            settler: who.clone(),
            epoch,
            root,
            leaf_count,
            gross,
            bond,
            submitted: now,
            challenges_until,
            proofs_until: challenges_until,
            closable_from,
            open: 0,
            debited: 0,
            pot: 0,
            settled: 0,
            standing: Standing::Submitted,
        };
        Batches::<T>::insert(id, batch);
        Self::deposit_event(Event::BatchSubmitted {
            batch: id,
            settler: who.clone(),
            epoch,
            root,
            leaf_count,
            gross,
            bond,
            challenges_until,
        });
        Ok(())
    }

    /// Voids a batch: half of its bond goes to who showed why, the rest is burnt. If all of it went to the winner, a
    /// settler could lose to itself and lose nothing.
    pub(crate) fn void(id: BatchId, batch: &mut Batch, winner: &AccountId32, fault: Fault) -> DispatchResult {
        let (reward, burnt) = halves(batch.bond).ok_or(Error::<T>::Overflow)?;
        Self::pay_held(HoldReason::SettlerBond, &batch.settler, winner, reward)?;
        Self::burn_held(HoldReason::SettlerBond, &batch.settler, burnt)?;
        batch.bond = 0;
        batch.standing = Standing::Void;
        Self::deposit_event(Event::BatchVoided { batch: id, fault, winner: winner.clone(), reward, burnt });
        Ok(())
    }

    /// Whether the batch has this leaf where the proof says.
    pub(crate) fn contains(batch: &Batch, leaf: &Leaf, proof: &SumProof) -> bool {
        proof.leaf_count == batch.leaf_count && proof.verify(leaf, &batch.root)
    }

    pub(crate) fn do_release_bond(id: BatchId) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        ensure!(batch.is_final(Self::now()), Error::<T>::NotFinal);
        ensure!(batch.bond > 0, Error::<T>::NoBond);
        Self::release_bond_of(id, &mut batch)?;
        Batches::<T>::insert(id, batch);
        Ok(())
    }

    fn release_bond_of(id: BatchId, batch: &mut Batch) -> DispatchResult {
        let amount = core::mem::take(&mut batch.bond);
        Self::release(HoldReason::SettlerBond, &batch.settler, amount)?;
        Self::deposit_event(Event::BondReleased { batch: id, settler: batch.settler.clone(), amount });
        Ok(())
    }

    pub(crate) fn do_close_batch(id: BatchId) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        let now = Self::now();
        ensure!(batch.is_final(now), Error::<T>::NotFinal);
        if batch.standing != Standing::Closed {
            let done = batch.settled == batch.leaf_count || now >= batch.closable_from;
            ensure!(done, Error::<T>::Unsettled);
            if batch.bond > 0 {
                Self::release_bond_of(id, &mut batch)?;
            }
            let remainder = core::mem::take(&mut batch.pot);
            Self::pay_from_pot(&T::Treasury::get(), remainder)?;
            batch.standing = Standing::Closed;
            Batches::<T>::insert(id, batch);
            Self::deposit_event(Event::BatchClosed { batch: id, remainder });
        } else {
            let clean = Settled::<T>::iter_key_prefix(id).next().is_none()
                && Partly::<T>::iter_key_prefix(id).next().is_none()
                && Taken::<T>::iter_key_prefix(id).next().is_none()
                && Challenges::<T>::iter_key_prefix(id).next().is_none();
            ensure!(!clean, Error::<T>::Closed);
        }
        // What is left is taken out by further calls.
        let _ = Settled::<T>::clear_prefix(id, CLEAR_LIMIT, None);
        let _ = Partly::<T>::clear_prefix(id, CLEAR_LIMIT, None);
        let _ = Taken::<T>::clear_prefix(id, CLEAR_LIMIT, None);
        let _ = Challenges::<T>::clear_prefix(id, CLEAR_LIMIT, None);
        Ok(())
    }

    pub(crate) fn do_reclaim_challenge(id: BatchId, index: u32) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        ensure!(batch.standing == Standing::Void, Error::<T>::NotVoid);
        let Some(Challenge::Open { challenger, bond, .. }) = Challenges::<T>::get(id, index) else {
            return Err(Error::<T>::NotChallenged.into());
        };
        Self::return_challenge(id, &mut batch, index, &challenger, bond)?;
        Batches::<T>::insert(id, batch);
        Ok(())
    }

    pub(crate) fn return_challenge(
        id: BatchId,
        batch: &mut Batch,
        index: u32,
        challenger: &AccountId32,
        bond: u128,
    ) -> DispatchResult {
        Self::release(HoldReason::ChallengerBond, challenger, bond)?;
        Challenges::<T>::remove(id, index);
        batch.open = batch.open.checked_sub(1).ok_or(Error::<T>::Overflow)?;
        let challenger = challenger.clone();
        Self::deposit_event(Event::ChallengeReturned { batch: id, index, challenger, bond });
        Ok(())
    }
}

/// Half of an amount rounded down, and the rest.
pub(crate) fn halves(amount: u128) -> Option<(u128, u128)> {
    let half = amount.checked_div(2)?;
    Some((half, amount.checked_sub(half)?))
}
