//! What this machine does for strangers under its own name: serve, relay, issue.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use parity_scale_codec::Encode;
use potluck_primitives::{Bounded, UnixMillis};
use serde_json::{Value, json};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Room,
    asking::{self, Asker},
    goods::{self, Prices},
    registry::ChainRegistry,
    verifying,
};
use crate::{
    config::public,
    identity::NodeId,
    mesh::streams::{BoxFuture, Stream, Streams},
    policy::Policies,
    pool::public::{
        bulletin,
        issuer::{
            self, Issuer,
            chain::ChainView,
            link::IssuerLink,
            vouchers::{BookVouchers, Clock, Vouchers},
            wire::ISSUER,
        },
        market::{Market, Registry},
        net::{self, NetHandle, PublicNet},
        offer::{Offer, RelayAt, SignedOffer, VERSION},
        receipts::now_ms,
        relay::{self, RELAY, Relay},
        seal::{self, SEALED, SealingKeys},
        session::{
            Counter, Timers,
            serve::{PublicServer, Serving, Unseal},
        },
        till::{self, Till},
        token::Schedule,
    },
};

/// How often an offer is made anew; it holds four times as long.
const OFFER: Duration = Duration::from_secs(120);
/// The first ones follow each other sooner: who has just connected may not be listened to yet.
const FIRST: [Duration; 3] = [Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(30)];
/// How long it holds.
const HOLDS: u64 = 480_000;
/// When an offer that could not be made or published is tried again.
const SOON: Duration = Duration::from_secs(5);
/// How often the till asks for what is still owed, and for the issuer's keys.
const COLLECT: Duration = Duration::from_secs(60);

/// Takes seals off with this machine's keys.
#[derive(Debug)]
struct Seals {
    keys: SealingKeys,
    began: Instant,
}

impl Unseal for Seals {
    fn unseal(&self, stream: Stream) -> BoxFuture<'_, Result<Stream, String>> {
        Box::pin(async {
            let pace = Some(crate::pool::public::cell::TICK);
            seal::accept(stream, &self.keys, pace).await.map_err(|error| error.to_string())
        })
    }
}

/// A machine that strangers know by its name.
#[derive(Debug)]
pub(super) struct Stand {
    net: PublicNet,
    server: Option<PublicServer>,
    relay: Option<Relay>,
    issuer: Mutex<Option<Issuer>>,
    shown: Arc<Mutex<Shown>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What is told of the offer.
#[derive(Debug, Default)]
struct Shown {
    offer: Option<Value>,
    trouble: Option<String>,
}

pub(super) fn words(error: impl ToString) -> String {
    error.to_string()
}

impl Stand {
    /// Begins what the configuration asks for, and serves if `serves`.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn bind(room: &Room, asker: &Arc<Asker>, serves: bool) -> Result<Self, String> {
        if room.offline {
            return Err("this node is offline (offline, --offline, POTLUCK_OFFLINE)".into());
        }
        let section = &room.section;
        let account = section.issuer_account.as_ref().and_then(|id| id.parse::<NodeId>().ok());
        let issuer = if section.issuer { Some(room.signer.node()) } else { account };
        let issuer = issuer.ok_or("no issuer is configured; set public.issuer_account")?;
        let chain = room.settlement.room().await.map_err(words)?;
        let live = Arc::clone(&chain.live);
        let genesis = live.genesis();
        let view = Arc::new(ChainView::new(Arc::clone(&live)));
        let vouchers: Arc<dyn Vouchers> =
            Arc::new(BookVouchers::new(chain.shared_book(), genesis, Arc::clone(&view) as Arc<_>));
        let registry =
            Arc::new(ChainRegistry::new(Arc::clone(&live), section.unregistered, room.docket.clone()));
        let market = Arc::new(Market::new(Arc::clone(&registry) as Arc<dyn Registry>));
        let config = net::Config {
            listen: section.listen.clone(),
            announce: section.announce.iter().filter_map(|text| text.parse().ok()).collect(),
            reachable: (!section.listen.is_empty()).then_some(true),
            bootstrap: section.bootstrap.iter().filter_map(|text| text.parse().ok()).collect(),
            book: Some(room.folder.join("peers")),
            ..net::Config::new(room.signer.seed())
        };
        let net = PublicNet::bind(config).await.map_err(words)?;
        let handle = net.handle();
        asking::begin(&handle, room);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut stand = Self {
            net,
            server: None,
            relay: None,
            issuer: Mutex::default(),
            shown: Arc::default(),
            stop,
            tasks,
        };
        stand
            .tasks
            .spawn(until(&stand.stop, bulletin::serve(handle.bind(bulletin::PROTOCOL), Arc::clone(&market))));
        let listening = listen(handle.clone(), Arc::clone(&market), Arc::clone(&registry));
        stand.tasks.spawn(until(&stand.stop, listening));
        if section.issuer {
            stand.issue(room, &handle, &vouchers, view).await?;
        }
        if section.relay || serves {
            let link = IssuerLink::new(Arc::new(handle.clone()) as Arc<dyn Streams>, issuer, genesis);
            let parts = till::Parts { signer: room.signer.clone(), vouchers, link, clock: Clock::system() };
            let path = room.folder.join(format!("till-{issuer}"));
            let opened = tokio::task::spawn_blocking(move || Till::open(&path, parts)).await;
            let till = Arc::new(opened.map_err(words)?.map_err(words)?);
            // Before the first job: a token cannot be told from noise without the issuer's keys.
            till.refresh(None).await.map_err(words)?;
            stand.tasks.spawn(until(&stand.stop, collect(Arc::clone(&till))));
            if section.relay {
                let tolls = Arc::new(Counter(Arc::clone(&till)));
                let streams = Arc::new(handle.clone());
                stand.relay = Some(Relay::bind(streams, handle.bind(RELAY), tolls, relay::Limits::default()));
            }
            if serves {
                let policies = room.approved(&live).map(|(policies, _)| policies);
                stand.serve(room, &handle, &till, registry, issuer, policies)?;
            }
        }
        if let Some(docket) = &room.docket {
            let parts = verifying::Parts {
                room: room.clone(),
                asker: Arc::clone(asker),
                policies: room.approved(&live).map(|(policies, _)| policies),
                live,
                handle,
                docket: Arc::clone(docket),
            };
            verifying::begin(parts, &stand.stop, |work| drop(stand.tasks.spawn(work)))?;
        }
        Ok(stand)
    }

