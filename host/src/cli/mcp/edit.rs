//! The new text of a configuration, in each syntax.

use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::{
    clients::{Client, Syntax},
    jsonc,
};

/// Our name among the servers of a client.
pub(super) const NAME: &str = "potluck";

/// Why a configuration was left as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum EditError {
    /// It is not what it should be.
    #[error("{0}")]
    Json(#[from] jsonc::Problem),
    /// It is not TOML.
    #[error("it is not valid TOML: {0}")]
    Toml(String),
    /// The new text does not say what it should; a mistake here, so that nothing is written.
    #[error("the changed file would not say what it should")]
    Unsure,
}

/// The text with our entry, or, without `command`, without it.
///
/// # Errors
/// [`EditError`]; the file is then to be left as it is.
pub(super) fn edited(
    client: Client,
    text: &str,
    command: Option<(&str, &[String])>,
) -> Result<String, EditError> {
    match client.syntax() {
        Syntax::Json(section) => json(client, text, section, command),
        Syntax::Toml(section) => toml(text, section, command),
        Syntax::Yaml => Ok(command.map_or_else(String::new, |(command, args)| yaml(command, args))),
    }
}

/// Whether the text has our entry.
pub(super) fn installed(client: Client, text: &str) -> bool {
    match client.syntax() {
        Syntax::Json(section) => matches!(jsonc::get(text, section, NAME), Ok(Some(_))),
        Syntax::Toml(section) => text
            .parse::<DocumentMut>()
            .is_ok_and(|document| document.get(section).and_then(|servers| servers.get(NAME)).is_some()),
        Syntax::Yaml => !text.trim().is_empty(),
    }
}

fn json(
    client: Client,
    text: &str,
    section: &str,
    command: Option<(&str, &[String])>,
) -> Result<String, EditError> {
    let read = |text: &str| serde_json::from_str::<Value>(&jsonc::plain(text)).ok();
    let entry = command.map(|(command, args)| client.entry(command, args));
    let changed = match &entry {
        Some(entry) => jsonc::set(text, section, NAME, entry)?,
        None => jsonc::remove(text, section, NAME)?,
    };
    if changed.trim().is_empty() {
        return Ok(changed);
    }
    // Read back as any program reads it: nothing but our entry may differ.
    let mut after = read(&changed).ok_or(EditError::Unsure)?;
    let mut before = read(text).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let said = after.pointer(&format!("/{section}/{NAME}")).cloned();
    for document in [&mut before, &mut after] {
        let servers = document.get_mut(section).and_then(Value::as_object_mut);
        let empty = servers.is_some_and(|servers| {
            servers.shift_remove(NAME);
            servers.is_empty()
        });
        if let (true, Some(map)) = (empty, document.as_object_mut()) {
            map.shift_remove(section);
        }
    }
    if said != entry || before != after {
        return Err(EditError::Unsure);
    }
    Ok(changed)
}

fn toml(text: &str, section: &str, command: Option<(&str, &[String])>) -> Result<String, EditError> {
    let wrong = |error: toml_edit::TomlError| EditError::Toml(error.to_string().trim_end().to_owned());
    let mut document: DocumentMut = text.parse().map_err(wrong)?;
    let Some((command, args)) = command else {
        if let Some(servers) = document.get_mut(section).and_then(Item::as_table_like_mut) {
            servers.remove(NAME);
        }
        return Ok(document.to_string());
    };
    let not_a_table = || EditError::Toml(format!("`{section}` is not a table"));
    let servers = document.entry(section).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let servers = servers.as_table_like_mut().ok_or_else(not_a_table)?;
    if servers.get(NAME).is_none() {
        servers.insert(NAME, Item::Table(Table::new()));
    }
    let ours = servers.get_mut(NAME).and_then(Item::as_table_like_mut).ok_or_else(not_a_table)?;
    let mut words = Array::new();
    words.extend(args.iter().map(String::as_str));
    // What is right already keeps its layout.
    if ours.get("command").and_then(Item::as_str) != Some(command) {
        ours.insert("command", value(command));
    }
    let same = ours.get("args").and_then(Item::as_array).is_some_and(|old| {
        old.iter().map(toml_edit::Value::as_str).eq(args.iter().map(|word| Some(word.as_str())))
    });
    if !same {
        ours.insert("args", value(words));
    }
    Ok(document.to_string())
}

/// A JSON string is a YAML string too.
fn yaml(command: &str, args: &[String]) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let args: Vec<_> = args.iter().map(|word| format!("      - {}\n", quoted(word))).collect();
    format!(
        "name: Potluck memory\nversion: 0.0.1\nschema: v1\nmcpServers:\n  - name: {NAME}\n    type: stdio\n    \
         command: {}\n    args:\n{}",
        quoted(command),
        args.concat()
    )
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn words() -> Vec<String> {
        vec!["--home".into(), "/a \"b\"\\c".into(), "mcp".into()]
    }

    #[test]
    fn every_client_takes_it_and_gives_it_back() {
        for client in Client::value_variants() {
            let first = edited(*client, "", Some(("/x y/potluck", &words()))).unwrap();
            assert!(installed(*client, &first), "{client:?}: {first}");
            assert_eq!(
                edited(*client, &first, Some(("/x y/potluck", &words()))).unwrap(),
                first,
                "{client:?}"
            );
            let moved = edited(*client, &first, Some(("/elsewhere", &words()))).unwrap();
            assert!(moved.contains("/elsewhere") && !moved.contains("/x y"), "{client:?}: {moved}");
            let gone = edited(*client, &first, None).unwrap();
            assert!(!installed(*client, &gone), "{client:?}: {gone}");
        }
    }

    #[test]
    fn toml_keeps_what_is_not_ours() {
        let text =
            "# mine\nmodel = \"x\" # why\n\n[mcp_servers.other]\ncommand = 'o'\n\n[profiles.a]\nb = 1\n";
        let changed = edited(Client::Codex, text, Some(("potluck", &["mcp".into()]))).unwrap();
        for kept in
            ["# mine\nmodel = \"x\" # why\n", "[mcp_servers.other]\ncommand = 'o'\n", "[profiles.a]\nb = 1\n"]
        {
            assert!(changed.contains(kept), "{changed}");
        }
        assert!(
            changed.contains("[mcp_servers.potluck]\ncommand = \"potluck\"\nargs = [\"mcp\"]\n"),
            "{changed}"
        );
        assert_eq!(edited(Client::Codex, &changed, None).unwrap(), text);
        let inline = "mcp_servers = { other = { command = 'o' } }\n";
        let changed = edited(Client::Codex, inline, Some(("potluck", &["mcp".into()]))).unwrap();
        assert!(installed(Client::Codex, &changed), "{changed}");
        assert!(edited(Client::Codex, "mcp_servers = 1", Some(("p", &[]))).is_err());
        assert!(edited(Client::Codex, "= 1", Some(("p", &[]))).is_err());
    }
}
