//! Sealing a stream to a provider: HPKE (RFC 9180; X25519-HKDF-SHA256, ChaCha20-Poly1305, base mode).
//!
//! The requester sends one hello of the size of a cell: its one-time key, the name of the provider's key, and a
//! sealed block. Both sides take the keys of their [`cell`](super::cell)s from the exporter of that context. The
//! requester has no key that lives longer than the stream; the provider's keys live [`LIFE`], and are forgotten
//! [`GRACE`] after that, so that what a relay recorded cannot be opened later. A hello opens once.
//!
//! The name of the key says which provider and which hour, both known to the relay anyway; nothing outside the seal
//! says which model or price was chosen.

use std::{
    collections::HashSet,
    fmt, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hpke::{
    Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use minicbor::{Decode, Encode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

use super::cell::{self, CELL, Cells, Keys};
use crate::{
    identity::{Digest, NodeId},
    mesh::streams::Stream,
};

/// The protocol of sealed streams, from a relay to a provider.
pub const SEALED: &str = "/potluck/sealed/1";
/// How long a sealing key is given out.
pub const LIFE: Duration = Duration::from_secs(3_600);
/// How long a sealing key opens hellos after that: a little longer than an offer that names it is valid.
pub const GRACE: Duration = Duration::from_secs(900);
/// The most streams one key opens; it is replaced early when it has.
pub const HELLOS: usize = 65_536;
/// The longest a provider waits for a hello.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Begins what is bound into the key schedule.
const CONTEXT: &[u8] = b"potluck sealed stream 1";
const TO_PROVIDER: &[u8] = b"cells from requester to provider";
const TO_REQUESTER: &[u8] = b"cells from provider to requester";
/// Bytes of the one-time key.
const ENC: usize = 32;
/// Bytes of the name of a provider's key.
const NAME: usize = 8;
/// Bytes of the sealed block.
const BLOCK: usize = CELL - ENC - NAME;
/// Bytes of its authenticator.
const TAG: usize = 16;

type Suite = X25519HkdfSha256;
type Sender = hpke::aead::AeadCtxS<ChaCha20Poly1305, HkdfSha256, Suite>;
type Receiver = hpke::aead::AeadCtxR<ChaCha20Poly1305, HkdfSha256, Suite>;

/// Why a stream could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The stream broke, or ended within the hello.
    #[error("the stream broke before it was sealed: {0}")]
    Io(#[from] io::Error),
    /// No hello within [`PATIENCE`].
    #[error("no hello came in time")]
    Late,
    /// The provider's key is no key; its offer is of no use.
    #[error("the sealing key of {provider} is not a valid X25519 key; choose another provider")]
    Key {
        /// The provider.
        provider: NodeId,
    },
    /// It is sealed to a key that is gone.
    #[error("the hello is sealed to a key that is unknown or has expired; the requester needs a fresh offer")]
    Expired,
    /// It does not open: changed on the way, or meant for somebody else.
    #[error("the hello does not open: it was changed on the way or is meant for another")]
    Altered,
    /// It was seen before.
    #[error("the hello was used before; it is refused")]
    Replayed,
    /// The key has opened as many streams as it may.
    #[error("the sealing key has opened {HELLOS} streams; the next offer names a new one")]
    Full,
}

/// The key that a provider's offer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SealingKey {
    /// Whose it is.
    #[n(0)]
    pub provider: NodeId,
    /// The X25519 public key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub public: [u8; 32],
}

impl SealingKey {
    /// The first bytes of its hash.
    fn name(&self) -> [u8; NAME] {
        let hash = Digest::of(&self.public).0;
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// What both sides bind into the key schedule.
    fn info(&self) -> Vec<u8> {
        [CONTEXT, &self.provider.0, &self.public].concat()
    }
}

/// One secret key, and what it has opened.
struct SealingSecret {
    key: SealingKey,
    /// The bytes of the secret; `hpke`'s own form of it is made for each use.
    secret: Zeroizing<Vec<u8>>,
    since: Duration,
    /// The hellos opened, each by the first half of its one-time key's hash.
    seen: HashSet<[u8; 16]>,
}

impl SealingSecret {
    fn new(provider: NodeId, since: Duration) -> Option<Self> {
        // Not `gen_keypair`, which panics where the system has no randomness.
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).ok()?;
        let (secret, public) = Suite::derive_keypair(seed.as_slice());
        let public = public.to_bytes().as_slice().try_into().ok()?;
        let secret = Zeroizing::new(secret.to_bytes().to_vec());
        Some(Self { key: SealingKey { provider, public }, secret, since, seen: HashSet::new() })
    }

    fn is_full(&self) -> bool {
        self.seen.len() >= HELLOS
    }

    /// The keys of the stream that a hello begins.
    fn open(&mut self, enc: &[u8], hello: &[u8], aad: &[u8]) -> Result<Keys, SealError> {
        let seen = Digest::of(enc).0.first_chunk().copied().unwrap_or_default();
        if self.seen.contains(&seen) {
            return Err(SealError::Replayed);
        }
        if self.is_full() {
            return Err(SealError::Full);
        }
        let opened = || -> Result<Keys, HpkeError> {
            let secret = <Suite as Kem>::PrivateKey::from_bytes(&self.secret)?;
            let enc = <Suite as Kem>::EncappedKey::from_bytes(enc)?;
            let mut context: Receiver =
                hpke::setup_receiver(&OpModeR::Base, &secret, &enc, &self.key.info())?;
            context.open(hello, aad)?;
            export(|label, out| context.export(label, out)).map(|(receive, send)| Keys { send, receive })
        };
        let keys = opened().map_err(|_| SealError::Altered)?;
        // Only what opened: noise cannot fill it.
        self.seen.insert(seen);
        Ok(keys)
    }
}

type Half = Zeroizing<[u8; 32]>;

/// The keys of both directions: to the provider, to the requester.
fn export(exporter: impl Fn(&[u8], &mut [u8]) -> Result<(), HpkeError>) -> Result<(Half, Half), HpkeError> {
    let (mut to_provider, mut to_requester) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    exporter(TO_PROVIDER, to_provider.as_mut_slice())?;
    exporter(TO_REQUESTER, to_requester.as_mut_slice())?;
    Ok((to_provider, to_requester))
}

/// The sealing keys of a provider: the one it gives out now, and the one before for [`GRACE`].
pub struct SealingKeys {
    provider: NodeId,
    keys: Mutex<(SealingSecret, Option<SealingSecret>)>,
}

impl SealingKeys {
    /// A first key of `provider`. `now` is any clock that never goes back; all calls must use the same.
    ///
    /// # Errors
    /// [`SealError::Io`] where the system gives no randomness.
    pub fn new(provider: NodeId, now: Duration) -> Result<Self, SealError> {
        let first = SealingSecret::new(provider, now).ok_or_else(no_randomness)?;
        Ok(Self { provider, keys: Mutex::new((first, None)) })
    }

    fn lock(&self) -> MutexGuard<'_, (SealingSecret, Option<SealingSecret>)> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key to put into offers now: a new one where the last is older than [`LIFE`] or used up. Also forgets the
    /// one before when its time is over, so call it at least every few minutes.
    ///
    /// # Errors
    /// [`SealError::Io`] where the system gives no randomness.
    pub fn current(&self, now: Duration) -> Result<SealingKey, SealError> {
        let mut keys = self.lock();
        let (current, previous) = &mut *keys;
        if now.saturating_sub(current.since) >= LIFE || current.is_full() {
            let fresh = SealingSecret::new(self.provider, now).ok_or_else(no_randomness)?;
            *previous = Some(std::mem::replace(current, fresh));
        } else if now.saturating_sub(current.since) >= GRACE {
            *previous = None;
        }
        Ok(current.key)
    }

    fn open(&self, hello: &[u8; CELL]) -> Result<Keys, SealError> {
        let (head, block) = hello.split_at_checked(ENC + NAME).ok_or(SealError::Altered)?;
        let (enc, name) = head.split_at_checked(ENC).ok_or(SealError::Altered)?;
        let mut keys = self.lock();
        let (current, previous) = &mut *keys;
        let mut known = [Some(current), previous.as_mut()].into_iter().flatten();
        let secret = known.find(|secret| secret.key.name() == name).ok_or(SealError::Expired)?;
        secret.open(enc, block, head)
    }
}

fn no_randomness() -> SealError {
    SealError::Io(io::Error::other("the system gives no randomness"))
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKeys").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// Seals `stream` to a provider and returns what is inside. Sends the hello; nothing is waited for.
///
/// # Errors
/// [`SealError::Key`] or [`SealError::Io`].
pub async fn open(mut stream: Stream, to: &SealingKey) -> Result<Stream, SealError> {
    let (hello, keys) = hello(to)?;
    stream.write_all(&hello).await?;
    stream.flush().await?;
    Ok(Box::new(Cells::new(stream, &keys)))
}

/// A hello, and the keys of the stream that it begins.
fn hello(to: &SealingKey) -> Result<(Vec<u8>, Keys), SealError> {
    let seal = || -> Result<_, HpkeError> {
        let public = <Suite as Kem>::PublicKey::from_bytes(&to.public)?;
        let (enc, mut context): (_, Sender) = hpke::setup_sender(&OpModeS::Base, &public, &to.info())?;
        let head = [enc.to_bytes().as_slice(), &to.name()].concat();
        let block = context.seal(&[0; BLOCK - TAG], &head)?;
        let keys = export(|label, out| context.export(label, out));
        Ok(([head, block].concat(), keys.map(|(send, receive)| Keys { send, receive })?))
    };
    seal().map_err(|_| SealError::Key { provider: to.provider })
}

/// Opens a stream that a requester sealed, and returns what is inside. With `pace`, what is written leaves at most
/// one cell per tick ([`cell::TICK`], say).
///
/// # Errors
/// Any [`SealError`] but [`SealError::Key`].
pub async fn accept(
    mut stream: Stream,
    keys: &SealingKeys,
    pace: Option<Duration>,
) -> Result<Stream, SealError> {
    let mut hello = [0; CELL];
    let read = timeout(PATIENCE, stream.read_exact(&mut hello)).await;
    read.map_err(|_| SealError::Late)??;
    let began = Instant::now();
    let cells = Cells::new(stream, &keys.open(&hello)?);
    tracing::trace!(micros = began.elapsed().as_micros(), "sealed stream opened");
    Ok(match pace {
        Some(tick) => Box::new(cell::paced(cells, tick)),
        None => Box::new(cells),
    })
}

#[cfg(test)]
mod tests;
