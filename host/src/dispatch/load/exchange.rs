//! Sends this machine's reports and takes those of others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{LoadSource, LoadTable, MAX_REPORT, ModelLoad, PROTOCOL, Report, SignedReport};
use crate::{
    identity::{NodeId, Signer},
    mesh::{
        protocol::link,
        streams::{Inbound, Incoming, Stream, Streams},
    },
    pool::trusted::{Admitted, Membership},
};

/// The clocks of load reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeConfig {
    /// How often this machine looks whether something changed that others should know.
    pub look: Duration,
    /// How often a report is sent when nothing changed.
    pub every: Duration,
    /// How long a report holds.
    pub valid: Duration,
    /// First pause before a broken stream is opened again; doubles up to `every` times 8.
    pub again: Duration,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(500),
            every: Duration::from_secs(2),
            valid: Duration::from_secs(10),
            again: Duration::from_millis(500),
        }
    }
}

/// Least time between two reports that are read from one machine.
const LEAST: Duration = Duration::from_millis(50);
/// A stream without a report for this long is given up.
const SILENCE: Duration = Duration::from_secs(20);

type Snapshot = watch::Receiver<Arc<Vec<ModelLoad>>>;

/// The exchange of reports. Dropping it ends it.
#[derive(Debug)]
pub struct Exchange {
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Sender {
    config: ExchangeConfig,
    signer: Signer,
    streams: Arc<dyn Streams>,
    membership: Arc<dyn Membership>,
    snapshot: Snapshot,
}

impl Exchange {
    /// Starts it. Must be called within a tokio runtime.
    pub fn bind(
        config: ExchangeConfig,
        signer: Signer,
        source: Arc<dyn LoadSource>,
        table: Arc<LoadTable>,
        streams: Arc<dyn Streams>,
        membership: Arc<dyn Membership>,
        incoming: Incoming,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let (publish, snapshot) = watch::channel(Arc::new(Vec::new()));
        tasks.spawn(look(config, source, publish));
        let sender = Sender { config, signer, streams, membership: membership.clone(), snapshot };
        tasks.spawn(send_all(Arc::new(sender)));
        tasks.spawn(receive_all(table, membership, incoming));
        Self { tasks }
    }

