//! The purse: spend tokens of this machine, bought before they are needed.
//!
//! It buys when it holds less than a level or little change, within a budget for each epoch: one lot at a time, always
//! of the same coins, and at a random time after it fell below. So what the issuer sees of purchases says little about
//! when anything was asked, and nothing about what it cost. Tokens that are handed
//! out are written off first: after a crash at any point, what is lost is at most what was just handed out. A purchase
//! is written down with its secrets before it is asked for, and asked for again until it is answered.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use potluck_primitives::{Bounded, MicroCredits, UnixMillis};
use tokio::sync::Notify;

use super::{
    evidence::{Evidence, Facts},
    issuer::{
        Clock, IssuerLink, LinkError, Refusal, VoucherError, Vouchers,
        disk::DiskError,
        wire::{Answer, Blinded, Issued, NONCE, Purchase, Question, Sold, signatures_digest},
    },
    token::{Blinding, Denomination, Mint, Residue, Signed, Token, TokenError},
};
use crate::identity::Signer;

mod coins;
mod store;
#[cfg(test)]
mod tests;

use store::{Pending, Store};

/// How long a purchase may wait after tokens ran low, unless a purse is told otherwise: longer than it takes others to ask
/// as well, and no longer than the change that is kept lasts.
pub const DELAY: Duration = Duration::from_secs(300);

/// How a purse is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its file.
    pub path: PathBuf,
    /// It buys when it holds less, in microcredits: a quarter of that at a time.
    pub level: MicroCredits,
    /// Most that it buys in one epoch of the issuer, in microcredits.
    pub budget: MicroCredits,
    /// It buys at a random time within so long after it fell below its level.
    pub delay: Duration,
}

/// What a purse is given.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The key of the account that pays.
    pub signer: Signer,
    /// Its vouchers.
    pub vouchers: Arc<dyn Vouchers>,
    /// The way to the issuer.
    pub link: IssuerLink,
    /// The time.
    pub clock: Clock,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum PurseError {
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The issuer cannot be asked, or refuses.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It cannot be paid.
    #[error("tokens cannot be paid for: {0}")]
    Voucher(#[from] VoucherError),
    /// Not enough, and no more may be bought.
    #[error(
        "{wanted} credits are wanted, the purse holds {held}, and {left} more may be bought in this epoch: raise the budget of the public pool"
    )]
    Budget {
        /// What was asked for.
        wanted: MicroCredits,
        /// What is there.
        held: MicroCredits,
        /// What may still be bought.
        left: MicroCredits,
    },
    /// More than tokens of one message are worth.
    #[error("{0} credits are more than {max} tokens can pay at once", max = super::token::BATCH)]
    TooMuch(MicroCredits),
    /// The issuer signed what it may not.
    #[error("the issuer contradicts itself; the evidence is kept, and it is not bought from")]
    Cheated(Box<Evidence>),
    /// Its keys.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It sells nothing now.
    #[error("the issuer sells no tokens now: its epochs do not cover the time of this machine's clock")]
    NotOnSale,
    /// The system gives no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The node ends.
    #[error("the node is shutting down")]
    Closed,
}

/// Spend tokens of one issuer.
#[derive(Clone, Debug)]
pub struct Purse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    parts: Parts,
    store: Arc<Mutex<Store>>,
    mint: Mutex<Option<Arc<Mint>>>,
    /// One purchase at a time: the voucher of the next is worth what all before came to.
    buying: tokio::sync::Mutex<()>,
    low: Notify,
}

impl Purse {
    /// Opens the file; nobody is asked for anything yet.
    ///
    /// # Errors
    /// [`PurseError::Disk`]
    pub fn open(settings: Settings, parts: Parts) -> Result<Self, PurseError> {
        let store = Store::open(&settings.path, parts.link.genesis())?;
        Ok(Self(Arc::new(Inner {
            settings,
            parts,
            store: Arc::new(Mutex::new(store)),
            mint: Mutex::new(None),
            buying: tokio::sync::Mutex::new(()),
            low: Notify::new(),
        })))
    }

    /// What can be spent, in microcredits.
    pub fn balance(&self) -> MicroCredits {
        self.store().balance(self.0.parts.clock.now())
    }

