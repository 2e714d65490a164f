//! The official SDKs, run by the virtual environment that `tests/run` makes.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{data, node::script};

/// The environment's Python; panics with what to do when there is none.
pub fn interpreter() -> PathBuf {
    let folder = match env::var_os("POTLUCK_TEST_VENV") {
        Some(folder) => PathBuf::from(folder),
        None => match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => PathBuf::from(target).join("test-venv"),
            None => data::workspace().join("target/test-venv"),
        },
    };
    let python = folder.join("bin/python");
    assert!(
        python.is_file(),
        "no Python environment at {}: run tests/run once, which makes it, or make one with \
         `python3 -m venv` and `pip install -r tests/python/requirements.txt` and set POTLUCK_TEST_VENV to it",
        folder.display()
    );
    python
}

/// Runs `tests/python/NAME` with these arguments; panics with all it printed when it fails.
pub fn run(name: &str, args: &[&str]) {
    let mut command = Command::new(interpreter());
    command.arg("-X").arg("utf8").arg(script(name)).args(args).stdin(Stdio::null());
    for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "OLLAMA_API_KEY", "PYTHONPATH"] {
        command.env_remove(name);
    }
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = command.output().expect("Python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    println!("{said}{complained}");
    assert!(output.status.success(), "{name} failed ({})\n{said}\n{complained}", output.status);
}
