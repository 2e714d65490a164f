//! Batches of dishonest settlers: each kind is shown to be wrong in one step, costs the settler its bond, and leaves
//! its vouchers to be paid one by one.

use futures::StreamExt as _;
use potluck_chain_client::{
    Call,
    call::{Knowledge, Stale},
    query::Standing,
    spec::known_key,
    watch::Event,
};
use potluck_primitives::{Account, Duplicate, Genesis, Leaf, MicroCredits, Voucher};

use super::{
    batches::{CHALLENGE, EPOCH, bond_of, submit},
    books::{Books, LEAVES, Tree, netted},
    chain::{Chain, Person},
    model::{CREDIT, Model},
};

/// What a settler does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// A friend is given what nobody is debited; a node states a sum that hides it.
    BadSum,
    /// A friend has two leaves; who pays for the second never signed for it.
    Twice,
    /// The same, the second leaf hidden at the end.
    OutOfOrder,
    /// An older voucher is counted than the settler promised to.
    CountsLess,
    /// A voucher is left out that the settler promised to count.
    LeavesOut,
    /// Nobody is shown the vouchers of a leaf.
    Silent,
}

const KINDS: [(&str, Wrong); 6] = [
    ("settler", Wrong::BadSum),
    ("settler2", Wrong::Twice),
    ("settler3", Wrong::OutOfOrder),
    ("settler4", Wrong::CountsLess),
    ("settler5", Wrong::LeavesOut),
    ("settler6", Wrong::Silent),
];
/// The row of the node that hides what a friend is given.
const LEVEL: usize = 7;
/// What the friend is given beside what is due, in micro-credits.
const STOLEN: i128 = 5_000_000;

/// What the settler has, what it submits, and what shows that this is wrong.
struct Case {
    wrong: Wrong,
    books: Books,
    tree: Tree,
    /// What is due to the friend and what to the one who is left out, as the payers signed it.
    due: Vec<Voucher>,
}

impl Case {
    fn of(wrong: Wrong, settler: Account, epoch: u32, genesis: Genesis) -> Self {
        let account = |name: &str| known_key(name).account();
        let of = |payer, payee, amount| netted(settler, epoch, account(payer), account(payee), amount);
        let newer = of("alice", "dave", 3 * CREDIT);
        let mut counted = vec![newer.clone(), of("bob", "dave", CREDIT)];
        let mut due = vec![newer.clone()];
        match wrong {
            Wrong::CountsLess => counted[0].cumulative = MicroCredits(CREDIT),
            Wrong::LeavesOut => due.push(of("bob", "carol", 2 * CREDIT)),
            _ => {}
        }
        let books = Books::of(settler, epoch, &counted, &genesis);
        let (friend, payer) = (books.index_of(account("dave")), books.index_of(account("alice")));
        let mut leaves = books.leaves.clone();
        let tree = match wrong {
            Wrong::BadSum => {
                leaves[friend].delta += STOLEN;
                let hidden = Some((LEVEL, friend >> LEVEL, STOLEN));
                Tree::with_false_sum(leaves, genesis, hidden)
            }
            Wrong::Twice | Wrong::OutOfOrder => {
                leaves[payer].delta -= STOLEN;
                let second = Leaf { delta: STOLEN, ..leaves[friend] };
                let at = if wrong == Wrong::Twice { friend + 1 } else { leaves.len() };
                leaves.insert(at, second);
                Tree::over(leaves, genesis)
            }
            _ => Tree::over(leaves, genesis),
        };
        assert_eq!(tree.root().sum, 0, "what does not add up at the root is refused at once");
        assert!(tree.leaf_count() as usize >= LEAVES);
        Self { wrong, books, tree, due }
    }

    fn friend(&self) -> usize {
        self.books.index_of(known_key("dave").account())
    }

    /// What shows the fault in one step; the voucher was promised by the settler.
    fn proof(&self, batch: u32, settler: &Person, payers: [&Person; 2]) -> Call {
        let genesis = settler.genesis();
        match self.wrong {
            Wrong::BadSum => {
                let fault = self.tree.bad_sum(LEVEL, self.friend() >> LEVEL);
                Call::ProveBadSum { batch, fault: Box::new(fault) }
            }
            Wrong::Twice => self.duplicate(batch, self.friend(), self.friend() + 1),
            Wrong::OutOfOrder => {
                let last = self.tree.leaves.len() - 1;
                self.duplicate(batch, last - 1, last)
            }
            Wrong::CountsLess | Wrong::LeavesOut => {
                let voucher = self.due.last().unwrap();
                let payer = payers.iter().find(|it| it.account() == voucher.payer).unwrap();
                Call::ProveStale(Box::new(Stale {
                    batch,
                    evidence: self.books.evidence(&self.tree, voucher.payee),
                    knowledge: Knowledge::Acknowledged(settler.key.acknowledge(voucher, &genesis)),
                    voucher: payer.key.voucher(voucher.clone(), &genesis),
                }))
            }
            Wrong::Silent => Call::ExpireChallenge { batch, index: u32::try_from(self.friend()).unwrap() },
        }
    }

    fn duplicate(&self, batch: u32, first: usize, second: usize) -> Call {
        let fault = Duplicate {
            first: self.tree.leaves[first],
            first_proof: self.tree.prove(first),
            second: self.tree.leaves[second],
            second_proof: self.tree.prove(second),
        };
        Call::ProveDuplicate { batch, fault: Box::new(fault) }
    }
}

