//! BERT encoders: the CPU backend against the reference, the reference against candle, both file formats.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/models.rs"]
mod models;

use std::path::PathBuf;

use candle_core::{DType as CandleType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, DTYPE};
use models::{relative_error, text};
use potluck_kernels::{
    cpu::CpuBackend,
    dtype::DType,
    engine::{self, EncoderSource, EngineOptions},
    gguf::Gguf,
    model::{Encoder, EncoderConfig, EncoderFormat, Pooling},
    quant::dequantize_row,
    reference::ReferenceEncoder,
    safetensors::Safetensors,
    synthetic::{Kind, Spec},
};

fn small(dtype: DType) -> Gguf {
    Gguf::from_bytes(Spec::small(Kind::Bert).bytes(dtype).unwrap()).unwrap()
}

/// Inputs of different lengths, one of them of a single token.
fn inputs(vocab: usize) -> Vec<Vec<u32>> {
    [1, 7, 64, 200, 33].map(|n| text(400, vocab)[n..2 * n].to_vec()).into()
}

#[test]
fn the_cpu_gives_the_references_vectors() {
    for dtype in models::DTYPES {
        let gguf = small(dtype);
        let config = EncoderConfig::from_gguf(&gguf).unwrap();
        let reference = ReferenceEncoder::load(&gguf, &EncoderFormat::Gguf, config.clone()).unwrap();
        let backend = CpuBackend::new(2, None).unwrap();
        // 256 tokens per pass: the inputs go in two groups.
        let mut encoder =
            Encoder::load(&gguf, &EncoderFormat::Gguf, config, backend, 256, &mut |_, _| {}).unwrap();
        let inputs = inputs(512);
        let vectors = encoder.embed(&inputs).unwrap();
        let worst = inputs
            .iter()
            .zip(&vectors)
            .map(|(input, vector)| relative_error(vector, &reference.embed(input)))
            .fold(0.0, f64::max);
        println!("cpu vs reference: bert {dtype}: {worst:.2e}");
        assert!(worst <= models::tolerance(dtype), "{dtype}: {worst}");
        // Neighbours in a batch change nothing.
        for (input, vector) in inputs.iter().zip(&vectors) {
            assert_eq!(&encoder.embed(std::slice::from_ref(input)).unwrap()[0], vector);
        }
    }
}

#[cfg(feature = "gpu")]
#[test]
fn the_gpu_gives_the_references_vectors() {
    use potluck_kernels::cube::{CubeBackend, Selection};
    for dtype in models::DTYPES {
        let backend =
            match CubeBackend::new(Selection::Auto).or_else(|_| CubeBackend::new(Selection::Software)) {
                Ok(backend) => backend,
                Err(error) => return println!("SKIPPED: {error}"),
            };
        let gguf = small(dtype);
        let config = EncoderConfig::from_gguf(&gguf).unwrap();
        let reference = ReferenceEncoder::load(&gguf, &EncoderFormat::Gguf, config.clone()).unwrap();
        let mut encoder =
            Encoder::load(&gguf, &EncoderFormat::Gguf, config, backend, 256, &mut |_, _| {}).unwrap();
        let inputs = inputs(512);
        let worst = inputs
            .iter()
            .zip(&encoder.embed(&inputs).unwrap())
            .map(|(input, vector)| relative_error(vector, &reference.embed(input)))
            .fold(0.0, f64::max);
        println!("gpu vs reference: bert {dtype}: {worst:.2e}");
        assert!(worst <= models::tolerance(dtype), "{dtype}: {worst}");
    }
}

#[test]
fn bad_inputs_are_refused_and_not_cut() {
    let options = EngineOptions { device: engine::Device::Cpu, ..EngineOptions::default() };
    let mut encoder =
        engine::load_encoder(EncoderSource::Gguf(&small(DType::Q8_0)), &options, &mut |_, _| {}).unwrap();
    assert_eq!(encoder.max_tokens(), 512);
    assert!(encoder.embed(&[vec![]]).is_err());
    assert!(encoder.embed(&[vec![512]]).is_err());
    assert!(encoder.embed(&[vec![1; 513]]).is_err());
    assert_eq!(encoder.embed(&[vec![1; 512]]).unwrap()[0].len(), 256);
    assert!(encoder.embed(&[]).unwrap().is_empty());
}

