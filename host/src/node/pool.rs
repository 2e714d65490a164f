//! The node in a trusted pool: papers, mesh, jobs and memory put together.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    blob::{
        self, Occupied,
        fetch::{self, Fetcher},
        serve::BlobServer,
        source::BlobSource,
    },
    config::PoolSection,
    dispatch::{
        canary::{self, Canary, CanaryConfig},
        health::Health,
        load::{self, Exchange, ExchangeConfig, LoadSource, LoadTable},
        pool::{self, Own, PoolConfig, PoolProvider, routing::Distances},
        provider::SharedProvider,
        serve::{JobServer, ServeConfig, Serving},
        several::{Part, Several},
    },
    identity::{NodeId, Signer},
    memory::{Memory, sync},
    mesh::{
        self, knock,
        protocol::job::{self, receipts::Receipts},
        streams::{OpenError, Streams},
    },
    pool::trusted::{
        Membership, PoolHandle, TrustedPool,
        clock::{SystemClock, SystemRandom},
        exchange, join,
        papers::{Invite, qr},
        service::{InviteOptions, Parts, PoolError, Role, Settings},
    },
};

mod authors;
mod limits;
pub mod policies;
mod receipts;
mod shares;
mod switch;

use authors::Roll;
use policies::{PolicyRoom, Shelf};
use receipts::Books;
use shares::Shares;
use switch::{Outlets, Switch};

/// How long an invite waits for an address to put in.
const ADDRESS: Duration = Duration::from_secs(3);
/// How long `join` waits until a member has let this machine in.
const ADMISSION: Duration = Duration::from_secs(8);
/// How long each step of a diagnosis may take.
const DIAGNOSIS: Duration = Duration::from_secs(20);

/// This machine's pool, in it or not.
#[derive(Debug)]
pub struct Pool {
    handle: PoolHandle,
    switch: Arc<Switch>,
    provider: PoolProvider,
    shares: Arc<Shares>,
    policies: Arc<PolicyRoom>,
    sync: Option<sync::SyncHandle>,
    blobs: BlobServer,
    fetcher: Fetcher,
    folder: PathBuf,
    parts: tokio::sync::Mutex<Option<Running>>,
}

/// What ends with the node.
#[derive(Debug)]
struct Running {
    trusted: TrustedPool,
    switch: JoinHandle<()>,
    stop: CancellationToken,
    server: JobServer,
    exchange: Exchange,
    canary: Canary,
    sync: Option<sync::Sync>,
    roll: JoinHandle<()>,
}

/// What the pool works with.
#[derive(Debug)]
pub(super) struct Needs<'a> {
    pub(super) home: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) section: &'a PoolSection,
    pub(super) signer: &'a Signer,
    pub(super) engine: SharedProvider,
    pub(super) load: Arc<dyn LoadSource>,
    pub(super) memory: Option<&'a Memory>,
    /// What members may copy.
    pub(super) blobs: Vec<Arc<dyn BlobSource>>,
    pub(super) occupied: Arc<dyn Occupied>,
}

