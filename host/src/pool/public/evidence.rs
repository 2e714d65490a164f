//! What an issuer can be convicted by: things that it signed and that cannot both be true.
//!
//! Each kind is checked with nothing but its bytes, the chain's genesis and what the chain says of the issuer's bond.
//! Silence is no evidence, and neither is an answer that was never signed: against these helps that a payee stops after
//! one chunk, and that a buyer asks another issuer.

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{Account, Genesis, Hash, MicroCredits, blake2_256};

use super::{
    issuer::wire::{Issued, Outcome, Purchase, Settled, Sold, Spend, signatures_digest},
    token::{Catalogue, Flaw, Mint, Signed, Token},
};

#[cfg(test)]
mod tests;

/// Most bytes of evidence.
pub const MAX_EVIDENCE: usize = 160 << 10;
/// Keeps the digest of evidence from being taken for another.
const DOMAIN: &[u8] = b"potluck issuer evidence 1\0";

/// Evidence against an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Evidence {
    /// Two statements of one epoch with one number, or with totals that do not rise with it.
    #[codec(index = 0)]
    Books {
        /// One.
        first: Signed<Issued>,
        /// The other.
        second: Signed<Issued>,
    },
    /// More was issued than the bond.
    #[codec(index = 1)]
    Bond(Signed<Issued>),
    /// Two catalogues with different keys for one epoch: buyers can be told apart by the key they were given.
    #[codec(index = 2)]
    Keys {
        /// One.
        first: Signed<Catalogue>,
        /// The other.
        second: Signed<Catalogue>,
    },
    /// A token was refused that is good, without a proof that it was spent.
    #[codec(index = 3)]
    Refused {
        /// The issuer's keys.
        catalogue: Signed<Catalogue>,
        /// What was asked.
        spend: Spend,
        /// What it answered.
        settled: Signed<Settled>,
    },
    /// A purchase was counted as sold, and what was given for it are not the signatures.
    #[codec(index = 4)]
    Garbage {
        /// The issuer's keys.
        catalogue: Signed<Catalogue>,
        /// What was asked.
        purchase: Signed<Purchase>,
        /// What it gave.
        sold: Sold,
    },
}

/// Why something is no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Bytes that are none.
    #[error("bytes that are no evidence")]
    Malformed,
    /// The issuer, or the one who asked, did not sign it.
    #[error("evidence that is not signed by whom it should be")]
    Forged,
    /// The pieces are not about one issuer and one question.
    #[error("pieces of evidence that do not belong together")]
    Unrelated,
    /// It shows nothing wrong.
    #[error("what the issuer signed is as it should be")]
    Innocent,
}

/// What the chain says of the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The chain.
    pub genesis: Genesis,
    /// What of the issuer's stake could be slashed when it signed, in microcredits.
    pub bond: MicroCredits,
}

impl Evidence {
    /// Reads evidence; it is not checked yet.
    ///
    /// # Errors
    /// [`EvidenceError::Malformed`]
    pub fn open(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut rest = bytes;
        let capped = bytes.len() <= MAX_EVIDENCE;
        let found = capped.then(|| Self::decode(&mut rest).ok()).flatten();
        found.filter(|_| rest.is_empty()).ok_or(EvidenceError::Malformed)
    }

    /// Names it, in a [`Verdict`](potluck_primitives::Verdict).
    pub fn digest(&self, genesis: &Genesis) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, &genesis.0, bytes]))
    }

    /// Checks it; who is guilty.
    ///
    /// # Errors
    /// [`EvidenceError`], never [`EvidenceError::Malformed`]
    pub fn verify(&self, facts: &Facts) -> Result<Account, EvidenceError> {
        let genesis = &facts.genesis;
        let guilty = match self {
            Self::Books { first, second } => {
                if first.said.issuer != second.said.issuer || first.said.epoch != second.said.epoch {
                    return Err(EvidenceError::Unrelated);
                }
                signed(first.verify(genesis).is_ok() && second.verify(genesis).is_ok())?;
                self.contradicts().then_some(first.said.issuer)
            }
            Self::Bond(issued) => {
                signed(issued.verify(genesis).is_ok())?;
                let most = issued.said.total.max(issued.said.standing);
                (most > facts.bond).then_some(issued.said.issuer)
            }
            Self::Keys { first, second } => {
                signed(first.verify(genesis).is_ok() && second.verify(genesis).is_ok())?;
                first.said.contradicts(&second.said).then_some(first.said.issuer)
            }
            Self::Refused { catalogue, spend, settled } => refused(catalogue, spend, settled, genesis)?,
            Self::Garbage { catalogue, purchase, sold } => garbage(catalogue, purchase, sold, genesis)?,
        };
        guilty.ok_or(EvidenceError::Innocent)
    }

    /// Whether two statements cannot both be true, whoever signed them.
    pub(super) fn contradicts(&self) -> bool {
        let Self::Books { first, second } = self else { return false };
        let (first, second) = (&first.said, &second.said);
        match first.sequence.cmp(&second.sequence) {
            std::cmp::Ordering::Equal => first != second,
            std::cmp::Ordering::Less => first.total >= second.total,
            std::cmp::Ordering::Greater => first.total <= second.total,
        }
    }
}

