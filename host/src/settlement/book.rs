//! The vouchers of this machine: what it promised and what it was promised, kept through crashes.
//!
//! A voucher says what a lane is worth in all, so only the last one of each lane counts, on both sides. One that this
//! machine signs is on disk before it leaves; after a crash the next one is for more than any that may have left. One
//! that it is given is on disk before it is acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use parity_scale_codec::{Decode, Encode};
use potluck_chain_client::{
    Key,
    journal::{Journal, JournalError},
    watch::Lane,
};
use potluck_primitives::{Account, Block, Genesis, Hash, MicroCredits, PUBLIC_POOL, SignedVoucher, Voucher};

/// Most lanes that this machine is paid on.
const MAX_EARNING: usize = 65_536;
/// Most lanes on which one payer pays this machine.
const MAX_PER_PAYER: usize = 16;
/// Most lanes that this machine pays on.
const MAX_PAYING: usize = 65_536;
/// Length from which on the file is written anew, in bytes, unless that would not make it much shorter.
const COMPACT: u64 = 8 << 20;

/// A line of the file.
#[derive(Debug, Encode, Decode)]
enum Line {
    /// Signed by this machine.
    #[codec(index = 0)]
    Promised(SignedVoucher),
    /// Given to this machine, and when, in milliseconds since 1970.
    #[codec(index = 1)]
    Earned(SignedVoucher, u64),
    /// The chain has paid so much of a lane.
    #[codec(index = 2)]
    Redeemed([u8; 32], Account, Account, u32, MicroCredits),
    /// Nothing more can be had from a lane.
    #[codec(index = 3)]
    Closed([u8; 32], Account, Account, u32),
}

/// A lane on which this machine is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earning {
    /// The best voucher.
    pub best: SignedVoucher,
    /// What the chain has paid of it.
    pub redeemed: MicroCredits,
    /// When the oldest voucher that is not redeemed came, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Earning {
    /// What is still to be had.
    pub fn due(&self) -> MicroCredits {
        self.best.voucher.cumulative.checked_sub(self.redeemed).unwrap_or_default()
    }
}

/// A lane on which this machine pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paying {
    /// The last voucher.
    pub last: SignedVoucher,
    /// What the chain has paid of it.
    pub redeemed: MicroCredits,
}

impl Paying {
    /// What may still be taken from the escrow.
    pub fn outstanding(&self) -> MicroCredits {
        self.last.voucher.cumulative.checked_sub(self.redeemed).unwrap_or_default()
    }
}

/// Why a voucher is neither signed nor taken.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A line of it makes no sense.
    #[error("{path} holds a line that this potluck does not know (number {line}): update potluck")]
    Unknown {
        /// The file.
        path: String,
        /// Which line.
        line: usize,
    },
    /// The escrow would not cover it.
    #[error(
        "all vouchers together would come to {wanted} credits, and the escrow covers {escrow}: deposit more with `potluck credits deposit`"
    )]
    Escrow {
        /// All that would be outstanding.
        wanted: MicroCredits,
        /// What there is.
        escrow: MicroCredits,
    },
    /// Too large a number.
    #[error("a sum that cannot be counted")]
    Overflow,
    /// It would end before its time, or before one that was given already.
    #[error("a voucher cannot expire at block {found}: the last one of the lane does at {least}")]
    Shorter {
        /// The block.
        found: u32,
        /// The earliest that would do.
        least: u32,
    },
    /// It is for another machine or another pool.
    #[error("the voucher is not for this machine in the public pool")]
    NotOurs,
    /// It could not be redeemed in time.
    #[error(
        "the voucher expires at block {expires}; it is block {now}, and {least} more are needed to redeem it"
    )]
    TooShort {
        /// Its last block.
        expires: u32,
        /// The block now.
        now: u32,
        /// Blocks that are needed.
        least: u32,
    },
    /// A later one is here.
    #[error("the voucher is older than one that is here (number {found}, here is {known})")]
    Old {
        /// Its number.
        found: u64,
        /// The number of the one here.
        known: u64,
    },
    /// It takes back what an earlier one gave.
    #[error("the voucher is for {found} credits in all, and an earlier one of its lane for {known}")]
    Less {
        /// What it says.
        found: MicroCredits,
        /// What the earlier one says.
        known: MicroCredits,
    },
    /// Its payer did not sign it for this chain.
    #[error("the voucher is not signed by its payer for this chain")]
    Forged,
    /// Too many lanes.
    #[error("there are {0} lanes already: redeem or let expire some first")]
    Lanes(usize),
}

