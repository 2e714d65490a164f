//! A public pool on one machine: nodes that know each other only by their addresses, and a chain that they settle on.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    chain::{Chain, micros, own, told},
    http::{Client, Response},
    node::{Node, NodeOptions, succeeded},
    process,
};

/// The model that strangers serve here.
pub const MODEL: &str = "stories260K-f32";
/// What a call costs its account, in millionths of a credit.
pub const FEE: u128 = 1_000;
/// Credits of a thousand tokens of prompt and answer.
const PRICES: &str = "prompt_price = \"0.01\"\nanswer_price = \"0.1\"\n";
/// Time to the first word of a part of the pool: an issuer makes its keys, a provider finds its relays.
const BEGIN: Duration = Duration::from_secs(60);

/// A node of the pool, which can die and come back under the same name and address.
#[derive(Debug)]
pub struct Party {
    // Dropped first.
    node: Option<Node>,
    options: NodeOptions,
    home: TempDir,
    port: u16,
    id: String,
}

impl Party {
    /// A node that is configured, and runs. `account`: that of the development chain which it owns.
    fn start(chain: &Chain, account: Option<&str>, home: TempDir, public: &str, model: Option<&str>) -> Self {
        if let Some(account) = account {
            own(home.path(), account);
        }
        let port = free_port();
        let public = public.replace("LISTEN", &format!("listen = [\"127.0.0.1:{port}\"]"));
        let folder = home.path().join("user/.config/potluck");
        fs::create_dir_all(&folder).expect("a folder");
        let extra = if account == Some("bob") { KEYS } else { "" };
        let text = format!(
            "{extra}[pool]\nlisten = [\"127.0.0.1:{}\"]\n[chain]\nendpoint = \"{}\"\n[public]\nunregistered = true\nidle = \"0s\"\non_battery = true\n{public}",
            free_port(),
            chain.endpoint()
        );
        fs::write(folder.join("config.toml"), text).expect("the configuration can be written");
        let mut options = NodeOptions::new().home(home.path());
        options = model.into_iter().fold(options, |options, model| options.model(model));
        // To see why something does not happen.
        if let Ok(level) = std::env::var("TEST_LOG") {
            options = options.args(["--log-level", level.as_str()]);
        }
        let mut party = Self { node: None, options, home, port, id: String::new() };
        party.begin();
        party.id = party.get("/potluck/v1/status")["node"].as_str().expect("a node has an id").to_owned();
        party
    }

    /// Starts its node again.
    pub fn begin(&mut self) {
        assert!(self.node.is_none(), "it runs already");
        self.node = Some(Node::start(self.options.clone()));
    }

