//! The parts put together: connection, signer, watcher, and one handle to all of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use potluck_primitives::Genesis;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    call::Call,
    key::Key,
    link::{LinkError, node::Node},
    outbox::{Asked, Finished, Outbox, OutboxError},
    rpc,
    signer::{AskError, Pace, Signer, SignerHandle},
    watch::{Listening, Watcher},
};

/// Longest pause between attempts to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a client works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where a node of the chain serves: `ws://…` or `wss://…`.
    pub endpoint: String,
    /// Where files are kept; each chain has a folder of its own in it, so that nothing of one is taken for another's.
    pub folder: PathBuf,
    /// The key of the account.
    pub key: Key,
    /// How often things are tried.
    pub pace: Pace,
}

/// Why something about the chain was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node of the chain was reached yet.
    #[error(
        "no node of the chain answers at {endpoint} ({reason}); is it running? `potluck chain dev` starts one for development, and chain.endpoint says where to look"
    )]
    NotConnected {
        /// Where.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The chain cannot be asked now.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The outbox does not take it, or the signer has ended.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Its files cannot be used.
    #[error("{0}")]
    Files(String),
}

/// What is there once a node of the chain was reached.
#[derive(Clone, Debug)]
pub struct Live {
    /// The chain, for questions.
    pub node: Node,
    /// The signer, for calls.
    pub signer: SignerHandle,
    /// What happens.
    pub listening: Listening,
    /// Where the files of this chain are.
    pub folder: PathBuf,
}

impl Live {
    /// The chain's first block.
    pub fn genesis(&self) -> Genesis {
        self.node.genesis()
    }

    /// Asks for a call and waits for its end, but not for longer than `patience`; then it goes on by itself.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn ask(&self, call: Call, patience: Duration) -> Result<Answer, AskError> {
        let asked = self.signer.ask(call).await?;
        match tokio::time::timeout(patience, self.signer.wait(asked.id())).await {
            Ok(finished) => Ok(Answer::Ended(finished?)),
            Err(_) => Ok(Answer::UnderWay(asked)),
        }
    }
}

/// What came of a call.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It ended.
    Ended(Finished),
    /// It takes longer.
    UnderWay(Asked),
}

#[derive(Clone, Debug)]
enum State {
    Connecting(Option<LinkError>),
    Live(Arc<Live>),
    Broken(Arc<str>),
}

/// A client of one chain; ends when it is dropped or shut down.
#[derive(Debug)]
pub struct Client {
    handle: ClientHandle,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// A handle to it.
#[derive(Clone, Debug)]
pub struct ClientHandle {
    endpoint: Arc<str>,
    state: watch::Receiver<State>,
}

impl Client {
    /// Begins to connect and returns at once.
    pub fn bind(settings: Settings) -> Self {
        let (told, state) = watch::channel(State::Connecting(None));
        let (stop, stopped) = watch::channel(false);
        let handle = ClientHandle { endpoint: settings.endpoint.as_str().into(), state };
        let task = tokio::spawn(supervise(settings, told, stopped));
        Self { handle, task, stop }
    }

    /// A handle to it.
    pub fn handle(&self) -> ClientHandle {
        self.handle.clone()
    }

    /// Closes the connection. What is under way goes on at the next start.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

impl ClientHandle {
    /// Where the node is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The chain, if a node of it was reached.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`] and [`ClientError::Files`]
    pub fn live(&self) -> Result<Arc<Live>, ClientError> {
        match &*self.state.borrow() {
            State::Live(live) => Ok(Arc::clone(live)),
            State::Broken(reason) => Err(ClientError::Files(reason.to_string())),
            State::Connecting(error) => {
                let reason = error.as_ref().map_or_else(|| "still connecting".into(), ToString::to_string);
                Err(ClientError::NotConnected { endpoint: self.endpoint.to_string(), reason })
            }
        }
    }

    /// The chain, as soon as a node of it was reached, but not later than `patience`.
    ///
    /// # Errors
    /// As [`ClientHandle::live`]
    pub async fn reached(&self, patience: Duration) -> Result<Arc<Live>, ClientError> {
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| !matches!(state, State::Connecting(_)));
        let _ = tokio::time::timeout(patience, reached).await;
        self.live()
    }
}

async fn supervise(settings: Settings, told: watch::Sender<State>, mut stopped: watch::Receiver<bool>) {
    let mut pause = Duration::from_millis(250);
    let node = loop {
        let error = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            node = reach(&settings) => match node {
                Ok(node) => break node,
                Err(error) => error,
            },
        };
        tracing::debug!(%error, "no node of the chain");
        told.send_replace(State::Connecting(Some(error)));
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PATIENCE);
    };
    let folder = folder_of(&settings.folder, &node.genesis());
    let outbox = match open(&folder) {
        Ok(outbox) => outbox,
        Err(error) => {
            tracing::error!(%error, "nothing can be asked of the chain");
            told.send_replace(State::Broken(error.to_string().into()));
            return;
        }
    };
    let heard = Arc::new(Notify::new());
    let (watcher, listening) = Watcher::new(node.clone(), Arc::clone(&heard));
    let (signer, signing) = Signer::new(node.clone(), outbox, settings.pace).bind(heard);
    told.send_replace(State::Live(Arc::new(Live { node, signer, listening, folder })));
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = signing => {}
        () = watcher.run() => {}
    }
}

async fn reach(settings: &Settings) -> Result<Node, LinkError> {
    Node::new(rpc::connect(&settings.endpoint).await?, settings.key.clone()).await
}

fn open(folder: &Path) -> Result<Outbox, OutboxError> {
    Outbox::open(&folder.join("outbox"))
}

/// The folder of a chain: the first digits of its first block's hash.
fn folder_of(folder: &Path, genesis: &Genesis) -> PathBuf {
    let digits: String = genesis.0.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    folder.join(digits)
}
