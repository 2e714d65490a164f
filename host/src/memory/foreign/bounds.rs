//! The bounds that the WIT promises, kept.
//!
//! A record that does not keep them is refused and told as a problem, and the import goes on; a call that gives too
//! many of them ends it, because nothing it gives can be trusted to have an end.

use super::{
    bindings::potluck::importer::types as wit,
    entry::{Description, Entry, Item, Problem, kind},
    error::Stop,
};

/// Most bytes of a text.
pub(super) const TEXT: usize = 1 << 20;
/// Most bytes of a name: of a project, of a place, of an importer.
pub(super) const NAME: usize = 256;
/// Most tags.
pub(super) const TAGS: usize = 64;
/// Most bytes of a tag.
pub(super) const TAG: usize = 64;
/// Most records of one call, and most problems.
pub(super) const BATCH: usize = 256;
/// Most bytes of a problem.
pub(super) const REASON: usize = 1024;
/// Most bytes of an importer's name: a record's source names it beside the place.
const LABEL: usize = 64;

/// A text for people: control characters are blanks, and what is too long is cut.
pub(super) fn plain(text: &str, most: usize) -> String {
    let text: String = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() <= most {
        return text;
    }
    let end = text.floor_char_boundary(most.saturating_sub("…".len()));
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// What an importer says of itself.
///
/// # Errors
/// [`Stop::Label`] with what is wrong.
pub(super) fn description(label: wit::Description) -> Result<Description, Stop> {
    let wit::Description { name, version, summary, licence } = label;
    let is_word =
        |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if name.is_empty() || name.len() > LABEL || !is_word(&name) {
        let name = plain(&name, 80);
        return Err(Stop::Label(format!(
            "its name is `{name}`, and must have 1 to {LABEL} lower case letters, digits and dashes"
        )));
    }
    for (field, text, most) in
        [("version", &version, NAME), ("summary", &summary, REASON), ("licence", &licence, NAME)]
    {
        if text.len() > most {
            return Err(Stop::Label(format!("its {field} has {} bytes, and {most} fit", text.len())));
        }
    }
    Ok(Description {
        name,
        version: plain(&version, NAME),
        summary: plain(&summary, REASON),
        licence: plain(&licence, NAME),
    })
}

/// What one call gave, each record either as it is or as the problem that it is too large.
///
/// # Errors
/// [`Stop::Batch`] when there is too much of it.
pub(super) fn batch(batch: wit::Batch) -> Result<Vec<Item>, Stop> {
    for (what, count) in [("records", batch.entries.len()), ("problems", batch.problems.len())] {
        if count > BATCH {
            return Err(Stop::Batch { what, count, most: BATCH });
        }
    }
    let mut items = Vec::with_capacity(batch.entries.len() + batch.problems.len());
    for entry in batch.entries {
        items.push(match excess(&entry) {
            None => Item::Entry(entry_of(entry)),
            Some(reason) => Item::Problem(Problem { source: plain(&entry.source, NAME), reason }),
        });
    }
    items.extend(batch.problems.into_iter().map(|problem| {
        Item::Problem(Problem {
            source: plain(&problem.source, NAME),
            reason: plain(&problem.reason, REASON),
        })
    }));
    Ok(items)
}

fn entry_of(entry: wit::Entry) -> Entry {
    Entry {
        content: entry.content,
        kind: kind(entry.kind),
        project: entry.project.filter(|project| !project.trim().is_empty()),
        tags: entry.tags,
        occurred_at: entry.occurred_at,
        source: entry.source,
    }
}

/// Why a record is refused.
fn excess(entry: &wit::Entry) -> Option<String> {
    if entry.content.trim().is_empty() {
        return Some("the record has no text".into());
    }
    let project = entry.project.as_deref().unwrap_or_default();
    for (what, text, most) in
        [("text", entry.content.as_str(), TEXT), ("project", project, NAME), ("source", &entry.source, NAME)]
    {
        if text.len() > most {
            return Some(format!("the record's {what} has {} bytes, and {most} fit", text.len()));
        }
    }
    if entry.tags.len() > TAGS {
        return Some(format!("the record has {} tags, and {TAGS} fit", entry.tags.len()));
    }
    let long = entry.tags.iter().find(|tag| tag.len() > TAG)?;
    Some(format!("a tag of the record has {} bytes, and {TAG} fit: {}", long.len(), plain(long, 40)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> wit::Entry {
        wit::Entry {
            content: "text".into(),
            kind: wit::Kind::Fact,
            project: None,
            tags: Vec::new(),
            occurred_at: None,
            source: "place".into(),
        }
    }

    fn label(name: &str) -> wit::Description {
        wit::Description {
            name: name.into(),
            version: "1".into(),
            summary: "It reads\n\u{1b}[31mchats".into(),
            licence: "MIT".into(),
        }
    }

    #[test]
    fn each_bound_is_kept_to_the_byte() {
        let whole = wit::Entry {
            content: "x".repeat(TEXT),
            project: Some("p".repeat(NAME)),
            tags: vec!["t".repeat(TAG); TAGS],
            source: "s".repeat(NAME),
            ..entry()
        };
        assert_eq!(excess(&whole), None);
        for (spoilt, words) in [
            (wit::Entry { content: "x".repeat(TEXT + 1), ..entry() }, "text has 1048577 bytes"),
            (wit::Entry { content: " \n".into(), ..entry() }, "no text"),
            (wit::Entry { project: Some("p".repeat(NAME + 1)), ..entry() }, "project has 257"),
            (wit::Entry { source: "s".repeat(NAME + 1), ..entry() }, "source has 257"),
            (wit::Entry { tags: vec!["t".into(); TAGS + 1], ..entry() }, "65 tags"),
            (wit::Entry { tags: vec!["t".repeat(TAG + 1)], ..entry() }, "tag of the record has 65"),
        ] {
            let reason = excess(&spoilt).unwrap();
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn a_batch_refuses_single_records_and_ends_when_it_is_too_large() {
        let two = vec![entry(), wit::Entry { content: String::new(), ..entry() }];
        let problem = wit::Problem { source: "a\u{7}b".into(), reason: "é".repeat(2000) };
        let items = batch(wit::Batch { entries: two, problems: vec![problem] }).unwrap();
        assert!(matches!(items[0], Item::Entry(_)));
        assert!(matches!(&items[1], Item::Problem(problem) if problem.reason.contains("no text")));
        let Item::Problem(told) = &items[2] else { panic!("{:?}", items[2]) };
        assert_eq!(told.source, "a b");
        assert!(told.reason.len() <= REASON && told.reason.ends_with("é…"), "{}", told.reason.len());
        let many = wit::Batch { entries: vec![entry(); BATCH + 1], problems: Vec::new() };
        assert!(matches!(batch(many), Err(Stop::Batch { what: "records", count: 257, .. })));
        let most = wit::Batch { entries: vec![entry(); BATCH], problems: Vec::new() };
        assert_eq!(batch(most).unwrap().len(), BATCH);
    }

    #[test]
    fn labels_are_checked() {
        assert_eq!(description(label("chat-export")).unwrap().summary, "It reads  [31mchats");
        for name in ["", "Chat", "a b", "ü", &"x".repeat(65)] {
            assert!(matches!(description(label(name)), Err(Stop::Label(_))), "{name}");
        }
        let long = wit::Description { licence: "x".repeat(257), ..label("x") };
        assert!(description(long).is_err());
    }
}
