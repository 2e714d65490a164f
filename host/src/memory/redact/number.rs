//! Shapes without an anchor: card numbers, bank accounts, and tokens known by how they are parted.

use std::sync::LazyLock;

use regex::Regex;

use super::SecretKind;
use super::scan::{Rank, Scan, compile};
use super::value;

/// Walks the runs of characters that could hold one of the shapes.
pub(super) fn runs(scan: &mut Scan<'_>) {
    let bytes = scan.text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(skip) = rest.iter().position(|b| IN_RUN.get(usize::from(*b)) == Some(&true)) else { break };
        let start = at + skip;
        let run = bytes.get(start..).unwrap_or_default();
        let len = run.iter().position(|b| IN_RUN.get(usize::from(*b)) != Some(&true)).unwrap_or(run.len());
        at = start + len;
        // Behind `\\n` in a string the run begins a letter later.
        let escaped = start.checked_sub(1).and_then(|i| bytes.get(i)) == Some(&b'\\');
        let start = start + usize::from(escaped && matches!(run.first(), Some(b'n' | b'r' | b't')));
        let run = bytes.get(start..at).unwrap_or_default();
        let len = run.len();
        if len >= 36 {
            parted(scan, start, at);
        }
        number(scan, start);
        // `card:4111…` is one run; what counts stands behind the last colon.
        let colon = run.get(..len.min(64)).and_then(|run| run.iter().rposition(|b| *b == b':'));
        if let Some(colon) = colon {
            number(scan, start + colon + 1);
        }
    }
}

/// Looks at the card's or account's number that may begin at `start`.
fn number(scan: &mut Scan<'_>, start: usize) {
    if scan.byte(start).is_some_and(|b| b.is_ascii_digit()) {
        card(scan, start);
    } else if scan.byte(start + 2).is_some_and(|b| b.is_ascii_digit()) {
        iban(scan, start);
    }
}

/// The bytes of a run: letters, digits, and what parts a token.
static IN_RUN: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0_usize;
    while at < 128 {
        let byte = at as u8;
        #[expect(clippy::indexing_slicing, reason = "a constant index below the table's length")]
        {
            table[at] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'~');
        }
        at += 1;
    }
    table
};

/// Tokens that have no fixed prefix; group 1 is the secret.
const PARTED: &[(SecretKind, &str)] = &[
    (
        SecretKind::TelegramToken,
        r"(?:^|[^A-Za-z0-9])(?:bot)?(\d{8,10}:[A-Za-z0-9_-]{34,36})(?:$|[^A-Za-z0-9_-])",
    ),
    (
        SecretKind::DiscordToken,
        concat!(
            r"(?:^|[^A-Za-z0-9_-])((?:mfa\.[A-Za-z0-9_-]{80,}|[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[",
            r"A-Za-z0-9_-]{27,40}))",
        ),
    ),
    (SecretKind::MailKey, r"(?:^|[^a-f0-9])([a-f0-9]{32}-us\d{1,2})(?:$|[^A-Za-z0-9])"),
    (SecretKind::HashicorpToken, r"(?:^|[^A-Za-z0-9])([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{40,})"),
    (
        SecretKind::AzureSecret,
        r"(?:^|[^A-Za-z0-9])([A-Za-z0-9_.~-]{3}\dQ~[A-Za-z0-9_.~-]{31,34})(?:$|[^A-Za-z0-9_~-])",
    ),
    (SecretKind::MessagingToken, r"(?:^|[:.])([A-Za-z0-9_-]{11,22}:APA91b[A-Za-z0-9_-]{60,})"),
];

static COMPILED: LazyLock<Vec<(SecretKind, Regex)>> = LazyLock::new(|| {
    PARTED.iter().filter_map(|(kind, pattern)| compile(pattern).map(|regex| (*kind, regex))).collect()
});

/// Whether every pattern compiles; for a test.
#[cfg(test)]
pub(super) fn is_sound() -> bool {
    COMPILED.len() == PARTED.len()
}

fn parted(scan: &mut Scan<'_>, start: usize, end: usize) {
    let run = scan.text.get(start..end).unwrap_or_default();
    if !run.contains(['.', ':', '~']) && !run.contains("-us") {
        return;
    }
    scan.work = scan.work.saturating_add(run.len());
    for (kind, regex) in COMPILED.iter() {
        for found in regex.captures_iter(run).filter_map(|c| c.get(1)) {
            if value::is_body(found.as_str()) || value::is_random(found.as_str()) {
                scan.push(start + found.start(), start + found.end(), *kind, Rank::Form);
            }
        }
    }
}

