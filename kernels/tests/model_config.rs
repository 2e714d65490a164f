//! What a decoder's file must say, and what happens when it does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/models.rs"]
mod models;

use models::{rewrite, small};
use potluck_kernels::{
    backend::RopeStyle,
    cpu::CpuBackend,
    dtype::DType,
    gguf::{Gguf, GgufWriter, Metadata, Value},
    model::{Architecture, Decoder, DecoderConfig, LoadOptions, ModelError},
    synthetic::{Kind, Spec},
};

fn metadata(architecture: Architecture) -> Metadata {
    Spec::small(Kind::Decoder(architecture)).metadata(DType::F32)
}

#[test]
fn each_family_is_read_with_its_features() {
    for architecture in Architecture::ALL {
        let config = DecoderConfig::from_metadata(&metadata(architecture)).unwrap();
        assert_eq!(config.architecture, architecture);
        assert_eq!((config.layers, config.width, config.ffn, config.vocab), (3, 256, 512, 512));
        let window = (architecture == Architecture::Mistral).then_some(100);
        assert_eq!(config.attention.window, window);
        let style = match architecture {
            Architecture::Llama | Architecture::Mistral => RopeStyle::Interleaved,
            Architecture::Qwen2 | Architecture::Qwen3 => RopeStyle::HalfSplit,
        };
        assert_eq!(config.rope.style, style);
        assert_eq!(config.rope.inv_freq.len(), config.attention.head_dim / 2);
        assert_eq!(config.rope.inv_freq[0], 1.0);
    }
}

#[test]
fn frequency_factors_divide_and_linear_scaling_squeezes() {
    let gguf = Gguf::from_bytes(small(Architecture::Llama, DType::F32)).unwrap();
    let plain = DecoderConfig::from_metadata(gguf.metadata()).unwrap().rope.inv_freq;
    let scaled = DecoderConfig::from_gguf(&gguf).unwrap().rope.inv_freq;
    assert_eq!(plain[0], scaled[0]);
    assert!((plain[15] / scaled[15] - 8.0).abs() < 1e-5);
    let mut m = metadata(Architecture::Llama);
    m.insert("llama.rope.scaling.type", Value::String("linear".into()));
    m.insert("llama.rope.scaling.factor", Value::Float(4.0));
    assert_eq!(DecoderConfig::from_metadata(&m).unwrap().rope.inv_freq[0], 0.25);
}

#[test]
fn senseless_metadata_is_refused() {
    type Check = fn(&ModelError) -> bool;
    let config: Check = |e| matches!(e, ModelError::Config { .. });
    let unsupported: Check = |e| matches!(e, ModelError::Unsupported { .. });
    let gguf: Check = |e| matches!(e, ModelError::Gguf(_));
    let cases: [(&str, Value, Check); 20] = [
        ("general.architecture", Value::String("mamba".into()), |e| {
            matches!(e, ModelError::Architecture { .. })
        }),
        ("general.architecture", Value::Unsigned(3), gguf),
        ("llama.block_count", Value::Unsigned(0), config),
        ("llama.block_count", Value::Unsigned(513), config),
        ("llama.block_count", Value::Signed(-1), gguf),
        ("llama.embedding_length", Value::Unsigned(u64::MAX), config),
        ("llama.feed_forward_length", Value::Unsigned(1 << 40), config),
        ("llama.context_length", Value::Unsigned(0), config),
        ("llama.attention.head_count", Value::Unsigned(100_000), config),
        ("llama.attention.head_count_kv", Value::Unsigned(3), config),
        ("llama.attention.head_count_kv", Value::Unsigned(0), config),
        ("llama.attention.key_length", Value::Unsigned(31), config),
        ("llama.attention.value_length", Value::Unsigned(64), unsupported),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(f64::NAN), gguf),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(-1.0), config),
        ("llama.rope.freq_base", Value::Float(0.0), config),
        ("llama.rope.dimension_count", Value::Unsigned(64), config),
        ("llama.rope.scaling.type", Value::String("yarn".into()), unsupported),
        ("llama.expert_count", Value::Unsigned(8), unsupported),
        ("llama.attention.causal", Value::Bool(false), unsupported),
    ];
    for (key, value, check) in cases {
        let mut m = metadata(Architecture::Llama);
        m.insert(key, value.clone());
        match DecoderConfig::from_metadata(&m) {
            Err(error) => assert!(check(&error), "{key} = {value:?}: {error:?}"),
            Ok(_) => panic!("{key} = {value:?} was taken"),
        }
    }
    for key in ["general.architecture", "llama.block_count", "llama.attention.layer_norm_rms_epsilon"] {
        let bytes = rewrite(
            &Gguf::from_bytes(small(Architecture::Llama, DType::F32)).unwrap(),
            "llama",
            "llama",
            &[key],
        );
        let gguf = Gguf::from_bytes(bytes).unwrap();
        assert!(DecoderConfig::from_gguf(&gguf).is_err(), "{key}");
    }
}

fn load(bytes: Vec<u8>) -> Result<(), ModelError> {
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let options = LoadOptions { max_batch_tokens: 4, max_outputs: 1, cache_pages: 1 };
    let mut last = (0, 0);
    let progress = &mut |done, total| {
        assert!(done >= last.0 && done <= total);
        last = (done, total);
    };
    Decoder::load(&gguf, CpuBackend::new(1, None)?, options, progress)?;
    assert!(last.0 == last.1 && last.1 > 0);
    Ok(())
}

#[test]
fn missing_misshapen_and_unknown_tensors_are_named() {
    let gguf = Gguf::from_bytes(small(Architecture::Qwen3, DType::Q8_0)).unwrap();
    load(rewrite(&gguf, "qwen3", "qwen3", &[])).unwrap();
    for name in ["token_embd.weight", "output_norm.weight", "blk.1.attn_q_norm.weight", "blk.2.ffn_up.weight"]
    {
        match load(rewrite(&gguf, "qwen3", "qwen3", &[name])) {
            Err(ModelError::MissingTensor(missing)) => assert_eq!(missing, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    // A tied embedding is no error.
    load(rewrite(&gguf, "qwen3", "qwen3", &["output.weight"])).unwrap();
    let change = |name: &str, dims: &[usize], new_name: &str| {
        let mut writer = GgufWriter::new(gguf.metadata().clone());
        for t in gguf.tensors() {
            if t.name == name {
                writer.tensor(new_name, dims, t.dtype, gguf.data(t).to_vec());
            } else {
                writer.tensor(&t.name, &t.dims, t.dtype, gguf.data(t).to_vec());
            }
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        load(bytes)
    };
    let name = "blk.0.ffn_down.weight";
    match change(name, &[256, 512], name) {
        Err(ModelError::TensorShape { name: found, expected, got }) => {
            assert_eq!((found.as_str(), expected, got), (name, vec![256, 512], vec![512, 256]));
        }
        other => panic!("{other:?}"),
    }
    match change("blk.0.attn_q_norm.weight", &[64], "blk.0.attn_sinks.weight") {
        Err(ModelError::MissingTensor(_)) => {}
        other => panic!("{other:?}"),
    }
    let bytes = {
        let mut writer = GgufWriter::new(gguf.metadata().clone());
        for t in gguf.tensors() {
            writer.tensor(&t.name, &t.dims, t.dtype, gguf.data(t).to_vec());
        }
        writer.tensor("blk.0.attn_sinks.weight", &[8], DType::F32, vec![0; 32]);
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        bytes
    };
    match load(bytes) {
        Err(ModelError::Unsupported { what }) => assert!(what.contains("attn_sinks"), "{what}"),
        other => panic!("{other:?}"),
    }
}
