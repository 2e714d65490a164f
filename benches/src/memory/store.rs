//! The node's memory, as the harness uses it.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::Client,
    layout::{Question, Session},
    random::Random,
};

/// Records of one import request.
const BATCH: usize = 1000;
/// Bytes of one.
const BATCH_BYTES: usize = 8 << 20;
/// Longest time in which nothing is embedded before the wait is given up.
const STALLED: Duration = Duration::from_secs(300);
/// Longest time until a node that has an embedder names it.
const WAKING: Duration = Duration::from_secs(60);

/// What an import did.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// Written.
    pub added: u64,
    /// Already there.
    pub duplicates: u64,
    /// Refused.
    pub refused: u64,
    /// The first refusals.
    pub errors: Vec<Value>,
}

/// The memory's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Living records.
    pub live: u64,
    /// The model vectors come from.
    pub embedder: Option<String>,
    /// Records without vectors yet.
    pub pending: u64,
    /// Records that the text index does not hold yet.
    pub overlay: u64,
    /// Bytes on disk by part.
    pub bytes: std::collections::BTreeMap<String, u64>,
}

/// One item of an answer; the rest of it is of no interest here.
#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    /// The record.
    pub id: String,
    /// The label under which it was put in.
    #[serde(default)]
    pub source: Option<String>,
}

/// An answer and how long it took.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// Best first.
    pub items: Vec<Item>,
    /// The model the question was embedded with.
    #[serde(default)]
    pub embedder: Option<String>,
    /// The node's own time in milliseconds.
    pub took_ms: f64,
    /// Of that, for embedding the question.
    pub embed_ms: f64,
    /// End to end in milliseconds, as the client saw it.
    #[serde(default)]
    pub http_ms: f64,
}

/// A haystack's records: from the label that a record carries to the sessions that it is.
#[derive(Clone, Debug, Default)]
pub struct Labels(HashMap<String, Vec<String>>);

/// The memory behind a client.
#[derive(Debug)]
pub struct Store {
    client: Client,
    words_only: bool,
}

impl Store {
    /// The memory behind this client; `words_only`: without an embedder.
    pub const fn new(client: Client, words_only: bool) -> Self {
        Self { client, words_only }
    }

    /// The client, for what is asked seldom.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Puts the sessions into a project in an order drawn at random, each under a random label.
    ///
    /// # Errors
    /// The node's refusal, or that it did not take every one.
    pub fn put(&mut self, project: &str, sessions: &[Session], random: Random) -> Result<Labels> {
        let (records, labels) = records(project, sessions, random);
        let done = self.import("", records.iter().map(Value::to_string))?;
        ensure!(
            done.added == records.len() as u64,
            "{} of {} records are new in the project {project} ({} duplicates, {} refused: {:?}); is the node's \
             memory fresh?",
            done.added,
            records.len(),
            done.duplicates,
            done.refused,
            done.errors.first()
        );
        Ok(labels)
    }

    /// Imports lines in requests of bounded size; `format` is one the node names, or empty.
    ///
    /// # Errors
    /// The node's refusal.
    pub fn import(&mut self, format: &str, lines: impl Iterator<Item = String>) -> Result<Imported> {
        let path = match format {
            "" => "/potluck/v1/memory/import".to_owned(),
            format => format!("/potluck/v1/memory/import?format={format}"),
        };
        let mut all = Imported::default();
        let mut body = String::new();
        let mut count = 0;
        let mut lines = lines.peekable();
        while let Some(line) = lines.next() {
            body.push_str(&line);
            body.push('\n');
            count += 1;
            if count >= BATCH || body.len() >= BATCH_BYTES || lines.peek().is_none() {
                let done: Imported = self.client.post_lines(&path, body.as_bytes())?;
                all.added += done.added;
                all.duplicates += done.duplicates;
                all.refused += done.refused;
                all.errors.extend(done.errors);
                body.clear();
                count = 0;
            }
        }
        Ok(all)
    }

    /// The memory's state.
    ///
    /// # Errors
    /// The node's refusal.
    pub fn stats(&mut self) -> Result<Stats> {
        self.client.get("/potluck/v1/memory/stats")
    }

    /// Waits until every record has its vectors.
    ///
    /// # Errors
    /// When the node has no embedder although one is wanted, or the other way round, or when it makes no progress.
    pub fn settle(&mut self) -> Result<Stats> {
        let mut bar: Option<ProgressBar> = None;
        let (began, mut moved, mut least) = (Instant::now(), Instant::now(), u64::MAX);
        loop {
            let stats = self.stats()?;
            if self.words_only {
                let model = &stats.embedder;
                ensure!(model.is_none(), "--words-only, but the node embeds with {model:?}");
                return Ok(stats);
            }
            if stats.embedder.is_some() && stats.pending == 0 {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                return Ok(stats);
            }
            if stats.embedder.is_none() && began.elapsed() > WAKING {
                bail!("the node has no embedder; install one, or measure recall by words with --words-only");
            }
            if stats.pending < least {
                (least, moved) = (stats.pending, Instant::now());
            }
            ensure!(
                moved.elapsed() < STALLED,
                "{} records wait for vectors and nothing moves",
                stats.pending
            );
            let bar = bar.get_or_insert_with(|| progress(stats.pending, "embedding"));
            bar.set_length(bar.length().unwrap_or(0).max(stats.pending));
            bar.set_position(bar.length().unwrap_or(0).saturating_sub(stats.pending));
            std::thread::sleep(Duration::from_millis(if stats.pending > 500 { 500 } else { 50 }));
        }
    }

