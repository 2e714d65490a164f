//! Small pictures: axes, lines and cells. An SVG needs nothing beside it and follows the reader's choice of light or dark.

use std::fmt::Write;

use super::lot::ln;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1b1f24;--faint:#646d78;--grid:#dde1e6;--a:#0a6aa1;--b:#b4530a;--c:#2f7d32;--d:#8e3a9d;--e:#8a6d00;\
background:var(--paper);font:12px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){svg{--paper:#14171b;--ink:#e8eaed;--faint:#9aa4af;--grid:#2c323a;--a:#62bff2;--b:#f0a35c;\
--c:#7fcf83;--d:#d79be3;--e:#e0c34f}}\
text{fill:var(--ink)}.faint{fill:var(--faint);font-size:11px}.head{font-size:13px;font-weight:600}.end{text-anchor:end}\
.mid{text-anchor:middle}.grid{stroke:var(--grid);fill:none}.paper{fill:var(--paper)}.zero{stroke:var(--faint);fill:none}\
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dash{stroke-dasharray:5 3}\
.la{stroke:var(--a)}.lb{stroke:var(--b)}.lc{stroke:var(--c)}.ld{stroke:var(--d)}.le{stroke:var(--e)}\
.fa{fill:var(--a)}.fb{fill:var(--b)}.fc{fill:var(--c)}.fd{fill:var(--d)}.fe{fill:var(--e)}";

/// How values become places.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    least: f64,
    most: f64,
    logarithmic: bool,
}

impl Scale {
    /// In proportion.
    pub const fn linear(least: f64, most: f64) -> Self {
        Self { least, most, logarithmic: false }
    }

    /// By logarithm; both ends are above 0.
    pub const fn logarithmic(least: f64, most: f64) -> Self {
        Self { least, most, logarithmic: true }
    }

    /// From 0 to 1; what is beyond an end is at it.
    fn at(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            ln(value.max(self.least) / self.least) / ln(self.most / self.least)
        } else {
            (value - self.least) / (self.most - self.least)
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            return (0..=4)
                .map(|part| self.least + (self.most - self.least) * f64::from(part) / 4.0)
                .collect();
        }
        // Powers of ten by multiplication of whole ones; ends that are none are no ticks.
        (-6..=9)
            .map(|exponent: i32| {
                let ten = (0..exponent.abs()).fold(1.0, |power, _| power * 10.0);
                if exponent < 0 { 1.0 / ten } else { ten }
            })
            .filter(|tick| *tick >= self.least * 0.999 && *tick <= self.most * 1.001)
            .collect()
    }
}

/// A picture with several frames side by side.
#[derive(Debug)]
pub struct Picture {
    svg: String,
}

/// Where lines are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    corner: [f64; 2],
    size: [f64; 2],
    across: Scale,
    up: Scale,
}

/// Height of a picture.
const HEIGHT: f64 = 330.0;
/// Width of a frame with its margins.
const COLUMN: f64 = 450.0;
/// Size of a frame.
const SIZE: [f64; 2] = [360.0, 200.0];

