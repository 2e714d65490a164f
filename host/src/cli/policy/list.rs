//! `potluck policy list`

use serde_json::Value;

use super::super::{
    CliError, Client,
    pool::{list, moment, text},
    print, print_line,
};

pub(super) async fn run(client: &Client, json: bool) -> Result<(), CliError> {
    let found = client.get("/potluck/v1/policies").await?;
    if json { print_line(&found.to_string()) } else { print(&page(&found)) }
}

fn page(found: &Value) -> String {
    let mut page = String::new();
    let active = list(found, "active");
    if active.is_empty() {
        page += "no policy decides: the rules that are built in do\n";
    }
    for policy in active {
        let reading = policy.get("reading").unwrap_or(&Value::Null);
        let number = |field| reading.get(field).and_then(Value::as_u64);
        let micros =
            |field| number(field).map_or_else(|| "-".into(), |nanos| format!("{:.1} µs", nanos as f64 / 1e3));
        let aside =
            if policy.get("aside").and_then(Value::as_bool).unwrap_or_default() { "  SET ASIDE" } else { "" };
        let line = format!(
            "{}  {}  {}  since {}, {} calls, p50 {}, p99 {}{aside}\n",
            text(policy, "kind"),
            text(policy, "name"),
            short(policy),
            moment(policy, "from_ms"),
            number("calls").unwrap_or_default(),
            micros("p50_nanos"),
            micros("p99_nanos"),
        );
        page += line.as_str();
    }
    let motions = list(found, "motions");
    if !motions.is_empty() {
        page += "\nmotions\n";
    }
    for motion in motions {
        let approved = motion.get("approved").and_then(Value::as_bool).unwrap_or_default();
        let needed = motion.get("needed").and_then(Value::as_u64).unwrap_or(1);
        let line = format!(
            "  {}  {}  from {}  {} for, {} against, {needed} needed{}  {}\n",
            text(motion, "kind"),
            short(motion),
            moment(motion, "from_ms"),
            list(motion, "yes").len(),
            list(motion, "no").len(),
            if approved { ", approved" } else { "" },
            text(motion, "note"),
        );
        page += line.as_str();
    }
    let components = list(found, "components");
    if !components.is_empty() {
        page += "\ncomponents here\n";
    }
    for component in components {
        let size = component.get("size").and_then(Value::as_u64).unwrap_or_default();
        page += format!("  {}  {} kB\n", text(component, "hash"), size.div_ceil(1_000)).as_str();
    }
    page
}

/// The beginning of a hash.
fn short(value: &Value) -> &str {
    let hash = text(value, "hash");
    match hash.get(..12) {
        Some(zero) if zero.bytes().all(|digit| digit == b'0') => "built in",
        Some(first) => first,
        None => hash,
    }
}
