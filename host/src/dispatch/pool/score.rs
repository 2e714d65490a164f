//! Which machine is asked: a clear order, computed from what is reported and what was seen.
//!
//! Out from the start: a machine whose context cannot hold the job, and one that failed again and again lately. Of
//! the others the first is the one that surely fits before one that may, a healthy one before one of which nothing is
//! known before one that failed last before one that is paused for that, a loaded model before one that must be
//! loaded, and then the least expected time. Equal machines take turns.

use std::time::Duration;

use crate::{
    dispatch::{health::Seen, load::ModelLoad},
    identity::NodeId,
    job::{Input, Job},
};

/// Tokens that an answer is expected to have when nothing is said about it.
const USUAL_ANSWER: u64 = 256;
/// Time to load a model.
const LOADING: Duration = Duration::from_secs(10);
/// Tokens per second of a machine of which nothing is known.
const UNKNOWN_PREFILL: f64 = 100.0;
/// Tokens per second of an answer of a machine of which nothing is known.
const UNKNOWN_DECODE: f64 = 10.0;
/// What is believed of a speed that was never seen.
const BELIEVED: f64 = 0.5;
/// After so many failures in a row a machine that is paused is not asked even where it is the only one.
const HOPELESS: u32 = 4;
/// This machine is asked unless another is expected to answer in less than this part of its time.
const OWN_BONUS: f64 = 0.67;

/// How many tokens a job has, as far as that can be said without its model's tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// At least this many tokens of prompt.
    pub least: u64,
    /// At most this many, but for texts that are no language.
    pub most: u64,
    /// Tokens that the answer must have room for.
    pub answer: u64,
    /// Tokens the answer is expected to have.
    pub expected: u64,
}

impl Size {
    /// Of a job. A token has 2 to 8 bytes in nearly every text; what is resumed is counted exactly.
    pub fn of(job: &Job) -> Self {
        let (least, most) = match &job.input {
            Input::Tokens(ids) => (ids.len() as u64, ids.len() as u64),
            Input::Text { text, .. } => between(text.len(), 1),
            Input::Chat { messages, tools, .. } => {
                let extra =
                    |m: &crate::job::Message| m.extra.values().map(|v| v.to_string().len()).sum::<usize>();
                let said: usize = messages.iter().map(|m| m.content.len() + extra(m)).sum();
                let tools: usize = tools.iter().map(|tool| tool.to_string().len()).sum();
                between(said + tools, messages.len() + tools.min(64))
            }
        };
        let made = job.resume.len() as u64;
        let answer = u64::from(job.max_tokens.unwrap_or(1)).max(made);
        let expected =
            job.max_tokens.map_or(USUAL_ANSWER.max(made), u64::from).min(4 * USUAL_ANSWER.max(made));
        Self { least, most, answer, expected: expected.saturating_sub(made) }
    }

    /// The same job once a machine has counted its tokens: `needed` for prompt and answer.
    pub fn counted(self, needed: u64) -> Self {
        let prompt = needed.saturating_sub(self.answer);
        Self { least: self.least.max(prompt), most: self.most.max(prompt), ..self }
    }
}

fn between(bytes: usize, turns: usize) -> (u64, u64) {
    let (bytes, turns) = (bytes as u64, turns as u64);
    (bytes / 8, bytes / 2 + 16 * turns)
}

/// A machine that has the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The machine; `None`: this one.
    pub node: Option<NodeId>,
    /// What it is called.
    pub name: String,
    /// The way to it.
    pub path: String,
    /// What it says.
    pub load: ModelLoad,
    /// What was seen.
    pub seen: Seen,
}

/// Why a machine comes where it comes: compared field by field, the least first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Score {
    /// 0: its context surely holds the job; 1: it may.
    pub fit: u8,
    /// 0: a token came back lately; 1: nothing is known; 2: the last job failed; 3: and it is paused for that.
    pub health: u8,
    /// 0: the model is in memory; 1: it must be loaded.
    pub loading: u8,
    /// Expected time to the end of the answer, in seconds.
    pub seconds: f64,
}

/// The score of a candidate; `None`: it is never chosen for this job.
pub fn score(size: Size, candidate: &Candidate) -> Option<Score> {
    let Candidate { node, load, seen, .. } = candidate;
    if seen.open && seen.failures >= HOPELESS {
        return None;
    }
    let room = load.context;
    if room > 0 && size.least.saturating_add(size.answer).max(size.least + 1) > room {
        return None;
    }
    let fit = u8::from(room == 0 || size.most.saturating_add(size.answer) > room);
    let health = match (node, seen.healthy) {
        (None, _) => 0,
        _ if seen.open => 3,
        (_, Some(true)) => 0,
        (_, None) => 1,
        (_, Some(false)) => 2,
    };
    Some(Score { fit, health, loading: u8::from(!load.loaded), seconds: seconds(size, candidate) })
}

/// Expected time: waiting, loading, prompt, answer.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn seconds(size: Size, candidate: &Candidate) -> f64 {
    let Candidate { node, load, seen, .. } = candidate;
    let speed = |seen: Option<f64>, reported: f32, unknown: f64| {
        let claimed = f64::from(reported) * if node.is_some() { BELIEVED } else { 1.0 };
        seen.unwrap_or(if claimed > 0.0 { claimed } else { unknown }).max(1e-3)
    };
    let prefill = speed(seen.prefill, load.prefill, UNKNOWN_PREFILL);
    let decode = speed(seen.decode, load.decode, UNKNOWN_DECODE);
    // The middle of what the prompt may have.
    let prompt = (size.least + size.most) as f64 / 2.0;
    let own = prompt / prefill + size.expected as f64 / decode;
    // Jobs of ours may not be in the report yet.
    let there = (u64::from(load.running) + u64::from(load.queued)).max(u64::from(seen.in_flight));
    let slots = u64::from(load.slots.max(1));
    let rounds = ((there + 1).saturating_sub(slots) as f64 / slots as f64).max(0.0);
    let waiting = rounds * (USUAL_ANSWER as f64 / decode).max(own);
    // Answers beside it take from its speed, but not all.
    let beside = there.min(slots.saturating_sub(1)) as f64;
    let crowded = if seen.decode.is_some() { 1.0 } else { 1.0 + 0.5 * beside };
    let loading = if load.loaded { 0.0 } else { LOADING.as_secs_f64() };
    (waiting + loading + own * crowded) * if node.is_none() { OWN_BONUS } else { 1.0 }
}

