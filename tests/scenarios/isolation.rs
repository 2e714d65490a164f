//! What must never happen: a local job that reaches out, a stranger who reaches in.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use potluck_tests::{
    data::skipped,
    http::Client,
    node::{self, Node, NodeOptions, succeeded},
    process,
};
use serde_json::json;

use crate::{
    common::{ask_guide, still_answers, tiny},
    embed,
};

/// Asks a node in every way that makes a local job.
fn local_jobs(node: &Node) {
    let client = node.client();
    ask_guide(&client, "How do I join a pool?");
    still_answers(&client);
    let chat = json!({ "model": "guide", "stream": true, "max_tokens": 8, "messages": [{ "role": "user", "content": "hi" }] });
    let answer = client.stream("/v1/chat/completions", &chat).unwrap();
    assert_eq!(
        answer.headers.iter().find(|(n, _)| n == "x-potluck-mode").map(|(_, v)| v.as_str()),
        Some("local")
    );
    assert_eq!(answer.rest().unwrap().status, 200);
    let generate = json!({ "model": "tiny", "prompt": "abc", "options": { "num_predict": 4 } });
    assert_eq!(client.post("/api/generate", &generate).status, 200);
    for path in ["/v1/models", "/api/tags", "/api/ps", "/potluck/v1/status", "/metrics"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    succeeded(&node.run(["run", "guide", "How do I start a node?"]));
    client.post("/potluck/v1/memory", &json!({ "content": "The ferry leaves at nine." })).expect(200);
    let answer = client.post("/potluck/v1/memory/recall", &json!({ "query": "when does the ferry leave" }));
    assert_eq!(answer.expect(200)["items"].as_array().map(Vec::len), Some(1));
}

/// The address in a traced call, when it is one of the internet's.
fn address(call: &str) -> Option<&str> {
    let (_, rest) = call.split_once("inet_addr(\"").or_else(|| call.split_once("inet_pton(AF_INET6, \""))?;
    rest.split('"').next()
}

/// Lines of a trace that name a peer which is not this machine.
fn reaching_out(trace: &str) -> Vec<&str> {
    let calls = trace
        .lines()
        .filter(|line| ["connect(", "sendto(", "sendmsg(", "sendmmsg("].iter().any(|c| line.contains(c)));
    let outside = |call: &&str| {
        address(call).is_some_and(|a| !(a.starts_with("127.") || a == "::1" || a.starts_with("::ffff:127.")))
    };
    calls.filter(outside).collect()
}

#[test]
fn the_trace_reader_knows_inside_from_outside() {
    let outside = r#"1 connect(5, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
1 sendto(5, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = 1"#;
    assert_eq!(reaching_out(outside).len(), 2);
    let inside = r#"1 connect(5, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
1 connect(5, {sa_family=AF_UNIX, sun_path="/run/x"}, 16) = 0
1 bind(5, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("0.0.0.0")}, 16) = 0"#;
    assert_eq!(reaching_out(inside), [] as [&str; 0]);
}

#[test]
fn a_local_job_connects_to_nothing_beyond_loopback() {
    if !process::has("strace") {
        return skipped("strace is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("strace.log");
    let trace = ["strace", "-D", "-f", "-e", "trace=connect,sendto,sendmsg,sendmmsg,bind", "-o"];
    let options = NodeOptions::new().before(trace).before([&log]).model(tiny(folder.path()));
    // A pool, a chain and a hub that are configured must not be asked either.
    let node = Node::start(options.env("HF_ENDPOINT", "http://192.0.2.1:9").env("HF_TOKEN", "a-token"));
    local_jobs(&node);
    let address = node.address();
    node.shutdown();
    let trace = fs::read_to_string(&log).unwrap();
    assert!(
        trace.contains("bind(") && trace.contains("127.0.0.1"),
        "strace saw nothing of {address}: {trace}"
    );
    assert_eq!(reaching_out(&trace), [] as [&str; 0]);

    // The command alone, without a node, is no different.
    let log = folder.path().join("alone.log");
    let home = folder.path().join("alone");
    let mut command = Command::new("strace");
    command.args(&trace_words()[1..]).arg(&log).arg(node::program()).args([
        "run",
        "guide",
        "How do I join a pool?",
    ]);
    let output = command.env("HOME", &home).env("POTLUCK_HOME", home.join("node")).output().unwrap();
    succeeded(&output);
    let trace = fs::read_to_string(&log).unwrap();
    assert!(
        trace.contains("connect(") || trace.contains("bind(") || trace.contains("exited with 0"),
        "{trace}"
    );
    assert_eq!(reaching_out(&trace), [] as [&str; 0]);
}

fn trace_words() -> [&'static str; 5] {
    ["strace", "-f", "-e", "trace=connect,sendto,sendmsg,sendmmsg,bind", "-o"]
}

#[test]
fn a_node_serves_where_there_is_no_network() {
    let ready = "ip link set lo up && exec \"$0\" \"$@\"";
    let probe =
        Command::new("unshare").args(["-n", "sh", "-c", "ip link set lo up"]).stderr(Stdio::null()).status();
    if !process::is_root() || !probe.is_ok_and(|status| status.success()) {
        return skipped("a network namespace needs root, unshare and ip (Debian: util-linux, iproute2)");
    }
    let folder = tempfile::tempdir().unwrap();
    let options = NodeOptions::new().before(["unshare", "-n", "sh", "-c", ready]).model(tiny(folder.path()));
    let embedder = embed::model();
    if let Some(model) = &embedder {
        embed::place(model, folder.path());
    }
    let node = Node::start(options.home(folder.path()));
    let inside = |words: &[&str]| {
        let command = node.command(words.iter().copied());
        let mut entered = Command::new("nsenter");
        entered
            .arg(format!("--net=/proc/{}/ns/net", node.pid()))
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entered.env(name, value),
                None => entered.env_remove(name),
            };
        }
        succeeded(&entered.output().unwrap())
    };
    let routes = Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", node.pid()))
        .args(["ip", "route"])
        .output()
        .unwrap();
    assert!(routes.status.success() && routes.stdout.is_empty(), "the namespace has routes");
    assert!(inside(&["run", "guide", "How do I join a pool?"]).contains("potluck join"));
    assert!(inside(&["ps", "--json"]).contains("guide"), "another node answered");
    inside(&["memory", "add", "The ferry to the island leaves at nine.", "--project", "coast"]);
    // Its words are found at once, what it means as soon as the embedder has read it.
    let search = || inside(&["memory", "search", "when does the boat go?", "--project", "coast", "--json"]);
    if embedder.is_some() {
        let found = || search().contains("leaves at nine");
        assert!(process::eventually(Duration::from_secs(20), found), "{}", search());
        assert!(search().contains("all-MiniLM-L6-v2"), "{}", search());
    } else {
        search();
    }
    assert!(inside(&["memory", "search", "ferry", "--json"]).contains("leaves at nine"));
    assert!(inside(&["memory", "export"]).contains("leaves at nine"));
    // Nobody outside can reach it.
    let outside = Client::new(node.address());
    let answered = outside
        .send("GET", "/healthz", &[], b"")
        .is_ok_and(|answer| answer.header("x-potluck-node").is_some());
    assert!(!answered, "the node is reachable from outside its namespace");
    node.shutdown();
}

#[test]
fn pages_and_names_of_strangers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeOptions::new().model(tiny(folder.path())));
    let client = node.client();
    let body = json!({ "model": "tiny", "prompt": "abc", "max_tokens": 1 }).to_string();
    let port = node.address().port();
    let get = |headers: &[(&str, &str)]| client.send("GET", "/v1/models", headers, b"").unwrap();
    let post = |headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        client.send("POST", "/v1/completions", &all, body.as_bytes()).unwrap()
    };
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.7", ""] {
        get(&[("host", host)]).openai_error(403);
        post(&[("host", host)]).openai_error(403);
    }
    for origin in ["https://evil.example", "http://evil.example:80", "null", "http://localhost.evil.example"]
    {
        let refused = post(&[("origin", origin)]);
        assert_eq!(refused.header("access-control-allow-origin"), None);
        refused.openai_error(403);
        assert_eq!(get(&[("origin", origin)]).status, 403);
        let ask = [("origin", origin), ("access-control-request-method", "POST")];
        let preflight = client.send("OPTIONS", "/v1/completions", &ask, b"").unwrap();
        assert_eq!(preflight.header("access-control-allow-origin"), None, "{origin}");
    }
    assert_eq!(post(&[("sec-fetch-site", "cross-site")]).status, 403);
    // A form of another page can send text without asking first: it must not count as JSON by accident.
    let form = client.send(
        "POST",
        "/v1/completions",
        &[("content-type", "text/plain"), ("origin", "https://evil.example")],
        body.as_bytes(),
    );
    assert_eq!(form.unwrap().status, 403);
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(get(&[("host", &host)]).status, 200, "{host}");
    }
    assert_eq!(post(&[("origin", &node.url())]).status, 200);
    node.shutdown();

    let node = Node::start(
        NodeOptions::new().model(tiny(folder.path())).args(["--origins", "https://friend.example"]),
    );
    let client = node.client();
    let friend = client.send("GET", "/v1/models", &[("origin", "https://friend.example")], b"").unwrap();
    assert_eq!(friend.status, 200);
    assert_eq!(friend.header("access-control-allow-origin"), Some("https://friend.example"));
    assert_eq!(
        client.send("GET", "/v1/models", &[("origin", "https://evil.example")], b"").unwrap().status,
        403
    );
    node.shutdown();
}

