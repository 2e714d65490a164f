//! Receipts of public jobs: made by the provider, countersigned with a key that was made for the one job.
//!
//! Both sides keep theirs. A provider's say what it did and earned; a requester's what it paid for. Neither holds
//! anything of what was asked or answered.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use parity_scale_codec::{Decode, DecodeAll, Encode};
use potluck_chain_client::journal::{Journal, JournalError};
use potluck_primitives::{
    Class, MAX_RECEIPT, MicroCredits, Micros, PUBLIC_POOL, Party, Receipt, ReceiptError, Signed, Tokens,
    UnixMillis,
};

use crate::identity::{NodeId, Signer};

/// How far the clocks of both sides may differ, in milliseconds.
const SKEW: u64 = 120_000;
/// Receipts that are kept one by one; older ones are in the sums only.
const KEPT: usize = 100_000;
/// How many more are written before the file is written anew.
const SLACK: usize = 20_000;

/// What the requester counted of a job itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The attempt.
    pub job: [u8; 16],
    /// Who was asked.
    pub provider: NodeId,
    /// The model's name in the offer.
    pub model: String,
    /// Tokens of the prompt, as accepted.
    pub prompt_tokens: u32,
    /// Tokens of the answer that arrived.
    pub completion_tokens: u32,
    /// When it was asked, in milliseconds since 1970.
    pub sent_ms: u64,
}

/// What the provider did for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The attempt.
    pub job: [u8; 16],
    /// The key made for the receipt.
    pub requester: [u8; 32],
    /// The model's name in the offer.
    pub model: String,
    /// Tokens of the prompt, as accepted.
    pub prompt_tokens: u32,
    /// Tokens of the answer that were sent.
    pub completion_tokens: u32,
    /// Time the engine took.
    pub compute: Micros,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: u64,
}

/// Why a receipt is not signed or not taken.
#[derive(Debug, thiserror::Error)]
pub enum RefusedReceipt {
    /// It is none.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// It says something else than what was seen.
    #[error("the receipt says another {0} than was seen here")]
    Other(&'static str),
    /// It is there already.
    #[error("the receipt was counted before")]
    Again,
    /// It cannot be kept.
    #[error("the receipt cannot be kept: {0}")]
    File(#[from] JournalError),
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn model_id(name: &str) -> [u8; 32] {
    *blake3::hash(name.as_bytes()).as_bytes()
}

/// A receipt with its provider's signature, as it travels: SCALE.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Half {
    receipt: Receipt,
    by_provider: [u8; 64],
}

/// The provider's half.
///
/// # Errors
/// [`ReceiptError`] for a receipt that cannot be.
pub fn issue(served: &Served, signer: &Signer) -> Result<Vec<u8>, ReceiptError> {
    let receipt = Receipt {
        version: Receipt::VERSION,
        job: served.job,
        provider: signer.node().0,
        requester: served.requester,
        pool: PUBLIC_POOL,
        model: model_id(&served.model),
        class: Class::new(&served.model),
        prompt_tokens: Tokens(served.prompt_tokens),
        completion_tokens: Tokens(served.completion_tokens),
        compute: served.compute,
        started_at: UnixMillis(served.started_ms),
        ended_at: UnixMillis(served.ended_ms),
    };
    receipt.check()?;
    let by_provider = signer.sign(&receipt.signed_bytes()).0;
    Ok(Half { receipt, by_provider }.encode())
}

/// The whole receipt, if the half agrees with what was counted: SCALE of [`Signed`].
///
/// # Errors
/// [`RefusedReceipt`].
pub fn countersign(
    half: &[u8],
    counted: &Counted,
    signer: &Signer,
    now: u64,
) -> Result<Vec<u8>, RefusedReceipt> {
    if half.len() > MAX_RECEIPT {
        return Err(ReceiptError::Malformed.into());
    }
    let Half { receipt, by_provider } = Half::decode_all(&mut &*half).map_err(|_| ReceiptError::Malformed)?;
    receipt.check()?;
    let same = [
        ("job", receipt.job == counted.job),
        ("provider", receipt.provider == counted.provider.0),
        ("requester", receipt.requester == signer.node().0),
        ("pool", receipt.pool == PUBLIC_POOL),
        ("model", receipt.model == model_id(&counted.model)),
        ("number of prompt tokens", receipt.prompt_tokens.0 == counted.prompt_tokens),
        ("number of tokens", receipt.completion_tokens.0 == counted.completion_tokens),
    ];
    if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
        return Err(RefusedReceipt::Other(what));
    }
    let (from, until) = (counted.sent_ms.saturating_sub(SKEW), now.saturating_add(SKEW));
    if receipt.started_at.0 < from || receipt.ended_at.0 > until {
        return Err(RefusedReceipt::Other("time"));
    }
    // Several cores may be busy at once, but work is counted by the clock.
    let took = now.saturating_sub(counted.sent_ms).saturating_add(1_000).saturating_mul(1_000);
    if receipt.compute.0 > took {
        return Err(RefusedReceipt::Other("computing time"));
    }
    if !receipt.signed_by(Party::Provider, &by_provider) {
        return Err(ReceiptError::Forged(Party::Provider).into());
    }
    let by_requester = signer.sign(&receipt.signed_bytes()).0;
    Ok(Signed { receipt, by_provider, by_requester }.encode())
}

/// Which side of a receipt this machine was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It computed.
    Served,
    /// It asked.
    Asked,
}

