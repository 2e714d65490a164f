//! The largest of many logits without sorting all of them.

use std::cmp::Ordering;

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// Larger logits first, of equals the lower id. Logits are never NaN here.
pub(super) fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// The largest logit and the lowest id that has it. NaN is passed over.
pub(super) fn argmax(logits: &[f32]) -> (u32, f32) {
    let (blocks, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m });
    let id = logits.iter().position(|&x| x == max).unwrap_or(0);
    (u32::try_from(id).unwrap_or(u32::MAX), max)
}

/// Up to this many are kept in a small ordered list; above it, a selection over everything is faster.
const SMALL: usize = 512;

/// Leaves the `count` largest logits in `out`, in order.
pub(super) fn largest(logits: &[f32], count: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let all = (0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
    if count >= logits.len() || count > SMALL {
        out.extend(all);
        if count < out.len() {
            out.select_nth_unstable_by(count, order);
            out.truncate(count);
        }
        out.sort_unstable_by(order);
        return;
    }
    // Batches: collect what beats the worst kept so far, and cut back when the list is twice as long as needed.
    let mut floor = f32::NEG_INFINITY;
    let mut full = false;
    for candidate in all {
        // Of equal logits the lower id comes first, and ids ascend: equals of the worst kept do not get in.
        if full && candidate.logit <= floor {
            continue;
        }
        out.push(candidate);
        if out.len() >= 2 * count + 16 {
            out.select_nth_unstable_by(count, order);
            out.truncate(count);
            floor = out.iter().map(|c| c.logit).fold(f32::INFINITY, f32::min);
            full = true;
        }
    }
    out.sort_unstable_by(order);
    out.truncate(count);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_largest_are_those_that_a_sort_finds(
            logits in proptest::collection::vec((-8i8..8).prop_map(f32::from), 1..3000),
            count in 1usize..900,
        ) {
            let mut sorted: Vec<_> =
                (0u32..).zip(&logits).map(|(id, &logit)| Candidate { id, logit }).collect();
            sorted.sort_by(order);
            prop_assert_eq!(argmax(&logits), (sorted[0].id, sorted[0].logit));
            sorted.truncate(count);
            let mut out = Vec::new();
            largest(&logits, count, &mut out);
            prop_assert_eq!(out, sorted);
        }
    }
}
