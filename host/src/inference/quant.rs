//! What a model file's name says: its quantisation, and whether it is one part of several.

/// Quantisations by name, most wanted first: what a pull takes when none is asked for.
pub(super) const PREFERRED: [&str; 34] = [
    "Q4_K_M", "Q4_K_S", "Q4_0", "Q8_0", "Q5_K_M", "Q6_K", "Q4_K_L", "Q4_K", "Q4_K_XL", "Q5_K_S", "Q5_K",
    "Q5_0", "Q4_1", "Q5_1", "Q5_K_L", "Q6_K_L", "Q8_K_XL", "Q6_K_XL", "Q5_K_XL", "F16", "BF16", "F32",
    "FP16", "FP32", "IQ4_XS", "IQ4_NL", "Q3_K_M", "Q3_K_L", "Q3_K_S", "Q2_K", "Q2_K_L", "IQ3_M", "IQ2_M",
    "MXFP4",
];

/// A file's name without folder and `.gguf`.
pub(super) fn stem(file: &str) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    match name.len().checked_sub(5).and_then(|at| name.split_at_checked(at)) {
        Some((stem, extension)) if extension.eq_ignore_ascii_case(".gguf") => stem,
        _ => name,
    }
}

/// `(1, 3)` for `…-00001-of-00003.gguf`.
pub(super) fn split_part(file: &str) -> Option<(u32, u32)> {
    let (rest, of) = stem(file).rsplit_once("-of-")?;
    let (_, part) = rest.rsplit_once('-')?;
    let number = |s: &str| (s.len() == 5).then(|| s.parse().ok()).flatten();
    Some((number(part)?, number(of)?))
}

/// The quantisation in a file's name, in its usual spelling.
pub(super) fn of(file: &str) -> Option<&'static str> {
    let stem = stem(file).to_ascii_uppercase();
    let mut best: Option<(usize, usize, &'static str)> = None;
    for name in PREFERRED {
        for (at, _) in stem.match_indices(name) {
            let end = at + name.len();
            let edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
            let before = stem.get(..at).and_then(|s| s.chars().next_back());
            // `tiny_Q4_0` is common, `IQ4_XS` must not be read as `Q4_XS`.
            let before_fits = edge(before) || before == Some('_');
            if before_fits && edge(stem.get(end..).and_then(|s| s.chars().next())) {
                let candidate = (end, name.len(), name);
                if best.is_none_or(|b| (candidate.0, candidate.1) > (b.0, b.1)) {
                    best = Some(candidate);
                }
            }
        }
    }
    best.map(|(_, _, name)| name)
}

/// The word after the colon in a model's name: its quantisation, else the file's stem.
pub(super) fn tag_of(file: &str) -> String {
    of(file).map_or_else(|| stem(file).to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisations_are_read_from_names() {
        assert_eq!(of("Qwen2.5-0.5B-Instruct-Q4_K_M.gguf"), Some("Q4_K_M"));
        assert_eq!(of("model-q8_0.gguf"), Some("Q8_0"));
        assert_eq!(of("model.IQ4_XS.gguf"), Some("IQ4_XS"));
        assert_eq!(of("model-bf16.gguf"), Some("BF16"));
        assert_eq!(of("tiny_f32.gguf"), Some("F32"));
        assert_eq!(of("dir/big-Q4_K_L-00001-of-00002.gguf"), Some("Q4_K_L"));
        assert_eq!(of("guide.gguf"), None);
        assert_eq!(tag_of("a/guide.GGUF"), "guide");
        assert_eq!(split_part("big-00002-of-00010.gguf"), Some((2, 10)));
        assert_eq!(split_part("big-2-of-10.gguf"), None);
    }
}
