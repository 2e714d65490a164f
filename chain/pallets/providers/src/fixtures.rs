//! What tests and benchmarks begin with: keys, registrations, verdicts.

use alloc::vec::Vec;

use ed25519_dalek::Signer as _;
use potluck_primitives::{
    Account, Block, Bounded, Class, Genesis, PolicyHash, Registration, SignatureBytes, SignedRegistration,
    SignedVerdict, SigningKey, Verdict, blake2_256, find_work,
};
use sp_runtime::AccountId32;

/// The secret key of a numbered account.
pub(crate) fn key(number: u32) -> SigningKey {
    SigningKey::from_bytes(&blake2_256(&[b"providers", &number.to_le_bytes()]))
}

/// The accounts that tests use most: deriving one takes longer than a call.
#[cfg(test)]
static KNOWN: std::sync::LazyLock<Vec<Account>> =
    std::sync::LazyLock::new(|| (0..300).map(|number| key(number).verifying_key().to_bytes()).collect());

/// A numbered account.
pub(crate) fn raw(number: u32) -> Account {
    #[cfg(test)]
    if let Some(known) = KNOWN.get(number as usize) {
        return *known;
    }
    key(number).verifying_key().to_bytes()
}

/// A numbered account, as the chain names it.
pub(crate) fn account(number: u32) -> AccountId32 {
    AccountId32::new(raw(number))
}

/// A registration with enough work.
pub(crate) fn registration(
    number: u32,
    sequence: u64,
    at: u32,
    bits: u32,
    genesis: &Genesis,
) -> SignedRegistration {
    let registration = Registration {
        account: raw(number),
        peer: raw(number),
        hardware: Class::new("bench"),
        models: Bounded::empty(),
        endpoint: [3; 32],
        sequence,
        at: Block(at),
    };
    let work = find_work(&registration.digest(genesis), bits, 0, u64::MAX).unwrap();
    SignedRegistration::sign(registration, work, genesis, &key(number))
}

/// A verdict about a numbered provider.
pub(crate) fn verdict(provider: u32, job: u8, policy: PolicyHash, parts: u32, at: u32) -> Verdict {
    Verdict { job: [job; 16], provider: raw(provider), evidence: [9; 32], policy, parts, at: Block(at) }
}

/// The verdict with the signatures of these, each one of the first 300 accounts.
pub(crate) fn signed(verdict: Verdict, by: &[Account], genesis: &Genesis) -> SignedVerdict {
    let digest = verdict.digest(genesis);
    let sign = |account: &Account| {
        let number = (0..300).find(|number| raw(*number) == *account).unwrap();
        (*account, key(number).sign(&digest).to_bytes())
    };
    let signatures: Vec<(Account, SignatureBytes)> = by.iter().map(sign).collect();
    SignedVerdict::new(verdict, signatures).unwrap()
}
