//! A contributor's path as the README tells it: from a fresh home with nothing in its account to credits on the chain,
//! without a governance token; and what it is told on the way when something is missing.

use std::{fs, path::Path, time::Duration};

use potluck_tests::{
    chain::{micros, told},
    data,
    node::{self, Node, NodeOptions, failed, succeeded},
    process,
    public::{MODEL, Pool, job},
};
use serde_json::Value;

use crate::common::is_a_clear_message;

/// Time for a machine to find its issuer and its relays, and for its offer to get around.
const BEGIN: Duration = Duration::from_secs(60);
/// Time for the chain to pay a voucher.
const PAID: Duration = Duration::from_secs(40);

/// Writes the configuration of a fresh home.
fn configure(home: &Path, text: &str) {
    let folder = home.join("user/.config/potluck");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), text).unwrap();
}

/// Runs a command that succeeds, and gives what it prints.
fn text(node: &Node, words: &str) -> String {
    succeeded(&node.run(words.split(' ')))
}

/// The same as JSON.
fn json(node: &Node, words: &str) -> Value {
    told(&node.run(words.split(' ').chain(["--json"])))
}

/// Waits until a node says so of itself in the public pool.
fn until(node: &Node, what: &str, is: impl Fn(&Value) -> bool) {
    let good = process::eventually(BEGIN, || is(&json(node, "public status")));
    assert!(good, "{what}: {}\n{}", json(node, "public status"), node.stderr());
}

#[test]
fn a_contributor_with_nothing_earns_credits_and_never_holds_a_governance_token() {
    let Some(model) = data::file_or_skip("models/stories260K-f32.gguf") else { return };
    let Some(pool) = Pool::start(1, 0, 1) else { return };
    let home = tempfile::tempdir().unwrap();
    let config = format!(
        "[chain]\nendpoint = \"{}\"\n[public]\nissuer_account = \"{}\"\nissuer_addresses = [\"{}\"]\nrelays = [\"{}\"]\nidle = \"0s\"\non_battery = true\nprompt_price = \"0.01\"\nanswer_price = \"0.1\"\n",
        pool.chain.endpoint(),
        pool.issuer.id(),
        pool.issuer.at(),
        pool.relays[0].at(),
    );
    configure(home.path(), &config);
    let node = Node::start(NodeOptions::new().home(home.path()).model(model.to_str().unwrap()));

    let before = json(&node, "credits balance");
    assert_eq!(before["tokens"], "0", "{before}");
    assert_eq!(before["free"], "0.000000", "{before}");
    assert_eq!(json(&node, "public on")["on"], true);
    // It says what comes next.
    until(&node, "it is told to register", |public| {
        let trouble = public["offer"]["trouble"].as_str();
        trouble.is_some_and(|trouble| trouble.contains("potluck provider register"))
    });
    assert!(text(&node, "public status").contains("potluck provider register"));
    text(&node, "provider register");
    until(&node, "it offers", |public| public["offer"]["models"][0]["name"] == MODEL);
    // Twice does no harm.
    assert!(text(&node, "public on").contains(MODEL));

    // A stranger asks as soon as it has heard of the offer.
    let bob = &pool.requesters[0];
    let mut answer = bob.ask("Once upon a time", 7, 150, "0.05");
    process::eventually(BEGIN, || {
        if answer.status != 200 {
            answer = bob.ask("Once upon a time", 7, 150, "0.05");
        }
        answer.status == 200
    });
    assert_eq!(answer.expect(200)["usage"]["completion_tokens"], 150);
    let account = json(&node, "public status")["account"].clone();
    assert_eq!(answer.header("x-potluck-node"), account.as_str(), "nobody else serves");

    let counted = process::eventually(BEGIN, || json(&node, "public earnings")["served"]["jobs"] != 0);
    let earnings = json(&node, "public earnings");
    assert!(counted && micros(&earnings["served"]["credits"]) >= 15_000, "{earnings}");
    assert!(text(&node, "public earnings").contains("potluck credits redeem"), "it says what comes next");
    let receipts = json(&node, "public receipts");
    assert_eq!(receipts["receipts"][0]["provider"], account, "{receipts}");

    let paid = process::eventually(PAID, || {
        let _ = node.run(["credits", "redeem"]);
        micros(&json(&node, "credits balance")["free"]) > 0
    });
    let after = json(&node, "credits balance");
    assert!(paid, "{after}\n{}", node.stderr());
    // What was earned, less the protocol's fiftieth, and nothing of anything else.
    assert!(micros(&after["free"]) >= 14_700, "{after}");
    assert_eq!(after["tokens"], "0", "{after}");
    assert_eq!(after["escrow"], "0.000000", "{after}");
    assert_eq!(after["stake"], "0.000000", "{after}");

    assert!(text(&node, "public off").contains("off"));
    assert_eq!(json(&node, "public off")["on"], false);
    node.shutdown();
}

