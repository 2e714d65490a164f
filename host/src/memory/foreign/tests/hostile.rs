//! The importer that misbehaves in every way that it is told.

use std::{process::Command, thread, time::Instant};

use super::*;

fn hostile() -> &'static Importer {
    static IMPORTER: OnceLock<Importer> = OnceLock::new();
    IMPORTER.get_or_init(|| Importer::from_bytes(&built("hostile.wasm"), short()).unwrap())
}

/// A folder `in` with a few files, and a secret beside it.
struct Stage {
    dir: TempDir,
    root: PathBuf,
}

impl Stage {
    fn new(way: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("in");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(dir.path().join("secret.txt"), "TOP SECRET").unwrap();
        for (name, text) in [("behave", way), ("other.txt", "other"), ("file.txt", "untouched")] {
            fs::write(root.join(name), text).unwrap();
        }
        Self { dir, root }
    }

    fn run(&self) -> Outcome {
        Outcome::of(hostile(), &self.root)
    }

    fn run_with(&self, limits: Limits) -> Outcome {
        Outcome::of(&hostile().with_limits(limits), &self.root)
    }
}

fn run(way: &str) -> Outcome {
    Stage::new(way).run()
}

#[test]
fn no_path_leads_out() {
    let outcome = run("climb");
    outcome.got_away_with_nothing();
    assert_eq!(outcome.contents(), ["folders 1"]);
    assert_eq!(outcome.problems.len(), 17, "{:?}", outcome.problems);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
}

#[cfg(unix)]
#[test]
fn no_link_leads_out() {
    use std::os::unix::fs::symlink;
    let stage = Stage::new("links");
    for (to, name) in [
        ("../secret.txt", "out.txt"),
        ("..", "out"),
        ("sub/../..", "up"),
        ("loop", "loop"),
        ("out.txt", "chain"),
        ("other.txt", "within.txt"),
    ] {
        symlink(to, stage.root.join(name)).unwrap();
    }
    symlink(stage.dir.path().join("secret.txt"), stage.root.join("absolute")).unwrap();
    // The links do lead out, for whoever may follow them.
    assert_eq!(fs::read_to_string(stage.root.join("chain")).unwrap(), "TOP SECRET");
    let outcome = stage.run();
    outcome.got_away_with_nothing();
    assert_eq!(outcome.contents(), ["within: other"]);
    assert_eq!(outcome.problems.len(), 12, "{:?}", outcome.problems);
}

/// Names and texts of all files of a folder.
fn picture(folder: &Path) -> Vec<(String, String)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read_to_string(&path).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn nothing_is_written() {
    let stage = Stage::new("write");
    let before =
        (picture(&stage.root), fs::metadata(stage.root.join("file.txt")).unwrap().modified().unwrap());
    let outcome = stage.run();
    outcome.got_away_with_nothing();
    assert_eq!(outcome.problems.len(), 16, "{:?}", outcome.problems);
    let after =
        (picture(&stage.root), fs::metadata(stage.root.join("file.txt")).unwrap().modified().unwrap());
    assert_eq!(before, after);
}

#[test]
fn of_one_file_nothing_else_is_seen() {
    let stage = Stage::new("");
    fs::write(stage.root.join("list"), "").unwrap();
    assert_eq!(Outcome::of(hostile(), &stage.root.join("list")).contents(), ["sees list"]);
    fs::write(stage.root.join("climb"), "").unwrap();
    let outcome = Outcome::of(hostile(), &stage.root.join("climb"));
    outcome.got_away_with_nothing();
    // The hard link leads to the file itself: it must not be a way to change it.
    fs::write(stage.root.join("write"), "as it was").unwrap();
    Outcome::of(hostile(), &stage.root.join("write")).got_away_with_nothing();
    assert_eq!(fs::read_to_string(stage.root.join("write")).unwrap(), "as it was");
}

#[test]
fn there_is_no_network() {
    for (way, name) in [("socket", "tcp-create-socket"), ("lookup", "instance-network")] {
        let outcome = run(way);
        assert!(outcome.entries.is_empty());
        assert!(
            matches!(outcome.stop(), Stop::Network { function } if function.contains(name)),
            "{:?}",
            outcome.error
        );
        let words = outcome.error.unwrap().to_string();
        assert!(words.starts_with("the importer hostile reached for the network (wasi:sockets/"), "{words}");
    }
}

#[test]
fn the_world_looks_the_same_everywhere() {
    let outcome = run("look-around");
    let contents = outcome.contents();
    assert_eq!(contents[..3], ["environment []", "arguments []", "folder None"]);
    assert!(
        contents[3].contains("seconds: 1577836800") && contents[3].contains("nanoseconds: 0"),
        "{contents:?}"
    );
    assert_eq!(contents[4], "clock 0 0");
    assert_eq!(contents[6], "input Err(\"closed\")");
    assert_eq!(run("look-around").contents(), contents);
}

