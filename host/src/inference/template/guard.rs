//! Keeps the text of messages from becoming control tokens.
//!
//! Every character that some control token starts with is replaced, in everything the caller sent, by a
//! private-use character. Whatever a template does with such text (joins, slices, replaces), it cannot spell the
//! start of a control token. After rendering the characters are put back, and the text is cut inside every
//! place that would read as a control token.

use serde_json::Value as Json;

/// First code points of the private-use blocks that replacements are taken from.
const BLOCKS: [u32; 4] = [0xF_0000, 0xF_8000, 0x10_0000, 0x10_8000];
/// Most distinct first characters; further control tokens are then matched by nothing and stay text.
const MAX_FIRSTS: usize = 4096;

/// What one vocabulary's control tokens look like.
#[derive(Debug)]
pub(super) struct Guard {
    /// Longest first, so that the first match is the one a tokenizer takes.
    controls: Vec<String>,
    firsts: Vec<char>,
}

/// Which private-use block replaces the first characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    block: u32,
}

impl Guard {
    pub(super) fn new(controls: &[String]) -> Self {
        let mut controls: Vec<String> = controls.iter().filter(|c| !c.is_empty()).cloned().collect();
        controls.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        controls.dedup();
        let mut firsts: Vec<char> = controls.iter().filter_map(|c| c.chars().next()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        firsts.truncate(MAX_FIRSTS);
        Self { controls, firsts }
    }

    /// A copy of the context with the first characters of control tokens replaced in every text and key below
    /// the top; `None` when there are none.
    pub(super) fn mask(&self, context: &Json) -> Option<(Json, Mask)> {
        let mut any = false;
        visit(context, &mut |text| any |= text.chars().any(|c| self.firsts.binary_search(&c).is_ok()));
        if !any {
            return None;
        }
        let in_block = |block: u32, c: char| (block..block + 0x8000).contains(&u32::from(c));
        let unused = BLOCKS.into_iter().find(|&block| {
            let mut used = false;
            visit(context, &mut |text| used |= text.chars().any(|c| in_block(block, c)));
            !used
        });
        // Text that uses all of them is hostile; it gets characters of the last block changed.
        let mask = Mask { block: unused.unwrap_or(0x10_8000) };
        let masked = match context {
            Json::Object(fields) => fields
                .iter()
                .map(|(k, v)| (k.clone(), self.replace(v, mask)))
                .collect::<serde_json::Map<_, _>>(),
            _ => serde_json::Map::new(),
        };
        Some((Json::Object(masked), mask))
    }

    fn replace(&self, value: &Json, mask: Mask) -> Json {
        match value {
            Json::String(text) => Json::String(self.replace_text(text, mask)),
            Json::Array(items) => items.iter().map(|i| self.replace(i, mask)).collect(),
            Json::Object(fields) => {
                let field = |(k, v): (&String, &Json)| (self.replace_text(k, mask), self.replace(v, mask));
                Json::Object(fields.iter().map(field).collect())
            }
            other => other.clone(),
        }
    }

    fn replace_text(&self, text: &str, mask: Mask) -> String {
        let swap = |c: char| match self.firsts.binary_search(&c) {
            Ok(i) => u32::try_from(i).ok().and_then(|i| char::from_u32(mask.block + i)).unwrap_or(c),
            Err(_) => c,
        };
        text.chars().map(swap).collect()
    }

    /// The control token that `text` starts with.
    fn control_at(&self, text: &str) -> Option<&str> {
        let first = text.chars().next()?;
        self.firsts.binary_search(&first).ok()?;
        self.controls.iter().map(String::as_str).find(|c| text.starts_with(*c))
    }

    /// The control tokens in a text, in order, as a tokenizer would find them.
    pub(super) fn controls_in<'a>(&'a self, text: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let skip = match self.control_at(rest) {
                Some(control) => {
                    found.push(control);
                    control.len()
                }
                None => first.len_utf8(),
            };
            rest = rest.get(skip..).unwrap_or_default();
        }
        found
    }

    /// Puts the replaced characters back and cuts after each that would start a control token.
    pub(super) fn cut(&self, masked: &str, mask: Mask) -> Vec<String> {
        let original = |c: char| {
            let index = u32::from(c).checked_sub(mask.block).and_then(|i| usize::try_from(i).ok());
            index.and_then(|i| self.firsts.get(i)).copied()
        };
        let mut text = String::with_capacity(masked.len());
        let mut replaced = Vec::new();
        for c in masked.chars() {
            if original(c).is_some() {
                replaced.push(text.len());
            }
            text.push(original(c).unwrap_or(c));
        }
        let mut parts = Vec::new();
        let mut start = 0;
        for at in replaced {
            let Some(rest) = text.get(at..) else { continue };
            if self.control_at(rest).is_some() {
                let end = at + rest.chars().next().map_or(0, char::len_utf8);
                parts.extend(text.get(start..end).map(str::to_owned));
                start = end;
            }
        }
        parts.extend(text.get(start..).map(str::to_owned));
        parts.retain(|p| !p.is_empty());
        parts
    }
}

/// Calls `see` with every text and every key below the top.
fn visit(value: &Json, see: &mut dyn FnMut(&str)) {
    match value {
        Json::Object(fields) => fields.values().for_each(|v| visit_inner(v, see)),
        other => visit_inner(other, see),
    }
}

fn visit_inner(value: &Json, see: &mut dyn FnMut(&str)) {
    match value {
        Json::String(text) => see(text),
        Json::Array(items) => items.iter().for_each(|i| visit_inner(i, see)),
        Json::Object(fields) => {
            for (key, value) in fields {
                see(key);
                visit_inner(value, see);
            }
        }
        _ => {}
    }
}
