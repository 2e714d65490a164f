//! The CubeCL backend against the plain reference by forced decoding, on a real GPU or on lavapipe
//! (`VK_ICD_FILENAMES=…/lvp_icd.x86_64.json CUBECL_WGPU_DEFAULT_DEVICE=Cpu`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "gpu")]

#[path = "support/models.rs"]
mod models;

use models::{DTYPES, compare, forced, load, reference_logits, small, text, tolerance};
use potluck_kernels::{
    cube::{CubeBackend, Selection},
    gguf::Gguf,
    model::Architecture,
};

const POSITIONS: usize = 520;

fn backend() -> Option<CubeBackend> {
    match CubeBackend::new(Selection::Auto).or_else(|_| CubeBackend::new(Selection::Software)) {
        Ok(backend) => Some(backend),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}

fn against_reference(architecture: Architecture) {
    for dtype in DTYPES {
        let Some(backend) = backend() else { return };
        let gguf = Gguf::from_bytes(small(architecture, dtype)).unwrap();
        let tokens = text(POSITIONS, 512);
        let reference = reference_logits(&gguf, &tokens);
        let mut decoder = load(&gguf, backend);
        let mut logits = forced(&mut decoder, &tokens[..512], 128);
        let c = compare(&logits, &reference[..512]);
        println!("gpu vs reference: {} {dtype}: {c}", architecture.name());
        assert!(c.worst <= tolerance(dtype), "{} {dtype}: {c}", architecture.name());
        // One token at a time takes other kernels.
        logits = forced(&mut decoder, &tokens[..24], 1);
        let c = compare(&logits, &reference[..24]);
        println!("gpu, token by token: {} {dtype}: {c}", architecture.name());
        assert!(c.worst <= tolerance(dtype), "{} {dtype}: {c}", architecture.name());
    }
}

#[test]
fn llama_is_the_references() {
    against_reference(Architecture::Llama);
}

#[test]
fn mistral_is_the_references() {
    against_reference(Architecture::Mistral);
}

#[test]
fn qwen2_is_the_references() {
    against_reference(Architecture::Qwen2);
}

#[test]
fn qwen3_is_the_references() {
    against_reference(Architecture::Qwen3);
}
