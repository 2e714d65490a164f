//! Receipts of jobs between members: both ends sign what a job took, and both ledgers have it.

use std::sync::Arc;

use parity_scale_codec::Encode;
use potluck_primitives::{Class, Micros, Receipt, Signed, Tokens, UnixMillis};

use crate::{
    identity::{Digest, NodeId, Signer},
    mesh::{
        frame,
        protocol::job::receipts::{ReceiptError, Receipts, Served},
    },
    pool::trusted::{
        PoolHandle,
        clock::{Clock, Millis, SystemClock},
        ledger::{Ledger, Offer, Seen, consider, offer},
    },
};

/// The node's ledger as jobs see it.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) signer: Signer,
    pub(super) handle: PoolHandle,
    pub(super) ledger: Arc<Ledger>,
}

impl Books {
    fn now() -> Millis {
        SystemClock.now()
    }

    /// The half of the machine that computed.
    fn half(&self, peer: NodeId, served: &Served) -> Option<Vec<u8>> {
        let ended = u64::try_from(Self::now()).ok()?;
        let compute = served.compute;
        let receipt = Receipt {
            version: Receipt::VERSION,
            job: *served.job.as_bytes(),
            provider: self.signer.node().0,
            requester: peer.0,
            pool: self.handle.pool()?.0,
            model: Digest::of(served.model.as_bytes()).0,
            class: Class::new(&served.model),
            prompt_tokens: Tokens(served.prompt_tokens),
            completion_tokens: Tokens(served.completion_tokens),
            compute: Micros(u64::try_from(compute.as_micros()).ok()?),
            started_at: UnixMillis(ended.saturating_sub(u64::try_from(compute.as_millis()).ok()?)),
            ended_at: UnixMillis(ended),
        };
        let offer = offer(&receipt, &self.signer).ok()?;
        minicbor::to_vec(&offer).ok()
    }

    fn whole(&self, peer: NodeId, half: &[u8], counted: &Served) -> Result<Signed, String> {
        let offer: Offer = frame::decode(half).map_err(|error| error.to_string())?;
        let ended_at = Self::now();
        let took = Millis::try_from(counted.compute.as_millis()).unwrap_or(Millis::MAX);
        let seen = Seen {
            job: *counted.job.as_bytes(),
            provider: peer,
            pool: self.handle.pool().ok_or("this machine is in no pool")?,
            model: Digest::of(counted.model.as_bytes()).0,
            // Only the machine that has the model can count them.
            prompt_tokens: None,
            completion_tokens: counted.completion_tokens,
            sent_at: ended_at.saturating_sub(took),
            ended_at,
        };
        let signed = consider(&offer, &seen, &self.signer).map_err(|refusal| refusal.to_string())?;
        self.keep(&signed)?;
        Ok(signed)
    }

    fn keep(&self, signed: &Signed) -> Result<(), String> {
        self.ledger.record_now(signed, Self::now()).map(drop).map_err(|error| error.to_string())
    }
}

impl Receipts for Books {
    fn issue(&self, peer: NodeId, served: &Served) -> Option<Vec<u8>> {
        self.half(peer, served)
    }

    fn countersign(&self, peer: NodeId, half: &[u8], counted: &Served) -> Result<Vec<u8>, ReceiptError> {
        let refused = |reason| ReceiptError { job: counted.job, reason };
        let signed = self.whole(peer, half, counted).map_err(refused)?;
        // The other side has the receipt: it needs the signature only.
        Ok(signed.encode())
    }

    fn allows(&self, peer: NodeId) -> Result<(), String> {
        self.ledger.allows(peer, Self::now()).map_err(|reached| reached.to_string())
    }

    fn settle(&self, _: NodeId, whole: &[u8]) -> Result<(), ReceiptError> {
        let refused = |reason: String| ReceiptError { job: uuid::Uuid::nil(), reason };
        let signed = Signed::open(whole).map_err(|error| refused(error.to_string()))?;
        if signed.receipt.provider != self.signer.node().0 {
            return Err(refused("it is of another machine".into()));
        }
        self.keep(&signed).map_err(refused)
    }
}
