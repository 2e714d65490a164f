//! `potluck memory verify`

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};

use super::super::{CliError, client::Client, print, print_line};

/// Checks the whole log; fails with code 1 when something is wrong with it.
pub(super) async fn run(client: &Client, as_json: bool) -> Result<(), CliError> {
    let mut lines = client.lines("/potluck/v1/memory/verify", &json!({})).await?;
    let bar = ProgressBar::new(0);
    if as_json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    while let Some(step) = lines.next().await? {
        let number = |field: &str| step.get(field).and_then(Value::as_u64);
        if let (Some(done), Some(total)) = (number("done"), number("total")) {
            bar.set_length(total);
            bar.set_position(done);
        }
        if let Some(report) = step.get("report") {
            bar.finish_and_clear();
            if as_json {
                print_line(&step.to_string())?;
            } else {
                print(&text(report))?;
            }
            let problems = ["problems", "gaps"].map(|field| list(report, field).len());
            return if problems == [0, 0] { Ok(()) } else { Err(CliError::Unwell(problems.iter().sum())) };
        }
    }
    Err(CliError::Broken("the node stopped without saying why".into()))
}

fn list<'a>(report: &'a Value, field: &str) -> &'a [Value] {
    report.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(report: &Value) -> String {
    let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64).unwrap_or_default();
    let word =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut text = format!(
        "{} versions, {} embeddings and {} erased entries in {} files\n",
        number(report, "versions"),
        number(report, "vectors"),
        number(report, "erased"),
        number(report, "segments")
    );
    for problem in list(report, "problems") {
        let (file, offset) = (word(problem, "file"), number(problem, "offset"));
        text.push_str(&format!("{file} at byte {offset}: {}\n", word(problem, "trouble")));
    }
    for gap in list(report, "gaps") {
        let (first, last) = (number(gap, "first"), number(gap, "last"));
        text.push_str(&format!("entries {first} to {last} of {} are missing\n", word(gap, "origin")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_named_by_place() {
        let report = json!({"versions": 2, "vectors": 1, "erased": 0, "segments": 1,
            "problems": [{"file": "a.log", "offset": 7, "trouble": "9 bytes cannot be read"}],
            "gaps": [{"origin": "ab", "first": 3, "last": 4}]});
        let text = super::text(&report);
        for words in ["2 versions", "a.log at byte 7: 9 bytes", "entries 3 to 4 of ab"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
