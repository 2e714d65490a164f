//! Models that other programs have already downloaded: found in place, never copied, never changed.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{ModelEntry, Origin, quant};

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 6;
/// Most folder entries looked at in one cache.
const MAX_ENTRIES: usize = 50_000;
/// Largest manifest read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Where other programs keep their models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CacheRoots {
    pub(super) ollama: Vec<PathBuf>,
    pub(super) hugging_face: Vec<PathBuf>,
    pub(super) lm_studio: Vec<PathBuf>,
    pub(super) llama_cpp: Vec<PathBuf>,
}

impl CacheRoots {
    /// The places that the programs' own environment variables and defaults name.
    pub(super) fn from_env() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = var("HOME").or_else(|| var("USERPROFILE"));
        let at = |parts: &str| home.as_ref().map(|h| h.join(parts));
        let cache = var("XDG_CACHE_HOME").or_else(|| at(".cache"));
        let in_cache = |parts: &str| cache.as_ref().map(|c| c.join(parts));
        let hub = var("HF_HUB_CACHE")
            .or_else(|| var("HF_HOME").map(|h| h.join("hub")))
            .or_else(|| in_cache("huggingface/hub"));
        let llama = var("LLAMA_CACHE").or_else(|| in_cache("llama.cpp"));
        Self {
            ollama: match var("OLLAMA_MODELS") {
                Some(folder) => vec![folder],
                None => [at(".ollama/models"), Some("/usr/share/ollama/.ollama/models".into())]
                    .into_iter()
                    .flatten()
                    .collect(),
            },
            hugging_face: hub.into_iter().collect(),
            lm_studio: [at(".lmstudio/models"), in_cache("lm-studio/models")].into_iter().flatten().collect(),
            llama_cpp: llama.into_iter().collect(),
        }
    }

    /// Everything found, best place first within each program.
    pub(super) fn find(&self) -> Vec<ModelEntry> {
        let mut found = Vec::new();
        self.ollama.iter().for_each(|root| ollama(root, &mut found));
        self.hugging_face.iter().for_each(|root| hugging_face(root, &mut found));
        self.lm_studio.iter().for_each(|root| lm_studio(root, &mut found));
        self.llama_cpp.iter().for_each(|root| llama_cpp(root, &mut found));
        found
    }
}

/// Seconds since 1970 of a file's last change.
pub(super) fn modified(meta: &fs::Metadata) -> u64 {
    let since = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// The SHA-256 in a blob's name: 64 hex digits, with or without `sha256-`.
pub(super) fn digest_of(name: &str) -> Option<String> {
    let hex = name.strip_prefix("sha256-").or_else(|| name.strip_prefix("sha256:")).unwrap_or(name);
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hex.to_ascii_lowercase())
}

fn entry(name: String, origin: Origin, path: &Path, digest: Option<String>) -> Option<ModelEntry> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let (size, modified) = (meta.len(), modified(&meta));
    Some(ModelEntry { name, origin, path: Some(path.to_owned()), size, digest, modified })
}

/// Visits files below `root` (links followed, each folder once), at most [`MAX_DEPTH`] deep, in name order.
fn walk(root: &Path, visit: &mut dyn FnMut(&Path)) {
    let mut left = MAX_ENTRIES;
    let mut seen = HashSet::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(canonical) = folder.canonicalize() else { continue };
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        if !seen.insert(canonical) {
            continue;
        }
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).take(left).collect();
        left -= paths.len();
        paths.sort();
        for path in paths {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() => visit(&path),
                Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => folders.push((path, depth + 1)),
                _ => {}
            }
        }
        if left == 0 {
            tracing::warn!(root = %root.display(), "more than {MAX_ENTRIES} files; the rest is not looked at");
            return;
        }
    }
}

/// A file's name when it is a model to offer: a GGUF that is neither a later part of a split nor a projector.
fn model_file(path: &Path) -> Option<&str> {
    let file = path.file_name()?.to_str()?;
    let lower = file.to_ascii_lowercase();
    let fits = lower.ends_with(".gguf") && !lower.starts_with("mmproj") && !lower.contains("-mmproj");
    (fits && quant::split_part(file).is_none_or(|(part, _)| part == 1)).then_some(file)
}

/// `manifests/REGISTRY/OWNER/NAME/TAG` names a blob.
fn ollama(root: &Path, found: &mut Vec<ModelEntry>) {
    let manifests = root.join("manifests");
    walk(&manifests, &mut |path| {
        let Ok(relative) = path.strip_prefix(&manifests) else { return };
        let parts: Vec<&str> = relative.iter().filter_map(|p| p.to_str()).collect();
        let name = match *parts.as_slice() {
            [_, "library", name, tag] => format!("{name}:{tag}"),
            [_, owner, name, tag] => format!("{owner}/{name}:{tag}"),
            _ => return,
        };
        if let Some(digest) = ollama_blob(path) {
            let blob = root.join("blobs").join(format!("sha256-{digest}"));
            found.extend(entry(name, Origin::Ollama, &blob, Some(digest)));
        }
    });
}

/// The digest of the model layer of an Ollama manifest. Manifests with an adapter mean something else than the
/// bare file, so they are left out.
fn ollama_blob(manifest: &Path) -> Option<String> {
    if fs::metadata(manifest).ok()?.len() > MAX_MANIFEST {
        return None;
    }
    let json: serde_json::Value = serde_json::from_slice(&fs::read(manifest).ok()?).ok()?;
    let layers = json.get("layers")?.as_array()?;
    let of = |kind: &str| {
        let wanted = format!("application/vnd.ollama.image.{kind}");
        layers.iter().find(|l| l.get("mediaType").and_then(|m| m.as_str()) == Some(&wanted))
    };
    if of("adapter").is_some() {
        return None;
    }
    digest_of(of("model")?.get("digest")?.as_str()?)
}

