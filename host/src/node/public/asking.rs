//! Asking strangers: joins the network when it is first needed, under a key that is made for the hour.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use potluck_primitives::UnixMillis;
use serde_json::{Value, json};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Room, level, registry::ChainRegistry};
use crate::{
    config::public,
    dispatch::{health::Health, provider::BoxFuture},
    identity::NodeId,
    job::{JobError, Mode},
    mesh::streams::Streams,
    pool::public::{
        budget::Budgets,
        bulletin,
        issuer::{
            chain::ChainView,
            link::IssuerLink,
            vouchers::{BookVouchers, Clock},
        },
        market::{Approved, Chooser, Market, Native},
        net::{self, NetHandle, PublicNet},
        provider::{AskConfig, Parts, Ready},
        purse::{self, Purse},
        receipts::now_ms,
        session::Coins,
        ways::{Following, Ways},
    },
};

/// How long a key is used. What is under way over it may end later.
const KEY_LIFE: Duration = Duration::from_secs(3_600);
/// How long circuits over an old key may last.
const GRACE: Duration = Duration::from_secs(1_800);
/// How long a first request waits for offers.
const OFFERS: Duration = Duration::from_secs(8);
/// When a peer that said nothing is asked again at first.
const AGAIN: Duration = Duration::from_millis(250);
/// How often a peer is asked for the offers that it has heard.
const LISTEN: Duration = Duration::from_secs(60);

/// Asks strangers.
#[derive(Debug)]
pub(super) struct Asker {
    room: Room,
    budgets: Budgets,
    state: tokio::sync::Mutex<Option<Joined>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What lasts as long as the process.
#[derive(Clone, Debug)]
struct Lasting {
    market: Arc<Market>,
    registry: Arc<ChainRegistry>,
    purse: Purse,
    health: Arc<Health>,
    following: Arc<Following>,
    chooser: Arc<dyn Chooser>,
}

#[derive(Debug)]
struct Joined {
    lasting: Lasting,
    net: Arc<PublicNet>,
    since: Instant,
    end: CancellationToken,
    parts: Arc<Parts>,
}

fn unavailable(reason: impl ToString) -> JobError {
    JobError::ModeUnavailable { mode: Mode::Public, reason: reason.to_string() }
}

impl Asker {
    pub(super) fn new(room: Room, budgets: Budgets) -> Self {
        let (state, stop, tasks) =
            (tokio::sync::Mutex::default(), CancellationToken::new(), TaskTracker::new());
        Self { room, budgets, state, stop, tasks }
    }

    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        if let Some(joined) = self.state.lock().await.take() {
            joined.net.shutdown().await;
        }
        self.tasks.wait().await;
    }

    pub(super) async fn status(&self) -> Value {
        // Held for as long as it takes to join.
        let Ok(state) = tokio::time::timeout(AGAIN, self.state.lock()).await else {
            return json!({"joined": false, "joining": true});
        };
        let Some(joined) = &*state else { return json!({"joined": false}) };
        let now = UnixMillis(now_ms());
        let models: BTreeSet<String> = joined
            .lasting
            .market
            .offers(now)
            .iter()
            .flat_map(|listed| {
                listed.offer().models.iter().map(|model| model.name().to_owned()).collect::<Vec<_>>()
            })
            .collect();
        json!({
            "joined": true,
            "peers": joined.net.handle().peers().borrow().len(),
            "offers": joined.lasting.market.offers(now).len(),
            "models": models,
            "purse": joined.lasting.purse.balance().to_string(),
            "purse_pending": joined.lasting.purse.pending().to_string(),
        })
    }

    async fn joined(&self) -> Result<Arc<Parts>, JobError> {
        let mut state = self.state.lock().await;
        if self.stop.is_cancelled() {
            return Err(JobError::ShuttingDown);
        }
        if let Some(joined) = state.as_ref().filter(|joined| joined.since.elapsed() < KEY_LIFE) {
            return Ok(Arc::clone(&joined.parts));
        }
        let lasting = match &*state {
            Some(joined) => joined.lasting.clone(),
            None => self.lasting().await?,
        };
        let fresh = self.join(lasting).await?;
        let parts = Arc::clone(&fresh.parts);
        if let Some(old) = state.replace(fresh) {
            self.retire(old);
        }
        Ok(parts)
    }

