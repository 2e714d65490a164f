//! Pulling from a hub that drops connections, lies about lengths, serves wrong bytes and worse.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use potluck_tests::{
    gguf::Tiny,
    http::Client,
    hub::{Act, Hub, sha256},
    node::{Node, NodeOptions, failed, succeeded},
    process,
};
use serde_json::{Value, json};

use crate::common::{names, text};

const NAME: &str = "someone/wanted-GGUF/wanted-F32.gguf";
const REFERENCE: &str = "hf.co/someone/wanted-GGUF:F32";
/// What may be sent twice around a broken connection: buffers on both sides.
const SLACK: u64 = 256 << 10;

fn file() -> Vec<u8> {
    Tiny { seed: 11, name: "wanted".into(), ..Tiny::default() }.bytes()
}

fn start(hub: &Hub, home: &Path) -> Node {
    Node::start(NodeOptions::new().home(home).env("HF_ENDPOINT", hub.url()))
}

/// Pulls to the end: the status and the whole of what was said.
fn pull(client: &Client, reference: &str) -> (u16, Value) {
    let answer = client.post("/api/pull", &json!({ "model": reference, "stream": false }));
    (answer.status, answer.json())
}

/// The name under which the pulled model is listed.
fn pulled(client: &Client) -> Option<String> {
    names(client).into_iter().find(|name| name.contains("wanted"))
}

/// The pulled model must be listed, have the right bytes and answer.
fn runs(node: &Node, wanted: &[u8]) {
    let name = pulled(&node.client()).unwrap_or_else(|| panic!("not listed: {:?}", names(&node.client())));
    let body = json!({ "model": name, "prompt": "abc", "max_tokens": 4, "temperature": 0 });
    let answer = node.client().post("/v1/completions", &body).expect(200);
    assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
    assert!(!text(&answer).is_empty());
    let blobs = blobs(node.home());
    assert_eq!(
        blobs,
        [(sha256(wanted), wanted.len() as u64)],
        "the store does not hold the file and only it"
    );
}

/// Digest and size of every complete file of the node's store, the digest from its bytes.
fn blobs(home: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![home.join("node/models")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().is_some_and(|p| p.ends_with("blobs")) {
                let bytes = fs::read(&path).unwrap();
                found.push((sha256(&bytes), bytes.len() as u64));
            }
        }
    }
    found
}

/// A failed pull must say so with a status, words, and no half model in the listing.
fn refused(client: &Client, (status, body): &(u16, Value)) -> String {
    assert!((400..=599).contains(status), "status {status}: {body}");
    let said = body["error"].as_str().unwrap_or_else(|| panic!("no words in {body}"));
    assert!(said.len() > 10, "`{said}` says nothing");
    assert_eq!(pulled(client), None, "a failed pull is listed");
    said.to_owned()
}

#[test]
fn a_pull_resumes_where_the_connection_broke() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let node = start(&hub, home.path());
    hub.then(&[Act::DropAfter(100_000), Act::DropAfter(150_000), Act::ClaimMore(5_000)]);
    let (status, body) = pull(&node.client(), REFERENCE);
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["status"], "success", "{body}");
    runs(&node, &file);
    let downloads = hub.downloads();
    assert!(downloads.len() >= 3, "{downloads:?}");
    let sent: u64 = downloads.iter().map(|seen| seen.sent).sum();
    let size = file.len() as u64;
    assert!(
        (size..size + 2 * SLACK).contains(&sent),
        "{sent} bytes were sent for a file of {size}: {downloads:?}"
    );
    let resumed = downloads.iter().skip(1).filter(|seen| seen.range.is_some()).count();
    assert!(resumed >= 2, "no ranges were asked for: {downloads:?}");

    // What is here already is not fetched again.
    hub.forget();
    assert_eq!(pull(&node.client(), REFERENCE).0, 200);
    assert_eq!(hub.downloads().iter().map(|seen| seen.sent).sum::<u64>(), 0, "{:?}", hub.downloads());
    node.shutdown();
}

