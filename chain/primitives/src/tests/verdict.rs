use super::*;

const BYTES: &str = "\
    07070707070707070707070707070707\
    8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\
    0808080808080808080808080808080808080808080808080808080808080808\
    0909090909090909090909090909090909090909090909090909090909090909\
    90d00300bc020000";
const DIGEST: &str = "4ce016c85493d420524ab47a21df6f62543081f03925cda06eec91c68b1e598b";

fn verdict() -> Verdict {
    Verdict {
        job: [7; 16],
        provider: account(1),
        evidence: [8; 32],
        policy: PolicyHash([9; 32]),
        parts: 250_000,
        at: Block(700),
    }
}

fn by(signers: &[u8], verdict: Verdict) -> SignedVerdict {
    let digest = verdict.digest(&GENESIS);
    let sign = |byte: &u8| (account(*byte), key(*byte).sign(&digest).to_bytes());
    SignedVerdict::new(verdict, signers.iter().map(sign).collect()).unwrap()
}

fn drawn() -> [Account; 4] {
    [5, 2, 4, 3].map(account)
}

#[test]
fn the_format_stays() {
    assert_eq!(hex(&verdict().encode()), BYTES);
    assert_eq!(hex(&verdict().digest(&GENESIS)), DIGEST);
    let signed = by(&[2, 3], verdict());
    assert_eq!(signed.encode().len(), 120 + 1 + 2 * 96);
    assert_eq!(SignedVerdict::max_encoded_len(), 120 + 1 + 32 * 96);
    comes_back(&signed);
}

#[test]
fn enough_of_those_drawn_have_to_sign() {
    let check = |signed: &SignedVerdict, needed| signed.verify(&GENESIS, &drawn(), needed);
    let signed = by(&[4, 2, 3], verdict());
    assert_eq!(check(&signed, 3), Ok(()));
    assert_eq!(check(&signed, 4), Err(VerdictError::TooFew { found: 3, needed: 4 }));
    assert_eq!(check(&by(&[2, 3, 6], verdict()), 3), Err(VerdictError::Stranger(account(6))));
    assert_eq!(check(&by(&[2, 2, 3], verdict()), 3), Err(VerdictError::TooFew { found: 2, needed: 3 }));
    let whole = Verdict { parts: MILLION, ..verdict() };
    assert_eq!(check(&by(&[2, 3], whole), 2), Ok(()));
    let more = Verdict { parts: MILLION + 1, ..verdict() };
    assert_eq!(check(&by(&[2, 3], more), 2), Err(VerdictError::Parts));
    assert!(signed.verify(&ELSEWHERE, &drawn(), 3).is_err());
}

#[test]
fn nobody_signs_twice_or_for_another() {
    let check = |signatures: Vec<_>| {
        let signatures = Bounded::new(signatures).unwrap();
        SignedVerdict { verdict: verdict(), signatures }.verify(&GENESIS, &drawn(), 2)
    };
    let two = by(&[2, 3], verdict()).signatures.into_inner();
    assert_eq!(check(two.clone()), Ok(()));
    assert_eq!(check([two[1], two[0]].to_vec()), Err(VerdictError::Order));
    assert_eq!(check([two[0], two[0]].to_vec()), Err(VerdictError::Order));
    let swapped = [(two[0].0, two[1].1), (two[1].0, two[0].1)].to_vec();
    assert_eq!(check(swapped), Err(VerdictError::Forged(two[0].0)));
    let crowd = (0..33).map(|at| ([at; 32], [0; 64])).collect();
    assert_eq!(SignedVerdict::new(verdict(), crowd), Err(TooMany { most: 32 }));
}

#[test]
fn every_changed_bit_breaks_a_verdict() {
    let signed = by(&[2, 3], verdict());
    let holds = |signed: &SignedVerdict| signed.verify(&GENESIS, &drawn(), 2).is_ok();
    assert!(holds(&signed));
    assert!(!flips(&signed.encode()).filter_map(|bytes| read(&bytes)).any(|changed| holds(&changed)));
}
