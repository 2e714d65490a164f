use super::*;

const BYTES: &str = "\
    0000000000000000000000000000000000000000000000000000000000000000\
    8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\
    8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394\
    030000001100000000000000d0121300000000000000000000000000a00f0000\
    0505050505050505050505050505050505050505050505050505050505050505";
const DIGEST: &str = "23ea0c956cb9fdf554d654c5bed6ec2e0c072e2f6932739f7a0a22bf49ee329c";
const SIGNATURE: &str = "\
    a2e8cbafb51d9a5855fca90955365dfa564c8e52d7235456ad99c342228d4a2e\
    5e6950e8914da1861dbb0b23cfbdd7ad225c89943ef8a6ae98dd9cd5b334e30a";
/// What the settler signs who promises to count it.
const PROMISE: &str = "c3f576538f332d6869a903f1e934680516c2e3915998a752d280039073c28843";
/// By the payer's key, over the digest above, but with a point of order two added to its nonce.
const TWISTED: &str = "\
    feaf9d07b868cc52786305312c376563c622b0386a10d105e3c1501b28d65f7e\
    a5dcc57a4cd96196d349a22394d1bb7df444796a646786c5fd96853d0ed72800";

pub(super) fn voucher() -> Voucher {
    Voucher {
        pool: PUBLIC_POOL,
        payer: account(1),
        payee: account(2),
        lane: 3,
        nonce: 17,
        cumulative: MicroCredits(1_250_000),
        expires: Block(4_000),
        receipts_root: [5; 32],
    }
}

fn signed() -> SignedVoucher {
    SignedVoucher::sign(voucher(), &GENESIS, &key(1))
}

/// The expected bytes come from a program in another language, written from the description of the format.
#[test]
fn the_format_stays() {
    assert_eq!(hex(&voucher().encode()), BYTES);
    assert_eq!(hex(&voucher().digest(&GENESIS)), DIGEST);
    assert_eq!(hex(&signed().signature), SIGNATURE);
    assert_eq!(hex(&signed().encode()), [BYTES, SIGNATURE].concat());
    assert_eq!(SignedVoucher::max_encoded_len(), 224);
    comes_back(&signed());
    let digest = voucher().digest(&GENESIS);
    assert_eq!(hex(&acknowledgement(&digest, &GENESIS)), PROMISE);
    assert_ne!(acknowledgement(&digest, &ELSEWHERE), acknowledgement(&digest, &GENESIS));
}

#[test]
fn a_voucher_is_good_on_its_chain_and_of_its_payer_only() {
    assert_eq!(signed().verify(&GENESIS), Ok(()));
    assert_eq!(signed().verify(&ELSEWHERE), Err(Forged));
    assert_eq!(SignedVoucher::sign(voucher(), &GENESIS, &key(2)).verify(&GENESIS), Err(Forged));
    let lent = SignedVoucher::sign_with(voucher(), &GENESIS, |digest| key(1).sign(digest).to_bytes());
    assert_eq!(lent, signed());
}

#[test]
fn every_changed_bit_breaks_a_voucher() {
    let changed: Vec<SignedVoucher> = flips(&signed().encode()).filter_map(|bytes| read(&bytes)).collect();
    assert_eq!(changed.len(), 224 * 8);
    assert!(changed.iter().all(|voucher| voucher.verify(&GENESIS).is_err()));
    assert_eq!(verify_batch(&changed, &GENESIS), Err((0..changed.len()).collect()));
}

#[test]
fn a_signature_has_one_form() {
    // The order of the curve added to the signature's number: the same number to those who do not look.
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carried = 0_u16;
    let mut other = signed();
    for (byte, more) in other.signature[32..].iter_mut().zip(order) {
        carried += u16::from(*byte) + u16::from(more);
        *byte = carried as u8;
        carried >>= 8;
    }
    assert_eq!((carried, other.verify(&GENESIS)), (0, Err(Forged)));
    assert_eq!(verify_batch(&[signed(), other], &GENESIS), Err([1].to_vec()));
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    let mut nobody = [0; 32];
    nobody[0] = 1;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&nobody);
    let forged = SignedVoucher { voucher: Voucher { payer: nobody, ..voucher() }, signature };
    assert_eq!(forged.verify(&GENESIS), Err(Forged));
    assert_eq!(verify_batch(&[forged], &GENESIS), Err([0].to_vec()));
}

#[test]
fn a_batch_takes_nothing_that_one_by_one_is_refused() {
    let signature = unhex(TWISTED).try_into().unwrap();
    let twisted = SignedVoucher { voucher: voucher(), signature };
    assert_eq!(twisted.verify(&GENESIS), Err(Forged));
    for before in 0..16 {
        let mut batch = std::vec![signed(); before];
        batch.push(twisted.clone());
        assert_eq!(verify_batch(&batch, &GENESIS), Err([before].to_vec()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_voucher_comes_back(
        lane: u32, nonce: u64, cumulative: u128, expires: u32, pool: [u8; 32], root: [u8; 32], payer in 1..9_u8,
    ) {
        let voucher = Voucher {
            pool, payer: account(payer), payee: account(2), lane, nonce,
            cumulative: MicroCredits(cumulative), expires: Block(expires), receipts_root: root,
        };
        let signed = SignedVoucher::sign(voucher, &GENESIS, &key(payer));
        prop_assert_eq!(signed.verify(&GENESIS), Ok(()));
        comes_back(&signed);
    }

    #[test]
    fn a_batch_names_the_bad_ones(bad in proptest::collection::vec(any::<bool>(), 0..24), payers in 1..4_u8) {
        let one = |(at, bad): (usize, &bool)| {
            let by = 1 + at as u8 % payers;
            let voucher = Voucher { payer: account(by), nonce: at as u64, ..voucher() };
            SignedVoucher::sign(voucher, if *bad { &ELSEWHERE } else { &GENESIS }, &key(by))
        };
        let batch: Vec<_> = bad.iter().enumerate().map(one).collect();
        let expected: Vec<usize> = (0..bad.len()).filter(|at| bad[*at]).collect();
        let found = verify_batch(&batch, &GENESIS).err().unwrap_or_default();
        prop_assert_eq!(&found, &expected);
    }
}
