//! The first minutes with the program: help, one command to a working node, and its end.

use std::{
    fs,
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use potluck_tests::{
    data,
    http::Streaming,
    node::{self, Node, NodeOptions, failed, succeeded},
    process,
};
use serde_json::{Value, json};

use crate::common::{ask_guide, is_a_clear_message, slow, start, still_answers, tiny};

#[test]
fn without_arguments_it_prints_help_and_binds_nothing() {
    let home = tempfile::tempdir().unwrap();
    let help = node::command(home.path(), [] as [&str; 0]).output().unwrap();
    let text = String::from_utf8_lossy(&help.stdout) + String::from_utf8_lossy(&help.stderr);
    assert!(text.contains("Usage"), "no help: {text}");
    for command in
        ["up", "run", "pull", "models", "show", "ps", "stop", "rm", "doctor", "bench", "completions"]
    {
        assert!(
            text.split_whitespace().any(|word| word == command),
            "`{command}` is not in the help: {text}"
        );
    }
    assert!(!home.path().join("node").exists(), "printing help made a home");

    if !process::has("strace") {
        return data::partly_skipped("strace is not installed, so binding nothing is not proved");
    }
    let log = home.path().join("strace.log");
    let traced = Command::new("strace")
        .args(["-f", "-e", "trace=execve,bind,listen,connect", "-o"])
        .arg(&log)
        .arg(node::program())
        .env("HOME", home.path())
        .output()
        .unwrap();
    let log = fs::read_to_string(&log).unwrap_or_default();
    assert!(log.contains("execve("), "strace saw nothing: {}", String::from_utf8_lossy(&traced.stderr));
    for call in ["bind(", "listen("] {
        assert!(!log.contains(call), "it called {call}…: {log}");
    }
}

#[test]
fn one_command_makes_a_node_that_answers() {
    let mut node = Node::start(NodeOptions::new());
    let client = node.client();
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    let metrics = client.get("/metrics");
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    assert!(metrics.lines().any(|line| line.starts_with("# TYPE ")), "no metrics: {metrics}");
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "not a metric: {line}");
    }

    let answer = succeeded(&node.run(["run", "guide", "How do I join a pool?"]));
    assert!(answer.contains("potluck join"), "the guide says: {answer}");
    assert!(ask_guide(&client, "How do I join a pool?").contains("potluck join"));

    let more = client.get("/metrics").text();
    assert!(more != metrics, "two answers leave no trace in the metrics");
    let stdout = node.stdout();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), [format!("ready {}", node.url())], "stdout");
    assert!(node.alive());
    node.shutdown();
}

#[test]
fn a_question_needs_no_running_node() {
    let home = tempfile::tempdir().unwrap();
    let output = node::command(home.path(), ["run", "guide", "How do I join a pool?"]).output().unwrap();
    let answer = succeeded(&output);
    assert!(answer.contains("potluck join"), "the guide says: {answer}");
}

#[test]
fn it_goes_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).shutdown();
    start(folder.path()).interrupt();

    // In the middle of an answer, too: the answer ends with words, the process with 0.
    let node = Node::start(NodeOptions::new().model(slow(folder.path())));
    let body =
        json!({ "model": "slow", "prompt": "abc", "max_tokens": 4000, "temperature": 0, "stream": true });
    let mut stream = node.client().stream("/v1/completions", &body).unwrap();
    assert_eq!(stream.status, 200);
    for _ in 0..3 {
        stream.event().unwrap();
    }
    let reader = std::thread::spawn(move || rest_of(&mut stream));
    let started = Instant::now();
    node.shutdown();
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?} to go", started.elapsed());
    let last = reader.join().unwrap();
    let last = last.unwrap_or_else(|| panic!("the answer broke off without a word"));
    let ended = last.get("error").is_some() || last["choices"][0]["finish_reason"].is_string();
    assert!(ended, "the answer ended with {last}");
}

/// The last event of a stream.
#[test]
fn a_command_stops_it() {
    let mut node = Node::start(NodeOptions::new());
    assert_eq!(succeeded(&node.run(["down"])).trim(), "stopped");
    assert!(process::eventually(Duration::from_secs(5), || !node.alive()));
    assert!(succeeded(&node.run(["down"])).contains("no node"));
}

fn rest_of(stream: &mut Streaming) -> Option<Value> {
    let mut last = None;
    while let Ok(Some(event)) = stream.event() {
        last = Some(event);
    }
    last
}

