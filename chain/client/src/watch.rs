//! Follows the chain's final blocks and tells what in them concerns nodes.
//!
//! Every final block is read once and in order. Whoever listens too slowly, and a gap that is too long to be read,
//! is told so as [`Event::Missed`]; what it wants to know it then asks the chain.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use potluck_primitives::{Account, MicroCredits, PolicyHash, PolicyKind, PoolClass, Voucher};
use tokio::sync::{Notify, broadcast, watch};

use crate::{
    link::{
        Head, Link, LinkError,
        node::{Node, unclear},
    },
    query::ApprovedPolicy,
    runtime,
};

/// Events that wait for a listener; it misses the oldest when there are more.
const WAITING: usize = 1_024;
/// Final blocks that are read when they come at once; of more, only the last ones are.
const CATCH_UP: u32 = 256;
/// How often a node may be behind what was read already before it is taken for a chain that began anew.
const PATIENT_LOOKS: u32 = 5;
/// How long at most until the node is asked again whether a block became final.
const LOOK: Duration = Duration::from_secs(3);
/// Shortest and longest pause after a failure.
const SHORTEST: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(15);

/// Something in a final block that concerns nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block became final. Its events came before.
    Final(Head),
    /// Events were missed: the listener was too slow, or the node was away for too long.
    Missed,
    /// Credits became escrow.
    Deposited {
        /// Whose.
        payer: Account,
        /// All the escrow now.
        escrow: MicroCredits,
    },
    /// A payer asked escrow back: who holds vouchers of it should redeem them before `at`.
    WithdrawStarted {
        /// Who.
        payer: Account,
        /// How much.
        amount: MicroCredits,
        /// From which block on it is gone.
        at: u32,
    },
    /// A voucher was paid.
    Redeemed {
        /// The lane: pool, payer, payee and number. The voucher's other fields mean nothing here.
        lane: Lane,
        /// What left the escrow.
        paid: MicroCredits,
        /// What the lane has paid in all.
        redeemed: MicroCredits,
        /// What stays due.
        owed: MicroCredits,
    },
    /// A provider was slashed.
    Slashed {
        /// Who.
        provider: Account,
        /// By how much.
        amount: MicroCredits,
    },
    /// A batch can be disputed.
    BatchSubmitted {
        /// Its number.
        batch: u32,
        /// Whose.
        settler: Account,
        /// Of which epoch.
        epoch: u32,
        /// The last block in which a leaf can be challenged.
        challenges_until: u32,
    },
    /// A settler must show the vouchers of a leaf, or loses its bond.
    LeafChallenged {
        /// Of which batch.
        batch: u32,
        /// Which leaf.
        index: u32,
        /// The last block for an answer.
        answer_by: u32,
    },
    /// A batch was shown to be wrong: its vouchers are redeemed one by one.
    BatchVoided {
        /// Its number.
        batch: u32,
        /// Who showed it.
        winner: Account,
        /// What that gained.
        reward: MicroCredits,
    },
    /// A verdict waits: the provider may appeal.
    VerdictSubmitted {
        /// Whom it is about.
        provider: Account,
        /// The job.
        job: [u8; 16],
        /// The last block for an appeal.
        until: u32,
    },
    /// What is approved changed, or an approved policy came into force with this block.
    Policies,
}

/// Names a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Of which pool.
    pub pool: [u8; 32],
    /// Who pays.
    pub payer: Account,
    /// Who is paid.
    pub payee: Account,
    /// Its number.
    pub lane: u32,
}

impl From<&Voucher> for Lane {
    fn from(of: &Voucher) -> Self {
        Self { pool: of.pool, payer: of.payer, payee: of.payee, lane: of.lane }
    }
}

/// What is in force and what is to come, as of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// As of which block.
    pub block: u32,
    /// The policies.
    pub policies: Vec<ApprovedPolicy>,
}

/// Follows one chain for many.
#[derive(Debug)]
pub struct Watcher {
    node: Node,
    heard: Arc<Notify>,
    events: broadcast::Sender<Event>,
    head: watch::Sender<Option<Head>>,
    policies: watch::Sender<PolicySet>,
    trouble: watch::Sender<Option<LinkError>>,
    /// The last block that was read.
    read: Option<Head>,
    /// How often the node was behind that since.
    behind: u32,
}

