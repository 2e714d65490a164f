//! A conversation of Claude's export: a list of messages, in the order they were said.

use super::{
    exchange::{Conversation, Message, Role, clean},
    json::Fields,
    time,
};

/// Problems told of one conversation.
const TOLD: usize = 8;

/// Reads a conversation.
///
/// # Errors
/// What is wrong with it as a whole.
pub(crate) fn read(fields: &Fields<'_>) -> Result<Conversation, String> {
    let messages = fields.list("chat_messages").ok_or("the conversation's `chat_messages` are no list")?;
    let moment = |fields: &Fields<'_>| fields.text("created_at").and_then(|text| time::rfc3339(&text));
    let mut conversation = Conversation {
        title: fields.text("name").unwrap_or_default(),
        id: fields.text("uuid").unwrap_or_default(),
        at: moment(fields),
        ..Conversation::default()
    };
    for (number, value) in (1..).zip(messages) {
        let read = Fields::read(value.get()).and_then(|fields| Ok((message(&fields)?, moment(&fields))));
        match read {
            Ok((Some((role, text)), at)) => conversation.messages.push(Message { role, text, at }),
            Ok((None, _)) => {}
            Err(reason) if conversation.problems.len() < TOLD => {
                conversation.problems.push(format!("message {number} {reason}"));
            }
            Err(_) => {}
        }
    }
    Ok(conversation)
}

fn message(fields: &Fields<'_>) -> Result<Option<(Role, String)>, String> {
    let role = match fields.text("sender").as_deref() {
        Some("human") => Role::Person,
        Some("assistant") => Role::Assistant,
        Some(_) => return Ok(None),
        None => return Err("does not say who sent it".into()),
    };
    let mut words = Vec::new();
    for block in fields.list("content").unwrap_or_default() {
        let Ok(block) = Fields::read(block.get()) else { return Err("has a broken `content`".into()) };
        // Thoughts and calls of tools are left out: what came of them is in the text.
        if block.text("type").as_deref() == Some("text") {
            words.extend(block.text("text"));
        }
    }
    // Older exports have the whole message in one field, newer ones both.
    if words.is_empty() {
        words.extend(fields.text("text"));
    }
    for list in ["attachments", "files"] {
        for file in fields.list(list).unwrap_or_default() {
            let name = Fields::read(file.get()).ok().and_then(|file| file.text("file_name"));
            words.extend(name.filter(|name| !name.is_empty()).map(|name| format!("[file: {name}]")));
        }
    }
    let text = clean(&words.join("\n\n"));
    Ok((!text.is_empty()).then_some((role, text)))
}
