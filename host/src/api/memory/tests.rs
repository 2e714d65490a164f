//! Fields, rights and errors. What the memory answers is tested with the memory.

use serde_json::{Value, json};

use super::*;
use crate::memory::{Filter, Kind, Millis};

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(map) => Fields::new(map),
        other => panic!("no object: {other}"),
    }
}

const ID: &str = "0197c2a4-0000-7000-8000-000000000000";

#[test]
fn wrong_fields_are_named() {
    let draft = |value: Value| {
        let mut fields = fields(value);
        parse::draft(&mut fields).and_then(|_| fields.finish()).unwrap_err()
    };
    let long = "x".repeat(parse::MAX_CONTENT + 1);
    let name = "x".repeat(parse::MAX_NAME + 1);
    for (value, status, param) in [
        (json!({}), 400, "content"),
        (json!({"content": " "}), 400, "content"),
        (json!({"content": 7}), 400, "content"),
        (json!({"content": long}), 413, "content"),
        (json!({"content": "x", "kind": "Fact"}), 400, "kind"),
        (json!({"content": "x", "project": name}), 400, "project"),
        (json!({"content": "x", "tags": ["x".repeat(parse::MAX_TAG + 1)]}), 400, "tags"),
        (json!({"content": "x", "tags": [""]}), 400, "tags"),
        (json!({"content": "x", "tags": vec!["t"; 65]}), 400, "tags"),
        (json!({"content": "x", "occurred_at": "tomorrow"}), 400, "occurred_at"),
        (json!({"content": "x", "occurred_at": 1.5}), 400, "occurred_at"),
        (json!({"content": "x", "valid_until": true}), 400, "valid_until"),
        (json!({"content": "x", "supersedes": ["nonsense"]}), 400, "supersedes"),
        (json!({"content": "x", "contnt": "y"}), 400, "contnt"),
    ] {
        let error = draft(value);
        assert_eq!(
            (error.status.as_u16(), error.param.as_deref()),
            (status, Some(param)),
            "{}",
            error.message
        );
    }
    assert!(draft(json!({"content": "x", "kinds": "fact"})).message.contains("did you mean `kind`"));
    let mut good = fields(
        json!({"content": "x", "tags": "one", "occurred_at": 1_700_000_000, "project": "", "source": null}),
    );
    let read = parse::draft(&mut good).unwrap();
    assert_eq!(
        (read.tags, read.occurred_at, read.project),
        (vec!["one".into()], Some(Millis(1_700_000_000_000)), None)
    );
}

#[test]
fn an_update_changes_something() {
    let change = |value: Value| parse::change(&mut fields(value));
    assert!(change(json!({})).is_err());
    assert!(change(json!({"source": "me"})).is_err());
    assert_eq!(change(json!({"tags": []})).unwrap().tags, Some(vec![]));
    assert_eq!(change(json!({"project": ""})).unwrap().project.as_deref(), Some(""));
    assert_eq!(change(json!({"kind": "task"})).unwrap().kind, Some(Kind::Task));
}

#[test]
fn forgetting_everything_by_mistake_is_refused() {
    let forget = |value: Value| parse::forget(&mut fields(value));
    for value in [
        json!({}),
        json!({"ids": []}),
        json!({"filter": {}}),
        json!({"filter": {"project": null}}),
        json!({"ids": [ID], "filter": {"project": "p"}}),
        json!({"filter": {"projects": "p"}}),
        json!({"filter": "p"}),
        json!({"ids": [ID], "confirm": "yes"}),
    ] {
        assert!(forget(value.clone()).is_err(), "{value}");
    }
    let one = forget(json!({"ids": ID})).unwrap();
    assert!(!one.confirm && !one.hard && one.ids.len() == 1);
    let many = forget(json!({"filter": {"project": "p"}, "hard": true, "confirm": true})).unwrap();
    assert_eq!(many.filter, Some(Filter { project: Some("p".into()), ..Filter::default() }));
}

#[test]
fn addresses_are_read_by_name() {
    let query = |text: &str| Query::of(&text.parse().unwrap()).unwrap();
    let mut good =
        query("/x?project=a%20b&kinds=fact,task&kinds=decision&tags=t&since=2025-01-01&limit=7&vectors");
    let filter = good.filter().unwrap();
    assert_eq!(filter.project.as_deref(), Some("a b"));
    assert_eq!(filter.kinds, [Kind::Fact, Kind::Task, Kind::Decision]);
    assert_eq!((filter.tags, filter.since), (vec!["t".into()], Some(Millis(1_735_689_600_000))));
    assert_eq!((good.limit().unwrap(), good.flag("vectors").unwrap()), (7, true));
    good.finish().unwrap();
    let mut wrong = query("/x?limit=0");
    assert_eq!(wrong.limit().unwrap_err().param.as_deref(), Some("limit"));
    assert!(query("/x?vectors=maybe").flag("vectors").is_err());
    assert!(query("/x?kinds=whim").filter().is_err());
    let mut misspelt = query("/x?limt=3");
    misspelt.limit().unwrap();
    assert!(misspelt.finish().unwrap_err().message.contains("did you mean `limit`"));
}

#[test]
fn errors_of_the_memory_have_their_status() {
    let id = parse::id("id", ID).unwrap();
    let reason = || "why".to_owned();
    for (error, status, code) in [
        (MemoryError::Invalid { field: "tags", reason: reason() }, 400, "invalid_value"),
        (MemoryError::NotFound { id }, 404, "memory_not_found"),
        (MemoryError::Full { reason: reason() }, 507, "disk_full"),
        (MemoryError::Busy, 429, "memory_busy"),
        (MemoryError::Closed, 503, "shutting_down"),
        (MemoryError::InUse { path: "/x".into() }, 503, "memory_in_use"),
        (MemoryError::Failed { reason: reason() }, 500, "memory_failed"),
    ] {
        let refusal = ApiError::from(error);
        assert_eq!((refusal.status.as_u16(), refusal.code), (status, Some(code)));
        assert_eq!(refusal.retry_after.is_some(), status == 429);
    }
}