/// Where to listen to a [`Watcher`].
#[derive(Clone, Debug)]
pub struct Listening {
    events: broadcast::Sender<Event>,
    head: watch::Receiver<Option<Head>>,
    policies: watch::Receiver<PolicySet>,
    trouble: watch::Receiver<Option<LinkError>>,
}

impl PolicySet {
    /// What decides at the block that the set is of.
    pub fn in_force(&self, kind: PolicyKind, class: PoolClass) -> Option<PolicyHash> {
        let of = |policy: &&ApprovedPolicy| {
            policy.kind == kind && policy.class == class && policy.from <= self.block
        };
        self.policies.iter().filter(of).max_by_key(|policy| policy.from).map(|policy| policy.hash)
    }
}

impl Listening {
    /// The events from now on. At most 1,024 wait for a slow listener.
    pub fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        futures::stream::unfold(self.events.subscribe(), async |mut receiver| match receiver.recv().await {
            Ok(event) => Some((event, receiver)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some((Event::Missed, receiver)),
            Err(broadcast::error::RecvError::Closed) => None,
        })
    }

    /// The last final block; `None` before the first one was heard of.
    pub fn head(&self) -> watch::Receiver<Option<Head>> {
        self.head.clone()
    }

    /// The approved policies.
    pub fn policies(&self) -> watch::Receiver<PolicySet> {
        self.policies.clone()
    }

    /// Why the chain cannot be followed now.
    pub fn trouble(&self) -> watch::Receiver<Option<LinkError>> {
        self.trouble.clone()
    }
}

impl Watcher {
    /// A watcher that wakes `heard` at every final block. Nothing happens before [`Watcher::run`].
    pub fn new(node: Node, heard: Arc<Notify>) -> (Self, Listening) {
        let watcher = Self {
            node,
            heard,
            events: broadcast::Sender::new(WAITING),
            head: watch::Sender::new(None),
            policies: watch::Sender::default(),
            trouble: watch::Sender::new(None),
            read: None,
            behind: 0,
        };
        let listening = Listening {
            events: watcher.events.clone(),
            head: watcher.head.subscribe(),
            policies: watcher.policies.subscribe(),
            trouble: watcher.trouble.subscribe(),
        };
        (watcher, listening)
    }

    /// Follows until dropped.
    pub async fn run(mut self) {
        let mut pause = SHORTEST;
        loop {
            let began = tokio::time::Instant::now();
            let Err(error) = self.follow().await;
            tracing::debug!(%error, "the chain cannot be followed");
            self.trouble.send_replace(Some(error));
            if began.elapsed() > PATIENCE {
                pause = SHORTEST;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PATIENCE);
        }
    }

