//! What a purse remembers.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::Arc,
};

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{Genesis, Hash, MicroCredits, UnixMillis};

use super::{
    PurseError,
    coins::{self, Counts},
};
use crate::pool::public::{
    evidence::Evidence,
    issuer::{
        disk::Disk,
        wire::{Issued, Purchase},
    },
    token::{BATCH, Blinding, Catalogue, Denomination, Signed, Token},
};

/// Most tokens of one purchase: they and their secrets are one line of the file.
pub(super) const PURCHASE: usize = 96;
/// Most tokens that were handed out and may still be put back.
const GIVEN: usize = 1_024;

/// A purchase that is not answered, and the secrets of its tokens.
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct Pending {
    pub(super) purchase: Signed<Purchase>,
    pub(super) blindings: Vec<Blinding>,
}

/// A line of the file.
#[derive(Encode, Decode)]
enum Line {
    /// About to be asked for.
    #[codec(index = 0)]
    Asked(Pending),
    /// Answered: the tokens, until when they are sold, and until when they can be spent.
    #[codec(index = 1)]
    Bought(Signed<Issued>, Vec<Token>, (UnixMillis, UnixMillis)),
    /// It will never be answered; what the issuer says was used up of all vouchers, and in which epoch it says so.
    #[codec(index = 2)]
    Dropped(Option<(u32, MicroCredits)>),
    /// Handed out.
    #[codec(index = 3)]
    Given(Vec<[u8; 32]>),
    /// The issuer's keys.
    #[codec(index = 5)]
    Learned(Signed<Catalogue>),
    /// The sums of what is forgotten: all that was used up of vouchers, and what was bought in an epoch.
    #[codec(index = 6)]
    Sums(MicroCredits, Vec<(u32, MicroCredits)>),
    /// Tokens that are here, or here again, and their times.
    #[codec(index = 7)]
    Held(Vec<Token>, (UnixMillis, UnixMillis)),
    /// The issuer's last statement of an epoch.
    #[codec(index = 8)]
    Stated(Signed<Issued>),
}

#[derive(Clone, Debug)]
struct Held {
    token: Token,
    closes: UnixMillis,
    ends: UnixMillis,
}

/// The tokens and purchases of a purse.
#[derive(Debug)]
pub(super) struct Store {
    disk: Disk,
    genesis: Genesis,
    held: BTreeMap<[u8; 32], Held>,
    /// The last that were handed out in this run: they may be put back.
    given: VecDeque<Held>,
    pending: Option<Arc<Pending>>,
    used: MicroCredits,
    bought: BTreeMap<u32, MicroCredits>,
    stated: BTreeMap<u32, Signed<Issued>>,
    learned: Option<Signed<Catalogue>>,
}

impl Store {
    pub(super) fn open(path: &Path, genesis: &Genesis) -> Result<Self, PurseError> {
        let (disk, lines) = Disk::open(path)?;
        let mut store = Self {
            disk,
            genesis: *genesis,
            held: BTreeMap::new(),
            given: VecDeque::new(),
            pending: None,
            used: MicroCredits::ZERO,
            bought: BTreeMap::new(),
            stated: BTreeMap::new(),
            learned: None,
        };
        lines.into_iter().for_each(|line| store.apply(line));
        store.given.clear();
        Ok(store)
    }

    pub(super) fn balance(&self, now: UnixMillis) -> MicroCredits {
        MicroCredits(self.live(now).map(|held| held.token.value.worth().0).sum())
    }

    pub(super) fn counts(&self, now: UnixMillis) -> Counts {
        let mut counts = [0; 3];
        for (value, count) in Denomination::ALL.iter().zip(&mut counts) {
            *count = self.live(now).filter(|held| held.token.value == *value).count();
        }
        counts
    }

    pub(super) fn pending(&self) -> Option<Arc<Pending>> {
        self.pending.clone()
    }

    /// What purchases have used up of the vouchers to the issuer.
    pub(super) fn used(&self) -> MicroCredits {
        self.used
    }

    pub(super) fn statements(&self) -> Vec<Signed<Issued>> {
        self.stated.values().cloned().collect()
    }

