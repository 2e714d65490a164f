//! Machines that trust each other: joining, jobs and memory across them, and what becomes of those that are shut out.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use potluck_tests::{
    http::{Client, Response},
    node::{Node, NodeOptions, failed, succeeded},
    process,
};
use serde_json::{Value, json};

use crate::common::{slow, text, tiny};

const POOL: &str = "/potluck/v1/pool";

/// A node that can be in a pool, on loopback alone.
pub(crate) fn options(name: &str) -> NodeOptions {
    NodeOptions::new().args(["--node-name", name, "--pool-listen", "127.0.0.1:0", "--lan=false"])
}

/// An invite of this member's, made with these further flags.
pub(crate) fn invite(node: &Node, flags: &[&str]) -> String {
    let made = succeeded(&node.run(["pool", "invite", "--json"].iter().chain(flags)));
    let made: Value = serde_json::from_str(&made).unwrap();
    assert!(made["expires"].is_i64() && made["uses"].is_u64(), "{made}");
    made["invite"].as_str().unwrap().to_owned()
}

/// A pool founded by the first; the others join it.
pub(crate) fn pool(nodes: &[&Node], flags: &[&str]) {
    let (first, others) = nodes.split_first().unwrap();
    succeeded(&first.run(["pool", "create", "home"]));
    for other in others {
        succeeded(&other.run(["join", &invite(first, flags)]));
    }
}

/// The members as a node sees them.
pub(crate) fn members(node: &Node) -> Vec<Value> {
    let list = succeeded(&node.run(["pool", "members", "--json"]));
    let list: Value = serde_json::from_str(&list).unwrap();
    list["members"].as_array().unwrap().clone()
}

/// Waits until a node sees so many other members online.
pub(crate) fn meets(node: &Node, count: usize) {
    let online =
        || members(node).iter().filter(|member| member["online"] == true && member["self"] == false).count();
    assert!(
        process::eventually(Duration::from_secs(45), || online() == count),
        "{:?}\n{}",
        members(node),
        node.stderr()
    );
}

/// Asks for tokens of a model in mode trusted.
pub(crate) fn ask(client: &Client, model: &str) -> Response {
    let body = json!({"model": model, "prompt": "abc", "max_tokens": 3, "temperature": 0});
    let headers = [("content-type", "application/json"), ("x-potluck-mode", "trusted")];
    client.send("POST", "/v1/completions", &headers, body.to_string().as_bytes()).unwrap()
}

/// Asks until the answer is there: reports of what members have take a moment.
pub(crate) fn answered(client: &Client, model: &str) -> Response {
    let mut last = None;
    process::eventually(Duration::from_secs(10), || {
        let answer = ask(client, model);
        let good = answer.status == 200;
        last = Some(answer);
        good
    });
    last.unwrap()
}

