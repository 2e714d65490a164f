//! `potluck memory status`

use serde_json::Value;

use super::super::{CliError, client::Client, output, print, print_line};

/// Says how the memory is in step with other machines of the pool.
pub(super) async fn run(client: &Client, as_json: bool) -> Result<(), CliError> {
    let pool = client.get("/potluck/v1/pool").await?;
    let memory = pool.get("memory").cloned().unwrap_or_default();
    if as_json {
        return print_line(&memory.to_string());
    }
    print(&page(&memory))
}

fn page(memory: &Value) -> String {
    let list = |field: &str| memory.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let peers = list("peers");
    if peers.is_empty() {
        return "the memory is shared with nobody; `potluck pool invite --memory PROJECT` shares a project\n"
            .into();
    }
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64).unwrap_or_default();
    let rows: Vec<_> = peers
        .iter()
        .map(|peer| {
            let refused: u64 = peer
                .get("refused")
                .and_then(Value::as_object)
                .map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum());
            [
                text(peer, "name"),
                text(peer, "state").replace('_', " "),
                number(peer, "lag_ops").to_string(),
                number(peer, "sent").to_string(),
                number(peer, "received").to_string(),
                refused.to_string(),
                text(peer, "last_error"),
            ]
        })
        .collect();
    let mut page =
        output::table(["MEMBER", "STATE", "BEHIND", "SENT", "RECEIVED", "REFUSED", "TROUBLE"], &rows);
    let conflicts = number(memory, "conflicts");
    if conflicts > 0 {
        page.push_str(&format!(
            "{conflicts} memories have two living versions; `potluck memory show ID` shows them\n"
        ));
    }
    for fork in list("forks") {
        page.push_str(&format!("two machines use one key: {fork}\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn each_peer_is_a_line() {
        assert!(super::page(&json!({"peers": []})).contains("nobody"));
        let memory = json!({"peers": [{"name": "bert", "state": "in_step", "lag_ops": 0, "sent": 3, "received": 4,
            "refused": {"forged": 2}}], "conflicts": 1, "forks": []});
        let page = super::page(&memory);
        for words in ["bert", "in step", "1 memories"] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }
}
