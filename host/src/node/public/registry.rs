//! What the chain says of providers, kept in memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use potluck_chain_client::Live;
use tokio::time::Instant;

use crate::{
    identity::NodeId,
    pool::public::{
        audit::record::Docket,
        market::{Registry, Standing},
    },
};

/// How long an answer is new.
const FRESH: Duration = Duration::from_secs(120);
/// How long an answer is better than none: a chain that stalls for an hour stops no job.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);
/// Most answers that are kept.
const KEPT: usize = 16_384;
/// Questions in a second at most: whoever floods with offers does not flood the chain.
const RATE: u32 = 20;

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<NodeId, (Instant, Option<Standing>)>,
    second: Option<(Instant, u32)>,
}

/// The chain's registry of providers.
pub(super) struct ChainRegistry {
    live: Arc<Live>,
    lenient: bool,
    docket: Option<Arc<Docket>>,
    inner: Mutex<Inner>,
}

impl fmt::Debug for ChainRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainRegistry").field("known", &self.inner().rows.len()).finish_non_exhaustive()
    }
}

impl ChainRegistry {
    /// That of a chain, with what audits of this machine found. `lenient`: providers that it does not know are asked, too.
    pub(super) fn new(live: Arc<Live>, lenient: bool, docket: Option<Arc<Docket>>) -> Self {
        Self { live, lenient, docket, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the chain about a provider unless that was done lately.
    pub(super) async fn learn(&self, provider: NodeId) {
        {
            let mut inner = self.inner();
            if inner.rows.get(&provider).is_some_and(|(at, _)| at.elapsed() < FRESH) {
                return;
            }
            let now = Instant::now();
            match &mut inner.second {
                Some((began, count)) if began.elapsed() < Duration::from_secs(1) => {
                    if *count >= RATE {
                        return;
                    }
                    *count += 1;
                }
                second => *second = Some((now, 1)),
            }
        }
        let asked = async {
            let (_, at) = self.live.node.latest().await?;
            self.live.node.provider(&at, provider.0).await
        };
        let found = match asked.await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the chain does not say who a provider is");
                return;
            }
        };
        let standing = found.sequence.map(|sequence| Standing {
            operator: provider.0,
            stake: found.stake,
            sequence,
            barred: false,
            passed: 0,
            failed: found.cases,
        });
        let mut inner = self.inner();
        if inner.rows.len() >= KEPT {
            inner.rows.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if inner.rows.len() < KEPT {
            inner.rows.insert(provider, (Instant::now(), standing));
        }
    }

    /// The sequence of a provider's registration, asked of the chain now.
    ///
    /// # Errors
    /// In words: the chain does not answer.
    pub(super) async fn sequence(&self, provider: NodeId) -> Result<Option<u64>, String> {
        let asked = async {
            let (_, at) = self.live.node.latest().await?;
            self.live.node.provider(&at, provider.0).await
        };
        asked.await.map(|found| found.sequence).map_err(|error| error.to_string())
    }
}

impl Registry for ChainRegistry {
    fn standing(&self, provider: NodeId) -> Option<Standing> {
        let inner = self.inner();
        let (at, standing) = inner.rows.get(&provider)?;
        let mut standing = standing.filter(|_| at.elapsed() < STALE)?;
        if let Some(audited) = self.docket.as_ref().map(|docket| docket.standing(provider)) {
            standing.passed = standing.passed.saturating_add(audited.passed);
            standing.failed = standing.failed.saturating_add(audited.failed);
            standing.barred |= audited.convicted;
        }
        Some(standing)
    }

    fn lenient(&self) -> bool {
        self.lenient
    }
}
