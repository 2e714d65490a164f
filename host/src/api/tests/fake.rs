//! A desk that answers as the model's name says.

use std::time::Duration;

use crate::{
    api::*,
    inference::Origin,
    job::{Event, FinishReason, TokenLogprob, Usage},
};

const USAGE: Usage = Usage {
    prompt_tokens: 7,
    cached_tokens: 3,
    completion_tokens: 2,
    load: Duration::ZERO,
    prompt: Duration::from_millis(5),
    decode: Duration::from_millis(6),
    total: Duration::from_millis(11),
};

/// Answers "Hello" + " world", or fails as the model's name says.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) dropped: Arc<tokio::sync::Notify>,
    pub(super) jobs: std::sync::Mutex<Vec<Job>>,
    pub(super) embeds: std::sync::Mutex<Vec<EmbedRequest>>,
}

impl Fake {
    pub(super) fn last(&self) -> Job {
        self.jobs.lock().unwrap().last().unwrap().clone()
    }
}

fn entry(name: &str) -> ModelEntry {
    ModelEntry {
        name: name.into(),
        origin: Origin::Store,
        path: None,
        size: 9,
        digest: None,
        modified: 1_700_000_000,
    }
}

impl Desk for Fake {
    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(async move {
            self.jobs.lock().unwrap().push(job.clone());
            match job.model.as_str() {
                "busy" => return Err(JobError::Busy { queued: 5, retry_after: Duration::from_secs(3) }),
                "stopping" => return Err(JobError::ShuttingDown),
                "absent" => return Err(JobError::ModelNotFound { model: job.model }),
                _ if job.mode != Mode::Local => {
                    return Err(JobError::ModeUnavailable { mode: job.mode, reason: "no pool".into() });
                }
                _ => {}
            }
            let (sender, reply) = Reply::channel("node-1".into(), job.mode);
            let dropped = Arc::clone(&self.dropped);
            tokio::spawn(async move {
                let long = JobError::ContextLengthExceeded { model: "long".into(), needed: 9, available: 4 };
                if job.model == "slow" {
                    let first = Event::Text { text: "one".into(), logprobs: vec![], tokens: vec![] };
                    let _ = sender.send(Ok(first)).await;
                    sender.closed().await;
                    dropped.notify_one();
                    return;
                }
                if job.model == "long" {
                    let _ = sender.send(Err(long)).await;
                    return;
                }
                let parts = match job.model.as_str() {
                    "tool" => ["<tool_", "call>{\"name\":\"f\",\"arguments\":{\"x\":1}}</tool_call>"],
                    _ => ["Hello", " world"],
                };
                for part in parts {
                    let logprobs = match job.logprobs {
                        Some(_) => vec![TokenLogprob {
                            token: part.into(),
                            bytes: part.into(),
                            logprob: -0.5,
                            top: vec![("x".into(), b"x".to_vec(), f32::NEG_INFINITY)],
                        }],
                        None => vec![],
                    };
                    let event = Event::Text { text: part.into(), logprobs, tokens: vec![] };
                    let _ = sender.send(Ok(event)).await;
                    if job.model == "breaks" {
                        let _ = sender.send(Err(JobError::Internal { reason: "boom".into() })).await;
                        return;
                    }
                }
                let _ = sender.send(Ok(Event::Done { reason: FinishReason::Stop, usage: USAGE })).await;
            });
            Ok(reply)
        })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embedded, JobError>> {
        Box::pin(async move {
            let model = request.model.clone();
            match model.as_str() {
                "absent" => return Err(JobError::EmbedderMissing { model }),
                _ if request.mode != Mode::Local => {
                    return Err(JobError::ModeUnavailable { mode: request.mode, reason: "no pool".into() });
                }
                "long" if !request.truncate => {
                    return Err(JobError::ContextLengthExceeded { model, needed: 300, available: 256 });
                }
                _ => {}
            }
            let vectors: Vec<_> = request.texts.iter().map(|t| vec![t.len() as f32, 3.0, 4.0]).collect();
            let tokens = 5 * vectors.len() as u64;
            self.embeds.lock().unwrap().push(request);
            Ok(Embedded { model, dims: 3, vectors, tokens, cut: 0, load: Duration::from_millis(1) })
        })
    }

    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>> {
        Box::pin(async { vec![entry("a/b:Q8_0")] })
    }

    fn details(&self, model: String) -> BoxFuture<'_, Result<ModelDetails, StoreError>> {
        Box::pin(async move {
            if model == "absent" {
                return Err(StoreError::NotFound { name: model });
            }
            Ok(ModelDetails {
                entry: entry(&model),
                architecture: "llama".into(),
                parameters: 1_235_814_400,
                quantization: "Q8_0".into(),
                context: 64,
                embedding: 8,
                capabilities: vec!["completion".into()],
                template: (model != "bare").then(|| "{{ messages }}".into()),
                license: None,
                metadata: serde_json::Map::new(),
            })
        })
    }

    fn loaded(&self) -> BoxFuture<'_, Vec<LoadedModel>> {
        Box::pin(async { vec![] })
    }

    fn load(&self, _: String, _: Option<KeepAlive>) -> BoxFuture<'_, Result<(), JobError>> {
        Box::pin(async { Ok(()) })
    }

    fn unload(&self, _: String) -> BoxFuture<'_, Result<bool, JobError>> {
        Box::pin(async { Ok(true) })
    }

    fn remove(&self, model: String) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.details(model).await.map(drop) })
    }

    fn pull(&self, reference: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        let (sender, receiver) = mpsc::channel(8);
        let steps = [
            Ok(PullProgress::Resolving { reference: reference.into() }),
            Ok(PullProgress::Downloading {
                file: "f".into(),
                digest: Some("ab".repeat(32)),
                completed: 1,
                total: 2,
            }),
            match reference {
                "breaks" => Err(PullError::Stopped),
                _ => Ok(PullProgress::Success { name: reference.into() }),
            },
        ];
        for step in steps {
            sender.try_send(step).unwrap();
        }
        receiver
    }

    fn memory(&self) -> Option<&Memory> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn ready(&self) -> bool {
        true
    }
}
