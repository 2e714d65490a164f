//! What was said and what was answered, as the text of a record.

use potluck_importer::{Entry, Kind};

/// Most bytes of a record's text; the host takes 1 MiB.
const LONGEST: usize = 1_000_000;
/// Most bytes of a title.
const TITLE: usize = 300;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Person,
    Assistant,
}

/// One message that a person saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) text: String,
    /// Milliseconds since 1970.
    pub(crate) at: Option<i64>,
}

/// A conversation as it was read.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) title: String,
    pub(crate) id: String,
    /// Milliseconds since 1970.
    pub(crate) at: Option<i64>,
    /// In the order they were said.
    pub(crate) messages: Vec<Message>,
    /// What the person told about themselves, and what the assistant noted about them.
    pub(crate) notes: Vec<Note>,
    /// What could not be read.
    pub(crate) problems: Vec<String>,
}

/// Something that holds beyond the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) text: String,
    pub(crate) kind: Kind,
    pub(crate) tag: &'static str,
    pub(crate) at: Option<i64>,
}

/// The exchanges of a conversation: each begins with what the person says and ends before they speak again. `place`
/// says where the conversation is, `service` whose it is.
pub(crate) fn entries(conversation: &Conversation, service: &str, place: &str) -> Vec<Entry> {
    let title = title(&conversation.title);
    let mut entries = Vec::new();
    for (number, messages) in (1..).zip(exchanges(&conversation.messages)) {
        let at = messages.iter().find_map(|message| message.at).or(conversation.at);
        let said: Vec<String> = messages.iter().map(said).collect();
        for content in parts(&title, &said.join("\n\n")) {
            entries.push(Entry {
                content,
                kind: Kind::Reference,
                project: None,
                tags: vec!["chat".into(), service.into()],
                occurred_at: at,
                source: format!("{place}, exchange {number}"),
            });
        }
    }
    entries.extend(conversation.notes.iter().map(|note| Entry {
        content: cut(&note.text, LONGEST).to_owned(),
        kind: note.kind,
        project: None,
        tags: vec![service.into(), note.tag.into()],
        occurred_at: note.at.or(conversation.at),
        source: place.into(),
    }));
    entries
}

fn exchanges(messages: &[Message]) -> Vec<&[Message]> {
    let is_start = |index: usize| {
        let role = |index: usize| messages.get(index).map(|message| message.role);
        let before = index.checked_sub(1).and_then(role);
        role(index) == Some(Role::Person) && before == Some(Role::Assistant)
    };
    let starts = (1..messages.len()).filter(|index| is_start(*index));
    let mut found = Vec::new();
    let mut from = 0;
    for to in starts.chain([messages.len()]) {
        found.extend(messages.get(from..to).filter(|part| !part.is_empty()));
        from = to;
    }
    found
}

fn said(message: &Message) -> String {
    let who = match message.role {
        Role::Person => "User",
        Role::Assistant => "Assistant",
    };
    format!("{who}: {}", message.text)
}

fn title(title: &str) -> String {
    let line = title.split_whitespace().collect::<Vec<_>>().join(" ");
    cut(&clean(&line), TITLE).to_owned()
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// A text under its title, in as many parts as fit: cut between paragraphs where there are any, else between lines,
/// else anywhere.
fn parts(title: &str, text: &str) -> Vec<String> {
    let room = LONGEST - TITLE - 64;
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let most = cut(rest, room);
        let end = if most.len() == rest.len() {
            rest.len()
        } else {
            let half = most.len() / 2;
            ["\n\n", "\n", " "]
                .iter()
                .find_map(|gap| most.rfind(gap).filter(|at| *at > half))
                .unwrap_or(most.len())
        };
        let (part, later) = rest.split_at(end);
        parts.push(part);
        rest = later.trim_start();
    }
    let count = parts.len();
    let headed = |(number, part): (usize, &str)| match (title.is_empty(), count) {
        (true, _) => part.to_owned(),
        (false, 1) => format!("{title}\n\n{part}"),
        (false, _) => format!("{title} ({number} of {count})\n\n{part}"),
    };
    (1..).zip(parts).map(headed).collect()
}

/// A message's text without what is not text: control characters, and the marks that ChatGPT puts around references
/// to what it searched (from U+E200 to U+E201).
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{e200}') {
        let (before, marked) = rest.split_at(at);
        out.push_str(before);
        rest = match marked.find('\u{e201}') {
            Some(end) => marked.get(end + '\u{e201}'.len_utf8()..).unwrap_or_default(),
            None => marked.get('\u{e200}'.len_utf8()..).unwrap_or_default(),
        };
    }
    out.push_str(rest);
    out.retain(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, text: &str) -> Message {
        Message { role, text: text.into(), at: None }
    }

    fn conversation(messages: Vec<Message>) -> Conversation {
        Conversation { title: " A\n title ".into(), messages, at: Some(7), ..Conversation::default() }
    }

    #[test]
    fn an_exchange_ends_where_the_person_speaks_again() {
        use Role::{Assistant, Person};
        let messages = vec![
            message(Assistant, "Hello"),
            message(Person, "One"),
            message(Person, "and more"),
            message(Assistant, "a"),
            message(Assistant, "b"),
            Message { at: Some(9), ..message(Person, "Two") },
        ];
        let found = entries(&conversation(messages), "chatgpt", "f, conversation 1");
        let contents: Vec<_> = found.iter().map(|entry| entry.content.as_str()).collect();
        assert_eq!(
            contents,
            [
                "A title\n\nAssistant: Hello",
                "A title\n\nUser: One\n\nUser: and more\n\nAssistant: a\n\nAssistant: b",
                "A title\n\nUser: Two",
            ]
        );
        assert_eq!(found[2].source, "f, conversation 1, exchange 3");
        assert_eq!((found[1].occurred_at, found[2].occurred_at), (Some(7), Some(9)));
        assert!(entries(&conversation(Vec::new()), "x", "f").is_empty());
    }

    #[test]
    fn what_is_too_long_is_cut_between_paragraphs() {
        let long = format!("{}\n\n{}", "word ".repeat(120_000), "ä".repeat(700_000));
        let found = entries(&conversation(vec![message(Role::Person, &long)]), "x", "f");
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|entry| entry.content.len() <= LONGEST));
        assert!(found[0].content.starts_with("A title (1 of 3)\n\nUser: word"));
        assert!(found[1].content.starts_with("A title (2 of 3)\n\nä"));
        let letters = |text: &str| text.matches('ä').count();
        assert_eq!(found.iter().map(|entry| letters(&entry.content)).sum::<usize>(), 700_000);
    }

    #[test]
    fn marks_and_control_characters_go() {
        assert_eq!(clean(" a\u{0}b\u{e200}cite\u{e202}turn0search1\u{e201}.\r\n\u{1b}[0m"), "ab.\n[0m");
        assert_eq!(clean("x\u{e200}y"), "xy");
    }
}
