//! What an issuer remembers: what it sold and to whom, which tokens it took back, and what it owes for them.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{
    Account, Bounded, Genesis, Hash, MerkleProof, MicroCredits, SignedVoucher, UnixMillis,
};

use super::{
    disk::{Disk, DiskError},
    wire::{Claim, Issued, Outcome, Proof, Purchase, Refusal, Settled, Spend, signatures_digest},
};
use crate::{
    identity::Signer,
    pool::public::token::{BATCH, Residue, Schedule, Signed},
};

/// Most tokens that may be out: what is remembered of each until its epoch ends is bounded by that.
pub(crate) const MAX_TOKENS: u64 = 300_000;
/// Most accounts that an issuer deals with, buyers and payees each: as many as it has lanes.
const MAX_ACCOUNTS: usize = 65_536;

/// A line of the file.
#[derive(Debug, Encode, Decode)]
enum Line {
    /// Tokens were sold; what the account has used up of its vouchers since, and how many tokens there were.
    #[codec(index = 0)]
    Sold { account: Account, used: MicroCredits, count: u32, issued: Signed<Issued> },
    /// A claim was taken; what its payee is owed since, in all.
    #[codec(index = 1)]
    Taken { claim: Signed<Claim>, names: Bounded<Hash, BATCH>, last_epoch: u32, owed: MicroCredits },
    /// A claim was answered.
    #[codec(index = 2)]
    Settled(Signed<Settled>),
    /// What an account has used up; of sales that are forgotten.
    #[codec(index = 3)]
    Used(Account, MicroCredits),
    /// What a payee is owed in all; of claims that are forgotten.
    #[codec(index = 4)]
    Owed(Account, MicroCredits),
}

/// Why the desk does nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("a sum that cannot be counted")]
    Overflow,
}

/// A claim that was taken.
#[derive(Clone, Debug)]
struct Taken {
    claim: Signed<Claim>,
    names: Bounded<Hash, BATCH>,
    last_epoch: u32,
    settled: Option<Signed<Settled>>,
}

/// What was issued in an epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    sequence: u64,
    total: MicroCredits,
    count: u64,
}

/// A sale that is remembered.
#[derive(Debug)]
struct Sale {
    account: Account,
    count: u32,
    issued: Signed<Issued>,
}

/// Where a claim stands.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, not kept")]
pub(crate) enum Standing {
    Unknown,
    /// Taken, and its payee is owed that much in all.
    Taken(MicroCredits),
    Answered(Signed<Settled>),
}

/// The books of an issuer on one chain.
#[derive(Debug)]
pub(crate) struct Desk {
    disk: Disk,
    genesis: Genesis,
    schedule: Schedule,
    sales: HashMap<Hash, Sale>,
    totals: BTreeMap<u32, Total>,
    used: HashMap<Account, MicroCredits>,
    claims: HashMap<Hash, Taken>,
    /// By which claim a token was spent, and its place in it.
    spent: HashMap<Hash, (Hash, u32)>,
    owed: HashMap<Account, MicroCredits>,
}

impl Desk {
    pub(crate) fn open(path: &Path, genesis: Genesis, schedule: Schedule) -> Result<Self, DeskError> {
        let (disk, lines) = Disk::open(path)?;
        let mut desk = Self {
            disk,
            genesis,
            schedule,
            sales: HashMap::new(),
            totals: BTreeMap::new(),
            used: HashMap::new(),
            claims: HashMap::new(),
            spent: HashMap::new(),
            owed: HashMap::new(),
        };
        lines.into_iter().for_each(|line| desk.apply(line));
        Ok(desk)
    }

    /// The epochs whose tokens were sold.
    pub(crate) fn epochs(&self) -> Vec<u32> {
        self.totals.keys().copied().collect()
    }

    /// What each account has used up.
    #[cfg(test)]
    pub(crate) fn used_up(&self) -> &HashMap<Account, MicroCredits> {
        &self.used
    }

    /// What each payee is owed in all.
    #[cfg(test)]
    pub(crate) fn owed(&self) -> &HashMap<Account, MicroCredits> {
        &self.owed
    }

    /// The answer that a purchase was given.
    pub(crate) fn sale(&self, purchase: &Hash) -> Option<&Signed<Issued>> {
        self.sales.get(purchase).map(|sale| &sale.issued)
    }

