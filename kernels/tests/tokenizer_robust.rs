//! Tokenizers on small vocabularies made here: round trips, special tokens, hostile files and texts.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use potluck_kernels::{
    dtype::DType,
    gguf::{Array, Gguf, GgufWriter, Metadata, Value},
    synthetic::{Kind, Spec},
    tokenizer::{Detokenizer, EncodeOptions, Tokenizer, TokenizerError},
};
use proptest::prelude::*;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PROMPT: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

fn strings<T: AsRef<[u8]>>(list: impl IntoIterator<Item = T>) -> Value {
    Value::Array(Array::Strings(list.into_iter().map(|s| s.as_ref().into()).collect()))
}

fn metadata(model: &str, tokens: Vec<(String, i64, f32)>) -> Metadata {
    let mut m = Metadata::default();
    m.insert("tokenizer.ggml.model", Value::String(model.into()));
    m.insert("tokenizer.ggml.tokens", strings(tokens.iter().map(|t| t.0.as_bytes())));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::Signed(tokens.iter().map(|t| t.1).collect())));
    m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(tokens.iter().map(|t| t.2).collect())));
    m
}

/// GPT-2's alphabet: the visible character for each byte.
fn alphabet() -> Vec<char> {
    let visible = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 256u32;
    (0..=255u8)
        .map(|b| {
            if visible(b) {
                return char::from(b);
            }
            next += 1;
            char::from_u32(next - 1).unwrap()
        })
        .collect()
}

/// 256 bytes, some merges, two control tokens and a user-defined one.
fn bpe(pre: Option<&str>) -> Metadata {
    let mut tokens: Vec<(String, i64, f32)> =
        alphabet().into_iter().map(|c| (c.to_string(), 1, 0.0)).collect();
    let merges = [
        "h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ġ Ġ", "Ã ©", "a a",
        "aa aa",
    ];
    tokens.extend(merges.iter().map(|m| (m.replace(' ', ""), 1, 0.0)));
    tokens.push(("<|im_start|>".into(), 3, 0.0));
    tokens.push(("<|im_end|>".into(), 3, 0.0));
    tokens.push(("<tool>".into(), 4, 0.0));
    let mut m = metadata("gpt2", tokens);
    m.insert("tokenizer.ggml.merges", strings(merges));
    if let Some(pre) = pre {
        m.insert("tokenizer.ggml.pre", Value::String(pre.into()));
    }
    m
}

/// Unknown, control and byte tokens, then some pieces with scores.
fn spm() -> Metadata {
    let mut tokens =
        vec![("<unk>".to_owned(), 2, 0.0), ("<s>".to_owned(), 3, 0.0), ("</s>".to_owned(), 3, 0.0)];
    tokens.extend((0..=255u8).map(|b| (format!("<0x{b:02X}>"), 6, 0.0)));
    let pieces =
        ["▁", "▁▁", "h", "e", "l", "o", "he", "ll", "hell", "hello", "▁hello", "<", ">", "s", "<s", "é"];
    tokens.extend((0u8..).zip(pieces).map(|(i, p)| (p.to_owned(), 1, -f32::from(i))));
    tokens.push(("<tool>".into(), 4, 0.0));
    metadata("llama", tokens)
}

fn load(m: &Metadata) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_metadata(m).unwrap())
}

fn incremental(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special: bool) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), skip_special);
    let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
    text.push_str(&detokenizer.finish());
    text
}

/// Time this thread spent computing, where the system tells; other processes must not fail the test.
fn cpu_seconds() -> f64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = stat.and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok());
    spent.map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

#[test]
fn a_tokenizer_is_shared_between_threads() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    shared::<Tokenizer>();
    shared::<Detokenizer>();
}