    pub(super) fn bought_in(&self, epoch: u32) -> MicroCredits {
        self.bought.get(&epoch).copied().unwrap_or_default()
    }

    pub(super) fn ask(&mut self, pending: Pending) -> Result<(), PurseError> {
        self.write(Line::Asked(pending))
    }

    /// Takes tokens in; evidence, if the issuer's statement contradicts its last one.
    pub(super) fn receive(
        &mut self,
        purchase: Hash,
        issued: Signed<Issued>,
        tokens: Vec<Token>,
        times: (UnixMillis, UnixMillis),
    ) -> Result<Option<Evidence>, PurseError> {
        // The same answer may have come twice.
        let mine = self.pending.as_ref().is_some_and(|it| it.purchase.digest(&self.genesis) == purchase);
        if !mine {
            return Ok(None);
        }
        let last = self.stated.get(&issued.said.epoch).cloned();
        let evidence = last.map(|last| Evidence::Books { first: last, second: issued.clone() });
        let evidence = evidence.filter(Evidence::contradicts);
        self.write(Line::Bought(issued, tokens, times))?;
        Ok(evidence)
    }

    /// Forgets a purchase that was refused. The issuer may say that more of the vouchers was used up than this file
    /// knows of: it may be a new file of an old account, or a purchase that was answered too late. It cannot be shown to
    /// lie, so what it says counts as bought, within the budget of the epoch.
    pub(super) fn give_up(&mut self, purchase: Hash, used: Option<MicroCredits>) -> Result<(), PurseError> {
        let Some(pending) = self.pending.clone() else { return Ok(()) };
        if pending.purchase.digest(&self.genesis) != purchase {
            return Ok(());
        }
        let said = &pending.purchase.said;
        let used = used.map(|used| (said.epoch, used.min(said.voucher.voucher.cumulative)));
        self.write(Line::Dropped(used))
    }

    pub(super) fn take(
        &mut self,
        sum: MicroCredits,
        now: UnixMillis,
    ) -> Result<Option<Vec<Token>>, PurseError> {
        let Some(counts) = coins::pay(&self.counts(now), sum) else { return Ok(None) };
        // Those that end first go first, else by lot: in the order of their numbers they would show that they come
        // from one purse.
        let turn = RandomState::new();
        let mut live: Vec<&Held> = self.live(now).collect();
        live.sort_by_cached_key(|held| (held.ends, turn.hash_one(held.token.serial)));
        let of = |(value, count): (&Denomination, usize)| {
            let fitting = live.iter().filter(|held| held.token.value == *value);
            fitting.take(count).map(|held| held.token.clone()).collect::<Vec<_>>()
        };
        let tokens: Vec<Token> = Denomination::ALL.iter().zip(counts).flat_map(of).collect();
        self.write(Line::Given(tokens.iter().map(|token| token.serial).collect()))?;
        Ok(Some(tokens))
    }

    pub(super) fn take_old(&mut self, now: UnixMillis) -> Result<Vec<Token>, PurseError> {
        let old = self.live(now).filter(|held| held.closes <= now).take(BATCH as usize);
        let tokens: Vec<Token> = old.map(|held| held.token.clone()).collect();
        if !tokens.is_empty() {
            self.write(Line::Given(tokens.iter().map(|token| token.serial).collect()))?;
        }
        Ok(tokens)
    }

    pub(super) fn put_back(&mut self, tokens: Vec<Token>) -> Result<(), PurseError> {
        let back: Vec<Held> =
            self.given.iter().filter(|held| tokens.contains(&held.token)).cloned().collect();
        for (times, tokens) in by_times(back.iter()) {
            self.write(Line::Held(tokens, times))?;
        }
        Ok(())
    }

    /// Takes note of the issuer's keys; evidence, if they contradict those it gave before.
    pub(super) fn learn(&mut self, catalogue: Signed<Catalogue>) -> Result<Option<Evidence>, PurseError> {
        match &self.learned {
            Some(known) if known == &catalogue => return Ok(None),
            Some(known) if known.said.contradicts(&catalogue.said) => {
                return Ok(Some(Evidence::Keys { first: known.clone(), second: catalogue }));
            }
            _ => {}
        }
        self.write(Line::Learned(catalogue))?;
        Ok(None)
    }

