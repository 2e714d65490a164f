//! Recall and precision on the made-up corpus, and what must hold of any text.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::corpus::{Item, Rng, harmless, secrets};
use super::{SecretKind, assign, number, redact, scan, service, token, web};

#[test]
fn every_pattern_compiles() {
    assert!(scan::is_sound());
    assert_eq!(token::bad(), Vec::<&str>::new());
    assert_eq!(service::bad(), Vec::<&str>::new());
    assert!(number::is_sound() && assign::is_sound());
    assert_eq!(web::sound(), (9, true));
}

#[test]
fn names_are_kebab_case_and_survive_serde() {
    let mut seen = BTreeSet::new();
    for kind in SecretKind::ALL {
        let name = kind.as_str();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        assert!(seen.insert(name));
        assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<SecretKind>(&format!("\"{name}\"")).unwrap(), *kind);
        assert_eq!(kind.to_string(), name);
    }
    assert!(seen.len() >= 25);
}

fn is_gone(item: &Item) -> bool {
    item.secret.as_ref().is_some_and(|secret| !redact(&item.text).text.contains(secret.as_str()))
}

#[test]
fn finds_the_secrets_and_leaves_the_rest() {
    let verbose = std::env::var_os("REDACT_SHOW").is_some();
    let (secrets, harmless) = (secrets::all(7), harmless::all(11));
    let mut table = BTreeMap::<&str, (usize, usize)>::new();
    for item in secrets.iter().chain(&harmless) {
        let good = match item.secret {
            Some(_) => is_gone(item),
            None => redact(&item.text).redactions.is_empty(),
        };
        if !good && verbose {
            println!("{} {:?}\n   -> {:?}", item.sort, item.text, redact(&item.text).text);
        }
        let row = table.entry(item.sort).or_default();
        row.0 += usize::from(good);
        row.1 += 1;
    }
    for (sort, (good, all)) in &table {
        println!("{sort:24} {good:5} of {all}");
    }
    let found = secrets.iter().filter(|item| is_gone(item)).count();
    let wrong = harmless.iter().filter(|item| !redact(&item.text).redactions.is_empty()).count();
    let recall = found as f64 / secrets.len() as f64;
    let precision = found as f64 / (found + wrong) as f64;
    println!(
        "{} secrets, {} harmless: recall {recall:.4}, precision {precision:.4}",
        secrets.len(),
        harmless.len()
    );
    assert!(secrets.len() >= 900 && harmless.len() >= 2500);
    assert!(recall >= 0.97 && precision >= 0.97);
}

#[test]
fn redacting_twice_changes_nothing() {
    for item in secrets::all(21).iter().chain(&harmless::all(22)) {
        let once = redact(&item.text);
        let twice = redact(&once.text);
        assert_eq!(once.text, twice.text);
        assert!(twice.redactions.is_empty(), "{:?}", once.text);
    }
}

#[test]
fn only_the_secret_changes() {
    let key = "AK".to_owned() + "IA" + "Q3EGR7XZ2MVNB5LD";
    let text = format!("before “{key}” after ✓\r\n{key};\n\tend");
    let redacted = redact(&text);
    assert_eq!(redacted.text, text.replace(&key, "[redacted: aws-access-key]"));
    assert_eq!(redacted.redactions.len(), 1);
    assert_eq!((redacted.redactions[0].kind, redacted.redactions[0].count), (SecretKind::AwsAccessKey, 2));
}

#[test]
fn many_on_a_line_are_counted_by_kind() {
    let mut rng = Rng::new(5);
    let (a, b) = (rng.password() + "7", format!("gh{}{}", "p_", rng.of(super::corpus::ALNUM, 36)));
    let redacted = redact(&format!("password={a} token={b}, pin is 4821")).text.into_owned();
    assert_eq!(
        redacted,
        "password=[redacted: password] token=[redacted: github-token], pin is [redacted: pin]"
    );
}

#[test]
fn a_false_marker_hides_nothing() {
    let key = "AK".to_owned() + "IA" + "Q3EGR7XZ2MVNB5LD";
    assert!(!redact(&format!("[redacted: {key}]")).text.contains(&key));
    let marker = "password: [redacted: password]";
    assert_eq!(redact(marker).text, marker);
}

/// Work is counted in bytes handed to rules, so that the test does not depend on the machine.
#[test]
fn work_is_linear() {
    let units = [
        "password ",
        "password=",
        "sk-",
        "pa-",
        "eyJ",
        "https://a:b@",
        "-----BEGIN PRIVATE KEY-----",
        "4111 1111 ",
        "curl -u ",
        "seed phrase ",
        "Cookie: a=b; ",
        "a.b:c~d",
        "\"",
        "AccountKey=",
        "[redacted: ",
        "é",
        "key key ",
        "eyJaaaaaaaaa.",
        "-----BEGIN RSA PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA",
        "DE89 3704 ",
        "authorization: bearer ",
    ];
    for unit in units {
        // Texts several times longer than the widest window.
        let work = |len: usize| scan::scan(&unit.repeat(len / unit.len())).work;
        let (small, large) = (work(24 << 10), work(96 << 10));
        assert!(large <= small * 5, "{unit:?}: {small} then {large}");
        assert!(large <= (96 << 10) * 3000, "{unit:?}: {large}");
    }
}

/// Pieces that make up texts near the edges of the rules.
fn crafted() -> impl Strategy<Value = String> {
    let mut rng = Rng::new(3);
    let mut pieces: Vec<String> = secrets::all(9).into_iter().step_by(17).map(|item| item.text).collect();
    pieces.extend(
        [
            "[redacted: ",
            "password",
            "]",
            "\"",
            " + ",
            "=",
            ": ",
            "\\n",
            "é",
            "\u{1f980}",
            "://",
            "@",
            "is ",
            "\r\n",
        ]
        .map(String::from),
    );
    pieces.extend((0..8).map(|_| rng.of(super::corpus::BASE64, 20)));
    let cut = (prop::sample::select(pieces), 0_usize..200, 0_usize..400).prop_map(|(piece, from, len)| {
        piece.chars().skip(from.saturating_sub(120)).take(len.max(1)).collect::<String>()
    });
    prop::collection::vec(cut, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_text_is_taken(text in any::<String>()) {
        let once = redact(&text);
        prop_assert_eq!(&redact(&once.text).text, &once.text);
    }

    #[test]
    fn crafted_text_settles(text in crafted()) {
        let once = redact(&text);
        let twice = redact(&once.text);
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert_eq!(once.redactions.is_empty(), once.text == text);
        prop_assert!(once.redactions.windows(2).all(|pair| pair[0].kind < pair[1].kind));
    }
}
