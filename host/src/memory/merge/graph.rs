//! Versions and what they supersede, in few bytes, with lineages kept up to date as versions arrive.
//!
//! Everything is a number into a vector. Lineages are a forest of parents for finding which one a version is
//! in, and a ring for finding all versions of one.

use std::collections::{BTreeSet, HashMap};

use super::super::record::RecordId;

/// The number of a version.
pub(super) type Slot = u32;

/// No version, no edge, no group.
pub(super) const NONE: u32 = u32::MAX;

const KNOWN: u8 = 1;
const TOMBSTONE: u8 = 2;
const HARD: u8 = 4;

/// A version, seen or only named by another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) id: [u8; 16],
    pub(super) stamp: u64,
    /// Tells apart versions of the same name.
    pub(super) digest: u64,
    /// A hash of kind and times.
    pub(super) facets: u64,
    /// The group of versions of the same text and project, and the next in it.
    pub(super) group: u32,
    pub(super) twin: Slot,
    pub(super) tags: u32,
    /// Towards the root of the lineage; at the root the slot itself.
    parent: Slot,
    /// The next version of the lineage, in a ring.
    ring: Slot,
    /// At the root: how many versions of the lineage are live.
    heads: u32,
    /// The first edge to what this supersedes, and from what supersedes this.
    out: u32,
    into: u32,
    flags: u8,
}

/// What stands in for a version that is not there.
static NOWHERE: Node = Node {
    id: [0; 16],
    stamp: 0,
    digest: 0,
    facets: 0,
    group: NONE,
    twin: NONE,
    tags: NONE,
    parent: NONE,
    ring: NONE,
    heads: 0,
    out: NONE,
    into: NONE,
    flags: 0,
};

impl Node {
    /// Whether it was seen.
    pub(super) const fn is_known(&self) -> bool {
        self.flags & KNOWN != 0
    }

    /// Whether it forgets what it supersedes.
    pub(super) const fn is_tombstone(&self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    /// Whether it has the texts of what it supersedes erased.
    pub(super) const fn is_hard(&self) -> bool {
        self.flags & HARD != 0
    }

    /// Whether it was seen and is not a tombstone.
    pub(super) const fn has_text(&self) -> bool {
        self.is_known() && !self.is_tombstone()
    }

    /// Whether it holds: seen, no tombstone, nothing supersedes it.
    pub(super) const fn is_live(&self) -> bool {
        self.has_text() && self.into == NONE
    }

    /// Notes that it was seen.
    pub(super) const fn mark_known(&mut self, tombstone: bool, hard: bool) {
        self.flags |= KNOWN | if tombstone { TOMBSTONE } else { 0 } | if hard { HARD } else { 0 };
    }
}

/// One version supersedes another.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: Slot,
    to: Slot,
    /// The next edge of `from`.
    next_out: u32,
    /// The next edge to `to`.
    next_into: u32,
}

/// Whether two versions are of one lineage now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// They are.
    Yes,
    /// They never are: one is a tombstone.
    Never,
}

/// All versions and what they supersede.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    index: HashMap<[u8; 16], Slot>,
    /// The roots of lineages with more than one live version.
    several: BTreeSet<Slot>,
}

