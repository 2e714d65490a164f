//! What holds: the versions of all machines, put together.
//!
//! The state is the union of all versions ever seen and nothing else, so every machine that saw the same
//! versions, in whatever order and however often, has the same state. A version is *live* while nothing known
//! supersedes it. Versions that supersede one another, at however many removes, are one *lineage*; two live
//! versions of one lineage that say different things are a *conflict*: both stay until a version supersedes
//! both. A tombstone takes the place of what it names and belongs to no lineage itself, so that forgetting
//! many memories at once does not tie them together. Live versions with the same text in the same project are
//! copies of one memory, the earliest speaking for all.
//!
//! Kept light for a million versions: about 180 bytes each, no text.

mod graph;
mod tags;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::graph::{Graph, Joined, NONE, Node, Slot};
use self::tags::TagSets;
use super::clock::Stamp;
use super::record::{Header, RecordId};

/// The versions of all machines, put together.
#[derive(Debug, Default)]
pub struct State {
    graph: Graph,
    tags: TagSets,
    /// The group of each text in a project, by a hash of both.
    groups: HashMap<[u8; 16], u32>,
    /// For each group its first version; the others follow in a list.
    firsts: Vec<Slot>,
    known: usize,
    live: usize,
}

/// Whether a version was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was known already.
    Known,
    /// It is new.
    Added,
    /// Another version of the same name is known: its machine broke the rules, or a key is used twice. The
    /// earlier one counts, and both supersede what they supersede.
    Forked,
}

/// What applying a version changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whether it was new.
    pub outcome: Outcome,
    /// Whether it is live now.
    pub live: bool,
    /// Versions that were live before and are not any more: take them out of the index.
    pub retired: Vec<RecordId>,
    /// Known versions whose text must be erased, because of a hard forget.
    pub erase: Vec<RecordId>,
    /// Whether its lineage is in conflict now.
    pub conflict: bool,
    /// The version that speaks for it, if it is a live copy of another.
    pub copy_of: Option<RecordId>,
}

/// How a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It holds.
    Live,
    /// Another version took its place.
    Superseded,
    /// A tombstone took its place.
    Forgotten,
    /// It is a tombstone.
    Tombstone,
    /// It is named by another version, but was not seen yet.
    Awaited,
}

/// Live versions of one lineage that say different things.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The versions, earliest first: at least two.
    pub heads: Vec<RecordId>,
}

/// A live version that goes back to a forgotten one without having known the tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contested {
    /// The version that is live.
    pub version: RecordId,
    /// The tombstone that would have it forgotten. A version that supersedes this, too, settles it.
    pub tombstone: RecordId,
}

/// A memory: live versions with the same text in the same project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The earliest, which speaks for all.
    pub canonical: RecordId,
    /// The others, earliest first.
    pub copies: Vec<RecordId>,
    /// The tags of all, sorted, each once.
    pub tags: Vec<String>,
}

impl State {
    /// A state with room for `versions`.
    pub fn with_capacity(versions: usize) -> Self {
        let mut state = Self::default();
        state.graph.reserve(versions);
        state.groups.reserve(versions);
        state.firsts.reserve(versions);
        state
    }

    /// How many versions are known, tombstones included.
    pub const fn len(&self) -> usize {
        self.known
    }

    /// Whether no version is known.
    pub const fn is_empty(&self) -> bool {
        self.known == 0
    }

    /// How many versions are live.
    pub const fn live_count(&self) -> usize {
        self.live
    }

    /// Takes a version into account. Its signature must have been verified. The order does not matter, nor
    /// whether it is applied once or more often.
    pub fn apply(&mut self, header: &Header) -> Effect {
        let digest = short_hash(&[&header.signed_bytes()]);
        let slot = self.graph.slot(header.id);
        let before = *self.graph.at(slot);
        let mut effect = Effect {
            outcome: Outcome::Known,
            live: false,
            retired: Vec::new(),
            erase: Vec::new(),
            conflict: false,
            copy_of: None,
        };
        if !before.is_known() || before.digest != digest {
            effect.outcome = if before.is_known() { Outcome::Forked } else { Outcome::Added };
            self.known = self.known.saturating_add(usize::from(!before.is_known()));
            self.describe(slot, before, header, digest);
            self.connect(slot, before, header, &mut effect);
        }
        let node = *self.graph.at(slot);
        effect.live = node.is_live();
        effect.conflict = self.in_conflict(header.id);
        effect.copy_of = self.canonical(slot).map(|first| self.id(first)).filter(|id| *id != header.id);
        effect
    }

