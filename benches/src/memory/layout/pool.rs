//! The layout of a pool: sessions in one file, questions about them in another, all JSON Lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{Haystack, Question, Session, join, lines};
use crate::memory::{date::rfc3339, random::Random};

#[derive(Debug, Deserialize)]
struct SessionLine {
    id: String,
    turns: Vec<String>,
    #[serde(default)]
    date: Option<String>,
}

#[derive(Debug, Deserialize)]
struct QuestionLine {
    id: String,
    query: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    date: Option<String>,
    #[serde(default)]
    abstention: bool,
    gold: Vec<String>,
    #[serde(default)]
    oracle_sessions: Vec<String>,
    #[serde(default = "yes")]
    user_evidence: bool,
}

const fn yes() -> bool {
    true
}

/// Sessions that hold answers, sessions that hold none, and the questions.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Sessions that are evidence of some question.
    pub corpus: Vec<Session>,
    /// Sessions that are evidence of none.
    pub distractors: Vec<Session>,
    /// The questions.
    pub questions: Vec<Question>,
}

impl Pool {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which of them, also a question whose gold is not in the corpus.
    pub fn read(corpus: &Path, distractors: Option<&Path>, queries: &Path) -> Result<Self> {
        let pool = Self {
            corpus: sessions(corpus)?,
            distractors: distractors.map(sessions).transpose()?.unwrap_or_default(),
            questions: lines(queries)?.into_iter().map(question).collect(),
        };
        let mut ids = BTreeSet::new();
        for session in pool.corpus.iter().chain(&pool.distractors) {
            ensure!(ids.insert(session.id.as_str()), "the session {} occurs twice", session.id);
        }
        for question in &pool.questions {
            let missing = question.stated.iter().find(|id| !ids.contains(id.as_str()));
            ensure!(missing.is_none(), "the question {} names {missing:?}, which is no session", question.id);
        }
        Ok(pool)
    }

    /// Everything in one haystack.
    pub fn whole(&self) -> Haystack {
        let sessions = self.corpus.iter().chain(&self.distractors).cloned().collect();
        Haystack { sessions, questions: self.questions.clone() }
    }

    /// The haystack of one question as in LongMemEval-S: its evidence, `distractors` sessions that hold no answers,
    /// and evidence of other questions up to `size`. The same seed gives the same haystack.
    pub fn like_s(&self, question: &Question, distractors: usize, size: usize, seed: u64) -> Haystack {
        let mut random = Random::of(seed, &question.id);
        let own: BTreeSet<&str> = question.stated.iter().map(String::as_str).collect();
        let is_own = |session: &&Session| own.contains(session.id.as_str());
        let mut sessions: Vec<Session> = self.corpus.iter().filter(is_own).cloned().collect();
        sessions.extend(random.sample(&self.distractors, distractors).into_iter().cloned());
        let others: Vec<&Session> = self.corpus.iter().filter(|session| !is_own(session)).collect();
        let room = size.saturating_sub(sessions.len());
        sessions.extend(random.sample(&others, room).into_iter().copied().cloned());
        Haystack { sessions, questions: vec![question.clone()] }
    }

    /// How many sessions say when they were held: of the corpus, and of the distractors.
    pub fn dated(&self) -> (usize, usize) {
        let dated = |sessions: &[Session]| sessions.iter().filter(|session| session.date.is_some()).count();
        (dated(&self.corpus), dated(&self.distractors))
    }

    /// How many questions there are of each sort.
    pub fn kinds(&self) -> BTreeMap<&str, usize> {
        let mut kinds = BTreeMap::new();
        for question in &self.questions {
            *kinds.entry(question.kind.as_str()).or_default() += 1;
        }
        kinds
    }
}

/// The sessions of one file.
///
/// # Errors
/// Which line is wrong.
pub fn sessions(path: &Path) -> Result<Vec<Session>> {
    let read = |line: SessionLine| Session {
        text: join(&line.turns),
        date: line.date.as_deref().and_then(rfc3339),
        id: line.id,
    };
    Ok(lines(path)?.into_iter().map(read).collect())
}

/// The turns of all sessions of one file, each a text of its own.
///
/// # Errors
/// Which line is wrong.
pub fn turns(path: &Path) -> Result<Vec<String>> {
    Ok(lines(path)?.into_iter().flat_map(|line: SessionLine| line.turns).collect())
}

