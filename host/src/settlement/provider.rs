//! Offering this machine on the chain, and what it has at stake.

use potluck_chain_client::Call;
use potluck_primitives::{Block, Bounded, Class, MAX_MODELS, Registration, blake2_256, find_work};
use serde_json::Value;

use super::{Settlement, SettlementError, amount, ask, show, unix_ms};

/// Numbers that are tried as a proof of work before it is given up; 28 bits take a quarter of them.
const TRIES: u64 = 1 << 30;
/// Numbers that are tried between looks at whether somebody still waits.
const STRIDE: u64 = 1 << 16;

impl Settlement {
    /// Registers this machine, or renews that. `models` are the names of what it serves.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn register(&self, hardware: &str, models: &[String]) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let bits = room.live.node.terms(&at).await?.work_bits;
        let names =
            models.iter().take(MAX_MODELS as usize).map(|name| *blake3::hash(name.as_bytes()).as_bytes());
        let account = self.account();
        let registration = Registration {
            account,
            peer: account,
            hardware: Class::new(hardware),
            models: Bounded::new(names.collect()).unwrap_or_default(),
            endpoint: blake2_256(&[b"potluck endpoint 1\0", &account]),
            // Rises for ever, also where the chain has forgotten the last one.
            sequence: unix_ms(),
            at: Block(head.number),
        };
        let digest = registration.digest(&room.live.genesis());
        let work = tokio::task::spawn_blocking(move || {
            (0..TRIES).step_by(STRIDE as usize).find_map(|from| find_work(&digest, bits, from, STRIDE))
        });
        let work = work.await.map_err(|_| SettlementError::Closed)?.ok_or(SettlementError::Work(bits))?;
        let signed = self.key.registration(registration, work, &room.live.genesis());
        Ok(show::answer(&ask(&room, Call::Register(signed)).await?))
    }

    /// Takes the registration back.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn deregister(&self) -> Result<Value, SettlementError> {
        Ok(show::answer(&ask(&*self.room().await?, Call::Deregister).await?))
    }

    /// Puts credits at stake.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn stake(&self, credits: &str) -> Result<Value, SettlementError> {
        let call = Call::Stake(amount(credits)?);
        Ok(show::answer(&ask(&*self.room().await?, call).await?))
    }

    /// Begins to take credits back from the stake; without an amount, takes what is free to be taken.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn unstake(&self, credits: Option<&str>) -> Result<Value, SettlementError> {
        let call = match credits {
            Some(credits) => Call::Unstake(amount(credits)?),
            None => Call::WithdrawUnstaked,
        };
        Ok(show::answer(&ask(&*self.room().await?, call).await?))
    }

    /// What the chain knows of this machine as a provider, and who judges.
    ///
    /// # Errors
    /// [`SettlementError`]
    pub async fn provider(&self) -> Result<Value, SettlementError> {
        let room = self.room().await?;
        let (head, at) = room.live.node.latest().await?;
        let provider = room.live.node.provider(&at, self.account()).await?;
        let verifiers = room.live.node.verifiers(&at).await?;
        Ok(show::provider(&self.account(), head.number, &provider, &verifiers))
    }
}
