//! Text to token ids and back, as the model's own tokenizer does it.
//!
//! Three kinds: SentencePiece BPE ([`Tokenizer::from_metadata`], `llama`), byte-level BPE (`gpt2`, with the
//! pre-tokenizer that `tokenizer.ggml.pre` names) and WordPiece (`bert`, or [`Tokenizer::from_json`] for an
//! encoder's `tokenizer.json`). The ids are those of llama.cpp's test vectors.
//!
//! Why not the `tokenizers` crate: its vocabulary formats are not GGUF's (SPM by scores without merges,
//! WordPiece with `▁` in front of words, special tokens by type), so every file would be translated first;
//! its pre-tokenizers are regular expressions with look-ahead, run by a backtracking engine, which a hostile
//! text can make slow; and it refuses merges that name unknown tokens, where llama.cpp is lenient. Here the
//! patterns are written by hand (`split`), every one linear in the text, and the merge loop is a heap over a
//! linked list, so no vocabulary and no text make encoding quadratic.
//!
//! Where llama.cpp differs from the tokenizer that a model was trained with, the latter counts: its published
//! patterns (deepseek-llm's ideographic space, capital letters outside ASCII for gpt-4o and tekken), BERT's
//! full decomposition of Hangul and its limit of 100 characters a word. Character classes are those of the
//! current Unicode, so letters that are newer than a model's own tables count as letters.
//!
//! Text that looks like a control token is plain text unless the caller asks for
//! [`EncodeOptions::parse_special`], and no merge ever produces a control token, so that a user's message
//! cannot end its own turn.

mod bpe;
mod class;
mod decode;
mod json;
mod merge;
mod pre;
mod special;
mod split;
mod spm;
mod vocab;
mod wordpiece;
mod words;

use std::borrow::Cow;

pub use decode::Detokenizer;

use crate::gguf::{GgufError, Metadata};
use bpe::Bpe;
use merge::NONE;
use pre::Pre;
use special::{Part, Partition, Roles};
use spm::Spm;
use vocab::{Kind, Vocab};
use wordpiece::{Normalizer, WordPiece};
use words::Ids;

/// Most tokens a vocabulary may have.
pub const MAX_TOKENS: usize = 1 << 20;
/// Longest token, in bytes.
pub const MAX_TOKEN_LEN: usize = 4096;
/// Longest text that is encoded, in bytes.
pub const MAX_TEXT: usize = 1 << 30;

/// Why a vocabulary or a text is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A key is missing or has a wrong type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// A kind of tokenizer that is not implemented.
    #[error("tokenizer model `{0}` is not supported (llama, gpt2 and bert are)")]
    Model(String),
    /// A cap is passed.
    #[error("{what} is {value}, more than the {limit} allowed")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The file's number.
        value: u64,
        /// The cap.
        limit: u64,
    },
    /// A list beside the tokens is shorter than theirs.
    #[error("there are {count} {what} for {tokens} tokens")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there must be.
        tokens: usize,
    },
    /// A special token's id is not in the vocabulary.
    #[error("key `{key}` names token {id}, but there are only {tokens}")]
    Id {
        /// The key.
        key: String,
        /// Its value.
        id: i64,
        /// Number of tokens.
        tokens: usize,
    },
    /// The special tokens cannot be searched for.
    #[error("the special tokens are unusable: {0}")]
    Special(String),
    /// A `tokenizer.json` that cannot be read or asks for something else than WordPiece.
    #[error("tokenizer.json: {0}")]
    Json(String),
    /// The text has more tokens than the caller allows.
    #[error("the text has at least {at_least} tokens, more than the {limit} allowed")]
    TooManyTokens {
        /// Tokens counted before giving up.
        at_least: usize,
        /// The caller's limit.
        limit: usize,
    },
}

/// How a text is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add the start and end tokens that the model wants.
    pub add_special: bool,
    /// Turn the texts of control tokens into their ids (for prompts that a chat template built).
    pub parse_special: bool,
}

#[derive(Debug)]
enum Model {
    Spm(Spm),
    Bpe(Bpe),
    WordPiece(WordPiece),
}

