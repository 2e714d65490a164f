//! Offers: what a provider serves, for how much, and how it is reached.
//!
//! An offer is short-lived and signed with the provider's key, which is also its account on the chain. Anybody passes
//! it on; nobody can change it. It names the relays at which the provider waits: requesters never learn where the
//! provider itself is, and the provider never learns where they are.

use std::time::Duration;

use libp2p::Multiaddr;
use parity_scale_codec::{Decode, DecodeAll, Encode};
use potluck_primitives::{Account, Bounded, Class, MicroCredits, UnixMillis, blake2_256, signed_by};

use super::meter::Rates;
use crate::identity::{NodeId, Signer};

/// Keeps a signature of an offer from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck public offer 1\0";
/// The version that this program writes, and the only one it reads.
pub const VERSION: u8 = 1;
/// Most bytes of an offer with its signature.
pub const MAX_OFFER: usize = 4096;
/// Longest life of an offer.
pub const MAX_LIFE: Duration = Duration::from_secs(600);
/// How far the clocks of two machines may differ.
pub const SKEW: Duration = Duration::from_secs(120);
/// Most models in an offer.
pub const MAX_MODELS: u32 = 16;
/// Most relays in an offer.
pub const MAX_RELAYS: u32 = 4;
/// Most addresses of a relay.
pub const MAX_ADDRESSES: u32 = 4;
/// Longest name of a model, in bytes.
pub const MAX_NAME: u32 = 128;
/// Longest address, in bytes.
const MAX_ADDRESS: u32 = 128;
/// Most that a thousand tokens may cost: 1,000 credits, so that no sum over a job overflows.
pub const MAX_RATE: MicroCredits = MicroCredits(1_000_000_000);

/// A model that is served.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModelOffer {
    /// The name to ask for: printable ASCII.
    pub name: Bounded<u8, MAX_NAME>,
    /// BLAKE3 of its file: equal files give equal answers.
    pub digest: [u8; 32],
    /// Its quantisation, for people.
    pub quantisation: Class,
    /// Longest context it takes, in tokens.
    pub context: u32,
    /// What a thousand tokens of the prompt and of the answer cost.
    pub rates: Rates,
}

/// A relay at which the provider can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RelayAt {
    /// The relay.
    pub node: [u8; 32],
    /// Where it is, as binary multiaddresses.
    pub addresses: Bounded<Bounded<u8, MAX_ADDRESS>, MAX_ADDRESSES>,
}

/// What a provider serves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Offer {
    /// The version of this format: 1.
    pub version: u8,
    /// The provider's key and account.
    pub provider: Account,
    /// The models.
    pub models: Bounded<ModelOffer, MAX_MODELS>,
    /// Jobs it answers at the same time.
    pub capacity: u16,
    /// The X25519 key that jobs are sealed to.
    pub sealing: [u8; 32],
    /// Where it is reached.
    pub relays: Bounded<RelayAt, MAX_RELAYS>,
    /// The issuer whose tokens it takes.
    pub issuer: Account,
    /// The sequence of its registration on the chain.
    pub registration: u64,
    /// When it was made.
    pub issued_at: UnixMillis,
    /// Until when it holds, at most [`MAX_LIFE`] later.
    pub expires_at: UnixMillis,
}

/// An offer with its provider's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedOffer {
    /// The offer.
    pub offer: Offer,
    /// The provider's ed25519 signature of the offer's digest.
    pub signature: [u8; 64],
}

/// Why something is no offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Too many bytes.
    #[error("an offer of {0} bytes, where at most {MAX_OFFER} are allowed")]
    TooLong(usize),
    /// Bytes that are none.
    #[error("bytes that are no offer")]
    Malformed,
    /// Of another program.
    #[error("an offer of version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// A value that cannot be.
    #[error("an offer whose {field} {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its time is not now.
    #[error("an offer that does not hold now: it is expired, lives too long, or a clock is wrong")]
    Time,
    /// Not signed by its provider.
    #[error("an offer that its provider did not sign")]
    Forged,
}

const fn invalid(field: &'static str, reason: &'static str) -> OfferError {
    OfferError::Invalid { field, reason }
}

impl ModelOffer {
    /// The name as text; empty for one that is not printable ASCII.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name).unwrap_or_default()
    }
}

