//! Jobs through the whole of inference, with a real model.

mod prompts;
mod resume;
mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::*;

use super::*;
use crate::job::{Event, FinishReason, Format, Input, Message};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn greedy_text_is_the_references() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text("");
    job.max_tokens = Some(256);
    let answer = node.submit(job).await.unwrap().collect().await.unwrap();
    let want = std::fs::read_to_string(data("models/greedy_256.txt").unwrap()).unwrap();
    assert_eq!(answer.text.trim_end(), want.trim_end());
    assert_eq!(answer.reason, FinishReason::Length);
    assert_eq!((answer.usage.prompt_tokens, answer.usage.completion_tokens), (1, 256));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_seed_gives_the_same_text_whatever_else_runs() {
    let Some(node) = stories(|_| {}).await else { return };
    let prompts = ["Once upon a time", "Lily", "The dog ran", "Tom had a"];
    let job = |i: usize| {
        let mut job = text(prompts[i % prompts.len()]);
        job.sampling.temperature = 0.9;
        job.sampling.seed = i as u64;
        job.max_tokens = Some(60 + 7 * i as u32);
        job
    };
    let mut alone = Vec::new();
    for i in 0..16 {
        alone.push(node.submit(job(i)).await.unwrap().collect().await.unwrap());
    }
    let together = (0..16).map(|i| {
        let (node, job) = (node.clone(), job(i));
        tokio::spawn(async move { node.submit(job).await.unwrap().collect().await.unwrap() })
    });
    for (i, task) in together.collect::<Vec<_>>().into_iter().enumerate() {
        let got = task.await.unwrap();
        assert_eq!(got.text, alone[i].text, "job {i}");
        assert_eq!(got.usage.completion_tokens, alone[i].usage.completion_tokens);
    }
    assert_ne!(alone[0].text, alone[4].text, "other seeds give other texts");
    let counters = node.counters();
    assert_eq!((counters.requests, counters.completed), (32, 32));
    assert_eq!(counters.loads, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_reply_frees_its_place() {
    let Some(node) = stories(|c| (c.parallel, c.max_queue) = (1, 0)).await else { return };
    let mut reply = node.submit(text("Once")).await.unwrap();
    assert!(matches!(reply.next().await, Some(Ok(Event::Text { .. }))));
    assert!(matches!(node.submit(text("x")).await, Err(JobError::Busy { .. })));
    drop(reply);
    let began = Instant::now();
    wait_until(|| node.counters().cancelled == 1).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let mut job = text("Once");
    job.max_tokens = Some(3);
    node.submit(job).await.unwrap().collect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn known_prefixes_are_not_computed_again() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text(&"Once upon a time there was a dog. ".repeat(12));
    job.max_tokens = Some(40);
    let first = node.submit(job.clone()).await.unwrap().collect().await.unwrap();
    let second = node.submit(job).await.unwrap().collect().await.unwrap();
    assert_eq!(first.usage.cached_tokens, 0);
    assert!(second.usage.cached_tokens >= 64, "{:?}", second.usage);
    assert_eq!(first.text, second.text);
    assert_eq!(node.counters().cached_tokens, u64::from(second.usage.cached_tokens));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_ends_before_its_stop_sequence() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text("");
    job.stop = vec!["zzz".into(), "named Li".into()];
    job.logprobs = Some(2);
    let answer = node.submit(job).await.unwrap().collect().await.unwrap();
    assert_eq!(answer.text, "Once upon a time, there was a little girl ");
    assert_eq!(answer.reason, FinishReason::Stop);
    let said: String = answer.logprobs.iter().map(|l| l.token.as_str()).collect();
    assert!(said.trim_start().starts_with("Once upon a time, there was a little girl"), "{said}");
    assert!(answer.logprobs.iter().all(|l| l.top.len() == 2 && l.logprob <= 0.0 && l.top[0].2 >= l.logprob));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn context_is_never_cut() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text("Once upon a time");
    job.max_tokens = Some(600);
    let refused = node.submit(job.clone()).await.unwrap_err();
    let JobError::ContextLengthExceeded { needed, available, .. } = refused else { panic!("{refused:?}") };
    assert!(available == 512 && needed > 600 && needed < 620, "{needed}");
    job.max_tokens = None;
    job.input = Input::Text { text: "dog ".repeat(100_000), special: false };
    let refused = node.submit(job.clone()).await.unwrap_err();
    assert!(matches!(refused, JobError::ContextLengthExceeded { needed, .. } if needed > 512), "{refused:?}");
    job.input = Input::Tokens(vec![300; 500]);
    job.sampling.logit_bias = vec![(2, -100.0), (1, -100.0)];
    let answer = node.submit(job).await.unwrap().collect().await.unwrap();
    assert_eq!((answer.reason, answer.usage.completion_tokens), (FinishReason::Length, 12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn schemas_are_kept() {
    let Some(node) = stories(|_| {}).await else { return };
    let schema = json!({
        "type": "object",
        "properties": {
            "kind": { "enum": ["cat", "dog"] },
            "tame": { "type": "boolean" },
            "legs": { "type": "integer", "minimum": 2, "maximum": 4 }
        },
        "required": ["kind", "tame", "legs"],
        "additionalProperties": false
    });
    let jobs = (0..6u64).map(|seed| {
        let mut job = text("Once");
        job.format = Format::JsonSchema(schema.clone());
        job.sampling.temperature = 1.0;
        job.sampling.seed = seed;
        let node = node.clone();
        tokio::spawn(async move { node.submit(job).await.unwrap().collect().await.unwrap() })
    });
    for task in jobs.collect::<Vec<_>>() {
        let answer = task.await.unwrap();
        assert_eq!(answer.reason, FinishReason::Stop, "{answer:?}");
        let value: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()), "{}", answer.text);
        assert!(value["tame"].is_boolean() && (2..=4).contains(&value["legs"].as_i64().unwrap()));
    }
    for bad in [json!(3), json!({"type": "no such type"}), json!({"pattern": "x".repeat(300_000)})] {
        let mut job = text("Once");
        job.format = Format::JsonSchema(bad);
        let refused = node.submit(job).await.unwrap_err();
        assert!(
            matches!(refused, JobError::Invalid { ref field, .. } if field == "response_format"),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn models_go_when_nobody_uses_them() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text("Once");
    job.max_tokens = Some(4);
    job.keep_alive = Some(KeepAlive::For(Duration::ZERO));
    let answer = node.submit(job.clone()).await.unwrap().collect().await.unwrap();
    assert!(answer.usage.load > Duration::ZERO);
    wait_until(|| node.loaded().is_empty()).await;
    job.keep_alive = Some(KeepAlive::Forever);
    node.submit(job).await.unwrap().collect().await.unwrap();
    assert_eq!(node.loaded()[0].expires_in, None);
    assert!(node.unload("stories260K-f32").await.unwrap());
    assert!(node.loaded().is_empty() && node.counters().loads == 2);
    assert!(!node.unload("stories260K-f32").await.unwrap());
    node.load("stories260K-f32", None).await.unwrap();
    assert_eq!(node.loaded().len(), 1);
    assert!(matches!(node.load("no-such-model", None).await, Err(JobError::ModelNotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_refuses_and_a_slow_reader_holds_nobody_up() {
    let Some(node) = stories(|c| (c.parallel, c.max_queue) = (2, 1)).await else { return };
    let slow = node.submit(text("Once")).await.unwrap();
    let mut quick = text("Lily");
    quick.max_tokens = Some(200);
    for _ in 0..2 {
        // The slow reader's buffer is full after 64 events; the other sequence goes on beside it.
        node.submit(quick.clone()).await.unwrap().collect().await.unwrap();
    }
    let other = node.submit(text("Tom")).await.unwrap();
    let waiting = node.submit(text("The")).await.unwrap();
    match node.submit(text("A")).await.unwrap_err() {
        JobError::Busy { retry_after, .. } => assert!(retry_after >= Duration::from_secs(1)),
        error => panic!("{error:?}"),
    }
    assert_eq!(node.counters().busy, 1);
    // Everything arrives once it is read.
    for reply in [slow, other, waiting] {
        assert!(reply.collect().await.unwrap().usage.completion_tokens > 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nonsense_is_refused_by_name() {
    let Some(node) = stories(|_| {}).await else { return };
    let mut job = text("Once");
    job.sampling.temperature = f32::NAN;
    let refused = node.submit(job).await.unwrap_err();
    assert!(matches!(refused, JobError::Invalid { ref field, .. } if field == "temperature"), "{refused:?}");
    let mut job = text("Once");
    job.input = Input::Tokens(vec![100_000]);
    assert!(matches!(node.submit(job).await, Err(JobError::Invalid { .. })));
    let mut job = text("Once");
    job.model = "nobody/nothing".into();
    assert!(matches!(node.submit(job).await, Err(JobError::ModelNotFound { .. })));
    let mut job = text("Once");
    job.input = Input::Chat { messages: Vec::new(), tools: Vec::new(), template_vars: Default::default() };
    assert!(matches!(node.submit(job).await, Err(JobError::Invalid { .. })));
    let details = node.show("stories260k").await.unwrap();
    assert_eq!((details.architecture.as_str(), details.context), ("llama", 512));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stopping_ends_everything_with_a_reason() {
    let Some(node) = stories(|c| c.parallel = 1).await else { return };
    let running = node.submit(text("Once")).await.unwrap();
    let waiting = node.submit(text("Tom")).await.unwrap();
    // Nobody reads: the running one cannot finish within the grace.
    node.shutdown(Duration::from_millis(50)).await;
    for reply in [running, waiting] {
        assert_eq!(reply.collect().await, Err(JobError::ShuttingDown));
    }
    assert_eq!(node.submit(text("A")).await.unwrap_err(), JobError::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sequences_that_lose_their_pages_come_back_to_the_same_text() {
    // 24 pages hold one context of 512 tokens and half of another; eight sequences want 48.
    let Some(node) = paged(24, 8, None).await else { return };
    let job = |seed: u64| {
        let mut job = text("Once upon a time there was");
        job.sampling.seed = seed;
        job.sampling.temperature = 1.0;
        job.max_tokens = Some(170);
        job
    };
    let mut alone = Vec::new();
    for seed in 0..8 {
        alone.push(node.submit(job(seed)).await.unwrap().collect().await.unwrap().text);
    }
    assert_eq!(node.counters().preempted, 0);
    let tasks = (0..8).map(|seed| {
        let (node, job) = (node.clone(), job(seed));
        tokio::spawn(async move { node.submit(job).await.unwrap().collect().await.unwrap() })
    });
    for (seed, task) in tasks.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = task.await.unwrap();
        assert_eq!(answer.text, alone[seed], "seed {seed}");
        assert_eq!(answer.usage.completion_tokens, 170);
    }
    assert!(node.counters().preempted > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_broken_engine_is_loaded_again() {
    let Some(node) = paged(64, 4, Some(30)).await else { return };
    let mut job = text("Once");
    job.max_tokens = Some(100);
    let failed = node.submit(job.clone()).await.unwrap().collect().await;
    assert!(
        matches!(failed, Err(JobError::Internal { ref reason }) if reason.contains("on purpose")),
        "{failed:?}"
    );
    job.max_tokens = Some(10);
    node.submit(job).await.unwrap().collect().await.unwrap();
    assert_eq!((node.counters().loads, node.counters().failed), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn models_make_room_for_each_other() {
    let Some(file) = data("models/stories260K-f32.gguf") else { return };
    let dir = tempfile::tempdir().unwrap();
    let copies: Vec<String> =
        ["a", "b", "c"].map(|name| dir.path().join(format!("{name}.gguf")).display().to_string()).into();
    for copy in &copies {
        std::fs::copy(&file, copy).unwrap();
    }
    let config = InferenceConfig {
        home: dir.path().join("home"),
        models: copies,
        device: Device::Cpu,
        threads: Some(1),
        caches: false,
        max_loaded: 2,
        ..InferenceConfig::default()
    };
    let node = Inference::bind(config).await.unwrap();
    for model in ["a", "b", "c", "a"] {
        let mut job = text("Once");
        (job.model, job.max_tokens) = (model.into(), Some(4));
        node.submit(job).await.unwrap().collect().await.unwrap();
    }
    let names: Vec<String> = node.loaded().into_iter().map(|m| m.entry.name).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(node.counters().loads, 4);
    let small = InferenceConfig {
        home: dir.path().join("home"),
        models: vec![file.display().to_string()],
        caches: false,
        memory_budget: Some(1000),
        ..InferenceConfig::default()
    };
    let node = Inference::bind(small).await.unwrap();
    assert!(matches!(node.submit(text("x")).await, Err(JobError::ModelUnusable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_built_in_model_answers_questions() {
    let config = InferenceConfig {
        home: tempfile::tempdir().unwrap().keep(),
        device: Device::Cpu,
        threads: Some(1),
        caches: false,
        ..InferenceConfig::default()
    };
    let node = Inference::bind(config).await.unwrap();
    assert_eq!(node.models().await.len(), 1);
    let mut job = text("");
    job.model = "Guide:latest".into();
    job.input = Input::Chat {
        messages: vec![Message {
            role: "user".into(),
            content: "How do I join a pool?".into(),
            extra: Default::default(),
        }],
        tools: Vec::new(),
        template_vars: Default::default(),
    };
    let answer = node.submit(job.clone()).await.unwrap().collect().await.unwrap();
    eprintln!("guide: {}", answer.text);
    assert!(answer.text.len() > 10 && answer.reason == FinishReason::Stop, "{answer:?}");
    assert_eq!(node.count(job).await.unwrap(), u64::from(answer.usage.prompt_tokens));
    assert!(matches!(node.remove("guide").await, Err(StoreError::NotOurs { .. })));
    assert_eq!(node.show("guide").await.unwrap().entry.origin, Origin::BuiltIn);
}
