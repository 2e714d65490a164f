//! The same models in candle.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::io::Cursor;

use candle_core::{Device, IndexOp, Tensor, quantized::gguf_file};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};

/// Logits of every position from candle, fed token by token. `bytes` must be in a layout candle knows.
pub fn candle_logits(bytes: &[u8], tokens: &[u32]) -> Vec<Vec<f32>> {
    enum Model {
        Llama(quantized_llama::ModelWeights),
        Qwen2(quantized_qwen2::ModelWeights),
        Qwen3(quantized_qwen3::ModelWeights),
    }
    let device = Device::Cpu;
    let mut reader = Cursor::new(bytes);
    let mut content = gguf_file::Content::read(&mut reader).expect("candle reads the file");
    // Without it candle computes qwen3's angles in f16.
    content.metadata.insert("general.dtype".to_owned(), gguf_file::Value::U32(0));
    let architecture = content.metadata["general.architecture"].to_string().expect("text").clone();
    let mut model = match architecture.as_str() {
        "llama" => Model::Llama(
            quantized_llama::ModelWeights::from_gguf(content, &mut reader, &device).expect("a llama"),
        ),
        "qwen2" => Model::Qwen2(
            quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, &device).expect("a qwen2"),
        ),
        "qwen3" => Model::Qwen3(
            quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &device).expect("a qwen3"),
        ),
        other => panic!("candle has no {other}"),
    };
    tokens
        .iter()
        .enumerate()
        .map(|(position, &token)| {
            let input = Tensor::new(&[token], &device).and_then(|t| t.unsqueeze(0)).expect("a token");
            let logits = match &mut model {
                Model::Llama(m) => m.forward(&input, position),
                Model::Qwen2(m) => m.forward(&input, position),
                Model::Qwen3(m) => m.forward(&input, position),
            };
            let logits = logits.and_then(|l| l.i(0)).and_then(|l| l.flatten_all()).expect("logits");
            logits.to_vec1::<f32>().expect("f32")
        })
        .collect()
}
