//! The node: the one place where its parts are wired together.
//!
//! [`Node::bind`] returns once the listener is up, [`Node::join`] when the node has ended, and
//! [`Node::shutdown`] ends it: no new jobs, running ones get a while to finish, then connections close.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    api::{self, Api, Desk, Settings, time::unix_now},
    config::{Config, ConfigError},
    dispatch::{
        Dispatcher,
        local::LocalProvider,
        provider::{BoxFuture, Offer, SharedProvider},
    },
    inference::{
        Counters, EmbedRequest, Embedded, Inference, InferenceConfig, LoadedModel, ModelDetails, ModelEntry,
        PullError, PullProgress, StoreError,
    },
    job::{Job, JobError, KeepAlive, Mode, Reply},
    memory::{Memory, MemoryError},
    pool::trusted::service::PoolError,
};

#[cfg(feature = "public")]
use crate::settlement::{PolicyHost, Settlement};
#[cfg(feature = "public")]
use public::{Public, PublicError};

mod embedder;
pub mod home;
mod load;
pub mod pool;
pub mod ports;
#[cfg(feature = "public")]
pub mod public;
mod serve;

use home::{Home, HomeError};
use pool::Pool;

/// Time running jobs get to finish when the node is asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A running node.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    home: Home,
    desk: Arc<FrontDesk>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The home folder cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why, who has it, and what to do.
        reason: String,
    },
    /// Listening off loopback without any key.
    #[error(
        "{address} can be reached by others, but no key is configured, so nobody could be answered; pass --api-key KEY (POTLUCK_API_KEY) or add [[http.keys]] to the configuration"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// The memory cannot be opened.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The pool's files cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The public pool's files or values cannot be used.
    #[cfg(feature = "public")]
    #[error(transparent)]
    Public(#[from] PublicError),
    /// The model store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Node {
    /// Starts a node that owns its home folder; returns once it listens.
    ///
    /// # Errors
    /// Any [`NodeError`].
    pub async fn bind(config: Config) -> Result<Self, NodeError> {
        let home = Home::own(&config.home()?)?;
        Self::bind_in(config, home, false).await
    }

    /// Starts a node for the duration of one command: other such nodes may share the home folder, and it is
    /// not announced there.
    ///
    /// # Errors
    /// Any [`NodeError`].
    pub async fn bind_guest(config: Config) -> Result<Self, NodeError> {
        let home = Home::share(&config.home()?)?;
        Self::bind_in(config, home, true).await
    }

    async fn bind_in(mut config: Config, home: Home, guest: bool) -> Result<Self, NodeError> {
        let wanted = config.listen;
        if !wanted.ip().is_loopback() && config.http.keys.is_empty() {
            return Err(NodeError::Open { address: wanted });
        }
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(|error| NodeError::Listen { address: wanted, reason: ports::explain(&error, wanted) })?;
        let address = listener
            .local_addr()
            .map_err(|error| NodeError::Listen { address: wanted, reason: error.to_string() })?;
        config.home = Some(home.path().to_owned());
        let inference = Inference::bind(inference_config(&config, &home)).await?;
        let local: SharedProvider =
            Arc::new(LocalProvider::new(home.node_id().to_owned(), inference.clone()));
        let memory = open_memory(&home, &inference, guest).await?;
        let pool = if guest {
            None
        } else {
            let engines = load::Engines::new(inference.clone(), config.inference.parallel);
            let needs = pool::Needs {
                home: home.path(),
                folder: &home.path().join("pool"),
                section: &config.pool,
                signer: home.signer(),
                engine: Arc::clone(&local),
                load: Arc::new(engines),
                memory: memory.as_ref(),
                blobs: vec![inference.blobs()],
                occupied: inference.occupied(),
            };
            Some(Pool::open(needs).await?)
        };
        #[cfg(feature = "public")]
        let settlement = settlement(&config, &home, pool.as_ref()).await;
        #[cfg(feature = "public")]
        let public = match &settlement {
            Some(settlement) => Some(public(&config, &home, &inference, settlement, pool.as_ref()).await?),
            None => None,
        };
        // The pool's provider knows this machine too, and what it is worth compared with the others.
        let providers = pool.iter().map(Pool::provider).chain([local]);
        #[cfg(feature = "public")]
        let providers = providers.chain(public.iter().map(Public::provider));
        let providers = providers.collect();
        let dispatcher = Dispatcher::new(providers);
        let ready = AtomicBool::new(true);
        let desk = Arc::new(FrontDesk {
            dispatcher,
            inference,
            memory,
            pool,
            #[cfg(feature = "public")]
            settlement,
            #[cfg(feature = "public")]
            public,
            ready,
        });
        let settings = Settings {
            node: home.node_id().to_owned(),
            address,
            admin_token: home.admin_token().to_owned(),
            since: unix_now(),
            config,
        };
        let http = serve::Limits::new(&settings.config.http);
        let router = Api::new(Arc::clone(&desk) as Arc<dyn Desk>, settings).router();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve::run(listener, router, http, stopped));
        home.announce(address)?;
        tracing::info!(%address, home = %home.path().display(), "serving");
        Ok(Self { address, home, desk, stop, server })
    }

    /// The address it serves on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where commands and clients find it.
    pub fn url(&self) -> String {
        home::url_of(self.address)
    }

    /// The owner's token, with every right.
    pub fn admin_token(&self) -> &str {
        self.home.admin_token()
    }

    /// Waits until the node has ended, which it does by itself only when it breaks.
    pub async fn join(&mut self) {
        let _ = (&mut self.server).await;
    }

    /// Ends the node: running jobs get ten seconds, requests that come meanwhile are answered 503.
    pub async fn shutdown(self) {
        self.desk.ready.store(false, Ordering::Release);
        self.home.withdraw();
        if let Some(pool) = &self.desk.pool {
            pool.shutdown().await;
        }
        #[cfg(feature = "public")]
        if let Some(public) = &self.desk.public {
            public.shutdown().await;
        }
        #[cfg(feature = "public")]
        if let Some(settlement) = &self.desk.settlement {
            settlement.shutdown().await;
        }
        if let Some(memory) = &self.desk.memory {
            memory.close().await;
        }
        self.desk.inference.shutdown(GRACE).await;
        let _ = self.stop.send(true);
        let _ = self.server.await;
        tracing::info!("stopped");
    }
}

