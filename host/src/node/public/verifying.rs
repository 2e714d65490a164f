//! Auditing strangers: rounds of audits, charges before the verifiers that the chain draws, verdicts until they are
//! executed.

use std::{fmt, sync::Arc, time::Duration};

use potluck_chain_client::Live;
use potluck_primitives::{Account, Genesis};
use tokio_util::sync::CancellationToken;

use super::{
    Room,
    asking::Asker,
    standing::{until, words},
};
use crate::{
    identity::NodeId,
    mesh::streams::{BoxFuture, Streams},
    policy::Policies,
    pool::public::{
        audit::{
            charge::{Drawn, Judge},
            committee::{self, Bench, Court},
            examine::Examiner,
            record::{Docket, Waiting},
            rounds::Rounds,
        },
        net::NetHandle,
    },
};

/// How often convictions are brought before the verifiers, and verdicts looked after.
const SESSION: Duration = Duration::from_secs(5);
/// The same where the chain or the verifiers did not answer.
const LATER: Duration = Duration::from_secs(30);

/// What the chain says about verdicts.
struct ChainCourt(Arc<Live>);

impl fmt::Debug for ChainCourt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainCourt").finish_non_exhaustive()
    }
}

impl Court for ChainCourt {
    fn genesis(&self) -> Genesis {
        self.0.genesis()
    }

    fn drawn(
        &self,
        provider: Account,
        job: [u8; 16],
        at: u32,
    ) -> BoxFuture<'_, Result<Option<Drawn>, String>> {
        Box::pin(async move {
            let asked = async {
                let node = &self.0.node;
                let (_, now) = node.latest().await?;
                let Some(sample) = node.sample(&now, provider, job, at).await? else { return Ok(None) };
                // The stake as of that block: all verifiers ask the policy the same.
                let Some(then) = node.block(at).await? else { return Ok(None) };
                let stake = node.provider(&then, provider).await?.stake;
                Ok(Some(Drawn { at, verifiers: sample.drawn, quorum: sample.quorum, stake }))
            };
            asked.await.map_err(|error: potluck_chain_client::link::LinkError| error.to_string())
        })
    }
}

/// What auditing takes.
pub(super) struct Parts {
    pub(super) room: Room,
    pub(super) asker: Arc<Asker>,
    pub(super) live: Arc<Live>,
    pub(super) handle: NetHandle,
    pub(super) docket: Arc<Docket>,
    pub(super) policies: Option<Policies>,
}

/// Audits until it is stopped.
///
/// # Errors
/// In words: what is missing.
pub(super) fn begin(
    parts: Parts,
    stop: &CancellationToken,
    spawn: impl Fn(BoxFuture<'static, ()>),
) -> Result<(), String> {
    let Parts { room, asker, live, handle, docket, policies } = parts;
    let policies =
        policies.ok_or("this node follows no policies, and no verdict can be judged without one")?;
    let examiner = Arc::new(Examiner::new(room.inference.clone()));
    let bench = Bench {
        signer: room.signer.clone(),
        examiner: Arc::clone(&examiner),
        judge: Arc::new(policies) as Arc<dyn Judge>,
        court: Arc::new(ChainCourt(Arc::clone(&live))),
    };
    let every = room.section.verify_every;
    let rounds = Rounds { ready: asker, examiner, docket: Arc::clone(&docket), every };
    let incoming = handle.bind(committee::PROTOCOL);
    let streams: Arc<dyn Streams> = Arc::new(handle);
    let sessions = Sessions { room, live, docket: Arc::clone(&docket), streams, bench: bench.clone() };
    spawn(Box::pin(rounds.run(stop.clone())));
    spawn(Box::pin(committee::serve(bench, docket, incoming, stop.clone())));
    spawn(Box::pin(until(stop, sessions.hold())));
    Ok(())
}

/// Brings charges and looks after verdicts.
struct Sessions {
    room: Room,
    live: Arc<Live>,
    docket: Arc<Docket>,
    streams: Arc<dyn Streams>,
    bench: Bench,
}

impl Sessions {
    async fn hold(self) {
        let mut wait = SESSION;
        loop {
            tokio::time::sleep(wait).await;
            wait = SESSION;
            for provider in self.docket.convicted() {
                if let Err(why) = self.accuse(provider).await {
                    tracing::info!(%provider, why, "a charge waits");
                    wait = LATER;
                }
            }
            for waiting in self.docket.waiting() {
                if let Err(why) = self.execute(waiting).await {
                    tracing::info!(provider = %waiting.0, why, "a verdict waits");
                    wait = LATER;
                }
            }
        }
    }

    /// Brings a charge before the verifiers, and their verdict to the chain.
    async fn accuse(&self, provider: NodeId) -> Result<(), String> {
        let (head, at) = self.live.node.latest().await.map_err(words)?;
        let known = self.live.node.provider(&at, provider.0).await.map_err(words)?;
        let at_stake = known.stake.0 > 0 || !known.unbonding.is_empty();
        // It is judged already for what it did, or there is nothing to be lost: the next test begins.
        if known.cases > 0 || !at_stake {
            let (cases, stake) = (known.cases, known.stake);
            tracing::info!(%provider, cases, %stake, "a charge is dropped: it is judged already, or has no stake");
            return self.close(provider).await;
        }
        let Some(charge) = self.docket.charge(provider) else { return self.close(provider).await };
        let block = head.number.checked_sub(1).ok_or("the chain has only begun")?;
        let signed = committee::accuse(&self.bench, &self.streams, &charge, block).await.map_err(words)?;
        let job = signed.verdict.job;
        let (parts, signatures) = (signed.verdict.parts, signed.signatures.len());
        self.room.settlement.convict(signed).await.map_err(words)?;
        let docket = Arc::clone(&self.docket);
        blocking(move || docket.judged(provider, job).map_err(words)).await?;
        tracing::info!(%provider, parts, signatures, "a verdict went to the chain");
        Ok(())
    }

    async fn execute(&self, (provider, job): Waiting) -> Result<(), String> {
        let (head, at) = self.live.node.latest().await.map_err(words)?;
        let docket = Arc::clone(&self.docket);
        match self.live.node.case_due(&at, provider.0, job).await.map_err(words)? {
            Some(due) if due > head.number => return Ok(()),
            Some(_) => {
                self.room.settlement.execute(provider.0, job).await.map_err(words)?;
                tracing::info!(%provider, "a verdict was executed");
            }
            None => {}
        }
        blocking(move || docket.executed((provider, job)).map_err(words)).await
    }

    async fn close(&self, provider: NodeId) -> Result<(), String> {
        let docket = Arc::clone(&self.docket);
        blocking(move || docket.close(provider).map_err(words)).await
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    tokio::task::spawn_blocking(work).await.map_err(words)?
}
