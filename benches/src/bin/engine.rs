//! Measures Potluck's engine on one GGUF file and prints one JSON line.
//!
//! The figures are those of `peers/llama_cpp_peer.py`: prefill of a prompt, decode of single tokens from an empty
//! context, time to the first token, resident memory; and, beyond them, the aggregate speed of eight sequences
//! that are decoded together.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use potluck_kernels::{
    backend::{Batch, PAGE},
    engine::{Device, EngineOptions, Generator, load_decoder},
    gguf::Gguf,
};

/// Sequences of the parallel figure.
const STREAMS: usize = 8;

/// Measures the engine on one GGUF file.
#[derive(Debug, Parser)]
struct Args {
    /// The model.
    model: PathBuf,
    /// CPU threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Single tokens decoded.
    #[arg(long, default_value_t = 64)]
    decode: usize,
    /// Run on a GPU instead of the CPU.
    #[arg(long)]
    gpu: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    let gguf = Gguf::open(&args.model)?;
    let options = EngineOptions {
        device: if args.gpu { Device::Gpu } else { Device::Cpu },
        threads: Some(args.threads),
        context: 1024,
        parallel: STREAMS,
        max_batch_tokens: args.prompt,
    };
    let mut engine = load_decoder(&gguf, &options, &mut |_, _| {})?;
    let load = started.elapsed().as_secs_f64();
    let vocab = engine.config().vocab;
    let token = |i: usize| u32::try_from((i * 7919 + 13) % vocab).unwrap_or(0);
    engine.forward(&step(&[0], 0, 8, token))?;

    let started = Instant::now();
    engine.forward(&step(&[0], 0, args.prompt, token))?;
    let prefill = started.elapsed().as_secs_f64();

    let single = decode(engine.as_mut(), 1, args.decode, token)?;
    let rss = resident_bytes()?;
    let parallel = decode(engine.as_mut(), STREAMS, args.decode, token)?;
    let line = serde_json::json!({
        "engine": "potluck",
        "device": engine.describe(),
        "load_s": load,
        "prefill_tps": args.prompt as f64 / prefill,
        "ttft_s": prefill,
        "decode_tps": single,
        "parallel8_tps": parallel,
        "rss_bytes": rss,
    });
    println!("{line}");
    Ok(())
}

/// Tokens per second, all sequences together, of decoding `tokens` tokens one by one after a first one.
fn decode(
    engine: &mut dyn Generator,
    streams: usize,
    tokens: usize,
    token: impl Fn(usize) -> u32 + Copy,
) -> Result<f64> {
    let all: Vec<usize> = (0..streams).collect();
    engine.forward(&step(&all, 0, 1, token))?;
    let started = Instant::now();
    for position in 1..=tokens {
        engine.forward(&step(&all, position, 1, token))?;
    }
    Ok((streams * tokens) as f64 / started.elapsed().as_secs_f64())
}

/// `tokens` tokens of each of the given sequences from `start`, with the logits of each one's last. Sequence `s`
/// owns pages `s·32 …`, enough for 1,024 positions.
fn step(streams: &[usize], start: usize, tokens: usize, token: impl Fn(usize) -> u32) -> Batch {
    let mut batch = Batch::default();
    for (index, &stream) in streams.iter().enumerate() {
        for position in start..start + tokens {
            batch.tokens.push(token(position + stream));
            batch.positions.push(position as u32);
            batch.sequence.push(index as u32);
        }
        batch.outputs.push(batch.tokens.len() as u32 - 1);
        let pages = (start + tokens).div_ceil(PAGE);
        batch.tables.push((0..pages).map(|page| (stream * 32 + page) as u32).collect());
    }
    batch
}

/// Resident set of this process in bytes.
fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS line")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
    Ok(kib * 1024)
}