impl Pool {
    /// Reads what is on disk; binds a port only when this machine is in a pool.
    ///
    /// # Errors
    /// [`PoolError`] when a file of the pool cannot be used.
    pub(super) async fn open(needs: Needs<'_>) -> Result<Self, PoolError> {
        let Needs { home, folder, section, signer, engine, load, memory, blobs, occupied } = needs;
        let name = section.name.clone().unwrap_or_else(host_name);
        let protocols =
            [join::JOIN, exchange::ROSTER, job::PROTOCOL, load::PROTOCOL, sync::PROTOCOL, blob::PROTOCOL];
        let (switch, outlets) = Switch::new(mesh_config(folder, section), signer.seed(), protocols);
        let Outlets { incoming: [joins, rosters, jobs, loads, memories, copies], events, addresses } =
            outlets;
        let switch = Arc::new(switch);
        let streams = Arc::clone(&switch) as Arc<dyn Streams>;
        let parts = Parts {
            signer: signer.clone(),
            streams: Arc::clone(&streams),
            joins,
            rosters,
            events,
            addresses,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        let trusted = TrustedPool::bind(
            Settings { limits: limits::read(folder)?, ..Settings::new(folder.to_owned(), name) },
            parts,
        )
        .await?;
        let handle = trusted.handle();
        let membership = handle.membership();
        let stop = CancellationToken::new();
        let gate = tokio::spawn(Arc::clone(&switch).run(handle.gate(), stop.clone()));
        let node = signer.node().to_string();
        let engines = Several::new(node.clone(), vec![Part { provider: engine, load }]);
        let shares = Shares::open(folder, signer.node(), engines.clone(), stop.clone())?;
        let ledger = Arc::clone(handle.ledger());
        let books = Books { signer: signer.clone(), handle: handle.clone(), ledger };
        let receipts: Arc<dyn Receipts> = Arc::new(books);
        let source = Arc::new(engines.clone()) as Arc<dyn LoadSource>;
        let serving = Serving {
            node: node.clone(),
            provider: Arc::new(engines.clone()),
            load: Arc::clone(&source),
            membership: Arc::clone(&membership),
            receipts: Arc::clone(&receipts),
        };
        let serve = ServeConfig { jobs: section.max_jobs, ..ServeConfig::default() };
        let server = JobServer::bind(serve, serving, jobs);
        let table = Arc::new(LoadTable::default());
        let exchange = Exchange::bind(
            ExchangeConfig::default(),
            signer.clone(),
            Arc::clone(&source),
            Arc::clone(&table),
            Arc::clone(&streams),
            Arc::clone(&membership),
            loads,
        );
        let folder_of_policies = policies::folder(home).map_err(unusable)?;
        let shelf = Arc::new(Shelf(Arc::clone(&folder_of_policies))) as Arc<dyn BlobSource>;
        let fetcher = Fetcher::new(fetch::Config::default(), Arc::clone(&streams), Arc::clone(&membership));
        let key = blake3::derive_key("potluck compiled policies 1", &signer.seed());
        let room = PolicyRoom::open(home, folder_of_policies, handle.clone(), fetcher.clone(), key, &stop);
        let policies = room.map_err(unusable)?;
        let provider = PoolProvider::new(pool::Pool {
            config: PoolConfig::default(),
            streams: Arc::clone(&streams),
            membership: Arc::clone(&membership),
            table,
            health: Arc::new(Health::default()),
            receipts,
            own: Some(Own { node, provider: Arc::new(engines.clone()), load: source }),
            routing: Some(policies.routing(Arc::clone(&switch) as Arc<dyn Distances>)),
        });
        let blobs = blobs.into_iter().chain([shelf]).collect();
        let serving = blob::serve::Serving { sources: blobs, membership: Arc::clone(&membership), occupied };
        let config =
            blob::serve::ServeConfig { rate: section.copy_rate, ..blob::serve::ServeConfig::default() };
        let blobs = BlobServer::bind(config, serving, copies);
        let canary = Canary::bind(CanaryConfig::default(), &provider);
        let (roll, calling) = Roll::bind(handle.clone());
        let sync = match memory {
            None => None,
            Some(memory) => {
                let replica = memory.replica().await.map_err(|error| PoolError::Memory(error.to_string()))?;
                let authors = Arc::new(roll) as Arc<dyn sync::Authors>;
                let parts = sync::Parts { streams, incoming: memories, membership, authors, replica };
                Some(sync::Sync::bind(parts, sync::Options::default()))
            }
        };
        let running = Running { trusted, switch: gate, stop, server, exchange, canary, sync, roll: calling };
        Ok(Self {
            handle,
            switch,
            provider,
            shares,
            policies,
            sync: running.sync.as_ref().map(sync::Sync::handle),
            blobs,
            fetcher,
            folder: folder.to_owned(),
            parts: tokio::sync::Mutex::new(Some(running)),
        })
    }

    /// Ends jobs of members, tells the members, and closes all connections.
    pub(super) async fn shutdown(&self) {
        let Some(running) = self.parts.lock().await.take() else { return };
        running.canary.shutdown().await;
        running.exchange.shutdown().await;
        tokio::join!(running.server.shutdown(), self.blobs.shutdown());
        if let Some(sync) = running.sync {
            sync.shutdown().await;
        }
        running.trusted.shutdown().await;
        running.roll.abort();
        self.policies.shutdown();
        running.stop.cancel();
        let _ = running.switch.await;
    }

    /// Answers jobs with the machines of the pool.
    pub(super) fn provider(&self) -> SharedProvider {
        Arc::new(self.provider.clone())
    }

    /// Copies files from members.
    pub fn fetcher(&self) -> Fetcher {
        self.fetcher.clone()
    }

    /// What decides for the pool, for others that decide beside it.
    #[cfg(feature = "public")]
    pub(super) fn policy_room(&self) -> Arc<PolicyRoom> {
        Arc::clone(&self.policies)
    }

    /// What decides for the pool.
    pub fn policies(&self) -> &PolicyRoom {
        &self.policies
    }

    /// The papers.
    pub fn papers(&self) -> &PoolHandle {
        &self.handle
    }

    /// Founds a pool; returns once members can reach this machine. With a quorum, so many members approve its
    /// policies.
    ///
    /// # Errors
    /// [`PoolError`]
    pub async fn create(&self, name: &str, quorum: Option<u32>) -> Result<Value, PoolError> {
        let id = self.handle.create(name, quorum).await?;
        self.switch.wait(ADDRESS).await;
        Ok(
            json!({"id": id, "name": name, "addresses": self.addresses().await, "trouble": self.switch.trouble()}),
        )
    }

    /// Makes an invite, with this machine's addresses in it.
    ///
    /// # Errors
    /// [`PoolError`]
    pub async fn invite(&self, options: InviteOptions) -> Result<Value, PoolError> {
        if self.addresses().await.is_empty()
            && let Some(reason) = self.switch.trouble()
        {
            return Err(PoolError::Unreachable { reason });
        }
        let made = self.handle.invite(options).await?;
        let picture = qr(&made.invite).unwrap_or_default();
        let mut answer = serde_json::to_value(made).unwrap_or_default();
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("qr".into(), picture.into());
        }
        Ok(answer)
    }

