//! Canaries: whether a token comes back, asked before a user has to.
//!
//! A machine whose report is fresh may still be unable to answer: its engine hangs, or the way to it carries small
//! packets only. So every model that matters (loaded there, or asked for lately) is asked for one token from time to
//! time, unless a real one came back lately. A probe never makes a machine load a model.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use potluck_kernels::sample::SamplingParams;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use uuid::Uuid;

use super::{
    health::{Blame, Measured},
    pool::{Pool, PoolProvider},
};
use crate::{
    identity::NodeId,
    job::{Event, Format, Input, Job, JobError, Mode, random_seed},
    mesh::{
        protocol::job::{
            PROTOCOL,
            call::{Call, CallError},
        },
        streams::OpenError,
    },
    pool::trusted::Admitted,
};

/// What a probe asks to continue.
const WORD: &str = "Hello";

/// When machines are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryConfig {
    /// How often it is looked which probes are due.
    pub look: Duration,
    /// Least time between a token and the next probe; at random up to twice as long.
    pub every: Duration,
    /// How long a probe may take.
    pub patience: Duration,
    /// How long a model that was asked for is of interest.
    pub interest: Duration,
    /// Probes at the same time.
    pub at_once: usize,
    /// Models of one machine that are probed.
    pub models: usize,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(2),
            every: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            interest: Duration::from_secs(600),
            at_once: 4,
            models: 8,
        }
    }
}

/// The probes of a pool. Dropping it ends them.
#[derive(Debug)]
pub struct Canary {
    tasks: JoinSet<()>,
}

impl Canary {
    /// Starts them. Must be called within a tokio runtime.
    pub fn bind(config: CanaryConfig, pool: &PoolProvider) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(run(config, pool.pool().clone()));
        Self { tasks }
    }

    /// Ends them.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A model of a machine.
type Pair = (NodeId, String);

