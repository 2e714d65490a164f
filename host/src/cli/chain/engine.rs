//! What runs a development chain: a real node where one is installed, chopsticks from npm otherwise.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::process::{Child, Command};

use super::super::CliError;

/// The production node.
const OMNI_NODE: &str = "polkadot-omni-node";
/// A fork of a chain in memory, executing the same runtime.
const CHOPSTICKS: &str = "@acala-network/chopsticks@1.5.1";
/// Brings Node.js with it: chopsticks needs one newer than many systems have.
const NODE: &str = "node@22";
/// How long each step of the installation may take.
const INSTALL: Duration = Duration::from_secs(1_200);

/// What runs the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// polkadot-omni-node: makes blocks by the clock.
    Omni(PathBuf),
    /// chopsticks: makes blocks when told to, and at once for every transaction.
    Chopsticks {
        /// Where npm installed it.
        folder: PathBuf,
        /// Whether somebody else did, and looks after it.
        given: bool,
    },
}

impl Engine {
    /// The one to use; `wanted` names one, `given` is a folder in which chopsticks is installed.
    pub(super) fn choose(
        wanted: Option<&str>,
        folder: &Path,
        given: Option<PathBuf>,
    ) -> Result<Self, CliError> {
        let omni = on_path(OMNI_NODE);
        if let Some(folder) = given.filter(|_| wanted != Some("omni-node")) {
            if !program(&folder).is_file() {
                return Err(CliError::Usage(format!(
                    "chopsticks is not installed in {}: run npm install {NODE} {CHOPSTICKS} there, or leave --chopsticks out",
                    folder.display()
                )));
            }
            return Ok(Self::Chopsticks { folder, given: true });
        }
        match (wanted, omni) {
            (Some("omni-node") | None, Some(path)) => Ok(Self::Omni(path)),
            (Some("omni-node"), None) => Err(CliError::Usage(format!(
                "{OMNI_NODE} is not on the PATH: install it (github.com/paritytech/polkadot-sdk, releases), or take --engine chopsticks"
            ))),
            _ => Ok(Self::Chopsticks { folder: folder.join("npm"), given: false }),
        }
    }

    /// A word for it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Omni(_) => "polkadot-omni-node",
            Self::Chopsticks { .. } => "chopsticks",
        }
    }

    /// Installs what is missing, telling what is going on.
    pub(super) async fn prepare(&self, quiet: bool, offline: bool) -> Result<(), CliError> {
        let Self::Chopsticks { folder, given } = self else { return Ok(()) };
        if *given || installed(folder) {
            return Ok(());
        }
        if offline {
            return Err(CliError::Usage(
                "chopsticks is not installed yet and this node is offline: run `potluck chain dev` once without --offline".into(),
            ));
        }
        let Some(npm) = on_path("npm") else {
            return Err(CliError::Usage(format!(
                "neither {OMNI_NODE} nor npm is on the PATH: install Node.js with npm (any version; a newer one is fetched beside it), or {OMNI_NODE}"
            )));
        };
        let failed = |source| CliError::Io { what: "the folder of chopsticks could not be made", source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::write(folder.join("package.json"), "{\"private\":true}").map_err(failed)?;
        let install = ["install", "--no-audit", "--no-fund", "--loglevel=error", NODE, CHOPSTICKS];
        step(
            &npm,
            &install,
            folder,
            "fetching chopsticks and Node.js from npm (once, about 2 minutes)",
            quiet,
        )
        .await?;
        let rebuild = ["rebuild", "sqlite3", "--loglevel=error"];
        step(
            &npm,
            &rebuild,
            folder,
            "building its database (once, about a minute; needs a C++ compiler)",
            quiet,
        )
        .await?;
        std::fs::write(folder.join("complete"), CHOPSTICKS).map_err(failed)
    }

    /// Starts the chain of a specification; its words go to a file, and it ends with this process.
    pub(super) fn start(&self, spec: &Path, port: u16, block_ms: u64, log: &Path) -> Result<Child, CliError> {
        let failed = |source| CliError::Io { what: "the development chain could not be started", source };
        let log = std::fs::File::create(log).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let port = port.to_string();
        let mut command = match self {
            Self::Omni(path) => {
                let mut command = Command::new(path);
                command.arg("--chain").arg(spec).args(["--tmp", "--no-telemetry", "--no-prometheus"]);
                command.args(["--dev-block-time", &block_ms.max(100).to_string(), "--rpc-port", &port]);
                command
            }
            Self::Chopsticks { folder, .. } => {
                let mut command = Command::new(program(folder));
                command.arg("--chain-spec").arg(spec).args(["--build-block-mode", "Instant"]);
                command.args(["--host", "127.0.0.1", "--port", &port]).env("PATH", path_with_node(folder));
                command
            }
        };
        command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true).spawn().map_err(failed)
    }
}

fn program(folder: &Path) -> PathBuf {
    folder.join("node_modules/.bin/chopsticks")
}

fn installed(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("complete")).is_ok_and(|version| version == CHOPSTICKS)
}

/// The PATH with the fetched Node.js before everything else.
fn path_with_node(folder: &Path) -> OsString {
    let mut path = folder.join("node_modules/node/bin").into_os_string();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

fn on_path(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(executable)
}

/// Runs one step of the installation.
async fn step(
    program: &Path,
    words: &[&str],
    folder: &Path,
    what: &str,
    quiet: bool,
) -> Result<(), CliError> {
    let spinner = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.set_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(200));
    if !quiet && spinner.is_hidden() {
        eprintln!("{what}");
    }
    let began = Instant::now();
    let running = Command::new(program)
        .args(words)
        .current_dir(folder)
        .env("PATH", path_with_node(folder))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(INSTALL, running).await;
    spinner.finish_and_clear();
    let output = ended
        .map_err(|_| {
            CliError::Usage(format!(
                "{what}: not done after {} s; see whether npm reaches its registry",
                began.elapsed().as_secs()
            ))
        })?
        .map_err(|source| CliError::Io { what: "npm could not be run", source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(CliError::Usage(format!("{what} failed ({}):\n{}", output.status, last.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-program-has-this-name").is_none());
    }

    #[test]
    fn a_named_engine_that_is_missing_is_an_error_that_helps() {
        let chosen = Engine::choose(Some("chopsticks"), Path::new("/x"), None).unwrap();
        assert_eq!(chosen, Engine::Chopsticks { folder: "/x/npm".into(), given: false });
        if on_path(OMNI_NODE).is_none() {
            let error = Engine::choose(Some("omni-node"), Path::new("/x"), None).unwrap_err().to_string();
            assert!(error.contains("--engine chopsticks"), "{error}");
        }
        let error = Engine::choose(None, Path::new("/x"), Some("/y".into())).unwrap_err().to_string();
        assert!(error.contains("not installed in /y"), "{error}");
    }
}
