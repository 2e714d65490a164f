//! Machines that do not keep to the rules.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::super::{
    exchange::{Bye, GREETING, MAX_MESSAGE, Message, ROSTER},
    join::JOIN_TIME,
    papers::{Certificate, Paper, PoolId, Rename, Revocation, Statement, Target},
};
use super::*;
use crate::{identity::Digest, mesh::frame, mesh::streams::Stream};

/// A stream of the roster protocol that `key` opens with the machine at `at`.
fn open(net: &Net, key: u8, at: u8) -> Stream {
    net.raw(ROSTER, id(key), at)
}

async fn read(stream: &mut Stream) -> Option<Message> {
    frame::read(stream, MAX_MESSAGE).await.ok().flatten()
}

async fn said_bye(stream: &mut Stream) -> Option<Bye> {
    while let Some(message) = read(stream).await {
        if let Message::Bye(bye) = message {
            return Some(bye);
        }
    }
    None
}

async fn hello(net: &Net, stream: &mut Stream, pool: PoolId, boot: u8) {
    let now = net.wall.load(Ordering::SeqCst);
    let hello = Message::Hello { pool, boot: [boot; 16], now, digest: Digest([0; 32]) };
    frame::write(stream, &hello, MAX_MESSAGE).await.unwrap();
}

/// Cuts the wire between the first two machines, and waits until the first has noticed.
async fn cut(net: &Net, a: &Machine) {
    net.disconnect(1, 2).await;
    until("cut", || async { !a.admits(2) }).await;
}

async fn pool_id(machine: &Machine) -> PoolId {
    machine.handle.status().await.unwrap().pool.unwrap().id
}

#[tokio::test(start_paused = true)]
async fn strangers_are_told_nothing() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let mut stream = open(&net, 9, 1);
    assert_eq!(read(&mut stream).await, Some(Message::Bye(Bye::NotMember)));
    assert_eq!(read(&mut stream).await, None);
    assert!(machines[0].problems().await.contains("turned away: unknown here"));
}

#[tokio::test(start_paused = true)]
async fn a_key_on_two_machines_is_noticed() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let a = &machines[0];
    cut(&net, a).await;
    // A restart has a new run number and is let in.
    let pool = pool_id(a).await;
    for boot in [1, 2] {
        let mut stream = open(&net, 2, 1);
        hello(&net, &mut stream, pool, boot).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!a.problems().await.contains("two machines use its key"));
    }
    // An old one that is back was never gone.
    let mut stream = open(&net, 2, 1);
    hello(&net, &mut stream, pool, 1).await;
    assert_eq!(said_bye(&mut stream).await, Some(Bye::Copied));
    assert!(a.problems().await.contains("two machines use its key"));
    assert!(!a.admits(2) && !a.handle.gate().borrow().members.contains(&id(2)));
    assert_eq!(read(&mut open(&net, 2, 1)).await, Some(Message::Bye(Bye::Copied)));
}

