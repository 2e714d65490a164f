//! Batches, and how many credits there are.

use potluck_primitives::{Account, MicroCredits};
use subxt::utils::AccountId32;

use crate::{
    link::{
        LinkError,
        node::{At, Node, unclear},
    },
    runtime::{self, runtime_types as types},
};

/// Leaves whose settlement one stored word of bits remembers.
const CHUNK: u32 = 256;

/// What a settler said an epoch nets to, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who submitted it.
    pub settler: Account,
    /// The epoch whose vouchers it counts.
    pub epoch: u32,
    /// How many leaves there are.
    pub leaf_count: u32,
    /// The most that it may take from payers.
    pub gross: MicroCredits,
    /// What is still held of the settler for it.
    pub bond: MicroCredits,
    /// The block it came in.
    pub submitted: u32,
    /// The last block in which a leaf can be challenged.
    pub challenges_until: u32,
    /// The last block in which a fault can be proven, while nothing waits for an answer.
    pub proofs_until: u32,
    /// The first block in which it may be closed with leaves unsettled.
    pub closable_from: u32,
    /// Challenges that wait for an answer.
    pub open: u32,
    /// What payers were debited.
    pub debited: MicroCredits,
    /// What of that has not been paid out yet.
    pub pot: MicroCredits,
    /// Leaves that are wholly settled.
    pub settled: u32,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a batch stands, as far as calls have changed it: it becomes final by time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be disputed, and is final once that time is over.
    Submitted,
    /// It was shown to be wrong.
    Void,
    /// It was final, and is settled for good.
    Closed,
}

impl Batch {
    /// Whether a call in block `block` finds it beyond dispute.
    pub fn is_final(&self, block: u32) -> bool {
        match self.standing {
            Standing::Submitted => self.open == 0 && block > self.proofs_until,
            Standing::Void => false,
            Standing::Closed => true,
        }
    }
}

/// How many credits there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// What all accounts have together.
    pub issued: MicroCredits,
    /// What was ever granted.
    pub granted: MicroCredits,
    /// What was ever burnt.
    pub burnt: MicroCredits,
}

impl Node {
    /// A batch; none of that number where fewer were submitted.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn batch(&self, at: &At, batch: u32) -> Result<Option<Batch>, LinkError> {
        let Some(found) = self.stored(at, runtime::storage().credits().batches(), (batch,)).await? else {
            return Ok(None);
        };
        let found = found.decode().map_err(|error| unclear(&error))?;
        Ok(Some(Batch {
            settler: found.settler.0,
            epoch: found.epoch,
            leaf_count: found.leaf_count,
            gross: MicroCredits(found.gross),
            bond: MicroCredits(found.bond),
            submitted: found.submitted,
            challenges_until: found.challenges_until,
            proofs_until: found.proofs_until,
            closable_from: found.closable_from,
            open: found.open,
            debited: MicroCredits(found.debited),
            pot: MicroCredits(found.pot),
            settled: found.settled,
            standing: match found.standing {
                types::pallet_potluck_credits::types::Standing::Submitted => Standing::Submitted,
                types::pallet_potluck_credits::types::Standing::Void => Standing::Void,
                types::pallet_potluck_credits::types::Standing::Closed => Standing::Closed,
            },
        }))
    }

    /// Whether a leaf of a batch is wholly settled.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn is_settled(&self, at: &At, batch: u32, index: u32) -> Result<bool, LinkError> {
        let bits = runtime::storage().credits().settled();
        let Some(bits) = self.stored(at, bits, (batch, index / CHUNK)).await? else { return Ok(false) };
        let bits: [u8; 32] = bits.decode().map_err(|error| unclear(&error))?;
        let within = index % CHUNK;
        let byte = usize::try_from(within / 8).ok().and_then(|at| bits.get(at));
        Ok(byte.is_some_and(|byte| byte >> (within % 8) & 1 == 1))
    }

    /// How much of a payer's escrow a settler's batch of an epoch may take.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn allowance(
        &self,
        at: &At,
        payer: Account,
        settler: Account,
        epoch: u32,
    ) -> Result<MicroCredits, LinkError> {
        let key = (AccountId32(payer), AccountId32(settler));
        let found = self.stored(at, runtime::storage().credits().allowances(), key).await?;
        let Some(found) = found else { return Ok(MicroCredits::ZERO) };
        let found = found.decode().map_err(|error| unclear(&error))?;
        Ok(MicroCredits(if epoch < found.from { found.before } else { found.limit }))
    }

    /// How many credits there are.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn supply(&self, at: &At) -> Result<Supply, LinkError> {
        let issued = self.stored(at, runtime::storage().credit_balances().total_issuance(), ()).await?;
        let granted = self.stored(at, runtime::storage().credits().granted(), ()).await?;
        let burnt = self.stored(at, runtime::storage().credits().burnt(), ()).await?;
        let read = |found: Option<subxt::storage::StorageValue<'_, u128>>| match found {
            Some(found) => found.decode().map(MicroCredits).map_err(|error| unclear(&error)),
            None => Ok(MicroCredits::ZERO),
        };
        Ok(Supply { issued: read(issued)?, granted: read(granted)?, burnt: read(burnt)? })
    }
}
