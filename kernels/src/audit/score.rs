//! From margins and matches to a verdict, in integers: two verifiers with the same numbers say the same.

use super::{Fault, Match, Numerics};

/// Micro-logits in a logit.
pub const MICRO: i64 = 1_000_000;
/// The margin of a token that is not allowed at all, whatever is drawn.
pub const OUTSIDE: i64 = i64::MAX;

/// What a replay found, position by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The arithmetic that the provider claims.
    pub numerics: Numerics,
    /// What contradicts itself.
    pub faults: Vec<Fault>,
    /// By how much the verifier's own choice leads each claimed token, in micro-logits; 0 where they are one,
    /// 1 and more where not. A token below a cut (top-k, top-p, min-p) has what it misses the cut by on top.
    pub margins: Vec<i64>,
    /// The same for the end, where the answer is said to have ended by itself.
    pub end: Option<i64>,
    /// Where the verifier would have ended the answer and it went on: the place, and the margin there.
    pub past: Vec<(usize, i64)>,
    /// How well each commitment fits.
    pub groups: Vec<Match>,
}

/// The worst of an answer's commitments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activations {
    /// Commitments that have enough points to be judged.
    pub groups: u32,
    /// Least agreement of exponents, of 128.
    pub agreement: u32,
    /// Largest mean difference of mantissas, in thousandths.
    pub mantissa: u32,
    /// Largest median difference of mantissas.
    pub median: u32,
}

/// An audit in numbers, as it goes into evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// The arithmetic that the provider claims.
    pub numerics: Numerics,
    /// What contradicts itself.
    pub faults: Vec<Fault>,
    /// Tokens replayed.
    pub positions: u32,
    /// Of these, the ones that the verifier would not have drawn.
    pub differing: u32,
    /// The first of them. Where both sides are exact, the provider has left the model here.
    pub first: Option<u32>,
    /// Sum of the margins, each clipped, in micro-logits.
    pub margins: i64,
    /// The larger of two margins, in micro-logits, where there is one: of the end where the answer is said to have ended
    /// by itself, and of a token that stands where it should have ended.
    pub end: Option<i64>,
    /// Of the commitments, where any could be judged.
    pub activations: Option<Activations>,
}

impl Score {
    /// Mean clipped margin in micro-logits; 0 for an empty answer.
    pub fn mean(&self) -> i64 {
        self.margins.checked_div(self.positions.into()).unwrap_or(0)
    }
}

/// What an honest provider stays within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A margin counts for this at most, in micro-logits.
    pub clip: i64,
    /// Sum of margins allowed for each position, in micro-logits…
    pub mean: i64,
    /// …and once for an answer, so that one near-tie in a short one is none of its fault.
    pub once: i64,
    /// Margin of an end that does not belong where it is, or is missing, in micro-logits.
    pub end: i64,
    /// Commitments with fewer points are not judged.
    pub points: u32,
    /// Least agreement of exponents, of 128.
    pub agreement: u32,
    /// Largest mean difference of mantissas, in thousandths.
    pub mantissa: u32,
    /// Largest median difference of mantissas.
    pub median: u32,
}

/// What an audit says of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong.
    Passed,
    /// Not what was asked for.
    Failed,
    /// There was nothing to judge.
    Unclear,
}

/// What an audit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Does the answer contradict itself?
    pub accounts: Outcome,
    /// Are its tokens what the sampler draws from the model, and does it end where it should?
    pub forced: Outcome,
    /// Are its hidden states the model's?
    pub activations: Outcome,
}

impl Verdict {
    /// Whether any question failed.
    pub fn failed(&self) -> bool {
        [self.accounts, self.forced, self.activations].contains(&Outcome::Failed)
    }
}

impl Trace {
    /// In numbers, by these limits.
    pub fn score(&self, limits: &Limits) -> Score {
        self.score_first(usize::MAX, limits)
    }

    /// As if the answer's first `count` tokens were all there is to see of it.
    pub fn score_first(&self, count: usize, limits: &Limits) -> Score {
        let margins = self.margins.get(..count).unwrap_or(&self.margins);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let groups = if margins.len() == self.margins.len() {
            self.groups.as_slice()
        } else {
            self.groups.get(..count / super::GROUP).unwrap_or_default()
        };
        Score {
            numerics: self.numerics,
            faults: self.faults.clone(),
            positions: narrow(margins.len()),
            differing: narrow(margins.iter().filter(|margin| **margin > 0).count()),
            first: margins.iter().position(|margin| *margin > 0).map(narrow),
            margins: margins.iter().map(|margin| (*margin).min(limits.clip)).fold(0, i64::saturating_add),
            end: self
                .past
                .iter()
                .filter(|(place, _)| *place < margins.len())
                .map(|(_, margin)| *margin)
                .chain(self.end.filter(|_| margins.len() == self.margins.len()))
                .max(),
            activations: worst(groups, limits),
        }
    }
}

fn worst(groups: &[Match], limits: &Limits) -> Option<Activations> {
    let judged = || groups.iter().filter(|group| group.points >= limits.points);
    Some(Activations {
        groups: u32::try_from(judged().count()).unwrap_or(u32::MAX),
        agreement: judged().map(Match::agreement).min()?,
        mantissa: judged().map(Match::mean).max()?,
        median: judged().map(|group| group.median).max()?,
    })
}

impl Limits {
    /// For a provider on this crate's CPU backend, audited on one: every bit is the same.
    pub const EXACT: Self =
        Self { clip: 4 * MICRO, mean: 0, once: 0, end: 0, points: 1, agreement: 128, mantissa: 0, median: 0 };

    /// For a provider with other arithmetic. Provisional: set from a first run of `audit_roc` with 100 answers of a kind on
    /// one model, in which honest means stayed below 5 milli-logits, agreement at 121 and mantissas at 1.1, and 4-bit
    /// weights in the place of 8-bit ones had at least 30 milli-logits and mantissas of 12.
    pub const FLOAT: Self = Self {
        clip: MICRO / 2,
        mean: MICRO / 100,
        once: MICRO / 2,
        end: MICRO / 4,
        points: 64,
        agreement: 112,
        mantissa: 4_000,
        median: 4,
    };

    /// For a provider that claims this arithmetic, audited on a CPU.
    pub const fn of(numerics: Numerics) -> Self {
        match numerics {
            Numerics::Exact => Self::EXACT,
            Numerics::Float => Self::FLOAT,
        }
    }

    /// What a score says.
    pub fn judge(&self, score: &Score) -> Verdict {
        let outcome = |ok: bool| if ok { Outcome::Passed } else { Outcome::Failed };
        let allowed = self.mean.saturating_mul(score.positions.into()).saturating_add(self.once);
        let ended = score.end.is_none_or(|end| end <= self.end);
        let seen = score.positions > 0 || score.end.is_some();
        Verdict {
            accounts: outcome(score.faults.is_empty()),
            forced: if seen { outcome(score.margins <= allowed && ended) } else { Outcome::Unclear },
            activations: score.activations.map_or(Outcome::Unclear, |found| {
                outcome(
                    found.agreement >= self.agreement
                        && found.mantissa <= self.mantissa
                        && found.median <= self.median,
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests;
