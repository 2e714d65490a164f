//! Circuits: the way to a provider over a relay, sealed and paid for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio_util::sync::CancellationToken;

use crate::{
    identity::NodeId,
    job::random_seed,
    mesh::streams::{BoxFuture, Stream, Streams, guarded},
    pool::public::{
        market::Registry,
        meter::UNIT,
        net::NetHandle,
        offer::{Offer, RelayAt},
        relay::{self, Account},
        seal::{self, SealingKey},
        session::{Circuits, PaymentError, Purse, Unreached},
    },
};

/// Cells left at which a further toll is paid.
const LOW: u64 = 512;

/// Leads to providers.
#[derive(Debug)]
pub struct Ways {
    /// The network, under a one-time key.
    pub net: NetHandle,
    /// Pays the relays.
    pub purse: Arc<dyn Purse>,
    /// Says whose machines they are.
    pub registry: Arc<dyn Registry>,
    /// This machine under its own name: it relays none of its own jobs.
    pub me: NodeId,
}

impl Ways {
    /// The relays of an offer that may be used, in a random order.
    fn relays(&self, offer: &Offer) -> Vec<RelayAt> {
        let operator =
            |node: NodeId| self.registry.standing(node).map_or(node.0, |standing| standing.operator);
        let theirs = operator(offer.provider());
        let mut relays: Vec<RelayAt> = offer.relays.to_vec();
        relays.retain(|relay| {
            let node = NodeId(relay.node);
            operator(node) != theirs && node != self.me && node != self.net.me()
        });
        let turn = random_seed();
        relays.sort_by_key(|relay| {
            relay
                .node
                .iter()
                .fold(turn, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        });
        relays
    }

    async fn through(
        &self,
        relay: &RelayAt,
        offer: &Offer,
        spent: &Arc<AtomicU64>,
    ) -> Result<Stream, Unreached> {
        let away = |error: &dyn ToString| Unreached::Away(error.to_string());
        let node = NodeId(relay.node);
        self.net.learn(node, relay.addresses());
        let toll = toll(&self.purse, spent).await?;
        let circuit = relay::dial(&self.net, node, offer.provider(), toll).await;
        let circuit = circuit.map_err(|error| away(&error))?;
        let key = SealingKey { provider: offer.provider(), public: offer.sealing };
        let sealed = seal::open(circuit.stream, &key).await.map_err(|error| away(&error))?;
        let end = CancellationToken::new();
        tokio::spawn(pay(circuit.account, Arc::clone(&self.purse), Arc::clone(spent), end.clone()));
        Ok(guarded(sealed, end.drop_guard()))
    }
}

/// The smallest token.
async fn toll(purse: &Arc<dyn Purse>, spent: &AtomicU64) -> Result<Vec<u8>, PaymentError> {
    let tokens = purse.take(UNIT).await?;
    spent.fetch_add(u64::try_from(UNIT.0).unwrap_or(u64::MAX), Relaxed);
    tokens.into_iter().next().ok_or_else(|| PaymentError::Empty("the purse gave nothing".into()))
}

/// Pays further tolls for as long as the circuit is used.
async fn pay(account: Account, purse: Arc<dyn Purse>, spent: Arc<AtomicU64>, end: CancellationToken) {
    let mut left = account.left();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            low = left.wait_for(|left| *left < LOW) => if low.is_err() { return },
        }
        let before = *left.borrow();
        let paid = match toll(&purse, &spent).await {
            Ok(toll) => account.pay(toll).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = paid {
            tracing::debug!(error, "a circuit is not paid any further");
            return;
        }
        // The relay takes its time to ask the issuer; one toll is under way until then.
        tokio::select! {
            () = end.cancelled() => return,
            more = left.wait_for(|left| *left > before) => if more.is_err() { return },
        }
    }
}

impl Circuits for Ways {
    fn dial<'a>(
        &'a self,
        offer: &'a Offer,
        spent: Arc<AtomicU64>,
    ) -> BoxFuture<'a, Result<Stream, Unreached>> {
        Box::pin(async move {
            let mut trouble = "none of its relays may be used".to_owned();
            for relay in self.relays(offer) {
                match self.through(&relay, offer, &spent).await {
                    Ok(stream) => return Ok(stream),
                    // No other relay would be paid either.
                    Err(error @ Unreached::Payment(_)) => return Err(error),
                    Err(error) => trouble = format!("relay {}: {error}", NodeId(relay.node)),
                }
            }
            Err(Unreached::Away(trouble))
        })
    }
}

/// Streams of a network that is replaced from time to time.
#[derive(Debug, Default)]
pub struct Following(std::sync::RwLock<Option<NetHandle>>);

impl Following {
    /// The network from now on.
    pub fn set(&self, net: NetHandle) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(net);
    }
}

impl Streams for Following {
    fn open(
        &self,
        peer: NodeId,
        protocol: &'static str,
    ) -> BoxFuture<'_, Result<Stream, crate::mesh::streams::OpenError>> {
        let net = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Box::pin(async move {
            match net {
                Some(net) => net.open(peer, protocol).await,
                None => Err(crate::mesh::streams::OpenError::Closed),
            }
        })
    }
}
