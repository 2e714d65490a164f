//! The task that redeems: it watches the chain and the book and acts by the rules of [`super::schedule`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use potluck_chain_client::{
    Call,
    link::LinkError,
    query::Terms,
    watch::{Event, Lane},
};
use potluck_primitives::{Account, Block, MicroCredits, SignedVoucher};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Room, SettlementError,
    schedule::{Moment, Rules, plan, worthwhile},
    unix_ms,
};
use crate::config::ChainSection;

/// How often the book is looked through when nothing happens.
const LOOK: Duration = Duration::from_secs(30);
/// After how long a lane that could not be redeemed is tried again.
const AGAIN: Duration = Duration::from_secs(600);
/// Blocks after which the chain's settings are read again.
const TERMS: u32 = 100;
/// Blocks after which the book is looked through for what has expired.
const SWEEP: u32 = 100;

/// A redemption that ended, and its lanes.
type Ended = (Vec<SignedVoucher>, bool);

#[derive(Debug)]
struct Keeper {
    room: Arc<Room>,
    section: ChainSection,
    terms: Option<(u32, Terms)>,
    thawing: BTreeSet<Account>,
    /// Lanes under way (`None`), or refused and left alone until then.
    busy: BTreeMap<Lane, Option<Instant>>,
    /// Lanes that have expired and are owed all the same.
    owed: BTreeSet<Lane>,
    /// The block of the last look for such.
    swept: u32,
    redeeming: JoinSet<Ended>,
}

