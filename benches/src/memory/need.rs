//! What a run must reach, for continuous integration.

use std::str::FromStr;

use anyhow::{Result, bail};

/// A figure that is needed: `any@10=0.93`, `all:any@10=0.9`, `100000:recall_p95_ms<=50`.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The scope, or the size of a speed row; `None`: the first scope, the largest size.
    pub of: Option<String>,
    /// The figure's name.
    pub name: String,
    /// What it is measured against.
    pub bound: f64,
    /// Whether the bound is the most, not the least.
    pub most: bool,
}

impl FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not like any@10=0.93 (at least) or recall_p95_ms<=50 (at most)");
        let (left, bound) = text.split_once('=').ok_or_else(wrong)?;
        let (left, most) = match (left.strip_suffix('<'), left.strip_suffix('>')) {
            (Some(left), _) => (left, true),
            (None, Some(left)) => (left, false),
            (None, None) => (left, false),
        };
        let (of, name) = match left.split_once(':') {
            Some((of, name)) => (Some(of.trim().to_owned()), name.trim()),
            None => (None, left.trim()),
        };
        let bound: f64 = bound.trim().parse().map_err(|_| wrong())?;
        if name.is_empty() || !bound.is_finite() {
            return Err(wrong());
        }
        Ok(Self { of, name: name.to_owned(), bound, most })
    }
}

/// Checks every need against the figures.
///
/// # Errors
/// All that are unmet or unknown, in words.
pub fn check(needs: &[Need], figure: impl Fn(&Need) -> Option<f64>) -> Result<()> {
    let unmet = |need: &Need| {
        let name = match &need.of {
            Some(of) => format!("{of}:{}", need.name),
            None => need.name.clone(),
        };
        let sign = if need.most { "at most" } else { "at least" };
        match figure(need) {
            None => Some(format!("there is no figure {name}")),
            Some(value) if need.most && value <= need.bound => None,
            Some(value) if !need.most && value >= need.bound => None,
            Some(value) => Some(format!("{name} is {value:.4}, needed is {sign} {}", need.bound)),
        }
    };
    let all: Vec<String> = needs.iter().filter_map(unmet).collect();
    if !all.is_empty() {
        bail!("{}", all.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read() {
        let need = |text: &str| text.parse::<Need>();
        let plain = Need { of: None, name: "any@10".into(), bound: 0.93, most: false };
        assert_eq!(need("any@10=0.93"), Ok(plain.clone()));
        assert_eq!(need("any@10 >= 0.93"), Ok(plain));
        let most = Need { of: Some("100000".into()), name: "recall_p95_ms".into(), bound: 50.0, most: true };
        assert_eq!(need("100000:recall_p95_ms<=50"), Ok(most));
        for text in ["any@10", "=1", "any@10=x", "any@10=NaN"] {
            assert!(need(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unmet_and_unknown_needs_are_told_together() {
        let needs: Vec<Need> =
            ["a=0.5", "a=0.6", "a<=0.5", "a<=0.4", "b=0"].map(|text| text.parse().unwrap()).into();
        let figure = |need: &Need| (need.name == "a").then_some(0.5);
        let error = check(&needs, figure).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 3, "{error}");
        assert!(
            error.contains("at least 0.6") && error.contains("at most 0.4") && error.contains("no figure b")
        );
        assert!(check(&needs[..1], figure).is_ok());
    }
}
