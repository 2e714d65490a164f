//! A memory that is killed, torn, bent and starved: nothing that was acknowledged is lost.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use potluck_tests::{
    data,
    http::Client,
    node::{Node, NodeOptions, succeeded},
    process,
    random::Random,
};
use serde_json::{Value, json};

const MEMORY: &str = "/potluck/v1/memory";
/// Connections that write at the same time.
const WRITERS: u64 = 4;

fn start(home: &Path) -> Node {
    Node::start(NodeOptions::new().home(home))
}

fn stats(client: &Client) -> Value {
    client.get(&format!("{MEMORY}/stats")).expect(200)
}

fn count(client: &Client) -> u64 {
    stats(client)["live"].as_u64().unwrap()
}

/// A text that no other call gives, and that its number finds again.
fn text(number: u64) -> String {
    let mut random = Random::new(number);
    let words =
        ["harbour", "lantern", "gull", "rope", "anchor", "tide", "keeper", "foghorn", "chart", "compass"];
    let rest: Vec<&str> = (0..12).map(|_| *random.pick(&words)).collect();
    format!("Entry e{number}x of the log book: {}.", rest.join(" "))
}

/// The files of the log, in order.
fn segments(home: &Path) -> Vec<PathBuf> {
    let log = home.join("node/memory/log");
    let mut found: Vec<PathBuf> = fs::read_dir(&log)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found
}

/// Writes from several connections until the node is gone; what was acknowledged goes into `kept`.
fn write_until_killed(
    node: Node,
    next: &Arc<AtomicU64>,
    kept: &Arc<Mutex<BTreeMap<u64, String>>>,
    pause: Duration,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (client, next, kept, stop) =
                (node.client(), Arc::clone(next), Arc::clone(kept), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let body = json!({"content": text(number)}).to_string();
                    let headers = [("content-type", "application/json")];
                    // A node that is killed answers nothing; then nothing was promised.
                    let Ok(answer) = client.send("POST", MEMORY, &headers, body.as_bytes()) else { return };
                    if answer.status == 200 {
                        let id = answer.json()["id"].as_str().unwrap().to_owned();
                        kept.lock().unwrap().insert(number, id);
                    }
                }
            })
        })
        .collect();
    thread::sleep(pause);
    // Dropping a node is SIGKILL.
    drop(node);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
}

/// Every acknowledged record is there once, with its text, and can be found.
fn check(client: &Client, kept: &BTreeMap<u64, String>, sample: usize, random: &mut Random) {
    let all: Vec<(&u64, &String)> = kept.iter().collect();
    for _ in 0..sample.min(all.len()) {
        let (number, id) = random.pick(&all);
        let item = client.get(&format!("{MEMORY}/{id}")).expect(200);
        assert_eq!(item["content"], text(**number));
        assert_eq!(item["state"], "live");
        let question = json!({"query": format!("entry e{number}x"), "limit": 3});
        let answer = client.post(&format!("{MEMORY}/recall"), &question).expect(200);
        let found = answer["items"].as_array().unwrap().iter().filter(|item| item["id"] == **id).count();
        assert_eq!(found, 1, "{number}: {answer}");
    }
}

#[test]
fn killed_at_random_moments_it_keeps_what_it_acknowledged() {
    let rounds = std::env::var("POTLUCK_KILL_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let mut random = Random::new(20);
    let (next, kept) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(BTreeMap::new())));
    for round in 0..rounds {
        let node = start(home.path());
        let repairs = stats(&node.client())["repairs"].to_string();
        assert!(!repairs.contains("lost here") && !repairs.contains("did not fit"), "{repairs}");
        check(&node.client(), &kept.lock().unwrap(), 10, &mut random);
        write_until_killed(node, &next, &kept, Duration::from_millis(random.next() % 400));
        if round % 50 == 49 {
            println!("{} rounds, {} acknowledged", round + 1, kept.lock().unwrap().len());
        }
    }
    let node = start(home.path());
    let client = node.client();
    let kept = kept.lock().unwrap();
    assert!(kept.len() as u64 > rounds, "hardly anything was written: {}", kept.len());
    check(&client, &kept, kept.len(), &mut random);
    // What was written but not acknowledged may be there too, once; nothing else may.
    let live = count(&client);
    assert!(
        (kept.len() as u64..=next.load(Ordering::Relaxed)).contains(&live),
        "{live} live, {} kept",
        kept.len()
    );
    let question = json!({"query": "lantern and foghorn in the harbour", "limit": 50});
    let ask =
        |client: &Client| client.post(&format!("{MEMORY}/recall"), &question).expect(200)["items"].clone();
    assert!(
        client.eventually(&format!("{MEMORY}/stats"), Duration::from_secs(60), |stats| stats["overlay"] == 0)
    );
    let before = ask(&client);
    let checked = succeeded(&node.run(["memory", "verify", "--json"]));
    assert!(checked.contains("\"clean\":true"), "{checked}");
    let lines = node.run(["memory", "reindex", "--json"]);
    assert!(lines.status.success(), "{}", String::from_utf8_lossy(&lines.stderr));
    assert_eq!(ask(&client), before, "a rebuild from the log recalls the same");
    node.shutdown();
    fs::remove_dir_all(home.path().join("node/memory/index")).unwrap();
    let node = start(home.path());
    assert_eq!(ask(&node.client()), before, "so does one at the start");
    assert_eq!(count(&node.client()), live);
    node.shutdown();
}

