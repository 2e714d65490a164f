//! Cuts a JSON array into its elements as it is read, so that a file need not fit into the memory.

use std::io::{self, Read};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// One element of the array.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// Its bytes: they begin and end as an element does, and need not be JSON.
    Whole(Vec<u8>),
    /// It has more bytes than fit.
    Long,
    /// The file ends within it.
    Cut,
}

/// Reads the elements of a file that holds one array, or one object.
pub(crate) struct Pieces<R> {
    input: R,
    chunk: Vec<u8>,
    /// What of the chunk was looked at.
    seen: usize,
    held: Vec<u8>,
    most: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether an element is being read, and whether it is too long to be kept.
    inside: bool,
    long: bool,
    over: bool,
}

impl<R: Read> Pieces<R> {
    /// `most`: bytes of the longest element that is kept.
    pub(crate) fn new(input: R, most: usize) -> Self {
        Self {
            input,
            chunk: Vec::new(),
            seen: 0,
            held: Vec::new(),
            most,
            depth: 0,
            in_string: false,
            escaped: false,
            inside: false,
            long: false,
            over: false,
        }
    }

    /// The next element; `None` at the end.
    ///
    /// # Errors
    /// The input's.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        while !self.over {
            if self.seen == self.chunk.len() && !self.fill()? {
                self.over = true;
                return Ok(self.inside.then_some(Piece::Cut));
            }
            if let Some(piece) = self.scan() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.chunk.resize(CHUNK, 0);
        self.seen = 0;
        let count = loop {
            match self.input.read(&mut self.chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.chunk.truncate(count);
        Ok(count > 0)
    }

    /// Looks at the rest of the chunk, to the end of an element.
    fn scan(&mut self) -> Option<Piece> {
        let from = self.seen;
        let rest = self.chunk.get(from..).unwrap_or_default();
        let mut keep = if self.inside { 0..rest.len() } else { rest.len()..rest.len() };
        let mut ended = false;
        for (at, byte) in rest.iter().enumerate() {
            self.seen = from + at + 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' if !self.inside && *byte == b'{' => {
                    self.inside = true;
                    self.depth = 1;
                    keep = at..rest.len();
                }
                b'{' | b'[' if self.inside => self.depth += 1,
                b'}' | b']' if self.inside => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        keep.end = at + 1;
                        ended = true;
                        break;
                    }
                }
                _ => {}
            }
        }
        let kept = rest.get(keep).unwrap_or_default();
        if self.inside && !self.long {
            if self.held.len() + kept.len() > self.most {
                self.long = true;
                self.held = Vec::new();
            } else {
                self.held.extend_from_slice(kept);
            }
        }
        if !ended {
            return None;
        }
        self.inside = false;
        let held = std::mem::take(&mut self.held);
        Some(if std::mem::take(&mut self.long) { Piece::Long } else { Piece::Whole(held) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn pieces(text: &str, most: usize) -> Vec<Piece> {
        let mut all: Vec<Vec<Piece>> = Vec::new();
        for step in [1, 2, 3, 7, 1000] {
            let mut pieces = Pieces::new(Slow(text.as_bytes(), step), most);
            all.push(std::iter::from_fn(|| pieces.next().unwrap()).collect());
        }
        assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
        all.pop().unwrap()
    }

    fn whole(text: &str) -> Piece {
        Piece::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn elements_are_cut_whatever_is_in_them() {
        let tricky = r#"{"a":"}]\"{","b":[{},[1]],"c":"\\"}"#;
        assert_eq!(pieces(&format!("[{tricky},\n{tricky} ]"), 99), [whole(tricky), whole(tricky)]);
        assert_eq!(pieces(tricky, 99), [whole(tricky)]);
        assert_eq!(pieces("\u{feff}[{}]", 99), [whole("{}")]);
        assert_eq!(pieces("[]", 99), []);
        assert_eq!(pieces("", 99), []);
        assert_eq!(pieces("[1, null, \"{\", {}]", 99), [whole("{}")]);
    }

    #[test]
    fn what_is_long_or_cut_is_told_and_the_rest_is_read() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
        assert_eq!(pieces(&format!("[{{}},{long},{{}}]"), 50), [whole("{}"), Piece::Long, whole("{}")]);
        assert_eq!(pieces("[{}, {\"a\": [", 50), [whole("{}"), Piece::Cut]);
        assert_eq!(pieces("[{\"a\": \"x", 50), [Piece::Cut]);
    }
}
