//! Changing one entry of a JSON file as a careful person would: everything else stays as it is, comments,
//! order and blank lines included.

use std::ops::Range;

use serde_json::Value;

/// Deepest nesting that is read.
const DEPTH: u32 = 256;

/// Why a text cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// It is not JSON, comments and trailing commas allowed.
    #[error("it is not valid JSON (byte {0})")]
    Syntax(usize),
    /// Something on the way to the entry is no object.
    #[error("`{0}` in it is not an object")]
    NotObject(String),
}

/// A member of an object.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    key: usize,
    value: Range<usize>,
    /// Where the comma after it is.
    comma: Option<usize>,
}

/// An object in the text.
#[derive(Clone, Debug)]
struct Object {
    open: usize,
    close: usize,
    members: Vec<Member>,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{feff}') { 3 } else { 0 };
        Self { text, at, depth: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong<T>(&self) -> Result<T, Problem> {
        Err(Problem::Syntax(self.at))
    }

    /// Blanks and comments.
    fn skip(&mut self) -> Result<(), Problem> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.at += rest.len() - trimmed.len();
            self.at += if trimmed.starts_with("//") {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else if let Some(inside) = trimmed.strip_prefix("/*") {
                inside.find("*/").map_or_else(|| self.wrong(), |end| Ok(end + 4))?
            } else {
                return Ok(());
            };
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        if self.peek() != Some(byte) {
            return self.wrong();
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.expect(b'"')?;
        loop {
            match self.peek() {
                None | Some(b'\n') => return self.wrong(),
                Some(b'\\') => self.at += 2,
                Some(b'"') => break,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).ok_or(Problem::Syntax(start))?;
        serde_json::from_str(quoted).map_err(|_| Problem::Syntax(start))
    }

    fn object(&mut self) -> Result<Object, Problem> {
        let open = self.at;
        self.expect(b'{')?;
        let mut members: Vec<Member> = Vec::new();
        loop {
            self.skip()?;
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Object { open, close: self.at - 1, members });
                }
                Some(b'"') if members.last().is_none_or(|last| last.comma.is_some()) => {}
                _ => return self.wrong(),
            }
            let key = self.at;
            let name = self.string()?;
            self.skip()?;
            self.expect(b':')?;
            self.skip()?;
            let start = self.at;
            self.value()?;
            let value = start..self.at;
            self.skip()?;
            let comma = (self.peek() == Some(b',')).then_some(self.at);
            self.at += usize::from(comma.is_some());
            members.push(Member { name, key, value, comma });
        }
    }

