//! Values that a name announces: `password = "…"`, `"api_key": "…"`, `my password is …`, `--token …`.

use std::sync::LazyLock;

use regex::Regex;

use super::SecretKind;
use super::class::{self, Class};
use super::scan::{Rank, Scan, compile};
use super::value;

mod extract;

use self::extract::{Value, extract};

/// Most bytes of a name to either side of the part that woke us.
const NAME_REACH: usize = 64;

/// How a value is tied to its name, and with that how much the value itself has to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// `=` or `:` or the like.
    Assign,
    /// "is", "to": a sentence.
    Speech,
    /// In quotes right behind the name.
    Quoted,
    /// `value="…"` of an element, `name:` and `value:` of a list.
    Attribute,
    /// `>…<`, `| … |`.
    Cell,
    /// Nothing but a space, or a line's end.
    Bare,
}

/// What may stand between a name and its value. Order matters: the first that yields a secret ends the
/// search.
const TIES: &[(Tie, &str)] = &[
    (
        Tie::Assign,
        concat!(
            r#"^[?!]?[ \t]*:[ \t]*&?(?:'[a-z]+[ \t]+)?[A-Za-z][A-Za-z0-9_.<>:|?\[\] ]{0,40}?[ \t]*=[ \t]*(?"#,
            r#":[A-Za-z.:]{0,24}\()?["'`]"#,
        ),
    ),
    (
        Tie::Assign,
        concat!(
            r#"^(?:\\?["'`’”»\])}*_]|&quot;|\\u0022|%22){0,5}[ \t]*(?:\([^()\n]{1,40}\)[ \t]*)?[*_]{0,2}[ "#,
            r#"\t]*(?::=|=>|->|→|~>|===?|=|:|：|＝|%3[dD]|%3[aA])[*_]{0,2}[ \t]*(?:(?i:basic|bearer|token)[ "#,
            r#"\t]+)?"#,
        ),
    ),
    (
        Tie::Attribute,
        concat!(
            r#"^\\?["']?[ \t]*(?:type=["'][a-z]+["'][ \t]*)?,?\s{0,40}(?:-[ \t]*)?\\?["']?(?i:value|content"#,
            r#")\\?["']?[ \t]*[:=][ \t]*"#,
        ),
    ),
    (
        Tie::Speech,
        concat!(
            r#"^(?:["'`’”*)]{0,3})(?:[ \t]+(?i:for|of|to|on|at|in|from|für|del|de|pour)[ \t]+[^\n.;:=!?"'`]"#,
            r#"{1,60}?)?,?[ \t]+(?i:is now|is set to|was set to|has been set to|has been changed to|was cha"#,
            r#"nged to|got changed to|is still|was|is|are|will be|should be|equals|to be|reads|set to|chang"#,
            r#"ed to|to|ist|lautet|est|es|é|è|jest|это|here|like|with)[ \t]*(?i:(?:now|still|currently|just"#,
            r#"|literally|probably|apparently)[ \t]+)?:?[ \t]*"#,
        ),
    ),
    (
        Tie::Assign,
        concat!(
            r#"^[ \t]+(?i:for|of|to|on|at|in|from)[ \t]+[^\n.;:=!?"'`()\[\]"#,
            r#"<>#/]{1,50}?[ \t]*(?:\([^()\n]{1,40}\))?[ "#,
            r#"\t]*[:=][*_]{0,2}[ \t]*"#,
        ),
    ),
    (Tie::Speech, r"^[ \t]+from[ \t]+\S{3,64}[ \t]+to[ \t]+"),
    (Tie::Speech, r#"^[ \t]*(?:是|は|为|為|：|은|는)[ \t]*"#),
    (Tie::Quoted, r#"^\\?["'`]{0,1}[\])]?[ \t]*[,({]?[ \t]*(?:[A-Za-z.:]{0,24}\()?["'`“]"#),
    (
        Tie::Cell,
        concat!(
            r#"^[*_`]{0,3}(?:[ \t]+\|[ \t]*|\|[ \t]+|["']?(?:[ \t]+[a-zA-Z:"#,
            r#"]+="[^"<>\n]{0,40}")?[ \t]*>\s{0,20}|</(?"#,
            r#":td|th|dt|b|strong|label|span)>\s{0,20}<(?:td|dd|span|code)>)"#,
        ),
    ),
    (Tie::Bare, r#"^["'`*_)]{0,3}[ \t]*:?[ \t]*\|?[>-]?-?\r?\n[ \t]*"#),
    (Tie::Bare, r"^[ \t]+from[ \t]+"),
    (Tie::Bare, r#"^["'`*_)]{0,3}[ \t]+(?:-[ \t]+|–[ \t]+|—[ \t]+)?"#),
];

static COMPILED: LazyLock<Vec<(Tie, Regex)>> = LazyLock::new(|| {
    TIES.iter().filter_map(|(tie, pattern)| compile(pattern).map(|regex| (*tie, regex))).collect()
});

/// How many of the patterns compile; for a test.
#[cfg(test)]
pub(super) fn is_sound() -> bool {
    COMPILED.len() == TIES.len() && BACKWARD.is_some()
}

/// A name and what it announces.
struct Name<'t> {
    text: &'t str,
    before: &'t str,
    end: usize,
    class: Class,
    /// `--password`: what follows the space is its value.
    flag: bool,
}

/// Looks at the name around the anchor `start..end`.
pub(super) fn at(scan: &mut Scan<'_>, start: usize, end: usize) {
    let back = scan.before(start, NAME_REACH);
    let left = back.bytes().rev().take_while(|b| is_name_byte(*b)).count();
    let right = scan.window(end, NAME_REACH).bytes().take_while(|b| is_name_byte(*b)).count();
    let begin = start - left;
    if scan.name_start == Some(begin) {
        return;
    }
    scan.name_start = Some(begin);
    let whole = scan.text.get(begin..end + right).unwrap_or_default();
    let name = whole.trim_end_matches(['.', '-', '_']);
    let flag = name.starts_with('-');
    let before = scan.before(begin, 48);
    let name_end = begin + name.len();
    let name = name.trim_start_matches(['.', '-', '_']);
    let Some(class) = class::classify(name, before) else { return };
    let name = Name { text: name, before, end: name_end, class, flag };
    if !forward(scan, &name) {
        backward(scan, &name, begin);
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Looks for the value behind the name. Says whether there was one.
fn forward(scan: &mut Scan<'_>, name: &Name<'_>) -> bool {
    let window = scan.window(name.end, 240);
    let mut any = false;
    for (tie, regex) in COMPILED.iter() {
        let Some(found) = regex.find(window) else { continue };
        let mut from = name.end + found.end();
        // Where the tie has eaten the opening quote, the value begins with it.
        if matches!(tie, Tie::Quoted)
            || found.as_str().ends_with(['"', '\'', '`', '“'])
                && !found.as_str().starts_with(['"', '\'', '`'])
        {
            from -= found.as_str().chars().next_back().map_or(0, char::len_utf8);
        }
        let rest = scan.window(from, 700);
        let Some(value) = extract(rest) else { continue };
        // `<password>…` is an element only if it ends like one; else it is a placeholder, or a comparison.
        let element = *tie == Tie::Cell && found.as_str().contains('>');
        if element && !rest.get(value.end..).is_some_and(|tail| tail.trim_start().starts_with("</")) {
            continue;
        }
        let tie =
            if *tie == Tie::Bare && name.flag && !found.as_str().contains('\n') { Tie::Assign } else { *tie };
        if fits(name, tie, &value) {
            let secret = value.secret(rest);
            let kind = kind(name, secret);
            scan.push(from + value.start, from + value.end, kind, Rank::Name);
            any = true;
            // "from X to Y" has two.
            if tie != Tie::Speech {
                break;
            }
        }
    }
    any
}

static BACKWARD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    compile(concat!(
        r#"(?i)(?:^|[\s("'`:])["'`“]?([^\s"'`“”]{5,64}?)["'`”]?,?[ \t]+(?:is|was|as|=|for)[ \t]+(?:(?:m"#,
        r#"y|the|our|your|a|his|her|their|its)[ \t]+)?(?:[a-z0-9.-]+[ \t]+){0,2}$"#,
    ))
});

/// "hunter2 is my password": looks for the value in front of the name.
fn backward(scan: &mut Scan<'_>, name: &Name<'_>, begin: usize) {
    if !matches!(name.class, Class::Password | Class::Key(_) | Class::Loose | Class::PrivateKey)
        || name.text.contains(['_', '.'])
    {
        return;
    }
    // "… is the password hash" speaks of something else.
    let after = scan.window(name.end, 12);
    let next = after.trim_start_matches([' ', '"', '\'', '`', '*', ')']);
    let ends = next.is_empty()
        || next.starts_with(|c: char| !c.is_alphanumeric())
        || ["for ", "to ", "on ", "of ", "there", "now", "at ", "in ", "and ", "btw"]
            .iter()
            .any(|w| next.starts_with(w));
    let window = scan.before(begin, 120);
    let line = window.rsplit('\n').next().unwrap_or_default();
    let Some(found) =
        BACKWARD.as_ref().filter(|_| ends).and_then(|r| r.captures(line)).and_then(|c| c.get(1))
    else {
        return;
    };
    let text = found.as_str().trim_end_matches([',', '.', ')', ';']);
    let shape = value::shape(text);
    let strong = match name.class {
        Class::Password | Class::Loose => {
            shape.letters() > 1
                && (shape.digit > 0 || shape.symbol > 0 && shape.upper > 0)
                && !value::is_technical(text)
        }
        _ => value::is_random(text),
    };
    let refused = value::is_placeholder(text)
        || value::is_reference(text, false)
        || text.contains(['(', '=', '/', '@', '<']) && shape.digit == 0;
    if strong && !refused {
        let start = begin - line.len() + found.start();
        scan.push(start, start + text.len(), kind(name, text), Rank::Name);
    }
}

/// What to call the secret.
fn kind(name: &Name<'_>, secret: &str) -> SecretKind {
    let hex = secret.trim_start_matches("0x");
    let chain = (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        || matches!(secret.len(), 51 | 52 | 87 | 88);
    let around = format!("{} {}", name.before, name.text);
    let lower = around.to_ascii_lowercase();
    match name.class {
        Class::Password | Class::Loose
            if lower.contains("wifi") || lower.contains("wi-fi") || lower.contains("psk") =>
        {
            SecretKind::WifiPassword
        }
        Class::Password | Class::Loose => SecretKind::Password,
        Class::PrivateKey if chain => SecretKind::CryptoPrivateKey,
        Class::PrivateKey => SecretKind::PrivateKey,
        Class::Key(kind) => class::vendor(&around, secret).unwrap_or(kind),
        Class::Pin => SecretKind::Pin,
        Class::Code => SecretKind::OneTimeCode,
        Class::CardCode => SecretKind::CardSecurityCode,
    }
}

/// Whether the value, tied like this to the name, is a secret.
fn fits(name: &Name<'_>, tie: Tie, found: &Value<'_>) -> bool {
    let text = found.text.as_ref();
    let digits = |min: usize, max: usize| {
        let compact: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
        (min..=max).contains(&compact.len()) && compact.bytes().all(|b| b.is_ascii_digit())
    };
    let spoken = tie != Tie::Bare || found.at_end;
    match name.class {
        Class::Pin => digits(4, 8) && !found.goes_on_as_number && tie != Tie::Quoted,
        Class::CardCode => digits(3, 4) && !found.goes_on_as_number,
        Class::Code => (digits(4, 10) && spoken && !found.goes_on_as_number) || is_recovery_code(text),
        _ if is_code(tie, found) || (tie == Tie::Bare && is_verb(name)) => false,
        _ if value::is_placeholder(text) || value::is_reference(text, found.quoted) => false,
        Class::Password => {
            is_password(tie, found, false) || (tie == Tie::Assign && is_slug(name.text, found))
        }
        Class::Loose => is_password(tie, found, true),
        Class::Key(SecretKind::PotluckInvite) => text.len() >= 24 && value::is_random(text),
        Class::Key(_) | Class::PrivateKey => is_key(tie, found),
    }
}

/// Whether a bare value is a piece of code: `Result<…>`, `::new`, `//`, or one side of an equation.
fn is_code(tie: Tie, found: &Value<'_>) -> bool {
    !found.quoted
        && ((tie != Tie::Cell && found.goes_on_as_code)
            || found.text.starts_with(':')
            || found.text.starts_with("//"))
}

/// Whether "pass" may be the verb: only next to a user's name is it a noun.
fn is_verb(name: &Name<'_>) -> bool {
    let before = name.before.to_ascii_lowercase();
    name.class == Class::Loose
        && !["user", "login", "name", "account", "email"].iter().any(|cue| before.contains(cue))
}

/// Codes to recover an account: short groups of letters and digits.
fn is_recovery_code(text: &str) -> bool {
    let shape = value::shape(text);
    shape.digit > 1
        && shape.letters() > 0
        && shape.len >= 8
        && shape.space == 0
        && !value::is_technical(text)
        && !value::is_wordy(text)
}

fn is_key(tie: Tie, found: &Value<'_>) -> bool {
    let text = found.text.as_ref();
    // What has brackets and stands bare is code.
    if value::is_random(text) && (found.quoted || !text.contains(['(', ')', '<', '\\', '{'])) {
        return true;
    }
    let shape = value::shape(text);
    let mixed = shape.digit >= 2 && shape.letters() >= 2 && shape.entropy >= 2.5;
    let short = matches!(tie, Tie::Assign | Tie::Attribute | Tie::Cell) || found.quoted;
    (8..=400).contains(&shape.len)
        && shape.space == 0
        && short
        && mixed
        && !value::is_wordy(text)
        && !value::is_technical(text)
        && !text.contains(['(', '/', '[', '{', '<'])
}

/// Whether a value is a password. `loose`: its name has other uses, so the value has to show it.
fn is_password(tie: Tie, found: &Value<'_>, loose: bool) -> bool {
    let text = found.text.as_ref();
    let core = text.trim_end_matches(['!', '?', '.', '*', ':']);
    let shape = value::shape(core);
    if shape.len < 3 || shape.len > 256 || value::is_technical(core) || value::is_masked(text) {
        return false;
    }
    if shape.space > 0 {
        return is_passphrase(found, core);
    }
    let named = tie != Tie::Bare && !loose;
    let plain = shape.letters() == shape.len;
    let strict = matches!(tie, Tie::Bare | Tie::Quoted) || (loose && !found.quoted);
    if shape.digit == shape.len {
        return named && shape.len >= 4 && (found.quoted || found.at_end) && tie != Tie::Quoted;
    }
    if plain {
        return named && is_word(tie, found, core);
    }
    let joined = core.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '\'' | '’' | '/'));
    let parts = core.split(['-', '_', '.', '/']).count();
    if joined && shape.digit == 0 {
        // "case-sensitive" is said of passwords, "correct-horse-battery-staple" is one.
        let caps = core.split(['-', '_']).filter(|part| part.starts_with(char::is_uppercase)).count() > 1;
        return !core.contains(['.', '/', '\'', '’'])
            && ((parts >= 4 && !strict)
                || (caps && core.contains('-'))
                || (found.quoted && parts >= 3 && !strict));
    }
    if !found.quoted && is_field(core) {
        return false;
    }
    let strong = shape.letters() > 0 && (shape.digit > 0 || shape.symbol > 0) && shape.len >= 6;
    if strict {
        strong && !core.contains(['(', '=', '[', '{']) && (shape.digit > 0 || shape.upper > 0)
    } else {
        shape.len >= 4
    }
}

/// `DB_PASSWORD=my-secret-pw`: small words with dashes, which only a file of settings makes a password of.
fn is_slug(name: &str, found: &Value<'_>) -> bool {
    let text = found.text.as_ref();
    let env = name.contains('_') && !name.contains(|c: char| c.is_lowercase());
    let small = text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    env && small && text.matches('-').count() > 1 && !value::is_technical(text)
}

/// Names of further fields, `password2` and `user_password1`, as code passes them on.
fn is_field(text: &str) -> bool {
    let pieces = value::pieces(text);
    let secret = |p: &&str| {
        matches!(
            p.to_ascii_lowercase().as_str(),
            "password" | "passwd" | "pwd" | "pass" | "pw" | "token" | "secret"
        )
    };
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let plain = !stem.contains(|c: char| c.is_ascii_digit());
    let number = pieces.last().is_none_or(|p| !p.starts_with(|c: char| c.is_ascii_digit()) || p.len() == 1);
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && pieces.iter().any(secret)
        && number
        && plain
}

/// One plain word: a password only where the line ends with it and it says nothing of passwords.
fn is_word(tie: Tie, found: &Value<'_>, core: &str) -> bool {
    let lower = core.chars().skip(1).all(|c| c.is_lowercase());
    let upper = core.chars().all(|c| c.is_uppercase());
    let mixed = !lower && !upper;
    if value::is_state(core) {
        return mixed && !value::is_wordy(core);
    }
    let len = core.chars().count();
    match tie {
        Tie::Assign | Tie::Attribute if found.quoted => len >= 4,
        Tie::Assign | Tie::Attribute | Tie::Cell => {
            (mixed && !value::is_wordy(core)) || (found.at_end && len >= 5 && !mixed)
        }
        Tie::Speech => (mixed && !value::is_wordy(core)) || (len >= 5 && (found.quoted || found.at_end)),
        Tie::Quoted | Tie::Bare => false,
    }
}

/// Several words in quotes, or to the end of a sentence: a passphrase unless they read as prose.
fn is_passphrase(found: &Value<'_>, core: &str) -> bool {
    let words: Vec<&str> = core.split_whitespace().collect();
    let small = words.iter().all(|word| word.chars().all(|c| c.is_alphanumeric() || "-'!?.,".contains(c)));
    (3..=10).contains(&words.len()) && small && !value::is_prose(core) && (found.quoted || found.at_end)
        || (words.len() == 2
            && found.quoted
            && core.contains(|c: char| c.is_ascii_digit())
            && !value::is_prose(core))
}
