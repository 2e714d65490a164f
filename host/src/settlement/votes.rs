//! What the members of the public pool vote on, and this account's part in it.

use potluck_chain_client::{Answer, Call, Conviction, Proposal, outbox::Outcome};
use potluck_primitives::{Block, PolicyHash, PolicyKind, PoolClass};
use serde_json::{Value, json};

use super::{Settlement, SettlementError, ask, show};

/// Referenda that are listed.
const MOST: u32 = 50;
/// Blocks to spare between the end of a vote that takes its whole time and the activation.
const SPARE: u32 = 10;
/// Smallest units of a token.
const TOKEN: u128 = 1_000_000_000_000;
/// Digits after the point of a token.
const DECIMALS: usize = 12;

/// A proposal, as it was said.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// What the component decides.
    pub kind: PolicyKind,
    /// Its hash, 64 digits.
    pub component: String,
    /// From which block on; `None`: soon after the longest vote.
    pub from: Option<u32>,
    /// Where it is to be had.
    pub uri: String,
    /// Whether it is to be revoked instead.
    pub revoke: bool,
}

/// A vote, as it was said.
#[derive(Clone, Debug)]
pub struct Vote {
    /// Which referendum.
    pub referendum: u32,
    /// For or against.
    pub aye: bool,
    /// Tokens: `12` or `1.5`.
    pub tokens: String,
    /// From 0 (a tenth, without a lock) to 6 (six times, locked for 32 periods).
    pub conviction: u8,
}

impl Settlement {
    /// What is approved, and what of it decides on this machine.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn approved(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let policies = room.live.node.policies(&at).await?;
        let host = room.policies.as_ref();
        let active = host.map(|host| host.policies().standing()).unwrap_or_default();
        let policies = show::policies(&policies, head.number, host);
        Ok(json!({"block": head.number, "policies": policies, "active": active}))
    }

    /// What is voted on.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn referenda(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let referenda = room.live.node.referenda(&at, MOST).await?;
        let balance = room.live.node.balance(&at, self.account()).await?;
        let rows: Vec<Value> = referenda.iter().map(show::referendum).collect();
        Ok(json!({"block": head.number, "tokens": show::tokens(balance.tokens), "referenda": rows}))
    }

    /// Puts a policy to the vote and pays the deposit that a decision needs.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn propose(&self, said: Proposed) -> Result<Value, SettlementError> {
        let hash: crate::policy::PolicyHash =
            said.component.parse().map_err(|error: crate::policy::HashError| SettlementError::Invalid {
                field: "component",
                reason: error.to_string(),
            })?;
        let hash = PolicyHash(*hash.as_bytes());
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let terms = room.live.node.terms(&at).await?;
        let soonest = head.number.saturating_add(terms.vote_blocks).saturating_add(terms.policy_delay);
        let from = said.from.unwrap_or_else(|| soonest.saturating_add(SPARE));
        let (kind, class) = (said.kind, PoolClass::PUBLIC);
        let proposal = if said.revoke {
            Proposal::Revoke { kind, class, hash }
        } else {
            Proposal::Approve { kind, class, hash, activates_at: Block(from), uri: said.uri.into_bytes() }
        };
        let asked = ask(&room, Call::Propose(proposal)).await?;
        let mut told = show::answer(&asked);
        let Some(referendum) = referendum_of(&asked.answer) else { return Ok(told) };
        let deposit = ask(&room, Call::PlaceDeposit { referendum }).await;
        if let Some(fields) = told.as_object_mut() {
            fields.insert("referendum".into(), referendum.into());
            fields.insert("from".into(), from.into());
            match deposit {
                Ok(answer) => fields.insert("deposit".into(), show::answer(&answer)),
                // Anybody else may pay it.
                Err(error) => fields.insert("deposit_missing".into(), error.to_string().into()),
            };
        }
        Ok(told)
    }

    /// Pays the deposit that a referendum needs before it is decided; anybody may.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn pay_deposit(&self, referendum: u32) -> Result<Value, SettlementError> {
        Ok(show::answer(&ask(&*self.room().await?, Call::PlaceDeposit { referendum }).await?))
    }

    /// Votes.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn cast(&self, vote: Vote) -> Result<Value, SettlementError> {
        let conviction = match vote.conviction {
            0 => Conviction::None,
            1 => Conviction::Locked1x,
            2 => Conviction::Locked2x,
            3 => Conviction::Locked3x,
            4 => Conviction::Locked4x,
            5 => Conviction::Locked5x,
            6 => Conviction::Locked6x,
            _ => {
                let reason = "must be from 0 to 6".to_owned();
                return Err(SettlementError::Invalid { field: "conviction", reason });
            }
        };
        let tokens = parse_tokens(&vote.tokens).ok_or_else(|| SettlementError::Invalid {
            field: "tokens",
            reason: format!(
                "`{}` is no number of tokens: write it like 12 or 1.5",
                vote.tokens.chars().take(40).collect::<String>()
            ),
        })?;
        let call = Call::Vote { referendum: vote.referendum, aye: vote.aye, conviction, tokens };
        Ok(show::answer(&ask(&*self.room().await?, call).await?))
    }
}

/// Which referendum a proposal became.
fn referendum_of(answer: &Answer) -> Option<u32> {
    let Answer::Ended(done) = answer else { return None };
    let Outcome::Done { notes, .. } = &done.outcome else { return None };
    notes.iter().find_map(|note| note.strip_prefix("referendum ")?.parse().ok())
}

/// Tokens as people write them, in their smallest unit.
fn parse_tokens(text: &str) -> Option<u128> {
    let (whole, rest) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(rest) || rest.len() > DECIMALS {
        return None;
    }
    let rest = format!("{rest:0<DECIMALS$}").parse::<u128>().ok()?;
    whole.parse::<u128>().ok()?.checked_mul(TOKEN)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_exactly() {
        assert_eq!(parse_tokens("1.5"), Some(1_500_000_000_000));
        assert_eq!(parse_tokens(" 12 "), Some(12 * TOKEN));
        assert_eq!(parse_tokens("0.000000000001"), Some(1));
        for wrong in ["", ".", "1.", ".5", "-1", "1e3", "0.0000000000001", "1,5", &"9".repeat(40)] {
            assert_eq!(parse_tokens(wrong), None, "{wrong}");
        }
    }
}
