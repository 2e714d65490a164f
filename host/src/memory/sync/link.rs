//! What the loops of one session share.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::super::record::NodeId;
use super::{
    Options,
    catalogue::Catalogue,
    intake::Offence,
    message::{Ack, Bye, HaveRow, MAX_ROWS, Message, Near, Ops},
    outbox::Outbox,
    replica::Raw,
    runs::{Run, Runs},
    scope::Reach,
};

/// Messages that wait to be written, besides entries.
const MAX_WORDS: usize = 64;

/// A frame of entries that the peer has not dealt with yet.
#[derive(Debug)]
struct Sent {
    number: u64,
    bytes: usize,
    origin: NodeId,
    runs: Runs,
    at: Instant,
}

#[derive(Debug)]
struct Inner {
    outbox: Outbox,
    /// Whether the peer has said what it has.
    ready: bool,
    say_have: bool,
    say_near: Option<Vec<NodeId>>,
    say_bye: bool,
    words: VecDeque<Message>,
    /// What became durable here since the last word about it.
    durable: BTreeMap<NodeId, Runs>,
    dealt_with: u64,
    /// Whether there is something to acknowledge.
    ack: bool,
    acked_at: Option<Instant>,
    in_flight: VecDeque<Sent>,
    number: u64,
}

/// What is to be written next.
#[derive(Debug)]
pub(super) enum Due {
    Say(Message),
    SayHave,
    Entries(NodeId, Runs),
    /// Nothing before this moment, unless something happens.
    Nothing(Option<Instant>),
}

/// How far the peer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) in_step: bool,
    pub(super) in_flight: u64,
    pub(super) waits_ms: u64,
}

/// What the loops of one session share.
#[derive(Debug)]
pub(super) struct Link {
    inner: Mutex<Inner>,
    wake: Notify,
    options: Options,
}

impl Link {
    pub(super) fn new(me: NodeId, reach: Reach, own: Reach, options: Options) -> Self {
        let inner = Inner {
            outbox: Outbox::new(me, reach, own),
            ready: false,
            say_have: false,
            say_near: None,
            say_bye: false,
            words: VecDeque::new(),
            durable: BTreeMap::new(),
            dealt_with: 0,
            ack: false,
            acked_at: None,
            in_flight: VecDeque::new(),
            number: 0,
        };
        Self { inner: Mutex::new(inner), wake: Notify::new(), options }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and has the writer look.
    fn stir<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let done = change(&mut self.lock());
        self.wake.notify_one();
        done
    }

    pub(super) fn is_ready(&self) -> bool {
        self.lock().ready
    }

    pub(super) fn reach(&self) -> Reach {
        self.lock().outbox.reach().clone()
    }

    pub(super) fn have(&self, rows: Vec<HaveRow>, catalogue: &Catalogue) {
        self.stir(|inner| {
            let first = !inner.ready;
            let sent = inner.in_flight.iter().map(|sent| (sent.origin, &sent.runs));
            inner.outbox.have(rows, sent, first, catalogue);
            inner.ready = true;
        });
    }

    /// The peer has dealt with frames, and has new entries from wherever.
    pub(super) fn acked(&self, ack: &Ack, catalogue: &Catalogue) -> Result<(), Offence> {
        self.stir(|inner| {
            if ack.number > inner.number {
                return Err(Offence::Protocol("it acknowledges what was not sent".into()));
            }
            while inner.in_flight.front().is_some_and(|sent| sent.number <= ack.number) {
                inner.in_flight.pop_front();
            }
            for row in &ack.rows {
                // What nobody here knows of is of no use, and might be a lot.
                let next = catalogue.next(row.origin);
                for run in row.runs.iter().filter(|run| run.first < next) {
                    inner.outbox.mark(row.origin, run);
                }
            }
            Ok(())
        })
    }

    pub(super) fn near(&self, near: BTreeSet<NodeId>, catalogue: &Catalogue) {
        self.stir(|inner| inner.outbox.set_near(near, catalogue));
    }

    pub(super) fn regrant(&self, reach: Reach, own: Reach, catalogue: &Catalogue) {
        self.stir(|inner| inner.outbox.regrant(reach, own, catalogue));
    }

    /// The peer brought these, or they are known to it.
    pub(super) fn mark(&self, entries: impl Iterator<Item = (NodeId, Run)>) {
        let mut inner = self.lock();
        entries.for_each(|(origin, run)| inner.outbox.mark(origin, run));
    }