    /// The old key's network ends when what is under way over it has had its time.
    fn retire(&self, old: Joined) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            old.end.cancel();
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(GRACE) => {}
            }
            old.net.shutdown().await;
        });
    }

    async fn lasting(&self) -> Result<Lasting, JobError> {
        let Room { section, settlement, signer, folder, .. } = &self.room;
        let account = section.issuer_account.as_ref().and_then(|id| id.parse::<NodeId>().ok());
        let issuer =
            account.ok_or_else(|| unavailable("no issuer is configured; set public.issuer_account"))?;
        let chain = settlement.room().await.map_err(unavailable)?;
        let live = Arc::clone(&chain.live);
        let genesis = live.genesis();
        let registry =
            Arc::new(ChainRegistry::new(Arc::clone(&live), section.unregistered, self.room.docket.clone()));
        let chooser: Arc<dyn Chooser> = match self.room.approved(&live) {
            Some((policies, decisions)) => Arc::new(Approved { policies, decisions }),
            None => Arc::new(Native),
        };
        let vouchers = BookVouchers::new(chain.shared_book(), genesis, Arc::new(ChainView::new(live)));
        let following = Arc::new(Following::default());
        let link = IssuerLink::new(Arc::clone(&following) as Arc<dyn Streams>, issuer, genesis);
        let settings = purse::Settings {
            path: folder.join(format!("purse-{issuer}")),
            level: level(section),
            budget: section.day_budget,
            delay: purse::DELAY,
        };
        let parts = purse::Parts {
            signer: signer.clone(),
            vouchers: Arc::new(vouchers),
            link,
            clock: Clock::system(),
        };
        let opened = tokio::task::spawn_blocking(move || Purse::open(settings, parts)).await;
        let purse = opened.map_err(unavailable)?.map_err(unavailable)?;
        let (filling, stop) = (purse.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = filling.keep_filled() => {}
            }
        });
        let market = Arc::new(Market::new(Arc::clone(&registry) as Arc<_>));
        Ok(Lasting { market, registry, purse, health: Arc::default(), following, chooser })
    }

    async fn join(&self, lasting: Lasting) -> Result<Joined, JobError> {
        let section = &self.room.section;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(unavailable)?;
        let bootstrap = section.bootstrap.iter().filter_map(|text| text.parse().ok()).collect();
        let config = net::Config { bootstrap, reachable: Some(false), ..net::Config::new(seed) };
        let net = Arc::new(PublicNet::bind(config).await.map_err(unavailable)?);
        let handle = net.handle();
        begin(&handle, &self.room);
        lasting.following.set(handle.clone());
        let end = self.stop.child_token();
        self.tasks.spawn(listen(handle.clone(), lasting.clone(), end.clone()));
        let asked: Vec<NodeId> =
            section.bootstrap.iter().filter_map(|text| Some(public::at(text).ok()?.node)).collect();
        // Who is asked while a connection is still being made says nothing.
        let first = async {
            loop {
                futures::future::join_all(asked.iter().map(|node| hear(&handle, &lasting, *node))).await;
                if !lasting.market.is_empty() {
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = tokio::time::timeout(OFFERS, first) => {}
        }
        let purse = Arc::new(Coins(lasting.purse.clone()));
        let ways = Ways {
            net: handle.clone(),
            purse: Arc::clone(&purse) as Arc<_>,
            registry: Arc::clone(&lasting.registry) as Arc<_>,
            me: self.room.signer.node(),
        };
        self.tasks.spawn(ask_peers(handle, lasting.clone(), end.clone()));
        let parts = Arc::new(Parts {
            config: AskConfig::default(),
            me: self.room.signer.node().0,
            market: Arc::clone(&lasting.market),
            chooser: Arc::clone(&lasting.chooser),
            circuits: Arc::new(ways),
            purse,
            budgets: self.budgets.clone(),
            receipts: Arc::clone(&self.room.receipts),
            health: Arc::clone(&lasting.health),
        });
        Ok(Joined { lasting, net, since: Instant::now(), end, parts })
    }
}

impl Ready for Asker {
    fn allowed(&self) -> bool {
        !self.room.offline && !self.room.section.bootstrap.is_empty()
    }

    fn parts(&self) -> BoxFuture<'_, Result<Arc<Parts>, JobError>> {
        Box::pin(self.joined())
    }
}

/// Tells a network where the issuer and the first peers are.
pub(super) fn begin(handle: &NetHandle, room: &Room) {
    let section = &room.section;
    for at in section.bootstrap.iter().filter_map(|text| public::at(text).ok()) {
        handle.learn(at.node, vec![at.address]);
    }
    let issuer = section.issuer_account.as_ref().and_then(|id| id.parse::<NodeId>().ok());
    if let Some(issuer) = issuer {
        let addresses = section.issuer_addresses.iter().filter_map(|text| text.parse().ok()).collect();
        handle.learn(issuer, addresses);
    }
}

/// Takes an offer that was heard, once the chain has been asked about its provider.
pub(super) async fn take(market: &Market, registry: &ChainRegistry, bytes: &[u8]) {
    let now = UnixMillis(now_ms());
    // The signature first: the chain is asked about nobody who did not sign.
    let Ok(signed) = crate::pool::public::offer::SignedOffer::open(bytes, now) else { return };
    registry.learn(signed.offer.provider()).await;
    if let Err(why) = market.take(bytes, now) {
        tracing::debug!(provider = %signed.offer.provider(), %why, "an offer is not taken");
    }
}

async fn hear(handle: &NetHandle, lasting: &Lasting, node: NodeId) {
    for bytes in bulletin::fetch(handle, node).await {
        take(&lasting.market, &lasting.registry, &bytes).await;
    }
}

async fn listen(handle: NetHandle, lasting: Lasting, end: CancellationToken) {
    let mut heard = handle.subscribe();
    loop {
        let message = tokio::select! {
            () = end.cancelled() => return,
            message = heard.recv() => message,
        };
        match message {
            Ok(message) => take(&lasting.market, &lasting.registry, &message.data).await,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn ask_peers(handle: NetHandle, lasting: Lasting, end: CancellationToken) {
    let mut round = crate::job::random_seed();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(LISTEN) => {}
        }
        round = round.wrapping_add(1);
        let peers: Vec<NodeId> = handle.peers().borrow().iter().copied().collect();
        let turn = usize::try_from(round % peers.len().max(1) as u64).unwrap_or(0);
        if let Some(peer) = peers.get(turn) {
            hear(&handle, &lasting, *peer).await;
        }
    }
}
