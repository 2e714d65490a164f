//! A conversation of ChatGPT's export: a tree of messages, of which one path is what the person saw.
//!
//! Each node names its parent. Editing a message or asking for another answer makes a branch; `current_node` is the
//! end of the one that was last on the screen, and only that one is taken: what was thrown away is not what was
//! meant.

use std::collections::{HashMap, HashSet};

use potluck_importer::Kind;
use serde_json::value::RawValue;

use super::{
    exchange::{Conversation, Message, Note, Role, clean},
    json::{Fields, text},
    time,
};

/// Problems told of one conversation.
const TOLD: usize = 8;

/// What of a node matters.
#[derive(Default)]
struct Node<'a> {
    parent: Option<String>,
    children: Vec<String>,
    message: Option<Fields<'a>>,
}

/// Reads a conversation.
///
/// # Errors
/// What is wrong with it as a whole.
pub(crate) fn read(fields: &Fields<'_>) -> Result<Conversation, String> {
    let tree = fields.object("mapping").ok_or("the conversation's `mapping` is no object")?;
    let mut conversation = Conversation {
        title: fields.text("title").unwrap_or_default(),
        id: fields.text("conversation_id").or_else(|| fields.text("id")).unwrap_or_default(),
        at: fields.number("create_time").and_then(time::seconds),
        ..Conversation::default()
    };
    let mut nodes = HashMap::new();
    for (id, value) in tree.iter() {
        match node(value) {
            Ok(node) => {
                nodes.insert(id.to_owned(), node);
            }
            Err(reason) if conversation.problems.len() < TOLD => {
                conversation.problems.push(format!("message {id} {reason}"));
            }
            Err(_) => {}
        }
    }
    // Fields have no order; what is told should have one.
    conversation.problems.sort();
    for id in path(&nodes, fields.text("current_node")) {
        if let Some(message) = nodes.get(&id).and_then(|node| node.message.as_ref()) {
            take(message, &mut conversation);
        }
    }
    Ok(conversation)
}

fn node(value: &RawValue) -> Result<Node<'_>, String> {
    let fields = Fields::read(value.get())?;
    let message = match fields.object("message") {
        None if fields.has("message") => return Err("has a `message` that is no object".into()),
        message => message,
    };
    if let Some(message) = &message
        && message.has("content")
        && message.object("content").is_none()
    {
        return Err("has a `content` that is no object or is broken".into());
    }
    let children = fields.list("children").unwrap_or_default();
    Ok(Node {
        parent: fields.text("parent"),
        children: children.into_iter().filter_map(text).collect(),
        message,
    })
}

/// The nodes from the root to the end of the branch that was seen.
///
/// Where a node of it cannot be read, its parent is found by the node that calls it a child; where the end is not
/// known, the branch is followed that was made last.
fn path(nodes: &HashMap<String, Node<'_>>, current: Option<String>) -> Vec<String> {
    let mut parents: HashMap<&str, &str> = HashMap::new();
    for (id, node) in nodes {
        parents.extend(node.children.iter().map(|child| (child.as_str(), id.as_str())));
    }
    let known = |id: &String| nodes.contains_key(id) || parents.contains_key(id.as_str());
    let mut at = current.filter(known).or_else(|| last(nodes));
    let mut seen = HashSet::new();
    let mut path = Vec::new();
    while let Some(id) = at {
        if !seen.insert(id.clone()) {
            break;
        }
        let own = nodes.get(&id).and_then(|node| node.parent.clone());
        at = own.or_else(|| parents.get(id.as_str()).map(|parent| (*parent).to_owned()));
        path.push(id);
    }
    path.reverse();
    path
}

/// The end of the branch that was made last: from a root, always the last child.
fn last(nodes: &HashMap<String, Node<'_>>) -> Option<String> {
    let is_root = |node: &Node<'_>| node.parent.as_ref().is_none_or(|parent| !nodes.contains_key(parent));
    let roots = nodes.iter().filter(|(_, node)| is_root(node)).map(|(id, _)| id);
    // Of several roots (a node between them is lost) the one with the longest branch.
    roots.map(|root| branch(nodes, root)).max_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1))).map(|(_, end)| end)
}

