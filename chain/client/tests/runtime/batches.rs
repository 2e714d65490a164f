//! A batch of an honest settler: disputed for nothing, then paid out.

use potluck_chain_client::{
    Call,
    call::{Disclosure, Omission},
    query::Standing,
    spec::known_key,
};
use potluck_primitives::{Account, Bounded, MicroCredits, SumTree, Voucher};

use super::{
    books::{Books, LEAVES, Tree, netted},
    chain::{Chain, Person, block_of},
    model::{CREDIT, Model},
};

/// Blocks of an epoch of the development chain, and of its other windows.
pub(crate) const EPOCH: u32 = 10;
const DISPUTE: u32 = 5;
const RESPONSE: u32 = 3;
const CLAIMS: u32 = 100;
/// What a settler has at stake whatever it submits, and what the first challenger has, in micro-credits.
const BOND: u128 = 1_000 * CREDIT;
pub(crate) const CHALLENGE: u128 = 5 * CREDIT;

pub(crate) fn bond_of(gross: u128) -> u128 {
    BOND + gross.div_ceil(100)
}

/// Submits a batch and gives its number and its block.
pub(crate) async fn submit(
    settler: &Person,
    epoch: u32,
    tree: &Tree,
    gross: u128,
    model: &mut Model,
) -> (u32, u32) {
    let (root, leaf_count) = (tree.root(), tree.leaf_count());
    let call = Call::SubmitBatch { epoch, root, leaf_count, gross: MicroCredits(gross) };
    let done = settler.done(call.clone()).await;
    model.fee(settler.account());
    model.hold(settler.account(), bond_of(gross));
    let (bytes, time, _) = settler.cost(&call, &done).await;
    println!("a batch of {leaf_count} leaves: {bytes} bytes, {} µs", time / 1_000_000);
    assert!(bytes < 300, "far less than a byte for each leaf");
    let (block, notes) = block_of(&done);
    (notes[0].strip_prefix("batch ").unwrap().parse().unwrap(), block)
}

/// What named people owe each other in an epoch; the last voucher is the one that the settler will leave out.
fn owed(settler: Account, epoch: u32) -> Vec<Voucher> {
    let of = |payer: &str, payee: &str, amount| {
        netted(settler, epoch, known_key(payer).account(), known_key(payee).account(), amount)
    };
    vec![
        of("alice", "dave", 3 * CREDIT + 1),
        of("bob", "dave", 2 * CREDIT),
        of("carol", "alice", CREDIT / 2 + 3),
        of("alice", "carol", CREDIT),
        of("bob", "carol", CREDIT * 7 / 10),
    ]
}

struct Scene {
    chain: Chain,
    model: Model,
    settler: Person,
    alice: Person,
    bob: Person,
    carol: Person,
    dave: Person,
}

impl Scene {
    async fn set() -> Option<Self> {
        let chain = Chain::start("an_honest_batch_is_disputed_in_vain_and_paid_out", &[]).await?;
        let names = ["alice", "bob", "carol", "dave", "settler", "verifier1", "verifier2", "verifier3"];
        let people: Vec<_> = names.iter().map(|name| (*name, known_key(name).account())).collect();
        let settler = chain.person("settler").await;
        let model = Model::read(&settler, &people).await;
        Some(Self {
            model,
            alice: chain.person("alice").await,
            bob: chain.person("bob").await,
            carol: chain.person("carol").await,
            dave: chain.person("dave").await,
            settler,
            chain,
        })
    }

    async fn prepare(&mut self) {
        self.settler.done(Call::RegisterSettler).await;
        self.model.fee(self.settler.account());
        let limit = MicroCredits(20 * CREDIT);
        for payer in [&self.alice, &self.bob, &self.carol] {
            payer.done(Call::Deposit(limit)).await;
            self.model.deposit(payer.account(), limit.0);
            let settler = self.settler.account();
            payer.done(Call::AllowSettler { settler, limit }).await;
            self.model.fee(payer.account());
        }
    }

    /// A leaf is challenged; a wrong answer does not count, the right one takes the challenger's bond.
    async fn dispute(&mut self, batch: u32, books: &Books, tree: &Tree) {
        let dave = self.dave.account();
        let index = u32::try_from(books.index_of(dave)).unwrap();
        self.bob.done(Call::ChallengeLeaf { batch, index }).await;
        self.model.fee(self.bob.account());
        self.model.hold(self.bob.account(), CHALLENGE);
        self.model.check(&self.bob).await;
        let keys = [&self.alice.key, &self.bob.key, &self.carol.key];
        let right = books.disclosure(batch, tree, dave, &keys);
        let some = right.vouchers.iter().take(1).cloned().collect();
        let wrong = Disclosure { vouchers: Bounded::new(some).unwrap(), ..right.clone() };
        self.settler.refused(Call::AnswerLeaf(Box::new(wrong)), "BadAnswer").await;
        self.settler.done(Call::AnswerLeaf(Box::new(right))).await;
        self.model.fee(self.settler.account());
        self.model.lose(self.bob.account(), CHALLENGE, self.settler.account());
        self.bob.refused(Call::ChallengeLeaf { batch, index }, "AlreadyChallenged").await;
        self.model.check(&self.bob).await;
    }