/// Redeems until it is aborted.
pub(super) async fn run(room: Arc<Room>, section: ChainSection) {
    let mut events = Box::pin(room.live.listening.events());
    let mut keeper = Keeper {
        room: Arc::clone(&room),
        section,
        terms: None,
        thawing: BTreeSet::new(),
        busy: BTreeMap::new(),
        owed: BTreeSet::new(),
        swept: 0,
        redeeming: JoinSet::new(),
    };
    // What happened while this machine was away.
    let mut behind = true;
    loop {
        if behind {
            behind = keeper.catch_up().await.is_err();
        }
        if let Err(error) = keeper.redeem().await {
            tracing::debug!(%error, "nothing can be redeemed now");
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Missed) => behind = true,
                Some(event) => keeper.hear(event).await,
                None => return,
            },
            Some(ended) = keeper.redeeming.join_next() => {
                if let Ok((vouchers, done)) = ended {
                    keeper.ended(&vouchers, done).await;
                }
            }
            () = room.more.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl Keeper {
    async fn hear(&mut self, event: Event) {
        let me = self.room.book().account();
        match event {
            Event::WithdrawStarted { payer, .. } if payer != me => {
                self.thawing.insert(payer);
                self.retry(payer);
            }
            // Whose escrow was empty may have some now.
            Event::Deposited { payer, .. } => self.retry(payer),
            Event::Redeemed { lane, redeemed, .. } if lane.payee == me || lane.payer == me => {
                let noted = self.room.with_book(move |book| book.redeemed(&lane, redeemed)).await;
                if let Ok(Err(error)) | Err(SettlementError::Book(error)) = noted {
                    tracing::error!(%error, "a redemption could not be noted");
                }
            }
            _ => {}
        }
    }

    /// Tries the lanes of a payer again.
    fn retry(&mut self, payer: Account) {
        self.busy.retain(|lane, until| lane.payer != payer || until.is_none());
    }

    /// Asks the chain about every lane with something open.
    async fn catch_up(&mut self) -> Result<(), LinkError> {
        let open: Vec<SignedVoucher> = {
            let book = self.room.book();
            let earning = book.earning().filter(|(_, it)| it.due() > MicroCredits::ZERO);
            let paying = book.paying().filter(|(_, it)| it.outstanding() > MicroCredits::ZERO);
            earning.map(|(_, it)| it.best.clone()).chain(paying.map(|(_, it)| it.last.clone())).collect()
        };
        if open.is_empty() {
            return Ok(());
        }
        self.ask_lanes(&open).await
    }

    async fn ask_lanes(&self, vouchers: &[SignedVoucher]) -> Result<(), LinkError> {
        let node = &self.room.live.node;
        let (_, at) = node.latest().await?;
        for signed in vouchers {
            let (lane, redeemed) =
                (Lane::from(&signed.voucher), node.lane(&at, &signed.voucher).await?.redeemed);
            if let Ok(Err(error)) = self.room.with_book(move |book| book.redeemed(&lane, redeemed)).await {
                tracing::error!(%error, "a redemption could not be noted");
            }
        }
        Ok(())
    }

    async fn redeem(&mut self) -> Result<(), SettlementError> {
        if self.room.book().due() == MicroCredits::ZERO {
            return Ok(());
        }
        let head = *self.room.live.listening.head().borrow();
        let Some(head) = head else { return Ok(()) };
        // A development chain may begin anew.
        if head.number >= self.swept.saturating_add(SWEEP) || head.number < self.swept {
            self.sweep(head.number).await?;
        }
        let rules = self.rules(head.number).await?;
        let now = Instant::now();
        self.busy.retain(|_, until| until.is_none_or(|until| until > now));
        let busy = self.busy.keys().copied().collect();
        let (thawing, owed) = (&self.thawing, &self.owed);
        let moment = Moment { block: Block(head.number), ms: unix_ms(), thawing, busy: &busy, owed };
        let batches = plan(self.room.book().earning(), &rules, &moment, false);
        for planned in batches {
            let vouchers = covered(&self.room, &planned, rules.least).await?;
            for signed in planned.iter().filter(|it| !vouchers.contains(it)) {
                // Its payer has nothing now: a deposit brings it back.
                self.busy.insert(Lane::from(&signed.voucher), Some(Instant::now() + AGAIN));
            }
            if vouchers.is_empty() {
                continue;
            }
            for signed in &vouchers {
                self.busy.insert(Lane::from(&signed.voucher), None);
            }
            let signer = self.room.live.signer.clone();
            let asked = signer.ask(Call::Redeem(vouchers.clone())).await?;
            self.redeeming.spawn(async move {
                let ended = signer.wait(asked.id()).await;
                (vouchers, ended.is_ok_and(|ended| ended.outcome.is_success()))
            });
        }
        Ok(())
    }

    /// Lets go of what has expired, and says what was lost with it.
    async fn sweep(&mut self, head: u32) -> Result<(), SettlementError> {
        self.owed = owed(&self.room, head).await?;
        let kept = self.owed.clone();
        let lost = self.room.with_book(move |book| book.expire(Block(head), &kept)).await??;
        if lost > MicroCredits::ZERO {
            tracing::warn!(
                "vouchers for {lost} credits have expired: their payers' escrows were empty, or this machine was away"
            );
        }
        self.swept = head;
        Ok(())
    }

    async fn ended(&mut self, vouchers: &[SignedVoucher], done: bool) {
        if let Err(error) = self.ask_lanes(vouchers).await {
            tracing::debug!(%error, "what was redeemed is not known yet");
        }
        let again = Instant::now() + AGAIN;
        for signed in vouchers {
            let lane = Lane::from(&signed.voucher);
            let due = self
                .room
                .book()
                .earning()
                .any(|(it, earning)| *it == lane && earning.due() > MicroCredits::ZERO);
            // What stays due has no escrow behind it for now, or grew meanwhile.
            let grew = self.room.book().earning().any(|(it, earning)| *it == lane && earning.best != *signed);
            if due && !(done && grew) {
                self.busy.insert(lane, Some(again));
            } else {
                self.busy.remove(&lane);
            }
        }
    }

    async fn rules(&mut self, head: u32) -> Result<Rules, LinkError> {
        let terms = match self.terms {
            Some((read, terms)) if head.saturating_sub(read) < TERMS => terms,
            _ => {
                let (at_head, at) = self.room.live.node.latest().await?;
                let terms = self.room.live.node.terms(&at).await?;
                self.terms = Some((at_head.number, terms));
                terms
            }
        };
        Ok(rules(&self.section, &terms))
    }
}

/// Of the lanes whose vouchers have expired by block `now`, those that the chain was shown in time: what it has not paid of
/// them it owes for ever.
pub(super) async fn owed(room: &Room, now: u32) -> Result<BTreeSet<Lane>, LinkError> {
    let past: Vec<SignedVoucher> = {
        let book = room.book();
        let past = book.earning().filter(|(_, it)| it.best.voucher.expires.0 < now && it.due().0 > 0);
        past.map(|(_, it)| it.best.clone()).collect()
    };
    let mut owed = BTreeSet::new();
    if past.is_empty() {
        return Ok(owed);
    }
    let (_, at) = room.live.node.latest().await?;
    for signed in past {
        let lane = room.live.node.lane(&at, &signed.voucher).await?;
        if lane.shown >= signed.voucher.cumulative && lane.redeemed < lane.shown {
            owed.insert(Lane::from(&signed.voucher));
        }
    }
    Ok(owed)
}

/// Of vouchers of one batch, those that their payers' escrows cover so far that the chain takes them together: one that
/// pays nothing would hold up the others.
pub(super) async fn covered(
    room: &Room,
    vouchers: &[SignedVoucher],
    least: MicroCredits,
) -> Result<Vec<SignedVoucher>, LinkError> {
    let (_, at) = room.live.node.latest().await?;
    let mut escrows = BTreeMap::<Account, MicroCredits>::new();
    let mut lanes = Vec::with_capacity(vouchers.len());
    for signed in vouchers {
        let payer = signed.voucher.payer;
        let escrow = match escrows.get(&payer) {
            Some(escrow) => *escrow,
            // What thaws is still there.
            None => room.live.node.balance(&at, payer).await?.escrow,
        };
        let redeemed = room.live.node.lane(&at, &signed.voucher).await?.redeemed;
        let due = signed.voucher.cumulative.checked_sub(redeemed).unwrap_or_default();
        let pays = due.min(escrow);
        escrows.insert(payer, escrow.checked_sub(pays).unwrap_or_default());
        lanes.push((signed.clone(), pays));
    }
    Ok(worthwhile(lanes, least))
}

/// The rules of the configuration under the chain's own.
pub(super) fn rules(section: &ChainSection, terms: &Terms) -> Rules {
    Rules {
        amount: section.redeem_amount,
        age_ms: u64::try_from(section.redeem_after.as_millis()).unwrap_or(u64::MAX),
        margin: section.redeem_margin,
        least: terms.min_redeem,
    }
}
