//! The till: turns spend tokens that this machine was given into vouchers of their issuer.
//!
//! Whether a token is money at all is seen without asking anybody; whether it was spent before, only the issuer knows.
//! A claim is written down before it is sent and sent again, the same, until it is answered: the issuer pays it once.
//! Should the file be lost, the issuer's next voucher still counts all that was claimed before.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{Account, Bounded, Hash, MicroCredits, merkle_root};
use tokio::time::Instant;

use super::{
    evidence::Evidence,
    issuer::{
        Clock, DiskError, IssuerLink, LinkError, VoucherError, Vouchers,
        disk::Disk,
        wire::{Answer, Claim, NONCE, Outcome, Proof, Question, Settled, Spend, tokens_digest},
    },
    token::{Catalogue, Flaw, Mint, Said as _, Signed, Token},
};
use crate::identity::Signer;

#[cfg(test)]
mod tests;

/// Most claims that wait for their answer; with more, nothing is taken.
const MAX_PENDING: usize = 256;
/// How far the issuer's clock may be from this machine's, in milliseconds.
const SKEW: u64 = 10 * 60 * 1_000;
/// How often the issuer's keys are asked for at most: a token of an unknown epoch costs whoever sends it nothing.
const ASK_KEYS: Duration = Duration::from_secs(10);

/// What a till is given.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The key of the account that is paid.
    pub signer: Signer,
    /// Its vouchers.
    pub vouchers: Arc<dyn Vouchers>,
    /// The way to the issuer.
    pub link: IssuerLink,
    /// The time.
    pub clock: Clock,
}

/// Why tokens are not money.
#[derive(Debug, thiserror::Error)]
pub enum TillError {
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No tokens, or more than [`BATCH`](super::token::BATCH).
    #[error("{0} tokens at once: one message holds from 1 to {most}", most = super::token::BATCH)]
    Count(usize),
    /// One is no money.
    #[error("token {index} of those given is no money: {flaw}")]
    Flawed {
        /// Which, from 0.
        index: usize,
        /// Why.
        flaw: Flaw,
    },
    /// They were spent before.
    #[error("all {} tokens given were spent before, and the issuer proves it", .0.len())]
    Spent(Vec<Proof>),
    /// The issuer's keys are not known yet.
    #[error("the issuer's keys are not known yet")]
    NoKeys,
    /// The issuer cannot be asked, or refuses. What was claimed stays claimed and is asked for again.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The issuer's voucher is no good. What was claimed stays claimed and is asked for again.
    #[error("the issuer's voucher is no good: {0}")]
    Voucher(#[from] VoucherError),
    /// The issuer pays less than it took.
    #[error("the issuer's voucher is for {found} credits in all, and {owed} are owed: take no tokens of it")]
    Underpaid {
        /// What it is for.
        found: MicroCredits,
        /// What it should be for.
        owed: MicroCredits,
    },
    /// The issuer signed what it may not.
    #[error("the issuer refuses good tokens without a proof; the evidence is kept, take no tokens of it")]
    Cheated(Box<Evidence>),
    /// Too many claims wait.
    #[error("{0} claims wait for the issuer's answer: no more tokens are taken until it answers")]
    Behind(usize),
    /// The system gives no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The node ends.
    #[error("the node is shutting down; what was claimed is asked for again")]
    Closed,
}

/// A line of the file.
#[derive(Debug, Encode, Decode)]
enum Line {
    /// About to be claimed.
    #[codec(index = 0)]
    Claimed(Spend),
    /// Answered, and paid with that much.
    #[codec(index = 1)]
    Done(Hash, MicroCredits),
    /// What all claims that are forgotten were paid with.
    #[codec(index = 2)]
    Paid(MicroCredits),
    /// The issuer's keys.
    #[codec(index = 3)]
    Learned(Signed<Catalogue>),
}

/// What a till remembers.
#[derive(Debug)]
struct Store {
    disk: Disk,
    genesis: potluck_primitives::Genesis,
    pending: VecDeque<Spend>,
    paid: MicroCredits,
    learned: Option<Signed<Catalogue>>,
}

/// Takes tokens of one issuer.
#[derive(Clone, Debug)]
pub struct Till(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    store: Arc<Mutex<Store>>,
    mint: Mutex<Option<Arc<Mint>>>,
    asked_keys: tokio::sync::Mutex<Option<Instant>>,
    /// Claims are answered one after another, so that what all of them come to can be compared.
    turn: tokio::sync::Mutex<()>,
}

impl Till {
    /// Opens the file; nobody is asked for anything yet.
    ///
    /// # Errors
    /// [`TillError::Disk`]
    pub fn open(path: &Path, parts: Parts) -> Result<Self, TillError> {
        let (disk, lines) = Disk::open(path)?;
        let genesis = *parts.link.genesis();
        let mut store =
            Store { disk, genesis, pending: VecDeque::new(), paid: MicroCredits::ZERO, learned: None };
        lines.into_iter().for_each(|line| store.apply(line));
        let mint = store.learned.clone().and_then(|it| Mint::open(it, &genesis).ok()).map(Arc::new);
        Ok(Self(Arc::new(Inner {
            parts,
            store: Arc::new(Mutex::new(store)),
            mint: Mutex::new(mint),
            asked_keys: tokio::sync::Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
        })))
    }

