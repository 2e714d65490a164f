//! A real trained model, stories260K: its known greedy text, and every storage type its shape allows.

#[path = "support/models.rs"]
mod models;

use models::{argmax, compare, forced, load, reference_logits, test_data};
use potluck_kernels::{
    cpu::CpuBackend,
    dtype::DType,
    gguf::Gguf,
    reference::ReferenceDecoder,
    sample::{Sampler, SamplingParams},
    synthetic::requantize,
    tokenizer::Tokenizer,
};

fn stories() -> Option<Gguf> {
    Some(Gguf::open(&test_data("models/stories260K-f32.gguf")?).unwrap())
}

/// Token ids of the greedy continuation of the empty prompt, with the BOS token.
fn greedy(gguf: &Gguf, count: usize) -> Vec<u32> {
    let mut model = ReferenceDecoder::load(gguf).unwrap();
    let mut tokens = vec![1];
    while tokens.len() < count {
        let logits = model.forward(*tokens.last().unwrap()).unwrap();
        tokens.push(argmax(&logits) as u32);
    }
    tokens
}

#[test]
fn the_greedy_text_is_the_known_one() {
    let (Some(gguf), Some(path)) = (stories(), test_data("models/greedy_256.txt")) else { return };
    let expected = std::fs::read_to_string(path).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let bos = tokenizer.bos().unwrap();
    let mut decoder = load(&gguf, CpuBackend::new(2, None).unwrap());
    let mut sampler = Sampler::new(SamplingParams::greedy(), decoder.config().vocab).unwrap();
    let mut tokens = vec![bos];
    let table: Vec<u32> = (0..20).collect();
    while tokens.len() <= 256 {
        let position = tokens.len() as u32 - 1;
        let batch = potluck_kernels::backend::Batch {
            tokens: vec![*tokens.last().unwrap()],
            positions: vec![position],
            sequence: vec![0],
            tables: vec![table.clone()],
            outputs: vec![0],
        };
        let logits = decoder.forward(&batch).unwrap();
        tokens.push(sampler.sample(logits, &tokens, 1, None).unwrap().token);
    }
    assert_eq!(tokens, greedy(&gguf, 257), "the reference's tokens");
    let text = tokenizer.decode(&tokens[1..], true);
    assert_eq!(text.trim(), expected.trim());
}

#[test]
fn every_storage_type_agrees_with_the_reference() {
    let Some(gguf) = stories() else { return };
    let tokens = greedy(&gguf, 512);
    let original = reference_logits(&gguf, &tokens);
    for dtype in DType::ALL {
        let mut bytes = Vec::new();
        requantize(&gguf, dtype).unwrap().write(&mut bytes).unwrap();
        let converted = Gguf::from_bytes(bytes).unwrap();
        let count = converted.tensors().iter().filter(|t| t.dtype == dtype && t.dims.len() == 2).count();
        if count == 0 {
            println!("stories260K {dtype}: its shape allows none");
            continue;
        }
        let reference = reference_logits(&converted, &tokens);
        let mut decoder = load(&converted, CpuBackend::new(2, None).unwrap());
        let logits = forced(&mut decoder, &tokens, 128);
        let c = compare(&logits, &reference);
        println!(
            "stories260K {dtype} ({count} matrices): {c}; against the unquantised model: {}",
            compare(&logits, &original)
        );
        for (i, (a, b)) in logits.iter().zip(&reference).enumerate() {
            let (x, y) = (argmax(a), argmax(b));
            if x != y {
                println!("  position {i}: {x} over {y}, reference {:.4} against {:.4}", b[x], b[y]);
            }
        }
        if c.top1 < 0.99 { println!("BELOW {dtype}"); }
    }
}
