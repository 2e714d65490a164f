//! A small economy on one machine: real journals, real books, real RSA; the chain says what the test says.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parity_scale_codec::Encode as _;
use potluck_chain_client::Key;
use potluck_primitives::{Block, Bounded, SignedVoucher, UnixMillis, Voucher};
use tokio::sync::mpsc;

use super::{
    keys,
    link::IssuerLink,
    vouchers::{Bond, BookVouchers, ChainError, Escrows, VoucherError},
    wire::{Blinded, NONCE},
    *,
};
use crate::{
    mesh::streams::{BoxFuture, OpenError, Stream, Streams},
    pool::public::{
        purse::{self, Purse},
        till::{self, Till},
        token::{BATCH, Blinding, Denomination, RsaSecret, Token},
    },
    settlement::book::Book,
};

pub(crate) const GENESIS: Genesis = Genesis([7; 32]);
/// An hour.
pub(crate) const LENGTH: u64 = 3_600_000;
/// The epoch in which tests begin.
pub(crate) const EPOCH: u32 = 1_000;

static KEYS: LazyLock<[RsaSecret; 6]> = LazyLock::new(|| {
    let ders: [&[u8]; 6] = [
        include_bytes!("../testdata/mint-0.der"),
        include_bytes!("../testdata/mint-1.der"),
        include_bytes!("../testdata/mint-2.der"),
        include_bytes!("../testdata/mint-3.der"),
        include_bytes!("../testdata/mint-4.der"),
        include_bytes!("../testdata/mint-5.der"),
    ];
    ders.map(|der| RsaSecret::from_der(der).unwrap())
});

/// Keys that were made beforehand: making them takes a test seconds.
pub(crate) fn some_keys(second: bool) -> [RsaSecret; 3] {
    let [a, b, c, d, e, f] = KEYS.clone();
    if second { [d, e, f] } else { [a, b, c] }
}

/// What the chain says.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) bond: AtomicU64,
    pub(crate) escrow: AtomicU64,
}

impl Bond for Chain {
    fn bond(&self, _: Account) -> BoxFuture<'_, Result<MicroCredits, ChainError>> {
        Box::pin(async { Ok(MicroCredits(self.bond.load(Ordering::SeqCst).into())) })
    }
}

impl Escrows for Chain {
    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        Box::pin(async { Ok(Block(100)) })
    }

    fn escrow(&self, _: Account) -> BoxFuture<'_, Result<MicroCredits, ChainError>> {
        Box::pin(async { Ok(MicroCredits(self.escrow.load(Ordering::SeqCst).into())) })
    }

    fn redeemed<'a>(&'a self, _: &'a Voucher) -> BoxFuture<'a, Result<MicroCredits, ChainError>> {
        Box::pin(async { Ok(MicroCredits::ZERO) })
    }
}

/// Vouchers of a process that may die before and after each of its writes.
#[derive(Debug)]
pub(crate) struct Mortal(BookVouchers, PathBuf);

impl Mortal {
    fn step(&self) -> Result<(), VoucherError> {
        Ok(disk::fault::step(&self.1).map_err(crate::settlement::book::BookError::from)?)
    }
}

impl Vouchers for Mortal {
    fn account(&self) -> Account {
        self.0.account()
    }

    fn genesis(&self) -> Genesis {
        self.0.genesis()
    }

    fn accept(&self, voucher: SignedVoucher) -> BoxFuture<'_, Result<(), VoucherError>> {
        Box::pin(async move {
            self.step()?;
            self.0.accept(voucher).await?;
            self.step()
        })
    }

    fn promised(&self, payee: Account) -> MicroCredits {
        self.0.promised(payee)
    }

    fn raise(
        &self,
        payee: Account,
        total: MicroCredits,
    ) -> BoxFuture<'_, Result<SignedVoucher, VoucherError>> {
        Box::pin(async move {
            self.step()?;
            let signed = self.0.raise(payee, total).await?;
            self.step()?;
            Ok(signed)
        })
    }
}

/// Carries questions to the issuer and writes down what it saw and said.
#[derive(Debug)]
pub(crate) struct Net {
    door: Mutex<Option<mpsc::Sender<Inbound>>>,
    pub(crate) seen: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    pub(crate) issuer_file: PathBuf,
}

