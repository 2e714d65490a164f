//! What can be pulled: the words a user types, and what they mean.

use std::fmt;

/// The file to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullReference {
    /// A repository on the hub.
    Hub {
        /// The owner.
        user: String,
        /// The repository.
        repo: String,
        /// The quantisation or file name asked for, as typed.
        quant: Option<String>,
    },
    /// A file at an address.
    Address {
        /// The address.
        url: String,
        /// The file's name.
        file: String,
    },
}

/// A reference that cannot be pulled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{reference}` cannot be pulled: {reason}; give hf.co/USER/REPO[:QUANT], the https address of a .gguf file, or `embedder`"
)]
pub struct ReferenceError {
    /// What was asked for.
    pub reference: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Longest reference, in bytes.
const MAX_LEN: usize = 512;

impl PullReference {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`ReferenceError`] when it has none of the known shapes.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let text = text.trim();
        let error = |reason| ReferenceError { reference: text.chars().take(100).collect(), reason };
        if text.len() > MAX_LEN {
            return Err(error("it is too long"));
        }
        let bare = text.strip_prefix("https://").unwrap_or(text);
        for prefix in ["hf.co/", "huggingface.co/", "hf:", "hf://"] {
            let Some(rest) = bare.strip_prefix(prefix) else { continue };
            return match hub_file(rest) {
                Some(reference) => Ok(reference),
                None => hub(rest).ok_or_else(|| error("the repository's name is not USER/REPO")),
            };
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return address(text).ok_or_else(|| error("the address does not end in .gguf"));
        }
        // `USER/REPO:QUANT` alone, as llama.cpp's -hf takes it.
        if bare.split('/').count() == 2 {
            return hub(bare).ok_or_else(|| error("the repository's name is not USER/REPO"));
        }
        Err(error("it names no place to pull from"))
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 128
        && !part.starts_with('.')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn hub(rest: &str) -> Option<PullReference> {
    let (path, quant) = match rest.split_once(':') {
        Some((path, quant)) => (path, Some(quant)),
        None => (rest, None),
    };
    let (user, repo) = path.trim_end_matches('/').split_once('/')?;
    let quant = quant.filter(|q| !q.is_empty() && !q.eq_ignore_ascii_case("latest"));
    if !is_name(user) || !is_name(repo) || !quant.is_none_or(is_name) {
        return None;
    }
    Some(PullReference::Hub { user: user.into(), repo: repo.into(), quant: quant.map(str::to_owned) })
}

/// A web address of one file of a repository: `USER/REPO/{resolve,blob}/main/FILE.gguf`.
fn hub_file(rest: &str) -> Option<PullReference> {
    let path = rest.split(['?', '#']).next()?;
    let mut parts = path.split('/');
    let (user, repo) = (parts.next()?, parts.next()?);
    let verb = parts.next()?;
    if !matches!(verb, "resolve" | "blob") || parts.next()? != "main" {
        return None;
    }
    let file = parts.next_back()?;
    if !is_name(user) || !is_name(repo) || !is_name(file) || !has_extension(file) {
        return None;
    }
    Some(PullReference::Hub { user: user.into(), repo: repo.into(), quant: Some(file.to_owned()) })
}

fn has_extension(file: &str) -> bool {
    file.len() > 5 && file.to_ascii_lowercase().ends_with(".gguf")
}

fn address(url: &str) -> Option<PullReference> {
    let path = url.split(['?', '#']).next()?;
    let file = path.rsplit('/').next()?;
    let host = url.split("://").nth(1)?.split('/').next()?;
    if host.is_empty() || !is_name(file) || !has_extension(file) {
        return None;
    }
    Some(PullReference::Address { url: url.into(), file: file.into() })
}

impl fmt::Display for PullReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { user, repo, quant: None } => write!(f, "hf.co/{user}/{repo}"),
            Self::Hub { user, repo, quant: Some(quant) } => write!(f, "hf.co/{user}/{repo}:{quant}"),
            Self::Address { url, .. } => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub_of(text: &str) -> (String, String, Option<String>) {
        match PullReference::parse(text).unwrap() {
            PullReference::Hub { user, repo, quant } => (user, repo, quant),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_spelling_of_a_repository_means_the_same() {
        let want = ("bart".to_owned(), "Qwen2.5-0.5B-GGUF".to_owned(), Some("q4_k_m".to_owned()));
        for prefix in ["hf.co/", "huggingface.co/", "hf:", "https://hf.co/", "https://huggingface.co/", ""] {
            assert_eq!(hub_of(&format!("{prefix}bart/Qwen2.5-0.5B-GGUF:q4_k_m")), want, "{prefix}");
        }
        assert_eq!(hub_of("hf.co/a/b").2, None);
        assert_eq!(hub_of("hf.co/a/b:latest").2, None);
        assert_eq!(
            hub_of("https://huggingface.co/a/b/resolve/main/m.gguf?download=true").2.unwrap(),
            "m.gguf"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["", "x", "hf.co/a", "hf.co/../b", "hf.co/a/b:c/d", "https://h/x.bin", "ftp://h/x.gguf", "a/b/c"]
        {
            assert!(PullReference::parse(bad).is_err(), "{bad}");
        }
        assert!(PullReference::parse(&"a/".repeat(4000)).is_err());
    }
}
