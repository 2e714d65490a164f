//! What memories are filled with: copies of real texts, in the name of a member that is away.
//!
//! Without an embedder they are imported as plain records. With one, embedding 100,000 texts would take an hour: a node
//! embeds some hundred real ones, and the program `memory` (of the benches) signs copies of them, with their vectors
//! moved a little, by the key of a machine that has joined the pool for that. They are imported as what they are: that
//! member's export.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{MEMORY, embedder, place, settled_node, tell};
use crate::{
    data,
    member::Member,
    node::{Node, NodeOptions, program},
    random::Random,
};

/// The embedder's files.
pub(super) const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];
/// Real texts that are embedded.
const EMBEDDED: usize = 600;
/// Records of one import.
const STEP: usize = 10_000;
/// The project that is filled.
const PROJECT: &str = "bulk";

/// Texts, and their vectors where there is an embedder.
#[derive(Debug)]
pub struct Bulk {
    texts: Vec<String>,
    model: Option<PathBuf>,
    /// Signed copies, one file of lines for each key.
    copies: Mutex<Copies>,
    most: usize,
}

#[derive(Debug)]
struct Copies {
    folder: TempDir,
    export: Option<PathBuf>,
}

impl Bulk {
    /// Of these texts, for at most so many records; with vectors where there is an embedder.
    pub fn new(texts: Vec<String>, most: usize, words_only: bool) -> Self {
        let model = embedder().filter(|_| !words_only);
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { texts, model, copies: Mutex::new(Copies { folder, export: None }), most }
    }

    /// The embedder's name.
    pub(super) fn embedder(&self) -> Option<String> {
        self.model.as_ref().map(|_| "all-MiniLM-L6-v2".to_owned())
    }

    /// Gives a home that is not used yet what its node needs.
    pub(super) fn prepare(&self, home: &Path) {
        if let Some(model) = &self.model {
            place(model, home);
        }
    }

    /// Puts records number `from` to `from + count` into a memory, in the name of the machine with this key.
    pub(super) fn put(&self, member: &Member, key: &Path, from: usize, count: usize) {
        let lines = self.model.is_some().then(|| self.signed(key));
        // A line for the version and one for its vectors.
        let mut signed = lines.map(|path| {
            let file = fs::File::open(path).expect("the copies are there");
            BufReader::new(file).lines().skip(2 * from)
        });
        let mut at = from;
        while at < from + count {
            let end = (from + count).min(at + STEP);
            let (format, body) = match &mut signed {
                Some(lines) => ("export", join(lines.by_ref().take(2 * (end - at)).map(Result::unwrap))),
                None => ("records", join((at..end).map(|index| self.record(index)))),
            };
            let answer = member.enter(|node| {
                let path = format!("{MEMORY}/import?format={format}");
                let headers = [("content-type", "application/x-ndjson")];
                let answer = node.client().send("POST", &path, &headers, body.as_bytes());
                answer.expect("the node answers").expect(200)
            });
            assert!(answer["refused"] == 0 && answer["duplicates"] == 0, "{answer}");
            at = end;
        }
    }

    fn record(&self, index: usize) -> String {
        let (text, copy) = (&self.texts[index % self.texts.len()], index / self.texts.len());
        let content = if copy == 0 { text.clone() } else { format!("{}: {text}", self.words(copy)) };
        json!({"content": content, "project": PROJECT}).to_string()
    }

    /// The number of a copy, in words of the texts.
    fn words(&self, copy: usize) -> String {
        let mut random = Random::new(copy as u64);
        let word = |_| {
            let text = random.pick(&self.texts);
            let words: Vec<&str> = text.split(' ').collect();
            words[random.below(words.len())].to_owned()
        };
        format!("{} {copy}", (0..3).map(word).collect::<Vec<_>>().join(" "))
    }