/// Looks for a card's number in digits that begin at `start`, alone or in groups.
fn card(scan: &mut Scan<'_>, start: usize) {
    let window = scan.window(start, 32);
    let mut digits: Vec<u8> = Vec::with_capacity(20);
    let mut groups: Vec<usize> = vec![0];
    let mut parting = None;
    let mut end = 0;
    let bytes = window.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if byte.is_ascii_digit() {
            digits.push(byte - b'0');
            if let Some(last) = groups.last_mut() {
                *last += 1;
            }
            end = at + 1;
        } else if matches!(byte, b' ' | b'-' | b'.')
            && parting.is_none_or(|p| p == *byte)
            && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
            && groups.last().is_some_and(|n| *n >= 4)
        {
            parting = Some(*byte);
            groups.push(0);
        } else {
            break;
        }
    }
    // "4111 1111 1111 1111 12/29" reads on into the date.
    while digits.len() > 12 && groups.len() > 4 && !is_grouping(&groups) {
        let extra = groups.pop().unwrap_or(0);
        digits.truncate(digits.len() - extra);
        end -= extra + 1;
    }
    let alone = groups.len() == 1;
    let fits = (alone || is_grouping(&groups)) && is_issued(&digits) && luhn(&digits);
    let dotted = scan.byte(start + end) == Some(b'.')
        && scan.byte(start + end + 1).is_some_and(|b| b.is_ascii_digit());
    if fits
        && scan.begins(start)
        && scan.ends(start + end)
        && !dotted
        && !is_numbered(scan, start, start + end, alone)
    {
        scan.push(start, start + end, SecretKind::CreditCard, Rank::Form);
    }
}

/// Whether groups of digits are those printed on cards.
fn is_grouping(groups: &[usize]) -> bool {
    matches!(
        groups,
        [4, 4, 4, 4] | [4, 6, 5] | [4, 6, 4] | [4, 4, 4, 1] | [4, 4, 5] | [4, 4, 4, 4, 3] | [6, 13]
    )
}

/// Whether what stands before says that a number is of another sort.
fn is_numbered(scan: &mut Scan<'_>, start: usize, end: usize, alone: bool) -> bool {
    const SORTS: [&str; 22] = [
        "order",
        "tracking",
        "invoice",
        "ticket",
        "isbn",
        "imei",
        "serial",
        "phone",
        "tel",
        "fax",
        "case",
        "ref",
        "shipment",
        "parcel",
        "id",
        "uid",
        "timestamp",
        "trace",
        "span",
        "build",
        "ean",
        "booking",
    ];
    let before = scan.before(start, 24);
    if before.ends_with(['.', '+', '/', '_', '#']) || before.ends_with("-") && !before.ends_with(" -") {
        return true;
    }
    let lower = before.to_ascii_lowercase();
    let line = lower.rsplit(['\n', ';', '!', '?']).next().unwrap_or_default();
    let cued = ["card", "visa", "pan"].iter().any(|cue| line.contains(cue));
    // Every other number of 13 digits is a time in milliseconds or a book.
    let short = alone && end - start < 14 && !cued;
    short || alone && !line.contains("card") && value::pieces(line).iter().any(|piece| SORTS.contains(piece))
}

/// Whether an issuer gives out numbers that begin so and are so long.
fn is_issued(digits: &[u8]) -> bool {
    let lead = |n: usize| digits.iter().take(n).fold(0_u32, |all, digit| all * 10 + u32::from(*digit));
    let len = digits.len();
    match lead(4) {
        4000..=4999 => matches!(len, 13 | 16 | 19),
        5100..=5599 | 2221..=2720 => len == 16,
        3400..=3499 | 3700..=3799 => len == 15,
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => matches!(len, 14 | 16),
        6011 | 6440..=6599 => matches!(len, 16 | 19),
        6200..=6299 | 8100..=8199 => (16..=19).contains(&len),
        3528..=3589 => matches!(len, 16 | 19),
        5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => (12..=19).contains(&len),
        2200..=2204 => (16..=19).contains(&len),
        6060..=6069 => len == 16,
        _ => false,
    }
}

/// The check that the last digit of a card's number makes hold.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits.iter().rev().enumerate().fold(0, |sum, (at, digit)| {
        let twice = u32::from(*digit) * if at % 2 == 1 { 2 } else { 1 };
        sum + if twice > 9 { twice - 9 } else { twice }
    });
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != 0)
}

/// The length of a bank account number by country.
const IBAN_LENGTHS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

/// Looks for a bank account's number that begins at `start`.
fn iban(scan: &mut Scan<'_>, start: usize) {
    let window = scan.window(start, 48);
    let Some(country) = window.get(..2).map(str::to_ascii_uppercase) else { return };
    let Some((_, len)) = IBAN_LENGTHS.iter().find(|(name, _)| *name == country) else { return };
    let (mut chars, mut end) = (Vec::with_capacity(*len), 0);
    let mut gap = false;
    for (at, byte) in window.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() {
            chars.push(byte.to_ascii_uppercase());
            end = at + 1;
            gap = false;
            if chars.len() == *len {
                break;
            }
        } else if matches!(byte, b' ' | b'-') && !gap {
            gap = true;
        } else {
            return;
        }
    }
    let checked = chars.get(2..4).is_some_and(|check| check.iter().all(u8::is_ascii_digit));
    if chars.len() == *len && checked && scan.ends(start + end) && scan.begins(start) && mod97(&chars) == 1 {
        scan.push(start, start + end, SecretKind::Iban, Rank::Form);
    }
}

/// The remainder that ISO 7064 asks of an account number: 1 where it is well formed.
fn mod97(chars: &[u8]) -> u32 {
    chars.iter().skip(4).chain(chars.iter().take(4)).fold(0, |rest, byte| {
        let value = u32::from(if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' + 10 });
        (rest * if value > 9 { 100 } else { 10 } + value) % 97
    })
}
