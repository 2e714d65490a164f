//! Golden vectors: questions with the answers that are right, as a file beside the policy.
//!
//! The file is a JSON list of `{"name", "input", "output"}` in the words of the WIT, with `_` for `-`. It is tested
//! against the policy on the author's machine by the functions below, and travels in the component, where each node
//! asks its questions twice before it uses the policy.
//!
//! With the environment variable `POTLUCK_GOLDEN=write` the tests write the answers they get into the file instead of
//! comparing them; read what changed before you commit it. A vector may then leave out its `output`, and fields of its
//! `input` that are zero, empty or absent.

#![allow(clippy::arithmetic_side_effects, reason = "never part of a component")]

use std::{fmt::Write as _, fs};

use serde_json::{Map, Value, json};

use crate::{Pricing, Routing, Slashing};

/// The environment variable that makes the tests write.
const WRITE: &str = "POTLUCK_GOLDEN";

/// Tests a routing policy against the file at `path`.
///
/// # Errors
/// The file cannot be read, or the policy answers otherwise; in words.
pub fn routing<P: Routing>(path: &str) -> Result<(), String> {
    run(path, "routing", |input| {
        let (job, candidates) = (field(input, "job")?, field::<Vec<_>>(input, "candidates")?);
        answer(P::rank(&job, &candidates, field(input, "now")?, field(input, "seed")?))
    })
}

/// Tests a pricing policy against the file at `path`.
///
/// # Errors
/// The file cannot be read, or the policy answers otherwise; in words.
pub fn pricing<P: Pricing>(path: &str) -> Result<(), String> {
    run(path, "pricing", |input| {
        let (job, hardware, market) =
            (field(input, "job")?, field(input, "hardware")?, field(input, "market")?);
        answer(P::quote(&job, &hardware, &market, field(input, "now")?))
    })
}

/// Tests a slashing policy against the file at `path`.
///
/// # Errors
/// The file cannot be read, or the policy answers otherwise; in words.
pub fn slashing<P: Slashing>(path: &str) -> Result<(), String> {
    run(path, "slashing", |input| answer(P::judge(&field(input, "evidence")?, field(input, "now")?)))
}

fn run(path: &str, kind: &str, ask: impl Fn(&Value) -> Result<Value, String>) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let mut vectors: Vec<Map<String, Value>> =
        serde_json::from_str(&text).map_err(|error| format!("{path} is no list of vectors: {error}"))?;
    let write = std::env::var(WRITE).is_ok_and(|value| value == "write");
    for vector in &mut vectors {
        let name = vector.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let told = |problem: String| format!("the vector `{name}`: {problem}");
        if name.is_empty() {
            return Err(format!("{path}: each vector needs a name"));
        }
        let input = vector.get_mut("input").ok_or_else(|| told("it has no `input`".into()))?;
        if input.get("kind").and_then(Value::as_str) != Some(kind) {
            return Err(told(format!("its input is not of kind `{kind}`")));
        }
        if write {
            complete(input);
        }
        let output = json!({ "kind": kind, "answer": ask(input).map_err(told)? });
        if write {
            vector.insert("output".into(), output);
        } else if vector.get("output") != Some(&output) {
            let expected = vector.get("output").unwrap_or(&Value::Null);
            return Err(told(format!(
                "the policy answers\n  {output}\nand the file expects\n  {expected}\nwhere the new answer is right, \
                 run the tests once with {WRITE}=write"
            )));
        }
    }
    if write {
        fs::write(path, pretty(&vectors)).map_err(|error| format!("{path} cannot be written: {error}"))?;
    }
    Ok(())
}

/// A field of the input as a word of the WIT.
fn field<T: serde::de::DeserializeOwned>(input: &Value, name: &str) -> Result<T, String> {
    let mut value = input.get(name).cloned().ok_or_else(|| format!("its input has no `{name}`"))?;
    cases(&mut value, &pascal);
    serde_json::from_value(value).map_err(|error| format!("its `{name}` cannot be read: {error}"))
}

/// An answer as it stands in the file.
fn answer<T: serde::Serialize>(answer: Result<T, String>) -> Result<Value, String> {
    let mut value = serde_json::to_value(answer).map_err(|error| error.to_string())?;
    cases(&mut value, &str::to_lowercase);
    Ok(value)
}

/// Fields whose values are cases of an enumeration: `own` in the file, `Own` in Rust. All are one word.
const CASES: [&str; 6] = ["circle", "path", "health", "method", "outcome", "judgement"];

