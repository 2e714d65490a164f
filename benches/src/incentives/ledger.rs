//! All credits of the pool. Every amount is in exactly one place, and only [`Ledger::grant`] and [`Ledger::burn`]
//! change their sum.

use super::money::{MicroCredits, MoneyError, Share};

/// What one member has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// To spend.
    pub free: MicroCredits,
    /// Held as stake.
    pub staked: MicroCredits,
    /// Earned during the trust ramp and not yet released.
    pub withheld: MicroCredits,
}

/// Where a provider's pay goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// It may be spent at once.
    Free,
    /// It is held until the trust ramp ends.
    Withheld,
}

/// The accounts and the pool's own money.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accounts: Vec<Account>,
    /// Collected from payers today and not yet paid out.
    pot: MicroCredits,
    treasury: MicroCredits,
    granted: MicroCredits,
    burnt: MicroCredits,
}

impl Ledger {
    /// So many empty accounts.
    pub fn new(accounts: usize) -> Self {
        Self { accounts: vec![Account::default(); accounts], ..Self::default() }
    }

    fn of(&mut self, number: usize) -> Result<&mut Account, MoneyError> {
        self.accounts.get_mut(number).ok_or(MoneyError::NoAccount(number))
    }

    /// What a member has; nothing where there is no such account.
    pub fn account(&self, number: usize) -> Account {
        self.accounts.get(number).copied().unwrap_or_default()
    }

    /// All accounts, by number.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// What the pool has.
    pub const fn treasury(&self) -> MicroCredits {
        self.treasury
    }

    /// What was ever granted from nothing.
    pub const fn granted(&self) -> MicroCredits {
        self.granted
    }

    /// What was ever burnt.
    pub const fn burnt(&self) -> MicroCredits {
        self.burnt
    }

    /// Makes credits: the only way.
    ///
    /// # Errors
    /// No such account, or the sum does not fit.
    pub fn grant(&mut self, to: usize, amount: MicroCredits) -> Result<(), MoneyError> {
        self.granted = self.granted.checked_add(amount)?;
        let account = self.of(to)?;
        account.free = account.free.checked_add(amount)?;
        Ok(())
    }

    /// Ends credits of the treasury.
    ///
    /// # Errors
    /// The treasury has less.
    pub fn burn(&mut self, amount: MicroCredits) -> Result<(), MoneyError> {
        self.treasury = self.treasury.checked_sub(amount)?;
        self.burnt = self.burnt.checked_add(amount)?;
        Ok(())
    }

    /// Pays out of the treasury: fees of verifiers and grants that make nothing.
    ///
    /// # Errors
    /// The treasury has less, or no such account.
    pub fn spend(&mut self, to: usize, amount: MicroCredits) -> Result<(), MoneyError> {
        self.treasury = self.treasury.checked_sub(amount)?;
        let account = self.of(to)?;
        account.free = account.free.checked_add(amount)?;
        Ok(())
    }

    /// Takes what a payer owes for today's jobs.
    ///
    /// # Errors
    /// The payer has less, or no such account.
    pub fn collect(&mut self, from: usize, amount: MicroCredits) -> Result<(), MoneyError> {
        let account = self.of(from)?;
        account.free = account.free.checked_sub(amount)?;
        self.pot = self.pot.checked_add(amount)?;
        Ok(())
    }

    /// Gives back to a payer.
    ///
    /// # Errors
    /// Less was collected, or no such account.
    pub fn refund(&mut self, to: usize, amount: MicroCredits) -> Result<(), MoneyError> {
        self.pot = self.pot.checked_sub(amount)?;
        let account = self.of(to)?;
        account.free = account.free.checked_add(amount)?;
        Ok(())
    }

    /// Pays a provider, less the protocol share, which the treasury gets; what is left is told.
    ///
    /// # Errors
    /// Less was collected, or no such account.
    pub fn pay(
        &mut self,
        to: usize,
        gross: MicroCredits,
        share: Share,
        into: Into,
    ) -> Result<MicroCredits, MoneyError> {
        self.pot = self.pot.checked_sub(gross)?;
        let cut = gross.part(share)?;
        let net = gross.checked_sub(cut)?;
        self.treasury = self.treasury.checked_add(cut)?;
        let account = self.of(to)?;
        match into {
            Into::Free => account.free = account.free.checked_add(net)?,
            Into::Withheld => account.withheld = account.withheld.checked_add(net)?,
        }
        Ok(net)
    }

    /// Stakes free credits until the stake is `target`, as far as they reach.
    ///
    /// # Errors
    /// No such account.
    pub fn stake_up_to(&mut self, number: usize, target: MicroCredits) -> Result<(), MoneyError> {
        let account = self.of(number)?;
        let more = MicroCredits(target.0.saturating_sub(account.staked.0)).min(account.free);
        account.free = account.free.checked_sub(more)?;
        account.staked = account.staked.checked_add(more)?;
        Ok(())
    }

