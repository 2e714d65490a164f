//! Metadata of generated models, with a small tokenizer that works.

use super::{Kind, ROPE_BASE, Spec};
use crate::{
    dtype::DType,
    gguf::{Array, Metadata, Value},
};

const CHAT_TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                             {% if add_generation_prompt %}assistant:{% endif %}";

impl Spec {
    /// The key-value section for a model with weights of this type.
    pub fn metadata(&self, dtype: DType) -> Metadata {
        let mut m = Metadata::default();
        let arch = match self.kind {
            Kind::Decoder(architecture) => architecture.name(),
            Kind::Bert => "bert",
        };
        m.insert("general.architecture", Value::String(arch.into()));
        m.insert("general.name", Value::String(format!("synthetic {arch} {dtype}")));
        m.insert("general.quantization_version", Value::Unsigned(2));
        let mut number = |key: &str, value: usize| {
            m.insert(format!("{arch}.{key}"), Value::Unsigned(value as u64));
        };
        number("block_count", self.layers);
        number("embedding_length", self.width);
        number("feed_forward_length", self.ffn);
        number("context_length", self.context);
        number("attention.head_count", self.heads);
        number("vocab_size", self.vocab);
        if self.kind == Kind::Bert {
            number("pooling_type", 1);
            m.insert("bert.attention.layer_norm_epsilon", Value::Float(1e-12));
            m.insert("bert.attention.causal", Value::Bool(false));
            self.word_piece(&mut m);
        } else {
            number("attention.head_count_kv", self.kv_heads);
            number("attention.key_length", self.head_dim);
            number("attention.value_length", self.head_dim);
            number("rope.dimension_count", self.head_dim);
            if let Some(window) = self.window {
                number("attention.sliding_window", window as usize);
            }
            m.insert(format!("{arch}.attention.layer_norm_rms_epsilon"), Value::Float(1e-5));
            m.insert(format!("{arch}.rope.freq_base"), Value::Float(ROPE_BASE));
            self.sentence_piece(&mut m);
        }
        m
    }

    /// Byte tokens, printable characters, and filler words.
    fn sentence_piece(&self, m: &mut Metadata) {
        const NORMAL: i64 = 1;
        let mut tokens: Vec<(String, i64)> = vec![("<unk>".into(), 2), ("<s>".into(), 3), ("</s>".into(), 3)];
        tokens.extend((0..=255u8).map(|b| (format!("<0x{b:02X}>"), 6)));
        tokens.push(("▁".into(), NORMAL));
        tokens.extend((b'!'..=b'~').map(|b| (char::from(b).to_string(), NORMAL)));
        tokens.extend((b'a'..=b'z').map(|b| (format!("▁{}", char::from(b)), NORMAL)));
        tokens.extend((0..self.vocab).map(|i| (format!("▁w{i}"), NORMAL)));
        tokens.truncate(self.vocab);
        #[allow(clippy::cast_precision_loss, reason = "scores only rank")]
        let scores = (0..tokens.len()).map(|i| -(i as f32)).collect();
        m.insert("tokenizer.ggml.model", Value::String("llama".into()));
        m.insert("tokenizer.ggml.pre", Value::String("default".into()));
        m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
        for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] {
            m.insert(format!("tokenizer.ggml.{key}_token_id"), Value::Unsigned(id));
        }
        m.insert("tokenizer.ggml.add_bos_token", Value::Bool(true));
        m.insert("tokenizer.ggml.add_eos_token", Value::Bool(false));
        m.insert("tokenizer.chat_template", Value::String(CHAT_TEMPLATE.into()));
        insert_tokens(m, tokens);
    }

    /// BERT's special tokens, lower-case letters as word starts and continuations, and filler words.
    fn word_piece(&self, m: &mut Metadata) {
        let mut tokens: Vec<(String, i64)> =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(|t| (t.to_owned(), 3)).into();
        for b in b'!'..=b'~' {
            tokens.push((format!("▁{}", char::from(b)), 1));
            tokens.push((char::from(b).to_string(), 1));
        }
        tokens.extend((0..self.vocab).map(|i| (format!("▁w{i}"), 1)));
        tokens.truncate(self.vocab);
        m.insert("tokenizer.ggml.model", Value::String("bert".into()));
        m.insert("tokenizer.ggml.token_type_count", Value::Unsigned(2));
        for (key, id) in
            [("padding", 0), ("unknown", 1), ("cls", 2), ("bos", 2), ("seperator", 3), ("eos", 3)]
        {
            m.insert(format!("tokenizer.ggml.{key}_token_id"), Value::Unsigned(id));
        }
        insert_tokens(m, tokens);
    }
}

fn insert_tokens(m: &mut Metadata, tokens: Vec<(String, i64)>) {
    let (texts, types): (Vec<_>, Vec<_>) =
        tokens.into_iter().map(|(text, kind)| (text.into_bytes().into_boxed_slice(), kind)).unzip();
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::Strings(texts)));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::Signed(types)));
}