#[test]
fn bpe_merges_by_rank_and_says_which_pre_tokenizer_is_unknown() {
    let t = load(&bpe(Some("gpt-2")));
    let text = |ids: &[u32]| ids.iter().map(|&id| t.token_text(id).into_owned()).collect::<Vec<_>>();
    assert_eq!(text(&t.encode("hello world", PLAIN).unwrap()), ["hello", " world"]);
    assert!(t.warnings().is_empty());
    let t = load(&bpe(Some("from-the-future")));
    assert!(t.warnings().iter().any(|w| w.contains("from-the-future")));
    assert!(!load(&bpe(None)).warnings().is_empty());
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    let t = load(&bpe(Some("qwen2")));
    let end = t.special_id("<|im_end|>").unwrap();
    assert!(t.is_control(end) && t.is_eog(end));
    assert_eq!(t.eot(), Some(end));
    let plain = t.encode("a<|im_end|>b<tool>", PLAIN).unwrap();
    assert!(plain.iter().all(|&id| !t.is_control(id)));
    assert_eq!(t.token_text(*plain.last().unwrap()), "<tool>");
    assert_eq!(t.decode(&plain, true), "a<|im_end|>b<tool>");
    let parsed = t.encode("a<|im_end|>b", PROMPT).unwrap();
    assert_eq!(parsed.iter().filter(|&&id| id == end).count(), 1);
    assert_eq!(t.decode(&parsed, true), "ab");
    assert_eq!(t.decode(&parsed, false), "a<|im_end|>b");

    let t = load(&spm());
    let plain = t.encode("<s>hello</s>", PLAIN).unwrap();
    assert!(plain.iter().all(|&id| !t.is_control(id)), "no merge makes a control token");
    assert_eq!(t.encode("<s>hello", PROMPT).unwrap(), [1, 1, t.encode("hello", PLAIN).unwrap()[0]]);
    assert_eq!(t.tokens().filter(|(_, _, special)| *special).count(), 3);
}

#[test]
fn spm_adds_and_removes_one_leading_space() {
    let t = load(&spm());
    let ids = t.encode("hello", EncodeOptions { add_special: true, parse_special: false }).unwrap();
    assert_eq!(ids.iter().map(|&id| t.token_text(id)).collect::<Vec<_>>(), ["<s>", " hello"]);
    assert_eq!(t.decode(&ids, true), "hello");
    assert_eq!(t.decode(&t.encode(" hello", PLAIN).unwrap(), true), " hello");
    // An answer that continues a prompt keeps its space.
    let mut d = Detokenizer::continuing(t.clone(), true);
    assert_eq!(d.push(ids[1]), " hello");
    assert!(t.encode("", PLAIN).unwrap().is_empty());
    let mut m = spm();
    m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
    m.insert("tokenizer.ggml.add_eos_token", Value::Bool(true));
    let ids = load(&m).encode("hello", PROMPT).unwrap();
    assert_eq!(ids.iter().map(|&id| t.token_text(id)).collect::<Vec<_>>(), ["hello", "</s>"]);
}

#[test]
fn a_character_of_several_tokens_comes_out_whole() {
    let t = load(&bpe(Some("gpt-2")));
    let ids = t.encode("🦙!", PLAIN).unwrap();
    let mut d = Detokenizer::new(t, true);
    let pieces: Vec<String> = ids.iter().map(|&id| d.push(id)).collect();
    assert_eq!(pieces, ["", "", "", "🦙", "!"]);
    // Half a character, then a letter: the half is replaced at once, the letter is not lost.
    let mut d = Detokenizer::new(load(&bpe(None)), true);
    assert_eq!(
        (d.push(0xf0), d.push(0x9f), d.push(u32::from(b'x'))),
        ("".into(), "".into(), "\u{fffd}x".into())
    );
    assert_eq!(d.push(0xe2), "");
    assert_eq!(d.finish(), "\u{fffd}");
}

#[test]
fn a_text_beyond_the_limit_is_refused_early() {
    let t = load(&bpe(Some("gpt-2")));
    let text = "word ".repeat(4_000_000);
    let start = cpu_seconds();
    let result = t.encode_limited(&text, PLAIN, 1000);
    assert!(matches!(result, Err(TokenizerError::TooManyTokens { at_least: 1001.., limit: 1000 })));
    assert!(cpu_seconds() - start < 0.5);
    assert_eq!(t.encode_limited("hello", PLAIN, 1).unwrap().len(), 1);
    assert!(t.count_upper_bound(5) >= 5);
}