/// A receipt that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// Which side this machine was.
    pub side: Side,
    /// What was earned or paid.
    pub amount: MicroCredits,
    /// The job by the name that this node's replies gave it; zeros where there is none.
    pub asked_as: [u8; 16],
    /// The receipt.
    pub signed: Signed,
}

/// Sums over all receipts of a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Sums {
    /// How many.
    pub jobs: u64,
    /// What was earned or paid.
    pub amount: MicroCredits,
    /// Computing time, in microseconds.
    pub compute: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are of the larger kind")]
#[derive(Encode, Decode)]
enum Record {
    Sums { served: Sums, asked: Sums },
    One(Kept),
}

/// The receipts of this machine, on disk.
#[derive(Debug)]
pub struct ReceiptBook {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    kept: VecDeque<Kept>,
    known: HashSet<([u8; 32], [u8; 16])>,
    served: Sums,
    asked: Sums,
}

impl ReceiptBook {
    /// The book at `path`; makes one if there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let (journal, records) = Journal::open(path)?;
        let (kept, known) = (VecDeque::new(), HashSet::new());
        let mut inner = Inner { journal, kept, known, served: Sums::default(), asked: Sums::default() };
        for record in records {
            match Record::decode_all(&mut &*record) {
                Ok(Record::Sums { served, asked }) => (inner.served, inner.asked) = (served, asked),
                Ok(Record::One(kept)) => inner.count(kept),
                Err(_) => tracing::warn!("a record of the receipts cannot be read and is left out"),
            }
        }
        Ok(Self { inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a receipt: SCALE of [`Signed`]. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`RefusedReceipt`]
    pub fn keep(
        &self,
        side: Side,
        amount: MicroCredits,
        asked_as: [u8; 16],
        whole: &[u8],
    ) -> Result<(), RefusedReceipt> {
        let signed = Signed::open(whole)?;
        let mut inner = self.inner();
        if inner.known.contains(&(signed.receipt.requester, signed.receipt.job)) {
            return Err(RefusedReceipt::Again);
        }
        let record = Record::One(Kept { side, amount, asked_as, signed });
        inner.journal.append(&record.encode())?;
        if let Record::One(kept) = record {
            inner.count(kept);
        }
        inner.shorten()?;
        Ok(())
    }

    /// Sums of what was served and what was asked.
    pub fn sums(&self) -> (Sums, Sums) {
        let inner = self.inner();
        (inner.served, inner.asked)
    }

    /// The last `most` receipts, the newest first.
    pub fn last(&self, most: usize) -> Vec<Kept> {
        self.inner().kept.iter().rev().take(most).cloned().collect()
    }
}

impl Inner {
    fn count(&mut self, kept: Kept) {
        let sums = match kept.side {
            Side::Served => &mut self.served,
            Side::Asked => &mut self.asked,
        };
        sums.jobs = sums.jobs.saturating_add(1);
        sums.amount = MicroCredits(sums.amount.0.saturating_add(kept.amount.0));
        sums.compute = sums.compute.saturating_add(kept.signed.receipt.compute.0);
        let receipt = &kept.signed.receipt;
        sums.prompt_tokens = sums.prompt_tokens.saturating_add(receipt.prompt_tokens.0.into());
        sums.completion_tokens = sums.completion_tokens.saturating_add(receipt.completion_tokens.0.into());
        self.known.insert((receipt.requester, receipt.job));
        self.kept.push_back(kept);
    }

