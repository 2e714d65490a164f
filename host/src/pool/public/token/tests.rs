use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{Bounded, UnixMillis};
use proptest::prelude::*;

use super::*;
use crate::{
    identity::Signer,
    pool::public::issuer::tests::{EPOCH, GENESIS, LENGTH, some_keys},
};

const NOW: UnixMillis = UnixMillis(EPOCH as u64 * LENGTH + 1);

fn signer() -> Signer {
    Signer::from_seed([1; 32])
}

fn epoch(number: u32, second: bool) -> Epoch {
    let schedule = Schedule { length_ms: LENGTH };
    let keys = some_keys(second).map(|key| Residue::try_from(key.components().n()).unwrap());
    let (opens, closes, ends) = (schedule.opens(number), schedule.closes(number), schedule.ends(number));
    Epoch { number, opens, closes, ends, keys }
}

fn catalogue() -> Signed<Catalogue> {
    let epochs = vec![epoch(EPOCH, false), epoch(EPOCH + 1, true)];
    Signed::new(Catalogue::new(signer().node().0, epochs).unwrap(), &GENESIS, &signer())
}

fn mint() -> Mint {
    Mint::open(catalogue(), &GENESIS).unwrap()
}

/// Buys a token as the protocol does.
fn token(value: Denomination, number: u32) -> Token {
    let (mint, second) = (mint(), number != EPOCH);
    let key = mint.key(number, value).unwrap();
    let (message, blinding) = key.blind().unwrap();
    let secret = &some_keys(second)[value as usize];
    let signed = Residue::try_from(secret.blind_sign(message).unwrap().0).unwrap();
    assert!(key.answers(&message, &signed));
    key.finish(&blinding, &signed).unwrap()
}

#[test]
fn a_bought_token_is_good_until_its_epoch_ends_and_for_nothing_else() {
    let (mint, good) = (mint(), token(Denomination::Thousand, EPOCH));
    assert_eq!(mint.judge(&good, NOW), Ok(()));
    let ends = mint.catalogue.said.epoch(EPOCH).unwrap().ends;
    assert_eq!(mint.judge(&good, UnixMillis(ends.0 - 1)), Ok(()));
    assert_eq!(mint.judge(&good, ends), Err(Flaw::Expired));
    assert_eq!(mint.judge(&Token { epoch: EPOCH + 7, ..good.clone() }, NOW), Err(Flaw::Foreign));
    assert_eq!(mint.judge(&Token { epoch: EPOCH + 1, ..good.clone() }, NOW), Err(Flaw::Forged));
    for value in [Denomination::Hundred, Denomination::TenThousand] {
        assert_eq!(mint.judge(&Token { value, ..good.clone() }, NOW), Err(Flaw::Forged));
    }
    for at in 0..32 {
        let mut other = good.clone();
        other.serial[at] ^= 1;
        assert_eq!(mint.judge(&other, NOW), Err(Flaw::Forged), "serial byte {at}");
    }
    for at in (0..MODULUS).step_by(37) {
        let mut other = good.clone();
        other.signature[at] ^= 0x10;
        assert_eq!(mint.judge(&other, NOW), Err(Flaw::Forged), "signature byte {at}");
    }
    // The same key of another issuer, or on another chain, makes no such token.
    let keys = mint.catalogue.said.epoch(EPOCH).unwrap().keys;
    let (issuer, value) = (mint.issuer(), Denomination::Thousand);
    let right = MintKey::new(&keys[1], &GENESIS, &issuer, EPOCH, value).unwrap();
    let chain = MintKey::new(&keys[1], &Genesis([8; 32]), &issuer, EPOCH, value).unwrap();
    let other = MintKey::new(&keys[1], &GENESIS, &[9; 32], EPOCH, value).unwrap();
    assert!(right.verify(&good).is_ok() && chain.verify(&good).is_err() && other.verify(&good).is_err());
    assert_eq!(good.encode().len(), Token::BYTES);
    assert!(!format!("{good:?}").contains("signature"), "money is never shown");
}

