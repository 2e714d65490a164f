//! Keys, vouchers and batches for tests and benchmarks.

use alloc::{collections::BTreeMap, vec::Vec};

use ed25519_dalek::Signer as _;
use potluck_primitives::{
    Account, Block, Genesis, Leaf, MicroCredits, PUBLIC_POOL, SignatureBytes, SignedVoucher, SigningKey,
    SumTree, Voucher, blake2_256, vouchers_root,
};
use sp_runtime::AccountId32;

use crate::acknowledgement;

/// The key with this number.
pub(crate) fn key(number: u32) -> SigningKey {
    SigningKey::from_bytes(&blake2_256(&[b"potluck test ", &number.to_le_bytes()]))
}

/// The account of the key with this number.
pub(crate) fn raw(number: u32) -> Account {
    key(number).verifying_key().to_bytes()
}

/// The same, as the chain names it.
pub(crate) fn account(number: u32) -> AccountId32 {
    AccountId32::new(raw(number))
}

/// A voucher of the public pool that never expires.
pub(crate) fn voucher(payer: u32, payee: u32, lane: u32, nonce: u64, cumulative: u128) -> Voucher {
    Voucher {
        pool: PUBLIC_POOL,
        payer: raw(payer),
        payee: raw(payee),
        lane,
        nonce,
        cumulative: MicroCredits(cumulative),
        expires: Block(u32::MAX),
        receipts_root: [0; 32],
    }
}

/// The same of a settler's pool.
pub(crate) fn netted(settler: u32, payer: u32, payee: u32, epoch: u32, cumulative: u128) -> Voucher {
    Voucher { pool: raw(settler), ..voucher(payer, payee, epoch, 1, cumulative) }
}

/// Signed with the key of a number, for a chain.
pub(crate) fn signed(voucher: Voucher, by: u32, genesis: &Genesis) -> SignedVoucher {
    SignedVoucher::sign(voucher, genesis, &key(by))
}

/// A settler's promise to count a voucher.
pub(crate) fn acknowledged(voucher: &Voucher, settler: u32, genesis: &Genesis) -> SignatureBytes {
    key(settler).sign(&acknowledgement(&voucher.digest(genesis), genesis)).to_bytes()
}

/// What a settler makes of an epoch.
pub(crate) struct Books {
    pub(crate) tree: SumTree,
    /// The vouchers of each leaf, in order.
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests answer challenges from it"))]
    pub(crate) listed: Vec<Vec<SignedVoucher>>,
    pub(crate) gross: u128,
}

/// The honest leaf of an account over these vouchers.
pub(crate) fn leaf_of(account: Account, mine: &[SignedVoucher], genesis: &Genesis) -> Leaf {
    let total = |counts: &dyn Fn(&Voucher) -> bool| -> u128 {
        mine.iter().filter(|it| counts(&it.voucher)).map(|it| it.voucher.cumulative.0).sum()
    };
    let (earned, spent) = (total(&|v| v.payee == account), total(&|v| v.payer == account));
    let delta = i128::try_from(earned).unwrap() - i128::try_from(spent).unwrap();
    Leaf { account, delta, gross: earned + spent, vouchers_root: vouchers_root(mine, genesis) }
}

/// The honest books over vouchers of one epoch of one settler.
pub(crate) fn books(vouchers: &[SignedVoucher], genesis: &Genesis) -> Books {
    let mut of: BTreeMap<Account, Vec<SignedVoucher>> = BTreeMap::new();
    for signed in vouchers {
        of.entry(signed.voucher.payer).or_default().push(signed.clone());
        of.entry(signed.voucher.payee).or_default().push(signed.clone());
    }
    let mut leaves = Vec::new();
    let mut listed = Vec::new();
    for (account, mut mine) in of {
        mine.sort_by_key(|it| (it.voucher.payer, it.voucher.payee));
        leaves.push(leaf_of(account, &mine, genesis));
        listed.push(mine);
    }
    let gross = leaves.iter().map(|leaf| leaf.gross).sum();
    Books { tree: SumTree::build(leaves).unwrap(), listed, gross }
}

/// Any pool that is neither the public one nor a settler's.
#[cfg(test)]
pub(crate) const OTHER_POOL: potluck_primitives::Pool = [9; 32];
