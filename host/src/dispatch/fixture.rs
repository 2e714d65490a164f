//! Machines for tests: a mesh in memory whose links can be cut and frozen, and engines that say what they are told.

mod net;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

pub(crate) use net::{LinkState, Net};

use super::{
    health::Health,
    load::{LoadSource, LoadTable, ModelLoad, Report},
    pool::{Own, Pool, PoolConfig, PoolProvider},
    provider::{BoxFuture, Offer, Provider},
    serve::{JobServer, ServeConfig, Serving},
};
use crate::{
    identity::NodeId,
    job::{Event, FinishReason, Format, Input, Job, JobError, Mode, Reply, TokenLogprob, Usage},
    mesh::protocol::job::receipts::{NoReceipts, Receipts},
    pool::trusted::{Admitted, Grants, Membership, Scope},
};

/// The id of the machine with this number, as answers name it.
pub(crate) fn id(number: u8) -> String {
    NodeId([number; 32]).to_string()
}

/// A pool whose roster the test writes.
#[derive(Debug)]
pub(crate) struct Roster {
    me: NodeId,
    all: watch::Sender<Arc<Vec<Admitted>>>,
}

pub(crate) fn grants() -> Grants {
    Grants {
        serve: true,
        uses: true,
        relay: false,
        models: Scope::All,
        memory: Vec::new(),
        rate: None,
        admin: false,
        fetch: None,
    }
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

impl Roster {
    pub(crate) fn new(me: NodeId, members: &[u8]) -> Arc<Self> {
        Self::of(me, &members.iter().map(|&n| node(n)).collect::<Vec<_>>())
    }

    pub(crate) fn of(me: NodeId, members: &[NodeId]) -> Arc<Self> {
        let member = |&node: &NodeId| Admitted {
            node,
            name: format!("n{}", node.0[0]),
            grants: grants(),
            path: "direct".into(),
            since: 0,
        };
        Arc::new(Self { me, all: watch::channel(Arc::new(members.iter().map(member).collect())).0 })
    }

    pub(crate) fn alter(&self, node: NodeId, change: impl FnOnce(&mut Grants)) {
        self.all.send_modify(|all| {
            let member = Arc::make_mut(all).iter_mut().find(|m| m.node == node).unwrap();
            change(&mut member.grants);
        });
    }

    pub(crate) fn remove(&self, node: NodeId) {
        self.all.send_modify(|all| Arc::make_mut(all).retain(|m| m.node != node));
    }

    pub(crate) fn change(&self, n: u8, change: impl FnOnce(&mut Grants)) {
        self.alter(node(n), change);
    }

    pub(crate) fn revoke(&self, n: u8) {
        self.remove(node(n));
    }
}

impl Membership for Roster {
    fn me(&self) -> NodeId {
        self.me
    }

    fn grants(&self, node: NodeId) -> Option<Grants> {
        self.all.borrow().iter().find(|m| m.node == node).map(|m| m.grants.clone())
    }

    fn watch(&self) -> watch::Receiver<Arc<Vec<Admitted>>> {
        self.all.subscribe()
    }
}

/// What an engine does before it sends its `n`th event.
type Hook = Box<dyn Fn(usize) -> Deed + Send + Sync>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Deed {
    #[default]
    GoOn,
    /// Fails.
    Fail(JobError),
    /// Never says anything again.
    Hang,
}

/// An engine whose answers follow from seed and position alone, as the real one's do.
pub(crate) struct Script {
    name: String,
    pub(crate) pause: Duration,
    pub(crate) context: u64,
    hook: Mutex<Hook>,
    refusal: Mutex<Option<JobError>>,
    /// Another model under the same name.
    pub(crate) salt: u64,
    pub(crate) ids: bool,
    pub(crate) jobs: Mutex<Vec<Job>>,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) sent: AtomicUsize,
    pub(crate) running: AtomicUsize,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(crate) fn word(seed: u64, at: usize) -> (u32, String) {
    let hash = (seed ^ 0x51ed).wrapping_add(at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let id = (hash % 50_000) as u32;
    // Some words are no ASCII, some tokens say nothing.
    let text = match id % 5 {
        0 => format!("ö{id} "),
        1 => String::new(),
        _ => format!("w{id} "),
    };
    (id, text)
}

impl Script {
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut script = Self {
            name: name.into(),
            pause: Duration::from_millis(10),
            context: 4096,
            hook: Mutex::new(Box::new(|_| Deed::GoOn)),
            refusal: Mutex::new(None),
            salt: 0,
            ids: true,
            jobs: Mutex::new(Vec::new()),
            cancelled: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        };
        change(&mut script);
        Arc::new(script)
    }

    pub(crate) fn on_event(&self, hook: impl Fn(usize) -> Deed + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Box::new(hook);
    }

    pub(crate) fn refuse(&self, error: Option<JobError>) {
        *self.refusal.lock().unwrap() = error;
    }

    fn deed(&self, event: usize) -> Deed {
        (self.hook.lock().unwrap())(event)
    }

    async fn answer(self: Arc<Self>, job: Job, events: mpsc::Sender<Result<Event, JobError>>) {
        self.running.fetch_add(1, Relaxed);
        let whole = self.speak(&job, &events).await;
        self.running.fetch_sub(1, Relaxed);
        if whole.is_none() {
            self.cancelled.fetch_add(1, Relaxed);
        }
    }

    /// `None` when nobody listens any more.
    async fn speak(&self, job: &Job, events: &mpsc::Sender<Result<Event, JobError>>) -> Option<()> {
        let seed = job.sampling.seed ^ self.salt;
        let total = job.max_tokens.unwrap_or(20) as usize;
        let mut number = 0;
        if !job.resume.is_empty() {
            let said: String = (0..job.resume.len()).map(|at| word(seed, at).1).collect();
            let ids: Vec<u32> = (0..job.resume.len()).map(|at| word(seed, at).0).collect();
            if self.salt == 0 {
                assert_eq!(ids, job.resume, "resumed with other tokens than were made");
            }
            self.send(events, Event::Text { text: said, logprobs: Vec::new(), tokens: Vec::new() }).await?;
        }
        for at in job.resume.len()..total {
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                () = events.closed() => return None,
            }
            match self.deed(number) {
                Deed::GoOn => {}
                Deed::Fail(error) => {
                    let _ = events.send(Err(error)).await;
                    return Some(());
                }
                Deed::Hang => {
                    events.closed().await;
                    return None;
                }
            }
            number += 1;
            let (id, text) = word(seed, at);
            let logprob = || TokenLogprob {
                token: text.clone(),
                bytes: text.clone().into_bytes(),
                logprob: -(at as f32),
                top: vec![("x".into(), vec![0xff], -1.0)],
            };
            let logprobs = job.logprobs.map(|_| logprob()).into_iter().collect();
            let tokens = if self.ids { vec![id] } else { Vec::new() };
            self.send(events, Event::Text { text, logprobs, tokens }).await?;
        }
        let usage = Usage {
            prompt_tokens: 7,
            completion_tokens: total as u32,
            prompt: Duration::from_millis(3),
            decode: Duration::from_millis(4),
            ..Usage::default()
        };
        self.send(events, Event::Done { reason: FinishReason::Length, usage }).await
    }

    async fn send(&self, events: &mpsc::Sender<Result<Event, JobError>>, event: Event) -> Option<()> {
        events.send(Ok(event)).await.ok()?;
        self.sent.fetch_add(1, Relaxed);
        Some(())
    }
}

