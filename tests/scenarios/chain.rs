//! A chain on one desk, used as the README says: from a deposit to a policy that decides.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use potluck_tests::{
    chain::{Chain, micros, told},
    node::{Node, NodeOptions, failed, succeeded},
    process,
};
use serde_json::Value;

/// What a call of the account costs, in millionths of a credit.
const FEE: u128 = 1_000;
const GRANTED: u128 = 10_000_000_000;

fn node(home: &Path, endpoint: &str) -> Node {
    Node::start(NodeOptions::new().home(home).args(["--chain-endpoint", endpoint]))
}

/// A desk: a chain, and a node that uses it.
struct Desk {
    chain: Option<Chain>,
    node: Node,
    /// How long each command took.
    took: Vec<(String, Duration)>,
}

impl Desk {
    fn text(&mut self, words: &str) -> String {
        let began = Instant::now();
        let said = succeeded(&self.node.run(words.split(' ')));
        self.took.push((words.to_owned(), began.elapsed()));
        said
    }

    fn json(&self, words: &str) -> Value {
        told(&self.node.run(words.split(' ').chain(["--json"])))
    }

    fn refused(&self, words: &str, because: &str) {
        let said = failed(&self.node.run(["--json"].into_iter().chain(words.split(' '))));
        let error: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(because), "{words}: {error}");
    }

    fn blocks(&mut self, count: u64) {
        self.chain.as_mut().unwrap().blocks(u32::try_from(count).unwrap());
    }

    fn block(&self) -> u64 {
        self.json("chain status")["block"].as_u64().unwrap()
    }
}

#[test]
fn one_machine_with_the_readme_alone_has_money_a_stake_and_a_vote() {
    let home = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let Some(chain) = Chain::start(home.path()) else { return };
    println!("chain dev: {:?}", began.elapsed());
    let node = node(home.path(), chain.endpoint());
    let mut desk = Desk { chain: Some(chain), node, took: Vec::new() };
    desk.money();
    desk.mistakes();
    desk.offer();
    desk.govern();
    desk.lose_the_chain(home.path());
    for (words, took) in &desk.took {
        println!("{took:>8.2?}  potluck {words}");
    }
    println!("in all {:?}", began.elapsed());
    desk.node.shutdown();
    desk.chain.unwrap().stop();
}

impl Desk {
    fn money(&mut self) {
        assert!(self.text("credits history").contains("nothing was asked"));
        assert!(self.text("credits deposit 5").contains("done in block"));
        assert!(self.text("credits balance").contains("escrow   5.000000 credits"));
        let has = self.json("credits balance");
        assert_eq!(micros(&has["free"]), GRANTED - 5_000_000 - FEE);
        let done = self.json("credits deposit 1.25");
        assert_eq!((&done["state"], &done["word"]), (&"done".into(), &"deposit".into()), "{done}");
        assert!(self.text("credits withdraw 2").contains("done in block"));
        let has = self.json("credits balance");
        assert_eq!((micros(&has["escrow"]), micros(&has["thawing"])), (4_250_000, 2_000_000));
        self.refused("credits withdraw", "cannot be withdrawn yet");
        let at = has["thawed_at"].as_u64().unwrap();
        self.blocks(at - self.block());
        assert!(self.text("credits withdraw").contains("done in block"));
        assert!(self.text("credits withdraw 1").contains("done"));
        assert!(self.text("credits withdraw --cancel").contains("done"));
        let has = self.json("credits balance");
        assert_eq!((micros(&has["escrow"]), micros(&has["thawing"])), (4_250_000, 0));
        let calls = self.json("credits history")["done"].as_array().unwrap().clone();
        let good = calls.iter().filter(|call| call["state"] == "done").count();
        assert_eq!((good, calls.len()), (6, 7), "{calls:?}");
        // What fails in a block costs a fee in tokens, and no credits.
        assert_eq!(micros(&has["free"]), GRANTED - 4_250_000 - 6 * FEE);
        assert!(self.text("credits history").contains("deposit 1.250000 credits"));
        let status = self.json("chain status");
        assert_eq!((&status["connected"], &status["trouble"]), (&true.into(), &Value::Null), "{status}");
        assert!(self.text("chain status").contains("is final"));
    }

