//! A node: the `potluck` program, started as its owner starts it, in a home of its own.

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::{data, http::Client, process};

/// Longest time to the line `ready …`.
const READY: Duration = Duration::from_secs(60);
/// Longest time from a signal to the end of the process.
const GOODBYE: Duration = Duration::from_secs(20);

/// The program under test: `POTLUCK_BIN`, else the one built beside this test.
pub fn program() -> PathBuf {
    let path = match env::var_os("POTLUCK_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = env::current_exe().expect("a test knows its own path");
            let folder =
                test.ancestors().nth(if test.parent().is_some_and(|p| p.ends_with("deps")) { 2 } else { 1 });
            folder.expect("a target folder").join("potluck")
        }
    };
    assert!(
        path.is_file(),
        "no program at {}: build it first (cargo build --release) or set POTLUCK_BIN",
        path.display()
    );
    path
}

/// Takes away what would make a node behave as on the machine's owner's account.
fn isolate(command: &mut Command, home: &Path) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let telling =
            ["POTLUCK_", "HF_", "HUGGING_FACE", "HUGGINGFACE", "OLLAMA_", "LLAMA_", "LMSTUDIO", "XDG_"];
        let kept = ["POTLUCK_TEST_DATA", "POTLUCK_BIN"];
        let proxy = text.to_ascii_lowercase().ends_with("_proxy");
        if proxy || telling.iter().any(|t| text.starts_with(t)) && !kept.contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command.env("HOME", home.join("user")).env("POTLUCK_HOME", home.join("node")).env("NO_COLOR", "1");
}

/// How to start a node.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    models: Vec<String>,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    home: Option<PathBuf>,
    listen: Option<String>,
    before: Vec<OsString>,
}

impl NodeOptions {
    /// The defaults: the built-in model, a free port on loopback, a fresh home, the CPU.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `--model`.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.models.push(model.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Uses this folder, which outlives the node: the node's home is `node` in it, the user's is `user`.
    #[must_use]
    pub fn home(mut self, home: &Path) -> Self {
        self.home = Some(home.to_path_buf());
        self
    }

    /// Listens there instead of on a free port of loopback.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Starts through another program that keeps the process id (`strace -D …`).
    #[must_use]
    pub fn before<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.before.extend(words.into_iter().map(Into::into));
        self
    }

    fn start(self) -> Result<Node, Failure> {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let home = self.home.clone().unwrap_or_else(|| scratch.path().to_path_buf());
        std::fs::create_dir_all(home.join("user")).expect("the user's home can be made");
        let mut words = self.before.clone();
        words.push(program().into());
        let mut command = Command::new(&words[0]);
        isolate(&mut command, &home);
        command.args(&words[1..]).arg("up").arg("--listen");
        command.arg(self.listen.as_deref().unwrap_or("127.0.0.1:0"));
        for model in &self.models {
            command.arg("--model").arg(model);
        }
        command.args(&self.args).envs(self.env.iter().map(|(n, v)| (n, v)));
        if !self.args.iter().any(|arg| arg == "--device") {
            command.arg("--device").arg("cpu");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words[0].display()));
        let out = Lines::follow(child.stdout.take().expect("piped"));
        let err = Lines::follow(child.stderr.take().expect("piped"));

        let until = Instant::now() + READY;
        loop {
            let ready =
                out.all().iter().find_map(|line| line.strip_prefix("ready http://").map(str::to_owned));
            if let Some(address) = ready {
                let address = address.trim_end_matches('/').replace("0.0.0.0", "127.0.0.1");
                let address: SocketAddr =
                    address.parse().unwrap_or_else(|_| panic!("not an address: {address}"));
                return Ok(Node { child, address, home, scratch, out, err });
            }
            let status = child.try_wait().expect("the process can be asked");
            if status.is_some() || Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                thread::sleep(Duration::from_millis(50));
                return Err(Failure { status, stdout: out.text(), stderr: err.text() });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How a node failed to start.
#[derive(Debug)]
pub struct Failure {
    /// `None`: it neither served nor ended in time.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub stdout: String,
    /// What it said about it.
    pub stderr: String,
}

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    child: Child,
    address: SocketAddr,
    home: PathBuf,
    scratch: TempDir,
    out: Lines,
    err: Lines,
}

