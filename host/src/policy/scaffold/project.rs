//! The folder of a policy, and its way to a core module.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{ScaffoldError, Toolchain, check_name, failed, toolchain::TARGET};

/// Lines of what the compiler said that an error shows.
const SHOWN: usize = 60;
/// Largest `golden.json` that is read, in bytes: without spaces it must fit into 256 KiB.
const MAX_GOLDEN: u64 = 4 << 20;

/// The folder of a policy.
#[derive(Debug)]
pub(super) struct Project {
    /// The folder, absolute.
    pub(super) dir: PathBuf,
    /// The package's name.
    pub(super) name: String,
}

impl Project {
    pub(super) fn read(dir: &Path) -> Result<Self, ScaffoldError> {
        let none = |reason: &str| ScaffoldError::NoProject { dir: dir.to_owned(), reason: reason.to_owned() };
        let dir = dir.canonicalize().map_err(|error| none(&error.to_string()))?;
        let path = dir.join("Cargo.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(none("it has no Cargo.toml")),
            Err(error) => return Err(failed("reading", &path)(error)),
        };
        let manifest: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| none(&format!("its Cargo.toml: {}", error.message())))?;
        let name =
            manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
        let name = name.ok_or_else(|| none("its Cargo.toml names no package"))?.to_owned();
        check_name(&name)?;
        Ok(Self { dir, name })
    }

    /// The core module.
    pub(super) fn compile(
        &self,
        toolchain: &Toolchain,
        said: &mut dyn FnMut(&str),
    ) -> Result<Vec<u8>, ScaffoldError> {
        let mut command = toolchain.command(&self.dir);
        command.args(["-p", &self.name]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed("running cargo in", &self.dir))?;
        let mut last = VecDeque::with_capacity(SHOWN);
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                said(&line);
                if last.len() == SHOWN {
                    last.pop_front();
                }
                last.push_back(line);
            }
        }
        let status = child.wait().map_err(failed("running cargo in", &self.dir))?;
        if !status.success() {
            return Err(ScaffoldError::Compile { said: Vec::from(last).join("\n") });
        }
        let file = format!("{}.wasm", self.name.replace('-', "_"));
        let path = self.dir.join("target").join(TARGET).join("release").join(file);
        fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                ScaffoldError::NoProject { dir: self.dir.clone(), reason: "it builds no `cdylib`".into() }
            }
            _ => failed("reading", &path)(error),
        })
    }

    /// `golden.json`, if there is one.
    pub(super) fn golden(&self) -> Result<Option<Vec<u8>>, ScaffoldError> {
        let path = self.dir.join("golden.json");
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &path)(error)),
            Ok(about) if about.len() > MAX_GOLDEN => {
                let error = std::io::Error::other(format!("it has more than {MAX_GOLDEN} bytes"));
                Err(failed("reading", &path)(error))
            }
            Ok(_) => fs::read(&path).map(Some).map_err(failed("reading", &path)),
        }
    }
}