    async fn issue(
        &mut self,
        room: &Room,
        handle: &NetHandle,
        vouchers: &Arc<dyn Vouchers>,
        bond: Arc<ChainView>,
    ) -> Result<(), String> {
        let settings = issuer::Settings { folder: room.folder.join("issuer"), schedule: Schedule::default() };
        std::fs::create_dir_all(&settings.folder).map_err(words)?;
        let parts = issuer::Parts {
            signer: room.signer.clone(),
            vouchers: Arc::clone(vouchers),
            bond,
            incoming: handle.bind(ISSUER),
            clock: Clock::system(),
        };
        let issuer = Issuer::bind(settings, parts).await.map_err(words)?;
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = Some(issuer);
        Ok(())
    }

    fn serve(
        &mut self,
        room: &Room,
        handle: &NetHandle,
        till: &Arc<Till>,
        registry: Arc<ChainRegistry>,
        issuer: NodeId,
        policies: Option<Policies>,
    ) -> Result<(), String> {
        let relays: Vec<public::At> =
            room.section.relays.iter().filter_map(|text| public::at(text).ok()).collect();
        if relays.is_empty() {
            return Err("no relay is configured at which jobs could arrive; set public.relays".into());
        }
        for relay in &relays {
            handle.learn(relay.node, vec![relay.address.clone()]);
        }
        handle.keep(relays.iter().map(|relay| relay.node).collect::<BTreeSet<_>>());
        let began = Instant::now();
        let keys = SealingKeys::new(room.signer.node(), Duration::ZERO).map_err(words)?;
        let seals = Arc::new(Seals { keys, began });
        let prices = Arc::new(Prices::default());
        let serving = Serving {
            signer: room.signer.clone(),
            engine: Arc::new(room.inference.clone()),
            goods: Arc::clone(&prices) as Arc<_>,
            till: Arc::new(Counter(Arc::clone(till))),
            guard: room.guard.clone(),
            receipts: Arc::clone(&room.receipts),
            seals: Arc::clone(&seals) as Arc<_>,
        };
        self.server = Some(PublicServer::bind(Timers::default(), serving, handle.bind(SEALED)));
        let crier = Crier {
            room: room.clone(),
            handle: handle.clone(),
            relays,
            seals,
            prices,
            registry,
            issuer,
            policies,
            shown: Arc::clone(&self.shown),
        };
        self.tasks.spawn(until(&self.stop, crier.cry()));
        Ok(())
    }

