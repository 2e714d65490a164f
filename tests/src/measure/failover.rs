//! What a reader notices when the machine that answers is killed in the middle.
//!
//! Four machines on one net: one asks, three can answer. In every round one answer is streamed, its machine is killed
//! (SIGKILL) at a moment drawn from the seed, and what the reader got is held against the answer that nothing
//! disturbed. Then the dead node starts again, so that two more are always there to go on.

use std::{
    collections::HashMap,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Spread, ms, tell};
use crate::{
    gguf::Tiny, http::Client, member::Member, netlab::Lab, node::NodeOptions, process, random::Random,
};

/// Tokens of an answer.
const TOKENS: u32 = 200;
/// Different requests of each sort, so that not every round asks the same.
const PROMPTS: usize = 8;

/// What happened to one answer.
#[derive(Clone, Debug)]
pub struct Round {
    /// Whether it was greedy; else it had a temperature and a seed.
    pub greedy: bool,
    /// When the machine was killed, counted from the request.
    pub killed_after: Duration,
    /// Events that the reader had by then.
    pub events_before: usize,
    /// Whether the answer came to its end.
    pub complete: bool,
    /// Whether it is, letter by letter, the one that nothing disturbed.
    pub equal: bool,
    /// The longest time without an event that ended after the kill; `None` when the answer was over by then.
    pub pause: Option<Duration>,
    /// What the reader was told instead, or what it read where it should have read something else.
    pub trouble: Option<String>,
}

/// All rounds.
#[derive(Clone, Debug)]
pub struct Report {
    /// In order.
    pub rounds: Vec<Round>,
    /// Gaps between events of the undisturbed answers.
    pub undisturbed: Spread,
}

impl Report {
    /// Pauses of the rounds that were disturbed.
    pub fn pauses(&self) -> Spread {
        Spread::of(self.rounds.iter().filter_map(|round| round.pause))
    }

    /// How many rounds are so.
    pub fn count(&self, what: impl Fn(&Round) -> bool) -> usize {
        self.rounds.iter().filter(|round| what(round)).count()
    }

    /// Everything.
    pub fn json(&self) -> Value {
        let rounds: Vec<Value> = self.rounds.iter().map(Round::json).collect();
        json!({"rounds": self.rounds.len(), "complete": self.count(|round| round.complete),
            "equal": self.count(|round| round.equal), "pause_ms": self.pauses().json(),
            "undisturbed_gap_ms": self.undisturbed.json(), "each": rounds})
    }

    /// A table.
    pub fn table(&self) -> String {
        let sort = |name: &str, greedy: bool| {
            let of = |what: &dyn Fn(&Round) -> bool| {
                self.count(|round| round.greedy == greedy && round.pause.is_some() && what(round))
            };
            let pauses =
                Spread::of(self.rounds.iter().filter(|r| r.greedy == greedy).filter_map(|r| r.pause));
            format!(
                "| {name} | {} | {} | {} | {:.0} / {:.0} / {:.0} / {:.0} ms |\n",
                of(&|_| true),
                of(&|round| round.complete),
                of(&|round| round.equal),
                pauses.ms(0.5),
                pauses.ms(0.9),
                pauses.ms(0.99),
                pauses.ms(1.0)
            )
        };
        let all = self.pauses();
        let mut text =
            "| answers | killed in the middle | complete | equal to the undisturbed one | pause p50 / p90 / \
                        p99 / max |\n|---|---|---|---|---|\n"
                .to_owned();
        text += &sort("temperature 0", true);
        text += &sort("temperature 0.8, seed", false);
        text + &format!(
            "{} rounds, {} complete, {} equal; pause p50 {:.0}, p90 {:.0}, p99 {:.0}, max {:.0} ms; gap without a \
             kill p50 {:.1}, p99 {:.1} ms\n",
            self.rounds.len(),
            self.count(|round| round.complete),
            self.count(|round| round.equal),
            all.ms(0.5),
            all.ms(0.9),
            all.ms(0.99),
            all.ms(1.0),
            self.undisturbed.ms(0.5),
            self.undisturbed.ms(0.99)
        )
    }
}

