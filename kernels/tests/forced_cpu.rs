//! The CPU backend against the plain reference by forced decoding, and against itself bit by bit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/models.rs"]
mod models;

use models::{DTYPES, compare, forced, load, reference_logits, small, text, tolerance};
use potluck_kernels::{
    backend::Batch,
    cpu::{CpuBackend, Simd},
    dtype::DType,
    gguf::Gguf,
    model::{Architecture, Decoder},
};

const POSITIONS: usize = 520;

fn against_reference(architecture: Architecture) {
    for dtype in DTYPES {
        let gguf = Gguf::from_bytes(small(architecture, dtype)).unwrap();
        let tokens = text(POSITIONS, 512);
        let reference = reference_logits(&gguf, &tokens);
        let mut decoder = load(&gguf, CpuBackend::new(2, None).unwrap());
        let c = compare(&forced(&mut decoder, &tokens, 96), &reference);
        println!("cpu vs reference: {} {dtype}: {c}", architecture.name());
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

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

fn decoder(gguf: &Gguf, threads: usize, simd: Option<Simd>) -> Decoder<CpuBackend> {
    load(gguf, CpuBackend::new(threads, simd).unwrap())
}

#[test]
fn logits_are_the_same_bits_however_they_are_computed() {
    // Each family once, each storage type at least once.
    for (architecture, dtype) in [
        (Architecture::Llama, DType::Q4_0),
        (Architecture::Llama, DType::F32),
        (Architecture::Mistral, DType::Q8_0),
        (Architecture::Mistral, DType::F16),
        (Architecture::Qwen2, DType::Q4_K),
        (Architecture::Qwen3, DType::Q6_K),
    ] {
        let gguf = Gguf::from_bytes(small(architecture, dtype)).unwrap();
        let tokens = text(150, 512);
        let expected = bits(&forced(&mut decoder(&gguf, 1, None), &tokens, 128));
        let what = |how: String| format!("{} {dtype}: {how}", architecture.name());
        for threads in [2, 3, 8] {
            let got = bits(&forced(&mut decoder(&gguf, threads, None), &tokens, 128));
            assert!(got == expected, "{}", what(format!("{threads} threads")));
        }
        for simd in [Simd::Scalar, Simd::Avx2, Simd::Avx512Vnni].into_iter().filter(|s| s.available()) {
            let short = &tokens[..40];
            let got = bits(&forced(&mut decoder(&gguf, 1, Some(simd)), short, 40));
            assert!(got == expected[..40], "{}", what(format!("{simd}")));
        }
        for step in [1, 7, 33] {
            let got = bits(&forced(&mut decoder(&gguf, 2, None), &tokens, step));
            assert!(got == expected, "{}", what(format!("steps of {step}")));
        }
    }
}

#[test]
fn a_sequence_does_not_notice_its_neighbours() {
    let gguf = Gguf::from_bytes(small(Architecture::Qwen3, DType::Q8_0)).unwrap();
    let (a, b) = (text(60, 512), text(90, 512)[30..].to_vec());
    let mut alone = decoder(&gguf, 2, None);
    let expected_a = forced(&mut alone, &a, 60);
    let expected_b = forced(&mut alone, &b, 60);
    let mut both = decoder(&gguf, 2, None);
    let vocab = both.config().vocab;
    let tables = vec![vec![4, 9], vec![11, 2]];
    // Prompts of 50 and 30 tokens in one step, of which only the last logits are wanted.
    let batch = Batch {
        tokens: [&a[..50], &b[..30]].concat(),
        positions: (0..50).chain(0..30).collect(),
        sequence: [vec![0; 50], vec![1; 30]].concat(),
        tables: tables.clone(),
        outputs: vec![49, 79],
    };
    let got = both.forward(&batch).unwrap();
    assert_eq!(got, [expected_a[49].as_slice(), expected_b[29].as_slice()].concat());
    // Then one token each, as a scheduler does.
    for i in 0..10 {
        let batch = Batch {
            tokens: vec![b[30 + i], a[50 + i]],
            positions: vec![30 + i as u32, 50 + i as u32],
            sequence: vec![1, 0],
            tables: tables.clone(),
            outputs: vec![0, 1],
        };
        let got = both.forward(&batch).unwrap();
        assert_eq!(got.len(), 2 * vocab);
        assert_eq!(got, [expected_b[30 + i].as_slice(), expected_a[50 + i].as_slice()].concat());
    }
}

#[test]
fn a_copied_page_carries_a_prefix_to_another_sequence() {
    let gguf = Gguf::from_bytes(small(Architecture::Llama, DType::Q8_0)).unwrap();
    let tokens = text(50, 512);
    let mut model = decoder(&gguf, 2, None);
    let expected = forced(&mut model, &tokens, 50);
    let step = |range: std::ops::Range<usize>, table: Vec<u32>, outputs: Vec<u32>| Batch {
        tokens: tokens[range.clone()].to_vec(),
        positions: (range.start as u32..range.end as u32).collect(),
        sequence: vec![0; range.len()],
        tables: vec![table],
        outputs,
    };
    // No outputs: only the cache is filled.
    assert_eq!(model.forward(&step(0..45, vec![0, 1], vec![])).unwrap().len(), 0);
    model.copy_page(1, 6).unwrap();
    // The copy goes on with the same text; writing to the original must not matter.
    model.forward(&step(40..45, vec![0, 1], vec![])).unwrap();
    let got = model.forward(&step(45..50, vec![0, 6], vec![4])).unwrap().to_vec();
    assert_eq!(got, expected[49]);
    assert!(model.copy_page(0, 20).is_err());
}

#[test]
fn inconsistent_batches_are_refused() {
    let gguf = Gguf::from_bytes(small(Architecture::Llama, DType::F16)).unwrap();
    let mut model = decoder(&gguf, 1, None);
    let good = Batch {
        tokens: vec![1, 2, 3],
        positions: vec![0, 1, 0],
        sequence: vec![0, 0, 1],
        tables: vec![vec![0], vec![1]],
        outputs: vec![1, 2],
    };
    assert!(model.forward(&good).is_ok());
    for (what, batch) in [
        ("no tokens", Batch::default()),
        ("an unknown token", Batch { tokens: vec![1, 512, 3], ..good.clone() }),
        ("too few positions", Batch { positions: vec![0, 1], ..good.clone() }),
        ("a gap", Batch { positions: vec![0, 2, 0], ..good.clone() }),
        ("positions going back", Batch { positions: vec![1, 0, 0], ..good.clone() }),
        ("an unknown sequence", Batch { sequence: vec![0, 0, 2], ..good.clone() }),
        ("a torn sequence", Batch { sequence: vec![0, 1, 0], positions: vec![0, 0, 1], ..good.clone() }),
        ("a position without a page", Batch { positions: vec![31, 32, 0], ..good.clone() }),
        ("an unknown page", Batch { tables: vec![vec![0], vec![20]], ..good.clone() }),
        ("outputs out of order", Batch { outputs: vec![2, 1], ..good.clone() }),
        ("an unknown output", Batch { outputs: vec![3], ..good.clone() }),
        ("a position without end", Batch { positions: vec![u32::MAX - 1, u32::MAX, 0], ..good.clone() }),
        ("too many tokens", Batch { tokens: vec![1; 129], positions: (0..129).collect(), ..good.clone() }),
    ] {
        assert!(model.forward(&batch).is_err(), "{what}");
    }
}
