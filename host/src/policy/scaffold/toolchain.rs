//! Finds a compiler for WebAssembly.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What policies are compiled for: WebAssembly without any system around it.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Where Debian puts its compiler and the source of its standard library.
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";

/// Why there is no compiler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolchainError {
    /// None of the ways worked.
    #[error(
        "there is no compiler for {TARGET} here ({tried}); install one with `rustup target add {TARGET}`, or on Debian \
         with `apt-get install rustc-web cargo-web rust-web-src lld`"
    )]
    None {
        /// What was tried, and why it did not do.
        tried: String,
    },
}

/// A compiler for WebAssembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    version: String,
    /// The linker, where the standard library must be built too.
    linker: Option<PathBuf>,
}

impl Toolchain {
    /// The first that works, as seen from `dir`: the active one, if it has the target; the active one, after rustup
    /// has added the target; Debian's, which builds its own standard library.
    ///
    /// # Errors
    /// None of them is there.
    pub fn find(dir: &Path) -> Result<Self, ToolchainError> {
        let active =
            || Self { cargo: "cargo".into(), rustc: "rustc".into(), version: String::new(), linker: None };
        let mut tried = Vec::new();
        if has_target(dir) {
            return Ok(active().named(dir));
        }
        tried.push("the active Rust toolchain, if any, lacks the target".to_owned());
        match rustup_adds(dir) {
            Ok(()) if has_target(dir) => return Ok(active().named(dir)),
            Ok(()) => tried.push("rustup added it to another toolchain".to_owned()),
            Err(reason) => tried.push(reason),
        }
        match (Path::new(DEBIAN_CARGO).exists() && Path::new(DEBIAN_SOURCE).exists(), linker()) {
            (false, _) => tried.push("Debian's rustc-web and rust-web-src are not installed".to_owned()),
            (true, None) => tried.push("Debian's rustc-web is here and wasm-ld is not".to_owned()),
            (true, linker) => {
                let (cargo, rustc) = (DEBIAN_CARGO.into(), DEBIAN_RUSTC.into());
                return Ok(Self { cargo, rustc, version: String::new(), linker }.named(dir));
            }
        }
        Err(ToolchainError::None { tried: tried.join("; ") })
    }

    fn named(mut self, dir: &Path) -> Self {
        self.version = first_line(Command::new(&self.rustc).arg("--version").current_dir(dir))
            .unwrap_or_else(|| "rustc of an unknown version".into());
        self
    }

    /// `cargo build` for the target, in `dir`, with everything that makes its result depend on the source alone.
    pub(super) fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(dir).arg("build").args(["--lib", "--release", "--target", TARGET]);
        command.arg("--target-dir").arg(dir.join("target"));
        // Flags for this machine's own programs are not for policies.
        for name in ["RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(dir).join("\u{1f}"));
        if let Some(linker) = &self.linker {
            command.args(["-Z", "build-std=core,alloc,panic_abort"]);
            command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            // Set by rustup around the node's own build, and not for this compiler.
            command.env_remove("RUSTUP_TOOLCHAIN");
        }
        command
    }

    fn flags(&self, dir: &Path) -> Vec<String> {
        // No path of this machine in a component: messages of panics have them.
        let mut flags = vec![format!("--remap-path-prefix={}=/policy", dir.display())];
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        if let Some(home) = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
            flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
        }
        // A stack of 64 KiB lies below the data, so that an overflow ends the call; memory ends at 4 MiB.
        for argument in ["-zstack-size=65536", "--stack-first", "--max-memory=4194304"] {
            flags.push(format!("-Clink-arg={argument}"));
        }
        if self.linker.is_some() {
            flags.push("-Clinker-flavor=wasm-ld".into());
        }
        flags
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)?;
        if self.linker.is_some() { f.write_str(", its own core") } else { Ok(()) }
    }
}

/// Whether the active compiler has a standard library for the target.
fn has_target(dir: &Path) -> bool {
    let mut ask = Command::new("rustc");
    ask.args(["--print", "target-libdir", "--target", TARGET]).current_dir(dir);
    let Some(folder) = first_line(&mut ask) else { return false };
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn rustup_adds(dir: &Path) -> Result<(), String> {
    let mut add = Command::new("rustup");
    add.args(["target", "add", TARGET]).current_dir(dir).stdin(Stdio::null());
    match add.output() {
        Err(_) => Err("rustup is not installed".into()),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            Err(format!("rustup could not add it: {}", last.trim().chars().take(200).collect::<String>()))
        }
    }
}

/// LLVM's linker for WebAssembly: `wasm-ld`, or the newest `wasm-ld-N`.
fn linker() -> Option<PathBuf> {
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        if name == "wasm-ld" { Some(u32::MAX) } else { name.strip_prefix("wasm-ld-")?.parse().ok() }
    };
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files.filter_map(|file| Some((number(&file.path())?, file.path()))).max().map(|(_, path)| path)
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().map(str::to_owned)).flatten()
}