impl Round {
    fn json(&self) -> Value {
        json!({"greedy": self.greedy, "killed_after_ms": ms(self.killed_after), "events_before": self.events_before,
            "complete": self.complete, "equal": self.equal, "pause_ms": self.pause.map(ms),
            "trouble": self.trouble})
    }
}

/// What a request should bring, and how long it takes.
#[derive(Clone)]
struct Whole {
    text: String,
    took: Duration,
}

/// What a reader read.
#[derive(Default)]
struct Read {
    text: String,
    events: Vec<Instant>,
    complete: bool,
    trouble: Option<String>,
}

struct World {
    asking: Member,
    serving: Vec<Member>,
    ids: Vec<String>,
    whole: HashMap<(bool, usize), Whole>,
    gaps: Vec<Duration>,
    _lab: Lab,
}

/// Kills the answering machine in every one of so many answers.
pub fn run(rounds: usize, seed: u64) -> Report {
    let mut world = World::make();
    let mut random = Random::new(seed);
    let mut all = Vec::new();
    for number in 0..rounds {
        let (greedy, prompt) = (number % 2 == 0, random.below(PROMPTS));
        let whole = world.whole(greedy, prompt);
        // Up to nearly its end: what comes after the last token disturbs nobody.
        let share = random.below(950) as f64 / 1000.0;
        let round = world.round(greedy, prompt, &whole, whole.took.mul_f64(share));
        if let Some(trouble) = &round.trouble {
            tell(&format!("round {number} of seed {seed}: {trouble}\n{}", world.asking.node().stderr()));
        }
        let pause = round.pause.map_or_else(|| "none".to_owned(), |pause| format!("{:.0} ms", ms(pause)));
        tell(&format!("round {number}: killed after {:.0} ms, pause {pause}", ms(round.killed_after)));
        all.push(round);
    }
    Report { rounds: all, undisturbed: Spread::of(world.gaps) }
}

impl World {
    fn make() -> Self {
        let lab = Lab::new("failover");
        let net = lab.net("office");
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let model = Tiny::slow().write(&scratch.path().join("slow.gguf"));
        let options = NodeOptions::new().args(["--threads", "1", "--pool-listen", "0.0.0.0:7686"]);
        let asking = Member::with(lab.host("anna", &net), "anna", options.clone());
        asking.found();
        let serving: Vec<Member> = ["bert", "carl", "dora"]
            .into_iter()
            .map(|name| {
                let mut member = Member::off(lab.host(name, &net), name, options.clone());
                // Each has the file in its own home, which outlives the folder here.
                let own = member.home().join("slow.gguf");
                std::fs::copy(&model, &own).expect("the model can be copied");
                member.offer(own.to_str().expect("a path of UTF-8"));
                member.start();
                member.join(&asking);
                member
            })
            .collect();
        let ids = serving.iter().map(Member::id).collect();
        let world = Self { asking, serving, ids, whole: HashMap::new(), gaps: Vec::new(), _lab: lab };
        world.serving.iter().for_each(warm);
        world.asking.meets(world.serving.len());
        world.asking.answered("slow", Duration::from_secs(20)).expect(200);
        world
    }

    /// The answer that nothing disturbs.
    fn whole(&mut self, greedy: bool, prompt: usize) -> Whole {
        if let Some(known) = self.whole.get(&(greedy, prompt)) {
            return known.clone();
        }
        let began = Instant::now();
        let read = self.asking.enter(|node| read(&node.client(), &request(greedy, prompt), |_| ()));
        let took = began.elapsed();
        assert!(read.complete, "an undisturbed answer broke off: {:?}", read.trouble);
        self.gaps.extend(read.events.windows(2).map(|pair| pair[1] - pair[0]));
        let whole = Whole { text: read.text, took };
        self.whole.insert((greedy, prompt), whole.clone());
        whole
    }

