//! A server that runs already, as a provider: Ollama, llama-server, or anything else that speaks OpenAI's API.
//!
//! What it can do is what that API can carry. Text comes without token ids, so an answer that begins here can only
//! be said again from its start by another machine, and one that began elsewhere cannot be gone on with here. Nothing
//! is tried twice: the pool does that.

mod answer;
mod request;
mod sse;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Relaxed, Release},
        },
    },
    time::Duration,
};

use reqwest::{Client, Response, StatusCode, Url, header::RETRY_AFTER};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    load::{LoadSource, ModelLoad},
    provider::{BoxFuture, Offer, Provider},
};
use crate::job::{Job, JobError, Mode, Reply};

/// Longest list of models, and longest error, in bytes.
const MAX_BODY: usize = 4 << 20;
/// Most models.
const MAX_MODELS: usize = 512;
/// How long a list of models holds.
const REFRESH: Duration = Duration::from_secs(30);
/// Time for the list of models.
const LIST_TIME: Duration = Duration::from_secs(5);
/// How long a model is taken to be in the server's memory after it was used: Ollama keeps one for five minutes.
const WARM: Duration = Duration::from_secs(240);
/// How long the server may say nothing in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(300);

/// A server to share.
#[derive(Clone, PartialEq, Eq)]
pub struct ShareConfig {
    /// What this machine is called.
    pub node: String,
    /// Its address, with or without `/v1`.
    pub url: String,
    /// A key that it wants; `None`: none.
    pub key: Option<String>,
    /// Jobs it is given at the same time.
    pub slots: usize,
}

impl fmt::Debug for ShareConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, url, key, slots } = self;
        let key = key.as_ref().map(|_| "…");
        f.debug_struct("ShareConfig")
            .field("node", node)
            .field("url", url)
            .field("key", &key)
            .field("slots", slots)
            .finish()
    }
}

/// Why a server cannot be shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Not the address of a server.
    #[error("`{url}` is not the address of a server: {reason}; give one like http://localhost:11434")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no client.
    #[error("no HTTP client: {0}")]
    Client(String),
    /// It does not answer as expected.
    #[error("{url} does not list its models: {reason}; check that the server runs and speaks OpenAI's API")]
    Unanswered {
        /// The address asked.
        url: String,
        /// What came of it.
        reason: String,
    },
}

/// A shared server. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Share {
    inner: Arc<Inner>,
}