struct Scene {
    chain: Chain,
    model: Model,
    alice: Person,
    bob: Person,
    /// Who watches settlers, and has no tokens.
    carol: Person,
}

impl Scene {
    /// The settler does wrong and is caught.
    async fn catch(&mut self, name: &'static str, wrong: Wrong) {
        println!("-- {wrong:?}");
        let settler = self.chain.person(name).await;
        settler.done(Call::RegisterSettler).await;
        self.model.fee(settler.account());
        let epoch = self.carol.head().await.number / EPOCH;
        let case = Case::of(wrong, settler.account(), epoch, settler.genesis());
        assert_eq!(self.chain.end_of_epoch(&self.carol, EPOCH).await, epoch);
        let mut events = Box::pin(self.carol.live.listening.events());
        let gross = case.books.gross;
        let (batch, block) = submit(&settler, epoch, &case.tree, gross, &mut self.model).await;
        if wrong == Wrong::Silent {
            self.wait_in_vain(batch, &case).await;
        } else {
            // A proof about another batch, or of what is no fault, does not count.
            let other = case.proof(batch + 1, &settler, [&self.alice, &self.bob]);
            self.alice.refused(other, "UnknownBatch").await;
        }
        let proof = case.proof(batch, &settler, [&self.alice, &self.bob]);
        self.carol.done(proof.clone()).await;
        self.model.fee(self.carol.account());
        if wrong == Wrong::Silent {
            self.model.release(self.carol.account(), CHALLENGE);
        }
        self.model.lose(settler.account(), bond_of(gross), self.carol.account());
        self.model.check_all(&self.carol).await;
        let (head, at) = settler.live.node.latest().await.unwrap();
        let found = settler.live.node.batch(&at, batch).await.unwrap().unwrap();
        assert_eq!((found.standing, found.bond.0, found.open), (Standing::Void, 0, 0));
        assert!(head.number > block);
        self.alice.refused(proof, "NotDisputable").await;
        self.heard(&mut events, batch, bond_of(gross) / 2).await;
        self.pay(&case).await;
        settler.leave().await;
    }

    /// A leaf is challenged, and the time for an answer passes.
    async fn wait_in_vain(&mut self, batch: u32, case: &Case) {
        let index = u32::try_from(case.friend()).unwrap();
        self.carol.done(Call::ChallengeLeaf { batch, index }).await;
        self.model.fee(self.carol.account());
        self.model.hold(self.carol.account(), CHALLENGE);
        self.alice.refused(Call::ExpireChallenge { batch, index }, "TooEarly").await;
        // An answer that counts nothing is none.
        let keys = [&self.alice.key, &self.bob.key];
        let mut none = case.books.disclosure(batch, &case.tree, known_key("dave").account(), &keys);
        none.vouchers = potluck_primitives::Bounded::empty();
        self.alice.refused(Call::AnswerLeaf(Box::new(none)), "BadAnswer").await;
        let head = self.carol.head().await.number;
        self.chain.go_to(&self.carol, head + 2).await;
    }

    /// Who watches has heard of all of it, in order.
    async fn heard(
        &self,
        events: &mut (impl futures::Stream<Item = Event> + Unpin),
        batch: u32,
        reward: u128,
    ) {
        let mut submitted = false;
        let looking = async {
            while let Some(event) = events.next().await {
                match event {
                    Event::BatchSubmitted { batch: of, .. } if of == batch => submitted = true,
                    Event::BatchVoided { batch: of, winner, reward: got } if of == batch => {
                        assert_eq!((winner, got.0), (self.carol.account(), reward));
                        return;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), looking).await.unwrap();
        assert!(submitted);
    }

    /// The vouchers of a void batch are paid one by one.
    async fn pay(&mut self, case: &Case) {
        let payers = [&self.alice, &self.bob];
        let sign = |voucher: &Voucher| {
            let payer = payers.iter().find(|it| it.account() == voucher.payer).unwrap();
            payer.key.voucher(voucher.clone(), &self.carol.genesis())
        };
        let vouchers = case.due.iter().map(sign).collect();
        self.carol.done(Call::Redeem(vouchers)).await;
        for voucher in &case.due {
            self.model.redeem(voucher.payer, voucher.payee, 0, voucher.cumulative.0);
        }
        self.model.check_all(&self.carol).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_dishonest_settler_is_caught_and_loses_its_bond() {
    let name = "every_kind_of_dishonest_settler_is_caught_and_loses_its_bond";
    let more: Vec<_> = KINDS.iter().skip(1).map(|(name, _)| *name).collect();
    let Some(chain) = Chain::start(name, &more).await else { return };
    let (alice, bob, carol) =
        (chain.person("alice").await, chain.person("bob").await, chain.person("carol").await);
    let names = ["alice", "bob", "carol", "dave", "settler", "verifier1", "verifier2", "verifier3"];
    let people: Vec<_> =
        names.iter().copied().chain(more).map(|name| (name, known_key(name).account())).collect();
    let mut model = Model::read(&alice, &people).await;
    for payer in [&alice, &bob] {
        payer.done(Call::Deposit(MicroCredits(50 * CREDIT))).await;
        model.deposit(payer.account(), 50 * CREDIT);
    }
    let mut scene = Scene { chain, model, alice, bob, carol };
    for (name, wrong) in KINDS {
        scene.catch(name, wrong).await;
    }
    scene.chain.report_times();
}