    pub(super) async fn shutdown(&self) {
        if let Some(server) = &self.server {
            server.shutdown().await;
        }
        if let Some(relay) = &self.relay {
            relay.shutdown().await;
        }
        let issuer = self.issuer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(issuer) = issuer {
            issuer.shutdown().await;
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.net.shutdown().await;
    }

    /// Whether strangers are served.
    pub(super) fn serves(&self) -> bool {
        self.server.is_some()
    }

    pub(super) fn issues(&self) -> bool {
        self.issuer.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn counters(&self) -> Option<Value> {
        self.server.as_ref().map(|server| json!(server.counters()))
    }

    pub(super) fn relayed(&self) -> Option<Value> {
        let relay::Counters { open, opened, refused, unpaid, cells } = self.relay.as_ref()?.counters();
        Some(json!({"open": open, "opened": opened, "refused": refused, "unpaid": unpaid, "cells": cells}))
    }

    /// What is offered, or why nothing is.
    pub(super) fn offer(&self) -> Option<Value> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = shown.trouble.as_ref().map(|trouble| json!({"trouble": trouble}));
        shown.offer.clone().or(trouble)
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.net.handle().addresses().borrow().iter().map(ToString::to_string).collect()
    }

    pub(super) fn peers(&self) -> usize {
        self.net.handle().peers().borrow().len()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Does something until it is stopped.
pub(super) fn until<W: Future<Output = ()> + Send>(
    stop: &CancellationToken,
    work: W,
) -> impl Future<Output = ()> + Send + use<W> {
    let stop = stop.clone();
    async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }
}

async fn listen(handle: NetHandle, market: Arc<Market>, registry: Arc<ChainRegistry>) {
    let mut heard = handle.subscribe();
    loop {
        match heard.recv().await {
            Ok(message) => asking::take(&market, &registry, &message.data).await,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Asks for what is still owed, and for new keys before the old ones are over.
async fn collect(till: Arc<Till>) {
    loop {
        tokio::time::sleep(COLLECT).await;
        if let Err(error) = till.settle().await {
            tracing::debug!(%error, "the issuer still owes");
        }
        let _ = till.refresh(None).await;
    }
}

/// Publishes the offer.
struct Crier {
    room: Room,
    handle: NetHandle,
    relays: Vec<public::At>,
    seals: Arc<Seals>,
    prices: Arc<Prices>,
    registry: Arc<ChainRegistry>,
    issuer: NodeId,
    policies: Option<Policies>,
    shown: Arc<Mutex<Shown>>,
}

impl Crier {
    async fn cry(self) {
        let mut first = FIRST.into_iter();
        loop {
            // Rotates the keys even when nothing is offered.
            let key = self.seals.keys.current(self.seals.began.elapsed());
            let made = match (self.room.guard.trouble(), key) {
                (Some(pause), _) => Err(pause.to_owned()),
                (None, Err(error)) => Err(error.to_string()),
                (None, Ok(key)) => self.publish(key.public).await,
            };
            let wait = if made.is_ok() { first.next().unwrap_or(OFFER) } else { SOON };
            if made.is_err() {
                first = FIRST.into_iter();
            }
            self.show(made);
            tokio::time::sleep(wait).await;
        }
    }

    fn show(&self, made: Result<Value, String>) {
        let shown = match made {
            Ok(offer) => Shown { offer: Some(offer), trouble: None },
            Err(reason) => {
                tracing::debug!(reason, "nothing is offered now");
                Shown { offer: None, trouble: Some(reason) }
            }
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    async fn publish(&self, sealing: [u8; 32]) -> Result<Value, String> {
        let me = self.room.signer.node();
        let registration = match self.registry.sequence(me).await? {
            Some(sequence) => sequence,
            None if self.registry.lenient() => 0,
            None => return Err("this machine is not registered; run `potluck provider register`".into()),
        };
        let connected = self.handle.peers().borrow().clone();
        let reached = self.relays.iter().filter(|relay| connected.contains(&relay.node));
        let relays: Vec<RelayAt> =
            reached.map(|relay| RelayAt::new(relay.node, std::slice::from_ref(&relay.address))).collect();
        if relays.is_empty() {
            return Err("none of its relays can be reached".into());
        }
        let models = goods::models(&self.room, self.policies.as_ref()).await;
        if models.is_empty() {
            return Err("there is no model to offer yet".into());
        }
        let now = now_ms();
        let offer = Offer {
            version: VERSION,
            provider: me.0,
            models: Bounded::new(models.clone()).map_err(words)?,
            capacity: u16::try_from(self.room.section.max_jobs).unwrap_or(u16::MAX),
            sealing,
            relays: Bounded::new(relays).map_err(words)?,
            issuer: self.issuer.0,
            registration,
            issued_at: UnixMillis(now),
            expires_at: UnixMillis(now.saturating_add(HOLDS)),
        };
        self.prices.offered(&models);
        let signed = SignedOffer::sign(offer, &self.room.signer).map_err(words)?;
        self.handle.publish(signed.encode()).await.map_err(words)?;
        for model in &models {
            let _ = self.handle.provide(model.digest).await;
        }
        Ok(shown(&signed.offer))
    }
}

fn shown(offer: &Offer) -> Value {
    let models = offer.models.iter().map(|model| {
        json!({
            "name": model.name(),
            "digest": NodeId(model.digest),
            "context": model.context,
            "prompt_price": model.rates.prompt.to_string(),
            "answer_price": model.rates.completion.to_string(),
        })
    });
    json!({
        "models": models.collect::<Vec<_>>(),
        "relays": offer.relays.iter().map(|relay| NodeId(relay.node)).collect::<Vec<_>>(),
        "issued_ms": offer.issued_at.0,
        "expires_ms": offer.expires_at.0,
    })
}
