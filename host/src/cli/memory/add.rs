//! `potluck memory add`

use std::io::{self, Read};

use clap::Args;
use serde_json::{Map, Value};

use super::super::{CliError, client::Client, print_line};

/// Most bytes read from stdin; the node refuses more than 1 MiB with a clear word.
const PIPED: u64 = 8 << 20;

/// Remember something: what the arguments say, or stdin when there are none.
#[derive(Args, Debug)]
pub(super) struct Add {
    /// The text; without it, or as `-`, it is read from stdin.
    text: Vec<String>,
    /// fact, decision, task, reference or preference [default: fact].
    #[arg(long, value_name = "KIND", value_parser = super::kind)]
    kind: Option<String>,
    /// The project it belongs to.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// A word to find it by (repeatable).
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// When what it tells happened: a date, a time, or how long ago.
    #[arg(long, value_name = "WHEN", value_parser = super::moment)]
    occurred_at: Option<String>,
    /// When it stops being true: a date or a time.
    #[arg(long, value_name = "WHEN", value_parser = super::moment)]
    valid_until: Option<String>,
    /// The id of a memory that this one replaces (repeatable).
    #[arg(long, value_name = "ID")]
    supersedes: Vec<String>,
    /// Who says so.
    #[arg(long, value_name = "NAME", default_value = "potluck memory add")]
    source: String,
}

impl Add {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        let mut fields = Map::new();
        fields.insert("content".into(), self.content()?.into());
        fields.insert("source".into(), self.source.into());
        let words = [
            ("kind", self.kind),
            ("project", self.project),
            ("occurred_at", self.occurred_at),
            ("valid_until", self.valid_until),
        ];
        fields.extend(words.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        for (name, list) in [("tags", self.tags), ("supersedes", self.supersedes)] {
            if !list.is_empty() {
                fields.insert(name.into(), list.into());
            }
        }
        let answer = client.post("/potluck/v1/memory", &fields.into()).await?;
        if json {
            return print_line(&answer.to_string());
        }
        let id = answer.get("id").and_then(Value::as_str).unwrap_or("?");
        if answer.get("duplicate_of").is_some_and(Value::is_string) {
            return print_line(&format!("known already as {id}; nothing was written"));
        }
        print_line(&format!("remembered as {id}"))?;
        for near in answer.get("near_duplicates").and_then(Value::as_array).into_iter().flatten() {
            let near = near.as_str().unwrap_or("?");
            print_line(&format!("  nearly the same: {near} (potluck memory show {near})"))?;
        }
        super::page::redactions(&answer)
    }

    fn content(&self) -> Result<String, CliError> {
        let text = self.text.join(" ");
        if !text.is_empty() && text != "-" {
            return Ok(text);
        }
        let mut text = String::new();
        io::stdin()
            .lock()
            .take(PIPED)
            .read_to_string(&mut text)
            .map_err(|source| CliError::Io { what: "the text could not be read from stdin", source })?;
        if text.trim().is_empty() {
            return Err(CliError::Usage(
                "there is no text: give one as an argument or through a pipe".into(),
            ));
        }
        Ok(text.trim().to_owned())
    }
}
