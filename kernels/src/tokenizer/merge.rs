//! The merge loop that byte-level BPE and SPM share: the best-ranked adjacent pair first, the leftmost of
//! equals, until no pair can be merged. A heap over a linked list: n symbols cost O(n log n), always.

#![allow(clippy::indexing_slicing, reason = "indices come from the list itself and stay below its length")]

use std::{cmp::Reverse, collections::BinaryHeap};

/// No neighbour, no token, no rank.
pub(super) const NONE: u32 = u32::MAX;

/// Below this many symbols a scan for the best pair is faster than a heap.
const SHORT: usize = 24;

/// A symbol of the word: a span of bytes and, where there is one, its token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Token id, or [`NONE`].
    pub(super) id: u32,
    /// First byte of the span.
    pub(super) start: u32,
    /// Byte behind the span.
    pub(super) end: u32,
    prev: u32,
    next: u32,
    /// Rank of the merge with the next symbol, or [`NONE`].
    rank: u32,
    /// Token of that merge.
    merged: u32,
}

/// Working memory, kept between words.
#[derive(Debug, Default)]
pub(super) struct Merger {
    nodes: Vec<Node>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Forgets the last word.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Appends a symbol.
    pub(super) fn push(&mut self, id: u32, start: usize, end: usize) {
        // Words are cut far below 4 GiB, so the offsets fit.
        let (start, end) = (u32::try_from(start).unwrap_or(NONE), u32::try_from(end).unwrap_or(NONE));
        self.nodes.push(Node { id, start, end, prev: NONE, next: NONE, rank: NONE, merged: NONE });
    }

    /// Merges as far as `pair` allows (rank and token of two neighbours, lower ranks first; a rank is never
    /// [`NONE`]) and returns what is left.
    pub(super) fn run(&mut self, pair: impl Fn(&Node, &Node) -> Option<(u32, u32)>) -> &[Node] {
        if self.nodes.len() <= SHORT {
            self.scan(&pair)
        } else {
            self.queue(&pair)
        }
        &self.nodes
    }

    fn scan(&mut self, pair: &impl Fn(&Node, &Node) -> Option<(u32, u32)>) {
        let nodes = &mut self.nodes;
        let rate = |nodes: &mut Vec<Node>, i: usize| {
            let found = if i + 1 < nodes.len() { pair(&nodes[i], &nodes[i + 1]) } else { None };
            (nodes[i].rank, nodes[i].merged) = found.unwrap_or((NONE, NONE));
        };
        for i in 0..nodes.len() {
            rate(nodes, i);
        }
        loop {
            let best = nodes.iter().enumerate().min_by_key(|(_, n)| n.rank);
            let Some((i, _)) = best.filter(|(_, n)| n.rank != NONE) else { return };
            nodes[i].id = nodes[i].merged;
            nodes[i].end = nodes[i + 1].end;
            nodes.remove(i + 1);
            rate(nodes, i);
            if i > 0 {
                rate(nodes, i - 1);
            }
        }
    }

    fn queue(&mut self, pair: &impl Fn(&Node, &Node) -> Option<(u32, u32)>) {
        let Self { nodes, heap } = self;
        let n = nodes.len();
        let mut seeds = std::mem::take(heap).into_vec();
        seeds.clear();
        let at = |i: usize| u32::try_from(i).unwrap_or(NONE);
        for i in 0..n {
            nodes[i].prev = if i > 0 { at(i - 1) } else { NONE };
            nodes[i].next = if i + 1 < n { at(i + 1) } else { NONE };
            let found = if i + 1 < n { pair(&nodes[i], &nodes[i + 1]) } else { None };
            if let Some((rank, merged)) = found {
                (nodes[i].rank, nodes[i].merged) = (rank, merged);
                seeds.push(entry(rank, at(i)));
            }
        }
        *heap = BinaryHeap::from(seeds);
        while let Some(Reverse(key)) = heap.pop() {
            let (rank, i) = ((key >> 32) as u32, (key & u64::from(NONE)) as u32);
            let left = i as usize;
            // An entry is stale when the symbol was merged away or has another neighbour by now.
            if nodes[left].rank != rank {
                continue;
            }
            let right = nodes[left].next as usize;
            let (end, next) = (nodes[right].end, nodes[right].next);
            nodes[right].rank = NONE;
            nodes[right].start = nodes[right].end;
            nodes[left].id = nodes[left].merged;
            nodes[left].end = end;
            nodes[left].next = next;
            if next != NONE {
                nodes[next as usize].prev = i;
            }
            for (a, b) in [(nodes[left].prev, i), (i, next)] {
                if a == NONE {
                    continue;
                }
                let found = if b == NONE { None } else { pair(&nodes[a as usize], &nodes[b as usize]) };
                let node = &mut nodes[a as usize];
                (node.rank, node.merged) = found.unwrap_or((NONE, NONE));
                if let Some((rank, _)) = found {
                    heap.push(entry(rank, a));
                }
            }
        }
        // Symbols that were merged away have an empty span.
        nodes.retain(|node| node.start < node.end);
    }
}

fn entry(rank: u32, at: u32) -> Reverse<u64> {
    Reverse(u64::from(rank) << 32 | u64::from(at))
}