    /// Whose tokens it takes.
    pub fn issuer(&self) -> Account {
        self.0.parts.link.issuer()
    }

    /// What all claims were paid with, in microcredits.
    pub fn paid(&self) -> MicroCredits {
        self.store().paid
    }

    /// What was claimed and is not answered yet, in microcredits.
    pub fn pending(&self) -> MicroCredits {
        MicroCredits(self.store().pending.iter().map(|spend| Token::worth(&spend.tokens).0).sum())
    }

    /// What the tokens are worth if nobody has spent them, in microcredits. Asks nobody.
    ///
    /// # Errors
    /// [`TillError::Count`], [`TillError::Flawed`], and [`TillError::NoKeys`] before the first
    /// [`refresh`](Self::refresh).
    pub fn verify(&self, tokens: &[Token]) -> Result<MicroCredits, TillError> {
        let mint = self.mint().ok_or(TillError::NoKeys)?;
        verify(&mint, tokens, &self.0.parts.clock)
    }

    /// Asks for the issuer's keys where those that are here do not hold that epoch; seldom, however often it is called.
    ///
    /// # Errors
    /// [`TillError::Link`], [`TillError::Cheated`], [`TillError::Disk`]
    pub async fn refresh(&self, epoch: Option<u32>) -> Result<(), TillError> {
        let mut asked = self.0.asked_keys.lock().await;
        let known = self.mint();
        let holds = |mint: &Mint| epoch.is_none_or(|epoch| mint.catalogue.said.epoch(epoch).is_some());
        if known.as_deref().is_some_and(holds) || asked.is_some_and(|at| at.elapsed() < ASK_KEYS) {
            return Ok(());
        }
        *asked = Some(Instant::now());
        let mint = self.0.parts.link.mint().await?;
        let fresh = mint.catalogue.clone();
        if let Some(first) = self.store().learned.clone()
            && first.said.contradicts(&fresh.said)
        {
            return Err(TillError::Cheated(Box::new(Evidence::Keys { first, second: fresh })));
        }
        self.with_store(move |store| store.write(Line::Learned(fresh))).await??;
        *self.0.mint.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(mint));
        Ok(())
    }

