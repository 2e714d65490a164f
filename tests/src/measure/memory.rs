//! How soon what one machine remembers is found on another, by what lies between them and by how much they know.
//!
//! For each way (a cable, a slow cable, a WireGuard tunnel) two machines of a pool with one memory, which grows from
//! size to size. At each size facts are written on the first machine, one by one; the clock runs from the
//! acknowledgement to the first recall on the second machine that has the fact. At the largest size a third machine
//! joins and takes everything.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Spread, tell};
use crate::{
    http::Client,
    member::Member,
    netlab::{Host, Lab, Shape, WireGuard},
    node::{Node, NodeOptions},
    process,
};

mod bulk;

pub use bulk::{Bulk, made_up, texts};

const MEMORY: &str = "/potluck/v1/memory";
/// The port of the pool.
const PORT: u16 = 7686;
/// Longest time to a write's being found.
const LOST: Duration = Duration::from_secs(20);
/// Longest time until a newcomer has everything.
const SNAPSHOT: Duration = Duration::from_secs(1_800);

/// What lies between two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A virtual cable of the kernel's.
    Veth,
    /// A cable with this delay in milliseconds each way.
    Slow(u64),
    /// A WireGuard tunnel over a virtual cable.
    WireGuard,
}

impl Way {
    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Self::Veth => "veth".to_owned(),
            Self::Slow(delay) => format!("{delay} ms each way"),
            Self::WireGuard => "WireGuard".to_owned(),
        }
    }

    /// Its delay in one direction, in milliseconds.
    pub fn delay(self) -> f64 {
        if let Self::Slow(delay) = self { delay as f64 } else { 0.0 }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Numbers of records, ascending.
    pub sizes: Vec<usize>,
    /// What lies between the machines, one after the other.
    pub ways: Vec<Way>,
    /// Facts written at each size.
    pub writes: usize,
    /// Whether a third machine joins in the end.
    pub newcomer: bool,
}

/// The figures of one way at one size.
#[derive(Clone, Debug)]
pub struct Row {
    /// What lies between.
    pub way: Way,
    /// Records that were there before the writes.
    pub size: usize,
    /// From the acknowledgement on one machine to the recall on the other.
    pub found: Spread,
    /// What the writes took until they were acknowledged.
    pub written: Spread,
    /// What one recall took on the machine that looked, whether it found or not.
    pub recall: Spread,
}

/// How a newcomer got everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What lies between.
    pub way: Way,
    /// Living records it has in the end.
    pub records: u64,
    /// Bytes of its log in the end.
    pub bytes: u64,
    /// From the beginning of `potluck join`.
    pub took: Duration,
}

/// All figures.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Ways and sizes.
    pub rows: Vec<Row>,
    /// Newcomers.
    pub snapshots: Vec<Snapshot>,
    /// The model of the vectors; without one memory is found by words alone.
    pub embedder: Option<String>,
}

/// Measures; what the memories are filled with comes from `bulk`.
pub fn run(plan: &Plan, bulk: &Bulk) -> Report {
    let mut report = Report { embedder: bulk.embedder(), ..Report::default() };
    for &way in &plan.ways {
        let mut site = Site::make(way, bulk);
        for &size in &plan.sizes {
            site.fill(size);
            let row = site.measure(plan.writes);
            tell(&format!("{} with {size} records: found after {:.1} ms", way.name(), row.found.ms(0.5)));
            report.rows.push(row);
        }
        if plan.newcomer {
            report.snapshots.push(site.newcomer());
        }
    }
    report
}

/// Machines with one way between them.
struct Site<'a> {
    way: Way,
    bulk: &'a Bulk,
    writing: Member,
    reading: Member,
    /// The machine whose entries fill the memory: a member that is away.
    author: PathBuf,
    filled: usize,
    facts: usize,
    tunnel: Option<WireGuard>,
    _lab: Lab,
}