    fn round(&mut self, greedy: bool, prompt: usize, whole: &Whole, after: Duration) -> Round {
        let (asking, serving, ids) = (&self.asking, &self.serving, &self.ids);
        let body = request(greedy, prompt);
        let (tell_who, who) = sync_channel::<String>(1);
        let began = Instant::now();
        let (read, struck) = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let client = asking.node().client();
                asking.host.enter(|| read(&client, &body, |node| drop(tell_who.send(node.to_owned()))))
            });
            let node = who.recv().ok();
            thread::sleep(after.saturating_sub(began.elapsed()));
            let place = ids.iter().position(|id| Some(id) == node.as_ref());
            if let Some(place) = place {
                serving[place].strike();
            }
            let struck = place.map(|place| (place, Instant::now()));
            (reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), struck)
        });
        let Some((place, at)) = struck else {
            let trouble = read.trouble.or_else(|| Some("no other machine answered".to_owned()));
            return Round::failed(greedy, after, trouble);
        };
        self.revive(place);
        let mut last = began;
        let mut pause = None;
        for &event in &read.events {
            if event > at {
                pause = pause.max(Some(event - last));
            }
            last = event;
        }
        let equal = read.text == whole.text;
        let wrong = || format!("expected {:?}, read {:?}", whole.text, read.text);
        Round {
            greedy,
            killed_after: at - began,
            events_before: read.events.iter().filter(|event| **event <= at).count(),
            complete: read.complete,
            equal,
            pause,
            trouble: read.trouble.clone().or_else(|| (!equal).then(wrong)),
        }
    }

    /// Starts a killed node again and waits until it can be chosen.
    fn revive(&mut self, place: usize) {
        let others = self.serving.len();
        let member = &mut self.serving[place];
        member.kill();
        // Until its connection is known to be dead it still counts as online.
        thread::sleep(Duration::from_millis(100));
        member.start();
        warm(member);
        member.meets(others);
        self.asking.meets(others);
        let id = &self.ids[place];
        let doctor =
            || self.asking.enter(|node| node.run(["doctor", id, "--model", "slow"])).status.success();
        let well = process::eventually(Duration::from_secs(20), doctor);
        assert!(well, "it does not come back\n{}", self.asking.node().stderr());
    }
}

impl Round {
    fn failed(greedy: bool, after: Duration, trouble: Option<String>) -> Self {
        let (complete, equal) = (false, false);
        Self { greedy, killed_after: after, events_before: 0, complete, equal, pause: None, trouble }
    }
}

/// Has a node load its model.
fn warm(member: &Member) {
    let body = json!({"model": "slow", "prompt": "abc", "max_tokens": 1, "temperature": 0});
    member.post("/v1/completions", &body).expect(200);
}

fn request(greedy: bool, prompt: usize) -> Value {
    let prompt_text = format!("abc {}", "defg hijk lmno pqrs tuvw ".split_at(3 * prompt).0);
    let mut body = json!({"model": "slow@trusted", "prompt": prompt_text, "max_tokens": TOKENS, "stream": true,
        "ignore_eos": true, "temperature": 0});
    if !greedy {
        body["temperature"] = 0.8.into();
        body["seed"] = (prompt as u64 + 7).into();
    }
    body
}

/// Reads a stream to its end; says first which machine answers.
fn read(client: &Client, body: &Value, answering: impl FnOnce(&str)) -> Read {
    let mut read = Read::default();
    let mut stream = match client.stream("/v1/completions", body) {
        Ok(stream) => stream,
        Err(error) => {
            read.trouble = Some(error.to_string());
            return read;
        }
    };
    answering(stream.header("x-potluck-node").unwrap_or_default());
    loop {
        match stream.event() {
            Ok(Some(event)) => {
                if let Some(error) = event.get("error") {
                    read.trouble = Some(error.to_string());
                }
                let Some(text) = event["choices"][0]["text"].as_str() else { continue };
                read.events.push(Instant::now());
                read.text.push_str(text);
                read.complete |= event["choices"][0]["finish_reason"] == "length";
            }
            Ok(None) => break,
            Err(error) => {
                read.trouble = Some(error.to_string());
                break;
            }
        }
    }
    read.complete &= read.trouble.is_none();
    read
}
