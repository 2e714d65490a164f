//! Private keys in blocks: PEM, OpenSSH, PGP, PuTTY; whole, cut off, or on one line with `\n` for the breaks.

use std::sync::LazyLock;

use regex::Regex;

use super::SecretKind;
use super::scan::{Rank, Scan, compile};

/// What a block begins with.
pub(super) const ANCHORS: &[&str] = &["-----BEGIN ", "---- BEGIN ", "PuTTY-User-Key-File-"];

/// Most bytes of a block; the longest real keys have a tenth of it.
const LIMIT: usize = 64 << 10;

/// Fewest characters of key material that make a block a key and not talk about one.
const BODY_MIN: usize = 16;

static HEAD: LazyLock<Option<Regex>> =
    LazyLock::new(|| compile(r"^-{4,5} ?BEGIN ([A-Z0-9 ]{0,30}?)PRIVATE KEY(?: BLOCK)? ?-{4,5}"));
static PUTTY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    compile(concat!(
        r"^PuTTY-User-Key-File-\d:(?s:.{0,4000}?)Private-Lines: ?\d+\s+((?:[A-Za-z0-9+/=]{4,}\s+)+)(?:Pr",
        r"ivate-MAC: [0-9a-f]+)?",
    ))
});
static TAIL: LazyLock<Option<Regex>> =
    LazyLock::new(|| compile(r"^-{4,5} ?END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)? ?-{4,5}"));

/// Looks at the block that may begin at `start`.
pub(super) fn at(scan: &mut Scan<'_>, start: usize) {
    if scan.found.last().is_some_and(|last| last.rank == Rank::Form && last.end > start) {
        return;
    }
    let head = scan.window(start, 80);
    if head.starts_with('P') {
        putty(scan, start);
        return;
    }
    let Some(found) = HEAD.as_ref().and_then(|regex| regex.captures(head)) else { return };
    let name = found.get(1).map_or("", |m| m.as_str());
    let from = start + found.get(0).map_or(0, |m| m.end());
    let kind = match name.trim() {
        "OPENSSH" | "SSH2 ENCRYPTED" => SecretKind::SshPrivateKey,
        "PGP" => SecretKind::PgpPrivateKey,
        _ if is_service_account(scan, start) => SecretKind::GcpServiceAccount,
        _ => SecretKind::PrivateKey,
    };
    let (chars, end) = body(scan.text, from);
    let read = scan.window(from, end - from);
    if chars >= BODY_MIN && !read.is_empty() {
        scan.push(start, end, kind, Rank::Form);
    }
}

/// Whether the block is the value of `private_key` in a service account's file.
fn is_service_account(scan: &mut Scan<'_>, start: usize) -> bool {
    let before = scan.before(start, 400);
    let near = before.trim_end_matches(['"', '\\', ' ', ':', '\'']);
    near.ends_with("private_key") && (before.contains("private_key_id") || before.contains("service_account"))
}

fn putty(scan: &mut Scan<'_>, start: usize) {
    let window = scan.window(start, 16 << 10);
    if let Some(found) = PUTTY.as_ref().and_then(|regex| regex.find(window)) {
        scan.push(start, start + found.as_str().trim_end().len(), SecretKind::PrivateKey, Rank::Form);
    }
}

/// How many characters of key material follow `from`, and where the block ends.
///
/// It ends behind its END line, or, when that is missing, with the last line that can belong to it.
fn body(text: &str, from: usize) -> (usize, usize) {
    let bytes = text.as_bytes();
    let limit = text.len().min(from.saturating_add(LIMIT));
    let (mut at, mut end, mut chars) = (from, from, 0_usize);
    while at < limit {
        let Some(byte) = bytes.get(at) else { break };
        let run = bytes.get(at..limit).unwrap_or_default().iter().take_while(|b| is_key_byte(**b)).count();
        if run > 0 {
            let header = header_len(bytes, at, limit);
            // Between two lines of a key there is nothing but key; a short run is a word, or the last line.
            let last = run < BODY_MIN && header == 0;
            if last && (chars < BODY_MIN || !is_last_line(bytes, at + run)) {
                break;
            }
            at += if header > 0 { header } else { run };
            chars += if header > 0 { 0 } else { run };
            end = at;
        } else if *byte == b'-' {
            let near = text.get(at..text.floor_char_boundary(at.saturating_add(80))).unwrap_or_default();
            if let Some(tail) = TAIL.as_ref().and_then(|regex| regex.find(near)) {
                end = at + tail.end();
            }
            break;
        } else if *byte == b'\\' && matches!(bytes.get(at + 1), Some(b'n' | b'r' | b't' | b'\\' | b'"')) {
            at += 2;
        } else if byte.is_ascii_whitespace()
            || matches!(byte, b'"' | b'\'' | b'>' | b'#' | b'+' | b',' | b'\\' | b'|' | b'*')
        {
            at += 1;
        } else {
            break;
        }
    }
    (chars, end)
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// The length of a header line (`Proc-Type: 4,ENCRYPTED`) at `at`, or 0.
fn header_len(bytes: &[u8], at: usize, limit: usize) -> usize {
    const NAMES: [&str; 7] =
        ["Proc-Type:", "DEK-Info:", "Version:", "Comment:", "Hash:", "Charset:", "Subject:"];
    let rest = bytes.get(at..limit).unwrap_or_default();
    if !NAMES.iter().any(|name| rest.starts_with(name.as_bytes())) {
        return 0;
    }
    rest.iter().take(200).take_while(|b| !matches!(b, b'\n' | b'\r' | b'\\' | b'"')).count()
}

/// Whether a short run that ends at `at` ends its line, as the last one of a key does.
fn is_last_line(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), None | Some(b'\n' | b'\r' | b'\\' | b'-' | b'"' | b'\''))
        || bytes.get(at..at + 5) == Some(b"-----")
}