    fn live(&self, now: UnixMillis) -> impl Iterator<Item = &Held> {
        self.held.values().filter(move |held| now < held.ends)
    }

    fn write(&mut self, line: Line) -> Result<(), PurseError> {
        self.disk.append(&line)?;
        self.apply(line);
        if self.disk.is_long() { self.compact() } else { Ok(()) }
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Asked(pending) => self.pending = Some(Arc::new(pending)),
            Line::Bought(issued, tokens, times) => {
                self.pending = None;
                let worth = Token::worth(&tokens);
                self.used = self.used.checked_add(worth).unwrap_or(self.used);
                let bought = self.bought.entry(issued.said.epoch).or_default();
                *bought = bought.checked_add(worth).unwrap_or(*bought);
                self.state(issued);
                self.hold(tokens, times);
            }
            Line::Dropped(used) => {
                self.pending = None;
                if let Some((epoch, used)) = used {
                    let more = used.checked_sub(self.used).unwrap_or_default();
                    let bought = self.bought.entry(epoch).or_default();
                    *bought = bought.checked_add(more).unwrap_or(*bought);
                    self.used = self.used.max(used);
                }
            }
            Line::Given(serials) => {
                self.given.extend(serials.iter().filter_map(|serial| self.held.remove(serial)));
                let surplus = self.given.len().saturating_sub(GIVEN);
                self.given.drain(..surplus);
            }
            Line::Learned(catalogue) => self.learned = Some(catalogue),
            Line::Sums(used, bought) => {
                self.used = used;
                self.bought = bought.into_iter().collect();
            }
            Line::Held(tokens, times) => self.hold(tokens, times),
            Line::Stated(issued) => self.state(issued),
        }
    }

    fn hold(&mut self, tokens: Vec<Token>, (closes, ends): (UnixMillis, UnixMillis)) {
        for token in tokens {
            self.given.retain(|held| held.token.serial != token.serial);
            self.held.insert(token.serial, Held { token, closes, ends });
        }
    }

    /// Of an epoch, the statement with the highest number is kept.
    fn state(&mut self, issued: Signed<Issued>) {
        let known = self.stated.get(&issued.said.epoch);
        if known.is_none_or(|known| known.said.sequence < issued.said.sequence) {
            self.stated.insert(issued.said.epoch, issued);
        }
    }

    /// Writes anew what is still needed: of tokens and statements, those of the last epochs.
    fn compact(&mut self) -> Result<(), PurseError> {
        let newest = self.stated.keys().next_back().copied().unwrap_or_default();
        let recent = |epoch: &u32| epoch.saturating_add(4) > newest;
        self.held.retain(|_, held| recent(&held.token.epoch));
        self.stated.retain(|epoch, _| recent(epoch));
        self.bought.retain(|epoch, _| recent(epoch));
        let sums = Line::Sums(self.used, self.bought.iter().map(|(epoch, sum)| (*epoch, *sum)).collect());
        let mut lines = vec![sums];
        lines.extend(self.learned.clone().map(Line::Learned));
        lines.extend(self.stated.values().cloned().map(Line::Stated));
        for (times, tokens) in by_times(self.held.values()) {
            lines.extend(tokens.chunks(PURCHASE).map(|some| Line::Held(some.to_vec(), times)));
        }
        lines.extend(self.pending.as_deref().cloned().map(Line::Asked));
        Ok(self.disk.rewrite(lines.into_iter())?)
    }
}

/// Tokens of the same times lie in one line.
fn by_times<'a>(held: impl Iterator<Item = &'a Held>) -> BTreeMap<(UnixMillis, UnixMillis), Vec<Token>> {
    let mut found: BTreeMap<_, Vec<Token>> = BTreeMap::new();
    for one in held {
        found.entry((one.closes, one.ends)).or_default().push(one.token.clone());
    }
    found
}
