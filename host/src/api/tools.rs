//! Finding the tool calls in a model's text.
//!
//! The common form is understood: a JSON object `{"name": …, "arguments": {…}}` between `<tool_call>` and
//! `</tool_call>` (Qwen, Hermes and relatives). Anything else stays text.

use serde_json::{Map, Value};
use uuid::Uuid;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text for the reader.
    Text(String),
    /// A call of a tool.
    Call(ToolCall),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Made up here; unique.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// Splits a stream of text into text and tool calls. Without tools everything is text.
#[derive(Debug)]
pub struct ToolFilter {
    active: bool,
    held: String,
    inside: bool,
    calls: usize,
}

impl ToolFilter {
    /// A filter; `active` when the request brought tools.
    pub fn new(active: bool) -> Self {
        Self { active, held: String::new(), inside: false, calls: 0 }
    }

    /// Calls found so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Takes more text and gives what is certain.
    pub fn push(&mut self, text: String) -> Vec<Piece> {
        if !self.active {
            return if text.is_empty() { Vec::new() } else { vec![Piece::Text(text)] };
        }
        self.held.push_str(&text);
        let mut pieces = Vec::new();
        loop {
            let mark = if self.inside { CLOSE } else { OPEN };
            if let Some((before, after)) = self.held.split_once(mark) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.held = after;
                if self.inside {
                    self.close(before, &mut pieces);
                } else {
                    add(&mut pieces, &before);
                }
                self.inside = !self.inside;
                continue;
            }
            if !self.inside {
                let keep = possible_start(&self.held, OPEN);
                let rest = self.held.split_off(self.held.len() - keep);
                let ready = std::mem::replace(&mut self.held, rest);
                add(&mut pieces, &ready);
            }
            return pieces;
        }
    }

    /// Gives what is left at the end.
    pub fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let mut pieces = Vec::new();
        if std::mem::take(&mut self.inside) {
            // Models that end right after the JSON leave the closing mark out.
            self.close(held, &mut pieces);
        } else {
            add(&mut pieces, &held);
        }
        pieces
    }

    fn close(&mut self, body: String, pieces: &mut Vec<Piece>) {
        match parse(&body) {
            Some(call) => {
                self.calls += 1;
                pieces.push(Piece::Call(call));
            }
            None => add(pieces, &format!("{OPEN}{body}{CLOSE}")),
        }
    }
}

fn add(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

fn parse(body: &str) -> Option<ToolCall> {
    let Ok(Value::Object(mut call)) = serde_json::from_str(body.trim()) else { return None };
    let Some(Value::String(name)) = call.shift_remove("name") else { return None };
    let arguments = match call.shift_remove("arguments").or_else(|| call.shift_remove("parameters")) {
        Some(Value::Object(arguments)) => arguments,
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        None => Map::new(),
        Some(_) => return None,
    };
    Some(ToolCall { id: format!("call_{}", Uuid::now_v7().simple()), name, arguments })
}

/// Length of the longest end of `text` that `mark` could begin with.
fn possible_start(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|n| mark.get(..*n).is_some_and(|start| text.ends_with(start))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(parts: &[&str]) -> (String, Vec<(String, String)>) {
        let mut filter = ToolFilter::new(true);
        let mut pieces: Vec<_> = parts.iter().flat_map(|part| filter.push((*part).to_owned())).collect();
        pieces.extend(filter.finish());
        let mut text = String::new();
        let mut calls = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(part) => text.push_str(&part),
                Piece::Call(call) => calls.push((call.name, Value::Object(call.arguments).to_string())),
            }
        }
        (text, calls)
    }

    #[test]
    fn calls_are_found_however_the_text_is_cut() {
        let whole =
            "Sure.\n<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>!";
        for cut in 0..=whole.len() {
            let (text, calls) = run(&[&whole[..cut], &whole[cut..]]);
            assert_eq!(text, "Sure.\n!", "cut at {cut}");
            assert_eq!(calls, [("now".to_owned(), "{\"zone\":\"UTC\"}".to_owned())]);
        }
    }

    #[test]
    fn what_is_no_call_stays_text() {
        assert_eq!(run(&["a < b <tool"]), ("a < b <tool".into(), vec![]));
        assert_eq!(run(&["<tool_call>nonsense</tool_call>"]).0, "<tool_call>nonsense</tool_call>");
        assert_eq!(run(&["<tool_call>{\"name\":\"f\"}"]).1, [("f".to_owned(), "{}".to_owned())]);
    }
}