impl Node {
    /// Starts a node and waits until it serves; panics with its own words when it does not.
    pub fn start(options: NodeOptions) -> Self {
        options.start().unwrap_or_else(|failure| {
            panic!(
                "the node did not start ({:?})\nstdout:\n{}\nstderr:\n{}",
                failure.status, failure.stdout, failure.stderr
            )
        })
    }

    /// Starts a node that must refuse to.
    pub fn refuse(options: NodeOptions) -> Failure {
        match options.start() {
            Err(failure) => failure,
            Ok(node) => panic!("the node started on {} although it must not", node.address),
        }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder that holds its home (`node`) and its user's (`user`).
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A folder that lives as long as the node.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// All it printed on stdout so far.
    pub fn stdout(&self) -> String {
        self.out.text()
    }

    /// All it printed on stderr so far.
    pub fn stderr(&self) -> String {
        self.err.text()
    }

    /// Whether the process is still there.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        let _ = self.child.wait();
    }

    /// Resident memory in bytes, settled; panics where there is no `/proc`.
    pub fn rss(&self) -> u64 {
        process::settled_rss(self.pid()).expect("resident memory can be read")
    }

    /// Runs a command of the same program against this node and waits for it.
    pub fn run<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// The same, not yet started.
    pub fn command<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        command(&self.home, args)
    }

    /// Sends SIGTERM and waits; panics unless the node ends by itself with code 0.
    pub fn shutdown(self) {
        self.end_with(Signal::TERM);
    }

    /// Sends SIGINT and waits; panics unless the node ends by itself with code 0.
    pub fn interrupt(self) {
        self.end_with(Signal::INT);
    }

    fn end_with(mut self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the node can be signalled");
        let mut status = None;
        process::eventually(GOODBYE, || {
            status = self.child.try_wait().expect("the process can be asked");
            status.is_some()
        });
        let status = status.unwrap_or_else(|| {
            panic!("the node ignored {signal:?} for {GOODBYE:?}\nstderr:\n{}", self.err.text())
        });
        assert_eq!(status.code(), Some(0), "{status} after {signal:?}\nstderr:\n{}", self.err.text());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the node's stderr:\n{}", self.err.text());
        }
    }
}

/// A command of the program with a home of its own, not yet started.
pub fn command<A: Into<OsString>>(home: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program());
    isolate(&mut command, home);
    command.args(args.into_iter().map(Into::into)).stdin(Stdio::null());
    command
}

/// What a process prints, read as it comes.
#[derive(Clone, Debug)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn follow(from: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let kept = lines.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let mut kept = kept.0.lock().expect("no reader panics");
                // A node that floods its log must not fill the test's memory.
                if kept.len() < 100_000 {
                    kept.push(text);
                }
                line.clear();
            }
        });
        lines
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no reader panics").clone()
    }

    fn text(&self) -> String {
        self.all().join("\n")
    }
}

/// The text of a process's output; panics with its stderr when it failed.
pub fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\nstderr:\n{stderr}", output.status);
    String::from_utf8(output.stdout.clone()).expect("the program prints UTF-8")
}

/// The stderr of a process that must fail with words and without a panic.
pub fn failed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "it succeeded although it must not; stdout: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(output.status.code().is_some(), "it was killed: {}", output.status);
    assert!(!stderr.trim().is_empty(), "it failed without a word");
    assert!(!stderr.contains("panicked at"), "it panicked: {stderr}");
    stderr
}

/// The path of `tests/python/NAME`.
pub fn script(name: &str) -> PathBuf {
    data::workspace().join("tests/python").join(name)
}
