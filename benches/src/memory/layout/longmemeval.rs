//! LongMemEval's own layout: an array of questions, each with its haystack.
//!
//! As in its official evaluation, only the user's turns are indexed, gold are the sessions whose names contain
//! `answer`, and one of them in which no turn of the user is marked `has_answer` is none. A file that asks several
//! questions of one haystack (lists `questions`, `answers` and `answer_session_ids`) is read too; it names its gold.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Haystack, Question, Session, join};
use crate::memory::date::rfc3339;

/// One element of the file.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    question_id: String,
    question_type: String,
    #[serde(alias = "questions")]
    question: OneOrMany,
    #[serde(default)]
    question_date: Option<String>,
    #[serde(default)]
    haystack_dates: Vec<String>,
    haystack_session_ids: Vec<String>,
    haystack_sessions: Vec<Vec<Turn>>,
    answer_session_ids: Evidence,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Evidence {
    One(Vec<String>),
    Many(Vec<Vec<String>>),
}

#[derive(Clone, Debug, Deserialize)]
struct Turn {
    role: String,
    content: String,
    #[serde(default)]
    has_answer: Option<bool>,
}

impl Entry {
    /// The haystack with its question or questions.
    pub fn haystack(&self) -> Haystack {
        Haystack { sessions: self.sessions(), questions: self.questions() }
    }

    fn sessions(&self) -> Vec<Session> {
        let named = self.haystack_session_ids.iter().zip(&self.haystack_sessions).enumerate();
        let session = |(index, (id, turns)): (usize, (&String, &Vec<Turn>))| Session {
            id: id.clone(),
            text: join(turns.iter().filter(|turn| turn.role == "user").map(|turn| &turn.content)),
            date: self.haystack_dates.get(index).and_then(|date| rfc3339(date)),
        };
        named.map(session).collect()
    }

    fn questions(&self) -> Vec<Question> {
        let hidden = self.hidden();
        let of = |id: String, text: &String, stated: Vec<String>, named: Vec<String>| Question {
            id,
            kind: self.question_type.clone(),
            text: text.clone(),
            now: self.question_date.as_deref().and_then(rfc3339),
            abstention: self.question_id.ends_with("_abs"),
            gold: named.into_iter().filter(|id| !hidden.contains(id.as_str())).collect(),
            stated,
        };
        match (&self.question, &self.answer_session_ids) {
            (OneOrMany::One(text), Evidence::One(stated)) => {
                let ids = self.haystack_session_ids.iter();
                let named = ids.filter(|id| id.contains("answer")).cloned().collect();
                vec![of(self.question_id.clone(), text, stated.clone(), named)]
            }
            (OneOrMany::Many(texts), Evidence::Many(stated)) => {
                let numbered = texts.iter().zip(stated).enumerate();
                let id = |number| format!("{}#{number}", self.question_id);
                numbered.map(|(n, (text, ids))| of(id(n), text, ids.clone(), ids.clone())).collect()
            }
            (OneOrMany::One(text), Evidence::Many(lists)) => {
                let all: Vec<String> = lists.concat();
                vec![of(self.question_id.clone(), text, all.clone(), all)]
            }
            (OneOrMany::Many(texts), Evidence::One(ids)) => {
                let first =
                    texts.first().map(|text| of(self.question_id.clone(), text, ids.clone(), ids.clone()));
                first.into_iter().collect()
            }
        }
    }

