//! What a reader has of an answer, and how another machine's continuation joins on.

use crate::job::{Event, TokenLogprob};

/// Longest answer, in bytes: nobody can make this machine keep more.
const MAX_TEXT: usize = 16 << 20;
/// Most tokens of an answer.
const MAX_TOKENS: usize = 1 << 20;

/// A continuation that does not join on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeamError {
    /// It begins with other text than was said.
    #[error("it goes on with another answer than the one that began")]
    Differs,
    /// The answer has no end.
    #[error("its answer is longer than any answer may be")]
    Endless,
    /// It sends more tokens than were asked for.
    #[error("it sends more tokens than were asked for")]
    Unasked,
}

/// What was passed on to the reader.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// Ids of the tokens, as far as they are known.
    pub(crate) tokens: Vec<u32>,
    logprobs: usize,
    /// Bytes of `text` that the present machine has repeated.
    repeated: usize,
    /// Log-probabilities that the present machine is to repeat.
    skip: usize,
    /// Ids that go with the next text.
    unsaid: Vec<u32>,
    /// Tokens from the present machine.
    pub(crate) own_tokens: usize,
}

impl Said {
    /// Whether the reader has anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs == 0
    }

    /// Another machine begins: it repeats the text from the start and goes on after the tokens.
    pub(crate) fn begin(&mut self) {
        // Beyond the tokens that it is given it computes again what was said without their ids.
        self.skip = self.logprobs.saturating_sub(self.tokens.len());
        self.repeated = 0;
        self.own_tokens = 0;
    }

    /// Whether everything that was said has been repeated.
    pub(crate) fn has_joined(&self) -> bool {
        self.repeated >= self.text.len()
    }

    /// Takes text of the present machine; what the reader does not have yet is to be passed on.
    ///
    /// # Errors
    /// Any [`SeamError`].
    pub(crate) fn take(
        &mut self,
        text: &str,
        logprobs: Vec<TokenLogprob>,
        tokens: &[u32],
        most: Option<u32>,
    ) -> Result<Option<Event>, SeamError> {
        let known = self.text.get(self.repeated..).unwrap_or_default();
        let shared = known.len().min(text.len());
        if known.as_bytes().get(..shared) != text.as_bytes().get(..shared) {
            return Err(SeamError::Differs);
        }
        // Both are text up to here, so it is the bound of a character in both.
        let fresh = text.get(shared..).ok_or(SeamError::Differs)?;
        self.repeated += text.len();
        self.text.push_str(fresh);
        self.tokens.extend_from_slice(tokens);
        self.own_tokens += tokens.len();
        let mut logprobs = logprobs;
        let skip = self.skip.min(logprobs.len());
        self.skip -= skip;
        logprobs.drain(..skip);
        self.logprobs += logprobs.len();
        if most.is_some_and(|most| self.tokens.len() > most as usize || self.logprobs > most as usize) {
            return Err(SeamError::Unasked);
        }
        if self.text.len() > MAX_TEXT || self.tokens.len().max(self.logprobs) > MAX_TOKENS {
            return Err(SeamError::Endless);
        }
        self.unsaid.extend_from_slice(tokens);
        if fresh.is_empty() && logprobs.is_empty() {
            return Ok(None);
        }
        let tokens = std::mem::take(&mut self.unsaid);
        Ok(Some(Event::Text { text: fresh.to_owned(), logprobs, tokens }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logprob(token: &str) -> TokenLogprob {
        TokenLogprob { token: token.into(), bytes: token.into(), logprob: -1.0, top: Vec::new() }
    }

    fn text(event: Option<Event>) -> String {
        match event {
            Some(Event::Text { text, .. }) => text,
            _ => String::new(),
        }
    }

    #[test]
    fn what_is_repeated_is_not_said_twice() {
        let mut said = Said::default();
        assert_eq!(text(said.take("one ", vec![logprob("one ")], &[1], None).unwrap()), "one ");
        assert_eq!(text(said.take("twö", vec![logprob("twö")], &[], None).unwrap()), "twö");
        said.begin();
        assert!(!said.has_joined());
        assert_eq!(text(said.take("on", Vec::new(), &[], None).unwrap()), "");
        assert_eq!(text(said.take("e tw", vec![logprob("twö")], &[2], None).unwrap()), "");
        let joined = said.take("ö three", vec![logprob(" three")], &[3], None).unwrap().unwrap();
        assert!(said.has_joined());
        let Event::Text { text, logprobs, .. } = joined else { panic!("{joined:?}") };
        assert_eq!((text.as_str(), logprobs.len()), (" three", 1));
        assert_eq!((said.text.as_str(), said.tokens.as_slice()), ("one twö three", &[1, 2, 3][..]));
    }

    #[test]
    fn another_answer_is_refused() {
        let mut said = Said::default();
        said.take("abc", Vec::new(), &[1], None).unwrap();
        said.begin();
        assert_eq!(said.take("abd", Vec::new(), &[], None), Err(SeamError::Differs));
        let mut said = Said::default();
        said.take("ö", Vec::new(), &[1], None).unwrap();
        said.begin();
        assert_eq!(said.take("öx", Vec::new(), &[1, 2], Some(2)), Err(SeamError::Unasked));
    }
}
