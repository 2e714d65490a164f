//! The speed of an embedding model: how long one question takes, and how much a whole library.

use std::time::Instant;

use serde_json::{Value, json};

use super::{CliError, Client, spread};
use crate::{
    cli::{output, print, print_line},
    job::random_seed,
};

/// Words of a question.
const QUESTION: usize = 8;
/// Texts of a batch.
const BATCH: usize = 64;
/// Words of each: about 130 tokens.
const PARAGRAPH: usize = 100;
/// Questions asked in each run.
const QUESTIONS: usize = 20;
/// Common words, each of one token or two.
const WORDS: [&str; 24] = [
    "the", "river", "market", "window", "never", "second", "paper", "machine", "green", "answer", "winter",
    "between", "station", "letter", "system", "garden", "music", "because", "history", "small", "kitchen",
    "water", "teacher", "remember",
];

/// One run.
struct Sample {
    question: f64,
    tokens: f64,
    texts: f64,
}

pub(super) async fn measure(client: &Client, model: &str, runs: u32, json: bool) -> Result<(), CliError> {
    let mut samples = Vec::new();
    for run in 0..=runs {
        let sample = once(client, model).await?;
        // The first run loads the model.
        if run > 0 {
            samples.push(sample);
        }
    }
    let question = spread(samples.iter().map(|sample| sample.question));
    let tokens = spread(samples.iter().map(|sample| sample.tokens));
    let texts = spread(samples.iter().map(|sample| sample.texts));
    if json {
        let all = |s: &super::Spread| json!({"median": s.median, "min": s.min, "max": s.max});
        let result = json!({
            "model": model, "runs": runs, "batch": BATCH, "question_ms": all(&question),
            "tokens_per_second": all(&tokens), "texts_per_second": all(&texts),
        });
        return print_line(&result.to_string());
    }
    let row = |name: String, s: &super::Spread| {
        [name, format!("{:.1}", s.median), format!("{:.1}", s.min), format!("{:.1}", s.max)]
    };
    let rows = [
        row(format!("question of {QUESTION} words, ms"), &question),
        row(format!("{BATCH} texts of {PARAGRAPH} words, tok/s"), &tokens),
        row(format!("{BATCH} texts of {PARAGRAPH} words, texts/s"), &texts),
    ];
    print(&output::table(["MEASURED", "MEDIAN", "MIN", "MAX"], &rows))?;
    print(&format!("{runs} runs; a question's time is the fastest of {QUESTIONS}, HTTP included\n"))
}

async fn once(client: &Client, model: &str) -> Result<Sample, CliError> {
    let mut question = f64::INFINITY;
    for _ in 0..QUESTIONS {
        let body = json!({"model": model, "input": text(QUESTION)});
        let began = Instant::now();
        client.post("/api/embed", &body).await?;
        question = question.min(began.elapsed().as_secs_f64() * 1e3);
    }
    let texts: Vec<_> = (0..BATCH).map(|_| text(PARAGRAPH)).collect();
    let began = Instant::now();
    let answer = client.post("/api/embed", &json!({"model": model, "input": texts})).await?;
    let seconds = began.elapsed().as_secs_f64().max(1e-9);
    let tokens = answer.get("prompt_eval_count").and_then(Value::as_u64).unwrap_or_default();
    Ok(Sample { question, tokens: tokens as f64 / seconds, texts: BATCH as f64 / seconds })
}

/// Random words.
fn text(words: usize) -> String {
    let mut state = random_seed();
    let mut out = String::new();
    for _ in 0..words {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = usize::try_from(state >> 40).unwrap_or(0) % WORDS.len();
        out.push_str(WORDS.get(index).copied().unwrap_or_default());
        out.push(' ');
    }
    out
}
