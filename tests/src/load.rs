//! Mixed load at a full queue: patient clients, impatient ones, rude ones and wrong ones, all at once.
//!
//! The same engine serves the suite's short run and the long one of the `soak` program.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    http::{Client, Response, Streaming, read_head},
    node::Node,
    process,
    random::Random,
};

/// How much load, for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients at once; more than the node takes and queues, so that the queue is full.
    pub clients: usize,
    /// Time of the load that counts.
    pub time: Duration,
    /// Time of the same load before memory is first measured; up to twice as long where it still grows.
    pub warm_up: Duration,
    /// Decides who does what.
    pub seed: u64,
    /// The model to ask.
    pub model: String,
    /// Its context, in tokens.
    pub context: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// How often each ending was seen, by what was asked and how it ended.
    pub endings: BTreeMap<String, u64>,
    /// Endings that must not be: answers that broke off, wrong shapes, wrong statuses.
    pub failures: Vec<String>,
    /// Resident bytes after the warm-up, idle.
    pub rss_before: u64,
    /// Resident bytes after the load, idle.
    pub rss_after: u64,
    /// Open descriptors after the warm-up and after the load.
    pub descriptors: (u64, u64),
    /// Threads after the warm-up and after the load.
    pub threads: (u64, u64),
    /// Requests that the node counts as running or waiting when nobody asks any more.
    pub stuck: u64,
    /// Time the load took.
    pub time: Duration,
}

impl Report {
    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.endings.values().sum()
    }

    /// Endings of this kind, whatever was asked.
    pub fn ended(&self, how: &str) -> u64 {
        self.endings.iter().filter(|(name, _)| name.ends_with(how)).map(|(_, count)| count).sum()
    }

    /// Change of resident memory in per cent.
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    pub fn growth(&self) -> f64 {
        (self.rss_after as f64 / self.rss_before as f64 - 1.0) * 100.0
    }

    /// By how many bytes resident memory may differ: 5 %, and in a run too short for the allocator's arenas to
    /// have found their size at least 4 MiB.
    fn allowed(&self) -> u64 {
        let share = self.rss_before / 20;
        if self.time < Duration::from_secs(300) { share.max(4 << 20) } else { share }
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        json!({
            "seconds": self.time.as_secs_f64(), "requests": self.requests(), "endings": self.endings,
            "failures": self.failures, "rss_before": self.rss_before, "rss_after": self.rss_after,
            "rss_growth_percent": self.growth(), "descriptors": self.descriptors, "threads": self.threads,
            "stuck": self.stuck,
        })
    }

    /// Everything that must hold and does not.
    pub fn complaints(&self) -> Vec<String> {
        let mut wrong = self.failures.clone();
        if self.stuck > 0 {
            wrong.push(format!("{} requests still run or wait after everyone left", self.stuck));
        }
        let (before, after) = (self.rss_before, self.rss_after);
        if after.abs_diff(before) > self.allowed() {
            let percent = self.growth();
            wrong.push(format!("resident memory went from {before} to {after} bytes: {percent:+.1} %"));
        }
        let (before, after) = self.descriptors;
        if after > before + 4 {
            wrong.push(format!("open descriptors went from {before} to {after}"));
        }
        for how in ["answer", "429", "aborted", "400", "404", "413"] {
            if self.ended(how) == 0 {
                wrong.push(format!("no request ended with `{how}`: the load is not what it should be"));
            }
        }
        wrong
    }
}

/// Running and waiting requests, as the node counts them.
pub fn in_flight(client: &Client) -> u64 {
    let status = client.get("/potluck/v1/status").expect(200);
    let number = |field: &str| {
        status.get(field).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number `{field}` in {status}"))
    };
    number("active") + number("queued")
}