/// A model's tokenizer. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    roles: Roles,
    partition: Partition,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    warnings: Vec<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError`] for a missing or malformed key, an unknown kind, or a cap that is passed.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        match metadata.str("tokenizer.ggml.model")? {
            "llama" => Self::read_spm(metadata),
            "gpt2" => Self::read_bpe(metadata),
            "bert" => Self::read_bert(metadata),
            other => Err(TokenizerError::Model(other.chars().take(64).collect())),
        }
    }

    /// Reads an encoder's Hugging Face `tokenizer.json` of the WordPiece kind. Its settings for truncation
    /// and padding are ignored: the caller decides on both.
    ///
    /// # Errors
    /// [`TokenizerError::Json`] when it is malformed or of another kind, or a cap that is passed.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let (mut vocab, roles, normalizer) = json::read(bytes)?;
        vocab.build_index(|_, _| true);
        Self::wordpiece(vocab, roles, normalizer, true, true)
    }

    fn read_spm(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let raw = vocab::raw_tokens(metadata)?;
        let scores = match metadata.get("tokenizer.ggml.scores") {
            Some(_) => metadata.floats("tokenizer.ggml.scores")?,
            None => &[],
        };
        if !scores.is_empty() && scores.len() < raw.len() {
            let (count, tokens) = (scores.len(), raw.len());
            return Err(TokenizerError::Count { what: "scores", count, tokens });
        }
        let mut vocab = Vocab::default();
        let mut bytes = vec![NONE; 256];
        for (id, &(text, kind)) in (0u32..).zip(&raw) {
            vocab.push(&spm::token_bytes(text, kind), kind)?;
            let byte = spm::byte_token(text).filter(|_| kind == Kind::Byte);
            if let Some(slot) = byte.and_then(|b| bytes.get_mut(usize::from(b))) {
                *slot = id;
            }
        }
        let defaults = Roles { bos: Some(1), eos: Some(2), unk: Some(0), ..Roles::default() };
        let roles = Self::roles(metadata, &mut vocab, defaults)?;
        vocab.build_index(|_, kind| !kind.is_special() && kind != Kind::Byte);
        let mut warnings = Vec::new();
        let lost =
            bytes.iter_mut().filter(|id| **id == NONE).map(|id| *id = roles.unk.unwrap_or(NONE)).count();
        if lost > 0 {
            warnings.push(format!("{lost} bytes have no token and become the unknown token"));
        }
        let name = metadata.get("general.name").and(metadata.str("general.name").ok()).unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let phi3 = name.contains("phi-3") || name.contains("phi3");
        let eats_blanks = |text: &[u8]| phi3 && !matches!(text, b"<unk>" | b"<s>" | b"<|endoftext|>");
        Ok(Self {
            model: Model::Spm(Spm::new(&vocab, scores, bytes)),
            partition: Partition::new(&vocab, eats_blanks)?,
            add_bos: flag(metadata, "add_bos_token", true)?,
            add_eos: flag(metadata, "add_eos_token", false)?,
            add_space_prefix: flag(metadata, "add_space_prefix", true)?,
            vocab,
            roles,
            warnings,
        })
    }

    fn read_bpe(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let mut warnings = Vec::new();
        let pre = match metadata
            .get("tokenizer.ggml.pre")
            .map(|_| metadata.str("tokenizer.ggml.pre"))
            .transpose()?
        {
            Some(name) => Pre::named(name).unwrap_or_else(|| {
                let name: String = name.chars().take(64).collect();
                warnings.push(format!("unknown pre-tokenizer `{name}`: the default is used"));
                Pre::DEFAULT
            }),
            None => {
                warnings.push("the file names no pre-tokenizer: the default is used".to_owned());
                Pre::DEFAULT
            }
        };
        let mut vocab = Vocab::default();
        for (text, kind) in vocab::raw_tokens(metadata)? {
            match spm::byte_token(text).filter(|_| kind == Kind::Byte) {
                Some(byte) => vocab.push(&[byte], kind)?,
                None => vocab.push(&bpe::token_bytes(text, kind), kind)?,
            }
        }
        let roles = Self::roles(metadata, &mut vocab, Roles::default())?;
        vocab.build_index(|_, kind| !kind.is_special());
        let merges = metadata.strings("tokenizer.ggml.merges")?;
        Ok(Self {
            model: Model::Bpe(Bpe::new(&vocab, merges, pre, &mut warnings)?),
            partition: Partition::new(&vocab, |_| false)?,
            add_bos: flag(metadata, "add_bos_token", pre.add_bos)?,
            add_eos: flag(metadata, "add_eos_token", false)?,
            add_space_prefix: false,
            vocab,
            roles,
            warnings,
        })
    }

    fn read_bert(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let mut vocab = Vocab::default();
        for (text, kind) in vocab::raw_tokens(metadata)? {
            vocab.push(&wordpiece::token_bytes(text, kind), kind)?;
        }
        let defaults = Roles {
            bos: Some(101),
            unk: Some(100),
            sep: Some(102),
            pad: Some(0),
            mask: Some(103),
            ..Roles::default()
        };
        let roles = Self::roles(metadata, &mut vocab, defaults)?;
        let lowercase = flag(metadata, "normalizer.lowercase", true)?;
        let strip_accents = flag(metadata, "normalizer.strip_accents", lowercase)?;
        let normalizer = Normalizer { lowercase, strip_accents, ..Normalizer::default() };
        let add_bos = flag(metadata, "add_bos_token", true)?;
        let add_sep = flag(metadata, "add_sep_token", true)?;
        Self::wordpiece(vocab, roles, normalizer, add_bos, add_sep)
    }

    fn wordpiece(
        mut vocab: Vocab,
        roles: Roles,
        normalizer: Normalizer,
        add_bos: bool,
        add_eos: bool,
    ) -> Result<Self, TokenizerError> {
        vocab.build_index(|_, kind| !kind.is_special());
        Ok(Self {
            model: Model::WordPiece(WordPiece::new(&vocab, normalizer)?),
            partition: Partition::new(&vocab, |_| false)?,
            add_bos,
            add_eos,
            add_space_prefix: false,
            vocab,
            roles,
            warnings: Vec::new(),
        })
    }

    fn roles(metadata: &Metadata, vocab: &mut Vocab, mut roles: Roles) -> Result<Roles, TokenizerError> {
        roles.read(metadata, vocab)?;
        vocab.build_index(|_, _| true);
        roles.detect(vocab);
        Ok(roles)
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// [`TokenizerError::TooLarge`] for a text longer than [`MAX_TEXT`].
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        self.encode_limited(text, options, usize::MAX)
    }

    /// The ids of a text that may have at most `max_tokens`; a longer one is refused as soon as that is
    /// known, so that the work is bounded by the limit and not by the text.
    ///
    /// # Errors
    /// [`TokenizerError::TooManyTokens`], or [`TokenizerError::TooLarge`] beyond [`MAX_TEXT`].
    pub fn encode_limited(
        &self,
        text: &str,
        options: EncodeOptions,
        max_tokens: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Ids { ids: Vec::new(), limit: max_tokens };
        self.fill(text, options, &mut out)?;
        Ok(out.ids)
    }

    /// The ids of a text, cut to at most `max_tokens` with the end token in its place, and whether anything was
    /// cut. The work is bounded by the limit and not by the text.
    ///
    /// # Errors
    /// [`TokenizerError::TooLarge`] for a text longer than [`MAX_TEXT`].
    pub fn encode_cut(
        &self,
        text: &str,
        options: EncodeOptions,
        max_tokens: usize,
    ) -> Result<(Vec<u32>, bool), TokenizerError> {
        let mut out = Ids { ids: Vec::new(), limit: max_tokens };
        match self.fill(text, options, &mut out) {
            Ok(()) => return Ok((out.ids, false)),
            Err(TokenizerError::TooManyTokens { .. }) => {}
            Err(error) => return Err(error),
        }
        let end = self.end_token().filter(|_| options.add_special && self.add_eos);
        out.ids.truncate(max_tokens.saturating_sub(usize::from(end.is_some())));
        out.ids.extend(end.filter(|_| max_tokens > 0));
        Ok((out.ids, true))
    }

    /// Appends the ids of a text; stops with an error beyond the limit, which leaves a little more than it.
    fn fill(&self, text: &str, options: EncodeOptions, out: &mut Ids) -> Result<(), TokenizerError> {
        vocab::within("length of the text", text.len() as u64, MAX_TEXT as u64)?;
        if options.add_special {
            out.ids.extend(self.bos().filter(|_| self.add_bos));
        }
        let mut blank_due = self.add_space_prefix;
        self.partition.parts(text, options.parse_special, |part| match part {
            Part::Token(id) => {
                blank_due = self.add_space_prefix;
                out.ids.push(id);
                out.check()
            }
            Part::Text(text) => match &self.model {
                Model::Spm(spm) => spm.encode(&self.vocab, text, std::mem::take(&mut blank_due), out),
                Model::Bpe(bpe) => bpe.encode(&self.vocab, text, out),
                Model::WordPiece(wp) => wp.encode(self.roles.unk, text, out),
            },
        })?;
        if options.add_special {
            out.ids.extend(self.end_token().filter(|_| self.add_eos));
        }
        out.check()
    }

    /// More tokens than this no text of `bytes` bytes can have.
    pub fn count_upper_bound(&self, bytes: usize) -> usize {
        match self.model {
            Model::Bpe(_) => bytes.saturating_add(2),
            // A blank before every part, or characters that normalisation takes apart.
            Model::Spm(_) | Model::WordPiece(_) => bytes.saturating_mul(2).saturating_add(3),
        }
    }

    /// The token that `add_special` puts at the end.
    fn end_token(&self) -> Option<u32> {
        if matches!(self.model, Model::WordPiece(_)) { self.roles.sep } else { self.roles.eos }
    }

    fn strips_first_space(&self) -> bool {
        self.add_space_prefix || matches!(self.model, Model::WordPiece(_))
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The bytes that a token adds to a text (its name for a control token); empty for an unknown id.
    pub fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.vocab.bytes(id).unwrap_or_default())
    }

    /// The same as text; a token of half a character shows U+FFFD.
    pub fn token_text(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.vocab.bytes(id).unwrap_or_default())
    }

    /// All tokens for a constrained decoder: id, bytes, and whether it is a control token (or the unknown
    /// one), which no text contains.
    pub fn tokens(&self) -> impl Iterator<Item = (u32, &[u8], bool)> {
        self.vocab.ids().map(|id| (id, self.vocab.bytes(id).unwrap_or_default(), self.is_control(id)))
    }

    /// The start token (`[CLS]` for BERT).
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The end token.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that ends a turn of a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// The token that ends a message within a turn.
    pub fn eom(&self) -> Option<u32> {
        self.roles.eom
    }

    /// The unknown token.
    pub fn unk(&self) -> Option<u32> {
        self.roles.unk
    }

    /// The padding token.
    pub fn pad(&self) -> Option<u32> {
        self.roles.pad
    }

    /// The separator (BERT).
    pub fn sep(&self) -> Option<u32> {
        self.roles.sep
    }

    /// The mask (BERT).
    pub fn mask(&self) -> Option<u32> {
        self.roles.mask
    }

    /// Whether `add_special` puts the start token first.
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.roles.bos.is_some()
    }

    /// Whether `add_special` puts an end token (the separator for BERT) last.
    pub fn adds_eos(&self) -> bool {
        self.add_eos && self.end_token().is_some()
    }

    /// Whether a generation ends with this token.
    pub fn is_eog(&self, id: u32) -> bool {
        self.roles.ends.binary_search(&id).is_ok()
    }

    /// All tokens that end a generation, in order.
    pub fn eog_tokens(&self) -> &[u32] {
        &self.roles.ends
    }

    /// Whether this is a control token or the unknown one: never text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocab.kind(id).is_some_and(Kind::is_special)
    }

    /// The id of the token with this text, control tokens included.
    pub fn special_id(&self, text: &str) -> Option<u32> {
        let mut ids = self.vocab.ids();
        ids.find(|&id| self.is_control(id) && self.vocab.bytes(id) == Some(text.as_bytes()))
    }

    /// What the file left unsaid or got wrong, in words for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn flag(metadata: &Metadata, key: &str, default: bool) -> Result<bool, TokenizerError> {
    Ok(metadata.optional(&format!("tokenizer.ggml.{key}"), Metadata::bool)?.unwrap_or(default))
}
