//! Which source brings which block.
//!
//! Blocks are handed out in the file's order. A source that has nothing left to fetch takes over blocks that another
//! one has been holding for a while, so that the slowest does not decide when the file is there; whichever copy comes
//! first counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// How long a block stays with its source before another may fetch it too.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Sources that may fetch the same block.
const HOLDERS: usize = 2;

/// A source, by its number.
pub(super) type Who = usize;

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct Plan {
    have: Vec<bool>,
    left: u64,
    /// All blocks before this one were handed out or are here.
    next: u64,
    /// Blocks that came back without their bytes.
    returned: BTreeSet<u64>,
    held: BTreeMap<u64, (Vec<Who>, Instant)>,
}

impl Plan {
    /// `have`: for each block, whether it is here already.
    pub(super) fn new(have: Vec<bool>) -> Self {
        let left = have.iter().filter(|have| !**have).count() as u64;
        Self { have, left, next: 0, returned: BTreeSet::new(), held: BTreeMap::new() }
    }

    /// Whether all blocks are here.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// A block for a source to fetch; `None`: there is nothing for it to do now.
    pub(super) fn take(&mut self, who: Who, now: Instant) -> Option<u64> {
        let index = self.returned.pop_first().or_else(|| self.fresh()).or_else(|| self.overdue(who, now))?;
        let (holders, since) = self.held.entry(index).or_insert_with(|| (Vec::new(), now));
        holders.push(who);
        *since = now;
        Some(index)
    }

    fn fresh(&mut self) -> Option<u64> {
        loop {
            let index = self.next;
            let have = self.have.get(usize::try_from(index).ok()?)?;
            self.next += 1;
            if !have {
                return Some(index);
            }
        }
    }

    /// The block that others have been holding the longest.
    fn overdue(&self, who: Who, now: Instant) -> Option<u64> {
        let late = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        let open = self.held.iter().filter(|(_, (holders, since))| {
            holders.len() < HOLDERS && !holders.contains(&who) && late(*since)
        });
        open.min_by_key(|(_, (_, since))| *since).map(|(index, _)| *index)
    }

    /// A block is here and kept; false if it was before.
    pub(super) fn done(&mut self, index: u64) -> bool {
        self.held.remove(&index);
        self.returned.remove(&index);
        let place = usize::try_from(index).ok().and_then(|at| self.have.get_mut(at));
        match place {
            Some(have) if !*have => {
                *have = true;
                self.left = self.left.saturating_sub(1);
                true
            }
            _ => false,
        }
    }

    /// Whether a block is here.
    pub(super) fn has(&self, index: u64) -> bool {
        usize::try_from(index).ok().and_then(|at| self.have.get(at)).copied().unwrap_or_default()
    }

    /// A source will bring nothing more of what it holds.
    pub(super) fn give_up(&mut self, who: Who) {
        let returned = &mut self.returned;
        self.held.retain(|index, (holders, _)| {
            holders.retain(|holder| *holder != who);
            if holders.is_empty() {
                returned.insert(*index);
            }
            !holders.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_blocks_of_a_slow_source_are_fetched_twice() {
        let now = Instant::now();
        let mut plan = Plan::new(vec![false, true, false]);
        assert_eq!((plan.take(0, now), plan.take(0, now), plan.take(1, now)), (Some(0), Some(2), None));
        let later = now + PATIENCE;
        assert_eq!((plan.take(0, later), plan.take(1, later)), (None, Some(0)));
        assert_eq!(plan.take(2, later), Some(2), "a third source takes the other one");
        assert!(plan.done(0) && !plan.done(0));
        plan.give_up(0);
        assert_eq!(plan.take(0, later), None, "source 2 still has it");
        plan.give_up(2);
        assert_eq!(plan.take(1, later), Some(2));
        assert!(plan.done(2) && plan.is_done());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(Who),
        Bring(Who),
        GiveUp(Who),
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..4).prop_map(Step::Take),
            3 => (0_usize..4).prop_map(Step::Bring),
            1 => (0_usize..4).prop_map(Step::GiveUp),
            1 => Just(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn no_block_is_lost_and_none_counts_twice(
            have in proptest::collection::vec(any::<bool>(), 1..30),
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut now = Instant::now();
            let missing = have.iter().filter(|have| !**have).count();
            let mut plan = Plan::new(have.clone());
            let mut hands: Vec<Vec<u64>> = vec![Vec::new(); 5];
            let mut came = 0;
            // Whatever happened before, one last source that works brings the rest.
            let rest = (0..4).map(Step::GiveUp);
            let end = (0..60).flat_map(|_| [Step::Take(4), Step::Bring(4)]);
            for step in steps.into_iter().chain(rest).chain(end) {
                match step {
                    Step::Take(who) => if let Some(index) = plan.take(who, now) {
                        prop_assert!(!plan.has(index) && !hands[who].contains(&index));
                        hands[who].push(index);
                    },
                    Step::Bring(who) => if let Some(index) = hands[who].pop() {
                        came += usize::from(plan.done(index));
                    },
                    Step::GiveUp(who) => {
                        hands[who].clear();
                        plan.give_up(who);
                    }
                    Step::Wait => now += PATIENCE,
                }
            }
            prop_assert!(plan.is_done());
            prop_assert_eq!(came, missing);
        }
    }
}