    /// Ends its node as a power cut would.
    pub fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }

    /// Kills its process without waiting; [`kill`](Self::kill) must follow.
    pub fn strike(&self) {
        let pid = i32::try_from(self.node().pid()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }

    /// Ends its node in peace.
    pub fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown();
        }
    }

    /// Its node; panics when that is dead.
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    /// Its account.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder of its files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A client of its node.
    pub fn client(&self) -> Client {
        self.node().client()
    }

    /// What its node says there; panics unless it answers 200.
    pub fn get(&self, path: &str) -> Value {
        self.client().get(path).expect(200)
    }

    /// How it is in the pool.
    pub fn public(&self) -> Value {
        self.get("/potluck/v1/public")
    }

    /// Runs a command and gives what it prints as JSON.
    pub fn json(&self, words: &str) -> Value {
        told(&self.node().run(words.split(' ').chain(["--json"])))
    }

    /// Runs a command that succeeds.
    pub fn text(&self, words: &str) -> String {
        succeeded(&self.node().run(words.split(' ')))
    }

    /// What the chain and its book say it has, in millionths.
    pub fn has(&self, field: &str) -> u128 {
        micros(&self.json("credits balance")[field])
    }

    /// Where strangers reach it.
    pub fn at(&self) -> String {
        format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{}", self.port, peer_id(&self.id))
    }

    /// Waits until its node says so of itself; panics when it does not in time.
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) {
        let good = process::eventually(BEGIN, || is(&self.public()));
        assert!(good, "{what}: {}\n{}", self.public(), self.node().stderr());
    }

    /// What its purse holds, in millionths; 0 before it asked for anything.
    pub fn purse(&self) -> u128 {
        let asking = self.public()["asking"].clone();
        if asking["joined"] == true { micros(&asking["purse"]) + micros(&asking["purse_pending"]) } else { 0 }
    }

    /// What it has taken in for serving or relaying, in millionths, redeemed or not.
    pub fn earned(&self) -> u128 {
        let list = self.json("credits vouchers");
        let lanes = list["earning"].as_array().expect("a list");
        lanes.iter().map(|lane| micros(&lane["cumulative"])).sum()
    }

    /// What it has promised by vouchers, in millionths, redeemed or not.
    pub fn promised(&self) -> u128 {
        let list = self.json("credits vouchers");
        let lanes = list["paying"].as_array().expect("a list");
        lanes.iter().map(|lane| micros(&lane["cumulative"])).sum()
    }

    /// What it has bought tokens for and does not hold any more, in millionths.
    pub fn spent(&self) -> u128 {
        // A purchase between both questions would be counted as spent: what is held comes after what was promised, and
        // is asked again until nothing moves.
        loop {
            let (before, held) = (self.promised(), self.purse());
            if self.promised() == before {
                return before.checked_sub(held).expect("nobody holds more than was bought");
            }
        }
    }

    /// Asks for tokens of the model in mode public, for at most so many credits.
    pub fn ask(&self, prompt: &str, seed: u64, tokens: u32, price: &str) -> Response {
        self.ask_with(&[("x-potluck-max-price", price)], &job(prompt, seed, tokens))
    }

    /// Asks in mode public with further headers.
    pub fn ask_with(&self, headers: &[(&str, &str)], body: &Value) -> Response {
        let mut all = vec![("content-type", "application/json"), ("x-potluck-mode", "public")];
        all.extend_from_slice(headers);
        let body = body.to_string();
        self.client().send("POST", "/v1/completions", &all, body.as_bytes()).expect("the node answers")
    }
}

/// A job of which every node makes the same answer.
pub fn job(prompt: &str, seed: u64, tokens: u32) -> Value {
    json!({"model": MODEL, "prompt": prompt, "seed": seed, "temperature": 0.8, "max_tokens": tokens})
}

/// Keys of the first requester: one may use the public pool, the other never.
const KEYS: &str = "[[http.keys]]\nname = \"open\"\ntoken = \"open-to-the-public-pool-0123456789\"\nmodes = [\"local\", \"public\"]\nbudget = \"0.5\"\n[[http.keys]]\nname = \"home\"\ntoken = \"stays-at-home-0123456789-0123456789\"\nmodes = [\"local\"]\n";

/// A pool of strangers.
#[derive(Debug)]
pub struct Pool {
    /// Whose machine asks: bob, who has credits, then alice.
    pub requesters: Vec<Party>,
    /// Who serve; the first is dave, who has nothing.
    pub providers: Vec<Party>,
    /// Who relay.
    pub relays: Vec<Party>,
    /// Who sells tokens.
    pub issuer: Party,
    /// What all settle on.
    pub chain: Chain,
    /// How parties are told of the issuer, and the relays as a list.
    issued: String,
    relay_list: String,
}

impl Pool {
    /// Starts one; `None`, and said so, where there is no chain or no model for it.
    pub fn start(requesters: usize, providers: usize, relays: usize) -> Option<Self> {
        let model = crate::data::file_or_skip("models/stories260K-f32.gguf")?;
        let home = tempfile::tempdir().expect("a temporary folder");
        let chain = Chain::start(home.path())?;
        let issuer = Party::start(&chain, None, home, "issuer = true\nLISTEN\n", None);
        issuer.text("credits deposit 100");
        issuer.text("provider register");
        issuer.text("provider stake 100");
        issuer.until("it issues", |public| public["issuer"] == true);
        let issued = format!(
            "issuer_account = \"{}\"\nissuer_addresses = [\"{}\"]\n",
            issuer.id,
            issuer.at().rsplit_once("/p2p/").expect("it names a peer").0
        );
        let fresh = || tempfile::tempdir().expect("a temporary folder");
        let relay = || {
            let public = format!("relay = true\nLISTEN\n{issued}bootstrap = [\"{}\"]\n", issuer.at());
            let party = Party::start(&chain, None, fresh(), &public, None);
            party.until("it relays", |public| !public["relay"].is_null());
            party
        };
        let relays: Vec<Party> = (0..relays).map(|_| relay()).collect();
        let all: Vec<String> = relays.iter().map(|relay| format!("\"{}\"", relay.at())).collect();
        let relay_list = all.join(", ");
        let mut pool =
            Self { requesters: Vec::new(), providers: Vec::new(), relays, issuer, chain, issued, relay_list };
        for at in 0..providers {
            let party = pool.serving((at == 0).then_some("dave"), &model);
            party.text("public on");
            pool.providers.push(party);
        }
        for provider in &pool.providers {
            provider.until("it offers", |public| public["offer"]["models"][0]["name"] == MODEL);
        }
        let requester = |at: usize| {
            let public = format!("{}bootstrap = [{}]\n", pool.issued, pool.relay_list);
            let name = ["bob", "alice"].get(at).copied().expect("at most two ask");
            let party = Party::start(&pool.chain, Some(name), fresh(), &public, None);
            party.text("credits deposit 5");
            party
        };
        pool.requesters = (0..requesters).map(requester).collect();
        Some(pool)
    }

