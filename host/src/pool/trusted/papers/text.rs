//! Bytes as text that people copy: base 32 without `i`, `l`, `o` and `u`, a prefix, and a checksum.

use crate::identity::Digest;

/// Digits that are hard to mistake for each other.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Bytes of the checksum.
const CHECK: usize = 4;

/// Why text has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextError {
    /// It begins otherwise.
    Prefix,
    /// Something that is no digit.
    Digit(char),
    /// The checksum differs: mistyped or cut.
    Checksum,
}

/// `bytes` as text on one line.
pub(super) fn write(prefix: &str, bytes: &[u8]) -> String {
    let check = checksum(prefix, bytes);
    let mut text = prefix.to_owned();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes.iter().chain(&check) {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

/// The bytes of text, whatever its case, white space or line breaks.
pub(super) fn read(prefix: &str, text: &str) -> Result<Vec<u8>, TextError> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
    let digits = text.strip_prefix(prefix).ok_or(TextError::Prefix)?;
    let mut bytes = Vec::with_capacity(digits.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for c in digits.chars() {
        held = (held << 5) | value(c).ok_or(TextError::Digit(c))?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.extend(u8::try_from(held >> bits));
            held &= (1 << bits) - 1;
        }
    }
    // Left-over bits are zeros, and less than a digit: one text for the same bytes.
    let split = bytes.len().checked_sub(CHECK).filter(|_| held == 0 && bits < 5);
    let (body, check) =
        bytes.split_at_checked(split.ok_or(TextError::Checksum)?).ok_or(TextError::Checksum)?;
    if check == checksum(prefix, body) { Ok(body.to_vec()) } else { Err(TextError::Checksum) }
}

fn digit(value: u32) -> char {
    let index = usize::try_from(value & 31).unwrap_or_default();
    DIGITS.get(index).copied().map_or('0', char::from)
}

fn value(c: char) -> Option<u32> {
    let c = match c {
        'o' => '0',
        'i' | 'l' => '1',
        other => other,
    };
    let at = DIGITS.iter().position(|digit| char::from(*digit) == c)?;
    u32::try_from(at).ok()
}

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECK] {
    let hash = Digest::of(&[b"potluck text 1\0", prefix.as_bytes(), b"\0", bytes].concat());
    hash.0.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = write("potluck1", &bytes);
            prop_assert_eq!(read("potluck1", &text), Ok(bytes.clone()));
            prop_assert_eq!(read("potluck1", &format!(" {}\r\n", text.to_uppercase())), Ok(bytes));
        }

        #[test]
        fn a_changed_digit_is_noticed(bytes in proptest::collection::vec(any::<u8>(), 1..60), at in any::<u16>()) {
            let text = write("p1", &bytes);
            let at = 2 + usize::from(at) % (text.len() - 2);
            let other = if text.as_bytes()[at] == b'7' { "8" } else { "7" };
            let mut changed = text.clone();
            changed.replace_range(at..=at, other);
            prop_assert!(read("p1", &changed).is_err());
        }
    }

    #[test]
    fn look_alikes_are_read_as_what_was_meant() {
        let text = write("p1", &[0, 0, 68, 33]);
        let mistaken = format!("p1{}", text[2..].replace('0', "O").replace('1', "l"));
        assert_eq!(read("p1", &mistaken), Ok(vec![0, 0, 68, 33]));
        assert_eq!(read("p1", "x"), Err(TextError::Prefix));
        assert_eq!(read("p1", "p1u"), Err(TextError::Digit('u')));
        assert_eq!(read("p1", "p1"), Err(TextError::Checksum));
    }
}