/// The node's side of the public pool's chain, which goes on with what an earlier run left. A guest has none.
#[cfg(feature = "public")]
async fn settlement(config: &Config, home: &Home, pool: Option<&Pool>) -> Option<Arc<Settlement>> {
    let policies = pool?.policies();
    let host = PolicyHost { engine: policies.engine().clone(), components: policies.components() };
    let (section, seed) = (config.chain.clone(), home.signer().seed());
    let settlement = Settlement::bind(section, config.offline, home.path(), seed, Some(host)).await;
    let settlement = Arc::new(settlement);
    let resumed = Arc::clone(&settlement);
    tokio::spawn(async move { resumed.resume().await });
    Some(settlement)
}

/// The node's side of the public pool, which is off unless it was switched on.
#[cfg(feature = "public")]
async fn public(
    config: &Config,
    home: &Home,
    inference: &Inference,
    settlement: &Arc<Settlement>,
    pool: Option<&Pool>,
) -> Result<Public, NodeError> {
    let (signer, settlement) = (home.signer(), Arc::clone(settlement));
    let policies = pool.map(Pool::policy_room);
    let needs = public::Needs { config, home: home.path(), signer, inference, settlement, policies };
    Ok(Public::bind(needs).await?)
}

/// Opens the memory under the home folder. A guest waits a moment for another guest that has it, and does without
/// it then.
async fn open_memory(home: &Home, inference: &Inference, guest: bool) -> Result<Option<Memory>, NodeError> {
    let embedder = Arc::new(embedder::Local::new(inference.clone()));
    let mut patience = if guest { 50 } else { 0 };
    loop {
        match Memory::open(home.path().join("memory"), home.signer().clone(), Arc::clone(&embedder) as Arc<_>)
            .await
        {
            Ok(memory) => return Ok(Some(memory)),
            Err(error) if error.in_use() && patience > 0 => {
                patience -= 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) if error.in_use() && guest => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn inference_config(config: &Config, home: &Home) -> InferenceConfig {
    let section = &config.inference;
    InferenceConfig {
        home: PathBuf::from(home.path()),
        models: section.models.clone(),
        device: section.device,
        threads: section.threads,
        context: section.context,
        parallel: section.parallel,
        max_queue: section.max_queue,
        keep_alive: section.keep_alive,
        max_loaded: section.max_loaded,
        memory_budget: section.memory_budget,
        caches: section.caches,
        offline: config.offline,
        node: home.node_id().to_owned(),
    }
}

/// What the surfaces see of the node: jobs go through the dispatcher, models are this machine's.
#[derive(Debug)]
struct FrontDesk {
    dispatcher: Dispatcher,
    inference: Inference,
    memory: Option<Memory>,
    pool: Option<Pool>,
    #[cfg(feature = "public")]
    settlement: Option<Arc<Settlement>>,
    #[cfg(feature = "public")]
    public: Option<Public>,
    ready: AtomicBool,
}

impl Desk for FrontDesk {
    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(async move {
            if !self.ready() {
                return Err(JobError::ShuttingDown);
            }
            #[cfg(feature = "public")]
            if let Some(public) = &self.public {
                public.owner_was_here();
            }
            self.dispatcher.submit(job).await
        })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embedded, JobError>> {
        Box::pin(async move {
            if !self.ready() {
                return Err(JobError::ShuttingDown);
            }
            // The circle of every mode that is admitted holds this machine, and texts need go no further.
            self.dispatcher.admits(request.mode)?;
            self.inference.embed_request(request).await
        })
    }

    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>> {
        Box::pin(self.inference.models())
    }

    fn details(&self, model: String) -> BoxFuture<'_, Result<ModelDetails, StoreError>> {
        Box::pin(async move { self.inference.show(&model).await })
    }

    fn loaded(&self) -> BoxFuture<'_, Vec<LoadedModel>> {
        Box::pin(async { self.inference.loaded() })
    }

    fn load(&self, model: String, keep_alive: Option<KeepAlive>) -> BoxFuture<'_, Result<(), JobError>> {
        Box::pin(async move { self.inference.load(&model, keep_alive).await.map(drop) })
    }

    fn unload(&self, model: String) -> BoxFuture<'_, Result<bool, JobError>> {
        Box::pin(async move { self.inference.unload(&model).await })
    }

    fn remove(&self, model: String) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.inference.remove(&model).await })
    }

    fn pull(&self, reference: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        self.inference.pull(reference)
    }

    fn pull_from(&self, model: &str, from: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        match &self.pool {
            Some(pool) => self.inference.pull_from(pool.fetcher(), model, from),
            None => api::refused(PullError::NoPool),
        }
    }

    fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    #[cfg(feature = "public")]
    fn settlement(&self) -> Option<&Settlement> {
        self.settlement.as_deref()
    }

    #[cfg(feature = "public")]
    fn public(&self) -> Option<&Public> {
        self.public.as_ref()
    }

    fn offers(&self, mode: Mode) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(async move { self.dispatcher.offers(mode).await.unwrap_or_default() })
    }

    fn counters(&self) -> Counters {
        self.inference.counters()
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(home: &std::path::Path) -> Config {
        let mut config = Config { home: Some(home.to_owned()), offline: true, ..Config::default() };
        config.listen.set_port(0);
        config.inference.caches = false;
        config
    }

    fn client() -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    #[tokio::test]
    async fn a_node_serves_until_it_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::bind(config(dir.path())).await.unwrap();
        let url = node.url();
        let answer = client().get(format!("{url}/potluck/v1/status")).send().await.unwrap();
        let status: serde_json::Value = answer.json().await.unwrap();
        assert_eq!((&status["ready"], &status["mode"]), (&true.into(), &"local".into()));
        assert_eq!(home::Advert::read(dir.path()).unwrap().url, url);
        let unknown = serde_json::json!({"model": "nope", "prompt": "x"});
        let answer = client().post(format!("{url}/v1/completions")).json(&unknown).send().await.unwrap();
        assert_eq!(answer.status(), 404);
        node.shutdown().await;
        assert!(client().get(format!("{url}/healthz")).send().await.is_err());
        assert!(home::Advert::read(dir.path()).is_none());
        Node::bind(config(dir.path())).await.unwrap().shutdown().await;
    }

    #[tokio::test]
    async fn a_second_node_is_told_who_is_in_the_way() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = Node::bind(config(one.path())).await.unwrap();
        let taken = Node::bind(config(one.path())).await.unwrap_err().to_string();
        assert!(taken.contains(&node.url()) && taken.contains("--home"), "{taken}");
        let mut same_port = config(two.path());
        same_port.listen = node.address();
        let taken = Node::bind(same_port).await.unwrap_err().to_string();
        assert!(taken.contains("in use") && taken.contains("--listen"), "{taken}");
        node.shutdown().await;
    }

    #[tokio::test]
    async fn nobody_listens_to_others_without_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = config(dir.path());
        open.listen = "0.0.0.0:0".parse().unwrap();
        assert!(matches!(Node::bind(open).await, Err(NodeError::Open { .. })));
    }
}
