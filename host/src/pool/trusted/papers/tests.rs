use proptest::prelude::*;

use super::super::clock::{DAY, SystemRandom};
use super::super::grants::{Grants, MemoryGrant, Scope};
use super::*;
use crate::identity::{NodeId, Signature, Signer};

const NOW: Millis = 1_800_000_000_000;

fn signer(byte: u8) -> Signer {
    Signer::from_seed([byte; 32])
}

fn pool() -> PoolId {
    PoolId(signer(1).node())
}

fn terms(seed: [u8; 32]) -> InviteTerms {
    InviteTerms {
        pool: pool(),
        invite: InviteId(Signer::from_seed(seed).node()),
        grants: Grants {
            memory: vec![MemoryGrant { project: Some("notes".into()), read: true, write: true }],
            models: Scope::Only(vec!["qwen3-8b".into(), "llama-3.2-3b".into()]),
            rate: Some(60),
            ..Grants::default()
        },
        issued: NOW,
        expires: NOW + DAY,
        uses: 3,
        hint: Some("Ana's laptop".into()),
    }
}

fn invite(addresses: usize) -> Invite {
    let delegation = Delegation { pool: pool(), node: signer(2).node(), issued: NOW };
    let delegation = Paper::sign(Statement::Delegation(delegation), &signer(1)).unwrap();
    let paper = Paper::sign(Statement::Invite(terms([9; 32])), &signer(2)).unwrap();
    let addresses = (0..addresses).map(|n| match n % 3 {
        0 => format!("/ip4/192.168.1.{n}/udp/40{n}/quic-v1"),
        1 => format!("/ip6/2001:db8:85a3:8d3:1319:8a2e:370:734{n}/udp/40{n}/quic-v1"),
        _ => format!("/ip4/203.0.113.{n}/tcp/51{n}"),
    });
    let routes = vec![Route { node: signer(2).node(), addresses: addresses.collect() }];
    Invite::new(paper, Some(delegation), [9; 32], routes).unwrap()
}

#[test]
fn an_invite_is_one_line_that_fits_a_picture() {
    // Four addresses and elaborate grants; then as many addresses as there may be.
    assert!(invite(4).print().unwrap().len() <= 700);
    let made = invite(8);
    let text = made.print().unwrap();
    assert!(text.len() <= 780, "{}", text.len());
    assert!(text.starts_with("potluck1") && text.chars().all(|c| c.is_ascii_alphanumeric()));
    let wrapped: String = text
        .as_bytes()
        .chunks(60)
        .map(|line| format!("  {}\r\n", std::str::from_utf8(line).unwrap()))
        .collect();
    for form in [text.clone(), wrapped, text.to_uppercase()] {
        let read = Invite::parse(&form).unwrap();
        assert_eq!(read.terms(), made.terms());
        assert_eq!((read.routes(), read.id(), read.issuer()), (made.routes(), made.id(), signer(2).node()));
        assert_eq!(read.key().node(), read.id().0);
    }
    let picture = qr(&text).unwrap();
    let lines = picture.lines().count();
    assert!((30..60).contains(&lines), "{lines}");
    assert!(picture.chars().all(|c| matches!(c, ' ' | '█' | '▀' | '▄' | '\n')));
    assert!(qr(&"x".repeat(5_000)).is_err());
    assert!(!format!("{made:?}").contains(&"09".repeat(32)));
}

