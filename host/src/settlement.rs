//! What this node owes and is owed in the public pool, and how it is settled on the chain.
//!
//! The rest of the node knows nothing of it: a trusted pool settles nothing. And as long as nothing of the public pool
//! is used, nothing here connects: a chain that is configured is first reached when somebody asks for credits, stakes
//! or votes, or when something from an earlier time is still under way.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use potluck_chain_client::{
    Answer, Call, Client, ClientError, Key, Live, Settings,
    call::CallError,
    link::LinkError,
    outbox::Outcome,
    signer::{AskError, Pace},
};
use potluck_primitives::{MicroCredits, ParseCredits};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::config::ChainSection;

pub mod approvals;
pub mod book;
pub mod exposure;
mod judging;
mod keeper;
mod policies;
mod provider;
pub mod schedule;
mod show;
mod votes;
mod vouchers;

pub use policies::{PolicyHost, PublicPolicies};
pub use votes::{Proposed, Vote};

use book::{Book, BookError};

/// How long a question waits for the first connection.
const REACH: Duration = Duration::from_secs(8);
/// The same when the chain could not be reached for so long already.
const GLANCE: Duration = Duration::from_secs(1);
/// How long an answer waits for a call to become final; it goes on by itself afterwards.
const PATIENCE: Duration = Duration::from_secs(45);

/// Why something about credits, stakes or votes was not done.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// Nothing says where the chain is.
    #[error(
        "no chain is configured: set chain.endpoint in the configuration (or --chain-endpoint, POTLUCK_CHAIN_ENDPOINT) to a node of one; `potluck chain dev` starts one on this machine"
    )]
    Off,
    /// The node fetches nothing from the network.
    #[error("this node is offline (offline, --offline, POTLUCK_OFFLINE) and asks no chain")]
    Offline,
    /// The chain.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The voucher book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// Words that are no amount.
    #[error("{text}: {reason}")]
    Amount {
        /// The words.
        text: String,
        /// Why.
        reason: ParseCredits,
    },
    /// A call that makes no sense.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A value that cannot be.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What would be right.
        reason: String,
    },
    /// The chain refused.
    #[error("the chain did not {what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The proof of work was not found.
    #[error("the work that a registration costs ({0} bits) was not done in time; try again")]
    Work(u32),
    /// The node ends.
    #[error("the node is shutting down; what was asked of the chain goes on when it starts again")]
    Closed,
}

impl From<LinkError> for SettlementError {
    fn from(error: LinkError) -> Self {
        Self::Client(error.into())
    }
}

impl From<AskError> for SettlementError {
    fn from(error: AskError) -> Self {
        Self::Client(error.into())
    }
}

/// This node's side of the chain.
#[derive(Debug)]
pub struct Settlement {
    section: ChainSection,
    offline: bool,
    folder: PathBuf,
    key: Key,
    host: Option<PolicyHost>,
    running: tokio::sync::Mutex<State>,
}

#[derive(Debug)]
enum State {
    Idle,
    Running(Running),
    Closed,
}

#[derive(Debug)]
struct Running {
    client: Client,
    since: Instant,
    /// Opened when the chain was reached first.
    room: Option<Arc<Room>>,
    keeper: Option<JoinHandle<()>>,
    /// Ends what follows the approved policies.
    stop: CancellationToken,
}

/// What there is once the chain was reached.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) live: Arc<Live>,
    book: Arc<Mutex<Book>>,
    /// Told when the book has more to redeem.
    more: Notify,
    /// What decides in the public pool; `None` where this process has no host for policies.
    pub(crate) policies: Option<PublicPolicies>,
}

