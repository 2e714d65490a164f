//! Server-sent events, as far as OpenAI's API uses them.

/// Longest event, in bytes.
const MAX_EVENT: usize = 4 << 20;

/// Bytes that are no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {} MiB", MAX_EVENT >> 20)]
pub(super) struct TooLong;

/// Puts events together from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Events {
    /// Takes more bytes; returns the data of the events that are complete now.
    ///
    /// # Errors
    /// [`TooLong`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut whole = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.line.extend_from_slice(line);
            rest = after.get(1..).unwrap_or_default();
            whole.extend(self.end_line());
            self.check()?;
        }
        self.line.extend_from_slice(rest);
        self.check()?;
        Ok(whole)
    }

    fn check(&self) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() > MAX_EVENT { Err(TooLong) } else { Ok(()) }
    }

    /// Takes a line; an empty one ends the event.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return std::mem::take(&mut self.has_data).then_some(data);
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] =
        "data: {\"a\":\"ö\"}\n\n: a comment\r\nevent: x\r\ndata:one\r\ndata: two\r\n\r\n\n\ndata:\n\ndata: cut".as_bytes();

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn pieces_of_any_size_are_the_same_events(sizes in proptest::collection::vec(1usize..9, 100)) {
            let (mut events, mut rest, mut got) = (Events::default(), TEXT, Vec::new());
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                got.extend(events.push(piece).unwrap());
                rest = after;
            }
            prop_assert_eq!(got, vec!["{\"a\":\"ö\"}".as_bytes().to_vec(), b"one\ntwo".to_vec(), Vec::new()]);
        }

        #[test]
        fn garbage_does_no_harm(bytes: Vec<u8>) {
            let _ = Events::default().push(&bytes);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        let chunk = vec![b'x'; 1 << 20];
        assert_eq!((0..9).map(|_| events.push(&chunk)).find(Result::is_err), Some(Err(TooLong)));
    }
}
