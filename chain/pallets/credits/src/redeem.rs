//! Vouchers paid one by one.
//!
//! A lane pays the most that any voucher of it was shown for, less what it has paid. So the order of redemptions does
//! not matter, nor does how often each is tried; a later voucher for less takes nothing from an earlier one.

use alloc::{vec, vec::Vec};

use frame_support::{
    ensure,
    pallet_prelude::{InvalidTransaction, TransactionValidity, ValidTransaction},
    storage::with_storage_layer,
    traits::Get,
};
use potluck_primitives::{Account, PUBLIC_POOL, SignedVoucher, Voucher, blake2_256};
use sp_core::ed25519;
use sp_runtime::{AccountId32, DispatchError, Permill};

use crate::{
    BatchId, Batches, Config, Epochs, Error, Event, Evidence, HoldReason, Lane, LaneKey, Lanes, PAYER_SLOTS,
    Paid, Pallet, Refusal, Settings, Settlers, Standing, types::Epoch,
};

/// Blocks that a redemption waits in a node's queue.
const LONGEVITY: u64 = 64;
/// The reason that nodes give for refusing a transaction that would not pay enough to be free.
pub(crate) const PAYS_TOO_LITTLE: u8 = 1;

/// What a node's queue must know of a free transaction: what it pays, and which slots it takes.
pub(crate) struct Offer {
    pub(crate) paid: u128,
    pub(crate) slots: Vec<[u8; 32]>,
}

impl<T: Config> Pallet<T> {
    /// The epoch that a block is in.
    pub fn epoch_of(block: u32) -> Epoch {
        block.checked_div(Settings::<T>::get().epoch_length).unwrap_or_default()
    }

    pub(crate) fn do_redeem(vouchers: &[SignedVoucher]) -> Offer {
        let mut offer = Offer { paid: 0, slots: vec![] };
        for (index, signed) in (0_u32..).zip(vouchers) {
            match Self::redeem_one(signed) {
                // No ledger holds more than can be counted, but one may be paid in a circle.
                Ok(paid) => {
                    offer.paid = offer.paid.saturating_add(paid.amount);
                    offer.slots.push(slot(&signed.voucher));
                }
                Err(reason) => Self::deposit_event(Event::NotRedeemed { index, reason }),
            }
        }
        offer
    }

    /// Pays one voucher, or changes nothing.
    fn redeem_one(signed: &SignedVoucher) -> Result<Paid, Refusal> {
        let judged_at = Self::redeemable_at(&signed.voucher)?;
        Self::pay_lane(signed, judged_at, 0)
    }

    /// The block by which the expiry of a voucher is judged, if it can be redeemed by itself now.
    fn redeemable_at(voucher: &Voucher) -> Result<u32, Refusal> {
        let now = Self::now();
        if voucher.pool == PUBLIC_POOL {
            return Ok(now);
        }
        let settler = AccountId32::new(voucher.pool);
        ensure!(Settlers::<T>::contains_key(&settler), Refusal::UnknownPool);
        let epoch = voucher.lane;
        match Epochs::<T>::get(&settler, epoch).and_then(Batches::<T>::get) {
            // A dispute must not run down the life of the vouchers that it is about.
            Some(batch) if batch.standing == Standing::Void => Ok(now.min(batch.submitted)),
            Some(_) => Err(Refusal::InBatch),
            // A batch is submitted in the epoch after, or never.
            None if epoch.checked_add(1).is_some_and(|last| Self::epoch_of(now) > last) => Ok(now),
            None => Err(Refusal::AwaitsBatch),
        }
    }

    /// Pays what a lane owes, as far as the payer's escrow goes. `counted` is what a batch has settled of it.
    fn pay_lane(signed: &SignedVoucher, judged_at: u32, counted: u128) -> Result<Paid, Refusal> {
        let voucher = &signed.voucher;
        ensure!(voucher.payer != voucher.payee, Refusal::OneParty);
        let key = LaneKey::from(voucher);
        let mut lane = Lanes::<T>::get(&key);
        lane.redeemed = lane.redeemed.max(counted);
        lane.cumulative = lane.cumulative.max(counted);
        let shown = voucher.cumulative.0;
        if shown > lane.cumulative {
            // What was shown in time stays owed; what was not, is not.
            ensure!(voucher.expires.0 >= judged_at, Refusal::Expired);
            lane.cumulative = shown;
            lane.nonce = voucher.nonce;
        }
        let due =
            lane.cumulative.checked_sub(lane.redeemed).filter(|due| *due > 0).ok_or(Refusal::NothingDue)?;
        let payer = AccountId32::new(voucher.payer);
        let amount = due.min(Self::held(HoldReason::Escrow, &payer));
        ensure!(amount > 0, Refusal::EscrowEmpty);
        // The signature last: it costs most.
        ensure!(Self::signed(signed), Refusal::Forged);
        let paid = with_storage_layer(|| Self::pay_out(&payer, &key, &mut lane, amount));
        paid.map_err(|_| Refusal::Unpayable)
    }