#[test]
fn a_torn_or_bent_log_is_repaired_and_told() {
    let home = tempfile::tempdir().unwrap();
    let node = start(home.path());
    let client = node.client();
    for number in 0..40 {
        client.post(MEMORY, &json!({"content": text(number)})).expect(200);
    }
    node.shutdown();
    let log = segments(home.path()).pop().unwrap();
    let whole = fs::read(&log).unwrap();

    // A write that a crash cut off: the rest of the log is untouched.
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[whole.len() - 100..whole.len() - 30]);
    fs::write(&log, &torn).unwrap();
    let node = start(home.path());
    assert_eq!(count(&node.client()), 40);
    let repairs = stats(&node.client())["repairs"].to_string();
    assert!(repairs.contains("unfinished write"), "{repairs}");
    node.shutdown();

    // A flipped bit in the middle costs one entry, which is told, and no other.
    let mut bent = fs::read(&log).unwrap();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    fs::write(&log, &bent).unwrap();
    let node = start(home.path());
    assert_eq!(count(&node.client()), 39);
    let repairs = stats(&node.client())["repairs"].to_string();
    assert!(repairs.contains("lost here"), "{repairs}");
    for number in 100..110 {
        node.client().post(MEMORY, &json!({"content": text(number)})).expect(200);
    }
    assert_eq!(count(&node.client()), 49);
    node.shutdown();
    let node = start(home.path());
    assert_eq!(count(&node.client()), 49, "and it stays so");
    node.shutdown();
}

#[test]
fn indexes_of_another_version_or_none_are_rebuilt() {
    let home = tempfile::tempdir().unwrap();
    let node = start(home.path());
    for number in 0..30 {
        node.client().post(MEMORY, &json!({"content": text(number)})).expect(200);
    }
    assert!(
        node.client().eventually(&format!("{MEMORY}/stats"), Duration::from_secs(30), |s| s["overlay"] == 0)
    );
    node.shutdown();
    let index = home.path().join("node/memory/index");
    type Spoil = fn(&Path);
    let spoil: [(&str, Spoil); 4] = [
        ("text/layout", |path| fs::write(path, "0").unwrap()),
        ("text/data.mdb", |path| fs::write(path, b"nonsense").unwrap()),
        ("arrivals", |path| fs::write(path, b"nonsense").unwrap()),
        ("text", |path| fs::remove_dir_all(path).unwrap()),
    ];
    for (name, spoil) in spoil {
        spoil(&index.join(name));
        let node = start(home.path());
        let client = node.client();
        let question = json!({"query": "entry e7x", "kinds": ["fact"], "limit": 1});
        let answer = client.post(&format!("{MEMORY}/recall"), &question).expect(200);
        assert_eq!(answer["items"][0]["content"], text(7), "{name}: {answer}");
        assert!(
            client.eventually(&format!("{MEMORY}/stats"), Duration::from_secs(30), |s| s["overlay"] == 0)
        );
        assert_eq!(count(&client), 30, "{name}");
        node.shutdown();
    }
}

/// A small file system in memory; unmounted when it goes.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at);
        mount.status().ok()?.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let small =
        process::is_root().then(|| Small::mount(&home.path().join("node/memory/log"), 256 << 10)).flatten();
    let Some(small) = small else { return data::skipped("a small file system cannot be mounted here") };
    let node = start(home.path());
    let client = node.client();
    let mut kept = BTreeMap::new();
    let mut refused = 0;
    for number in 0..600 {
        let content = format!("{} {}", text(number), "x".repeat(800));
        let headers = [("content-type", "application/json")];
        let answer = client
            .send("POST", MEMORY, &headers, json!({"content": content}).to_string().as_bytes())
            .unwrap();
        match answer.status {
            200 => drop(kept.insert(number, answer.json()["id"].as_str().unwrap().to_owned())),
            507 => refused += 1,
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(refused > 0 && kept.len() > 50, "{refused} refused, {} kept", kept.len());
    let listed = kept.len() as u64;
    assert_eq!(count(&client), listed);
    // Reading goes on while nothing can be written.
    client.get(&format!("{MEMORY}/{}", kept.values().next_back().unwrap())).expect(200);
    node.shutdown();
    let node = start(home.path());
    assert_eq!(count(&node.client()), listed);
    for id in kept.values() {
        node.client().get(&format!("{MEMORY}/{id}")).expect(200);
    }
    node.shutdown();
    drop(small);
}
