//! Memories as people read them.

use std::{fmt::Write as _, io};

use serde_json::Value;

use super::super::{CliError, output, print_line};
use crate::memory::Millis;

/// Cells of the bar that shows a score.
const BAR: usize = 8;
/// Columns where the terminal does not say.
const WIDTH: usize = 100;
/// Lines of a text in a list.
const LINES: usize = 6;

/// How to write to this terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    width: usize,
    coloured: bool,
    now: i64,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { width: width(), coloured: output::colours(&io::stdout()), now: Millis::now().0 }
    }

    /// A list; with a bar of each one's score relative to the best.
    pub(super) fn items(&self, items: &[Value], scored: bool) -> String {
        let score = |item: &Value| item.get("score").and_then(Value::as_f64).unwrap_or_default();
        let best = items.iter().map(score).fold(f64::MIN_POSITIVE, f64::max);
        let mut text = String::new();
        for item in items {
            let bar = if scored { format!("{} ", bar(score(item) / best)) } else { String::new() };
            let _ = writeln!(text, "{bar}{}", self.head(item));
            self.body(&mut text, item, LINES);
            explain(&mut text, item);
            text.push('\n');
        }
        text
    }

    /// One memory with all that is known of it.
    pub(super) fn full(&self, item: &Value) -> String {
        let mut text = format!("{}\n", self.head(item));
        for field in ["created_at", "occurred_at", "valid_until"] {
            if let Some(at) = item.get(field).and_then(moment) {
                let _ = writeln!(text, "  {field}: {}", Millis(at));
            }
        }
        for field in ["state", "source", "origin"] {
            if let Some(word) = item.get(field).and_then(Value::as_str) {
                let _ = writeln!(text, "  {field}: {}", clean(word));
            }
        }
        for field in ["supersedes", "conflicts_with"] {
            let ids: Vec<_> = item
                .get(field)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if !ids.is_empty() {
                let _ = writeln!(text, "  {field}: {}", ids.join(", "));
            }
        }
        text.push('\n');
        self.body(&mut text, item, usize::MAX);
        text.push('\n');
        text
    }

    /// Kind, project, tags, age, id.
    fn head(&self, item: &Value) -> String {
        let word = |field: &str| item.get(field).and_then(Value::as_str).map(clean);
        let mut parts = vec![self.paint("1", &word("kind").unwrap_or_default())];
        parts.extend(word("project").map(|project| self.paint("36", &project)));
        let tags = item.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let tags: Vec<_> = tags.map(|tag| format!("#{}", clean(tag))).collect();
        if !tags.is_empty() {
            parts.push(tags.join(" "));
        }
        let at = item.get("occurred_at").or_else(|| item.get("created_at")).and_then(moment);
        parts.extend(at.map(|at| self.age(at)));
        match word("state").as_deref() {
            None | Some("live") => {}
            Some(state) => parts.push(self.paint("33", state)),
        }
        if item.get("conflicts_with").and_then(Value::as_array).is_some_and(|ids| !ids.is_empty()) {
            parts.push(self.paint("31", "conflict"));
        }
        parts.push(self.paint("2", &word("id").unwrap_or_default()));
        parts.join(" · ")
    }

    fn age(&self, at: i64) -> String {
        let seconds = self.now.saturating_sub(at) / 1000;
        match u64::try_from(seconds) {
            Ok(seconds) => format!("{} ago", output::span(seconds)),
            Err(_) => format!("in {}", output::span(seconds.unsigned_abs())),
        }
    }

    fn body(&self, to: &mut String, item: &Value, most: usize) {
        let text = clean(item.get("content").and_then(Value::as_str).unwrap_or_default());
        let lines: Vec<_> =
            text.trim().lines().flat_map(|line| wrap(line, self.width.saturating_sub(4))).collect();
        for line in lines.iter().take(most) {
            let _ = writeln!(to, "    {line}");
        }
        if lines.len() > most {
            let _ = writeln!(to, "    … ({} more lines)", lines.len() - most);
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.coloured && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A time of an answer, in milliseconds.
fn moment(value: &Value) -> Option<i64> {
    Millis::parse(value.as_str()?).ok().map(|at| at.0)
}

/// What a terminal would obey, taken out: a stored text may not move the cursor or ring the bell.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '\n',
            '\t' => ' ',
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

fn bar(share: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=BAR")]
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full.min(BAR)))
}

/// How each leg ranked an item, when that was asked for.
fn explain(to: &mut String, item: &Value) {
    for (field, words) in [("ranks", "rank"), ("boosts", "boost")] {
        let found = item.pointer(&format!("/explain/{field}")).and_then(Value::as_object);
        let parts: Vec<_> =
            found.into_iter().flatten().map(|(name, value)| format!("{name} {value}")).collect();
        if !parts.is_empty() {
            let _ = writeln!(to, "    {words}: {}", parts.join(", "));
        }
    }
}

/// Breaks a line between words, or within one that is too long for any line.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let width = width.max(20);
    let indent: String = line.chars().take_while(|c| *c == ' ').take(width / 2).collect();
    let mut lines = Vec::new();
    let mut current = indent.clone();
    for word in line.split_whitespace() {
        let mut word = word;
        let used = current.chars().count();
        if used > indent.len() && used + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut current, indent.clone()));
        }
        if current.chars().count() > indent.len() {
            current.push(' ');
        }
        while current.chars().count() + word.chars().count() > width {
            let room = width - current.chars().count();
            let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
            let (head, tail) = word.split_at(cut);
            current.push_str(head);
            lines.push(std::mem::replace(&mut current, indent.clone()));
            word = tail;
        }
        current.push_str(word);
    }
    if current.trim().is_empty() && !lines.is_empty() {
        return lines;
    }
    lines.push(current);
    lines
}

fn width() -> usize {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns >= 40);
        columns.map_or(WIDTH, |columns| columns.min(WIDTH))
    }
    #[cfg(not(unix))]
    WIDTH
}

/// Says which secrets were removed.
pub(super) fn redactions(answer: &Value) -> Result<(), CliError> {
    for removed in answer.get("redactions").and_then(Value::as_array).into_iter().flatten() {
        let kind = removed.get("kind").and_then(Value::as_str).unwrap_or("secret");
        let count = removed.get("count").and_then(Value::as_u64).unwrap_or(1);
        print_line(&format!("  removed before writing: {count} {kind}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("a b", 20), ["a b"]);
        assert_eq!(wrap("", 20), [""]);
        let lines = wrap("the quick brown fox jumps over the lazy dog", 20);
        assert_eq!(lines, ["the quick brown fox", "jumps over the lazy", "dog"]);
        let lines = wrap(&format!("ä {}", "x".repeat(50)), 20);
        assert!(lines.iter().all(|line| line.chars().count() <= 20), "{lines:?}");
        assert_eq!(lines.concat().matches('x').count(), 50);
    }

    #[test]
    fn a_stored_text_cannot_steer_the_terminal() {
        let page = Page { width: 60, coloured: false, now: 86_400_000 };
        let item = json!({"id": "i", "kind": "fact", "project": "p\u{1b}[2J", "tags": ["a"], "created_at": "1970-01-01T00:00:00Z",
            "content": "one\u{1b}]0;title\u{7}\ntwo", "score": 0.5, "state": "live"});
        let text = page.items(std::slice::from_ref(&item), true);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'));
        assert!(text.starts_with("████████ fact · p"), "{text}");
        assert!(text.contains("#a · 24 h ago · i\n"), "{text}");
        assert!(page.full(&item).contains("created_at: 1970-01-01T00:00:00Z"));
    }
}