    pub(super) fn news(&self, news: &[(NodeId, Run)]) {
        self.stir(|inner| {
            inner.outbox.news(news);
            for (origin, run) in news {
                inner.durable.entry(*origin).or_default().insert(*run);
            }
            inner.ack = true;
        });
    }

    pub(super) fn missed_news(&self, catalogue: &Catalogue) {
        self.stir(|inner| {
            inner.outbox.rescan(catalogue, true);
            // What the peer was not told it learns now.
            inner.say_have = true;
        });
    }

    pub(super) fn dealt_with(&self, number: u64) {
        self.stir(|inner| {
            inner.dealt_with = number;
            inner.ack = true;
        });
    }

    pub(super) fn say_have(&self) {
        self.stir(|inner| inner.say_have = true);
    }

    pub(super) fn say_near(&self, nodes: Vec<NodeId>) {
        self.stir(|inner| inner.say_near = Some(nodes));
    }

    pub(super) fn say_bye(&self) {
        self.stir(|inner| inner.say_bye = true);
    }

    /// Says something, unless too much waits already.
    pub(super) fn say(&self, message: Message) {
        self.stir(|inner| {
            if inner.words.len() < MAX_WORDS {
                inner.words.push_back(message);
            }
        });
    }

    /// What is to be written next.
    pub(super) fn due(&self, catalogue: &Catalogue) -> Due {
        let mut inner = self.lock();
        if inner.say_bye {
            return Due::Say(Message::Bye(Bye::stopping()));
        }
        if let Some(nodes) = inner.say_near.take() {
            return Due::Say(Message::Near(Near { nodes }));
        }
        if std::mem::take(&mut inner.say_have) {
            return Due::SayHave;
        }
        if let Some(word) = inner.words.pop_front() {
            return Due::Say(word);
        }
        let now = Instant::now();
        let pause =
            inner.acked_at.map(|at| at + self.options.ack_pause).filter(|until| inner.ack && *until > now);
        if inner.ack && pause.is_none() {
            return Due::Say(Message::Ack(inner.ack(now)));
        }
        let in_flight: usize = inner.in_flight.iter().map(|sent| sent.bytes).sum();
        if inner.ready
            && in_flight < self.options.window
            && let Some((origin, wanted)) = inner.outbox.next(catalogue)
        {
            return Due::Entries(origin, wanted);
        }
        Due::Nothing(pause)
    }

    /// Waits until something happens, or until a moment.
    pub(super) async fn wait(&self, until: Instant) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = sleep_until(until) => {}
        }
    }

    /// Notes that entries are being sent; `None` if none of them could be read.
    pub(super) fn sending(&self, origin: NodeId, wanted: &Runs, raw: Vec<Raw>, upto: u64) -> Option<Ops> {
        let mut inner = self.lock();
        let runs = inner.outbox.sent(origin, wanted, upto);
        if raw.is_empty() {
            return None;
        }
        inner.number += 1;
        let number = inner.number;
        let bytes = raw.iter().map(|(_, bytes)| bytes.len()).sum();
        inner.in_flight.push_back(Sent { number, bytes, origin, runs, at: Instant::now() });
        Some(Ops { number, entries: raw.into_iter().map(|(_, bytes)| bytes.into()).collect() })
    }

    pub(super) fn standing(&self) -> Standing {
        let inner = self.lock();
        let oldest = inner.in_flight.front().map(|sent| sent.at.elapsed());
        Standing {
            in_step: inner.ready && inner.outbox.is_done() && inner.in_flight.is_empty(),
            in_flight: inner.in_flight.iter().map(|sent| sent.runs.len()).sum(),
            waits_ms: oldest.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// How many entries the peer lacks that it may read, those on their way left out.
    pub(super) fn owed(&self, catalogue: &Catalogue) -> u64 {
        self.lock().outbox.owed(catalogue)
    }
}

impl Inner {
    /// What became durable, as far as it fits a frame.
    fn ack(&mut self, now: Instant) -> Ack {
        let mut rows: Vec<HaveRow> = Vec::new();
        while rows.len() < MAX_ROWS / 2
            && let Some((origin, runs)) = self.durable.pop_first()
        {
            rows.push(HaveRow { origin, runs });
        }
        self.ack = !self.durable.is_empty();
        self.acked_at = Some(now);
        Ack { number: self.dealt_with, rows }
    }
}
