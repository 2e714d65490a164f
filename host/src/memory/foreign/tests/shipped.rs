//! The importers that are shipped, over real and over spoilt files.

use std::{env, fmt::Write as _, time::Instant};

use super::*;

fn chats() -> &'static Importer {
    static IMPORTER: OnceLock<Importer> = OnceLock::new();
    IMPORTER.get_or_init(|| Importer::from_bytes(&built("chat-export.wasm"), Limits::default()).unwrap())
}

fn fixtures(importer: &str) -> PathBuf {
    Path::new(SOURCES).join(importer).join("fixtures")
}

#[test]
fn chats_of_a_folder_become_records() {
    let outcome = Outcome::of(chats(), &fixtures("chat-export"));
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!((outcome.entries.len(), outcome.problems.len()), (11, 5), "{:?}", outcome.contents());
    let first = outcome.entries.iter().find(|entry| entry.content.starts_with("Sourdough too sour")).unwrap();
    assert_eq!((first.kind, first.occurred_at), (Kind::Reference, Some(1_714_555_800_123)));
    let said = first.provenance(&chats().agent("chat-export"));
    assert!(
        said.starts_with("chat-export@") && said.contains("conversation 1") && said.len() <= 128,
        "{said}"
    );
    assert_eq!(Outcome::of(chats(), &fixtures("chat-export")).entries, outcome.entries);
}

#[test]
fn a_single_export_is_enough() {
    let file = fixtures("chat-export").join("claude/conversations.json");
    let outcome = Outcome::of(chats(), &file);
    assert_eq!(outcome.entries.len(), 2, "{outcome:?}");
    assert!(outcome.entries[0].source.starts_with("conversations.json, conversation 1 ("), "{outcome:?}");
}

#[test]
fn files_that_are_none_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, words) in [
        ("export.zip", b"PK\x03\x04abc".as_slice(), "unpack it"),
        ("photo.png", b"\x89PNG\r\n".as_slice(), "is not JSON"),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
        let outcome = Outcome::of(chats(), &dir.path().join(name));
        assert!(matches!(outcome.stop(), Stop::Refused(reason) if reason.contains(words)), "{outcome:?}");
    }
}

#[test]
fn spoilt_json_loses_only_what_is_spoilt() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read_to_string(fixtures("chat-export").join("chatgpt/conversations.json")).unwrap();
    let file = dir.path().join("conversations.json");
    fs::write(&file, &whole[..whole.len() * 2 / 3]).unwrap();
    let outcome = Outcome::of(chats(), &file);
    assert!(outcome.error.is_none() && !outcome.entries.is_empty(), "{outcome:?}");
    assert!(
        outcome.problems.iter().any(|problem| problem.reason.contains("ends in the middle")),
        "{outcome:?}"
    );
    fs::write(&file, whole.replacen("\"mapping\": {", "\"mapping\": {,", 1)).unwrap();
    let outcome = Outcome::of(chats(), &file);
    assert!(
        outcome.entries.iter().any(|entry| entry.content.starts_with("Tools and pictures")),
        "{outcome:?}"
    );
    assert!(outcome.problems.iter().any(|problem| problem.reason.contains("JSON")), "{outcome:?}");
}

/// An export of so many bytes, one conversation of which has `heavy` bytes.
fn export(size: usize, heavy: usize) -> String {
    let mut text = String::with_capacity(size + heavy + (1 << 20));
    text.push('[');
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        let said =
            if number == 3 { "heavy ".repeat(heavy / 6) } else { "some words of an answer ".repeat(60) };
        let _ = write!(
            text,
            r#"{{"title":"Chat {number}","create_time":1714555799.5,"conversation_id":"id-{number}","current_node":"d",
            "mapping":{{"a":{{"parent":null,"children":["b"],"message":null}},
            "b":{{"parent":"a","children":["c"],"message":{{"author":{{"role":"user"}},"create_time":1714555800.0,
            "content":{{"content_type":"text","parts":["Question {number}?"]}},"recipient":"all"}}}},
            "c":{{"parent":"b","children":["d"],"message":{{"author":{{"role":"assistant"}},
            "content":{{"content_type":"text","parts":["{said}"]}},"recipient":"all"}}}},
            "d":{{"parent":"c","children":[],"message":{{"author":{{"role":"assistant"}},
            "content":{{"content_type":"text","parts":["Answer {number}.\n\nDone."]}},"recipient":"all"}}}}}}}},"#
        );
    }
    text.pop();
    text.push(']');
    text
}

