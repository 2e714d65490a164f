//! The objects of an import, whoever wrote them, turned into records.
//!
//! What a format says in its own words (an entity's type, a user's id) becomes tags, so that nothing is lost.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::{super::fields::Fields, parse};
use crate::memory::{Draft, Millis};

/// Most bytes of one object of an import: a text as JSON may write it, and its vectors.
pub const MAX_OBJECT: usize = 8 << 20;

/// Whose objects are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Each object shows what it is.
    #[default]
    Auto,
    /// Objects as `POST /potluck/v1/memory` takes them.
    Records,
    /// Our own export.
    Export,
    /// JSON Lines of the MCP reference server `server-memory`.
    ServerMemory,
    /// An export of mem0.
    Mem0,
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "records" => Ok(Self::Records),
            "export" => Ok(Self::Export),
            "server-memory" => Ok(Self::ServerMemory),
            "mem0" => Ok(Self::Mem0),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(format!("`{shown}` is no format; use auto, records, export, server-memory or mem0"))
            }
        }
    }
}

/// What one object says.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// New records; an entity of many observations is many.
    Drafts(Vec<Draft>),
    /// A line of our own export.
    Own(Value),
}

/// Reads one object.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(bytes: &[u8], format: Format) -> Result<Object, String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("is not valid JSON: {error}"))?;
    let Value::Object(map) = value else { return Err("must be a JSON object".into()) };
    let format = if format == Format::Auto { detect(&map) } else { format };
    match format {
        Format::Export => Ok(Object::Own(Value::Object(map))),
        Format::ServerMemory => server_memory(&map).map(Object::Drafts),
        Format::Mem0 => mem0(&map).map(|draft| Object::Drafts(vec![draft])),
        Format::Auto | Format::Records => record(map).map(|draft| Object::Drafts(vec![draft])),
    }
}

/// What an object is. Lines of our own export carry their format.
fn detect(map: &Map<String, Value>) -> Format {
    let kind = map.get("type").and_then(Value::as_str);
    if matches!(kind, Some("version" | "vectors")) && map.contains_key("format") {
        Format::Export
    } else if matches!(kind, Some("entity" | "relation")) && !map.contains_key("content") {
        Format::ServerMemory
    } else if map.contains_key("memory") && !map.contains_key("content") {
        Format::Mem0
    } else {
        Format::Records
    }
}

fn record(map: Map<String, Value>) -> Result<Draft, String> {
    let mut fields = Fields::new(map);
    let draft = parse::draft(&mut fields).map_err(|error| error.message)?;
    fields.finish().map_err(|error| error.message)?;
    Ok(draft)
}

fn text<'a>(map: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    map.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// A name that a tag can hold.
fn tag(name: &str) -> Option<String> {
    let name = name.trim();
    (!name.is_empty() && name.len() <= parse::MAX_TAG).then(|| name.to_owned())
}

/// A name of a project or an agent.
fn named(name: &str) -> Option<String> {
    (name.len() <= parse::MAX_NAME).then(|| name.to_owned())
}

/// An entity's observations are a record each, so that one is found, corrected and forgotten by itself.
fn server_memory(map: &Map<String, Value>) -> Result<Vec<Draft>, String> {
    let draft = |content: String, tags: Vec<String>| Draft {
        content,
        tags,
        source: Some("server-memory".into()),
        ..Draft::default()
    };
    let need =
        |field: &str| text(map, field).ok_or_else(|| format!("{field}: is required and must be a text"));
    if map.get("type").and_then(Value::as_str) == Some("relation") {
        let (from, to, how) = (need("from")?, need("to")?, need("relationType")?);
        let content = format!("{from} {} {to}", how.replace(['_', '-'], " "));
        return Ok(vec![checked(draft(content, vec!["relation".into()]))?]);
    }
    let name = need("name")?;
    let kind = text(map, "entityType");
    let tags: Vec<String> = kind.and_then(tag).into_iter().collect();
    let observations = match map.get("observations") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(observations)) => observations.as_slice(),
        Some(_) => return Err("observations: must be a list of texts".into()),
    };
    if observations.is_empty() {
        let content = kind.map_or_else(|| name.to_owned(), |kind| format!("{name} ({kind})"));
        return Ok(vec![checked(draft(content, tags))?]);
    }
    observations
        .iter()
        .map(|observation| match observation.as_str().map(str::trim) {
            // The name makes an observation such as "likes tea" say who.
            Some(said) if !said.is_empty() => checked(draft(format!("{name}: {said}"), tags.clone())),
            _ => Err("observations: must be a list of texts".into()),
        })
        .collect()
}

