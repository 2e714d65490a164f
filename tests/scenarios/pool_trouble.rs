//! A pool in which machines die, clocks go wrong and members are shut out while they are away.

use std::time::{Duration, Instant};

use potluck_tests::{
    data,
    measure::{converge, failover},
    member::Member,
    node::{Node, succeeded},
    process,
};
use serde_json::{Value, json};

use crate::{
    common::{slow, tiny},
    netlab::lab,
    pool::{answered, ask, meets, members, options, pool},
};

/// Some of the rounds of `pool_bench --failover`.
#[test]
fn answers_go_on_whenever_their_machine_is_killed() {
    if lab("failover").is_none() {
        return;
    }
    let report = failover::run(6, 1);
    eprintln!("{}", report.table());
    assert_eq!(report.count(|round| round.complete && round.equal), 6, "{:#?}", report.rounds);
    assert!(report.pauses().quantile(1.0) < Duration::from_secs(5), "{}", report.table());
}

/// 50 stories. `POTLUCK_STORIES=1000` tells more, `POTLUCK_STORY=17` the one of that seed.
#[test]
fn machines_agree_after_any_trouble() {
    if lab("converge").is_none() {
        return;
    }
    let began = Instant::now();
    match converge::run(converge::chosen(50)) {
        Ok(report) => eprintln!("{} ({})", report.line(), converge::pace(&report, began.elapsed())),
        Err(why) => data::skipped(&why),
    }
}

/// The others still hold connections with the dead process, on which they would wait for it.
#[test]
fn who_was_killed_and_started_again_is_back_soon() {
    let Some(lab) = lab("back") else { return };
    let net = lab.net("office");
    let mut all = ["anna", "bert", "carl"].map(|name| Member::on(lab.host(name, &net), name, None));
    all[0].found();
    all[1..].iter().for_each(|member| member.join(&all[0]));
    all.iter().for_each(|member| member.meets(2));
    for member in &mut all {
        member.kill();
        member.start();
        let began = Instant::now();
        member.meets(2);
        let took = began.elapsed();
        eprintln!("{} is back after {took:?}", member.name());
        assert!(took < Duration::from_secs(5), "{} took {took:?}", member.name());
    }
}

fn remember(node: &Node, text: &str) {
    node.client().post("/potluck/v1/memory", &json!({"content": text})).expect(200);
}

fn finds(node: &Node, text: &str) -> bool {
    let request = json!({"query": text, "limit": 5});
    let found = node.client().post("/potluck/v1/memory/recall", &request).expect(200);
    found["items"].as_array().unwrap().iter().any(|item| item["content"] == text)
}

#[test]
fn who_was_shut_out_while_away_gets_nothing_and_gives_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let model = slow(scratch.path());
    let anna = Node::start(options("anna").model(&model));
    let bert = Node::start(options("bert").model(&model));
    // Each side has a model that the other lacks.
    let own = tiny(home.path());
    let eve = || Node::start(options("eve").home(home.path()).model(&own));
    let first = eve();
    pool(&[&anna, &first, &bert], &["--memory", "*"]);
    meets(&bert, 2);
    answered(&first.client(), "slow").expect(200);
    answered(&anna.client(), "tiny").expect(200);
    remember(&anna, "The boat house is painted blue");
    assert!(process::eventually(Duration::from_secs(5), || finds(&first, "The boat house is painted blue")));
    first.shutdown();
    succeeded(&anna.run(["pool", "revoke", "eve"]));
    remember(&anna, "The spare key lies under the third flowerpot");
    remember(&bert, "The code of the gate is a secret of the house");
    let eve = eve();
    remember(&eve, "Eve was here after she was shut out");
    // Long enough for every timer that would bring them together.
    let until = Instant::now() + Duration::from_secs(8);
    let row = |of: &Node, name: &str| {
        let all: Vec<Value> = members(of);
        all.into_iter().find(|member| member["name"] == name).unwrap_or_else(|| panic!("{name} is unknown"))
    };
    while Instant::now() < until {
        for node in [&anna, &bert] {
            let seen = row(node, "eve");
            assert!(seen["status"] == "revoked" && seen["online"] == false, "{seen}");
        }
        assert_ne!(ask(&eve.client(), "slow").status, 200);
        assert_ne!(ask(&anna.client(), "tiny").status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!finds(&eve, "The spare key lies under the third flowerpot"));
    assert!(!finds(&eve, "The code of the gate is a secret of the house"));
    assert!(finds(&bert, "The spare key lies under the third flowerpot"));
    for node in [&anna, &bert] {
        assert!(!finds(node, "Eve was here after she was shut out"));
        let listed = node.client().get("/potluck/v1/pool").expect(200)["memory"]["peers"].clone();
        let peers = listed.as_array().unwrap().iter().filter(|peer| peer["state"] != "apart").count();
        assert_eq!(peers, 1, "{listed}");
    }
    for node in [anna, bert, eve] {
        node.shutdown();
    }
}
