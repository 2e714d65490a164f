//! The fields of requests about the memory, the same over HTTP and MCP, read into what the memory is asked.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::Value;

use super::super::{ApiError, fields::Fields};
use crate::memory::{
    Change, Draft, Filter, ForgetRequest, Kind, Millis, RecallRequest, RecordId, request::MAX_LIMIT,
};

pub use crate::memory::record::{
    MAX_BODY as MAX_CONTENT, MAX_NAME, MAX_REASON, MAX_SUPERSEDES, MAX_TAG, MAX_TAGS,
};

/// Most ids in one request.
pub const MAX_IDS: usize = 1024;
/// Items of a listing that says no number.
pub const DEFAULT_RECENT: usize = 20;
/// Tokens a briefing may have.
pub const BUDGET: RangeInclusive<usize> = 50..=100_000;
/// Tokens of a briefing that says no number.
pub const DEFAULT_BUDGET: usize = 2000;
/// The kinds, as the surfaces write them.
pub const KINDS: [(&str, Kind); 5] = [
    ("fact", Kind::Fact),
    ("decision", Kind::Decision),
    ("task", Kind::Task),
    ("reference", Kind::Reference),
    ("preference", Kind::Preference),
];

/// Reads an id.
///
/// # Errors
/// 400 when it is none.
pub fn id(field: &str, text: &str) -> Result<RecordId, ApiError> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(60).collect();
        ApiError::invalid(field, format!("`{shown}` is not the id of a memory; ids look like 0197c2a4-…"))
    })
}

/// Reads a kind.
///
/// # Errors
/// 400 with the kinds there are.
pub fn kind(field: &str, text: &str) -> Result<Kind, ApiError> {
    KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let names = KINDS.map(|(name, _)| name).join(", ");
        ApiError::invalid(field, format!("`{shown}` is not a kind of memory; there are {names}"))
    })
}

/// What is to be remembered: `content`, `kind`, `project`, `tags`, `occurred_at`, `valid_until`, `supersedes`,
/// `source`.
///
/// # Errors
/// 400 naming the field, 413 for a text that is too long.
pub fn draft(fields: &mut Fields) -> Result<Draft, ApiError> {
    let content = content(fields)?.ok_or_else(|| {
        ApiError::invalid(fields.name("content"), "is required and must be a text that is not empty")
    })?;
    Ok(Draft {
        content,
        kind: one_kind(fields)?.unwrap_or_default(),
        project: name(fields, "project")?.filter(|name| !name.trim().is_empty()),
        tags: tags(fields)?.unwrap_or_default(),
        occurred_at: moment(fields, "occurred_at")?,
        valid_until: moment(fields, "valid_until")?,
        supersedes: ids(fields, "supersedes", MAX_SUPERSEDES)?,
        source: name(fields, "source")?,
    })
}

/// What an update changes.
///
/// # Errors
/// As [`draft`], and 400 when nothing is to be changed.
pub fn change(fields: &mut Fields) -> Result<Change, ApiError> {
    let change = Change {
        content: content(fields)?,
        kind: one_kind(fields)?,
        project: name(fields, "project")?,
        tags: tags(fields)?,
        occurred_at: moment(fields, "occurred_at")?,
        valid_until: moment(fields, "valid_until")?,
        supersedes: ids(fields, "supersedes", MAX_SUPERSEDES)?,
        source: name(fields, "source")?,
    };
    let unsigned = Change { source: None, ..change.clone() };
    if unsigned == Change::default() {
        let reason = "nothing is to be changed; give content, kind, project, tags, occurred_at, valid_until \
                      or supersedes";
        return Err(ApiError::invalid(fields.name("content"), reason));
    }
    Ok(change)
}

/// A question: `query`, the fields of a filter, `as_of`, `now`, `limit`, `explain`.
///
/// # Errors
/// 400 naming the field.
pub fn recall(fields: &mut Fields) -> Result<RecallRequest, ApiError> {
    Ok(RecallRequest {
        query: fields.required_string("query")?,
        filter: filter(fields)?,
        as_of: moment(fields, "as_of")?,
        now: moment(fields, "now")?,
        limit: limit(fields)?,
        explain: fields.bool("explain")?.unwrap_or_default(),
    })
}

/// Which records are meant: `project`, `kinds`, `tags`, `since`, `until`.
///
/// # Errors
/// 400 naming the field.
pub fn filter(fields: &mut Fields) -> Result<Filter, ApiError> {
    let field = fields.name("kinds");
    let kinds = fields.strings("kinds", KINDS.len())?;
    Ok(Filter {
        project: name(fields, "project")?,
        kinds: kinds.iter().map(|text| kind(&field, text)).collect::<Result<_, _>>()?,
        tags: tags(fields)?.unwrap_or_default(),
        since: moment(fields, "since")?,
        until: moment(fields, "until")?,
    })
}

