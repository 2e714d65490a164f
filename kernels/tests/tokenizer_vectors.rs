//! llama.cpp's tokenizer test vectors: every id exact. The files are not part of the repository; without
//! them the test says that it was skipped.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use std::sync::Arc;

use potluck_kernels::{
    gguf::{Gguf, Value},
    tokenizer::{Detokenizer, EncodeOptions, Tokenizer},
};

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";
const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

fn data() -> Option<PathBuf> {
    let dir = match std::env::var_os("POTLUCK_TEST_DATA") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let dir = dir.join("tokenizers");
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIPPED: no test data at {} (set POTLUCK_TEST_DATA)", dir.display());
    None
}

fn load(path: &Path) -> Tokenizer {
    let gguf = Gguf::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tokenizer = Tokenizer::from_metadata(gguf.metadata());
    tokenizer.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All names with a vector or a vocabulary, in order.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.strip_prefix("ggml-vocab-")?;
            Some(name.split_once(".gguf")?.0.to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_vector_gives_exactly_its_ids() {
    let Some(dir) = data() else { return };
    let (mut files, mut all_cases, mut all_ids, mut failures) = (0, 0, 0, Vec::new());
    for name in names(&dir) {
        let path = dir.join(format!("ggml-vocab-{name}.gguf"));
        let input = dir.join(format!("ggml-vocab-{name}.gguf.inp"));
        if !input.is_file() {
            println!("{name}: no vectors (round trip only)");
            continue;
        }
        if !path.is_file() {
            println!("{name}: the vocabulary is not available, its vectors cannot be run");
            continue;
        }
        let tokenizer = load(&path);
        let input = std::fs::read_to_string(input).unwrap();
        let output = std::fs::read_to_string(dir.join(format!("ggml-vocab-{name}.gguf.out"))).unwrap();
        // The file ends with a separator.
        let cases: Vec<&str> = input.strip_suffix(SEPARATOR).unwrap_or(&input).split(SEPARATOR).collect();
        let expected: Vec<Vec<u32>> = output
            .lines()
            .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect())
            .collect();
        assert_eq!(cases.len(), expected.len(), "{name}: cases and results");
        let mut wrong = 0;
        for (case, want) in cases.iter().zip(&expected) {
            let got = tokenizer.encode(case, PLAIN).unwrap();
            if got != *want {
                wrong += 1;
                failures.push(format!("{name}: {case:?}\n  want {want:?}\n  got  {got:?}"));
            }
        }
        let ids: usize = expected.iter().map(Vec::len).sum();
        println!("{name}: {} cases, {ids} ids, {wrong} wrong {:?}", cases.len(), tokenizer.warnings());
        files += 1;
        all_cases += cases.len();
        all_ids += ids;
    }
    println!("{files} vocabularies, {all_cases} cases, {all_ids} ids");
    assert!(failures.is_empty(), "{} wrong:\n{}", failures.len(), failures.join("\n"));
    assert!(files > 0, "no vectors in {}", dir.display());
}

/// Every vocabulary in the directory.
fn vocabularies() -> Vec<(String, Tokenizer)> {
    let Some(dir) = data() else { return Vec::new() };
    let path = |name: &str| dir.join(format!("ggml-vocab-{name}.gguf"));
    let names = names(&dir).into_iter().filter(|name| path(name).is_file());
    names.map(|name| (name.clone(), load(&path(&name)))).collect()
}

const TEXTS: &[&str] = &[
    "Hello, world! It's 12345 o'clock\tand\n\n  two  spaces.",
    "Größe, naïve café: ½ × 3²",
    "你好，世界。こんにちは 안녕하세요 नमस्ते สวัสดี مرحبا",
    "🦙👩‍👩‍👧 🇩🇪 \u{301}e\u{301} \u{200d}",
    "<|endoftext|><s></s>[CLS]<|im_end|><0x41>",
    "    if (x == 1) { return \"y\"; }\r\n",
];

#[test]
fn text_survives_the_way_there_and_back() {
    for (name, tokenizer) in vocabularies() {
        // BERT's normaliser loses case, accents and blanks on purpose.
        if name.starts_with("bert") {
            continue;
        }
        let tokenizer = Arc::new(tokenizer);
        for text in TEXTS {
            let ids = tokenizer.encode(text, PLAIN).unwrap();
            assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids, true), *text, "{name}");
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), true);
            let pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
            assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{name}: {pieces:?}");
            assert_eq!(pieces.concat() + &detokenizer.finish(), *text, "{name}");
        }
    }
}

