//! Tiny model files, written byte by byte, valid ones and ones that lie.
//!
//! This writer is the tests' own, so that a mistake in the product's reader is not repeated here.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::{fs, path::Path};

use crate::random::Random;

/// Value type numbers of the format.
pub mod kind {
    /// Unsigned 32 bits.
    pub const U32: u32 = 4;
    /// Signed 32 bits.
    pub const I32: u32 = 5;
    /// IEEE 754 binary32.
    pub const F32: u32 = 6;
    /// One byte, 0 or 1.
    pub const BOOL: u32 = 7;
    /// Length and bytes.
    pub const STRING: u32 = 8;
    /// Element type, count and elements.
    pub const ARRAY: u32 = 9;
    /// Unsigned 64 bits.
    pub const U64: u32 = 10;
}

/// One tensor's record as it will stand in the file, true or not.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: Vec<u8>,
    /// Its dimensions, the first runs fastest.
    pub dims: Vec<u64>,
    /// Its type number.
    pub kind: u32,
    /// Its offset from the start of the data.
    pub offset: u64,
}

/// A file in parts. [`File::bytes`] puts them together as they are; every part may be made to lie first.
#[derive(Clone, Debug)]
pub struct File {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// The version.
    pub version: u32,
    /// Entries of the key-value section: key, type number, value's bytes.
    pub keys: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// `Some`: the number of keys that is written instead of the true one.
    pub key_count: Option<u64>,
    /// Tensor records.
    pub tensors: Vec<Tensor>,
    /// `Some`: the number of tensors that is written instead of the true one.
    pub tensor_count: Option<u64>,
    /// Where the data starts: the next multiple of this.
    pub alignment: usize,
    /// All tensors' bytes.
    pub data: Vec<u8>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            keys: Vec::new(),
            key_count: None,
            tensors: Vec::new(),
            tensor_count: None,
            alignment: 32,
            data: Vec::new(),
        }
    }
}

/// A string as it stands in a file.
pub fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

/// An array as it stands in a file.
pub fn array<'a>(kind: u32, elements: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((elements.len() as u64).to_le_bytes());
    elements.for_each(|element| bytes.extend(element));
    bytes
}

impl File {
    /// Adds or replaces a key.
    pub fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.keys.retain(|(name, _, _)| name != key.as_bytes());
        self.keys.push((key.as_bytes().to_vec(), kind, value));
    }

    /// Adds or replaces an unsigned number.
    pub fn set_u32(&mut self, key: &str, value: u32) {
        self.set(key, kind::U32, value.to_le_bytes().to_vec());
    }

    /// Adds or replaces a float.
    pub fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, kind::F32, value.to_le_bytes().to_vec());
    }

    /// Adds or replaces a boolean.
    pub fn set_bool(&mut self, key: &str, value: bool) {
        self.set(key, kind::BOOL, vec![u8::from(value)]);
    }

    /// Adds or replaces a text.
    pub fn set_str(&mut self, key: &str, value: &str) {
        self.set(key, kind::STRING, string(value.as_bytes()));
    }

    /// Takes a key away.
    pub fn unset(&mut self, key: &str) {
        self.keys.retain(|(name, _, _)| name != key.as_bytes());
    }

    /// Adds a tensor of f32 values.
    pub fn tensor(&mut self, name: &str, dims: &[u64], values: impl Iterator<Item = f32>) {
        let offset = self.data.len().next_multiple_of(self.alignment);
        self.data.resize(offset, 0);
        values.for_each(|value| self.data.extend(value.to_le_bytes()));
        self.tensors.push(Tensor {
            name: name.as_bytes().to_vec(),
            dims: dims.to_vec(),
            kind: 0,
            offset: offset as u64,
        });
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.keys {
            out.extend(string(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend(u32::try_from(tensor.dims.len()).expect("few dimensions").to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out
    }
}

/// A small Llama with random weights and a vocabulary of single characters and bytes, so that anyone can count
/// its tokens by hand: a text takes one for its start, one for the space put before it, and one per character
/// of ASCII.
#[derive(Clone, Debug)]
pub struct Tiny {
    /// Gives the weights.
    pub seed: u64,
    /// Context in tokens.
    pub context: u32,
    /// Width of a token's vector; a multiple of 32.
    pub width: u32,
    /// Layers.
    pub layers: u32,
    /// The chat template.
    pub template: Option<String>,
    /// What the file calls the model.
    pub name: String,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            seed: 1,
            context: 512,
            width: 64,
            layers: 2,
            template: Some(TEMPLATE.into()),
            name: "tiny".into(),
        }
    }
}

/// The template of [`Tiny`]: one letter for the role, the text, a bar.
pub const TEMPLATE: &str = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}|\
     {% endfor %}{% if add_generation_prompt %}a:{% endif %}";

/// How many tokens [`Tiny`]'s vocabulary makes of a text of printable ASCII.
pub fn tiny_tokens(text: &str) -> u64 {
    assert!(text.bytes().all(|b| (32..127).contains(&b)), "only printable ASCII can be counted by hand");
    2 + text.len() as u64
}

