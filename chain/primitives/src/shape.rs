//! The shape of the trees here: neighbours pair up, the last of an odd row rises alone.

/// What happens to a node on its way up by one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is hashed with its neighbour.
    Partner {
        /// The neighbour's index in their row.
        partner: u32,
        /// Whether the neighbour is the left one.
        on_left: bool,
    },
    /// It has none, and rises as it is.
    Alone,
}

/// How many nodes a row has, `level` rows above a row of `leaf_count`.
pub(crate) fn width(leaf_count: u32, level: u32) -> u32 {
    (0..level.min(32)).fold(leaf_count, |width, _| width.div_ceil(2))
}

/// The way from the node `index` of a row of `count` up to the root; `None` where there is no such node.
pub(crate) fn path(index: u32, count: u32) -> Option<impl Iterator<Item = Step>> {
    if index >= count {
        return None;
    }
    let mut at = (index, count);
    Some(core::iter::from_fn(move || {
        let (index, count) = at;
        if count <= 1 {
            return None;
        }
        at = (index / 2, count.div_ceil(2));
        let partner = index ^ 1;
        Some(if partner < count { Step::Partner { partner, on_left: index & 1 == 1 } } else { Step::Alone })
    }))
}
