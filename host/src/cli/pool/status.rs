//! `potluck pool status`

use serde_json::Value;

use super::{
    super::{CliError, client::Client, print, print_line},
    list, moment, text,
};

pub(super) async fn run(client: &Client, json: bool) -> Result<(), CliError> {
    let answer = client.get("/potluck/v1/pool").await?;
    if json {
        return print_line(&answer.to_string());
    }
    print(&page(&answer))
}

fn page(answer: &Value) -> String {
    let Some(pool) = answer.get("pool").filter(|pool| !pool.is_null()) else {
        return "this machine is in no pool; `potluck pool create NAME` founds one, `potluck join INVITE` joins \
                one\n"
            .into();
    };
    let count = |field: &str| pool.get(field).and_then(Value::as_u64).unwrap_or_default();
    let mut page = format!("{}  {}\n", text(pool, "name"), text(pool, "id"));
    page.push_str(&format!("  this machine is {} ({})\n", text(answer, "name"), text(pool, "role")));
    page.push_str(&format!("  {} members, {} online\n", count("members"), count("online")));
    if count("invites") > 0 {
        page.push_str(&format!("  {} open invites\n", count("invites")));
    }
    let addresses: Vec<&str> = list(answer, "addresses").iter().filter_map(Value::as_str).collect();
    if !addresses.is_empty() {
        page.push_str(&format!("  reached at {}\n", addresses.join(", ")));
    }
    if !text(answer, "trouble").is_empty() {
        page.push_str(&format!("  not reachable: {}\n", text(answer, "trouble")));
    }
    for sync in answer.get("memory").map(|memory| list(memory, "peers")).unwrap_or_default() {
        let lag = sync.get("lag_ops").and_then(Value::as_u64).unwrap_or_default();
        page.push_str(&format!(
            "  memory with {}: {}, {lag} behind\n",
            text(sync, "name"),
            text(sync, "state")
        ));
    }
    for problem in list(answer, "problems") {
        page.push_str(&format!("  {}  {}\n", moment(problem, "at"), text(problem, "what")));
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_pool_is_told_in_words() {
        assert!(super::page(&json!({"pool": null})).contains("potluck join"));
        let answer = json!({"pool": {"name": "home", "id": "ab", "role": "owner", "members": 3, "online": 2},
            "name": "desk", "problems": [{"at": 1_700_000_000_000_i64, "what": "eve was refused: revoked"}],
            "addresses": ["/ip4/192.0.2.1/udp/7686/quic-v1"]});
        let page = super::page(&answer);
        for words in [
            "home  ab",
            "3 members, 2 online",
            "192.0.2.1",
            "this machine is desk",
            "2023-11-14T22:13:20",
            "eve was refused",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }
}