#[test]
fn a_text_beyond_the_limit_is_cut_early_and_exactly() {
    let t = load(&Spec::small(Kind::Bert).metadata(DType::F32));
    let special = EncodeOptions { add_special: true, parse_special: false };
    let text = "some words, and then more ".repeat(20);
    let whole = t.encode(&text, special).unwrap();
    assert_eq!(t.encode_cut(&text, special, whole.len()).unwrap(), (whole.clone(), false));
    for limit in [0, 1, 2, 3, 50, whole.len() - 1] {
        let (ids, cut) = t.encode_cut(&text, special, limit).unwrap();
        assert!(cut && ids.len() == limit, "{limit}: {}", ids.len());
        if let Some((last, first)) = ids.split_last() {
            assert_eq!((Some(*last), first), (t.sep(), &whole[..limit - 1]));
        }
    }
    let start = cpu_seconds();
    t.encode_cut(&"word ".repeat(4_000_000), special, 256).unwrap();
    assert!(cpu_seconds() - start < 0.5);
}

#[test]
fn malformed_vocabularies_are_refused_with_a_reason() {
    let refused = |change: &dyn Fn(&mut Metadata)| {
        let mut m = bpe(None);
        change(&mut m);
        Tokenizer::from_metadata(&m).expect_err("refused").to_string()
    };
    let set = |key: &'static str, value: Value| {
        refused(&move |m: &mut Metadata| m.insert(format!("tokenizer.ggml.{key}"), value.clone()))
    };
    assert!(set("model", Value::String("t5".into())).contains("`t5`"));
    assert!(set("tokens", Value::Bool(true)).contains("list of strings"));
    assert!(set("tokens", strings(["x".repeat(5000)])).contains("length of a token"));
    assert!(set("token_type", Value::Array(Array::Signed(vec![1; 3]))).contains("token types"));
    assert!(set("bos_token_id", Value::Unsigned(99_999)).contains("99999"));
    assert!(set("add_bos_token", Value::Unsigned(1)).contains("true or false"));
    assert!(set("merges", Value::Unsigned(1)).contains("list of strings"));
    assert!(Tokenizer::from_metadata(&Metadata::default()).is_err());
    // "None", as converters write it.
    let mut m = bpe(None);
    m.insert("tokenizer.ggml.padding_token_id", Value::Unsigned(u64::from(u32::MAX)));
    assert_eq!(load(&m).pad(), None);
    // Merges of unknown tokens, without a space, or empty are left out.
    m.insert("tokenizer.ggml.merges", strings(["h e", "x", "", " ", "q zz", "h e"]));
    let t = load(&m);
    assert!(t.warnings().iter().any(|w| w.contains("4 of 6 merges")));
    assert_eq!(t.encode("he", PLAIN).unwrap().len(), 1);
}

const JSON: &str = r###"{
  "truncation": {"max_length": 4}, "padding": {"strategy": "BatchLongest"},
  "added_tokens": [
    {"id": 0, "content": "[PAD]", "special": true}, {"id": 1, "content": "[UNK]", "special": true},
    {"id": 2, "content": "[CLS]", "special": true}, {"id": 3, "content": "[SEP]", "special": true}],
  "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
    "strip_accents": null, "lowercase": true},
  "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "un": 4, "##aff": 5, "##able": 6, "!": 7,
      "中": 8, "cafe": 9, "a": 10, "##a": 11}}
}"###;

