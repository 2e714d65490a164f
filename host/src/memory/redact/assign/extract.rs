//! Where a value begins and ends: in quotes, joined from pieces, or bare.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::compile;

/// A value: where it lies in the text that was looked at, and what it reads as.
#[derive(Debug)]
pub(super) struct Value<'t> {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The value with joints and escapes removed.
    pub(super) text: Cow<'t, str>,
    pub(super) quoted: bool,
    /// Whether the line or the sentence ends with the value.
    pub(super) at_end: bool,
    /// Whether a number goes on behind it: `4821-33`, `1234.5`.
    pub(super) goes_on_as_number: bool,
    /// Whether type arguments or an equals sign follow: `Result<T>`, `x = …`.
    pub(super) goes_on_as_code: bool,
}

impl Value<'_> {
    /// The value as it stands in the text.
    pub(super) fn secret<'a>(&self, rest: &'a str) -> &'a str {
        rest.get(self.start..self.end).unwrap_or_default()
    }
}

/// Pairs of quotes; longer ones first.
const QUOTES: &[(&str, &str)] = &[
    ("\"\"\"", "\"\"\""),
    ("'''", "'''"),
    ("```", "```"),
    ("\\\"", "\\\""),
    ("\\u0022", "\\u0022"),
    ("&quot;", "&quot;"),
    ("**", "**"),
    ("\"", "\""),
    ("'", "'"),
    ("``", "``"),
    ("`", "`"),
    ("“", "”"),
    ("„", "“"),
    ("‘", "’"),
    ("«", "»"),
    ("「", "」"),
    ("『", "』"),
    ("<<", ">>"),
    ("||", "||"),
];

static JOINT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    compile(r#"^[ \t]*(?:\+|\.\.?|&|\\|\|\|)?[ \t]*\\?\r?\n?[ \t]*(?:\+|\.\.?|&)?[ \t]*["'`]"#)
});

/// Reads the value at the start of `rest`.
pub(super) fn extract(rest: &str) -> Option<Value<'_>> {
    let bare = rest.trim_start_matches(['*', '_', ' ']);
    let mut skip = if bare.starts_with(['`', '"', '\'']) { rest.len() - bare.len() } else { 0 };
    let open = rest.get(skip..)?;
    // r"…", b'…', L"…", @"…" and the call that wraps a literal.
    let prefix = open
        .bytes()
        .take_while(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'@' | b'$' | b'.' | b':' | b'(' | b'!' | b'&')
        })
        .count();
    let wrapped = open.get(..prefix).is_some_and(|head| prefix <= 2 || head.ends_with('('));
    if prefix > 0 && wrapped && prefix <= 28 && open.get(prefix..).is_some_and(|t| t.starts_with(['"', '\'']))
    {
        let head = open.get(..prefix).unwrap_or_default();
        if is_reader(head) {
            return None;
        }
        skip += prefix;
    }
    match quoted(rest, skip) {
        Some(value) => Some(value),
        None => bare_value(rest),
    }
}

/// Whether a call reads the value from elsewhere: `getenv("X")`.
fn is_reader(call: &str) -> bool {
    let lower = call.to_ascii_lowercase();
    [
        "env", "get", "read", "load", "secret", "lookup", "config", "input", "prompt", "var(", "find",
        "param", "require", "t(", "_(",
    ]
    .iter()
    .any(|part| lower.contains(part))
}

fn quoted(rest: &str, skip: usize) -> Option<Value<'_>> {
    let at = rest.get(skip..)?;
    let (open, close) = QUOTES.iter().find(|(open, _)| at.starts_with(open))?;
    let start = skip + open.len();
    let mut end = start + closing(rest.get(start..)?, close)?;
    let mut text = Cow::Borrowed(rest.get(start..end)?);
    // A literal that goes on in another: "abc" + "def".
    for _ in 0..12 {
        let behind = rest.get(end + close.len()..).unwrap_or_default();
        let Some(joint) = JOINT.as_ref().and_then(|regex| regex.find(behind)) else { break };
        let mark = joint.as_str().chars().next_back().unwrap_or('"');
        if joint.len() < 2
            || !close.ends_with(mark)
            || joint.as_str().contains('\n') && !joint.as_str().contains(['+', '\\', '.', '&'])
        {
            break;
        }
        let next = end + close.len() + joint.end();
        let Some(len) = rest.get(next..).and_then(|tail| closing(tail, close)) else { break };
        text.to_mut().push_str(rest.get(next..next + len).unwrap_or_default());
        end = next + len;
    }
    let after = rest.get(end + close.len()..).unwrap_or_default();
    // A quote behind which code goes on, `"Bearer " + token`, was not the value's.
    let trimmed = text.trim();
    if trimmed.len() < text.len() {
        let lead = text.len() - text.trim_start().len();
        let inner = rest.get(start + lead..end)?.trim_end();
        return Some(finish(
            start + lead,
            start + lead + inner.len(),
            Cow::Owned(trimmed.to_owned()),
            true,
            after,
        ));
    }
    Some(finish(start, end, text, true, after))
}