    /// Forgets the oldest when there are too many, in the sums' favour.
    fn shorten(&mut self) -> Result<(), JournalError> {
        if self.kept.len() < KEPT + SLACK {
            return Ok(());
        }
        let gone = self.kept.drain(..SLACK).collect::<Vec<_>>();
        for kept in &gone {
            self.known.remove(&(kept.signed.receipt.requester, kept.signed.receipt.job));
        }
        // The sums begin with what is left out and grow again as the rest is read.
        let (mut served, mut asked) = (self.served, self.asked);
        for kept in &self.kept {
            let sums = if kept.side == Side::Served { &mut served } else { &mut asked };
            let receipt = &kept.signed.receipt;
            sums.jobs = sums.jobs.saturating_sub(1);
            sums.amount = MicroCredits(sums.amount.0.saturating_sub(kept.amount.0));
            sums.compute = sums.compute.saturating_sub(receipt.compute.0);
            sums.prompt_tokens = sums.prompt_tokens.saturating_sub(receipt.prompt_tokens.0.into());
            sums.completion_tokens =
                sums.completion_tokens.saturating_sub(receipt.completion_tokens.0.into());
        }
        let first = Record::Sums { served, asked }.encode();
        let rest: Vec<Vec<u8>> = self.kept.iter().map(|kept| Record::One(kept.clone()).encode()).collect();
        self.journal.rewrite(std::iter::once(first.as_slice()).chain(rest.iter().map(Vec::as_slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(requester: &Signer) -> Served {
        let now = now_ms();
        Served {
            job: [4; 16],
            requester: requester.node().0,
            model: "stories".into(),
            prompt_tokens: 9,
            completion_tokens: 20,
            compute: Micros(1_000),
            started_ms: now - 10,
            ended_ms: now,
        }
    }

    fn counted(provider: &Signer) -> Counted {
        Counted {
            job: [4; 16],
            provider: provider.node(),
            model: "stories".into(),
            prompt_tokens: 9,
            completion_tokens: 20,
            sent_ms: now_ms() - 20,
        }
    }

    #[test]
    fn only_what_was_seen_is_signed_and_every_lie_is_named() {
        let (provider, requester) = (Signer::from_seed([1; 32]), Signer::from_seed([2; 32]));
        let sign = |change: &dyn Fn(&mut Served)| {
            let mut served = served(&requester);
            change(&mut served);
            let half = issue(&served, &provider).unwrap();
            countersign(&half, &counted(&provider), &requester, now_ms()).map_err(|error| error.to_string())
        };
        let whole = sign(&|_| {}).unwrap();
        assert!(Signed::open(&whole).is_ok());
        type Lie = (&'static str, fn(&mut Served));
        let lies: [Lie; 6] = [
            ("number of tokens", |s| s.completion_tokens += 1),
            ("prompt tokens", |s| s.prompt_tokens += 1),
            ("model", |s| s.model = "other".into()),
            ("job", |s| s.job = [5; 16]),
            ("computing time", |s| s.compute = Micros(60_000_000)),
            ("time", |s| (s.started_ms, s.ended_ms) = (s.started_ms - 200_000, s.ended_ms - 200_000)),
        ];
        for (word, lie) in lies {
            let error = sign(&lie).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
        let mut half = issue(&served(&requester), &provider).unwrap();
        let last = half.len() - 1;
        half[last] ^= 1;
        assert!(countersign(&half, &counted(&provider), &requester, now_ms()).is_err());
    }

    #[test]
    fn receipts_are_counted_once_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts");
        let (provider, requester) = (Signer::from_seed([1; 32]), Signer::from_seed([2; 32]));
        let half = issue(&served(&requester), &provider).unwrap();
        let whole = countersign(&half, &counted(&provider), &requester, now_ms()).unwrap();
        let book = ReceiptBook::open(&path).unwrap();
        book.keep(Side::Served, MicroCredits(300), [0; 16], &whole).unwrap();
        let again = book.keep(Side::Served, MicroCredits(300), [0; 16], &whole);
        assert!(matches!(again, Err(RefusedReceipt::Again)));
        assert!(book.keep(Side::Served, MicroCredits(1), [0; 16], &whole[1..]).is_err());
        drop(book);
        let book = ReceiptBook::open(&path).unwrap();
        let (served, asked) = book.sums();
        assert_eq!((served.jobs, served.amount, served.completion_tokens), (1, MicroCredits(300), 20));
        assert_eq!(asked, Sums::default());
        assert_eq!(book.last(5).len(), 1);
    }
}