impl RelayAt {
    /// A relay and where it is; addresses that are too long, and those beyond the fourth, are left out.
    pub fn new(node: NodeId, addresses: &[Multiaddr]) -> Self {
        let mut kept = Bounded::empty();
        for address in addresses {
            if let Ok(bytes) = Bounded::new(address.to_vec())
                && kept.push(bytes).is_err()
            {
                break;
            }
        }
        Self { node: node.0, addresses: kept }
    }

    /// Where it is.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()).collect()
    }
}

impl Offer {
    /// What the provider signs, and the name of the offer: BLAKE2b-256 of the format's name and the offer.
    pub fn digest(&self) -> [u8; 32] {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, bytes]))
    }

    /// Who offers.
    pub fn provider(&self) -> NodeId {
        NodeId(self.provider)
    }

    /// The model with exactly this name.
    pub fn model(&self, name: &str) -> Option<&ModelOffer> {
        self.models.iter().find(|model| model.name() == name)
    }

    /// Checks what can be checked without a clock.
    ///
    /// # Errors
    /// [`OfferError`], never [`OfferError::Forged`].
    pub fn check(&self) -> Result<(), OfferError> {
        if self.version != VERSION {
            return Err(OfferError::Version(self.version));
        }
        if self.models.is_empty() {
            return Err(invalid("models", "are none"));
        }
        for (index, model) in self.models.iter().enumerate() {
            let printable = model.name.iter().all(u8::is_ascii_graphic);
            if model.name.is_empty() || !printable {
                return Err(invalid("model", "has a name that is empty or not printable"));
            }
            if self.models.iter().take(index).any(|other| other.name == model.name) {
                return Err(invalid("models", "are the same twice"));
            }
            if model.context == 0 {
                return Err(invalid("context", "is zero"));
            }
            if model.rates.prompt > MAX_RATE || model.rates.completion > MAX_RATE {
                return Err(invalid("price", "is more than 1,000 credits for a thousand tokens"));
            }
        }
        if self.relays.is_empty() {
            return Err(invalid("relays", "are none"));
        }
        for (index, relay) in self.relays.iter().enumerate() {
            if relay.node == self.provider {
                return Err(invalid("relay", "is the provider itself"));
            }
            if self.relays.iter().take(index).any(|other| other.node == relay.node) {
                return Err(invalid("relays", "are the same twice"));
            }
            if relay.addresses().len() != relay.addresses.len() {
                return Err(invalid("relay", "has an address that is none"));
            }
        }
        let life = self.expires_at.0.checked_sub(self.issued_at.0);
        if life.is_none_or(|life| life == 0 || u128::from(life) > MAX_LIFE.as_millis()) {
            return Err(OfferError::Time);
        }
        Ok(())
    }

    /// Whether it holds at a time.
    pub fn holds(&self, now: UnixMillis) -> bool {
        let skew = u64::try_from(SKEW.as_millis()).unwrap_or(u64::MAX);
        self.issued_at.0 <= now.0.saturating_add(skew) && now.0 < self.expires_at.0
    }
}

impl SignedOffer {
    /// Signs an offer of this machine.
    ///
    /// # Errors
    /// [`OfferError`]: others would refuse it.
    pub fn sign(offer: Offer, signer: &Signer) -> Result<Self, OfferError> {
        offer.check()?;
        if offer.provider != signer.node().0 {
            return Err(OfferError::Forged);
        }
        let signature = signer.sign(&offer.digest()).0;
        let signed = Self { offer, signature };
        match signed.encoded_size() {
            size if size > MAX_OFFER => Err(OfferError::TooLong(size)),
            _ => Ok(signed),
        }
    }

