//! The issuer: sells spend tokens against vouchers, and gives vouchers for spend tokens.
//!
//! It sees which account buys and which account is paid, and cannot tell which token of the one came to the other. It
//! is trusted with money for as long as a token is out, and answers for that with its bond: it never issues more, its
//! statements about what it issued are public, and what it signs against its own word is [evidence](super::evidence).
//!
//! Everything it answers is on disk before it leaves, so that after a crash the same question gets the same answer:
//! a purchase is sold once, a claim is paid once. What is owed to a payee is a sum that only rises, and the voucher is
//! raised to that sum, so that it does not matter where between the two a crash came.
//!
//! The account of an issuer pays its payees for tokens and for nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use potluck_primitives::{Account, Bounded, Genesis, Hash, MicroCredits};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::token::{Flaw, Mint, Residue, Said as _, Schedule, Signed, Token};
use crate::{
    identity::{NodeId, Signer},
    mesh::streams::{Inbound, Incoming},
};

pub mod chain;
pub(crate) mod desk;
pub(crate) mod disk;
pub mod keys;
pub mod link;
#[cfg(test)]
pub(crate) mod tests;
pub mod vouchers;
pub mod wire;

pub use disk::DiskError;
pub use keys::KeyError;
pub use link::{IssuerLink, LinkError};
pub use vouchers::{Bond, BookVouchers, ChainError, Clock, Escrows, VoucherError, Vouchers};
pub use wire::{ISSUER, Refusal};

use desk::{Desk, DeskError, Standing};
use keys::{EpochKeys, KeyRing};
use wire::{Answer, Outcome, Purchase, Question, Settled, Sold, Spend};

/// Questions that are answered at once; further ones are turned away.
const STREAMS: usize = 64;
/// Of these, from one peer.
const STREAMS_PER_PEER: usize = 4;
/// How long a peer may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often keys and books are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// How an issuer works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of its books and keys.
    pub folder: PathBuf,
    /// How long its epochs are.
    pub schedule: Schedule,
}

/// What an issuer is given.
#[derive(Debug)]
pub struct Parts {
    /// The key of its account.
    pub signer: Signer,
    /// Its vouchers, both ways.
    pub vouchers: Arc<dyn Vouchers>,
    /// What it answers with.
    pub bond: Arc<dyn Bond>,
    /// Streams of [`ISSUER`] that others opened.
    pub incoming: Incoming,
    /// The time.
    pub clock: Clock,
}

/// Why there is no issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its books.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A sum in its books.
    #[error("the books of the issuer hold a sum that cannot be counted")]
    Overflow,
    /// The key is not that of the vouchers.
    #[error("the issuer's key is not that of the account of its vouchers")]
    Account,
    /// The node ends.
    #[error("the node is shutting down")]
    Closed,
}

impl From<DeskError> for IssuerError {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Disk(error) => Self::Disk(error),
            DeskError::Overflow => Self::Overflow,
        }
    }
}

/// An issuer at work.
#[derive(Debug)]
pub struct Issuer {
    task: JoinHandle<()>,
    /// Dropping it ends the task.
    stop: DropGuard,
    counter: Arc<Counter>,
}

impl Issuer {
    /// Opens the books, makes the keys that are missing (seconds, the first time), and begins to answer.
    ///
    /// # Errors
    /// [`IssuerError`]
    pub async fn bind(settings: Settings, parts: Parts) -> Result<Self, IssuerError> {
        let Parts { signer, vouchers, bond, incoming, clock } = parts;
        let account = vouchers.account();
        if signer.node().0 != account {
            return Err(IssuerError::Account);
        }
        let genesis = vouchers.genesis();
        let (now, at) = (clock.now(), signer.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let mut desk = Desk::open(&settings.folder.join("issuer.journal"), genesis, settings.schedule)?;
            let mut ring = KeyRing::new(settings.folder, settings.schedule);
            ring.turn(now, &desk.epochs())?;
            desk.expire(now)?;
            let published = Published::new(&ring, &at, &genesis)?;
            Ok::<_, IssuerError>((desk, ring, published))
        });
        let (desk, ring, published) = opened.await.map_err(|_| IssuerError::Closed)??;
        let counter = Arc::new(Counter {
            signer,
            vouchers,
            bond,
            clock,
            genesis,
            account,
            desk: Arc::new(Mutex::new(desk)),
            ring: Arc::new(Mutex::new(ring)),
            published: ArcSwap::from_pointee(published),
            processors: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(Arc::clone(&counter), incoming, stop.clone()));
        Ok(Self { task, stop: stop.drop_guard(), counter })
    }

