//! Records that lend each other weight.
//!
//! A question about several things that belong together finds one of them best; the others are near that one. The
//! first of the list are right more often than their neighbours are, so they keep most of their own score; the
//! further down, the more the neighbours say.

use super::{Hit, State};

/// Best records that lend each other weight; with more of them the answers are the same.
pub(super) const MOST: usize = 64;
/// How much of the first record's score is its neighbours'.
const LENT: f32 = 0.15;
/// How much more it is from [`GROWN`] places further down on.
const GROWTH: f32 = 0.3;
const GROWN: u8 = 10;
/// How fast what a neighbour lends falls with distance.
const WIDTH: f32 = 0.05;

/// The share of a record's score that is its neighbours', by its place from 0.
fn lent(place: usize) -> f32 {
    let place = u8::try_from(place).map_or(GROWN, |place| place.min(GROWN));
    LENT + GROWTH * f32::from(place) / f32::from(GROWN)
}

/// Lets the best of these lend each other weight; they come best first.
pub(super) fn lend(state: &State, hits: &mut [Hit]) {
    let Some(store) = &state.vectors else { return };
    let circle = hits.len().min(MOST);
    let ordinals: Vec<u32> = hits.iter().take(circle).map(|hit| hit.ordinal).collect();
    if circle < 2 {
        return;
    }
    let Ok(likeness) = store.likeness(&ordinals) else { return };
    let mut around = vec![Around::default(); circle];
    for (place, (hit, row)) in hits.iter().zip(&likeness).enumerate() {
        let (Some((this, others)), Some(likeness)) =
            (around.get_mut(place..).and_then(<[_]>::split_first_mut), row.get(place + 1..))
        else {
            continue;
        };
        for ((other, near), likeness) in hits.iter().skip(place + 1).zip(others).zip(likeness) {
            // At most e^20, so that no sum overflows.
            let weight = (likeness / WIDTH).exp();
            this.take(weight, other.score);
            near.take(weight, hit.score);
        }
    }
    for (place, (hit, around)) in hits.iter_mut().zip(&around).enumerate() {
        // Without a vector yet it is like nothing, and nothing is like it.
        if state.embedded.contains(hit.ordinal) {
            let lent = lent(place);
            hit.score = (1.0 - lent) * hit.score + lent * around.sum / around.weights;
        }
    }
    // Those outside the circle must not pass those inside.
    for hit in hits.iter_mut().skip(circle) {
        hit.score *= 1.0 - lent(circle);
    }
}

/// The others' scores, by how alike they are, added up.
#[derive(Clone, Copy, Default)]
struct Around {
    sum: f32,
    weights: f32,
}

impl Around {
    fn take(&mut self, weight: f32, score: f32) {
        self.sum += weight * score;
        self.weights += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::vectors::Store;

    fn near(a: f32, b: f32) -> bool {
        (a - b).abs() < 1e-3
    }

    #[test]
    fn more_is_lent_further_down() {
        assert!(near(lent(0), 0.15) && near(lent(1), 0.18) && near(lent(5), 0.3));
        assert!(near(lent(10), 0.45) && near(lent(11), 0.45) && near(lent(5_000), 0.45));
    }

    #[test]
    fn the_like_of_the_best_rises() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), 64, "test").unwrap();
        let mut state = State::default();
        let mut hits = Vec::new();
        // The best, eleven that are like nothing, and one at the end that is like the best.
        for ordinal in 0..13_u32 {
            let mut vector = vec![0.0; 64];
            vector[if ordinal == 12 { 0 } else { ordinal as usize }] = 1.0;
            store.push_f32(ordinal, &vector).unwrap();
            state.embedded.insert(ordinal);
            let score = if ordinal == 0 { 1.0 } else { 0.5 };
            hits.push(Hit { ordinal, score, explain: None });
        }
        state.vectors = Some(store);
        lend(&state, &mut hits);
        assert!(near(hits[0].score, 0.85 + 0.15 * 0.5), "{hits:?}");
        assert!(near(hits[12].score, 0.55 * 0.5 + 0.45), "{hits:?}");
        assert!(hits[12].score > hits[11].score, "{hits:?}");
    }

    #[test]
    fn what_has_no_vector_yet_keeps_its_score() {
        let folder = tempfile::tempdir().unwrap();
        let mut state =
            State { vectors: Some(Store::open(folder.path(), 64, "test").unwrap()), ..State::default() };
        let mut hits: Vec<Hit> =
            (0..66_u32).map(|ordinal| Hit { ordinal, score: 1.0, explain: None }).collect();
        lend(&state, &mut hits);
        assert!(near(hits[0].score, 1.0) && near(hits[63].score, 1.0) && near(hits[64].score, 0.55));
        state.vectors = None;
        lend(&state, &mut hits);
        assert!(near(hits[0].score, 1.0) && near(hits[64].score, 0.55));
    }
}