#[test]
fn from_nothing_to_a_token_of_another_machine() {
    let anna = Node::start(options("anna"));
    let scratch = tempfile::tempdir().unwrap();
    let bert = Node::start(options("bert").model(tiny(scratch.path())));
    let refused = ask(&anna.client(), "tiny").openai_error(403);
    assert!(refused["message"].as_str().unwrap().contains("potluck join"), "{refused}");
    let began = Instant::now();
    pool(&[&anna, &bert], &[]);
    let answer = answered(&anna.client(), "tiny");
    let took = began.elapsed();
    let body = answer.expect(200);
    assert_eq!(body["usage"]["completion_tokens"], 3, "{body}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(answer.header("x-potluck-mode"), Some("trusted"));
    let ids: Vec<Value> = members(&anna).iter().map(|member| member["id"].clone()).collect();
    assert_eq!(ids.len(), 2);
    let serving = answer.header("x-potluck-node").unwrap();
    let seen = members(&anna);
    let bert_row = seen.iter().find(|member| member["name"] == "bert").unwrap();
    assert_eq!(bert_row["id"], serving);
    for field in ["id", "name", "self", "online", "path", "last_seen"] {
        assert!(!bert_row[field].is_null(), "{field}: {bert_row}");
    }
    // A local request never leaves, whatever the pool has.
    let local = json!({"model": "tiny", "prompt": "abc", "max_tokens": 3});
    anna.client().post("/v1/completions", &local).openai_error(404);
    let listed = anna.client().get("/v1/models").expect(200);
    assert!(listed["data"].as_array().unwrap().iter().any(|model| model["id"] == "tiny@trusted"), "{listed}");
    assert_eq!(
        text(
            &anna
                .client()
                .post(
                    "/v1/completions",
                    &json!({"model": "tiny@trusted", "prompt": "abc",
        "max_tokens": 3, "temperature": 0})
                )
                .expect(200)
        ),
        text(&body)
    );
    for (node, field) in [(&anna, "taken"), (&bert, "given")] {
        let entry = || node.client().get(&format!("{POOL}/ledger")).expect(200)["entries"][0].clone();
        assert!(process::eventually(Duration::from_secs(5), || entry()["jobs"] == 2), "{}", entry());
        assert_eq!((&entry()["direction"], &entry()["model"]), (&field.into(), &"tiny".into()));
    }
    let doctor = succeeded(&anna.run(["doctor", "bert", "--model", "tiny"]));
    assert!(doctor.contains("token") && !doctor.contains("fail"), "{doctor}");
    let unwell = failed(&anna.run(["doctor", "bert", "--model", "nothing"]));
    assert!(!unwell.is_empty());
    anna.shutdown();
    bert.shutdown();
}

#[test]
fn invites_are_for_so_many_and_no_longer() {
    let anna = Node::start(options("anna"));
    let (bert, carl) = (Node::start(options("bert")), Node::start(options("carl")));
    let early = failed(&anna.run(["pool", "invite"]));
    assert!(early.contains("pool create"), "{early}");
    pool(&[&anna], &[]);
    let once = invite(&anna, &[]);
    succeeded(&bert.run(["join", &once]));
    let again = failed(&carl.run(["join", &once]));
    assert!(again.contains("used up"), "{again}");
    let taken = invite(&anna, &[]);
    let id: Value = anna.client().get(POOL).expect(200);
    assert_eq!(id["pool"]["invites"], 1, "{id}");
    let damaged = failed(&carl.run(["join", &taken.replace(&taken[20..24], "qqqq")]));
    assert!(damaged.contains("damaged") || damaged.contains("checksum"), "{damaged}");
    let nonsense = failed(&carl.run(["join", "potluck1"]));
    assert!(nonsense.contains("invite"), "{nonsense}");
    let file = carl.scratch().join("invite.txt");
    std::fs::write(&file, format!("  {}\n{}\n", &taken[..60], &taken[60..])).unwrap();
    succeeded(&carl.run(["join", "--file", file.to_str().unwrap(), "--name", "carla"]));
    assert!(members(&anna).iter().any(|member| member["name"] == "carla"));
    let other = failed(&carl.run(["pool", "create", "second"]));
    assert!(other.contains("pool leave"), "{other}");
    succeeded(&carl.run(["pool", "leave"]));
    assert!(process::eventually(Duration::from_secs(5), || {
        members(&anna).iter().any(|member| member["name"] == "carla" && member["status"] == "left")
    }));
    for node in [anna, bert, carl] {
        node.shutdown();
    }
}

#[test]
fn who_is_shut_out_gets_nothing_any_more() {
    let scratch = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let anna = Node::start(options("anna").model(slow(scratch.path())));
    let eve = Node::start(options("eve").home(home.path()));
    let bert = Node::start(options("bert"));
    pool(&[&anna, &eve, &bert], &["--memory", "*"]);
    answered(&eve.client(), "slow").expect(200);
    meets(&bert, 2);
    let body = json!({"model": "slow@trusted", "prompt": "abc", "max_tokens": 4000, "stream": true});
    let mut stream = eve.client().stream("/v1/completions", &body).unwrap();
    stream.event().unwrap().expect("it has begun");
    let began = Instant::now();
    succeeded(&anna.run(["pool", "revoke", "eve"]));
    while let Ok(Some(event)) = stream.event() {
        assert!(began.elapsed() < Duration::from_secs(3), "it goes on: {event}");
    }
    let out = |node: &Node| {
        members(node).iter().any(|member| {
            member["name"] == "eve" && member["status"] == "revoked" && member["online"] == false
        })
    };
    assert!(process::eventually(Duration::from_secs(3), || out(&anna) && out(&bert)), "{:?}", members(&bert));
    assert_ne!(ask(&eve.client(), "slow").status, 200);
    let secret = json!({"content": "The spare key lies under the third flowerpot"});
    anna.client().post("/potluck/v1/memory", &secret).expect(200);
    eve.shutdown();
    let eve = Node::start(options("eve").home(home.path()));
    std::thread::sleep(Duration::from_secs(3));
    let question = json!({"query": "where is the spare key?"});
    let found = eve.client().post("/potluck/v1/memory/recall", &question).expect(200);
    assert_eq!(found["items"], json!([]));
    assert!(out(&anna) && out(&bert));
    for node in [anna, eve, bert] {
        node.shutdown();
    }
}

#[test]
fn what_one_remembers_the_others_find() {
    let home = tempfile::tempdir().unwrap();
    let anna = Node::start(options("anna"));
    let bert = Node::start(options("bert").home(home.path()));
    let before = json!({"content": "The harbour master is called Ilse", "project": "coast"});
    anna.client().post("/potluck/v1/memory", &before).expect(200);
    pool(&[&anna, &bert], &["--memory", "*"]);
    let finds = |node: &Node, query: &str, text: &str| {
        let found = || {
            let request = json!({"query": query, "limit": 3});
            node.client().post("/potluck/v1/memory/recall", &request).expect(200)["items"].clone()
        };
        let there = || {
            found().as_array().unwrap().iter().any(|item| item["content"].as_str().unwrap().contains(text))
        };
        assert!(process::eventually(Duration::from_secs(10), there), "{}\n{}", found(), node.stderr());
    };
    finds(&bert, "who is the harbour master?", "Ilse");
    bert.client().post("/potluck/v1/memory", &json!({"content": "Ferries leave at seven"})).expect(200);
    finds(&anna, "when do ferries leave?", "seven");
    bert.shutdown();
    let said =
        anna.client().post("/potluck/v1/memory", &json!({"content": "The lighthouse is painted white"}));
    said.expect(200);
    let bert = Node::start(options("bert").home(home.path()));
    finds(&bert, "what colour is the lighthouse?", "white");
    let status = anna.client().get(POOL).expect(200);
    assert!(
        process::eventually(Duration::from_secs(10), || {
            anna.client().get(POOL).expect(200)["memory"]["peers"][0]["lag_ops"] == 0
        }),
        "{status}"
    );
    anna.shutdown();
    bert.shutdown();
}

#[test]
fn an_answer_goes_on_when_its_machine_dies() {
    let scratch = tempfile::tempdir().unwrap();
    let model = slow(scratch.path());
    let anna = Node::start(options("anna"));
    let mut others: Vec<Node> =
        ["bert", "carl"].iter().map(|name| Node::start(options(name).model(&model))).collect();
    pool(&[&anna, &others[0], &others[1]], &[]);
    meets(&anna, 2);
    let body =
        json!({"model": "slow@trusted", "prompt": "abc", "max_tokens": 200, "temperature": 0.8, "seed": 7});
    answered(&anna.client(), "slow").expect(200);
    let whole = text(&anna.client().post("/v1/completions", &body).expect(200)).to_owned();
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let mut stream = anna.client().stream("/v1/completions", &streamed).unwrap();
    let serving = stream.header("x-potluck-node").unwrap().to_owned();
    let mut told = String::new();
    let mut pause = Duration::ZERO;
    let mut killed = false;
    loop {
        let began = Instant::now();
        let Some(event) = stream.event().unwrap() else { break };
        pause = pause.max(began.elapsed());
        told.push_str(event["choices"][0]["text"].as_str().unwrap_or_default());
        if told.len() > whole.len() / 3 && !killed {
            killed = true;
            let at = others.iter().position(|node| {
                node.client().get("/potluck/v1/status").expect(200)["node"] == serving.as_str()
            });
            others.remove(at.unwrap()).kill();
        }
    }
    assert!(killed);
    assert_eq!(told, whole);
    assert!(pause < Duration::from_secs(3), "{pause:?}");
    anna.shutdown();
}

#[test]
fn strangers_at_the_door_learn_and_break_nothing() {
    let anna = Node::start(options("anna"));
    let bert = Node::start(options("bert"));
    pool(&[&anna, &bert], &[]);
    let addresses = anna.client().get(POOL).expect(200)["addresses"].clone();
    let port = addresses.as_array().unwrap().iter().find_map(|address| {
        let address = address.as_str()?;
        address.split("/tcp/").nth(1)?.split('/').next()?.parse::<u16>().ok()
    });
    let door = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_else(|| panic!("no TCP: {addresses}"))));
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        b"\x13/multistream/1.0.0\n\x06ls\n".to_vec(),
    ] {
        let mut socket = TcpStream::connect(door).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let _ = socket.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = socket.take(4096).read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("potluck"), "{answer}");
    }
    meets(&anna, 1);
    anna.shutdown();
    bert.shutdown();
}
