//! A Hugging Face `tokenizer.json` of the WordPiece kind.

use std::collections::HashMap;

use serde::Deserialize;

use super::{
    MAX_TOKENS, TokenizerError,
    special::Roles,
    vocab::{Kind, Vocab, within},
    wordpiece::Normalizer,
};

/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;

#[derive(Deserialize)]
struct File {
    model: ModelPart,
    normalizer: Option<NormalizerPart>,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct ModelPart {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    // Of another kind the vocabulary may be a list; it is looked at only after the kind.
    #[serde(default)]
    vocab: serde_json::Value,
}

#[derive(Deserialize)]
struct NormalizerPart {
    #[serde(rename = "type")]
    kind: String,
    clean_text: Option<bool>,
    handle_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
    lowercase: Option<bool>,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
    content: String,
    #[serde(default)]
    special: bool,
}

fn bad(reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Json(reason.into())
}

/// Reads the vocabulary in the form of GGUF files, the special tokens and the normaliser.
pub(super) fn read(bytes: &[u8]) -> Result<(Vocab, Roles, Normalizer), TokenizerError> {
    within("size of tokenizer.json", bytes.len() as u64, MAX_FILE)?;
    let file: File = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let model = file.model;
    let prefix = model.continuing_subword_prefix;
    match model.kind.as_deref() {
        Some("WordPiece") => {}
        // Old files name no kind; only WordPiece has this setting together with an unknown token.
        None if prefix.is_some() && model.unk_token.is_some() => {}
        kind => return Err(bad(format!("model `{}` is not WordPiece", kind.unwrap_or("unnamed")))),
    }
    let prefix = prefix.unwrap_or_else(|| "##".to_owned());
    let entries: HashMap<String, u64> =
        serde_json::from_value(model.vocab).map_err(|error| bad(error.to_string()))?;
    let mut tokens: Vec<(&str, Kind)> = Vec::new();
    let added = file.added_tokens.iter().map(|added| {
        (added.content.as_str(), added.id, if added.special { Kind::Control } else { Kind::UserDefined })
    });
    let plain = entries.iter().map(|(text, &id)| (text.as_str(), id, Kind::Normal));
    for (text, id, kind) in plain.chain(added) {
        let slot = usize::try_from(id).ok().filter(|&id| id < MAX_TOKENS);
        let Some(slot) = slot else {
            let limit = MAX_TOKENS as u64;
            return Err(TokenizerError::TooLarge { what: "token id", value: id, limit });
        };
        if tokens.len() <= slot {
            tokens.resize(slot + 1, ("", Kind::Unused));
        }
        if let Some(token) = tokens.get_mut(slot) {
            *token = (text, kind);
        }
    }
    let mut vocab = Vocab::default();
    for &(text, kind) in &tokens {
        match (kind, text.strip_prefix(prefix.as_str())) {
            (Kind::Normal, Some(rest)) if !rest.is_empty() => vocab.push(rest.as_bytes(), kind)?,
            (Kind::Normal, _) => vocab.push(format!(" {text}").as_bytes(), kind)?,
            _ => vocab.push(text.as_bytes(), kind)?,
        }
    }
    let find = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| tokens.iter().position(|(text, _)| text == name))
            .and_then(|id| u32::try_from(id).ok())
    };
    let roles = Roles {
        bos: find(&["[CLS]", "<s>"]),
        sep: find(&["[SEP]", "</s>"]),
        unk: find(&[model.unk_token.as_deref().unwrap_or("[UNK]")]),
        pad: find(&["[PAD]", "<pad>"]),
        mask: find(&["[MASK]", "<mask>"]),
        ..Roles::default()
    };
    Ok((vocab, roles, normalizer(file.normalizer)?))
}

fn normalizer(part: Option<NormalizerPart>) -> Result<Normalizer, TokenizerError> {
    let Some(part) = part else {
        return Ok(Normalizer {
            lowercase: false,
            strip_accents: false,
            clean_text: false,
            space_chinese: false,
        });
    };
    if part.kind != "BertNormalizer" {
        return Err(bad(format!("normalizer `{}` is not BertNormalizer", part.kind)));
    }
    let lowercase = part.lowercase.unwrap_or(true);
    Ok(Normalizer {
        lowercase,
        strip_accents: part.strip_accents.unwrap_or(lowercase),
        clean_text: part.clean_text.unwrap_or(true),
        space_chinese: part.handle_chinese_chars.unwrap_or(true),
    })
}
