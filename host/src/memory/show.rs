//! Versions as the surfaces show them, and as an export carries them.

use serde_json::{Value, json};

use super::{
    MemoryError,
    engine::{Engine, State},
    merge::Standing,
    record::{Entry, Version},
    redact::redact,
    request::{Item, ItemState},
};

/// The version with this ordinal, secrets removed once more: rules may have come since it was written.
pub(super) fn item(engine: &Engine, ordinal: u32) -> Result<Item, MemoryError> {
    let version = engine.version_of(ordinal)?;
    let state = engine.read();
    Ok(describe(&state, ordinal, version))
}

fn describe(state: &State, ordinal: u32, version: Version) -> Item {
    let header = version.header;
    let text = version.body.unwrap_or_default();
    Item {
        id: header.id,
        content: redact(&text).text.into_owned(),
        kind: header.kind,
        project: header.project,
        tags: header.tags,
        occurred_at: header.occurred_at,
        valid_until: header.valid_until,
        created_at: super::record::Millis(header.stamp.wall_ms()),
        origin: header.origin.to_string(),
        source: header.source,
        supersedes: header.supersedes,
        state: state_of(state, ordinal),
        conflicts_with: state.table.conflicts(ordinal),
        score: 0.0,
        explain: None,
    }
}

fn state_of(state: &State, ordinal: u32) -> ItemState {
    if state.table.row(ordinal).is_none_or(|row| row.erased) {
        return ItemState::Erased;
    }
    match state.table.standing(ordinal) {
        Some(Standing::Live) => ItemState::Live,
        Some(Standing::Forgotten | Standing::Tombstone) => ItemState::Forgotten,
        _ => ItemState::Superseded,
    }
}

/// An entry of the log as one line of an export. A text that holds a secret by today's rules loses its signature:
/// it cannot be restored as the same version, only read.
pub(super) fn line(entry: &Entry) -> Value {
    match entry {
        Entry::Version(version) => {
            let mut version = version.clone();
            let redacted = version.body.as_deref().map(redact).filter(|found| !found.redactions.is_empty());
            let removed = redacted.map(|found| found.text.into_owned());
            let withheld = removed.is_some();
            if let Some(text) = removed {
                version.body = Some(text);
            }
            json!({"type": "version", "format": super::record::ENTRY_FORMAT, "redacted": withheld, "version": *version})
        }
        Entry::Vectors(vectors) => {
            json!({"type": "vectors", "format": super::record::ENTRY_FORMAT, "vectors": vectors})
        }
    }
}

/// The entry of a line of an export, verified.
pub(super) fn entry(line: Value) -> Result<Entry, MemoryError> {
    let wrong = |reason: String| MemoryError::Invalid { field: "line", reason };
    let Value::Object(mut object) = line else { return Err(wrong("it is no object".into())) };
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let entry = match kind.as_str() {
        "version" => {
            let version = object.remove("version").unwrap_or_default();
            serde_json::from_value(version).map(|version| Entry::Version(Box::new(version)))
        }
        "vectors" => serde_json::from_value(object.remove("vectors").unwrap_or_default())
            .map(|vectors| Entry::Vectors(Box::new(vectors))),
        other => return Err(wrong(format!("`{other}` is no type of line of an export"))),
    }
    .map_err(|error| wrong(error.to_string()))?;
    entry.verify().map_err(|error| wrong(error.to_string()))?;
    Ok(entry)
}