fn cases(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(case) if CASES.contains(&name.as_str()) => *case = change(case),
                    // A case that carries a number.
                    Value::Object(case) if name == "judgement" => {
                        *case = std::mem::take(case).into_iter().map(|(k, v)| (change(&k), v)).collect();
                    }
                    _ => cases(value, change),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| cases(value, change)),
        _ => {}
    }
}

fn pascal(case: &str) -> String {
    let mut chars = case.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Fills in what an author may leave out.
fn complete(input: &mut Value) {
    let all = match input.get("kind").and_then(Value::as_str) {
        Some("routing") => json!({ "job": {}, "candidates": [], "now": 0, "seed": 0 }),
        Some("pricing") => json!({ "job": {}, "hardware": {}, "market": {}, "now": 0 }),
        _ => json!({ "evidence": {}, "now": 0 }),
    };
    fill(Some(input), &all);
    fill(
        input.get_mut("job"),
        &json!({
            "model": "", "circle": "trusted", "prompt_least": 0, "prompt_most": 0, "answer_room": 0,
            "answer_expected": 0, "resumed": 0, "prefix": [], "max_price": null
        }),
    );
    each(
        input.get_mut("candidates"),
        &json!({
            "machine": 0, "path": "direct", "round_trip": null, "health": "unknown", "failures": 0, "context": 0,
            "loaded": false, "slots": 0, "running": 0, "queued": 0, "in_flight": 0, "free_tokens": 0,
            "claimed_prefill": 0, "claimed_decode": 0, "seen_prefill": null, "seen_decode": null,
            "seen_first": null, "prefix_blocks": 0, "price": null, "stake": 0, "audits_passed": 0,
            "audits_failed": 0
        }),
    );
    fill(
        input.get_mut("hardware"),
        &json!({ "class": "", "prefill": 0, "decode": 0, "parameters": 0, "bits": 0 }),
    );
    fill(
        input.get_mut("market"),
        &json!({
            "waiting": 0, "running": 0, "capacity": 0, "used": 0, "floor": 0, "ceiling": u64::MAX, "last": null
        }),
    );
    let Some(evidence) = input.get_mut("evidence") else { return };
    fill(
        Some(evidence),
        &json!({
            "provider": 0, "audits": [], "drawn": 0, "quorum": 0, "stake": 0, "earned": 0, "convictions": 0,
            "served": 0
        }),
    );
    each(
        evidence.get_mut("audits"),
        &json!({
            "verifier": 0, "method": "forced", "outcome": "passed", "distance": 0, "tokens": 0, "time": 0
        }),
    );
}

fn each(list: Option<&mut Value>, defaults: &Value) {
    list.and_then(Value::as_array_mut).into_iter().flatten().for_each(|value| fill(Some(value), defaults));
}

/// Adds the fields that are missing, and puts all into one order.
fn fill(value: Option<&mut Value>, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (value.and_then(Value::as_object_mut), defaults.as_object()) else {
        return;
    };
    let mut given = std::mem::take(fields);
    fields.extend(given.shift_remove_entry("kind"));
    for (name, default) in defaults {
        fields.insert(name.clone(), given.shift_remove(name).unwrap_or_else(|| default.clone()));
    }
    // What is left is a field that is not in the list above, or a mistake: reading it will tell.
    fields.extend(given);
}

/// JSON that people can read: objects and lists of plain values on one line.
fn pretty(vectors: &[Map<String, Value>]) -> String {
    let mut text = String::new();
    let all = Value::Array(vectors.iter().cloned().map(Value::Object).collect());
    put(&mut text, &all, 0);
    text.push('\n');
    text
}

fn put(text: &mut String, value: &Value, depth: usize) {
    let (open, close, items): (_, _, Vec<(Option<&String>, &Value)>) = match value {
        Value::Object(fields) => ("{", "}", fields.iter().map(|(name, value)| (Some(name), value)).collect()),
        Value::Array(values) => ("[", "]", values.iter().map(|value| (None, value)).collect()),
        plain => {
            let _ = write!(text, "{plain}");
            return;
        }
    };
    let line = items.iter().all(|(_, value)| !value.is_object() && !value.is_array());
    text.push_str(open);
    for (at, (name, value)) in items.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = match (line, at) {
            (true, 0) => Ok(()),
            (true, _) => write!(text, "{comma} "),
            (false, _) => write!(text, "{comma}\n{:indent$}", "", indent = 2 * (depth + 1)),
        };
        if let Some(name) = name {
            let _ = write!(text, "{}: ", Value::String((*name).clone()));
        }
        put(text, value, depth + 1);
    }
    let _ = match line {
        true => write!(text, "{close}"),
        false => write!(text, "\n{:indent$}{close}", "", indent = 2 * depth),
    };
}
