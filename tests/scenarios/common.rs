//! What several scenarios do.

use std::path::Path;

use potluck_tests::{
    gguf::Tiny,
    http::Client,
    node::{Node, NodeOptions},
};
use serde_json::{Value, json};

/// Writes `tiny.gguf` into a folder and gives its path.
pub(crate) fn tiny(folder: &Path) -> String {
    Tiny::default().write(&folder.join("tiny.gguf"))
}

/// Writes `slow.gguf` into a folder and gives its path.
pub(crate) fn slow(folder: &Path) -> String {
    Tiny::slow().write(&folder.join("slow.gguf"))
}

/// A node that offers `guide` and `tiny`, whose memory the system bounds: a node that asks for too much dies
/// and fails the test instead of taking the machine down.
pub(crate) fn bounded(folder: &Path) -> NodeOptions {
    NodeOptions::new()
        .model(tiny(folder))
        .before(["sh", "-c", "ulimit -v 8388608; exec \"$0\" \"$@\""])
        .args(["--threads", "2"])
}

/// Asks `tiny` for three tokens; panics unless they come.
pub(crate) fn still_answers(client: &Client) {
    let body = json!({ "model": "tiny", "prompt": "abc", "max_tokens": 3, "temperature": 0 });
    let answer = client.post("/v1/completions", &body).expect(200);
    assert_eq!(answer["usage"]["completion_tokens"], 3, "{answer}");
}

/// The names that a node lists.
pub(crate) fn names(client: &Client) -> Vec<String> {
    let list = client.get("/v1/models").expect(200);
    let models = list["data"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    models.iter().map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
}

/// The text of the first choice.
pub(crate) fn text(answer: &Value) -> &str {
    let choice = &answer["choices"][0];
    let text = choice["text"].as_str().or_else(|| choice["message"]["content"].as_str());
    text.unwrap_or_else(|| panic!("no text in {answer}"))
}

/// Asks the guide a question at temperature 0.
pub(crate) fn ask_guide(client: &Client, question: &str) -> String {
    let body = json!({
        "model": "guide", "temperature": 0, "max_tokens": 128,
        "messages": [{ "role": "user", "content": question }],
    });
    text(&client.post("/v1/chat/completions", &body).expect(200)).to_owned()
}

/// Everything a node says when it has to be asked for help must be one message, not a trace.
pub(crate) fn is_a_clear_message(stderr: &str, words: &[&str]) {
    assert!(!stderr.contains("panicked at"), "it panicked: {stderr}");
    let lower = stderr.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "`{word}` is not in: {stderr}");
    }
}

/// A node with the defaults of a scenario, started.
pub(crate) fn start(folder: &Path) -> Node {
    Node::start(NodeOptions::new().model(tiny(folder)))
}
