//! A pool over real routers, cables and cuts: which way is taken, and how it comes back.

use std::time::{Duration, Instant};

use potluck_tests::{
    measure::{
        first,
        memory::{self, Bulk, Plan, Way},
        nat::{self, Home},
    },
    member::Member,
    netlab::NatKind,
    process,
};
use serde_json::{Value, json};

use crate::{common::tiny, netlab::lab, pool::answered};

/// Lets two meet, who must take the way that theory allows.
fn meeting(a: Home, b: Home) {
    if lab("meeting").is_none() {
        return;
    }
    let meeting = nat::meet((a, b), Duration::from_secs(40));
    eprintln!("{meeting:?}");
    assert!(meeting.as_in_theory && meeting.answered, "{meeting:?}");
}

#[test]
fn routers_that_let_it_are_punched_through() {
    meeting(Home::V4(NatKind::PortRestricted), Home::V4(NatKind::PortRestricted));
}

#[test]
fn routers_that_do_not_are_gone_around() {
    meeting(Home::V4(NatKind::Symmetric), Home::V4(NatKind::Symmetric));
}

#[test]
fn who_has_no_router_is_reached_from_behind_any() {
    meeting(Home::V4(NatKind::None), Home::V4(NatKind::Symmetric));
}

#[test]
fn public_ipv6_is_taken_before_anything_else() {
    meeting(Home::OpenV6, Home::GuardedV6);
}

/// All pairs, with `POTLUCK_NAT_MATRIX=1`: some minutes. `pool_bench --nat` does the same and prints a table.
#[test]
fn every_pair_of_routers_takes_the_way_that_theory_allows() {
    if std::env::var_os("POTLUCK_NAT_MATRIX").is_none() || lab("matrix").is_none() {
        return;
    }
    let meetings = nat::matrix(Duration::from_secs(40));
    eprintln!("{}", nat::table(&meetings));
    let wrong: Vec<_> =
        meetings.iter().filter(|meeting| !meeting.as_in_theory || !meeting.answered).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_relay_that_is_killed_and_comes_back_carries_again() {
    if lab("relay").is_none() {
        return;
    }
    let back = nat::relay_restarts(1);
    assert!(back[0] < Duration::from_secs(15), "{back:?}");
}

#[test]
fn two_machines_on_one_net_are_a_pool_within_seconds() {
    if lab("first").is_none() {
        return;
    }
    let steps = first::run(1);
    assert!(steps[0].sum() < Duration::from_secs(10), "{steps:?}");
}

#[test]
fn a_machine_that_moves_and_a_cut_cable_come_back() {
    let Some(lab) = lab("roaming") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let model = tiny(scratch.path());
    let internet = lab.internet();
    let desk = Member::on(lab.host("desk", &internet), "desk", Some(&model));
    desk.found();
    let cafe = lab.net("cafe");
    let _cafe_router = lab.nat("cafe-router", NatKind::PortRestricted, &cafe, &internet);
    let home = lab.net("home");
    let router = lab.nat("home-router", NatKind::PortRestricted, &home, &internet);
    let laptop = Member::on(lab.host("laptop", &home), "laptop", None).behind(router);
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
        laptop.node().stderr()
    );
    desk.host.cut();
    remember("written while the cable was cut");
    std::thread::sleep(Duration::from_secs(6));
    assert!(!ask("written while the cable was cut"));
    desk.host.heal();
    assert!(
        process::eventually(Duration::from_secs(15), || ask("written while the cable was cut")),
        "{}",
        laptop.node().stderr()
    );
}

#[test]
fn a_write_is_found_elsewhere_as_fast_as_the_cable_carries_it() {
    if lab("lag").is_none() {
        return;
    }
    // Texts that are made up here, so that the words do not depend on what lies on the machine.
    let bulk = Bulk::new(memory::made_up(), 500, true);
    let plan =
        Plan { sizes: vec![500], ways: vec![Way::Slow(5), Way::WireGuard], writes: 30, newcomer: true };
    let report = memory::run(&plan, &bulk);
    eprintln!("{}", report.table());
    for row in &report.rows {
        // The machine may be busy with other things; `pool_bench --memory` measures.
        assert!(row.found.ms(0.5) < row.way.delay() + 150.0, "{row:?}");
    }
    assert!(report.snapshots.iter().all(|snapshot| snapshot.records >= 500), "{:?}", report.snapshots);
}
