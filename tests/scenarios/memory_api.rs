//! The memory over HTTP and on the command line.

use std::{fs, path::Path};

use potluck_tests::{
    http::Client,
    node::{Node, NodeOptions, failed, succeeded},
};
use serde_json::{Value, json};

const MEMORY: &str = "/potluck/v1/memory";

fn start() -> Node {
    Node::start(NodeOptions::new())
}

fn remember(client: &Client, fields: &Value) -> String {
    let answer = client.post(MEMORY, fields).expect(200);
    answer["id"].as_str().unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
}

fn recalled(client: &Client, fields: &Value) -> Vec<String> {
    let answer = client.post(&format!("{MEMORY}/recall"), fields).expect(200);
    let items = answer["items"].as_array().unwrap_or_else(|| panic!("no items: {answer}"));
    items.iter().map(|item| item["content"].as_str().unwrap().to_owned()).collect()
}

fn call(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json")];
    let answer = client.send(method, path, &headers, body.to_string().as_bytes()).unwrap();
    (answer.status, answer.json())
}

#[test]
fn a_memory_is_written_found_changed_and_forgotten() {
    let node = start();
    let client = node.client();
    let text = "The lighthouse keeper feeds the gulls at dawn";
    let id = remember(
        &client,
        &json!({"content": text, "project": "coast", "tags": ["birds"], "occurred_at": "2024-05-01"}),
    );
    let again = client.post(MEMORY, &json!({"content": text, "project": "coast"})).expect(200);
    assert_eq!(again["duplicate_of"], id.as_str());
    remember(&client, &json!({"content": "Milk is in the fridge", "kind": "reference"}));
    let question = json!({"query": "Who feeds the gulls?", "limit": 1, "explain": true});
    assert_eq!(recalled(&client, &question), [text]);
    assert_eq!(recalled(&client, &json!({"query": "gulls", "project": "kitchen"})), Vec::<String>::new());
    assert_eq!(
        recalled(
            &client,
            &json!({"query": "gulls", "tags": ["birds"], "since": "2024-04-30", "until": "2024-05-02"})
        ),
        [text]
    );
    assert_eq!(recalled(&client, &json!({"query": "gulls", "kinds": ["task"]})), Vec::<String>::new());

    let path = format!("{MEMORY}/{id}");
    let item = client.get(&path).expect(200);
    assert_eq!(
        (&item["content"], &item["state"], &item["kind"]),
        (&json!(text), &json!("live"), &json!("fact"))
    );
    let (status, changed) =
        call(&client, "PATCH", &path, &json!({"content": "The keeper feeds the gulls at noon"}));
    assert_eq!(status, 200, "{changed}");
    let new = format!("{MEMORY}/{}", changed["id"].as_str().unwrap());
    let history = client.get(&format!("{new}?history=true")).expect(200)["history"].clone();
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");

    let recent = client.get(&format!("{MEMORY}/recent?project=coast&limit=5")).expect(200);
    assert_eq!(recent["items"].as_array().map(Vec::len), Some(1), "{recent}");
    let context = client.get(&format!("{MEMORY}/context?project=coast&budget_tokens=300")).expect(200);
    assert!(context["text"].as_str().unwrap().contains("noon"), "{context}");
    let stats = client.get(&format!("{MEMORY}/stats")).expect(200);
    assert_eq!(stats["projects"]["coast"], 1, "{stats}");

    let (status, dry) = call(&client, "DELETE", &new, &Value::Null);
    assert_eq!((status, &dry["dry_run"], &dry["count"]), (200, &json!(true), &json!(1)), "{dry}");
    assert_eq!(client.get(&new).expect(200)["state"], "live");
    let (status, done) = call(&client, "DELETE", &format!("{new}?confirm=true&hard=true"), &Value::Null);
    assert_eq!((status, &done["dry_run"], &done["hard"]), (200, &json!(false), &json!(true)), "{done}");
    assert!(
        !recalled(&client, &json!({"query": "gulls", "project": "coast"}))
            .iter()
            .any(|text| text.contains("noon"))
    );
    node.shutdown();
}