/// The synthetic model as a sentence-transformers folder, with tensor names behind `prefix`.
fn folder(prefix: &str, pooling: Option<Pooling>) -> tempfile::TempDir {
    let gguf = small(DType::F32);
    let mut tensors = Vec::new();
    for t in gguf.tensors() {
        let name = bert_name(&t.name);
        tensors.push((
            format!("{prefix}{name}"),
            t.dims.iter().rev().copied().collect::<Vec<_>>(),
            gguf.data(t),
        ));
    }
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        header.insert(
            name,
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let config = serde_json::json!({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 8, "intermediate_size": 512, "layer_norm_eps": 1e-12, "vocab_size": 512,
        "max_position_embeddings": 512, "type_vocab_size": 2, "position_embedding_type": "absolute",
        "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "pad_token_id": 0, "use_cache": true
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    if let Some(pooling) = pooling {
        std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        let json = serde_json::json!({
            "pooling_mode_cls_token": pooling == Pooling::Cls, "pooling_mode_mean_tokens": pooling == Pooling::Mean
        });
        std::fs::write(dir.path().join("1_Pooling/config.json"), json.to_string()).unwrap();
    }
    dir
}

fn bert_name(name: &str) -> String {
    for (from, to) in [
        ("token_embd_norm", "embeddings.LayerNorm"),
        ("token_embd", "embeddings.word_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
    ] {
        if let Some(rest) = name.strip_prefix(&format!("{from}.")) {
            return format!("{to}.{rest}");
        }
    }
    let rest = name.strip_prefix("blk.").unwrap();
    let (layer, rest) = rest.split_once('.').unwrap();
    let (part, kind) = rest.rsplit_once('.').unwrap();
    let part = match part {
        "attn_q" => "attention.self.query",
        "attn_k" => "attention.self.key",
        "attn_v" => "attention.self.value",
        "attn_output" => "attention.output.dense",
        "attn_output_norm" => "attention.output.LayerNorm",
        "ffn_up" => "intermediate.dense",
        "ffn_down" => "output.dense",
        "layer_output_norm" => "output.LayerNorm",
        other => panic!("{other}"),
    };
    format!("encoder.layer.{layer}.{part}.{kind}")
}

#[test]
fn both_file_formats_give_the_same_vectors() {
    let options = EngineOptions { device: engine::Device::Cpu, threads: Some(2), ..EngineOptions::default() };
    let inputs = inputs(512);
    let mut gguf =
        engine::load_encoder(EncoderSource::Gguf(&small(DType::F32)), &options, &mut |_, _| {}).unwrap();
    let expected = gguf.embed(&inputs).unwrap();
    for (prefix, pooling) in [("", None), ("bert.", Some(Pooling::Mean))] {
        let dir = folder(prefix, pooling);
        let mut encoder =
            engine::load_encoder(EncoderSource::Folder(dir.path()), &options, &mut |_, _| {}).unwrap();
        assert_eq!(encoder.config().pooling, Pooling::Mean);
        assert_eq!(encoder.embed(&inputs).unwrap(), expected);
    }
    let dir = folder("", Some(Pooling::Cls));
    let mut encoder =
        engine::load_encoder(EncoderSource::Folder(dir.path()), &options, &mut |_, _| {}).unwrap();
    assert_eq!(encoder.config().pooling, Pooling::Cls);
    assert_ne!(encoder.embed(&inputs).unwrap()[2], expected[2]);
}

#[test]
fn another_activation_or_a_broken_folder_is_refused() {
    let dir = folder("", None);
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for changed in [
        text.replace("\"gelu\"", "\"relu\""),
        text.replace("\"bert\"", "\"roberta\""),
        text.replace("\"absolute\"", "\"relative_key\""),
        text.replace("\"num_attention_heads\":8", "\"num_attention_heads\":7"),
        text.replace("\"hidden_size\":256", "\"hidden_size\":-1"),
        "{".into(),
    ] {
        assert_ne!(changed, text);
        std::fs::write(&path, changed).unwrap();
        assert!(EncoderConfig::from_folder(dir.path()).is_err());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(EncoderConfig::from_folder(dir.path()).is_err());
}

/// Hidden states from candle.
fn candle_states(folder: &std::path::Path, input: &[u32]) -> Vec<f32> {
    let device = Device::Cpu;
    let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let weights = VarBuilder::from_buffered_safetensors(bytes, DTYPE, &device).unwrap();
    let model = BertModel::load(weights, &config).unwrap();
    let ids = Tensor::new(input, &device).unwrap().unsqueeze(0).unwrap();
    let types = ids.zeros_like().unwrap();
    let states = model.forward(&ids, &types, None).unwrap();
    states.to_dtype(CandleType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn reference(folder: &std::path::Path) -> ReferenceEncoder {
    let file = Safetensors::open(&folder.join("model.safetensors")).unwrap();
    let config = EncoderConfig::from_folder(folder).unwrap();
    ReferenceEncoder::load(&file, &EncoderFormat::of(&file), config).unwrap()
}

#[test]
fn the_reference_is_candles() {
    let dir = folder("", None);
    let reference = reference(dir.path());
    for input in inputs(512) {
        let error = relative_error(&reference.states(&input).concat(), &candle_states(dir.path(), &input));
        println!("reference vs candle: bert F32, {} tokens: {error:.2e}", input.len());
        assert!(error < 1e-5, "{error}");
    }
}

/// Real weights, when POTLUCK_TEST_MINILM names the folder with `model.safetensors` and `config.json`.
#[test]
fn the_real_minilm_is_candles() {
    let Some(folder) = std::env::var_os("POTLUCK_TEST_MINILM").map(PathBuf::from) else {
        println!("SKIPPED: POTLUCK_TEST_MINILM does not name a folder with the real weights");
        return;
    };
    let reference = reference(&folder);
    let options = EngineOptions { device: engine::Device::Cpu, ..EngineOptions::default() };
    let mut encoder = engine::load_encoder(EncoderSource::Folder(&folder), &options, &mut |_, _| {}).unwrap();
    for input in inputs(30_522) {
        let input = [&[101], input.as_slice(), &[102]].concat();
        let error = relative_error(&reference.states(&input).concat(), &candle_states(&folder, &input));
        let cpu = relative_error(
            &encoder.embed(std::slice::from_ref(&input)).unwrap()[0],
            &reference.embed(&input),
        );
        println!(
            "MiniLM, {} tokens: reference vs candle {error:.2e}, cpu vs reference {cpu:.2e}",
            input.len()
        );
        assert!(error < 1e-4 && cpu < 1e-3, "{error} {cpu}");
    }
}

#[test]
fn plain_tables_stay_plain() {
    let gguf = small(DType::Q4_0);
    for (name, dtype) in [("position_embd.weight", DType::F32), ("blk.0.attn_q.weight", DType::Q4_0)] {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(tensor.dtype, dtype);
        let mut row = vec![0.0; 256];
        let bytes = dtype.bytes_for(256).unwrap();
        dequantize_row(dtype, &gguf.data(tensor)[..bytes], &mut row).unwrap();
        assert!(row.iter().any(|&x| x != 0.0));
    }
}

#[test]
fn f32_weights_kept_as_f16_give_the_same_vectors_and_as_q8_0_nearly() {
    let (gguf, options) =
        (small(DType::F32), EngineOptions { device: engine::Device::Cpu, ..EngineOptions::default() });
    let load =
        |dtype| engine::load_encoder_as(dtype, EncoderSource::Gguf(&gguf), &options, &mut |_, _| {}).unwrap();
    let exact = load(DType::F32).embed(&inputs(512)).unwrap();
    for (dtype, least) in [(DType::F16, 0.999_99), (DType::Q8_0, 0.99)] {
        for (got, wanted) in load(dtype).embed(&inputs(512)).unwrap().iter().zip(&exact) {
            let cosine: f32 = got.iter().zip(wanted).map(|(a, b)| a * b).sum();
            assert!(cosine > least, "{dtype}: {cosine}");
        }
    }
}