/// The engine as a provider.
#[derive(Clone, Debug)]
pub(crate) struct Scripted(pub(crate) Arc<Script>);

impl Provider for Scripted {
    fn circle(&self) -> Mode {
        Mode::Local
    }

    fn node(&self) -> &str {
        &self.0.name
    }

    fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(async { vec![Offer { model: "m".into(), context: self.0.context }] })
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(async move {
            assert_eq!(job.mode, Mode::Local, "a job of a member stays on this machine");
            self.0.jobs.lock().unwrap().push(job.clone());
            if let Some(error) = self.0.refusal.lock().unwrap().clone() {
                return Err(error);
            }
            let (events, reply) = Reply::channel(self.0.name.clone(), Mode::Local);
            tokio::spawn(self.0.clone().answer(job, events));
            Ok(reply)
        })
    }
}

impl LoadSource for Scripted {
    fn now(&self) -> BoxFuture<'_, Vec<ModelLoad>> {
        Box::pin(async { vec![model(self.0.context)] })
    }
}

pub(crate) fn model(context: u64) -> ModelLoad {
    ModelLoad {
        name: "m".into(),
        digest: Some("d".into()),
        context,
        loaded: true,
        resumes: true,
        slots: 4,
        ..ModelLoad::default()
    }
}

/// A machine that serves.
pub(crate) struct Machine {
    pub(crate) script: Arc<Script>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) server: JobServer,
}

