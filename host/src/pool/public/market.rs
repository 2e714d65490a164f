//! Who offers what: the offers that were heard, and the order in which providers are asked.
//!
//! The table is bounded whatever strangers send: one offer of each provider, the newest, and of providers that the
//! registry knows before those that it does not. An offer is a claim; what counts beside its price is what was
//! measured here, and what audits found.

mod choose;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use parity_scale_codec::Encode;
use potluck_primitives::{Account, MicroCredits, UnixMillis};

pub use choose::{Approved, Candidate, Chooser, Native, Wish, floor};

use super::offer::{ModelOffer, Offer, OfferError, SignedOffer};
use crate::{dispatch::pool::means, identity::NodeId};

/// Most offers.
pub const MOST: usize = 4_096;
/// A provider's next offer is taken so many milliseconds after the one before at the earliest.
const PACE: u64 = 2_000;

/// What the chain says of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whose machine it is: who holds the stake.
    pub operator: Account,
    /// What it loses when it is convicted.
    pub stake: MicroCredits,
    /// The sequence of its registration.
    pub sequence: u64,
    /// Whether it was convicted, or gave up its registration.
    pub barred: bool,
    /// Audits it passed.
    pub passed: u32,
    /// Audits it failed.
    pub failed: u32,
}

/// How well a provider is known to answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Long audited without a failure.
    Trusted,
    /// Audited often enough for the trust ramp.
    Audited,
    /// Hardly audited.
    New,
}

impl Class {
    /// The word in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Audited => "audited",
            Self::New => "new",
        }
    }
}

impl Standing {
    /// Its class: 20 audits end the trust ramp (docs/src/design/incentives.md, section 5), 200 without a failure make
    /// it trusted.
    pub fn class(&self) -> Class {
        match (self.passed, self.failed) {
            (200.., 0) => Class::Trusted,
            (20.., _) => Class::Audited,
            _ => Class::New,
        }
    }
}

/// What the chain says of providers. Answers come from memory.
pub trait Registry: Send + Sync + Debug {
    /// Of a provider; `None`: it is not registered, or nothing is known.
    fn standing(&self, provider: NodeId) -> Option<Standing>;

    /// Whether providers that are not registered are asked at all: where no chain can be asked, for trials.
    fn lenient(&self) -> bool {
        false
    }
}

/// Why an offer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is none.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The provider is not registered as it says.
    #[error("its provider is not registered, or not with this registration")]
    Unregistered,
    /// It was convicted.
    #[error("its provider was convicted or has left")]
    Barred,
    /// A newer one is there.
    #[error("a newer offer of the same provider is there")]
    Old,
    /// Too soon after the one before.
    #[error("it came too soon after the provider's offer before")]
    Flood,
    /// There is no room for a provider with so little stake.
    #[error("the table is full of offers with more stake")]
    Full,
}

/// An offer that was taken.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The offer.
    pub signed: Arc<SignedOffer>,
    /// What the chain says of its provider.
    pub standing: Option<Standing>,
}

impl Listed {
    /// The offer.
    pub fn offer(&self) -> &Offer {
        &self.signed.offer
    }

    fn stake(&self) -> MicroCredits {
        self.standing.map_or(MicroCredits::ZERO, |standing| standing.stake)
    }
}

/// The offers that were heard.
#[derive(Debug)]
pub struct Market {
    registry: Arc<dyn Registry>,
    most: usize,
    rows: Mutex<HashMap<NodeId, Listed>>,
}

