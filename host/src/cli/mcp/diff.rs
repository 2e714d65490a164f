//! What changed in a text, as people are shown it.

/// Unchanged lines shown on each side.
const AROUND: usize = 2;

/// Lines of both texts, with `-` before those that go and `+` before those that come.
///
/// One place changes at a time here, so that what both texts begin and end with says enough.
pub(super) fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(same).count();
    let most = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(same).count();
    let mut text = String::new();
    let mut show = |mark: char, lines: &[&str]| {
        for line in lines {
            text.push(mark);
            text.push(' ');
            text.push_str(line);
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    };
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    show(' ', old.get(head.saturating_sub(AROUND)..head).unwrap_or_default());
    show('-', old.get(head..old_end).unwrap_or_default());
    show('+', new.get(head..new_end).unwrap_or_default());
    show(' ', old.get(old_end..(old_end + AROUND).min(old.len())).unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_marked() {
        let (old, new) = ("a\nb\nc\nd\ne\nf", "a\nb\nc\nX\nY\ne\nf");
        assert_eq!(diff(old, new), "  b\n  c\n- d\n+ X\n+ Y\n  e\n  f\n");
        assert_eq!(diff("", "x\n"), "+ x\n");
        assert_eq!(diff("x", ""), "- x\n");
        assert_eq!(diff("a\na", "a\na\na"), "  a\n  a\n+ a\n");
        assert_eq!(diff("same", "same"), "  same\n");
    }
}
