//! Models that other programs have downloaded are found and used where they lie.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use potluck_tests::{
    gguf::Tiny,
    hub::sha256,
    node::{Node, NodeOptions, failed},
};
use serde_json::json;

use crate::common::names;

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn model(seed: u64, name: &str) -> Vec<u8> {
    Tiny { seed, name: name.into(), ..Tiny::default() }.bytes()
}

/// Fills a user's home with the caches of four programs: a word of each model's name, and its file.
fn caches(user: &Path) -> Vec<(&'static str, PathBuf)> {
    let ollama = user.join(".ollama/models");
    let bytes = model(21, "one");
    let blob = ollama.join("blobs").join(format!("sha256-{}", sha256(&bytes)));
    write(&blob, &bytes);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json",
                    "digest": format!("sha256:{}", sha256(b"{}")), "size": 2 },
        "layers": [{ "mediaType": "application/vnd.ollama.image.model",
                     "digest": format!("sha256:{}", sha256(&bytes)), "size": bytes.len() }],
    });
    let manifests = ollama.join("manifests/registry.ollama.ai/library");
    write(&manifests.join("fromollama/latest"), manifest.to_string().as_bytes());
    write(&manifests.join("broken/latest"), b"{ not json");
    write(
        &manifests.join("gone/latest"),
        manifest.to_string().replace(&sha256(&bytes), &sha256(b"gone")).as_bytes(),
    );

    let bytes = model(22, "two");
    let repo = user.join(".cache/huggingface/hub/models--someone--fromhub-GGUF");
    let hub = repo.join("blobs").join(sha256(&bytes));
    write(&hub, &bytes);
    let revision = "89abcdef0123456789abcdef0123456789abcdef";
    write(&repo.join("refs/main"), revision.as_bytes());
    fs::create_dir_all(repo.join("snapshots").join(revision)).unwrap();
    let link = repo.join("snapshots").join(revision).join("fromhub-Q8_0.gguf");
    symlink(Path::new("../../blobs").join(sha256(&bytes)), link).unwrap();

    let studio = user.join(".lmstudio/models/someone/fromstudio-GGUF/fromstudio-F32.gguf");
    write(&studio, &model(23, "three"));
    let llama = user.join(".cache/llama.cpp/someone_fromllama-F32.gguf");
    write(&llama, &model(24, "four"));
    write(&user.join(".cache/llama.cpp/half.gguf.downloadInProgress"), b"half");
    vec![("fromollama", blob), ("fromhub", hub), ("fromstudio", studio), ("fromllama", llama)]
}

#[test]
fn models_of_other_programs_are_used_where_they_lie() {
    let home = tempfile::tempdir().unwrap();
    let files = caches(&home.path().join("user"));
    let before: Vec<(u64, u64, SystemTime)> = files.iter().map(|(_, path)| mark(path)).collect();
    let node = Node::start(NodeOptions::new().home(home.path()));
    let client = node.client();
    let listed = names(&client);
    for (word, path) in &files {
        let name = listed.iter().find(|name| name.contains(word));
        let name = name.unwrap_or_else(|| panic!("{word} is not in {listed:?}"));
        let body = json!({ "model": name, "prompt": "abc", "max_tokens": 4, "temperature": 0 });
        let answer = client.post("/v1/completions", &body).expect(200);
        assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
        let said = failed(&node.run(["rm", name.as_str()]));
        assert!(path.exists(), "another program's file was deleted: {said}");
    }
    for word in ["broken", "gone", "half"] {
        assert!(!listed.iter().any(|name| name.contains(word)), "{word} is in {listed:?}");
    }
    let after: Vec<(u64, u64, SystemTime)> = files.iter().map(|(_, path)| mark(path)).collect();
    assert_eq!(before, after, "another program's file was changed or replaced");
    assert_eq!(size_of(&home.path().join("node")) >> 18, 0, "something was copied into the node's home");
    node.shutdown();

    let node = Node::start(NodeOptions::new().home(home.path()).args(["--caches=false"]));
    let listed = names(&node.client());
    assert!(!listed.iter().any(|name| name.contains("from")), "{listed:?}");
    node.shutdown();
}

#[test]
fn the_programs_own_variables_say_where_their_caches_are() {
    let home = tempfile::tempdir().unwrap();
    let user = home.path().join("elsewhere");
    let files = caches(&user);
    let options = NodeOptions::new()
        .home(home.path())
        .env("OLLAMA_MODELS", user.join(".ollama/models"))
        .env("HF_HUB_CACHE", user.join(".cache/huggingface/hub"))
        .env("LLAMA_CACHE", user.join(".cache/llama.cpp"));
    let node = Node::start(options);
    let listed = names(&node.client());
    for (word, _) in files.iter().filter(|(word, _)| *word != "fromstudio") {
        assert!(listed.iter().any(|name| name.contains(word)), "{word} is not in {listed:?}");
    }
    node.shutdown();
}

fn mark(path: &Path) -> (u64, u64, SystemTime) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.len(), meta.modified().unwrap())
}

fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}
