//! What is remembered is found again: a floor under recall, by words alone and with an embedder where there is one.
//!
//! `benches`' `memory` measures how good recall is; this only keeps it from breaking.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use potluck_tests::{
    data,
    http::Client,
    node::{Node, NodeOptions},
    random::Random,
};
use serde_json::{Value, json};

use crate::embed;

/// Share of questions whose record must be among the first ten, by words alone: of the notes, of the sessions.
const WORDS: [f64; 2] = [0.95, 0.84];
/// The same with an embedder.
const EMBEDDED: [f64; 2] = [0.95, 0.92];
/// Longest time to embed a few dozen short records.
const EMBEDDING: Duration = Duration::from_secs(300);

/// Records and, with the places of their answers, questions.
struct Corpus {
    texts: Vec<String>,
    questions: Vec<(String, Vec<usize>)>,
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Forty notes and thirty questions about them.
fn notes() -> Corpus {
    let lines = lines(&data::workspace().join("tests/fixtures/recall.jsonl"));
    let texts = lines.iter().map(|line| line["content"].as_str().unwrap().to_owned()).collect();
    let question =
        |(place, line): (usize, &Value)| Some((line["question"].as_str()?.to_owned(), vec![place]));
    let questions: Vec<_> = lines.iter().enumerate().filter_map(question).collect();
    assert_eq!((lines.len(), questions.len()), (40, 30));
    Corpus { texts, questions }
}

/// The first sixty sessions of the shared pool, and the questions that they alone answer.
fn sessions() -> Option<Corpus> {
    let corpus = data::file("longmemeval/corpus.jsonl")?;
    let queries = data::file("longmemeval/queries.dev.jsonl")?;
    let sessions: Vec<Value> = lines(&corpus).into_iter().take(60).collect();
    let places: HashMap<&str, usize> = sessions
        .iter()
        .enumerate()
        .map(|(place, session)| (session["id"].as_str().unwrap(), place))
        .collect();
    let join = |session: &Value| {
        let turns = session["turns"].as_array().unwrap();
        turns.iter().map(|turn| turn.as_str().unwrap()).collect::<Vec<_>>().join("\n\n")
    };
    let question = |line: &Value| {
        let counts = line["abstention"] == false && line["user_evidence"] == true;
        let gold = line["gold"].as_array()?.iter();
        let gold: Vec<usize> =
            gold.map(|id| places.get(id.as_str()?).copied()).collect::<Option<_>>().filter(|_| counts)?;
        Some((line["query"].as_str()?.to_owned(), gold))
    };
    let questions = lines(&queries).iter().filter_map(question).collect();
    Some(Corpus { texts: sessions.iter().map(join).collect(), questions })
}

/// Puts a corpus into a project in a mixed order; the labels that its records carry, by place.
fn import(client: &Client, project: &str, corpus: &Corpus) -> HashMap<String, usize> {
    let mut random = Random::new(11);
    let mut order: Vec<usize> = (0..corpus.texts.len()).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    let mut labels = HashMap::new();
    let mut body = String::new();
    for place in order {
        let label = format!("{:016x}", random.next());
        let record = json!({"content": corpus.texts[place], "project": project, "source": label});
        body.push_str(&format!("{record}\n"));
        labels.insert(label, place);
    }
    let kind = [("content-type", "application/x-ndjson")];
    let answer =
        client.send("POST", "/potluck/v1/memory/import", &kind, body.as_bytes()).unwrap().expect(200);
    assert_eq!(answer["added"], corpus.texts.len(), "{answer}");
    labels
}

/// The share of questions of which one answer is among the first ten, in this project alone.
fn any_at_10(client: &Client, project: &str, corpus: &Corpus, labels: &HashMap<String, usize>) -> f64 {
    let mut found = 0;
    for (question, gold) in &corpus.questions {
        let body = json!({"query": question, "project": project, "limit": 10});
        let answer = client.post("/potluck/v1/memory/recall", &body).expect(200);
        let items = answer["items"].as_array().unwrap_or_else(|| panic!("no items in {answer}"));
        assert!(items.len() <= 10, "{} items", items.len());
        let place = |item: &Value| {
            assert_eq!(item["project"], project, "another project's record: {item}");
            labels[item["source"].as_str().unwrap_or_else(|| panic!("no source in {item}"))]
        };
        if items.iter().any(|item| gold.contains(&place(item))) {
            found += 1;
        } else {
            println!("not found: {question}");
        }
    }
    f64::from(found) / corpus.questions.len() as f64
}

/// Imports and asks both corpora; panics below the floors.
fn reaches(client: &Client, floors: [f64; 2]) {
    let all = [("notes", Some(notes())), ("sessions", sessions())];
    for ((project, corpus), floor) in all.into_iter().zip(floors) {
        let Some(corpus) = corpus else {
            data::partly_skipped("no longmemeval/corpus.jsonl or queries.dev.jsonl in the test data");
            continue;
        };
        assert!(corpus.questions.len() >= 10, "{} questions", corpus.questions.len());
        let labels = import(client, project, &corpus);
        let embedded = |stats: &Value| stats["embedder"].is_null() || stats["pending"] == 0;
        assert!(client.eventually("/potluck/v1/memory/stats", EMBEDDING, embedded), "not embedded in time");
        let share = any_at_10(client, project, &corpus, &labels);
        println!("{project}: any@10 = {share:.3} of {} questions", corpus.questions.len());
        assert!(share >= floor, "{project}: any@10 is {share:.3}, at least {floor} is needed");
    }
}

#[test]
fn recall_by_words_alone_reaches_its_floor() {
    let node = Node::start(NodeOptions::new().env("POTLUCK_OFFLINE", "true"));
    let client = node.client();
    assert!(client.get("/potluck/v1/memory/stats").expect(200)["embedder"].is_null());
    reaches(&client, WORDS);
    node.shutdown();
}

#[test]
fn recall_with_an_embedder_reaches_its_floor() {
    let Some(model) = embed::model() else { return };
    let home = tempfile::tempdir().unwrap();
    embed::place(&model, home.path());
    let node = Node::start(NodeOptions::new().home(home.path()).env("POTLUCK_OFFLINE", "true"));
    let client = node.client();
    let awake = |stats: &Value| !stats["embedder"].is_null();
    assert!(client.eventually("/potluck/v1/memory/stats", EMBEDDING, awake), "the node names no embedder");
    reaches(&client, EMBEDDED);
    node.shutdown();
}