struct Inner {
    config: ShareConfig,
    base: Url,
    circle: Mode,
    client: Client,
    running: AtomicUsize,
    listed: Mutex<(Instant, Arc<Vec<Listed>>)>,
    asking: AtomicBool,
    used: Mutex<HashMap<String, Instant>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A model of the server.
#[derive(Clone, Debug, PartialEq)]
struct Listed {
    name: String,
    context: u64,
    /// The server has no others, so it is in memory.
    resident: bool,
}

/// A job that the server works on. Dropping it frees its place.
struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

impl Share {
    /// A provider over a server, which must be there.
    ///
    /// # Errors
    /// Any [`ShareError`].
    pub async fn bind(config: ShareConfig) -> Result<Self, ShareError> {
        let base = base(&config.url)?;
        let circle = if is_here(&base) { Mode::Local } else { Mode::Trusted };
        // Installed once per process; later calls find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(LIST_TIME)
            .read_timeout(SILENCE)
            .user_agent(concat!("potluck/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ShareError::Client(error.to_string()))?;
        let inner = Inner {
            config,
            base,
            circle,
            client,
            running: AtomicUsize::new(0),
            listed: Mutex::new((Instant::now(), Arc::default())),
            asking: AtomicBool::new(false),
            used: Mutex::new(HashMap::new()),
        };
        let share = Self { inner: Arc::new(inner) };
        let listed = share.inner.list().await?;
        *share.inner.listed() = (Instant::now(), Arc::new(listed));
        Ok(share)
    }
}

/// The address of the API, ending in `/v1/`.
fn base(url: &str) -> Result<Url, ShareError> {
    let wrong = |reason: String| ShareError::Address { url: url.chars().take(200).collect(), reason };
    let mut base = Url::parse(url.trim()).map_err(|error| wrong(error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(wrong("it must begin with http:// or https:// and name a host".into()));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(wrong("a key belongs into the configuration, not into the address".into()));
    }
    let path = base.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with("/v1") { path } else { format!("{path}/v1") };
    base.set_path(&format!("{path}/"));
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

/// Whether an address is on this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Inner {
    fn used(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, String> {
        let url = self.base.join(path).map_err(|error| error.to_string())?;
        let request = self.client.request(method, url);
        Ok(match &self.config.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }

    /// Asks for the models.
    async fn list(&self) -> Result<Vec<Listed>, ShareError> {
        let failed = |reason: String| ShareError::Unanswered { url: self.base.to_string(), reason };
        let ask = async {
            let request = self.request(reqwest::Method::GET, "models")?;
            let response = request.send().await.map_err(|error| plain_error(&error))?;
            let status = response.status();
            let body = body(response).await?;
            if !status.is_success() {
                return Err(format!("it answers {status}"));
            }
            serde_json::from_slice::<Value>(&body).map_err(|error| format!("its answer is no JSON: {error}"))
        };
        let answer = tokio::time::timeout(LIST_TIME, ask).await;
        let answer = answer.map_err(|_| failed("no answer within 5 s".into()))?.map_err(failed)?;
        let data = answer.get("data").and_then(Value::as_array);
        let data = data.ok_or_else(|| failed("its answer has no list of models".into()))?;
        Ok(data.iter().filter_map(listed).take(MAX_MODELS).collect())
    }

    fn listed(&self) -> MutexGuard<'_, (Instant, Arc<Vec<Listed>>)> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The models as they were last known; asks again behind the caller's back when that was a while ago.
    fn models(self: &Arc<Self>) -> Arc<Vec<Listed>> {
        let (at, models) = self.listed().clone();
        if at.elapsed() >= REFRESH && !self.asking.swap(true, AcqRel) {
            let this = self.clone();
            tokio::spawn(async move {
                let models = this.list().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the shared server");
                    Vec::new()
                });
                *this.listed() = (Instant::now(), Arc::new(models));
                this.asking.store(false, Release);
            });
        }
        models
    }

    /// A place for a job.
    fn place(self: &Arc<Self>) -> Result<Place, JobError> {
        let slots = self.config.slots.max(1);
        let taken = self.running.fetch_update(Relaxed, Relaxed, |n| (n < slots).then_some(n + 1));
        match taken {
            Ok(_) => Ok(Place(self.clone())),
            Err(queued) => Err(JobError::Busy { queued, retry_after: Duration::from_secs(1) }),
        }
    }

    async fn start(self: Arc<Self>, job: Job) -> Result<Reply, JobError> {
        if !job.resume.is_empty() {
            return Err(unable(
                "resume",
                "an answer that began elsewhere cannot be gone on with over OpenAI's API",
            ));
        }
        let models = self.models();
        let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_ascii_lowercase();
        let model = models.iter().find(|m| m.name == job.model);
        let model = model.or_else(|| models.iter().find(|m| plain(&m.name) == plain(&job.model)));
        let Some(model) = model else { return Err(JobError::ModelNotFound { model: job.model }) };
        let place = self.place()?;
        let (path, request) = request::of(&job, &model.name)?;
        let began = Instant::now();
        let asked =
            self.request(reqwest::Method::POST, path).map_err(|reason| JobError::Internal { reason })?;
        let response = asked.json(&request).send().await.map_err(|error| JobError::Internal {
            reason: format!("the shared server does not answer: {}", plain_error(&error)),
        })?;
        if !response.status().is_success() {
            return Err(refusal(response, &job).await);
        }
        let (events, reply) = Reply::channel(self.config.node.clone(), Mode::Local);
        let name = model.name.clone();
        tokio::spawn(async move {
            // A reader that goes away drops the connection, which is how these servers are told to stop.
            let talk = answer::pass(response, &job, began, &events);
            let outcome = tokio::select! {
                () = events.closed() => return,
                outcome = talk => outcome,
            };
            place.0.used().insert(name, Instant::now());
            drop(place);
            if let Err(error) = outcome {
                let _ = events.send(Err(error)).await;
            }
        });
        Ok(reply)
    }
}

fn listed(entry: &Value) -> Option<Listed> {
    let name = entry.get("id")?.as_str().filter(|name| !name.is_empty() && name.len() <= 512)?;
    let context = ["max_model_len", "context_length", "context_window"];
    let context = context.iter().find_map(|field| entry.get(field)?.as_u64()).unwrap_or(0);
    let owner = entry.get("owned_by").and_then(Value::as_str).unwrap_or_default();
    let resident = matches!(owner, "llamacpp" | "vllm" | "sglang");
    Some(Listed { name: name.to_owned(), context, resident })
}

/// A refusal that is about this server only; others may do better.
fn unable(field: &str, reason: &str) -> JobError {
    JobError::Invalid { field: field.into(), reason: reason.into() }
}

/// An error without the address, which is nobody's business.
fn plain_error(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words.push(error.to_string());
        source = error.source();
    }
    let kind = if error.is_timeout() {
        "it takes too long"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    words.insert(0, kind.into());
    words.join(": ").chars().take(300).collect()
}

/// A body of at most [`MAX_BODY`] bytes.
async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| plain_error(&error))? {
        if bytes.len() + chunk.len() > MAX_BODY {
            return Err("its answer is too long".into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What a status that is no success means.
async fn refusal(response: Response, job: &Job) -> JobError {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = tokio::time::timeout(LIST_TIME, body(response)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = answer.get("error").unwrap_or(&answer);
    let words = error.get("message").or(Some(error)).and_then(Value::as_str).unwrap_or_default();
    let words: String = words.chars().take(500).collect();
    let model = job.model.clone();
    match status {
        StatusCode::NOT_FOUND => JobError::ModelNotFound { model },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            JobError::Busy { queued: 0, retry_after: Duration::from_secs(wait.unwrap_or(1).min(600)) }
        }
        _ if is_too_long(error, &words) => answer::too_long(model, error, &words),
        _ if status.is_client_error()
            && status != StatusCode::UNAUTHORIZED
            && status != StatusCode::FORBIDDEN =>
        {
            unable("share", &format!("the shared server refuses the request ({status}): {words}"))
        }
        _ => JobError::Internal { reason: format!("the shared server answers {status}: {words}") },
    }
}

/// Whether an error says that the prompt does not fit.
fn is_too_long(error: &Value, words: &str) -> bool {
    let says = |field: &str, part: &str| {
        error.get(field).and_then(Value::as_str).is_some_and(|text| text.contains(part))
    };
    says("code", "context_length") || says("type", "exceed_context") || words.contains("context length")
}

impl Provider for Share {
    fn circle(&self) -> Mode {
        self.inner.circle
    }

    fn node(&self) -> &str {
        &self.inner.config.node
    }

    fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(async {
            let models = self.inner.models();
            models.iter().map(|m| Offer { model: m.name.clone(), context: m.context }).collect()
        })
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(self.inner.clone().start(job))
    }
}

impl LoadSource for Share {
    fn now(&self) -> BoxFuture<'_, Vec<ModelLoad>> {
        Box::pin(async {
            let models = self.inner.models();
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let running = count(self.inner.running.load(Relaxed));
            let slots = count(self.inner.config.slots.max(1));
            let mut used = self.inner.used();
            used.retain(|_, at| at.elapsed() < WARM);
            let load = |model: &Listed| ModelLoad {
                name: model.name.clone(),
                context: model.context,
                loaded: model.resident || used.contains_key(&model.name),
                resumes: false,
                slots,
                running,
                ..ModelLoad::default()
            };
            models.iter().map(load).collect()
        })
    }
}

#[cfg(test)]
mod tests;
