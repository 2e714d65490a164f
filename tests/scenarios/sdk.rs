//! The official Python packages, unmodified, against real nodes.

use potluck_tests::{
    gguf::Tiny,
    hub::Hub,
    node::{Node, NodeOptions},
    python,
};
use serde_json::json;

use crate::common::{names, slow, tiny};

#[test]
fn the_openai_package_finds_what_it_expects() {
    let folder = tempfile::tempdir().unwrap();
    let (tiny, slow) = (tiny(folder.path()), slow(folder.path()));
    let node = Node::start(NodeOptions::new().model(&tiny).model(&slow));
    let keyed = Node::start(NodeOptions::new().args(["--api-key", "sk-of-the-scenario"]));
    let narrow = NodeOptions::new().model(&tiny).model(&slow).args(["--parallel", "1", "--max-queue", "1"]);
    let narrow = Node::start(narrow);
    python::run(
        "openai_scenario.py",
        &[
            "--url",
            &node.url(),
            "--keyed",
            &keyed.url(),
            "--key",
            "sk-of-the-scenario",
            "--narrow",
            &narrow.url(),
        ],
    );
    node.shutdown();
    keyed.shutdown();
    narrow.shutdown();
}

#[test]
fn the_ollama_package_finds_what_it_expects() {
    let folder = tempfile::tempdir().unwrap();
    let file = Tiny { seed: 9, name: "pulled".into(), ..Tiny::default() }.bytes();
    let hub = Hub::start(&[("someone/pulled-GGUF/pulled-F32.gguf", &file)]);
    let options = NodeOptions::new().model(tiny(folder.path())).model(slow(folder.path()));
    let node = Node::start(options.env("HF_ENDPOINT", hub.url()));
    let reference = "hf.co/someone/pulled-GGUF";
    let pull = json!({ "model": reference, "stream": false });
    let answer = node.client().post("/api/pull", &pull).expect(200);
    assert_eq!(answer["status"], "success", "{answer}");
    let names = names(&node.client());
    let pulled =
        names.iter().find(|name| name.contains("pulled")).unwrap_or_else(|| panic!("not in {names:?}"));
    python::run("ollama_scenario.py", &["--url", &node.url(), "--pulled", pulled, "--reference", reference]);
    node.shutdown();
}
