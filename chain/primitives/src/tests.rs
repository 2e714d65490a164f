extern crate std;

use std::prelude::v1::*;

use ed25519_dalek::{Signer as _, SigningKey};
use parity_scale_codec::Encode;
use proptest::prelude::*;

use super::*;

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
