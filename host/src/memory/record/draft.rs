//! What someone asks to be remembered, before it becomes a version.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::{Digest, Kind, Millis, RecordId};

/// The longest text of a record, in bytes: 1 MiB.
pub const MAX_BODY: usize = 1 << 20;
/// The most tags of a record.
pub const MAX_TAGS: usize = 64;
/// The longest tag, in bytes.
pub const MAX_TAG: usize = 64;
/// The longest project or source, in bytes.
pub const MAX_NAME: usize = 128;
/// The most versions one version may supersede.
pub const MAX_SUPERSEDES: usize = 64;

/// One control character in so many characters makes a text binary data.
const BINARY_SHARE: usize = 4;

/// A record as it is written down: text and what is known about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// The text, at most [`MAX_BODY`] bytes.
    pub content: String,
    /// What it is about.
    pub kind: Kind,
    /// The project it belongs to, at most [`MAX_NAME`] bytes; `None` belongs to no project.
    pub project: Option<String>,
    /// Words to find it by, at most [`MAX_TAGS`] of [`MAX_TAG`] bytes.
    pub tags: Vec<String>,
    /// When it happened; `None` if that is not known.
    pub occurred_at: Option<Millis>,
    /// Until when it holds; `None` holds until superseded.
    pub valid_until: Option<Millis>,
    /// The versions it takes the place of, at most [`MAX_SUPERSEDES`].
    pub supersedes: Vec<RecordId>,
    /// Who or what said so, at most [`MAX_NAME`] bytes.
    pub source: Option<String>,
}

/// Why a record is not written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// There is no text.
    #[error("the memory has no text: give it some content")]
    Empty,
    /// The text is longer than [`MAX_BODY`].
    #[error(
        "the memory has {len} bytes of text and {MAX_BODY} fit: split it, or remember where the text is kept"
    )]
    Long {
        /// The length, in bytes.
        len: usize,
    },
    /// The text is binary data.
    #[error("the memory is binary data ({reason}): remember a description and where the data is kept")]
    Binary {
        /// What shows that it is.
        reason: &'static str,
    },
    /// More tags than [`MAX_TAGS`].
    #[error("the memory has {count} tags and {MAX_TAGS} fit: keep those that help to find it")]
    Tags {
        /// How many there are.
        count: usize,
    },
    /// A tag is empty, longer than [`MAX_TAG`], or holds control characters.
    #[error("the tag {tag:?} {problem}: use a word or two, at most {MAX_TAG} bytes")]
    Tag {
        /// The tag, cut at 32 characters.
        tag: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A project or source is empty, longer than [`MAX_NAME`], or holds control characters.
    #[error("the {field} {problem}: use a name of at most {MAX_NAME} bytes, or leave it out")]
    Name {
        /// Which of the fields.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It supersedes more versions than [`MAX_SUPERSEDES`].
    #[error("the memory takes the place of {count} others and {MAX_SUPERSEDES} fit: do it in several steps")]
    Supersedes {
        /// How many there are.
        count: usize,
    },
    /// It stops to hold before it happened.
    #[error(
        "the memory is valid until {valid_until} but happened at {occurred_at}: swap or leave out one of them"
    )]
    Backwards {
        /// When it happened.
        occurred_at: Millis,
        /// Until when it holds.
        valid_until: Millis,
    },
    /// A moment is outside the years 1 to 9999.
    #[error(
        "{field} is outside the years 1 to 9999: check whether it is in seconds or milliseconds since 1970"
    )]
    Time {
        /// Which of the fields.
        field: &'static str,
    },
    /// A tombstone names nothing to forget.
    #[error("there is nothing to forget: name at least one memory")]
    NoTarget,
    /// The reason of a tombstone is too long or holds NUL.
    #[error("the reason to forget has {len} bytes or holds NUL: use a sentence of at most {max} bytes")]
    Reason {
        /// Its length, in bytes.
        len: usize,
        /// The longest that fits, in bytes.
        max: usize,
    },
}

