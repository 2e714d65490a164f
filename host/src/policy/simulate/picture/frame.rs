//! One small picture: axes and curves.

use std::fmt::Write;

use super::{Spread, text};
use crate::policy::simulate::number::ln;

/// How values become places.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    least: f64,
    most: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Scale {
    /// From 0.
    pub(super) fn linear(most: f64) -> Self {
        let ticks = (0..=4).map(|part| most * f64::from(part) / 4.0).collect();
        Self { least: 0.0, most, logarithmic: false, ticks }
    }

    /// Around values, from a power of ten to one, at most six of them; 1 to 10 around nothing.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
        let most = values.iter().copied().fold(f64::MIN, f64::max);
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        if values.is_empty() {
            return Self { least: 1.0, most: 10.0, logarithmic: true, ticks: vec![1.0, 10.0] };
        }
        let mut ticks = vec![1e-6];
        while ticks.last().is_some_and(|last| *last < most) && ticks.len() < 30 {
            // Powers of ten by division are exact to the last digit that is printed.
            let exponent = i32::try_from(ticks.len()).unwrap_or(0) - 6;
            ticks.push(power(exponent));
        }
        let too_low = ticks.iter().filter(|tick| **tick <= least).count().saturating_sub(1);
        ticks.drain(..too_low.max(ticks.len().saturating_sub(7)).min(ticks.len().saturating_sub(2)));
        let (least, most) = (ticks.first().copied().unwrap_or(1.0), ticks.last().copied().unwrap_or(10.0));
        Self { least, most, logarithmic: true, ticks }
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
}

fn power(exponent: i32) -> f64 {
    let ten = (0..exponent.abs()).fold(1.0, |power, _| power * 10.0);
    if exponent < 0 { 1.0 / ten } else { ten }
}

/// A place for curves. Upwards are hundredths.
#[derive(Debug)]
pub(super) struct Frame {
    corner: [f64; 2],
    size: [f64; 2],
    scale: Scale,
}

impl Frame {
    pub(super) const fn new(corner: [f64; 2], size: [f64; 2], scale: Scale) -> Self {
        Self { corner, size, scale }
    }

    fn x(&self, value: f64) -> f64 {
        let ([x, _], [width, _]) = (self.corner, self.size);
        x + width * self.scale.at(value)
    }

    fn y(&self, hundredths: f64) -> f64 {
        let ([_, y], [_, height]) = (self.corner, self.size);
        y + height * (1.0 - (hundredths / 100.0).clamp(0.0, 1.0))
    }

    /// The axes with their words.
    pub(super) fn draw(&self, svg: &mut String, across: &str, up: &str) {
        let ([x, y], [width, height]) = (self.corner, self.size);
        let mut path = String::new();
        for tick in &self.scale.ticks {
            let _ = write!(path, "M{:.1} {y:.1}v{height:.1}", self.x(*tick));
            text(svg, "faint mid", self.x(*tick), y + height + 14.0, &said(*tick));
        }
        for tick in [0.0, 50.0, 100.0] {
            let _ = write!(path, "M{x:.1} {:.1}h{width:.1}", self.y(tick));
            text(svg, "faint end", x - 5.0, self.y(tick) + 4.0, &said(tick));
        }
        let _ = writeln!(svg, "<path class=\"grid\" d=\"{path}\"/>");
        text(svg, "faint mid", x + width / 2.0, y + height + 29.0, across);
        text(svg, "faint", x + 4.0, y + 12.0, up);
    }

    /// For each value the share that does not exceed it.
    pub(super) fn distribution(&self, svg: &mut String, class: &str, spread: &Spread, unit: f64) {
        let points = (0_u32..).zip(&spread.curve);
        line(svg, class, points.map(|(part, value)| (self.x(*value as f64 / unit), self.y(part.into()))));
    }

    /// The values in their order.
    pub(super) fn profile(&self, svg: &mut String, class: &str, spread: &Spread, unit: f64) {
        let points = (0_u32..).zip(&spread.curve);
        line(svg, class, points.map(|(part, value)| (self.x(part.into()), self.y(*value as f64 / unit))));
    }
}

fn line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
    let mut path = String::new();
    for (x, y) in points {
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
    }
    if !path.is_empty() {
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// A tick in words: 0.01, 1, 100, 10k, 1M.
fn said(tick: f64) -> String {
    match tick {
        t if t >= 999_999.5 => format!("{:.0}M", t / 1e6),
        t if t >= 9_999.5 => format!("{:.0}k", t / 1e3),
        t if t >= 1.0 || t == 0.0 => format!("{t:.0}"),
        t if t >= 0.09 => format!("{t:.1}"),
        t if t >= 0.009 => format!("{t:.2}"),
        t => format!("{t:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_their_values() {
        let scale = Scale::logarithmic([0.2, 340.0].into_iter());
        assert_eq!((scale.least, scale.most), (0.1, 1000.0));
        assert_eq!((scale.at(0.1), scale.at(1000.0), scale.at(1e9), scale.at(0.0)), (0.0, 1.0, 1.0, 0.0));
        assert!((scale.at(10.0) - 0.5).abs() < 1e-9);
        let wide = Scale::logarithmic([1e-6, 1e15].into_iter());
        assert!(wide.ticks.len() <= 7 && wide.most >= 1e15);
        let none = Scale::logarithmic(std::iter::empty());
        assert_eq!(none.ticks, [1.0, 10.0]);
        let one = Scale::logarithmic(std::iter::once(10.0));
        assert!(one.ticks.len() >= 2 && one.least < one.most);
        let small = Scale::logarithmic(std::iter::once(1e-9));
        assert!(!small.ticks.is_empty() && !said(small.least).is_empty());
    }

    #[test]
    fn ticks_are_short() {
        let all = [0.0, 0.01, 0.1, 1.0, 100.0, 1e4, 1e6].map(said);
        assert_eq!(all, ["0", "0.01", "0.1", "1", "100", "10k", "1M"]);
    }
}
