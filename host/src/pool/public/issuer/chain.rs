//! What the chain says of those who pay, asked seldom.
//!
//! An answer is good for half a minute. When the chain does not answer, the last one is good for an hour: a chain that
//! stalls stops no job.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use potluck_chain_client::{Live, watch::Lane};
use potluck_primitives::{Account, Block, MicroCredits, Voucher};
use tokio::time::Instant;

use super::vouchers::{Bond, ChainError, Escrows};
use crate::mesh::streams::BoxFuture;

/// How long an answer is new.
const FRESH: Duration = Duration::from_secs(30);
/// How long it is better than none.
const STALE: Duration = Duration::from_secs(60 * 60);
/// How long a question waits where an older answer is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most answers of one kind that are kept.
const KEPT: usize = 4_096;

/// The chain, as far as payments need it.
#[derive(Debug)]
pub struct ChainView {
    live: Arc<Live>,
    head: Kept<(), Block>,
    escrow: Kept<Account, MicroCredits>,
    bond: Kept<Account, MicroCredits>,
    redeemed: Kept<Lane, MicroCredits>,
}

impl ChainView {
    /// The chain that is reached by `live`.
    pub fn new(live: Arc<Live>) -> Self {
        Self {
            live,
            head: Kept::default(),
            escrow: Kept::default(),
            bond: Kept::default(),
            redeemed: Kept::default(),
        }
    }
}

impl Bond for ChainView {
    fn bond(&self, issuer: Account) -> BoxFuture<'_, Result<MicroCredits, ChainError>> {
        Box::pin(self.bond.get(issuer, async move {
            let (_, at) = self.live.node.latest().await?;
            Ok(self.live.node.provider(&at, issuer).await?.stake)
        }))
    }
}

impl Escrows for ChainView {
    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        Box::pin(self.head.get((), async move {
            let (head, _) = self.live.node.latest().await?;
            Ok(Block(head.number))
        }))
    }

    fn escrow(&self, account: Account) -> BoxFuture<'_, Result<MicroCredits, ChainError>> {
        Box::pin(self.escrow.get(account, async move {
            let (_, at) = self.live.node.latest().await?;
            let balance = self.live.node.balance(&at, account).await?;
            Ok(balance.escrow.checked_sub(balance.thawing).unwrap_or_default())
        }))
    }

    fn redeemed<'a>(&'a self, voucher: &'a Voucher) -> BoxFuture<'a, Result<MicroCredits, ChainError>> {
        Box::pin(self.redeemed.get(Lane::from(voucher), async move {
            let (_, at) = self.live.node.latest().await?;
            Ok(self.live.node.lane(&at, voucher).await?.redeemed)
        }))
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
struct Told<V> {
    value: V,
    /// When the chain said so.
    said: Instant,
    /// When it was asked last.
    asked: Instant,
}

/// Answers of one kind.
#[derive(Debug)]
struct Kept<K, V>(Mutex<HashMap<K, Told<V>>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Copy, V: Copy> Kept<K, V> {
    async fn get(
        &self,
        key: K,
        ask: impl Future<Output = Result<V, potluck_chain_client::link::LinkError>>,
    ) -> Result<V, ChainError> {
        let known = self.told().get(&key).copied().filter(|told| told.said.elapsed() < STALE);
        let answer = match known {
            Some(told) if told.asked.elapsed() < FRESH => return Ok(told.value),
            Some(_) => tokio::time::timeout(PATIENCE, ask).await.ok(),
            None => Some(ask.await),
        };
        let now = Instant::now();
        let (told, value) = match (answer, known) {
            (Some(Ok(value)), _) => (Told { value, said: now, asked: now }, Ok(value)),
            // Not asked again before the old answer has served for a while.
            (_, Some(told)) => (Told { asked: now, ..told }, Ok(told.value)),
            (Some(Err(error)), None) => return Err(ChainError(error.to_string())),
            (None, None) => return Err(ChainError("it was not asked".into())),
        };
        let mut kept = self.told();
        if kept.len() >= KEPT {
            kept.retain(|_, told| told.asked.elapsed() < FRESH);
        }
        if kept.len() < KEPT || kept.contains_key(&key) {
            kept.insert(key, told);
        }
        value
    }

    fn told(&self) -> MutexGuard<'_, HashMap<K, Told<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