impl Picture {
    /// An empty one with so many frames, described in a sentence for those who cannot see it.
    pub fn new(frames: u32, title: &str, described: &str) -> Self {
        let width = COLUMN * f64::from(frames);
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
             height=\"{HEIGHT}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{HEIGHT}\"/>",
            escaped(title),
            escaped(described)
        );
        Self { svg }
    }

    /// Axes with their words.
    pub fn frame(&mut self, column: u32, head: &str, across: (&str, Scale), up: (&str, Scale)) -> Frame {
        let [x, y] = [64.0 + COLUMN * f64::from(column), 74.0];
        let [width, height] = SIZE;
        let frame = Frame { corner: [x, y], size: SIZE, across: across.1, up: up.1 };
        let mut path = String::new();
        for tick in across.1.ticks() {
            let _ = write!(path, "M{:.1} {y:.1}v{height:.1}", frame.x(tick));
            self.text("faint mid", frame.x(tick), y + height + 15.0, &said(tick));
        }
        for tick in up.1.ticks() {
            let _ = write!(path, "M{x:.1} {:.1}h{width:.1}", frame.y(tick));
            self.text("faint end", x - 5.0, frame.y(tick) + 4.0, &said(tick));
        }
        let _ = writeln!(self.svg, "<path class=\"grid\" d=\"{path}\"/>");
        if !up.1.logarithmic && up.1.least < 0.0 {
            let _ = writeln!(self.svg, "<path class=\"zero\" d=\"M{x:.1} {:.1}h{width:.1}\"/>", frame.y(0.0));
        }
        self.text("head", x, 20.0, head);
        self.text("faint mid", x + width / 2.0, y + height + 32.0, across.0);
        self.text("faint", x - 40.0, 40.0, up.0);
        frame
    }

    /// Names of lines, below each other in two columns above a frame. A class is `a` to `e`, with ` dash` or not.
    pub fn legend(&mut self, frame: &Frame, names: &[(&str, &str)]) {
        let [x, y] = frame.corner;
        let mut at = x;
        for (class, name) in names {
            let _ =
                writeln!(self.svg, "<path class=\"{}\" d=\"M{at:.1} {:.1}h14\"/>", stroke(class), y - 12.0);
            self.text("faint", at + 18.0, y - 8.0, name);
            at += 34.0 + 5.7 * name.chars().count() as f64;
        }
    }

    /// A line through points.
    pub fn line(&mut self, frame: &Frame, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if path.is_empty() { "M" } else { "L" },
                frame.x(x),
                frame.y(y)
            );
        }
        if !path.is_empty() {
            let _ = writeln!(self.svg, "<path class=\"{}\" d=\"{path}\"/>", stroke(class));
        }
    }

    /// Points.
    pub fn points(&mut self, frame: &Frame, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        for (x, y) in points {
            let _ = writeln!(
                self.svg,
                "<circle class=\"f{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                frame.x(x),
                frame.y(y)
            );
        }
    }

    /// Cells between two values each way, all filled alike (0 to 1).
    pub fn cells(&mut self, frame: &Frame, class: &str, full: f64, cells: &[[[f64; 2]; 2]]) {
        let mut path = String::new();
        for [across, up] in cells {
            let [left, right] = across.map(|value| frame.x(value));
            let [bottom, top] = up.map(|value| frame.y(value));
            let (wide, high) = (right - left, bottom - top);
            let _ = write!(path, "M{left:.1} {top:.1}h{wide:.1}v{high:.1}h{:.1}z", -wide);
        }
        let _ = writeln!(self.svg, "<path class=\"f{class}\" opacity=\"{full:.2}\" d=\"{path}\"/>");
    }

    /// Words at a place.
    pub fn text(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let _ =
            writeln!(self.svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(words));
    }

    /// The file.
    pub fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        let ([x, _], [width, _]) = (self.corner, self.size);
        x + width * self.across.at(value)
    }

    fn y(&self, value: f64) -> f64 {
        let ([_, y], [_, height]) = (self.corner, self.size);
        y + height * (1.0 - self.up.at(value))
    }
}

fn stroke(class: &str) -> String {
    format!("line l{class}")
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A tick in words: −0.5, 0.01, 1, 100, 10k, 1M.
fn said(tick: f64) -> String {
    let sign = if tick < 0.0 { "−" } else { "" };
    let words = match tick.abs() {
        t if t >= 999_999.5 => format!("{:.1}M", t / 1e6),
        t if t >= 9_999.5 => format!("{:.0}k", t / 1e3),
        t if t >= 10.0 => format!("{t:.0}"),
        0.0 => "0".to_owned(),
        t if t >= 0.9995 => format!("{t:.1}"),
        t if t >= 0.00995 => format!("{t:.2}"),
        t => format!("{t:.4}"),
    };
    let words = if words.contains('.') && !words.ends_with('M') {
        words.trim_end_matches('0').trim_end_matches('.')
    } else {
        &words
    };
    format!("{sign}{words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_their_values() {
        let scale = Scale::logarithmic(0.01, 100.0);
        assert_eq!((scale.at(0.0), scale.at(0.01), scale.at(100.0), scale.at(1e9)), (0.0, 0.0, 1.0, 1.0));
        assert!((scale.at(1.0) - 0.5).abs() < 1e-9);
        assert_eq!(scale.ticks().len(), 5);
        assert_eq!(Scale::linear(-1.0, 1.0).at(0.0), 0.5);
    }

    #[test]
    fn ticks_are_short() {
        let all = [-0.5, 0.0, 0.0001, 0.01, 1.0, 2.5, 100.0, 1e4, 1e6].map(said);
        assert_eq!(all, ["−0.5", "0", "0.0001", "0.01", "1", "2.5", "100", "10k", "1.0M"]);
    }
}
