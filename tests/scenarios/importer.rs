//! Importers: components that read a foreign format into the memory, and see nothing else.

use std::{fs, path::Path};

use potluck_tests::{
    node::{Node, NodeOptions, failed, succeeded},
    process,
};
use serde_json::{Value, json};

fn plugin(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/importers").join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path.display().to_string()
}

fn import(node: &Node, with: &str, path: &str) -> Value {
    let said =
        succeeded(&node.run(["memory", "import", "--json", "--project", "chats", "--with", with, path]));
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

#[test]
fn an_assistants_export_is_remembered_once() {
    let node = Node::start(NodeOptions::new());
    let with = plugin("dist/chat-export.wasm");
    for folder in ["chat-export/fixtures/chatgpt", "chat-export/fixtures/claude"] {
        let done = import(&node, &with, &plugin(folder));
        let added = done["added"].as_u64().unwrap();
        assert!(added > 0, "{done}");
        let again = import(&node, &with, &plugin(folder));
        assert_eq!(
            (again["added"].as_u64(), again["duplicates"].as_u64()),
            (Some(0), Some(added)),
            "{again}"
        );
    }
    let words = |query: &str| {
        let found =
            node.client().post("/potluck/v1/memory/recall", &json!({"query": query, "limit": 3})).expect(200);
        found["items"].as_array().unwrap().clone()
    };
    let found = || {
        words("my sourdough gets too sour")
            .iter()
            .any(|item| item["project"] == "chats" && item["content"].as_str().unwrap().contains("24 °C"))
    };
    assert!(
        process::eventually(std::time::Duration::from_secs(10), found),
        "{:?}",
        words("my sourdough gets too sour")
    );
}

#[test]
fn an_importer_sees_nothing_but_its_source() {
    let node = Node::start(NodeOptions::new());
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("conversations.json"), "[{\"broken\":").unwrap();
    let with = plugin("dist/chat-export.wasm");
    let source = scratch.path().to_str().unwrap();
    let done = node.run(["memory", "import", "--json", "--with", &with, source]);
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(!said.contains("panicked"), "{said}");
    for (with, words) in [("nothing.wasm".to_owned(), "nothing.wasm"), (plugin("README.md"), "component")] {
        let refused = failed(&node.run(["memory", "import", "--with", &with, source]));
        assert!(refused.contains(words) && !refused.contains("panicked"), "{refused}");
    }
}
