//! Where an issuer, a purse and a till keep their vouchers, and what the chain says about who pays them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use potluck_primitives::{Account, Block, Genesis, MicroCredits, SignedVoucher, UnixMillis, Voucher};

use crate::{
    mesh::streams::BoxFuture,
    settlement::book::{Book, BookError},
};

/// Blocks that a voucher lasts from when it is signed: a week of blocks of six seconds.
pub const LIFE: u32 = 100_800;
/// Blocks that one must still last to be taken: a day of them.
pub const LEAST: u32 = 14_400;

/// Why a voucher was neither signed nor taken.
#[derive(Debug, thiserror::Error)]
pub enum VoucherError {
    /// The book refuses.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The chain cannot be asked.
    #[error("the chain cannot be asked: {0}")]
    Chain(#[from] ChainError),
    /// The payer could not pay it.
    #[error("the payer's escrow holds {escrow} credits, and the voucher asks for {open}")]
    Uncovered {
        /// What it holds.
        escrow: MicroCredits,
        /// What is not redeemed of the voucher.
        open: MicroCredits,
    },
    /// The node ends.
    #[error("the node is shutting down")]
    Closed,
}

impl VoucherError {
    /// Whether trying again later may help: what is wrong is not the voucher.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Chain(_) | Self::Closed => true,
            Self::Book(error) => {
                matches!(error, BookError::Journal(_) | BookError::Escrow { .. } | BookError::Lanes(_))
            }
            Self::Uncovered { .. } => false,
        }
    }
}

/// The chain does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChainError(pub String);

/// What an issuer answers for its tokens with.
pub trait Bond: Send + Sync + fmt::Debug {
    /// What of an account's stake can be slashed, in microcredits.
    ///
    /// # Errors
    /// [`ChainError`]
    fn bond(&self, issuer: Account) -> BoxFuture<'_, Result<MicroCredits, ChainError>>;
}

/// What stands behind vouchers.
pub trait Escrows: Send + Sync + fmt::Debug {
    /// The last final block.
    ///
    /// # Errors
    /// [`ChainError`]
    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>>;

    /// What an account's escrow holds, less what was asked back, in microcredits.
    ///
    /// # Errors
    /// [`ChainError`]
    fn escrow(&self, account: Account) -> BoxFuture<'_, Result<MicroCredits, ChainError>>;

    /// What was paid of a voucher's lane, in microcredits.
    ///
    /// # Errors
    /// [`ChainError`]
    fn redeemed<'a>(&'a self, voucher: &'a Voucher) -> BoxFuture<'a, Result<MicroCredits, ChainError>>;
}

/// The vouchers of one account. What is signed or taken is on disk when it returns.
pub trait Vouchers: Send + Sync + fmt::Debug {
    /// The account.
    fn account(&self) -> Account;

    /// The chain they are for.
    fn genesis(&self) -> Genesis;

    /// Takes a voucher. One that is here, or older than one that is, changes nothing.
    ///
    /// # Errors
    /// [`VoucherError`]; it then counts for nothing.
    fn accept(&self, voucher: SignedVoucher) -> BoxFuture<'_, Result<(), VoucherError>>;

    /// What the last voucher to a payee is worth, in microcredits.
    fn promised(&self, payee: Account) -> MicroCredits;

    /// Signs a voucher that makes the lane to a payee worth `total` microcredits; where it is worth that already, the
    /// last one. Doing it twice promises nothing twice.
    ///
    /// # Errors
    /// [`VoucherError`]; nothing was signed then that could leave.
    fn raise(
        &self,
        payee: Account,
        total: MicroCredits,
    ) -> BoxFuture<'_, Result<SignedVoucher, VoucherError>>;
}

/// The vouchers of a [`Book`].
#[derive(Clone, Debug)]
pub struct BookVouchers {
    book: Arc<Mutex<Book>>,
    account: Account,
    genesis: Genesis,
    chain: Arc<dyn Escrows>,
    life: u32,
    least: u32,
}

impl BookVouchers {
    /// Those of a book on a chain.
    pub fn new(book: Arc<Mutex<Book>>, genesis: Genesis, chain: Arc<dyn Escrows>) -> Self {
        let account = book.lock().unwrap_or_else(PoisonError::into_inner).account();
        Self { book, account, genesis, chain, life: LIFE, least: LEAST }
    }

    async fn with_book<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, VoucherError> {
        let book = Arc::clone(&self.book);
        let done = tokio::task::spawn_blocking(move || {
            act(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(done.await.map_err(|_| VoucherError::Closed)??)
    }
}

impl Vouchers for BookVouchers {
    fn account(&self) -> Account {
        self.account
    }

    fn genesis(&self) -> Genesis {
        self.genesis
    }

    fn accept(&self, signed: SignedVoucher) -> BoxFuture<'_, Result<(), VoucherError>> {
        Box::pin(async move {
            let now = self.chain.head().await?;
            let escrow = self.chain.escrow(signed.voucher.payer).await?;
            let redeemed = self.chain.redeemed(&signed.voucher).await?;
            let open = signed.voucher.cumulative.checked_sub(redeemed).unwrap_or_default();
            if open > escrow {
                return Err(VoucherError::Uncovered { escrow, open });
            }
            let least = self.least;
            let taken = self.with_book(move |book| {
                let done = book.accept(&signed, now, least, Clock::system().now().0);
                match done {
                    // Answers may overtake each other: the later voucher counts for the earlier one.
                    Err(BookError::Old { .. }) if covers(book, &signed.voucher) => Ok(()),
                    other => other.map(|_| ()),
                }
            });
            taken.await
        })
    }

    fn promised(&self, payee: Account) -> MicroCredits {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.last(payee).map(|last| last.voucher.cumulative).unwrap_or_default()
    }

    fn raise(
        &self,
        payee: Account,
        total: MicroCredits,
    ) -> BoxFuture<'_, Result<SignedVoucher, VoucherError>> {
        Box::pin(async move {
            let head = self.chain.head().await?;
            let escrow = self.chain.escrow(self.account).await?;
            let (life, least) = (self.life, self.least);
            let signed = self.with_book(move |book| {
                let last = book.last(payee).cloned();
                let before = last.as_ref().map(|last| last.voucher.cumulative).unwrap_or_default();
                let more = total.checked_sub(before).unwrap_or_default();
                let lasts = last.as_ref().map_or(0, |last| last.voucher.expires.0);
                // One that would soon be refused is signed anew, for nothing more.
                let stale = lasts < head.0.saturating_add(least.saturating_mul(2));
                match last {
                    Some(last) if more == MicroCredits::ZERO && !stale => Ok(last),
                    _ => {
                        let expires = Block(lasts.max(head.0.saturating_add(life)));
                        book.promise(payee, more, expires, [0; 32], escrow)
                    }
                }
            });
            signed.await
        })
    }
}

fn covers(book: &Book, voucher: &Voucher) -> bool {
    book.earning().any(|(lane, earning)| {
        let same = (lane.pool, lane.payer, lane.payee, lane.lane)
            == (voucher.pool, voucher.payer, voucher.payee, voucher.lane);
        same && earning.best.voucher.cumulative >= voucher.cumulative
    })
}

/// The time of day, as an argument.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMillis + Send + Sync>);

impl Clock {
    /// This machine's.
    pub fn system() -> Self {
        let since = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::new(move || UnixMillis(u64::try_from(since().as_millis()).unwrap_or(u64::MAX)))
    }

    /// One that says what `now` says.
    pub fn new(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> UnixMillis {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
