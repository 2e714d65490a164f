//! LoCoMo's own layout: an array of conversations, each of many sessions, with questions whose evidence is a list of
//! turns such as `D1:3`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Haystack, Question, Session, join};
use crate::memory::date::rfc3339;

/// One element of the file.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    #[serde(default)]
    sample_id: String,
    conversation: BTreeMap<String, Value>,
    qa: Vec<Qa>,
}

#[derive(Clone, Debug, Deserialize)]
struct Qa {
    question: String,
    #[serde(default)]
    evidence: Vec<Value>,
    #[serde(default)]
    category: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Turn {
    speaker: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    blip_caption: Option<String>,
}

impl Entry {
    /// The conversation as a haystack of sessions; with `captions`, what is seen on a picture belongs to its turn.
    /// Sessions are named `D1`, `D2`, … as evidence names them. Questions are asked at the time of the last session.
    pub fn haystack(&self, captions: bool) -> Haystack {
        let sessions: Vec<Session> = self.numbered().into_iter().map(|n| self.session(n, captions)).collect();
        let now = sessions.iter().filter_map(|session| session.date.clone()).max();
        let known: BTreeSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        let question = |(index, qa): (usize, &Qa)| {
            let texts = qa.evidence.iter().filter_map(Value::as_str);
            let named: BTreeSet<String> = texts.flat_map(evidence).map(|n| format!("D{n}")).collect();
            let gold: Vec<String> = named.into_iter().filter(|id| known.contains(id.as_str())).collect();
            Question {
                id: format!("{}/{index}", self.sample_id),
                kind: category(qa.category),
                text: qa.question.clone(),
                now: now.clone(),
                abstention: false,
                stated: gold.clone(),
                gold,
            }
        };
        let questions = self.qa.iter().enumerate().map(question).collect();
        Haystack { sessions, questions }
    }

    /// The numbers of the sessions that have turns.
    fn numbered(&self) -> Vec<u32> {
        let number = |key: &String| key.strip_prefix("session_")?.parse().ok();
        let lists = self.conversation.iter().filter(|(_, value)| value.is_array());
        let mut numbers: Vec<u32> = lists.filter_map(|(key, _)| number(key)).collect();
        numbers.sort_unstable();
        numbers
    }

    fn session(&self, number: u32, captions: bool) -> Session {
        let turns = self.conversation.get(&format!("session_{number}")).cloned().unwrap_or_default();
        let turns: Vec<Turn> = serde_json::from_value(turns).unwrap_or_default();
        let line = |turn: &Turn| match turn.blip_caption.as_deref().filter(|_| captions) {
            Some(caption) => format!("{}: {} [picture: {caption}]", turn.speaker, turn.text),
            None => format!("{}: {}", turn.speaker, turn.text),
        };
        let date = self.conversation.get(&format!("session_{number}_date_time"));
        Session {
            id: format!("D{number}"),
            text: join(turns.iter().map(line)),
            date: date.and_then(Value::as_str).and_then(rfc3339),
        }
    }
}

/// The sessions that a piece of evidence names. The file has `D8:6; D9:17`, `D9:1 D4:4` and `D:11:26` too.
fn evidence(text: &str) -> Vec<u32> {
    let after = text.split('D').skip(1);
    let number = |rest: &str| {
        let digits = rest.trim_start_matches(':');
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits.get(..end)?.parse().ok()
    };
    after.filter_map(number).collect()
}

/// The sort of question that a category's number means, as the paper's code has it.
fn category(number: u32) -> String {
    let name = match number {
        1 => "multi-hop",
        2 => "temporal",
        3 => "open-domain",
        4 => "single-hop",
        5 => "adversarial",
        _ => "other",
    };
    format!("{number} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::layout::each;

    const FILE: &str = r#"[{"sample_id": "conv-1", "conversation": {
        "speaker_a": "Ann", "speaker_b": "Bob",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [{"speaker": "Ann", "dia_id": "D1:1", "text": "Hi!"},
                      {"speaker": "Bob", "dia_id": "D1:2", "text": "Look.", "blip_caption": "a dog", "img_url": ["u"]}],
        "session_2_date_time": "7:55 pm on 9 June, 2023",
        "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "I moved."}],
        "session_10_date_time": "7:55 am on 9 July, 2023",
        "session_10": [{"speaker": "Ann", "dia_id": "D10:1", "text": "Bye."}],
        "session_11_date_time": "7:55 am on 9 August, 2023"},
      "qa": [{"question": "When?", "answer": 2023, "evidence": ["D1:2", "D1:1", "D10:1"], "category": 2},
             {"question": "Who?", "adversarial_answer": "x", "evidence": ["D2:1; D9:17"], "category": 5},
             {"question": "Why?", "evidence": [], "category": 3}]}]"#;

    fn read(captions: bool) -> Haystack {
        let mut all = Vec::new();
        each(FILE.as_bytes(), |entry: Entry| {
            all.push(entry.haystack(captions));
            Ok(())
        })
        .unwrap();
        all.remove(0)
    }

    #[test]
    fn sessions_are_read_in_their_order() {
        let haystack = read(false);
        let ids: Vec<&str> = haystack.sessions.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids, ["D1", "D2", "D10"]);
        assert_eq!(haystack.sessions[0].text, "Ann: Hi!\n\nBob: Look.");
        assert_eq!(haystack.sessions[0].date.as_deref(), Some("2023-05-08T13:56:00Z"));
        assert_eq!(read(true).sessions[0].text, "Ann: Hi!\n\nBob: Look. [picture: a dog]");
    }

    #[test]
    fn evidence_becomes_sessions() {
        let questions = read(false).questions;
        assert_eq!((questions[0].id.as_str(), questions[2].id.as_str()), ("conv-1/0", "conv-1/2"));
        assert_eq!(questions[0].gold, ["D1", "D10"]);
        assert_eq!(
            (questions[0].kind.as_str(), questions[0].now.as_deref()),
            ("2 temporal", Some("2023-07-09T07:55:00Z"))
        );
        // There is no session 9.
        assert_eq!(questions[1].gold, ["D2"]);
        assert!(questions[2].gold.is_empty());
        assert_eq!(evidence("D9:1 D4:4 D4:6"), [9, 4, 4]);
        assert_eq!(evidence("D:11:26"), [11]);
        assert_eq!(evidence("D"), Vec::<u32>::new());
    }
}
