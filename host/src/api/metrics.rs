//! Counters and gauges in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Api, time::unix_now};
use crate::{
    job::{Mode, Usage},
    policy::Standing,
};

/// What the surfaces have counted since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    jobs: [AtomicU64; 3],
    refused: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    prompt_micros: AtomicU64,
    decode_micros: AtomicU64,
    responses: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Metrics {
    pub(super) fn submitted(&self, mode: Mode) {
        let [local, trusted, public] = &self.jobs;
        match mode {
            Mode::Local => local,
            Mode::Trusted => trusted,
            Mode::Public => public,
        }
        .fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(super) fn finished(&self, usage: &Usage) {
        self.finished.fetch_add(1, Relaxed);
        self.prompt_tokens.fetch_add(usage.prompt_tokens.into(), Relaxed);
        self.cached_tokens.fetch_add(usage.cached_tokens.into(), Relaxed);
        self.completion_tokens.fetch_add(usage.completion_tokens.into(), Relaxed);
        self.prompt_micros.fetch_add(micros(usage.prompt), Relaxed);
        self.decode_micros.fetch_add(micros(usage.decode), Relaxed);
    }

    pub(super) fn responded(&self, path: &str, status: StatusCode) {
        let surface = match path {
            _ if path.starts_with("/v1/") => "openai",
            _ if path.starts_with("/api/") => "ollama",
            _ if path.starts_with("/potluck/v1/memory") => "memory",
            _ if path.starts_with("/potluck/") => "admin",
            "/mcp" => "mcp",
            _ => "other",
        };
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry((surface, status.as_u16())).or_default() += 1;
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// `GET /metrics`
pub(super) async fn render(State(api): State<Api>) -> Response {
    let loaded = api.desk.loaded().await;
    let metrics = &api.metrics;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP potluck_{name} {help}\n# TYPE potluck_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "potluck_{name}{labels} {value}");
        }
    };
    let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
    let one = |value: f64| vec![(String::new(), value)];
    let jobs: Vec<_> = ["local", "trusted", "public"]
        .iter()
        .zip(&metrics.jobs)
        .map(|(mode, counter)| (format!("{{mode=\"{mode}\"}}"), count(counter)))
        .collect();
    family("jobs_total", "counter", "Jobs submitted.", &jobs);
    family("jobs_refused_total", "counter", "Jobs refused before they began.", &one(count(&metrics.refused)));
    family("jobs_failed_total", "counter", "Jobs that broke off.", &one(count(&metrics.failed)));
    family("jobs_finished_total", "counter", "Jobs answered to the end.", &one(count(&metrics.finished)));
    family(
        "prompt_tokens_total",
        "counter",
        "Prompt tokens of finished jobs.",
        &one(count(&metrics.prompt_tokens)),
    );
    family(
        "cached_tokens_total",
        "counter",
        "Prompt tokens found in the prefix cache.",
        &one(count(&metrics.cached_tokens)),
    );
    family("completion_tokens_total", "counter", "Tokens produced.", &one(count(&metrics.completion_tokens)));
    family(
        "prompt_seconds_total",
        "counter",
        "Time spent on prompts.",
        &one(count(&metrics.prompt_micros) / 1e6),
    );
    family(
        "decode_seconds_total",
        "counter",
        "Time spent producing.",
        &one(count(&metrics.decode_micros) / 1e6),
    );
    let responses: Vec<_> = metrics
        .responses
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|((surface, status), n)| (format!("{{surface=\"{surface}\",status=\"{status}\"}}"), *n as f64))
        .collect();
    family("http_responses_total", "counter", "HTTP responses.", &responses);
    let of = |value: fn(&crate::inference::LoadedModel) -> f64| -> Vec<_> {
        loaded
            .iter()
            .map(|model| (format!("{{model=\"{}\"}}", escape(&model.entry.name)), value(model)))
            .collect()
    };
    family("model_active", "gauge", "Requests being answered.", &of(|m| m.active as f64));
    family("model_queued", "gauge", "Requests waiting.", &of(|m| m.queued as f64));
    family("model_weights_bytes", "gauge", "Bytes of weights in memory.", &of(|m| m.weights_bytes as f64));
    family("model_cache_bytes", "gauge", "Bytes of KV cache.", &of(|m| m.cache_bytes as f64));
    let counters = api.desk.counters();
    for (name, help, value) in [
        ("engine_steps_total", "Steps the engines have made.", counters.steps),
        ("engine_cancelled_total", "Jobs whose caller went away.", counters.cancelled),
        ("engine_busy_total", "Jobs refused because the queue was full.", counters.busy),
        ("engine_preempted_total", "Sequences whose cache was taken for another.", counters.preempted),
        ("engine_loads_total", "Models loaded.", counters.loads),
    ] {
        family(name, "counter", help, &one(value as f64));
    }
    let policies = api.desk.pool().map(|pool| pool.policies().standing()).unwrap_or_default();
    let of = |value: fn(&Standing) -> f64| -> Vec<_> {
        policies.iter().map(|policy| (policy_labels(policy, ""), value(policy))).collect()
    };
    family(
        "policy_calls_total",
        "counter",
        "Questions that policies were asked.",
        &of(|p| p.reading.calls as f64),
    );
    let failures = of(|p| p.reading.failures() as f64);
    family("policy_failures_total", "counter", "Questions that a policy failed to answer.", &failures);
    family("policy_fuel_total", "counter", "Fuel of all answers.", &of(|p| p.reading.fuel as f64));
    let aside = of(|p| f64::from(u8::from(p.aside)));
    family("policy_set_aside", "gauge", "Whether a policy failed too often and is asked no more.", &aside);
    let quantile = |policy: &Standing, at: &str, nanos: Option<u64>| {
        Some((policy_labels(policy, &format!(",quantile=\"{at}\"")), nanos? as f64 / 1e9))
    };
    let times: Vec<_> = policies
        .iter()
        .flat_map(|p| [quantile(p, "0.5", p.reading.p50_nanos), quantile(p, "0.99", p.reading.p99_nanos)])
        .flatten()
        .collect();
    family("policy_seconds", "gauge", "How long a question takes.", &times);
    let uptime = unix_now().saturating_sub(api.settings.since);
    family("uptime_seconds", "gauge", "Time since the start.", &one(uptime as f64));
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    family("build_info", "gauge", "The program's version.", &[(version, 1.0)]);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn policy_labels(policy: &Standing, more: &str) -> String {
    let hash = policy.hash.to_string();
    let hash = hash.get(..12).unwrap_or_default();
    format!("{{kind=\"{}\",policy=\"{}\",hash=\"{hash}\"{more}}}", policy.kind, escape(&policy.name))
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
