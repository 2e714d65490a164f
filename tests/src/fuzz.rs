//! Bounded fuzzing that needs no special toolchain: real and tiny files, changed where their structure is.
//!
//! A run is decided by its seed. Every input that makes the code under test panic, or take far more time or
//! memory than its size allows, is written to a file so that it can be given to the same code again.

use std::{
    fs, panic,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::random::Random;

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inputs tried.
    pub executions: u64,
    /// Inputs that were accepted as valid.
    pub accepted: u64,
    /// Files with the inputs that broke something, and how.
    pub failures: Vec<(PathBuf, String)>,
}

/// Numbers that files lie with.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    31,
    99,
    127,
    255,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 48,
    1 << 60,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Words whose neighbourhood decides how a file is read.
const WORDS: [&[u8]; 12] = [
    b"general.architecture",
    b"general.alignment",
    b"tokenizer.ggml.tokens",
    b"tokenizer.ggml.scores",
    b"tokenizer.ggml.token_type",
    b"tokenizer.ggml.merges",
    b"tokenizer.ggml.model",
    b"tokenizer.ggml.pre",
    b"_token_id",
    b".weight",
    b".context_length",
    b"attention.head_count",
];

/// Changes a file in one to eight places, mostly where lengths, counts, types and offsets stand.
pub fn mutate(random: &mut Random, file: &[u8], head: usize) -> Vec<u8> {
    let mut out = file.to_vec();
    let head = head.min(out.len());
    for _ in 0..=random.below(8) {
        if out.is_empty() {
            break;
        }
        let at = place(random, &out, head);
        match random.below(9) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = (random.next() & 0xff) as u8,
            2 => put(&mut out, at, &random.pick(&NUMBERS).to_le_bytes()),
            3 => {
                let short = (*random.pick(&NUMBERS) & 0xffff_ffff) as u32;
                put(&mut out, at, &short.to_le_bytes());
            }
            4 => {
                let nudge = 1 + random.below(16) as u64;
                let mut number = [0; 8];
                let end = (at + 8).min(out.len());
                number[..end - at].copy_from_slice(&out[at..end]);
                let number = u64::from_le_bytes(number);
                let number =
                    if random.chance(50) { number.wrapping_add(nudge) } else { number.wrapping_sub(nudge) };
                put(&mut out, at, &number.to_le_bytes());
            }
            5 => out.truncate(at),
            6 => {
                let end = (at + 1 + random.below(64)).min(out.len());
                out.drain(at..end);
            }
            7 => {
                let end = (at + 1 + random.below(64)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = place(random, &out, head);
                out.splice(to..to, piece);
            }
            _ => {
                let from = place(random, &out, head);
                let end = (from + 1 + random.below(32)).min(out.len());
                let piece = out[from..end].to_vec();
                put(&mut out, at, &piece);
            }
        }
    }
    out
}

/// A position, mostly in the header, often right after a word that matters.
fn place(random: &mut Random, file: &[u8], head: usize) -> usize {
    if random.chance(40) {
        let word = random.pick(&WORDS);
        let from = random.below(head.max(1));
        let found = file[from.min(file.len())..].windows(word.len()).take(1 << 16).position(|w| w == *word);
        if let Some(found) = found {
            return (from + found + word.len() + random.below(24)).min(file.len() - 1);
        }
    }
    let bound = if random.chance(90) { head } else { file.len() };
    random.below(bound.min(file.len()))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    let count = bytes.len().min(out.len() - at);
    out[at..at + count].copy_from_slice(&bytes[..count]);
}

/// Gives changed `seeds` to `target` until the time is up. `target` says whether it accepted the input; a
/// panic in it, or a call longer than `slow`, is a failure.
pub fn run(
    name: &str,
    seed: u64,
    time: Duration,
    slow: Duration,
    seeds: &[(Vec<u8>, usize)],
    target: impl Fn(Vec<u8>) -> bool + panic::RefUnwindSafe,
) -> Outcome {
    assert!(!seeds.is_empty(), "fuzzing {name} needs a file to start from");
    let mut random = Random::new(seed);
    let mut outcome = Outcome::default();
    let until = Instant::now() + time;
    while Instant::now() < until && outcome.failures.len() < 5 {
        let (file, head) = random.pick(seeds);
        let input = mutate(&mut random.clone(), file, *head);
        random.next();
        outcome.executions += 1;
        let started = Instant::now();
        let copy = input.clone();
        let result = panic::catch_unwind(|| target(copy));
        let took = started.elapsed();
        let broken = match result {
            Ok(accepted) => {
                outcome.accepted += u64::from(accepted);
                (took > slow).then(|| format!("took {took:?}"))
            }
            Err(cause) => {
                let text = cause.downcast_ref::<String>().cloned();
                let text = text.or_else(|| cause.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                Some(format!("panicked: {}", text.unwrap_or_default()))
            }
        };
        if let Some(why) = broken {
            outcome.failures.push((save(name, outcome.executions, &input), why));
        }
    }
    println!(
        "fuzz {name}: seed {seed}, {} executions in {time:?}, {} accepted, {} failures",
        outcome.executions,
        outcome.accepted,
        outcome.failures.len()
    );
    outcome
}

/// Keeps an input that broke something.
fn save(name: &str, number: u64, input: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join("potluck-fuzz");
    fs::create_dir_all(&folder).expect("a folder for failing inputs");
    let path = folder.join(format!("{name}-{number}-{}.gguf", crate::hub::sha256(input).split_at(12).0));
    fs::write(&path, input).expect("a failing input can be kept");
    path
}