    /// Debits come first, then what is paid from them; everybody's part is known to the micro-credit.
    async fn claim(&mut self, batch: u32, books: &Books, tree: &Tree) {
        let mut leaves: Vec<_> = ["alice", "bob", "carol", "dave"]
            .map(|name| books.index_of(known_key(name).account()))
            .map(|index| (tree.leaves[index].delta, index))
            .to_vec();
        leaves.sort_unstable();
        for (delta, index) in leaves {
            let call = Call::Claim(Box::new(tree.show(batch, index)));
            let done = self.dave.done(call.clone()).await;
            let (bytes, time, _) = self.dave.cost(&call, &done).await;
            println!("a claim of one leaf of {LEAVES}: {bytes} bytes, {} µs", time / 1_000_000);
            assert!(bytes < 1_000, "with a thousand receipts in a leaf, less than a byte for each");
            let (account, amount) = (tree.leaves[index].account, delta.unsigned_abs());
            match delta < 0 {
                true => self.model.debit(account, amount),
                false => self.model.credit(account, amount),
            }
            self.model.check_all(&self.dave).await;
        }
    }

    /// What the settler left out is paid with the proof that it did.
    async fn omitted(&mut self, batch: u32, books: &Books, tree: &Tree, voucher: &Voucher) {
        let evidence = books.evidence(tree, voucher.payee);
        let signed = self.bob.key.voucher(voucher.clone(), &self.bob.genesis());
        let omission = Omission { batch, evidence, voucher: signed };
        let call = Call::RedeemOmitted(Box::new(omission));
        self.dave.done(call.clone()).await;
        self.model.redeem(voucher.payer, voucher.payee, 0, voucher.cumulative.0);
        let again = self.dave.ask(call).await;
        assert_eq!(again.outcome, potluck_chain_client::outbox::Outcome::AlreadyDone);
    }

    /// The bond goes back; the batch is closed once its time is over.
    async fn end(&mut self, batch: u32, gross: u128, closable: u32) {
        self.settler.done(Call::ReleaseBond { batch }).await;
        self.model.fee(self.settler.account());
        self.model.release(self.settler.account(), bond_of(gross));
        // A call is in the block after the last one.
        self.chain.go_to(&self.settler, closable - 2).await;
        self.settler.refused(Call::CloseBatch { batch }, "Unsettled").await;
        self.settler.done(Call::CloseBatch { batch }).await;
        self.model.fee(self.settler.account());
        self.model.close();
        let (_, at) = self.settler.live.node.latest().await.unwrap();
        let found = self.settler.live.node.batch(&at, batch).await.unwrap().unwrap();
        assert_eq!((found.standing, found.settled, found.pot.0), (Standing::Closed, 4, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_batch_is_disputed_in_vain_and_paid_out() {
    let Some(mut scene) = Scene::set().await else { return };
    scene.prepare().await;
    let epoch = scene.settler.head().await.number / EPOCH;
    let mut owed = owed(scene.settler.account(), epoch);
    let omitted = owed.pop().unwrap();
    let genesis = scene.settler.genesis();
    let books = Books::of(scene.settler.account(), epoch, &owed, &genesis);
    assert_eq!(books.leaves.len(), LEAVES);
    let tree = Tree::over(books.leaves.clone(), genesis);
    // What is submitted is what the product's own tree gives.
    let sums = SumTree::build(books.leaves.clone()).unwrap();
    assert_eq!((tree.root(), sums.root().sum), (sums.root(), 0));
    assert_eq!(sums.prove(77_777).unwrap(), tree.prove(77_777));

    let early = Call::SubmitBatch {
        epoch,
        root: tree.root(),
        leaf_count: tree.leaf_count(),
        gross: MicroCredits(books.gross),
    };
    scene.settler.refused(early, "WrongEpoch").await;
    assert_eq!(scene.chain.end_of_epoch(&scene.settler, EPOCH).await, epoch);
    let (batch, block) = submit(&scene.settler, epoch, &tree, books.gross, &mut scene.model).await;
    scene.dispute(batch, &books, &tree).await;
    let (_, at) = scene.settler.live.node.latest().await.unwrap();
    let found = scene.settler.live.node.batch(&at, batch).await.unwrap().unwrap();
    assert_eq!(found.challenges_until, block + DISPUTE);
    assert_eq!(found.closable_from, block + DISPUTE + 2 * RESPONSE + CLAIMS);
    assert!(found.proofs_until > found.challenges_until, "an answer gives time to look at it");
    let (head, until) = (scene.settler.head().await.number, found.proofs_until);
    scene.chain.go_to(&scene.settler, until.max(head)).await;
    let bond = Call::ReleaseBond { batch };
    if head < until {
        assert!(!found.is_final(until) && found.is_final(until + 1));
    }
    scene.claim(batch, &books, &tree).await;
    scene.omitted(batch, &books, &tree, &omitted).await;
    scene.model.check_all(&scene.dave).await;
    scene.end(batch, books.gross, found.closable_from).await;
    scene.settler.refused(bond, "NoBond").await;
    scene.model.check_all(&scene.dave).await;
    scene.chain.report_times();
}
