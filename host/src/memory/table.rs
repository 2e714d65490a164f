//! What is known of every version without reading its text: where it lies, what it is, and whether it still holds.
//!
//! A version's *ordinal* is its place in the order of arrival at this machine; postings, vectors and the text index
//! speak of ordinals only. The order is kept in a small file, so that they stay valid when the log grows in the
//! middle (another machine's entries). Passages and pieces (what a vector stands for) are numbered on, ordinal by
//! ordinal.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::{
    log::Location,
    record::{Digest, Header, Kind, Millis, RecordId},
    request::Filter,
};

/// The moment after all moments: not ended, no end of validity.
pub(super) const NEVER: i64 = i64::MAX;

/// How many passages and pieces a version's text has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Passages; 0 when the record is its only one.
    pub(super) passages: u16,
    /// Pieces with a vector each.
    pub(super) pieces: u16,
}

/// What is known of a version.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: RecordId,
    pub(super) place: Option<Location>,
    pub(super) kind: Kind,
    /// Number of its project's name; 0: none.
    pub(super) project: u32,
    pub(super) tags: Box<[u32]>,
    /// When it occurred, or else was written, in milliseconds since the Unix epoch.
    pub(super) at: i64,
    /// When it was written.
    pub(super) created: i64,
    /// When it stops being true; [`NEVER`] when that is open.
    pub(super) valid_until: i64,
    /// When a later version took its place; [`NEVER`] while it holds.
    pub(super) ended: i64,
    pub(super) tombstone: bool,
    /// Its text is gone.
    pub(super) erased: bool,
    /// A living version that came earlier says the same in the same project.
    pub(super) duplicate: bool,
    pub(super) supersedes: Box<[RecordId]>,
    pub(super) first_passage: u32,
    pub(super) first_piece: u32,
    pub(super) parts: Parts,
    body: u64,
}

impl Row {
    /// Whether it is a memory that stands: it has a text, and nothing took its place.
    pub(super) const fn stands(&self) -> bool {
        self.ended == NEVER && !self.tombstone && !self.erased
    }
}

/// Names by number, from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.names.push(name.to_owned());
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn known(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: u32) -> Option<&str> {
        self.names.get((number as usize).checked_sub(1)?).map(String::as_str)
    }
}

/// All versions by ordinal.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    ids: HashMap<RecordId, u32>,
    /// Standing versions by text and project.
    bodies: HashMap<u64, Vec<u32>>,
    /// Versions that took the place of this one, by its id.
    successors: HashMap<RecordId, Vec<u32>>,
    /// Whose place was taken before they arrived, and when.
    awaited: HashMap<RecordId, i64>,
    pub(super) projects: Names,
    tags: Names,
    live: RoaringBitmap,
    passage_owners: Vec<u32>,
    piece_owners: Vec<u32>,
    passages: u32,
    erased: u64,
}