fn signed(good: bool) -> Result<(), EvidenceError> {
    if good { Ok(()) } else { Err(EvidenceError::Forged) }
}

fn refused(
    catalogue: &Signed<Catalogue>,
    spend: &Spend,
    settled: &Signed<Settled>,
    genesis: &Genesis,
) -> Result<Option<Account>, EvidenceError> {
    let mint = Mint::open(catalogue.clone(), genesis).map_err(|_| EvidenceError::Forged)?;
    let (issuer, claim) = (mint.issuer(), spend.claim.digest(genesis));
    let related = settled.said.issuer == issuer
        && spend.claim.said.issuer == issuer
        && settled.said.claim == claim
        && settled.said.outcomes.len() == spend.tokens.len();
    if !related {
        return Err(EvidenceError::Unrelated);
    }
    signed(spend.is_sound(genesis) && settled.verify(genesis).is_ok())?;
    let wrong =
        spend.tokens.iter().zip(settled.said.outcomes.iter()).enumerate().any(|(index, (token, outcome))| {
            let (earlier, _) = spend.tokens.split_at_checked(index).unwrap_or_default();
            wronged(&mint, token, earlier, outcome, &settled.said, genesis)
        });
    Ok(wrong.then_some(issuer))
}

/// Whether a good token got a bad answer. `earlier` are those that lay before it in the claim.
fn wronged(
    mint: &Mint,
    token: &Token,
    earlier: &[Token],
    outcome: &Outcome,
    settled: &Settled,
    genesis: &Genesis,
) -> bool {
    let named = |proof: &super::issuer::wire::Proof| {
        proof.holds(&token.name(), &settled.issuer, &settled.claim, genesis)
    };
    let truth = match earlier.iter().any(|other| other.name() == token.name()) {
        true => Err(Flaw::Twice),
        false => mint.judge(token, settled.at),
    };
    match outcome {
        Outcome::Fresh => false,
        Outcome::Spent(proof) => truth.is_ok() && !named(proof),
        // Of an epoch that this catalogue does not hold, nothing is shown.
        Outcome::Flawed(_) => truth.is_ok(),
    }
}

fn garbage(
    catalogue: &Signed<Catalogue>,
    purchase: &Signed<Purchase>,
    sold: &Sold,
    genesis: &Genesis,
) -> Result<Option<Account>, EvidenceError> {
    let mint = Mint::open(catalogue.clone(), genesis).map_err(|_| EvidenceError::Forged)?;
    let (asked, issued) = (&purchase.said, &sold.issued.said);
    let related = asked.issuer == mint.issuer()
        && issued.issuer == mint.issuer()
        && issued.purchase == purchase.digest(genesis)
        && issued.epoch == asked.epoch
        && issued.signatures == signatures_digest(&sold.signatures);
    if !related {
        return Err(EvidenceError::Unrelated);
    }
    signed(purchase.verify(genesis).is_ok() && sold.issued.verify(genesis).is_ok())?;
    let good = sold.signatures.len() == asked.blinded.len()
        && asked.blinded.iter().zip(sold.signatures.iter()).all(|(it, signed)| {
            mint.key(asked.epoch, it.value).is_none_or(|key| key.answers(&it.message, signed))
        });
    Ok((!good).then_some(mint.issuer()))
}
