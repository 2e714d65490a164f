//! Three machines that write, edit and forget at random while cables are cut, clocks go wrong and processes are
//! killed: in the end all hold the same, and nothing that was acknowledged is missing.
//!
//! One set of three processes lives through many stories, each in a project of its own and each told by its seed
//! alone. What a story did to cables, clocks and processes is undone at its end, then the three must agree about its
//! project before the next one begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Spread, ms, tell};
use crate::{
    member::Member,
    netlab::{Lab, Net, Plugged},
    node::NodeOptions,
    random::Random,
    skew::Skew,
};

const MEMORY: &str = "/potluck/v1/memory";
/// Steps of a story.
const STEPS: usize = 30;
/// Longest time until all agree after the last trouble is over.
const PATIENCE: Duration = Duration::from_secs(60);
/// How far a clock is ahead when others must refuse what it stamps, in milliseconds: more than the minute they allow.
const FAR: i64 = 150_000;
/// How wrong clocks are, in milliseconds.
const SKEWS: [i64; 6] = [-2 * 3_600_000, -50_000, 0, 0, 40_000, FAR];

/// What became of the stories.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many were told.
    pub stories: usize,
    /// Writes, edits and forgettings that were acknowledged.
    pub acknowledged: usize,
    /// Those that were not: the node was dead, or refused.
    pub refused: usize,
    /// Processes killed.
    pub kills: usize,
    /// Cables cut.
    pub cuts: usize,
    /// Clocks set wrong.
    pub skews: usize,
    /// Memories that were in conflict at the end of a story, on all machines the same.
    pub conflicts: usize,
    /// From the end of the last trouble until all agreed.
    pub healed: Spread,
}

impl Report {
    /// Everything.
    pub fn json(&self) -> Value {
        json!({"stories": self.stories, "acknowledged": self.acknowledged, "refused": self.refused,
            "kills": self.kills, "cuts": self.cuts, "skews": self.skews, "conflicts": self.conflicts,
            "healed_ms": self.healed.json()})
    }

    /// A line.
    pub fn line(&self) -> String {
        format!(
            "{} stories: {} operations acknowledged, {} not; {} kills, {} cuts, {} wrong clocks; {} conflicts, the \
             same everywhere; agreed after p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms; nothing lost",
            self.stories,
            self.acknowledged,
            self.refused,
            self.kills,
            self.cuts,
            self.skews,
            self.conflicts,
            self.healed.ms(0.5),
            self.healed.ms(0.99),
            self.healed.ms(1.0)
        )
    }
}

/// Tells the stories of these seeds; panics with the seed of the first that ends badly.
///
/// # Errors
/// Why clocks cannot be made wrong here.
pub fn run(seeds: Range<u64>) -> Result<Report, String> {
    let skews = [Skew::new()?, Skew::new()?, Skew::new()?];
    let mut world = World::make(skews);
    let mut healed = Vec::new();
    for seed in seeds {
        healed.push(Story::new(seed, &mut world).tell());
        world.report.stories += 1;
        if world.report.stories.is_multiple_of(50) {
            tell(&format!("{} stories, the last of seed {seed}", world.report.stories));
        }
    }
    world.report.healed = Spread::of(healed);
    Ok(world.report)
}

struct World {
    members: Vec<Member>,
    skews: [Skew; 3],
    /// What all clocks are ahead of the system's when nothing is wrong: stamps never go back, so after a clock was
    /// far ahead the others follow it.
    base: i64,
    report: Report,
    net: Net,
    _lab: Lab,
}

impl World {
    fn make(skews: [Skew; 3]) -> Self {
        let lab = Lab::new("converge");
        let net = lab.net("office");
        let members: Vec<Member> = ["anna", "bert", "carl"]
            .into_iter()
            .zip(&skews)
            .map(|(name, skew)| {
                let options = NodeOptions::new().args(["--pool-listen", "0.0.0.0:7686", "--threads", "1"]);
                Member::with(lab.host(name, &net), name, skew.put_on(options))
            })
            .collect();
        members[0].found();
        members[1..].iter().for_each(|member| member.join(&members[0]));
        members.iter().for_each(|member| member.meets(2));
        Self { members, skews, base: 0, report: Report::default(), net, _lab: lab }
    }

    fn cut_off(&self, place: usize) {
        let hosts: Vec<&dyn Plugged> =
            self.members.iter().map(|member| &member.host as &dyn Plugged).collect();
        let others: Vec<&dyn Plugged> =
            (0..hosts.len()).filter(|other| *other != place).map(|other| hosts[other]).collect();
        self.net.partition(&[&[hosts[place]], &others]);
    }
}