fn branch(nodes: &HashMap<String, Node<'_>>, root: &str) -> (usize, String) {
    let mut at = root.to_owned();
    // A circle ends with the number of nodes.
    for length in 1..=nodes.len() {
        let child = nodes.get(&at).and_then(|node| node.children.iter().rfind(|id| nodes.contains_key(*id)));
        match child {
            Some(child) => at.clone_from(child),
            None => return (length, at),
        }
    }
    (nodes.len(), at)
}

fn take(message: &Fields<'_>, conversation: &mut Conversation) {
    let author = message.object("author").unwrap_or_default();
    let role = author.text("role").unwrap_or_default();
    let content = message.object("content").unwrap_or_default();
    let kind = content.text("content_type").unwrap_or_default();
    let at = message.number("create_time").and_then(time::seconds);
    if kind == "user_editable_context" {
        conversation.notes.extend(instructions(&content, at));
        return;
    }
    let hidden = message
        .object("metadata")
        .is_some_and(|metadata| metadata.is_true("is_visually_hidden_from_conversation"))
        || message.number("weight") == Some(0.0);
    let role = match role.as_str() {
        "user" => Role::Person,
        "assistant" => Role::Assistant,
        _ => return,
    };
    let words = words(&content, &kind);
    match message.text("recipient").as_deref() {
        // What the assistant writes into its memory of the person.
        Some("bio") if role == Role::Assistant => {
            conversation.notes.push(Note { text: words, kind: Kind::Fact, tag: "assistant-memory", at });
        }
        Some("all") | None if !hidden && !words.is_empty() => {
            conversation.messages.push(Message { role, text: words, at });
        }
        // A call of a tool: what came of it is in the answer.
        _ => {}
    }
    conversation.notes.retain(|note| !note.text.is_empty());
}

/// What a person reads of a message.
fn words(content: &Fields<'_>, kind: &str) -> String {
    let words = match kind {
        "text" | "multimodal_text" => {
            let parts = content.list("parts").unwrap_or_default();
            parts.into_iter().filter_map(part).collect::<Vec<_>>().join("\n\n")
        }
        "code" => {
            let language = content.text("language").filter(|name| name != "unknown").unwrap_or_default();
            content.text("text").map(|code| format!("```{language}\n{code}\n```")).unwrap_or_default()
        }
        // Thoughts, results of tools, quotations of what was searched.
        _ => String::new(),
    };
    clean(&words)
}

/// A part of a message: a text, something said aloud, or a picture.
fn part(value: &RawValue) -> Option<String> {
    if let Some(words) = text(value) {
        return Some(words).filter(|words| !words.trim().is_empty());
    }
    let fields = Fields::read(value.get()).ok()?;
    match fields.text("content_type").as_deref() {
        Some("audio_transcription") => fields.text("text"),
        Some("image_asset_pointer") => Some("[picture]".into()),
        _ => None,
    }
}

/// Custom instructions: what the person said about themselves, and how they want to be answered.
fn instructions(content: &Fields<'_>, at: Option<i64>) -> Vec<Note> {
    let headed =
        [("user_profile", "About the user"), ("user_instructions", "How the user wants to be answered")];
    let note = |(field, head): (&str, &str)| {
        let text = content.text(field).map(|text| own_words(&clean(&text)).to_owned());
        let text = text.filter(|text| !text.is_empty())?;
        Some(Note {
            text: format!("{head} (custom instructions of ChatGPT):\n\n{text}"),
            kind: Kind::Preference,
            tag: "custom-instructions",
            at,
        })
    };
    headed.into_iter().filter_map(note).collect()
}

/// What the person wrote: ChatGPT puts it between fences, into words of its own that tell the model what it is.
fn own_words(text: &str) -> &str {
    let inner = text.split_once("```").and_then(|(_, rest)| rest.rsplit_once("```")).map(|(inner, _)| inner);
    inner.unwrap_or(text).trim()
}