    fn value(&mut self) -> Result<(), Problem> {
        if self.depth >= DEPTH {
            return self.wrong();
        }
        self.depth += 1;
        match self.peek() {
            Some(b'{') => drop(self.object()?),
            Some(b'"') => drop(self.string()?),
            Some(b'[') => self.array()?,
            _ => {
                let rest = self.rest();
                let end = rest.find([',', '}', ']', ' ', '\t', '\r', '\n', '/']).unwrap_or(rest.len());
                let word = rest.get(..end).unwrap_or_default();
                if serde_json::from_str::<Value>(word).is_err() {
                    return self.wrong();
                }
                self.at += end;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Problem> {
        self.expect(b'[')?;
        loop {
            self.skip()?;
            if self.peek() == Some(b']') {
                break;
            }
            self.value()?;
            self.skip()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.wrong(),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// The whole text, which must be one object.
    fn root(mut self) -> Result<Object, Problem> {
        self.skip()?;
        if self.peek() != Some(b'{') {
            return Err(Problem::NotObject("the file".into()));
        }
        let object = self.object()?;
        self.skip()?;
        if self.at < self.text.len() { self.wrong() } else { Ok(object) }
    }
}

impl Object {
    /// A member; of two with one name the last counts, as for all who read JSON.
    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().rfind(|member| member.name == name)
    }
}

/// The object that a member holds.
fn inner(text: &str, member: &Member) -> Result<Object, Problem> {
    let mut reader = Reader { text, at: member.value.start, depth: 0 };
    if reader.peek() != Some(b'{') {
        return Err(Problem::NotObject(member.name.clone()));
    }
    reader.object()
}

/// The value at `section` / `name`.
///
/// # Errors
/// [`Problem`]
pub(super) fn get(text: &str, section: &str, name: &str) -> Result<Option<Value>, Problem> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let root = Reader::new(text).root()?;
    let Some(section) = root.member(section) else { return Ok(None) };
    let object = inner(text, section)?;
    Ok(object.member(name).and_then(|member| {
        let value = text.get(member.value.clone())?;
        serde_json::from_str(&plain(value)).ok()
    }))
}

/// The text with `value` at `section` / `name`.
///
/// # Errors
/// [`Problem`]
pub(super) fn set(text: &str, section: &str, name: &str, value: &Value) -> Result<String, Problem> {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        let whole = Value::Object([(section.to_owned(), object_of(name, value))].into_iter().collect());
        return Ok(format!("{}\n", pretty(&whole, "", "  ")));
    }
    let root = Reader::new(text).root()?;
    let unit = unit(text, &root);
    let Some(member) = root.member(section) else {
        return Ok(insert(text, &root, section, &object_of(name, value), &unit));
    };
    let object = inner(text, member)?;
    match object.member(name) {
        Some(old) => {
            let said = text.get(old.value.clone()).unwrap_or_default();
            // What is right already keeps its layout.
            if serde_json::from_str::<Value>(&plain(said)).is_ok_and(|said| said == *value) {
                return Ok(text.to_owned());
            }
            let indent = indent_at(text, old.key);
            let mut changed = text.to_owned();
            changed.replace_range(old.value.clone(), &pretty(value, &indent, &unit));
            Ok(changed)
        }
        None => Ok(insert(text, &object, name, value, &unit)),
    }
}

/// The text without `section` / `name`.
///
/// # Errors
/// [`Problem`]
pub(super) fn remove(text: &str, section: &str, name: &str) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    let root = Reader::new(text).root()?;
    let Some(section) = root.member(section) else { return Ok(text.to_owned()) };
    let object = inner(text, section)?;
    let Some(at) = object.members.iter().rposition(|member| member.name == name) else {
        return Ok(text.to_owned());
    };
    let Some(member) = object.members.get(at) else { return Ok(text.to_owned()) };
    let before = text.get(..member.key).unwrap_or_default();
    let start = before.trim_end_matches([' ', '\t', '\r', '\n']).len();
    let end = member.comma.map_or(member.value.end, |comma| comma + 1);
    let mut changed = text.to_owned();
    changed.replace_range(start..end, "");
    let last = at + 1 == object.members.len();
    let comma_before = at.checked_sub(1).and_then(|before| object.members.get(before)?.comma);
    if let Some(comma) = comma_before.filter(|_| last && member.comma.is_none()) {
        changed.replace_range(comma..=comma, "");
    }
    Ok(changed)
}

fn object_of(name: &str, value: &Value) -> Value {
    Value::Object([(name.to_owned(), value.clone())].into_iter().collect())
}

/// Puts a member at the end of an object.
fn insert(text: &str, object: &Object, name: &str, value: &Value, unit: &str) -> String {
    let key = Value::from(name);
    let mut changed = text.to_owned();
    let Some(last) = object.members.last() else {
        let outer = indent_at(text, object.open);
        let inner = format!("{outer}{unit}");
        let inside = text.get(object.open + 1..object.close).unwrap_or_default();
        let member = format!("\n{inner}{key}: {}\n{outer}", pretty(value, &inner, unit));
        let from = object.open + 1 + inside.trim_end_matches([' ', '\t', '\r', '\n']).len();
        changed.replace_range(from..object.close, &member);
        return changed;
    };
    let lines = text.get(object.open..object.close).is_some_and(|inside| inside.contains('\n'));
    if !lines {
        let separator = if last.comma.is_some() { " " } else { ", " };
        let after = last.comma.map_or(last.value.end, |comma| comma + 1);
        changed.insert_str(after, &format!("{separator}{key}: {value}"));
        return changed;
    }
    let indent = indent_at(text, last.key);
    let after = line_end(text, last.comma.map_or(last.value.end, |comma| comma + 1));
    let comma = if last.comma.is_some() { "," } else { "" };
    changed.insert_str(after, &format!("\n{indent}{key}: {}{comma}", pretty(value, &indent, unit)));
    if last.comma.is_none() {
        changed.insert(last.value.end, ',');
    }
    changed
}

/// Where a comment that follows on the same line ends, else where it began to look.
fn line_end(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    let said = line.trim_start();
    if said.starts_with("//") || (said.starts_with("/*") && said.trim_end().ends_with("*/")) {
        from + line.trim_end().len()
    } else {
        from
    }
}

/// The blanks that begin the line of a place.
fn indent_at(text: &str, at: usize) -> String {
    let line = text.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
    line.chars().take_while(|c| *c == ' ' || *c == '\t').collect()
}

/// What the file indents by.
fn unit(text: &str, root: &Object) -> String {
    let indent = root.members.first().map(|member| indent_at(text, member.key)).unwrap_or_default();
    if indent.is_empty() { "  ".into() } else { indent }
}

fn pretty(value: &Value, indent: &str, unit: &str) -> String {
    let inner = format!("{indent}{unit}");
    match value {
        Value::Object(map) if !map.is_empty() => {
            let members: Vec<_> = map
                .iter()
                .map(|(key, value)| {
                    format!("{inner}{}: {}", Value::from(key.as_str()), pretty(value, &inner, unit))
                })
                .collect();
            format!("{{\n{}\n{indent}}}", members.join(",\n"))
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let items: Vec<_> =
                items.iter().map(|item| format!("{inner}{}", pretty(item, &inner, unit))).collect();
            format!("[\n{}\n{indent}]", items.join(",\n"))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// The text without comments and trailing commas, for those who read plain JSON.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut reader = Reader::new(text);
    while reader.at < text.len() {
        let before = reader.at;
        if reader.skip().is_err() {
            break;
        }
        if reader.at > before {
            out.push(' ');
        }
        let from = reader.at;
        match reader.peek() {
            None => break,
            Some(b'"') => {
                if reader.string().is_err() {
                    break;
                }
            }
            Some(byte) => {
                if matches!(byte, b'}' | b']') {
                    let kept = out.trim_end().trim_end_matches(',').len();
                    if out.trim_end().ends_with(',') {
                        out.truncate(kept);
                    }
                }
                reader.at += reader.rest().chars().next().map_or(1, char::len_utf8);
            }
        }
        out.push_str(text.get(from..reader.at).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value() -> Value {
        json!({"command": "potluck", "args": ["mcp"]})
    }

    /// Sets, sets again, and removes; checks that what it means is right each time.
    fn round(text: &str) -> String {
        let set_once = set(text, "mcpServers", "potluck", &value()).unwrap();
        let read = |text: &str| {
            serde_json::from_str::<Value>(&plain(text)).unwrap_or_else(|e| panic!("{e}: {text}"))
        };
        let mut wanted = if text.trim().is_empty() { json!({}) } else { read(text) };
        wanted["mcpServers"]["potluck"] = value();
        assert_eq!(read(&set_once), wanted, "{set_once}");
        assert_eq!(set(&set_once, "mcpServers", "potluck", &value()).unwrap(), set_once, "twice is once");
        assert_eq!(get(&set_once, "mcpServers", "potluck").unwrap(), Some(value()));
        let removed = remove(&set_once, "mcpServers", "potluck").unwrap();
        wanted["mcpServers"].as_object_mut().unwrap().remove("potluck");
        assert_eq!(read(&removed), wanted, "{removed}");
        set_once
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = "// mine\n{\n\t/* keep */ \"theme\": \"a//b\", // why\n\t\"mcpServers\": {\n\t\t\"other\": { \"command\": \"x,}\" } // other\n\t},\n\n\t\"last\": [1, 2,],\n}\n";
        let changed = round(text);
        assert!(
            changed.contains("\"command\": \"x,}\" }, // other\n\t\t\"potluck\": {\n\t\t\t\"command\""),
            "{changed}"
        );
        for kept in ["// mine\n", "/* keep */ \"theme\": \"a//b\", // why\n", "\n\n\t\"last\": [1, 2,],\n}\n"]
        {
            assert!(changed.contains(kept), "{changed}");
        }
        assert_eq!(remove(&changed, "mcpServers", "potluck").unwrap(), text);
    }

    #[test]
    fn every_layout_is_taken() {
        for text in [
            "",
            "\n",
            "{}",
            "{ }\n",
            "\u{feff}{}",
            "{\n}",
            "{\n  // nothing yet\n}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"mcpServers\":{}}",
            "{\"mcpServers\":{\"x\":{}}}",
            "{\n    \"mcpServers\": {\n    }\n}",
            "{\n  \"a\": 1\n}",
            "{\n  \"a\": 1, // one\n}",
            "{\n  \"a\": 1 // one\n}",
            "{\"mcpServers\": {\"potluck\": {\"command\": \"old\"}, \"x\": 1}}",
            "{\"mcpServers\": {\n \"potluck\": 7,\n \"x\": 1\n}}",
            "{\r\n  \"a\": \"\\\"\\\\\",\r\n  \"mcpServers\": {\r\n    \"x\": 1\r\n  }\r\n}\r\n",
            "{\"a\": 1, \"a\": 2, \"mcpServers\": {\"x\": null}, \"é\": \"日本\"}",
        ] {
            round(text);
        }
        assert_eq!(
            set("", "mcpServers", "potluck", &value()).unwrap(),
            "{\n  \"mcpServers\": {\n    \"potluck\": {\n      \"command\": \"potluck\",\n      \"args\": [\"mcp\"]\n    }\n  }\n}\n"
        );
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        for text in [
            "{",
            "[]",
            "{\"a\" 1}",
            "{\"a\": }",
            "{a: 1}",
            "{\"a\": 1 \"b\": 2}",
            "{} x",
            "/* ",
            "{\"mcpServers\": []}",
            "{,}",
        ] {
            assert!(set(text, "mcpServers", "potluck", &value()).is_err(), "{text}");
        }
        let deep = "[".repeat(5000);
        assert!(set(&format!("{{\"a\": {deep}"), "m", "p", &value()).is_err());
        assert_eq!(remove("{\"a\": 1}", "mcpServers", "potluck").unwrap(), "{\"a\": 1}");
    }
}
