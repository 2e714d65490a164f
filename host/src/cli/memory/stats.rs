//! `potluck memory stats`

use std::fmt::Write as _;

use serde_json::Value;

use super::super::{CliError, client::Client, output, print, print_line};

/// Says how much is remembered.
pub(super) async fn run(client: &Client, as_json: bool) -> Result<(), CliError> {
    let stats = client.get("/potluck/v1/memory/stats").await?;
    if as_json {
        return print_line(&stats.to_string());
    }
    print(&text(&stats))
}

fn text(stats: &Value) -> String {
    let number = |field: &str| stats.get(field).and_then(Value::as_u64).unwrap_or_default();
    let map = |field: &str| stats.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut text = format!("{} memories, {} versions\n", number("live"), number("versions"));
    let mut block = |title: &str, rows: Vec<(String, String)>| {
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{title}");
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:width$}  {value}");
        }
    };
    let counts = |field: &str| {
        map(field)
            .into_iter()
            .map(|(name, count)| (if name.is_empty() { "(none)".into() } else { name }, count.to_string()))
            .collect::<Vec<_>>()
    };
    block("by kind", counts("kinds"));
    block("by project", counts("projects"));
    let sizes = map("bytes").into_iter();
    block(
        "on disk",
        sizes.map(|(name, count)| (name, output::bytes(count.as_u64().unwrap_or_default()))).collect(),
    );
    block("secrets removed", counts("redactions"));
    let embedder = stats.get("embedder").and_then(Value::as_str);
    let _ = match embedder {
        Some(model) => writeln!(text, "\nrecall by meaning and words, with {model}"),
        None => writeln!(text, "\nrecall by words alone: there is no embedding model"),
    };
    for (field, words) in [
        ("pending", "wait for their embedding; words find them already"),
        ("conflicts", "have two living versions; `potluck memory show ID` shows them"),
    ] {
        if number(field) > 0 {
            let _ = writeln!(text, "{} {words}", number(field));
        }
    }
    for repair in stats.get("repairs").and_then(Value::as_array).into_iter().flatten() {
        let _ = writeln!(text, "repaired when opened: {}", repair.as_str().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn stats_are_told_in_words() {
        let stats = json!({"live": 3, "versions": 4, "kinds": {"fact": 3}, "projects": {"": 1, "shop": 2},
            "bytes": {"log": 2048}, "pending": 1, "embedder": null});
        let text = super::text(&stats);
        for words in [
            "3 memories, 4 versions",
            "  (none)  1\n",
            "  shop    2\n",
            "  log  2 kB",
            "words alone",
            "1 wait",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