    /// Reads blocks as they become final. The subscription only says when to look: one that is silent, or speaks
    /// too early, changes nothing.
    async fn follow(&mut self) -> Result<std::convert::Infallible, LinkError> {
        let rpc = self.node.rpc().clone();
        let subscribing =
            async { rpc.chain_subscribe_finalized_heads().await.map_err(|error| unclear(&error)) };
        let mut heads = self.node.ask(subscribing).await?;
        loop {
            self.catch_up().await?;
            tokio::select! {
                next = heads.next() => match next {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(unclear(&error)),
                    None => return Err(LinkError::Unreachable("the node ended the subscription".into())),
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Goes on from a block that those before do not lead to, as far as is known; its number.
    fn anew(&mut self, head: Head) -> u32 {
        self.tell(Event::Missed);
        self.read = None;
        head.number
    }

    async fn catch_up(&mut self) -> Result<(), LinkError> {
        let head = self.node.head().await?;
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
        let first = match self.read {
            Some(read) if read == head => return Ok(()),
            Some(read) if head.number < read.number && self.behind < PATIENT_LOOKS => {
                self.behind += 1;
                return Ok(());
            }
            Some(read) if head.number > read.number && head.number - read.number <= CATCH_UP => {
                let same = self.node.hash_of(read.number).await? == Some(read.hash);
                if same { read.number + 1 } else { self.anew(head) }
            }
            Some(_) => self.anew(head),
            None => head.number,
        };
        self.behind = 0;
        for number in first..=head.number {
            let hash =
                if number == head.number { Some(head.hash) } else { self.node.hash_of(number).await? };
            let hash = hash.ok_or_else(|| LinkError::Nonsense(format!("it lacks block {number}")))?;
            let block = Head { number, hash };
            let events = self.read_block(block).await?;
            // What is told is asked for next: the policies are there before.
            if self.read.is_none() || events.contains(&Event::Policies) {
                self.read_policies(block).await?;
            }
            events.into_iter().for_each(|event| self.tell(event));
            self.read = Some(block);
        }
        self.head.send_replace(Some(head));
        self.tell(Event::Final(head));
        self.heard.notify_waiters();
        self.heard.notify_one();
        Ok(())
    }

    /// What a block has for nodes.
    async fn read_block(&self, block: Head) -> Result<Vec<Event>, LinkError> {
        use runtime::{
            credits::events as credits, policies::events as policies, providers::events as providers,
        };
        let at = self.node.at(block).await?;
        let events =
            self.node.ask(async { at.events().fetch().await.map_err(|error| unclear(&error)) }).await?;
        let mut found = Vec::new();
        for event in events.iter() {
            let event = event.map_err(|error| unclear(&error))?;
            let told = if let Some(Ok(it)) = event.decode_fields_as::<credits::Deposited>() {
                Event::Deposited { payer: it.payer.0, escrow: MicroCredits(it.escrow) }
            } else if let Some(Ok(it)) = event.decode_fields_as::<credits::WithdrawStarted>() {
                Event::WithdrawStarted { payer: it.payer.0, amount: MicroCredits(it.amount), at: it.at }
            } else if let Some(Ok(it)) = event.decode_fields_as::<credits::Redeemed>() {
                let key = it.key;
                Event::Redeemed {
                    lane: Lane { pool: key.pool, payer: key.payer, payee: key.payee, lane: key.lane },
                    paid: MicroCredits(it.paid),
                    redeemed: MicroCredits(it.redeemed),
                    owed: MicroCredits(it.owed),
                }
            } else if let Some(Ok(it)) = event.decode_fields_as::<providers::Slashed>() {
                Event::Slashed { provider: it.provider.0, amount: MicroCredits(it.slashed) }
            } else if let Some(Ok(it)) = event.decode_fields_as::<providers::VerdictSubmitted>() {
                Event::VerdictSubmitted { provider: it.provider.0, job: it.job, until: it.until }
            } else if let Some(Ok(it)) = event.decode_fields_as::<credits::BatchSubmitted>() {
                Event::BatchSubmitted {
                    batch: it.batch,
                    settler: it.settler.0,
                    epoch: it.epoch,
                    challenges_until: it.challenges_until,
                }
            } else if let Some(Ok(it)) = event.decode_fields_as::<credits::LeafChallenged>() {
                Event::LeafChallenged { batch: it.batch, index: it.index, answer_by: it.answer_by }
            } else if let Some(Ok(it)) = event.decode_fields_as::<credits::BatchVoided>() {
                let reward = MicroCredits(it.reward);
                Event::BatchVoided { batch: it.batch, winner: it.winner.0, reward }
            } else if event.is::<policies::Approved>()
                || event.is::<policies::Dropped>()
                || event.is::<policies::Revoked>()
            {
                Event::Policies
            } else {
                continue;
            };
            found.push(told);
        }
        // Nothing happens on the chain at the height that a decision named: it is told here.
        if self.comes_into_force(block.number) && !found.contains(&Event::Policies) {
            found.push(Event::Policies);
        }
        Ok(found)
    }

    fn comes_into_force(&self, block: u32) -> bool {
        self.policies.borrow().policies.iter().any(|policy| policy.from == block)
    }

    async fn read_policies(&self, head: Head) -> Result<(), LinkError> {
        let at = self.node.at(head).await?;
        let policies = self.node.policies(&at).await?;
        self.policies.send_replace(PolicySet { block: head.number, policies });
        Ok(())
    }

    fn tell(&self, event: Event) {
        // Nobody listening is no failure.
        let _ = self.events.send(event);
    }
}
