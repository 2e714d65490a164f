use std::collections::BTreeSet;

use super::*;
use crate::{
    job::{Format as JobFormat, Message, Mode},
    mesh::frame,
};

fn job() -> Job {
    let extra = serde_json::json!({
        "name": "Alice", "user": "alice@example.org", "tool_calls": [{"id": "c"}], "metadata": {"user_id": "7"}
    });
    let Value::Object(extra) = extra else { unreachable!() };
    let vars = serde_json::json!({"enable_thinking": false, "user_name": "Alice", "date_string": "x"});
    let Value::Object(template_vars) = vars else { unreachable!() };
    let turn = |role: &str| Message { role: role.into(), content: "hi".into(), extra: extra.clone() };
    Job {
        id: Uuid::from_bytes([0x5a; 16]),
        model: "mine:latest".into(),
        mode: Mode::Public,
        input: JobInput::Chat {
            messages: vec![turn("user"), turn("tool")],
            tools: Vec::new(),
            template_vars,
        },
        sampling: Default::default(),
        max_tokens: Some(7),
        stop: vec!["x".into()],
        format: JobFormat::Text,
        logprobs: None,
        keep_alive: None,
        resume: vec![1, 2],
        spend: crate::job::Spend { key: Some("alices-key".into()), max_price: Some(123_456) },
    }
}

fn terms() -> Terms {
    Terms {
        job: [1; 16],
        model: "stories".into(),
        rates: Rates { prompt: MicroCredits(5), completion: MicroCredits(6) },
        receipt_key: [2; 32],
        spend: vec![vec![3; 300]],
    }
}

/// Every type that a text defines, with its fields as they are written.
fn shapes(source: &str) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let head = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
        let Some(name) = head.and_then(|head| head.strip_suffix(" {")) else { continue };
        let (mut fields, mut variant, mut index) = (Vec::new(), String::new(), String::new());
        for line in lines.by_ref().take_while(|line| *line != "}") {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("#[n(").or_else(|| line.strip_prefix("#[cbor(n(")) {
                index = rest.split(')').next().unwrap().to_owned();
            } else if let Some(field) = line.strip_prefix("pub ") {
                fields.push(format!("{index} {}", field.trim_end_matches(',')));
            } else if line.starts_with('#') || line.starts_with("//") || line == "}," || line.is_empty() {
            } else if line.contains(": ") {
                fields.push(format!("{variant} {index} {}", line.trim_end_matches(',')));
            } else {
                variant = line.trim_end_matches(" {").trim_end_matches(',').to_owned();
                fields.push(format!("{index} {variant}"));
            }
        }
        all.push((name.to_owned(), fields));
    }
    all
}

#[test]
fn no_field_that_reaches_a_provider_says_who_asks() {
    let own = shapes(include_str!("../wire.rs"));
    let shared = shapes(include_str!("../../../mesh/protocol/job/wire.rs"));
    let find = |name: &str| {
        let mine = own.iter().chain(&shared).find(|(found, _)| found == name);
        mine.map(|(_, fields)| fields.clone())
    };
    let (mut seen, mut open, mut text) = (BTreeSet::new(), vec!["ToProvider".to_owned()], String::new());
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        for field in find(&name).unwrap() {
            text += &format!("{name}: {field}\n");
            let kind = field.split(": ").nth(1).unwrap_or_default();
            let words = kind.split(|c: char| !c.is_alphanumeric());
            open.extend(words.filter(|word| find(word).is_some()).map(str::to_owned));
        }
    }
    assert_eq!(text, include_str!("schema.txt"), "the schema of what a provider is told has changed");
}

#[test]
fn what_names_a_person_stays_here() {
    let message = ask(&job(), terms());
    let bytes = minicbor::to_vec(&message).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for secret in ["alice@example.org", "user_id", "alices-key", "user_name", "date_string", "ZZZZ", "mine"] {
        assert!(!has(secret), "{secret} would travel");
    }
    let ToProvider::Ask { ask } = message else { unreachable!() };
    let (job, key, rates, spend) = ask.open().unwrap();
    assert_eq!((key, rates, spend.len()), ([2; 32], terms().rates, 1));
    assert_eq!((job.id.as_bytes(), job.model.as_str(), job.resume.len()), (&[1; 16], "stories", 2));
    let JobInput::Chat { messages, template_vars, .. } = job.input else { unreachable!() };
    assert!(messages[0].extra.contains_key("tool_calls") && !messages[0].extra.contains_key("name"));
    assert!(messages[1].extra.contains_key("name"), "a tool's own name is part of its result");
    assert_eq!(template_vars.len(), 1);
}

#[test]
fn lengths_of_requests_fall_into_few_classes() {
    let of = |words: usize| {
        let mut job = job();
        job.input = JobInput::Text { text: "word ".repeat(words), special: false };
        minicbor::to_vec(ask(&job, terms())).unwrap().len()
    };
    let lengths: BTreeSet<usize> = (0..2_000).map(of).collect();
    assert!(lengths.len() < 60, "{} lengths", lengths.len());
    let plain = |words: usize| 5 * words;
    assert!(of(10_000) < plain(10_000) * 115 / 100 + 2048, "{}", of(10_000));
    assert_eq!(of(0), of(200));
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    use proptest::prelude::*;
    let good = minicbor::to_vec(ask(&job(), terms())).unwrap();
    proptest!(|(at in 0..good.len(), byte in any::<u8>(), cut in 0..good.len())| {
        let mut bad = good.clone();
        bad[at] = byte;
        if let Ok(ToProvider::Ask { ask }) = frame::decode::<ToProvider>(&bad) {
            let _ = ask.open();
        }
        prop_assert!(frame::decode::<ToProvider>(&good[..cut]).is_err());
    });
    let many = ToProvider::Pay { spend: vec![Vec::new().into(); MAX_SPEND + 1] };
    assert!(frame::decode::<ToProvider>(&minicbor::to_vec(&many).unwrap()).is_err());
    assert!(super::spend(vec![vec![0; MAX_SPEND_BYTES + 1].into()]).is_none());
}