    /// Joins a pool. Returns when a member has let this machine in, or, where none does in time, when it is a member
    /// by its papers.
    ///
    /// # Errors
    /// [`PoolError`], with what came of every machine that the invite names.
    pub async fn join(&self, printed: &str, name: Option<&str>) -> Result<Value, PoolError> {
        let invite = Invite::parse(printed)?;
        self.handle.may_join(&invite).await?;
        let mut refusal: PoolError = OpenError::Unreachable {
            peer: invite.issuer(),
            reason: "the invite holds no address: the machine that made it could not be reached from outside"
                .into(),
        }
        .into();
        for route in invite.routes() {
            let addresses = route.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            let mut stream = match knock(invite.key().seed(), route.node, addresses).await {
                Ok(stream) => stream,
                Err(error) => {
                    refusal = error.into();
                    continue;
                }
            };
            let joined = self.handle.join(&invite, &mut stream, name).await?;
            self.learn(&invite).await;
            let admitted = self.admitted().await;
            let status = self.handle.status().await?;
            let pool = status.pool.map(|pool| pool.name);
            return Ok(json!({"pool": pool, "id": joined.id, "name": joined.name, "online": admitted}));
        }
        Err(refusal)
    }

    /// Remembers where the issuers of an invite are.
    async fn learn(&self, invite: &Invite) {
        let Some(mesh) = self.switch.wait(ADDRESS).await else { return };
        for route in invite.routes() {
            let addresses = route.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            mesh.learn(route.node, addresses);
        }
    }

    /// Waits until a member has let this machine in.
    async fn admitted(&self) -> bool {
        let mut members = self.handle.watch();
        let somebody = members.wait_for(|members| !members.is_empty());
        tokio::time::timeout(ADMISSION, somebody).await.is_ok_and(|found| found.is_ok())
    }

    /// Where this machine can be reached, once that is known.
    async fn addresses(&self) -> Vec<String> {
        let mut addresses = self.switch.addresses();
        let some = tokio::time::timeout(ADDRESS, addresses.wait_for(|some| !some.is_empty())).await;
        some.ok().and_then(Result::ok).map(|some| some.to_vec()).unwrap_or_default()
    }

