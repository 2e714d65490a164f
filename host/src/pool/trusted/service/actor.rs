//! The actor: whatever happens to the pool happens here, one thing after the other.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    sync::Arc,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Duration, Instant, MissedTickBehavior},
};

use super::super::{
    clock::{Clock, HOUR, MINUTE, Millis, Random, draw},
    join::{Answer, Applicant, Bucket, Joined},
    ledger::Ledger,
    names,
    papers::{MAX_LIFE, Motion, PoolId},
    roster::JoinRefusal,
};
use super::{
    BallotRow, InviteOptions, Invited, MemberDetail, MemberRow, Parts, PeerEvent, PoolError, PoolHandle,
    Revoked, Settings, Status,
    home::Home,
    outputs::Access,
    problems::Problems,
    seen,
    talk::{Said, Talk},
};
use crate::{
    identity::{NodeId, Signer},
    mesh::streams::{Inbound, Incoming, Stream, Streams},
};

/// Commands that wait.
const COMMANDS: usize = 64;
/// What tasks have to say and waits.
const EVENTS: usize = 256;
/// How often what is out of date is dropped.
const TIDY: Millis = HOUR;

/// Where the answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, PoolError>>;

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Create {
        name: String,
        quorum: Option<u32>,
        reply: Reply<PoolId>,
    },
    Invite {
        options: Box<InviteOptions>,
        reply: Reply<Invited>,
    },
    /// Whether a machine may join that pool; the name it would have.
    MayJoin {
        pool: PoolId,
        reply: Reply<String>,
    },
    Adopt {
        joined: Box<Joined>,
        reply: Reply<MemberRow>,
    },
    Members {
        reply: Reply<Vec<MemberRow>>,
    },
    Show {
        wanted: String,
        reply: Reply<MemberDetail>,
    },
    Revoke {
        wanted: String,
        reason: String,
        reply: Reply<Revoked>,
    },
    Rename {
        wanted: Option<String>,
        name: String,
        reply: Reply<String>,
    },
    Ballots {
        reply: Reply<Vec<BallotRow>>,
    },
    Vote {
        motion: Motion,
        yes: bool,
        note: String,
        reply: Reply<BallotRow>,
    },
    Leave {
        reply: Reply<()>,
    },
    Status {
        reply: Reply<Status>,
    },
    Root {
        reply: Reply<super::super::papers::RootKey>,
    },
    ImportRoot {
        key: Box<super::super::papers::RootKey>,
        reply: Reply<PoolId>,
    },
    Stop,
}

/// What the actor's tasks tell it.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream that this machine wanted.
    Dialled {
        peer: NodeId,
        stream: Result<StreamBox, String>,
    },
    Said {
        peer: NodeId,
        session: u64,
        said: Said,
    },
    Ended {
        peer: NodeId,
        session: u64,
        why: Option<String>,
    },
    /// A machine proved that it holds an invite.
    Apply {
        applicant: Applicant,
        reply: oneshot::Sender<Result<Answer, JoinRefusal>>,
    },
    /// A machine did not become a member.
    Turned {
        what: String,
    },
}

/// A stream, which has nothing to show.
pub(super) struct StreamBox(pub(super) Stream);

impl std::fmt::Debug for StreamBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: String,
    pub(super) since: Instant,
    /// When to open a conversation, if there is none.
    pub(super) dial_at: Instant,
    /// A dial is under way.
    pub(super) dialling: bool,
    pub(super) failures: u32,
}

/// The runs of a machine's program that were met.
#[derive(Debug)]
pub(super) struct Runs {
    /// How many new papers are taken of it: as many as a pool can have, then one a second.
    pub(super) budget: Bucket,
    pub(super) boots: VecDeque<[u8; 16]>,
    /// Until when it is left alone, because two machines use its key or it misbehaved.
    pub(super) shunned: Option<(Instant, super::super::exchange::Bye)>,
}

impl Default for Runs {
    fn default() -> Self {
        let budget = Bucket::new(16_384, Duration::from_secs(1), Instant::now());
        Self { budget, boots: VecDeque::new(), shunned: None }
    }
}