    /// Claims tokens of the issuer and takes its voucher; what of them was fresh, in microcredits.
    ///
    /// # Errors
    /// [`TillError`]
    pub async fn deposit(&self, tokens: Vec<Token>) -> Result<MicroCredits, TillError> {
        self.refresh(tokens.iter().map(|token| token.epoch).max()).await?;
        let (mint, clock) = (self.mint().ok_or(TillError::NoKeys)?, self.0.parts.clock.clone());
        let tokens = blocking(move || verify(&mint, &tokens, &clock).map(|_| tokens)).await??;
        let _turn = self.0.turn.lock().await;
        self.settle_all().await?;
        match self.claim(tokens).await? {
            Paid::All(sum) => Ok(sum),
            Paid::None { fresh, spent } if fresh.is_empty() => Err(TillError::Spent(spent)),
            // Nothing was taken: those that are fresh are claimed by themselves. They may meanwhile be spent as well.
            Paid::None { fresh, .. } => match self.claim(fresh).await? {
                Paid::All(sum) => Ok(sum),
                Paid::None { spent, .. } => Err(TillError::Spent(spent)),
            },
        }
    }

    /// Ends what an earlier run, or a broken connection, left open; what it brought, in microcredits.
    ///
    /// # Errors
    /// [`TillError`]
    pub async fn settle(&self) -> Result<MicroCredits, TillError> {
        let _turn = self.0.turn.lock().await;
        self.settle_all().await
    }

    async fn settle_all(&self) -> Result<MicroCredits, TillError> {
        let mut sum = MicroCredits::ZERO;
        loop {
            let Some(spend) = self.store().pending.front().cloned() else { return Ok(sum) };
            let paid = match self.end(spend).await? {
                Paid::All(paid) => paid,
                // Nobody waits for these any more, but money is money.
                Paid::None { fresh, .. } if !fresh.is_empty() => match self.claim(fresh).await? {
                    Paid::All(paid) => paid,
                    Paid::None { .. } => MicroCredits::ZERO,
                },
                Paid::None { .. } => MicroCredits::ZERO,
            };
            sum = sum.checked_add(paid).unwrap_or(sum);
        }
    }

    async fn claim(&self, tokens: Vec<Token>) -> Result<Paid, TillError> {
        let waiting = self.store().pending.len();
        if waiting >= MAX_PENDING {
            return Err(TillError::Behind(waiting));
        }
        let Parts { signer, vouchers, link, .. } = &self.0.parts;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(TillError::Random)?;
        let names: Vec<Hash> = tokens.iter().map(Token::name).collect();
        let length = tokens.len();
        let count = u32::try_from(length).map_err(|_| TillError::Count(length))?;
        let claim = Claim {
            issuer: link.issuer(),
            payee: vouchers.account(),
            nonce,
            count,
            root: merkle_root(&names),
            tokens: tokens_digest(&tokens),
        };
        let tokens = Bounded::new(tokens).map_err(|_| TillError::Count(length))?;
        let spend = Spend { claim: Signed::new(claim, link.genesis(), signer), tokens };
        let written = spend.clone();
        self.with_store(move |store| store.write(Line::Claimed(written))).await??;
        self.end(spend).await
    }

    /// Asks for the answer to a claim that is written down, and takes it in.
    async fn end(&self, spend: Spend) -> Result<Paid, TillError> {
        let digest = spend.claim.digest(self.0.parts.link.genesis());
        let settled = match self.0.parts.link.ask(&Question::Spend(spend.clone())).await? {
            Answer::Settled(settled) => settled,
            Answer::Refused(refusal) => return Err(LinkError::Refused(refusal).into()),
            _ => return Err(LinkError::Nonsense.into()),
        };
        self.check(&settled, &spend, digest)?;
        let worth = Token::worth(&spend.tokens);
        let Some(voucher) = settled.said.voucher.clone() else {
            return self.turned_down(spend, settled, digest).await;
        };
        let owed = self.store().paid.checked_add(worth).ok_or(LinkError::Nonsense)?;
        let found = voucher.voucher.cumulative;
        if voucher.voucher.payer != self.issuer() || found < owed {
            return Err(TillError::Underpaid { found, owed });
        }
        self.0.parts.vouchers.accept(voucher).await?;
        self.with_store(move |store| store.write(Line::Done(digest, worth))).await??;
        Ok(Paid::All(worth))
    }