    fn mistakes(&self) {
        let before = self.json("credits balance");
        self.refused("credits deposit abc", "not a sum of credits");
        self.refused("credits deposit 1.2.3", "not a sum of credits");
        self.refused("credits deposit 0.0000001", "credits");
        self.refused("credits deposit 0", "more than 0");
        self.refused("credits deposit -- -5", "not a sum of credits");
        self.refused("credits deposit 99999999999999999999999999999999999999999", "credits");
        self.refused("credits deposit 20000", "the chain did not deposit 20000.000000 credits");
        self.refused("credits withdraw 1000", "the chain did not begin to withdraw");
        self.refused("provider stake 100000", "the chain did not");
        self.refused("provider unstake 1", "the chain did not");
        self.refused("gov vote 77 yes --tokens 5", "the chain did not vote");
        self.refused("gov vote 0 yes --tokens many", "no number of tokens");
        failed(&self.node.run("gov vote 0 perhaps --tokens 1".split(' ')));
        self.refused("gov propose pricing no-such-file.wasm", "no-such-file.wasm");
        self.refused("gov deposit 77", "the chain did not");
        let after = self.json("credits balance");
        for field in ["free", "escrow", "thawing", "stake", "earned", "promised"] {
            assert_eq!(before[field], after[field], "{field}");
        }
    }

    fn offer(&mut self) {
        assert!(self.text("provider status").contains("registered  no"));
        assert!(self.text("provider register").contains("done in block"));
        let words = self.text("provider stake 3");
        assert!(words.contains("done in block"), "{words}");
        let status = self.json("provider status");
        assert_eq!((&status["registered"], &status["stake"]), (&true.into(), &"3.000000".into()), "{status}");
        assert_eq!(status["models"], 1, "the built-in model: {status}");
        assert!(self.text("provider status").contains("3.000000 credits"));
        self.json("provider register --hardware desk");
        assert_eq!(self.json("provider status")["hardware"], "desk", "a registration can be renewed");
        assert!(self.text("provider unstake 1").contains("done in block"));
        let leaving = self.json("provider status")["unbonding"][0].clone();
        assert_eq!(leaving["amount"], "1.000000");
        let left = leaving["at"].as_u64().unwrap().saturating_sub(self.block());
        self.blocks(left);
        assert!(self.text("provider unstake").contains("done in block"));
        let has = self.json("credits balance");
        assert_eq!(has["stake"], "2.000000");
        assert!(self.text("provider deregister").contains("done in block"));
        assert_eq!(self.json("provider status")["registered"], false);
    }

    /// What the policy host of the node runs, and what the chain says about it.
    fn pricing(&self) -> (Option<String>, Value) {
        let found = self.json("gov policies");
        let active = found["active"].as_array().unwrap().iter().find(|it| it["kind"] == "pricing").cloned();
        (active.map(|it| it["hash"].as_str().unwrap().to_owned()), found)
    }

