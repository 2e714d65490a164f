//! What is asked of a block: balances, lanes, batches, providers, policies, referenda.

use potluck_primitives::{Account, MicroCredits, PolicyHash, PolicyKind, PoolClass, Voucher};
use subxt::{
    runtime_apis::Payload,
    storage::{Address, StorageValue},
    utils::AccountId32,
};

use crate::{
    link::{
        Head, LinkError,
        node::{At, Node, unclear},
    },
    runtime::{self, runtime_types as types},
};

pub use batches::{Batch, Standing, Supply};

mod batches;

/// Most verifiers, referenda or policies that an answer is read for.
const MOST: usize = 1_024;

/// What an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Credits that can be spent, deposited or staked.
    pub free: MicroCredits,
    /// Credits that vouchers are paid from, what is thawing included.
    pub escrow: MicroCredits,
    /// Of these, what was asked back.
    pub thawing: MicroCredits,
    /// The first block at which that can be withdrawn.
    pub thawed_at: Option<u32>,
    /// Credits on hold for all reasons.
    pub held: MicroCredits,
    /// Tokens of governance that are free, in their smallest unit (10⁻¹²).
    pub tokens: u128,
}

/// What a lane has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// The most that a voucher of it was shown for in time.
    pub shown: MicroCredits,
    /// What of it was paid.
    pub redeemed: MicroCredits,
}

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// The number of its registration; `None` when it is not registered.
    pub sequence: Option<u64>,
    /// The block that the registration arrived in.
    pub since: Option<u32>,
    /// What kind of machine it says it is.
    pub hardware: String,
    /// How many models it says it serves.
    pub models: usize,
    /// What is at stake.
    pub stake: MicroCredits,
    /// What is on its way out, and the first block at which it can be withdrawn.
    pub unbonding: Vec<(MicroCredits, u32)>,
    /// Whether it judges evidence.
    pub verifier: bool,
    /// Verdicts that wait for it.
    pub cases: u32,
}

/// Who judges a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The verifiers that are drawn.
    pub drawn: Vec<Account>,
    /// How many of them have to sign.
    pub quorum: u32,
}

/// A policy that is in force, or will be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApprovedPolicy {
    /// What it decides.
    pub kind: PolicyKind,
    /// For which pools.
    pub class: PoolClass,
    /// From which block on.
    pub from: u32,
    /// The component.
    pub hash: PolicyHash,
    /// Where it is to be had, if that is said.
    pub uri: String,
}

/// A vote of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referendum {
    /// Its number.
    pub index: u32,
    /// How it stands.
    pub state: State,
    /// Votes for it, conviction counted.
    pub ayes: u128,
    /// Votes against it, conviction counted.
    pub nays: u128,
    /// Tokens that support it.
    pub support: u128,
    /// Whether the deposit that a decision needs was paid.
    pub deposited: bool,
}

/// How a referendum stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its deposit, its time, or a free place.
    Preparing,
    /// It is decided; from which block on approval held, if it does.
    Deciding(Option<u32>),
    /// Yes, at that block.
    Approved(u32),
    /// No, at that block.
    Rejected(u32),
    /// It came to no end.
    Ended,
}

/// What the chain has set that a node plans by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What a redemption must pay to be free.
    pub min_redeem: MicroCredits,
    /// Blocks between asking for escrow back and getting it.
    pub thaw_delay: u32,
    /// What a call costs that is paid in credits.
    pub call_fee: MicroCredits,
    /// Leading zero bits that a registration costs.
    pub work_bits: u32,
    /// Blocks between a decision on a policy and its effect, at least.
    pub policy_delay: u32,
    /// Blocks that a vote on a policy takes at most, from its proposal to its effect.
    pub vote_blocks: u32,
}

impl Node {
    async fn api<P: Payload>(&self, at: &At, payload: P) -> Result<P::ReturnType, LinkError> {
        self.ask(async { at.runtime_apis().call(payload).await.map_err(|error| unclear(&error)) }).await
    }