/// A number as a place in a vector.
fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Graph {
    /// Makes room for more versions.
    pub(super) fn reserve(&mut self, versions: usize) {
        self.nodes.reserve(versions);
        self.index.reserve(versions);
    }

    /// All versions by their slots.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A version.
    pub(super) fn at(&self, slot: Slot) -> &Node {
        self.nodes.get(place(slot)).unwrap_or(&NOWHERE)
    }

    /// Changes a version.
    pub(super) fn edit(&mut self, slot: Slot, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(place(slot)) {
            change(node);
        }
    }

    /// The slot of a name, if it was ever heard.
    pub(super) fn find(&self, id: RecordId) -> Option<Slot> {
        self.index.get(&id.to_bytes()).copied()
    }

    /// The slot of a name; a version that was not seen gets one, too.
    pub(super) fn slot(&mut self, id: RecordId) -> Slot {
        let fresh = u32::try_from(self.nodes.len()).unwrap_or(NONE);
        let slot = *self.index.entry(id.to_bytes()).or_insert(fresh);
        if slot == fresh {
            self.nodes.push(Node { id: id.to_bytes(), parent: slot, ring: slot, ..NOWHERE });
        }
        slot
    }

    /// Notes that `from` supersedes `to`; `false` if that was known.
    pub(super) fn link(&mut self, from: Slot, to: Slot) -> bool {
        if self.targets(from).any(|target| target == to) {
            return false;
        }
        let number = u32::try_from(self.edges.len()).unwrap_or(NONE);
        let (next_out, next_into) = (self.at(from).out, self.at(to).into);
        self.edges.push(Edge { from, to, next_out, next_into });
        self.edit(from, |node| node.out = number);
        self.edit(to, |node| node.into = number);
        true
    }

    /// What a version supersedes.
    pub(super) fn targets(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let first = self.edges.get(place(self.at(slot).out));
        std::iter::successors(first, |edge| self.edges.get(place(edge.next_out))).map(|edge| edge.to)
    }

    /// What supersedes a version.
    pub(super) fn superseders(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let first = self.edges.get(place(self.at(slot).into));
        std::iter::successors(first, |edge| self.edges.get(place(edge.next_into))).map(|edge| edge.from)
    }

    /// The root of a version's lineage.
    fn root(&self, mut slot: Slot) -> Slot {
        loop {
            let parent = self.at(slot).parent;
            if parent == slot {
                return slot;
            }
            slot = parent;
        }
    }

    /// The root of a version's lineage, with the way there made shorter for next time.
    fn root_mut(&mut self, mut slot: Slot) -> Slot {
        loop {
            let parent = self.at(slot).parent;
            if parent == slot {
                return slot;
            }
            let above = self.at(parent).parent;
            self.edit(slot, |node| node.parent = above);
            slot = above;
        }
    }

    /// All versions of a lineage, those only named included.
    pub(super) fn lineage(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let next = move |at: &Slot| Some(self.at(*at).ring).filter(|next| *next != slot && *next != NONE);
        std::iter::successors(Some(slot), next)
    }

    /// How many versions of a lineage are live.
    pub(super) fn heads(&self, slot: Slot) -> u32 {
        self.at(self.root(slot)).heads
    }

    /// The roots of lineages with more than one live version.
    pub(super) fn with_several_heads(&self) -> impl Iterator<Item = Slot> + '_ {
        self.several.iter().copied()
    }

    /// Counts a live version more or less in a lineage.
    pub(super) fn add_heads(&mut self, slot: Slot, change: i32) {
        let root = self.root_mut(slot);
        let heads = self.at(root).heads.saturating_add_signed(change);
        self.set_heads(root, heads);
    }

    /// Notes how many versions of the lineage of `root` are live.
    fn set_heads(&mut self, root: Slot, heads: u32) {
        self.edit(root, |node| node.heads = heads);
        if heads > 1 {
            self.several.insert(root);
        } else {
            self.several.remove(&root);
        }
    }

    /// Makes the lineages of two versions one, unless `target` is a tombstone.
    pub(super) fn join(&mut self, slot: Slot, target: Slot) -> Joined {
        if self.at(target).is_tombstone() {
            return Joined::Never;
        }
        let (kept, gone) = (self.root_mut(slot), self.root_mut(target));
        if kept == gone {
            return Joined::Yes;
        }
        // A lineage usually grows at its end: hang the single new version below the old root.
        let (kept, gone) = if self.at(kept).ring == kept { (gone, kept) } else { (kept, gone) };
        let heads = self.at(kept).heads.saturating_add(self.at(gone).heads);
        // Two rings that swap their next become one.
        let (next_kept, next_gone) = (self.at(kept).ring, self.at(gone).ring);
        self.edit(kept, |node| node.ring = next_gone);
        self.edit(gone, |node| (node.ring, node.parent) = (next_kept, kept));
        self.set_heads(gone, 0);
        self.set_heads(kept, heads);
        Joined::Yes
    }

    /// Takes the lineage of a version apart and ties it together again by what its versions supersede.
    pub(super) fn rebuild(&mut self, slot: Slot) {
        let members: Vec<Slot> = self.lineage(slot).collect();
        for member in &members {
            self.edit(*member, |node| (node.parent, node.ring) = (*member, *member));
            self.set_heads(*member, u32::from(self.at(*member).is_live()));
        }
        for member in members {
            if self.at(member).has_text() {
                let targets: Vec<Slot> = self.targets(member).collect();
                for target in targets {
                    self.join(member, target);
                }
            }
        }
    }
}