    fn pay_out(
        payer: &AccountId32,
        key: &LaneKey,
        lane: &mut Lane,
        amount: u128,
    ) -> Result<Paid, DispatchError> {
        let before = lane.redeemed;
        lane.redeemed = before.checked_add(amount).ok_or(Error::<T>::Overflow)?;
        let share = Self::share_between(before, lane.redeemed)?;
        let to_payee = amount.checked_sub(share).ok_or(Error::<T>::Overflow)?;
        Self::pay_held(HoldReason::Escrow, payer, &AccountId32::new(key.payee), to_payee)?;
        Self::pay_held(HoldReason::Escrow, payer, &T::Treasury::get(), share)?;
        Lanes::<T>::insert(key, &*lane);
        let owed = lane.cumulative.checked_sub(lane.redeemed).ok_or(Error::<T>::Overflow)?;
        let (nonce, redeemed) = (lane.nonce, lane.redeemed);
        Self::deposit_event(Event::Redeemed { key: key.clone(), nonce, paid: amount, share, redeemed, owed });
        Ok(Paid { amount, share })
    }

    /// The treasury's share of what a lane or a leaf pays from one total to a greater one. It is rounded over the
    /// whole, so that many small redemptions come to what one large one does.
    pub(crate) fn share_between(before: u128, after: u128) -> Result<u128, DispatchError> {
        let rate: Permill = Settings::<T>::get().protocol_share;
        let share = rate.mul_floor(after).checked_sub(rate.mul_floor(before)).ok_or(Error::<T>::Overflow)?;
        Ok(share)
    }

    /// Whether a voucher's payer signed it for this chain.
    pub(crate) fn signed(signed: &SignedVoucher) -> bool {
        let digest = signed.voucher.digest(&Self::genesis());
        verify(&signed.voucher.payer, &digest, &signed.signature)
    }

    pub(crate) fn do_redeem_omitted(
        id: BatchId,
        evidence: &Evidence,
        signed: &SignedVoucher,
    ) -> Result<Offer, DispatchError> {
        let batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        ensure!(batch.is_final(Self::now()), Error::<T>::NotFinal);
        let voucher = &signed.voucher;
        ensure!(Self::belongs(voucher, &batch), Error::<T>::BadVoucher);
        // The payee's own leaf counts: it is what the payee was paid by.
        let counted = Self::counted(&batch, evidence, &voucher.payee, voucher)?;
        ensure!(voucher.cumulative.0 > counted, Error::<T>::NoFault);
        let paid = Self::pay_lane(signed, batch.submitted, counted).map_err(|_| Error::<T>::BadVoucher)?;
        Ok(Offer { paid: paid.amount, slots: vec![slot(voucher)] })
    }

    /// Lets a redemption in without a signature or a fee, if it pays enough.
    ///
    /// It is run in full: what a node lets into its queue is what would be paid now. The slots it takes keep one
    /// escrow from filling the queue with vouchers of which only the first would be paid.
    pub(crate) fn validate_redeem(vouchers: &[SignedVoucher]) -> TransactionValidity {
        let items = u128::try_from(vouchers.len()).unwrap_or(u128::MAX);
        Self::admit("PotluckRedeem", items, || Ok(Self::do_redeem(vouchers)))
    }

    pub(crate) fn validate_redeem_omitted(
        id: BatchId,
        evidence: &Evidence,
        signed: &SignedVoucher,
    ) -> TransactionValidity {
        Self::admit("PotluckRedeem", 1, || Self::do_redeem_omitted(id, evidence, signed))
    }

    /// What is free pays at least the minimum for each of its items: a large one may carry small ones, but nobody
    /// fills the chain with lanes of next to nothing.
    pub(crate) fn admit(
        prefix: &'static str,
        items: u128,
        run: impl FnOnce() -> Result<Offer, DispatchError>,
    ) -> TransactionValidity {
        let offer = Self::rehearse(run).map_err(|_| InvalidTransaction::Call)?;
        let least = Settings::<T>::get().min_redeem.checked_mul(items.max(1));
        if least.is_none_or(|least| offer.paid < least) {
            return Err(InvalidTransaction::Custom(PAYS_TOO_LITTLE).into());
        }
        let valid = ValidTransaction::with_tag_prefix(prefix)
            .priority(u64::try_from(offer.paid).unwrap_or(u64::MAX))
            .longevity(LONGEVITY)
            .propagate(true);
        let mut slots = offer.slots;
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().fold(valid, |valid, slot| valid.and_provides(slot)).build()
    }
}

/// Checks a signature with the node's own code, which is faster than any in the runtime. It accepts whatever the
/// strict check of the primitives accepts.
pub(crate) fn verify(signer: &Account, message: &[u8], signature: &[u8; 64]) -> bool {
    sp_io::crypto::ed25519_verify(
        &ed25519::Signature::from_raw(*signature),
        message,
        &ed25519::Public::from_raw(*signer),
    )
}

/// Two redemptions that take the same slot of a payer cannot wait in one queue.
fn slot(voucher: &Voucher) -> [u8; 32] {
    let of = blake2_256(&[&voucher.pool, &voucher.payee, &voucher.lane.to_le_bytes()]);
    let number = of.first().copied().unwrap_or_default() % PAYER_SLOTS;
    blake2_256(&[b"slot", &voucher.payer, &[number]])
}
