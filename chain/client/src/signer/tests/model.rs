//! A chain that exists only in memory, and a node of it that is slow, forgetful and lies about its pool.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
};

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{MicroCredits, blake2_256};

use crate::{
    call::Call,
    link::{Body, Effect, Head, Link, LinkError, SubmitError},
    outbox::Attempt,
};

pub(super) const PERIOD: u32 = 8;
pub(super) const FEE: u128 = 1;

#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct Transaction {
    nonce: u64,
    birth: u32,
    birth_hash: [u8; 32],
    call: Call,
}

#[derive(Clone, Debug)]
struct Block {
    hash: [u8; 32],
    transactions: Vec<([u8; 32], Effect)>,
    /// The account's nonce after it.
    nonce: u64,
    /// The highest nonce of each lane after it.
    lanes: BTreeMap<u32, (u64, u128)>,
}

/// What the node does wrong, in parts of 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) lost_request: u32,
    pub(super) lost_answer: u32,
    /// Forgets a transaction that it took.
    pub(super) evicted: u32,
    /// Answers of an older state.
    pub(super) lagging: u32,
    pub(super) nonsense: u32,
}

#[derive(Debug)]
pub(super) struct Model {
    seed: u64,
    pub(super) faults: Faults,
    blocks: Vec<Block>,
    pool: BTreeMap<[u8; 32], (Option<u64>, Transaction)>,
    pub(super) nonce: u64,
    /// Free credits of the account.
    pub(super) free: u128,
    pub(super) escrow: u128,
    pub(super) earned: u128,
    lanes: BTreeMap<u32, (u64, u128)>,
    /// Amounts deposited, in order.
    pub(super) deposits: Vec<u128>,
    pub(super) submitted: u32,
    fork: u8,
}

#[derive(Clone, Debug)]
pub(super) struct Chain(Arc<Mutex<Model>>);

impl Chain {
    pub(super) fn new(seed: u64) -> Self {
        let genesis = Block { hash: [9; 32], transactions: Vec::new(), nonce: 0, lanes: BTreeMap::new() };
        let model = Model {
            seed,
            faults: Faults::default(),
            blocks: vec![genesis],
            pool: BTreeMap::new(),
            nonce: 0,
            free: 1_000_000,
            escrow: 0,
            earned: 0,
            lanes: BTreeMap::new(),
            deposits: Vec::new(),
            submitted: 0,
            fork: 0,
        };
        Self(Arc::new(Mutex::new(model)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }
}

impl Model {
    pub(super) fn random(&mut self, below: u32) -> u32 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.seed >> 33).unwrap() % below
    }

    fn happens(&mut self, parts: u32) -> bool {
        self.random(1_000) < parts
    }

    pub(super) fn head(&self) -> Head {
        Head { number: u32::try_from(self.blocks.len()).unwrap() - 1, hash: self.blocks.last().unwrap().hash }
    }

    /// Begins anew from the first block, as a development chain does.
    pub(super) fn restart(&mut self) {
        self.fork += 1;
        self.blocks.truncate(1);
        (self.nonce, self.free, self.escrow) = (0, 1_000_000, 0);
        self.pool.clear();
        self.deposits.clear();
    }

    /// Another machine with the same key does something.
    pub(super) fn other_signer(&mut self) {
        self.nonce += 1;
    }

    /// Makes a block of what is valid.
    pub(super) fn make_block(&mut self) {
        let number = self.head().number + 1;
        let mut transactions = Vec::new();
        while let Some((hash, transaction)) = self.next_valid(number) {
            self.pool.remove(&hash);
            transactions.push((hash, self.execute(&transaction)));
        }
        self.pool.retain(|_, (nonce, it)| {
            nonce.is_none() || (nonce.unwrap() >= self.nonce && number < it.birth + PERIOD)
        });
        let hash = blake2_256(&[b"block", &number.to_le_bytes(), &[self.fork]]);
        let (nonce, lanes) = (self.nonce, self.lanes.clone());
        self.blocks.push(Block { hash, transactions, nonce, lanes });
    }

    fn next_valid(&self, number: u32) -> Option<([u8; 32], Transaction)> {
        let valid = self.pool.iter().find(|(_, (_, it))| self.validity(it, number).is_ok());
        valid.map(|(hash, (_, it))| (*hash, it.clone()))
    }

    fn validity(&self, it: &Transaction, number: u32) -> Result<(), SubmitError> {
        if let Call::Redeem(vouchers) = &it.call {
            let pays = vouchers.iter().any(|signed| {
                let of = self.lanes.get(&signed.voucher.lane).copied().unwrap_or_default();
                signed.voucher.nonce > of.0
            });
            return if pays { Ok(()) } else { Err(SubmitError::Stale) };
        }
        let canonical = self.blocks.get(it.birth as usize).is_some_and(|block| block.hash == it.birth_hash);
        if !canonical || number >= it.birth + PERIOD || number <= it.birth {
            return Err(SubmitError::Outdated);
        }
        if it.nonce < self.nonce {
            return Err(SubmitError::Stale);
        }
        if it.nonce > self.nonce {
            return Err(SubmitError::Future);
        }
        if self.free < FEE { Err(SubmitError::Invalid("cannot pay the fee".into())) } else { Ok(()) }
    }

