use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::{
    clock::{Clock, DAY, HOUR},
    grants::Grants,
    papers::{Certificate, Delegation, Discovery, Invite, InviteTerms, Paper, PaperError, Pool, Statement},
};
use super::*;
use crate::{identity::Signer, mesh::frame};

const NOW: Millis = 1_800_000_000_000;

#[derive(Debug)]
struct Fixed(Millis);

impl Clock for Fixed {
    fn now(&self) -> Millis {
        self.0
    }
}

fn signer(byte: u8) -> Signer {
    Signer::from_seed([byte; 32])
}

fn pool() -> PoolId {
    PoolId(signer(0).node())
}

fn sign(statement: Statement, by: u8) -> Paper {
    Paper::sign(statement, &signer(by)).unwrap()
}

fn terms() -> Paper {
    sign(
        Statement::Invite(InviteTerms {
            pool: pool(),
            invite: InviteId(signer(9).node()),
            grants: Grants::default(),
            issued: NOW,
            expires: NOW + DAY,
            uses: 1,
            hint: None,
        }),
        0,
    )
}

fn invite() -> Invite {
    Invite::new(terms(), None, [9; 32], Vec::new()).unwrap()
}

fn certificate(to: u8, by: u8) -> Paper {
    let it = Certificate {
        pool: pool(),
        node: signer(to).node(),
        name: "box".into(),
        grants: Grants::default(),
        joined: NOW,
        issued: NOW,
        expires: NOW + DAY,
        serial: 1,
        invite: Some(InviteId(signer(9).node())),
    };
    sign(Statement::Certificate(it), by)
}

fn papers() -> Vec<Paper> {
    let named = Pool { pool: pool(), name: "home".into(), created: NOW, quorum: None };
    let delegation = Delegation { pool: pool(), node: signer(1).node(), issued: NOW };
    vec![sign(Statement::Pool(named), 0), sign(Statement::Delegation(delegation), 0), terms()]
}

fn sealed(papers: &[Paper]) -> Vec<Sealed> {
    papers.iter().map(|paper| paper.sealed().clone()).collect()
}

async fn ask(stream: &mut DuplexStream, clock: Millis) -> Result<Joined, JoinError> {
    let (invite, signer, clock) = (invite(), signer(5), Fixed(clock));
    request(
        stream,
        Ask { invite: &invite, signer: &signer, name: " My  box ", nonce: [1; 32], clock: &clock },
    )
    .await
}

/// The issuer's side; `answer` is what comes of it.
async fn serve(stream: &mut DuplexStream, outcome: Answer) -> Result<Applicant, Ended> {
    let peer = signer(9).node();
    let applicant = hear(stream, peer, (pool(), signer(1).node(), "ana"), [2; 32], &Fixed(NOW)).await?;
    answer(stream, Ok(outcome)).await?;
    Ok(applicant)
}

async fn both(outcome: Answer) -> (Result<Applicant, Ended>, Result<Joined, JoinError>) {
    let (mut near, mut far) = duplex(4_096);
    tokio::join!(serve(&mut far, outcome), ask(&mut near, NOW))
}

#[tokio::test]
async fn the_joiner_gets_what_the_root_signed() {
    let mut all = papers();
    all.push(certificate(5, 1));
    let key = Discovery { pool: pool(), epoch: 1, key: [4; 32], at: NOW };
    let key = sign(Statement::Discovery(key), 1);
    let (heard, joined) = both(Answer { discovery: Some(key.sealed().clone()), papers: sealed(&all) }).await;
    let heard = heard.unwrap();
    assert_eq!((heard.node, heard.name.as_str()), (signer(5).node(), "My box"));
    let joined = joined.unwrap();
    assert_eq!((joined.issuer, joined.discovery), (signer(1).node(), Some(key)));
    assert!(joined.roster.view(NOW).is_member(signer(5).node()));
}

#[tokio::test]
async fn the_joiner_believes_nothing_else() {
    let refused = async |extra: Vec<Paper>, leave_out: usize| {
        let mut all = papers();
        all.truncate(3 - leave_out);
        all.extend(extra);
        both(Answer { discovery: None, papers: sealed(&all) }).await.1.unwrap_err()
    };
    assert!(matches!(refused(vec![], 0).await, JoinError::NotAdmitted(_)));
    // By someone whom the root did not let.
    let error = refused(vec![certificate(5, 7)], 0).await;
    assert!(matches!(error, JoinError::Paper(PaperError::Unauthorised { .. })));
    let error = refused(vec![certificate(5, 1)], 2).await;
    assert!(matches!(error, JoinError::Paper(PaperError::Unauthorised { .. })));
    // For another machine.
    assert!(matches!(refused(vec![certificate(6, 1)], 0).await, JoinError::NotAdmitted(_)));
    // A discovery key by someone else is left out.
    let key = sign(Statement::Discovery(Discovery { pool: pool(), epoch: 9, key: [4; 32], at: NOW }), 7);
    let mut all = papers();
    all.push(certificate(5, 1));
    let (_, joined) = both(Answer { discovery: Some(key.sealed().clone()), papers: sealed(&all) }).await;
    assert_eq!(joined.unwrap().discovery, None);
}