/// `models--USER--REPO/snapshots/REVISION/….gguf`, links into `blobs/SHA256`. The revision of `refs/main` wins.
fn hugging_face(root: &Path, found: &mut Vec<ModelEntry>) {
    let Ok(repos) = fs::read_dir(root) else { return };
    for repo in repos.flatten().take(MAX_ENTRIES) {
        let folder = repo.file_name();
        let Some(name) = folder.to_str().and_then(|f| f.strip_prefix("models--")) else { continue };
        let name = name.replacen("--", "/", 1);
        let snapshots = repo.path().join("snapshots");
        let main = fs::read_to_string(repo.path().join("refs/main")).unwrap_or_default();
        let mut here = Vec::new();
        walk(&snapshots, &mut |path| {
            let Some(file) = model_file(path) else { return };
            let current = path.strip_prefix(&snapshots).is_ok_and(|p| p.starts_with(main.trim()));
            let link = fs::read_link(path).ok();
            let digest =
                link.as_deref().and_then(Path::file_name).and_then(|n| n.to_str()).and_then(digest_of);
            let name = format!("{name}:{}", quant::tag_of(file));
            here.extend(
                entry(name, Origin::HuggingFace, path, digest).map(|e| (current && !main.is_empty(), e)),
            );
        });
        here.sort_by_key(|(current, e)| (!current, std::cmp::Reverse(e.modified)));
        found.extend(here.into_iter().map(|(_, e)| e));
    }
}

/// `USER/REPO/….gguf`.
fn lm_studio(root: &Path, found: &mut Vec<ModelEntry>) {
    walk(root, &mut |path| {
        let Some(file) = model_file(path) else { return };
        let Ok(relative) = path.strip_prefix(root) else { return };
        let parts: Vec<&str> = relative.iter().filter_map(|p| p.to_str()).collect();
        let name = match *parts.as_slice() {
            [user, repo, .., _] => format!("{user}/{repo}:{}", quant::tag_of(file)),
            _ => quant::stem(file).to_owned(),
        };
        found.extend(entry(name, Origin::LmStudio, path, None));
    });
}

/// Flat files.
fn llama_cpp(root: &Path, found: &mut Vec<ModelEntry>) {
    walk(root, &mut |path| {
        let Some(file) = model_file(path) else { return };
        found.extend(entry(quant::stem(file).to_owned(), Origin::LlamaCpp, path, None));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn models_of_four_programs_are_found_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let hex = "ab".repeat(32);
        let ollama = dir.path().join("ollama");
        let manifest = serde_json::json!({"layers": [
            {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:00"},
            {"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{hex}")},
        ]});
        put(
            &ollama.join("manifests/registry.ollama.ai/library/qwen2.5/0.5b"),
            manifest.to_string().as_bytes(),
        );
        put(&ollama.join("manifests/registry.ollama.ai/library/broken/latest"), b"{");
        put(&ollama.join(format!("blobs/sha256-{hex}")), b"GGUF");
        let hub = dir.path().join("hub");
        let repo = hub.join("models--bart--Tiny-GGUF");
        put(&repo.join("blobs").join(&hex), b"GGUF");
        put(&repo.join("refs/main"), b"rev1");
        fs::create_dir_all(repo.join("snapshots/rev1")).unwrap();
        std::os::unix::fs::symlink(
            format!("../../blobs/{hex}"),
            repo.join("snapshots/rev1/Tiny-Q4_K_M.gguf"),
        )
        .unwrap();
        put(&repo.join("snapshots/rev1/mmproj-Tiny.gguf"), b"GGUF");
        let lm = dir.path().join("lm");
        put(&lm.join("org/Repo-GGUF/repo-q8_0.gguf"), b"GGUF");
        put(&lm.join("org/Repo-GGUF/big-Q8_0-00001-of-00002.gguf"), b"GGUF");
        put(&lm.join("org/Repo-GGUF/big-Q8_0-00002-of-00002.gguf"), b"GGUF");
        // A cycle of links must end.
        std::os::unix::fs::symlink(&lm, lm.join("org/again")).unwrap();
        let llama = dir.path().join("llama");
        put(&llama.join("ggml-org_gemma_gemma.gguf"), b"GGUF");
        let roots = CacheRoots {
            ollama: vec![ollama],
            hugging_face: vec![hub],
            lm_studio: vec![lm],
            llama_cpp: vec![llama, dir.path().join("not-there")],
        };
        let found = roots.find();
        let names: Vec<&str> = found.iter().map(|e| e.name.as_str()).collect();
        assert!(names.contains(&"qwen2.5:0.5b"), "{names:?}");
        assert!(names.contains(&"bart/Tiny-GGUF:Q4_K_M"), "{names:?}");
        assert!(names.contains(&"org/Repo-GGUF:Q8_0"), "{names:?}");
        assert!(names.contains(&"ggml-org_gemma_gemma"), "{names:?}");
        assert!(!names.iter().any(|n| n.contains("mmproj") || n.contains("00002-of")), "{names:?}");
        let hf = found.iter().find(|e| e.origin == Origin::HuggingFace).unwrap();
        assert_eq!(hf.digest.as_deref(), Some(hex.as_str()));
    }
}