fn mem0(map: &Map<String, Value>) -> Result<Draft, String> {
    let content = text(map, "memory").ok_or("memory: is required and must be a text")?.to_owned();
    let empty = Map::new();
    let about = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut tags: Vec<String> = Vec::new();
    for list in [map.get("categories"), about.get("categories"), about.get("tags")] {
        let names = list.and_then(Value::as_array).into_iter().flatten();
        tags.extend(names.filter_map(Value::as_str).filter_map(tag));
    }
    for (field, word) in [("user_id", "user"), ("run_id", "run")] {
        tags.extend(text(map, field).and_then(|id| tag(&format!("{word}:{id}"))));
    }
    let mut kind = None;
    for (name, value) in about {
        let said = match value {
            Value::String(said) => said.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => continue,
        };
        match name.as_str() {
            "kind" | "type" if parse::kind(name, &said).is_ok() => kind = parse::kind(name, &said).ok(),
            "project" => {}
            _ => tags.extend(tag(&format!("{name}:{said}"))),
        }
    }
    tags.sort();
    tags.dedup();
    tags.truncate(parse::MAX_TAGS);
    let occurred_at = text(map, "created_at").and_then(|at| Millis::parse(at).ok());
    let project = text(about, "project").or_else(|| text(map, "app_id")).and_then(named);
    let source = text(map, "agent_id").and_then(named).or_else(|| Some("mem0".into()));
    checked(Draft {
        content,
        kind: kind.unwrap_or_default(),
        project,
        tags,
        occurred_at,
        source,
        ..Draft::default()
    })
}

/// Refuses a text that no record can hold.
///
/// # Errors
/// How long it is.
pub fn checked(draft: Draft) -> Result<Draft, String> {
    let length = draft.content.len();
    if length > parse::MAX_CONTENT {
        return Err(format!("has {length} bytes, more than the {} one memory may have", parse::MAX_CONTENT));
    }
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Kind;

    fn drafts(text: &str) -> Vec<Draft> {
        match read(text.as_bytes(), Format::Auto).unwrap() {
            Object::Drafts(drafts) => drafts,
            Object::Own(value) => panic!("our own: {value}"),
        }
    }

    #[test]
    fn entities_become_a_record_for_each_observation() {
        let line = r#"{"type":"entity","name":"Ann","entityType":"person","observations":["likes tea"," has a \"cat\" "]}"#;
        let found = drafts(line);
        assert_eq!(found[0].content, "Ann: likes tea");
        assert_eq!(found[1].content, "Ann: has a \"cat\"");
        assert_eq!(
            (found[0].tags.clone(), found[0].source.as_deref()),
            (vec!["person".into()], Some("server-memory"))
        );
        let bare = drafts(r#"{"type":"entity","name":"Ann","entityType":"person","observations":[]}"#);
        assert_eq!(bare[0].content, "Ann (person)");
        let relation = drafts(r#"{"type":"relation","from":"Ann","to":"Acme","relationType":"works_at"}"#);
        assert_eq!(relation[0].content, "Ann works at Acme");
    }

    #[test]
    fn mem0s_words_become_tags_and_times() {
        let found = drafts(
            r#"{"id":"x","memory":"Likes tea","hash":"h","user_id":"ann","agent_id":"bot",
            "created_at":"2024-07-20T01:30:36.275141-07:00","categories":["food"],
            "metadata":{"kind":"preference","project":"kitchen","room":"b 2","deep":{"a":1}}}"#,
        );
        let draft = &found[0];
        assert_eq!((draft.content.as_str(), draft.kind), ("Likes tea", Kind::Preference));
        assert_eq!(draft.tags, ["food", "room:b 2", "user:ann"]);
        assert_eq!((draft.project.as_deref(), draft.source.as_deref()), (Some("kitchen"), Some("bot")));
        assert_eq!(draft.occurred_at, Some(Millis(1_721_464_236_275)));
        assert_eq!(drafts(r#"{"memory":"x","created_at":"soon","metadata":null}"#)[0].occurred_at, None);
    }

    #[test]
    fn our_own_words_are_known_and_checked() {
        let found = drafts(r#"{"content":"x","kind":"task","type":null,"tags":["a"]}"#);
        assert_eq!((found[0].kind, found[0].tags.clone()), (Kind::Task, vec!["a".to_owned()]));
        let own = read(br#"{"type":"version","format":1,"version":{}}"#, Format::Auto).unwrap();
        assert!(matches!(own, Object::Own(_)));
        let long = format!(r#"{{"content":"{}"}}"#, "x".repeat(parse::MAX_CONTENT + 1));
        let long_memory = long.replacen("content", "memory", 1);
        for (line, words) in [
            (r#"{"contents":"x"}"#, "content"),
            (r#"{"content":"x","tag":"y"}"#, "did you mean `tags`"),
            (r#"{"content":7}"#, "must be a string"),
            (r#"{"content":"x","kind":"whim"}"#, "not a kind"),
            (r#"{"content":"x","occurred_at":"soon"}"#, "occurred_at"),
            (r#"{"type":"entity","name":"A","observations":"x"}"#, "observations"),
            (r#"{"type":"entity","observations":["x"]}"#, "name"),
            (r#"{"type":"relation","from":"A","to":"B"}"#, "relationType"),
            (r#"{"memory":""}"#, "memory"),
            ("[1]", "object"),
            ("{", "JSON"),
            (long.as_str(), "bytes"),
            (long_memory.as_str(), "bytes"),
        ] {
            let error = read(line.as_bytes(), Format::Auto).unwrap_err();
            assert!(error.contains(words), "{}: {error}", &line[..line.len().min(60)]);
        }
        assert!(read(&[0xff, 0xfe], Format::Auto).is_err());
        assert!("mem1".parse::<Format>().is_err());
    }
}