    fn execute(&mut self, it: &Transaction) -> Effect {
        match &it.call {
            Call::Redeem(vouchers) => {
                let mut paid = 0;
                for signed in vouchers {
                    let lane = self.lanes.entry(signed.voucher.lane).or_default();
                    if signed.voucher.nonce > lane.0 {
                        paid += signed.voucher.cumulative.0 - lane.1;
                        *lane = (signed.voucher.nonce, signed.voucher.cumulative.0);
                    }
                }
                self.earned += paid;
                Effect::Done { paid: Some(MicroCredits(paid)), notes: Vec::new() }
            }
            Call::Deposit(amount) => {
                self.nonce += 1;
                self.free -= FEE;
                if self.free < amount.0 {
                    return Effect::Failed("not enough credits".into());
                }
                self.free -= amount.0;
                self.escrow += amount.0;
                self.deposits.push(amount.0);
                Effect::Done { paid: None, notes: Vec::new() }
            }
            other => panic!("the model does not know {other}"),
        }
    }
}

impl Chain {
    /// Waits a little and sees whether the question arrives.
    async fn ask<T>(&self, answer: impl FnOnce(&mut Model, Head) -> T) -> Result<T, LinkError> {
        let pauses = self.lock().random(3);
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        let answer = {
            let mut model = self.lock();
            let faults = model.faults;
            if model.happens(faults.lost_request) {
                return Err(LinkError::Unreachable("lost".into()));
            }
            let mut seen = model.head();
            if model.happens(faults.lagging) {
                seen.number = seen.number.saturating_sub(model.random(4));
                seen.hash = model.blocks[seen.number as usize].hash;
            }
            let answer = answer(&mut model, seen);
            if model.happens(faults.lost_answer) {
                return Err(LinkError::Unreachable("lost on the way back".into()));
            }
            if model.happens(faults.nonsense) {
                return Err(LinkError::Nonsense("{]".into()));
            }
            answer
        };
        tokio::task::yield_now().await;
        Ok(answer)
    }
}

impl Link for Chain {
    async fn head(&self) -> Result<Head, LinkError> {
        self.ask(|_, head| head).await
    }

    async fn hash_of(&self, number: u32) -> Result<Option<[u8; 32]>, LinkError> {
        self.ask(|model, _| model.blocks.get(number as usize).map(|block| block.hash)).await
    }

    async fn body(&self, number: u32) -> Result<Option<Arc<Body>>, LinkError> {
        self.ask(|model, head| {
            let block = model.blocks.get(number as usize).filter(|_| number <= head.number)?;
            let transactions = block.transactions.iter().map(|(hash, _)| *hash).collect();
            Some(Arc::new(Body { hash: block.hash, transactions }))
        })
        .await
    }

    async fn effect(&self, block: [u8; 32], index: usize, _: &Call) -> Result<Effect, LinkError> {
        self.ask(|model, _| {
            let block = model.blocks.iter().find(|it| it.hash == block).unwrap();
            block.transactions[index].1.clone()
        })
        .await
    }

    async fn nonce_at(&self, head: Head) -> Result<u64, LinkError> {
        self.ask(|model, _| model.blocks[head.number as usize].nonce).await
    }

    async fn next_nonce(&self) -> Result<u64, LinkError> {
        self.ask(|model, head| model.blocks[head.number as usize].nonce).await
    }

    async fn make(&self, call: &Call, nonce: u64, birth: Head) -> Result<Attempt, LinkError> {
        let signed = call.is_signed();
        let transaction =
            Transaction { nonce, birth: birth.number, birth_hash: birth.hash, call: call.clone() };
        let bytes = transaction.encode();
        Ok(Attempt {
            nonce,
            birth: birth.number,
            birth_hash: birth.hash,
            period: if signed { PERIOD } else { 0 },
            hash: blake2_256(&[&bytes]),
            bytes,
        })
    }

    fn submit(&self, bytes: &[u8]) -> impl Future<Output = Result<(), SubmitError>> + Send {
        let transaction = Transaction::decode(&mut &bytes[..]).unwrap();
        let hash = blake2_256(&[bytes]);
        async move {
            let taken = self.ask(|model, _| {
                model.submitted += 1;
                if model.pool.contains_key(&hash) {
                    return Err(SubmitError::Known);
                }
                let number = model.head().number + 1;
                match model.validity(&transaction, number) {
                    // Real pools keep those for later.
                    Ok(()) | Err(SubmitError::Future) => {}
                    refused => return refused,
                }
                let evicted = model.faults.evicted;
                if !model.happens(evicted) {
                    let nonce = transaction.call.is_signed().then_some(transaction.nonce);
                    model.pool.insert(hash, (nonce, transaction));
                }
                Ok(())
            });
            taken.await?
        }
    }

    async fn is_done(&self, call: &Call, head: Head) -> Result<bool, LinkError> {
        let Call::Redeem(vouchers) = call else { return Ok(false) };
        self.ask(|model, _| {
            let lanes = &model.blocks[head.number as usize].lanes;
            vouchers
                .iter()
                .all(|it| lanes.get(&it.voucher.lane).is_some_and(|(nonce, _)| *nonce >= it.voucher.nonce))
        })
        .await
    }
}
