//! llama.cpp's tokenizer test vectors: every id exact. The files are not part of the repository; without
//! them the test says that it was skipped.

use std::path::{Path, PathBuf};

use potluck_kernels::{
    gguf::Gguf,
    tokenizer::{EncodeOptions, Tokenizer},
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