impl Table {
    /// Versions known.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn row(&self, ordinal: u32) -> Option<&Row> {
        self.rows.get(ordinal as usize)
    }

    pub(super) fn ordinal(&self, id: RecordId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    pub(super) fn by_id(&self, id: RecordId) -> Option<(u32, &Row)> {
        let ordinal = self.ordinal(id)?;
        Some((ordinal, self.row(ordinal)?))
    }

    /// Versions that stand and are shown.
    pub(super) const fn live(&self) -> &RoaringBitmap {
        &self.live
    }

    /// Passages numbered.
    pub(super) const fn passages(&self) -> u32 {
        self.passages
    }

    /// Whose passage this is.
    pub(super) fn passage_owner(&self, passage: u32) -> Option<u32> {
        self.passage_owners.get(passage as usize).copied()
    }

    /// Whose piece this is.
    pub(super) fn piece_owner(&self, piece: u32) -> Option<u32> {
        self.piece_owners.get(piece as usize).copied()
    }

    /// Reserves the next ordinal for a version that is known to be in the log.
    pub(super) fn reserve(&mut self, id: RecordId, parts: Parts) -> u32 {
        let ordinal = self.len();
        self.rows.push(Row {
            id,
            place: None,
            kind: Kind::default(),
            project: 0,
            tags: Box::default(),
            at: 0,
            created: 0,
            valid_until: NEVER,
            ended: NEVER,
            tombstone: false,
            erased: true,
            duplicate: false,
            supersedes: Box::default(),
            first_passage: self.passages,
            first_piece: u32::try_from(self.piece_owners.len()).unwrap_or(u32::MAX),
            parts,
            body: 0,
        });
        self.passages += u32::from(parts.passages);
        self.passage_owners.extend(std::iter::repeat_n(ordinal, usize::from(parts.passages)));
        self.piece_owners.extend(std::iter::repeat_n(ordinal, usize::from(parts.pieces)));
        self.ids.insert(id, ordinal);
        ordinal
    }

    /// Fills a reserved ordinal.
    pub(super) fn fill(&mut self, ordinal: u32, header: &Header, place: Location, erased: bool) {
        let project = header.project.as_deref().map_or(0, |name| self.projects.number(name));
        let tags = header.tags.iter().map(|tag| self.tags.number(tag)).collect();
        let created = header.stamp.wall_ms();
        let Some(row) = self.rows.get_mut(ordinal as usize) else { return };
        row.place = Some(place);
        row.kind = header.kind;
        row.project = project;
        row.tags = tags;
        row.at = header.occurred_at.map_or(created, |at| at.0);
        row.created = created;
        row.valid_until = header.valid_until.map_or(NEVER, |until| until.0);
        row.tombstone = header.is_tombstone();
        row.erased = erased;
        row.supersedes = header.supersedes.clone().into_boxed_slice();
        row.body = body_key(header.body_hash, project);
        if let Some(ended) = self.awaited.remove(&header.id) {
            row.ended = ended;
        }
        for target in &header.supersedes {
            self.successors.entry(*target).or_default().push(ordinal);
            self.end(*target, created);
        }
        self.stand(ordinal);
    }

    /// Makes a version that stands findable, unless an earlier one says the same.
    fn stand(&mut self, ordinal: u32) {
        let Some(row) = self.rows.get(ordinal as usize) else { return };
        if !row.stands() {
            return;
        }
        let (body, order) = (row.body, (row.created, row.id));
        let same = self.bodies.entry(body).or_default();
        let first = same
            .iter()
            .filter_map(|other| self.rows.get(*other as usize))
            .map(|row| (row.created, row.id))
            .min();
        let others: Vec<u32> = same.clone();
        same.push(ordinal);
        if first.is_some_and(|first| first < order) {
            self.show(ordinal, false);
        } else {
            for other in others {
                self.show(other, false);
            }
            self.show(ordinal, true);
        }
    }

    fn show(&mut self, ordinal: u32, shown: bool) {
        if let Some(row) = self.rows.get_mut(ordinal as usize) {
            row.duplicate = !shown;
        }
        if shown {
            self.live.insert(ordinal);
        } else {
            self.live.remove(ordinal);
        }
    }

    /// Notes that something took a version's place.
    fn end(&mut self, id: RecordId, when: i64) {
        let Some(ordinal) =
            self.ordinal(id).filter(|ordinal| self.row(*ordinal).is_some_and(|row| row.place.is_some()))
        else {
            let ended = self.awaited.entry(id).or_insert(when);
            *ended = when.min(*ended);
            return;
        };
        let Some(row) = self.rows.get_mut(ordinal as usize) else { return };
        row.ended = row.ended.min(when);
        self.withdraw(ordinal);
    }

    /// Takes a version that no longer stands out of sight; one that said the same comes into it.
    fn withdraw(&mut self, ordinal: u32) {
        self.show(ordinal, false);
        let Some(body) = self.row(ordinal).map(|row| row.body) else { return };
        let Some(same) = self.bodies.get_mut(&body) else { return };
        same.retain(|other| *other != ordinal);
        let rows = &self.rows;
        let first = same
            .iter()
            .copied()
            .min_by_key(|other| rows.get(*other as usize).map(|row| (row.created, row.id)));
        if same.is_empty() {
            self.bodies.remove(&body);
        }
        if let Some(first) = first {
            self.show(first, true);
        }
    }

    /// Notes that a version's text was erased, and where what is left of it lies now.
    pub(super) fn erase(&mut self, ordinal: u32) {
        let Some(row) = self.rows.get_mut(ordinal as usize) else { return };
        if !row.erased {
            row.erased = true;
            self.erased += 1;
            self.withdraw(ordinal);
        }
    }

    pub(super) fn set_place(&mut self, ordinal: u32, place: Location) {
        if let Some(row) = self.rows.get_mut(ordinal as usize) {
            row.place = Some(place);
        }
    }

    /// The standing version that says the same in the same project.
    pub(super) fn same(&self, hash: Digest, project: Option<&str>) -> Option<RecordId> {
        let project = match project {
            Some(name) => self.projects.known(name)?,
            None => 0,
        };
        let same = self.bodies.get(&body_key(hash, project))?;
        let shown = same.iter().filter_map(|ordinal| self.row(*ordinal)).find(|row| !row.duplicate)?;
        Some(shown.id)
    }

    /// All standing versions that say the same as this one, itself included.
    pub(super) fn copies(&self, ordinal: u32) -> Vec<RecordId> {
        let same = self.row(ordinal).and_then(|row| self.bodies.get(&row.body));
        same.into_iter().flatten().filter_map(|ordinal| self.row(*ordinal)).map(|row| row.id).collect()
    }

    /// Every version of the memory that this one belongs to, in order of writing.
    pub(super) fn lineage(&self, ordinal: u32) -> Vec<u32> {
        const MOST: usize = 1_000;
        let mut found = vec![ordinal];
        let mut at = 0;
        while let Some(row) = found.get(at).and_then(|ordinal| self.row(*ordinal)) {
            let before = row.supersedes.iter().filter_map(|id| self.ordinal(*id));
            let after = self.successors.get(&row.id).into_iter().flatten().copied();
            // A tombstone may forget many memories; they are not one for that.
            let next: Vec<u32> = if row.tombstone { Vec::new() } else { before.chain(after).collect() };
            for ordinal in next {
                if found.len() < MOST && !found.contains(&ordinal) {
                    found.push(ordinal);
                }
            }
            at += 1;
        }
        found.sort_by_key(|ordinal| self.row(*ordinal).map(|row| (row.created, row.id)));
        found
    }

    /// Whether what took the version's place was a tombstone.
    pub(super) fn forgotten(&self, ordinal: u32) -> bool {
        let successors = self.row(ordinal).and_then(|row| self.successors.get(&row.id));
        successors.into_iter().flatten().any(|other| self.row(*other).is_some_and(|row| row.tombstone))
    }

    /// Other standing versions of the same memory: written without knowledge of this one.
    pub(super) fn conflicts(&self, ordinal: u32) -> Vec<RecordId> {
        let Some(row) = self.row(ordinal).filter(|row| row.stands() && !row.supersedes.is_empty()) else {
            return Vec::new();
        };
        let mine = row.body;
        let others = self.lineage(ordinal).into_iter().filter(|other| *other != ordinal);
        others
            .filter_map(|other| self.row(other))
            .filter(|row| row.stands() && row.body != mine)
            .map(|row| row.id)
            .collect()
    }

    /// Whether a version fits a filter.
    pub(super) fn fits(&self, ordinal: u32, filter: &Known) -> bool {
        self.row(ordinal).is_some_and(|row| filter.fits(row))
    }

    /// A filter in numbers; `None` when nothing can fit, since a name in it is unknown.
    pub(super) fn known(&self, filter: &Filter) -> Option<Known> {
        let project = match filter.project.as_deref() {
            Some(name) => Some(self.projects.known(name)?),
            None => None,
        };
        let tags = filter.tags.iter().map(|tag| self.tags.known(tag)).collect::<Option<Vec<_>>>()?;
        let since = filter.since.map_or(i64::MIN, |since| since.0);
        let until = filter.until.map_or(NEVER, |until| until.0);
        Some(Known { project, kinds: filter.kinds.clone(), tags, since, until })
    }
}

/// A filter whose names are numbers.
#[derive(Clone, Debug)]
pub(super) struct Known {
    project: Option<u32>,
    kinds: Vec<Kind>,
    tags: Vec<u32>,
    since: i64,
    until: i64,
}

impl Known {
    fn fits(&self, row: &Row) -> bool {
        self.project.is_none_or(|project| project == row.project)
            && (self.kinds.is_empty() || self.kinds.contains(&row.kind))
            && self.tags.iter().all(|tag| row.tags.contains(tag))
            && (self.since..self.until).contains(&row.at)
    }
}

fn body_key(hash: Digest, project: u32) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ u64::from(project).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A moment that a caller gave, or now.
pub(super) fn moment(given: Option<Millis>) -> Millis {
    given.unwrap_or_else(Millis::now)
}