#[test]
fn a_pull_resumes_after_the_node_was_away() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let node = start(&hub, home.path());
    hub.then(&[Act::DropAfter(300_000)]);
    hub.always(Some(Act::Status(503, Some(1))));
    let said = refused(&node.client(), &pull(&node.client(), REFERENCE));
    assert!(said.contains("again"), "it does not say that a second pull goes on: {said}");
    node.shutdown();

    let node = start(&hub, home.path());
    hub.always(None);
    hub.forget();
    // By the command this time, as a person would.
    let output = node.run(["pull", REFERENCE]);
    succeeded(&output);
    runs(&node, &file);
    let downloads = hub.downloads();
    let range = downloads[0].range.clone().unwrap_or_default();
    let start: u64 = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
    assert!(
        (1..=300_000).contains(&start) && start + SLACK >= 300_000,
        "it went on at {range:?}: {downloads:?}"
    );
    let json = succeeded(&node.run(["pull", REFERENCE, "--json"]));
    for line in json.lines().filter(|line| !line.is_empty()) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    node.shutdown();
}

#[test]
fn wrong_bytes_are_thrown_away() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let node = start(&hub, home.path());
    hub.always(Some(Act::Corrupt));
    let said = refused(&node.client(), &pull(&node.client(), REFERENCE));
    assert!(said.contains("SHA-256") || said.to_lowercase().contains("sha256"), "{said}");
    assert_eq!(blobs(home.path()), []);
    // Nothing of them is left to resume from.
    hub.always(None);
    hub.forget();
    assert_eq!(pull(&node.client(), REFERENCE).0, 200);
    let sent: u64 = hub.downloads().iter().map(|seen| seen.sent).sum();
    assert_eq!(sent, file.len() as u64, "{:?}", hub.downloads());
    runs(&node, &file);
    node.shutdown();
}

#[test]
fn a_hub_that_ignores_or_confuses_ranges_is_survived() {
    for confusion in [Act::IgnoreRange, Act::WrongRange] {
        let (file, home) = (file(), tempfile::tempdir().unwrap());
        let hub = Hub::start(&[(NAME, &file)]);
        let node = start(&hub, home.path());
        hub.then(&[Act::DropAfter(200_000), confusion.clone()]);
        let mut outcome = pull(&node.client(), REFERENCE);
        if outcome.0 != 200 {
            // Refusing such a hub is right as well, as long as the next pull from a sane one works.
            refused(&node.client(), &outcome);
            outcome = pull(&node.client(), REFERENCE);
        }
        assert_eq!(outcome.0, 200, "{confusion:?}: {}", outcome.1);
        runs(&node, &file);
        node.shutdown();
    }
}

#[test]
fn a_hub_that_never_stops_sending_is_stopped() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let node = start(&hub, home.path());
    let before = node.rss();
    for lie in [Act::Endless, Act::ClaimLess(100_000)] {
        hub.forget();
        hub.always(Some(lie.clone()));
        let started = Instant::now();
        let outcome = pull(&node.client(), REFERENCE);
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{lie:?} kept the node for {:?}",
            started.elapsed()
        );
        if lie == Act::Endless {
            refused(&node.client(), &outcome);
        }
        for seen in hub.downloads() {
            // The announced size, and what was already under way in the sockets' buffers.
            assert!(seen.sent < file.len() as u64 + (16 << 20), "{lie:?}: {} bytes were taken", seen.sent);
        }
    }
    let grown = node.rss().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    hub.always(None);
    assert_eq!(pull(&node.client(), REFERENCE).0, 200);
    runs(&node, &file);
    node.shutdown();
}

