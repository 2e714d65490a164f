//! `potluck bench`

mod embed;

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    CliError, Context,
    client::{Client, Session},
    output, print, print_line,
};
use crate::job::random_seed;

/// Measure a model's speed: tokens per second on a prompt, and while answering; of an embedding model the time of
/// one question and the speed on many texts.
///
/// Prompts are random tokens, different in every run, so that no run finds another's prefix in the cache.
/// Times are taken by the client: the prompt's until the first token arrives, the answer's from there on.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck bench guide\n  potluck bench embedder\n  potluck bench my-model --runs 7 --prompt-tokens 1024 --json"
)]
pub(super) struct Bench {
    /// The model.
    model: String,
    /// Measured runs; one more is made before them to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Tokens of the prompt (less where the model's context is smaller).
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: u32,
    /// Tokens of the answer.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=100_000))]
    tokens: u32,
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Sample {
    first: Duration,
    prefill: f64,
    decode: f64,
}

impl Bench {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let session = Session::open(&context, Some(&self.model)).await?;
        let outcome = tokio::select! {
            outcome = self.measure(&session.client, context.json) => outcome,
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        };
        session.close().await;
        outcome
    }

    async fn measure(&self, client: &Client, json: bool) -> Result<(), CliError> {
        let details = client.details(&self.model).await?;
        let embeds = |v: &Value| v.as_array().is_some_and(|list| list.iter().any(|word| word == "embedding"));
        if details.get("capabilities").is_some_and(embeds) {
            return embed::measure(client, &self.model, self.runs, json).await;
        }
        let size = details.get("size").and_then(Value::as_u64).unwrap_or_default();
        let room = details.get("context").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let prompt = u64::from(self.prompt_tokens).min((room / 2).max(1));
        let tokens = u64::from(self.tokens).min((room.saturating_sub(prompt)).max(8));
        let ends = end_tokens(&details);
        let mut samples = Vec::new();
        for run in 0..=self.runs {
            let sample = self.once(client, prompt, tokens, &ends).await?;
            // The first run loads the model.
            if run > 0 {
                samples.push(sample);
            }
        }
        let prefill = spread(samples.iter().map(|sample| sample.prefill));
        let decode = spread(samples.iter().map(|sample| sample.decode));
        let first = spread(samples.iter().map(|sample| sample.first.as_secs_f64() * 1e3));
        let bandwidth = decode.median * size as f64 / 1e9;
        if json {
            let all =
                |spread: &Spread| json!({"median": spread.median, "min": spread.min, "max": spread.max});
            let result = json!({
                "model": self.model, "runs": self.runs, "prompt_tokens": prompt, "tokens": tokens,
                "prefill_tokens_per_second": all(&prefill), "decode_tokens_per_second": all(&decode),
                "first_token_ms": all(&first), "weight_bytes": size, "weight_gb_per_second": bandwidth,
            });
            return print_line(&result.to_string());
        }
        let row = |name: String, spread: &Spread| {
            [
                name,
                format!("{:.1}", spread.median),
                format!("{:.1}", spread.min),
                format!("{:.1}", spread.max),
            ]
        };
        let rows = [
            row(format!("prompt of {prompt}, tok/s"), &prefill),
            row(format!("answer of {tokens}, tok/s"), &decode),
            row("first token, ms".into(), &first),
        ];
        print(&output::table(["MEASURED", "MEDIAN", "MIN", "MAX"], &rows))?;
        print(&format!(
            "{} runs; weights {} are read at {bandwidth:.1} GB/s while answering\n",
            self.runs,
            output::bytes(size)
        ))
    }

    async fn once(
        &self,
        client: &Client,
        prompt: u64,
        tokens: u64,
        ends: &Map<String, Value>,
    ) -> Result<Sample, CliError> {
        let mut state = random_seed();
        let ids: Vec<u64> = (0..prompt)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Every vocabulary has these: bytes and common pieces.
                20 + (state >> 33) % 230
            })
            .collect();
        let body = json!({
            "model": self.model, "prompt": ids, "max_tokens": tokens, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true}, "logit_bias": ends, "logprobs": 0,
        });
        let start = Instant::now();
        let mut lines = client.lines("/v1/completions", &body).await?;
        let (mut first, mut last, mut produced, mut counted) = (None, start, 0, prompt);
        while let Some(chunk) = lines.next().await? {
            if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
                produced = usage.get("completion_tokens").and_then(Value::as_u64).unwrap_or_default();
                counted = usage.get("prompt_tokens").and_then(Value::as_u64).unwrap_or(prompt);
            } else if chunk.pointer("/choices/0/finish_reason").is_none_or(Value::is_null) {
                last = Instant::now();
                first.get_or_insert(last);
            }
        }
        let Some(first) = first.filter(|_| produced >= 2) else {
            let message = "the model ended its answer at once, so there is nothing to measure; try again";
            return Err(CliError::Broken(message.into()));
        };
        let to_first = first - start;
        let rest = (last - first).as_secs_f64().max(1e-9);
        Ok(Sample {
            first: to_first,
            prefill: counted as f64 / to_first.as_secs_f64().max(1e-9),
            decode: (produced - 1) as f64 / rest,
        })
    }
}

/// The tokens that end an answer, forbidden so that every run is equally long.
fn end_tokens(details: &Value) -> Map<String, Value> {
    ["eos", "eot", "eom"]
        .iter()
        .filter_map(|name| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            details.get("metadata")?.get(key)?.as_u64().map(|id| (id.to_string(), json!(-100)))
        })
        .collect()
}

#[derive(Debug)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let (low, high) = (at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2));
    Spread { median: f64::midpoint(low, high), min: at(0), max: at(sorted.len().saturating_sub(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()).median, 2.0);
        let even = spread([4.0, 1.0, 2.0, 3.0].into_iter());
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
    }
}