async fn run(config: CanaryConfig, pool: Pool) {
    let pool = Arc::new(pool);
    let mut ticks = interval(config.look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due: HashMap<Pair, Instant> = HashMap::new();
    let mut probes: JoinSet<Pair> = JoinSet::new();
    let mut running: HashSet<Pair> = HashSet::new();
    loop {
        tokio::select! {
            Some(done) = probes.join_next(), if !probes.is_empty() => {
                match done {
                    Ok(pair) => drop(running.remove(&pair)),
                    // Whose probe broke off is not known; all are looked at again.
                    Err(_) => running.clear(),
                }
                continue;
            }
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        let wanted = interesting(config, &pool, now);
        due.retain(|pair, _| wanted.iter().any(|(member, model)| pair.0 == member.node && pair.1 == *model));
        for (member, model) in wanted {
            let pair = (member.node, model);
            let when = next(config, &pool, &member, &pair.1, now, &mut due);
            if now < when || running.len() >= config.at_once || running.contains(&pair) {
                continue;
            }
            due.insert(pair.clone(), now + spread(config.every));
            running.insert(pair.clone());
            let pool = pool.clone();
            probes.spawn(async move {
                probe(config, &pool, &member, &pair.1).await;
                pair
            });
        }
    }
}

/// At random from once to twice as long, so that machines that began together do not probe together.
fn spread(time: Duration) -> Duration {
    let part = f64::from(u16::try_from(random_seed() % 1000).unwrap_or(0)) / 1000.0;
    time.mul_f64(1.0 + part)
}

/// When a pair's next probe is due: long enough after its last token.
fn next(
    config: CanaryConfig,
    pool: &Pool,
    member: &Admitted,
    model: &str,
    now: Instant,
    due: &mut HashMap<Pair, Instant>,
) -> Instant {
    let planned = *due.entry((member.node, model.to_owned())).or_insert(now);
    let token = pool.health.last_token(member.node, model, &member.path);
    token.map_or(planned, |token| planned.max(token + config.every))
}

/// The models that matter, of machines that may be asked and are not paused.
fn interesting(config: CanaryConfig, pool: &Pool, now: Instant) -> Vec<(Admitted, String)> {
    let me = pool.membership.me();
    if !pool.membership.grants(me).is_some_and(|grants| grants.uses) {
        return Vec::new();
    }
    let admitted = pool.membership.watch().borrow().clone();
    let mut pairs = Vec::new();
    for member in admitted.iter().filter(|member| member.node != me && member.grants.serve) {
        let Some((report, _)) = pool.table.get(member.node, now) else { continue };
        let after = now.checked_sub(config.interest).unwrap_or(now);
        let mut models: Vec<_> = report.models.iter().filter(|model| model.loaded).collect();
        models.sort_by_key(|model| !pool.health.used_since(member.node, &model.name, after));
        for model in models.into_iter().take(config.models) {
            if !pool.health.seen(member.node, &model.name, &member.path, now).open {
                pairs.push((member.clone(), model.name.clone()));
            }
        }
    }
    pairs
}

/// One token of a model, asked of a machine directly.
fn one_token(model: &str) -> Job {
    Job {
        id: Uuid::now_v7(),
        model: model.to_owned(),
        mode: Mode::Local,
        input: Input::Text { text: WORD.into(), special: false },
        sampling: SamplingParams::greedy(),
        max_tokens: Some(1),
        stop: Vec::new(),
        format: Format::Text,
        logprobs: None,
        keep_alive: None,
        resume: Vec::new(),
        spend: Default::default(),
    }
}

/// How a probe failed, by layer.
enum Failed {
    Open(OpenError),
    Call(CallError),
    /// Accepted, but no token.
    Token(CallError),
    Slow,
}

async fn probe(config: CanaryConfig, pool: &Pool, member: &Admitted, model: &str) {
    let peer = member.node;
    pool.health.begin(peer, model, false, Instant::now());
    let outcome = timeout(config.patience, ask(pool, peer, &one_token(model), true, |_| ())).await;
    pool.health.end(peer, model);
    let (blame, why) = match outcome.unwrap_or(Err(Failed::Slow)) {
        Ok(first) => {
            pool.health.token(peer, model, &member.path, Instant::now());
            let measured = Measured { first, prompt_tokens: 0, tokens: 0, time: Duration::ZERO };
            pool.health.measured(peer, model, measured);
            return;
        }
        // A refusal says that the machine is well: it is busy, or has unloaded the model.
        Err(Failed::Call(CallError::Refused(error))) => {
            return tracing::debug!(%peer, model, %error, "a probe was refused");
        }
        Err(Failed::Open(error)) => (Blame::Machine, error.to_string()),
        Err(Failed::Call(error)) => (Blame::Machine, error.to_string()),
        Err(Failed::Token(error @ (CallError::Refused(_) | CallError::Stuck { .. }))) => {
            (Blame::Model, error.to_string())
        }
        Err(Failed::Token(error)) => (Blame::Machine, error.to_string()),
        Err(Failed::Slow) => (Blame::Model, format!("no token within {} s", config.patience.as_secs())),
    };
    tracing::warn!(%peer, member = member.name, model, why, "no token comes back");
    let jitter = f64::from(u8::try_from(random_seed() % 256).unwrap_or(0)) / 255.0;
    pool.health.failed(peer, model, blame, &why, jitter, Instant::now());
}

/// A place on the way to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Opened,
    Accepted,
}

/// Asks for a job and waits for its first text or its end. Returns the time from acceptance.
async fn ask(
    pool: &Pool,
    peer: NodeId,
    job: &Job,
    probe: bool,
    mut reached: impl FnMut(Reached),
) -> Result<Duration, Failed> {
    let stream = pool.streams.open(peer, PROTOCOL).await.map_err(Failed::Open)?;
    reached(Reached::Opened);
    let mut call = Call::begin(stream, job, probe, pool.config.timers).await.map_err(Failed::Call)?;
    reached(Reached::Accepted);
    // A first token that ends the answer, or is half a character, has no text.
    call.next().await.map_err(Failed::Token)?;
    let first = call.elapsed();
    // Read to the end, so that the other side does not count it as given up.
    while !matches!(call.next().await, Ok(Event::Done { .. }) | Err(_)) {}
    Ok(first)
}

/// A layer on the way to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Both sides hold each other's papers.
    Roster,
    /// The machine can be connected to.
    Reachability,
    /// The connection carries the protocol.
    Tunnel,
    /// The machine takes a job for the model.
    Model,
    /// A token comes back.
    Token,
}

/// What was found about a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The layer.
    pub layer: Layer,
    /// In words: what is well, or what is wrong and what to do.
    pub outcome: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// Looks at every layer between here and a token of another machine, up to the first that fails. With no model named
