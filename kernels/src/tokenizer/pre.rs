//! Which splitting rules the value of `tokenizer.ggml.pre` stands for.

use super::split::Rule;

/// What a pre-tokenizer's name implies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pre {
    /// Applied one after the other.
    pub(super) rules: &'static [Rule],
    /// A word that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// A start token is added when the file does not say.
    pub(super) add_bos: bool,
}

const GPT2: &[Rule] = &[Rule::Gpt2];
const DEFAULT: &[Rule] =
    &[Rule::Punctuation("$+<=>^~|"), Rule::Gpt2, Rule::Numbers(usize::MAX), Rule::ThreeDigits];
const LLAMA3: &[Rule] = &[Rule::Llama3 { digits: 3, marks: false, tail: true }];
const QWEN2: &[Rule] = &[Rule::Llama3 { digits: 1, marks: false, tail: true }];
const QWEN35: &[Rule] = &[Rule::Llama3 { digits: 1, marks: true, tail: true }];
const SEED: &[Rule] = &[Rule::Llama3 { digits: 1, marks: false, tail: false }];
const MINICPM: &[Rule] = &[Rule::Numbers(3), Rule::Llama3 { digits: usize::MAX, marks: false, tail: true }];
const STARCODER: &[Rule] = &[Rule::Numbers(1), Rule::Gpt2];
const FALCON: &[Rule] = &[Rule::Punctuation("$+<=>^~|`"), Rule::Gpt2, Rule::ThreeDigits];
const DEEPSEEK_LLM: &[Rule] = &[
    Rule::Newline,
    Rule::SpacedCased,
    Rule::SpacedMarks,
    Rule::TrailingSpace,
    Rule::Cjk,
    Rule::Numbers(usize::MAX),
];
const DEEPSEEK_CODER: &[Rule] =
    &[Rule::Newline, Rule::SpacedLetters, Rule::SpacedPunctuation, Rule::Cjk, Rule::Numbers(1)];
const DEEPSEEK_V3: &[Rule] = &[Rule::Numbers(3), Rule::HanKana, Rule::DeepseekV3];
const BLOOM: &[Rule] = &[Rule::Bloom];
const VIKING: &[Rule] = &[Rule::Bloom, Rule::Numbers(1)];
const TEKKEN: &[Rule] = &[Rule::Gpt4o { digits: 1, contractions: false }];
const GPT4O: &[Rule] = &[Rule::Gpt4o { digits: 3, contractions: true }];

impl Pre {
    /// What a file without the key, or with an unknown name, gets.
    pub(super) const DEFAULT: Self = Self::plain(DEFAULT);

    const fn plain(rules: &'static [Rule]) -> Self {
        Self { rules, ignore_merges: false, add_bos: false }
    }

    /// The rules of a name, if it is known.
    pub(super) fn named(name: &str) -> Option<Self> {
        let rules = match name {
            "default" => DEFAULT,
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
            | "lfm2" | "jina-v5-nano" => {
                return Some(Self { rules: LLAMA3, ignore_merges: true, add_bos: true });
            }
            "tekken" => return Some(Self { rules: TEKKEN, ignore_merges: true, add_bos: true }),
            "minicpm5" => return Some(Self { rules: MINICPM, ignore_merges: true, add_bos: false }),
            "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => LLAMA3,
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan"
            | "solar-open" | "grok-2" | "bailingmoe" | "bailingmoe2" | "llada-moe" => QWEN2,
            "qwen35" => QWEN35,
            "seed-coder" => SEED,
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4"
            | "jina-es" | "jina-de" | "jina-v1-en" | "jina-v2-es" | "jina-v2-de" | "jina-v2-code"
            | "roberta-bpe" | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" => GPT2,
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
            | "mellum2" => STARCODER,
            "falcon" => FALCON,
            "deepseek-llm" => DEEPSEEK_LLM,
            "deepseek-coder" => DEEPSEEK_CODER,
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" => DEEPSEEK_V3,
            "poro-chat" | "bloom" | "gpt3-finnish" => BLOOM,
            "viking" => VIKING,
            "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => GPT4O,
            _ => return None,
        };
        Some(Self::plain(rules))
    }
}
