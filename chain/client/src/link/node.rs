//! A chain as a node serves it over RPC.
//!
//! Only requests with one answer each are used, none that the node keeps a state for: after a lost connection nothing
//! has to be put together again. What the node says is decoded within bounds and never trusted to be about the chain
//! that it should be: the first block's hash is compared whenever the connection was lost.

use std::{
    collections::BTreeMap,
    fmt::Display,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use potluck_primitives::{Genesis, MicroCredits, blake2_256};
use subxt::{
    OnlineClient, SubstrateConfig,
    backend::LegacyBackend,
    client::{ClientAtBlock, OnlineClientAtBlockImpl},
    config::{Header as _, RpcConfigFor},
    error::ExtrinsicError,
    events::{Event, Phase},
    ext::scale_decode::DecodeAsFields,
    rpcs::{
        Error as RpcError,
        client::RpcClient,
        methods::legacy::{LegacyRpcMethods, NumberOrHex},
    },
    utils::{AccountId32, H256},
};

use super::{Body, Effect, Head, Link, LinkError, SubmitError};
use crate::{
    call::Call,
    key::Key,
    outbox::Attempt,
    rpc::{ANSWER, short},
    runtime,
};

mod calls;

/// Blocks in which a transaction is valid.
pub(super) const PERIOD: u32 = 64;
/// Final blocks that are remembered.
const MAX_BODIES: usize = 128;
/// Most transactions of a block that are looked at.
const MAX_TRANSACTIONS: usize = 100_000;

/// The chain at one block.
pub type At = ClientAtBlock<SubstrateConfig, OnlineClientAtBlockImpl<SubstrateConfig>>;

/// A node of the chain.
#[derive(Clone, Debug)]
pub struct Node {
    api: OnlineClient<SubstrateConfig>,
    rpc: LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>,
    key: Key,
    genesis: H256,
    bodies: Arc<Mutex<BTreeMap<u32, Arc<Body>>>>,
    /// Whether the connection was lost since the chain was looked at.
    doubtful: Arc<AtomicBool>,
}

impl Node {
    /// Asks the node behind a connection which chain it serves.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn new(rpc: RpcClient, key: Key) -> Result<Self, LinkError> {
        let backend = LegacyBackend::builder().build(rpc.clone());
        let api = OnlineClient::from_backend_with_config(SubstrateConfig::new(), Arc::new(backend));
        let api = timed(async { api.await.map_err(|error| unclear(&error)) }).await?;
        Ok(Self {
            genesis: api.genesis_hash(),
            api,
            rpc: LegacyRpcMethods::new(rpc),
            key,
            bodies: Arc::default(),
            doubtful: Arc::default(),
        })
    }

    /// The chain's first block.
    pub fn genesis(&self) -> Genesis {
        Genesis(self.genesis.0)
    }

    /// The account that signs.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The bare methods of the node.
    pub(crate) fn rpc(&self) -> &LegacyRpcMethods<RpcConfigFor<SubstrateConfig>> {
        &self.rpc
    }

    /// The chain at a block.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn at(&self, head: Head) -> Result<At, LinkError> {
        let at = self.api.at_block_hash_and_number(H256(head.hash), u64::from(head.number));
        self.ask(async { at.await.map_err(|error| unclear(&error)) }).await
    }

    /// Awaits an answer for a while; a failure makes the node doubtful.
    pub(crate) async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let answer = timed(answer).await;
        if matches!(answer, Err(LinkError::Unreachable(_))) {
            self.doubtful.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn check_chain(&self) -> Result<(), LinkError> {
        let found =
            self.ask(async { self.rpc.genesis_hash().await.map_err(|error| unclear(&error)) }).await?;
        if found != self.genesis {
            let (expected, found) = (format!("{:?}", self.genesis), format!("{found:?}"));
            return Err(LinkError::OtherChain { expected, found });
        }
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.doubtful.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Link for Node {
    async fn head(&self) -> Result<Head, LinkError> {
        if self.doubtful.load(Ordering::Relaxed) {
            self.check_chain().await?;
        }
        let hash = self
            .ask(async { self.rpc.chain_get_finalized_head().await.map_err(|error| unclear(&error)) })
            .await?;
        let header = self
            .ask(async { self.rpc.chain_get_header(Some(hash)).await.map_err(|error| unclear(&error)) })
            .await?
            .ok_or_else(|| LinkError::Nonsense("it does not know its own last block".into()))?;
        let number = u32::try_from(header.number())
            .map_err(|_| LinkError::Nonsense(format!("a block of number {}", header.number())))?;
        Ok(Head { number, hash: hash.0 })
    }

    async fn hash_of(&self, number: u32) -> Result<Option<[u8; 32]>, LinkError> {
        let number = Some(NumberOrHex::Number(u64::from(number)));
        let hash = async { self.rpc.chain_get_block_hash(number).await.map_err(|error| unclear(&error)) };
        Ok(self.ask(hash).await?.map(|hash| hash.0))
    }

    async fn body(&self, number: u32) -> Result<Option<Arc<Body>>, LinkError> {
        let Some(hash) = self.hash_of(number).await? else { return Ok(None) };
        let known = self.bodies.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        if let Some(body) = known.filter(|body| body.hash == hash) {
            return Ok(Some(body));
        }
        let block =
            async { self.rpc.chain_get_block(Some(H256(hash))).await.map_err(|error| unclear(&error)) };
        let Some(block) = self.ask(block).await? else { return Ok(None) };
        let found = block.block.header.number();
        if found != u64::from(number) {
            return Err(LinkError::Nonsense(format!("block {found} where {number} was asked for")));
        }
        if block.block.extrinsics.len() > MAX_TRANSACTIONS {
            return Err(LinkError::Nonsense("a block with too many transactions".into()));
        }
        let transactions = block.block.extrinsics.iter().map(|bytes| blake2_256(&[&bytes.0])).collect();
        let body = Arc::new(Body { hash, transactions });
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.insert(number, Arc::clone(&body));
        while bodies.len() > MAX_BODIES {
            bodies.pop_first();
        }
        Ok(Some(body))
    }

    async fn effect(&self, block: [u8; 32], index: usize, call: &Call) -> Result<Effect, LinkError> {
        let at = self.api.at_block(H256(block));
        let at = match self.ask(async { at.await.map_err(|error| unclear(&error)) }).await {
            Err(LinkError::Nonsense(what)) if is_gone(&what) => return Ok(gone()),
            other => other?,
        };
        let events = async { at.events().fetch().await.map_err(|error| unclear(&error)) };
        let events = match self.ask(events).await {
            Err(LinkError::Nonsense(what)) if is_gone(&what) => return Ok(gone()),
            other => other?,
        };
        let mut told = Told::default();
        for event in events.iter() {
            let event = event.map_err(|error| unclear(&error))?;
            if !matches!(event.phase(), Phase::ApplyExtrinsic(it) if usize::try_from(it) == Ok(index)) {
                continue;
            }
            if (event.pallet_name(), event.event_name()) == ("System", "ExtrinsicFailed") {
                let why = subxt::error::DispatchError::decode_from(event.field_bytes(), at.metadata());
                return Ok(Effect::Failed(
                    why.map_or_else(|error| short(&error.to_string()), |why| reason(&why)),
                ));
            }
            told.hear(&event, call)?;
        }
        Ok(Effect::Done { paid: told.paid, notes: told.notes })
    }

    async fn nonce_at(&self, head: Head) -> Result<u64, LinkError> {
        let at = self.at(head).await?;
        let account = AccountId32(self.key.account());
        self.ask(async { at.tx().account_nonce(&account).await.map_err(|error| unclear(&error)) }).await
    }

    async fn next_nonce(&self) -> Result<u64, LinkError> {
        let account = AccountId32(self.key.account());
        let next = self.rpc.system_account_next_index(&account);
        self.ask(async { next.await.map_err(|error| unclear(&error)) }).await
    }

    async fn make(&self, call: &Call, nonce: u64, birth: Head) -> Result<Attempt, LinkError> {
        let at = self.at(birth).await?;
        let bytes = self.bytes(&at, call, nonce, birth).map_err(|error| match error {
            ExtrinsicError::IncompatibleCodegen
            | ExtrinsicError::PalletNameNotFound(_)
            | ExtrinsicError::CallNameNotFound { .. } => LinkError::OtherRuntime(call.word().into()),
            other => unclear(&other),
        })?;
        Ok(Attempt {
            nonce,
            birth: birth.number,
            birth_hash: birth.hash,
            period: if call.is_signed() { PERIOD } else { 0 },
            hash: blake2_256(&[&bytes]),
            bytes,
        })
    }

    async fn submit(&self, bytes: &[u8]) -> Result<(), SubmitError> {
        match tokio::time::timeout(ANSWER, self.rpc.author_submit_extrinsic(bytes)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RpcError::User(refusal))) => {
                let data = refusal.data.as_ref().map(|data| data.get()).unwrap_or_default();
                Err(refused(refusal.code, &short(&format!("{} {data}", refusal.message))))
            }
            Ok(Err(error)) => {
                self.doubtful.store(true, Ordering::Relaxed);
                Err(unclear(&error).into())
            }
            Err(_) => {
                self.doubtful.store(true, Ordering::Relaxed);
                Err(LinkError::Unreachable("no answer in time".into()).into())
            }
        }
    }

    async fn is_done(&self, call: &Call, head: Head) -> Result<bool, LinkError> {
        let at = self.at(head).await?;
        match call {
            Call::Redeem(vouchers) => {
                for signed in vouchers {
                    let lane = self.lane(&at, &signed.voucher).await?;
                    if lane.redeemed < signed.voucher.cumulative {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Call::Register(signed) => {
                let provider = self.provider(&at, signed.registration.account).await?;
                Ok(provider.sequence.is_some_and(|sequence| sequence >= signed.registration.sequence))
            }
            Call::Claim(shown) => self.is_settled(&at, shown.batch, shown.proof.index).await,
            Call::RedeemOmitted(omission) => {
                let lane = self.lane(&at, &omission.voucher.voucher).await?;
                Ok(lane.redeemed >= omission.voucher.voucher.cumulative)
            }
            _ => Ok(false),
        }
    }
}

/// What the events of a transaction say.
#[derive(Debug, Default)]
struct Told {
    paid: Option<MicroCredits>,
    notes: Vec<String>,
}

impl Told {
    fn hear(&mut self, event: &Event<'_, SubstrateConfig>, call: &Call) -> Result<(), LinkError> {
        match (event.pallet_name(), event.event_name()) {
            ("Credits", "Redeemed") => {
                let it: runtime::credits::events::Redeemed = fields(event)?;
                self.pay(it.paid.saturating_sub(it.share));
                if it.owed > 0 {
                    self.notes.push(format!("{} credits of a lane stay owed", MicroCredits(it.owed)));
                }
            }
            ("Credits", "NotRedeemed") => {
                let it: runtime::credits::events::NotRedeemed = fields(event)?;
                self.notes.push(format!("voucher {}: {:?}", it.index, it.reason));
            }
            ("Credits", "Claimed") => {
                let it: runtime::credits::events::Claimed = fields(event)?;
                if !it.debit {
                    self.pay(it.amount.saturating_sub(it.share));
                }
                if it.due > 0 {
                    self.notes.push(format!("{} credits of the leaf stay due", MicroCredits(it.due)));
                }
            }
            ("Credits", "BatchSubmitted") => {
                let it: runtime::credits::events::BatchSubmitted = fields(event)?;
                self.notes.push(format!("batch {}", it.batch));
            }
            ("Referenda", "Submitted") if matches!(call, Call::Propose(_)) => {
                let it: runtime::referenda::events::Submitted = fields(event)?;
                self.notes.push(format!("referendum {}", it.index));
            }
            _ => {}
        }
        Ok(())
    }

    fn pay(&mut self, amount: u128) {
        let paid = self.paid.unwrap_or_default().0.saturating_add(amount);
        self.paid = Some(MicroCredits(paid));
    }
}

fn fields<E: DecodeAsFields>(event: &Event<'_, SubstrateConfig>) -> Result<E, LinkError> {
    event.decode_fields_unchecked_as().map_err(|error| unclear(&error))
}

async fn timed<T>(answer: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(LinkError::Unreachable("no answer in time".into())),
    }
}

/// Sorts a failure: a connection that broke, or an answer that makes no sense.
pub(crate) fn unclear(error: &(impl Display + ?Sized)) -> LinkError {
    let words = short(&error.to_string());
    let broken =
        ["connection", "disconnect", "reconnect", "timeout", "timed out", "dropped", "closed", "restart"];
    let lower = words.to_ascii_lowercase();
    if broken.iter().any(|word| lower.contains(word)) {
        LinkError::Unreachable(words)
    } else {
        LinkError::Nonsense(words)
    }
}

/// Whether a node says that it has forgotten the state of a block.
fn is_gone(words: &str) -> bool {
    ["discarded", "pruned", "UnknownBlock"].iter().any(|word| words.contains(word))
}

fn gone() -> Effect {
    let notes = vec!["it is in a final block; what came of it, this node no longer knows".to_owned()];
    Effect::Done { paid: None, notes }
}

/// A refusal of the runtime, in its own words.
fn reason(error: &subxt::error::DispatchError) -> String {
    match error {
        subxt::error::DispatchError::Module(module) => {
            let docs = module.details().map(|details| details.variant.docs.join(" ")).unwrap_or_default();
            if docs.is_empty() {
                module.details_string()
            } else {
                format!("{docs} ({})", module.details_string())
            }
        }
        other => short(&other.to_string()),
    }
}

/// What a node's refusal of a transaction means. The codes are those of `author_submitExtrinsic` in polkadot-sdk's
/// sc-rpc-api; the words differ between nodes.
fn refused(code: i32, words: &str) -> SubmitError {
    let lower = words.to_ascii_lowercase();
    let says = |options: &[&str]| options.iter().any(|option| lower.contains(option));
    match code {
        1012 | 1013 => SubmitError::Known,
        // Another transaction with this number waits: which of the two is included shows in the blocks.
        1014 => SubmitError::Stale,
        1016 | 1018 => SubmitError::Link(LinkError::Unreachable(words.to_owned())),
        _ if says(&["already imported"]) => SubmitError::Known,
        _ if says(&["outdated", "stale"]) => SubmitError::Stale,
        _ if says(&["future"]) => SubmitError::Future,
        _ if says(&["ancient", "bad signature", "badproof", "bad proof"]) => SubmitError::Outdated,
        _ if says(&["pay some fees", "payment"]) => SubmitError::Invalid(
            "the account can pay the fee neither in credits nor in tokens: earn or be granted credits first"
                .into(),
        ),
        _ if says(&["custom"]) => SubmitError::Invalid(format!("the chain would not do it now ({words})")),
        _ => SubmitError::Invalid(words.to_owned()),
    }
}