/// The life of one project.
struct Story<'a> {
    seed: u64,
    project: String,
    random: Random,
    world: &'a mut World,
    /// Versions that a node said it has.
    kept: Vec<String>,
    /// Versions whose text a node said it has erased.
    erased: BTreeSet<String>,
    /// Versions that a node said it has forgotten.
    forgotten: BTreeSet<String>,
    /// Whether a clock was far ahead.
    far: bool,
    /// What was done, for who has to understand a failure.
    told: Vec<String>,
}

/// What a node holds of a project: for each living version its text and those it is in conflict with.
type Heads = BTreeMap<String, (String, BTreeSet<String>)>;

impl<'a> Story<'a> {
    fn new(seed: u64, world: &'a mut World) -> Self {
        Self {
            seed,
            project: format!("story{seed}"),
            random: Random::new(seed),
            world,
            kept: Vec::new(),
            erased: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            far: false,
            told: Vec::new(),
        }
    }

    /// Tells it, and gives how long all took to agree in the end.
    fn tell(mut self) -> Duration {
        for step in 0..STEPS {
            let place = self.random.below(3);
            match self.random.below(20) {
                0..=6 => self.write(step, place),
                7..=11 => self.edit(step, place),
                12..=14 => self.forget(place),
                15 => {
                    self.note(place, "is cut off");
                    self.world.cut_off(place);
                    self.world.report.cuts += 1;
                }
                16 => self.world.net.mend(),
                17 => self.die_or_rise(step, place),
                18 => self.skew(place),
                _ => thread::sleep(Duration::from_millis(self.random.below(80) as u64)),
            }
        }
        self.heal();
        let began = Instant::now();
        loop {
            let wrong = self.disagreement();
            let Some(wrong) = wrong else { break };
            if began.elapsed() > PATIENCE {
                self.fail(&wrong);
            }
            thread::sleep(Duration::from_millis(15));
        }
        began.elapsed()
    }

    fn note(&mut self, place: usize, what: &str) {
        self.told.push(format!("{} {what}", self.world.members[place].name()));
    }

    /// Asks a node to change something; the answer when it said yes.
    fn send(&mut self, place: usize, method: &str, path: &str, body: &Value) -> Option<Value> {
        let member = &self.world.members[place];
        let answer = member.runs().then(|| member.enter(|node| post(&node.client(), method, path, body)));
        let answer = answer.flatten();
        match answer {
            Some(_) => self.world.report.acknowledged += 1,
            None => self.world.report.refused += 1,
        }
        answer
    }

    fn keep(&mut self, answer: Option<Value>) -> Option<String> {
        let id = answer?["id"].as_str().expect("a write is answered with an id").to_owned();
        self.kept.push(id.clone());
        Some(id)
    }

    fn write(&mut self, step: usize, place: usize) {
        // Every third text is one that another machine may write too.
        let content = match self.random.below(3) {
            0 => format!("Fact {} of story {}", self.random.below(4), self.seed),
            _ => format!("Fact of step {step} of story {}", self.seed),
        };
        let body = json!({"content": content, "project": self.project});
        let answer = self.send(place, "POST", MEMORY, &body);
        let id = self.keep(answer);
        self.note(place, &format!("writes {content:?}: {id:?}"));
    }

    /// A version that somebody knows of: mostly one of the latest, so that machines meddle with the same.
    fn some_version(&mut self) -> Option<String> {
        let count = self.kept.len();
        let back = self.random.below(count.min(6));
        self.kept.get(count.checked_sub(1 + back)?).cloned()
    }

    fn edit(&mut self, step: usize, place: usize) {
        let Some(old) = self.some_version() else { return };
        let body = json!({"content": format!("Step {step} of story {} changed this", self.seed)});
        let answer = self.send(place, "PATCH", &format!("{MEMORY}/{old}"), &body);
        let id = self.keep(answer);
        self.note(place, &format!("edits {old}: {id:?}"));
    }

    fn forget(&mut self, place: usize) {
        let Some(old) = self.some_version() else { return };
        let hard = self.random.chance(50);
        let body = json!({"ids": [old], "hard": hard, "confirm": true});
        let answer = self.send(place, "POST", &format!("{MEMORY}/forget"), &body);
        self.note(place, &format!("forgets {old} (for good: {hard}): {answer:?}"));
        let ids = answer.and_then(|answer| answer["ids"].as_array().cloned()).unwrap_or_default();
        for id in ids.iter().filter_map(Value::as_str) {
            self.forgotten.insert(id.to_owned());
            if hard {
                self.erased.insert(id.to_owned());
            }
        }
    }

