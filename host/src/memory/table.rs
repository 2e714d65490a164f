//! What is known of every version without reading its text: where it lies, what it is, and whether it still holds.
//!
//! A version's *ordinal* is its place in the order of arrival at this machine; postings, vectors and the text index
//! speak of ordinals only. The order is kept in a small file, so that they stay valid when the log grows in the
//! middle (another machine's entries). Passages and spans (what a vector stands for) are numbered on, ordinal by
//! ordinal.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::{
    log::Location,
    merge,
    record::{Digest, Header, Kind, Millis, RecordId},
    request::Filter,
};

/// The moment after all moments: not ended, no end of validity.
pub(super) const NEVER: i64 = i64::MAX;

/// How many passages and spans a version's text has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Passages; 0 when the record is its only one.
    pub(super) passages: u16,
    /// Spans with a vector each, besides the record's own; 0 when the record is its only one.
    pub(super) spans: u16,
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
    pub(super) first_passage: u32,
    pub(super) first_span: u32,
    pub(super) parts: Parts,
    body: u64,
    text: u64,
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
    /// How versions of all machines stand to each other.
    merge: merge::State,
    /// The shown version of each text in a project.
    bodies: HashMap<u64, u32>,
    /// Living versions that are not shown since an earlier one says the same, by the one that is.
    hidden: HashMap<u32, Vec<u32>>,
    /// The first version with each text, in whatever project.
    texts: HashMap<u64, u32>,
    pub(super) projects: Names,
    tags: Names,
    live: RoaringBitmap,
    /// By ordinal, until when it can be found: a glance for each of the many that a question's words touch.
    until: Vec<i64>,
    passage_owners: Vec<u32>,
    spans: u32,
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

    /// Whether a version stands, is shown, and is still true at a moment.
    pub(super) fn finds(&self, ordinal: u32, now: i64) -> bool {
        self.until.get(ordinal as usize).is_some_and(|until| *until > now)
    }

    fn show(&mut self, ordinal: u32) {
        self.live.insert(ordinal);
        let until = self.row(ordinal).map_or(NEVER, |row| row.valid_until);
        if let Some(place) = self.until.get_mut(ordinal as usize) {
            *place = until;
        }
    }

    fn hide(&mut self, ordinal: u32) {
        self.live.remove(ordinal);
        if let Some(place) = self.until.get_mut(ordinal as usize) {
            *place = i64::MIN;
        }
    }

    /// Passages numbered.
    pub(super) const fn passages(&self) -> u32 {
        self.passages
    }

    /// Spans of the versions before an ordinal, which is at most one more than there are.
    pub(super) fn spans_before(&self, ordinal: u32) -> Option<u32> {
        if ordinal == self.len() { Some(self.spans) } else { self.row(ordinal).map(|row| row.first_span) }
    }

    /// Whose passage this is.
    pub(super) fn passage_owner(&self, passage: u32) -> Option<u32> {
        self.passage_owners.get(passage as usize).copied()
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
            first_passage: self.passages,
            first_span: self.spans,
            parts,
            body: 0,
            text: 0,
        });
        self.passages += u32::from(parts.passages);
        self.passage_owners.extend(std::iter::repeat_n(ordinal, usize::from(parts.passages)));
        self.spans += u32::from(parts.spans);
        self.ids.insert(id, ordinal);
        self.until.push(i64::MIN);
        ordinal
    }

    /// Fills a reserved ordinal.
    pub(super) fn fill(&mut self, ordinal: u32, header: &Header, place: Location, erased: bool) {
        let project = header.project.as_deref().map_or(0, |name| self.projects.number(name));
        let tags = header.tags.iter().map(|tag| self.tags.number(tag)).collect();
        let created = header.stamp.wall_ms();
        self.texts.entry(text_key(header.content_hash)).or_insert(ordinal);
        let effect = self.merge.apply(header);
        let ended = if effect.live || header.is_tombstone() { NEVER } else { self.succeeded(header.id) };
        let Some(row) = self.rows.get_mut(ordinal as usize) else { return };
        row.place = Some(place);
        row.kind = header.kind;
        row.project = project;
        row.tags = tags;
        row.at = header.occurred_at.map_or(created, |at| at.0);
        row.created = created;
        row.valid_until = header.valid_until.map_or(NEVER, |until| until.0);
        row.ended = ended;
        row.tombstone = header.is_tombstone();
        row.erased = erased;
        row.body = body_key(header.body_hash, project);
        row.text = text_key(header.content_hash);
        for id in effect.retired {
            self.retire(id, created);
        }
        if effect.live && !erased {
            self.settle(ordinal);
        }
    }

    /// Whether a known tombstone has the text of a version, known or not, erased.
    pub(super) fn doomed(&self, id: RecordId) -> bool {
        self.merge.is_doomed(id)
    }

    /// Versions whose text is here although a tombstone has it erased: an erasure was cut short.
    pub(super) fn overdue(&self) -> Vec<RecordId> {
        let texts = self.rows.iter().filter(|row| row.ended != NEVER && !row.tombstone && !row.erased);
        texts.map(|row| row.id).filter(|id| self.doomed(*id)).collect()
    }

    /// The project of a version; the outer `None`: it is not here.
    pub(super) fn project(&self, id: RecordId) -> Option<Option<&str>> {
        self.by_id(id).map(|(_, row)| self.projects.name(row.project))
    }

    /// When the first successor of a version was written.
    fn succeeded(&self, id: RecordId) -> i64 {
        let stamps = self.merge.superseded_by(id).into_iter().filter_map(|by| self.merge.stamp(by));
        stamps.map(|stamp| stamp.wall_ms()).min().unwrap_or(NEVER)
    }

    /// Of all living versions with the text of this one, shows the earliest.
    fn settle(&mut self, ordinal: u32) {
        let Some(row) = self.row(ordinal) else { return };
        let (id, body) = (row.id, row.body);
        let first = self.merge.memory(id).map_or(id, |memory| memory.canonical);
        let Some(first) = self.ordinal(first) else { return };
        let before = self.bodies.insert(body, first);
        self.show(first);
        for other in before.into_iter().chain([ordinal]).filter(|other| *other != first) {
            self.hide(other);
            self.hidden.entry(first).or_default().push(other);
        }
        if let Some(before) = before.filter(|before| *before != first)
            && let Some(others) = self.hidden.remove(&before)
        {
            self.hidden.entry(first).or_default().extend(others);
        }
    }

    /// Notes that something took a version's place; one that said the same comes into sight.
    fn retire(&mut self, id: RecordId, when: i64) {
        let Some(ordinal) = self.ordinal(id) else { return };
        if let Some(row) = self.rows.get_mut(ordinal as usize) {
            row.ended = row.ended.min(when);
        }
        self.withdraw(ordinal);
    }

    fn withdraw(&mut self, ordinal: u32) {
        self.hide(ordinal);
        let Some(body) = self.row(ordinal).map(|row| row.body) else { return };
        if self.bodies.get(&body) == Some(&ordinal) {
            self.bodies.remove(&body);
        }
        for other in self.hidden.remove(&ordinal).unwrap_or_default() {
            if self.row(other).is_some_and(|row| row.stands()) {
                self.settle(other);
            }
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

    /// How often a text was erased since the start.
    pub(super) const fn erasures(&self) -> u64 {
        self.erased
    }

    /// The shown version that says the same in the same project.
    pub(super) fn same(&self, hash: Digest, project: Option<&str>) -> Option<RecordId> {
        let project = match project {
            Some(name) => self.projects.known(name)?,
            None => 0,
        };
        let ordinal = self.bodies.get(&body_key(hash, project))?;
        Some(self.row(*ordinal)?.id)
    }

    /// An earlier version with the very text of this one, in whatever project.
    pub(super) fn twin(&self, ordinal: u32) -> Option<&Row> {
        let first = *self.texts.get(&self.row(ordinal)?.text)?;
        self.row(first).filter(|_| first != ordinal)
    }

    /// All living versions that say the same as this one, itself included.
    pub(super) fn copies(&self, ordinal: u32) -> Vec<RecordId> {
        let memory = self.row(ordinal).and_then(|row| self.merge.memory(row.id));
        memory.into_iter().flat_map(|memory| [memory.canonical].into_iter().chain(memory.copies)).collect()
    }

    /// Every version of the memory that this one belongs to, in order of writing.
    pub(super) fn lineage(&self, ordinal: u32) -> Vec<u32> {
        const MOST: usize = 1_000;
        let Some(row) = self.row(ordinal) else { return Vec::new() };
        self.merge.lineage(row.id).into_iter().filter_map(|id| self.ordinal(id)).take(MOST).collect()
    }

    /// How a version stands to the others.
    pub(super) fn standing(&self, ordinal: u32) -> Option<merge::Standing> {
        self.merge.standing(self.row(ordinal)?.id)
    }

    /// Memories with two living versions that say different things.
    pub(super) fn conflicts_in_all(&self) -> u64 {
        self.merge.conflicts().len() as u64
    }

    /// Other living versions of the same memory: written without knowledge of this one.
    pub(super) fn conflicts(&self, ordinal: u32) -> Vec<RecordId> {
        let Some(row) = self.row(ordinal).filter(|row| self.merge.in_conflict(row.id)) else {
            return Vec::new();
        };
        self.merge.heads(row.id).into_iter().filter(|other| *other != row.id).collect()
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
    text_key(hash) ^ u64::from(project).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn text_key(hash: Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// A moment that a caller gave, or now.
pub(super) fn moment(given: Option<Millis>) -> Millis {
    given.unwrap_or_else(Millis::now)
}
