//! The built-in model's exam: a hundred questions that were not in its text.

use std::fs;

use potluck_tests::{
    data,
    node::{Node, NodeOptions},
};
use serde_json::Value;

use crate::common::ask_guide;

/// Right answers needed of a hundred.
const NEEDED: usize = 90;

/// Whether an answer holds every key; a list among the keys means any one of them.
fn right(answer: &str, keys: &Value) -> bool {
    let answer = answer.to_lowercase();
    let holds = |key: &Value| answer.contains(&key.as_str().expect("a key is a text").to_lowercase());
    let keys = keys.as_array().expect("keys are a list");
    !keys.is_empty()
        && keys.iter().all(|key| key.as_array().map_or_else(|| holds(key), |any| any.iter().any(holds)))
}

#[test]
fn the_guide_passes_its_exam() {
    let path = data::workspace().join("host/guide/eval.jsonl");
    let exam = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let exam: Vec<Value> = exam.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exam.len(), 100, "questions");
    let node = Node::start(NodeOptions::new());
    let mut score = 0;
    for item in &exam {
        let question = item["question"].as_str().unwrap();
        let answer = ask_guide(&node.client(), question);
        if right(&answer, &item["key"]) {
            score += 1;
        } else {
            println!("wrong: {question}\n  wanted {}\n  got {answer}", item["key"]);
        }
    }
    println!("the guide knows {score} of {}", exam.len());
    assert!(score >= NEEDED, "{score} right answers, {NEEDED} are needed");
    node.shutdown();
}
