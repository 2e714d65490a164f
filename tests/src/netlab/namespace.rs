//! One network namespace.

use std::{
    fs::File,
    io::Write as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::names;

/// A network namespace with a name. Dropping it kills the processes in it and frees it.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes one, with loopback up.
    pub(super) fn create(name: String) -> Self {
        Self::try_create(name).unwrap_or_else(|error| panic!("cannot make a network namespace: {error}"))
    }

    pub(super) fn try_create(name: String) -> Result<Self, String> {
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let space = Self { path: names::path(&name), name };
        space.enter(|| {
            // An address is usable at once, and a packet may come from where none would be sent to.
            for device in ["all", "default"] {
                super::set(&format!("net/ipv6/conf/{device}/accept_dad"), "0");
                super::set(&format!("net/ipv6/conf/{device}/accept_ra"), "0");
                super::set(&format!("net/ipv4/conf/{device}/rp_filter"), "0");
                super::set(&format!("net/ipv4/conf/{device}/send_redirects"), "0");
            }
        });
        space.try_ip("link set lo up\n")?;
        Ok(space)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Does these lines of `ip`; panics with its words when one fails.
    pub(super) fn ip(&self, lines: &str) {
        self.try_ip(lines).unwrap_or_else(|error| panic!("ip failed in {}: {error}\n{lines}", self.name));
    }

    pub(super) fn try_ip(&self, lines: &str) -> Result<(), String> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// Does these lines of `nft`; panics with its words when one fails.
    pub(super) fn nft(&self, rules: &str) {
        self.try_nft(rules).unwrap_or_else(|error| panic!("nft failed in {}: {error}\n{rules}", self.name));
    }

    pub(super) fn try_nft(&self, rules: &str) -> Result<(), String> {
        run(self.command("nft").args(["-f", "-"]), rules)
    }

    /// The words that, put before a command, run it here. The process id stays.
    pub(super) fn before(&self) -> [String; 3] {
        ["nsenter".to_owned(), names::entering(&self.path), "--".to_owned()]
    }

    /// A command that runs here.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let [nsenter, net, end] = self.before();
        let mut command = Command::new(nsenter);
        command.args([net, end]).arg(program);
        command
    }

    /// Does this on a thread that lives here. Sockets made in it stay here, wherever they go.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                go_into(&self.path);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        names::end(|name| name == self.name);
    }
}

/// Moves the calling thread, and no other, into a namespace.
pub(super) fn go_into(path: &Path) {
    let moved = File::open(path)
        .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
    moved.unwrap_or_else(|error| panic!("cannot enter the network namespace {}: {error}", path.display()));
}

/// Runs a command with this input; its words when it fails.
fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("cannot run {command:?}: {error}");
    let child = Command::new(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(told)?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // A command that fails early may not read all of it; its status says so.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(told)?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
