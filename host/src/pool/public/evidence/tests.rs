use potluck_primitives::{Bounded, UnixMillis};
use proptest::prelude::*;

use super::*;
use crate::{
    identity::Signer,
    pool::public::{
        issuer::{
            tests::{EPOCH, GENESIS, World},
            wire::{Answer, Claim, Proof, Question, tokens_digest},
        },
        token::{Denomination, Epoch, Flaw},
    },
};

const FACTS: Facts = Facts { genesis: GENESIS, bond: MicroCredits(10_000) };

fn issuer() -> Signer {
    Signer::from_seed([1; 32])
}

fn issued(sequence: u64, total: u128, purchase: u8) -> Signed<Issued> {
    let issued = Issued {
        issuer: issuer().node().0,
        epoch: EPOCH,
        sequence,
        at: UnixMillis(5),
        total: MicroCredits(total),
        standing: MicroCredits(total),
        purchase: [purchase; 32],
        signatures: [0; 32],
    };
    Signed::new(issued, &GENESIS, &issuer())
}

/// Convicts by good evidence; with any byte of it changed, nobody is convicted by what was changed.
fn holds(evidence: &Evidence, guilty: &Signer) {
    assert_eq!(evidence.verify(&FACTS), Ok(guilty.node().0));
    let bytes = evidence.encode();
    assert!(bytes.len() <= MAX_EVIDENCE);
    assert_eq!(Evidence::open(&bytes).as_ref(), Ok(evidence));
    let step = bytes.len() / 150 + 1;
    for at in (0..bytes.len()).step_by(step) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let tampered = Evidence::open(&bytes).and_then(|it| it.verify(&FACTS));
        assert!(tampered.is_err(), "byte {at} of {}", bytes.len());
    }
    let elsewhere = Facts { genesis: potluck_primitives::Genesis([8; 32]), ..FACTS };
    assert!(evidence.verify(&elsewhere).is_err(), "of another chain");
    assert_ne!(evidence.digest(&GENESIS), evidence.digest(&elsewhere.genesis));
}

#[test]
fn two_statements_of_one_number_convict_and_honest_ones_do_not() {
    let books = |first, second| Evidence::Books { first, second };
    holds(&books(issued(5, 900, 1), issued(5, 900, 2)), &issuer());
    holds(&books(issued(5, 900, 1), issued(6, 900, 2)), &issuer());
    holds(&books(issued(7, 500, 1), issued(6, 900, 2)), &issuer());
    let innocent = Err(EvidenceError::Innocent);
    assert_eq!(books(issued(5, 900, 1), issued(5, 900, 1)).verify(&FACTS), innocent, "one statement twice");
    assert_eq!(books(issued(5, 900, 1), issued(6, 1_000, 2)).verify(&FACTS), innocent);
    let mut other = issued(5, 900, 2).said;
    other.epoch += 1;
    let other = Signed::new(other, &GENESIS, &issuer());
    assert_eq!(books(issued(5, 900, 1), other).verify(&FACTS), Err(EvidenceError::Unrelated));
    let mut framed = issued(5, 900, 2);
    framed.signature = issued(5, 900, 1).signature;
    assert_eq!(books(issued(5, 900, 1), framed).verify(&FACTS), Err(EvidenceError::Forged));
}

#[test]
fn issuing_beyond_the_bond_convicts() {
    holds(&Evidence::Bond(issued(9, 10_001, 1)), &issuer());
    assert_eq!(Evidence::Bond(issued(9, 10_000, 1)).verify(&FACTS), Err(EvidenceError::Innocent));
}

#[test]
fn bytes_that_are_none_are_refused() {
    let mut bytes = Evidence::Bond(issued(9, 10_001, 1)).encode();
    bytes.push(0);
    assert_eq!(Evidence::open(&bytes), Err(EvidenceError::Malformed));
    assert_eq!(Evidence::open(&vec![0; MAX_EVIDENCE + 1]), Err(EvidenceError::Malformed));
}

/// A purchase that was really made, and what the issuer made of it.
struct Case {
    catalogue: Signed<Catalogue>,
    purchase: Signed<Purchase>,
    sold: Sold,
    tokens: Vec<Token>,
    now: UnixMillis,
}

async fn case() -> Case {
    let world = World::new();
    let running = world.start_issuer().await;
    let catalogue = running.catalogue();
    let mint = Mint::open(catalogue.clone(), &GENESIS).unwrap();
    let values = [Denomination::Hundred, Denomination::Thousand];
    let (purchase, blindings) = world.purchase(&mint, &values, 1_100).await;
    let Answer::Sold(sold) = world.link().ask(&Question::Buy(purchase.clone())).await.unwrap() else {
        panic!()
    };
    let finish = |(blinding, signed): (&crate::pool::public::token::Blinding, _)| {
        mint.key(EPOCH, blinding.value).unwrap().finish(blinding, signed).unwrap()
    };
    let tokens = blindings.iter().zip(sold.signatures.iter()).map(finish).collect();
    running.shutdown().await;
    Case { catalogue, purchase, sold, tokens, now: world.clock().now() }
}

fn claim(payee: u8, tokens: &[Token]) -> Spend {
    let payee = Signer::from_seed([payee; 32]);
    let names: Vec<Hash> = tokens.iter().map(Token::name).collect();
    let claim = Claim {
        issuer: issuer().node().0,
        payee: payee.node().0,
        nonce: [6; 16],
        count: u32::try_from(names.len()).unwrap(),
        root: potluck_primitives::merkle_root(&names),
        tokens: tokens_digest(tokens),
    };
    Spend { claim: Signed::new(claim, &GENESIS, &payee), tokens: Bounded::new(tokens.to_vec()).unwrap() }
}

