//! Two machines settle by hand: one signs vouchers, the other takes and redeems them on the real runtime.

use std::{fs, path::Path, time::Duration};

use potluck_tests::{
    chain::{Chain, micros, own, told},
    node::{Node, NodeOptions, failed, succeeded},
    process,
};
use serde_json::{Value, json};

fn node(home: &Path, chain: &Chain) -> Node {
    Node::start(NodeOptions::new().home(home).args(["--chain-endpoint", chain.endpoint()]))
}

fn json(node: &Node, words: &[&str]) -> Value {
    told(&node.run(words.iter().chain(&["--json"])))
}

fn balance(node: &Node) -> Value {
    json(node, &["credits", "balance"])
}

fn refusal(node: &Node, voucher: &str) -> String {
    let answer = node.client().post("/potluck/v1/credits/vouchers", &json!({"voucher": voucher}));
    let error = answer.openai_error(400);
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn what_one_machine_signs_another_redeems_once_and_only_for_itself() {
    let homes: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [desk, payer_home, payee_home] = [0, 1, 2].map(|at: usize| homes[at].path());
    let Some(chain) = Chain::start(desk) else { return };
    // Bob has credits; Dave has neither credits nor tokens, and earns all the same.
    own(payer_home, "bob");
    own(payee_home, "dave");
    // So that nothing is redeemed before it is asked for.
    let config = payee_home.join("user/.config/potluck");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[chain]\nredeem_amount = \"5\"\n").unwrap();
    let (payer, payee) = (node(payer_home, &chain), node(payee_home, &chain));
    let dave = balance(&payee)["account"].as_str().unwrap().to_owned();
    let bob = balance(&payer)["account"].as_str().unwrap().to_owned();
    assert_eq!(micros(&balance(&payee)["free"]), 0);

    let uncovered = failed(&payer.run(["credits", "pay", &dave, "1"]));
    assert!(uncovered.contains("credits deposit"), "{uncovered}");
    succeeded(&payer.run(["credits", "deposit", "3"]));
    let printed = payer.run(["credits", "pay", &format!("pl-{dave}"), "1.5"]);
    let voucher = succeeded(&printed).trim().to_owned();
    assert!(String::from_utf8_lossy(&printed.stderr).contains("1.500000 credits for"), "{printed:?}");
    let more = json(&payer, &["credits", "pay", &dave, "0.5"]);
    assert_eq!((&more["cumulative"], &more["number"]), (&"2.000000".into(), &2.into()));
    assert_eq!(more["promised"], "2.000000");
    let beyond = failed(&payer.run(["credits", "pay", &dave, "1.000001"]));
    assert!(beyond.contains("3.000001") && beyond.contains("the escrow covers 3.000000"), "{beyond}");
    for (to, amount) in [(&*bob, "1"), ("anna", "1"), (&*dave, "0"), (&*dave, "many")] {
        failed(&payer.run(["credits", "pay", to, amount]));
    }

    // A file, the JSON of `pay`, the same twice, the older one again.
    let file = payee_home.join("voucher");
    fs::write(&file, format!("{voucher}\n")).unwrap();
    let taken = json(&payee, &["credits", "accept", file.to_str().unwrap()]);
    assert_eq!((&taken["gained"], &taken["payer"]), (&"1.500000".into(), &bob.as_str().into()));
    assert_eq!((&taken["escrow"], &taken["covered"]), (&"3.000000".into(), &true.into()));
    fs::write(&file, more.to_string()).unwrap();
    let words = succeeded(&payee.run(["credits", "accept", file.to_str().unwrap()]));
    assert!(words.contains("0.500000 credits more") && words.contains("2.000000 to be redeemed"), "{words}");
    let twice = json(&payee, &["credits", "accept", file.to_str().unwrap()]);
    assert_eq!((&twice["gained"], &twice["due"]), (&"0.000000".into(), &"2.000000".into()));
    assert!(refusal(&payee, &voucher).contains("older than one that is here"));

    // Others' words: altered, cut, for somebody else, nonsense, too short a life.
    let second = more["voucher"].as_str().unwrap();
    let altered = |at: usize| {
        let digit = if second.as_bytes()[at] == b'0' { "1" } else { "0" };
        format!("{}{digit}{}", &second[..at], &second[at + 1..])
    };
    // Digits of the number, the amount and the signature.
    for at in [2 * 100, 2 * 108 + 4, second.len() - 5] {
        let said = refusal(&payee, &altered(at));
        assert!(said.contains("not signed by its payer") || said.contains("older"), "{at}: {said}");
    }
    assert!(refusal(&payee, &second[..second.len() - 2]).contains("a part is missing"));
    assert!(refusal(&payee, &"zz".repeat(second.len() / 2)).contains("hexadecimal"));
    assert!(refusal(&payer, second).contains("not for this machine"));
    succeeded(&payer.run(["credits", "deposit", "0.5"]));
    let alice = "1a3262f7560783d475a5a507a78fecccd31cefcbcd11f0ed7812e624aedfb81b";
    let brief = json(&payer, &["credits", "pay", alice, "0.1", "--blocks", "5"]);
    assert!(refusal(&payee, brief["voucher"].as_str().unwrap()).contains("not for this machine"));

    // A power cut on both sides loses nothing, and nothing was gained by what was refused.
    payee.kill();
    payer.kill();
    let (payer, payee) = (node(payer_home, &chain), node(payee_home, &chain));
    let held = balance(&payee);
    assert_eq!((&held["earned"], &held["earning_lanes"]), (&"2.000000".into(), &1.into()));
    let list = json(&payer, &["credits", "vouchers"]);
    assert_eq!(list["paying"].as_array().unwrap().len(), 2, "{list}");
    assert!(
        list["paying"].as_array().unwrap().iter().any(|it| it["voucher"] == second),
        "it can be had again"
    );
    let done = json(&payee, &["credits", "redeem"]);
    assert_eq!((&done["paid"], &done["left"]), (&"1.960000".into(), &"0.000000".into()), "{done}");
    assert_eq!(micros(&balance(&payee)["free"]), 1_960_000, "two credits less the protocol's share of 2 %");
    let paid = |open: &str| {
        let list = json(&payer, &["credits", "vouchers"]);
        let row = list["paying"].as_array().unwrap().iter().find(|it| it["payee"] == dave.as_str()).cloned();
        row.is_some_and(|row| row["redeemed"] == "2.000000" && row["open"] == open)
    };
    assert!(process::eventually(Duration::from_secs(10), || paid("0.000000")), "the payer hears of it");
    let left = balance(&payer);
    assert_eq!((micros(&left["escrow"]), &left["promised"]), (1_500_000, &"0.100000".into()), "{left}");
    let nothing = succeeded(&payee.run(["credits", "redeem"]));
    assert!(nothing.contains("there are no vouchers to redeem"), "{nothing}");
    let table = succeeded(&payee.run(["credits", "vouchers"]));
    assert!(table.contains(&bob) && table.contains("2.000000"), "{table}");

    // Who asks the escrow back is paid from first: what is small is redeemed by itself now.
    let small = json(&payer, &["credits", "pay", &dave, "0.25"]);
    fs::write(&file, small["voucher"].as_str().unwrap()).unwrap();
    json(&payee, &["credits", "accept", file.to_str().unwrap()]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(balance(&payee)["earned"], "0.250000", "too little to be redeemed at once");
    succeeded(&payer.run(["credits", "withdraw", "1"]));
    let redeemed = || micros(&balance(&payee)["free"]) == 2_205_000;
    assert!(
        process::eventually(Duration::from_secs(20), redeemed),
        "{}\n{}",
        balance(&payee),
        payee.stderr()
    );
    let left = balance(&payer);
    assert_eq!(micros(&left["escrow"]) + micros(&left["thawing"]), 1_250_000, "{left}");

    // The book is put aside on request, and nothing else.
    let aside = json(&payee, &["chain", "forget", "--vouchers"]);
    assert!(Path::new(aside["vouchers"].as_str().unwrap()).is_file(), "{aside}");
    assert_eq!(json(&payee, &["credits", "vouchers"])["lanes"], json!({"earning": 0, "paying": 0}));
    payer.shutdown();
    payee.shutdown();
    chain.stop();
}
