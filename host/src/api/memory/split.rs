//! Cuts a stream of bytes into the objects of an import, holding no more than one of them.
//!
//! An import is JSON Lines, where a broken line spoils only itself, or one JSON document: an array, or an object
//! whose first field is `results` or `memories` and holds an array.

use std::ops::Range;

/// Names of the array in a document that wraps one.
const WRAPPERS: [&str; 2] = ["results", "memories"];
/// Bytes within which the beginning of a document shows what it is.
const HEAD: usize = 256;

/// One object's bytes, not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The line it begins in, from 1.
    pub line: u64,
    /// Its bytes, or why there are none.
    pub bytes: Result<Vec<u8>, &'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Too little has come.
    Unknown,
    Lines,
    Array,
    /// The array has ended.
    Over,
}

/// Cuts what is fed to it into pieces.
#[derive(Debug)]
pub struct Splitter {
    shape: Shape,
    held: Vec<u8>,
    /// Where what has not been given out begins.
    from: usize,
    /// How far it has been looked at.
    seen: usize,
    line: u64,
    /// Most bytes of a piece.
    cap: usize,
    /// The piece being read is longer than that.
    skipping: bool,
    ended: bool,
    element: Option<Element>,
}

/// An element of an array, while it is read.
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    line: u64,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

const TOO_LONG: &str = "is longer than an object of an import may be";
const CUT: &str = "the input ends in the middle of this object";

impl Splitter {
    /// A splitter whose pieces have at most `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self {
            shape: Shape::Unknown,
            held: Vec::new(),
            from: 0,
            seen: 0,
            line: 1,
            cap,
            skipping: false,
            ended: false,
            element: None,
        }
    }

    /// Takes more bytes; [`Splitter::next`] is then to be called until it gives nothing.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.drain(..self.from);
        self.seen -= self.from;
        self.from = 0;
        self.held.extend_from_slice(bytes);
    }

    /// Says that nothing more comes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next whole object.
    #[expect(clippy::should_implement_trait, reason = "`None` means that more must be fed, not the end")]
    pub fn next(&mut self) -> Option<Piece> {
        if self.shape == Shape::Unknown {
            self.look();
        }
        match self.shape {
            Shape::Unknown | Shape::Over => None,
            Shape::Lines => self.next_line(),
            Shape::Array => self.next_element(),
        }
    }

    /// Finds out what the document is.
    fn look(&mut self) {
        let head = self.held.get(self.from..).unwrap_or_default();
        let mark = b"\xef\xbb\xbf";
        if head.len() < mark.len() && mark.starts_with(head) && !self.ended {
            return;
        }
        let marked = head.strip_prefix(mark);
        let skipped = marked.map_or(0, |_| 3);
        let head = marked.unwrap_or(head);
        let body = head.trim_ascii_start();
        let enough = self.ended || body.len() >= HEAD;
        let opened = match body.first() {
            None => return,
            Some(b'[') => Some(1),
            Some(b'{') => match wrapped(body) {
                None if !enough => return,
                found => found,
            },
            Some(_) => None,
        };
        self.from += skipped;
        match opened {
            Some(length) => {
                let taken = head.len() - body.len() + length;
                let newlines = head.iter().take(taken).filter(|byte| **byte == b'\n').count();
                self.line += newlines as u64;
                self.from += taken;
                self.shape = Shape::Array;
            }
            None => self.shape = Shape::Lines,
        }
        self.seen = self.from;
    }

    fn next_line(&mut self) -> Option<Piece> {
        loop {
            let fresh = self.held.get(self.seen..).unwrap_or_default();
            let Some(found) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.seen = self.held.len();
                if self.seen - self.from > self.cap {
                    self.skipping = true;
                    self.from = self.seen;
                }
                return if self.ended { self.last_line() } else { None };
            };
            let end = self.seen + found;
            let piece = self.line_piece(self.from..end);
            self.line += 1;
            self.from = end + 1;
            self.seen = self.from;
            if piece.is_some() {
                return piece;
            }
        }
    }

    fn last_line(&mut self) -> Option<Piece> {
        let piece = self.line_piece(self.from..self.held.len());
        self.from = self.held.len();
        piece
    }

    fn line_piece(&mut self, range: Range<usize>) -> Option<Piece> {
        let line = self.line;
        if std::mem::take(&mut self.skipping) || range.len() > self.cap {
            return Some(Piece { line, bytes: Err(TOO_LONG) });
        }
        let bytes = self.held.get(range).unwrap_or_default().trim_ascii();
        (!bytes.is_empty()).then(|| Piece { line, bytes: Ok(bytes.to_vec()) })
    }

    fn next_element(&mut self) -> Option<Piece> {
        while let Some(byte) = self.held.get(self.seen).copied() {
            let at = self.seen;
            self.seen += 1;
            self.line += u64::from(byte == b'\n');
            let Some(element) = &mut self.element else {
                match byte {
                    b']' => {
                        self.shape = Shape::Over;
                        return None;
                    }
                    b',' | b' ' | b'\t' | b'\r' | b'\n' => {}
                    _ => {
                        self.from = at;
                        self.seen = at;
                        self.line -= u64::from(byte == b'\n');
                        self.element = Some(Element { line: self.line, ..Element::default() });
                    }
                }
                continue;
            };
            let (whole, keeps) = element.take(byte);
            let line = element.line;
            if whole {
                self.element = None;
                let end = if keeps { at + 1 } else { at };
                let mut piece = self.line_piece(self.from..end);
                // A byte that ends an element without being of it is looked at again: it may end the array.
                self.seen = end;
                self.from = end;
                if let Some(piece) = &mut piece {
                    piece.line = line;
                    return Some(piece.clone());
                }
            } else if self.seen - self.from > self.cap {
                self.skipping = true;
                self.from = self.seen;
            }
        }
        if self.element.is_none() {
            self.from = self.seen;
        }
        if self.ended {
            self.shape = Shape::Over;
            let line = self.element.take().map_or(self.line, |element| element.line);
            return Some(Piece { line, bytes: Err(CUT) });
        }
        None
    }
}