    /// Reads and checks an offer.
    ///
    /// # Errors
    /// Any [`OfferError`].
    pub fn open(bytes: &[u8], now: UnixMillis) -> Result<Self, OfferError> {
        if bytes.len() > MAX_OFFER {
            return Err(OfferError::TooLong(bytes.len()));
        }
        let signed = Self::decode_all(&mut &*bytes).map_err(|_| OfferError::Malformed)?;
        signed.offer.check()?;
        // The clock first: it costs nothing.
        if !signed.offer.holds(now) {
            return Err(OfferError::Time);
        }
        if !signed_by(&signed.offer.provider, &signed.offer.digest(), &signed.signature) {
            return Err(OfferError::Forged);
        }
        Ok(signed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn signer(n: u8) -> Signer {
        Signer::from_seed([n; 32])
    }

    /// An offer of the machine with this seed, made at `now`.
    pub(crate) fn offer(n: u8, now: u64) -> Offer {
        let model = ModelOffer {
            name: Bounded::new(b"stories".to_vec()).unwrap(),
            digest: [7; 32],
            quantisation: Class::new("F32"),
            context: 512,
            rates: Rates { prompt: MicroCredits(2_000), completion: MicroCredits(14_000) },
        };
        let relay = RelayAt::new(NodeId([200; 32]), &["/ip4/192.0.2.1/udp/7687/quic-v1".parse().unwrap()]);
        Offer {
            version: VERSION,
            provider: signer(n).node().0,
            models: Bounded::new(vec![model]).unwrap(),
            capacity: 4,
            sealing: [9; 32],
            relays: Bounded::new(vec![relay]).unwrap(),
            issuer: [8; 32],
            registration: 5,
            issued_at: UnixMillis(now),
            expires_at: UnixMillis(now + 300_000),
        }
    }

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn an_offer_is_written_as_others_write_it() {
        let mut plain = offer(1, NOW);
        plain.provider = [1; 32];
        let hex: String = plain.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("offer/golden.hex").trim());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = SignedOffer::sign(offer(1, NOW), &signer(1)).unwrap().encode();
        assert!(SignedOffer::open(&bytes, UnixMillis(NOW)).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SignedOffer::open(&bad, UnixMillis(NOW)).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(SignedOffer::open(&bytes[..cut], UnixMillis(NOW)), Err(OfferError::Malformed));
        }
        let long = [bytes, vec![0]].concat();
        assert_eq!(SignedOffer::open(&long, UnixMillis(NOW)), Err(OfferError::Malformed));
        let huge = SignedOffer::open(&vec![0; MAX_OFFER + 1], UnixMillis(NOW));
        assert_eq!(huge, Err(OfferError::TooLong(4097)));
    }

    #[test]
    fn an_offer_holds_for_its_time_only() {
        let bytes = SignedOffer::sign(offer(1, NOW), &signer(1)).unwrap().encode();
        let at = |ms| SignedOffer::open(&bytes, UnixMillis(ms)).map(drop);
        assert_eq!(at(NOW - 120_000), Ok(()));
        assert_eq!(at(NOW - 120_001), Err(OfferError::Time));
        assert_eq!(at(NOW + 299_999), Ok(()));
        assert_eq!(at(NOW + 300_000), Err(OfferError::Time));
        let mut long = offer(1, NOW);
        long.expires_at = UnixMillis(NOW + 600_001);
        assert_eq!(SignedOffer::sign(long, &signer(1)), Err(OfferError::Time));
    }

    #[test]
    fn nonsense_is_not_even_signed() {
        let refused = |change: &dyn Fn(&mut Offer)| {
            let mut bad = offer(1, NOW);
            change(&mut bad);
            SignedOffer::sign(bad, &signer(1)).unwrap_err()
        };
        let first = |offer: &Offer| offer.models[0].clone();
        assert!(matches!(refused(&|o| o.models = Bounded::empty()), OfferError::Invalid { .. }));
        assert!(matches!(refused(&|o| o.relays = Bounded::empty()), OfferError::Invalid { .. }));
        assert_eq!(refused(&|o| o.version = 2), OfferError::Version(2));
        assert_eq!(refused(&|o| o.provider = signer(2).node().0), OfferError::Forged);
        let own = refused(&|o| {
            o.relays = Bounded::new(vec![RelayAt::new(signer(1).node(), &[])]).unwrap();
        });
        assert!(own.to_string().contains("the provider itself"), "{own}");
        let twice = refused(&|o| o.models = Bounded::new(vec![first(o), first(o)]).unwrap());
        assert!(twice.to_string().contains("twice"), "{twice}");
        let dear = refused(&|o| {
            let mut model = first(o);
            model.rates.completion = MicroCredits(MAX_RATE.0 + 1);
            o.models = Bounded::new(vec![model]).unwrap();
        });
        assert!(dear.to_string().contains("price"), "{dear}");
        let long = refused(&|o| {
            let mut models = Vec::new();
            for n in 0..16_u8 {
                let mut model = first(o);
                model.name = Bounded::new(vec![b'a' + n; 128]).unwrap();
                model.quantisation = Class::new(&"q".repeat(64));
                models.push(model);
            }
            o.models = Bounded::new(models).unwrap();
        });
        assert!(matches!(long, OfferError::TooLong(_)), "{long}");
    }
}
