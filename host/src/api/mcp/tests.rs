//! What clients are shown, held against a file, so that a change of it is seen.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// The tools as clients are shown them. `POTLUCK_WRITE_GOLDEN=1` writes them anew.
#[test]
fn the_tools_are_as_written_down() {
    let shown = serde_json::to_string_pretty(&json!({"tools": tools::all()})).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/mcp/tools.json");
    if std::env::var_os("POTLUCK_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, written, "the tools are not as in {}", path.display());
}

#[test]
fn there_are_eight_and_models_are_told_what_each_does() {
    let names: Vec<_> = tools::all().iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names, ["remember", "recall", "get", "update", "forget", "recent", "context", "status"]);
    for tool in tools::all() {
        let hints = tool.annotations.as_ref().unwrap();
        assert_eq!(hints.open_world_hint, Some(false), "{}", tool.name);
        assert_eq!(hints.destructive_hint, Some(tool.name == "forget"), "{}", tool.name);
        let reads = ["recall", "get", "recent", "context", "status"].contains(&tool.name.as_ref());
        assert_eq!(hints.read_only_hint, Some(reads), "{}", tool.name);
        assert!(hints.idempotent_hint.is_some());
        assert!((20..400).contains(&tool.description.as_ref().unwrap().len()));
        assert!(tool.output_schema.is_some());
        let input = Value::Object(tool.input_schema.as_ref().clone());
        assert_eq!(input["additionalProperties"], false);
        for (name, field) in input["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{}.{name} is not described", tool.name);
        }
    }
}

/// Each tool takes the fields its schema names, and no others.
#[test]
fn schemas_and_readers_agree() {
    use super::super::{fields::Fields, memory::parse};
    let values = json!({
        "content": "x", "kind": "fact", "project": "p", "tags": ["t"], "occurred_at": "2025-01-01",
        "valid_until": "2025-01-01T00:00:00Z", "supersedes": ["0197c2a4-0000-7000-8000-000000000000"], "source": "s",
        "query": "q", "kinds": ["task"], "since": "2025-01-01", "until": "2025-01-01", "as_of": "2025-01-01",
        "now": "2025-01-01", "limit": 5, "explain": true, "ids": ["0197c2a4-0000-7000-8000-000000000000"],
        "reason": "r", "hard": true, "confirm": true,
    });
    let read = |tool: &str, left_out: &[&str], reader: &dyn Fn(&mut Fields) -> Result<(), ApiError>| {
        let tool = tools::all().iter().find(|known| known.name == tool).unwrap();
        let names = tool.input_schema["properties"].as_object().unwrap().keys();
        let map = names
            .filter(|name| !left_out.contains(&name.as_str()))
            .map(|name| (name.clone(), values[name].clone()))
            .collect();
        let mut fields = Fields::new(map);
        reader(&mut fields).unwrap();
        fields.finish().unwrap();
    };
    read("remember", &[], &|fields| parse::draft(fields).map(drop));
    read("recall", &[], &|fields| parse::recall(fields).map(drop));
    read("update", &["id"], &|fields| parse::change(fields).map(drop));
    read("forget", &["filter"], &|fields| parse::forget(fields).map(drop));
    read("recent", &[], &|fields| parse::filter(fields).and_then(|_| parse::limit(fields)).map(drop));
}
