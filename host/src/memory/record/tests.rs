//! Tests of records, their bytes and their signatures.

use proptest::prelude::*;

use super::super::clock::Stamp;
use super::*;

fn signer() -> Signer {
    Signer::from_seed([7; 32])
}

fn id(n: u8) -> RecordId {
    RecordId::new(Millis(1_700_000_000_000), [n; 10])
}

fn context(n: u8) -> Context {
    Context { id: id(n), stamp: Stamp::new(1_700_000_000_000, 5), sequence: u64::from(n) }
}

fn draft(content: &str) -> Draft {
    Draft { content: content.to_owned(), ..Draft::default() }
}

fn golden() -> Version {
    let draft = Draft {
        content: "the milk is in the fridge".to_owned(),
        kind: Kind::Reference,
        project: Some("home".to_owned()),
        tags: vec!["milk".to_owned(), "food".to_owned(), "milk".to_owned()],
        occurred_at: Some(Millis(1_684_549_260_000)),
        valid_until: None,
        supersedes: vec![id(9)],
        source: Some("someone".to_owned()),
    };
    Version::seal(draft, context(1), &signer()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_version_never_change() {
    let version = golden();
    let bytes = Entry::Version(Box::new(version.clone())).encode().unwrap();
    assert_eq!(hex(&version.header.signed_bytes()), include_str!("golden/header.hex").trim());
    assert_eq!(hex(&bytes), include_str!("golden/version.hex").trim());
}

#[test]
fn the_bytes_of_vectors_never_change() {
    let rows =
        vec![Row { scale: 0.5, values: vec![1, -1, 127] }, Row { scale: 0.25, values: vec![-128, 0, 3] }];
    let made =
        Vectors::seal(id(1), ("a-model".to_owned(), 3), rows, (Stamp::new(1, 2), 4), &signer()).unwrap();
    let bytes = Entry::Vectors(Box::new(made)).encode().unwrap();
    assert_eq!(hex(&bytes), include_str!("golden/vectors.hex").trim());
}

#[test]
fn a_version_verifies_with_and_without_its_text() {
    let version = golden();
    version.verify().unwrap();
    assert_eq!(version.header.tags, ["food", "milk"]);
    let erased = version.clone().erased();
    erased.verify().unwrap();
    assert_ne!(version, erased);
}

#[test]
fn what_was_changed_does_not_verify() {
    let version = golden();
    let mut other = version.clone();
    other.body = Some("the milk is in the cellar".to_owned());
    assert_eq!(other.verify(), Err(VerifyError::Content));
    other.body = Some("short".to_owned());
    assert_eq!(other.verify(), Err(VerifyError::Length));
    let mut other = version.clone();
    other.header.kind = Kind::Fact;
    assert_eq!(other.verify(), Err(VerifyError::Signature));
    let mut other = version.clone();
    other.header.origin = Signer::from_seed([8; 32]).node();
    assert_eq!(other.verify(), Err(VerifyError::Signature));
    let mut other = version;
    other.header.tags.reverse();
    assert_eq!(other.verify(), Err(VerifyError::Unsorted));
}

#[test]
fn a_tombstone_verifies_and_needs_a_target() {
    let forget =
        Forget { targets: vec![id(2), id(1), id(2)], reason: "wrong".to_owned(), ..Forget::default() };
    let version = Version::forget(forget, context(3), &signer()).unwrap();
    version.verify().unwrap();
    assert_eq!(version.header.supersedes, [id(1), id(2)]);
    assert!(version.header.is_tombstone());
    assert_eq!(Version::forget(Forget::default(), context(3), &signer()), Err(DraftError::NoTarget));
}

#[test]
fn drafts_out_of_bounds_are_refused() {
    let check = |change: fn(&mut Draft)| {
        let mut draft = draft("some text");
        change(&mut draft);
        draft.check()
    };
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(check(|d| d.content = " \n".into()), Err(DraftError::Empty));
    assert_eq!(check(|d| d.content = "x".repeat(MAX_BODY)), Ok(()));
    assert_eq!(check(|d| d.content = "x".repeat(MAX_BODY + 1)), Err(DraftError::Long { len: MAX_BODY + 1 }));
    assert!(matches!(check(|d| d.content = "a\0b".into()), Err(DraftError::Binary { .. })));
    assert!(matches!(check(|d| d.content = "\u{1}\u{2}ab".into()), Err(DraftError::Binary { .. })));
    assert_eq!(check(|d| d.content = "\u{1b}[1mbold text of a terminal\u{1b}[0m".into()), Ok(()));
    assert_eq!(check(|d| d.tags = vec!["t".into(); 65]), Err(DraftError::Tags { count: 65 }));
    assert!(matches!(check(|d| d.tags = vec!["t".repeat(65)]), Err(DraftError::Tag { .. })));
    assert!(matches!(check(|d| d.tags = vec![String::new()]), Err(DraftError::Tag { .. })));
    assert!(matches!(
        check(|d| d.project = Some("p".repeat(129))),
        Err(DraftError::Name { field: "project", .. })
    ));
    assert!(matches!(
        check(|d| d.source = Some(String::new())),
        Err(DraftError::Name { field: "source", .. })
    ));
    assert_eq!(check(|d| d.supersedes = vec![id(0); 65]), Err(DraftError::Supersedes { count: 65 }));
    let backwards = check(|d| (d.occurred_at, d.valid_until) = (Some(Millis(2)), Some(Millis(1))));
    assert!(matches!(backwards, Err(DraftError::Backwards { .. })));
    assert_eq!(
        check(|d| d.occurred_at = Some(Millis(i64::MAX))),
        Err(DraftError::Time { field: "occurred_at" })
    );
}

#[test]
fn copies_of_a_text_share_their_hash() {
    assert_eq!(normalise("  a \t b\r\nc  \r\n\r\nd\re\n"), "a b\nc\n\nd\ne");
    assert_eq!(body_hash("cafe\u{301}  x\r\n"), body_hash("café x"));
    assert_ne!(body_hash("a\nb"), body_hash("a b"));
}

#[test]
fn times_are_read_as_people_write_them() {
    let expected = Millis(1_684_549_260_000);
    for text in [
        "2023-05-20T02:21:00Z",
        "2023-05-20T04:21:00+02:00",
        "2023/05/20 (Sat) 02:21",
        "2023-05-20 02:21",
        "2023-05-20T02:21",
        " 2023-05-20 02:21:00 ",
        "1684549260",
        "1684549260000",
    ] {
        assert_eq!(Millis::parse(text), Ok(expected), "{text}");
    }
    assert_eq!(Millis::parse("2023-05-20"), Ok(Millis(1_684_540_800_000)));
    assert_eq!(Millis::parse("2023/05/20"), Ok(Millis(1_684_540_800_000)));
    assert_eq!(Millis::parse("2023"), Err(TimeError::Ambiguous(2023)));
    for text in ["", "soon", "2023-13-01", "2023-02-30", "(Sat)"] {
        assert!(matches!(Millis::parse(text), Err(TimeError::Unreadable(_))), "{text}");
    }
    for text in ["-0001-01-01T00:00:00Z", "99999999999999999", "0000-12-31"] {
        assert!(matches!(Millis::parse(text), Err(TimeError::Range(_) | TimeError::Unreadable(_))), "{text}");
    }
    let parse = |json: &str| serde_json::from_str::<Millis>(json).ok();
    assert_eq!(parse("1684549260"), Some(expected));
    assert_eq!(parse("1684549260.5"), Some(Millis(expected.0 + 500)));
    assert_eq!(parse("\"2023-05-20 02:21\""), Some(expected));
    assert_eq!(parse("1e300"), None);
    assert_eq!(parse("true"), None);
    assert_eq!(serde_json::to_string(&expected).unwrap(), "\"2023-05-20T02:21:00Z\"");
    assert_eq!(Millis::parse("0001-01-01"), Ok(Millis(-62_135_596_800_000)));
    assert_eq!(Millis::parse("9999-12-30T22:00:00.999Z"), Ok(Millis(253_402_207_200_999)));
}

#[test]
fn names_survive_json_and_nonsense_is_refused() {
    let json = serde_json::to_string(&golden()).unwrap();
    assert_eq!(serde_json::from_str::<Version>(&json).unwrap(), golden());
    assert_eq!("Decision".parse(), Ok(Kind::Decision));
    assert!("opinion".parse::<Kind>().unwrap_err().to_string().contains("preference"));
    assert!("xyz".parse::<RecordId>().is_err());
    assert!("ab".parse::<NodeId>().is_err());
    assert!("é".repeat(32).parse::<NodeId>().is_err());
    let draft: Draft = serde_json::from_str(r#"{"content":"x"}"#).unwrap();
    assert_eq!(draft.kind, Kind::Fact);
}

#[test]
fn entries_of_another_time_are_named() {
    let bytes = Entry::Version(Box::new(golden())).encode().unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Entry::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(CodecError::Format { found: 2 }));
    assert_eq!(with(1, 2), Err(CodecError::Kind { found: 2 }));
    assert_eq!(with(2, 9), Err(CodecError::Sequence { outside: 9, inside: 1 }));
    assert_eq!(Entry::decode(&[1, 0]), Err(CodecError::Short { len: 2 }));
    assert!(matches!(Entry::decode(&vec![0; MAX_ENTRY + 1]), Err(CodecError::Long { .. })));
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(Entry::decode(&longer), Err(CodecError::NotCanonical));
    // A field more in the outer array: what a newer program might write without raising the format.
    let mut more = bytes;
    more[MIN_ENTRY] += 1;
    more.push(0xf6);
    assert_eq!(Entry::decode(&more), Err(CodecError::NotCanonical));
    assert_eq!(Entry::peek(&more).unwrap().version, Some(id(1)));
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let name = || prop::option::of("[a-zé]{1,12}");
    let time = || prop::option::of((-1_000_000_000_000i64..4_000_000_000_000).prop_map(Millis));
    let ids =
        prop::collection::vec(any::<[u8; 10]>().prop_map(|random| RecordId::new(Millis(5), random)), 0..5);
    let tags = prop::collection::vec("[a-z]{1,8}", 0..6);
    ("\\PC{1,200}", 0usize..5, name(), tags, time(), ids, name()).prop_map(
        |(content, kind, project, tags, occurred_at, supersedes, source)| Draft {
            content: format!("x{content}"),
            kind: Kind::ALL[kind],
            project,
            tags,
            occurred_at,
            valid_until: None,
            supersedes,
            source,
        },
    )
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let version = (any_draft(), any::<u64>(), any::<bool>()).prop_map(|(draft, bits, erased)| {
        let context = Context { id: id(200), stamp: Stamp::from_bits(bits), sequence: (bits >> 3) + 1 };
        let entry = Entry::Version(Box::new(Version::seal(draft, context, &signer()).unwrap()));
        if erased { entry.erased() } else { entry }
    });
    let rows = prop::collection::vec((any::<i16>(), any::<[i8; 6]>()), 1..5);
    let vectors = (rows, any::<u32>(), any::<bool>()).prop_map(|(rows, sequence, erased)| {
        let row = |(scale, values): (i16, [i8; 6])| Row { scale: f32::from(scale), values: values.to_vec() };
        let rows = rows.into_iter().map(row).collect();
        let place = (Stamp::from_bits(3), u64::from(sequence) + 1);
        let made = Vectors::seal(id(1), ("m".to_owned(), 6), rows, place, &signer()).unwrap();
        let entry = Entry::Vectors(Box::new(made));
        if erased { entry.erased() } else { entry }
    });
    prop_oneof![version, vectors]
}

proptest! {
    #[test]
    fn an_entry_survives_its_bytes(entry in any_entry()) {
        let bytes = entry.encode().unwrap();
        let back = Entry::decode(&bytes).unwrap();
        prop_assert_eq!(&back, &entry);
        back.verify().unwrap();
        let peek = Entry::peek(&bytes).unwrap();
        prop_assert_eq!((peek.sequence, peek.version), (entry.sequence(), Some(entry.version())));
    }

    #[test]
    fn erasing_keeps_the_signature_and_never_lengthens(entry in any_entry()) {
        let len = entry.encode().unwrap().len();
        let erased = entry.erased();
        erased.verify().unwrap();
        prop_assert!(erased.encode().unwrap().len() <= len);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0u8..3,
    ) {
        let _ = Entry::decode(&bytes);
        let framed: Vec<u8> = [1, kind].into_iter().chain(bytes).collect();
        let _ = Entry::decode(&framed);
    }

    #[test]
    fn a_changed_byte_is_refused(entry in any_entry(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = entry.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = Entry::decode(&bytes) {
            prop_assert_ne!(&changed, &entry);
            prop_assert!(changed.verify().is_err());
        }
    }

    #[test]
    fn any_text_as_a_time_is_read_or_refused(text in "\\PC{0,40}") {
        if let Ok(time) = Millis::parse(&text) {
            prop_assert!(Millis::from_ms(time.0).is_ok());
        }
    }

    #[test]
    fn normalising_twice_is_normalising_once(text in "[ a\\r\\n\\té\u{301}\u{a0}b]{0,40}") {
        let once = normalise(&text);
        prop_assert_eq!(normalise(&once), once);
    }
}