    /// Writes down what a version says, unless an earlier one of the same name says otherwise.
    fn describe(&mut self, slot: Slot, before: Node, header: &Header, digest: u64) {
        let wins = !before.is_known() || (header.stamp.bits(), digest) < (before.stamp, before.digest);
        let tombstone = before.is_tombstone() || header.is_tombstone();
        let hard = before.is_hard() || header.tombstone.as_ref().is_some_and(|tombstone| tombstone.hard);
        if before.group != NONE && (wins || tombstone) {
            self.leave_group(slot, before.group);
        }
        let tags = if wins { self.tags.intern(&header.tags) } else { before.tags };
        self.graph.edit(slot, |node| {
            node.mark_known(tombstone, hard);
            if wins {
                node.stamp = header.stamp.bits();
                node.digest = digest;
                node.facets = facets(header);
                node.tags = tags;
            }
        });
        if wins && !tombstone {
            self.join_group(slot, header);
        }
    }

    /// Ties a version to those it supersedes.
    fn connect(&mut self, slot: Slot, before: Node, header: &Header, effect: &mut Effect) {
        let node = *self.graph.at(slot);
        let mut dirty = before.is_known();
        for target in header.supersedes.iter().filter(|target| **target != header.id) {
            let target = self.graph.slot(*target);
            let was_live = self.graph.at(target).is_live();
            if !self.graph.link(slot, target) {
                continue;
            }
            if was_live && target != slot {
                effect.retired.push(self.id(target));
                self.live = self.live.saturating_sub(1);
                self.graph.add_heads(target, -1);
            }
            if !node.is_tombstone() && self.graph.join(slot, target) == Joined::Never {
                dirty = true;
            }
        }
        if node.is_hard() {
            let targets = self.graph.targets(slot).map(|target| (self.id(target), *self.graph.at(target)));
            effect.erase.extend(targets.filter(|(_, node)| node.has_text()).map(|(id, _)| id));
        }
        if node.has_text() && self.graph.superseders(slot).any(|by| self.graph.at(by).is_hard()) {
            effect.erase.push(header.id);
        }
        let live = self.graph.at(slot).is_live();
        match (before.is_live(), live) {
            (false, true) => self.live = self.live.saturating_add(1),
            (true, false) => {
                self.live = self.live.saturating_sub(1);
                effect.retired.push(header.id);
            }
            _ => {}
        }
        // A tombstone ties nothing together, also what was tied while its nature was not known.
        if dirty || node.is_tombstone() {
            self.graph.rebuild(slot);
        } else if live {
            self.graph.add_heads(slot, 1);
        }
    }

    /// Puts a version among those of the same text and project.
    fn join_group(&mut self, slot: Slot, header: &Header) {
        let key = group_key(header);
        let fresh = u32::try_from(self.firsts.len()).unwrap_or(NONE);
        let group = *self.groups.entry(key).or_insert(fresh);
        if group == fresh {
            self.firsts.push(NONE);
        }
        if let Some(first) = usize::try_from(group).ok().and_then(|group| self.firsts.get_mut(group)) {
            let next = std::mem::replace(first, slot);
            self.graph.edit(slot, |node| (node.group, node.twin) = (group, next));
        }
    }

    /// Takes a version out of its group.
    fn leave_group(&mut self, slot: Slot, group: u32) {
        let others: Vec<Slot> = self.group(group).filter(|other| *other != slot).collect();
        self.graph.edit(slot, |node| (node.group, node.twin) = (NONE, NONE));
        let mut next = NONE;
        for other in others.into_iter().rev() {
            self.graph.edit(other, |node| node.twin = next);
            next = other;
        }
        if let Some(first) = usize::try_from(group).ok().and_then(|group| self.firsts.get_mut(group)) {
            *first = next;
        }
    }