    /// The keys that it signs with now.
    pub fn catalogue(&self) -> Signed<super::token::Catalogue> {
        self.counter.published.load().mint.catalogue.clone()
    }

    /// Waits until it has ended.
    pub async fn join(self) {
        let Self { task, stop: _stop, counter: _ } = self;
        let _ = task.await;
    }

    /// Ends; what is under way is not answered, and will be when it is asked again.
    pub async fn shutdown(self) {
        let Self { task, stop, counter: _ } = self;
        stop.disarm().cancel();
        let _ = task.await;
    }
}

/// The keys of now.
#[derive(Debug)]
struct Published {
    mint: Mint,
    epochs: HashMap<u32, Arc<EpochKeys>>,
}

impl Published {
    fn new(ring: &KeyRing, signer: &Signer, genesis: &Genesis) -> Result<Self, KeyError> {
        let catalogue = ring.catalogue(signer.node().0)?;
        let numbers: Vec<u32> = catalogue.epochs.iter().map(|epoch| epoch.number).collect();
        let epochs = numbers.into_iter().filter_map(|number| Some((number, ring.epoch(number)?))).collect();
        Ok(Self { mint: Mint::open(Signed::new(catalogue, genesis, signer), genesis)?, epochs })
    }
}

/// Answers questions.
#[derive(Debug)]
struct Counter {
    signer: Signer,
    vouchers: Arc<dyn Vouchers>,
    bond: Arc<dyn Bond>,
    clock: Clock,
    genesis: Genesis,
    account: Account,
    desk: Arc<Mutex<Desk>>,
    ring: Arc<Mutex<KeyRing>>,
    published: ArcSwap<Published>,
    /// RSA takes a processor; no more are taken than there are.
    processors: Semaphore,
}

