//! Where test data lies, and how a test that lacks its data says so.

use std::{env, fs, io::Write as _, path::PathBuf, thread};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    // Asked of the environment first: a build that several clones share keeps the path of the one that built it.
    let tests = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).filter(|path| path.ends_with("tests"));
    let tests = tests.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    tests.parent().expect("tests/ has a parent").to_path_buf()
}

/// A file of the test data: below `POTLUCK_TEST_DATA`, else below `../shared/data` beside the workspace.
pub fn file(relative: &str) -> Option<PathBuf> {
    let root = match env::var_os("POTLUCK_TEST_DATA") {
        Some(root) => PathBuf::from(root),
        None => workspace().parent()?.join("shared/data"),
    };
    Some(root.join(relative)).filter(|path| path.is_file())
}

/// A file of the test data; says clearly that the running test is skipped when it is not there.
pub fn file_or_skip(relative: &str) -> Option<PathBuf> {
    let found = file(relative);
    if found.is_none() {
        skipped(&format!("no {relative}; set POTLUCK_TEST_DATA to the folder that holds the test data"));
    }
    found
}

/// Says that the running test is skipped. `tests/run` counts these.
pub fn skipped(why: &str) {
    note("skipped", why);
}

/// Says that a part of the running test is skipped.
pub fn partly_skipped(why: &str) {
    note("partly skipped", why);
}

fn note(what: &str, why: &str) {
    let thread = thread::current();
    let line = format!("{what}: {}: {why}\n", thread.name().unwrap_or("a test"));
    print!("{line}");
    if let Some(log) = env::var_os("POTLUCK_SKIP_LOG") {
        let opened = fs::OpenOptions::new().create(true).append(true).open(log);
        opened.and_then(|mut file| file.write_all(line.as_bytes())).expect("the skip log can be written");
    }
}

/// Seconds from an environment variable, or this default.
pub fn seconds(variable: &str, default: u64) -> std::time::Duration {
    let seconds = match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number of seconds")),
        Err(_) => default,
    };
    std::time::Duration::from_secs(seconds)
}
