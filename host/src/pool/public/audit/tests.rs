use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use parity_scale_codec::Encode;
use potluck_kernels::{audit::Decision, dtype::DType, gguf::Gguf, synthetic::requantize};
use potluck_primitives::{Bounded, Class, Genesis, MicroCredits, PolicyHash, UnixMillis};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    canary::{self, Dice},
    charge::{Charge, Drawn, Judge},
    committee::{self, Bench, Court, NoVerdict, NoWord},
    examine::{ExamineError, Examiner, Report},
    record::{Docket, RecordError},
    rounds::Rounds,
    transcript::{Ending, Transcript, TranscriptError},
};
use crate::{
    blob::{Kind, source::Found},
    dispatch::health::Health,
    identity::{NodeId, Signer},
    inference::{Device, Inference, InferenceConfig},
    job::{Input, Job, JobError, Reply},
    mesh::streams::{BoxFuture, Inbound, OpenError, Stream, Streams},
    policy::types::{self, Evidence, Judgement, Outcome},
    pool::public::{
        budget::{Budget, Budgets},
        fixture::{Booth, Mint, RATES, Wires, stories, timers},
        market::{Candidate, Market, Native, tests::Known},
        offer::{ModelOffer, SignedOffer, tests::offer},
        provider::{AskConfig, Given, Parts},
        receipts::{ReceiptBook, now_ms},
        session::serve::Engine,
    },
};

const MODEL: &str = "stories260K-f32";

/// What a provider does to a job before it answers.
type Twist = fn(&mut Job);

/// An engine that does not do as it is asked.
#[derive(Debug)]
struct Twisted(Inference, Twist);

impl Engine for Twisted {
    fn count(&self, job: Job) -> BoxFuture<'_, Result<u64, JobError>> {
        Box::pin(self.0.count(job))
    }

    fn submit(&self, mut job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(async move {
            (self.1)(&mut job);
            self.0.submit_vouched(job).await
        })
    }
}

/// The small model with cheaper weights, under the same name.
async fn cheap(dtype: DType) -> Inference {
    let gguf = Gguf::open(&model_file()).unwrap();
    let home = tempfile::tempdir().unwrap().keep();
    let path = home.join(format!("{MODEL}.gguf"));
    requantize(&gguf, dtype).unwrap().write(&mut std::fs::File::create(&path).unwrap()).unwrap();
    let config = InferenceConfig {
        home,
        models: vec![path.display().to_string()],
        device: Device::Cpu,
        threads: Some(1),
        caches: false,
        ..InferenceConfig::default()
    };
    Inference::bind(config).await.unwrap()
}

