//! A chain of one test's own: the committed runtime in chopsticks, and people who use it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use potluck_chain_client::{
    Answer, Call, Client, Key, Live, Proposal, Settings,
    link::{Head, Link as _, node::At},
    outbox::{Finished, Outcome},
    query::{Balance, State},
    runtime,
    signer::Pace,
    spec::{Clock, fund, known_key},
};
use potluck_primitives::{Account, Genesis};
use subxt::events::Phase;

/// How long any one thing may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// The account that fees and shares go to: that of FRAME's treasury, by its name.
pub(crate) const TREASURY: Account = padded(b"modlpotltrsy");
/// The account that holds the pots of batches.
pub(crate) const POTS: Account = padded(b"modlpotlpots");

const fn padded(name: &[u8; 12]) -> Account {
    let mut account = [0; 32];
    let mut at = 0;
    while at < name.len() {
        account[at] = name[at];
        at += 1;
    }
    account
}

/// A development chain, in a process that ends with it.
pub(crate) struct Chain {
    process: Child,
    url: String,
    clock: Clock,
    folder: tempfile::TempDir,
    /// From asking for a call until it is known to be final.
    times: Arc<Mutex<Vec<Duration>>>,
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Chain {
    /// Starts one whose genesis has these accounts too, each with what the settler has. `None`, and a word about it,
    /// where there is nothing to start.
    pub(crate) async fn start(test: &str, more: &[&str]) -> Option<Self> {
        let Some(installed) = std::env::var_os("POTLUCK_CHOPSTICKS").map(PathBuf::from) else {
            skip(test, "POTLUCK_CHOPSTICKS names no folder with an installed chopsticks");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let spec = folder.path().join("spec.json");
        fs::write(&spec, specification(more)).unwrap();
        let port = free_port();
        let log = folder.path().join("chopsticks.log");
        let process = launch(&installed, &spec, port, &log);
        let began = Instant::now();
        while !fs::read_to_string(&log).unwrap_or_default().contains("RPC listening") {
            assert!(
                began.elapsed() < PATIENCE,
                "chopsticks does not start: {}",
                fs::read_to_string(&log).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("chopsticks is up after {:.1?}", began.elapsed());
        let url = format!("ws://127.0.0.1:{port}");
        let clock = Clock::connect(&url).await.unwrap();
        Some(Self { process, url, clock, folder, times: Arc::default() })
    }

    /// Somebody with a key that everybody knows, and a client.
    pub(crate) async fn person(&self, name: &'static str) -> Person {
        let key = known_key(name);
        let pace = Pace { poll: Duration::from_millis(300), ..Pace::default() };
        let folder = self.folder.path().join(name);
        let client = Client::bind(Settings { endpoint: self.url.clone(), folder, key: key.clone(), pace });
        let live = client.handle().reached(PATIENCE).await.unwrap();
        Person { name, key, live, client, times: Arc::clone(&self.times) }
    }

    /// Makes blocks until the last one has this number.
    pub(crate) async fn go_to(&self, who: &Person, block: u32) {
        let head = who.head().await.number;
        assert!(head <= block, "block {head} is past {block} already");
        if head < block {
            self.clock.make_blocks(block - head).await.unwrap();
        }
        let began = Instant::now();
        while who.head().await.number < block {
            assert!(began.elapsed() < PATIENCE, "no block {block}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Goes to the last block before the epoch after this one, and gives the number of the epoch that then is over.
    pub(crate) async fn end_of_epoch(&self, who: &Person, length: u32) -> u32 {
        let epoch = who.head().await.number / length;
        self.go_to(who, (epoch + 1) * length).await;
        epoch
    }

    /// Has a proposal voted and enacted; the block after which it was.
    pub(crate) async fn pass(&self, who: &Person, proposal: Proposal) -> u32 {
        let proposed = who.done(Call::Propose(proposal)).await;
        let Outcome::Done { notes, .. } = proposed.outcome else { panic!("{proposed:?}") };
        let referendum = notes[0].strip_prefix("referendum ").unwrap().parse().unwrap();
        who.done(Call::PlaceDeposit { referendum }).await;
        let conviction = potluck_chain_client::Conviction::Locked1x;
        let tokens = 900_000 * 1_000_000_000_000;
        who.done(Call::Vote { referendum, aye: true, conviction, tokens }).await;
        for _ in 0..40 {
            let (head, at) = who.live.node.latest().await.unwrap();
            let all = who.live.node.referenda(&at, 100).await.unwrap();
            let found = all.iter().find(|it| it.index == referendum).unwrap();
            if let State::Approved(block) = found.state {
                // The scheduler enacts it one block later.
                self.go_to(who, head.number.max(block + 2)).await;
                return block;
            }
            self.go_to(who, head.number + 1).await;
        }
        panic!("referendum {referendum} does not pass");
    }

    /// How long calls took from asking to being final: the median, the 95th percentile, and how many there were.
    pub(crate) fn report_times(&self) {
        let mut times = self.times.lock().unwrap().clone();
        times.sort_unstable();
        assert!(!times.is_empty());
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!("{} calls until final: p50 {:.2?}, p95 {:.2?}", times.len(), at(50), at(95));
    }
}

/// Says that a test was skipped, to people and to the program that counts.
fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(log) = std::env::var_os("POTLUCK_SKIP_LOG") {
        let mut log = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        writeln!(log, "skipped: {test}: {reason}").unwrap();
    }
}

fn specification(more: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/development.json");
    let mut spec = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for name in more {
        fund(&mut spec, known_key(name).account(), known_key("settler").account()).unwrap();
    }
    spec.to_string()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(installed: &Path, spec: &Path, port: u16, log: &Path) -> Child {
    let node = installed.join("node_modules/node/bin");
    let path = format!("{}:{}", node.display(), std::env::var("PATH").unwrap());
    let log = fs::File::create(log).unwrap();
    Command::new(installed.join("node_modules/.bin/chopsticks"))
        .env("PATH", path)
        .args(["--build-block-mode", "Instant", "--host", "127.0.0.1", "--port", &port.to_string()])
        .arg("--chain-spec")
        .arg(spec)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Somebody who uses the chain.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) key: Key,
    pub(crate) live: Arc<Live>,
    client: Client,
    times: Arc<Mutex<Vec<Duration>>>,
}

impl Person {
    pub(crate) fn account(&self) -> Account {
        self.key.account()
    }

    pub(crate) fn genesis(&self) -> Genesis {
        self.live.genesis()
    }

    pub(crate) async fn head(&self) -> Head {
        self.live.node.head().await.unwrap()
    }

    pub(crate) async fn balance(&self, account: Account) -> Balance {
        let (_, at) = self.live.node.latest().await.unwrap();
        self.live.node.balance(&at, account).await.unwrap()
    }

    /// Asks for a call and waits until it has ended.
    pub(crate) async fn ask(&self, call: Call) -> Finished {
        let began = Instant::now();
        match self.live.ask(call.clone(), PATIENCE).await.unwrap() {
            Answer::Ended(finished) => {
                self.times.lock().unwrap().push(began.elapsed());
                finished
            }
            Answer::UnderWay(_) => {
                panic!("{} waits for ever: {call}: {:?}", self.name, self.live.signer.standing().borrow())
            }
        }
    }

    /// As [`Person::ask`], for a call that a block holds and that did what it was to do.
    pub(crate) async fn done(&self, call: Call) -> Finished {
        let what = call.to_string();
        let finished = self.ask(call).await;
        assert!(matches!(finished.outcome, Outcome::Done { .. }), "{}: {what}: {finished:?}", self.name);
        finished
    }

    /// As [`Person::ask`], for a call that the runtime must refuse with these words.
    pub(crate) async fn refused(&self, call: Call, why: &str) {
        let what = call.to_string();
        let finished = self.ask(call).await;
        let (Outcome::Failed { reason, .. } | Outcome::Refused { reason }) = &finished.outcome else {
            panic!("{}: {what} is not refused: {finished:?}", self.name)
        };
        assert!(reason.contains(why), "{}: {what}: {reason}", self.name);
    }

    /// What a call that is done costs: the bytes of its transaction, and the time and the proof that its weight counts.
    pub(crate) async fn cost(&self, call: &Call, done: &Finished) -> (usize, u64, u64) {
        let Outcome::Done { block, .. } = done.outcome else { panic!("{done:?}") };
        let head = self.head().await;
        let bytes = self.live.node.make(call, 0, head).await.unwrap().bytes.len();
        let at = self.at(block).await;
        for event in at.events().fetch().await.unwrap().iter() {
            let event = event.unwrap();
            // The first of a block are its inherents.
            let ours = matches!(event.phase(), Phase::ApplyExtrinsic(index) if index >= 2);
            if let Some(Ok(done)) = event.decode_fields_as::<runtime::system::events::ExtrinsicSuccess>()
                && ours
            {
                let weight = done.dispatch_info.weight;
                return (bytes, weight.ref_time, weight.proof_size);
            }
        }
        panic!("block {block} holds no transaction");
    }

    /// The chain at a block.
    pub(crate) async fn at(&self, block: u32) -> At {
        let hash = self.live.node.hash_of(block).await.unwrap().unwrap();
        self.live.node.at(Head { number: block, hash }).await.unwrap()
    }

    pub(crate) async fn leave(self) {
        drop(self.live);
        self.client.shutdown().await;
    }
}

/// The block that holds a call that is done, and what it says.
pub(crate) fn block_of(done: &Finished) -> (u32, &[String]) {
    match &done.outcome {
        Outcome::Done { block, notes, .. } => (*block, notes),
        other => panic!("{other:?}"),
    }
}

/// SplitMix64: the same numbers on every machine.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }
}
