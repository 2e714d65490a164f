//! Rules as sentences, one room each.

mod allowances;
mod batches;
mod costs;
mod disputes;
mod escrow;
mod governance;
mod random;
mod redeeming;
mod unsigned;
mod windows;

use codec::Encode;
use frame_support::{
    BoundedVec,
    traits::fungible::{Inspect, InspectHold},
};
use potluck_primitives::{SignedVoucher, Voucher};
use sp_runtime::{AccountId32, DispatchError};

use crate::{
    BatchId, Call, Error, Event, HoldReason, Refusal,
    fixtures::*,
    mock::{Credits, Ledger, RuntimeEvent, System, Test, genesis, send, send_bare},
};

/// What an account can use.
pub(crate) fn free(number: u32) -> u128 {
    Ledger::balance(&account(number))
}

/// What an account has in escrow.
pub(crate) fn escrow(number: u32) -> u128 {
    held(HoldReason::Escrow, number)
}

/// What is held of an account for a reason.
pub(crate) fn held(reason: HoldReason, number: u32) -> u128 {
    Ledger::balance_on_hold(&reason.into(), &account(number))
}

/// What the treasury has.
pub(crate) fn treasury() -> u128 {
    Ledger::balance(&AccountId32::new([7; 32]))
}

/// An error of this pallet.
pub(crate) fn error(error: Error<Test>) -> DispatchError {
    error.into()
}

/// The events of this pallet since the last look.
pub(crate) fn events() -> Vec<Event<Test>> {
    let all = System::events();
    System::reset_events();
    all.into_iter()
        .filter_map(|record| match record.event {
            RuntimeEvent::Credits(event) => Some(event),
            _ => None,
        })
        .collect()
}

/// Puts credits of an account into escrow.
pub(crate) fn deposit(payer: u32, amount: u128) {
    send(payer, Call::deposit { amount }).unwrap();
    System::reset_events();
}

/// A voucher, signed by its payer for this chain.
pub(crate) fn sign(voucher: Voucher, payer: u32) -> SignedVoucher {
    signed(voucher, payer, &genesis())
}

/// Redeems vouchers, signed by nobody, and gives what became of each: what was paid, or why not.
pub(crate) fn redeem(vouchers: Vec<SignedVoucher>) -> Vec<Result<u128, Refusal>> {
    System::reset_events();
    let vouchers = BoundedVec::try_from(vouchers).unwrap();
    send_bare(Call::redeem { vouchers }).unwrap();
    events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Redeemed { paid, .. } => Some(Ok(paid)),
            Event::NotRedeemed { reason, .. } => Some(Err(reason)),
            _ => None,
        })
        .collect()
}

/// Submits honest books and gives the batch.
pub(crate) fn submit(settler: u32, epoch: u32, books: &Books) -> BatchId {
    let (root, leaf_count, gross) = (books.tree.root(), books.tree.leaf_count(), books.gross);
    send(settler, Call::submit_batch { epoch, root, leaf_count, gross }).unwrap();
    System::reset_events();
    crate::BatchCount::<Test>::get() - 1
}

/// A claim of the leaf at `index`.
pub(crate) fn claim(batch: BatchId, books: &Books, index: u32) -> Call<Test> {
    let leaf = books.tree.leaves()[index as usize];
    Call::claim { batch, leaf, proof: books.tree.prove(index).unwrap() }
}

/// An answer with the vouchers of the leaf at `index`.
pub(crate) fn answer(batch: BatchId, books: &Books, index: u32) -> Call<Test> {
    let leaf = books.tree.leaves()[index as usize];
    let vouchers = BoundedVec::try_from(books.listed[index as usize].clone()).unwrap();
    Call::answer_leaf { batch, leaf, proof: books.tree.prove(index).unwrap(), vouchers }
}

/// Makes an account a settler.
pub(crate) fn register(settler: u32) {
    send(settler, Call::register_settler {}).unwrap();
    System::reset_events();
}

/// Lets the batches of a settler take whatever a payer has.
pub(crate) fn allow(payer: u32, settler: u32) {
    send(payer, Call::allow_settler { settler: account(settler), limit: u128::MAX }).unwrap();
    System::reset_events();
}

/// The bytes of a value.
pub(crate) fn bytes(value: &impl Encode) -> usize {
    value.encoded_size()
}

/// The index of the leaf of an account.
pub(crate) fn index_of(books: &Books, number: u32) -> u32 {
    books.tree.index_of(&raw(number)).unwrap()
}

/// Asserts that a call is refused for a reason.
pub(crate) fn refused(result: frame_support::dispatch::DispatchResultWithPostInfo, why: Error<Test>) {
    assert_eq!(result.unwrap_err().error, error(why));
    let _ = Credits::issuance();
}
