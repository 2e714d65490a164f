//! What a settler makes of an epoch, honest or not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use potluck_chain_client::{
    Key,
    call::{Disclosure, Evidence, Shown},
};
use potluck_primitives::{
    Account, Beneath, Block, Bounded, Genesis, Hash, Leaf, MicroCredits, SignedVoucher, SumNode, SumProof,
    Voucher, blake2_256, merkle_root,
};

/// Leaves of each batch here.
pub(crate) const LEAVES: usize = 100_000;
/// Vouchers that one leaf counts at most.
const LISTED: usize = 64;

/// Keys of payers that nobody here has a name for. Each pays as many payees as a leaf can list.
static CROWD: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let key = |number: u32| Key::from_seed(blake2_256(&[b"crowd", &number.to_le_bytes()]));
    (0..u32::try_from(LEAVES / LISTED).unwrap()).map(key).collect()
});

/// A voucher of one epoch of one settler.
pub(crate) fn netted(
    settler: Account,
    epoch: u32,
    payer: Account,
    payee: Account,
    cumulative: u128,
) -> Voucher {
    Voucher {
        pool: settler,
        payer,
        payee,
        lane: epoch,
        nonce: 1,
        cumulative: MicroCredits(cumulative),
        expires: Block(1_000_000),
        receipts_root: [0; 32],
    }
}

/// As many vouchers of the crowd as give, with those of `named` accounts, a hundred thousand leaves.
fn crowd(settler: Account, epoch: u32, named: usize) -> Vec<Voucher> {
    let leaves = LEAVES - named;
    let (mut vouchers, mut left) = (Vec::new(), leaves);
    for key in CROWD.iter() {
        // The payer's own leaf, and one for each of those it pays.
        let paid = left.saturating_sub(1).min(LISTED);
        for number in 0..paid {
            let number = u32::try_from(number).unwrap();
            let payee = blake2_256(&[b"payee", &key.account(), &number.to_le_bytes()]);
            let amount = 1_000 + u128::from(number) * 37;
            vouchers.push(netted(settler, epoch, key.account(), payee, amount));
        }
        left -= if paid == 0 { 0 } else { paid + 1 };
    }
    assert!(left <= 1, "{left} leaves are missing");
    vouchers
}

/// The vouchers of an epoch, and the leaves that count them.
pub(crate) struct Books {
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) gross: u128,
    vouchers: Vec<(Voucher, Hash)>,
    listed: HashMap<Account, Vec<usize>>,
}

impl Books {
    /// The honest books over these vouchers and those of a crowd.
    pub(crate) fn of(settler: Account, epoch: u32, named: &[Voucher], genesis: &Genesis) -> Self {
        let mut accounts: Vec<_> = named.iter().flat_map(|it| [it.payer, it.payee]).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let all = named.iter().cloned().chain(crowd(settler, epoch, accounts.len()));
        let vouchers: Vec<_> = all.map(|it| (it.clone(), it.digest(genesis))).collect();
        let mut by_account: BTreeMap<Account, Vec<usize>> = BTreeMap::new();
        for (at, (voucher, _)) in vouchers.iter().enumerate() {
            by_account.entry(voucher.payer).or_default().push(at);
            by_account.entry(voucher.payee).or_default().push(at);
        }
        let mut books = Self { leaves: Vec::new(), gross: 0, vouchers, listed: HashMap::new() };
        for (account, mut mine) in by_account {
            mine.sort_by_key(|at| (books.vouchers[*at].0.payer, books.vouchers[*at].0.payee));
            let leaf = books.leaf(account, &mine);
            books.gross += leaf.gross;
            books.leaves.push(leaf);
            books.listed.insert(account, mine);
        }
        books
    }

    fn leaf(&self, account: Account, mine: &[usize]) -> Leaf {
        let sum = |of: fn(&Voucher) -> Account| -> u128 {
            let mine = mine.iter().map(|at| &self.vouchers[*at].0);
            mine.filter(|it| of(it) == account).map(|it| it.cumulative.0).sum()
        };
        let (earned, spent) = (sum(|it| it.payee), sum(|it| it.payer));
        let digests: Vec<_> = mine.iter().map(|at| self.vouchers[*at].1).collect();
        Leaf {
            account,
            delta: earned as i128 - spent as i128,
            gross: earned + spent,
            vouchers_root: merkle_root(&digests),
        }
    }

    pub(crate) fn index_of(&self, account: Account) -> usize {
        self.leaves.binary_search_by_key(&account, |leaf| leaf.account).unwrap()
    }