#[test]
fn wrong_requests_are_refused_by_name_and_large_ones_cleanly() {
    let node = start();
    let client = node.client();
    for (path, body, field) in [
        ("", json!({"content": ""}), "content"),
        ("", json!({"content": "x", "tag": "y"}), "tag"),
        ("", json!({"content": "x", "kind": 3}), "kind"),
        ("", json!({"content": "x", "valid_until": "never"}), "valid_until"),
        ("/recall", json!({"query": "x", "limit": 9999}), "limit"),
        ("/recall", json!({"qeury": "x"}), "query"),
        ("/forget", json!({}), "ids"),
        ("/forget", json!({"filter": {}}), "filter"),
    ] {
        let error = client.post(&format!("{MEMORY}{path}"), &body).openai_error(400);
        assert_eq!(error["param"], field, "{error}");
    }
    client.get(&format!("{MEMORY}/nonsense")).openai_error(400);
    client.get(&format!("{MEMORY}/0197c2a4-0000-7000-8000-000000000000")).openai_error(404);
    client.get(&format!("{MEMORY}/recent?limt=1")).openai_error(400);
    for size in [(1 << 20) + 1, 10 << 20] {
        let body = json!({"content": "x".repeat(size)}).to_string();
        let error = client.post_bytes(MEMORY, body.as_bytes()).openai_error(413);
        assert!(error["message"].as_str().unwrap().contains("bytes"), "{error}");
    }
    remember(&client, &json!({"content": "y".repeat(1 << 20)}));
    assert_eq!(client.get(&format!("{MEMORY}/stats")).expect(200)["live"], 1);
    node.shutdown();
}

/// Lines of an export.
fn export(client: &Client, query: &str) -> Vec<Value> {
    let answer = client.get(&format!("{MEMORY}/export{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn imports_take_what_others_wrote_and_an_export_comes_back_whole() {
    let (node, other) = (start(), start());
    let client = node.client();
    let import = |client: &Client, query: &str, text: &str| {
        client.post_bytes(&format!("{MEMORY}/import{query}"), text.as_bytes()).expect(200)
    };
    let graph = "{\"type\":\"entity\",\"name\":\"Ann\",\"entityType\":\"person\",\"observations\":[\"plays the oboe\",\"lives in Ghent\"]}\n\
                 broken\n{\"type\":\"relation\",\"from\":\"Ann\",\"to\":\"Bo\",\"relationType\":\"is_sister_of\"}\n";
    let done = import(&client, "", graph);
    assert_eq!(
        (&done["read"], &done["added"], &done["refused"]),
        (&json!(3), &json!(3), &json!(1)),
        "{done}"
    );
    assert_eq!(done["errors"][0]["line"], 2, "{done}");
    assert_eq!(import(&client, "", graph)["duplicates"], 3);
    let mem0 = json!({"results": [{"id": "1", "memory": "Bo collects stamps", "created_at": "2024-01-02T03:04:05Z", "user_id": "bo"}]});
    assert_eq!(import(&client, "", &mem0.to_string())["added"], 1);
    client.post_bytes(&format!("{MEMORY}/import?format=nonsense"), b"").openai_error(400);

    let many: String =
        (0..1300).map(|n| format!("{{\"content\":\"Pigeon {n} sits on roof {}\"}}\n", n * 7)).collect();
    let headers = [("accept", "application/x-ndjson")];
    let answer = client.send("POST", &format!("{MEMORY}/import"), &headers, many.as_bytes()).unwrap();
    let text = answer.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["status"], &last["added"]), (&json!("success"), &json!(1300)), "{last}");
    assert!(recalled(&client, &json!({"query": "What does Ann play?", "limit": 1}))[0].contains("oboe"));

    let lines = export(&client, "");
    assert!(lines.len() >= 1304, "{} lines", lines.len());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let done = import(&other.client(), "", &text);
    assert_eq!(done["refused"], 0, "{done}");
    assert_eq!(import(&other.client(), "", &text)["added"], 0);
    assert_eq!(export(&other.client(), "").len(), lines.len());
    assert!(
        recalled(&other.client(), &json!({"query": "Where does Ann live?", "limit": 1}))[0].contains("Ghent")
    );
    node.shutdown();
    other.shutdown();
}

fn run(node: &Node, words: &[&str]) -> String {
    succeeded(&node.run(words))
}

