//! A pool over real routers, cables and cuts: which way is taken, and how it comes back.

use std::time::{Duration, Instant};

use potluck_tests::{
    netlab::{Host, Lab, Nat, NatKind, Net, Shape},
    node::{Node, succeeded},
    process,
};
use serde_json::{Value, json};

use crate::{
    common::tiny,
    netlab::lab,
    pool::{answered, invite, members},
};

const KINDS: [NatKind; 4] = [NatKind::None, NatKind::FullCone, NatKind::PortRestricted, NatKind::Symmetric];

/// A node on a host.
struct Member {
    host: Host,
    node: Node,
    _router: Option<Nat>,
}

impl Member {
    fn on(host: Host, name: &str, model: Option<&str>) -> Self {
        let options = potluck_tests::node::NodeOptions::new()
            .args(["--node-name", name, "--pool-listen", "0.0.0.0:7686,[::]:7686"])
            .before(host.before());
        let options = model.into_iter().fold(options, |options, model| options.model(model));
        Self { node: Node::start(options), host, _router: None }
    }

    /// A node in a home of its own, behind a router of this kind.
    fn behind(lab: &Lab, kind: NatKind, internet: &Net, name: &str, model: Option<&str>) -> Self {
        if matches!(kind, NatKind::None) {
            return Self::on(lab.host(name, internet), name, model);
        }
        let home = lab.net(name);
        let router = lab.nat(&format!("{name}-router"), kind, &home, internet);
        Self { _router: Some(router), ..Self::on(lab.host(name, &home), name, model) }
    }

    fn enter<T: Send>(&self, work: impl FnOnce(&Node) -> T + Send) -> T {
        self.host.enter(|| work(&self.node))
    }

    fn join(&self, founder: &Self) {
        let invite = founder.enter(|node| invite(node, &["--memory", "*"]));
        self.enter(|node| succeeded(&node.run(["join", &invite])));
    }