#[tokio::test]
async fn clocks_that_differ_are_named_on_both_sides() {
    for (skew, says) in [(3 * HOUR, "3 h ahead of"), (-3 * HOUR, "3 h behind")] {
        let (mut near, mut far) = duplex(4_096);
        let (heard, joined) = tokio::join!(serve(&mut far, Answer::default()), ask(&mut near, NOW + skew));
        let told = joined.unwrap_err().to_string();
        assert!(told.contains(says) && told.contains("ana") && told.contains("NTP"), "{told}");
        assert!(matches!(heard, Err(Ended::Refused(JoinRefusal::Clock { .. }))));
    }
}

#[tokio::test]
async fn a_proof_holds_for_one_conversation() {
    let (mut near, mut far) = duplex(4_096);
    let serving = tokio::spawn(async move { serve(&mut far, Answer::default()).await });
    let (pool, invite) = (pool(), InviteId(signer(9).node()));
    let hello = ToIssuer::Hello { pool, invite, nonce: [1; 32], now: NOW };
    frame::write(&mut near, &hello, MAX_ASK).await.unwrap();
    let _: ToJoiner = frame::expect(&mut near, MAX_ANSWER).await.unwrap();
    // As it was made for another nonce of the issuer.
    let node = signer(5).node();
    let old = Transcript {
        pool,
        invite,
        joiner_nonce: [1; 32],
        issuer_nonce: [3; 32],
        issuer: signer(1).node(),
        node,
        name: "x",
    };
    let (by_node, by_invite) = (signer(5).sign(&old.bytes()), signer(9).sign(&old.bytes()));
    let proof = ToIssuer::Proof { node, name: "x".into(), by_node, by_invite };
    frame::write(&mut near, &proof, MAX_ASK).await.unwrap();
    let told: ToJoiner = frame::expect(&mut near, MAX_ANSWER).await.unwrap();
    assert!(matches!(told, ToJoiner::Refused(JoinRefusal::Proof)));
    assert!(matches!(serving.await.unwrap(), Err(Ended::Refused(JoinRefusal::Proof))));
}

#[tokio::test]
async fn the_connection_must_be_under_the_key_of_the_invite() {
    let (mut near, mut far) = duplex(4_096);
    let clock = Fixed(NOW);
    let hearing = hear(&mut far, signer(8).node(), (pool(), signer(1).node(), "ana"), [2; 32], &clock);
    let (heard, joined) = tokio::join!(hearing, ask(&mut near, NOW));
    assert!(matches!(heard, Err(Ended::Refused(JoinRefusal::Proof))));
    assert!(matches!(joined, Err(JoinError::Refused(JoinRefusal::Proof))));
    let (mut near, mut far) = duplex(4_096);
    let elsewhere = (PoolId(signer(77).node()), signer(1).node(), "ana");
    let hearing = hear(&mut far, signer(9).node(), elsewhere, [2; 32], &clock);
    let (_, joined) = tokio::join!(hearing, ask(&mut near, NOW));
    assert!(joined.unwrap_err().to_string().contains("ana is in another pool"));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_says_nothing_is_left() {
    let (mut near, mut far) = duplex(4_096);
    let silent = async {
        let mut seen = Vec::new();
        let _ = far.read_to_end(&mut seen).await;
    };
    tokio::select! {
        joined = ask(&mut near, NOW) => assert!(matches!(joined, Err(JoinError::Timeout))),
        () = silent => panic!(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn garbage_from_an_issuer_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), framed in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = duplex(4_096);
            if framed {
                far.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
            }
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            assert!(ask(&mut near, NOW).await.is_err());
        });
    }
}

/// A page of the longest papers, and of names of papers, fits a message.
const _: () = {
    use super::super::{exchange, papers::MAX_PAPER};
    assert!(PAGE * (MAX_PAPER + 8) < MAX_ANSWER && PAGE * (MAX_PAPER + 8) < exchange::MAX_MESSAGE);
    assert!(exchange::HAVE * 34 + 64 < exchange::MAX_MESSAGE);
};
