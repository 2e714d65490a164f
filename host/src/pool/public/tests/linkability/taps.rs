//! What each party sees, written down beside it. Nothing of this is in the product.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Instant,
};

use parity_scale_codec::DecodeAll;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    identity::NodeId,
    mesh::{
        frame,
        streams::{BoxFuture, Inbound, Incoming, Stream},
    },
    pool::public::{
        issuer::wire::{self as issuer, Question},
        relay::FRAME,
        seal::{self, SealingKeys},
        session::serve::Unseal,
        token::{Denomination, Token},
        wire::{Ask, ToProvider},
    },
};

/// The first byte of an answer that is a refusal.
const REFUSED: u8 = 3;

/// What was carried one way: when, and how many bytes.
pub(super) type Flow = Vec<(f64, usize)>;

/// A circuit as its relay saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Circuit {
    pub(super) relay: usize,
    /// The key of the requester's connection; its address belongs to it.
    pub(super) peer: Option<NodeId>,
    pub(super) opened: f64,
    pub(super) up: Flow,
    pub(super) down: Flow,
    /// The first two frames: for whom, the toll, and the sealed hello.
    pub(super) head: Vec<u8>,
}

/// A job as its provider saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) provider: usize,
    pub(super) relay: Option<NodeId>,
    pub(super) came: f64,
    pub(super) up: Flow,
    pub(super) down: Flow,
    /// The sealed hello, as the relay saw it too.
    pub(super) hello: Vec<u8>,
    pub(super) asked: f64,
    pub(super) ask: Option<Ask>,
    /// Payments, the first included: when, and which tokens.
    pub(super) paid: Vec<(f64, Vec<Token>)>,
    plain: Vec<u8>,
}

/// A purchase as the issuer saw it.
#[derive(Clone, Debug)]
pub(super) struct Bought {
    pub(super) at: f64,
    pub(super) peer: NodeId,
    pub(super) account: [u8; 32],
    /// How many of each denomination.
    pub(super) counts: [usize; 3],
    pub(super) price: u128,
}

/// A claim as the issuer saw it.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) at: f64,
    pub(super) payee: [u8; 32],
    pub(super) serials: Vec<[u8; 32]>,
    pub(super) worth: u128,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) began: Instant,
    pub(super) circuits: Mutex<Vec<Circuit>>,
    pub(super) served: Mutex<Vec<Served>>,
    pub(super) bought: Mutex<Vec<Bought>>,
    pub(super) claimed: Mutex<Vec<Claimed>>,
}

thread_local! {
    /// The sealed stream that was read last on this thread: its seal is taken off in the same breath.
    static LAST: Cell<usize> = const { Cell::new(usize::MAX) };
}

type Ear = Box<dyn FnMut(bool, &[u8]) + Send>;