#[test]
fn an_encoders_json_gives_wordpiece() {
    let t = Tokenizer::from_json(JSON.as_bytes()).unwrap();
    let options = EncodeOptions { add_special: true, parse_special: false };
    assert_eq!(t.encode("UNaffable Café!中中 x", options).unwrap(), [2, 4, 5, 6, 9, 7, 8, 8, 1, 3]);
    assert_eq!(t.encode("un\u{200b}aff\tab", PLAIN).unwrap(), [4, 5, 1], "format characters vanish");
    assert_eq!(t.encode(&"a".repeat(100), PLAIN).unwrap().len(), 100);
    assert_eq!(t.encode(&"a".repeat(101), PLAIN).unwrap(), [1], "too long a word is unknown");
    assert_eq!(t.encode("[SEP]", PLAIN).unwrap(), [1, 1, 1], "brackets and letters, not the token");
    assert_eq!(t.decode(&[2, 4, 5, 6, 9, 3], true), "unaffable cafe");
    assert_eq!((t.bos(), t.sep(), t.pad(), t.unk()), (Some(2), Some(3), Some(0), Some(1)));
    let bad = |from: &str, to: &str| Tokenizer::from_json(JSON.replace(from, to).as_bytes()).is_err();
    assert!(bad("WordPiece", "BPE") && bad("BertNormalizer", "NFC") && bad("\"a\": 10", "\"a\": 99999999"));
    assert!(bad("\"a\": 10", "\"a\": -1") && bad("}", ""));
}

/// Vocabularies that would make naive merging quadratic: a chain of ever longer tokens.
#[test]
fn hostile_vocabularies_and_texts_stay_fast() {
    let texts: Vec<String> = ["a", " ", "\n", "7", "中", "a ", "\u{301}", "Aa", "<tool", "'"]
        .iter()
        .map(|s| s.repeat((1 << 20) / s.len()))
        .collect();
    let mut chain = bpe(Some("gpt-2"));
    let tokens: Vec<String> = (1..1000).map(|n| "a".repeat(n)).chain([">".into()]).collect();
    let merges: Vec<String> = (1..999).map(|n| format!("{} a", "a".repeat(n))).collect();
    chain.insert("tokenizer.ggml.tokens", strings(&tokens));
    chain.insert("tokenizer.ggml.token_type", Value::Array(Array::Signed(vec![1; tokens.len()])));
    chain.insert("tokenizer.ggml.merges", strings(&merges));
    let long = (1..1000).map(|n| ("a".repeat(n), 1, n as f32)).collect();
    let mut models = vec![chain, metadata("llama", long), spm()];
    for pre in ["default", "llama-bpe", "gpt-4o", "deepseek-llm", "deepseek-v3", "bloom", "falcon"] {
        models.push(bpe(Some(pre)));
    }
    for m in &models {
        let t = load(m);
        for text in &texts {
            let start = cpu_seconds();
            let ids = t.encode(text, PLAIN).unwrap();
            let took = cpu_seconds() - start;
            // The build for tests without optimisation is not what runs anywhere.
            let limit = if cfg!(debug_assertions) { 30.0 } else { 1.0 };
            let head: String = text.chars().take(4).collect();
            assert!(
                took < limit,
                "{head:?}: {took:.2} s for {} ids of {:?}",
                ids.len(),
                m.str("tokenizer.ggml.pre")
            );
        }
    }
}