    async fn stored<'at, A: Address>(
        &self,
        at: &'at At,
        address: A,
        key: A::KeyParts,
    ) -> Result<Option<StorageValue<'at, A::Value>>, LinkError> {
        self.ask(async { at.storage().try_fetch(address, key).await.map_err(|error| unclear(&error)) }).await
    }

    /// What an account has.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn balance(&self, at: &At, account: Account) -> Result<Balance, LinkError> {
        let view = self.api(at, runtime::runtime_apis().credits_api().account(account)).await?;
        let info = self.stored(at, runtime::storage().system().account(), (AccountId32(account),)).await?;
        let tokens = match info {
            Some(info) => info.decode().map_err(|error| unclear(&error))?.data.free,
            None => 0,
        };
        Ok(Balance {
            free: MicroCredits(view.free),
            escrow: MicroCredits(view.escrow.held),
            thawing: MicroCredits(view.escrow.thawing),
            thawed_at: view.escrow.thawed_at,
            held: MicroCredits(view.held),
            tokens,
        })
    }

    /// What the lane of a voucher has come to.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn lane(&self, at: &At, voucher: &Voucher) -> Result<Lane, LinkError> {
        let key = types::pallet_potluck_credits::types::LaneKey {
            pool: voucher.pool,
            payer: voucher.payer,
            payee: voucher.payee,
            lane: voucher.lane,
        };
        let lane = self.api(at, runtime::runtime_apis().credits_api().lane(key)).await?;
        Ok(Lane { shown: MicroCredits(lane.cumulative), redeemed: MicroCredits(lane.redeemed) })
    }

    /// What is known of a provider.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn provider(&self, at: &At, account: Account) -> Result<Provider, LinkError> {
        let view = self.api(at, runtime::runtime_apis().providers_api().provider(account)).await?;
        let registration = view.registration.map(|(signed, since)| (signed.0.registration, since));
        Ok(Provider {
            sequence: registration.as_ref().map(|(of, _)| of.sequence),
            since: registration.as_ref().map(|(_, since)| *since),
            hardware: registration.as_ref().map(|(of, _)| of.hardware.text()).unwrap_or_default(),
            models: registration.as_ref().map_or(0, |(of, _)| of.models.len()),
            stake: MicroCredits(view.active),
            unbonding: view
                .unbonding
                .into_iter()
                .map(|it| (MicroCredits(it.amount), it.at))
                .take(MOST)
                .collect(),
            verifier: view.verifier,
            cases: view.cases,
        })
    }

    /// The accounts that judge evidence from the next era on.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn verifiers(&self, at: &At) -> Result<Vec<Account>, LinkError> {
        match self.stored(at, runtime::storage().providers().verifiers(), ()).await? {
            Some(found) => {
                let all = found.decode().map_err(|error| unclear(&error))?;
                Ok(all.0.into_iter().take(MOST).collect())
            }
            None => Ok(Vec::new()),
        }
    }

    /// Who judges a job of a provider, drawn by the block `at_block`; none where that block draws nobody any more, or
    /// not yet.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn sample(
        &self,
        at: &At,
        provider: Account,
        job: [u8; 16],
        at_block: u32,
    ) -> Result<Option<Sample>, LinkError> {
        let sample = runtime::runtime_apis().providers_api().verifier_sample(provider, job, at_block);
        let view = self.api(at, sample).await?;
        Ok(view
            .map(|view| Sample { drawn: view.drawn.into_iter().take(MOST).collect(), quorum: view.quorum }))
    }

    /// The first block at which a verdict can be executed; none where it does not wait, or not any more.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn case_due(
        &self,
        at: &At,
        provider: Account,
        job: [u8; 16],
    ) -> Result<Option<u32>, LinkError> {
        use types::pallet_potluck_providers::types::Stage;
        let key = (AccountId32(provider), job);
        let Some(found) = self.stored(at, runtime::storage().providers().cases(), key).await? else {
            return Ok(None);
        };
        Ok(Some(match found.decode().map_err(|error| unclear(&error))?.stage {
            Stage::Open { until } | Stage::Appealed { until, .. } => until.saturating_add(1),
            Stage::Upheld => 0,
        }))
    }

    /// A block of the chain by its number; none where there is none yet.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn block(&self, number: u32) -> Result<Option<At>, LinkError> {
        use crate::link::{Head, Link};
        let Some(hash) = self.hash_of(number).await? else { return Ok(None) };
        Ok(Some(self.at(Head { number, hash }).await?))
    }

    /// The policies in force and those to come.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn policies(&self, at: &At) -> Result<Vec<ApprovedPolicy>, LinkError> {
        let views = self.api(at, runtime::runtime_apis().policies_api().policies()).await?;
        let read = |view: types::pallet_potluck_policies::api::PolicyView| ApprovedPolicy {
            kind: view.kind.0,
            class: view.class.0,
            from: view.from,
            hash: view.hash.0,
            uri: String::from_utf8(view.uri).map(|uri| crate::rpc::short(&uri)).unwrap_or_default(),
        };
        Ok(views.into_iter().take(MOST).map(read).collect())
    }

    /// The last votes of the members, the newest first.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn referenda(&self, at: &At, most: u32) -> Result<Vec<Referendum>, LinkError> {
        let count = match self.stored(at, runtime::storage().referenda().referendum_count(), ()).await? {
            Some(count) => count.decode().map_err(|error| unclear(&error))?,
            None => 0,
        };
        let mut found = Vec::new();
        for index in (count.saturating_sub(most)..count).rev() {
            let info =
                self.stored(at, runtime::storage().referenda().referendum_info_for(), (index,)).await?;
            let Some(info) = info else { continue };
            found.push(referendum(index, info.decode().map_err(|error| unclear(&error))?));
        }
        Ok(found)
    }

    /// What the chain has set.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn terms(&self, at: &At) -> Result<Terms, LinkError> {
        let nothing = || LinkError::Nonsense("a chain without settings".into());
        let credits =
            self.stored(at, runtime::storage().credits().settings(), ()).await?.ok_or_else(nothing)?;
        let credits = credits.decode().map_err(|error| unclear(&error))?;
        let providers = self.stored(at, runtime::storage().providers().settings(), ()).await?;
        let providers = providers.ok_or_else(nothing)?.decode().map_err(|error| unclear(&error))?;
        let governance = self.stored(at, runtime::storage().parameters().current(), ()).await?;
        let governance = governance.ok_or_else(nothing)?.decode().map_err(|error| unclear(&error))?;
        let periods = &governance.policies;
        Ok(Terms {
            min_redeem: MicroCredits(credits.min_redeem),
            thaw_delay: credits.thaw_delay,
            call_fee: MicroCredits(credits.call_fee),
            work_bits: providers.work_bits,
            policy_delay: governance.policy_delay,
            vote_blocks: [periods.prepare, periods.decision, periods.confirm, periods.enactment]
                .into_iter()
                .fold(0, u32::saturating_add),
        })
    }

    /// The chain's last final block and the chain at it.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn latest(&self) -> Result<(Head, At), LinkError> {
        use crate::link::Link;
        let head = self.head().await?;
        Ok((head, self.at(head).await?))
    }
}

fn referendum(index: u32, info: runtime::referenda::storage::referendum_info_for::Output) -> Referendum {
    use types::pallet_referenda::types::ReferendumInfo as Kind;
    let mut it = Referendum { index, state: State::Ended, ayes: 0, nays: 0, support: 0, deposited: true };
    match info {
        Kind::Ongoing(status) => {
            (it.ayes, it.nays, it.support) = (status.tally.ayes, status.tally.nays, status.tally.support);
            it.deposited = status.decision_deposit.is_some();
            it.state =
                status.deciding.map_or(State::Preparing, |deciding| State::Deciding(deciding.confirming));
        }
        Kind::Approved(at, ..) => it.state = State::Approved(at),
        Kind::Rejected(at, ..) => it.state = State::Rejected(at),
        _ => {}
    }
    it
}
