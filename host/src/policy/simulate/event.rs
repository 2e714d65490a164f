//! What happens next.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A machine comes back.
    Back(u32),
    /// A machine goes away.
    Away(u32),
    /// A machine has done a part of its work, if its work has not changed since.
    Step { machine: u32, version: u64 },
    /// A job is asked for, or it is asked for again.
    Ask { job: u32 },
    /// A request arrives.
    Request { try_: Try, machine: u32 },
    /// The asking machine hears something.
    Heard { try_: Try, news: News },
}

/// A job's n-th try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Try {
    pub(super) job: u32,
    pub(super) number: u32,
}

/// What a machine says, or is not heard to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// It has too much to do.
    Full,
    /// The job has no room there.
    Small,
    /// The job failed there.
    Broken { computed: u32 },
    /// Nothing more is heard of it. So many tokens of the answer had come.
    Silence { made: u32 },
    /// The first token.
    First,
    /// The answer is complete. So many tokens of the prompt had to be computed.
    Done { computed: u32 },
}

/// All that is to come, the earliest first; what comes at the same time in the order in which it was planned.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    planned: u64,
}

impl Events {
    /// Plans something for a moment, in microseconds.
    pub(super) fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, event)));
    }

    /// What comes next, and when.
    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