#[test]
fn what_is_no_invite_is_named() {
    let text = invite(1).print().unwrap();
    let cut = &text[..text.len() - 9];
    for (text, says) in [
        ("hello", "begins with `potluck1`"),
        (cut, "incomplete or mistyped"),
        ("potluck1uu", "never occurs"),
        ("potluck2abc", "newer potluck"),
        (&"potluck1".repeat(2_000), "begins with"),
    ] {
        let error = Invite::parse(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn an_invite_of_someone_the_root_did_not_choose_is_refused() {
    let paper = Paper::sign(Statement::Invite(terms([9; 32])), &signer(3)).unwrap();
    let made = Invite::new(paper.clone(), None, [9; 32], Vec::new());
    assert_eq!(made.unwrap_err(), InviteError::NotIssuer { author: signer(3).node() });
    let delegation = Delegation { pool: pool(), node: signer(3).node(), issued: NOW };
    let self_made = Paper::sign(Statement::Delegation(delegation), &signer(3)).unwrap();
    assert!(Invite::new(paper, Some(self_made), [9; 32], Vec::new()).is_err());
    let paper = Paper::sign(Statement::Invite(terms([9; 32])), &signer(1)).unwrap();
    assert!(matches!(Invite::new(paper.clone(), None, [8; 32], Vec::new()), Err(InviteError::Damaged(_))));
    let many = vec![Route { node: signer(1).node(), addresses: vec!["/ip4/1.1.1.1/tcp/1".into(); 9] }];
    assert_eq!(Invite::new(paper, None, [9; 32], many).unwrap_err(), InviteError::Addresses);
}

#[test]
fn papers_are_refused_for_what_is_wrong_with_them() {
    let paper = Paper::sign(Statement::Invite(terms([9; 32])), &signer(1)).unwrap();
    let sealed = paper.sealed().clone();
    assert_eq!(Paper::open(sealed.clone(), pool()).unwrap(), paper);
    let other = PoolId(signer(7).node());
    assert!(matches!(Paper::open(sealed.clone(), other), Err(PaperError::OtherPool { .. })));
    let mut newer = sealed.clone();
    newer.statement[0] = 2;
    assert_eq!(Paper::open(newer, pool()), Err(PaperError::Version { found: 2 }));
    let forged = Sealed { author: signer(4).node(), ..sealed.clone() };
    assert!(matches!(Paper::open(forged, pool()), Err(PaperError::Forged { .. })));
    let long = Sealed { statement: vec![1; 2_000], ..sealed.clone() };
    assert!(matches!(Paper::open(long, pool()), Err(PaperError::TooLong { .. })));
    let empty = Sealed { statement: vec![], ..sealed.clone() };
    assert!(matches!(Paper::open(empty, pool()), Err(PaperError::Malformed(_))));
    let mut longer = sealed;
    longer.statement.push(0);
    assert!(matches!(Paper::open(longer, pool()), Err(PaperError::Malformed(_))));
}

#[test]
fn fields_that_cannot_be_are_not_even_signed() {
    let refused = |change: fn(&mut InviteTerms)| {
        let mut it = terms([9; 32]);
        change(&mut it);
        match Paper::sign(Statement::Invite(it), &signer(1)) {
            Err(PaperError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|it| it.uses = 0), "uses");
    assert_eq!(refused(|it| it.expires = it.issued), "expires");
    assert_eq!(refused(|it| it.expires = Millis::MAX), "expires");
    assert_eq!(refused(|it| it.issued = -1), "time");
    assert_eq!(refused(|it| it.hint = Some("a\u{202e}b".into())), "name");
    assert_eq!(refused(|it| it.grants.models = Scope::Only(vec!["m".into(); 17])), "models");
    let mut it = terms([9; 32]);
    it.grants.models = Scope::Only((0..16).map(|n| format!("{n:096}")).collect());
    it.grants.memory =
        (0..16).map(|n| MemoryGrant { project: Some(format!("{n:096}")), read: true, write: true }).collect();
    assert!(matches!(Paper::sign(Statement::Invite(it), &signer(1)), Err(PaperError::TooLong { .. })));
}

#[test]
fn the_root_key_travels_under_a_passphrase() {
    let it = Pool { pool: pool(), name: "home".into(), created: NOW, quorum: None };
    let paper = Paper::sign(Statement::Pool(it), &signer(1)).unwrap();
    let root = RootKey::new([1; 32], paper.clone()).unwrap();
    assert!(RootKey::new([2; 32], paper.clone()).is_none());
    let easy = Hardness { memory: 64, rounds: 1 };
    assert!(matches!(root.export("short", easy, &SystemRandom), Err(ExportError::Passphrase)));
    let text = root.export("four words or so", easy, &SystemRandom).unwrap();
    assert!(text.starts_with("potluckroot1"));
    let back = RootKey::import(&format!("\n{text}\n"), "four words or so").unwrap();
    assert_eq!((back.pool(), &back.paper), (pool(), &paper));
    assert!(matches!(RootKey::import(&text, "five words or so"), Err(ExportError::Wrong)));
    assert!(matches!(RootKey::import("potluck1", "x"), Err(ExportError::NotOne(_))));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roots/x.key");
    root.store(&path).unwrap();
    root.store(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(RootKey::load(&path, paper).unwrap().is_some());
}

proptest! {
    #[test]
    fn a_changed_bit_breaks_a_paper(at in any::<usize>(), bit in 0..8_u8, which in 0..3_u8) {
        let paper = Paper::sign(Statement::Invite(terms([9; 32])), &signer(1)).unwrap();
        let mut sealed = paper.sealed().clone();
        let bytes: &mut [u8] = match which {
            0 => &mut sealed.statement,
            1 => &mut sealed.signature.0,
            _ => &mut sealed.author.0,
        };
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Paper::open(sealed, pool()).is_err());
    }

    #[test]
    fn any_bytes_are_refused_and_nothing_else_happens(statement in proptest::collection::vec(any::<u8>(), 0..300)) {
        let sealed = Sealed { author: NodeId([3; 32]), signature: Signature([0; 64]), statement };
        prop_assert!(Paper::open(sealed, pool()).is_err());
    }

    #[test]
    fn a_changed_character_breaks_an_invite(at in 8..400_usize, to in "[0-9a-z]") {
        let text = invite(2).print().unwrap();
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        if let Ok(read) = Invite::parse(&changed) {
            // Only where the new character is read as the old one.
            prop_assert_eq!(read.print().unwrap(), text);
        }
    }

    #[test]
    fn any_text_after_the_prefix_is_refused(text in "[0-9a-z]{0,600}") {
        let printed = format!("potluck1{text}");
        prop_assert!(Invite::parse(&printed).is_err());
    }
}
