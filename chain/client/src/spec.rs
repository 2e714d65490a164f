//! Development chains: an account with something in it, and blocks at will.

use std::time::Duration;

use blake2::{Blake2b, Digest as _, digest::consts::U16};
use potluck_primitives::{Account, blake2_256};
use serde_json::{Map, Value, json};
use subxt::{
    ext::frame_decode::storage::encode_storage_key_prefix,
    rpcs::client::{RpcClient, rpc_params},
};

use crate::{
    Key,
    link::{LinkError, node::unclear},
    rpc,
};

/// Bytes of an account of the system before its tokens.
const SYSTEM_HEAD: usize = 16;
/// Blocks that a node is asked for at once: all of them within the time of one answer.
const AT_ONCE: u32 = 10;

/// Why a chain's specification cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the specification of the development chain is not what it should be ({0}): reinstall potluck")]
pub struct SpecError(&'static str);

/// The key of a development account: everybody knows it. Named as in the runtime's genesis: alice, bob, carol, dave.
pub fn known_key(name: &str) -> Key {
    Key::from_seed(blake2_256(&[b"potluck development ", name.as_bytes()]))
}

/// Gives an account in a raw specification what another one has in it, credits and tokens, and counts that as issued.
///
/// # Errors
/// [`SpecError`]
pub fn fund(spec: &mut Value, account: Account, like: Account) -> Result<(), SpecError> {
    let top =
        spec.pointer_mut("/genesis/raw/top").and_then(Value::as_object_mut).ok_or(SpecError("no state"))?;
    let tokens = copy(top, "System", SYSTEM_HEAD, account, like)?;
    let credits = copy(top, "CreditBalances", 0, account, like)?;
    add(top, ("Balances", "TotalIssuance"), tokens)?;
    add(top, ("CreditBalances", "TotalIssuance"), credits)?;
    add(top, ("Credits", "Granted"), credits)
}

/// Copies an account; how much was in it.
fn copy(
    top: &mut Map<String, Value>,
    pallet: &str,
    head: usize,
    account: Account,
    like: Account,
) -> Result<u128, SpecError> {
    let value = top.get(&key(pallet, &like)).cloned().ok_or(SpecError("no such account"))?;
    let bytes = value.as_str().and_then(unhex).ok_or(SpecError("an account of other bytes"))?;
    let free =
        bytes.get(head..).and_then(|rest| rest.first_chunk::<16>()).ok_or(SpecError("a short account"))?;
    if top.insert(key(pallet, &account), value).is_some() {
        return Err(SpecError("the account has something already"));
    }
    Ok(u128::from_le_bytes(*free))
}

fn add(top: &mut Map<String, Value>, (pallet, entry): (&str, &str), more: u128) -> Result<(), SpecError> {
    let value = top.get_mut(&hex(&encode_storage_key_prefix(pallet, entry))).ok_or(SpecError("no sum"))?;
    let bytes = value.as_str().and_then(unhex).ok_or(SpecError("a sum of other bytes"))?;
    let before = <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| SpecError("a sum of another length"))?;
    let sum =
        u128::from_le_bytes(before).checked_add(more).ok_or(SpecError("a sum that cannot be counted"))?;
    *value = hex(&sum.to_le_bytes()).into();
    Ok(())
}

/// Where the account of a pallet lies.
fn key(pallet: &str, account: &Account) -> String {
    let prefix = encode_storage_key_prefix(pallet, "Account");
    hex(&[&prefix[..], &Blake2b::<U16>::digest(account), account].concat())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.strip_prefix("0x")?.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect::<Option<Vec<_>>>())?
}

/// A development node that makes blocks when it is told to.
#[derive(Clone, Debug)]
pub struct Clock(RpcClient);

impl Clock {
    /// Connects to such a node.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn connect(endpoint: &str) -> Result<Self, LinkError> {
        Ok(Self(rpc::connect(endpoint).await?))
    }

    /// Makes blocks. Each takes the node a moment, so it is asked for a few at a time.
    ///
    /// # Errors
    /// [`LinkError`], also from a node that takes no such order.
    pub async fn make_blocks(&self, count: u32) -> Result<(), LinkError> {
        let mut left = count;
        while left > 0 {
            let some = left.min(AT_ONCE);
            let asked = self.0.request::<Value>("dev_newBlock", rpc_params![json!({"count": some})]);
            match tokio::time::timeout(Duration::from_secs(60), asked).await {
                Ok(Ok(_)) => left -= some,
                Ok(Err(error)) => return Err(unclear(&error)),
                Err(_) => return Err(LinkError::Unreachable("no answer in time".into())),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_gets_what_another_has_and_the_sums_add_up() {
        let mut spec: Value = serde_json::from_str(include_str!("../../dist/development.json")).unwrap();
        let sum = |spec: &Value, pallet, entry| {
            let at = hex(&encode_storage_key_prefix(pallet, entry));
            let bytes = unhex(spec["genesis"]["raw"]["top"][at].as_str().unwrap()).unwrap();
            u128::from_le_bytes(bytes.try_into().unwrap())
        };
        let before = spec.clone();
        fund(&mut spec, [7; 32], known_key("alice").account()).unwrap();
        let grown = |pallet, entry| sum(&spec, pallet, entry) - sum(&before, pallet, entry);
        assert_eq!(grown("Credits", "Granted"), 10_000_000_000);
        assert_eq!(grown("CreditBalances", "TotalIssuance"), 10_000_000_000);
        assert_eq!(grown("Balances", "TotalIssuance"), 1_000_000_000_000_000_000);
        let twice = fund(&mut spec, [7; 32], known_key("alice").account());
        assert!(twice.is_err(), "an account is made once");
    }
}
