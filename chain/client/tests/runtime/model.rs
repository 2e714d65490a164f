//! What everybody should have.

use std::collections::BTreeMap;

use potluck_primitives::Account;

use super::chain::{POTS, Person, TREASURY};

/// What a call costs that is paid in credits, in micro-credits.
const CALL_FEE: u128 = 1_000;
/// A credit, in micro-credits.
pub(crate) const CREDIT: u128 = 1_000_000;

/// What one account has, in micro-credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purse {
    pub(crate) free: u128,
    pub(crate) escrow: u128,
    /// Stakes and bonds.
    pub(crate) held: u128,
}

/// What everybody has, by what was done so far.
#[derive(Debug)]
pub(crate) struct Model {
    purses: BTreeMap<Account, Purse>,
    names: BTreeMap<Account, String>,
    treasury: u128,
    pots: u128,
    granted: u128,
    burnt: u128,
}

/// The treasury's part of what a lane or a leaf has paid in all: two hundredths, rounded down.
pub(crate) fn share(total: u128) -> u128 {
    total * 2 / 100
}

impl Model {
    /// What the chain says before anything was done.
    pub(crate) async fn read(who: &Person, people: &[(&str, Account)]) -> Self {
        let (_, at) = who.live.node.latest().await.unwrap();
        let supply = who.live.node.supply(&at).await.unwrap();
        let mut model = Self {
            purses: BTreeMap::new(),
            names: people.iter().map(|(name, account)| (*account, (*name).into())).collect(),
            treasury: who.balance(TREASURY).await.free.0,
            pots: 0,
            granted: supply.granted.0,
            burnt: supply.burnt.0,
        };
        for (_, account) in people {
            let free = who.balance(*account).await.free.0;
            model.purses.insert(*account, Purse { free, ..Purse::default() });
        }
        model
    }

    pub(crate) fn purse(&mut self, of: Account) -> &mut Purse {
        self.purses.get_mut(&of).unwrap()
    }

    /// A call that was paid for in credits.
    pub(crate) fn fee(&mut self, of: Account) {
        self.purse(of).free -= CALL_FEE;
        self.treasury += CALL_FEE;
    }

    pub(crate) fn deposit(&mut self, of: Account, amount: u128) {
        self.fee(of);
        self.purse(of).free -= amount;
        self.purse(of).escrow += amount;
    }

    pub(crate) fn withdraw(&mut self, of: Account, amount: u128) {
        self.fee(of);
        self.purse(of).free += amount;
        self.purse(of).escrow -= amount;
    }

    /// A lane has paid `before`, and now `after`.
    pub(crate) fn redeem(&mut self, payer: Account, payee: Account, before: u128, after: u128) {
        let cut = share(after) - share(before);
        self.purse(payer).escrow -= after - before;
        self.purse(payee).free += after - before - cut;
        self.treasury += cut;
    }

    /// Free credits go on hold.
    pub(crate) fn hold(&mut self, of: Account, amount: u128) {
        self.purse(of).free -= amount;
        self.purse(of).held += amount;
    }

    pub(crate) fn release(&mut self, of: Account, amount: u128) {
        self.purse(of).free += amount;
        self.purse(of).held -= amount;
    }

    /// A bond is lost: half goes to who won it, the rest is burnt.
    pub(crate) fn lose(&mut self, of: Account, bond: u128, to: Account) {
        self.purse(of).held -= bond;
        self.purse(to).free += bond / 2;
        self.burnt += bond - bond / 2;
    }

    /// What is held goes to somebody, or to the treasury.
    pub(crate) fn take(&mut self, of: Account, amount: u128, to: Option<Account>) {
        self.purse(of).held -= amount;
        match to {
            Some(to) => self.purse(to).free += amount,
            None => self.treasury += amount,
        }
    }

    /// A leaf of a batch debits a payer.
    pub(crate) fn debit(&mut self, payer: Account, amount: u128) {
        self.purse(payer).escrow -= amount;
        self.pots += amount;
    }

    /// A leaf of a batch pays a payee.
    pub(crate) fn credit(&mut self, payee: Account, amount: u128) {
        self.pots -= amount;
        self.purse(payee).free += amount - share(amount);
        self.treasury += share(amount);
    }

    /// A batch is closed: what its pot has left is the treasury's.
    pub(crate) fn close(&mut self) {
        self.treasury += std::mem::take(&mut self.pots);
    }

    /// Compares everything with the chain, and the chain with itself.
    pub(crate) async fn check(&self, who: &Person) {
        let (_, at) = who.live.node.latest().await.unwrap();
        let node = &who.live.node;
        let mut sum = self.treasury + self.pots;
        for (account, purse) in &self.purses {
            let found = node.balance(&at, *account).await.unwrap();
            let held = found.held.0 - found.escrow.0;
            let found = Purse { free: found.free.0, escrow: found.escrow.0, held };
            assert_eq!(found, *purse, "{}", self.names[account]);
            sum += purse.free + purse.escrow + purse.held;
        }
        assert_eq!(node.balance(&at, TREASURY).await.unwrap().free.0, self.treasury, "the treasury");
        assert_eq!(node.balance(&at, POTS).await.unwrap().free.0, self.pots, "the pots");
        let supply = node.supply(&at).await.unwrap();
        assert_eq!((supply.granted.0, supply.burnt.0), (self.granted, self.burnt), "grants and burns");
        assert_eq!(supply.issued.0, self.granted - self.burnt, "nothing else makes or takes credits");
        assert!(sum <= supply.issued.0);
    }

    /// As [`Model::check`], where everybody with credits is known: they have all that there is.
    pub(crate) async fn check_all(&self, who: &Person) {
        self.check(who).await;
        let all = self.purses.values().map(|it| it.free + it.escrow + it.held).sum::<u128>();
        assert_eq!(all + self.treasury + self.pots, self.granted - self.burnt, "somebody else has credits");
    }
}