impl Element {
    /// Whether the element is whole with this byte, and whether the byte is part of it.
    fn take(&mut self, byte: u8) -> (bool, bool) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return (false, true);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                return (self.depth == 0, true);
            }
            b',' | b']' if self.depth == 0 => return (true, false),
            _ => {}
        }
        (false, true)
    }
}

/// Bytes up to and including the `[` of an object that wraps an array.
fn wrapped(body: &[u8]) -> Option<usize> {
    let rest = body.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let rest = WRAPPERS.iter().find_map(|name| rest.strip_prefix(name.as_bytes()))?;
    let rest = rest.strip_prefix(b"\"")?.trim_ascii_start().strip_prefix(b":")?;
    let rest = rest.trim_ascii_start().strip_prefix(b"[")?;
    Some(body.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a text fed in parts of every size.
    fn pieces(text: &str, cap: usize) -> Vec<(u64, Result<String, &'static str>)> {
        let mut all = Vec::new();
        for size in [1, 2, 3, 7, 64, text.len().max(1)] {
            let mut splitter = Splitter::new(cap);
            let mut found = Vec::new();
            let mut take = |splitter: &mut Splitter| {
                while let Some(piece) = splitter.next() {
                    found.push((piece.line, piece.bytes.map(|bytes| String::from_utf8(bytes).unwrap())));
                }
            };
            for part in text.as_bytes().chunks(size) {
                splitter.feed(part);
                take(&mut splitter);
                assert!(splitter.held.len() <= cap + size + HEAD + 8, "it holds {}", splitter.held.len());
            }
            splitter.end();
            take(&mut splitter);
            all.push(found);
        }
        assert!(all.windows(2).all(|two| two[0] == two[1]), "{text}: {all:?}");
        all.pop().unwrap()
    }

    fn texts(text: &str) -> Vec<String> {
        pieces(text, 1000).into_iter().map(|(_, bytes)| bytes.unwrap()).collect()
    }

    #[test]
    fn lines_are_cut_at_their_ends() {
        let found = pieces("\u{feff}{\"a\":1}\n\n  {\"b\":2}\r\nnonsense\n{\"c\":3}", 1000);
        let wanted = [(1, "{\"a\":1}"), (3, "{\"b\":2}"), (4, "nonsense"), (5, "{\"c\":3}")];
        assert_eq!(found, wanted.map(|(line, text)| (line, Ok(text.to_owned()))));
        assert_eq!(texts(""), Vec::<String>::new());
        assert_eq!(texts(" \n\n"), Vec::<String>::new());
    }

    #[test]
    fn documents_are_cut_at_their_elements() {
        let tricky = r#"{"x":"a]}\"[{,","y":[1,{"z":[]}]}"#;
        for text in [
            format!("[{tricky},{tricky}]"),
            format!("\n [ {tricky}\n, {tricky} ]\n"),
            format!("{{\"results\": [{tricky},{tricky}], \"relations\": [1]}}"),
            format!("{{ \"memories\" :\n[{tricky} , {tricky}]}}"),
        ] {
            assert_eq!(texts(&text), [tricky, tricky], "{text}");
        }
        assert_eq!(texts("[]"), Vec::<String>::new());
        assert_eq!(texts("[1, \"two,]\", {}]"), ["1", "\"two,]\"", "{}"]);
        let lines: Vec<_> = pieces("[\n{},\n\n{}]", 99).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn what_is_too_long_spoils_only_itself() {
        let long = "x".repeat(500);
        let found = pieces(&format!("{{\"a\":1}}\n{long}\n{{\"b\":2}}\n{long}"), 100);
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(found.iter().filter(|(_, bytes)| bytes.is_err()).count(), 2);
        let found = pieces(&format!("[{{}},\"{long}\",{{}}]"), 100);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].1, Err(TOO_LONG));
    }

    #[test]
    fn a_document_that_is_cut_off_says_so() {
        for text in ["[{\"a\":1}, {\"b\":", "[{\"a\":1}", "[{\"a\":1}, \"x"] {
            let found = pieces(text, 100);
            assert_eq!(found.len(), 2, "{text}");
            assert_eq!(found[1].1, Err(CUT));
        }
    }
}
