//! Answers that are broken off and go on elsewhere: nobody may see the seam.

use serde_json::json;

use super::support::*;
use crate::{
    inference::Inference,
    job::{Answer, Event, FinishReason, Format, Input, Job, JobError, TokenLogprob},
};

/// What a caller has of an answer after each event.
async fn steps(node: &Inference, job: &Job) -> (Vec<Answer>, Answer) {
    let mut reply = node.submit(job.clone()).await.unwrap();
    let mut so_far = vec![Answer::default()];
    loop {
        let mut next = so_far.last().unwrap().clone();
        match reply.next().await.unwrap().unwrap() {
            Event::Text { text, logprobs, tokens } => {
                next.text.push_str(&text);
                next.logprobs.extend(logprobs);
                next.tokens.extend(tokens);
                so_far.push(next);
            }
            Event::Done { reason, usage } => {
                (next.reason, next.usage) = (reason, usage);
                return (so_far, next);
            }
        }
    }
}

/// Continues an answer somewhere else and puts the two together.
async fn resumed(node: &Inference, job: &Job, have: &Answer) -> Answer {
    let job = Job { resume: have.tokens.clone(), ..job.clone() };
    let rest = node.submit(job).await.unwrap().collect().await.unwrap();
    assert!(rest.text.starts_with(&have.text), "{:?} does not begin with {:?}", rest.text, have.text);
    Answer {
        tokens: [have.tokens.clone(), rest.tokens].concat(),
        logprobs: [have.logprobs.clone(), rest.logprobs].concat(),
        ..rest
    }
}

fn same(name: &str, cut: usize, whole: &Answer, joined: &Answer) {
    assert_eq!(joined.text, whole.text, "{name}, cut at {cut}");
    assert_eq!(joined.tokens, whole.tokens, "{name}, cut at {cut}");
    assert_eq!(joined.reason, whole.reason, "{name}, cut at {cut}");
    assert_eq!(joined.usage.completion_tokens, whole.usage.completion_tokens, "{name}, cut at {cut}");
    assert_eq!(joined.usage.prompt_tokens, whole.usage.prompt_tokens, "{name}, cut at {cut}");
    // Of likelihoods the last digits depend on how many tokens a step has.
    let said = |l: &TokenLogprob| (l.token.clone(), l.top.iter().map(|t| t.0.clone()).collect::<Vec<_>>());
    assert_eq!(joined.logprobs.len(), whole.logprobs.len(), "{name}, cut at {cut}");
    for (a, b) in joined.logprobs.iter().zip(&whole.logprobs) {
        assert_eq!(said(a), said(b), "{name}, cut at {cut}");
        assert!((a.logprob - b.logprob).abs() < 1e-3, "{name}, cut at {cut}: {} {}", a.logprob, b.logprob);
    }
}

fn jobs() -> Vec<(&'static str, Job)> {
    let job = |change: fn(&mut Job)| {
        let mut job = text("Once upon a time");
        job.max_tokens = Some(28);
        change(&mut job);
        job
    };
    vec![
        ("greedy", job(|_| {})),
        (
            "seeded",
            job(|j| {
                j.sampling.temperature = 1.1;
                j.sampling.top_p = 0.95;
                j.sampling.seed = 7;
            }),
        ),
        (
            "penalties",
            job(|j| {
                j.sampling.temperature = 0.8;
                j.sampling.seed = 3;
                j.sampling.repeat_penalty = 1.3;
                j.sampling.presence_penalty = 0.7;
                j.sampling.frequency_penalty = 0.4;
            }),
        ),
        // The first is met, the others hold text back that is said after all.
        (
            "stop sequences",
            job(|j| {
                j.input = Input::Text { text: String::new(), special: false };
                j.stop = vec!["named Li".into(), "time. ".into(), "little boy".into(), "a timid".into()];
                j.logprobs = Some(2);
            }),
        ),
        // Ends with text that was held back.
        (
            "held to the end",
            job(|j| {
                j.input = Input::Text { text: String::new(), special: false };
                j.stop = vec![" girl named Lilith".into(), "upon a time, there was a big".into()];
                j.max_tokens = Some(16);
            }),
        ),
        ("log-probabilities", job(|j| j.logprobs = Some(3))),
        (
            "a schema",
            job(|j| {
                let fields = json!({"kind": {"enum": ["cat", "dog"]}, "legs": {"type": "integer", "minimum": 2, "maximum": 4}});
                let schema = json!({"type": "object", "properties": fields, "required": ["kind", "legs"], "additionalProperties": false});
                j.format = Format::JsonSchema(schema);
                j.sampling.temperature = 1.0;
                j.sampling.seed = 5;
                j.max_tokens = None;
            }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_answer_is_the_undisturbed_one() {
    let Some(first) = stories(|_| {}).await else { return };
    // Another node with other habits: no prefix in its cache, other sizes.
    let Some(second) = stories(|c| (c.parallel, c.threads) = (2, Some(2))).await else { return };
    for (name, job) in jobs() {
        let (so_far, whole) = steps(&first, &job).await;
        assert!(so_far.len() > 4, "{name}: {whole:?}");
        for (cut, have) in so_far.iter().enumerate() {
            same(name, cut, &whole, &resumed(&second, &job, have).await);
        }
        // Wherever the ids are cut, whatever was said with them.
        for cut in 0..=whole.tokens.len() {
            let have = Answer {
                tokens: whole.tokens[..cut].to_vec(),
                logprobs: whole.logprobs.iter().take(cut).cloned().collect(),
                ..Answer::default()
            };
            same(name, cut, &whole, &resumed(&first, &job, &have).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn characters_are_not_split_by_a_seam() {
    // Its logits are noise: bytes that are half of a character come often.
    let Some(node) = paged(64, 4, None).await else { return };
    let mut job = text("Once");
    job.max_tokens = Some(120);
    job.sampling.temperature = 3.0;
    let (so_far, whole) = steps(&node, &job).await;
    assert!(whole.text.contains('\u{fffd}'), "{}", whole.text);
    for (cut, have) in so_far.iter().enumerate() {
        same("bytes", cut, &whole, &resumed(&node, &job, have).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_had_ended_ends_at_once() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text("Once upon a time");
    job.max_tokens = Some(5);
    let whole = node.submit(job.clone()).await.unwrap().collect().await.unwrap();
    let before = node.counters();
    let joined = resumed(&node, &job, &whole).await;
    assert_eq!((joined.text, joined.reason), (whole.text.clone(), FinishReason::Length));
    assert_eq!(node.counters().steps, before.steps, "nothing was computed");
    assert_eq!(node.counters().completion_tokens, before.completion_tokens);
    job.resume = vec![300; 6];
    let refused = node.submit(job.clone()).await.unwrap_err();
    assert!(matches!(refused, JobError::Invalid { ref field, .. } if field == "resume"), "{refused:?}");
    job.resume = vec![100_000];
    assert!(matches!(node.submit(job.clone()).await, Err(JobError::Invalid { .. })));
    (job.resume, job.max_tokens) = (vec![300; 600], None);
    assert!(matches!(node.submit(job.clone()).await, Err(JobError::ContextLengthExceeded { .. })));
    (job.resume, job.format) = (whole.tokens, Format::JsonObject);
    assert!(matches!(node.submit(job).await, Err(JobError::Invalid { .. })));
}