fn answer(spend: &Spend, at: UnixMillis, outcomes: Vec<Outcome>) -> Signed<Settled> {
    let settled = Settled {
        issuer: issuer().node().0,
        claim: spend.claim.digest(&GENESIS),
        at,
        outcomes: Bounded::new(outcomes).unwrap(),
        voucher: None,
    };
    Signed::new(settled, &GENESIS, &issuer())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_good_tokens_without_a_proof_convicts_and_with_one_does_not() {
    let Case { catalogue, tokens, now, .. } = case().await;
    let (spend, earlier) = (claim(3, &tokens), claim(4, &tokens));
    let refused = |outcomes: Vec<Outcome>| {
        let (catalogue, settled) = (catalogue.clone(), answer(&spend, now, outcomes));
        Evidence::Refused { catalogue, spend: spend.clone(), settled }
    };
    let proof = |of: &Spend, index| {
        let path = potluck_primitives::MerkleProof::of(&of.names(), index).unwrap();
        Outcome::Spent(Proof { claim: of.claim.clone(), path })
    };
    let innocent = Err(EvidenceError::Innocent);
    holds(&refused(vec![Outcome::Fresh, Outcome::Flawed(Flaw::Forged)]), &issuer());
    assert_eq!(
        refused(vec![Outcome::Flawed(Flaw::Expired), Outcome::Fresh]).verify(&FACTS),
        Ok(issuer().node().0)
    );
    assert_eq!(refused(vec![proof(&earlier, 0), proof(&earlier, 1)]).verify(&FACTS), innocent);
    let guilty = Ok(issuer().node().0);
    assert_eq!(
        refused(vec![proof(&earlier, 1), Outcome::Fresh]).verify(&FACTS),
        guilty,
        "a proof of another token"
    );
    assert_eq!(refused(vec![proof(&spend, 0), Outcome::Fresh]).verify(&FACTS), guilty, "the claim itself");
    let mut forged = earlier.clone();
    forged.claim.signature[3] ^= 1;
    assert_eq!(refused(vec![proof(&forged, 0), Outcome::Fresh]).verify(&FACTS), guilty, "nobody signed it");
    // Whoever claimed a bad token cannot show the good one in its place.
    let mut bad = tokens.clone();
    bad[0].signature[9] ^= 1;
    let mut framed = claim(3, &bad);
    let settled = answer(&framed, now, vec![Outcome::Flawed(Flaw::Forged), Outcome::Fresh]);
    framed.tokens = Bounded::new(tokens.clone()).unwrap();
    let framed = Evidence::Refused { catalogue: catalogue.clone(), spend: framed, settled };
    assert_eq!(framed.verify(&FACTS), Err(EvidenceError::Forged));
    // A token that is none may be refused, one whose time is over as well.
    let mut bad = tokens.clone();
    bad[0].signature[9] ^= 1;
    let spend = claim(3, &bad);
    let settled = answer(&spend, now, vec![Outcome::Flawed(Flaw::Forged), Outcome::Fresh]);
    let catalogue = catalogue.clone();
    let right = Evidence::Refused { catalogue: catalogue.clone(), spend, settled };
    assert_eq!(right.verify(&FACTS), innocent);
    let spend = claim(3, &tokens);
    let late = catalogue.said.epoch(EPOCH).unwrap().ends;
    let expired = vec![Outcome::Flawed(Flaw::Expired); 2];
    let settled = answer(&spend, late, expired);
    assert_eq!(Evidence::Refused { catalogue, spend, settled }.verify(&FACTS), innocent);
}

#[tokio::test(flavor = "multi_thread")]
async fn selling_garbage_convicts_and_selling_signatures_does_not() {
    let Case { catalogue, purchase, sold, .. } = case().await;
    let garbage =
        |sold: Sold| Evidence::Garbage { catalogue: catalogue.clone(), purchase: purchase.clone(), sold };
    assert_eq!(garbage(sold.clone()).verify(&FACTS), Err(EvidenceError::Innocent));
    let mut signatures = sold.signatures.to_vec();
    signatures.swap(0, 1);
    let signatures = Bounded::new(signatures).unwrap();
    let mut said = sold.issued.said.clone();
    said.signatures = signatures_digest(&signatures);
    let bad = Sold { issued: Signed::new(said, &GENESIS, &issuer()), signatures: signatures.clone() };
    holds(&garbage(bad), &issuer());
    // Signatures that the issuer's word does not name are not its own.
    let framed = Sold { issued: sold.issued, signatures };
    assert_eq!(garbage(framed).verify(&FACTS), Err(EvidenceError::Unrelated));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_catalogues_with_different_keys_for_one_epoch_convict() {
    let Case { catalogue, .. } = case().await;
    let mut said = catalogue.said.clone();
    let mut epochs: Vec<Epoch> = said.epochs.to_vec();
    epochs[0].keys[0][200] ^= 4;
    said.epochs = Bounded::new(epochs).unwrap();
    let other = Signed::new(said, &GENESIS, &issuer());
    holds(&Evidence::Keys { first: catalogue.clone(), second: other }, &issuer());
    let mut fewer = catalogue.said.clone();
    fewer.epochs = Bounded::new(fewer.epochs.iter().take(1).cloned().collect()).unwrap();
    let fewer = Signed::new(fewer, &GENESIS, &issuer());
    let innocent = Evidence::Keys { first: catalogue, second: fewer };
    assert_eq!(innocent.verify(&FACTS), Err(EvidenceError::Innocent));
}

proptest! {
    #[test]
    fn any_bytes_are_no_evidence(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        if let Ok(evidence) = Evidence::open(&bytes) {
            prop_assert!(evidence.verify(&FACTS).is_err());
        }
    }
}