#[test]
fn a_file_of_50_mb_fits_the_limits() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conversations.json");
    let text = export(50_000_000, 20 << 20);
    let conversations = text.matches("\"title\"").count();
    fs::write(&file, &text).unwrap();
    let begun = Instant::now();
    let outcome = Outcome::of(chats(), &file);
    println!(
        "{} bytes, {} records in {:?}: {:?}",
        text.len(),
        outcome.entries.len(),
        begun.elapsed(),
        outcome.used
    );
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    // The heavy one is cut into parts of a megabyte.
    assert!(
        (conversations + 20..conversations + 23).contains(&outcome.entries.len()),
        "{}",
        outcome.entries.len()
    );
    assert!(outcome.used.memory < 160 << 20, "{:?}", outcome.used);
    assert!(outcome.used.most_fuel < Limits::default().fuel / 10, "{:?}", outcome.used);
}

/// `BOOKMARKS_WASM` names what `plugins/importers/bookmarks/build` gives.
#[test]
fn an_importer_in_python_runs_under_the_same_limits() {
    let Some(path) = env::var_os("BOOKMARKS_WASM") else {
        eprintln!("SKIPPED: BOOKMARKS_WASM names no component that plugins/importers/bookmarks/build gave");
        return;
    };
    let begun = Instant::now();
    let importer = Importer::open(Path::new(&path), Limits::default()).unwrap();
    let compiled = begun.elapsed();
    let outcome = Outcome::of(&importer, &fixtures("bookmarks").join("bookmarks.html"));
    println!("compiled in {compiled:?}, ran in {:?}: {:?}", begun.elapsed() - compiled, outcome.used);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(
        outcome.contents(),
        [
            "Sourdough & rye, day by day\nhttps://bread.example/sourdough?step=1&day=2\nFeed the starter the \
             evening before. It must float.",
            "On-call handbook\nhttps://wiki.example/oncall",
            "When to vacuum\nhttps://db.example/vacuum",
            "https://example.net/größe\nhttps://example.net/größe",
        ]
    );
    assert_eq!(outcome.entries[0].tags, ["bookmark", "baking", "weekend"]);
    assert_eq!(outcome.entries[0].occurred_at, Some(1_712_131_261_000));
    assert_eq!(outcome.entries[1].occurred_at, Some(1_712_131_301_000));
    assert_eq!(outcome.entries[2].tags, ["bookmark", "work", "databases"]);
    assert_eq!(outcome.problems.len(), 1, "{:?}", outcome.problems);
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from("<!DOCTYPE NETSCAPE-Bookmark-file-1>\n<DL><p>\n");
    for number in 0..20_000 {
        let _ = writeln!(
            text,
            "<DT><A HREF=\"https://site.example/{number}\" ADD_DATE=\"1712131261\">Page {number}</A>"
        );
    }
    fs::write(dir.path().join("many.html"), &text).unwrap();
    let begun = Instant::now();
    let outcome = Outcome::of(&importer, &dir.path().join("many.html"));
    println!("{} records in {:?}: {:?}", outcome.entries.len(), begun.elapsed(), outcome.used);
    assert_eq!(outcome.entries.len(), 20_000, "{:?}", outcome.error);
    fs::write(dir.path().join("none.html"), "<html></html>").unwrap();
    let outcome = Outcome::of(&importer, &dir.path().join("none.html"));
    assert!(matches!(outcome.stop(), Stop::Refused(reason) if reason.contains("export them")), "{outcome:?}");
}