fn model_file() -> PathBuf {
    let root = std::env::var_os("POTLUCK_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    root.join("models/stories260K-f32.gguf")
}

async fn digest(inference: &Inference) -> [u8; 32] {
    let mut finding = inference.blobs().find(Kind::Model, MODEL).await.unwrap();
    let found =
        finding.wait_for(|found| matches!(found, Found::Known(item) if item.id.is_some())).await.unwrap();
    let Found::Known(item) = &*found else { unreachable!() };
    item.id.unwrap().0
}

/// A verifier with its own copy of the model, and one provider.
struct World {
    booth: Booth,
    parts: Parts,
    candidate: Candidate,
    examiner: Examiner,
    dice: Dice,
    folder: tempfile::TempDir,
}

async fn world(engine: Arc<dyn Engine>, verifier: Inference) -> World {
    let mint = Arc::new(Mint::default());
    let booth = Booth::new(1, engine, mint.clone(), RATES);
    let wires = Arc::new(Wires::default());
    wires.add(&booth);
    let folder = tempfile::tempdir().unwrap();
    let mut plain = offer(1, now_ms());
    let model = ModelOffer {
        name: Bounded::new(MODEL.as_bytes().to_vec()).unwrap(),
        digest: digest(&verifier).await,
        quantisation: Class::new("F32"),
        context: 512,
        rates: RATES,
    };
    plain.models = Bounded::new(vec![model.clone()]).unwrap();
    plain.provider = booth.signer.node().0;
    let market = Arc::new(Market::new(Arc::new(Known(Default::default(), true))));
    market.take(&SignedOffer::sign(plain, &booth.signer).unwrap().encode(), UnixMillis(now_ms())).unwrap();
    let listed = market.offers(UnixMillis(now_ms())).remove(0);
    let health = Arc::new(Health::default());
    let seen = health.seen(booth.signer.node(), MODEL, "public", tokio::time::Instant::now());
    let budget =
        Budget { job: MicroCredits(100_000), day: MicroCredits(1_000_000_000), keys: BTreeMap::new() };
    let parts = Parts {
        config: AskConfig { timers: timers(), ..AskConfig::default() },
        me: [0; 32],
        market,
        chooser: Arc::new(Native),
        circuits: wires,
        purse: mint,
        budgets: Budgets::open(budget, folder.path().join("spent.json")),
        receipts: Arc::new(ReceiptBook::open(&folder.path().join("receipts")).unwrap()),
        health,
    };
    let candidate = Candidate { listed, model, seen };
    World { booth, parts, candidate, examiner: Examiner::new(verifier), dice: Dice::of(7), folder }
}

impl World {
    async fn transcript(&mut self, most: u32) -> Transcript {
        let job = Job { max_tokens: Some(most), ..canary::job(MODEL, false, &mut self.dice) };
        canary::ask(&self.parts, &self.candidate, &job).await.unwrap()
    }

    async fn audit(&mut self, most: u32) -> (Transcript, Report) {
        let transcript = self.transcript(most).await;
        let report = self.examiner.examine(&transcript).await.unwrap();
        (transcript, report)
    }

    fn docket(&self) -> Docket {
        Docket::open(&self.folder.path().join("audit")).unwrap()
    }
}

/// How many answers a test takes: more where somebody has the time.
fn answers(few: usize) -> usize {
    std::env::var("POTLUCK_AUDITS").ok().and_then(|n| n.parse().ok()).unwrap_or(few)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_honest_are_never_convicted() {
    let (Some(serving), Some(own)) = (stories().await, stories().await) else { return };
    let mut world = world(Arc::new(serving), own).await;
    let docket = world.docket();
    let (count, mut tokens) = (answers(30), 0);
    for n in 0..count {
        let (transcript, report) = world.audit([16, 40, 70][n % 3]).await;
        assert_eq!(report.outcome(), Outcome::Passed, "{report:?}");
        assert_eq!(report.differing, 0, "two CPUs find the same bits");
        tokens += report.tokens;
        assert_ne!(docket.enter(now_ms(), &report, &transcript).unwrap(), Decision::Convict);
    }
    let standing = docket.standing(world.booth.signer.node());
    assert_eq!((standing.passed as usize, standing.failed), (count, 0));
    println!("{count} honest answers of {tokens} tokens passed, none failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verifier_goes_its_rounds_and_is_asked_for_nothing_more_than_others() {
    let (Some(serving), Some(own)) = (stories().await, stories().await) else { return };
    let world = world(Arc::new(serving), own).await;
    let docket = Arc::new(world.docket());
    let (provider, parts) = (world.booth.signer.node(), Arc::new(world.parts));
    let rounds = Rounds {
        ready: Arc::new(Given(parts.clone())),
        examiner: Arc::new(world.examiner),
        docket: docket.clone(),
        every: Duration::from_secs(1),
    };
    let mut dice = Dice::of(3);
    let report = rounds.once(&mut dice).await.unwrap();
    assert_eq!((report.provider(), report.outcome()), (provider, Outcome::Passed));
    assert_eq!(docket.standing(provider).passed, 1);
    assert_eq!(parts.receipts.sums().0.jobs + parts.receipts.sums().1.jobs, 1, "a receipt like any other");
}

/// After how many answers a provider is convicted.
async fn convicted_after(engine: Arc<dyn Engine>, own: Inference) -> (usize, Charge) {
    let mut world = world(engine, own).await;
    let docket = world.docket();
    for n in 1..=40 {
        let (transcript, report) = world.audit(100).await;
        println!(
            "answer {n}: {:?}, {} of {} tokens differ",
            report.outcome(),
            report.differing,
            report.tokens
        );
        if docket.enter(now_ms(), &report, &transcript).unwrap() == Decision::Convict {
            let provider = world.booth.signer.node();
            drop(docket);
            let docket = world.docket();
            assert_eq!(docket.convicted(), [provider], "it is known after a restart");
            let charge = docket.charge(provider).unwrap();
            assert_eq!(charge.transcripts.len(), docket.standing(provider).case.len());
            assert!(Charge::open(&charge.encode()).is_ok());
            docket.close(provider).unwrap();
            assert!(docket.convicted().is_empty() && docket.charge(provider).is_none());
            return (n, charge);
        }
    }
    panic!("it was not convicted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cheaper_weights_are_convicted() {
    let Some(own) = stories().await else { return };
    for dtype in [DType::Q4_0, DType::Q8_0] {
        let (n, _) = convicted_after(Arc::new(cheap(dtype).await), own.clone()).await;
        println!("{dtype} for F32: convicted after {n} answers");
        assert!(n <= 8, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_prompt_and_another_sampler_are_convicted() {
    let (Some(serving), Some(own)) = (stories().await, stories().await) else { return };
    let edit: Twist = |job| {
        if let Input::Text { text, .. } = &mut job.input {
            *text = text.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned());
        }
    };
    let other: Twist = |job| job.sampling.temperature += 0.4;
    for (name, twist) in [("an edited prompt", edit), ("a higher temperature", other)] {
        let (n, _) = convicted_after(Arc::new(Twisted(serving.clone(), twist)), own.clone()).await;
        println!("{name}: convicted after {n} answers");
        assert!(n <= 12, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_was_touched_is_none() {
    let (Some(serving), Some(own)) = (stories().await, stories().await) else { return };
    let mut world = world(Arc::new(serving), own).await;
    let (sound, report) = world.audit(70).await;
    assert!(report.answers.iter().all(|answer| answer.outcome == Outcome::Passed), "{report:?}");
    assert_eq!(sound.answer.statement.commitments.len() % 258, 0);
    let bytes = sound.encode();
    assert!(Transcript::open(&bytes).is_ok());
    for at in (0..bytes.len()).step_by(7) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(Transcript::open(&bad).is_err(), "byte {at}");
    }
    for cut in (0..bytes.len()).step_by(11) {
        assert!(Transcript::open(&bytes[..cut]).is_err());
    }
    // What the provider did not sign cannot be put into its mouth.
    let mut other = sound.clone();
    other.answer.statement.tokens = Bounded::new(vec![5; 9]).unwrap();
    assert_eq!(other.check().unwrap_err(), TranscriptError::Forged);
    let mut other = sound.clone();
    other.answer.statement.ending = Ending::Cut;
    assert_eq!(other.check().unwrap_err(), TranscriptError::Forged);
    // Nor another question under its answer, nor another's offer.
    let second = world.transcript(20).await;
    let mixed = Transcript { ask: second.ask.clone(), ..sound.clone() };
    assert_eq!(mixed.check().unwrap_err(), TranscriptError::Other("request"));
    let stranger = crate::identity::Signer::from_seed([9; 32]);
    let mut fake = offer(9, now_ms());
    fake.provider = stranger.node().0;
    let fake = Bounded::new(SignedOffer::sign(fake, &stranger).unwrap().encode()).unwrap();
    assert_eq!(
        Transcript { offer: fake, ..sound.clone() }.check().unwrap_err(),
        TranscriptError::Other("offer")
    );
    let early = offer(1, now_ms() - 3_600_000);
    let early = Bounded::new(SignedOffer::sign(early, &world.booth.signer).unwrap().encode()).unwrap();
    assert!(matches!(Transcript { offer: early, ..sound.clone() }.check(), Err(TranscriptError::Offer(_))));
    // A charge takes each answer once, and only of the provider it names.
    let charge = |all: Vec<Transcript>| Charge {
        provider: sound.answer.statement.provider,
        transcripts: Bounded::new(all).unwrap(),
    };
    assert!(charge(vec![sound.clone(), second.clone()]).check().is_ok());
    assert!(charge(vec![sound.clone(), sound.clone()]).check().is_err());
    assert!(Charge { provider: [3; 32], ..charge(vec![sound.clone()]) }.check().is_err());
    assert!(charge(Vec::new()).check().is_err());
    // The same answer is not audited twice.
    let docket = world.docket();
    docket.enter(1, &report, &sound).unwrap();
    assert!(matches!(docket.enter(2, &report, &sound), Err(RecordError::Again)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_not_here_is_nobodys_fault() {
    let (Some(serving), Some(own)) = (stories().await, stories().await) else { return };
    let mut world = world(Arc::new(serving), own).await;
    let transcript = world.transcript(20).await;
    let other = Examiner::new(cheap(DType::Q4_0).await);
    assert!(matches!(other.examine(&transcript).await, Err(ExamineError::NoCopy)));
}

/// The rule of the policy that ships, for tests: all answers failed, of two verifiers at least.
#[derive(Debug)]
struct Strict;

impl Judge for Strict {
    fn judge(&self, evidence: &Evidence, _: u64) -> Result<(types::Verdict, PolicyHash), String> {
        let failed = evidence.audits.iter().filter(|audit| audit.outcome == Outcome::Failed);
        let accusers: BTreeSet<u64> = failed.clone().map(|audit| audit.verifier).collect();
        let convicts = failed.count() >= 4 && accusers.len() >= evidence.quorum as usize;
        let judgement = if convicts { Judgement::Convict(500_000) } else { Judgement::Undecided };
        Ok((types::Verdict { judgement, reason: "r".into() }, PolicyHash([4; 32])))
    }
}

/// A chain that draws the same verifiers for everything.
#[derive(Debug)]
struct Draws(Vec<[u8; 32]>);

impl Court for Draws {
    fn genesis(&self) -> Genesis {
        Genesis([6; 32])
    }

    fn drawn(&self, _: [u8; 32], _: [u8; 16], at: u32) -> BoxFuture<'_, Result<Option<Drawn>, String>> {
        let drawn = Drawn { at, verifiers: self.0.clone(), quorum: 2, stake: MicroCredits(1_000) };
        Box::pin(async move { Ok((at > 10).then_some(drawn)) })
    }
}

/// Verifiers that are reached in memory.
#[derive(Debug, Default)]
struct Doors(HashMap<NodeId, mpsc::Sender<Inbound>>);

impl Streams for Doors {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(async move {
            let refused = OpenError::Refused { peer, protocol };
            let door = self.0.get(&peer).ok_or(refused.clone())?;
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let inbound = Inbound { peer: NodeId([1; 32]), stream: Box::new(theirs) };
            door.send(inbound).await.map_err(|_| refused)?;
            Ok(Box::new(ours) as Stream)
        })
    }
}

/// An examiner's judge that believes every charge: what a lazy verifier runs.
#[derive(Debug)]
struct Believing;

impl Judge for Believing {
    fn judge(&self, _: &Evidence, _: u64) -> Result<(types::Verdict, PolicyHash), String> {
        let verdict = types::Verdict { judgement: Judgement::Convict(1_000_000), reason: "r".into() };
        Ok((verdict, PolicyHash([4; 32])))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committee_signs_what_it_finds_and_a_honeypot_finds_who_does_not_look() {
    let (Some(serving), Some(own)) = (stories().await, stories().await) else { return };
    let key = |n: u8| Signer::from_seed([n; 32]);
    let drawn: Vec<[u8; 32]> = [21, 22, 23].map(|n| key(n).node().0).to_vec();
    let court = Arc::new(Draws(drawn.clone()));
    let examiner = Arc::new(Examiner::new(own.clone()));
    let bench = |n: u8, judge: Arc<dyn Judge>| Bench {
        signer: key(n),
        examiner: examiner.clone(),
        judge,
        court: court.clone(),
    };
    let stop = CancellationToken::new();
    let mut doors = Doors::default();
    for n in [21, 22, 23, 24_u8] {
        let (door, incoming) = mpsc::channel(4);
        doors.0.insert(key(n).node(), door);
        let judge: Arc<dyn Judge> = if n == 23 { Arc::new(Believing) } else { Arc::new(Strict) };
        let docket = Arc::new(Docket::open(tempfile::tempdir().unwrap().path()).unwrap());
        tokio::spawn(committee::serve(bench(n, judge), docket, incoming, stop.clone()));
    }
    let streams: Arc<dyn Streams> = Arc::new(doors);
    let accuser = bench(20, Arc::new(Strict));

    // A cheat: both who look find it, and that is a quorum.
    let (_, charge) = convicted_after(Arc::new(cheap(DType::Q4_0).await), own.clone()).await;
    let signed = committee::accuse(&accuser, &streams, &charge, 11).await.unwrap();
    assert_eq!((signed.verdict.evidence, signed.verdict.parts), (charge.digest(), 500_000));
    assert_eq!(signed.signatures.len(), 2, "the third signs another verdict");
    signed.verify(&court.genesis(), &drawn, 2).unwrap();
    assert!(matches!(committee::accuse(&accuser, &streams, &charge, 9).await, Err(NoVerdict::Nobody(9))));
    // Who was not drawn does not work for the accuser.
    let refused =
        committee::ask(streams.as_ref(), key(24).node(), &charge, &signed.verdict, &court.genesis()).await;
    assert!(matches!(&refused, Err(NoWord::Refused(why)) if why.contains("not drawn")), "{refused:?}");

    // Answers that are as they should be: nobody who looks signs.
    let mut honest = world(Arc::new(serving), own).await;
    let mut transcripts = Vec::new();
    for _ in 0..2 {
        transcripts.push(honest.transcript(40).await);
    }
    let trap =
        Charge { provider: honest.booth.signer.node().0, transcripts: Bounded::new(transcripts).unwrap() };
    assert!(matches!(committee::accuse(&accuser, &streams, &trap, 11).await, Err(NoVerdict::Charge(_))));
    for n in [21, 22] {
        let word = committee::honeypot(streams.as_ref(), key(n).node(), &trap, 11, &court.genesis()).await;
        assert!(matches!(&word, Err(NoWord::Refused(why)) if why.contains("does not convict")), "{word:?}");
    }
    let caught =
        committee::honeypot(streams.as_ref(), key(23).node(), &trap, 11, &court.genesis()).await.unwrap();
    caught.verify(&court.genesis(), &drawn, 1).unwrap();
    stop.cancel();
}
