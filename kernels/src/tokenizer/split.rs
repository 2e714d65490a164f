//! The pre-tokenizers' patterns, by hand: each in time linear in the text, whatever the text is.
//!
//! The published patterns are regular expressions with look-ahead, some of them (`\s+$`,
//! `[Lu…]*[Ll…]+`) quadratic or worse for a backtracking engine. Every function here states the pattern it
//! stands for and returns the end of the match that starts at `at`.

use super::class::{Ch, LETTER, LOWER, MARK, NUMBER, PUNCT, SPACE, SYMBOL, Text, UPPER};

/// One splitting rule: its matches become words of their own, and so does what lies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|`
    /// `\s*[\r\n]+|\s+(?!\S)|\s+`; with `marks`, `\p{M}` counts as a letter; without `tail`, newlines do not
    /// stick to punctuation.
    Llama3 { digits: usize, marks: bool, tail: bool },
    /// `[^\r\n\p{L}\p{N}]?[Lu Lt Lm Lo M]*[Ll Lm Lo M]+C?|[^\r\n\p{L}\p{N}]?[Lu Lt Lm Lo M]+[Ll Lm Lo M]*C?|`
    /// `\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`, where `C` is the group of
    /// contractions if `contractions` is set and nothing otherwise.
    Gpt4o { digits: usize, contractions: bool },
    /// `[ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|`
    /// `\s*[\r\n]+|\s+(?!\S)|\s+`
    DeepseekV3,
    /// `\p{N}{1,n}`
    Numbers(usize),
    /// `[0-9][0-9][0-9]`
    ThreeDigits,
    /// `[\p{P}…]+` with the given further characters
    Punctuation(&'static str),
    /// `[\r\n]`
    Newline,
    /// `\s?\p{L}+`
    SpacedLetters,
    /// `\s?\p{P}+`
    SpacedPunctuation,
    /// `\s?[cased letters]+`, the ranges of deepseek-llm
    SpacedCased,
    /// `\s?[!-/:-~！-／：-～‘-‟　-。]+`
    SpacedMarks,
    /// `\s+$`
    TrailingSpace,
    /// `[一-龥ࠀ-一가-퟿]+`
    Cjk,
    /// `[一-龥぀-ゟ゠-ヿ]+`
    HanKana,
    /// ` ?[^(\s|.,!?…。，、।۔،)]+`
    Bloom,
}

impl Rule {
    /// The end of the match that starts at `at`.
    fn find(self, t: &Text<'_>, at: usize) -> Option<usize> {
        match self {
            Self::Gpt2 => gpt2(t, at),
            Self::Llama3 { digits, marks, tail } => llama3(t, at, digits, marks, tail),
            Self::Gpt4o { digits, contractions } => gpt4o(t, at, digits, contractions),
            Self::DeepseekV3 => deepseek_v3(t, at),
            Self::Numbers(n) => numbers(t, at, n),
            Self::ThreeDigits => three_digits(t, at),
            Self::Punctuation(more) => t.run1(at, |ch| ch.is(PUNCT) || ch.is(SYMBOL) && more.contains(ch.c)),
            Self::Newline => t.at(at).filter(Ch::is_newline).map(|ch| ch.end),
            Self::SpacedLetters => spaced(t, at, |ch| ch.is(LETTER)),
            Self::SpacedPunctuation => spaced(t, at, |ch| ch.is(PUNCT)),
            Self::SpacedCased => spaced(t, at, |ch| {
                if ch.c.is_ascii() { ch.is(LETTER) } else { ch.is(LETTER) && within(CASED, ch.c) }
            }),
            Self::SpacedMarks => spaced(t, at, |ch| within(MARKS, ch.c)),
            // Handled by `split`: a scan from every position would be quadratic.
            Self::TrailingSpace => None,
            Self::Cjk => t.run1(at, |ch| within(CJK, ch.c)),
            Self::HanKana => t.run1(at, |ch| within(HAN_KANA, ch.c)),
            Self::Bloom => {
                let word = |ch: &Ch| !ch.is(SPACE) && !"(|.,!?…。，、।۔،)".contains(ch.c);
                t.run1(after_space(t, at), word).or_else(|| t.run1(at, word))
            }
        }
    }
}