    /// Kills a node in the middle of writes, or starts a dead one.
    fn die_or_rise(&mut self, step: usize, place: usize) {
        if !self.world.members[place].runs() {
            self.note(place, "starts");
            return self.world.members[place].start();
        }
        let bodies: Vec<Value> = (0..20)
            .map(|number| {
                let content = format!("Last word {number} of step {step} of story {}", self.seed);
                json!({"content": content, "project": self.project})
            })
            .collect();
        let wait = Duration::from_micros(self.random.below(12_000) as u64);
        let member = &mut self.world.members[place];
        let said = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let write = |node: &crate::node::Node| {
                    let client = node.client();
                    bodies.iter().map_while(|body| post(&client, "POST", MEMORY, body)).collect::<Vec<_>>()
                };
                member.enter(write)
            });
            thread::sleep(wait);
            member.strike();
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        member.kill();
        self.world.report.kills += 1;
        self.world.report.acknowledged += said.len();
        self.note(place, &format!("is killed; it had said {said:?}"));
        for answer in said {
            self.keep(Some(answer));
        }
    }

    fn skew(&mut self, place: usize) {
        let skew = *self.random.pick(&SKEWS);
        self.far |= skew == FAR;
        self.world.skews[place].set(self.world.base + skew);
        self.world.report.skews += 1;
        self.note(place, &format!("has a clock that is {skew} ms ahead"));
    }

    /// Ends every trouble.
    fn heal(&mut self) {
        self.world.net.mend();
        if self.far {
            self.world.base += FAR;
        }
        for (place, skew) in self.world.skews.iter().enumerate() {
            skew.set(self.world.base);
            if !self.world.members[place].runs() {
                self.world.members[place].start();
            }
        }
    }

    fn heads(&self, member: &Member) -> Heads {
        let path = format!("{MEMORY}/recent?project={}&limit=200", self.project);
        let items = member.get(&path)["items"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let head = |item: &Value| {
            let others = item["conflicts_with"].as_array().into_iter().flatten().map(text).collect();
            (text(&item["id"]), (text(&item["content"]), others))
        };
        items.as_array().expect("a list").iter().map(head).collect()
    }

    /// What is not yet as it must be.
    fn disagreement(&mut self) -> Option<String> {
        let all: Vec<Heads> = self.world.members.iter().map(|member| self.heads(member)).collect();
        assert!(all[0].len() < 200, "a listing would be cut");
        for (place, heads) in all.iter().enumerate() {
            if *heads != all[0] {
                let names = (self.world.members[0].name(), self.world.members[place].name());
                return Some(format!("{names:?} disagree:\n{:#?}\n{heads:#?}", all[0]));
            }
        }
        let missing = self.world.members.iter().find_map(|member| {
            let (kept, forgotten, erased) = (&self.kept, &self.forgotten, &self.erased);
            let found = member.enter(|node| {
                let client = node.client();
                kept.iter().chain(forgotten).find_map(|id| {
                    let answer = client.get(&format!("{MEMORY}/{id}"));
                    if answer.status != 200 {
                        return Some(format!("{id}: {}", answer.text()));
                    }
                    let state = answer.json()["state"].clone();
                    let bad = forgotten.contains(id) && state == "live"
                        || erased.contains(id) && state != "erased"
                        || answer.json()["id"] != id.as_str();
                    bad.then(|| format!("{id} was forgotten, and is {state}"))
                })
            });
            found.map(|what| format!("{}: {what}", member.name()))
        });
        if missing.is_none() {
            self.world.report.conflicts += all[0].values().filter(|(_, others)| !others.is_empty()).count();
        }
        missing
    }

    fn fail(&self, wrong: &str) -> ! {
        let states: String = self
            .world
            .members
            .iter()
            .map(|member| {
                let pool = member.get("/potluck/v1/pool");
                format!("{}: {pool:#}\n{}\n", member.name(), member.node().stderr())
            })
            .collect();
        panic!(
            "the story of seed {} ended badly after {} s: {wrong}\n{}\n{states}",
            self.seed,
            PATIENCE.as_secs(),
            self.told.join("\n")
        );
    }
}

/// Asks a node that may die meanwhile; its answer when it said yes.
fn post(client: &crate::http::Client, method: &str, path: &str, body: &Value) -> Option<Value> {
    let headers = [("content-type", "application/json")];
    // A node that is killed answers nothing, or half: then nothing was promised.
    let answer = client.send(method, path, &headers, body.to_string().as_bytes()).ok()?;
    let whole = answer.status == 200;
    whole.then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

/// How the stories of this run are chosen: `POTLUCK_STORIES` of them (else this many), from `POTLUCK_STORY` on.
pub fn chosen(default: u64) -> Range<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let first = number("POTLUCK_STORY").unwrap_or(1);
    let count =
        number("POTLUCK_STORIES").unwrap_or(if number("POTLUCK_STORY").is_some() { 1 } else { default });
    first..first + count
}

/// What `run` took for each story, in words.
pub fn pace(report: &Report, took: Duration) -> String {
    format!("{:.0} ms a story", ms(took) / report.stories.max(1) as f64)
}
