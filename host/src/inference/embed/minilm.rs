//! all-MiniLM-L6-v2: the embedder that `potluck pull embedder` installs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::inference::{ModelEntry, Origin, caches::digest_of, pull::digest_of_file};

/// The name to ask for.
pub(in crate::inference) const NAME: &str = "embedder";
/// What it is called elsewhere.
const TITLE: &str = "all-MiniLM-L6-v2";
/// Other names for it, in lower case.
const ALIASES: [&str; 4] = [NAME, "all-minilm", "all-minilm-l6-v2", "sentence-transformers/all-minilm-l6-v2"];
/// Longest input in tokens, as sentence-transformers uses the model.
pub(super) const TOKENS: usize = 256;
/// Length of its vectors.
const DIMS: usize = 384;
/// Largest manifest read, in bytes.
const MAX_MANIFEST: u64 = 1 << 16;
/// The manifest's name.
const MANIFEST: &str = "manifest.json";

/// One file of the model: name, bytes, SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inference) struct Part {
    pub(in crate::inference) file: &'static str,
    pub(in crate::inference) size: u64,
    pub(in crate::inference) digest: &'static str,
}

/// Its files, the weights last.
pub(in crate::inference) const fn parts() -> [Part; 3] {
    [
        Part {
            file: "config.json",
            size: 612,
            digest: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        Part {
            file: "tokenizer.json",
            size: 466_247,
            digest: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        Part {
            file: "model.safetensors",
            size: 90_868_376,
            digest: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    ]
}

/// Whether a name means the embedder.
pub(in crate::inference) fn is_alias(name: &str) -> bool {
    let lower = name.trim().to_ascii_lowercase();
    let bare = lower.strip_suffix(":latest").unwrap_or(&lower);
    let bare = bare.strip_prefix("https://").unwrap_or(bare);
    let bare = ["hf.co/", "huggingface.co/"].iter().find_map(|p| bare.strip_prefix(p)).unwrap_or(bare);
    ALIASES.contains(&bare)
}

/// What is kept about the installed embedder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::inference) struct Installed {
    pub(in crate::inference) model: String,
    pub(in crate::inference) digest: String,
    pub(in crate::inference) dims: usize,
    pub(in crate::inference) source: String,
    /// Seconds since 1970.
    pub(in crate::inference) pulled_at: u64,
}

impl Installed {
    /// The manifest of files that came from `source`.
    pub(in crate::inference) fn new(parts: &[Part; 3], source: String, pulled_at: u64) -> Self {
        let [.., weights] = parts;
        Self { model: TITLE.into(), digest: weights.digest.into(), dims: DIMS, source, pulled_at }
    }

    /// Where the embedder is below the folder of models.
    pub(in crate::inference) fn folder(models: &Path) -> PathBuf {
        models.join(NAME)
    }

    /// The manifest in a folder; `None` when there is none or a file is not there.
    pub(in crate::inference) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(MANIFEST);
        let small = fs::metadata(&path).ok()?.len() <= MAX_MANIFEST;
        let manifest: Self = small.then(|| serde_json::from_slice(&fs::read(&path).ok()?).ok()).flatten()?;
        digest_of(&manifest.digest)?;
        let whole = parts().iter().all(|part| folder.join(part.file).is_file());
        whole.then_some(manifest)
    }

    /// Writes the manifest, which is what makes a folder an installed embedder.
    pub(in crate::inference) fn write(&self, folder: &Path) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let (path, partial) = (folder.join(MANIFEST), folder.join("manifest.partial"));
        fs::write(&partial, json)?;
        fs::rename(&partial, &path)
    }

    /// Takes over files that somebody put into the folder by hand, if they are the right ones.
    pub(in crate::inference) fn adopt(folder: &Path, now: u64) {
        let parts = parts();
        let right = |part: &Part| fs::metadata(folder.join(part.file)).is_ok_and(|m| m.len() == part.size);
        if folder.join(MANIFEST).exists() || !parts.iter().all(right) {
            return;
        }
        let same = |part: &Part| digest_of_file(&folder.join(part.file)).is_ok_and(|d| d == part.digest);
        if !parts.iter().all(same) {
            tracing::warn!(folder = %folder.display(), "these files are not those of {TITLE}; they are not used");
            return;
        }
        if let Err(error) = Self::new(&parts, "files found in place".into(), now).write(folder) {
            tracing::warn!(%error, "the embedder's manifest cannot be written");
        }
    }

    /// The listing's line.
    pub(in crate::inference) fn entry(&self, folder: &Path) -> Option<ModelEntry> {
        let path = folder.join("model.safetensors");
        let size = fs::metadata(&path).ok()?.len();
        Some(ModelEntry {
            name: NAME.into(),
            origin: Origin::Store,
            path: Some(path),
            size,
            digest: Some(self.digest.clone()),
            modified: self.pulled_at,
        })
    }

    /// What tells its vectors from another model's.
    pub(in crate::inference) fn model_id(&self) -> String {
        format!("{}:{}", self.model, self.digest.get(..16).unwrap_or(&self.digest))
    }
}