/// What is to be forgotten: `ids` or a `filter`, `reason`, `hard`, `confirm`.
///
/// # Errors
/// 400 naming the field, also when neither or both of `ids` and `filter` are given.
pub fn forget(fields: &mut Fields) -> Result<ForgetRequest, ApiError> {
    let ids = ids(fields, "ids", MAX_IDS)?;
    let filter = match fields.object("filter")? {
        None => None,
        Some(mut inner) => {
            let wanted = filter(&mut inner)?;
            inner.finish()?;
            Some(wanted)
        }
    };
    let reason = fields.string("reason")?;
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(ApiError::invalid(fields.name("reason"), format!("may have at most {MAX_REASON} bytes")));
    }
    match (&filter, ids.is_empty()) {
        (None, true) => {
            return Err(ApiError::invalid(
                fields.name("ids"),
                "say what to forget: `ids`, or a `filter` with project, kinds, tags, since or until",
            ));
        }
        (Some(_), false) => {
            return Err(ApiError::invalid(
                fields.name("filter"),
                "give either `ids` or a `filter`, not both",
            ));
        }
        (Some(filter), true) if *filter == Filter::default() => {
            let reason = "describes everything; name at least a project, a kind, a tag or a time";
            return Err(ApiError::invalid(fields.name("filter"), reason));
        }
        _ => {}
    }
    let (hard, confirm) =
        (fields.bool("hard")?.unwrap_or_default(), fields.bool("confirm")?.unwrap_or_default());
    Ok(ForgetRequest { ids, filter, reason, hard, confirm })
}

/// `limit`, from 1 to [`MAX_LIMIT`].
///
/// # Errors
/// 400.
pub fn limit(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let most = i64::try_from(MAX_LIMIT).unwrap_or(i64::MAX);
    Ok(fields.integer("limit", 1..=most)?.and_then(|limit| usize::try_from(limit).ok()))
}

/// A name such as a project's.
///
/// # Errors
/// 400.
pub fn name(fields: &mut Fields, field: &str) -> Result<Option<String>, ApiError> {
    let name = fields.string(field)?;
    if let Some(name) = &name {
        check_name(&fields.name(field), name, MAX_NAME)?;
    }
    Ok(name)
}

/// Checks the length of a name.
///
/// # Errors
/// 400.
pub fn check_name(field: &str, name: &str, most: usize) -> Result<(), ApiError> {
    if name.len() > most {
        return Err(ApiError::invalid(field, format!("may have at most {most} bytes, not {}", name.len())));
    }
    Ok(())
}

/// A point in time: RFC 3339, a date, or seconds or milliseconds since 1970.
///
/// # Errors
/// 400.
pub fn moment(fields: &mut Fields, field: &str) -> Result<Option<Millis>, ApiError> {
    let Some(value) = fields.take(field) else { return Ok(None) };
    let millis = match &value {
        Value::String(text) => Millis::parse(text),
        Value::Number(number) if number.is_i64() => Millis::from_number(number.as_i64().unwrap_or_default()),
        _ => return Err(fields.wrong(field, "a time such as 2025-03-31T12:00:00Z or 2025-03-31", &value)),
    };
    millis.map(Some).map_err(|error| ApiError::invalid(fields.name(field), error))
}

/// Ids: a list of at most `most`, or one.
///
/// # Errors
/// 400.
pub fn ids(fields: &mut Fields, field: &str, most: usize) -> Result<Vec<RecordId>, ApiError> {
    let full = fields.name(field);
    fields.strings(field, most)?.iter().map(|text| id(&full, text)).collect()
}

fn one_kind(fields: &mut Fields) -> Result<Option<Kind>, ApiError> {
    let field = fields.name("kind");
    fields.string("kind")?.map(|text| kind(&field, &text)).transpose()
}

/// `None` when they were not given, which for an update differs from an empty list.
fn tags(fields: &mut Fields) -> Result<Option<Vec<String>>, ApiError> {
    let given = fields.has("tags");
    let full = fields.name("tags");
    let tags = fields.strings("tags", MAX_TAGS)?;
    for tag in &tags {
        check_name(&full, tag, MAX_TAG)?;
    }
    Ok(given.then_some(tags))
}

fn content(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let Some(text) = fields.string("content")? else { return Ok(None) };
    let field = fields.name("content");
    if text.len() > MAX_CONTENT {
        let message = format!(
            "{field}: has {} bytes, more than the {MAX_CONTENT} one memory may have; split it, or remember \
             where it can be found",
            text.len()
        );
        let mut error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("content_too_large");
        error.param = Some(field);
        return Err(error);
    }
    if text.trim().is_empty() {
        return Err(ApiError::invalid(field, "must not be empty"));
    }
    Ok(Some(text))
}