#[test]
fn two_nodes_do_not_share_a_home_or_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let first = Node::start(NodeOptions::new().home(folder.path()).model(tiny(folder.path())));
    let port = first.address().port().to_string();

    let refused = Node::refuse(NodeOptions::new().listen(first.address().to_string()));
    assert!(refused.status.is_some_and(|s| s.code().is_some_and(|c| c != 0)), "{refused:?}");
    is_a_clear_message(&refused.stderr, &[&port]);
    assert!(!refused.stdout.contains("ready"), "{}", refused.stdout);

    let refused = Node::refuse(NodeOptions::new().home(folder.path()));
    assert!(refused.status.is_some_and(|s| s.code().is_some_and(|c| c != 0)), "{refused:?}");
    is_a_clear_message(&refused.stderr, &["node"]);

    still_answers(&first.client());
    first.shutdown();
    // What the first left behind does not keep a later one from starting.
    Node::start(NodeOptions::new().home(folder.path())).shutdown();
    // Nor does what a killed one left.
    drop(Node::start(NodeOptions::new().home(folder.path())));
    Node::start(NodeOptions::new().home(folder.path())).shutdown();
}

#[test]
fn a_port_of_another_program_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let refused = Node::refuse(NodeOptions::new().listen(address.to_string()));
    is_a_clear_message(&refused.stderr, &[&address.port().to_string()]);
}

#[test]
fn what_cannot_be_a_setting_is_refused_with_words() {
    for (args, words) in [
        (&["--listen", "nonsense"][..], &["nonsense"][..]),
        (&["--parallel", "0"], &["parallel"]),
        (&["--context", "-5"], &[]),
        (&["--device", "toaster"], &["toaster", "cpu"]),
        (&["--model", "/no/such/file.gguf"], &["/no/such/file.gguf"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut command = node::command(home.path(), ["up"]);
        let output = command.args(args).output().unwrap();
        is_a_clear_message(&failed(&output), words);
        assert!(output.stdout.is_empty(), "{args:?} printed {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn every_listing_is_json_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeOptions::new().model(tiny(folder.path())));
    still_answers(&node.client());
    let parsed = |args: &[&str]| -> Value {
        let text = succeeded(&node.run(args.iter().copied().chain(["--json"])));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} --json: {error} in {text}"))
    };
    let models = parsed(&["models"]).to_string();
    assert!(models.contains("guide") && models.contains("tiny"), "{models}");
    let shown = parsed(&["show", "tiny"]).to_string();
    assert!(shown.contains("llama") && shown.contains("512"), "{shown}");
    let running = parsed(&["ps"]).to_string();
    assert!(running.contains("tiny"), "{running}");
    let doctor = parsed(&["doctor"]);
    assert!(doctor["checks"].as_array().is_some_and(|checks| checks.len() >= 5), "{doctor}");
    assert_eq!(doctor["failed"], 0, "{doctor}");
    let answer = parsed(&["run", "guide", "How do I join a pool?"]).to_string();
    assert!(answer.contains("potluck join"), "{answer}");

    // The same words for people are not JSON but say the same.
    for (args, word) in
        [(&["models"][..], "guide"), (&["show", "tiny"], "llama"), (&["ps"], "tiny"), (&["doctor"], "")]
    {
        let text = succeeded(&node.run(args.iter().copied()));
        assert!(text.contains(word) && !text.trim().is_empty(), "{args:?}: {text}");
    }
    succeeded(&node.run(["stop", "tiny"]));
    let running = parsed(&["ps"]).to_string();
    assert!(!running.contains("tiny"), "{running}");
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeded(&node.run(["completions", shell]));
        assert!(script.contains("potluck"), "completions for {shell}: {script}");
    }
    node.shutdown();
}

#[test]
fn commands_fail_with_words_and_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path());
    for args in [
        &["run", "no-such-model", "hello"][..],
        &["show", "no-such-model"],
        &["rm", "no-such-model"],
        &["stop", "no-such-model"],
        &["pull", "not a reference"],
        &["rm", "guide"],
    ] {
        let said = failed(&node.run(args.iter().copied()));
        let name = args.last().filter(|_| args[0] != "run").copied().unwrap_or("no-such-model");
        is_a_clear_message(&said, &[name]);
        let json = node.run(args.iter().copied().chain(["--json"]));
        failed(&json);
    }
    still_answers(&node.client());
    node.shutdown();
    // Without a node the same: words, not a stack of causes.
    let home = tempfile::tempdir().unwrap();
    failed(&node::command(home.path(), ["ps"]).env("POTLUCK_LISTEN", "127.0.0.1:9").output().unwrap());
}