    /// How a member is connected, as this one sees it.
    fn path(&self, name: &str) -> String {
        let rows = self.enter(members);
        let row = rows.into_iter().find(|row| row["name"] == name && row["online"] == true);
        row.and_then(|row| row["path"].as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// The path between two members behind such routers, and how long it took from their meeting to it. A third one on the
/// internet founded the pool and carries what cannot go directly.
fn meeting(kinds: (NatKind, NatKind), wanted: &str) {
    let Some(lab) = lab("meeting") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let model = tiny(scratch.path());
    let internet = lab.internet();
    let hub = Member::on(lab.host("hub", &internet), "hub", None);
    hub.enter(|node| succeeded(&node.run(["pool", "create", "nets"])));
    let left = Member::behind(&lab, kinds.0, &internet, "left", None);
    let right = Member::behind(&lab, kinds.1, &internet, "right", Some(&model));
    left.join(&hub);
    let began = Instant::now();
    right.join(&hub);
    let there = || left.path("right").contains(wanted);
    assert!(
        process::eventually(Duration::from_secs(30), there),
        "{kinds:?}: {wanted} was expected, found `{}`\n{}",
        left.path("right"),
        left.node.stderr()
    );
    let took = began.elapsed();
    eprintln!("{kinds:?}: {} after {:.1} s", left.path("right"), took.as_secs_f64());
    let answer = left.enter(|node| answered(&node.client(), "tiny"));
    assert_eq!(answer.expect(200)["usage"]["completion_tokens"], 3);
    let hub_id = hub.enter(members).iter().find(|row| row["self"] == true).unwrap()["id"].clone();
    assert_ne!(answer.header("x-potluck-node"), hub_id.as_str());
}

/// What theory allows between two routers.
fn theory(a: NatKind, b: NatKind) -> &'static str {
    use NatKind::{FullCone, None, PortRestricted, Symmetric};
    match (a, b) {
        (None, _) | (_, None) => "direct",
        (Symmetric, Symmetric | PortRestricted) | (PortRestricted, Symmetric) => "relayed",
        (FullCone, _) | (_, FullCone) => "direct",
        _ => "punched",
    }
}

#[test]
fn routers_that_let_it_are_punched_through() {
    meeting((NatKind::PortRestricted, NatKind::PortRestricted), "punched");
}

#[test]
fn routers_that_do_not_are_gone_around() {
    meeting((NatKind::Symmetric, NatKind::Symmetric), "relayed");
}

/// All pairs, with `POTLUCK_NAT_MATRIX=1`: some minutes.
#[test]
fn every_pair_of_routers_takes_the_way_that_theory_allows() {
    let all = std::env::var_os("POTLUCK_NAT_MATRIX").is_some();
    for a in KINDS {
        for b in KINDS {
            if all || matches!((a, b), (NatKind::None, NatKind::Symmetric)) {
                meeting((a, b), theory(a, b));
            }
        }
    }
}

#[test]
fn a_machine_that_moves_and_a_cut_cable_come_back() {
    let Some(lab) = lab("roaming") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let model = tiny(scratch.path());
    let internet = lab.internet();
    let desk = Member::on(lab.host("desk", &internet), "desk", Some(&model));
    desk.enter(|node| succeeded(&node.run(["pool", "create", "nets"])));
    let cafe = lab.net("cafe");
    let _cafe_router = lab.nat("cafe-router", NatKind::PortRestricted, &cafe, &internet);
    let laptop = Member::behind(&lab, NatKind::PortRestricted, &internet, "laptop", None);
    laptop.join(&desk);
    laptop.enter(|node| answered(&node.client(), "tiny")).expect(200);
    let ask = |text: &str| {
        let found = laptop.enter(|node| {
            let request = json!({"query": text, "limit": 3});
            node.client().post("/potluck/v1/memory/recall", &request).expect(200)["items"].clone()
        });
        found.as_array().unwrap().iter().any(|item: &Value| item["content"].as_str().unwrap().contains(text))
    };
    let remember = |text: &str| {
        let body = json!({"content": text});
        desk.enter(|node| node.client().post("/potluck/v1/memory", &body).expect(200));
    };
    let began = Instant::now();
    laptop.host.move_to(&cafe);
    remember("moved to the café");
    assert!(
        process::eventually(Duration::from_secs(15), || ask("moved to the café")),
        "not back after {:?}\n{}",
        began.elapsed(),
        laptop.node.stderr()
    );
    desk.host.cut();
    remember("written while the cable was cut");
    std::thread::sleep(Duration::from_secs(6));
    assert!(!ask("written while the cable was cut"));
    desk.host.heal();
    assert!(
        process::eventually(Duration::from_secs(15), || ask("written while the cable was cut")),
        "{}",
        laptop.node.stderr()
    );
}

#[test]
fn a_write_is_found_elsewhere_as_fast_as_the_cable_carries_it() {
    let Some(lab) = lab("lag") else { return };
    let net = lab.net("office");
    let here = Member::on(lab.host("here", &net), "here", None);
    let there = Member::on(lab.host_over("there", &net, Shape::delay(5)), "there", None);
    here.enter(|node| succeeded(&node.run(["pool", "create", "nets"])));
    there.join(&here);
    let mut took = Vec::new();
    for round in 0..20 {
        let word = format!("quetzal{round}");
        let body = json!({"content": format!("The word of the round is {word}")});
        here.enter(|node| node.client().post("/potluck/v1/memory", &body).expect(200));
        let began = Instant::now();
        let request = json!({"query": word, "limit": 1});
        let found = || {
            let items = there.enter(|node| {
                node.client().post("/potluck/v1/memory/recall", &request).expect(200)["items"].clone()
            });
            items[0]["content"].as_str().is_some_and(|text| text.ends_with(&word))
        };
        let limit = Duration::from_secs(5);
        while !found() {
            assert!(began.elapsed() < limit, "round {round} was not found\n{}", there.node.stderr());
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    eprintln!("found elsewhere after {:?} (median), {:?} (worst)", took[10], took[19]);
}