#[test]
fn waiting_takes_no_time() {
    let begun = Instant::now();
    assert_eq!(run("sleep").contents(), ["woke up"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_loop_ends_by_fuel_and_by_time() {
    for way in ["loop", "loop-in-open"] {
        let outcome = run(way);
        assert_eq!(outcome.stop(), &Stop::Fuel { fuel: 1_000_000_000 });
        assert_eq!(outcome.entries.len(), usize::from(way == "loop"));
    }
    let call = Duration::from_millis(300);
    let begun = Instant::now();
    let outcome = Stage::new("loop").run_with(Limits { fuel: u64::MAX / 2, call, ..short() });
    assert_eq!(outcome.stop(), &Stop::Time { limit: call });
    let outcome = Stage::new("loop").run_with(Limits { fuel: u64::MAX / 2, total: call, ..short() });
    assert_eq!(outcome.stop(), &Stop::Time { limit: call });
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn memory_and_stack_end() {
    let outcome = run("bomb");
    assert_eq!(outcome.stop(), &Stop::Memory { most: 64 << 20 });
    assert!(outcome.used.memory <= 64 << 20, "{:?}", outcome.used);
    assert!(matches!(run("recursion").stop(), Stop::Crash(_) | Stop::Fuel { .. }));
}

#[test]
fn too_much_at_once_ends_the_import() {
    assert_eq!(run("many").stop(), &Stop::Batch { what: "records", count: 10_000, most: 256 });
    let outcome = Stage::new("huge").run_with(Limits { memory: 512 << 20, ..short() });
    assert_eq!(outcome.stop(), &Stop::Bytes { most: 32 << 20 });
    let outcome = Stage::new("endless").run_with(Limits { items: 1000, ..short() });
    assert_eq!(outcome.stop(), &Stop::Flood { what: "records and problems", most: 1000 });
    assert_eq!(outcome.entries.len(), 768);
    let outcome = Stage::new("endless").run_with(Limits { texts: 3 << 20, ..short() });
    assert_eq!(outcome.stop(), &Stop::Flood { what: "bytes", most: 3 << 20 });
}

#[test]
fn single_records_that_are_too_large_are_told() {
    let outcome = run("bounds");
    assert_eq!(outcome.contents(), ["good", "good too"]);
    let reasons: Vec<_> = outcome.problems.iter().map(|problem| problem.reason.as_str()).collect();
    for (reason, words) in reasons.iter().zip(["1048577 bytes", "65 tags", "source has 300", "pppp"]) {
        assert!(reason.contains(words), "{reasons:?}");
    }
    assert!(outcome.error.is_none());
}

#[test]
fn what_came_before_a_crash_stays() {
    let outcome = run("crash");
    assert_eq!(outcome.contents(), ["nothing for crash", "still here", "still here"]);
    assert!(matches!(outcome.stop(), Stop::Crash(_)), "{:?}", outcome.error);
    let outcome = run("give-up");
    assert_eq!(outcome.entries.len(), 2);
    assert_eq!(outcome.stop(), &Stop::Failed("the file ends early".into()));
    let outcome = run("refuse");
    assert_eq!(outcome.stop(), &Stop::Refused("this is not for me".into()));
    let words = outcome.error.unwrap().to_string();
    assert_eq!(words, "the importer hostile does not take this: this is not for me");
}

#[test]
fn handles_and_words_are_bounded() {
    assert_eq!(run("handles").stop(), &Stop::Handles { most: 256 });
    assert_eq!(run("exit").stop(), &Stop::Exit { status: 1 });
    let Some(ForeignError::Stopped { said, stop: Stop::Crash(_), .. }) = run("talk").error else {
        panic!("it did not crash");
    };
    assert!(said.len() <= 4 << 10, "{}", said.len());
    assert!(said.ends_with(" [31mthe last words\n"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_folder_does_not_hold_the_import() {
    let stage = Stage::new("pipe");
    assert!(Command::new("mkfifo").arg(stage.root.join("pipe")).status().unwrap().success());
    let begun = Instant::now();
    let outcome = stage.run_with(Limits { call: Duration::from_secs(1), ..short() });
    assert!(begun.elapsed() < Duration::from_secs(15));
    outcome.got_away_with_nothing();
    // The thread that reads is let go: a writer comes and goes.
    drop(fs::OpenOptions::new().write(true).open(stage.root.join("pipe")));
}

#[test]
fn an_import_that_nobody_wants_is_let_go() {
    let stage = Stage::new("loop");
    let scratch = tempfile::tempdir().unwrap();
    let grant = Grant::of(&stage.root, scratch.path()).unwrap();
    let limits = Limits { fuel: u64::MAX / 2, ..short() };
    let mut import = hostile().with_limits(limits).import(grant).unwrap();
    let patience = Duration::from_millis(200);
    assert!(matches!(import.step(Duration::from_secs(20)).unwrap(), Step::Item(Item::Entry(_))));
    assert_eq!(import.step(patience).unwrap(), Step::Waiting);
    let said = import.said.clone();
    drop(import);
    // The guest's thread ends, and with it the last that holds what the guest says.
    let begun = Instant::now();
    while said.holders() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the guest still runs");
        thread::sleep(Duration::from_millis(20));
    }
}
