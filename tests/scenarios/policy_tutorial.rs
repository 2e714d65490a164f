//! The tutorial "Your first policy in ten minutes", carried out as it is written; and a policy in another language.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use potluck_tests::{
    data::skipped,
    node::{Node, failed, program, succeeded},
};
use serde_json::Value;

use crate::pool::{meets, options, pool};

const TUTORIAL: &str = include_str!("../../docs/src/guide/policy-tutorial.md");

/// The blocks of a language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let rest = TUTORIAL.split(&fence).skip(1);
    rest.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Runs commands of the tutorial in a folder, with the program under test as `potluck` and this node as the node.
fn shell(node: &Node, folder: &Path, script: &str) -> String {
    let path = std::env::var("PATH").unwrap();
    let programs = program().parent().unwrap().display().to_string();
    // What is built is kept between runs: the tutorial's reader has nothing else to do either.
    let target = program().parent().unwrap().parent().unwrap().join("policy-tutorial");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("POTLUCK_HOME", node.home().join("node"))
        .env("CARGO_TARGET_DIR", target)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}\n{}", node.stderr());
    said
}

/// Puts the rule and the test of the tutorial in the places of the template's.
fn edit(folder: &Path) {
    let path = folder.join("src/lib.rs");
    let mut text = fs::read_to_string(&path).unwrap();
    let [rule, test] = blocks("rust").try_into().unwrap();
    replace(&mut text, "impl Routing for NearestFirst {", "\n}\n", &rule);
    let indented: String = test.lines().map(|line| format!("    {line}\n")).collect();
    replace(
        &mut text,
        "    #[test]\n    fn the_machine_with_the_fewest_jobs_is_first() {",
        "\n    }\n",
        &indented,
    );
    fs::write(path, text).unwrap();
}

fn replace(text: &mut String, from: &str, to: &str, with: &str) {
    let start = text.find(from).unwrap_or_else(|| panic!("`{from}` is not in the template:\n{text}"));
    let end = start + text[start..].find(to).unwrap() + to.len();
    text.replace_range(start..end, with);
}

/// Whether something here compiles for WebAssembly, or can be made to.
fn can_build() -> bool {
    let target = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"])
        .output();
    let has = target.is_ok_and(|out| {
        let folder = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
        fs::read_dir(folder).is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
    });
    has || Path::new("/usr/lib/rustlib/src/rust/library").is_dir()
}

#[test]
fn a_first_policy_is_made_as_it_is_written() {
    if !can_build() {
        return skipped("no Rust for wasm32-unknown-unknown; install it as the tutorial says");
    }
    let scratch = tempfile::tempdir().unwrap();
    let (anna, bert) = (Node::start(options("anna")), Node::start(options("bert")));
    pool(&[&anna, &bert], &[]);
    meets(&bert, 1);
    let steps = blocks("sh");
    let [new, test, build, attempt, using] = steps.as_slice() else { panic!("{} steps", steps.len()) };
    let shown = shell(&anna, scratch.path(), new);
    assert!(shown.contains("policy build"), "{shown}");
    let folder = scratch.path().join("nearest-first");
    edit(&folder);
    shell(&anna, &folder, test);
    shell(&anna, &folder, build);
    fs::write(folder.join("question.json"), &blocks("json")[0]).unwrap();
    let answer = shell(&anna, &folder, attempt);
    let answer: Value =
        serde_json::from_str(answer.trim()).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(answer["output"]["answer"]["Ok"]["order"][0]["candidate"], 1, "{answer}");
    let listed = shell(&anna, &folder, using);
    assert!(listed.contains("approved"), "{listed}");
    let decides = || succeeded(&bert.run(["policy", "list"])).contains("nearest-first");
    assert!(
        potluck_tests::process::eventually(std::time::Duration::from_secs(20), decides),
        "{}",
        bert.stderr()
    );
}

#[test]
fn a_policy_in_c_decides_like_any_other() {
    let anna = Node::start(options("anna"));
    let bert = Node::start(options("bert"));
    pool(&[&anna, &bert], &[]);
    meets(&bert, 1);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/two-choices.wasm");
    let checked = succeeded(&anna.run(["policy", "check", file.to_str().unwrap()]));
    assert!(checked.contains("two-choices") && checked.contains("routing"), "{checked}");
    succeeded(&anna.run(["policy", "propose", file.to_str().unwrap()]));
    let decides = || succeeded(&bert.run(["policy", "list"])).contains("two-choices");
    assert!(
        potluck_tests::process::eventually(std::time::Duration::from_secs(20), decides),
        "{}",
        bert.stderr()
    );
    let refused = failed(&anna.run(["policy", "check", env!("CARGO_MANIFEST_DIR")]));
    assert!(!refused.contains("panicked"), "{refused}");
}