    /// Asks a question.
    ///
    /// # Errors
    /// The node's refusal, or an answer that was found without the embedder although there is one.
    pub fn recall(&mut self, project: Option<&str>, question: &Question, limit: usize) -> Result<Answer> {
        let mut body = json!({"query": question.text, "limit": limit});
        if let (Some(fields), Some(project)) = (body.as_object_mut(), project) {
            fields.insert("project".into(), project.into());
        }
        if let (Some(fields), Some(now)) = (body.as_object_mut(), &question.now) {
            fields.insert("now".into(), now.as_str().into());
        }
        let began = Instant::now();
        let mut answer: Answer = self.client.post("/potluck/v1/memory/recall", &body)?;
        answer.http_ms = began.elapsed().as_secs_f64() * 1e3;
        if answer.embedder.is_none() != self.words_only {
            bail!("a question was answered with the embedder {:?}; see --words-only", answer.embedder);
        }
        Ok(answer)
    }

    /// Remembers a text; gives the record's id and the milliseconds until that was acknowledged.
    ///
    /// # Errors
    /// The node's refusal.
    pub fn remember(&mut self, text: &str) -> Result<(String, f64)> {
        let began = Instant::now();
        let done: Value = self.client.post("/potluck/v1/memory", &json!({ "content": text }))?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let id = done.get("id").and_then(Value::as_str).context("the answer names no id")?;
        ensure!(done.get("duplicate_of").is_none(), "a new text was taken for a duplicate: {done}");
        Ok((id.to_owned(), took))
    }
}

impl Labels {
    /// The sessions that the items are, best first, each once.
    ///
    /// # Errors
    /// When an item is none of this haystack's.
    pub fn ranking(&self, items: &[Item]) -> Result<Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut ranking = Vec::new();
        for item in items {
            let sessions = item.source.as_ref().and_then(|label| self.0.get(label));
            let sessions =
                sessions.with_context(|| format!("the record {} is not of this haystack", item.id))?;
            ranking.extend(sessions.iter().filter(|id| seen.insert((*id).clone())).cloned());
        }
        Ok(ranking)
    }
}

/// A number in letters alone: in digits, one in some thousand reads like the number of a card, which a node removes.
fn label(number: u64) -> String {
    (0..16).map(|place| char::from(b'a' + (number >> (4 * place) & 15) as u8)).collect()
}

/// The records of a haystack in the order in which they are put in, and their labels. Sessions with the same text
/// are one record, as the memory keeps a text once; those without text are none.
fn records(project: &str, sessions: &[Session], mut random: Random) -> (Vec<Value>, Labels) {
    let mut order: Vec<&Session> =
        sessions.iter().filter(|session| !session.text.trim().is_empty()).collect();
    random.shuffle(&mut order);
    let mut by_text: HashMap<String, String> = HashMap::new();
    let (mut records, mut labels) = (Vec::new(), Labels::default());
    for session in order {
        let same: Vec<&str> = session.text.split_whitespace().collect();
        let label = by_text.entry(same.join(" ")).or_insert_with(|| {
            let label = label(random.next());
            let mut record = json!({"content": session.text, "project": project, "source": label});
            if let (Some(fields), Some(date)) = (record.as_object_mut(), &session.date) {
                fields.insert("occurred_at".into(), date.as_str().into());
            }
            records.push(record);
            label
        });
        labels.0.entry(label.clone()).or_default().push(session.id.clone());
    }
    (records, labels)
}

/// A bar that counts to `length`.
pub fn progress(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {human_pos}/{human_len} {eta:>6}");
    let bar = ProgressBar::new(length).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, text: &str) -> Session {
        Session {
            id: id.into(),
            text: text.into(),
            date: (id == "answer_1").then(|| "2023-05-20T00:00:00Z".into()),
        }
    }

    fn all() -> Vec<Session> {
        let mut sessions: Vec<Session> =
            (0..20).map(|n| session(&format!("s{n}"), &format!("text {n}"))).collect();
        sessions.push(session("answer_1", "gold"));
        sessions.push(session("twin", " gold\n"));
        sessions.push(session("empty", " "));
        sessions
    }

    #[test]
    fn no_session_id_enters_the_store_and_the_order_is_mixed() {
        let (records, labels) = records("p", &all(), Random::new(1));
        assert_eq!((records.len(), labels.0.len()), (21, 21));
        for record in &records {
            let text = record.to_string();
            assert!(!text.contains("answer") && !text.contains("twin") && !text.contains("\"s1"), "{text}");
        }
        let contents: Vec<&str> = records.iter().map(|record| record["content"].as_str().unwrap()).collect();
        assert_ne!(contents[..3], ["text 0", "text 1", "text 2"]);
        assert_eq!(records, self::records("p", &all(), Random::new(1)).0);
        assert_ne!(records, self::records("p", &all(), Random::new(2)).0);
    }

    #[test]
    fn items_become_sessions_each_once() {
        let (records, labels) = records("p", &all(), Random::new(1));
        let item = |text: &str| {
            let record =
                records.iter().find(|record| record["content"].as_str().unwrap().trim() == text).unwrap();
            Item { id: "x".into(), source: record["source"].as_str().map(str::to_owned) }
        };
        let ranking = labels.ranking(&[item("text 3"), item("gold"), item("text 3")]).unwrap();
        assert_eq!(ranking[0], "s3");
        let mut rest = ranking[1..].to_vec();
        rest.sort();
        assert_eq!(rest, ["answer_1", "twin"]);
        assert!(labels.ranking(&[Item { id: "y".into(), source: None }]).is_err());
    }
}
