//! What the node's own surface says of credits, stakes and votes. Amounts are text: no number of JSON holds them all.

use std::fmt::Write as _;

use potluck_chain_client::{
    Answer, Call,
    outbox::{Asked, Finished, Outcome},
    query::{ApprovedPolicy, Provider, Referendum, State},
    watch::Lane,
};
use potluck_primitives::{Block, MicroCredits, PoolClass};
use serde_json::{Value, json};

use super::{
    Settlement, SettlementError, amount, approvals, ask, book, keeper,
    schedule::{Moment, plan},
    unix_ms,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What came of a call.
pub(super) fn answer(answer: &Answer) -> Value {
    match answer {
        Answer::Ended(done) => finished(done),
        Answer::UnderWay(asked) => {
            let known = matches!(asked, Asked::UnderWay(_));
            json!({"call": asked.id(), "state": "under_way", "asked_before": known})
        }
    }
}

fn finished(done: &Finished) -> Value {
    let mut told = json!({
        "call": done.id,
        "word": done.word,
        "what": done.what,
        "asked_ms": done.asked_ms,
        "ended_ms": done.ended_ms,
        "state": if done.outcome.is_success() { "done" } else { "failed" },
    });
    if let (Some(told), Ok(Value::Object(outcome))) =
        (told.as_object_mut(), serde_json::to_value(&done.outcome))
    {
        told.extend(outcome);
    }
    told
}

pub(super) fn provider(account: &[u8; 32], block: u32, it: &Provider, verifiers: &[[u8; 32]]) -> Value {
    let unbonding: Vec<Value> =
        it.unbonding.iter().map(|(amount, at)| json!({"amount": amount.to_string(), "at": at})).collect();
    json!({
        "account": hex(account),
        "block": block,
        "registered": it.sequence.is_some(),
        "since": it.since,
        "hardware": it.hardware,
        "models": it.models,
        "stake": it.stake.to_string(),
        "unbonding": unbonding,
        "verifier": it.verifier,
        "cases": it.cases,
        "verifiers": verifiers.iter().map(|it| hex(it)).collect::<Vec<_>>(),
    })
}

pub(super) fn policies(policies: &[ApprovedPolicy], block: u32) -> Vec<Value> {
    let public = policies.iter().filter(|it| it.class == PoolClass::PUBLIC);
    let row = |it: &ApprovedPolicy| {
        json!({
            "kind": approvals::kind(it.kind),
            "hash": it.hash.to_string(),
            "from": it.from,
            "in_force": it.from <= block,
            "uri": it.uri,
        })
    };
    public.map(row).collect()
}

pub(super) fn referendum(it: &Referendum) -> Value {
    let (state, at) = match it.state {
        State::Preparing => ("preparing", None),
        State::Deciding(confirming) => {
            (if confirming.is_some() { "confirming" } else { "deciding" }, confirming)
        }
        State::Approved(at) => ("approved", Some(at)),
        State::Rejected(at) => ("rejected", Some(at)),
        State::Ended => ("ended", None),
    };
    json!({
        "index": it.index,
        "state": state,
        "at": at,
        "ayes": tokens(it.ayes),
        "nays": tokens(it.nays),
        "support": tokens(it.support),
        "deposited": it.deposited,
    })
}

/// Tokens as people write them.
pub(super) fn tokens(units: u128) -> String {
    let text = format!("{}.{:012}", units / 1_000_000_000_000, units % 1_000_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Settlement {
    /// What this account has, on the chain and in vouchers.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn balance(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let balance = room.live.node.balance(&at, self.account()).await?;
        let provider = room.live.node.provider(&at, self.account()).await?;
        let (due, outstanding, lanes) = {
            let book = room.book();
            (book.due(), book.outstanding(), book.earning().filter(|(_, it)| it.due().0 > 0).count())
        };
        let escrow = balance.escrow.checked_sub(balance.thawing).unwrap_or_default();
        Ok(json!({
            "account": hex(&self.account()),
            "block": head.number,
            "free": balance.free.to_string(),
            "escrow": escrow.to_string(),
            "thawing": balance.thawing.to_string(),
            "thawed_at": balance.thawed_at,
            "stake": provider.stake.to_string(),
            "held": balance.held.to_string(),
            "promised": outstanding.to_string(),
            "earned": due.to_string(),
            "earning_lanes": lanes,
            "tokens": tokens(balance.tokens),
        }))
    }

    /// Puts credits into the escrow.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn deposit(&self, credits: &str) -> Result<Value, SettlementError> {
        let call = Call::Deposit(amount(credits)?);
        Ok(answer(&ask(&*self.room().await?, call).await?))
    }

    /// Begins to take credits out of the escrow; without an amount, takes what has thawed, or keeps it in after all.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn withdraw(&self, credits: Option<&str>, cancel: bool) -> Result<Value, SettlementError> {
        let call = match (credits, cancel) {
            (Some(credits), false) => Call::StartWithdraw(amount(credits)?),
            (None, true) => Call::CancelWithdraw,
            (None, false) => Call::Withdraw,
            (Some(_), true) => {
                let reason = "is not needed to cancel: all that thaws stays in".to_owned();
                return Err(SettlementError::Invalid { field: "amount", reason });
            }
        };
        Ok(answer(&ask(&*self.room().await?, call).await?))
    }

    /// Redeems all vouchers that are worth anything, whether they are due or not.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn redeem(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let rules = keeper::rules(&self.section, &room.live.node.terms(&at).await?);
        let (thawing, busy) = Default::default();
        let moment = Moment { block: Block(head.number), ms: unix_ms(), thawing: &thawing, busy: &busy };
        let (batches, due) = {
            let book = room.book();
            (plan(book.earning(), &rules, &moment, true), book.due())
        };
        let mut told = Vec::with_capacity(batches.len());
        let mut paid = MicroCredits::ZERO;
        for vouchers in batches {
            let done = ask(&room, Call::Redeem(vouchers.clone())).await?;
            if let Answer::Ended(Finished { outcome: Outcome::Done { paid: Some(amount), .. }, .. }) = &done {
                paid = paid.checked_add(*amount).unwrap_or(paid);
            }
            told.push(answer(&done));
            for signed in vouchers {
                let redeemed =
                    room.live.node.lane(&room.live.node.latest().await?.1, &signed.voucher).await?.redeemed;
                let lane = Lane::from(&signed.voucher);
                room.with_book(move |book| book.redeemed(&lane, redeemed)).await??;
            }
        }
        let left = room.book().due();
        Ok(json!({
            "earned": due.to_string(),
            "paid": paid.to_string(),
            "left": left.to_string(),
            "least": rules.least.to_string(),
            "calls": told,
        }))
    }

    /// What was asked of the chain, and what is under way.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn history(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let done = room.live.signer.history().await?;
        let standing = room.live.signer.standing().borrow().clone();
        Ok(json!({
            "under_way": standing.open,
            "trouble": standing.trouble,
            "done": done.iter().rev().map(finished).collect::<Vec<_>>(),
        }))
    }

    /// How the chain and the connection to it are. Never fails: what is wrong is part of the answer.
    pub async fn status(&self) -> Value {
        let mut told =
            json!({"endpoint": self.endpoint(), "account": hex(&self.account()), "connected": false});
        let room = match self.room().await {
            Ok(room) => room,
            Err(error) => {
                if let Some(told) = told.as_object_mut() {
                    told.insert("trouble".into(), error.to_string().into());
                }
                return told;
            }
        };
        let head = match room.live.node.latest().await {
            Ok((head, _)) => Ok(head),
            Err(error) => Err(error.to_string()),
        };
        let standing = room.live.signer.standing().borrow().clone();
        let trouble = head.as_ref().err().cloned().or(standing.trouble);
        json!({
            "endpoint": self.endpoint(),
            "account": hex(&self.account()),
            "connected": head.is_ok(),
            "genesis": hex(&room.live.genesis().0),
            "block": head.as_ref().ok().map(|head| head.number),
            "hash": head.as_ref().ok().map(|head| hex(&head.hash)),
            "under_way": standing.open,
            "trouble": trouble,
            "folder": room.live.folder,
        })
    }

    /// Gives up what is under way on a chain that no longer exists.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn forget(&self) -> Result<Value, SettlementError> {
        let given_up = self.room().await?.live.signer.forget().await?;
        Ok(json!({"given_up": given_up}))
    }

    /// Takes a voucher; what it gained, in credits.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn accept(
        &self,
        signed: potluck_primitives::SignedVoucher,
    ) -> Result<book::Gained, SettlementError> {
        let room = self.room().await?;
        let head = *room.live.listening.head().borrow();
        let now = Block(head.map_or(0, |head| head.number));
        let margin = self.section.redeem_margin;
        let gained = room.with_book(move |book| book.accept(&signed, now, margin, unix_ms())).await??;
        room.more.notify_one();
        Ok(gained)
    }

    /// Signs a voucher for `amount` more to a payee, covered by the escrow as the chain has it.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn promise(
        &self,
        payee: [u8; 32],
        amount: MicroCredits,
        life: u32,
        receipts_root: [u8; 32],
    ) -> Result<potluck_primitives::SignedVoucher, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let balance = room.live.node.balance(&at, self.account()).await?;
        let escrow = balance.escrow.checked_sub(balance.thawing).unwrap_or_default();
        let expires = Block(head.number.saturating_add(life));
        let signed = room.with_book(move |book| {
            // A lane's vouchers never expire earlier than those before them.
            let least = book.last(payee).map_or(0, |last| last.voucher.expires.0);
            book.promise(payee, amount, Block(expires.0.max(least)), receipts_root, escrow)
        });
        Ok(signed.await??)
    }
}
