//! Vouchers from hand to hand: signing one, taking one, and what the book holds.
//!
//! Jobs of the public pool pay by vouchers on their own. Here people do: what one machine prints, another one takes.

use std::time::Duration;

use parity_scale_codec::{DecodeAll, Encode, MaxEncodedLen};
use potluck_chain_client::{call::CallError, watch::Lane};
use potluck_primitives::{Account, Block, Hash, MicroCredits, SignedVoucher};
use serde_json::{Value, json};

use super::{
    Room, Settlement, SettlementError, amount, book,
    show::{hex, unhex},
    unix_ms,
};

/// Blocks for which a voucher signed by hand is good, unless somebody says otherwise: a week of blocks of 6 seconds.
const LIFE: u32 = 100_800;
/// How long whoever hands over a voucher waits for what the chain knows of it.
const SOON: Duration = Duration::from_secs(3);
/// Most lanes that are listed in each direction; those with most open come first.
const LISTED: usize = 1_000;
/// What a node's id begins with where people write it.
const ID_PREFIX: &str = "pl-";

impl Settlement {
    /// Takes a voucher; what it gained.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn accept(&self, signed: SignedVoucher) -> Result<book::Gained, SettlementError> {
        let room = self.room().await?;
        let head = *room.live.listening.head().borrow();
        let now = match head {
            Some(head) => head.number,
            // Nothing was heard yet: an expired one must not pass.
            None => room.live.node.latest().await?.0.number,
        };
        let margin = self.section.redeem_margin;
        let accepting = room.with_book(move |book| book.accept(&signed, Block(now), margin, unix_ms()));
        let gained = accepting.await??;
        room.more.notify_one();
        Ok(gained)
    }

    /// Signs a voucher for `amount` more to a payee, good for `life` blocks and covered by the escrow as the chain has
    /// it.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn promise(
        &self,
        payee: Account,
        amount: MicroCredits,
        life: u32,
        receipts_root: Hash,
    ) -> Result<SignedVoucher, SettlementError> {
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

    /// Signs a voucher for `credits` more to an account, to be handed over by its owner.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn pay(&self, to: &str, credits: &str, life: Option<u32>) -> Result<Value, SettlementError> {
        let payee = account(to)?;
        if payee == self.account() {
            let reason = "is this machine's own account: nobody pays itself".to_owned();
            return Err(SettlementError::Invalid { field: "to", reason });
        }
        let more = amount(credits)?;
        if more == MicroCredits::ZERO {
            return Err(CallError::Nothing.into());
        }
        let signed = self.promise(payee, more, life.unwrap_or(LIFE), [0; 32]).await?;
        let promised = self.room().await?.book().outstanding();
        Ok(json!({
            "voucher": write(&signed),
            "payee": hex(&payee),
            "amount": more.to_string(),
            "cumulative": signed.voucher.cumulative.to_string(),
            "number": signed.voucher.nonce,
            "expires": signed.voucher.expires.0,
            "promised": promised.to_string(),
        }))
    }

    /// Takes a voucher as another machine wrote it, and says what stands behind it.
    ///
    /// # Errors
    /// [`SettlementError`]; the voucher then counts for nothing.
    pub async fn take(&self, text: &str) -> Result<Value, SettlementError> {
        let signed = read(text)?;
        let gained = self.accept(signed.clone()).await?;
        let room = self.room().await?;
        // It is taken now. What the chain knows of it is told where the chain answers soon.
        let asking = tokio::time::timeout(SOON, escrow_behind(&room, &signed)).await;
        let escrow = asking.ok().and_then(Result::ok);
        let lane = Lane::from(&signed.voucher);
        let due = room.book().earning().find(|(it, _)| **it == lane).map(|(_, it)| it.due());
        let due = due.unwrap_or_default();
        Ok(json!({
            "payer": hex(&signed.voucher.payer),
            "gained": gained.0.min(due).to_string(),
            "due": due.to_string(),
            "cumulative": signed.voucher.cumulative.to_string(),
            "number": signed.voucher.nonce,
            "expires": signed.voucher.expires.0,
            "escrow": escrow.map(|escrow| escrow.to_string()),
            "covered": escrow.map(|escrow| escrow >= due),
        }))
    }

    /// The lanes of the book, those with most open first.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn vouchers(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let book = room.book();
        let mut earning: Vec<_> = book.earning().collect();
        earning.sort_by_key(|(lane, it)| (std::cmp::Reverse(it.due()), **lane));
        let mut paying: Vec<_> = book.paying().collect();
        paying.sort_by_key(|(lane, it)| (std::cmp::Reverse(it.outstanding()), **lane));
        let earned = earning.iter().take(LISTED).map(|(lane, it)| {
            json!({
                "payer": hex(&lane.payer),
                "lane": lane.lane,
                "number": it.best.voucher.nonce,
                "cumulative": it.best.voucher.cumulative.to_string(),
                "redeemed": it.redeemed.to_string(),
                "open": it.due().to_string(),
                "expires": it.best.voucher.expires.0,
                "since_ms": it.since_ms,
            })
        });
        let paid = paying.iter().take(LISTED).map(|(lane, it)| {
            json!({
                "payee": hex(&lane.payee),
                "lane": lane.lane,
                "number": it.last.voucher.nonce,
                "cumulative": it.last.voucher.cumulative.to_string(),
                "redeemed": it.redeemed.to_string(),
                "open": it.outstanding().to_string(),
                "expires": it.last.voucher.expires.0,
                // It can be handed over once more, should it have been lost.
                "voucher": write(&it.last),
            })
        });
        Ok(json!({
            "earning": earned.collect::<Vec<_>>(),
            "paying": paid.collect::<Vec<_>>(),
            "lanes": {"earning": earning.len(), "paying": paying.len()},
        }))
    }
}

