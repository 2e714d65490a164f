//! What kernels need to know of a step: one buffer of words, uploaded once.

use std::ops::Range;

use crate::backend::{BackendError, Batch, PAGE, PageId};

/// Token counts that attention tiles come in.
pub(crate) const TILE_SIZES: [usize; 4] = [1, 2, 4, 8];

/// Where things are in the words of a step, and what the host needs of them itself.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Tokens of the step.
    pub(crate) tokens: usize,
    /// Rows that [`crate::backend::Backend::select_outputs`] picks.
    pub(crate) outputs: usize,
    /// Place of the token ids; those of the positions follow.
    pub(crate) ids: u32,
    /// The positions, for the host's own use.
    pub(crate) positions_of: Vec<u32>,
    /// Place of the positions.
    pub(crate) positions: u32,
    /// Place of the places of each token's page table.
    pub(crate) tables: u32,
    /// Place of the places of each token's (first token, tokens) of its sequence.
    pub(crate) sequences: u32,
    /// Place of the output rows.
    pub(crate) output_rows: u32,
    /// Place and number of the tiles of each size.
    pub(crate) tiles: [(u32, usize); 4],
    /// Largest token id.
    pub(crate) max_id: u32,
    /// Largest position.
    pub(crate) max_position: u32,
    /// Tokens of the longest sequence in the batch.
    pub(crate) longest: usize,
    /// Largest page, if every position has one.
    pub(crate) max_page: Option<PageId>,
}

fn bad(expected: &str, got: String) -> BackendError {
    BackendError::Shape { op: "begin", expected: expected.to_owned(), got }
}

/// Tokens of each sequence, which must be consecutive, with positions that count up.
fn runs(batch: &Batch) -> Result<Vec<Range<usize>>, BackendError> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut previous: Option<(u32, u32)> = None;
    for (i, (&sequence, &position)) in batch.sequence.iter().zip(&batch.positions).enumerate() {
        match (previous, runs.last_mut()) {
            (Some((s, p)), Some(run)) if s == sequence => {
                if p.checked_add(1) != Some(position) {
                    return Err(bad(
                        "positions of a sequence that count up",
                        format!("{p} and then {position}"),
                    ));
                }
                run.end = i + 1;
            }
            _ => {
                if !seen.insert(sequence) {
                    return Err(bad("tokens of a sequence next to each other", format!("{sequence} twice")));
                }
                runs.push(i..i + 1);
            }
        }
        previous = Some((sequence, position));
    }
    Ok(runs)
}

/// Words with the places that are known only once all sections are laid out.
fn place(words: &[u32]) -> u32 {
    words.len() as u32
}

/// Lays a batch out in words.
pub(crate) fn layout(batch: &Batch) -> Result<(Step, Vec<u32>), BackendError> {
    let n = batch.tokens.len();
    if batch.positions.len() != n || batch.sequence.len() != n {
        return Err(bad(
            "as many positions and sequences as tokens",
            format!("{n} tokens, {} positions, {} sequences", batch.positions.len(), batch.sequence.len()),
        ));
    }
    if batch.outputs.iter().any(|&o| o as usize >= n) {
        return Err(bad("outputs that are tokens of the step", format!("{:?} of {n}", batch.outputs)));
    }
    let runs = runs(batch)?;

    let mut words = Vec::with_capacity(8 * n + batch.outputs.len());
    let mut step = Step { tokens: n, outputs: batch.outputs.len(), ..Step::default() };
    step.ids = place(&words);
    words.extend_from_slice(&batch.tokens);
    step.positions = place(&words);
    words.extend_from_slice(&batch.positions);
    step.positions_of.clone_from(&batch.positions);
    step.output_rows = place(&words);
    words.extend_from_slice(&batch.outputs);

    let mut tables = Vec::with_capacity(n);
    let mut sequences = Vec::with_capacity(n);
    let mut max_page = Some(0);
    for run in &runs {
        let sequence = batch.sequence.get(run.start).copied().unwrap_or(0) as usize;
        let last = batch.positions.get(run.end - 1).copied().unwrap_or(0);
        let pages = batch.tables.get(sequence).map_or(&[][..], Vec::as_slice);
        let needed = last as usize / PAGE + 1;
        max_page = match (max_page, pages.get(..needed).and_then(|p| p.iter().max())) {
            (Some(a), Some(&b)) => Some(a.max(b)),
            _ => None,
        };
        tables.extend(std::iter::repeat_n(place(&words), run.len()));
        words.extend(pages.iter().take(needed));
        sequences.extend(std::iter::repeat_n(place(&words), run.len()));
        words.extend([run.start as u32, run.len() as u32]);
        step.longest = step.longest.max(run.len());
        step.max_position = step.max_position.max(last);
    }
    step.max_page = max_page;
    step.max_id = batch.tokens.iter().copied().max().unwrap_or(0);
    step.tables = place(&words);
    words.append(&mut tables);
    step.sequences = place(&words);
    words.append(&mut sequences);

    for (slot, size) in step.tiles.iter_mut().zip(TILE_SIZES) {
        slot.0 = place(&words);
        for run in &runs {
            for first in run.clone().step_by(size) {
                words.extend([first as u32, size.min(run.end - first) as u32]);
                slot.1 += 1;
            }
        }
    }
    if words.is_empty() {
        words.push(0);
    }
    Ok((step, words))
}