#[test]
fn start_and_end_tokens_are_those_of_the_file() {
    let both = EncodeOptions { add_special: true, parse_special: false };
    for (name, t) in vocabularies() {
        let plain = t.encode("Hello", PLAIN).unwrap();
        let special = t.encode("Hello", both).unwrap();
        let want = match name.as_str() {
            "bert-bge" => [&[101], plain.as_slice(), &[102]].concat(),
            "llama-spm" | "phi-3" | "baichuan" => [&[1], plain.as_slice()].concat(),
            "deepseek-llm" => [&[100_000], plain.as_slice()].concat(),
            "deepseek-coder" => [&[32_013], plain.as_slice()].concat(),
            _ => plain,
        };
        assert_eq!(special, want, "{name}");
        assert!(t.eos().is_none_or(|eos| t.is_eog(eos)), "{name}");
    }
}

/// The vocabularies of llama-bpe, qwen2 and the like are not here, but a file's pre-tokenizer is only a name:
/// with GPT-2's vocabulary these ids are llama.cpp's (llama-cpp-python 0.3.36).
#[test]
fn pre_tokenizers_without_a_vocabulary_split_as_llama_cpp_does() {
    let Some(dir) = data() else { return };
    let Ok(gguf) = Gguf::open(&dir.join("ggml-vocab-gpt-2.gguf")) else {
        println!("SKIPPED: no GPT-2 vocabulary");
        return;
    };
    let text = "I'LL pay $1234.5 to HTTPServer's user, naïve  Ωmega\n\n\t你好 नमस्ते//\n  end";
    for (pre, want) in PRE_TOKENIZERS {
        let mut metadata = gguf.metadata().clone();
        metadata.insert("tokenizer.ggml.pre", Value::String((*pre).to_owned()));
        let t = Tokenizer::from_metadata(&metadata).unwrap();
        assert_eq!(t.encode(text, PLAIN).unwrap(), *want, "{pre}");
    }
}

/// Time this thread spent computing, where the system tells; other processes must not fail the test.
fn cpu_seconds() -> f64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = stat.and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok());
    spent.map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

#[test]
fn a_mebibyte_of_one_thing_takes_less_than_a_second() {
    let mut slowest = (0.0, String::new());
    for (name, t) in vocabularies() {
        for unit in ["a", " ", "\n", "7", "中", "!", "🦙"] {
            let text = unit.repeat((1 << 20) / unit.len());
            let start = cpu_seconds();
            let ids = t.encode(&text, PLAIN).unwrap();
            let took = cpu_seconds() - start;
            let (limit, n) = (if cfg!(debug_assertions) { 30.0 } else { 1.0 }, ids.len());
            assert!(took < limit, "{name} {unit:?}: {took:.2} s for {n} ids");
            if took > slowest.0 {
                slowest = (took, format!("{name} {unit:?}"));
            }
        }
    }
    println!("slowest: {slowest:?}");
}

/// Pre-tokenizers and llama.cpp's ids for the text above.
#[rustfmt::skip]
const PRE_TOKENIZERS: &[(&str, &[u32])] = &[
    ("llama-bpe", &[
        40, 6, 3069, 1414, 720, 10163, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220, 7377,
        102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231, 235,
        11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("qwen2", &[
        40, 6, 3069, 1414, 720, 16, 17, 18, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220,
        7377, 102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231,
        235, 11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("command-r", &[
        40, 6, 3069, 1414, 720, 16, 17, 18, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220,
        7377, 102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231,
        235, 11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("gpt-4o", &[
        40, 6, 3069, 1414, 720, 10163, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220, 7377,
        102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231, 235,
        11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("tekken", &[
        40, 6, 3069, 1414, 720, 16, 17, 18, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220,
        7377, 102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231,
        235, 11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("qwen35", &[
        40, 6, 3069, 1414, 720, 16, 17, 18, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220,
        7377, 102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231,
        235, 11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("deepseek-v3", &[
        40, 6, 3069, 1414, 720, 10163, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220, 7377,
        102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231, 235,
        11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("viking", &[
        40, 6, 3069, 1414, 720, 16, 17, 18, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220,
        7377, 102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231,
        235, 11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("seed-coder", &[
        40, 6, 3069, 1414, 720, 16, 17, 18, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220,
        7377, 102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231,
        235, 11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
    ("minicpm5", &[
        40, 6, 3069, 1414, 720, 10163, 19, 13, 20, 284, 38288, 18497, 338, 2836, 11, 41492, 220, 7377,
        102, 13731, 628, 197, 19526, 254, 25001, 121, 28225, 101, 11976, 106, 11976, 116, 24231, 235,
        11976, 97, 24231, 229, 1003, 198, 220, 886,
    ]),
];