impl Market {
    /// An empty market.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self::sized(registry, MOST)
    }

    /// An empty market of at most so many offers.
    pub fn sized(registry: Arc<dyn Registry>, most: usize) -> Self {
        Self { registry, most, rows: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<NodeId, Listed>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an offer as it was heard.
    ///
    /// # Errors
    /// [`NotTaken`]
    pub fn take(&self, bytes: &[u8], now: UnixMillis) -> Result<NodeId, NotTaken> {
        let signed = SignedOffer::open(bytes, now)?;
        let provider = signed.offer.provider();
        let standing = self.registry.standing(provider);
        match standing {
            Some(standing) if standing.barred => return Err(NotTaken::Barred),
            Some(standing) if standing.sequence != signed.offer.registration => {
                return Err(NotTaken::Unregistered);
            }
            None if !self.registry.lenient() => return Err(NotTaken::Unregistered),
            _ => {}
        }
        let listed = Listed { signed: Arc::new(signed), standing };
        let mut rows = self.rows();
        if let Some(old) = rows.get(&provider) {
            let (old, new) = (old.offer().issued_at.0, listed.offer().issued_at.0);
            if new <= old {
                return Err(NotTaken::Old);
            }
            if new.saturating_sub(old) < PACE {
                return Err(NotTaken::Flood);
            }
        } else if rows.len() >= self.most {
            rows.retain(|_, listed| listed.offer().holds(now));
            if rows.len() >= self.most {
                let least =
                    rows.iter().min_by_key(|(_, row)| row.stake()).map(|(id, row)| (*id, row.stake()));
                match least {
                    Some((id, stake)) if stake < listed.stake() => drop(rows.remove(&id)),
                    _ => return Err(NotTaken::Full),
                }
            }
        }
        rows.insert(provider, listed);
        Ok(provider)
    }

    /// Forgets a provider.
    pub fn forget(&self, provider: NodeId) {
        self.rows().remove(&provider);
    }

    /// Every offer that holds, with what the chain says of its provider now.
    pub fn offers(&self, now: UnixMillis) -> Vec<Listed> {
        let rows = self.rows().values().filter(|row| row.offer().holds(now)).cloned().collect::<Vec<_>>();
        let current = rows.into_iter().filter_map(|row| {
            let standing = self.registry.standing(row.offer().provider());
            let known = standing.is_some() || self.registry.lenient();
            let barred = standing.is_some_and(|standing| standing.barred);
            (known && !barred).then_some(Listed { standing, ..row })
        });
        current.collect()
    }

    /// Offers of a model, each with the model as it is offered.
    pub fn of(&self, model: &str, now: UnixMillis) -> Vec<(Listed, ModelOffer)> {
        let mut found = Vec::new();
        for listed in self.offers(now) {
            let models = &listed.offer().models;
            let exact = listed.offer().model(model);
            let meant = exact.or_else(|| models.iter().find(|other| means(model, other.name()))).cloned();
            if let Some(meant) = meant {
                found.push((listed, meant));
            }
        }
        found
    }

    /// The newest offers as they travel, for who asks directly; at most `most`.
    pub fn encoded(&self, most: usize, now: UnixMillis) -> Vec<Vec<u8>> {
        let mut all = self.offers(now);
        all.sort_by_key(|listed| std::cmp::Reverse(listed.offer().issued_at));
        all.iter().take(most).map(|listed| listed.signed.encode()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pool::public::offer::tests::{offer, signer};

    const NOW: u64 = 1_800_000_000_000;

    /// A registry that knows what it is told.
    #[derive(Debug, Default)]
    pub(crate) struct Known(pub(crate) Mutex<HashMap<NodeId, Standing>>, pub(crate) bool);

    impl Registry for Known {
        fn standing(&self, provider: NodeId) -> Option<Standing> {
            self.0.lock().unwrap().get(&provider).copied()
        }
        fn lenient(&self) -> bool {
            self.1
        }
    }

    fn signed(n: u8, at: u64) -> Vec<u8> {
        SignedOffer::sign(offer(n, at), &signer(n)).unwrap().encode()
    }

    fn standing(stake: u128) -> Standing {
        Standing { stake: MicroCredits(stake), sequence: 5, ..Standing::default() }
    }

    #[test]
    fn the_newest_offer_of_a_registered_provider_counts() {
        let known = Arc::new(Known::default());
        let market = Market::new(known.clone());
        let at = |ms| UnixMillis(NOW + ms);
        assert_eq!(market.take(&signed(1, NOW), at(0)), Err(NotTaken::Unregistered));
        known.0.lock().unwrap().insert(signer(1).node(), standing(7));
        market.take(&signed(1, NOW), at(0)).unwrap();
        assert_eq!(market.take(&signed(1, NOW), at(0)), Err(NotTaken::Old));
        assert_eq!(market.take(&signed(1, NOW + 1_999), at(2_000)), Err(NotTaken::Flood));
        market.take(&signed(1, NOW + 60_000), at(60_000)).unwrap();
        assert_eq!(market.of("Stories:latest", at(60_000)).len(), 1);
        assert!(market.of("other", at(60_000)).is_empty());
        assert!(market.of("stories", at(360_000)).is_empty(), "it is over");
        known.0.lock().unwrap().get_mut(&signer(1).node()).unwrap().barred = true;
        assert!(market.of("stories", at(60_000)).is_empty(), "convicted");
        assert_eq!(market.take(&signed(1, NOW + 70_000), at(70_000)), Err(NotTaken::Barred));
    }

    #[test]
    fn a_flood_of_offers_takes_no_more_than_its_room_and_no_place_of_the_staked() {
        let known = Arc::new(Known(Mutex::default(), true));
        let market = Market::sized(known.clone(), 64);
        let seed = |n: u32| {
            let mut seed = [9; 32];
            seed[..4].copy_from_slice(&n.to_le_bytes());
            crate::identity::Signer::from_seed(seed)
        };
        let fake = |n: u32| {
            let mut offer = offer(1, NOW);
            offer.provider = seed(n).node().0;
            SignedOffer::sign(offer, &seed(n)).unwrap().encode()
        };
        known.0.lock().unwrap().insert(signer(1).node(), standing(7));
        market.take(&signed(1, NOW), UnixMillis(NOW)).unwrap();
        for n in 0..63 {
            market.take(&fake(n), UnixMillis(NOW)).unwrap();
        }
        assert_eq!(market.take(&fake(1_000_000), UnixMillis(NOW)), Err(NotTaken::Full));
        known.0.lock().unwrap().insert(signer(2).node(), standing(9));
        market.take(&signed(2, NOW), UnixMillis(NOW)).unwrap();
        assert_eq!(market.len(), 64);
        assert!(market.rows().contains_key(&signer(1).node()), "the staked keep their place");
    }
}
