use potluck_importer::Kind;

use super::*;

fn read(text: &str) -> (Vec<Entry>, Vec<Problem>) {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for item in Reader::new(text.as_bytes(), "conversations.json") {
        match item {
            Item::Entry(entry) => entries.push(entry),
            Item::Problem(problem) => problems.push(problem),
        }
    }
    (entries, problems)
}

const CHATGPT: &str = include_str!("../fixtures/chatgpt/conversations.json");
const CLAUDE: &str = include_str!("../fixtures/claude/conversations.json");

#[test]
fn chatgpts_exchanges_follow_the_branch_that_was_seen() {
    let (entries, problems) = read(CHATGPT);
    let chats: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Reference).collect();
    assert_eq!(
        chats[0].content,
        "Sourdough too sour\n\nUser: My sourdough gets too sour. I proof it overnight at 24 °C.\n\nAssistant: \
         Shorten the bulk rise or cool the dough: at 24 °C eight hours are too long. Try five hours, or the night \
         in the fridge at 5 °C."
    );
    assert_eq!(chats[0].occurred_at, Some(1_714_555_800_123));
    assert_eq!(
        chats[0].source,
        "conversations.json, conversation 1 (66320c58-7a10-800e-9d3c-2f8f2b1d0001), exchange 1"
    );
    assert_eq!(chats[0].tags, ["chat", "chatgpt"]);
    // The branch that was thrown away, the system's words, hidden messages, calls of tools and their results.
    let all = entries.iter().map(|entry| entry.content.as_str()).collect::<Vec<_>>().join("\n");
    for left_out in
        ["Add more flour", "You are ChatGPT", "hidden", "import pandas", "stdout", "bio", "\u{e200}"]
    {
        assert!(!all.contains(left_out), "{left_out} in {all}");
    }
    assert!(all.contains("```python\nprint(7 * 6)\n```"), "{all}");
    assert!(all.contains("[picture]\n\nWhat is this plant?"), "{all}");
    assert!(all.contains("said aloud"), "{all}");
    let reasons: Vec<_> = problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("broken-node")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("`mapping` is no object")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("no conversation of")), "{reasons:?}");
}

#[test]
fn what_holds_beyond_a_conversation_is_kept_once() {
    let (entries, _) = read(CHATGPT);
    let preferences: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Preference).collect();
    assert_eq!(preferences.len(), 2, "{preferences:?}");
    assert_eq!(
        preferences[0].content,
        "About the user (custom instructions of ChatGPT):\n\nI bake on weekends and live in Graz."
    );
    assert_eq!(preferences[1].tags, ["chatgpt", "custom-instructions"]);
    let facts: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Fact).collect();
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].content, "User's oven has no steam function.");
}

#[test]
fn a_broken_message_does_not_hide_those_before_it() {
    let (entries, _) = read(CHATGPT);
    let with_hole: Vec<_> = entries.iter().filter(|entry| entry.content.starts_with("A hole")).collect();
    assert_eq!(with_hole.len(), 2, "{with_hole:?}");
    assert!(with_hole[0].content.contains("before the hole"));
    assert!(with_hole[1].content.contains("after the hole"));
}

#[test]
fn claudes_messages_are_read_in_both_of_their_shapes() {
    let (entries, problems) = read(CLAUDE);
    assert_eq!(
        entries[0].content,
        "Renewing the passport\n\nUser: How long before a trip must I renew my passport?\n\n[file: \
         itinerary.pdf]\n\nAssistant: Six months before you leave, if you travel outside the EU."
    );
    assert_eq!(entries[0].occurred_at, Some(1_719_829_800_123));
    assert_eq!(entries[0].tags, ["chat", "claude"]);
    assert_eq!(entries[1].content, "User: An older export has only text.\n\nAssistant: And it is read too.");
    assert_eq!(entries.len(), 2);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].reason.contains("message 3 does not say who sent it"), "{problems:?}");
    assert!(problems[1].reason.contains("no list"), "{problems:?}");
}

#[test]
fn every_cut_and_every_flipped_byte_is_told_and_never_a_panic() {
    for source in [CHATGPT, CLAUDE] {
        let whole = read(source).0.len();
        for end in (0..source.len()).step_by(31).filter(|end| source.is_char_boundary(*end)) {
            let (entries, problems) = read(&source[..end]);
            assert!(entries.len() <= whole);
            // Between two conversations nothing is missing that could be seen.
            let between = source[..end].trim_end().ends_with(['}', ',', '[']) || end < 3;
            assert!(between || !problems.is_empty(), "cut at {end}");
        }
        for at in (0..source.len()).step_by(61) {
            for flip in [0x01, 0x20, 0x80] {
                let mut bytes = source.as_bytes().to_vec();
                bytes[at] ^= flip;
                let items = Reader::new(bytes.as_slice(), "conversations.json").count();
                assert!(items < 1000);
            }
        }
    }
}

#[test]
fn circles_and_lost_ends_are_survived() {
    let message = |text: &str| {
        format!(r#"{{"author":{{"role":"user"}},"content":{{"content_type":"text","parts":["{text}"]}}}}"#)
    };
    let (a, b) = (message("one"), message("two"));
    let circle = format!(
        r#"[{{"title":"c","mapping":{{"a":{{"parent":"b","children":["b"],"message":{a}}},
        "b":{{"parent":"a","children":["a"],"message":{b}}}}},"current_node":"b"}}]"#
    );
    assert_eq!(read(&circle).0.len(), 1);
    let lost = format!(
        r#"[{{"mapping":{{"r":{{"children":["a","b"]}},"a":{{"parent":"r","children":[],"message":{a}}},
        "b":{{"parent":"r","children":[],"message":{b}}}}},"current_node":"gone"}}]"#
    );
    assert_eq!(read(&lost).0[0].content, "User: two");
    for odd in ["[{}]", "[[]]", "{\"mapping\":{}}", "[{\"mapping\":null}]", "[{\"mapping\":{\"a\":7}}]"] {
        assert!(read(odd).0.is_empty(), "{odd}");
    }
}