/// A stream beside which somebody listens.
struct Tapped {
    inner: Stream,
    /// Told what was read (`true`) and written.
    ear: Ear,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        (this.ear)(true, &buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        (this.ear)(false, &bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The same streams, each with an ear.
fn tapped(mut incoming: Incoming, mut ear: impl FnMut(NodeId) -> Ear + Send + 'static) -> Incoming {
    let (sender, out) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(Inbound { peer, stream }) = incoming.recv().await {
            let stream = Box::new(Tapped { inner: stream, ear: ear(peer) });
            if sender.send(Inbound { peer, stream }).await.is_err() {
                return;
            }
        }
    });
    out
}

fn keep(all: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let room = most.saturating_sub(all.len());
    all.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

impl Seen {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            circuits: Mutex::default(),
            served: Mutex::default(),
            bought: Mutex::default(),
            claimed: Mutex::default(),
        })
    }

    /// Seconds since the beginning.
    pub(super) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn at_relay(self: &Arc<Self>, relay: usize, incoming: Incoming) -> Incoming {
        let seen = Arc::clone(self);
        tapped(incoming, move |peer| {
            let (seen, mut all) = (Arc::clone(&seen), seen.circuits.lock().unwrap());
            let index = all.len();
            all.push(Circuit { relay, peer: Some(peer), opened: seen.now(), ..Circuit::default() });
            drop(all);
            Box::new(move |up, bytes| {
                let at = seen.now();
                let circuit = &mut seen.circuits.lock().unwrap()[index];
                if up {
                    keep(&mut circuit.head, bytes, 2 * FRAME);
                    circuit.up.push((at, bytes.len()));
                } else {
                    circuit.down.push((at, bytes.len()));
                }
            })
        })
    }

    pub(super) fn at_provider(self: &Arc<Self>, provider: usize, incoming: Incoming) -> Incoming {
        let seen = Arc::clone(self);
        tapped(incoming, move |relay| {
            let (seen, mut all) = (Arc::clone(&seen), seen.served.lock().unwrap());
            let index = all.len();
            all.push(Served { provider, relay: Some(relay), came: seen.now(), ..Served::default() });
            drop(all);
            Box::new(move |up, bytes| {
                let at = seen.now();
                let served = &mut seen.served.lock().unwrap()[index];
                if up {
                    LAST.set(index);
                    keep(&mut served.hello, bytes, 64);
                    served.up.push((at, bytes.len()));
                } else {
                    served.down.push((at, bytes.len()));
                }
            })
        })
    }

    pub(super) fn at_issuer(self: &Arc<Self>, incoming: Incoming) -> Incoming {
        let seen = Arc::clone(self);
        tapped(incoming, move |peer| {
            let seen = Arc::clone(&seen);
            let (mut question, mut answered) = (Vec::new(), false);
            let mut at = None;
            Box::new(move |up, bytes| {
                let now = seen.now();
                if up {
                    at.get_or_insert(now);
                    question.extend_from_slice(bytes);
                } else if !answered {
                    answered = true;
                    seen.asked(at.unwrap_or(now), peer, question.get(4..).unwrap_or_default(), bytes);
                }
            })
        })
    }

    fn asked(&self, at: f64, peer: NodeId, question: &[u8], answer: &[u8]) {
        let refused = answer.get(4) == Some(&REFUSED);
        match issuer::decode::<Question>(question) {
            Ok(Question::Buy(purchase)) if !refused => {
                let mut counts = [0; 3];
                for blinded in purchase.said.blinded.iter() {
                    let place = Denomination::ALL.iter().position(|value| *value == blinded.value);
                    counts[place.unwrap()] += 1;
                }
                let (account, price) = (purchase.said.account, purchase.said.price().0);
                self.bought.lock().unwrap().push(Bought { at, peer, account, counts, price });
            }
            Ok(Question::Spend(spend)) if !refused => {
                let serials = spend.tokens.iter().map(|token| token.serial).collect();
                let (payee, worth) = (spend.claim.said.payee, Token::worth(&spend.tokens).0);
                self.claimed.lock().unwrap().push(Claimed { at, payee, serials, worth });
            }
            _ => {}
        }
    }

    /// What a provider reads once the seal is off.
    fn read(&self, index: usize, bytes: &[u8]) {
        let at = self.now();
        let served = &mut self.served.lock().unwrap()[index];
        served.plain.extend_from_slice(bytes);
        while let Some((length, rest)) = served.plain.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(message) = rest.get(..length) else { return };
            let tokens = |spend: &[minicbor::bytes::ByteVec]| -> Vec<Token> {
                spend.iter().map(|bytes| Token::decode_all(&mut bytes.as_slice()).unwrap()).collect()
            };
            match frame::decode::<ToProvider>(message) {
                Ok(ToProvider::Ask { ask }) => {
                    served.asked = at;
                    served.paid.push((at, tokens(&ask.spend)));
                    served.ask = Some(*ask);
                }
                Ok(ToProvider::Pay { spend }) => served.paid.push((at, tokens(&spend))),
                _ => {}
            }
            served.plain.drain(..4 + length);
        }
    }
}

/// Takes seals off as the product does, and listens to what is inside.
pub(super) struct Listening {
    pub(super) keys: SealingKeys,
    pub(super) seen: Arc<Seen>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listening")
    }
}

impl Unseal for Listening {
    fn unseal(&self, stream: Stream) -> BoxFuture<'_, Result<Stream, String>> {
        Box::pin(async move {
            let pace = Some(crate::pool::public::cell::TICK);
            let inner = seal::accept(stream, &self.keys, pace).await.map_err(|error| error.to_string())?;
            let (seen, index) = (Arc::clone(&self.seen), LAST.get());
            let ear: Ear = Box::new(move |up, bytes| {
                if up {
                    seen.read(index, bytes);
                }
            });
            Ok(Box::new(Tapped { inner, ear }) as Stream)
        })
    }
}
