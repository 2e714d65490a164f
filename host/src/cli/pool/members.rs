//! `potluck pool members` and `potluck pool show`

use reqwest::Url;
use serde_json::Value;

use super::{
    super::{CliError, client::Client, output, print, print_line},
    list as items, moment, text,
};
use crate::api::time::unix_now;

pub(super) async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let answer = client.get("/potluck/v1/pool/members").await?;
    if json {
        return print_line(&answer.to_string());
    }
    let rows: Vec<_> = items(&answer, "members").iter().map(|member| row(member, unix_now())).collect();
    print(&output::table(["NAME", "ID", "STATE", "PATH", "RTT", "SEEN"], &rows))
}

fn row(member: &Value, now: u64) -> [String; 6] {
    let flag = |field: &str| member.get(field).and_then(Value::as_bool).unwrap_or_default();
    let state = match (text(member, "status"), flag("self"), flag("online")) {
        ("member", true, _) => "this machine",
        ("member", _, true) => "online",
        ("member", _, false) => "offline",
        (other, _, _) => other,
    };
    let rtt = member.get("rtt_ms").and_then(Value::as_f64);
    [
        text(member, "name").to_owned(),
        text(member, "id").chars().take(10).collect(),
        state.to_owned(),
        text(member, "path").to_owned(),
        rtt.map_or_else(String::new, |rtt| format!("{rtt:.1} ms")),
        seen(member, now),
    ]
}

/// How long ago a member was last heard of.
fn seen(member: &Value, now: u64) -> String {
    let at = member.get("last_seen").and_then(Value::as_u64).map(|ms| ms / 1000);
    match at {
        Some(at) if now.saturating_sub(at) < 5 => "now".into(),
        Some(at) => format!("{} ago", output::span(now.saturating_sub(at))),
        None => "never".into(),
    }
}

pub(super) async fn show(client: &Client, member: &str, json: bool) -> Result<(), CliError> {
    let answer = client.get(&address(member)?).await?;
    if json {
        return print_line(&answer.to_string());
    }
    let mut page = format!("{}  {}\n", text(&answer, "name"), text(&answer, "id"));
    let grants = answer.get("grants").cloned().unwrap_or_default();
    for (name, what) in [
        ("serve", "answers the others' requests"),
        ("uses", "has its requests answered"),
        ("relay", "carries the others' traffic"),
        ("admin", "invites and shuts out others"),
    ] {
        let may = grants.get(name).and_then(Value::as_bool).unwrap_or_default();
        page.push_str(&format!("  {}  {what}\n", if may { "yes" } else { "no " }));
    }
    page.push_str(&format!("  {}\n", copies(grants.get("fetch"))));
    for rule in items(&grants, "memory") {
        let project = rule.get("project").and_then(Value::as_str).unwrap_or("every project");
        let may = |field: &str| rule.get(field).and_then(Value::as_bool).unwrap_or_default();
        let how = match (may("read"), may("write")) {
            (true, true) => "reads and writes",
            (true, false) => "reads",
            (false, true) => "writes",
            (false, false) => "has nothing of",
        };
        page.push_str(&format!("  {how} the memory of {project}\n"));
    }
    page.push_str(&format!("  certificate until {}\n", moment(&answer, "expires")));
    for field in ["path", "address", "reason"] {
        if !text(&answer, field).is_empty() {
            page.push_str(&format!("  {field}: {}\n", text(&answer, field)));
        }
    }
    print(&page)
}

/// Which models a member may copy.
fn copies(fetch: Option<&Value>) -> String {
    match fetch {
        None | Some(Value::Null) => "no   copies models' files".into(),
        Some(Value::String(_)) => "yes  copies models' files".into(),
        Some(scope) => {
            let names = items(scope, "only").iter().filter_map(Value::as_str).collect::<Vec<_>>();
            format!("yes  copies the files of {}", names.join(", "))
        }
    }
}

/// The address of a member, whatever is in its name.
fn address(member: &str) -> Result<String, CliError> {
    let mut url = Url::parse("http://localhost/potluck/v1/pool/members")
        .map_err(|error| CliError::Usage(error.to_string()))?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.push(member);
    }
    Ok(url.path().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_is_one_line() {
        let member = json!({"id": "0123456789abcdef", "name": "anna", "self": false, "online": true,
            "path": "direct", "rtt_ms": 1.25, "last_seen": 9_000, "status": "member"});
        assert_eq!(row(&member, 10), ["anna", "0123456789", "online", "direct", "1.2 ms", "now"]);
        let gone = json!({"id": "0", "name": "eve", "status": "revoked", "last_seen": null});
        assert_eq!(row(&gone, 10)[2..], ["revoked", "", "", "never"]);
        assert!(copies(None).starts_with("no") && copies(Some(&Value::Null)).starts_with("no"));
        assert!(copies(Some(&json!("all"))).starts_with("yes"));
        assert!(copies(Some(&json!({"only": ["m", "n"]}))).ends_with("m, n"));
        assert!(address("a/b c").unwrap().ends_with("/members/a%2Fb%20c"));
    }
}