/// Puts load on a node. Its queue must be small enough to fill.
pub fn run(node: &Node, plan: &Plan) -> Report {
    let client = node.client();
    let mut failures = Vec::new();
    let mut before = 0;
    // The same load until memory no longer grows by more than a little from round to round.
    for round in 0..6 {
        failures.extend(phase(&client, plan, plan.warm_up / 3, plan.seed + round).failures);
        settle(&client);
        let now = node.rss();
        if round > 1 && now < before + before / 50 {
            break;
        }
        before = now;
    }
    rest(&client);
    let rss_before = node.rss();
    let count = |what: fn(u32) -> Option<u64>| what(node.pid()).expect("the process can be looked at");
    let before = (count(process::descriptors), count(process::threads));

    let started = Instant::now();
    let mut tally = phase(&client, plan, plan.time, plan.seed ^ 0xfeed);
    let time = started.elapsed();
    let stuck = settle(&client);
    rest(&client);
    tally.failures.extend(failures);
    Report {
        endings: tally.endings,
        failures: tally.failures,
        rss_before,
        rss_after: node.rss(),
        descriptors: (before.0, count(process::descriptors)),
        threads: (before.1, count(process::threads)),
        stuck,
        time,
    }
}

/// Waits until the node is idle; what is still in flight after ten seconds is stuck.
fn settle(client: &Client) -> u64 {
    process::eventually(Duration::from_secs(10), || in_flight(client) == 0);
    let stuck = in_flight(client);
    // Closed sockets are noticed and buffers given back a moment later.
    thread::sleep(Duration::from_millis(500));
    stuck
}

/// Waits until threads that were started for a peak have gone home, which takes them ten seconds of idleness.
fn rest(client: &Client) {
    thread::sleep(Duration::from_secs(11));
    settle(client);
}

#[derive(Debug, Default)]
struct Tally {
    endings: BTreeMap<String, u64>,
    failures: Vec<String>,
}

fn phase(client: &Client, plan: &Plan, time: Duration, seed: u64) -> Tally {
    let tally = Mutex::new(Tally::default());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..plan.clients {
            let (tally, over) = (&tally, &over);
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(number as u64 * 7919));
                while !over.load(Ordering::Relaxed) {
                    let (asked, ended) = one(client, plan, &mut random);
                    let mut tally = tally.lock().expect("no client panics");
                    let ended = ended.unwrap_or_else(|why| {
                        if tally.failures.len() < 20 {
                            tally.failures.push(format!("{asked}: {why}"));
                        }
                        "failure".into()
                    });
                    let busy = ended == "429";
                    *tally.endings.entry(format!("{asked} → {ended}")).or_default() += 1;
                    drop(tally);
                    if busy {
                        // Even a client that does not wait as told gives others a turn.
                        thread::sleep(Duration::from_millis(50 + random.below(300) as u64));
                    }
                }
            });
        }
        thread::sleep(time);
        over.store(true, Ordering::Relaxed);
    });
    tally.into_inner().expect("no client panics")
}