impl Net {
    pub(crate) fn door(&self) -> mpsc::Receiver<Inbound> {
        let (door, incoming) = mpsc::channel(16);
        *self.door.lock().unwrap() = Some(door);
        incoming
    }

    async fn carry(
        &self,
        mut client: tokio::io::DuplexStream,
        mut issuer: tokio::io::DuplexStream,
    ) -> Option<()> {
        let question = crate::mesh::frame::read_bytes(&mut client, 1 << 20).await.ok()??;
        send(&mut issuer, &question).await?;
        let answer = crate::mesh::frame::read_bytes(&mut issuer, 1 << 20).await.ok()??;
        if disk::fault::is_dead(&self.issuer_file) {
            return None;
        }
        self.seen.lock().unwrap().push((question, answer.clone()));
        send(&mut client, &answer).await
    }
}

async fn send(stream: &mut tokio::io::DuplexStream, bytes: &[u8]) -> Option<()> {
    use tokio::io::AsyncWriteExt as _;
    stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.ok()?;
    stream.write_all(bytes).await.ok()
}

/// The way through a net.
#[derive(Clone, Debug)]
pub(crate) struct Way(pub(crate) Arc<Net>);

impl Streams for Way {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(async move {
            let door = self.0.door.lock().unwrap().clone().ok_or(OpenError::Closed)?;
            let (client, near) = tokio::io::duplex(8 << 10);
            let (far, stream) = tokio::io::duplex(8 << 10);
            let stranger = NodeId(rand_bytes());
            door.send(Inbound { peer: stranger, stream: Box::new(stream) })
                .await
                .map_err(|_| OpenError::Refused { peer, protocol })?;
            let net = Arc::clone(&self.0);
            tokio::spawn(async move { net.carry(near, far).await });
            Ok(Box::new(client) as Stream)
        })
    }
}

