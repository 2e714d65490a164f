//! A workshop for policies: makes the folder of a new one, and builds what its author wrote.
//!
//! A folder that [`new`] made has all that its policy needs: a working rule to change, vectors and tests, the WIT and
//! the source of the SDK. A compiler and the crates registry are the only other things that [`build`] asks for.
//!
//! Both work with files and programs and take their time: from asynchronous code, call them on a blocking thread.

mod files;
mod project;
#[cfg(test)]
mod tests;
mod toolchain;
mod wrap;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Kind;
use project::Project;

pub use toolchain::{Toolchain, ToolchainError};
pub use wrap::{GOLDEN_SECTION, PACKAGE, WrapError, Wrapped, wrap};

/// Longest name of a policy, in bytes.
pub const MAX_NAME: usize = 64;

/// Why a policy could not be made or built.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name cannot be used.
    #[error(
        "`{name}` cannot be the name of a policy: {reason}; use lower case letters, digits and single dashes, such as \
         `nearest-first`"
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is something already.
    #[error("{} exists and is not empty; choose another folder, so that nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// The folder is no policy's.
    #[error("{} is not the folder of a policy: {reason}; make one with `potluck policy new`", dir.display())]
    NoProject {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{doing} {} failed: {error}; check the folder's rights and the space on its disk", path.display())]
    File {
        /// `reading` or `writing`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No compiler for WebAssembly.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// The compiler refused the source.
    #[error("the policy does not compile; correct what the compiler says:\n{said}")]
    Compile {
        /// The end of what it said.
        said: String,
    },
    /// The module is no policy.
    #[error("what was compiled is no policy: {0}")]
    Wrap(#[from] WrapError),
}

/// A folder that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The folder.
    pub dir: PathBuf,
    /// The files in it that its author will want to look at, relative to it.
    pub yours: Vec<PathBuf>,
}

/// A component that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its name, from `Cargo.toml`.
    pub name: String,
    /// What it decides.
    pub kind: Kind,
    /// The component.
    pub bytes: Vec<u8>,
    /// Where it was written: `NAME.wasm` in the policy's folder.
    pub path: PathBuf,
    /// The compiler. Another one gives other bytes of the same source, and so another hash.
    pub toolchain: String,
    /// Whether `golden.json` was there and is in the component.
    pub golden: bool,
}

/// Makes the folder of a new policy, which builds and answers as it is.
///
/// # Errors
/// [`ScaffoldError`]: the name cannot be used, the folder exists and is not empty, or a file cannot be written.
pub fn new(dir: &Path, name: &str, kind: Kind) -> Result<Made, ScaffoldError> {
    check_name(name)?;
    if dir.exists() {
        let mut entries = fs::read_dir(dir).map_err(failed("reading", dir))?;
        if entries.next().is_some() {
            return Err(ScaffoldError::Exists(dir.to_owned()));
        }
    }
    for (path, text) in files::of(name, kind) {
        let path = dir.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("writing", folder))?;
        }
        fs::write(&path, text).map_err(failed("writing", &path))?;
    }
    Ok(Made { dir: dir.to_owned(), yours: files::YOURS.iter().map(PathBuf::from).collect() })
}

/// Builds the policy in a folder, and writes its component there.
///
/// # Errors
/// [`ScaffoldError`]: it is no policy's folder, there is no compiler, or the source is not in order.
pub fn build(dir: &Path) -> Result<Built, ScaffoldError> {
    build_with(dir, &mut |_| {})
}

/// As [`build`], and hands on each line that the compiler says while it works.
///
/// # Errors
/// As [`build`].
pub fn build_with(dir: &Path, said: &mut dyn FnMut(&str)) -> Result<Built, ScaffoldError> {
    let project = Project::read(dir)?;
    let toolchain = Toolchain::find(&project.dir)?;
    let module = project.compile(&toolchain, said)?;
    let golden = project.golden()?;
    let wrapped = wrap(&module, &files::WIT, golden.as_deref())?;
    let path = project.dir.join(format!("{}.wasm", project.name));
    fs::write(&path, &wrapped.bytes).map_err(failed("writing", &path))?;
    let Wrapped { kind, bytes } = wrapped;
    let kind = kind.parse().map_err(|_| WrapError::NoKind)?;
    let golden = golden.is_some();
    Ok(Built { name: project.name, kind, bytes, path, toolchain: toolchain.to_string(), golden })
}

/// A name that is one for a crate, for a file and for a policy.
fn check_name(name: &str) -> Result<(), ScaffoldError> {
    // Names of crates that others need, and words that cannot name a Rust library.
    const TAKEN: [&str; 8] =
        ["alloc", "core", "potluck-policy", "proc-macro", "self", "std", "super", "test"];
    const KEYWORDS: [&str; 50] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do",
        "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let",
        "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "static",
        "struct", "trait", "true", "try", "type", "typeof", "union", "unsafe", "unsized", "use", "virtual",
        "where", "while", "yield",
    ];
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 64 characters"
    } else if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        "it has other characters"
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        "it does not begin with a letter"
    } else if name.ends_with('-') || name.contains("--") {
        "a dash stands between words"
    } else if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        "the word has a meaning of its own in Rust"
    } else {
        return Ok(());
    };
    Err(ScaffoldError::Name { name: name.chars().take(MAX_NAME).collect(), reason })
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ScaffoldError {
    let path = path.to_owned();
    move |error| ScaffoldError::File { doing, path, error }
}
