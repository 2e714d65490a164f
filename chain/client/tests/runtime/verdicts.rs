//! From a stake to a slash: a verdict of the drawn verifiers, appeals, and what governance rules on them.

use potluck_chain_client::{Call, Proposal, spec::known_key};
use potluck_primitives::{
    Account, Block, Bounded, Class, MicroCredits, PolicyHash, PolicyKind, PoolClass, Registration,
    SignatureBytes, SignedVerdict, Verdict, find_work,
};

use super::{
    chain::{Chain, Person, block_of},
    model::{CREDIT, Model},
};

const POLICY: PolicyHash = PolicyHash([8; 32]);
const VERIFIERS: [&str; 3] = ["verifier1", "verifier2", "verifier3"];
/// Blocks in which a verdict can be appealed, and what an appeal has at stake.
const APPEAL_WINDOW: u32 = 5;
const APPEAL_BOND: u128 = 10 * CREDIT;

struct Scene {
    chain: Chain,
    model: Model,
    alice: Person,
    /// The provider.
    bob: Person,
    carol: Person,
    verifiers: Vec<Person>,
}

impl Scene {
    async fn set() -> Option<Self> {
        let chain = Chain::start("a_verdict_is_appealed_ruled_on_and_executed_in_proportion", &[]).await?;
        let alice = chain.person("alice").await;
        let names = ["alice", "bob", "carol", "dave", "settler", "verifier1", "verifier2", "verifier3"];
        let people: Vec<_> = names.iter().map(|name| (*name, known_key(name).account())).collect();
        let model = Model::read(&alice, &people).await;
        let mut verifiers = Vec::new();
        for name in VERIFIERS {
            verifiers.push(chain.person(name).await);
        }
        let (bob, carol) = (chain.person("bob").await, chain.person("carol").await);
        Some(Self { model, alice, bob, carol, verifiers, chain })
    }

    async fn stake(&mut self, verifier: usize, credits: u128) {
        let verifier = &self.verifiers[verifier];
        verifier.done(Call::Stake(MicroCredits(credits * CREDIT))).await;
        verifier.done(Call::JoinVerifiers).await;
        let account = verifier.account();
        (0..2).for_each(|_| self.model.fee(account));
        self.model.hold(account, credits * CREDIT);
    }

    /// The provider registers for nothing, stakes, and sends a part of the stake on its way out.
    async fn serve(&mut self) {
        let head = self.bob.head().await.number;
        let registration = Registration {
            account: self.bob.account(),
            peer: self.bob.account(),
            hardware: Class::new("test"),
            models: Bounded::empty(),
            endpoint: [4; 32],
            sequence: 1,
            at: Block(head),
        };
        let work = find_work(&registration.digest(&self.bob.genesis()), 8, 0, u64::MAX).unwrap();
        let signed = self.bob.key.registration(registration, work, &self.bob.genesis());
        self.bob.done(Call::Register(signed)).await;
        self.bob.done(Call::Stake(MicroCredits(60 * CREDIT))).await;
        self.bob.done(Call::Unstake(MicroCredits(20 * CREDIT))).await;
        let bob = self.bob.account();
        (0..2).for_each(|_| self.model.fee(bob));
        self.model.hold(bob, 60 * CREDIT);
        self.model.check_all(&self.bob).await;
    }

    /// A verdict about the provider with as many signatures of those who were drawn.
    async fn verdict(&self, job: u8, parts: u32, signatures: usize) -> SignedVerdict {
        let (head, at) = self.alice.live.node.latest().await.unwrap();
        let block = head.number - 1;
        let (provider, job) = (self.bob.account(), [job; 16]);
        let sample = self.alice.live.node.sample(&at, provider, job, block).await.unwrap().unwrap();
        assert_eq!((sample.drawn.len(), sample.quorum), (3, 2));
        let verdict = Verdict { job, provider, evidence: [9; 32], policy: POLICY, parts, at: Block(block) };
        let sign = |account: &Account| -> (Account, SignatureBytes) {
            let verifier = self.verifiers.iter().find(|it| it.account() == *account).unwrap();
            verifier.key.verdict(&verdict, &verifier.genesis())
        };
        let signed = sample.drawn.iter().take(signatures).map(sign).collect();
        SignedVerdict::new(verdict, signed).unwrap()
    }

    /// Brings a verdict of two verifiers; the last block in which it can be appealed.
    async fn judge(&mut self, job: u8, parts: u32) -> (SignedVerdict, u32) {
        let verdict = self.verdict(job, parts, 2).await;
        let call = Call::SubmitVerdict(Box::new(verdict.clone()));
        let done = self.carol.done(call).await;
        self.model.fee(self.carol.account());
        (verdict, block_of(&done).0 + APPEAL_WINDOW)
    }