/// The pool of this machine, and everything that is going on in it.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) settings: Settings,
    pub(super) signer: Signer,
    pub(super) streams: Arc<dyn Streams>,
    pub(super) addresses: watch::Receiver<Arc<Vec<String>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) access: Arc<Access>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) home: Option<Home>,
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) talks: BTreeMap<NodeId, Talk>,
    pub(super) runs: BTreeMap<NodeId, Runs>,
    pub(super) last_seen: BTreeMap<NodeId, Millis>,
    /// When that was written down.
    pub(super) seen_kept: Millis,
    pub(super) problems: Problems,
    pub(super) boot: [u8; 16],
    pub(super) sessions: u64,
    /// How many join at once.
    pub(super) chairs: Arc<Semaphore>,
    /// How many are told to come back later at once.
    pub(super) porch: Arc<Semaphore>,
    pub(super) door: Bucket,
    pub(super) knocks: BTreeMap<NodeId, Bucket>,
    pub(super) tidied: Millis,
    ledger: Arc<Ledger>,
}

/// What reaches the actor from outside.
struct Inputs {
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<Event>,
    joins: Incoming,
    rosters: Incoming,
    peers: mpsc::Receiver<PeerEvent>,
}

impl Actor {
    /// Reads what is on disk.
    pub(super) async fn open(
        mut settings: Settings,
        parts: Parts,
    ) -> Result<(PoolHandle, impl Future<Output = ()> + Send + 'static), PoolError> {
        settings.name = names::clean(&settings.name)?;
        settings.life = settings.life.clamp(HOUR, MAX_LIFE);
        let now = parts.clock.now();
        let (folder, limits) = (settings.folder.clone(), settings.limits.clone());
        let me = parts.signer.node();
        let opened = tokio::task::spawn_blocking(move || {
            let ledger = Ledger::open(&Ledger::path(&folder), me, limits, now)?;
            Home::open(&folder, now).map(|(home, repairs)| (ledger, home, repairs))
        });
        let (ledger, home, repairs) = opened.await.map_err(|_| PoolError::Closed)??;
        let access = Arc::new(Access::new(parts.signer.node(), Arc::clone(&parts.clock)));
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (events, event_queue) = mpsc::channel(EVENTS);
        let ledger = Arc::new(ledger);
        let handle = PoolHandle::new(
            commands,
            Arc::clone(&access),
            Arc::clone(&ledger),
            (parts.signer.clone(), Arc::clone(&parts.random)),
            settings.hardness,
        );
        let folder = settings.folder.clone();
        let start = Instant::now();
        let mut actor = Self {
            settings,
            signer: parts.signer,
            streams: parts.streams,
            addresses: parts.addresses,
            boot: draw(&*parts.random)?,
            clock: parts.clock,
            random: parts.random,
            access,
            events,
            home,
            links: BTreeMap::new(),
            talks: BTreeMap::new(),
            runs: BTreeMap::new(),
            last_seen: seen::read(&folder),
            seen_kept: now,
            problems: Problems::default(),
            sessions: 0,
            chairs: Arc::new(Semaphore::new(8)),
            porch: Arc::new(Semaphore::new(8)),
            door: Bucket::new(30, Duration::from_secs(2), start),
            knocks: BTreeMap::new(),
            tidied: now,
            ledger,
        };
        for repair in handle.ledger().repairs().iter().cloned().chain(repairs) {
            actor.problems.note(now, None, repair);
        }
        actor.settle().await;
        let inputs = Inputs {
            commands: command_queue,
            events: event_queue,
            joins: parts.joins,
            rosters: parts.rosters,
            peers: parts.events,
        };
        Ok((handle, actor.run(inputs)))
    }