    fn govern(&mut self) {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
        let component = dist.join("linear.wasm");
        let component = component.to_str().unwrap();
        assert!(self.text("gov policies").contains("no policy is approved yet"));
        assert!(self.text("gov status").contains("nothing was voted on yet"));
        self.refused(&format!("gov propose routing {component}"), "decides about pricing");
        let proposed = self.json(&format!("gov propose pricing {component}"));
        let (index, from) = (proposed["referendum"].as_u64().unwrap(), proposed["from"].as_u64().unwrap());
        let hash = self.json(&format!("policy check {component}"))["hash"].as_str().unwrap().to_owned();
        assert_eq!(proposed["deposit"]["state"], "done", "{proposed}");
        assert!(self.text(&format!("gov vote {index} yes --tokens 600000")).contains("done in block"));
        let status = self.json("gov status");
        assert_eq!(status["referenda"][0]["ayes"], "600000", "{status}");
        assert!(self.text("gov status").contains("600000"));
        let approved = |desk: &Self| desk.json("gov status")["referenda"][0]["state"] == "approved";
        while !approved(self) {
            assert!(self.block() < from, "{}", self.json("gov status"));
            self.blocks(1);
        }
        println!("approved at block {}, proposed to decide from {from} on", self.block());
        // Enacted, known, loaded beforehand, and not yet deciding: up to the last block before.
        self.blocks(from - 1 - self.block());
        let known = || {
            let (active, found) = self.pricing();
            assert_eq!(active, None, "{found}");
            found["block"] == from - 1 && found["policies"][0]["hash"] == hash.as_str()
        };
        assert!(process::eventually(Duration::from_secs(20), known), "{}", self.pricing().1);
        thread::sleep(Duration::from_secs(2));
        let (active, found) = self.pricing();
        let row = &found["policies"][0];
        assert_eq!(
            (active, &row["in_force"], &row["decides"]),
            (None, &false.into(), &false.into()),
            "{found}"
        );
        assert_eq!(row["from"], from);
        self.blocks(1);
        let began = Instant::now();
        let decides = || {
            let (active, found) = self.pricing();
            active.as_deref() == Some(hash.as_str()) && found["policies"][0]["decides"] == true
        };
        assert!(process::eventually(Duration::from_secs(10), decides), "{}", self.pricing().1);
        println!("it decides {:?} after its block", began.elapsed());
        let (_, found) = self.pricing();
        assert_eq!((&found["block"], &found["policies"][0]["in_force"]), (&from.into(), &true.into()));
        let table = self.text("gov policies");
        assert!(table.contains(&hash) && table.contains("decides"), "{table}");
        // The trusted pool's own policies are others.
        assert_eq!(self.json("policy list")["active"], serde_json::json!([]));
    }

    /// The chain ends while something is asked of it, and another one begins on the same port.
    fn lose_the_chain(&mut self, home: &Path) {
        let old = self.chain.take().unwrap();
        let port = old.port();
        old.stop();
        let mut asking = self.node.command(["credits", "deposit", "7", "--json"]);
        let asking = asking.stdout(std::process::Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_secs(2));
        self.chain = Some(Chain::start_on(home, port).expect("it is installed"));
        let done = told(&asking.wait_with_output().unwrap());
        let seven = || {
            let history = self.json("credits history");
            let calls = history["done"].as_array().unwrap().clone();
            calls
                .iter()
                .filter(|it| it["what"] == "deposit 7.000000 credits" && it["state"] == "done")
                .count()
                == 1
        };
        assert!(process::eventually(Duration::from_secs(60), seven), "{done}\n{}", self.node.stderr());
        let has = self.json("credits balance");
        assert_eq!(micros(&has["escrow"]), 7_000_000, "asked of the old chain, done on the new one: {has}");
        assert_eq!(micros(&has["free"]), GRANTED - 7_000_000 - FEE);
        assert_eq!(self.json("chain forget")["given_up"], 0);
        self.text("credits deposit 1");
        assert_eq!(micros(&self.json("credits balance")["escrow"]), 8_000_000);
    }
}

#[test]
fn without_a_chain_every_command_says_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let asked = [
        "credits balance",
        "credits deposit 1",
        "credits redeem",
        "credits vouchers",
        "provider status",
        "gov policies",
    ];
    let none = Node::start(NodeOptions::new().home(home.path()));
    for words in asked {
        let said = failed(&none.run(words.split(' ')));
        assert!(said.contains("--chain-endpoint") && said.contains("potluck chain dev"), "{words}: {said}");
    }
    assert!(succeeded(&none.run(["chain", "status"])).contains("no chain is configured"));
    none.shutdown();
    // Somebody listens there who speaks another language.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("ws://{}", listener.local_addr().unwrap());
    drop(listener);
    let lost = node(home.path(), &gone);
    let began = Instant::now();
    for words in &asked[..2] {
        let said = failed(&lost.run(words.split(' ')));
        assert!(said.contains("no node of the chain answers") && said.contains(&gone), "{words}: {said}");
    }
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let status = told(&lost.run(["chain", "status", "--json"]));
    assert_eq!(status["connected"], false, "{status}");
    lost.shutdown();
    let far =
        Node::refuse(NodeOptions::new().home(home.path()).args(["--chain-endpoint", "ws://192.0.2.1:1"]));
    assert!(far.stderr.contains("neither encrypted nor on this machine"), "{}", far.stderr);
}