/// it takes one that the machine has loaded, else any that it has. Unlike a probe this may load the model.
pub async fn diagnose(
    pool: &PoolProvider,
    peer: NodeId,
    model: Option<&str>,
    patience: Duration,
) -> Vec<Step> {
    let pool = pool.pool();
    let mut steps = Vec::new();
    let began = Instant::now();
    let member = pool.membership.watch().borrow().iter().find(|member| member.node == peer).cloned();
    let roster = roster(pool, member.as_ref());
    let failed = roster.is_err();
    steps.push(Step { layer: Layer::Roster, outcome: roster, took: began.elapsed() });
    if failed {
        return steps;
    }
    let report = pool.table.get(peer, Instant::now());
    let loaded = report.as_ref().and_then(|(report, _)| {
        let models = &report.models;
        models.iter().find(|model| model.loaded).or(models.first()).map(|model| model.name.clone())
    });
    let named = model.map(str::to_owned).or(loaded).unwrap_or_default();
    let mut at = Instant::now();
    let mut marks = Vec::new();
    let job = one_token(&named);
    let asked = ask(pool, peer, &job, false, |reached| {
        marks.push((reached, at.elapsed()));
        at = Instant::now();
    });
    let outcome = timeout(patience, asked).await.unwrap_or(Err(Failed::Slow));
    let took = at.elapsed();
    explain(&mut steps, &marks, outcome, took, &Case { named: &named, member, age: report.map(|r| r.1) });
    steps
}

fn roster(pool: &Pool, member: Option<&Admitted>) -> Result<String, String> {
    let Some(member) = member else {
        return Err(
            "it is not admitted now: it is no member, is revoked, or was not connected since its papers \
                    changed; `potluck pool members` lists who is"
                .into(),
        );
    };
    if !member.grants.serve {
        return Err("it may not serve; whoever invited it can grant that".into());
    }
    if !pool.membership.grants(pool.membership.me()).is_some_and(|grants| grants.uses) {
        return Err("this machine may not have its jobs answered by others".into());
    }
    Ok(format!("{} is a member and may serve", member.name))
}

/// What a diagnosis is about.
struct Case<'a> {
    named: &'a str,
    member: Option<Admitted>,
    /// Age of the last load report that holds.
    age: Option<Duration>,
}

/// Puts what happened into words, layer by layer.
fn explain(
    steps: &mut Vec<Step>,
    marks: &[(Reached, Duration)],
    outcome: Result<Duration, Failed>,
    took: Duration,
    case: &Case<'_>,
) {
    let mut add = |layer, outcome, took| steps.push(Step { layer, outcome, took });
    let time = |wanted| marks.iter().find(|(reached, _)| *reached == wanted).map(|(_, took)| *took);
    let path = case.member.as_ref().map_or("", |member| member.path.as_str());
    let Some(opened) = time(Reached::Opened) else {
        let (layer, why) = match outcome {
            Err(Failed::Open(error @ OpenError::Refused { .. })) => (Layer::Tunnel, error.to_string()),
            Err(Failed::Open(error)) => (Layer::Reachability, error.to_string()),
            _ => (Layer::Reachability, "no connection within the time given".into()),
        };
        if layer == Layer::Tunnel {
            add(Layer::Reachability, Ok(format!("connected: {path}")), took);
        }
        return add(layer, Err(why), took);
    };
    add(Layer::Reachability, Ok(format!("connected: {path}")), opened);
    let reports = match case.age {
        Some(age) => format!("its last load report is {} ms old", age.as_millis()),
        None => "but no load report came lately, so it is not chosen by itself".into(),
    };
    let well = || Ok(format!("it speaks the protocol; {reports}"));
    let Some(accepted) = time(Reached::Accepted) else {
        match outcome {
            Err(Failed::Call(CallError::Refused(error))) => {
                add(Layer::Tunnel, well(), took);
                add(Layer::Model, Err(model_words(&error, case.named)), took);
            }
            Err(Failed::Call(error)) => {
                let why = format!(
                    "the connection is there but carries nothing: {error}; a firewall or a VPN that drops large packets does that"
                );
                add(Layer::Tunnel, Err(why), took);
            }
            _ => {
                add(Layer::Tunnel, well(), took);
                let why = format!("`{}` was not ready within the time given; it may be loading", case.named);
                add(Layer::Model, Err(why), took);
            }
        }
        return;
    };
    add(Layer::Tunnel, well(), Duration::ZERO);
    add(Layer::Model, Ok(format!("it takes jobs for `{}`", case.named)), accepted);
    let token = match outcome {
        Ok(first) => Ok(format!("a token came back after {} ms", first.as_millis())),
        Err(Failed::Token(error) | Failed::Call(error)) => Err(format!("no token came back: {error}")),
        Err(_) => Err("no token came back within the time given: its engine hangs or is far behind".into()),
    };
    add(Layer::Token, token, took);
}

fn model_words(error: &JobError, named: &str) -> String {
    if named.is_empty() {
        return "it reports no model; pull one there with `potluck pull`".into();
    }
    format!("it does not take the job: {error}")
}

#[cfg(test)]
mod tests;
