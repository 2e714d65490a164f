//! What a value looks like: made by chance, made of words, a placeholder, or a reference to somewhere else.

use super::words;

/// How many characters of each sort a text has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape {
    pub(super) len: usize,
    pub(super) lower: usize,
    pub(super) upper: usize,
    pub(super) digit: usize,
    pub(super) symbol: usize,
    pub(super) space: usize,
    pub(super) distinct: usize,
    /// Shannon entropy in bits per byte.
    pub(super) entropy: f64,
}

impl Shape {
    /// Letters of either case, and those that have none.
    pub(super) fn letters(&self) -> usize {
        self.lower + self.upper
    }
}

/// Counts the characters of a text.
pub(super) fn shape(text: &str) -> Shape {
    let mut shape = Shape::default();
    let mut counts = [0_u32; 256];
    for c in text.chars() {
        shape.len += 1;
        if c.is_ascii_digit() {
            shape.digit += 1;
        } else if c.is_uppercase() {
            shape.upper += 1;
        } else if c.is_alphabetic() {
            shape.lower += 1;
        } else if c.is_whitespace() {
            shape.space += 1;
        } else {
            shape.symbol += 1;
        }
    }
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = text.len().max(1) as f64;
    for count in counts.into_iter().filter(|count| *count > 0) {
        shape.distinct += 1;
        let share = f64::from(count) / total;
        shape.entropy -= share * share.log2();
    }
    shape
}

/// Whether a text ends in the escape of a character: `\n`, `%3D`, `\u0022`, or a terminal's colour.
pub(super) fn ends_in_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let back = |n: usize| bytes.len().checked_sub(n).and_then(|i| bytes.get(i)).copied();
    let hex = |n: usize| back(n).is_some_and(|b| b.is_ascii_hexdigit());
    let letter = back(2) == Some(b'\\') && matches!(back(1), Some(b'n' | b't' | b'r'));
    let percent = back(3) == Some(b'%') && hex(1) && hex(2);
    let unicode = back(6) == Some(b'\\') && back(5) == Some(b'u') && (1..=4).all(hex);
    let colour = back(1) == Some(b'm') && text.contains('\u{1b}');
    letter || percent || unicode || colour
}

/// The pieces of a name: parted at symbols, at `aB` and between letters and digits.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut last = ' ';
    for (at, c) in text.char_indices() {
        let part = if !c.is_alphanumeric() || !last.is_alphanumeric() {
            true
        } else {
            c.is_numeric() != last.is_numeric() || (c.is_uppercase() && !last.is_uppercase())
        };
        if part {
            pieces.extend(text.get(start..at).filter(|p| p.starts_with(char::is_alphanumeric)));
            start = at;
        }
        last = c;
    }
    pieces.extend(text.get(start..).filter(|p| p.starts_with(char::is_alphanumeric)));
    pieces
}

/// Whether letters could be a word: a vowel among them, and not five consonants in a row.
fn is_pronounceable(word: &str) -> bool {
    let mut run = 0;
    let mut vowels = 0;
    for c in word.chars() {
        if !c.is_ascii() || matches!(c.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y') {
            vowels += 1;
            run = 0;
        } else {
            run += 1;
            if run > 4 {
                return false;
            }
        }
    }
    vowels * 5 >= word.chars().count()
}

/// Whether a text is made of words and short numbers, as identifiers and slugs are and keys are not.
pub(super) fn is_wordy(text: &str) -> bool {
    const KNOWN: [&str; 14] =
        ["db", "id", "ssh", "tls", "ssl", "k8s", "prd", "dev", "svc", "http", "rpc", "sql", "gpt", "jwt"];
    let pieces = pieces(text);
    let (mut words, mut chars, mut odd, mut digits) = (0_usize, 0_usize, 0_usize, 0_usize);
    for piece in &pieces {
        let len = piece.chars().count();
        if piece.starts_with(char::is_numeric) {
            odd += usize::from(len > 4);
            digits += len;
        } else if KNOWN.iter().any(|known| piece.eq_ignore_ascii_case(known)) {
            words += 1;
            chars += 4;
        } else {
            words += 1;
            chars += len;
            odd += usize::from(!is_pronounceable(piece) || len > 16);
        }
    }
    let numbers = pieces.len() - words;
    words > 0 && odd == 0 && digits * 4 <= chars * 3 && chars * 2 >= words * 7 && numbers <= words
}

