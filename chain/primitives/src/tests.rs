extern crate std;

use std::prelude::v1::*;

use ed25519_dalek::{Signer as _, SigningKey};
use parity_scale_codec::{Decode, Encode, MaxEncodedLen};
use proptest::prelude::*;

use super::*;

mod bounded;
mod merkle;
mod registration;
mod sample;
mod sum;
mod sum_challenges;
mod units;
mod verdict;
mod voucher;

const GENESIS: Genesis = Genesis([0x47; 32]);
const ELSEWHERE: Genesis = Genesis([0x48; 32]);

fn account(byte: u8) -> Account {
    key(byte).verifying_key().to_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| std::format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// What is read whole and nothing else.
fn read<T: Decode>(mut bytes: &[u8]) -> Option<T> {
    T::decode(&mut bytes).ok().filter(|_| bytes.is_empty())
}

/// Each way to change one bit.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<> {
    let bytes = bytes.to_vec();
    (0..bytes.len() * 8).map(move |bit| {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    })
}

fn comes_back<T: Encode + Decode + MaxEncodedLen + PartialEq + core::fmt::Debug>(value: &T) {
    let bytes = value.encode();
    assert!(bytes.len() <= T::max_encoded_len(), "{} > {}", bytes.len(), T::max_encoded_len());
    assert_eq!(read::<T>(&bytes).as_ref(), Some(value));
    for end in 0..bytes.len() {
        assert_eq!(read::<T>(&bytes[..end]), None, "cut at {end}");
    }
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn receipt() -> Receipt {
    Receipt {
        version: Receipt::VERSION,
        job: [7; 16],
        provider: key(1).verifying_key().to_bytes(),
        requester: key(2).verifying_key().to_bytes(),
        pool: [3; 32],
        model: [4; 32],
        class: Class::new("llama 8b q4"),
        prompt_tokens: Tokens(120),
        completion_tokens: Tokens(64),
        compute: Micros(2_500_000),
        started_at: UnixMillis(1_800_000_000_000),
        ended_at: UnixMillis(1_800_000_003_000),
    }
}

fn signed(receipt: Receipt) -> Signed {
    let bytes = receipt.signed_bytes();
    let (by_provider, by_requester) = (key(1).sign(&bytes).to_bytes(), key(2).sign(&bytes).to_bytes());
    Signed { receipt, by_provider, by_requester }
}

#[test]
fn a_receipt_comes_back_as_it_was() {
    let signed = signed(receipt());
    let bytes = signed.encode();
    assert!(bytes.len() <= MAX_RECEIPT);
    assert!(Signed::max_encoded_len() <= MAX_RECEIPT);
    comes_back(&signed);
    assert_eq!(Signed::open(&bytes), Ok(signed));
    assert_eq!(Signed::open(&[&bytes[..], &[0]].concat()), Err(ReceiptError::Malformed));
    assert_eq!(Class::new("é\n").text(), "??");
}

/// The bytes of the format, so that a change of it does not go unnoticed.
#[test]
fn the_format_stays() {
    let bytes = receipt().encode();
    assert_eq!(bytes.len(), 1 + 16 + 4 * 32 + 12 + 4 + 4 + 8 + 8 + 8);
    assert_eq!(blake3::hash(&bytes).to_hex()[..16], *GOLDEN, "{}", blake3::hash(&bytes).to_hex());
}

const GOLDEN: &str = "53977ff0bc81e45a";

#[test]
fn receipts_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut Receipt)| {
        let mut it = receipt();
        change(&mut it);
        signed(it).verify().unwrap_err()
    };
    assert_eq!(refused(|it| it.version = 2), ReceiptError::Version(2));
    assert_eq!(refused(|it| it.requester = it.provider), ReceiptError::OneParty);
    assert_eq!(refused(|it| it.ended_at.0 = it.started_at.0 - 1), ReceiptError::Times);
    assert_eq!(refused(|it| it.compute = Micros(u64::MAX)), ReceiptError::Times);
    assert_eq!(refused(|it| it.provider = [9; 32]), ReceiptError::Forged(Party::Provider));
    let swapped = signed(receipt());
    let swapped = Signed { by_provider: swapped.by_requester, by_requester: swapped.by_provider, ..swapped };
    assert_eq!(swapped.verify(), Err(ReceiptError::Forged(Party::Provider)));
}

proptest! {
    #[test]
    fn a_changed_bit_breaks_a_receipt(at in any::<usize>(), bit in 0..8_u8) {
        let mut bytes = signed(receipt()).encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Signed::open(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Signed::open(&bytes).is_err());
    }
}