#[test]
fn a_catalogue_is_the_bytes_it_was_and_every_flipped_bit_is_refused() {
    let bytes = catalogue().encode();
    assert_eq!(bytes.len(), 1 + 32 + 1 + 2 * (4 + 24 + 3 * MODULUS) + 64);
    let golden = blake2_256(&[&bytes]).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(golden, GOLDEN);
    for bit in (0..bytes.len() * 8).filter(|bit| *bit < 600 || bit % 41 == 0) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut rest = flipped.as_slice();
        let read = Signed::<Catalogue>::decode(&mut rest).ok().filter(|_| rest.is_empty());
        assert!(read.is_none_or(|it| Mint::open(it, &GENESIS).is_err()), "bit {bit}");
    }
    assert_eq!(Mint::open(catalogue(), &Genesis([8; 32])).unwrap_err(), TokenError::NotSigned);
}

const GOLDEN: &str = "5153517995b318504de19fac647d87b339e1c669201024331ae83a99af8c5115";

#[test]
fn catalogues_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut Catalogue)| {
        let mut said = catalogue().said;
        change(&mut said);
        Mint::open(Signed::new(said, &GENESIS, &signer()), &GENESIS).unwrap_err()
    };
    assert!(refused(|it| it.version = 2).to_string().contains("update potluck"));
    let swapped = refused(|it| it.epochs = Bounded::new(it.epochs.iter().rev().cloned().collect()).unwrap());
    assert!(swapped.to_string().contains("rise"));
    let edit = |it: &mut Catalogue, edit: &dyn Fn(&mut Epoch)| {
        let mut epochs = it.epochs.to_vec();
        epochs.iter_mut().for_each(edit);
        it.epochs = Bounded::new(epochs).unwrap();
    };
    let with = |change: &dyn Fn(&mut Epoch)| {
        let mut said = catalogue().said;
        edit(&mut said, change);
        Mint::open(Signed::new(said, &GENESIS, &signer()), &GENESIS).unwrap_err()
    };
    assert!(with(&|it| it.ends = it.opens).to_string().contains("before it begins"));
    assert!(with(&|it| it.keys[0] = it.keys[2]).to_string().contains("one key for two uses"));
    assert_eq!(with(&|it| it.keys[0][MODULUS - 1] &= 0xfe), TokenError::Key, "even");
    assert_eq!(with(&|it| it.keys[0][0] = 0x01), TokenError::Key, "too short");
    let many = (0..5).map(|number| Epoch { number, ..epoch(EPOCH, false) }).collect();
    assert!(Catalogue::new([0; 32], many).unwrap_err().to_string().contains("too many"));
}

#[test]
fn two_blindings_of_one_key_share_nothing_and_a_wrong_signature_makes_no_token() {
    let mint = mint();
    let key = mint.key(EPOCH, Denomination::Hundred).unwrap();
    let ((one, secret), (two, _)) = (key.blind().unwrap(), key.blind().unwrap());
    assert!(!one.windows(8).any(|window| two.windows(8).any(|other| other == window)));
    let wrong = Residue::try_from(some_keys(false)[0].blind_sign(two).unwrap().0).unwrap();
    assert_eq!(key.finish(&secret, &wrong).unwrap_err(), TokenError::Forged);
    assert!(!key.answers(&one, &wrong));
    assert!(!key.answers(&one, &[0xff; MODULUS]), "not below the modulus");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = Token::decode(&mut bytes.as_slice());
        let _ = Signed::<Catalogue>::decode(&mut bytes.as_slice());
        let _ = Blinding::decode(&mut bytes.as_slice());
    }
}

/// Run with `--release --nocapture` for figures that say something.
#[test]
fn rsa_is_fast_enough_to_pay_by_the_chunk() {
    let mint = mint();
    let key = mint.key(EPOCH, Denomination::Hundred).unwrap();
    let secret = &some_keys(false)[0];
    let count = 50;
    let per_second = |name: &str, act: &mut dyn FnMut(usize)| {
        let began = std::time::Instant::now();
        (0..count).for_each(act);
        println!("{name}: {:.0} per second", f64::from(count as u32) / began.elapsed().as_secs_f64());
    };
    let (mut blinded, mut signed, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    per_second("blind", &mut |_| blinded.push(key.blind().unwrap()));
    per_second("sign", &mut |at| {
        signed.push(Residue::try_from(secret.blind_sign(blinded[at].0).unwrap().0).unwrap());
    });
    per_second("finish", &mut |at| tokens.push(key.finish(&blinded[at].1, &signed[at]).unwrap()));
    per_second("verify", &mut |at| key.verify(&tokens[at]).unwrap());
    assert_eq!(tokens.len(), count);
}
