//! The data sets' own file layouts, read into one vocabulary.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, Read},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use serde::{
    Deserializer as _,
    de::{DeserializeOwned, Error as _, SeqAccess, Visitor},
};

pub mod locomo;
pub mod longmemeval;
pub mod pool;

/// One conversation, and one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name in the data set. Stays in the harness: in LongMemEval the names give the answers away.
    pub id: String,
    /// What is remembered; a session without text cannot be remembered.
    pub text: String,
    /// When it was held, as RFC 3339.
    pub date: Option<String>,
}

/// A question and where its answer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Its name in the data set.
    pub id: String,
    /// What sort of question it is.
    pub kind: String,
    /// The question.
    pub text: String,
    /// When it is asked, as RFC 3339.
    pub now: Option<String>,
    /// Whether the right answer is that nothing is known.
    pub abstention: bool,
    /// The sessions that the data set names as evidence.
    pub stated: Vec<String>,
    /// Those of them in which the user says it: what is indexed can only be found by those.
    pub gold: Vec<String>,
}

/// Sessions that are searched together, and the questions about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Haystack {
    /// The sessions, in the data set's order.
    pub sessions: Vec<Session>,
    /// The questions.
    pub questions: Vec<Question>,
}

/// Joins turns into the text of a record. A blank line keeps them apart, as in a note that a person would write.
pub fn join<S: AsRef<str>>(turns: impl IntoIterator<Item = S>) -> String {
    let mut text = String::new();
    for turn in turns {
        let turn = turn.as_ref().trim();
        if !turn.is_empty() {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(turn);
        }
    }
    text
}

/// All objects of a file of JSON Lines.
///
/// # Errors
/// That the file cannot be read, or which line is wrong.
pub fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut all = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        if !line.trim().is_empty() {
            let object = serde_json::from_str(&line);
            all.push(object.with_context(|| format!("{}, line {}", path.display(), index + 1))?);
        }
    }
    Ok(all)
}

/// Hands out the elements of a JSON array one by one, so that a file of gigabytes needs the memory of one element.
///
/// # Errors
/// What is wrong with the JSON, or the first error of `take`.
pub fn each<T: DeserializeOwned>(from: impl Read, mut take: impl FnMut(T) -> Result<()>) -> Result<()> {
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 20, from));
    let step = |element: T| {
        take(element).map_err(|error| {
            failure = Some(error);
        })
    };
    let read = deserializer.deserialize_seq(Each { step, element: std::marker::PhantomData });
    match (failure, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(anyhow!(error).context("not the layout that was expected")),
        (None, Ok(())) => Ok(()),
    }
}

struct Each<T, F> {
    step: F,
    element: std::marker::PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> Result<(), ()>> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of questions")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.step)(element).map_err(|()| A::Error::custom("stopped"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_kept_apart_and_empty_ones_left_out() {
        assert_eq!(join([" a ", "", "b\n", "  "]), "a\n\nb");
        assert_eq!(join(Vec::<String>::new()), "");
    }

    #[test]
    fn an_array_is_handed_out_element_by_element() {
        let mut seen = Vec::new();
        each(&b"[1, 2,\n3]"[..], |n: u32| {
            seen.push(n);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [1, 2, 3]);
    }

    #[test]
    fn an_error_of_the_taker_comes_through_and_stops() {
        let mut seen = 0;
        let error = each(&b"[1, 2, 3]"[..], |n: u32| {
            seen += 1;
            if n == 2 { Err(anyhow!("enough")) } else { Ok(()) }
        });
        assert_eq!((seen, error.unwrap_err().to_string().as_str()), (2, "enough"));
        assert!(each(&b"{}"[..], |_: u32| Ok(())).is_err());
        assert!(each(&b"[1, \"x\"]"[..], |_: u32| Ok(())).is_err());
    }

    #[test]
    fn lines_say_which_one_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        std::fs::write(&path, "1\n\n2\n").unwrap();
        assert_eq!(lines::<u32>(&path).unwrap(), [1, 2]);
        std::fs::write(&path, "1\nx\n").unwrap();
        assert!(format!("{:#}", lines::<u32>(&path).unwrap_err()).contains("line 2"));
    }
}