pub(crate) fn rand_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Opens what a process that just died may still hold for a moment.
pub(crate) async fn insist<T, E: std::fmt::Display>(mut open: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..2_000 {
        match open().await {
            Ok(opened) => return opened,
            Err(error) if error.to_string().contains("in use") => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("still in use")
}

/// A requester, a provider and an issuer.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) chain: Arc<Chain>,
    pub(crate) net: Arc<Net>,
    pub(crate) time: Arc<AtomicU64>,
    pub(crate) issuer: Signer,
    pub(crate) requester: Signer,
    pub(crate) provider: Signer,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("issuer");
        for (epoch, second) in [(EPOCH, false), (EPOCH + 1, true)] {
            keys::save(&folder.join(format!("epoch-{epoch}.keys")), &some_keys(second)).unwrap();
        }
        let net = Net {
            door: Mutex::new(None),
            seen: Mutex::default(),
            issuer_file: folder.join("issuer.journal"),
        };
        Self {
            dir,
            chain: Arc::new(Chain {
                bond: AtomicU64::new(10_000_000),
                escrow: AtomicU64::new(1_000_000_000),
            }),
            net: Arc::new(net),
            time: Arc::new(AtomicU64::new(u64::from(EPOCH) * LENGTH + 600_000)),
            issuer: Signer::from_seed([1; 32]),
            requester: Signer::from_seed([2; 32]),
            provider: Signer::from_seed([3; 32]),
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = Arc::clone(&self.time);
        Clock::new(move || UnixMillis(time.load(Ordering::SeqCst)))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The vouchers of an account; `fuse` is the file with which its process lives and dies.
    pub(crate) fn vouchers(&self, signer: &Signer, name: &str, fuse: &Path) -> Result<Arc<Mortal>, String> {
        let key = Key::from_seed(signer.seed());
        let book = Book::open(&self.path(name), key, GENESIS).map_err(|error| error.to_string())?;
        let chain: Arc<dyn Escrows> = Arc::clone(&self.chain) as _;
        let book = BookVouchers::new(Arc::new(Mutex::new(book)), GENESIS, chain);
        Ok(Arc::new(Mortal(book, fuse.to_owned())))
    }

    pub(crate) async fn start_issuer(&self) -> Issuer {
        insist(async || {
            let file = self.net.issuer_file.clone();
            let parts = Parts {
                signer: self.issuer.clone(),
                vouchers: self.vouchers(&self.issuer, "issuer-book", &file)?,
                bond: Arc::clone(&self.chain) as _,
                incoming: self.net.door(),
                clock: self.clock(),
            };
            let folder = file.parent().unwrap().to_owned();
            let settings = Settings { folder, schedule: Schedule { length_ms: LENGTH } };
            Issuer::bind(settings, parts).await.map_err(|error| error.to_string())
        })
        .await
    }

    pub(crate) fn link(&self) -> IssuerLink {
        IssuerLink::new(Arc::new(Way(Arc::clone(&self.net))), self.issuer.node(), GENESIS)
    }

    pub(crate) async fn open_purse(&self, level: u128, budget: u128) -> Purse {
        insist(async || {
            let path = self.path("purse.journal");
            let parts = purse::Parts {
                signer: self.requester.clone(),
                vouchers: self.vouchers(&self.requester, "requester-book", &path)?,
                link: self.link(),
                clock: self.clock(),
            };
            let (level, budget) = (MicroCredits(level), MicroCredits(budget));
            let settings = purse::Settings { path, level, budget, delay: Duration::ZERO };
            Purse::open(settings, parts).map_err(|error| error.to_string())
        })
        .await
    }

    pub(crate) async fn open_till(&self, signer: &Signer, name: &str) -> Till {
        insist(async || {
            let path = self.path(&format!("{name}.journal"));
            let parts = till::Parts {
                signer: signer.clone(),
                vouchers: self.vouchers(signer, &format!("{name}-book"), &path)?,
                link: self.link(),
                clock: self.clock(),
            };
            Till::open(&path, parts).map_err(|error| error.to_string())
        })
        .await
    }

    /// A purchase of the requester for a voucher of `total`.
    pub(crate) async fn purchase(
        &self,
        mint: &Mint,
        values: &[Denomination],
        total: u128,
    ) -> (Signed<Purchase>, Vec<Blinding>) {
        let path = self.path("by-hand");
        let vouchers = insist(async || self.vouchers(&self.requester, "by-hand-book", &path)).await;
        let voucher = vouchers.raise(self.issuer.node().0, MicroCredits(total)).await.unwrap();
        let made: Vec<_> =
            values.iter().map(|value| mint.key(EPOCH, *value).unwrap().blind().unwrap()).collect();
        let blinded = made.iter().map(|it| Blinded { value: it.1.value, message: it.0 }).collect();
        let purchase = Purchase {
            issuer: self.issuer.node().0,
            account: self.requester.node().0,
            nonce: rand_bytes::<NONCE>(),
            epoch: EPOCH,
            voucher,
            blinded: Bounded::new(blinded).unwrap(),
        };
        (Signed::new(purchase, &GENESIS, &self.requester), made.into_iter().map(|it| it.1).collect())
    }
}

fn sold(answer: Answer) -> Sold {
    match answer {
        Answer::Sold(sold) => sold,
        other => panic!("{other:?}"),
    }
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_sold_once_and_answered_the_same_also_after_a_restart() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let mint = Mint::open(issuer.catalogue(), &GENESIS).unwrap();
    let (purchase, blindings) =
        world.purchase(&mint, &[Denomination::Hundred, Denomination::Thousand], 1_150).await;
    let ask = Question::Buy(purchase.clone());
    let first = world.link().ask(&ask).await.unwrap();
    assert_eq!(world.link().ask(&ask).await.unwrap(), first);
    issuer.shutdown().await;
    let issuer = world.start_issuer().await;
    assert_eq!(world.link().ask(&ask).await.unwrap(), first);
    let sold = sold(first);
    assert_eq!((sold.issued.said.sequence, sold.issued.said.total), (1, MicroCredits(1_100)));
    for (blinding, signed) in blindings.iter().zip(sold.signatures.iter()) {
        let token = mint.key(EPOCH, blinding.value).unwrap().finish(blinding, signed).unwrap();
        assert_eq!(mint.judge(&token, world.clock().now()), Ok(()));
    }
    // 50 are left of the voucher: too little for another one, enough with a voucher for 50 more.
    let (again, _) = world.purchase(&mint, &[Denomination::Hundred], 1_150).await;
    let refused = refusal(world.link().ask(&Question::Buy(again)).await.unwrap());
    assert_eq!(refused, Refusal::Unpaid(MicroCredits(1_100)));
    let (again, _) = world.purchase(&mint, &[Denomination::Hundred], 1_200).await;
    let Answer::Sold(second) = world.link().ask(&Question::Buy(again)).await.unwrap() else { panic!() };
    assert_eq!((second.issued.said.sequence, second.issued.said.total), (2, MicroCredits(1_200)));
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_paid_or_covered_is_not_sold() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let mint = Mint::open(issuer.catalogue(), &GENESIS).unwrap();
    let (good, _) = world.purchase(&mint, &[Denomination::Thousand], 1_000).await;
    let ask = async |purchase| refusal(world.link().ask(&Question::Buy(purchase)).await.unwrap());
    let resigned = |change: fn(&mut Purchase)| {
        let mut said = good.said.clone();
        change(&mut said);
        Signed::new(said, &GENESIS, &world.requester)
    };
    let mut forged = good.clone();
    forged.said.nonce[0] ^= 1;
    assert_eq!(ask(forged).await, Refusal::Unsigned);
    assert_eq!(ask(resigned(|it| it.issuer[0] ^= 1)).await, Refusal::NotMine);
    assert_eq!(ask(resigned(|it| it.epoch = EPOCH + 1)).await, Refusal::Closed(EPOCH + 1));
    assert_eq!(ask(resigned(|it| it.epoch = EPOCH + 9)).await, Refusal::Closed(EPOCH + 9));
    assert_eq!(ask(resigned(|it| it.blinded = Bounded::empty())).await, Refusal::Malformed);
    assert_eq!(ask(resigned(|it| it.voucher.signature[0] ^= 1)).await, Refusal::Voucher);
    let stranger = Signed::new(good.said.clone(), &GENESIS, &world.provider);
    assert_eq!(ask(stranger).await, Refusal::Unsigned);
    world.chain.escrow.store(999, Ordering::SeqCst);
    assert_eq!(ask(good.clone()).await, Refusal::Voucher);
    world.chain.escrow.store(1_000, Ordering::SeqCst);
    world.chain.bond.store(999, Ordering::SeqCst);
    assert_eq!(ask(good.clone()).await, Refusal::Bond);
    world.chain.bond.store(1_000, Ordering::SeqCst);
    assert!(matches!(world.link().ask(&Question::Buy(good.clone())).await.unwrap(), Answer::Sold(_)));
    world.time.fetch_add(LENGTH, Ordering::SeqCst);
    // The answer to what was sold stays the same after the epoch's sale; anything new is too late.
    assert!(matches!(world.link().ask(&Question::Buy(good.clone())).await.unwrap(), Answer::Sold(_)));
    assert_eq!(ask(resigned(|it| it.nonce[1] ^= 1)).await, Refusal::Closed(EPOCH));
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_capped() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let raw = async |bytes: &[u8]| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = Way(Arc::clone(&world.net)).open(world.issuer.node(), ISSUER).await.unwrap();
        stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    assert!(raw(&vec![0; wire::MAX_QUESTION + 1]).await.is_empty(), "too long: the stream ends");
    let malformed = Answer::Refused(Refusal::Malformed).encode();
    assert_eq!(raw(&[9, 9, 9]).await.split_off(4), malformed);
    assert_eq!(raw(&[0, 0]).await.split_off(4), malformed, "bytes behind the message");
    // The largest of each kind fits, and one more item does not.
    let token = Token { epoch: 1, value: Denomination::Hundred, serial: [1; 32], signature: [2; 256] };
    let claim = wire::Claim {
        issuer: [0; 32],
        payee: [1; 32],
        nonce: [2; 16],
        count: 128,
        root: [3; 32],
        tokens: [5; 32],
    };
    let spend = |count: usize| {
        let claim = Signed { said: claim.clone(), signature: [4; 64] };
        (2_u8, claim, vec![token.clone(); count]).encode()
    };
    let most = usize::try_from(BATCH).unwrap();
    assert!(spend(most).len() <= wire::MAX_QUESTION);
    assert!(wire::decode::<Question>(&spend(most)).is_ok());
    assert!(wire::decode::<Question>(&spend(most + 1)).is_err());
    let mint = Mint::open(issuer.catalogue(), &GENESIS).unwrap();
    let (mut purchase, _) = world.purchase(&mint, &[Denomination::Hundred], 100).await;
    let one = purchase.said.blinded.iter().copied().next().unwrap();
    purchase.said.blinded = Bounded::new(vec![one; most]).unwrap();
    let asked = Question::Buy(purchase).encode();
    assert!(asked.len() <= wire::MAX_QUESTION, "{}", asked.len());
    let names = vec![[5; 32]; most];
    let path = potluck_primitives::MerkleProof::of(&names, 1).unwrap();
    let proof = wire::Proof { claim: Signed { said: claim, signature: [4; 64] }, path };
    let outcomes = Bounded::new(vec![Outcome::Spent(proof); most]).unwrap();
    let settled = Settled { issuer: [0; 32], claim: [1; 32], at: UnixMillis(1), outcomes, voucher: None };
    let answer = Answer::Settled(Signed { said: settled, signature: [0; 64] }).encode();
    assert!(answer.len() <= wire::MAX_ANSWER, "{}", answer.len());
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_cannot_take_all_places() {
    let world = World::new();
    let door = world.net.door();
    let entrance = world.net.door.lock().unwrap().clone().unwrap();
    let path = world.net.issuer_file.clone();
    let parts = Parts {
        signer: world.issuer.clone(),
        vouchers: world.vouchers(&world.issuer, "issuer-book", &path).unwrap(),
        bond: Arc::clone(&world.chain) as _,
        incoming: door,
        clock: world.clock(),
    };
    let settings =
        Settings { folder: path.parent().unwrap().to_owned(), schedule: Schedule { length_ms: LENGTH } };
    let issuer = Issuer::bind(settings, parts).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..STREAMS_PER_PEER + 3 {
        let (near, far) = tokio::io::duplex(64);
        entrance.send(Inbound { peer: NodeId([9; 32]), stream: Box::new(far) }).await.unwrap();
        kept.push(near);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut ended = 0;
    for stream in &mut kept {
        use tokio::io::AsyncReadExt as _;
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 1])).await;
        ended += usize::from(matches!(read, Ok(Ok(0))));
    }
    assert_eq!(ended, 3, "those beyond {STREAMS_PER_PEER} are turned away");
    let other = world.link().ask(&Question::Catalogue).await.unwrap();
    assert!(matches!(other, Answer::Catalogue(_)), "others are served meanwhile");
    issuer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_sold_with_are_never_made_anew() {
    let world = World::new();
    let issuer = world.start_issuer().await;
    let mint = Mint::open(issuer.catalogue(), &GENESIS).unwrap();
    let (purchase, _) = world.purchase(&mint, &[Denomination::Hundred], 100).await;
    let Answer::Sold(_) = world.link().ask(&Question::Buy(purchase)).await.unwrap() else { panic!() };
    issuer.shutdown().await;
    let file = world.net.issuer_file.with_file_name(format!("epoch-{EPOCH}.keys"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "only the owner reads keys");
    std::fs::remove_file(&file).unwrap();
    let mut desk = Desk::open(&world.net.issuer_file, GENESIS, Schedule { length_ms: LENGTH }).unwrap();
    let mut ring = KeyRing::new(file.parent().unwrap().to_owned(), Schedule { length_ms: LENGTH });
    let lost = ring.turn(world.clock().now(), &desk.epochs()).unwrap_err();
    assert!(matches!(lost, KeyError::Lost { epoch: EPOCH, .. }), "{lost}");
    // Books of epochs that are long over are forgotten.
    let over = UnixMillis((u64::from(EPOCH) + 3) * LENGTH);
    desk.expire(UnixMillis(over.0 - 1)).unwrap();
    assert_eq!(desk.epochs(), [EPOCH]);
    desk.expire(over).unwrap();
    assert!(desk.epochs().is_empty());
    let used: HashMap<Account, MicroCredits> = HashMap::from([(world.requester.node().0, MicroCredits(100))]);
    drop(desk);
    let desk = Desk::open(&world.net.issuer_file, GENESIS, Schedule { length_ms: LENGTH }).unwrap();
    assert_eq!(desk.used_up(), &used, "what was used up of vouchers is never forgotten");
}

/// The books of an issuer that has stopped.
pub(crate) async fn desk(world: &World) -> Desk {
    let schedule = Schedule { length_ms: LENGTH };
    insist(async || Desk::open(&world.net.issuer_file, GENESIS, schedule)).await
}
