//! The memory over MCP: the official Python client and the official inspector, agents that share one node.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use potluck_tests::{
    data,
    node::{self, Node, NodeOptions, program},
    process, python,
};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

#[test]
fn the_mcp_package_finds_every_tool_over_both_transports() {
    let node = Node::start(NodeOptions::new());
    let home = node.home().join("node");
    python::run(
        "mcp_scenario.py",
        &["--program", program().to_str().unwrap(), "--home", home.to_str().unwrap(), "--url", &node.url()],
    );
    node.shutdown();
}

/// The process that a home's node says it is.
fn advertised(home: &std::path::Path) -> Option<(u32, String)> {
    let text = std::fs::read_to_string(home.join("node/node.json")).ok()?;
    let advert: Value = serde_json::from_str(&text).ok()?;
    Some((advert["pid"].as_u64()?.try_into().ok()?, advert["url"].as_str()?.to_owned()))
}

/// Ends a node that was started in the background.
struct Background(PathBuf);

impl Drop for Background {
    fn drop(&mut self) {
        let Some((pid, _)) = advertised(&self.0) else { return };
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        process::eventually(Duration::from_secs(20), || advertised(&self.0).is_none());
    }
}

/// An agent's end of `potluck mcp`.
struct Agent {
    child: std::process::Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Agent {
    fn start(home: &std::path::Path, name: &str) -> Self {
        std::fs::create_dir_all(home.join("user")).unwrap();
        let words = ["mcp", "--listen", "127.0.0.1:0", "--device", "cpu"];
        let mut child = node::command(home, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut agent = Self { child, out };
        let about = json!({"name": name, "version": "1"});
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about});
        let answer = agent.ask(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18", "{answer}");
        agent.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        agent
    }

    fn say(&mut self, message: &Value) {
        let mut input = self.child.stdin.as_ref().unwrap();
        writeln!(input, "{message}").unwrap();
    }

    /// Sends a line and reads one, which must be a message: nothing else may come from stdout.
    fn ask(&mut self, message: Value) -> Value {
        self.say(&message);
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message: {line:?}"));
        assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
        answer
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        self.ask(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
    }

    /// Closes stdin and waits for the end.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn an_agent_starts_the_node_and_survives_its_restart() {
    let home = tempfile::tempdir().unwrap();
    let _background = Background(home.path().to_path_buf());
    let mut first = Agent::start(home.path(), "first");
    let (pid, _) = advertised(home.path()).expect("the node says where it is");
    let mut second = Agent::start(home.path(), "second");
    assert_eq!(advertised(home.path()).unwrap().0, pid, "two agents share one node");
    assert!(home.path().join("node/node.log").is_file());
    let list = first.ask(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert_eq!(list["result"]["tools"].as_array().map(Vec::len), Some(8), "{list}");
    let written =
        first.call("remember", json!({"content": "The key is under the blue pot", "project": "house"}));
    let id = written["result"]["structuredContent"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{written}"))
        .to_owned();
    // The node is not a child of the agent's: it stays when the agent that started it goes.
    first.finish();
    assert_eq!(advertised(home.path()).unwrap().0, pid);
    // And when the node goes, the other agent does not notice.
    let raw = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(raw, Signal::TERM).unwrap();
    assert!(process::eventually(Duration::from_secs(20), || advertised(home.path()).is_none()));
    let read = second.call("get", json!({"id": id}));
    let item = &read["result"]["structuredContent"];
    assert_eq!(item["content"], "The key is under the blue pot", "{read}");
    assert_eq!(item["source"], "first");
    // The first answer may still be the old node's, given while it stopped.
    let moved = process::eventually(Duration::from_secs(20), || {
        assert!(second.call("get", json!({"id": id}))["error"].is_null());
        advertised(home.path()).is_some_and(|(found, _)| found != pid)
    });
    assert!(moved, "no other node was started");
    let refused = second.ask(json!({"jsonrpc": "2.0", "id": 9, "method": "no/such/method"}));
    assert!(refused["error"]["code"].is_i64(), "{refused}");
    let broken = {
        let mut input = second.child.stdin.as_ref().unwrap();
        writeln!(input, "{{ no json").unwrap();
        let mut line = String::new();
        second.out.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(broken["error"]["code"], -32700, "{broken}");
    second.finish();
}

/// The inspector of the protocol's makers, where `tests/run` could install it.
fn inspector() -> Option<(PathBuf, PathBuf)> {
    let folder = match env::var_os("POTLUCK_TEST_NODE") {
        Some(folder) => PathBuf::from(folder),
        None => match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => PathBuf::from(target).join("test-node"),
            None => data::workspace().join("target/test-node"),
        },
    };
    let script = folder.join("node_modules/.bin/mcp-inspector");
    let own = folder.join("node_modules/node/bin/node");
    let runtime = if own.is_file() { own } else { PathBuf::from("node") };
    script.is_file().then_some((runtime, script))
}

#[test]
fn the_inspector_lists_and_calls_tools() {
    let Some((runtime, script)) = inspector() else {
        data::skipped("no MCP inspector; run tests/run on a machine with npm, or set POTLUCK_TEST_NODE");
        return;
    };
    let node = Node::start(NodeOptions::new());
    let home = node.home().join("node");
    let path = env::join_paths(
        runtime
            .parent()
            .into_iter()
            .map(PathBuf::from)
            .chain(env::split_paths(&env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let url = format!("{}/mcp", node.url());
    let stdio = [program().display().to_string(), "mcp".to_owned()];
    let http = [url];
    for target in [&stdio[..], &http[..]] {
        let ask = |words: &[&str]| {
            let mut command = Command::new(&script);
            command
                .arg("--cli")
                .args(["-e", &format!("POTLUCK_HOME={}", home.display())])
                .args(target)
                .args(words);
            command.env("PATH", &path).env("HOME", node.scratch()).stdin(Stdio::null());
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            text
        };
        let list: Value = serde_json::from_str(&ask(&["--method", "tools/list"])).unwrap();
        assert_eq!(list["tools"].as_array().map(Vec::len), Some(8), "{list}");
        let content = format!("content=Inspected over {} words", target.len());
        let words = ["--method", "tools/call", "--tool-name", "remember", "--tool-arg", &content];
        assert!(ask(&words).contains("Remembered as"));
        let words = ["--method", "tools/call", "--tool-name", "recall", "--tool-arg", "query=inspected"];
        assert!(ask(&words).contains("Inspected over"));
    }
    node.shutdown();
}
