//! A short run of the mixed load; the long one is the `soak` program.

use std::time::Duration;

use potluck_tests::{
    data,
    gguf::Tiny,
    load::{self, Plan},
    node::{Node, NodeOptions},
};

use crate::common::still_answers;

#[test]
fn a_full_queue_leaks_nothing_and_sticks_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = Tiny { context: 2048, ..Tiny::default() }.write(&folder.path().join("tiny.gguf"));
    let node = Node::start(NodeOptions::new().model(model).args(["--parallel", "4", "--max-queue", "8"]));
    let time = data::seconds("POTLUCK_SOAK_SECONDS", 20);
    let plan = Plan {
        clients: 32,
        time,
        warm_up: (time / 2).clamp(Duration::from_secs(5), Duration::from_secs(60)),
        seed: 1,
        model: "tiny".into(),
        context: 2048,
    };
    let report = load::run(&node, &plan);
    println!("{:#}", report.json());
    let complaints = report.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}\n{:#}", report.json());
    still_answers(&node.client());
    node.shutdown();
}