impl Counter {
    async fn answer(&self, question: Question) -> Answer {
        let answer = match question {
            Question::Catalogue => Ok(Answer::Catalogue(self.published.load().mint.catalogue.clone())),
            Question::Buy(purchase) => self.buy(purchase).await.map(Answer::Sold),
            Question::Spend(spend) => self.spend(spend).await.map(Answer::Settled),
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    async fn buy(&self, purchase: Signed<Purchase>) -> Result<Sold, Refusal> {
        let said = &purchase.said;
        if said.issuer != self.account {
            return Err(Refusal::NotMine);
        }
        let voucher = &said.voucher.voucher;
        if said.blinded.is_empty() || voucher.payer != said.account || voucher.payee != self.account {
            return Err(Refusal::Malformed);
        }
        purchase.verify(&self.genesis).map_err(|_| Refusal::Unsigned)?;
        let digest = purchase.digest(&self.genesis);
        let published = self.published.load_full();
        let keys = published.epochs.get(&said.epoch).cloned();
        let keys = keys.ok_or(Refusal::Closed(said.epoch))?;
        let purchase = Arc::new(purchase.said);
        let known = self.with_desk(move |desk| desk.sale(&digest).cloned()).await?;
        if let Some(issued) = known {
            // Blind signatures come out the same every time: they need not be kept.
            return Ok(Sold { issued, signatures: self.sign(&purchase, keys).await? });
        }
        if published.mint.on_sale(self.clock.now()).map(|epoch| epoch.number) != Some(purchase.epoch) {
            return Err(Refusal::Closed(purchase.epoch));
        }
        let bond = self.bond.bond(self.account).await.map_err(|_| Refusal::Later)?;
        let now = self.clock.now();
        let checked = Arc::clone(&purchase);
        self.with_desk(move |desk| desk.check(&checked, bond, now)).await??;
        self.vouchers.accept(purchase.voucher.clone()).await.map_err(|error| {
            tracing::debug!(%error, "a voucher was not taken");
            if error.may_pass() { Refusal::Later } else { Refusal::Voucher }
        })?;
        let signatures = self.sign(&purchase, keys).await?;
        let (signer, signed) = (self.signer.clone(), signatures.clone());
        let issued = self.with_desk(move |desk| {
            // Meanwhile the same purchase, or another one from the same voucher, may have been sold.
            if let Some(issued) = desk.sale(&digest) {
                return Ok(issued.clone());
            }
            desk.check(&purchase, bond, now)?;
            desk.sell(&purchase, &signed, now, &signer).map_err(|error| failed(&error))
        });
        Ok(Sold { issued: issued.await??, signatures })
    }

    async fn spend(&self, spend: Spend) -> Result<Signed<Settled>, Refusal> {
        let claim = &spend.claim.said;
        if claim.issuer != self.account {
            return Err(Refusal::NotMine);
        }
        if claim.payee == self.account {
            return Err(Refusal::Malformed);
        }
        if !spend.is_sound(&self.genesis) {
            return Err(Refusal::Unsigned);
        }
        let (digest, payee) = (claim.digest(&self.genesis), claim.payee);
        match self.with_desk(move |desk| desk.standing_of(&digest)).await? {
            Standing::Answered(settled) => return Ok(settled),
            Standing::Taken(owed) => return self.pay(digest, payee, owed).await,
            Standing::Unknown => {}
        }
        let now = self.clock.now();
        let (spend, flaws) = self.judge(spend, now).await?;
        let vouchers = Arc::clone(&self.vouchers);
        let looked = self.with_desk(move |desk| {
            let names = spend.names();
            let look = |(name, flaw): (&Hash, Option<Flaw>)| match (flaw, desk.proof(name)) {
                (Some(flaw), _) => Outcome::Flawed(flaw),
                (None, Some(proof)) => Outcome::Spent(proof),
                (None, None) => Outcome::Fresh,
            };
            // The same claim may have come twice at once.
            if let Standing::Unknown = desk.standing_of(&digest) {
                let outcomes: Vec<Outcome> = names.iter().zip(flaws).map(look).collect();
                if outcomes.iter().any(|outcome| *outcome != Outcome::Fresh) {
                    return Ok(Err(outcomes));
                }
                if !desk.knows_or_has_room_for(&payee) {
                    return Err(Refusal::Later);
                }
                desk.take(&spend, vouchers.promised(payee)).map_err(|error| failed(&error))?;
            }
            Ok(Ok(match desk.standing_of(&digest) {
                Standing::Taken(owed) => owed,
                _ => MicroCredits::ZERO,
            }))
        });
        match looked.await?? {
            Ok(owed) => self.pay(digest, payee, owed).await,
            Err(outcomes) => {
                let outcomes = Bounded::new(outcomes).map_err(|_| Refusal::Malformed)?;
                let settled =
                    Settled { issuer: self.account, claim: digest, at: now, outcomes, voucher: None };
                Ok(Signed::new(settled, &self.genesis, &self.signer))
            }
        }
    }

    /// Raises the voucher to what the payee is owed, and answers the claim.
    async fn pay(&self, claim: Hash, payee: Account, owed: MicroCredits) -> Result<Signed<Settled>, Refusal> {
        let voucher = self.vouchers.raise(payee, owed).await.map_err(|error| {
            tracing::warn!(%error, "tokens were taken that cannot be paid yet");
            Refusal::Later
        })?;
        let (now, account, signer) = (self.clock.now(), self.account, self.signer.clone());
        let settled = self.with_desk(move |desk| desk.settle(claim, voucher, now, account, &signer)).await?;
        settled.map_err(|error| failed(&error))?.ok_or(Refusal::Later)
    }

    /// The flaws of tokens that can be seen without the books.
    async fn judge(
        &self,
        spend: Spend,
        now: potluck_primitives::UnixMillis,
    ) -> Result<(Spend, Vec<Option<Flaw>>), Refusal> {
        let published = self.published.load_full();
        self.compute(move || {
            let mut seen = BTreeSet::new();
            let flaw = |token: &Token| match seen.insert(token.name()) {
                true => published.mint.judge(token, now).err(),
                false => Some(Flaw::Twice),
            };
            let flaws = spend.tokens.iter().map(flaw).collect();
            (spend, flaws)
        })
        .await
    }

    async fn sign(
        &self,
        purchase: &Arc<Purchase>,
        keys: Arc<EpochKeys>,
    ) -> Result<Bounded<Residue, { super::token::BATCH }>, Refusal> {
        let purchase = Arc::clone(purchase);
        let sign = move || {
            let signed = purchase.blinded.iter().map(|it| keys.sign(it.value, &it.message));
            signed.collect::<Result<Vec<_>, _>>()
        };
        let signatures = self.compute(sign).await?.map_err(|_| Refusal::Malformed)?;
        Bounded::new(signatures).map_err(|_| Refusal::Malformed)
    }

    async fn compute<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.processors.acquire().await.map_err(|_| Refusal::Later)?;
        tokio::task::spawn_blocking(act).await.map_err(|_| Refusal::Later)
    }

    /// Does something with the books beside the threads that serve.
    async fn with_desk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let desk = Arc::clone(&self.desk);
        let done = tokio::task::spawn_blocking(move || {
            act(&mut desk.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(|_| Refusal::Later)
    }

    /// Makes the keys of the next epoch and forgets what is over.
    async fn look(&self) {
        let now = self.clock.now();
        let (desk, ring, signer, genesis) =
            (Arc::clone(&self.desk), Arc::clone(&self.ring), self.signer.clone(), self.genesis);
        let looked = tokio::task::spawn_blocking(move || {
            let sold = desk.lock().unwrap_or_else(PoisonError::into_inner).epochs();
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            let published = match ring.turn(now, &sold)? {
                true => Some(Published::new(&ring, &signer, &genesis)?),
                false => None,
            };
            desk.lock().unwrap_or_else(PoisonError::into_inner).expire(now)?;
            Ok::<_, IssuerError>(published)
        });
        match looked.await {
            Ok(Ok(Some(published))) => self.published.store(Arc::new(published)),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the issuer could not bring its keys and books up to date")
            }
            Err(_) => {}
        }
    }
}

fn failed(error: &DeskError) -> Refusal {
    tracing::error!(%error, "the issuer could not write to its books");
    Refusal::Later
}

async fn serve(counter: Arc<Counter>, mut incoming: Incoming, stop: CancellationToken) {
    let mut open: JoinSet<Option<NodeId>> = JoinSet::new();
    let mut of_peer: HashMap<NodeId, usize> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    look.tick().await;
    let looking = Arc::new(Semaphore::new(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            inbound = incoming.recv() => {
                let Some(inbound) = inbound else { return };
                let mine = of_peer.get(&inbound.peer).copied().unwrap_or_default();
                // Dropping a stream resets it.
                if open.len() < STREAMS && mine < STREAMS_PER_PEER {
                    of_peer.insert(inbound.peer, mine.saturating_add(1));
                    open.spawn(converse(Arc::clone(&counter), inbound));
                }
            }
            Some(ended) = open.join_next() => {
                if let Ok(Some(peer)) = ended && let Some(count) = of_peer.get_mut(&peer) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        of_peer.remove(&peer);
                    }
                }
            }
            _ = look.tick() => {
                if let Ok(turn) = Arc::clone(&looking).try_acquire_owned() {
                    let counter = Arc::clone(&counter);
                    open.spawn(async move {
                        counter.look().await;
                        drop(turn);
                        None
                    });
                }
            }
        }
    }
}

/// One question, one answer.
async fn converse(counter: Arc<Counter>, inbound: Inbound) -> Option<NodeId> {
    let Inbound { peer, mut stream } = inbound;
    let asked = tokio::time::timeout(PATIENCE, wire::read(&mut stream, wire::MAX_QUESTION)).await;
    let answer = match asked {
        Ok(Ok(question)) => counter.answer(question).await,
        Ok(Err(crate::mesh::frame::FrameError::Malformed(_))) => Answer::Refused(Refusal::Malformed),
        _ => return Some(peer),
    };
    let told = async {
        wire::write(&mut stream, &answer, wire::MAX_ANSWER).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
        Ok::<_, crate::mesh::frame::FrameError>(())
    };
    let _ = tokio::time::timeout(PATIENCE, told).await;
    Some(peer)
}