/// One request by one client: what it was, and how it ended or why that is wrong.
fn one(client: &Client, plan: &Plan, random: &mut Random) -> (&'static str, Result<String, String>) {
    let tokens = 8 + random.below(plan.context / 4);
    let prompt = "tell me something ".repeat(1 + random.below(3));
    let chat = |stream: bool| {
        json!({
            "model": plan.model, "stream": stream, "max_tokens": tokens, "temperature": 1.0,
            "messages": [{ "role": "user", "content": prompt }],
        })
    };
    let text = |stream: bool| json!({ "model": plan.model, "stream": stream, "max_tokens": tokens, "prompt": prompt, "logprobs": 2 });
    let generate = json!({ "model": plan.model, "prompt": prompt, "options": { "num_predict": tokens } });
    match random.below(100) {
        0..20 => ("chat, streamed", stream_openai(client, "/v1/chat/completions", &chat(true))),
        20..36 => ("chat, whole", whole(client, "/v1/chat/completions", &chat(false), "choices")),
        36..44 => ("completion, streamed", stream_openai(client, "/v1/completions", &text(true))),
        44..50 => ("completion, whole", whole(client, "/v1/completions", &text(false), "choices")),
        50..60 => ("generate, streamed", stream_ollama(client, &generate)),
        60..65 => ("schema", whole(client, "/v1/chat/completions", &schema(plan), "choices")),
        65..80 => {
            let events = random.below(6);
            ("stream left", leave_stream(client, &chat(true), events))
        }
        80..86 => {
            let wait = Duration::from_millis(random.below(40) as u64);
            ("answer not awaited", leave_whole(client, &chat(false), wait))
        }
        86..89 => ("half a request", half_request(client, &chat(false))),
        89..92 => {
            let long = "too long ".repeat(plan.context * 2);
            let body = json!({ "model": plan.model, "prompt": long });
            ("too long", refused(client, "/v1/completions", body.to_string().as_bytes(), &[400]))
        }
        92..95 => ("not JSON", refused(client, "/v1/chat/completions", b"{\"model\": ", &[400])),
        95..98 => {
            let body = json!({ "model": "no-such-model", "prompt": "x" });
            ("unknown model", refused(client, "/v1/completions", body.to_string().as_bytes(), &[404]))
        }
        _ => ("huge body", huge(client, random.chance(70))),
    }
}

fn schema(plan: &Plan) -> Value {
    json!({
        "model": plan.model, "max_tokens": 64,
        "messages": [{ "role": "user", "content": "yes or no?" }],
        "response_format": { "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": {
            "type": "object", "properties": { "yes": { "type": "boolean" } }, "required": ["yes"],
            "additionalProperties": false,
        } } },
    })
}

/// A refusal's ending, or why it is no proper refusal.
fn refusal(response: &Response) -> Result<String, String> {
    let body: Value = serde_json::from_slice(&response.body).map_err(|_| {
        format!("status {} with a body that is not JSON: {}", response.status, response.text())
    })?;
    let error =
        body.get("error").ok_or_else(|| format!("status {} without `error`: {body}", response.status))?;
    let typed = error.get("type").and_then(Value::as_str).is_some() || error.is_string();
    if !typed {
        return Err(format!("status {} without a type: {body}", response.status));
    }
    if response.status == 429 && response.header("retry-after").and_then(|v| v.parse::<u32>().ok()).is_none()
    {
        return Err("429 without Retry-After in seconds".into());
    }
    match response.status {
        400..=499 => Ok(response.status.to_string()),
        status => Err(format!("status {status}: {body}")),
    }
}

fn opened(client: &Client, path: &str, body: &Value) -> Result<Result<Streaming, String>, String> {
    let answer = client.stream(path, body).map_err(|error| error.to_string())?;
    if answer.status == 200 {
        return Ok(Ok(answer));
    }
    let response = answer.rest().map_err(|error| format!("a refusal broke off: {error}"))?;
    refusal(&response).map(Err)
}

fn stream_openai(client: &Client, path: &str, body: &Value) -> Result<String, String> {
    let mut answer = match opened(client, path, body)? {
        Ok(answer) => answer,
        Err(refused) => return Ok(refused),
    };
    let mut finished = false;
    let mut done = false;
    while let Some(line) = answer.line().map_err(|error| format!("the stream broke off: {error}"))? {
        let Some(data) = line.strip_prefix("data:") else { continue };
        if data.trim() == "[DONE]" {
            done = true;
            continue;
        }
        let event: Value = serde_json::from_str(data).map_err(|error| format!("event {data:?}: {error}"))?;
        if event.get("error").is_some() {
            return Ok(format!("error event {}", event["error"]["type"]));
        }
        finished |= event["choices"][0]["finish_reason"].is_string();
    }
    match (finished, done) {
        (true, true) => Ok("answer".into()),
        _ => Err(format!("the stream ended without an end (finish reason {finished}, [DONE] {done})")),
    }
}