    /// Ends it.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Notices changes.
async fn look(
    config: ExchangeConfig,
    source: Arc<dyn LoadSource>,
    publish: watch::Sender<Arc<Vec<ModelLoad>>>,
) {
    let mut ticks = interval(config.look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = source.now().await;
        publish.send_if_modified(|last| {
            let changed = news(last, &now);
            *last = Arc::new(now);
            changed
        });
    }
}

/// Whether others should know at once. Speeds and free tokens move all the time; they can wait.
fn news(last: &[ModelLoad], now: &[ModelLoad]) -> bool {
    last.len() != now.len()
        || last.iter().zip(now).any(|(a, b)| {
            let of = |m: &ModelLoad| (m.loaded, m.context, m.running >= m.slots, m.queued > 0);
            a.name != b.name || of(a) != of(b)
        })
}

/// One task per member that may know.
async fn send_all(sender: Arc<Sender>) {
    let mut admitted = sender.membership.watch();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut known: HashMap<NodeId, AbortHandle> = HashMap::new();
    loop {
        let now: HashSet<NodeId> = admitted.borrow_and_update().iter().map(|member| member.node).collect();
        known.retain(|node, task| {
            let stays = now.contains(node) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for node in now {
            if node != sender.membership.me() && !known.contains_key(&node) {
                known.insert(node, tasks.spawn(send(sender.clone(), node)));
            }
        }
        while tasks.try_join_next().is_some() {}
        if admitted.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps a stream to one member.
async fn send(sender: Arc<Sender>, peer: NodeId) {
    let mut pause = sender.config.again;
    loop {
        match sender.streams.open(peer, PROTOCOL).await {
            Ok(stream) => {
                let began = Instant::now();
                let why = push(&sender, peer, stream).await;
                tracing::debug!(%peer, why, "the stream for load reports ended");
                if began.elapsed() > SILENCE {
                    pause = sender.config.again;
                }
            }
            Err(error) => tracing::debug!(%error, "no stream for load reports"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(sender.config.every * 8);
    }
}

async fn push(sender: &Sender, peer: NodeId, stream: Stream) -> String {
    let (_reader, mut writer) = link::split(stream, MAX_REPORT);
    let mut snapshot = sender.snapshot.clone();
    for sequence in 0.. {
        let models = snapshot.borrow_and_update().clone();
        // Grants change while the stream lives.
        if let Some(models) = shown(sender, peer, &models) {
            let signed = report(sender, sequence, models).sign(&sender.signer);
            match timeout(SILENCE, writer.send(&signed)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it reads nothing".into(),
            }
        }
        // Nobody else sees the end of the looking task: without it there is nothing to say.
        if let Ok(Err(_)) = timeout(sender.config.every, snapshot.changed()).await {
            return "this machine is stopping".into();
        }
    }
    String::new()
}

/// The models that a member may know of; `None`: it is told nothing.
fn shown(sender: &Sender, peer: NodeId, models: &[ModelLoad]) -> Option<Vec<ModelLoad>> {
    let membership = &sender.membership;
    let ours = membership.grants(membership.me()).filter(|grants| grants.serve)?;
    let theirs = membership.grants(peer).filter(|grants| grants.uses)?;
    let allowed = |model: &&ModelLoad| ours.models.covers(&model.name) && theirs.models.covers(&model.name);
    Some(models.iter().filter(allowed).take(512).cloned().collect())
}

fn report(sender: &Sender, sequence: u64, models: Vec<ModelLoad>) -> Report {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Report {
        node: sender.signer.node(),
        time_ms: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        valid_ms: u32::try_from(sender.config.valid.as_millis()).unwrap_or(u32::MAX),
        sequence,
        version: env!("CARGO_PKG_VERSION").into(),
        models,
    }
}

/// One stream per member is read: the newest.
async fn receive_all(table: Arc<LoadTable>, membership: Arc<dyn Membership>, mut incoming: Incoming) {
    let mut admitted = membership.watch();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut reading: HashMap<NodeId, AbortHandle> = HashMap::new();
    loop {
        tokio::select! {
            changed = admitted.changed() => {
                if changed.is_err() {
                    return;
                }
                let all = admitted.borrow_and_update().clone();
                reading.retain(|node, task| {
                    let stays = is_in(&all, *node);
                    if !stays {
                        task.abort();
                        table.forget(*node);
                    }
                    stays
                });
            }
            inbound = incoming.recv() => {
                let Some(Inbound { peer, stream }) = inbound else { return };
                if membership.grants(peer).is_none() {
                    continue;
                }
                let task = tasks.spawn(receive(table.clone(), membership.clone(), peer, stream));
                if let Some(older) = reading.insert(peer, task) {
                    older.abort();
                }
            }
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

fn is_in(all: &[Admitted], node: NodeId) -> bool {
    all.iter().any(|member| member.node == node)
}

async fn receive(table: Arc<LoadTable>, membership: Arc<dyn Membership>, peer: NodeId, stream: Stream) {
    let (mut reader, _writer) = link::split(stream, MAX_REPORT);
    let mut last = None;
    loop {
        let signed = match timeout(SILENCE, reader.next::<SignedReport>()).await {
            Ok(Ok(Some(signed))) => signed,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%peer, %error, "a load report that makes no sense");
                return;
            }
        };
        match signed.open(peer, last) {
            Ok(mut report) => {
                last = Some(report.sequence);
                let Some(grants) = membership.grants(peer) else { return };
                report.models.retain(|model| grants.serve && grants.models.covers(&model.name));
                table.put(peer, report, Instant::now());
            }
            Err(error) => {
                tracing::warn!(%peer, %error, "a load report is refused");
                return;
            }
        }
        // Who sends faster than this is slowed down by its own stream.
        sleep(LEAST).await;
    }
}
