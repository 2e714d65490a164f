//! What serving costs, and an audit of it.

use std::{fmt::Write as _, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use potluck_kernels::{
    audit::{Auditor, Committer, Finish, Numerics, Request},
    backend::Backend as _,
    engine,
    gguf::Gguf,
    model::decoder::weights_bytes,
    sample::SamplingParams,
};
use serde::Serialize;

use super::serve::{Job, on_cpu, serve};

/// Seconds of one model's work.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The model's file.
    pub model: String,
    /// What it ran on.
    pub device: String,
    /// Tokens of the prompt and of the answer.
    pub tokens: [usize; 2],
    /// Making one answer alone, commitments included; lowest, median, highest.
    pub alone: [f64; 3],
    /// The same for each of eight answers made together.
    pub together: [f64; 3],
    /// Auditing one answer.
    pub audit: [f64; 3],
    /// Of making an answer: taking hidden states and committing to them.
    pub committing: f64,
}

fn spread(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or(0.0);
    [at(0), at(times.len() / 2), at(times.len().saturating_sub(1))]
}

/// Measures a model file, each thing so many times.
///
/// # Errors
/// The model cannot be loaded or run.
pub fn measure(path: &Path, threads: usize, tokens: [usize; 2], rounds: usize) -> Result<Cost> {
    const TOGETHER: usize = 8;
    let gguf = Gguf::open(path)?;
    let positions = tokens.iter().sum::<usize>() + 1;
    let mut decoder = on_cpu(&gguf, threads, None, TOGETHER, positions)?;
    let (vocab, width, device) =
        (decoder.config().vocab, decoder.config().width, decoder.backend().describe());
    let request = |number: usize| -> Result<Request> {
        let mut random = crate::memory::random::Random::new(number as u64);
        let prompt = (0..tokens[0]).map(|_| u32::try_from(random.below(vocab))).collect::<Result<_, _>>()?;
        let params = SamplingParams { seed: random.next(), ..SamplingParams::default() };
        Ok(Request { prompt, params, limit: u32::try_from(tokens[1])? })
    };
    let (mut alone, mut together, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let one = request(round)?;
        let begun = Instant::now();
        let answer = serve(&mut decoder, &[Job::honest(&one)], &[], Numerics::Exact, TOGETHER)?;
        alone.push(begun.elapsed().as_secs_f64());
        answers.push((one, answer.into_iter().next().context("an answer")?));
        let many = (0..TOGETHER).map(|n| Ok(Job::honest(&request(100 + n)?))).collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        serve(&mut decoder, &many, &[], Numerics::Exact, TOGETHER)?;
        together.push(begun.elapsed().as_secs_f64() / TOGETHER as f64);
    }
    // Committing alone, with states of the same size.
    let states: Vec<f32> = (0..width).map(|i| (i as f32 * 0.37).sin()).collect();
    let begun = Instant::now();
    let mut committer = Committer::new(width);
    for _ in 0..tokens[1] {
        committer.push(&states)?;
    }
    committer.finish()?;
    let committing = begun.elapsed().as_secs_f64();
    let mut model = engine::generator(decoder, weights_bytes(&gguf));
    let pages: Vec<u32> = (0..u32::try_from(model.pages())?).collect();
    let auditor = Auditor::default();
    let mut audit = Vec::new();
    for (request, answer) in &answers {
        anyhow::ensure!(answer.finish == Finish::Limit, "nothing ends an answer here");
        let begun = Instant::now();
        let (score, verdict) = auditor.score(model.as_mut(), &pages, request, answer)?;
        audit.push(begun.elapsed().as_secs_f64());
        anyhow::ensure!(!verdict.failed(), "an honest answer failed its audit: {score:?}");
    }
    let model = path.file_stem().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let [alone, together, audit] = [alone, together, audit].map(spread);
    Ok(Cost { model, device, tokens, alone, together, audit, committing })
}

impl Cost {
    /// A line in Markdown.
    pub fn text(&self) -> String {
        let seconds = |[low, middle, high]: [f64; 3]| format!("{middle:.3} ({low:.3}–{high:.3})");
        let mut out = String::new();
        let _ = writeln!(
            out,
            "| {} | {} + {} | {} | {} | {} | {:.1} % | {:.1} % | {:.3} % |",
            self.model,
            self.tokens[0],
            self.tokens[1],
            seconds(self.alone),
            seconds(self.together),
            seconds(self.audit),
            100.0 * self.audit[1] / self.alone[1],
            100.0 * self.audit[1] / self.together[1],
            100.0 * self.committing / self.alone[1]
        );
        out
    }
}