#[test]
fn refusals_and_hiccups_of_the_hub_are_told_apart() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let node = start(&hub, home.path());
    let client = node.client();
    for missing in
        ["hf.co/someone/nothing", "hf.co/someone/wanted-GGUF:Q2_K", "hf.co/../..", "not a reference"]
    {
        refused(&client, &pull(&client, missing));
    }
    hub.then(&[Act::Status(429, Some(1)), Act::Status(500, None)]);
    let (status, body) = pull(&client, REFERENCE);
    assert_eq!(status, 200, "a hub that recovers is a failure: {body}");
    runs(&node, &file);
    let name = pulled(&client).unwrap();
    assert_eq!(
        client
            .send(
                "DELETE",
                "/api/delete",
                &[("content-type", "application/json")],
                json!({ "model": name }).to_string().as_bytes()
            )
            .unwrap()
            .status,
        200
    );
    assert_eq!(blobs(home.path()), [], "deleting leaves the file");

    hub.always(Some(Act::Loop));
    refused(&client, &pull(&client, REFERENCE));
    hub.always(None);
    hub.require("the-right-token");
    let said = refused(&client, &pull(&client, REFERENCE));
    assert!(said.contains("HF_TOKEN"), "it does not say how to give a token: {said}");
    let stderr = failed(&node.run(["pull", REFERENCE]));
    assert!(stderr.contains("HF_TOKEN"), "{stderr}");
    node.shutdown();
}

#[test]
fn a_token_stays_with_its_hub() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let elsewhere = Hub::start(&[(NAME, &file)]);
    hub.require("the-right-token");
    hub.always(Some(Act::Redirect(elsewhere.other_host())));
    let options = NodeOptions::new().home(home.path()).env("HF_ENDPOINT", hub.url());
    let node = Node::start(options.env("HF_TOKEN", "the-right-token"));
    let (status, body) = pull(&node.client(), REFERENCE);
    assert_eq!(status, 200, "{body}");
    runs(&node, &file);
    let seen = elsewhere.seen();
    assert!(seen.iter().any(|seen| seen.is_download()), "the redirect was not followed: {seen:?}");
    for request in &seen {
        assert_eq!(request.authorization, None, "the token went to another host: {request:?}");
    }
    assert!(hub.seen().iter().all(|seen| seen.authorization.as_deref() == Some("Bearer the-right-token")));
    assert!(!node.stderr().contains("the-right-token"), "the token is in the log");
    node.shutdown();
}

#[test]
fn offline_means_that_nobody_is_asked() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    for (name, value) in [("POTLUCK_OFFLINE", "true"), ("HF_HUB_OFFLINE", "1")] {
        let options = NodeOptions::new().home(home.path()).env("HF_ENDPOINT", hub.url()).env(name, value);
        let node = Node::start(options);
        let said = refused(&node.client(), &pull(&node.client(), REFERENCE));
        assert!(said.to_lowercase().contains("offline"), "{said}");
        assert!(hub.seen().is_empty(), "{name}: the hub was asked: {:?}", hub.seen());
        node.shutdown();
    }
}

#[test]
fn a_pull_that_nobody_waits_for_stops() {
    let (file, home) = (file(), tempfile::tempdir().unwrap());
    let hub = Hub::start(&[(NAME, &file)]);
    let mut node = start(&hub, home.path());
    hub.then(&[Act::Stall(50_000)]);
    let mut steps = node.client().stream("/api/pull", &json!({ "model": REFERENCE })).unwrap();
    assert_eq!(steps.status, 200);
    let first = steps.line().unwrap().expect("a first step");
    let first: Value = serde_json::from_str(&first).unwrap();
    assert!(first["status"].is_string(), "{first}");
    let begun = process::eventually(Duration::from_secs(10), || {
        hub.downloads().first().is_some_and(|seen| seen.sent >= 50_000)
    });
    assert!(begun, "the download does not begin: {:?}", hub.seen());
    let sockets = process::descriptors(node.pid()).unwrap();
    drop(steps);
    let gone = process::eventually(Duration::from_secs(10), || {
        process::descriptors(node.pid()).unwrap() + 1 < sockets
    });
    assert!(gone, "the download goes on although nobody waits");
    assert!(node.alive());
    assert_eq!(pull(&node.client(), REFERENCE).0, 200);
    runs(&node, &file);
    node.shutdown();
}