    /// The versions of a group.
    fn group(&self, group: u32) -> impl Iterator<Item = Slot> + '_ {
        let first = usize::try_from(group).ok().and_then(|group| self.firsts.get(group)).copied();
        let next = |slot: &Slot| Some(self.graph.at(*slot).twin).filter(|twin| *twin != NONE);
        std::iter::successors(first.filter(|first| *first != NONE), next)
    }

    /// The earliest live version with the text and project of this live one.
    fn canonical(&self, slot: Slot) -> Option<Slot> {
        let node = self.graph.at(slot);
        if !node.is_live() {
            return None;
        }
        let live = self.group(node.group).filter(|other| self.graph.at(*other).is_live());
        live.min_by_key(|other| self.age(*other))
    }

    /// What versions are sorted by: their stamp, then their name.
    fn age(&self, slot: Slot) -> (u64, [u8; 16]) {
        let node = self.graph.at(slot);
        (node.stamp, node.id)
    }

    /// The name of a version.
    fn id(&self, slot: Slot) -> RecordId {
        RecordId::from_bytes(self.graph.at(slot).id)
    }

    /// Names, earliest version first.
    fn ids(&self, mut slots: Vec<Slot>) -> Vec<RecordId> {
        slots.sort_unstable_by_key(|slot| self.age(*slot));
        slots.into_iter().map(|slot| self.id(slot)).collect()
    }

    /// How a version stands; `None` if nothing is known of it.
    pub fn standing(&self, id: RecordId) -> Option<Standing> {
        let slot = self.graph.find(id)?;
        let node = self.graph.at(slot);
        let forgotten = || self.graph.superseders(slot).any(|by| self.graph.at(by).is_tombstone());
        Some(if !node.is_known() {
            Standing::Awaited
        } else if node.is_tombstone() {
            Standing::Tombstone
        } else if node.is_live() {
            Standing::Live
        } else if forgotten() {
            Standing::Forgotten
        } else {
            Standing::Superseded
        })
    }

    /// Whether the text of a version, seen or not, is to be erased.
    pub fn is_doomed(&self, id: RecordId) -> bool {
        let hard = |slot| self.graph.superseders(slot).any(|by| self.graph.at(by).is_hard());
        self.graph.find(id).is_some_and(hard)
    }

    /// Whether a version is live.
    pub fn is_live(&self, id: RecordId) -> bool {
        self.standing(id) == Some(Standing::Live)
    }

    /// When a known version was written.
    pub fn stamp(&self, id: RecordId) -> Option<Stamp> {
        let node = self.graph.at(self.graph.find(id)?);
        node.is_known().then(|| Stamp::from_bits(node.stamp))
    }

    /// All live versions, in no particular order.
    pub fn live(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.graph.nodes().iter().filter(|node| node.is_live()).map(|node| RecordId::from_bytes(node.id))
    }

    /// The live versions of the lineage that `thread`, any version of it, belongs to; earliest first.
    pub fn heads(&self, thread: RecordId) -> Vec<RecordId> {
        let Some(slot) = self.graph.find(thread) else { return Vec::new() };
        self.ids(self.graph.lineage(slot).filter(|slot| self.graph.at(*slot).is_live()).collect())
    }

    /// All known versions of the lineage that `thread` belongs to; earliest first.
    pub fn lineage(&self, thread: RecordId) -> Vec<RecordId> {
        let Some(slot) = self.graph.find(thread) else { return Vec::new() };
        self.ids(self.graph.lineage(slot).filter(|slot| self.graph.at(*slot).is_known()).collect())
    }

    /// The versions, tombstones included, that took the place of this one; earliest first.
    pub fn superseded_by(&self, id: RecordId) -> Vec<RecordId> {
        let Some(slot) = self.graph.find(id) else { return Vec::new() };
        self.ids(self.graph.superseders(slot).collect())
    }

    /// The live versions of a lineage if they do not all say the same.
    fn disagreeing(&self, slot: Slot) -> Option<Vec<Slot>> {
        let heads: Vec<Slot> =
            self.graph.lineage(slot).filter(|slot| self.graph.at(*slot).is_live()).collect();
        let says = |slot: &Slot| (self.graph.at(*slot).group, self.graph.at(*slot).facets);
        let first = says(heads.first()?);
        heads.iter().any(|slot| says(slot) != first).then_some(heads)
    }

    /// Whether the lineage of a version is in conflict.
    pub fn in_conflict(&self, id: RecordId) -> bool {
        self.graph.find(id).is_some_and(|slot| self.graph.heads(slot) > 1 && self.disagreeing(slot).is_some())
    }

    /// All conflicts, sorted.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let several = self.graph.with_several_heads();
        let found = several.filter_map(|root| Some(Conflict { heads: self.ids(self.disagreeing(root)?) }));
        let mut conflicts: Vec<Conflict> = found.collect();
        conflicts.sort_unstable();
        conflicts
    }

    /// Live versions that go back to something another machine forgot meanwhile, sorted. An edit wins over a
    /// forget that did not know it, and this is where it shows. Looks at every tombstone.
    pub fn contested(&self) -> Vec<Contested> {
        let mut found = Vec::new();
        for tombstone in
            (0..).zip(self.graph.nodes()).filter(|(_, node)| node.is_tombstone()).map(|(slot, _)| slot)
        {
            let mut seen: Vec<Slot> = Vec::new();
            let mut next: Vec<Slot> = self.graph.targets(tombstone).collect();
            while let Some(slot) = next.pop() {
                for by in self.graph.superseders(slot) {
                    let knew = || self.graph.targets(by).any(|target| target == tombstone);
                    if !self.graph.at(by).is_tombstone() && !seen.contains(&by) && !knew() {
                        seen.push(by);
                        next.push(by);
                    }
                }
            }
            let live = seen.into_iter().filter(|slot| self.graph.at(*slot).is_live());
            let tombstone = self.id(tombstone);
            found.extend(live.map(|slot| Contested { version: self.id(slot), tombstone }));
        }
        found.sort_unstable();
        found
    }

    /// The memory a live version belongs to, with its copies.
    pub fn memory(&self, id: RecordId) -> Option<Memory> {
        let slot = self.graph.find(id)?;
        let canonical = self.canonical(slot)?;
        let group = self.graph.at(slot).group;
        let live: Vec<Slot> = self.group(group).filter(|other| self.graph.at(*other).is_live()).collect();
        let tags = self.tags.union(live.iter().map(|slot| self.graph.at(*slot).tags));
        let copies = self.ids(live.into_iter().filter(|slot| *slot != canonical).collect());
        Some(Memory { canonical: self.id(canonical), copies, tags })
    }

    /// A forgotten version with the text and project of this one: what was forgotten may have come back.
    pub fn forgotten_copy(&self, id: RecordId) -> Option<RecordId> {
        let group = self.graph.at(self.graph.find(id)?).group;
        let forgotten =
            |slot: &Slot| self.graph.superseders(*slot).any(|by| self.graph.at(by).is_tombstone());
        let found = self.group(group).filter(forgotten).min_by_key(|slot| self.age(*slot));
        found.map(|slot| self.id(slot)).filter(|found| *found != id)
    }
}

/// The first 8 bytes of BLAKE3 of `parts`.
fn short_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// A hash of what live versions of the same text must agree on to be no conflict.
fn facets(header: &Header) -> u64 {
    let time = |time: Option<super::record::Millis>| time.map_or(i64::MIN, |time| time.0).to_le_bytes();
    let kind = header.kind.name().as_bytes();
    short_hash(&[&time(header.occurred_at), &time(header.valid_until), kind])
}

/// A hash of project and text. Half of BLAKE3 is enough: whoever finds two texts with the same hash can only
/// make his own two memories one.
fn group_key(header: &Header) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header.body_hash.0);
    hasher.update(&[u8::from(header.project.is_some())]);
    hasher.update(header.project.as_deref().unwrap_or_default().as_bytes());
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}