/// What was gained by a voucher, in microcredits; nothing by one that was here already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gained(pub MicroCredits);

/// The book of one account on one chain.
#[derive(Debug)]
pub struct Book {
    journal: Journal,
    key: Key,
    genesis: Genesis,
    paying: BTreeMap<Lane, Paying>,
    earning: BTreeMap<Lane, Earning>,
    compact_at: u64,
}

impl Book {
    /// Opens the file and reads it.
    ///
    /// # Errors
    /// [`BookError::Journal`] and [`BookError::Unknown`]
    pub fn open(path: &Path, key: Key, genesis: Genesis) -> Result<Self, BookError> {
        let (journal, lines) = Journal::open(path)?;
        let mut book = Self {
            journal,
            key,
            genesis,
            paying: BTreeMap::new(),
            earning: BTreeMap::new(),
            compact_at: COMPACT,
        };
        for (number, bytes) in lines.iter().enumerate() {
            let Ok(line) = Line::decode(&mut bytes.as_slice()) else {
                return Err(BookError::Unknown { path: path.display().to_string(), line: number + 1 });
            };
            book.apply(line);
        }
        Ok(book)
    }

    /// The account.
    pub fn account(&self) -> Account {
        self.key.account()
    }

    /// The lanes on which this machine is paid.
    pub fn earning(&self) -> impl Iterator<Item = (&Lane, &Earning)> {
        self.earning.iter()
    }

    /// The lanes on which it pays.
    pub fn paying(&self) -> impl Iterator<Item = (&Lane, &Paying)> {
        self.paying.iter()
    }

    /// What vouchers of this machine may still take from its escrow.
    pub fn outstanding(&self) -> MicroCredits {
        let sum =
            self.paying.values().try_fold(MicroCredits::ZERO, |sum, it| sum.checked_add(it.outstanding()));
        sum.unwrap_or(MicroCredits(u128::MAX))
    }

    /// What is to be had for vouchers that are here.
    pub fn due(&self) -> MicroCredits {
        let sum = self.earning.values().try_fold(MicroCredits::ZERO, |sum, it| sum.checked_add(it.due()));
        sum.unwrap_or(MicroCredits(u128::MAX))
    }

    /// The last voucher for a payee, to be sent again; the same bytes as the first time.
    pub fn last(&self, payee: Account) -> Option<&SignedVoucher> {
        self.paying.get(&self.lane_to(payee)).map(|paying| &paying.last)
    }

    /// Signs a voucher for `amount` more to a payee. `escrow` is what the chain holds for this account, less what was
    /// asked back.
    ///
    /// # Errors
    /// [`BookError`]; nothing was signed then that could leave.
    pub fn promise(
        &mut self,
        payee: Account,
        amount: MicroCredits,
        expires: Block,
        receipts_root: Hash,
        escrow: MicroCredits,
    ) -> Result<SignedVoucher, BookError> {
        let lane = self.lane_to(payee);
        let wanted = self.outstanding().checked_add(amount).ok_or(BookError::Overflow)?;
        if wanted > escrow {
            return Err(BookError::Escrow { wanted, escrow });
        }
        let last = self.paying.get(&lane).map(|paying| &paying.last.voucher);
        if last.is_none() && self.paying.len() >= MAX_PAYING {
            return Err(BookError::Lanes(self.paying.len()));
        }
        let least = last.map_or(0, |last| last.expires.0);
        if expires.0 < least {
            return Err(BookError::Shorter { found: expires.0, least });
        }
        let before = last.map_or(MicroCredits::ZERO, |last| last.cumulative);
        let voucher = Voucher {
            pool: lane.pool,
            payer: lane.payer,
            payee,
            lane: lane.lane,
            nonce: last.map_or(0, |last| last.nonce).checked_add(1).ok_or(BookError::Overflow)?,
            cumulative: before.checked_add(amount).ok_or(BookError::Overflow)?,
            expires,
            receipts_root,
        };
        let signed = self.key.voucher(voucher, &self.genesis);
        self.write(Line::Promised(signed.clone()))?;
        Ok(signed)
    }

