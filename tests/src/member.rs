//! A machine of a pool: a host of a [`Lab`](crate::netlab::Lab) and the node on it, which can die and come back.

use std::{path::Path, time::Duration};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    http::{Client, Response},
    netlab::{Host, Nat},
    node::{Node, NodeOptions, succeeded},
    process,
};

/// Where nodes of a pool listen unless told otherwise: everywhere, on the default port.
const LISTEN: &str = "0.0.0.0:7686,[::]:7686";

/// A node on a host, with a home that outlives it.
#[derive(Debug)]
pub struct Member {
    // Dropped first: the host would kill it.
    node: Option<Node>,
    /// The machine.
    pub host: Host,
    /// The router it is behind, which lives as long.
    pub router: Option<Nat>,
    name: String,
    options: NodeOptions,
    home: TempDir,
}

impl Member {
    /// A machine whose node is not started yet.
    pub fn off(host: Host, name: &str, options: NodeOptions) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let options = options.args(["--node-name", name]).before(host.before()).home(home.path());
        Self { node: None, host, router: None, name: name.to_owned(), options, home }
    }

    /// A machine whose node runs.
    pub fn with(host: Host, name: &str, options: NodeOptions) -> Self {
        let mut member = Self::off(host, name, options);
        member.start();
        member
    }

    /// A machine whose node listens everywhere and offers this model.
    pub fn on(host: Host, name: &str, model: Option<&str>) -> Self {
        let options = NodeOptions::new().args(["--pool-listen", LISTEN]);
        Self::with(host, name, model.into_iter().fold(options, |options, model| options.model(model)))
    }

    /// Keeps a router as long as this machine.
    #[must_use]
    pub fn behind(mut self, router: Nat) -> Self {
        self.router = Some(router);
        self
    }

    /// Has it offer one more model from its next start on.
    pub fn offer(&mut self, model: &str) {
        self.options = self.options.clone().model(model);
    }

    /// Its name in the pool.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that holds its node's home (`node`).
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its node; panics when that is dead.
    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Whether its node runs, as far as this side knows.
    pub fn runs(&self) -> bool {
        self.node.is_some()
    }

    /// Starts the node, with what it had.
    pub fn start(&mut self) {
        assert!(self.node.is_none(), "{} runs already", self.name);
        self.node = Some(Node::start(self.options.clone()));
    }

    /// Kills the node, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }

    /// Kills the node's process at once, without waiting for its end: [`kill`](Self::kill) must follow.
    pub fn strike(&self) {
        let pid = i32::try_from(self.node().pid()).ok().and_then(Pid::from_raw).expect("a process id");
        // It may have ended by itself, which `kill` finds out.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }

    /// Ends the node in peace; panics unless it ends by itself.
    pub fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown();
        }
    }

    /// Does this on the machine, with its node.
    pub fn enter<T: Send>(&self, work: impl FnOnce(&Node) -> T + Send) -> T {
        let node = self.node();
        self.host.enter(|| work(node))
    }

    /// GET of its node, which must answer 200.
    pub fn get(&self, path: &str) -> Value {
        self.enter(|node| node.client().get(path).expect(200))
    }

    /// POST to its node.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.enter(|node| node.client().post(path, body))
    }

    /// Its id.
    pub fn id(&self) -> String {
        self.get("/potluck/v1/status")["node"].as_str().expect("a node has an id").to_owned()
    }

    /// Founds a pool.
    pub fn found(&self) {
        self.enter(|node| succeeded(&node.run(["pool", "create", "nets"])));
    }

    /// A new invite with every right to the memory.
    pub fn invite(&self) -> String {
        let made = self.enter(|node| succeeded(&node.run(["pool", "invite", "--json", "--memory", "*"])));
        let made: Value = serde_json::from_str(&made).expect("JSON");
        made["invite"].as_str().expect("an invite").to_owned()
    }

    /// Joins the pool that `founder` may invite to.
    pub fn join(&self, founder: &Self) {
        self.take(&founder.invite());
    }

    /// Joins with an invite.
    pub fn take(&self, invite: &str) {
        self.enter(|node| succeeded(&node.run(["join", invite])));
    }

    /// The members as this one sees them.
    pub fn members(&self) -> Vec<Value> {
        self.get("/potluck/v1/pool/members")["members"].as_array().expect("a list").clone()
    }

    /// What this one knows about another that is connected.
    pub fn sees(&self, name: &str) -> Option<Value> {
        self.members().into_iter().find(|row| row["name"] == name && row["online"] == true)
    }

    /// How another member is connected, as this one sees it; empty when it is not.
    pub fn path(&self, name: &str) -> String {
        self.sees(name).and_then(|row| row["path"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until so many others are connected; panics when they are not in time.
    pub fn meets(&self, others: usize) {
        let online = || {
            let online = |row: &&Value| row["online"] == true && row["self"] == false;
            self.members().iter().filter(online).count()
        };
        let met = process::eventually(Duration::from_secs(30), || online() == others);
        assert!(met, "{} does not meet them: {:?}\n{}", self.name, self.members(), self.node().stderr());
    }

    /// Asks for tokens of a model in mode trusted.
    pub fn ask(&self, model: &str) -> Response {
        self.enter(|node| ask(&node.client(), model))
    }

    /// Asks until the answer is there: reports of what members have take a moment.
    pub fn answered(&self, model: &str, within: Duration) -> Response {
        let mut last = None;
        process::eventually(within, || {
            let answer = self.ask(model);
            let good = answer.status == 200;
            last = Some(answer);
            good
        });
        last.expect("it was asked at least once")
    }
}

/// Asks for three tokens of a model in mode trusted.
pub fn ask(client: &Client, model: &str) -> Response {
    let body = json!({"model": model, "prompt": "abc", "max_tokens": 3, "temperature": 0});
    let headers = [("content-type", "application/json"), ("x-potluck-mode", "trusted")];
    let answer = client.send("POST", "/v1/completions", &headers, body.to_string().as_bytes());
    answer.unwrap_or_else(|error| panic!("the node does not answer: {error}"))
}