#[test]
fn who_has_configured_too_little_is_told_what_to_set() {
    let home = tempfile::tempdir().unwrap();
    let started = |config: &str| {
        configure(home.path(), config);
        Node::start(NodeOptions::new().home(home.path()))
    };

    let node = started("");
    let on = json(&node, "public on");
    let trouble = on["trouble"].as_str().unwrap_or_else(|| panic!("nothing is wrong: {on}"));
    assert!(trouble.contains("public.issuer_account"), "{on}");
    let status = text(&node, "public status");
    assert!(status.contains("public.issuer_account") && status.contains("public.bootstrap"), "{status}");
    is_a_clear_message(&failed(&node.run(["credits", "redeem"])), &["chain.endpoint"]);
    let headers = [("content-type", "application/json"), ("x-potluck-mode", "public")];
    let body = job("abc", 1, 4).to_string();
    let refused = node.client().send("POST", "/v1/completions", &headers, body.as_bytes()).unwrap();
    assert!(refused.openai_error(403)["message"].as_str().unwrap().contains("public.bootstrap"));
    let off = json(&node, "public off");
    assert_eq!(off["on"], false, "{off}");
    assert!(off["trouble"].is_null(), "{off}");
    node.shutdown();

    let issuer = format!("[public]\nissuer_account = \"{}\"\n", "ab".repeat(32));
    let node = started(&issuer);
    let on = json(&node, "public on");
    assert!(on["trouble"].as_str().is_some_and(|trouble| trouble.contains("chain.endpoint")), "{on}");
    node.shutdown();

    // It is on from before: an issuer serves nobody all the same.
    let node = started("[public]\nissuer = true\nlisten = [\"127.0.0.1:0\"]\n");
    assert_eq!(json(&node, "public status")["on"], false);
    is_a_clear_message(&failed(&node.run(["public", "on"])), &["public.issuer", "another machine"]);
    node.shutdown();
}

#[test]
fn a_wrong_address_is_named_with_a_right_one() {
    let home = tempfile::tempdir().unwrap();
    let peer = "issuer_account = \"12D3KooWLt5KiAW4LNwbLQqGbV77YQXRdTZBsU8KSTYpy1Rdg2w8\"";
    let wrong = [
        ("relays = [\"relay.example:7687\"]", "public.relays", "/p2p/"),
        ("relays = [\"/ip4/192.0.2.1/udp/7687/quic-v1\"]", "public.relays", "/p2p/"),
        ("bootstrap = [\"/ip4/192.0.2.1/udp/7687/quic-v1/p2p/me\"]", "public.bootstrap", "/p2p/"),
        ("issuer_addresses = [\"192.0.2.1:7687\"]", "public.issuer_addresses", "/quic-v1"),
        (peer, "public.issuer_account", "potluck public status"),
        ("relay = true", "public.listen", "0.0.0.0:7687"),
        ("prompt_price = \"5000\"", "public.prompt_price", "1000 credits"),
        ("hours = [\"22-7\"]", "public.hours", "22:00-07:30"),
        ("issuer_acount = \"\"", "issuer_acount", "issuer_account"),
    ];
    for (line, field, hint) in wrong {
        configure(home.path(), &format!("[public]\n{line}\n"));
        let output = node::command(home.path(), ["config", "show"]).output().unwrap();
        is_a_clear_message(&failed(&output), &[field, hint]);
    }
}