/// Applies the rules one after the other, each to the pieces the one before left, and hands over the words.
///
/// # Errors
/// The first error of `emit`.
pub(super) fn split<'a, E>(
    rules: &[Rule],
    text: &'a str,
    emit: &mut impl FnMut(&'a str) -> Result<(), E>,
) -> Result<(), E> {
    if text.is_empty() {
        return Ok(());
    }
    let Some((rule, rest)) = rules.split_first() else { return emit(text) };
    let t = Text::new(text);
    if *rule == Rule::TrailingSpace {
        let end = t.trim_end();
        split(rest, t.slice(0, end), emit)?;
        return split(rest, t.slice(end, t.len()), emit);
    }
    let (mut at, mut gap) = (0, 0);
    while let Some(ch) = t.at(at) {
        match rule.find(&t, at).filter(|&end| end > at) {
            Some(end) => {
                split(rest, t.slice(gap, at), emit)?;
                split(rest, t.slice(at, end), emit)?;
                (at, gap) = (end, end);
            }
            None => at = ch.end,
        }
    }
    split(rest, t.slice(gap, t.len()), emit)
}

/// Behind a space at `at`, or `at` itself.
fn after_space(t: &Text<'_>, at: usize) -> usize {
    t.at(at).filter(|ch| ch.c == ' ').map_or(at, |ch| ch.end)
}

