//! Tables, sizes and colours.

use std::io::IsTerminal;

/// Whether to write colours there: only on a terminal, and not when `NO_COLOR` says otherwise.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns with aligned edges.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&head.map(str::to_owned));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// Bytes as people read them: `1.3 GB` (powers of ten, as models are described).
pub(super) fn bytes(count: u64) -> String {
    let number = count as f64;
    match count {
        0..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{:.0} kB", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.1} GB", number / 1e9),
    }
}

/// A time ago or ahead as people read it.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = table(["NAME", "SIZE"], &[["a".into(), "1 B".into()], ["längst".into(), "22 B".into()]]);
        assert_eq!(text, "NAME    SIZE\na       1 B\nlängst  22 B\n");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(
            [bytes(7), bytes(1500), bytes(2_500_000), bytes(1_300_000_000)],
            ["7 B", "2 kB", "2.5 MB", "1.3 GB"]
        );
    }
}