    /// Whether a purchase can be sold: within the bond, paid, and not more than can be remembered.
    pub(crate) fn check(
        &self,
        purchase: &Purchase,
        bond: MicroCredits,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let used = self.used.get(&purchase.account).copied();
        if used.is_none() && self.used.len() >= MAX_ACCOUNTS {
            return Err(Refusal::Later);
        }
        let (used, price) = (used.unwrap_or_default(), purchase.price());
        if used.checked_add(price).is_none_or(|sum| sum > purchase.voucher.voucher.cumulative) {
            return Err(Refusal::Unpaid(used));
        }
        let (standing, count) = self.standing(now);
        if standing.checked_add(price).is_none_or(|sum| sum > bond) {
            return Err(Refusal::Bond);
        }
        let more = u64::try_from(purchase.blinded.len()).unwrap_or(u64::MAX);
        if count.saturating_add(more) > MAX_TOKENS { Err(Refusal::Later) } else { Ok(()) }
    }

    /// Writes a sale down. [`Desk::check`] comes first.
    pub(crate) fn sell(
        &mut self,
        purchase: &Purchase,
        signatures: &[Residue],
        now: UnixMillis,
        signer: &Signer,
    ) -> Result<Signed<Issued>, DeskError> {
        use crate::pool::public::token::Said as _;
        let price = purchase.price();
        let total = self.totals.get(&purchase.epoch).copied().unwrap_or_default();
        let issued = Issued {
            issuer: purchase.issuer,
            epoch: purchase.epoch,
            sequence: total.sequence.checked_add(1).ok_or(DeskError::Overflow)?,
            at: now,
            total: total.total.checked_add(price).ok_or(DeskError::Overflow)?,
            standing: self.standing(now).0.checked_add(price).ok_or(DeskError::Overflow)?,
            purchase: purchase.digest(&self.genesis),
            signatures: signatures_digest(signatures),
        };
        let used = self.used.get(&purchase.account).copied().unwrap_or_default();
        let used = used.checked_add(price).ok_or(DeskError::Overflow)?;
        let issued = Signed::new(issued, &self.genesis, signer);
        let count = u32::try_from(purchase.blinded.len()).map_err(|_| DeskError::Overflow)?;
        self.write(Line::Sold { account: purchase.account, used, count, issued: issued.clone() })?;
        Ok(issued)
    }

    /// Where a claim stands.
    pub(crate) fn standing_of(&self, claim: &Hash) -> Standing {
        match self.claims.get(claim) {
            None => Standing::Unknown,
            Some(Taken { settled: Some(settled), .. }) => Standing::Answered(settled.clone()),
            Some(taken) => {
                Standing::Taken(self.owed.get(&taken.claim.said.payee).copied().unwrap_or_default())
            }
        }
    }

    /// The proof that a token was spent, if it was.
    pub(crate) fn proof(&self, name: &Hash) -> Option<Proof> {
        let (claim, index) = self.spent.get(name)?;
        let taken = self.claims.get(claim)?;
        let path = MerkleProof::of(&taken.names, *index)?;
        Some(Proof { claim: taken.claim.clone(), path })
    }

    /// Whether it can deal with another payee.
    pub(crate) fn knows_or_has_room_for(&self, payee: &Account) -> bool {
        self.owed.contains_key(payee) || self.owed.len() < MAX_ACCOUNTS
    }

    /// Takes a claim whose tokens are all fresh. `promised` is what the vouchers to its payee say, for one that is new.
    pub(crate) fn take(&mut self, spend: &Spend, promised: MicroCredits) -> Result<(), DeskError> {
        let worth = crate::pool::public::token::Token::worth(&spend.tokens);
        let owed = self.owed.get(&spend.claim.said.payee).copied().unwrap_or(promised);
        let owed = owed.checked_add(worth).ok_or(DeskError::Overflow)?;
        let names = Bounded::new(spend.names()).map_err(|_| DeskError::Overflow)?;
        let last_epoch = spend.tokens.iter().map(|token| token.epoch).max().unwrap_or_default();
        self.write(Line::Taken { claim: spend.claim.clone(), names, last_epoch, owed })
    }