fn stream_ollama(client: &Client, body: &Value) -> Result<String, String> {
    let mut answer = match opened(client, "/api/generate", body)? {
        Ok(answer) => answer,
        Err(refused) => return Ok(refused),
    };
    let mut done = false;
    while let Some(line) = answer.line().map_err(|error| format!("the stream broke off: {error}"))? {
        if line.is_empty() {
            continue;
        }
        let event: Value = serde_json::from_str(&line).map_err(|error| format!("line {line:?}: {error}"))?;
        if event.get("error").is_some() {
            return Ok("error event".into());
        }
        done |= event["done"] == json!(true);
    }
    if done { Ok("answer".into()) } else { Err("the stream ended without `done`".into()) }
}

fn whole(client: &Client, path: &str, body: &Value, field: &str) -> Result<String, String> {
    let answer = client.stream(path, body).and_then(Streaming::rest).map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return refusal(&answer);
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    if body.get(field).is_some() { Ok("answer".into()) } else { Err(format!("no `{field}` in {body}")) }
}

fn leave_stream(client: &Client, body: &Value, events: usize) -> Result<String, String> {
    let mut answer = match opened(client, "/v1/chat/completions", body)? {
        Ok(answer) => answer,
        Err(refused) => return Ok(refused),
    };
    for _ in 0..events {
        if answer.event().map_err(|error| format!("the stream broke off: {error}"))?.is_none() {
            break;
        }
    }
    Ok("aborted".into())
}

fn leave_whole(client: &Client, body: &Value, wait: Duration) -> Result<String, String> {
    let body = body.to_string();
    let leave = || -> io::Result<()> {
        let mut socket = client.connect()?;
        let json = [("content-type", "application/json")];
        socket.write_all(client.head("POST", "/v1/chat/completions", &json, body.len()).as_bytes())?;
        socket.write_all(body.as_bytes())?;
        thread::sleep(wait);
        Ok(())
    };
    leave().map(|()| "aborted".into()).map_err(|error| error.to_string())
}

fn half_request(client: &Client, body: &Value) -> Result<String, String> {
    let body = body.to_string();
    let leave = || -> io::Result<()> {
        let mut socket = client.connect()?;
        let json = [("content-type", "application/json")];
        socket.write_all(client.head("POST", "/v1/chat/completions", &json, body.len()).as_bytes())?;
        socket.write_all(&body.as_bytes()[..body.len() / 2])?;
        Ok(())
    };
    leave().map(|()| "aborted".into()).map_err(|error| error.to_string())
}

fn refused(client: &Client, path: &str, body: &[u8], expected: &[u16]) -> Result<String, String> {
    let json = [("content-type", "application/json")];
    let answer = client.send("POST", path, &json, body).map_err(|error| error.to_string())?;
    let status = answer.status;
    if status != 429 && !expected.contains(&status) {
        return Err(format!("status {status} instead of {expected:?}: {}", answer.text()));
    }
    refusal(&answer)
}

/// Announces 200 MB and waits to be told to go on, as well-behaved clients do; some send 17 MiB at once.
fn huge(client: &Client, waits: bool) -> Result<String, String> {
    let ask = || -> io::Result<Response> {
        let mut socket = client.connect()?;
        let polite = [("content-type", "application/json"), ("expect", "100-continue")];
        let headers = if waits { &polite[..] } else { &polite[..1] };
        let size: usize = if waits { 200 << 20 } else { 17 << 20 };
        socket.write_all(client.head("POST", "/v1/chat/completions", headers, size).as_bytes())?;
        if !waits {
            let piece = vec![b' '; 64 << 10];
            for _ in 0..size / piece.len() {
                if socket.write_all(&piece).is_err() {
                    break;
                }
            }
        }
        read_head(socket)?.rest()
    };
    match ask() {
        Ok(answer) if answer.status == 413 => refusal(&answer),
        Ok(answer) => Err(format!("status {} instead of 413: {}", answer.status, answer.text())),
        // The refusal may be lost when the connection is reset over unread bytes.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Ok("reset".into())
        }
        Err(error) => Err(error.to_string()),
    }
}