impl<'a> Site<'a> {
    fn make(way: Way, bulk: &'a Bulk) -> Self {
        let lab = Lab::new("memory");
        let net = lab.net("office");
        let here = lab.host("here", &net);
        let there = match way {
            Way::Slow(delay) => lab.host_over("there", &net, Shape::delay(delay)),
            _ => lab.host("there", &net),
        };
        let tunnel = (way == Way::WireGuard).then(|| WireGuard::between(&here, &there));
        // Nodes listen on the way that is measured, and nowhere else.
        let places = tunnel
            .as_ref()
            .map_or_else(|| [here.addr_v4(), there.addr_v4()], |tunnel| [tunnel.addr_a(), tunnel.addr_b()]);
        let member = |host: Host, name: &str, place: Ipv4Addr, port: u16| {
            let member = Member::off(host, name, options(place, port));
            bulk.prepare(member.home());
            member
        };
        let mut author = member(here.clone(), "author", places[0], PORT + 1);
        let mut writing = member(here, "here", places[0], PORT);
        let mut reading = member(there, "there", places[1], PORT);
        writing.start();
        writing.found();
        // The author joins and goes: what it wrote is then spread by the others.
        author.start();
        author.join(&writing);
        author.stop();
        let key = author.home().join("node/node.key");
        let kept = writing.home().join("author.key");
        fs::copy(key, &kept).expect("the key can be copied");
        reading.start();
        reading.join(&writing);
        writing.meets(1);
        let address = writing.sees("there").expect("it is connected")["address"].to_string();
        assert!(address.contains(&places[1].to_string()), "{address} is not the way of {places:?}");
        Self { way, bulk, writing, reading, author: kept, filled: 0, facts: 0, tunnel, _lab: lab }
    }

    /// Fills both memories up to this size.
    fn fill(&mut self, size: usize) {
        let more = size.saturating_sub(self.filled);
        let began = Instant::now();
        self.bulk.put(&self.writing, &self.author, self.filled, more);
        self.filled += more;
        let live = settled(&self.writing);
        let in_step = || stats(&self.reading)["live"] == live;
        assert!(process::eventually(SNAPSHOT, in_step), "{}", self.reading.node().stderr());
        settled(&self.reading);
        tell(&format!("{more} more records are on both after {:.1} s", began.elapsed().as_secs_f64()));
    }

    /// Writes facts here and looks for them there.
    fn measure(&mut self, writes: usize) -> Row {
        let first = self.facts;
        self.facts += writes;
        let (ask, asked) = sync_channel::<(String, String, Instant)>(1);
        let (tell_found, found) = sync_channel::<(Duration, Vec<Duration>)>(1);
        let (writing, reading) = (&self.writing, &self.reading);
        let mut row = Row {
            way: self.way,
            size: self.filled,
            found: Spread::default(),
            written: Spread::default(),
            recall: Spread::default(),
        };
        let (mut lags, mut written, mut recalls) = (Vec::new(), Vec::new(), Vec::new());
        thread::scope(|scope| {
            // Each side's thread stays on its machine: going there would be a part of the figure.
            scope.spawn(move || {
                let client = reading.node().client();
                reading.host.enter(|| {
                    for (id, name, since) in asked {
                        let answer = look(&client, &id, &name, since);
                        tell_found.send(answer).expect("the writer waits");
                    }
                });
            });
            let client = writing.node().client();
            let (lags, written, recalls) = (&mut lags, &mut written, &mut recalls);
            writing.host.enter(move || {
                for number in first..first + writes {
                    let name = name(number);
                    let text = format!("{name} keeps the spare key of the boat house in drawer {number}.");
                    let began = Instant::now();
                    let answer = client.post(MEMORY, &json!({"content": text})).expect(200);
                    let now = Instant::now();
                    written.push(now - began);
                    let id = answer["id"].as_str().expect("an id").to_owned();
                    ask.send((id, name, now)).expect("the reader waits");
                    let (lag, each) = found.recv().expect("the reader answers");
                    lags.push(lag);
                    recalls.extend(each);
                }
            });
        });
        (row.found, row.written, row.recall) = (Spread::of(lags), Spread::of(written), Spread::of(recalls));
        row
    }

    /// A third machine takes everything, from the first one; the second is switched off.
    fn newcomer(&mut self) -> Snapshot {
        let live = settled(&self.writing);
        let host = self.reading.host.clone();
        let place = self.tunnel.as_ref().map_or_else(|| host.addr_v4(), WireGuard::addr_b);
        self.reading.stop();
        let mut member = Member::off(host, "newcomer", options(place, PORT));
        self.bulk.prepare(member.home());
        member.start();
        let invite = self.writing.invite();
        let began = Instant::now();
        member.take(&invite);
        let whole = || {
            thread::sleep(Duration::from_millis(20));
            stats(&member)["live"] == live
        };
        assert!(process::eventually(SNAPSHOT, whole), "{}", member.node().stderr());
        let took = began.elapsed();
        let bytes = stats(&member)["bytes"]["log"].as_u64().unwrap_or_default();
        tell(&format!(
            "{}: a newcomer has {live} records after {:.1} s",
            self.way.name(),
            took.as_secs_f64()
        ));
        Snapshot { way: self.way, records: live, bytes, took }
    }
}

fn options(place: Ipv4Addr, port: u16) -> NodeOptions {
    NodeOptions::new().args(["--pool-listen", &format!("{place}:{port}"), "--threads", "1"])
}

fn stats(member: &Member) -> Value {
    member.get(&format!("{MEMORY}/stats"))
}

