//! Names of pools and machines: short, printable, one way of writing each.

use unicode_normalization::UnicodeNormalization;

/// Longest name of a pool or a machine, in bytes.
pub const MAX_NAME: usize = 64;

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be a name: it {reason}")]
pub struct NameError {
    /// The name, without what cannot be shown.
    pub name: String,
    /// What is wrong.
    pub reason: &'static str,
}

/// The one way `name` is written: composed characters, no white space around it, single blanks within.
///
/// # Errors
/// [`NameError`] when nothing is left, it is longer than [`MAX_NAME`], or has characters that cannot be seen.
pub fn clean(name: &str) -> Result<String, NameError> {
    let composed: String = name.nfc().collect();
    let cleaned = composed.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = match () {
        () if cleaned.is_empty() => "is empty",
        () if cleaned.len() > MAX_NAME => "is longer than 64 bytes",
        () if cleaned.chars().any(unprintable) => "has characters that cannot be seen",
        () => return Ok(cleaned),
    };
    let name = cleaned.chars().filter(|c| !unprintable(*c)).take(MAX_NAME).collect();
    Err(NameError { name, reason })
}

/// `name` with a number, shortened so that both fit.
pub(crate) fn numbered(name: &str, number: usize) -> String {
    let suffix = format!("-{number}");
    let room = name.floor_char_boundary(MAX_NAME.saturating_sub(suffix.len()));
    format!("{}{suffix}", name.get(..room).unwrap_or_default().trim_end())
}

/// Whether a character is invisible, or changes how those around it look: two names must not look the same.
pub(crate) fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        assert_eq!(clean("  My   laptop ").unwrap(), "My laptop");
        assert_eq!(clean("e\u{301}").unwrap(), "\u{e9}");
        for bad in ["", "  ", "a\u{202e}b", "a\u{7}", &"x".repeat(65)] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
        assert_eq!(numbered("box", 2), "box-2");
        assert_eq!(numbered(&"é".repeat(32), 12).len(), 63);
    }
}
