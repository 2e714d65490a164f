//! Any bytes as a file with a vocabulary, and a text for it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use potluck_kernels::{
    gguf::Gguf,
    tokenizer::{EncodeOptions, Tokenizer},
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return };
    let Ok(tokenizer) = Tokenizer::from_metadata(file.metadata()) else { return };
    let text = "Hello, wörld! </s> 12345 don't";
    let Ok(ids) = tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true }) else { return };
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    tokenizer.decode(&ids, false);
});