#[tokio::test(start_paused = true)]
async fn two_real_machines_with_one_key_are_both_left_alone() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let a = &machines[0];
    // The folder is copied, papers, key and all.
    let copy = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir_all(copy.path().join("pool")).unwrap();
    let papers = machines[1].dir.path().join("pool/papers.log");
    std::fs::copy(papers, copy.path().join("pool/papers.log")).unwrap();
    let twin = net.start(12, 2, copy).await;
    for _ in 0..3 {
        net.disconnect(1, 2).await;
        net.connect(1, 12).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        net.disconnect(1, 12).await;
        net.connect(1, 2).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
    assert!(a.problems().await.contains("two machines use its key"));
    assert!(!a.admits(2));
    let told = twin.problems().await + machines[1].problems().await.as_str();
    assert!(told.contains("another machine uses this machine's key"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn forged_papers_are_named_and_then_the_sender_is_left_alone() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let (a, pool) = (&machines[0], pool_id(&machines[0]).await);
    cut(&net, a).await;
    let mut stream = open(&net, 2, 1);
    hello(&net, &mut stream, pool, 7).await;
    let now = net.wall.load(Ordering::SeqCst);
    // A member makes itself an issuer's certificate, revokes the founder, and alters a paper.
    let revocation = Revocation { pool, target: Target::Node(id(1)), reason: String::new(), at: now };
    let revocation = Paper::sign(Statement::Revocation(revocation), &signer(2)).unwrap();
    let certificate = Certificate {
        pool,
        node: id(2),
        name: "king".into(),
        grants: Grants::everything(),
        joined: now,
        issued: now,
        expires: now + DAY,
        serial: 99,
        invite: None,
    };
    let certificate = Paper::sign(Statement::Certificate(certificate), &signer(2)).unwrap();
    let mut forged = certificate.sealed().clone();
    forged.author = id(1);
    let papers = vec![revocation.sealed().clone(), certificate.sealed().clone(), forged];
    frame::write(&mut stream, &Message::Papers(papers.clone()), MAX_MESSAGE).await.unwrap();
    until("named", || async {
        let problems = a.problems().await;
        problems.contains("a revocation by")
            && problems.contains("a certificate by")
            && problems.contains("forged")
    })
    .await;
    assert_eq!(a.standing(1).await, Some(Standing::Member));
    assert_eq!(a.handle.show("box2").await.unwrap().serial, 1);
    for _ in 0..6 {
        frame::write(&mut stream, &Message::Papers(papers.clone()), MAX_MESSAGE).await.unwrap();
    }
    assert_eq!(said_bye(&mut stream).await, Some(Bye::Unruly));
    assert!(!a.admits(2));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_left() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let a = &machines[0];
    cut(&net, a).await;
    let start = tokio::time::Instant::now();
    let mut slow = open(&net, 2, 1);
    slow.write_all(&[0, 0, 1, 0, 7]).await.unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(start.elapsed() < GREETING + Duration::from_secs(2));
    assert!(a.problems().await.contains("fell silent"));
    // At the door, too.
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    let invite = Invite::parse(&invited.invite).unwrap();
    let start = tokio::time::Instant::now();
    let mut slow = net.knock(&invite, 1);
    slow.write_all(&[0, 0]).await.unwrap();
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(start.elapsed() < JOIN_TIME + Duration::from_secs(2));
    assert!(a.problems().await.contains("it took too long"));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_left() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let a = &machines[0];
    cut(&net, a).await;
    let mut deaf = open(&net, 2, 1);
    let pool = pool_id(a).await;
    hello(&net, &mut deaf, pool, 3).await;
    // Papers enough to fill every buffer on the way.
    for _ in 0..1_500 {
        a.handle.invite(InviteOptions { uses: 1, ..InviteOptions::default() }).await.unwrap();
    }
    until("left", || async { a.problems().await.contains("does not read") }).await;
}

#[tokio::test(start_paused = true)]
async fn who_makes_papers_without_end_is_left() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let (a, pool) = (&machines[0], pool_id(&machines[0]).await);
    cut(&net, a).await;
    let mut stream = open(&net, 2, 1);
    hello(&net, &mut stream, pool, 3).await;
    let now = net.wall.load(Ordering::SeqCst);
    let papers = (0..17_000_i64).map(|at| {
        let rename = Rename { pool, node: id(2), name: "x".into(), at: now + at };
        Paper::sign(Statement::Rename(rename), &signer(2)).unwrap().sealed().clone()
    });
    let papers: Vec<_> = papers.collect();
    for page in papers.chunks(64) {
        if frame::write(&mut stream, &Message::Papers(page.to_vec()), MAX_MESSAGE).await.is_err() {
            break;
        }
    }
    until("left", || async { a.problems().await.contains("without end") }).await;
    assert!(!a.handle.gate().borrow().members.contains(&id(2)));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_joins_is_bounded() {
    let net = Net::new();
    let a = net.machine(1).await;
    a.handle.create("home", None).await.unwrap();
    let invited = a.handle.invite(InviteOptions { uses: 200, ..InviteOptions::default() }).await.unwrap();
    let invite = Invite::parse(&invited.invite).unwrap();
    let mut streams: Vec<Stream> = (0..40).map(|_| net.knock(&invite, 1)).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(a.problems().await.contains("told to come back later"));
    streams.clear();
    tokio::time::sleep(Duration::from_secs(90)).await;
    let b = net.machine(2).await;
    net.join(&b, &invited.invite, 1).await.unwrap();
    let mut busy = 0;
    for _ in 0..15 {
        busy += usize::from(
            net.join(&b, &invited.invite, 1)
                .await
                .is_err_and(|error| matches!(refusal(error), JoinRefusal::Busy { wait } if wait > 0)),
        );
    }
    assert!(busy >= 4, "{busy}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_named_and_contained() {
    let net = Net::new();
    let machines = pool(&net, 3).await;
    let [a, b, c] = &machines[..] else { panic!() };
    net.disconnect(1, 2).await;
    net.disconnect(2, 3).await;
    b.clock.1.store(5 * HOUR, Ordering::SeqCst);
    b.handle.rename(None, "future").await.unwrap();
    net.connect(1, 2).await;
    until("named", || async { a.problems().await.contains("its clock is 5 h ahead of this machine's") })
        .await;
    assert!(b.problems().await.contains("its clock is 5 h behind this machine's"));
    until("refused", || async { a.problems().await.contains("5 h in the future") }).await;
    assert!(a.handle.show("future").await.is_err());
    // Put right, it is as if nothing had been.
    b.clock.1.store(0, Ordering::SeqCst);
    net.pass(5 * HOUR);
    until("renamed", || async { c.handle.show("future").await.is_ok() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_costs_nothing_that_others_have() {
    let net = Net::new();
    let mut machines = pool(&net, 2).await;
    let b = machines.pop().unwrap();
    let a = machines.pop().unwrap();
    let path = b.dir.path().join("pool/papers.log");
    let (dir, end) = (Arc::clone(&b.dir), b.end);
    net.disconnect(1, 2).await;
    b.pool.shutdown().await;
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
    let b = net.start(end, 2, dir).await;
    assert!(b.problems().await.contains("torn record"));
    net.connect(1, 2).await;
    until("whole", || async { a.admits(2) && b.admits(1) }).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn garbage_harms_nobody(
        roster in proptest::collection::vec(any::<u8>(), 0..600),
        door in proptest::collection::vec(any::<u8>(), 0..600),
        framed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let net = Net::new();
            let machines = pool(&net, 2).await;
            let invited = machines[0].handle.invite(InviteOptions::default()).await.unwrap();
            let invite = Invite::parse(&invited.invite).unwrap();
            for (mut stream, bytes) in [(open(&net, 2, 1), &roster), (net.knock(&invite, 1), &door)] {
                if framed {
                    let _ = stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await;
                }
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
            assert_eq!(machines[0].standing(2).await, Some(Standing::Member));
            assert_eq!(machines[0].handle.members().await.unwrap().len(), 2);
        });
    }
}
