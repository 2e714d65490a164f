use super::*;

#[test]
fn credits_read_as_they_are_written() {
    for (micro, text) in [
        (0, "0.000000"),
        (1, "0.000001"),
        (1_250_000, "1.250000"),
        (u128::MAX, "340282366920938463463374607431768.211455"),
    ] {
        assert_eq!(MicroCredits(micro).to_string(), text);
        assert_eq!(text.parse(), Ok(MicroCredits(micro)));
    }
    assert_eq!("12".parse(), Ok(MicroCredits(12_000_000)));
    assert_eq!("1.25".parse(), Ok(MicroCredits(1_250_000)));
}

#[test]
fn what_is_no_sum_of_credits_is_refused() {
    for text in ["", ".", "1.", ".5", "+1", "-1", "1,5", "1.2.3", " 1", "1e3", "0x1", "٣"] {
        assert_eq!(text.parse::<MicroCredits>(), Err(ParseCredits::Malformed), "{text:?}");
    }
    assert_eq!("0.0000001".parse::<MicroCredits>(), Err(ParseCredits::TooFine));
    for text in
        ["340282366920938463463374607431768.211456", "340282366920938463463374607431769", &"9".repeat(60)]
    {
        assert_eq!(text.parse::<MicroCredits>(), Err(ParseCredits::TooLarge), "{text:?}");
    }
}

#[test]
fn money_never_wraps() {
    let (most, one) = (MicroCredits(u128::MAX), MicroCredits(1));
    assert_eq!(most.checked_add(one), None);
    assert_eq!(MicroCredits::ZERO.checked_sub(one), None);
    assert_eq!(most.checked_mul(2), None);
    assert_eq!(most.checked_parts(MILLION), Some(most));
    assert_eq!(most.checked_parts(MILLION + 1), None);
    assert_eq!(MicroCredits(1_999_999).checked_parts(500_000), Some(MicroCredits(999_999)));
    assert_eq!(MicroCredits::CREDIT.checked_add(one), Some(MicroCredits(1_000_001)));
    assert_eq!(MicroCredits::CREDIT.checked_sub(one), Some(MicroCredits(999_999)));
    assert_eq!(MicroCredits::CREDIT.checked_mul(3), Some(MicroCredits(3_000_000)));
}

#[test]
fn the_numbers_of_kinds_stay() {
    assert_eq!(PolicyKind::ALL.map(|kind| kind.encode()), [[0], [1], [2]]);
    assert_eq!(read::<PolicyKind>(&[3]), None);
    assert_eq!(MicroCredits(1).encode(), 1_u128.to_le_bytes());
    assert_eq!(PoolClass(258).encode(), [2, 1]);
    assert_eq!(Block(1).encode(), [1, 0, 0, 0]);
    assert_eq!(PolicyHash([0xa5; 32]).to_string(), "a5".repeat(32));
}

proptest! {
    #[test]
    fn any_sum_of_credits_comes_back(micro: u128) {
        prop_assert_eq!(MicroCredits(micro).to_string().parse(), Ok(MicroCredits(micro)));
        comes_back(&MicroCredits(micro));
    }

    #[test]
    fn a_part_and_the_rest_are_the_whole_but_for_one(sum: u128, parts in 0..=MILLION) {
        let of = |parts| MicroCredits(sum).checked_parts(parts).unwrap().0;
        let (part, rest) = (of(parts), of(MILLION - parts));
        prop_assert!(part + rest <= sum && sum - part - rest <= 1);
        if let Some(product) = sum.checked_mul(u128::from(parts)) {
            prop_assert_eq!(part, product / u128::from(MILLION));
        }
    }
}
