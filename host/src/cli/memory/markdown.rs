//! Notes in Markdown, turned into records: front matter, observations as basic-memory writes them, and the
//! sections of files such as CLAUDE.md and MEMORY.md.

use crate::{
    api::memory::parse::{MAX_NAME, MAX_TAG},
    memory::{Draft, Kind, Millis},
};

/// Tags taken from one note.
const TAGS: usize = 32;

/// What stands before a note's text.
#[derive(Debug, Default)]
struct Front {
    title: Option<String>,
    tags: Vec<String>,
    project: Option<String>,
    date: Option<Millis>,
    permalink: bool,
}

/// The records of one note. `stem` is its file's name without the ending.
pub(super) fn read(text: &str, stem: &str) -> Vec<Draft> {
    let text = text.trim_start_matches('\u{feff}');
    let (front, body) = front(text);
    let title = front.title.clone().or_else(|| first_heading(body)).unwrap_or_else(|| stem.to_owned());
    let mut note = Note { front, title, path: Vec::new(), section: String::new(), records: Vec::new() };
    let mut fenced = false;
    for line in body.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
        }
        match heading(line).filter(|_| !fenced) {
            Some((level, words)) => note.open(level, words),
            None if !fenced && note.observation(trimmed) => {}
            None => {
                note.section.push_str(line);
                note.section.push('\n');
            }
        }
    }
    note.close();
    note.records
}

struct Note {
    front: Front,
    title: String,
    /// The headings above the current section, with their levels.
    path: Vec<(usize, String)>,
    section: String,
    records: Vec<Draft>,
}

impl Note {
    fn draft(&self, content: String, kind: Kind, more: Vec<String>) -> Draft {
        let mut tags = self.front.tags.clone();
        tags.extend(more.into_iter().filter(|tag| !tag.is_empty() && tag.len() <= MAX_TAG));
        tags.sort();
        tags.dedup();
        tags.truncate(TAGS);
        Draft {
            content,
            kind,
            project: self.front.project.clone(),
            tags,
            occurred_at: self.front.date,
            source: Some(if self.front.permalink { "basic-memory" } else { "markdown" }.into()),
            ..Draft::default()
        }
    }

    fn open(&mut self, level: usize, words: &str) {
        self.close();
        self.path.retain(|(above, _)| *above < level);
        self.path.push((level, words.to_owned()));
    }

    /// Ends a section: what it says, under the headings that say what it is about.
    fn close(&mut self) {
        let text = std::mem::take(&mut self.section);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let mut names = vec![self.title.clone()];
        let plain = |name: &&String| !["observations", "relations"].contains(&name.to_lowercase().as_str());
        names.extend(
            self.path.iter().map(|(_, name)| name).filter(plain).filter(|name| **name != self.title).cloned(),
        );
        let content = format!("{}\n\n{text}", names.join(" › "));
        let draft = self.draft(content, Kind::Fact, Vec::new());
        self.records.push(draft);
    }

    /// `- [category] observation #tag (context)`, `- relation [[Target]]` or a task; whether the line is one.
    fn observation(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")) else { return false };
        let rest = rest.trim();
        if let Some(said) = relation(rest) {
            let draft = self.draft(format!("{} {said}", self.title), Kind::Fact, vec!["relation".into()]);
            self.records.push(draft);
            return true;
        }
        let Some((category, said)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return false;
        };
        // `[words](address)` and `[[a page]]` are links.
        if said.starts_with(['(', '[', ']']) || category.starts_with('[') || said.trim().is_empty() {
            return false;
        }
        let (kind, category) = match category.trim().to_lowercase().as_str() {
            "" => (Kind::Task, String::new()),
            "x" => (Kind::Fact, "done".into()),
            word if word.len() > 64 => return false,
            "decision" | "decided" => (Kind::Decision, "decision".into()),
            "task" | "todo" | "action" => (Kind::Task, "task".into()),
            "preference" | "style" => (Kind::Preference, "preference".into()),
            word @ ("reference" | "link" | "source" | "resource") => (Kind::Reference, word.to_owned()),
            word => (Kind::Fact, word.to_owned()),
        };
        let tags = said
            .split_whitespace()
            .filter_map(|word| word.strip_prefix('#'))
            .filter(|tag| tag.chars().next().is_some_and(char::is_alphanumeric));
        let mut more: Vec<String> =
            tags.map(|tag| tag.trim_end_matches([',', '.', ')', ';']).to_owned()).collect();
        more.push(category);
        let draft = self.draft(format!("{}: {}", self.title, said.trim()), kind, more);
        self.records.push(draft);
        true
    }
}

/// `works_at [[Acme]]` as `works at Acme`.
fn relation(text: &str) -> Option<String> {
    let (how, target) = text.split_once("[[")?;
    let (target, after) = target.split_once("]]")?;
    let how = how.trim();
    // Longer words before a link are a sentence, not the name of a relation.
    let named =
        !how.is_empty() && how.len() <= 48 && !how.contains(['[', '.', ':']) && after.trim().is_empty();
    named.then(|| format!("{} {}", how.replace(['_', '-'], " "), target.trim()))
}

