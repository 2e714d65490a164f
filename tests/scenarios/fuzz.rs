//! Bounded fuzzing of what reads untrusted files. `POTLUCK_FUZZ_SECONDS` (20) is shared by the targets,
//! `POTLUCK_FUZZ_SEED` (the same every time) chooses the inputs.

use std::{env, fs, time::Duration};

use potluck_kernels::{
    gguf::Gguf,
    model::tensors::TensorSource as _,
    safetensors::Safetensors,
    tokenizer::{EncodeOptions, Tokenizer},
};
use potluck_tests::{data, fuzz, gguf::Tiny};

/// Real files that the data folder has, and the tests' own.
fn seeds(with_data: &[&str]) -> Vec<(Vec<u8>, usize)> {
    let tiny = Tiny { layers: 1, width: 32, ..Tiny::default() };
    let file = tiny.file();
    let header = tiny.bytes().len() - file.data.len();
    // The tiny file stands three times among the seeds, because it takes the least time.
    let mut seeds = vec![(tiny.bytes(), header); 3];
    for name in with_data {
        let Some(path) = data::file(name) else {
            data::partly_skipped(&format!("no {name} to start from"));
            continue;
        };
        let bytes = fs::read(path).unwrap();
        // Vocabulary files are all header; of a model the first 64 KiB are.
        let head = if name.contains("vocab") { bytes.len() } else { 64 << 10 };
        seeds.push((bytes, head));
    }
    seeds
}

fn seed() -> u64 {
    env::var("POTLUCK_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_101)
}

fn time(share: u32) -> Duration {
    data::seconds("POTLUCK_FUZZ_SECONDS", 20) * share / 100
}

fn survived(outcome: &fuzz::Outcome) {
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(
        outcome.executions > 20,
        "only {} executions: the fuzzer is too slow to find anything",
        outcome.executions
    );
    assert!(
        outcome.accepted > 0,
        "no input was valid: the mutations are too wild to reach what lies behind the checks"
    );
    assert!(outcome.accepted < outcome.executions, "every input was valid: the mutations change nothing");
}

#[test]
fn the_reader_of_model_files_survives_lies() {
    let seeds = seeds(&["models/stories260K-f32.gguf", "tokenizers/ggml-vocab-bert-bge.gguf"]);
    let read = |bytes: Vec<u8>| {
        let size = bytes.len();
        let Ok(file) = Gguf::from_bytes(bytes) else { return false };
        // What was accepted must be whole: every tensor's bytes are there and as many as its shape says.
        assert_eq!(file.len(), size);
        for tensor in file.tensors() {
            assert_eq!(file.data(tensor).len(), tensor.len, "{}", tensor.name);
            assert_eq!(tensor.dtype.bytes_for(tensor.elements()), Some(tensor.len), "{}", tensor.name);
            let _ = file.matrix(&tensor.name);
        }
        for (key, _) in file.metadata().iter() {
            let metadata = file.metadata();
            let _ = (metadata.u64(key), metadata.str(key), metadata.f32(key), metadata.integers(key));
        }
        true
    };
    survived(&fuzz::run("gguf", seed(), time(40), Duration::from_secs(5), &seeds, read));
}

#[test]
fn the_loader_of_tokenizers_survives_lies() {
    let seeds = seeds(&[
        "tokenizers/ggml-vocab-bert-bge.gguf",
        "tokenizers/ggml-vocab-llama-spm.gguf",
        "tokenizers/ggml-vocab-gpt-2.gguf",
    ]);
    let text = "Hello, wörld! \u{1F600}\n\n  </s> 12345 <|endoftext|>\t\u{0}日本語 don't";
    let load = |bytes: Vec<u8>| {
        let Ok(file) = Gguf::from_bytes(bytes) else { return false };
        let Ok(tokenizer) = Tokenizer::from_metadata(file.metadata()) else { return false };
        for options in [
            EncodeOptions { add_special: true, parse_special: true },
            EncodeOptions { add_special: false, parse_special: false },
        ] {
            let Ok(ids) = tokenizer.encode(text, options) else { continue };
            assert!(
                ids.len() <= tokenizer.count_upper_bound(text.len()).saturating_add(2),
                "{} ids",
                ids.len()
            );
            for id in &ids {
                assert!((*id as usize) < tokenizer.vocab_size(), "id {id} is not in the vocabulary");
            }
            tokenizer.decode(&ids, false);
        }
        tokenizer.decode(&[0, u32::MAX, u32::try_from(tokenizer.vocab_size()).unwrap_or(0)], true);
        true
    };
    survived(&fuzz::run("tokenizer", seed(), time(45), Duration::from_secs(5), &seeds, load));
}

/// A small safetensors file: the header's length, the header, the data.
fn safetensors() -> (Vec<u8>, usize) {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[4,8],"data_offsets":[0,128]},"#,
        r#""b.bias":{"dtype":"F16","shape":[16],"data_offsets":[128,160]},"#,
        r#""c":{"dtype":"BF16","shape":[2,2,2],"data_offsets":[160,176]}}"#
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let head = file.len();
    file.extend([0x3c; 176]);
    (file, head)
}

#[test]
fn the_reader_of_encoder_files_survives_lies() {
    let read = |bytes: Vec<u8>| {
        let Ok(file) = Safetensors::from_bytes(bytes) else { return false };
        for name in file.names() {
            let Some(tensor) = file.find(name) else { continue };
            let elements = tensor.shape.iter().product();
            assert_eq!(tensor.dtype.bytes_for(elements), Some(tensor.data.len()), "{name}");
        }
        true
    };
    assert!(read(safetensors().0), "the file to start from is not valid");
    survived(&fuzz::run("safetensors", seed(), time(15), Duration::from_secs(5), &[safetensors()], read));
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let whole = Tiny { layers: 1, width: 32, ..Tiny::default() }.bytes();
    assert!(Gguf::from_bytes(whole.clone()).is_ok());
    let header = whole.len() - Tiny { layers: 1, width: 32, ..Tiny::default() }.file().data.len();
    for end in (0..header.min(2000)).chain((header..whole.len() - 32).step_by(997)) {
        assert!(
            Gguf::from_bytes(whole[..end].to_vec()).is_err(),
            "the first {end} bytes alone were accepted"
        );
    }
}