    /// A further provider with an account of the development chain, serving this model's file; it does not offer yet.
    pub fn provider(&self, account: &str, model: &Path) -> Party {
        self.serving(Some(account), model)
    }

    fn serving(&self, account: Option<&str>, model: &Path) -> Party {
        let Self { issued, relay_list: all, .. } = self;
        let public = format!(
            "{issued}bootstrap = [{all}]\nrelays = [{all}]\nmax_jobs = 8\nmodels = [\"{MODEL}\"]\n{PRICES}"
        );
        let fresh = tempfile::tempdir().expect("a temporary folder");
        Party::start(&self.chain, account, fresh, &public, model.to_str())
    }

    /// A verifier with an account of the development chain that audits about so often.
    pub fn verifier(&self, account: &str, every: &str, model: &Path) -> Party {
        let Self { issued, relay_list: all, .. } = self;
        let public = format!(
            "verify = true\nverify_every = \"{every}\"\nday_budget = \"4\"\nmax_price = \"0.05\"\nLISTEN\n{issued}bootstrap = [{all}]\n"
        );
        let fresh = tempfile::tempdir().expect("a temporary folder");
        Party::start(&self.chain, Some(account), fresh, &public, model.to_str())
    }

    /// What all who earn have taken in.
    pub fn earned(&self) -> u128 {
        self.providers.iter().chain(&self.relays).map(Party::earned).sum()
    }

    /// Panics unless every sum is that of the model, to the millionth: what was bought is what the purses hold and
    /// what was spent, and what was spent is what providers and relays have, but for at most `lost`.
    pub fn balances(&self, spent: u128, lost: u128) {
        let bought: u128 = self.requesters.iter().map(Party::promised).sum();
        let held: u128 = self.requesters.iter().map(Party::purse).sum();
        assert_eq!(bought, self.issuer.earned(), "the issuer has what was promised to it");
        assert_eq!(bought, held + spent, "what was bought is held or spent");
        assert_eq!(self.issuer.promised(), self.earned(), "who earned has what the issuer promised");
        let gone = spent.checked_sub(self.earned()).expect("nothing is paid that was not spent");
        assert!(gone <= lost, "{gone} of {spent} millionths are lost");
    }
}

/// A port that nobody listens on, neither over TCP nor over UDP.
fn free_port() -> u16 {
    for _ in 0..64 {
        let Ok(udp) = UdpSocket::bind("127.0.0.1:0") else { continue };
        let port = udp.local_addr().expect("it is bound").port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free")
}

/// A node as libp2p names it: base 58 of its protobuf key behind an identity hash.
pub fn peer_id(node: &str) -> String {
    const DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let hex = node.trim_start_matches("pl-");
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend((0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal")));
    let mut digits: Vec<u8> = Vec::new();
    for byte in &bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 58).expect("below 58");
            carry /= 58;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 58).expect("below 58"));
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let text = digits.iter().rev().map(|digit| DIGITS[usize::from(*digit)]);
    std::iter::repeat_n(b'1', zeros).chain(text).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_as_libp2p_names_it() {
        // An ed25519 key of zeros.
        assert!(peer_id(&"00".repeat(32)).starts_with("12D3KooW"), "{}", peer_id(&"00".repeat(32)));
    }
}
