//! How a wrong batch is shown to be wrong, in one step each.

use alloc::vec::Vec;

use frame_support::{ensure, pallet_prelude::DispatchResult};
use potluck_primitives::{
    Account, BadSum, Duplicate, Hash, Leaf, SignedVoucher, SumProof, Voucher, acknowledgement, merkle_root,
    vouchers_root,
};
use sp_runtime::{AccountId32, DispatchError};

use crate::{
    Batch, BatchId, Batches, CHALLENGES_TO_DOUBLE, Challenge, Challenges, Config, Error, Event, Evidence,
    Fault, HoldReason, Knowledge, Pallet, Settings, batch::halves, redeem::verify,
};

impl<T: Config> Pallet<T> {
    /// What the next challenge of a batch has at stake. It doubles with every few that are open, so that nobody can
    /// ask more than can be answered, nor keep others from asking by asking first.
    pub(crate) fn challenge_bond(open: u32) -> Option<u128> {
        let doublings = open.checked_div(CHALLENGES_TO_DOUBLE)?;
        Settings::<T>::get().challenger_bond.checked_mul(2_u128.checked_pow(doublings)?)
    }

    pub(crate) fn do_challenge_leaf(who: &AccountId32, id: BatchId, index: u32) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        let now = Self::now();
        ensure!(batch.disputable(now) && now <= batch.challenges_until, Error::<T>::NotDisputable);
        ensure!(index < batch.leaf_count, Error::<T>::UnknownLeaf);
        ensure!(!Challenges::<T>::contains_key(id, index), Error::<T>::AlreadyChallenged);
        let bond = Self::challenge_bond(batch.open).ok_or(Error::<T>::Overflow)?;
        Self::hold(HoldReason::ChallengerBond, who, bond)?;
        let window = Settings::<T>::get().response_window;
        let answer_by = now.checked_add(window).ok_or(Error::<T>::Overflow)?;
        Challenges::<T>::insert(id, index, Challenge::Open { challenger: who.clone(), bond, answer_by });
        batch.open = batch.open.checked_add(1).ok_or(Error::<T>::Overflow)?;
        Batches::<T>::insert(id, batch);
        let challenger = who.clone();
        Self::deposit_event(Event::LeafChallenged { batch: id, index, challenger, bond, answer_by });
        Ok(())
    }

    pub(crate) fn do_answer_leaf(
        id: BatchId,
        leaf: &Leaf,
        proof: &SumProof,
        vouchers: &[SignedVoucher],
    ) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        let now = Self::now();
        ensure!(batch.disputable(now), Error::<T>::NotDisputable);
        let index = proof.index;
        let Some(Challenge::Open { challenger, bond, answer_by }) = Challenges::<T>::get(id, index) else {
            return Err(Error::<T>::NotChallenged.into());
        };
        ensure!(now <= answer_by, Error::<T>::TooLate);
        ensure!(Self::contains(&batch, leaf, proof), Error::<T>::BadProof);
        ensure!(Self::adds_up(&batch, leaf, vouchers), Error::<T>::BadAnswer);

        let (compensation, burnt) = halves(bond).ok_or(Error::<T>::Overflow)?;
        Self::pay_held(HoldReason::ChallengerBond, &challenger, &batch.settler, compensation)?;
        Self::burn_held(HoldReason::ChallengerBond, &challenger, burnt)?;
        Challenges::<T>::insert(id, index, Challenge::Answered);
        batch.open = batch.open.checked_sub(1).ok_or(Error::<T>::Overflow)?;
        // What an answer shows may prove a fault: others get time to see it.
        let window = Settings::<T>::get().response_window;
        let seen = now.checked_add(window).ok_or(Error::<T>::Overflow)?;
        batch.proofs_until = batch.proofs_until.max(seen);
        Batches::<T>::insert(id, batch);
        Self::deposit_event(Event::LeafAnswered { batch: id, index, compensation, burnt });
        Ok(())
    }

    /// Whether these are the vouchers that a leaf counts, each a signed one of the batch's epoch, and they come to
    /// the leaf's sums.
    fn adds_up(batch: &Batch, leaf: &Leaf, vouchers: &[SignedVoucher]) -> bool {
        let parties = |signed: &SignedVoucher| (signed.voucher.payer, signed.voucher.payee);
        let rising = vouchers.windows(2).all(|pair| match pair {
            [first, second] => parties(first) < parties(second),
            _ => false,
        });
        let fits = |signed: &SignedVoucher| {
            let voucher = &signed.voucher;
            Self::belongs(voucher, batch)
                && voucher.expires.0 >= batch.submitted
                && (voucher.payer == leaf.account || voucher.payee == leaf.account)
        };
        let total = |of: fn(&Voucher) -> Account| {
            let mine = vouchers.iter().filter(|signed| of(&signed.voucher) == leaf.account);
            mine.map(|signed| signed.voucher.cumulative.0).try_fold(0_u128, u128::checked_add)
        };
        let (Some(earned), Some(spent)) = (total(|v| v.payee), total(|v| v.payer)) else { return false };
        rising
            && vouchers.iter().all(fits)
            && earned.checked_add(spent) == Some(leaf.gross)
            && difference(earned, spent) == Some(leaf.delta)
            && vouchers_root(vouchers, &Self::genesis()) == leaf.vouchers_root
            && vouchers.iter().all(Self::signed)
    }

    /// Whether a voucher is one that this batch is for.
    pub(crate) fn belongs(voucher: &Voucher, batch: &Batch) -> bool {
        AccountId32::new(voucher.pool) == batch.settler
            && voucher.lane == batch.epoch
            && voucher.payer != voucher.payee
    }

    pub(crate) fn do_expire_challenge(id: BatchId, index: u32) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        let now = Self::now();
        ensure!(batch.disputable(now), Error::<T>::NotDisputable);
        let Some(Challenge::Open { challenger, bond, answer_by }) = Challenges::<T>::get(id, index) else {
            return Err(Error::<T>::NotChallenged.into());
        };
        ensure!(now > answer_by, Error::<T>::TooEarly);
        Self::return_challenge(id, &mut batch, index, &challenger, bond)?;
        Self::void(id, &mut batch, &challenger, Fault::Unanswered)?;
        Batches::<T>::insert(id, batch);
        Ok(())
    }

    pub(crate) fn do_prove_bad_sum(who: &AccountId32, id: BatchId, fault: &BadSum) -> DispatchResult {
        Self::prove(who, id, Fault::BadSum, |batch| Ok(fault.verify(&batch.root, batch.leaf_count)))
    }

    pub(crate) fn do_prove_duplicate(who: &AccountId32, id: BatchId, fault: &Duplicate) -> DispatchResult {
        Self::prove(who, id, Fault::Duplicate, |batch| Ok(fault.verify(&batch.root, batch.leaf_count)))
    }

    pub(crate) fn do_prove_stale(
        who: &AccountId32,
        id: BatchId,
        evidence: &Evidence,
        signed: &SignedVoucher,
        knowledge: &Knowledge,
    ) -> DispatchResult {
        Self::prove(who, id, Fault::Stale, |batch| {
            let voucher = &signed.voucher;
            let owed = Self::belongs(voucher, batch) && voucher.expires.0 >= batch.submitted;
            ensure!(owed && Self::signed(signed), Error::<T>::BadVoucher);
            ensure!(Self::known(batch, voucher, knowledge), Error::<T>::NotKnown);
            let payers = Self::counted(batch, evidence, &voucher.payer, voucher);
            let counted = payers.or_else(|_| Self::counted(batch, evidence, &voucher.payee, voucher))?;
            Ok(counted < voucher.cumulative.0)
        })
    }

    fn prove(
        who: &AccountId32,
        id: BatchId,
        fault: Fault,
        holds: impl FnOnce(&Batch) -> Result<bool, DispatchError>,
    ) -> DispatchResult {
        let mut batch = Batches::<T>::get(id).ok_or(Error::<T>::UnknownBatch)?;
        ensure!(batch.disputable(Self::now()), Error::<T>::NotDisputable);
        ensure!(holds(&batch)?, Error::<T>::NoFault);
        Self::void(id, &mut batch, who, fault)?;
        Batches::<T>::insert(id, batch);
        Ok(())
    }

    /// Whether the settler had a voucher when it made the batch.
    fn known(batch: &Batch, voucher: &Voucher, knowledge: &Knowledge) -> bool {
        let genesis = Self::genesis();
        let digest = voucher.digest(&genesis);
        match knowledge {
            Knowledge::Acknowledged(signature) => {
                let settler: &Account = batch.settler.as_ref();
                verify(settler, &acknowledgement(&digest, &genesis), signature)
            }
            Knowledge::Counted { leaf, proof, membership } => {
                Self::contains(batch, leaf, proof) && membership.verify(&digest, &leaf.vouchers_root)
            }
        }
    }

    /// What the leaf of `account` counts of the voucher's lane: nothing where neither is there.
    ///
    /// # Errors
    /// [`Error::BadProof`]: the evidence is not of this batch and account.
    pub(crate) fn counted(
        batch: &Batch,
        evidence: &Evidence,
        account: &Account,
        voucher: &Voucher,
    ) -> Result<u128, DispatchError> {
        match evidence {
            Evidence::Listed { leaf, proof, listed } => {
                let genesis = Self::genesis();
                let digests: Vec<Hash> = listed.iter().map(|voucher| voucher.digest(&genesis)).collect();
                let proven = leaf.account == *account
                    && Self::contains(batch, leaf, proof)
                    && merkle_root(&digests) == leaf.vouchers_root;
                ensure!(proven, Error::<T>::BadProof);
                let same = |other: &&Voucher| {
                    (other.pool, other.payer, other.payee, other.lane)
                        == (voucher.pool, voucher.payer, voucher.payee, voucher.lane)
                };
                Ok(listed.iter().filter(same).map(|other| other.cumulative.0).max().unwrap_or_default())
            }
            Evidence::Absent { before, after } => {
                ensure!(Self::absent(batch, account, before, after), Error::<T>::BadProof);
                Ok(0)
            }
        }
    }

    /// Whether an account has no leaf: two neighbours enclose where it would be.
    fn absent(
        batch: &Batch,
        account: &Account,
        before: &Option<(Leaf, SumProof)>,
        after: &Option<(Leaf, SumProof)>,
    ) -> bool {
        // The index of the first leaf that could be the account's, from either side.
        let from = match before {
            None => Some(0),
            Some((leaf, proof)) if leaf.account < *account && Self::contains(batch, leaf, proof) => {
                proof.index.checked_add(1)
            }
            Some(_) => None,
        };
        let to = match after {
            None => Some(batch.leaf_count),
            Some((leaf, proof)) if leaf.account > *account && Self::contains(batch, leaf, proof) => {
                Some(proof.index)
            }
            Some(_) => None,
        };
        from.is_some() && from == to
    }
}

/// `earned − spent`, if it can be counted.
fn difference(earned: u128, spent: u128) -> Option<i128> {
    match earned.checked_sub(spent) {
        Some(more) => i128::try_from(more).ok(),
        None => i128::try_from(spent.checked_sub(earned)?).ok()?.checked_neg(),
    }
}