    async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(self.settings.tick.max(Duration::from_millis(10)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let dial = self.next_dial();
            tokio::select! {
                command = inputs.commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => self.command(command).await,
                },
                Some(event) = inputs.events.recv() => self.event(event).await,
                Some(event) = inputs.peers.recv() => self.peer(event).await,
                Some(inbound) = inputs.joins.recv() => self.knock(inbound),
                Some(Inbound { peer, stream }) = inputs.rosters.recv() => self.answer_roster(peer, stream),
                () = at(dial) => self.dial_due(),
                _ = tick.tick() => self.tick().await,
            }
        }
        self.keep_seen().await;
        self.hang_up(super::super::exchange::Bye::Leaving).await;
        self.access.publish(super::GateView::default(), None, Vec::new());
        self.ledger.close();
    }

    /// The time.
    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// This machine.
    pub(super) fn me(&self) -> NodeId {
        self.signer.node()
    }

    /// Remembers what went wrong.
    pub(super) fn note(&mut self, node: Option<NodeId>, what: impl Into<String>) {
        let now = self.now();
        self.problems.note(now, node, what.into());
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Create { name, quorum, reply } => answer(reply, self.create(&name, quorum).await),
            Command::Ballots { reply } => answer(reply, self.ballots()),
            Command::Vote { motion, yes, note, reply } => {
                answer(reply, self.vote(motion, yes, note).await);
            }
            Command::Invite { options, reply } => answer(reply, self.invite(*options).await),
            Command::MayJoin { pool, reply } => answer(reply, self.may_join(pool)),
            Command::Adopt { joined, reply } => answer(reply, self.adopt(*joined).await),
            Command::Members { reply } => answer(reply, self.members()),
            Command::Show { wanted, reply } => answer(reply, self.show(&wanted)),
            Command::Revoke { wanted, reason, reply } => answer(reply, self.revoke(&wanted, &reason).await),
            Command::Rename { wanted, name, reply } => {
                answer(reply, self.rename(wanted.as_deref(), &name).await)
            }
            Command::Leave { reply } => answer(reply, self.leave().await),
            Command::Status { reply } => answer(reply, Ok(self.status())),
            Command::Root { reply } => answer(reply, self.root()),
            Command::ImportRoot { key, reply } => answer(reply, self.import_root(*key).await),
            Command::Stop => {}
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Dialled { peer, stream } => self.dialled(peer, stream),
            Event::Said { peer, session, said } => self.said(peer, session, said).await,
            Event::Ended { peer, session, why } => self.ended(peer, session, why).await,
            Event::Apply { applicant, reply } => {
                let outcome = self.apply(applicant).await;
                let _ = reply.send(outcome);
            }
            Event::Turned { what } => self.note(None, what),
        }
    }

    async fn peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected { node, path } | PeerEvent::PathChanged { node, path } => {
                let now = Instant::now();
                let link = self.links.entry(node).or_insert_with(|| Link {
                    path: String::new(),
                    since: now,
                    dial_at: now,
                    dialling: false,
                    failures: 0,
                });
                link.path = path;
                self.last_seen.insert(node, self.clock.now());
                self.dial_due();
            }
            PeerEvent::Disconnected { node } => {
                self.links.remove(&node);
                if self.talks.remove(&node).is_some() {
                    self.last_seen.insert(node, self.clock.now());
                }
            }
        }
        self.settle().await;
    }

    async fn tick(&mut self) {
        let now = self.now();
        self.repeat();
        self.dial_due();
        if now.saturating_sub(self.seen_kept).saturating_abs() >= MINUTE {
            self.keep_seen().await;
        }
        if now.saturating_sub(self.tidied).saturating_abs() >= TIDY {
            self.tidied = now;
            self.last_seen
                .retain(|node, _| self.home.as_ref().is_some_and(|it| it.view.members.contains_key(node)));
            self.runs.retain(|node, _| self.links.contains_key(node));
            if let Some(home) = &mut self.home
                && let Err(error) = home.tidy(now).await
            {
                self.note(None, error.to_string());
            }
        }
        self.settle().await;
    }
}

fn answer<T>(reply: Reply<T>, outcome: Result<T, PoolError>) {
    // Whoever asked may be gone.
    let _ = reply.send(outcome);
}

/// Waits until then; for ever without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