    /// Writes the answer to a claim down; it may leave then. The first one stays.
    pub(crate) fn settle(
        &mut self,
        claim: Hash,
        voucher: SignedVoucher,
        now: UnixMillis,
        issuer: Account,
        signer: &Signer,
    ) -> Result<Option<Signed<Settled>>, DeskError> {
        let Some(taken) = self.claims.get(&claim) else { return Ok(None) };
        if taken.settled.is_some() {
            return Ok(taken.settled.clone());
        }
        let outcomes = taken.names.iter().map(|_| Outcome::Fresh).collect();
        let outcomes = Bounded::new(outcomes).map_err(|_| DeskError::Overflow)?;
        let settled = Settled { issuer, claim, at: now, outcomes, voucher: Some(voucher) };
        let settled = Signed::new(settled, &self.genesis, signer);
        self.write(Line::Settled(settled.clone()))?;
        Ok(Some(settled))
    }

    /// Forgets epochs that are over, and what belongs to them.
    pub(crate) fn expire(&mut self, now: UnixMillis) -> Result<(), DeskError> {
        // One epoch longer than needed, for answers that were lost.
        let over = |schedule: &Schedule, epoch: u32| schedule.ends(epoch.saturating_add(1)) <= now;
        let schedule = self.schedule;
        let ended = self.totals.keys().any(|epoch| over(&schedule, *epoch))
            || self.claims.values().any(|it| over(&schedule, it.last_epoch));
        if ended {
            self.totals.retain(|epoch, _| !over(&schedule, *epoch));
            self.sales.retain(|_, sale| !over(&schedule, sale.issued.said.epoch));
            self.claims.retain(|_, it| !over(&schedule, it.last_epoch));
            let claims = &self.claims;
            self.spent.retain(|_, (claim, _)| claims.contains_key(claim));
        }
        if ended || self.disk.is_long() { self.compact() } else { Ok(()) }
    }

    /// What was issued and may still be spent: how much, and how many tokens.
    fn standing(&self, now: UnixMillis) -> (MicroCredits, u64) {
        let live = self.totals.iter().filter(|(epoch, _)| self.schedule.ends(**epoch) > now);
        live.fold((MicroCredits::ZERO, 0), |(sum, count), (_, total)| {
            let sum = sum.checked_add(total.total).unwrap_or(MicroCredits(u128::MAX));
            (sum, count.saturating_add(total.count))
        })
    }

    fn write(&mut self, line: Line) -> Result<(), DeskError> {
        self.disk.append(&line)?;
        self.apply(line);
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Sold { account, used, count, issued } => {
                let total = self.totals.entry(issued.said.epoch).or_default();
                total.sequence = total.sequence.max(issued.said.sequence);
                total.total = total.total.max(issued.said.total);
                total.count = total.count.saturating_add(u64::from(count));
                let known = self.used.entry(account).or_default();
                *known = used.max(*known);
                self.sales.insert(issued.said.purchase, Sale { account, count, issued });
            }
            Line::Taken { claim, names, last_epoch, owed } => {
                use crate::pool::public::token::Said as _;
                let digest = claim.said.digest(&self.genesis);
                for (index, name) in (0_u32..).zip(names.iter()) {
                    self.spent.insert(*name, (digest, index));
                }
                let known = self.owed.entry(claim.said.payee).or_default();
                *known = owed.max(*known);
                self.claims.insert(digest, Taken { claim, names, last_epoch, settled: None });
            }
            Line::Settled(settled) => {
                if let Some(taken) = self.claims.get_mut(&settled.said.claim) {
                    taken.settled = Some(settled);
                }
            }
            Line::Used(account, used) => {
                self.used.insert(account, used);
            }
            Line::Owed(payee, owed) => {
                self.owed.insert(payee, owed);
            }
        }
    }

    fn compact(&mut self) -> Result<(), DeskError> {
        let used = self.used.iter().map(|(account, used)| Line::Used(*account, *used));
        let owed = self.owed.iter().map(|(payee, owed)| Line::Owed(*payee, *owed));
        // By their numbers, so that the totals come out as they were.
        let mut sales: Vec<&Sale> = self.sales.values().collect();
        sales.sort_by_key(|sale| (sale.issued.said.epoch, sale.issued.said.sequence));
        let sales = sales.into_iter().map(|sale| Line::Sold {
            account: sale.account,
            used: MicroCredits::ZERO,
            count: sale.count,
            issued: sale.issued.clone(),
        });
        let claims = self.claims.values().flat_map(|it| {
            let taken = Line::Taken {
                claim: it.claim.clone(),
                names: it.names.clone(),
                last_epoch: it.last_epoch,
                owed: MicroCredits::ZERO,
            };
            [Some(taken), it.settled.clone().map(Line::Settled)].into_iter().flatten()
        });
        Ok(self.disk.rewrite(used.chain(owed).chain(sales).chain(claims))?)
    }
}
