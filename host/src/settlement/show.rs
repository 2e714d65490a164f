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
    Said, Settlement, SettlementError, amount, approvals, ask, keeper,
    policies::PublicPolicies,
    schedule::{Moment, plan},
    unix_ms,
};
use crate::policy::PolicyHash;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect::<Option<Vec<_>>>())?
}

/// What came of a call.
pub(super) fn answer(said: &Said) -> Value {
    match &said.answer {
        Answer::Ended(done) => finished(done),
        Answer::UnderWay(asked) => {
            let known = matches!(asked, Asked::UnderWay(_));
            json!({"call": asked.id(), "state": "under_way", "asked_before": known, "trouble": said.trouble})
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

pub(super) fn policies(policies: &[ApprovedPolicy], block: u32, host: Option<&PublicPolicies>) -> Vec<Value> {
    let public = policies.iter().filter(|it| it.class == PoolClass::PUBLIC);
    let row = |it: &ApprovedPolicy| {
        let (kind, hash) = (approvals::kind(it.kind), PolicyHash::from_bytes(it.hash.0));
        json!({
            "kind": kind,
            "hash": hash,
            "from": it.from,
            "in_force": it.from <= block,
            "uri": it.uri,
            "decides": host.is_some_and(|host| host.decides(kind, hash)),
            "trouble": host.and_then(|host| host.trouble(hash)),
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
        let owed = keeper::owed(&room, head.number).await?;
        let (thawing, busy) = Default::default();
        let (thawing, busy) = (&thawing, &busy);
        let moment = Moment { block: Block(head.number), ms: unix_ms(), thawing, busy, owed: &owed };
        let (batches, due) = {
            let book = room.book();
            (plan(book.earning(), &rules, &moment, true), book.due())
        };
        let mut told = Vec::with_capacity(batches.len());
        let mut paid = MicroCredits::ZERO;
        for planned in batches {
            let vouchers = keeper::covered(&room, &planned, rules.least).await?;
            if vouchers.is_empty() {
                continue;
            }
            let done = ask(&room, Call::Redeem(vouchers.clone())).await?;
            if let Answer::Ended(Finished { outcome: Outcome::Done { paid: Some(amount), .. }, .. }) =
                &done.answer
            {
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

    /// Gives up what is under way on a chain that no longer exists; with `vouchers` puts the book aside, too.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn forget(&self, vouchers: bool) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let given_up = room.live.signer.forget().await?;
        let aside =
            if vouchers { Some(room.with_book(|book| book.put_aside(unix_ms())).await??) } else { None };
        Ok(json!({"given_up": given_up, "vouchers": aside}))
    }
}
