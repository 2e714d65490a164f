//! The node in the public pool: asking strangers, serving them, relaying and issuing, put together.
//!
//! Nothing connects before it is needed. A request in mode `public` joins the network under a key made for the hour;
//! serving, relaying and issuing are done under the node's own key, which the chain knows. The two never meet: they
//! are two networks with nothing in common but this process.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use potluck_chain_client::Live;
use potluck_primitives::MicroCredits;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, PublicSection},
    dispatch::provider::SharedProvider,
    identity::{NodeId, Signer},
    inference::Inference,
    policy::{Decisions, Policies},
    pool::public::{
        audit::record::{Docket, Standing},
        budget::Budgets,
        guard::{Guard, Hours, Limits, System, WordsError},
        meter::reference_time,
        provider::PublicProvider,
        receipts::{Kept, ReceiptBook, Side, Sums},
    },
    settlement::{Settlement, approvals::ChainApprovals},
};

use super::pool::policies::PolicyRoom;

mod asking;
mod goods;
mod registry;
mod standing;
mod verifying;

use asking::Asker;
use standing::Stand;

/// When what could not be begun is tried again, at the latest.
const AGAIN: Duration = Duration::from_secs(15);
/// Most audited providers in an answer.
const MOST_AUDITED: usize = 100;
/// How long who switches serving on waits for what comes of it.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Most receipts in an answer.
pub const MOST_RECEIPTS: usize = 10_000;

/// Why the public pool's part of a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum PublicError {
    /// Its files.
    #[error("the files of the public pool at {} cannot be used: {reason}", path.display())]
    Files {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Words that cannot be refused.
    #[error("public.refuse: {0}")]
    Words(#[from] WordsError),
    /// An issuer that should serve.
    #[error(
        "this machine issues spend tokens (public.issuer) and cannot take them too; serve strangers with another machine"
    )]
    Issues,
    /// A value of the configuration.
    #[error("public.{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// What the public pool's part of a node is given.
pub(super) struct Needs<'a> {
    pub(super) config: &'a Config,
    pub(super) home: &'a Path,
    pub(super) signer: &'a Signer,
    pub(super) inference: &'a Inference,
    pub(super) settlement: Arc<Settlement>,
    pub(super) policies: Option<Arc<PolicyRoom>>,
}

/// What all parts share.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) section: Arc<PublicSection>,
    pub(super) offline: bool,
    pub(super) folder: PathBuf,
    pub(super) signer: Signer,
    pub(super) inference: Inference,
    pub(super) settlement: Arc<Settlement>,
    pub(super) guard: Guard,
    pub(super) receipts: Arc<ReceiptBook>,
    /// What audits came to, where this machine audits.
    pub(super) docket: Option<Arc<Docket>>,
    policies: Option<Arc<PolicyRoom>>,
    /// What the chain approves of, once it was asked.
    approved: Arc<OnceLock<(Policies, Arc<Decisions>)>>,
    ended: CancellationToken,
}

impl Room {
    /// What the chain's approved policies decide; `None`: this node follows none.
    pub(super) fn approved(&self, live: &Live) -> Option<(Policies, Arc<Decisions>)> {
        let room = self.policies.as_ref()?;
        let begin = || {
            let approvals = Arc::new(ChainApprovals::follow(&live.listening));
            room.beside("public", approvals, &self.ended)
        };
        Some(self.approved.get_or_init(begin).clone())
    }
}

/// What is wanted of the standing part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    on: bool,
    end: bool,
}

#[derive(Debug, Default)]
struct State {
    stand: Option<Arc<Stand>>,
    trouble: Option<String>,
}

/// The node in the public pool.
pub struct Public {
    room: Room,
    asker: Arc<Asker>,
    budgets: Budgets,
    wanted: watch::Sender<Wanted>,
    state: Arc<Mutex<State>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Public").field("wanted", &*self.wanted.borrow()).finish_non_exhaustive()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Public {
    /// Opens the files; what was switched on before goes on.
    ///
    /// # Errors
    /// [`PublicError`]
    pub(super) async fn bind(needs: Needs<'_>) -> Result<Self, PublicError> {
        let section = needs.config.public.clone();
        let folder = needs.home.join("public");
        let files = |reason: String| PublicError::Files { path: folder.clone(), reason };
        std::fs::create_dir_all(&folder).map_err(|error| files(error.to_string()))?;
        let guard = Guard::new(limits(&section)?, Arc::new(System))?;
        let path = folder.join("receipts");
        let receipts = tokio::task::spawn_blocking(move || ReceiptBook::open(&path)).await;
        let receipts = receipts.map_err(|error| files(error.to_string()))?;
        let receipts = Arc::new(receipts.map_err(|error| files(error.to_string()))?);
        let docket = match section.verify {
            true => {
                let path = folder.join("audits");
                std::fs::create_dir_all(&path).map_err(|error| files(error.to_string()))?;
                let opened = tokio::task::spawn_blocking(move || Docket::open(&path)).await;
                let opened = opened.map_err(|error| files(error.to_string()))?;
                Some(Arc::new(opened.map_err(|error| files(error.to_string()))?))
            }
            false => None,
        };
        let budgets = Budgets::open(section.budgets(&needs.config.http.keys), folder.join("spent.json"));
        let room = Room {
            section: Arc::new(section),
            offline: needs.config.offline,
            folder,
            signer: needs.signer.clone(),
            inference: needs.inference.clone(),
            settlement: needs.settlement,
            guard,
            receipts,
            docket,
            policies: needs.policies,
            approved: Arc::default(),
            ended: CancellationToken::new(),
        };
        let asker = Arc::new(Asker::new(room.clone(), budgets.clone()));
        let on = mark(&room.folder).exists() && !room.section.issuer;
        room.guard.switch(on);
        let (wanted, state) = (watch::channel(Wanted { on, end: false }).0, Arc::default());
        let keeper = keep(room.clone(), Arc::clone(&asker), wanted.subscribe(), Arc::clone(&state));
        let task = tokio::sync::Mutex::new(Some(tokio::spawn(keeper)));
        Ok(Self { room, asker, budgets, wanted, state, task })
    }