impl DraftError {
    /// The field at fault.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Empty | Self::Long { .. } | Self::Binary { .. } => "content",
            Self::Tags { .. } | Self::Tag { .. } => "tags",
            Self::Name { field, .. } | Self::Time { field } => field,
            Self::Supersedes { .. } | Self::NoTarget => "supersedes",
            Self::Backwards { .. } => "valid_until",
            Self::Reason { .. } => "reason",
        }
    }
}

impl Draft {
    /// Whether it can be written down.
    ///
    /// # Errors
    /// The first [`DraftError`] found.
    pub fn check(&self) -> Result<(), DraftError> {
        check_body(&self.content)?;
        check_facets(self.project.as_deref(), self.source.as_deref(), &self.tags, self.supersedes.len())?;
        check_times(self.occurred_at, self.valid_until)
    }
}

/// Whether a text may be the body of a record.
fn check_body(body: &str) -> Result<(), DraftError> {
    if body.len() > MAX_BODY {
        return Err(DraftError::Long { len: body.len() });
    }
    if body.trim().is_empty() {
        return Err(DraftError::Empty);
    }
    if body.contains('\0') {
        return Err(DraftError::Binary { reason: "it holds NUL characters" });
    }
    let control = body.chars().filter(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')).count();
    if control > 0 && control.saturating_mul(BINARY_SHARE) >= body.chars().count() {
        return Err(DraftError::Binary { reason: "too many of its characters are control characters" });
    }
    Ok(())
}

/// Whether the limits on project, source, tags and superseded versions are kept.
pub(super) fn check_facets(
    project: Option<&str>,
    source: Option<&str>,
    tags: &[String],
    supersedes: usize,
) -> Result<(), DraftError> {
    for (field, name) in [("project", project), ("source", source)] {
        if let Some(problem) = name.and_then(|name| problem(name, MAX_NAME)) {
            return Err(DraftError::Name { field, problem });
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(DraftError::Tags { count: tags.len() });
    }
    for tag in tags {
        if let Some(problem) = problem(tag, MAX_TAG) {
            return Err(DraftError::Tag { tag: tag.chars().take(32).collect(), problem });
        }
    }
    if supersedes > MAX_SUPERSEDES {
        return Err(DraftError::Supersedes { count: supersedes });
    }
    Ok(())
}

/// Whether the moments are in range and in order.
pub(super) fn check_times(
    occurred_at: Option<Millis>,
    valid_until: Option<Millis>,
) -> Result<(), DraftError> {
    for (field, time) in [("occurred_at", occurred_at), ("valid_until", valid_until)] {
        if time.is_some_and(|time| Millis::from_ms(time.0).is_err()) {
            return Err(DraftError::Time { field });
        }
    }
    match (occurred_at, valid_until) {
        (Some(occurred_at), Some(valid_until)) if valid_until < occurred_at => {
            Err(DraftError::Backwards { occurred_at, valid_until })
        }
        _ => Ok(()),
    }
}

/// What is wrong with a name of at most `max` bytes.
fn problem(name: &str, max: usize) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("is empty")
    } else if name.len() > max {
        Some("is too long")
    } else if name.chars().any(char::is_control) {
        Some("holds control characters")
    } else {
        None
    }
}

/// The text that two copies of one memory share, for comparing only: composed Unicode (NFC), `\n` for every
/// line end, no blanks at the ends of lines, one for each run of blanks within, nothing around the whole.
pub fn normalise(body: &str) -> String {
    let mut out = String::with_capacity(body.len());
    let mut blank = false;
    let mut previous = '\0';
    for c in body.nfc() {
        let line_end = matches!(c, '\r' | '\n');
        if line_end && !(c == '\n' && previous == '\r') {
            out.push('\n');
            blank = false;
        } else if !line_end && c.is_whitespace() {
            blank = true;
        } else if !line_end {
            if blank {
                out.push(' ');
            }
            blank = false;
            out.push(c);
        }
        previous = c;
    }
    out.trim().to_owned()
}

/// The hash that two copies of one memory share: BLAKE3 of the [`normalise`]d text.
pub fn body_hash(body: &str) -> Digest {
    Digest::of(normalise(body).as_bytes())
}