/// Whether a text of at least 16 characters looks made by chance: no spaces, not words, not one number.
pub(super) fn is_random(text: &str) -> bool {
    let shape = shape(text);
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    let mixed = shape.digit > 0 || (shape.upper > 0 && shape.lower > 0);
    let lone = shape.len >= 20 && shape.entropy >= 3.2;
    plain
        && shape.len >= 16
        && shape.letters() > 0
        && shape.entropy >= 2.9
        && (mixed || lone)
        && !is_wordy(text)
        && !is_masked(text)
}

/// Whether the body of a vendor's token could be a real one: varied, not `xxxx`, not words.
pub(super) fn is_body(body: &str) -> bool {
    let shape = shape(body);
    let varied = shape.distinct >= if shape.len >= 16 { 6 } else { 4 };
    let mixed = shape.digit > 0 || (shape.upper > 0 && shape.lower > 0) || shape.entropy >= 3.5;
    let words = is_wordy(body) && (body.contains(['-', '_', '.']) || is_fill_in(body));
    varied && mixed && !is_masked(body) && !words
}

/// Whether part of a text was blotted out, or was never filled in.
pub(super) fn is_masked(text: &str) -> bool {
    const MASKS: [&str; 10] =
        ["xxxx", "XXXX", "****", "...", "…", "••", "____", "####", "----", "0000000000"];
    MASKS.iter().any(|mask| text.contains(mask))
}

/// Whether one of the pieces of a value says that it is to be filled in.
fn is_fill_in(value: &str) -> bool {
    pieces(&value.to_lowercase()).iter().any(|piece| words::has(words::FILL_IN, piece))
}

/// Whether a value only stands for one: `YOUR_API_KEY`, `<token>`, `xxxx`, `${SECRET}`, `required`.
pub(super) fn is_placeholder(value: &str) -> bool {
    let trimmed =
        value.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '.' | ',' | ';'));
    let lower = trimmed.to_lowercase();
    let enclosed = |open: char, close: char| trimmed.starts_with(open) && trimmed.ends_with(close);
    let template = enclosed('<', '>')
        || enclosed('[', ']')
        || enclosed('{', '}')
        || enclosed('%', '%')
        || (trimmed.starts_with("__") && trimmed.ends_with("__"))
        || (enclosed('@', '@') && trimmed.len() > 2)
        || ["<", "${", "$(", "{{", "%(", "%{", "#{", "$$", "%s", "%d", "%v", "{%", "@@"]
            .iter()
            .any(|start| trimmed.starts_with(start))
        || trimmed.contains("${")
        || trimmed.contains("{{");
    let shape = shape(trimmed);
    let flat = shape.len >= 3 && shape.distinct <= 2 || shape.letters() + shape.digit == 0;
    let fill_in = shape.len < 64 && is_wordy(trimmed) && is_fill_in(&lower) && shape.space == 0;
    trimmed.is_empty()
        || template
        || flat
        || fill_in
        || is_variable(trimmed)
        || is_masked(trimmed)
        || words::has(words::STANDINS, lower.as_str())
        || words::has(words::STANDINS, lower.trim_start_matches("my").trim_start_matches(['_', '-']))
}

/// Whether a value is the name of a shell variable: `$SECRET`, `$env:SECRET`, `$token`.
fn is_variable(value: &str) -> bool {
    let Some(name) = value.strip_prefix('$') else { return false };
    let name = name.strip_prefix("env:").unwrap_or(name);
    let word =
        |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | '>' | '.' | ':' | '[' | ']' | '\'');
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.chars().all(word) || (name.chars().all(upper) && name.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Whether a value says where the secret is instead of being it: code, a path, a URL, the name of a vault's
/// entry.
pub(super) fn is_reference(value: &str, quoted: bool) -> bool {
    const STARTS: [&str; 26] = [
        "arn:",
        "vault:",
        "op://",
        "sm://",
        "ssm:",
        "projects/",
        "secret/",
        "secretsmanager",
        "enc[",
        "ref+",
        "file:",
        "env:",
        "env.",
        "sha256:",
        "sha512:",
        "sha256-",
        "sha384-",
        "sha512-",
        "sha1-",
        "sha1:",
        "md5:",
        "!vault",
        "!ref",
        "!secret",
        "!sub",
        "@microsoft.keyvault",
    ];
    let lower = value.to_lowercase();
    if STARTS.iter().any(|start| lower.starts_with(start)) || value.contains("://") || is_path(value) {
        return true;
    }
    if quoted {
        return false;
    }
    let (head, rest) = match value.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        Some(at) => value.split_at(at),
        None => (value, ""),
    };
    let named = head.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let source = words::has(words::SOURCES, head.to_lowercase().as_str());
    let access =
        rest.starts_with('(') || rest.starts_with('[') || rest.starts_with("::") || rest.starts_with("->");
    let dotted =
        rest.starts_with('.') && (source || (is_wordy(value) && !value.contains(|c: char| c.is_numeric())));
    let generic = rest.starts_with('<') || rest.starts_with("?.") || value.contains("()");
    named && (access || dotted || generic) || value.starts_with("&") || value.starts_with('(')
}