/// Machine 0 asks; 1 and further serve.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) roster: Arc<Roster>,
    pub(crate) table: Arc<LoadTable>,
    pub(crate) health: Arc<Health>,
    pub(crate) pool: PoolProvider,
    pub(crate) machines: Vec<Machine>,
}

impl World {
    pub(crate) fn new(scripts: Vec<Arc<Script>>) -> Self {
        Self::with(scripts, None, ServeConfig::default(), |_| Arc::new(NoReceipts))
    }

    pub(crate) fn with(
        scripts: Vec<Arc<Script>>,
        own: Option<Arc<Script>>,
        config: ServeConfig,
        receipts: impl Fn(u8) -> Arc<dyn Receipts>,
    ) -> Self {
        let net = Net::default();
        let everybody: Vec<u8> = (0..=scripts.len() as u8).collect();
        let machine = |(n, script): (u8, Arc<Script>)| {
            let roster = Roster::new(node(n), &everybody);
            let serving = Serving {
                node: format!("n{n}"),
                provider: Arc::new(Scripted(script.clone())),
                load: Arc::new(Scripted(script.clone())),
                membership: roster.clone(),
                receipts: receipts(n),
            };
            let incoming = net.bind(node(n), crate::mesh::protocol::job::PROTOCOL);
            Machine { script, roster, server: JobServer::bind(config, serving, incoming) }
        };
        let machines: Vec<Machine> = (1..).zip(scripts).map(machine).collect();
        let roster = Roster::new(node(0), &everybody);
        let (table, health) = (Arc::new(LoadTable::default()), Arc::new(Health::default()));
        let own = own.map(|script| Own {
            node: "n0".into(),
            provider: Arc::new(Scripted(script.clone())),
            load: Arc::new(Scripted(script)),
        });
        let pool = PoolProvider::new(Pool {
            config: PoolConfig { timers: config.timers, ..PoolConfig::default() },
            streams: net.streams(node(0)),
            membership: roster.clone(),
            table: table.clone(),
            health: health.clone(),
            receipts: receipts(0),
            own,
            routing: None,
        });
        let world = Self { net, roster, table, health, pool, machines };
        world.report();
        world
    }

    /// Everybody reports, the first machines as the fastest.
    pub(crate) fn report(&self) {
        for (n, machine) in (1u8..).zip(&self.machines) {
            let mut load = model(machine.script.context);
            load.decode = 1000.0 / f32::from(n).powi(2);
            self.say(n, vec![load]);
        }
    }

    pub(crate) fn say(&self, n: u8, models: Vec<ModelLoad>) {
        let version = String::new();
        let report = Report { node: node(n), time_ms: 0, valid_ms: 10_000, sequence: 0, version, models };
        self.table.put(node(n), report, tokio::time::Instant::now());
    }
}

pub(crate) fn job(seed: u64) -> Job {
    let sampling = potluck_kernels::sample::SamplingParams { seed, ..Default::default() };
    Job {
        id: uuid::Uuid::now_v7(),
        model: "m".into(),
        mode: Mode::Trusted,
        input: Input::Text { text: "Once upon a time".into(), special: false },
        sampling,
        max_tokens: Some(20),
        stop: Vec::new(),
        format: Format::Text,
        logprobs: None,
        keep_alive: None,
        resume: Vec::new(),
        spend: Default::default(),
    }
}

/// The whole answer to [`job`].
pub(crate) fn whole(seed: u64, tokens: usize) -> String {
    (0..tokens).map(|at| word(seed, at).1).collect()
}
