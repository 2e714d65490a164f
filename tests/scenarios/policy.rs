//! Policies of a pool: approved by its owner or its members, fetched by everybody, exchanged under load, explained
//! anywhere.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    node::{Node, failed, succeeded},
    process,
};
use serde_json::{Value, json};

use crate::{
    common::{is_a_clear_message, tiny},
    pool::{answered, ask, invite, meets, options, pool},
};

/// A component that ships with the program.
fn shipped(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: plugins/build makes it", path.display());
    path
}

fn policy(node: &Node, words: &[&str]) -> Value {
    let said = succeeded(&node.run(["policy", "--json"].iter().chain(words)));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
}

fn propose(node: &Node, name: &str) -> String {
    let done = policy(node, &["propose", shipped(name).to_str().unwrap()]);
    done["hash"].as_str().unwrap().to_owned()
}

/// The hash of what decides about a kind on a node.
fn active(node: &Node, kind: &str) -> Option<String> {
    let list = policy(node, &["list"]);
    let all = list["active"].as_array().unwrap();
    let one = all.iter().find(|one| one["kind"] == kind && one["aside"] == false)?;
    Some(one["hash"].as_str().unwrap().to_owned())
}

fn decides(node: &Node, kind: &str, hash: Option<&str>) {
    let so = process::eventually(Duration::from_secs(20), || active(node, kind).as_deref() == hash);
    assert!(so, "{hash:?} does not decide: {}\n{}", policy(node, &["list"]), node.stderr());
}

/// The decisions about the job of a reply.
fn explained(node: &Node, reply: &potluck_tests::http::Response) -> Value {
    let job = reply.header("x-potluck-job").expect("a job's id");
    let found = policy(node, &["explain", job]);
    let first = found["decisions"][0].clone();
    assert_eq!(first["same"], true, "{first}");
    first
}

#[test]
fn the_owner_decides_and_everybody_follows() {
    let scratch = tempfile::tempdir().unwrap();
    let anna = Node::start(options("anna").model(tiny(scratch.path())));
    let bert = Node::start(options("bert"));
    pool(&[&anna, &bert], &[]);
    meets(&bert, 1);
    assert_eq!(policy(&anna, &["list"])["active"], json!([]), "nothing decides that nobody approved");
    let reply = answered(&bert.client(), "tiny");
    assert!(
        failed(&bert.run(["policy", "explain", reply.header("x-potluck-job").unwrap()]))
            .contains("no decision")
    );

    let refused = failed(&bert.run([Path::new("policy"), Path::new("propose"), &shipped("balanced")]));
    is_a_clear_message(&refused, &["root key"]);
    let began = Instant::now();
    let balanced = propose(&anna, "balanced");
    decides(&bert, "routing", Some(&balanced));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let reply = answered(&bert.client(), "tiny");
    let decision = explained(&bert, &reply);
    assert_eq!(decision["paper"]["policy"], balanced.as_str());
    assert_ne!(decision["question"]["candidates"][0]["machine"], 0, "{decision}");

    // Another machine executes the decision again and comes to the same bytes.
    let paper = scratch.path().join("paper.json");
    let job = reply.header("x-potluck-job").unwrap();
    succeeded(&bert.run(["policy", "explain", job, "--export", paper.to_str().unwrap()]));
    let again = policy(&anna, &["explain", "--file", paper.to_str().unwrap()]);
    assert_eq!(again["decisions"][0]["same"], true, "{again}");
    let changed = fs::read_to_string(&paper).unwrap();
    let output = again["decisions"][0]["paper"]["output"].as_str().unwrap();
    let other = format!("{}ff", &output[..output.len() - 2]);
    fs::write(&paper, changed.replace(output, &other)).unwrap();
    failed(&anna.run(["policy", "explain", "--file", paper.to_str().unwrap()]));

    // What was approved holds after a restart, and what came before can come again.
    let homebound = propose(&anna, "homebound");
    decides(&bert, "routing", Some(&homebound));
    succeeded(&anna.run(["policy", "rollback", "routing"]));
    decides(&bert, "routing", Some(&balanced));
    succeeded(&anna.run(["policy", "use", "native", "--kind", "routing"]));
    decides(&bert, "routing", None);
    answered(&bert.client(), "tiny").expect(200);
    anna.shutdown();
    bert.shutdown();
}