    /// Takes a voucher; when this returns it is on disk. The same one twice gains nothing.
    ///
    /// `now` is the last final block, `least` the blocks that redeeming may take, `now_ms` the time since 1970.
    ///
    /// # Errors
    /// [`BookError`]; the voucher then counts for nothing.
    pub fn accept(
        &mut self,
        signed: &SignedVoucher,
        now: Block,
        least: u32,
        now_ms: u64,
    ) -> Result<Gained, BookError> {
        let voucher = &signed.voucher;
        let me = self.account();
        if voucher.pool != PUBLIC_POOL || voucher.payee != me || voucher.payer == me {
            return Err(BookError::NotOurs);
        }
        let lane = Lane::from(voucher);
        let known = self.earning.get(&lane);
        if known.is_some_and(|known| known.best == *signed) {
            return Ok(Gained(MicroCredits::ZERO));
        }
        if voucher.expires.0 < now.0.saturating_add(least) {
            return Err(BookError::TooShort { expires: voucher.expires.0, now: now.0, least });
        }
        let mut before = MicroCredits::ZERO;
        if let Some(known) = known.map(|known| &known.best.voucher) {
            if voucher.nonce <= known.nonce {
                return Err(BookError::Old { found: voucher.nonce, known: known.nonce });
            }
            if voucher.cumulative < known.cumulative {
                return Err(BookError::Less { found: voucher.cumulative, known: known.cumulative });
            }
            if voucher.expires < known.expires {
                return Err(BookError::Shorter { found: voucher.expires.0, least: known.expires.0 });
            }
            before = known.cumulative;
        } else {
            let of_payer = self.earning.keys().filter(|known| known.payer == lane.payer).count();
            if self.earning.len() >= MAX_EARNING || of_payer >= MAX_PER_PAYER {
                return Err(BookError::Lanes(of_payer));
            }
        }
        signed.verify(&self.genesis).map_err(|_| BookError::Forged)?;
        self.write(Line::Earned(signed.clone(), now_ms))?;
        Ok(Gained(voucher.cumulative.checked_sub(before).ok_or(BookError::Overflow)?))
    }

    /// Takes note of what the chain has paid of a lane.
    ///
    /// # Errors
    /// [`BookError::Journal`]
    pub fn redeemed(&mut self, lane: &Lane, redeemed: MicroCredits) -> Result<(), BookError> {
        let earned = self.earning.get(lane).is_some_and(|it| it.redeemed < redeemed);
        let paid = self.paying.get(lane).is_some_and(|it| it.redeemed < redeemed);
        if earned || paid {
            self.write(Line::Redeemed(lane.pool, lane.payer, lane.payee, lane.lane, redeemed))?;
        }
        Ok(())
    }