    fn check(&self, settled: &Signed<Settled>, spend: &Spend, digest: Hash) -> Result<(), TillError> {
        let genesis = self.0.parts.link.genesis();
        let said = &settled.said;
        let fresh = said.outcomes.iter().all(|outcome| *outcome == Outcome::Fresh);
        let answers = said.issuer == self.issuer()
            && said.claim == digest
            && said.outcomes.len() == spend.tokens.len()
            && said.voucher.is_some() == fresh
            // A claim that was answered long ago is answered with its old time: then all of it was taken.
            && (fresh || said.at.0.abs_diff(self.0.parts.clock.now().0) <= SKEW)
            && settled.verify(genesis).is_ok();
        if answers { Ok(()) } else { Err(LinkError::Nonsense.into()) }
    }

    /// Nothing was taken: what is wrong with which token.
    async fn turned_down(
        &self,
        spend: Spend,
        settled: Signed<Settled>,
        digest: Hash,
    ) -> Result<Paid, TillError> {
        if let Some(mint) = self.mint() {
            let catalogue = mint.catalogue.clone();
            let evidence = Evidence::Refused { catalogue, spend: spend.clone(), settled: settled.clone() };
            let facts =
                super::evidence::Facts { genesis: *self.0.parts.link.genesis(), bond: MicroCredits::ZERO };
            let (evidence, guilty) = blocking(move || {
                let guilty = evidence.verify(&facts).is_ok();
                (evidence, guilty)
            })
            .await?;
            if guilty {
                // The claim stays written down: it is what shows it.
                return Err(TillError::Cheated(Box::new(evidence)));
            }
        }
        self.with_store(move |store| store.write(Line::Done(digest, MicroCredits::ZERO))).await??;
        let (mut fresh, mut spent) = (Vec::new(), Vec::new());
        for (token, outcome) in spend.tokens.into_iter().zip(settled.said.outcomes) {
            match outcome {
                Outcome::Fresh => fresh.push(token),
                Outcome::Spent(proof) => spent.push(proof),
                Outcome::Flawed(_) => {}
            }
        }
        Ok(Paid::None { fresh, spent })
    }

    fn mint(&self) -> Option<Arc<Mint>> {
        self.0.mint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, TillError> {
        let store = Arc::clone(&self.0.store);
        blocking(move || act(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// What came of a claim.
#[derive(Debug)]
enum Paid {
    All(MicroCredits),
    None { fresh: Vec<Token>, spent: Vec<Proof> },
}

impl Store {
    fn write(&mut self, line: Line) -> Result<(), TillError> {
        self.disk.append(&line)?;
        self.apply(line);
        if self.disk.is_long() {
            let paid = std::iter::once(Line::Paid(self.paid));
            let learned = self.learned.clone().map(Line::Learned);
            let pending = self.pending.iter().cloned().map(Line::Claimed);
            self.disk.rewrite(paid.chain(learned).chain(pending))?;
        }
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Claimed(spend) => self.pending.push_back(spend),
            Line::Done(claim, paid) => {
                let before = self.pending.len();
                let genesis = self.genesis;
                self.pending.retain(|spend| spend.claim.said.digest(&genesis) != claim);
                if self.pending.len() < before {
                    self.paid = self.paid.checked_add(paid).unwrap_or(self.paid);
                }
            }
            Line::Paid(paid) => self.paid = paid,
            Line::Learned(catalogue) => self.learned = Some(catalogue),
        }
    }
}

fn verify(mint: &Mint, tokens: &[Token], clock: &Clock) -> Result<MicroCredits, TillError> {
    let most = usize::try_from(super::token::BATCH).unwrap_or(usize::MAX);
    if tokens.is_empty() || tokens.len() > most {
        return Err(TillError::Count(tokens.len()));
    }
    let now = clock.now();
    let mut seen = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let flaw = match seen.insert(token.serial) {
            true => mint.judge(token, now).err(),
            false => Some(Flaw::Twice),
        };
        if let Some(flaw) = flaw {
            return Err(TillError::Flawed { index, flaw });
        }
    }
    Ok(Token::worth(tokens))
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, TillError> {
    tokio::task::spawn_blocking(act).await.map_err(|_| TillError::Closed)
}