fn question(line: QuestionLine) -> Question {
    let gold = if line.user_evidence { line.gold.clone() } else { Vec::new() };
    let stated = if line.oracle_sessions.is_empty() { line.gold } else { line.oracle_sessions };
    Question {
        id: line.id,
        kind: line.kind,
        text: line.query,
        now: line.date.as_deref().and_then(rfc3339),
        abstention: line.abstention,
        stated,
        gold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let corpus: String =
            (0..60).map(|n| format!("{{\"id\":\"c{n}\",\"turns\":[\"text {n}\",\"more\"]}}\n")).collect();
        let rest: String = (0..40)
            .map(|n| {
                format!("{{\"id\":\"d{n}\",\"date\":\"2023/07/12 (Wed) 10:14\",\"turns\":[\"noise {n}\"]}}\n")
            })
            .collect();
        let queries = r#"{"id":"q1","query":"A?","type":"multi","date":"2021-08-20","abstention":false,"gold":["c1","c2"],"oracle_sessions":["c1","c2","c3"],"user_evidence":true,"gold_turns":{}}
{"id":"q2","query":"B?","type":"assistant","date":null,"abstention":false,"gold":["c9"],"user_evidence":false}
{"id":"q3","query":"C?","gold":["c4"]}
"#;
        std::fs::write(path("c"), corpus).unwrap();
        std::fs::write(path("d"), rest).unwrap();
        std::fs::write(path("q"), queries).unwrap();
        Pool::read(&path("c"), Some(&path("d")), &path("q")).unwrap()
    }

    #[test]
    fn a_pool_is_read() {
        let pool = pool();
        assert_eq!(pool.whole().sessions.len(), 100);
        assert_eq!(pool.corpus[0].text, "text 0\n\nmore");
        assert_eq!(pool.dated(), (0, 40));
        let [a, b, c] = pool.questions.as_slice() else { panic!() };
        assert_eq!((a.gold.len(), a.stated.len()), (2, 3));
        assert_eq!(a.now.as_deref(), Some("2021-08-20T00:00:00Z"));
        assert_eq!((b.gold.len(), b.stated.len()), (0, 1));
        assert_eq!((c.gold.len(), c.kind.as_str()), (1, ""));
    }

    #[test]
    fn a_haystack_like_s_is_mixed_and_repeats() {
        let pool = pool();
        let question = &pool.questions[0];
        let haystack = pool.like_s(question, 24, 48, 1);
        let ids: BTreeSet<&str> = haystack.sessions.iter().map(|session| session.id.as_str()).collect();
        assert_eq!((haystack.sessions.len(), ids.len()), (48, 48));
        assert!(["c1", "c2", "c3"].iter().all(|id| ids.contains(id)));
        assert_eq!(ids.iter().filter(|id| id.starts_with('d')).count(), 24);
        assert_eq!(pool.like_s(question, 24, 48, 1), haystack);
        assert_ne!(pool.like_s(question, 24, 48, 2), haystack);
    }

    #[test]
    fn gold_that_is_no_session_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("c"), r#"{"id":"c1","turns":["x"]}"#).unwrap();
        std::fs::write(path("q"), r#"{"id":"q1","query":"A?","gold":["c7"]}"#).unwrap();
        let error = Pool::read(&path("c"), None, &path("q")).unwrap_err().to_string();
        assert!(error.contains("q1") && error.contains("c7"), "{error}");
        std::fs::write(path("d"), r#"{"id":"c1","turns":["y"]}"#).unwrap();
        assert!(Pool::read(&path("c"), Some(&path("d")), &path("q")).is_err());
    }

    #[test]
    fn the_real_pool_is_read() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/longmemeval");
        if !data.join("corpus.jsonl").is_file() {
            println!("skipped: no ../shared/data/longmemeval/corpus.jsonl");
            return;
        }
        let distractors = data.join("s_distractors.jsonl");
        let pool =
            Pool::read(&data.join("corpus.jsonl"), Some(&distractors), &data.join("queries.dev.jsonl"))
                .unwrap();
        assert_eq!((pool.whole().sessions.len(), pool.questions.len()), (975, 250));
        let counted =
            pool.questions.iter().filter(|question| !question.abstention && !question.gold.is_empty());
        assert_eq!(counted.count(), 205);
    }
}
