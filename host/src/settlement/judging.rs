//! Judging providers: joining the verifiers, bringing verdicts to the chain, and having them executed.

use potluck_chain_client::Call;
use potluck_primitives::{Account, SignedVerdict};
use serde_json::Value;

use super::{Settlement, SettlementError, ask, show};

impl Settlement {
    /// Makes this machine one of those that judge evidence from the next era on, or ends that.
    ///
    /// # Errors
    /// [`SettlementError`]; who joins needs the stake that the chain asks of verifiers.
    pub async fn verify(&self, joins: bool) -> Result<Value, SettlementError> {
        let call = if joins { Call::JoinVerifiers } else { Call::LeaveVerifiers };
        Ok(show::answer(&ask(&*self.room().await?, call).await?))
    }

    /// Brings a verdict to the chain.
    ///
    /// # Errors
    /// [`SettlementError`]
    #[cfg(feature = "public")]
    pub(crate) async fn convict(&self, verdict: SignedVerdict) -> Result<(), SettlementError> {
        ask(&*self.room().await?, Call::SubmitVerdict(Box::new(verdict))).await.map(drop)
    }

    /// Has a verdict executed whose time for appeals is over.
    ///
    /// # Errors
    /// [`SettlementError`]
    #[cfg(feature = "public")]
    pub(crate) async fn execute(&self, provider: Account, job: [u8; 16]) -> Result<(), SettlementError> {
        ask(&*self.room().await?, Call::ExecuteVerdict { provider, job }).await.map(drop)
    }
}