    /// The sessions in which others than the user give the answer. A session in which no turn at all is marked
    /// says nothing about that.
    fn hidden(&self) -> BTreeSet<&str> {
        let hides = |turns: &[Turn]| {
            let marked = turns.iter().any(|turn| turn.has_answer.is_some());
            let said = turns.iter().any(|turn| turn.role == "user" && turn.has_answer == Some(true));
            let silent = !turns.iter().any(|turn| turn.role == "user");
            (marked && !said) || silent
        };
        let named = self.haystack_session_ids.iter().zip(&self.haystack_sessions);
        named.filter(|(_, turns)| hides(turns)).map(|(id, _)| id.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::layout::each;

    fn read(text: &str) -> Vec<Haystack> {
        let mut all = Vec::new();
        each(text.as_bytes(), |entry: Entry| {
            all.push(entry.haystack());
            Ok(())
        })
        .unwrap();
        all
    }

    const OFFICIAL: &str = r#"[{
        "question_id": "q1", "question_type": "multi-session", "question": "How many?", "answer": 3,
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 02:21", "x", "2023/05/23 (Tue) 09:00"],
        "haystack_session_ids": ["answer_a_1", "s2", "answer_a_2", "answer_a_3"],
        "haystack_sessions": [
            [{"role": "user", "content": "One.", "has_answer": true},
             {"role": "assistant", "content": "Never indexed.", "has_answer": false},
             {"role": "user", "content": "Two.", "has_answer": false}],
            [{"role": "user", "content": "Noise."}],
            [{"role": "user", "content": "Ask.", "has_answer": false},
             {"role": "assistant", "content": "Told.", "has_answer": true}],
            [{"role": "assistant", "content": "Alone.", "has_answer": true}]],
        "answer_session_ids": ["answer_a_1", "answer_a_2", "answer_a_3"]
    }, {
        "question_id": "q2_abs", "question_type": "single-session-user", "question": "Who?", "answer": "unknown",
        "haystack_session_ids": ["answer_b"],
        "haystack_sessions": [[{"role": "user", "content": "x", "has_answer": false}]],
        "answer_session_ids": ["answer_b"]
    }]"#;

    #[test]
    fn only_the_user_is_indexed() {
        let first = &read(OFFICIAL)[0];
        let texts: Vec<&str> = first.sessions.iter().map(|session| session.text.as_str()).collect();
        assert_eq!(texts, ["One.\n\nTwo.", "Noise.", "Ask.", ""]);
        assert_eq!(first.sessions[0].date.as_deref(), Some("2023-05-20T02:21:00Z"));
        assert_eq!(first.sessions[2].date, None);
    }

    #[test]
    fn gold_is_what_the_user_said() {
        let all = read(OFFICIAL);
        let question = &all[0].questions[0];
        assert_eq!(question.stated, ["answer_a_1", "answer_a_2", "answer_a_3"]);
        assert_eq!(question.gold, ["answer_a_1"]);
        assert_eq!(question.now.as_deref(), Some("2023-05-30T23:40:00Z"));
        assert!(!question.abstention);
        let second = &all[1].questions[0];
        assert!(second.abstention && second.gold.is_empty());
        assert_eq!((second.stated.len(), second.now.clone()), (1, None));
    }

    #[test]
    fn many_questions_share_a_haystack() {
        let all = read(
            r#"[{"question_id": "h", "question_type": "t", "questions": ["A?", "B?"], "answers": ["a", "b"],
                "question_date": "2023/05/30 (Tue) 23:40", "haystack_dates": ["2023/05/20 (Sat) 02:21"],
                "haystack_session_ids": ["s1", "s2"],
                "haystack_sessions": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]],
                "answer_session_ids": [["s1"], ["s2", "s1"]]}]"#,
        );
        let questions = &all[0].questions;
        assert_eq!((questions[0].id.as_str(), questions[0].gold.clone()), ("h#0", vec!["s1".to_owned()]));
        assert_eq!((questions[1].text.as_str(), questions[1].gold.len()), ("B?", 2));
    }

    #[test]
    fn the_real_haystacks_are_read() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let Ok(file) = std::fs::File::open(path.join("longmemeval/s_haystacks.json")) else {
            println!("skipped: no ../shared/data/longmemeval/s_haystacks.json");
            return;
        };
        let mut sizes = Vec::new();
        each(file, |entry: Entry| {
            let haystack = entry.haystack();
            assert!(haystack.questions.iter().all(|question| question.now.is_some()));
            assert!(haystack.sessions.iter().all(|session| session.date.is_some()));
            sizes.push(haystack.sessions.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(sizes.len(), 3);
        assert!(sizes.iter().all(|size| (39..=41).contains(size)), "{sizes:?}");
    }
}
