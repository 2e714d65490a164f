//! Which keys an issuer signs with, and when.

use std::collections::{BTreeMap, BTreeSet};

use parity_scale_codec::{Decode, Encode, MaxEncodedLen};
use potluck_primitives::{Account, Bounded, Genesis, UnixMillis};

use super::{Denomination, MintKey, Residue, Said, Signed, Token, TokenError};

/// Most epochs in a catalogue: the last, the present, the next, and one to spare.
pub const MAX_EPOCHS: u32 = 4;
/// The version that this program writes and reads.
const VERSION: u8 = 1;

/// When epochs begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long tokens of one key are sold, in milliseconds; they can be spent for as long again.
    pub length_ms: u64,
}

impl Default for Schedule {
    /// A day.
    fn default() -> Self {
        Self { length_ms: 24 * 60 * 60 * 1_000 }
    }
}

impl Schedule {
    /// The epoch at a time.
    pub fn at(&self, now: UnixMillis) -> u32 {
        u32::try_from(now.0 / self.length_ms.max(1)).unwrap_or(u32::MAX)
    }

    /// When the sale of an epoch's tokens begins.
    pub fn opens(&self, epoch: u32) -> UnixMillis {
        UnixMillis(u64::from(epoch).saturating_mul(self.length_ms))
    }

    /// When the sale ends.
    pub fn closes(&self, epoch: u32) -> UnixMillis {
        UnixMillis(self.opens(epoch).0.saturating_add(self.length_ms))
    }

    /// When the last token of it must have been spent.
    pub fn ends(&self, epoch: u32) -> UnixMillis {
        UnixMillis(self.closes(epoch).0.saturating_add(self.length_ms))
    }
}

/// The keys of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Epoch {
    /// Its number.
    pub number: u32,
    /// When tokens are sold from.
    pub opens: UnixMillis,
    /// When they are sold until.
    pub closes: UnixMillis,
    /// When the last must have been spent.
    pub ends: UnixMillis,
    /// The modulus of each denomination, in the order of [`Denomination::ALL`].
    pub keys: [Residue; 3],
}

/// The keys of an issuer. Everybody must be given the same ones: two that differ are evidence against it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Catalogue {
    /// The version of this format: 1.
    pub version: u8,
    /// Whose keys they are.
    pub issuer: Account,
    /// The epochs whose tokens can be bought or spent, by rising number.
    pub epochs: Bounded<Epoch, MAX_EPOCHS>,
}

impl Said for Catalogue {
    const DOMAIN: &'static [u8] = b"potluck catalogue 1\0";

    fn speaker(&self) -> Account {
        self.issuer
    }
}

impl Catalogue {
    /// A catalogue of these epochs.
    ///
    /// # Errors
    /// [`TokenError::Catalogue`]
    pub fn new(issuer: Account, epochs: Vec<Epoch>) -> Result<Self, TokenError> {
        let epochs = Bounded::new(epochs).map_err(|_| TokenError::Catalogue("too many epochs"))?;
        let catalogue = Self { version: VERSION, issuer, epochs };
        catalogue.check()?;
        Ok(catalogue)
    }

    /// The epoch of that number.
    pub fn epoch(&self, number: u32) -> Option<&Epoch> {
        self.epochs.iter().find(|epoch| epoch.number == number)
    }

    /// Whether the two name different keys or times for one epoch.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.epochs.iter().any(|mine| other.epoch(mine.number).is_some_and(|theirs| theirs != mine))
    }

    fn check(&self) -> Result<(), TokenError> {
        if self.version != VERSION {
            return Err(TokenError::Catalogue("a version that this potluck does not know: update potluck"));
        }
        let rises = |pair: &[Epoch]| matches!(pair, [a, b] if a.number < b.number);
        if !self.epochs.windows(2).all(rises) {
            return Err(TokenError::Catalogue("epochs whose numbers do not rise"));
        }
        if self.epochs.iter().any(|it| it.opens >= it.closes || it.closes > it.ends) {
            return Err(TokenError::Catalogue("an epoch that ends before it begins"));
        }
        // The signer sees no token: with one key for two denominations it could not tell what it signs.
        let keys: Vec<&Residue> = self.epochs.iter().flat_map(|epoch| &epoch.keys).collect();
        if keys.iter().collect::<BTreeSet<_>>().len() != keys.len() {
            return Err(TokenError::Catalogue("one key for two uses"));
        }
        Ok(())
    }
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, MaxEncodedLen, thiserror::Error)]
pub enum Flaw {
    /// Its epoch is over.
    #[error("its time is over")]
    #[codec(index = 0)]
    Expired,
    /// Its issuer has no such epoch.
    #[error("its issuer has no keys for its epoch")]
    #[codec(index = 1)]
    Foreign,
    /// Its issuer did not sign it, or not for that much.
    #[error("its issuer did not sign it")]
    #[codec(index = 2)]
    Forged,
    /// It was given twice at once.
    #[error("it was given twice")]
    #[codec(index = 3)]
    Twice,
}

/// An issuer's keys, ready for use.
#[derive(Clone, Debug)]
pub struct Mint {
    /// What the issuer signed.
    pub catalogue: Signed<Catalogue>,
    keys: BTreeMap<(u32, Denomination), MintKey>,
}

impl Mint {
    /// Reads a catalogue and checks it.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn open(catalogue: Signed<Catalogue>, genesis: &Genesis) -> Result<Self, TokenError> {
        catalogue.verify(genesis).map_err(|_| TokenError::NotSigned)?;
        catalogue.said.check()?;
        let issuer = catalogue.said.issuer;
        let mut keys = BTreeMap::new();
        for epoch in &catalogue.said.epochs {
            for (value, modulus) in Denomination::ALL.into_iter().zip(&epoch.keys) {
                let key = MintKey::new(modulus, genesis, &issuer, epoch.number, value)?;
                keys.insert((epoch.number, value), key);
            }
        }
        Ok(Self { catalogue, keys })
    }

    /// Whose keys they are.
    pub fn issuer(&self) -> Account {
        self.catalogue.said.issuer
    }

    /// The key of a denomination in an epoch.
    pub fn key(&self, epoch: u32, value: Denomination) -> Option<&MintKey> {
        self.keys.get(&(epoch, value))
    }

    /// The epoch whose tokens are sold at a time.
    pub fn on_sale(&self, now: UnixMillis) -> Option<&Epoch> {
        self.catalogue.said.epochs.iter().find(|epoch| epoch.opens <= now && now < epoch.closes)
    }

    /// Whether a token can be spent at a time, as far as can be known without asking its issuer.
    ///
    /// # Errors
    /// [`Flaw`], never [`Flaw::Twice`].
    pub fn judge(&self, token: &Token, now: UnixMillis) -> Result<(), Flaw> {
        let epoch = self.catalogue.said.epoch(token.epoch).ok_or(Flaw::Foreign)?;
        if now >= epoch.ends {
            return Err(Flaw::Expired);
        }
        let key = self.key(token.epoch, token.value).ok_or(Flaw::Foreign)?;
        key.verify(token).map_err(|_| Flaw::Forged)
    }
}