    /// Ends everything: jobs of strangers first.
    pub(super) async fn shutdown(&self) {
        self.room.guard.switch(false);
        self.wanted.send_modify(|wanted| wanted.end = true);
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
        self.asker.shutdown().await;
        self.room.ended.cancel();
    }

    /// Asks strangers.
    pub(super) fn provider(&self) -> SharedProvider {
        Arc::new(PublicProvider::new(Arc::clone(&self.asker) as Arc<_>))
    }

    /// The owner asked this machine for something: strangers wait.
    pub(super) fn owner_was_here(&self) {
        self.room.guard.owner_was_here();
    }

    /// Serves strangers from now on, also after a restart, or ends that at once.
    ///
    /// # Errors
    /// [`PublicError::Issues`]: nothing has changed. [`PublicError::Files`]: it holds until the next start only.
    pub async fn switch(&self, on: bool) -> Result<Value, PublicError> {
        if on && self.room.section.issuer {
            return Err(PublicError::Issues);
        }
        self.room.guard.switch(on);
        // What was wrong before is no news.
        locked(&self.state).trouble = None;
        self.wanted.send_modify(|wanted| wanted.on = on);
        let path = mark(&self.room.folder);
        let done = if on { std::fs::write(&path, b"") } else { std::fs::remove_file(&path) };
        match done {
            Err(error) if on || error.kind() != std::io::ErrorKind::NotFound => {
                Err(PublicError::Files { path, reason: error.to_string() })
            }
            _ => {
                if on {
                    self.first_word().await;
                }
                Ok(self.status().await)
            }
        }
    }

    /// Waits a moment until it is known whether strangers are served, and with which offer.
    async fn first_word(&self) {
        let told = || {
            let state = locked(&self.state);
            let offers = |stand: &Arc<Stand>| stand.serves() && stand.offer().is_some();
            state.trouble.is_some() || state.stand.as_ref().is_some_and(offers)
        };
        let heard = async {
            while !told() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_WORD, heard).await;
    }

    /// How serving and asking are.
    pub async fn status(&self) -> Value {
        let (stand, trouble) = {
            let state = locked(&self.state);
            (state.stand.clone(), state.trouble.clone())
        };
        let (today, keys) = self.budgets.today();
        let keys: serde_json::Map<String, Value> =
            keys.into_iter().map(|(key, spent)| (key, spent.to_string().into())).collect();
        let section = &self.room.section;
        json!({
            "on": self.room.guard.is_on(),
            "serving": stand.as_ref().is_some_and(|stand| stand.serves()),
            "pause": self.room.guard.is_on().then(|| self.room.guard.trouble()).flatten(),
            "trouble": trouble,
            "account": self.room.signer.node(),
            "jobs": self.room.guard.running(),
            "served": stand.as_ref().and_then(|stand| stand.counters()),
            "offer": stand.as_ref().and_then(|stand| stand.offer()),
            "relay": stand.as_ref().and_then(|stand| stand.relayed()),
            "issuer": stand.as_ref().is_some_and(|stand| stand.issues()),
            "addresses": stand.as_ref().map(|stand| stand.addresses()).unwrap_or_default(),
            "peers": stand.as_ref().map_or(0, |stand| stand.peers()),
            "audits": self.room.docket.as_ref().map(|docket| audits(docket)),
            "asking": self.asker.status().await,
            "asking_trouble": lacks(&self.room),
            "budget": {
                "request": section.max_price.to_string(),
                "day": section.day_budget.to_string(),
                "spent_today": today.to_string(),
                "keys": keys,
            },
        })
    }

    /// What was earned and paid.
    pub fn earnings(&self) -> Value {
        let (served, asked) = self.room.receipts.sums();
        json!({"served": sums(&served), "asked": sums(&asked)})
    }

    /// The last receipts, the newest first, at most [`MOST_RECEIPTS`].
    pub fn receipts(&self, last: usize) -> Value {
        let all = self.room.receipts.last(last.min(MOST_RECEIPTS));
        json!({"receipts": all.iter().map(receipt).collect::<Vec<_>>()})
    }
}