    /// Drops lanes whose vouchers have expired by block `now`, but for those that the chain owes anyway; what was lost
    /// with them.
    ///
    /// # Errors
    /// [`BookError::Journal`]
    pub fn expire(&mut self, now: Block, owed: &BTreeSet<Lane>) -> Result<MicroCredits, BookError> {
        let past = |lane: &Lane, it: &Earning| it.best.voucher.expires < now && !owed.contains(lane);
        let lanes: Vec<Lane> =
            self.earning.iter().filter(|(lane, it)| past(lane, it)).map(|(lane, _)| *lane).collect();
        let mut lost = MicroCredits::ZERO;
        for lane in lanes {
            let due = self.earning.get(&lane).map(Earning::due).unwrap_or_default();
            self.write(Line::Closed(lane.pool, lane.payer, lane.payee, lane.lane))?;
            lost = lost.checked_add(due).ok_or(BookError::Overflow)?;
        }
        Ok(lost)
    }

    /// Begins anew with nothing; a copy of the file stays beside it. Returns where.
    ///
    /// # Errors
    /// [`BookError::Journal`]; everything is then as before.
    pub fn put_aside(&mut self, now_ms: u64) -> Result<PathBuf, BookError> {
        let path = self.journal.path().to_owned();
        let copy = path.with_extension(now_ms.to_string());
        let copied = fs::copy(&path, &copy).and_then(|_| fs::File::open(&copy)?.sync_all());
        copied.map_err(|source| JournalError::Io { path: copy.clone(), source })?;
        self.journal.rewrite(std::iter::empty())?;
        self.paying.clear();
        self.earning.clear();
        Ok(copy)
    }

    /// The one lane on which this machine pays a payee: its number never changes, for the chain counts it for ever.
    fn lane_to(&self, payee: Account) -> Lane {
        Lane { pool: PUBLIC_POOL, payer: self.account(), payee, lane: 0 }
    }

    fn write(&mut self, line: Line) -> Result<(), BookError> {
        self.journal.append(&line.encode())?;
        self.apply(line);
        if self.journal.size() > self.compact_at {
            self.compact()?;
            self.compact_at = COMPACT.max(self.journal.size().saturating_mul(2));
        }
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Promised(signed) => {
                let lane = Lane::from(&signed.voucher);
                let redeemed = self.paying.get(&lane).map(|it| it.redeemed).unwrap_or_default();
                self.paying.insert(lane, Paying { last: signed, redeemed });
            }
            Line::Earned(signed, now_ms) => {
                let lane = Lane::from(&signed.voucher);
                let known = self.earning.get(&lane);
                let redeemed = known.map(|it| it.redeemed).unwrap_or_default();
                let waits = known.filter(|it| it.due() > MicroCredits::ZERO);
                let since_ms = waits.map_or(now_ms, |it| it.since_ms);
                self.earning.insert(lane, Earning { best: signed, redeemed, since_ms });
            }
            Line::Redeemed(pool, payer, payee, lane, redeemed) => {
                let lane = Lane { pool, payer, payee, lane };
                if let Some(it) = self.earning.get_mut(&lane) {
                    it.redeemed = it.redeemed.max(redeemed);
                }
                if let Some(it) = self.paying.get_mut(&lane) {
                    it.redeemed = it.redeemed.max(redeemed);
                }
            }
            Line::Closed(pool, payer, payee, lane) => {
                self.earning.remove(&Lane { pool, payer, payee, lane });
            }
        }
    }

    fn compact(&mut self) -> Result<(), BookError> {
        let redeemed = |lane: &Lane, amount: MicroCredits| {
            (amount > MicroCredits::ZERO)
                .then(|| Line::Redeemed(lane.pool, lane.payer, lane.payee, lane.lane, amount).encode())
        };
        let mut lines = Vec::new();
        for (lane, it) in &self.paying {
            lines.push(Line::Promised(it.last.clone()).encode());
            lines.extend(redeemed(lane, it.redeemed));
        }
        for (lane, it) in &self.earning {
            lines.push(Line::Earned(it.best.clone(), it.since_ms).encode());
            lines.extend(redeemed(lane, it.redeemed));
        }
        Ok(self.journal.rewrite(lines.iter().map(Vec::as_slice))?)
    }
}

#[cfg(test)]
mod tests;