#[test]
fn off_loopback_nothing_answers_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let options = NodeOptions::new()
        .listen("0.0.0.0:0")
        .model(tiny(folder.path()))
        .env("POTLUCK_API_KEY", "sk-of-the-owner");
    let node = Node::start(options);
    guarded(&node, "sk-of-the-owner");
    // The node's own commands know the key.
    succeeded(&node.command(["ps"]).env("POTLUCK_API_KEY", "sk-of-the-owner").output().unwrap());
    node.shutdown();

    // Without a key it either refuses to start and says how to get one, or it answers nobody.
    let options = || NodeOptions::new().listen("0.0.0.0:0").home(folder.path());
    let mut command = node::command(folder.path(), ["up", "--listen", "0.0.0.0:0", "--device", "cpu"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ended = process::eventually(Duration::from_secs(3), || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let status = child.wait().unwrap();
    if ended {
        assert!(!status.success());
        let refused = Node::refuse(options());
        assert!(refused.stderr.to_lowercase().contains("key"), "{}", refused.stderr);
    } else {
        let node = Node::start(options());
        guarded(&node, "");
        node.shutdown();
    }
}

/// Every path but `/healthz` answers 401 without the key and with a wrong one.
fn guarded(node: &Node, key: &str) {
    let client = node.client();
    assert_eq!(client.get("/healthz").status, 200);
    let paths = [
        "/",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/api/tags",
        "/api/version",
        "/api/ps",
        "/potluck/v1/status",
        "/mcp",
        "/nothing",
    ];
    for path in paths {
        for client in [client.clone(), client.with_key("wrong"), client.with_key("")] {
            let refused = client.get(path);
            assert_eq!(refused.status, 401, "{path}: {}", refused.text());
            assert!(refused.json().get("error").is_some(), "{path}");
        }
    }
    let body = json!({ "model": "guide", "messages": [{ "role": "user", "content": "hi" }] });
    client.post("/v1/chat/completions", &body).openai_error(401);
    client.post("/api/chat", &body).ollama_error(401);
    if !key.is_empty() {
        assert_eq!(client.with_key(key).get("/v1/models").status, 200);
        still_answers(&client.with_key(key));
    }
}

#[test]
fn the_home_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeOptions::new().home(folder.path()));
    for entry in fs::read_dir(folder.path().join("node")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes =
            if entry.path().is_file() { fs::read(entry.path()).unwrap_or_default() } else { Vec::new() };
        let secret = ["token", "key", "secret"]
            .iter()
            .any(|w| name.contains(w) || String::from_utf8_lossy(&bytes).contains(w));
        let mode = entry.metadata().unwrap().permissions().mode();
        let home = fs::metadata(Path::new(&folder.path().join("node"))).unwrap().permissions().mode();
        assert!(
            !secret || mode & 0o077 == 0 || home & 0o077 == 0,
            "{name} holds a secret and has mode {mode:o}"
        );
    }
    node.shutdown();
}