fn any_model() -> impl Strategy<Value = Metadata> {
    let text =
        prop_oneof!["[ab ▁Ġ<>|x0-9A-F]{0,6}", "\\PC{0,4}", Just("<0x41>".to_owned()), Just("</s>".into())];
    let token = (text.clone(), -1i64..8, prop_oneof![any::<f32>(), Just(0.0f32)]);
    let model = prop_oneof![Just("llama"), Just("gpt2"), Just("bert")];
    let merges =
        prop::collection::vec(("[abĠ]{0,3}", "[ abĠ]{0,3}").prop_map(|(a, b)| format!("{a} {b}")), 0..12);
    let pre = prop_oneof![
        Just("default"),
        Just("llama-bpe"),
        Just("qwen2"),
        Just("gpt-4o"),
        Just("tekken"),
        Just("deepseek-llm"),
        Just("deepseek-coder"),
        Just("deepseek-v3"),
        Just("viking"),
        Just("falcon"),
        Just("?")
    ];
    let ids = prop::collection::vec(prop::option::of(0u64..12), 5);
    (model, prop::collection::vec(token, 1..40), merges, pre, ids, any::<[bool; 3]>()).prop_map(
        |(model, tokens, merges, pre, ids, flags)| {
            let mut m = metadata(model, tokens);
            m.insert("tokenizer.ggml.merges", strings(merges));
            m.insert("tokenizer.ggml.pre", Value::String(pre.into()));
            for (key, id) in ["bos", "eos", "unknown", "seperator", "eot"].iter().zip(ids) {
                if let Some(id) = id {
                    m.insert(format!("tokenizer.ggml.{key}_token_id"), Value::Unsigned(id));
                }
            }
            for (key, flag) in ["add_bos_token", "add_eos_token", "add_space_prefix"].iter().zip(flags) {
                m.insert(format!("tokenizer.ggml.{key}"), Value::Bool(flag));
            }
            m
        },
    )
}

proptest! {
    #[test]
    fn byte_level_round_trip(text in any::<String>(), which in 0usize..6) {
        let pre = ["gpt-2", "llama-bpe", "qwen2", "gpt-4o", "deepseek-llm", "viking"][which];
        let t = load(&bpe(Some(pre)));
        let ids = t.encode(&text, PLAIN).unwrap();
        prop_assert!(ids.len() <= t.count_upper_bound(text.len()));
        prop_assert_eq!(&t.decode(&ids, false), &text);
        prop_assert_eq!(incremental(&t, &ids, false), text);
    }

    #[test]
    fn damaged_files_end_in_an_error_or_work(
        which in 0usize..2, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = Vec::new();
        GgufWriter::new(if which == 0 { bpe(Some("llama-bpe")) } else { spm() }).write(&mut bytes).unwrap();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(gguf) = Gguf::from_bytes(bytes) && let Ok(t) = Tokenizer::from_metadata(gguf.metadata()) {
            let ids = t.encode("hello world é<|im_end|> 123", PROMPT).unwrap();
            t.decode(&ids, false);
        }
    }

    #[test]
    fn spm_round_trip(text in any::<String>(), spaces in "[ hello<s>é\n]{0,40}") {
        let t = load(&spm());
        for text in [text.replace('▁', "_"), spaces] {
            let ids = t.encode(&text, PLAIN).unwrap();
            prop_assert!(ids.len() <= t.count_upper_bound(text.len()));
            prop_assert_eq!(&t.decode(&ids, false), &text);
            prop_assert_eq!(incremental(&t, &ids, false), text);
        }
    }

    #[test]
    fn incremental_text_is_the_whole_text(ids in prop::collection::vec(0u32..300, 0..60), skip in any::<bool>()) {
        for t in [load(&bpe(None)), load(&spm())] {
            prop_assert_eq!(incremental(&t, &ids, skip), t.decode(&ids, skip));
        }
    }

    #[test]
    fn any_vocabulary_and_any_text_end_without_a_panic(
        m in any_model(), text in any::<String>(), more in "[ab <>/s|▁é中0-9\n]{0,40}",
        ids in prop::collection::vec(any::<u32>(), 0..8),
    ) {
        if let Ok(t) = Tokenizer::from_metadata(&m) {
            let t = Arc::new(t);
            for text in [&text, &more] {
                for options in [PLAIN, PROMPT] {
                    let got = t.encode(text, options).unwrap();
                    prop_assert!(got.iter().all(|&id| (id as usize) < t.vocab_size()));
                    prop_assert_eq!(incremental(&t, &got, true), t.decode(&got, true));
                    let _ = t.encode_limited(text, options, 3);
                }
            }
            for &id in &ids {
                let _ = (t.token_bytes(id), t.token_text(id), t.is_eog(id), t.is_control(id));
            }
            t.decode(&ids, false);
        }
    }
}
