//! Models that travel: copied from several machines at once, through kills on both ends.

use std::path::Path;

use potluck_tests::{
    http::{Client, Streaming},
    node::{Node, failed, succeeded},
};
use serde_json::{Value, json};

use crate::{
    common::{names, slow, text},
    pool::{invite, meets, options, pool},
};

/// Bytes a second that each source gives: slow enough to be killed in the middle.
const RATE: u64 = 12 << 20;
/// Blocks that may be sent twice around a kill, in bytes: what is on its way to whoever dies, on two streams.
const SLACK: u64 = 24 << 20;

/// The greedy answer of this machine's own copy.
fn answer(client: &Client) -> String {
    let body = json!({"model": "slow", "prompt": "abc", "max_tokens": 12, "temperature": 0});
    text(&client.post("/v1/completions", &body).expect(200)).to_owned()
}

fn pull(node: &Node) -> Streaming {
    let body = json!({"model": "slow", "from": "pool"});
    node.client().stream("/potluck/v1/pull", &body).unwrap()
}

/// Follows a pull until `enough` of it is here, or its last line; the bytes that were here at first, and that line.
fn follow(steps: &mut Streaming, enough: impl Fn(u64, u64) -> bool) -> (u64, Value) {
    let mut first = None;
    loop {
        let line = steps.line().unwrap().expect("a last line");
        let step: Value = serde_json::from_str(&line).unwrap();
        let number = |field: &str| step[field].as_u64().unwrap_or_default();
        if step["status"] == "downloading" {
            first.get_or_insert(number("completed"));
            if !enough(number("completed"), number("total")) {
                continue;
            }
        } else if step["status"] != "success" && step["error"].is_null() {
            continue;
        }
        return (first.unwrap_or_default(), step);
    }
}

/// Bytes that a node has given to members.
fn given(node: &Node) -> u64 {
    node.client().get("/potluck/v1/pool").expect(200)["copies"]["bytes"].as_u64().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_model_comes_from_two_machines_whatever_is_killed() {
    let (scratch, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = slow(scratch.path());
    let size = std::fs::metadata(&model).unwrap().len();
    let rate = RATE.to_string();
    let source = |name: &str| Node::start(options(name).model(&model).args(["--copy-rate", &rate]));
    let (anna, carl) = (source("anna"), source("carl"));
    let bert = || Node::start(options("bert").home(home.path()));
    let first = bert();
    pool(&[&anna, &carl], &[]);
    succeeded(&first.run(["join", &invite(&anna, &["--fetch"])]));
    meets(&first, 2);
    meets(&carl, 2);

    // Whoever asks for the wrong thing is told what there is, and whoever may not, why.
    let unknown = failed(&first.run(["pull", "nothing", "--from", "pool"]));
    assert!(unknown.contains("anna has") && unknown.contains("slow"), "{unknown}");
    let nobody = failed(&first.run(["pull", "slow", "--from", "dora"]));
    assert!(nobody.contains("anna") && nobody.contains("carl"), "{nobody}");
    let not_granted = failed(&carl.run(["pull", "slow", "--from", "pool"]));
    assert!(not_granted.contains("--fetch"), "{not_granted}");
    let shown = succeeded(&anna.run(["pool", "show", "bert"]));
    assert!(shown.contains("yes  copies models' files"), "{shown}");
    let shown = succeeded(&anna.run(["pool", "show", "carl"]));
    assert!(shown.contains("no   copies models' files"), "{shown}");

    // Killed in the middle of the copy.
    let mut steps = pull(&first);
    let (_, step) = follow(&mut steps, |completed, total| completed > total / 4);
    let kept = step["completed"].as_u64().unwrap();
    assert!(kept < size, "it was there before it could be killed: {step}");
    first.kill();
    let partial = home.path().join("node/models/partial");
    assert_eq!(files(&partial).len(), 3, "{:?}", files(&partial));
    let before = [given(&anna), given(&carl)];
    assert!(before.iter().all(|bytes| *bytes > 0), "both were asked: {before:?}");

    // It goes on with what is there, and a source is killed in the middle of the rest.
    let again = bert();
    meets(&again, 2);
    let expected = answer(&anna.client());
    let mut steps = pull(&again);
    let (had, _) = follow(&mut steps, |completed, total| completed > total * 6 / 10);
    assert!(had >= kept.saturating_sub(SLACK) && had > 0, "{had} of {kept} bytes were kept");
    let of_anna = given(&anna);
    anna.kill();
    let (_, last) = follow(&mut steps, |_, _| false);
    assert_eq!(last["status"], "success", "{last}\n{}", again.stderr());
    let sent = of_anna + given(&carl);
    assert!(sent <= size + SLACK, "{sent} bytes were sent for a file of {size}");

    // The copy is offered at once, answers as the original does, and leaves nothing behind.
    assert!(names(&again.client()).contains(&"slow".to_owned()));
    assert_eq!(answer(&again.client()), expected);
    assert_eq!(files(&partial), [""; 0]);
    let mut steps = pull(&again);
    let (_, last) = follow(&mut steps, |_, _| true);
    assert_eq!(last["status"], "success", "what is here is not copied again: {last}");
    meets(&again, 1);
    let json = succeeded(&again.run(["pull", "slow", "--from", "carl", "--json"]));
    for line in json.lines().filter(|line| !line.is_empty()) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    again.shutdown();
    carl.shutdown();
}
