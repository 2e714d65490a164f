//! The node's key as the key of its account.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use potluck_primitives::{
    Account, Genesis, Receipt, Registration, SignatureBytes, SignedRegistration, SignedVoucher, Verdict,
    Voucher, acknowledgement,
};
use subxt::{
    SubstrateConfig,
    transactions::Signer,
    utils::{AccountId32, MultiSignature},
};

/// Signs for one account.
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    /// The key of a seed: the node's own.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The account: the public half of the key.
    pub fn account(&self) -> Account {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a voucher; it verifies when this key is the payer's.
    pub fn voucher(&self, voucher: Voucher, genesis: &Genesis) -> SignedVoucher {
        SignedVoucher::sign_with(voucher, genesis, |digest| self.0.sign(digest).to_bytes())
    }

    /// Promises to count a voucher: for the key of the settler that the voucher names.
    pub fn acknowledge(&self, voucher: &Voucher, genesis: &Genesis) -> SignatureBytes {
        self.0.sign(&acknowledgement(&voucher.digest(genesis), genesis)).to_bytes()
    }

    /// Signs a verdict, as one of those who were drawn to judge.
    pub fn verdict(&self, verdict: &Verdict, genesis: &Genesis) -> (Account, SignatureBytes) {
        (self.account(), self.0.sign(&verdict.digest(genesis)).to_bytes())
    }

    /// Signs the receipt of a job, as either end of it.
    pub fn receipt(&self, receipt: &Receipt) -> SignatureBytes {
        self.0.sign(&receipt.signed_bytes()).to_bytes()
    }

    /// Signs a registration; it verifies when this key is the account's.
    pub fn registration(
        &self,
        registration: Registration,
        work: u64,
        genesis: &Genesis,
    ) -> SignedRegistration {
        SignedRegistration::sign_with(registration, work, genesis, |digest| self.0.sign(digest).to_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(")?;
        self.account().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl Signer<SubstrateConfig> for Key {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.account())
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Ed25519(self.0.sign(payload).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_key_is_the_account() {
        let key = Key::from_seed([7; 32]);
        let account = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        assert_eq!(Signer::account_id(&key).0, account);
        let MultiSignature::Ed25519(signature) = Signer::sign(&key, b"payload") else {
            panic!("another kind")
        };
        assert!(potluck_primitives::signed_by(&account, b"payload", &signature));
        assert!(!format!("{key:?}").contains("07070707"), "a key is never shown");
    }
}