    /// The copies that this key signs, made once.
    fn signed(&self, key: &Path) -> PathBuf {
        let mut copies = self.copies.lock().expect("no holder panics");
        if copies.export.is_none() {
            copies.export = Some(self.export(copies.folder.path()));
        }
        let bytes = fs::read(key).expect("the key can be read");
        let name: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = copies.folder.path().join(format!("{name}.jsonl"));
        if !path.exists() {
            tell(&format!("signing {} copies", self.most));
            let memory = program().with_file_name("memory");
            assert!(memory.is_file(), "no program at {}: build it first", memory.display());
            let mut command = Command::new(memory);
            command.arg("copies").arg(copies.export.as_ref().expect("it was just made"));
            command.args(["--count", &self.most.to_string(), "--project", PROJECT, "--key"]).arg(key);
            let out = fs::File::create(&path).expect("a file can be made");
            let status = command.stdout(out).status().expect("the program runs");
            assert!(status.success(), "{command:?}: {status}");
        }
        path
    }

    /// Has a node embed real texts, and writes down what it made of them.
    fn export(&self, folder: &Path) -> PathBuf {
        tell(&format!("embedding {} texts", EMBEDDED.min(self.texts.len())));
        let home = folder.join("home");
        self.prepare(&home);
        let node = Node::start(NodeOptions::new().home(&home).args(["--lan=false"]));
        let body = join(self.texts.iter().take(EMBEDDED).map(|text| json!({"content": text}).to_string()));
        let headers = [("content-type", "application/x-ndjson")];
        let path = format!("{MEMORY}/import?format=records");
        node.client().send("POST", &path, &headers, body.as_bytes()).expect("the node answers").expect(200);
        settled_node(&node);
        let path = folder.join("export.jsonl");
        let export = node.client().get(&format!("{MEMORY}/export?vectors=true"));
        fs::write(&path, export.body).expect("a file can be written");
        node.shutdown();
        path
    }
}

fn join(lines: impl Iterator<Item = String>) -> String {
    let mut body = String::new();
    for line in lines {
        body.push_str(&line);
        body.push('\n');
    }
    body
}

/// Texts of 20 to 600 bytes, each once: of this file (JSON Lines of `{turns}`, or any other file, each line a text),
/// else of the test data, else made up.
pub fn texts(file: Option<&Path>) -> Vec<String> {
    let file = file.map(Path::to_path_buf).or_else(|| data::file("longmemeval/corpus.jsonl"));
    let Some(file) = file else { return made_up() };
    let all = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut found = BTreeSet::new();
    for line in all.lines() {
        let turns =
            serde_json::from_str::<Value>(line).ok().and_then(|line| Some(line["turns"].as_array()?.clone()));
        let turns =
            turns.map(|turns| turns.iter().filter_map(|turn| turn.as_str().map(str::to_owned)).collect());
        for text in turns.unwrap_or_else(|| vec![line.to_owned()]) {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if (20..=600).contains(&text.len()) {
                found.insert(text);
            }
        }
    }
    assert!(found.len() > 10, "{} has too few texts of 20 to 600 bytes", file.display());
    let mut found: Vec<String> = found.into_iter().collect();
    let mut random = Random::new(1);
    for place in (1..found.len()).rev() {
        found.swap(place, random.below(place + 1));
    }
    found
}

/// Sentences that a generator makes, for where no text is at hand.
pub fn made_up() -> Vec<String> {
    const WHO: [&str; 8] = ["Ada", "Bruno", "Chiara", "Dmitri", "Esra", "Farid", "Gwen", "Hiro"];
    const DID: [&str; 8] =
        ["repaired", "sold", "painted", "lost", "found", "ordered", "borrowed", "measured"];
    const WHAT: [&str; 10] = [
        "the old bicycle",
        "a box of nails",
        "the kitchen table",
        "two train tickets",
        "the garden gate",
        "a recipe for soup",
        "the radio",
        "a map of the coast",
        "the winter coat",
        "a jar of honey",
    ];
    const WHEN: [&str; 6] = [
        "on a Monday",
        "after the storm",
        "before breakfast",
        "in late autumn",
        "at noon",
        "during the visit",
    ];
    let mut random = Random::new(1);
    let mut sentence = || {
        format!("{} {} {} {}", random.pick(&WHO), random.pick(&DID), random.pick(&WHAT), random.pick(&WHEN))
    };
    (0..3_000).map(|number| format!("{}, and then {}; entry {number}.", sentence(), sentence())).collect()
}