    /// So much of what is at stake is gone: a fifth of it to who signed, the rest to the treasury.
    fn slashed(&mut self, verdict: &SignedVerdict, amount: u128) {
        let bob = self.bob.account();
        let signers: Vec<_> = verdict.signatures.iter().map(|(account, _)| *account).collect();
        let each = amount / 5 / signers.len() as u128;
        for signer in &signers {
            self.model.take(bob, each, Some(*signer));
        }
        self.model.take(bob, amount - each * signers.len() as u128, None);
    }

    async fn appeal(&mut self, job: u8) {
        self.bob.done(Call::Appeal { job: [job; 16] }).await;
        self.model.fee(self.bob.account());
        self.model.hold(self.bob.account(), APPEAL_BOND);
        self.model.check_all(&self.bob).await;
    }

    async fn rule(&mut self, job: u8, upheld: bool) {
        let provider = self.bob.account();
        let proposal = Proposal::Rule { provider, job: [job; 16], upheld };
        self.chain.pass(&self.alice, proposal).await;
        match upheld {
            true => self.model.take(provider, APPEAL_BOND, None),
            false => self.model.release(provider, APPEAL_BOND),
        }
        self.model.check_all(&self.bob).await;
    }

    fn execute(&self, job: u8) -> Call {
        Call::ExecuteVerdict { provider: self.bob.account(), job: [job; 16] }
    }

    /// What is active and what is on its way out, in micro-credits.
    async fn at_stake(&self) -> (u128, u128) {
        let (_, at) = self.bob.live.node.latest().await.unwrap();
        let found = self.bob.live.node.provider(&at, self.bob.account()).await.unwrap();
        (found.stake.0, found.unbonding.iter().map(|(amount, _)| amount.0).sum())
    }

    /// Verdicts that do not hold.
    async fn refused(&self) {
        let few = self.verdict(1, 250_000, 1).await;
        let good = self.verdict(1, 250_000, 2).await;
        let mut signatures = good.signatures.to_vec();
        signatures[0] = self.alice.key.verdict(&good.verdict, &self.alice.genesis());
        let stranger = SignedVerdict::new(good.verdict.clone(), signatures).unwrap();
        let mut forged = good.clone();
        forged.verdict.parts = 1_000_000;
        let mut other = good;
        other.verdict.policy = PolicyHash([7; 32]);
        for (verdict, why) in
            [(few, "TooFew"), (stranger, "Stranger"), (forged, "Forged"), (other, "NotApproved")]
        {
            self.alice.refused(Call::SubmitVerdict(Box::new(verdict)), why).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_appealed_ruled_on_and_executed_in_proportion() {
    let Some(mut scene) = Scene::set().await else { return };
    let approve = Proposal::Approve {
        kind: PolicyKind::Slashing,
        class: PoolClass::PUBLIC,
        hash: POLICY,
        activates_at: Block(scene.alice.head().await.number + 18),
        uri: Vec::new(),
    };
    scene.chain.pass(&scene.alice, approve).await;
    for verifier in 0..VERIFIERS.len() {
        scene.stake(verifier, 100 + 10 * verifier as u128).await;
    }
    scene.serve().await;
    // The policy is in force, and the verifiers are those of a past block.
    let head = scene.alice.head().await.number;
    scene.chain.go_to(&scene.alice, head.max(20) + 3).await;
    scene.refused().await;

    // Not appealed: a quarter, of what is on its way out too, and no block too early.
    let (verdict, until) = scene.judge(1, 250_000).await;
    scene.bob.refused(Call::WithdrawUnstaked, "UnderVerdict").await;
    scene.chain.go_to(&scene.alice, until - 1).await;
    scene.alice.refused(scene.execute(1), "TooEarly").await;
    scene.carol.done(scene.execute(1)).await;
    scene.model.fee(scene.carol.account());
    scene.slashed(&verdict, 15 * CREDIT);
    scene.model.check_all(&scene.carol).await;
    assert_eq!(scene.at_stake().await, (25 * CREDIT, 20 * CREDIT));

    // Appealed and upheld: the bond is lost too.
    let (verdict, _) = scene.judge(2, 500_000).await;
    scene.appeal(2).await;
    scene.alice.refused(scene.execute(2), "TooEarly").await;
    scene.rule(2, true).await;
    scene.carol.done(scene.execute(2)).await;
    scene.model.fee(scene.carol.account());
    scene.slashed(&verdict, 22 * CREDIT + CREDIT / 2);
    scene.model.check_all(&scene.carol).await;
    assert_eq!(scene.at_stake().await, (2 * CREDIT + CREDIT / 2, 20 * CREDIT));

    // Appealed and overturned: nothing is lost, and nobody is judged twice for one job.
    let (verdict, _) = scene.judge(3, 1_000_000).await;
    scene.appeal(3).await;
    scene.rule(3, false).await;
    scene.alice.refused(scene.execute(3), "UnknownVerdict").await;
    scene.alice.refused(Call::SubmitVerdict(Box::new(verdict)), "AlreadyJudged").await;
    scene.model.check_all(&scene.carol).await;
    assert_eq!(scene.at_stake().await, (2 * CREDIT + CREDIT / 2, 20 * CREDIT));
    scene.chain.report_times();
}