#[test]
fn two_of_three_members_approve() {
    let nodes: Vec<Node> = ["anna", "bert", "cleo"].map(|name| Node::start(options(name))).into();
    let [anna, bert, cleo] = nodes.as_slice() else { panic!("three") };
    succeeded(&anna.run(["pool", "create", "home", "--quorum", "2"]));
    for node in [bert, cleo] {
        succeeded(&node.run(["join", &invite(anna, &[])]));
    }
    nodes.iter().for_each(|node| meets(node, 2));
    let done = policy(bert, &["propose", shipped("linear").to_str().unwrap(), "--note", "fair prices"]);
    assert_eq!((done["approved"].as_bool(), done["needed"].as_u64()), (Some(false), Some(2)), "{done}");
    let hash = done["hash"].as_str().unwrap().to_owned();
    let seen = || policy(cleo, &["list"])["motions"].as_array().unwrap().len() == 1;
    assert!(process::eventually(Duration::from_secs(10), seen));
    assert_eq!(policy(cleo, &["list"])["motions"][0]["note"], "fair prices");
    assert_eq!(active(anna, "pricing"), None, "one vote is not enough");
    let done = policy(cleo, &["vote", &hash[..12], "yes"]);
    assert_eq!(done["approved"], true, "{done}");
    nodes.iter().for_each(|node| decides(node, "pricing", Some(&hash)));
    // A member that comes later follows, too, and one that changes its mind is heard.
    let dora = Node::start(options("dora"));
    succeeded(&dora.run(["join", &invite(anna, &[])]));
    decides(&dora, "pricing", Some(&hash));
    policy(cleo, &["vote", &hash, "no"]);
    decides(&dora, "pricing", None);
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let anna = Node::start(options("anna"));
    succeeded(&anna.run(["pool", "create", "home"]));
    let scratch = tempfile::tempdir().unwrap();
    let mut spoiled = fs::read(shipped("balanced")).unwrap();
    let whole = spoiled.clone();
    spoiled.truncate(whole.len() / 2);
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 0x55;
    let cases: [(&str, Vec<u8>, &[&str]); 5] = [
        ("text.wasm", b"this is no component".to_vec(), &["not valid"]),
        ("half.wasm", spoiled, &["not valid"]),
        ("large.wasm", vec![0; (1 << 20) + 1], &["1048576"]),
        ("module.wasm", b"\0asm\x01\0\0\0".to_vec(), &["core module", "potluck policy build"]),
        ("empty.wasm", Vec::new(), &["not valid"]),
    ];
    for (name, bytes, words) in cases {
        let file = scratch.path().join(name);
        fs::write(&file, bytes).unwrap();
        for command in ["check", "propose"] {
            let said = failed(&anna.run(["policy", command, file.to_str().unwrap()]));
            is_a_clear_message(&said, words);
        }
    }
    // A flipped bit gives another component: refused, or another policy with another hash, never a broken node.
    let file = scratch.path().join("flipped.wasm");
    fs::write(&file, flipped).unwrap();
    let _ = anna.run(["policy", "propose", file.to_str().unwrap()]);
    let said = failed(&anna.run(["policy", "show", "0000ffff"]));
    is_a_clear_message(&said, &["policy list"]);
    anna.client().post("/potluck/v1/policies/vote", &json!({"yes": true})).openai_error(400);
    anna.client().post("/potluck/v1/policies/explain", &json!({"job": 1})).openai_error(400);
    assert_eq!(policy(&anna, &["list"])["components"], json!([]));
    anna.shutdown();
}

/// Policies change while answers stream: `POTLUCK_POLICY_SWAPS` times, 40 in a short run.
#[test]
fn a_swap_under_load_loses_nothing() {
    let swaps = std::env::var("POTLUCK_POLICY_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(40_usize);
    let streams = if swaps > 100 { 64 } else { 16 };
    let scratch = tempfile::tempdir().unwrap();
    let anna = Node::start(options("anna").model(tiny(scratch.path())));
    succeeded(&anna.run(["pool", "create", "home"]));
    let hashes = [propose(&anna, "balanced"), propose(&anna, "homebound")];
    decides(&anna, "routing", Some(&hashes[1]));
    answered(&anna.client(), "tiny").expect(200);
    let before = anna.rss();
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let reply = ask(&anna.client(), "tiny");
                    let full = reply.status == 503 || reply.status == 429;
                    assert!(full || reply.status == 200, "{}", reply.text());
                    answers.fetch_add(usize::from(!full), Relaxed);
                }
            });
        }
        for swap in 0..swaps {
            let hash = &hashes[swap % 2];
            let body = json!({"component": hash, "from_ms": now(), "yes": true});
            anna.client().post("/potluck/v1/policies/vote", &body).expect(200);
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Relaxed);
    });
    assert!(answers.load(Relaxed) > swaps, "{answers:?}");
    let latest = policy(&anna, &["explain", "--limit", "200"]);
    let all = latest["decisions"].as_array().unwrap();
    assert!(!all.is_empty());
    for one in all {
        assert!(hashes.iter().any(|hash| one["policy"] == hash.as_str()), "decided by something else: {one}");
    }
    assert!(!anna.stderr().contains("native order"), "{}", anna.stderr());
    let grown = anna.rss().saturating_sub(before);
    assert!(grown < 64 << 20, "the node grew by {grown} bytes");
    anna.shutdown();
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
