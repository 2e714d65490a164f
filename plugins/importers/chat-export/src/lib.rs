//! Chats of well-known assistants, as memories: the `conversations.json` that ChatGPT and Claude put into the export
//! of one's data.
//!
//! A record is an exchange: what the person said and what was answered, under the title of the conversation. That is
//! what a later question is about; a whole conversation wanders, and an answer alone does not say what to. What the
//! person told the assistant about themselves (custom instructions) becomes a preference, what the assistant noted
//! down about them (ChatGPT's memory) a fact.
//!
//! A file may be of any size: it is read in pieces and held one conversation at a time.

mod chatgpt;
mod claude;
mod exchange;
mod json;
mod pieces;
mod reader;
mod time;

use std::{collections::VecDeque, io::Read};

use potluck_importer::{Batch, Description, Importer, export_importer, files, problem};
pub use reader::{Item, Reader};

/// Folders in folders that are looked into: an export may lie in one of its own.
const DEPTH: usize = 4;
/// Most records and problems given at once, and most bytes of their texts.
const MOST: usize = 128;
const MOST_BYTES: usize = 8 << 20;

/// The importer: the files that are still to be read, and the one that is.
struct ChatExport {
    files: VecDeque<String>,
    current: Option<Reader<Box<dyn Read>>>,
}

impl Importer for ChatExport {
    fn describe() -> Description {
        Description {
            name: "chat-export".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Chats exported from ChatGPT or Claude: conversations.json, or the unpacked folder."
                .into(),
            licence: "Apache-2.0".into(),
        }
    }

    fn open(name: &str) -> Result<Self, String> {
        let mut files = VecDeque::new();
        if name.is_empty() {
            walk("", 0, &mut files);
            if files.is_empty() {
                return Err(
                    "no conversations.json is in the folder; unpack the export and name its folder".into()
                );
            }
        } else {
            look(name)?;
            files.push_back(name.to_owned());
        }
        Ok(Self { files, current: None })
    }

    fn next(&mut self) -> Result<Batch, String> {
        let mut batch = Batch { entries: Vec::new(), problems: Vec::new() };
        let mut bytes = 0;
        while batch.entries.len() < MOST && batch.problems.len() < MOST && bytes < MOST_BYTES {
            let Some(reader) = &mut self.current else {
                let Some(file) = self.files.pop_front() else { break };
                match files::open(&file) {
                    Ok(input) => self.current = Some(Reader::new(Box::new(input), &file)),
                    Err(error) => batch.problems.push(problem(&file, format!("cannot be read: {error}"))),
                }
                continue;
            };
            match reader.next() {
                Some(Item::Entry(entry)) => {
                    bytes += entry.content.len();
                    batch.entries.push(entry);
                }
                Some(Item::Problem(problem)) => batch.problems.push(problem),
                None => self.current = None,
            }
        }
        Ok(batch)
    }
}

/// Finds the files of conversations: one, or, in large exports of ChatGPT, numbered ones.
fn walk(folder: &str, depth: usize, to: &mut VecDeque<String>) {
    for found in files::look(folder).unwrap_or_default() {
        let path = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        match found {
            files::Found::File(name) if name.starts_with("conversations") && name.ends_with(".json") => {
                to.push_back(path(&name));
            }
            files::Found::Folder(name) if depth < DEPTH => walk(&path(&name), depth + 1, to),
            _ => {}
        }
    }
}

/// Refuses at once what is no JSON, in words that help.
fn look(name: &str) -> Result<(), String> {
    let mut head = [0; 512];
    let mut input = files::open(name).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let count = input.read(&mut head).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let head = head.get(..count).unwrap_or_default();
    if head.starts_with(b"PK\x03\x04") {
        return Err(format!(
            "{name} is a ZIP archive; unpack it and name its folder, or conversations.json in it"
        ));
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match text.first() {
        Some(b'[' | b'{') => Ok(()),
        _ => {
            Err(format!("{name} is not JSON; chat exports of ChatGPT and Claude are, in conversations.json"))
        }
    }
}

export_importer!(ChatExport);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fixtures() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"))
    }

    #[test]
    fn a_folder_gives_the_chats_of_all_its_files() {
        files::root(fixtures());
        let mut importer = ChatExport::open("").unwrap();
        assert_eq!(importer.files, ["chatgpt/conversations.json", "claude/conversations.json"]);
        let (mut entries, mut problems) = (Vec::new(), Vec::new());
        loop {
            let batch = importer.next().unwrap();
            if batch.entries.is_empty() && batch.problems.is_empty() {
                break;
            }
            entries.extend(batch.entries);
            problems.extend(batch.problems);
        }
        assert!(entries.iter().any(|entry| entry.tags.contains(&"chatgpt".to_owned())));
        assert!(entries.iter().any(|entry| entry.tags.contains(&"claude".to_owned())));
        assert!(!problems.is_empty());
    }

    #[test]
    fn what_is_no_export_is_refused_in_words() {
        let dir = std::env::temp_dir().join(format!("chat-export-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("empty")).unwrap();
        for (name, bytes) in
            [("export.zip", b"PK\x03\x04..".as_slice()), ("a.txt", b"hello"), ("b.json", b"")]
        {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        files::root(&dir);
        let refusal = |name: &str| ChatExport::open(name).err().unwrap();
        assert!(refusal("export.zip").contains("unpack"));
        assert!(refusal("a.txt").contains("not JSON"));
        assert!(refusal("b.json").contains("not JSON"));
        assert!(refusal("missing.json").contains("cannot be read"));
        assert!(refusal("").contains("no conversations.json"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