/// `\s?X+`
fn spaced(t: &Text<'_>, at: usize, wanted: impl Fn(&Ch) -> bool) -> Option<usize> {
    let first = t.at(at)?;
    let behind = if first.is(SPACE) { t.run1(first.end, &wanted) } else { None };
    behind.or_else(|| t.run1(at, &wanted))
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, with or without regard to case
fn contraction(t: &Text<'_>, at: usize, any_case: bool) -> Option<usize> {
    let quote = t.at(at).filter(|ch| ch.c == '\'')?;
    let letter =
        |at: usize| t.at(at).map(|ch| (if any_case { ch.c.to_ascii_lowercase() } else { ch.c }, ch.end));
    let (first, end) = letter(quote.end)?;
    if matches!(first, 's' | 't' | 'm' | 'd') {
        return Some(end);
    }
    let (second, end) = letter(end)?;
    matches!((first, second), ('r' | 'v', 'e') | ('l', 'l')).then_some(end)
}

/// `\p{N}{1,n}`
fn numbers(t: &Text<'_>, at: usize, n: usize) -> Option<usize> {
    let mut end = at;
    for _ in 0..n {
        match t.at(end).filter(|ch| ch.is(NUMBER)) {
            Some(ch) => end = ch.end,
            None => break,
        }
    }
    (end > at).then_some(end)
}

fn three_digits(t: &Text<'_>, at: usize) -> Option<usize> {
    let digits = t.slice(at, at + 3);
    (digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(at + 3)
}

/// `\s+(?!\S)|\s+`, and `\s*[\r\n]+` before them if `newlines` is set
fn whitespace(t: &Text<'_>, at: usize, newlines: bool) -> Option<usize> {
    let (mut end, mut last, mut newline) = (at, at, None);
    while let Some(ch) = t.at(end).filter(|ch| ch.is(SPACE)) {
        (last, end) = (end, ch.end);
        if ch.is_newline() {
            newline = Some(end);
        }
    }
    match newline.filter(|_| newlines) {
        Some(newline) => Some(newline),
        None if end == at => None,
        // Before other text, the last blank belongs to what follows, unless it is the only one.
        None if last > at && end < t.len() => Some(last),
        None => Some(end),
    }
}

fn gpt2(t: &Text<'_>, at: usize) -> Option<usize> {
    if let Some(end) = contraction(t, at, false) {
        return Some(end);
    }
    let start = after_space(t, at);
    if let Some(first) = t.at(start) {
        if first.is(LETTER) {
            return t.run1(start, |ch| ch.is(LETTER));
        }
        if first.is(NUMBER) {
            return t.run1(start, |ch| ch.is(NUMBER));
        }
        if !first.is(SPACE) {
            return t.run1(start, |ch| !ch.is(SPACE | LETTER | NUMBER));
        }
    }
    whitespace(t, at, false)
}

/// Whether a character may stand before a word in `[^\r\n\p{L}\p{N}]?\p{L}+`.
fn may_lead(ch: &Ch) -> bool {
    !ch.is(LETTER | NUMBER) && !ch.is_newline()
}

fn llama3(t: &Text<'_>, at: usize, digits: usize, marks: bool, tail: bool) -> Option<usize> {
    let letters = if marks { LETTER | MARK } else { LETTER };
    if let Some(end) = contraction(t, at, true) {
        return Some(end);
    }
    let first = t.at(at)?;
    let led = if may_lead(&first) { t.run1(first.end, |ch| ch.is(letters)) } else { None };
    if let Some(end) = led.or_else(|| t.run1(at, |ch| ch.is(letters))) {
        return Some(end);
    }
    if first.is(NUMBER) {
        return numbers(t, at, digits);
    }
    if let Some(end) = t.run1(after_space(t, at), |ch| !ch.is(SPACE | NUMBER | letters)) {
        return Some(if tail { t.run(end, Ch::is_newline) } else { end });
    }
    whitespace(t, at, true)
}

/// `[Lu Lt Lm Lo M]*[Ll Lm Lo M]+`: the first run is greedy and gives back as little as it must.
fn word_lower(t: &Text<'_>, at: usize) -> Option<usize> {
    let (mut end, mut back) = (at, None);
    while let Some(ch) = t.at(end).filter(|ch| ch.is(UPPER)) {
        end = ch.end;
        if ch.is(LOWER) {
            back = Some(end);
        }
    }
    t.run1(end, |ch| ch.is(LOWER)).or(back)
}

/// `[Lu Lt Lm Lo M]+[Ll Lm Lo M]*`
fn word_upper(t: &Text<'_>, at: usize) -> Option<usize> {
    t.run1(at, |ch| ch.is(UPPER)).map(|end| t.run(end, |ch| ch.is(LOWER)))
}

fn gpt4o(t: &Text<'_>, at: usize, digits: usize, contractions: bool) -> Option<usize> {
    let first = t.at(at)?;
    let lead = Some(first.end).filter(|_| may_lead(&first));
    let word = lead
        .and_then(|at| word_lower(t, at))
        .or_else(|| word_lower(t, at))
        .or_else(|| lead.and_then(|at| word_upper(t, at)))
        .or_else(|| word_upper(t, at));
    if let Some(end) = word {
        return Some(if contractions { contraction(t, end, true).unwrap_or(end) } else { end });
    }
    if first.is(NUMBER) {
        return numbers(t, at, digits);
    }
    if let Some(end) = t.run1(after_space(t, at), |ch| !ch.is(SPACE | LETTER | NUMBER)) {
        return Some(t.run(end, |ch| ch.is_newline() || ch.c == '/'));
    }
    whitespace(t, at, true)
}

fn deepseek_v3(t: &Text<'_>, at: usize) -> Option<usize> {
    let first = t.at(at)?;
    if first.c.is_ascii_punctuation()
        && let Some(end) = t.run1(first.end, |ch| ch.c.is_ascii_alphabetic())
    {
        return Some(end);
    }
    let led = if first.is(LETTER | PUNCT | SYMBOL) || first.is_newline() {
        None
    } else {
        t.run1(first.end, |ch| ch.is(LETTER | MARK))
    };
    if let Some(end) = led.or_else(|| t.run1(at, |ch| ch.is(LETTER | MARK))) {
        return Some(end);
    }
    if let Some(end) = t.run1(after_space(t, at), |ch| ch.is(PUNCT | SYMBOL)) {
        return Some(t.run(end, Ch::is_newline));
    }
    whitespace(t, at, true)
}

fn within(ranges: &[(u32, u32)], c: char) -> bool {
    let c = u32::from(c);
    // The quick way out for nearly every character of most texts.
    if ranges.first().is_some_and(|&(first, _)| c < first) {
        return false;
    }
    let next = ranges.partition_point(|&(_, last)| last < c);
    ranges.get(next).is_some_and(|&(first, _)| first <= c)
}

const CJK: &[(u32, u32)] = &[(0x0800, 0x9fa5), (0xac00, 0xd7ff)];
const HAN_KANA: &[(u32, u32)] = &[(0x3040, 0x30ff), (0x4e00, 0x9fa5)];
const MARKS: &[(u32, u32)] =
    &[(0x21, 0x2f), (0x3a, 0x7e), (0x2018, 0x201f), (0x3000, 0x3002), (0xff01, 0xff0f), (0xff1a, 0xff5e)];
/// The letters that deepseek-llm's tokenizer.json lists (cased letters of an older Unicode).
#[rustfmt::skip]
const CASED: &[(u32, u32)] = &[
    (0x41, 0x5a), (0x61, 0x7a), (0xb5, 0xb5), (0xc0, 0xd6), (0xd8, 0xf6), (0xf8, 0x1ba), (0x1bc, 0x1bf),
    (0x1c4, 0x293), (0x295, 0x2af), (0x370, 0x373), (0x376, 0x377), (0x37b, 0x37d), (0x37f, 0x37f),
    (0x386, 0x386), (0x388, 0x38a), (0x38c, 0x38c), (0x38e, 0x3a1), (0x3a3, 0x3f5), (0x3f7, 0x481),
    (0x48a, 0x52f), (0x531, 0x556), (0x10a0, 0x10c5), (0x13a0, 0x13f5), (0x13f8, 0x13fd), (0x1c90, 0x1cba),
    (0x1cbd, 0x1cbf), (0x1d00, 0x1d2b), (0x1d6b, 0x1d77), (0x1d79, 0x1d9a), (0x1e00, 0x1f15),
    (0x1f18, 0x1f1d), (0x1f20, 0x1f45), (0x1f48, 0x1f4d), (0x1f50, 0x1f57), (0x1f59, 0x1f59),
    (0x1f5b, 0x1f5b), (0x1f5d, 0x1f5d), (0x1f5f, 0x1f7d), (0x1f80, 0x1fb4), (0x1fb6, 0x1fbc),
    (0x1fbe, 0x1fbe), (0x1fc2, 0x1fc4), (0x1fc6, 0x1fcc), (0x1fd0, 0x1fd3), (0x1fd6, 0x1fdb),
    (0x1fe0, 0x1fec), (0x1ff2, 0x1ff4), (0x1ff6, 0x1ffc), (0x2102, 0x2102), (0x2107, 0x2107),
    (0x210a, 0x2113), (0x2115, 0x2115), (0x2119, 0x211d), (0x2124, 0x2124), (0x2126, 0x2126),
    (0x2128, 0x2128), (0x212a, 0x212d), (0x212f, 0x2134), (0x2139, 0x2139), (0x213c, 0x213f),
    (0x2145, 0x2149), (0x214e, 0x214e), (0x2183, 0x2184), (0x2c00, 0x2c7b), (0x2c7e, 0x2ce4),
    (0x2ceb, 0x2cee), (0x2cf2, 0x2cf3), (0xa640, 0xa66d), (0xa680, 0xa69b), (0xa722, 0xa76f),
    (0xa771, 0xa787), (0xa78b, 0xa78e), (0xab70, 0xabbf), (0xfb00, 0xfb06), (0xfb13, 0xfb17),
    (0xff21, 0xff3a), (0xff41, 0xff5a), (0x10400, 0x1044f), (0x104b0, 0x104d3), (0x104d8, 0x104fb),
    (0x10c80, 0x10cb2), (0x10cc0, 0x10cf2), (0x118a0, 0x118df), (0x1e900, 0x1e943),
];

#[cfg(test)]
mod tests {
    use super::{Rule, split};

    fn words(rules: &[Rule], text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let done: Result<(), ()> = split(rules, text, &mut |w| {
            out.push(w.to_owned());
            Ok(())
        });
        assert_eq!(done, Ok(()));
        assert_eq!(out.concat(), text);
        out
    }

    const LLAMA3: &[Rule] = &[Rule::Llama3 { digits: 3, marks: false, tail: true }];
    const QWEN2: &[Rule] = &[Rule::Llama3 { digits: 1, marks: false, tail: true }];
    const COMMAND_R: &[Rule] = &[Rule::Numbers(1), Rule::Gpt2];

    #[test]
    fn llama_bpe_splits_contractions_digits_and_blanks() {
        assert_eq!(
            words(LLAMA3, "I'LL go, it'S 12345!"),
            ["I", "'LL", " go", ",", " it", "'S", " ", "123", "45", "!"]
        );
        assert_eq!(words(LLAMA3, "a\n\n  b\t\tc  "), ["a", "\n\n", " ", " b", "\t", "\tc", "  "]);
        assert_eq!(words(LLAMA3, "x = {\r\n\r\n}\n \n y"), ["x", " =", " {\r\n\r\n", "}\n", " \n", " y"]);
        assert_eq!(words(LLAMA3, "$héllo ½³"), ["$héllo", " ", "½³"]);
    }

    #[test]
    fn qwen2_splits_every_digit_and_command_r_takes_them_out_first() {
        assert_eq!(words(QWEN2, "in 2024: x"), ["in", " ", "2", "0", "2", "4", ":", " x"]);
        assert_eq!(words(COMMAND_R, "in 20: don't"), ["in", " ", "2", "0", ":", " don", "'t"]);
        assert_eq!(words(COMMAND_R, "A  b\n\nc"), ["A", " ", " b", "\n", "\n", "c"]);
        assert_eq!(words(COMMAND_R, "we'LL"), ["we", "'", "LL"]);
    }

    #[test]
    fn qwen35_keeps_marks_with_their_letters() {
        let rule = &[Rule::Llama3 { digits: 1, marks: true, tail: true }];
        assert_eq!(words(rule, "नमस्ते दुनिया"), ["नमस्ते", " दुनिया"]);
    }

    #[test]
    fn gpt4o_splits_camel_case_and_gives_back_as_little_as_it_must() {
        let rule = &[Rule::Gpt4o { digits: 3, contractions: true }];
        assert_eq!(words(rule, "HTTPServer isn't camelCase's"), ["HTTPServer", " isn't", " camel", "Case's"]);
        assert_eq!(words(rule, "中文ABC 1234//\n"), ["中文", "ABC", " ", "123", "4", "//\n"]);
        let tekken = &[Rule::Gpt4o { digits: 1, contractions: false }];
        assert_eq!(words(tekken, "It's 42"), ["It", "'s", " ", "4", "2"]);
    }

    #[test]
    fn falcon_and_deepseek_sequences() {
        let falcon = &[Rule::Punctuation("$+<=>^~|`"), Rule::Gpt2, Rule::ThreeDigits];
        assert_eq!(words(falcon, "a+b 12345"), ["a", "+", "b", " ", "123", "45"]);
        let v3 = &[Rule::Numbers(3), Rule::HanKana, Rule::DeepseekV3];
        assert_eq!(
            words(v3, "foo.bar 1234你好 (x)"),
            ["foo", ".bar", " ", "123", "4", "你好", " (", "x", ")"]
        );
    }
}