/// Waits until everything is indexed and embedded; gives how many records live.
fn settled(member: &Member) -> u64 {
    member.enter(settled_node)
}

fn settled_node(node: &Node) -> u64 {
    let stats = || node.client().get(&format!("{MEMORY}/stats")).expect(200);
    let (mut live, mut told) = (0, Instant::now());
    let calm = process::eventually(SNAPSHOT, || {
        let stats = stats();
        if told.elapsed() > Duration::from_secs(15) {
            told = Instant::now();
            tell(&format!("not indexed yet: {}, not embedded: {}", stats["overlay"], stats["pending"]));
        }
        live = stats["live"].as_u64().unwrap_or_default();
        let calm = stats["overlay"] == 0 && stats["pending"] == 0;
        if !calm {
            thread::sleep(Duration::from_millis(50));
        }
        calm
    });
    assert!(calm, "it does not come to rest: {}", stats());
    live
}

/// Recalls until the record is there: the time since its acknowledgement, and what each recall took.
fn look(client: &Client, id: &str, name: &str, since: Instant) -> (Duration, Vec<Duration>) {
    let request = json!({"query": format!("Where does {name} keep the spare key?"), "limit": 10});
    let mut each = Vec::new();
    loop {
        let began = Instant::now();
        let answer = client.post(&format!("{MEMORY}/recall"), &request).expect(200);
        each.push(began.elapsed());
        let items = answer["items"].as_array().expect("a list");
        if items.iter().any(|item| item["id"] == id) {
            return (since.elapsed(), each);
        }
        assert!(since.elapsed() < LOST, "{id} of {name} is not found: {answer}");
    }
}

/// A made-up name that stands in no other text.
fn name(number: usize) -> String {
    const PARTS: [&str; 16] = [
        "ba", "dor", "fi", "gan", "hul", "ke", "lom", "mi", "nar", "po", "qui", "ros", "su", "tev", "vu",
        "zan",
    ];
    let digits = (0..5).map(|place| PARTS[number >> (4 * place) & 15]);
    format!("Xo{}", digits.collect::<String>())
}

impl Report {
    /// Everything.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let snapshots: Vec<Value> = self.snapshots.iter().map(Snapshot::json).collect();
        json!({"embedder": self.embedder, "rows": rows, "snapshots": snapshots})
    }

    /// Tables.
    pub fn table(&self) -> String {
        let by = self.embedder.as_deref().unwrap_or("words alone");
        let mut text = format!(
            "By {by}.\n\n| way | records | found elsewhere p50 / p95 / p99 | p50 less one way | p95 / p50 | write \
             acknowledged p50 / p95 | one recall p50 |\n|---|---|---|---|---|---|---|\n"
        );
        for row in &self.rows {
            let (found, written) = (&row.found, &row.written);
            text += &format!(
                "| {} | {} | {:.1} / {:.1} / {:.1} ms | {:.1} ms | {:.2} | {:.1} / {:.1} ms | {:.1} ms |\n",
                row.way.name(),
                row.size,
                found.ms(0.5),
                found.ms(0.95),
                found.ms(0.99),
                found.ms(0.5) - row.way.delay(),
                found.ms(0.95) / found.ms(0.5),
                written.ms(0.5),
                written.ms(0.95),
                row.recall.ms(0.5)
            );
        }
        if !self.snapshots.is_empty() {
            text +=
                "\n| way | a newcomer's records | time | records per s | MB per s |\n|---|---|---|---|---|\n";
        }
        for row in &self.snapshots {
            let seconds = row.took.as_secs_f64();
            text += &format!(
                "| {} | {} | {seconds:.1} s | {:.0} | {:.1} |\n",
                row.way.name(),
                row.records,
                row.records as f64 / seconds,
                row.bytes as f64 / seconds / 1e6
            );
        }
        text
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({"way": self.way.name(), "delay_ms": self.way.delay(), "size": self.size, "found_ms": self.found.json(),
            "written_ms": self.written.json(), "recall_ms": self.recall.json()})
    }
}

impl Snapshot {
    fn json(&self) -> Value {
        json!({"way": self.way.name(), "records": self.records, "log_bytes": self.bytes,
            "seconds": self.took.as_secs_f64()})
    }
}

/// The folder with the embedder's files, where there is one.
pub fn embedder() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("POTLUCK_TEST_MINILM")?);
    bulk::FILES.iter().all(|file| folder.join(file).is_file()).then_some(folder)
}

/// Puts the embedder where a pull would put it.
fn place(model: &Path, home: &Path) {
    let folder = home.join("node/models/embedder");
    fs::create_dir_all(&folder).expect("a folder can be made");
    for file in bulk::FILES {
        fs::copy(model.join(file), folder.join(file)).expect("a file can be copied");
    }
}
