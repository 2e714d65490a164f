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
    schedule::{Moment, Rules, plan},
    unix_ms,
};
use crate::config::ChainSection;

/// How often the book is looked through when nothing happens.
const LOOK: Duration = Duration::from_secs(30);
/// After how long a lane that could not be redeemed is tried again.
const AGAIN: Duration = Duration::from_secs(600);
/// Blocks after which the chain's settings are read again.
const TERMS: u32 = 100;

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
        let rules = self.rules(head.number).await?;
        let now = Instant::now();
        self.busy.retain(|_, until| until.is_none_or(|until| until > now));
        let busy = self.busy.keys().copied().collect();
        let moment = Moment { block: Block(head.number), ms: unix_ms(), thawing: &self.thawing, busy: &busy };
        let batches = plan(self.room.book().earning(), &rules, &moment, false);
        for vouchers in batches {
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

/// The rules of the configuration under the chain's own.
pub(super) fn rules(section: &ChainSection, terms: &Terms) -> Rules {
    Rules {
        amount: section.redeem_amount,
        age_ms: u64::try_from(section.redeem_after.as_millis()).unwrap_or(u64::MAX),
        margin: section.redeem_margin,
        least: terms.min_redeem,
    }
}