fn audits(docket: &Docket) -> Value {
    let row = |(provider, standing): (NodeId, Standing)| {
        json!({
            "provider": provider,
            "passed": standing.passed,
            "failed": standing.failed,
            "unclear": standing.unclear,
            "accused": standing.convicted,
            "audited_ms": standing.last_ms,
        })
    };
    let verdicts: Vec<NodeId> = docket.waiting().into_iter().map(|(provider, _)| provider).collect();
    let providers: Vec<Value> = docket.standings(MOST_AUDITED).into_iter().map(row).collect();
    json!({"providers": providers, "verdicts": verdicts})
}

/// What the configuration lacks for asking strangers.
fn lacks(room: &Room) -> Option<&'static str> {
    let section = &room.section;
    if room.offline {
        Some("this node is offline (offline, --offline, POTLUCK_OFFLINE)")
    } else if section.bootstrap.is_empty() {
        Some("no node of the public pool is configured; set public.bootstrap")
    } else if section.issuer_account.is_none() {
        Some("no issuer is configured; set public.issuer_account")
    } else {
        None
    }
}

fn mark(folder: &Path) -> PathBuf {
    folder.join("on")
}

fn limits(section: &PublicSection) -> Result<Limits, PublicError> {
    let invalid = |field, reason: String| PublicError::Invalid { field, reason };
    let hours = section.hours.iter().map(|hours| hours.parse::<Hours>()).collect::<Result<Vec<_>, _>>();
    let relays = section.refuse_relays.iter().map(|id| id.parse::<NodeId>()).collect::<Result<Vec<_>, _>>();
    Ok(Limits {
        jobs: section.max_jobs,
        jobs_per_relay: section.max_jobs,
        rate: section.rate,
        hours: hours
            .map_err(|error: crate::pool::public::guard::HoursError| invalid("hours", error.to_string()))?,
        battery: section.on_battery,
        idle: section.idle,
        refuse: section.refuse.clone(),
        relays: relays
            .map_err(|error: crate::identity::HexError| invalid("refuse_relays", error.to_string()))?,
    })
}

fn sums(sums: &Sums) -> Value {
    json!({
        "jobs": sums.jobs,
        "credits": sums.amount.to_string(),
        "compute_hours": hours(sums.compute),
        // What the same credits are in hours of the reference machine.
        "reference_hours": hours(reference_time(sums.amount).0),
        "prompt_tokens": sums.prompt_tokens,
        "completion_tokens": sums.completion_tokens,
    })
}

#[allow(clippy::cast_precision_loss, reason = "shown to people")]
fn hours(micros: u64) -> f64 {
    (micros as f64 / 3.6e9 * 1e6).round() / 1e6
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn receipt(kept: &Kept) -> Value {
    let receipt = &kept.signed.receipt;
    let asked = kept.side == Side::Asked;
    json!({
        "side": kept.side,
        "credits": kept.amount.to_string(),
        "job": asked.then(|| uuid::Uuid::from_bytes(kept.asked_as)),
        "provider": NodeId(receipt.provider),
        "model": receipt.class.text(),
        "prompt_tokens": receipt.prompt_tokens.0,
        "completion_tokens": receipt.completion_tokens.0,
        "compute_ms": receipt.compute.0 / 1_000,
        "started_ms": receipt.started_at.0,
        "ended_ms": receipt.ended_at.0,
        "signed": hex(&parity_scale_codec::Encode::encode(&kept.signed)),
    })
}

/// Keeps the standing part as it is wanted.
async fn keep(room: Room, asker: Arc<Asker>, mut wanted: watch::Receiver<Wanted>, state: Arc<Mutex<State>>) {
    let always = room.section.relay || room.section.issuer || room.section.verify;
    let mut failures = 0_u32;
    loop {
        let now = *wanted.borrow_and_update();
        if now.end {
            break;
        }
        if now.on || always {
            let bound = tokio::select! {
                bound = Stand::bind(&room, &asker, now.on) => bound,
                _ = wanted.wait_for(|wanted| wanted.end) => break,
            };
            match bound {
                Ok(stand) => {
                    failures = 0;
                    let stand = Arc::new(stand);
                    *locked(&state) = State { stand: Some(Arc::clone(&stand)), trouble: None };
                    let changed = wanted.wait_for(|wanted| wanted.end || wanted.on != now.on).await.is_ok();
                    locked(&state).stand = None;
                    stand.shutdown().await;
                    if !changed {
                        break;
                    }
                    continue;
                }
                Err(reason) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(reason, "the public pool waits");
                    locked(&state).trouble = Some(reason);
                }
            }
        } else {
            locked(&state).trouble = None;
        }
        let wait = async {
            if now.on || always {
                // Soon at first: a port of before may need a moment to be free.
                tokio::time::sleep(AGAIN.min(Duration::from_secs(1_u64 << failures.min(4)))).await;
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            () = wait => {}
        }
    }
}

/// Credits that a purse holds ready, so that a job waits for no purchase.
pub(super) fn level(section: &PublicSection) -> MicroCredits {
    MicroCredits(section.max_price.0.min(section.day_budget.0))
}