    /// How the pool is.
    ///
    /// # Errors
    /// [`PoolError::Closed`]
    pub async fn status(&self) -> Result<Value, PoolError> {
        let status = self.handle.status().await?;
        let mut answer = serde_json::to_value(&status).unwrap_or_default();
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("addresses".into(), json!(**self.switch.addresses().borrow()));
            fields.insert("trouble".into(), json!(self.switch.trouble()));
            fields.insert("copies".into(), json!(self.blobs.counters()));
            fields.insert("memory".into(), json!(self.sync.as_ref().map(sync::SyncHandle::status)));
        }
        Ok(answer)
    }

    /// All members, with the way to each.
    ///
    /// # Errors
    /// [`PoolError::NoPool`]
    pub async fn members(&self) -> Result<Value, PoolError> {
        let links = self.switch.links();
        let rows = self.handle.members().await?.into_iter().map(|row| {
            let link = links.get(&row.id);
            let mut line = serde_json::to_value(&row).unwrap_or_default();
            if let (Some(fields), Some(link)) = (line.as_object_mut(), link) {
                fields.insert("address".into(), link.address.to_string().into());
                let rtt = link.rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
                fields.insert("rtt_ms".into(), json!(rtt));
            }
            line
        });
        Ok(json!({"members": rows.collect::<Vec<_>>()}))
    }

    /// The member that a name or the beginning of an id means.
    ///
    /// # Errors
    /// [`PoolError`]
    pub async fn find(&self, wanted: &str) -> Result<NodeId, PoolError> {
        Ok(self.handle.show(wanted).await?.row.id)
    }

    /// Leaves the pool; its name. The machine with the pool's key leaves only with `force` while others are members.
    ///
    /// # Errors
    /// [`PoolError::NoPool`], [`PoolError::LastAdmin`]
    pub async fn leave(&self, force: bool) -> Result<String, PoolError> {
        let status = self.handle.status().await?.pool.ok_or(PoolError::NoPool)?;
        if status.role == Role::Owner && status.members > 1 && !force {
            return Err(PoolError::LastAdmin);
        }
        self.handle.leave().await?;
        Ok(status.name)
    }

    /// Gives a member at most so much computing time a month, in microseconds; `None`: any amount. Kept on disk.
    ///
    /// # Errors
    /// [`PoolError::File`] when they cannot be written.
    pub fn limit(&self, node: NodeId, micros: Option<u64>) -> Result<(), PoolError> {
        limits::set(&self.folder, self.handle.ledger(), node, micros)
    }

    /// Who gave and who took how much, with names.
    ///
    /// # Errors
    /// [`PoolError::NoPool`]
    pub async fn ledger(&self) -> Result<Value, PoolError> {
        let members = self.handle.members().await?;
        let name = |node: NodeId| {
            members.iter().find(|row| row.id == node).map_or_else(|| node.short(), |row| row.name.clone())
        };
        let entries = self.handle.ledger().rows().into_iter().map(|row| {
            let mut line = serde_json::to_value(&row).unwrap_or_default();
            if let Some(fields) = line.as_object_mut() {
                fields.insert("name".into(), name(row.node).into());
            }
            line
        });
        Ok(json!({"entries": entries.collect::<Vec<_>>()}))
    }

    /// Every layer between here and a token of another machine, up to the first that fails, and what came of each
    /// of its addresses.
    ///
    /// # Errors
    /// [`PoolError`]
    pub async fn diagnose(&self, wanted: &str, model: Option<&str>) -> Result<Value, PoolError> {
        let began = Instant::now();
        let node = self.find(wanted).await?;
        let steps = canary::diagnose(&self.provider, node, model, DIAGNOSIS).await;
        let steps: Vec<Value> = steps
            .into_iter()
            .map(|step| {
                let (ok, found) = step.outcome.map_or_else(|why| (false, why), |well| (true, well));
                json!({"layer": step.layer, "ok": ok, "found": found, "took_ms": step.took.as_secs_f64() * 1e3})
            })
            .collect();
        let attempts = match self.switch.mesh() {
            Some(mesh) => mesh.probe(node).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let addresses: Vec<Value> = attempts
            .into_iter()
            .map(|attempt| {
                json!({
                    "address": attempt.address.to_string(),
                    "outcome": attempt.outcome.to_string(),
                    "took_ms": attempt.took.as_secs_f64() * 1e3,
                })
            })
            .collect();
        let took_ms = began.elapsed().as_secs_f64() * 1e3;
        Ok(json!({"id": node, "steps": steps, "addresses": addresses, "took_ms": took_ms}))
    }

    /// Lets members use another server's models through this machine, also after a restart.
    ///
    /// # Errors
    /// What is wrong with the server, in words.
    pub async fn share(&self, url: String, key: Option<String>, slots: usize) -> Result<Value, String> {
        Ok(json!({"models": self.shares.share(url, key, slots).await?}))
    }

    /// Ends what [`share`](Self::share) began; whether there was anything.
    ///
    /// # Errors
    /// [`PoolError::File`] when that cannot be written.
    pub fn unshare(&self, url: &str) -> Result<bool, PoolError> {
        self.shares.end(url)
    }

    /// Servers whose models members can use.
    pub async fn shared(&self) -> Value {
        json!({"servers": self.shares.list().await})
    }
}

fn unusable(error: policies::PolicyError) -> PoolError {
    PoolError::Policies(error.to_string())
}

fn mesh_config(folder: &Path, section: &PoolSection) -> mesh::Config {
    mesh::Config {
        listen: section.listen.clone(),
        announce: section.announce.iter().filter_map(|address| address.parse().ok()).collect(),
        relay: section.relay,
        lan: section.lan,
        loopback: section.listen.iter().any(|address| address.ip().is_loopback()),
        book: Some(folder.join("addresses")),
        ..mesh::Config::default()
    }
}

/// The host's name, as far as it can be one here.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default().trim().to_owned();
    if short.is_empty() { "machine".into() } else { short }
}