    /// What was paid for and not answered yet, in microcredits.
    pub fn pending(&self) -> MicroCredits {
        self.store().pending().map(|it| it.purchase.said.price()).unwrap_or_default()
    }

    /// The issuer's last statement of each recent epoch: shown to other buyers, they make it hard to keep two books.
    pub fn statements(&self) -> Vec<Signed<Issued>> {
        self.store().statements()
    }

    /// Buys whenever it is needed, until it is dropped.
    pub async fn keep_filled(&self) {
        loop {
            self.0.low.notified().await;
            tokio::time::sleep(self.delay()).await;
            match self.refill().await {
                Ok(bought) if bought > MicroCredits::ZERO && self.is_low() => self.0.low.notify_one(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the purse could not be filled"),
            }
        }
    }

    /// Ends what is under way and buys one lot, if one is wanted; what was bought, in microcredits.
    async fn refill(&self) -> Result<MicroCredits, PurseError> {
        let _turn = self.0.buying.lock().await;
        let mut bought = self.end_pending().await?;
        let (mint, now) = (self.mint().await?, self.0.parts.clock.now());
        let lot = coins::lot(&self.store().counts(now), self.0.settings.level);
        if let Some(lot) = lot {
            let left = self.left(&mint, now)?;
            let values = if coins::worth(&lot) <= left { lot } else { coins::exactly(left) };
            bought = bought.checked_add(self.buy(&mint, now, &values).await?).unwrap_or(bought);
        }
        Ok(bought)
    }

    fn is_low(&self) -> bool {
        coins::lot(&self.store().counts(self.0.parts.clock.now()), self.0.settings.level).is_some()
    }

    /// Tokens that are worth `amount`, rounded up to a multiple of 100 µcr; buys if it must. They are written off: the
    /// caller gives them away or [puts them back](Self::put_back).
    ///
    /// # Errors
    /// [`PurseError`]
    pub async fn take(&self, amount: MicroCredits) -> Result<Vec<Token>, PurseError> {
        let wanted = coins::round_up(amount).ok_or(PurseError::TooMuch(amount))?;
        // Bought coins may be too large for a small sum left over: the second purchase brings small ones.
        for _ in 0..3 {
            if let Some(tokens) = self.try_take(wanted).await? {
                if self.is_low() {
                    self.0.low.notify_one();
                }
                return Ok(tokens);
            }
            self.buy_for(wanted).await?;
        }
        self.try_take(wanted).await?.ok_or(PurseError::TooMuch(amount))
    }

    /// Takes tokens back that were never shown to anybody. Others are refused silently: those that the issuer did not
    /// sign, and those that are here.
    ///
    /// # Errors
    /// [`PurseError::Disk`]
    pub async fn put_back(&self, tokens: Vec<Token>) -> Result<(), PurseError> {
        self.with_store(move |store| store.put_back(tokens)).await?
    }

    /// Takes all tokens that are no longer sold, to be turned in at the machine's own [till](super::till::Till)
    /// before they expire: at most [`BATCH`](super::token::BATCH) of them.
    ///
    /// # Errors
    /// [`PurseError::Disk`]
    pub async fn take_old(&self) -> Result<Vec<Token>, PurseError> {
        let now = self.0.parts.clock.now();
        self.with_store(move |store| store.take_old(now)).await?
    }

    /// Ends what is under way and buys up to the level at once, as far as the budget goes; what was bought, in microcredits.
    ///
    /// # Errors
    /// [`PurseError`]
    pub async fn fill(&self) -> Result<MicroCredits, PurseError> {
        let _turn = self.0.buying.lock().await;
        let mut bought = self.end_pending().await?;
        let (mint, now) = (self.mint().await?, self.0.parts.clock.now());
        let held = self.balance();
        if held < self.0.settings.level {
            let missing = self.0.settings.level.checked_sub(held).unwrap_or_default();
            let left = self.left(&mint, now)?;
            let values = coins::to_buy(&self.store().counts(now), missing.min(left));
            bought = bought.checked_add(self.buy(&mint, now, &values).await?).unwrap_or(bought);
        }
        Ok(bought)
    }

    async fn buy_for(&self, wanted: MicroCredits) -> Result<(), PurseError> {
        let _turn = self.0.buying.lock().await;
        let ended = self.end_pending().await?;
        let now = self.0.parts.clock.now();
        let counts = self.store().counts(now);
        if ended > MicroCredits::ZERO && coins::pay(&counts, wanted).is_some() {
            return Ok(());
        }
        let mint = self.mint().await?;
        let (held, left) = (self.balance(), self.left(&mint, now)?);
        // A lot shows the issuer when it was missing, but not what for.
        let lot = coins::change(self.0.settings.level);
        if coins::worth(&lot) <= left && coins::pay(&coins::with(&counts, &lot), wanted).is_some() {
            self.buy(&mint, now, &lot).await?;
            return Ok(());
        }
        // What is missing, or coins for all of it where those that are here do not fit.
        let missing = wanted.checked_sub(held).filter(|it| *it > MicroCredits::ZERO).unwrap_or(wanted);
        if missing > left {
            return Err(PurseError::Budget { wanted, held, left });
        }
        let level = self.0.settings.level.checked_sub(held).unwrap_or_default();
        let mut values = coins::exactly(missing);
        let rest = level.min(left).checked_sub(missing).unwrap_or_default();
        values.extend(coins::to_buy(&counts, rest));
        self.buy(&mint, now, &values).await?;
        Ok(())
    }

    fn left(&self, mint: &Mint, now: UnixMillis) -> Result<MicroCredits, PurseError> {
        let epoch = mint.on_sale(now).ok_or(PurseError::NotOnSale)?.number;
        let bought = self.store().bought_in(epoch);
        Ok(self.0.settings.budget.checked_sub(bought).unwrap_or_default())
    }

    /// Buys tokens of these denominations, as many as one purchase holds; what they are worth.
    async fn buy(
        &self,
        mint: &Arc<Mint>,
        now: UnixMillis,
        values: &[Denomination],
    ) -> Result<MicroCredits, PurseError> {
        let values: Vec<Denomination> = values.iter().copied().take(store::PURCHASE).collect();
        if values.is_empty() {
            return Ok(MicroCredits::ZERO);
        }
        let epoch = mint.on_sale(now).ok_or(PurseError::NotOnSale)?.number;
        let keys = Arc::clone(mint);
        let blindings = blocking(move || {
            let blind = |value| keys.key(epoch, value).ok_or(TokenError::Key)?.blind();
            values.into_iter().map(blind).collect::<Result<Vec<(Residue, Blinding)>, _>>()
        });
        let blindings = blindings.await??;
        let Parts { signer, vouchers, link, .. } = &self.0.parts;
        let message = |it: &(Residue, Blinding)| Blinded { value: it.1.value, message: it.0 };
        let blinded = blindings.iter().map(message).collect();
        let blindings: Vec<Blinding> = blindings.into_iter().map(|it| it.1).collect();
        let blinded = Bounded::new(blinded).map_err(|_| PurseError::TooMuch(MicroCredits::ZERO))?;
        let price = MicroCredits(blindings.iter().map(|it| it.value.worth().0).sum());
        // What was promised before and came to nothing is used up now.
        let total = self.store().used().checked_add(price).ok_or(PurseError::TooMuch(price))?;
        let voucher = vouchers.raise(link.issuer(), total).await?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(PurseError::Random)?;
        let purchase =
            Purchase { issuer: link.issuer(), account: vouchers.account(), nonce, epoch, voucher, blinded };
        let purchase = Signed::new(purchase, link.genesis(), signer);
        let pending = Pending { purchase, blindings };
        self.with_store(move |store| store.ask(pending)).await??;
        self.end_pending().await
    }

    /// Asks again for what is not answered; what came of it.
    async fn end_pending(&self) -> Result<MicroCredits, PurseError> {
        let Some(pending) = self.store().pending() else { return Ok(MicroCredits::ZERO) };
        let answer = self.0.parts.link.ask(&Question::Buy(pending.purchase.clone())).await?;
        match answer {
            Answer::Sold(sold) => self.receive(&pending, sold).await,
            Answer::Refused(Refusal::Later) => Err(LinkError::Refused(Refusal::Later).into()),
            Answer::Refused(refusal) => {
                // It will never be sold, and the voucher's worth is still there for another purchase.
                let digest = pending.purchase.digest(self.0.parts.link.genesis());
                let used = match &refusal {
                    Refusal::Unpaid(used) => Some(*used),
                    _ => None,
                };
                self.with_store(move |store| store.give_up(digest, used)).await??;
                Err(LinkError::Refused(refusal).into())
            }
            _ => Err(LinkError::Nonsense.into()),
        }
    }

    async fn receive(&self, pending: &Arc<Pending>, sold: Sold) -> Result<MicroCredits, PurseError> {
        let (genesis, issuer) = (*self.0.parts.link.genesis(), self.0.parts.link.issuer());
        let (purchase, said) = (&pending.purchase, &sold.issued.said);
        let digest = purchase.digest(&genesis);
        let ours = said.issuer == issuer
            && said.purchase == digest
            && said.epoch == purchase.said.epoch
            && said.signatures == signatures_digest(&sold.signatures)
            && sold.issued.verify(&genesis).is_ok();
        if !ours || sold.signatures.len() != pending.blindings.len() {
            return Err(LinkError::Nonsense.into());
        }
        let mint = self.mint_of(said.epoch).await?;
        let (keys, held, signed) = (Arc::clone(&mint), Arc::clone(pending), sold.signatures.clone());
        let epoch = said.epoch;
        let tokens = blocking(move || {
            let finish = |(blinding, signed)| {
                let blinding: &Blinding = blinding;
                keys.key(epoch, blinding.value).ok_or(TokenError::Key)?.finish(blinding, signed)
            };
            held.blindings.iter().zip(signed.iter()).map(finish).collect::<Result<Vec<Token>, _>>()
        });
        let Ok(tokens) = tokens.await? else {
            let (catalogue, purchase) = (mint.catalogue.clone(), pending.purchase.clone());
            let evidence = Evidence::Garbage { catalogue, purchase, sold };
            return Err(if evidence.verify(&Facts { genesis, bond: MicroCredits::ZERO }).is_ok() {
                PurseError::Cheated(Box::new(evidence))
            } else {
                LinkError::Nonsense.into()
            });
        };
        let worth = Token::worth(&tokens);
        let ends = mint.catalogue.said.epoch(epoch).map(|it| (it.closes, it.ends)).ok_or(TokenError::Key)?;
        let issued = sold.issued;
        let earlier = self.with_store(move |store| store.receive(digest, issued, tokens, ends)).await??;
        // The last two statements of an epoch must fit each other.
        match earlier {
            Some(evidence) => Err(PurseError::Cheated(Box::new(evidence))),
            None => Ok(worth),
        }
    }

    /// The issuer's keys, asked for anew where they do not cover the present.
    async fn mint(&self) -> Result<Arc<Mint>, PurseError> {
        let now = self.0.parts.clock.now();
        let known = self.known_mint();
        match known {
            Some(mint) if mint.on_sale(now).is_some() => Ok(mint),
            _ => self.fetch().await,
        }
    }

    async fn mint_of(&self, epoch: u32) -> Result<Arc<Mint>, PurseError> {
        match self.known_mint() {
            Some(mint) if mint.catalogue.said.epoch(epoch).is_some() => Ok(mint),
            _ => self.fetch().await,
        }
    }

    async fn fetch(&self) -> Result<Arc<Mint>, PurseError> {
        let mint = Arc::new(self.0.parts.link.mint().await?);
        let fresh = mint.catalogue.clone();
        let earlier = self.with_store(move |store| store.learn(fresh)).await??;
        if let Some(evidence) = earlier {
            return Err(PurseError::Cheated(Box::new(evidence)));
        }
        *self.0.mint.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&mint));
        Ok(mint)
    }

    fn known_mint(&self) -> Option<Arc<Mint>> {
        self.0.mint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn try_take(&self, wanted: MicroCredits) -> Result<Option<Vec<Token>>, PurseError> {
        let now = self.0.parts.clock.now();
        self.with_store(move |store| store.take(wanted, now)).await?
    }

    fn delay(&self) -> Duration {
        let mut bytes = [0; 8];
        let _ = getrandom::fill(&mut bytes);
        let most = u64::try_from(self.0.settings.delay.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(u64::from_le_bytes(bytes).checked_rem(most).unwrap_or_default())
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, PurseError> {
        let store = Arc::clone(&self.0.store);
        blocking(move || act(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, PurseError> {
    tokio::task::spawn_blocking(act).await.map_err(|_| PurseError::Closed)
}
