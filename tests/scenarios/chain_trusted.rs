//! A trusted pool touches no chain, also where one is configured.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use potluck_tests::node::{Node, failed};
use serde_json::json;

use crate::{
    common::tiny,
    pool::{answered, meets, options, pool},
};

#[test]
fn a_trusted_pool_never_connects_to_a_chain_that_is_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("ws://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        // Each is dropped at once.
        for _ in listener.incoming() {
            counted.fetch_add(1, Relaxed);
        }
    });
    let scratch = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let with_chain = |name: &str| options(name).args(["--chain-endpoint", &endpoint]);
    let anna = Node::start(with_chain("anna"));
    let bert = with_chain("bert").home(home.path()).model(tiny(scratch.path()));
    let second = Node::start(bert.clone());
    pool(&[&anna, &second], &["--memory", "*"]);
    meets(&anna, 1);
    answered(&anna.client(), "tiny").expect(200);
    let local = json!({"model": "guide", "prompt": "a", "max_tokens": 2});
    anna.client().post("/v1/completions", &local).expect(200);
    let kept = json!({"content": "The boat is called Hilde"});
    anna.client().post("/potluck/v1/memory", &kept).expect(200);
    anna.client().get("/potluck/v1/policies").expect(200);
    anna.client().get("/potluck/v1/pool/ledger").expect(200);
    anna.client().get("/metrics");
    // Neither does a start with what an earlier run left, nor an end.
    second.shutdown();
    let second = Node::start(bert);
    meets(&anna, 1);
    for _ in 0..3 {
        answered(&anna.client(), "tiny").expect(200);
    }
    assert_eq!(connections.load(Relaxed), 0);
    assert!(!home.path().join("node/settlement").exists(), "nothing was written about a chain either");
    // The same listener is found as soon as somebody asks for credits.
    let refused = failed(&anna.run(["credits", "balance"]));
    assert!(refused.contains("no node of the chain answers"), "{refused}");
    assert!(connections.load(Relaxed) > 0, "this listener would have counted");
    anna.shutdown();
    second.shutdown();
}