/// The candidates that may be asked, best first. `turn` breaks ties.
pub fn rank(size: Size, candidates: Vec<Candidate>, turn: u64) -> Vec<(Score, Candidate)> {
    let scored = candidates.into_iter().filter_map(|c| score(size, &c).map(|score| (score, c)));
    let mut ranked: Vec<_> = scored.collect();
    ranked.sort_by(|(a, x), (b, y)| {
        // A tenth more or less is no difference: machines that are alike share the work.
        let rough = |score: &Score| {
            (score.fit, score.health, score.loading, (score.seconds.ln() * 10.0).round() as i64)
        };
        rough(a).cmp(&rough(b)).then_with(|| x.node.is_some().cmp(&y.node.is_some())).then_with(|| {
            let place = |c: &Candidate| c.node.map_or(0, |node| mix(node, turn));
            place(x).cmp(&place(y))
        })
    });
    ranked
}

/// A different order of machines for each turn.
fn mix(node: NodeId, turn: u64) -> u64 {
    let start = turn ^ 0x9e37_79b9_7f4a_7c15;
    node.0
        .iter()
        .fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> Size {
        Size { least: 100, most: 400, answer: 100, expected: 100 }
    }

    fn candidate(n: u8, change: impl FnOnce(&mut Candidate)) -> Candidate {
        let load = ModelLoad {
            name: "m".into(),
            context: 4096,
            loaded: true,
            slots: 4,
            prefill: 400.0,
            decode: 20.0,
            ..ModelLoad::default()
        };
        let mut candidate = Candidate {
            node: Some(NodeId([n; 32])),
            name: n.to_string(),
            path: String::new(),
            load,
            seen: Seen { healthy: Some(true), ..Seen::default() },
        };
        change(&mut candidate);
        candidate
    }

    fn order(candidates: Vec<Candidate>) -> Vec<String> {
        rank(size(), candidates, 0).into_iter().map(|(_, c)| c.name).collect()
    }

    #[test]
    fn who_cannot_fit_is_never_asked() {
        let all = vec![
            candidate(1, |c| c.load.context = 199),
            candidate(2, |c| (c.load.context, c.load.decode) = (300, 1000.0)),
            candidate(3, |c| c.load.context = 0),
            candidate(4, |_| {}),
        ];
        let order = order(all);
        assert_eq!(order[0], "4", "{order:?}");
        assert!(!order.contains(&"1".to_owned()) && order.len() == 3);
        let counted = size().counted(350);
        assert!(score(counted, &candidate(2, |c| c.load.context = 300)).is_none());
        assert!(score(counted, &candidate(2, |c| c.load.context = 350)).is_some());
    }

    #[test]
    fn health_goes_before_speed_and_memory_before_disk() {
        let all = vec![
            candidate(1, |c| (c.seen.healthy, c.load.decode) = (Some(false), 1000.0)),
            candidate(2, |c| (c.seen.healthy, c.load.decode) = (None, 1000.0)),
            candidate(3, |c| (c.load.loaded, c.load.decode) = (false, 1000.0)),
            candidate(4, |c| c.load.decode = 1.0),
            candidate(5, |c| (c.seen.open, c.seen.failures) = (true, HOPELESS)),
            candidate(6, |c| (c.seen.open, c.seen.failures) = (true, 1)),
        ];
        assert_eq!(order(all), ["4", "3", "2", "1", "6"]);
    }

    #[test]
    fn what_was_seen_outweighs_what_is_claimed() {
        let liar = candidate(1, |c| {
            (c.load.decode, c.load.prefill) = (1e6, 1e6);
            (c.seen.decode, c.seen.prefill) = (Some(2.0), Some(50.0));
        });
        let honest = candidate(2, |c| (c.seen.decode, c.seen.prefill) = (Some(20.0), Some(400.0)));
        assert_eq!(order(vec![liar, honest]), ["2", "1"]);
    }

    #[test]
    fn this_machine_is_asked_unless_it_is_busy() {
        let own = |running, queued| {
            candidate(0, |c| {
                c.node = None;
                (c.load.running, c.load.queued) = (running, queued);
            })
        };
        let peer = || candidate(1, |c| (c.seen.decode, c.seen.prefill) = (Some(22.0), Some(440.0)));
        assert_eq!(order(vec![peer(), own(0, 0)]), ["0", "1"]);
        assert_eq!(order(vec![peer(), own(4, 6)]), ["1", "0"]);
        let fast = candidate(2, |c| (c.seen.decode, c.seen.prefill) = (Some(200.0), Some(4000.0)));
        assert_eq!(order(vec![own(0, 0), fast]), ["2", "0"]);
    }

    #[test]
    fn equal_machines_take_turns() {
        let firsts: std::collections::HashSet<String> = (0..40)
            .map(|turn| rank(size(), vec![candidate(1, |_| {}), candidate(2, |_| {})], turn).remove(0).1.name)
            .collect();
        assert_eq!(firsts.len(), 2);
    }
}