    /// Ends the trust ramp: what was withheld may be spent. Tells how much.
    ///
    /// # Errors
    /// No such account.
    pub fn release(&mut self, number: usize) -> Result<MicroCredits, MoneyError> {
        let account = self.of(number)?;
        let withheld = std::mem::take(&mut account.withheld);
        account.free = account.free.checked_add(withheld)?;
        Ok(withheld)
    }

    /// Ends an identity: what is left of the stake may be spent.
    ///
    /// # Errors
    /// No such account.
    pub fn unstake(&mut self, number: usize) -> Result<(), MoneyError> {
        let account = self.of(number)?;
        let staked = std::mem::take(&mut account.staked);
        account.free = account.free.checked_add(staked)?;
        Ok(())
    }

    /// Moves a stake to another key of the same member, as far as its free credits reach. Credits cannot be
    /// transferred, so it pays itself for jobs, which costs the protocol share. The rest stays with a key that only
    /// asks, which is never convicted.
    ///
    /// # Errors
    /// No such account.
    pub fn move_to_new_key(
        &mut self,
        number: usize,
        stake: MicroCredits,
        share: Share,
    ) -> Result<(), MoneyError> {
        let account = self.of(number)?;
        let cut = account.free.min(stake).part(share)?;
        account.free = account.free.checked_sub(cut)?;
        self.treasury = self.treasury.checked_add(cut)?;
        Ok(())
    }

    /// Takes all that is withheld, and a part of the stake; `burnt` of both is burnt and the rest is the treasury's.
    /// Tells what was taken of the stake, and what was withheld.
    ///
    /// # Errors
    /// No such account.
    pub fn slash(
        &mut self,
        number: usize,
        part: Share,
        burnt: Share,
    ) -> Result<[MicroCredits; 2], MoneyError> {
        let account = self.of(number)?;
        let slashed = account.staked.part(part)?;
        account.staked = account.staked.checked_sub(slashed)?;
        let withheld = std::mem::take(&mut account.withheld);
        let taken = slashed.checked_add(withheld)?;
        self.treasury = self.treasury.checked_add(taken)?;
        self.burn(taken.part(burnt)?)?;
        Ok([slashed, withheld])
    }

    /// What all accounts, the pot and the treasury hold.
    ///
    /// # Errors
    /// The sum does not fit.
    pub fn held(&self) -> Result<MicroCredits, MoneyError> {
        self.accounts.iter().try_fold(self.pot.checked_add(self.treasury)?, |sum, account| {
            sum.checked_add(account.free)?.checked_add(account.staked)?.checked_add(account.withheld)
        })
    }

    /// That nothing was made or lost: what is held is what was granted less what was burnt, and the pot is empty.
    ///
    /// # Errors
    /// It is not so.
    pub fn check(&self) -> Result<(), MoneyError> {
        let (held, issued) = (self.held()?, self.granted.checked_sub(self.burnt)?);
        if held == issued && self.pot == MicroCredits::ZERO {
            Ok(())
        } else {
            Err(MoneyError::NotConserved { held, issued })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::random::Random;

    #[test]
    fn no_order_of_calls_makes_or_loses_a_credit() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut ledger = Ledger::new(5);
            for _ in 0..200 {
                let who = random.below(6);
                let before = ledger.clone();
                let amount = MicroCredits(random.below(3_000_000) as u128);
                let share = Share(random.below(1_000_001) as u64);
                let done = match random.below(10) {
                    0 => ledger.grant(who, amount),
                    1 => ledger.burn(amount),
                    2 => ledger.spend(who, amount),
                    3 => ledger.collect(who, amount).and_then(|()| ledger.refund(random.below(5), amount)),
                    4 => ledger.collect(who, amount).and_then(|()| {
                        ledger.pay(random.below(5), amount, share, Into::Withheld).map(|_| ())
                    }),
                    5 => ledger.stake_up_to(who, amount),
                    6 => ledger.release(who).map(|_| ()),
                    7 => ledger.unstake(who),
                    8 => ledger.move_to_new_key(who, amount, share),
                    _ => ledger.slash(who, share, Share(500_000)).map(|_| ()),
                };
                // A failed call ends a run; here the books of before are opened again.
                if done.is_err() {
                    ledger = before;
                }
                ledger.check().unwrap();
            }
            assert!(ledger.granted() > MicroCredits::ZERO);
        }
    }

    #[test]
    fn a_credit_from_nowhere_is_noticed() {
        let mut ledger = Ledger::new(2);
        ledger.grant(0, MicroCredits(7)).unwrap();
        ledger.accounts[1].free = MicroCredits(1);
        assert!(matches!(ledger.check(), Err(MoneyError::NotConserved { .. })));
    }
}