impl Room {
    /// The book; what is done with it ends with a few milliseconds of disk.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The book, for those who pay and are paid outside the chain.
    pub(crate) fn shared_book(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.book)
    }

    /// Does something with the book beside the threads that serve.
    async fn with_book<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book) -> T + Send + 'static,
    ) -> Result<T, SettlementError> {
        let book = Arc::clone(&self.book);
        let done = tokio::task::spawn_blocking(move || {
            act(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(|_| SettlementError::Closed)
    }
}

impl Settlement {
    /// Nothing connects yet, unless something from an earlier time may be under way. `host` runs the policies that the
    /// chain approves.
    pub async fn bind(
        section: ChainSection,
        offline: bool,
        home: &Path,
        seed: [u8; 32],
        host: Option<PolicyHost>,
    ) -> Self {
        let settlement = Self {
            section,
            offline,
            folder: home.join("settlement"),
            key: Key::from_seed(seed),
            host,
            running: tokio::sync::Mutex::new(State::Idle),
        };
        if settlement.folder.is_dir() && settlement.section.endpoint.is_some() {
            let mut state = settlement.running.lock().await;
            if let Ok(running) = settlement.start() {
                *state = State::Running(running);
            }
        }
        settlement
    }

    /// The account: the node's id.
    pub fn account(&self) -> [u8; 32] {
        self.key.account()
    }

    /// Where the chain is, if that is configured.
    pub fn endpoint(&self) -> Option<&str> {
        self.section.endpoint.as_deref()
    }

    /// Closes the connection; what is under way goes on at the next start.
    pub async fn shutdown(&self) {
        let state = std::mem::replace(&mut *self.running.lock().await, State::Closed);
        if let State::Running(running) = state {
            running.stop.cancel();
            if let Some(keeper) = running.keeper {
                keeper.abort();
            }
            running.client.shutdown().await;
        }
    }

    fn start(&self) -> Result<Running, SettlementError> {
        let endpoint = self.section.endpoint.clone().ok_or(SettlementError::Off)?;
        // Without encryption only this machine's own chain is asked, which is no network.
        if self.offline && !endpoint.starts_with("ws://") {
            return Err(SettlementError::Offline);
        }
        let settings =
            Settings { endpoint, folder: self.folder.clone(), key: self.key.clone(), pace: Pace::default() };
        let stop = CancellationToken::new();
        Ok(Running { client: Client::bind(settings), since: Instant::now(), room: None, keeper: None, stop })
    }

    /// The chain and the book, connecting first if need be.
    pub(crate) async fn room(&self) -> Result<Arc<Room>, SettlementError> {
        let mut state = self.running.lock().await;
        if let State::Idle = &*state {
            *state = State::Running(self.start()?);
        }
        let State::Running(running) = &mut *state else { return Err(SettlementError::Closed) };
        if let Some(room) = &running.room {
            return Ok(Arc::clone(room));
        }
        let patience = REACH.saturating_sub(running.since.elapsed()).max(GLANCE);
        let live = running.client.handle().reached(patience).await?;
        let (path, key, genesis) = (live.folder.join("vouchers"), self.key.clone(), live.genesis());
        let book = tokio::task::spawn_blocking(move || Book::open(&path, key, genesis)).await;
        let book = Arc::new(Mutex::new(book.map_err(|_| SettlementError::Closed)??));
        let stop = running.stop.clone();
        let policies = self.host.as_ref().map(|host| PublicPolicies::follow(host, &live.listening, stop));
        let room = Arc::new(Room { live, book, more: Notify::new(), policies });
        running.keeper = Some(tokio::spawn(keeper::run(Arc::clone(&room), self.section.clone())));
        running.room = Some(Arc::clone(&room));
        Ok(room)
    }

    /// Goes on with what an earlier run left, if the chain is reached; for the node, at its start.
    pub async fn resume(&self) {
        let begun = matches!(&*self.running.lock().await, State::Running(_));
        if begun && let Err(error) = self.room().await {
            tracing::warn!(%error, "what is owed on the chain waits");
        }
    }
}

/// An amount as people write it.
pub(crate) fn amount(text: &str) -> Result<MicroCredits, SettlementError> {
    let shown = || text.chars().take(40).collect();
    text.trim().parse().map_err(|reason| SettlementError::Amount { text: shown(), reason })
}

/// What came of asking the chain.
#[derive(Debug)]
pub(crate) struct Said {
    answer: Answer,
    /// Why it takes longer, where that is known.
    trouble: Option<String>,
}

/// Asks the chain for something and waits for a while, but not for a chain that cannot be asked.
async fn ask(room: &Room, call: Call) -> Result<Said, SettlementError> {
    call.check()?;
    let what = call.to_string();
    let asked = room.live.signer.ask(call).await?;
    let done = tokio::select! {
        done = tokio::time::timeout(PATIENCE, room.live.signer.wait(asked.id())) => done.ok(),
        () = lost(room) => None,
    };
    if let Some(done) = done.transpose()? {
        return match done.outcome {
            Outcome::Failed { reason, .. } | Outcome::Refused { reason } => {
                Err(SettlementError::Refused { what, reason })
            }
            _ => Ok(Said { answer: Answer::Ended(done), trouble: None }),
        };
    }
    let standing = room.live.signer.standing().borrow().clone();
    let of_call = standing.open.iter().find(|it| it.id == asked.id()).and_then(|it| it.trouble.clone());
    match of_call {
        // A reason that may pass is told at once; the call stays under way.
        Some(reason) => {
            let reason = format!("{reason}; it is tried again until it is too late for it");
            Err(SettlementError::Refused { what, reason })
        }
        None => Ok(Said { answer: Answer::UnderWay(asked), trouble: standing.trouble }),
    }
}

/// Returns when the chain could not be asked for a while.
async fn lost(room: &Room) {
    let mut standing = room.live.signer.standing();
    loop {
        if standing.wait_for(|now| now.trouble.is_some()).await.is_err() {
            return std::future::pending().await;
        }
        let back = standing.wait_for(|now| now.trouble.is_none());
        if tokio::time::timeout(REACH, back).await.is_err() {
            return;
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