/// Where the closing quote stands; not on another line, not behind a backslash.
fn closing(text: &str, close: &str) -> Option<usize> {
    let multi = close.len() == 3 && close.is_ascii();
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.find(close)?;
        let inside = text.get(..at)?;
        if !multi && inside.contains('\n') || at > 512 {
            return None;
        }
        let slashes = inside.bytes().rev().take_while(|b| *b == b'\\').count();
        let apostrophe =
            close == "'" && text.get(at + 1..).is_some_and(|t| t.starts_with(char::is_alphabetic)) && at > 0;
        if (slashes % 2 == 0 || close.starts_with('\\')) && !apostrophe {
            return Some(at);
        }
        from = at + close.len();
    }
}

fn bare_value(rest: &str) -> Option<Value<'_>> {
    let mut end = rest.len();
    for (at, c) in rest.char_indices() {
        let tail = rest.get(at + c.len_utf8()..).unwrap_or_default();
        let breaks = tail.is_empty() || tail.starts_with(char::is_whitespace);
        let stop = match c {
            '"' | '\'' | '`' | '<' | '“' | '”' | '«' | '»' | '|' | '。' | '，' | '、' | '！' => {
                true
            }
            ',' | ';' => breaks || is_pair(tail) || tail.starts_with(['"', '\'', '}', ']']),
            '&' => is_pair(tail) || tail.starts_with("amp;"),
            '\\' => tail.starts_with(['n', 'r', 't', '"', '\\']) && at > 0,
            '[' => tail.starts_with("redacted: "),
            _ => c.is_whitespace(),
        };
        if stop {
            end = at;
            break;
        }
    }
    let mut text = rest.get(..end)?;
    let whole = text;
    loop {
        let cut = text.trim_end_matches(['.', ',', ';', ':', '?', '*', '…']);
        let open = |c: char| text.contains(c);
        let cut = match cut.chars().next_back() {
            Some(')') if !open('(') => cut.get(..cut.len() - 1)?,
            Some(']') if !open('[') => cut.get(..cut.len() - 1)?,
            Some('}') if !open('{') => cut.get(..cut.len() - 1)?,
            _ => cut,
        };
        if cut.len() == text.len() {
            break;
        }
        text = cut;
    }
    let end = text.len();
    // Several words to the end of the line may be a passphrase.
    let line = rest.split(['\n', '\r', '"', '.', ',', ';', '(']).next().unwrap_or_default().trim_end();
    if line.len() > whole.len() && is_phrase(line) {
        return Some(finish(0, line.len(), Cow::Borrowed(line), false, rest.get(line.len()..)?));
    }
    (!text.is_empty())
        .then(|| finish(0, end, Cow::Borrowed(text), false, rest.get(end..).unwrap_or_default()))
}

/// Four to eight small words with nothing of a sentence about them.
fn is_phrase(line: &str) -> bool {
    let words = line.split(' ').count();
    let small = line.split(' ').all(|word| word.len() >= 3 && word.bytes().all(|b| b.is_ascii_lowercase()));
    (4..=8).contains(&words) && small && !super::value::is_prose(line)
}

/// Whether `key=` or `"key":` follows.
fn is_pair(text: &str) -> bool {
    let name = text
        .trim_start()
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b' '))
        .count();
    (1..=40).contains(&name) && text.trim_start().get(name..).is_some_and(|tail| tail.starts_with(['=', ':']))
}

fn finish<'t>(start: usize, end: usize, text: Cow<'t, str>, quoted: bool, after: &str) -> Value<'t> {
    let tail = after.trim_start_matches([' ', '\t']);
    let closed = after.trim_start_matches([
        '.', '!', ',', ';', ')', '*', '"', '\'', '`', '}', ']', '?', '<', '|', '&', '\\',
    ]);
    let comment = tail.starts_with('#') || tail.starts_with("//");
    let at_end = tail.is_empty()
        || tail.starts_with(['\n', '\r'])
        || closed.len() < after.len() && !after.starts_with(',')
        || after.starts_with(',')
            && (closed.is_empty() || closed.starts_with(['\n', '\r']) || is_pair(closed))
        || comment;
    let mut next = after.chars();
    let goes_on_as_number = matches!(next.next(), Some('-' | '.' | ',' | '/' | ':' | '%'))
        && next.next().is_some_and(|c| c.is_ascii_digit());
    let goes_on_as_code = (after.starts_with('<') && !after.starts_with("</")) || tail.starts_with("= ");
    Value { start, end, text, quoted, at_end, goes_on_as_number, goes_on_as_code }
}