impl Tiny {
    /// A model that takes some milliseconds per token, for what must still be running when something happens.
    pub fn slow() -> Self {
        Self { width: 512, layers: 6, context: 4096, name: "slow".into(), ..Self::default() }
    }

    /// The file in parts.
    pub fn file(&self) -> File {
        let mut file = File::default();
        let width = u64::from(self.width);
        let heads = 4u32;
        let kv_heads = 2u32;
        let hidden = width * 2;
        file.set_str("general.architecture", "llama");
        file.set_str("general.name", &self.name);
        file.set_str("general.license", "apache-2.0");
        file.set_u32("llama.context_length", self.context);
        file.set_u32("llama.embedding_length", self.width);
        file.set_u32("llama.block_count", self.layers);
        file.set_u32("llama.feed_forward_length", self.width * 2);
        file.set_u32("llama.attention.head_count", heads);
        file.set_u32("llama.attention.head_count_kv", kv_heads);
        file.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
        file.set_u32("llama.rope.dimension_count", self.width / heads);
        file.set_f32("llama.rope.freq_base", 10_000.0);
        let vocabulary = vocabulary();
        file.set_u32("llama.vocab_size", u32::try_from(vocabulary.len()).expect("a small vocabulary"));
        set_vocabulary(&mut file, &vocabulary);
        if let Some(template) = &self.template {
            file.set_str("tokenizer.chat_template", template);
        }

        let mut random = Random::new(self.seed);
        let mut matrix = |file: &mut File, name: &str, cols: u64, rows: u64, size: f32| {
            let values: Vec<f32> = (0..cols * rows).map(|_| random.signed_unit() * size).collect();
            file.tensor(name, &[cols, rows], values.into_iter());
        };
        let vocab = vocabulary.len() as u64;
        let kv_width = width / u64::from(heads) * u64::from(kv_heads);
        matrix(&mut file, "token_embd.weight", width, vocab, 1.0);
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let ones = || std::iter::repeat_n(1.0, usize::try_from(width).expect("a small width"));
            file.tensor(&name("attn_norm"), &[width], ones());
            matrix(&mut file, &name("attn_q"), width, width, 0.2);
            matrix(&mut file, &name("attn_k"), width, kv_width, 0.2);
            matrix(&mut file, &name("attn_v"), width, kv_width, 0.2);
            matrix(&mut file, &name("attn_output"), width, width, 0.2);
            file.tensor(&name("ffn_norm"), &[width], ones());
            matrix(&mut file, &name("ffn_gate"), width, hidden, 0.2);
            matrix(&mut file, &name("ffn_up"), width, hidden, 0.2);
            matrix(&mut file, &name("ffn_down"), hidden, width, 0.2);
        }
        file.tensor("output_norm.weight", &[width], std::iter::repeat_n(1.0, width as usize));
        matrix(&mut file, "output.weight", width, vocab, 0.35);
        // The first three tokens are control tokens. Without weights of their own they are never the likeliest,
        // so that an answer goes on until its limit.
        let start = usize::try_from(file.tensors.last().map_or(0, |t| t.offset)).expect("a small file");
        file.data[start..start + 3 * 4 * width as usize].fill(0);
        file
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        self.file().bytes()
    }

    /// Writes the file and gives the path as a text.
    pub fn write(&self, path: &Path) -> String {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("the folder can be made");
        }
        fs::write(path, self.bytes()).expect("the model file can be written");
        path.to_str().expect("a path of UTF-8").to_owned()
    }
}

/// Tokens with their type numbers: 2 unknown, 3 control, 6 byte, 1 normal.
fn vocabulary() -> Vec<(Vec<u8>, i32)> {
    let mut tokens = vec![(b"<unk>".to_vec(), 2), (b"<s>".to_vec(), 3), (b"</s>".to_vec(), 3)];
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>").into_bytes(), 6)));
    tokens.push(("\u{2581}".as_bytes().to_vec(), 1));
    tokens.extend((33..127u8).map(|byte| (vec![byte], 1)));
    tokens
}

fn set_vocabulary(file: &mut File, tokens: &[(Vec<u8>, i32)]) {
    file.set_str("tokenizer.ggml.model", "llama");
    let texts: Vec<Vec<u8>> = tokens.iter().map(|(text, _)| string(text)).collect();
    file.set("tokenizer.ggml.tokens", kind::ARRAY, array(kind::STRING, texts.iter().map(Vec::as_slice)));
    let scores: Vec<[u8; 4]> = tokens.iter().map(|_| 0f32.to_le_bytes()).collect();
    file.set("tokenizer.ggml.scores", kind::ARRAY, array(kind::F32, scores.iter().map(|s| &s[..])));
    let kinds: Vec<[u8; 4]> = tokens.iter().map(|(_, kind)| kind.to_le_bytes()).collect();
    file.set("tokenizer.ggml.token_type", kind::ARRAY, array(kind::I32, kinds.iter().map(|k| &k[..])));
    file.set_u32("tokenizer.ggml.unknown_token_id", 0);
    file.set_u32("tokenizer.ggml.bos_token_id", 1);
    file.set_u32("tokenizer.ggml.eos_token_id", 2);
    file.set_bool("tokenizer.ggml.add_bos_token", true);
    file.set_bool("tokenizer.ggml.add_eos_token", false);
}