/// Whether a value is the path or the name of a file.
fn is_path(value: &str) -> bool {
    const ENDINGS: [&str; 16] = [
        ".pem", ".key", ".txt", ".json", ".yaml", ".yml", ".env", ".crt", ".gpg", ".md", ".py", ".rs", ".ts",
        ".js", ".go", ".toml",
    ];
    let rooted = ["/", "./", "../", "~/"].iter().any(|root| value.starts_with(root));
    let drive = value.get(1..3).is_some_and(|at| at == ":\\" || at == ":/");
    let lower = value.to_lowercase();
    let file = ENDINGS.iter().any(|ending| lower.ends_with(ending));
    drive || ((rooted || file) && is_wordy(value))
}

/// Whether a text of several words reads as a sentence rather than as a passphrase.
pub(super) fn is_prose(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        words::has(words::FUNCTION_WORDS, word.as_str())
    })
}

/// Whether one plain word says something of a password instead of being it.
pub(super) fn is_state(word: &str) -> bool {
    const ENDINGS: [&str; 20] = [
        "ed", "ing", "able", "ible", "ory", "ive", "ent", "ant", "al", "ous", "ful", "less", "ic", "ary",
        "ly", "tion", "ment", "ness", "ity", "ated",
    ];
    let lower = word.to_lowercase();
    let ending = lower.len() > 4 && ENDINGS.iter().any(|ending| lower.ends_with(ending));
    ending || words::has(words::STATES, lower.as_str()) || words::has(words::FUNCTION_WORDS, lower.as_str())
}

/// Whether a word is a term of the trade (`SHA-256`, `base64`, `12-character`, `8+`) and not a password.
pub(super) fn is_technical(word: &str) -> bool {
    const TERMS: [&str; 34] = [
        "sha", "md", "base", "utf", "aes", "argon", "bcrypt", "pbkdf", "scrypt", "rsa", "hmac", "oauth",
        "http", "totp", "ascii", "pkcs", "rot", "v", "blake", "ed", "tls", "ssl", "ipv", "iso", "rfc",
        "latin", "crc", "gpt", "claude", "llama", "qwen", "curve", "chacha", "password",
    ];
    let lower = word.to_lowercase();
    if let Some(first) = lower.find(|c: char| c.is_ascii_digit()) {
        let (head, tail) = lower.split_at(first);
        let head = head.trim_end_matches(['-', '_']);
        let digits = tail.chars().take_while(|c| c.is_ascii_digit()).count();
        let after = tail.get(digits..).unwrap_or_default();
        let plain =
            |s: &str| s.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '-' | '_' | '+' | '.' | ':'));
        if head.is_empty() {
            const UNITS: [&str; 14] = [
                "char", "day", "hour", "min", "sec", "bit", "byte", "st", "nd", "rd", "th", "fa", "password",
                "digit",
            ];
            let unit = after.trim_start_matches(['-', '+']);
            return (unit.is_empty() && !after.is_empty())
                || UNITS.iter().any(|u| unit.starts_with(u))
                || is_span(tail);
        }
        return TERMS.contains(&head)
            && after.len() <= 12
            && (plain(after) || head.len() > 1 && after.len() <= 6);
    }
    false
}

/// Whether a text is a range or a date: `8-16`, `2024-05-01`, `10:30`.
fn is_span(text: &str) -> bool {
    let parts = |by: char| {
        let mut n = 0;
        text.split(by).all(|part| {
            n += 1;
            !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit())
        }) && (2..=3).contains(&n)
    };
    parts('-') || parts('/') || parts('.') || parts(':')
}