    fn mine(&self, account: Account) -> impl Iterator<Item = &Voucher> {
        self.listed[&account].iter().map(|at| &self.vouchers[*at].0)
    }

    /// What a settler shows of the leaf of an account when it is asked to.
    pub(crate) fn disclosure(&self, batch: u32, tree: &Tree, account: Account, keys: &[&Key]) -> Disclosure {
        let sign = |voucher: &Voucher| -> SignedVoucher {
            let signer = keys.iter().find(|key| key.account() == voucher.payer).unwrap();
            signer.voucher(voucher.clone(), &tree.genesis)
        };
        let Shown { batch, leaf, proof } = tree.show(batch, self.index_of(account));
        let vouchers = Bounded::new(self.mine(account).map(sign).collect()).unwrap();
        Disclosure { batch, leaf, proof, vouchers }
    }

    /// What the batch says of an account, for all to see.
    pub(crate) fn evidence(&self, tree: &Tree, account: Account) -> Evidence {
        match self.leaves.binary_search_by_key(&account, |leaf| leaf.account) {
            Ok(at) => {
                let Shown { leaf, proof, .. } = tree.show(0, at);
                let listed = Bounded::new(self.mine(account).cloned().collect()).unwrap();
                Evidence::Listed { leaf, proof, listed }
            }
            Err(next) => {
                let at = |index: usize| (tree.leaves[index], tree.prove(index));
                let before = next.checked_sub(1).map(at);
                Evidence::Absent { before, after: (next < tree.leaves.len()).then(|| at(next)) }
            }
        }
    }
}

/// A tree over any leaves, as a settler could submit it: nothing makes it add up or keeps its leaves in order.
pub(crate) struct Tree {
    pub(crate) leaves: Vec<Leaf>,
    genesis: Genesis,
    rows: Vec<Vec<SumNode>>,
}

impl Tree {
    pub(crate) fn over(leaves: Vec<Leaf>, genesis: Genesis) -> Self {
        Self::with_false_sum(leaves, genesis, None)
    }

    /// A tree whose node at a level and an index states so much less than there is.
    pub(crate) fn with_false_sum(
        leaves: Vec<Leaf>,
        genesis: Genesis,
        less: Option<(usize, usize, i128)>,
    ) -> Self {
        let mut rows = vec![leaves.iter().map(Leaf::node).collect::<Vec<_>>()];
        while rows.last().unwrap().len() > 1 {
            let above = |pair: &[SumNode]| match pair {
                [left, right] => SumNode::above(left, right).unwrap(),
                _ => pair[0],
            };
            let mut row: Vec<_> = rows.last().unwrap().chunks(2).map(above).collect();
            if let Some((level, index, less)) = less
                && level == rows.len()
            {
                row[index].sum -= less;
            }
            rows.push(row);
        }
        Self { leaves, genesis, rows }
    }

    pub(crate) fn root(&self) -> SumNode {
        self.rows.last().unwrap()[0]
    }

    pub(crate) fn leaf_count(&self) -> u32 {
        u32::try_from(self.leaves.len()).unwrap()
    }

    /// The partners on the way up from a node.
    fn partners(&self, level: usize, index: usize) -> Bounded<SumNode, 32> {
        let mut index = index;
        let mut partners = Bounded::empty();
        for row in &self.rows[level..] {
            if let Some(partner) = row.get(index ^ 1) {
                partners.push(*partner).unwrap();
            }
            index /= 2;
        }
        partners
    }

    pub(crate) fn prove(&self, index: usize) -> SumProof {
        let siblings = self.partners(0, index);
        SumProof { index: u32::try_from(index).unwrap(), leaf_count: self.leaf_count(), siblings }
    }

    pub(crate) fn show(&self, batch: u32, index: usize) -> Shown {
        Shown { batch, leaf: self.leaves[index], proof: self.prove(index) }
    }

    /// What shows that a node states another sum than there is beneath it.
    pub(crate) fn bad_sum(&self, level: usize, index: usize) -> potluck_primitives::BadSum {
        let (left, right) = (self.rows[level - 1][index * 2], self.rows[level - 1][index * 2 + 1]);
        potluck_primitives::BadSum {
            level: u32::try_from(level).unwrap(),
            index: u32::try_from(index).unwrap(),
            node: self.rows[level][index],
            beneath: Beneath::Nodes { left, right },
            siblings: self.partners(level, index),
        }
    }
}
