//! The plain f32 reference against candle, by forced decoding.
//!
//! candle has no sliding window and no `rope_freqs.weight`: llama and mistral are compared without them here, and
//! `features_change_the_logits` shows that the reference does use them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/candle.rs"]
mod candle;
#[path = "support/models.rs"]
mod models;

use candle::candle_logits;
use models::{DTYPES, compare, reference_logits, rewrite, small, text, tolerance};
use potluck_kernels::{dtype::DType, gguf::Gguf, model::Architecture};

const POSITIONS: usize = 520;

fn against_candle(architecture: Architecture) {
    for dtype in DTYPES {
        let gguf = Gguf::from_bytes(small(architecture, dtype)).unwrap();
        let window = format!("{}.attention.sliding_window", architecture.name());
        let known = match architecture {
            Architecture::Llama | Architecture::Mistral => "llama",
            Architecture::Qwen2 | Architecture::Qwen3 => architecture.name(),
        };
        let plain = rewrite(&gguf, architecture.name(), known, &["rope_freqs.weight", &window]);
        let tokens = text(POSITIONS, 512);
        let theirs = candle_logits(&plain, &tokens);
        let ours = reference_logits(&Gguf::from_bytes(plain).unwrap(), &tokens);
        let c = compare(&ours, &theirs);
        println!("reference vs candle: {} {dtype}: {c}", architecture.name());
        assert!(c.worst <= tolerance(dtype), "{} {dtype}: {c}", architecture.name());
    }
}

#[test]
fn llama_is_candles() {
    against_candle(Architecture::Llama);
}

#[test]
fn mistral_is_candles() {
    against_candle(Architecture::Mistral);
}

#[test]
fn qwen2_is_candles() {
    against_candle(Architecture::Qwen2);
}

#[test]
fn qwen3_is_candles() {
    against_candle(Architecture::Qwen3);
}

#[test]
fn features_change_the_logits() {
    for (architecture, feature, first) in [
        // Frequency factors matter from the second position on.
        (Architecture::Llama, "rope_freqs.weight", 1),
        // A window of 100 matters from position 100 on.
        (Architecture::Mistral, "mistral.attention.sliding_window", 100),
    ] {
        let gguf = Gguf::from_bytes(small(architecture, DType::F32)).unwrap();
        let name = architecture.name();
        let plain = Gguf::from_bytes(rewrite(&gguf, name, name, &[feature])).unwrap();
        let tokens = text(140, 512);
        let (with, without) = (reference_logits(&gguf, &tokens), reference_logits(&plain, &tokens));
        assert_eq!(with[..first], without[..first], "{feature}");
        for i in first..140 {
            assert!(models::relative_error(&with[i], &without[i]) > 1e-5, "{feature} at {i}");
        }
    }
}
