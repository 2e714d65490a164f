use super::*;

const BYTES: &str = "\
    8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\
    ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1\
    2c637075203820636f726573\
    080a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\
    0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
    0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\
    0900000000000000bc020000";
const DIGEST: &str = "833e11f4f681ab25689ca98fe6e92b6c3b2115bd76fec05360e8213e487590db";
const SIGNATURE: &str = "\
    f7e2a576c7fd01810894dba3c451d9bdeb670fe1f2dd3c8ccb5ed10ac3998bb7\
    1e8c4f720634538db3ff381fba3b9ba9a685bfd5dc695d1fe2c812a0095b090b";
/// The first number that is twelve bits of work for the digest above.
const WORK: u64 = 11_143;

fn registration() -> Registration {
    Registration {
        account: account(1),
        peer: account(3),
        hardware: Class::new("cpu 8 cores"),
        models: Bounded::new([[0x0a; 32], [0x0b; 32]].to_vec()).unwrap(),
        endpoint: [0x0c; 32],
        sequence: 9,
        at: Block(700),
    }
}

fn signed() -> SignedRegistration {
    SignedRegistration::sign(registration(), WORK, &GENESIS, &key(1))
}

#[test]
fn the_format_stays() {
    assert_eq!(hex(&registration().encode()), BYTES);
    assert_eq!(hex(&registration().digest(&GENESIS)), DIGEST);
    assert_eq!(hex(&signed().signature), SIGNATURE);
    assert_eq!(hex(&signed().encode()), [BYTES, "872b000000000000", SIGNATURE].concat());
    comes_back(&signed());
}

#[test]
fn a_registration_is_good_on_its_chain_and_of_its_account_only() {
    assert_eq!(signed().verify(&GENESIS), Ok(()));
    assert_eq!(signed().verify(&ELSEWHERE), Err(Forged));
    assert!(SignedRegistration::sign(registration(), WORK, &GENESIS, &key(3)).verify(&GENESIS).is_err());
    assert!(signed().work_bits(&ELSEWHERE) < 12);
}

#[test]
fn every_changed_bit_breaks_a_registration() {
    let holds =
        |signed: &SignedRegistration| signed.verify(&GENESIS).is_ok() && signed.work_bits(&GENESIS) >= 12;
    assert!(holds(&signed()));
    assert!(!flips(&signed().encode()).filter_map(|bytes| read(&bytes)).any(|changed| holds(&changed)));
}

#[test]
fn work_is_found_where_it_is() {
    let digest = registration().digest(&GENESIS);
    assert_eq!(work_bits(&digest, WORK), 12);
    assert_eq!(find_work(&digest, 12, 0, WORK + 1), Some(WORK));
    assert_eq!(find_work(&digest, 12, 0, WORK), None);
    assert_eq!(find_work(&digest, 0, u64::MAX, 1), Some(u64::MAX));
    assert_eq!(find_work(&digest, 257, 0, 100), None);
}

#[test]
fn the_largest_registration_fits_and_a_larger_one_does_not() {
    let largest = Registration {
        hardware: Class::new(&"x".repeat(100)),
        models: Bounded::new(std::vec![[7; 32]; 64]).unwrap(),
        ..registration()
    };
    assert_eq!(largest.encode().len(), Registration::max_encoded_len());
    let mut bytes = registration().encode();
    // The count of models, 65 of them, which then follow.
    let at = 32 + 32 + 12;
    bytes.splice(at..=at, [5, 1]);
    bytes.splice(at + 2..at + 2, [7; 63 * 32]);
    assert_eq!(read::<Registration>(&bytes), None);
    bytes.splice(at..at + 2 + 32, [1, 1]);
    assert_eq!(read::<Registration>(&bytes).map(|it| it.models.len()), Some(64));
}