/// What the chain holds for the payer beyond what it asked back; notes what the lane has paid already.
async fn escrow_behind(room: &Room, signed: &SignedVoucher) -> Result<MicroCredits, SettlementError> {
    let (_, at) = room.live.node.latest().await?;
    let redeemed = room.live.node.lane(&at, &signed.voucher).await?.redeemed;
    let lane = Lane::from(&signed.voucher);
    room.with_book(move |book| book.redeemed(&lane, redeemed)).await??;
    let balance = room.live.node.balance(&at, signed.voucher.payer).await?;
    Ok(balance.escrow.checked_sub(balance.thawing).unwrap_or_default())
}

/// A voucher as people pass it on: the hexadecimal digits of its SCALE bytes.
fn write(signed: &SignedVoucher) -> String {
    hex(&signed.encode())
}

fn read(text: &str) -> Result<SignedVoucher, SettlementError> {
    let invalid = |reason: &str| SettlementError::Invalid { field: "voucher", reason: reason.to_owned() };
    let text = text.trim();
    if text.len() != 2 * SignedVoucher::max_encoded_len() {
        return Err(invalid(
            "is not the text that `potluck credits pay` prints: a part is missing, or more was copied",
        ));
    }
    let bytes = unhex(text).ok_or_else(|| invalid("is no voucher: it consists of hexadecimal digits"))?;
    SignedVoucher::decode_all(&mut bytes.as_slice()).map_err(|_| invalid("is no voucher"))
}

/// An account, or the id of a node, which is the same.
fn account(text: &str) -> Result<Account, SettlementError> {
    let digits = text.trim();
    let digits = digits.strip_prefix(ID_PREFIX).unwrap_or(digits);
    let account = unhex(digits).and_then(|bytes| Account::try_from(bytes).ok());
    account.ok_or_else(|| {
        let reason = "is no account: its owner sees the 64 digits in `potluck credits balance`".to_owned();
        SettlementError::Invalid { field: "to", reason }
    })
}

#[cfg(test)]
mod tests {
    use potluck_chain_client::Key;
    use potluck_primitives::{Genesis, PUBLIC_POOL, Voucher};

    use super::*;

    #[test]
    fn a_voucher_is_read_as_it_was_written_and_nothing_else_is() {
        let key = Key::from_seed([1; 32]);
        let voucher = Voucher {
            pool: PUBLIC_POOL,
            payer: key.account(),
            payee: [2; 32],
            lane: 0,
            nonce: 1,
            cumulative: MicroCredits(7),
            expires: Block(9),
            receipts_root: [0; 32],
        };
        let signed = key.voucher(voucher, &Genesis([3; 32]));
        let text = write(&signed);
        assert_eq!(read(&format!(" {text}\n")).unwrap(), signed);
        for wrong in ["", "00", &text[2..], &format!("{text}00"), &text.replace(&text[..1], "x")] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.starts_with("voucher: "), "{error}");
        }
    }

    #[test]
    fn an_account_is_a_node() {
        let digits = "ab".repeat(32);
        assert_eq!(account(&digits).unwrap(), [0xab; 32]);
        assert_eq!(account(&format!("pl-{digits}")).unwrap(), [0xab; 32]);
        for wrong in ["", "pl-", "anna", &digits[1..], &format!("{digits}ab")] {
            assert!(account(wrong).is_err(), "{wrong}");
        }
    }
}