#[test]
fn the_command_line_keeps_a_memory() {
    let node = start();
    let added = run(
        &node,
        &[
            "memory",
            "add",
            "The boiler",
            "is serviced in October",
            "--project",
            "house",
            "--tag",
            "heat",
            "--kind",
            "task",
        ],
    );
    let id = added.trim().rsplit(' ').next().unwrap().to_owned();
    let found =
        run(&node, &["memory", "search", "when", "is", "the", "boiler", "serviced", "--project", "house"]);
    assert!(
        found.contains("October") && found.contains("task") && found.contains("#heat") && found.contains(&id),
        "{found}"
    );
    let json: Value = serde_json::from_str(&run(&node, &["memory", "search", "boiler", "--json"])).unwrap();
    assert_eq!(json["items"][0]["id"], id.as_str());
    assert!(run(&node, &["memory", "list"]).contains("boiler"));
    assert!(run(&node, &["memory", "show", &id, "--history"]).contains("source: potluck memory add"));
    assert!(run(&node, &["memory", "stats"]).contains("house"));

    notes(&node.scratch().join("notes"));
    let notes = node.scratch().join("notes").display().to_string();
    let done: Value = serde_json::from_str(
        run(&node, &["memory", "import", &notes, "--project", "notes", "--json"]).lines().last().unwrap(),
    )
    .unwrap();
    assert_eq!((&done["added"], &done["refused"]), (&json!(4), &json!(1)), "{done}");
    assert!(done["errors"][0]["file"].as_str().unwrap().ends_with("graph.jsonl"), "{done}");
    assert!(
        run(&node, &["memory", "search", "which tea", "--project", "notes", "--kind", "decision"])
            .contains("oolong")
    );

    let file = node.scratch().join("backup.jsonl");
    run(&node, &["memory", "export", file.to_str().unwrap()]);
    let other = start();
    let done = run(&other, &["memory", "import", file.to_str().unwrap()]);
    assert!(done.starts_with("5 added"), "{done}");

    let refused = failed(&node.run(["memory", "forget", "--project", "notes"]));
    assert!(refused.contains("4 would be forgotten") && refused.contains("--yes"), "{refused}");
    assert!(run(&node, &["memory", "forget", "--project", "notes", "--yes"]).contains("forgot 4"));
    assert!(run(&node, &["memory", "forget", &id, "--hard", "--yes"]).contains("erased 1"));
    assert_eq!(run(&node, &["memory", "list"]).trim(), "");
    assert!(run(&node, &["memory", "reindex"]).contains("indexed"));
    assert!(run(&node, &["memory", "verify"]).contains("in 1 files"));
    failed(&node.run(["memory", "forget"]));
    failed(&node.run(["memory", "show", "../status"]));
    node.shutdown();
    other.shutdown();
}

/// A folder with a note of basic-memory's, a CLAUDE.md, and a file of server-memory's with a broken line.
fn notes(folder: &Path) {
    fs::create_dir_all(folder.join("deep")).unwrap();
    let note = "---\ntitle: Tea\npermalink: tea\ntags: [drink]\n---\n- [decision] We buy oolong #leaf\n- pairs_with [[Cake]]\n";
    fs::write(folder.join("tea.md"), note).unwrap();
    fs::write(folder.join("deep/CLAUDE.md"), "# House rules\n\nShoes off at the door.\n").unwrap();
    let graph = "{\"type\":\"entity\",\"name\":\"Rex\",\"entityType\":\"dog\",\"observations\":[\"fears thunder\"]}\n{oops\n";
    fs::write(folder.join("graph.jsonl"), graph).unwrap();
}

#[test]
fn a_node_without_the_right_key_tells_nothing() {
    let keyed = Node::start(NodeOptions::new().args(["--api-key", "sk-of-the-scenario"]));
    for path in ["/stats", "/recent", "/export"] {
        assert_eq!(keyed.client().get(&format!("{MEMORY}{path}")).status, 401, "{path}");
    }
    let answer = keyed.client().post("/mcp", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert_eq!(answer.status, 401);
    keyed.client().with_key("sk-of-the-scenario").get(&format!("{MEMORY}/stats")).expect(200);
    keyed.shutdown();
}

#[test]
fn clients_are_configured_and_left_as_they_were() {
    let node = start();
    let home = node.home().join("user");
    let file = home.join(".config/zed/settings.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let before = "// mine\n{\n  \"theme\": \"One\", // dark\n}\n";
    fs::write(&file, before).unwrap();
    let shown = run(&node, &["mcp", "install", "zed", "--dry-run"]);
    assert!(shown.contains("+ ") && shown.contains("context_servers"), "{shown}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    run(&node, &["mcp", "install", "zed"]);
    let after = fs::read_to_string(&file).unwrap();
    assert!(after.contains("// dark") && after.contains("\"potluck\""), "{after}");
    assert_eq!(fs::read_to_string(home.join(".config/zed/settings.json.bak")).unwrap(), before);
    assert!(run(&node, &["mcp", "install", "zed"]).contains("already"));
    let clients: Value = serde_json::from_str(&run(&node, &["mcp", "clients", "--json"])).unwrap();
    let zed = clients["clients"].as_array().unwrap().iter().find(|client| client["client"] == "zed").unwrap();
    assert_eq!((&zed["found"], &zed["installed"]), (&json!(true), &json!(true)), "{clients}");
    run(&node, &["mcp", "uninstall", "zed"]);
    assert!(!fs::read_to_string(&file).unwrap().contains("\"potluck\""));
    node.shutdown();
}
