//! What the other side of a stream lacks, and in which order it gets it.
//!
//! For each machine there is a place up to which everything was considered. News start from there again; whoever missed
//! news starts from the beginning, which costs no disk. Machines with a single new entry go before those with a backlog, so
//! that a live write does not wait for a snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::record::NodeId;
use super::{
    catalogue::Catalogue,
    message::HaveRow,
    runs::{Run, Runs},
    scope::Reach,
};

/// Sequences that are picked at once.
const PICK: usize = 2_048;

/// What the other side lacks.
#[derive(Debug)]
pub(super) struct Outbox {
    me: NodeId,
    /// What it may read.
    reach: Reach,
    /// What of this machine's own entries may be shown at all: those it may write.
    own: Reach,
    /// What it has, or is on its way to it.
    theirs: BTreeMap<NodeId, Runs>,
    /// With whom it has a stream of its own.
    near: BTreeSet<NodeId>,
    /// From where on to look, for machines of which it may lack something.
    backlog: BTreeMap<NodeId, u64>,
    /// The same, for machines of which it had everything a moment ago.
    live: VecDeque<(NodeId, u64)>,
}

impl Outbox {
    pub(super) fn new(me: NodeId, reach: Reach, own: Reach) -> Self {
        Self {
            me,
            reach,
            own,
            theirs: BTreeMap::new(),
            near: BTreeSet::new(),
            backlog: BTreeMap::new(),
            live: VecDeque::new(),
        }
    }

    /// What the other side may read.
    pub(super) const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Takes a change of grants into account; whether there was one.
    pub(super) fn regrant(&mut self, reach: Reach, own: Reach, catalogue: &Catalogue) -> bool {
        let changed = reach != self.reach || own != self.own;
        if changed {
            (self.reach, self.own) = (reach, own);
            self.rescan(catalogue, false);
        }
        changed
    }

    /// The other side says what it has; `sent` is still on its way to it. The first time, what it gets from others at this
    /// moment is left to them.
    pub(super) fn have<'a>(
        &mut self,
        rows: Vec<HaveRow>,
        sent: impl Iterator<Item = (NodeId, &'a Runs)>,
        first: bool,
        catalogue: &Catalogue,
    ) {
        self.theirs = rows.into_iter().map(|row| (row.origin, row.runs)).collect();
        for (origin, runs) in sent {
            self.theirs.entry(origin).or_default().merge(runs);
        }
        self.rescan(catalogue, first);
    }

    /// Looks everything through again.
    pub(super) fn rescan(&mut self, catalogue: &Catalogue, leave_near: bool) {
        self.live.clear();
        let origins = catalogue.origins().into_iter();
        self.backlog =
            origins.filter(|origin| !leave_near || !self.leaves(*origin)).map(|origin| (origin, 1)).collect();
    }

    /// Whether entries of a machine come to the other side from that machine itself.
    fn leaves(&self, origin: NodeId) -> bool {
        origin != self.me && self.near.contains(&origin)
    }

    /// The other side has streams with these; what those that are gone wrote comes through us again.
    pub(super) fn set_near(&mut self, near: BTreeSet<NodeId>, catalogue: &Catalogue) {
        let gone: Vec<NodeId> = self.near.difference(&near).copied().collect();
        self.near = near;
        for origin in gone {
            if catalogue.next(origin) > 1 {
                self.look(origin, 1);
            }
        }
    }

    /// Something became durable here.
    pub(super) fn news(&mut self, news: &[(NodeId, Run)]) {
        for (origin, run) in news {
            if !self.leaves(*origin) && !self.lacks_none(*origin, *run) {
                self.look(*origin, run.first);
            }
        }
    }

    fn lacks_none(&self, origin: NodeId, run: Run) -> bool {
        self.theirs.get(&origin).is_some_and(|theirs| theirs.lacking(run).is_empty())
    }

    /// Looks at a machine's entries from `from` on.
    fn look(&mut self, origin: NodeId, from: u64) {
        if let Some(place) = self.backlog.get_mut(&origin) {
            *place = from.min(*place);
        } else if let Some((_, place)) = self.live.iter_mut().find(|(of, _)| *of == origin) {
            *place = from.min(*place);
        } else {
            self.live.push_back((origin, from));
        }
    }

    /// Notes that the other side has, or gets, an entry.
    pub(super) fn mark(&mut self, origin: NodeId, run: Run) {
        self.theirs.entry(origin).or_default().insert(run);
    }

    /// Entries to send next, of one machine.
    pub(super) fn next(&mut self, catalogue: &Catalogue) -> Option<(NodeId, Runs)> {
        while let Some((origin, from)) = self.live.front().copied() {
            let (found, more) = self.lacking(catalogue, origin, from, PICK);
            if !found.is_empty() {
                return Some((origin, found));
            }
            self.live.pop_front();
            if let Some(next) = more {
                self.backlog.insert(origin, next);
            }
        }
        while let Some((origin, from)) = self.turn() {
            let (found, more) = self.lacking(catalogue, origin, from, PICK);
            if !found.is_empty() {
                return Some((origin, found));
            }
            match more {
                Some(next) => self.backlog.insert(origin, next),
                None => self.backlog.remove(&origin),
            };
        }
        None
    }

    /// Whose backlog is next: first our own, then from ourselves on in a circle, so that several machines that bring a
    /// newcomer up to date begin at different places.
    fn turn(&self) -> Option<(NodeId, u64)> {
        let mut circle = self.backlog.range(self.me..).chain(self.backlog.range(..self.me));
        circle.next().map(|(origin, from)| (*origin, *from))
    }

    fn lacking(&self, catalogue: &Catalogue, origin: NodeId, from: u64, most: usize) -> (Runs, Option<u64>) {
        let none = Runs::default();
        let theirs = self.theirs.get(&origin).unwrap_or(&none);
        if origin == self.me && self.own != Reach::All {
            catalogue.lacking(origin, from, theirs, &self.reach.and(&self.own), most)
        } else {
            catalogue.lacking(origin, from, theirs, &self.reach, most)
        }
    }

    /// Notes that of `wanted` everything up to a sequence is on its way.
    pub(super) fn sent(&mut self, origin: NodeId, wanted: &Runs, upto: u64) -> Runs {
        let sent: Runs = wanted
            .iter()
            .filter(|run| run.first <= upto)
            .map(|run| Run { first: run.first, last: run.last.min(upto) })
            .collect();
        self.theirs.entry(origin).or_default().merge(&sent);
        let next = upto.saturating_add(1);
        if let Some(place) = self.backlog.get_mut(&origin) {
            // News may have asked meanwhile for something before it.
            if wanted.iter().next().is_some_and(|run| run.first >= *place) {
                *place = next;
            }
        }
        sent
    }

    /// How many entries the other side lacks that it may read, those on their way left out.
    pub(super) fn owed(&self, catalogue: &Catalogue) -> u64 {
        let lacking = |origin| self.lacking(catalogue, origin, 1, usize::MAX).0.len();
        catalogue.origins().into_iter().map(lacking).fold(0, u64::saturating_add)
    }

    /// Whether there is nothing left to look at.
    pub(super) fn is_done(&self) -> bool {
        self.live.is_empty() && self.backlog.is_empty()
    }
}