/// The level and words of a heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let words = line.get(level..)?.strip_prefix([' ', '\t'])?.trim().trim_end_matches('#').trim_end();
    ((1..=6).contains(&level) && !words.is_empty()).then_some((level, words))
}

fn first_heading(body: &str) -> Option<String> {
    let first = body.lines().find(|line| !line.trim().is_empty())?;
    heading(first).filter(|(level, _)| *level == 1).map(|(_, words)| words.to_owned())
}

/// The front matter, of which only what a record can hold is read, and the text after it.
fn front(text: &str) -> (Front, &str) {
    let none = (Front::default(), text);
    let Some(inside) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else {
        return none;
    };
    let mut length = text.len() - inside.len();
    let mut front = Front::default();
    let mut list = String::new();
    for line in inside.split_inclusive('\n') {
        length += line.len();
        let line = line.trim_end();
        if line == "---" || line == "..." {
            front.tags.sort();
            front.tags.dedup();
            front.tags.truncate(TAGS);
            return (front, text.get(length..).unwrap_or_default());
        }
        if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| list == "tags") {
            front.take("tags", item);
        } else if let Some((name, value)) =
            line.split_once(':').filter(|_| !line.starts_with([' ', '\t', '#']))
        {
            list = name.trim().to_lowercase();
            front.take(&list, value);
        }
    }
    none
}

impl Front {
    fn take(&mut self, name: &str, value: &str) {
        let value = unquoted(value);
        if value.is_empty() {
            return;
        }
        match name {
            "title" => self.title = Some(value.to_owned()),
            "permalink" => self.permalink = true,
            "project" if value.len() <= MAX_NAME => self.project = Some(value.to_owned()),
            "date" | "created" | "created_at" => self.date = Millis::parse(value).ok(),
            "tags" => {
                let inside = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
                let tags = inside.split(',').map(|tag| unquoted(tag).trim_start_matches('#').to_owned());
                self.tags.extend(tags.filter(|tag| !tag.is_empty() && tag.len() <= MAX_TAG));
            }
            _ => {}
        }
    }
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_and_relations_become_records() {
        let note = "---\ntitle: \"Coffee: notes\"\ntags: [brew, 'hot']\npermalink: coffee/notes\ndate: 2024-02-29\n---\n\
            # Coffee\n\nSome prose.\n\n## Observations\n- [method] Pour over is clear #slow #filter (from a book)\n\
            - [decision] We buy beans, not pods\n- [ ] descale\n- [x] bought a grinder\n- [a link](https://x.example)\n\
            - [[Tea]] is for later\n\n## Relations\n- pairs_with [[Chocolate]]\n- [tip]\n";
        let found = read(note, "file");
        let contents: Vec<_> = found.iter().map(|draft| draft.content.as_str()).collect();
        assert_eq!(contents[0], "Coffee: notes › Coffee\n\nSome prose.");
        assert_eq!(contents[1], "Coffee: notes: Pour over is clear #slow #filter (from a book)");
        assert_eq!(found[1].tags, ["brew", "filter", "hot", "method", "slow"]);
        assert_eq!((found[2].kind, found[3].kind), (Kind::Decision, Kind::Task));
        assert_eq!(found[4].tags, ["brew", "done", "hot"]);
        assert!(contents.contains(&"Coffee: notes pairs with Chocolate"), "{contents:?}");
        let links = contents.iter().find(|text| text.contains("[a link](https://x.example)")).unwrap();
        assert!(links.contains("[[Tea]] is for later"));
        assert!(found.iter().all(|draft| draft.source.as_deref() == Some("basic-memory")));
        assert_eq!(found[0].occurred_at, Some(Millis(1_709_164_800_000)));
    }

    #[test]
    fn sections_stand_under_their_headings() {
        let text = "\u{feff}# Project\n\nIntro.\n\n## Build\nUse `make`.\n```sh\n# not a heading\n- [x] not a task\n```\n\
            ### Flags\n-v\n## Test\n\n#nospace\n";
        let found = read(text, "CLAUDE");
        let contents: Vec<_> = found.iter().map(|draft| draft.content.as_str()).collect();
        assert_eq!(contents.len(), 4, "{contents:?}");
        assert_eq!(contents[0], "Project\n\nIntro.");
        assert!(
            contents[1]
                .starts_with("Project › Build\n\nUse `make`.\n```sh\n# not a heading\n- [x] not a task\n```")
        );
        assert_eq!(contents[2], "Project › Build › Flags\n\n-v");
        assert_eq!(contents[3], "Project › Test\n\n#nospace");
    }

    #[test]
    fn odd_notes_lose_nothing() {
        assert_eq!(read("", "x"), []);
        assert_eq!(read("# only a title\n", "x"), []);
        assert_eq!(read("---\ntitle: never closed\n", "x").len(), 1);
        assert_eq!(read("just words", "note")[0].content, "note\n\njust words");
        let listed = read("---\ntags:\n  - one\n  - \"#two\"\nother:\n  - three\n---\ntext\n", "x");
        assert_eq!(listed[0].tags, ["one", "two"]);
        let dots = read("---\r\ntitle: T\r\n---\r\nwords\r\n", "x");
        assert_eq!(dots[0].content, "T\n\nwords");
    }
}
