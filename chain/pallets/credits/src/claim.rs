//! Leaves of a final batch, settled from one pot: credits are only paid from what debits of the same batch brought.

use alloc::vec;

use frame_support::{ensure, pallet_prelude::TransactionValidity, traits::Get};
use potluck_primitives::{Leaf, SumProof, blake2_256};
use sp_runtime::{AccountId32, DispatchError};

use crate::{
    Allowances, Batch, BatchId, Batches, CHUNK, Config, Error, Event, HoldReason, Paid, Pallet, Partly,
    Settled, Standing, Taken, redeem::Offer,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_claim(id: BatchId, leaf: &Leaf, proof: &SumProof) -> Result<Paid, DispatchError> {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        ensure!(batch.standing != Standing::Closed, Error::<T>::Closed);
        ensure!(batch.is_final(Self::now()), Error::<T>::NotFinal);
        ensure!(Self::contains(&batch, leaf, proof), Error::<T>::BadProof);
        let index = proof.index;
        ensure!(!Self::is_settled(id, index), Error::<T>::AlreadyClaimed);

        let before = Partly::<T>::get(id, index);
        let due = leaf.delta.unsigned_abs().checked_sub(before).ok_or(Error::<T>::Overflow)?;
        let account = AccountId32::new(leaf.account);
        let debit = leaf.delta < 0;
        let paid = if debit {
            Self::collect(id, &mut batch, &account, due)?
        } else {
            Self::give(&mut batch, &account, before, due)?
        };

        let left = due.checked_sub(paid.amount).ok_or(Error::<T>::Overflow)?;
        if left == 0 {
            Partly::<T>::remove(id, index);
            Self::mark_settled(id, index);
            batch.settled = batch.settled.checked_add(1).ok_or(Error::<T>::Overflow)?;
        } else {
            let settled = before.checked_add(paid.amount).ok_or(Error::<T>::Overflow)?;
            Partly::<T>::insert(id, index, settled);
        }
        Batches::<T>::insert(id, batch);
        let Paid { amount, share } = paid;
        Self::deposit_event(Event::Claimed { batch: id, index, account, debit, amount, share, due: left });
        Ok(paid)
    }

    /// Moves what a payer owes from its escrow into the pot: never more than the escrow, nor than the payer lets this
    /// settler take, nor than the settler was bonded for.
    fn collect(
        id: BatchId,
        batch: &mut Batch,
        payer: &AccountId32,
        due: u128,
    ) -> Result<Paid, DispatchError> {
        let bonded = batch.gross.checked_sub(batch.debited).ok_or(Error::<T>::Overflow)?;
        let taken = Taken::<T>::get(id, payer);
        let allowed = Allowances::<T>::get(payer, &batch.settler).of(batch.epoch);
        let allowed = allowed.checked_sub(taken).ok_or(Error::<T>::NothingToCollect)?;
        let amount = due.min(bonded).min(allowed).min(Self::held(HoldReason::Escrow, payer));
        ensure!(amount > 0, Error::<T>::NothingToCollect);
        Self::pay_held(HoldReason::Escrow, payer, &Self::pot_account(), amount)?;
        Taken::<T>::insert(id, payer, taken.checked_add(amount).ok_or(Error::<T>::Overflow)?);
        batch.debited = batch.debited.checked_add(amount).ok_or(Error::<T>::Overflow)?;
        batch.pot = batch.pot.checked_add(amount).ok_or(Error::<T>::Overflow)?;
        Ok(Paid { amount, share: 0 })
    }

    /// Moves what a payee is owed out of the pot, less the treasury's share.
    fn give(batch: &mut Batch, payee: &AccountId32, before: u128, due: u128) -> Result<Paid, DispatchError> {
        let amount = due.min(batch.pot);
        // A leaf that nets to nothing is settled by looking at it.
        ensure!(amount > 0 || due == 0, Error::<T>::PotEmpty);
        let after = before.checked_add(amount).ok_or(Error::<T>::Overflow)?;
        let share = Self::share_between(before, after)?;
        let to_payee = amount.checked_sub(share).ok_or(Error::<T>::Overflow)?;
        Self::pay_from_pot(payee, to_payee)?;
        Self::pay_from_pot(&T::Treasury::get(), share)?;
        batch.pot = batch.pot.checked_sub(amount).ok_or(Error::<T>::Overflow)?;
        Ok(Paid { amount, share })
    }

    /// Whether a leaf is wholly settled.
    pub(crate) fn is_settled(id: BatchId, index: u32) -> bool {
        let (chunk, byte, bit) = place(index);
        Settled::<T>::get(id, chunk).get(byte).is_some_and(|bits| bits & bit != 0)
    }

    fn mark_settled(id: BatchId, index: u32) {
        let (chunk, byte, bit) = place(index);
        Settled::<T>::mutate(id, chunk, |bits| {
            if let Some(bits) = bits.get_mut(byte) {
                *bits |= bit;
            }
        });
    }

    /// Lets a claim in without a signature or a fee, if it moves enough.
    pub(crate) fn validate_claim(id: BatchId, leaf: &Leaf, proof: &SumProof) -> TransactionValidity {
        Self::admit("PotluckClaim", 1, || {
            let paid = Self::do_claim(id, leaf, proof)?;
            let slot = blake2_256(&[&id.to_le_bytes(), &proof.index.to_le_bytes()]);
            Ok(Offer { paid: paid.amount, slots: vec![slot] })
        })
    }
}

/// Where the bit of a leaf lies: its chunk, the byte in it, and the bit in that.
fn place(index: u32) -> (u32, usize, u8) {
    let within = index % CHUNK;
    (index / CHUNK, usize::try_from(within / 8).unwrap_or_default(), 1_u8.wrapping_shl(within % 8))
}
