//! What is stored, what is asked, and why something is refused.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{BoundedVec, traits::ConstU32};
use potluck_primitives::{Account, Leaf, MerkleProof, Pool, SignatureBytes, SumNode, SumProof, Voucher};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};
use sp_runtime::{AccountId32, Permill};

/// Most vouchers of one redemption.
pub const MAX_REDEEM: u32 = 32;
/// Most vouchers that a leaf of a batch may count: more could not be shown in one answer.
pub const MAX_LISTED: u32 = 64;
/// Most leaves of a batch.
pub const MAX_LEAVES: u32 = 1 << 20;
/// Leaves whose settlement one stored word of bits remembers.
pub const CHUNK: u32 = 256;
/// So many open challenges of a batch double the bond of the next.
pub const CHALLENGES_TO_DOUBLE: u32 = 8;
/// Redemptions of one payer's vouchers that can wait in a node's queue at once.
pub const PAYER_SLOTS: u8 = 64;
/// Most entries that one call takes out of each of four maps. The call is weighed for all of them three times over, and
/// must fit into a block with their proofs.
pub const CLEAR_LIMIT: u32 = 128;
/// One credit, in micro-credits.
pub const CREDIT: u128 = 1_000_000;

/// Names a batch; counted from 0.
pub type BatchId = u32;
/// Epoch 0 begins with block 0.
pub type Epoch = u32;

/// What genesis and governance choose. Times are in blocks, amounts in micro-credits.
#[derive(
    Clone,
    PartialEq,
    Eq,
    Debug,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    /// Between asking for escrow back and getting it.
    pub thaw_delay: u32,
    /// How long an epoch is. Fixed in genesis: the lanes of vouchers are numbered by it.
    pub epoch_length: u32,
    /// In which leaves of a batch can be challenged.
    pub dispute_window: u32,
    /// In which a settler answers a challenge, and in which others may use what the answer shows.
    pub response_window: u32,
    /// In which the leaves of a final batch can be claimed before it may be closed.
    pub claim_window: u32,
    /// What a call costs that is paid in credits.
    pub call_fee: u128,
    /// What a redemption must at least pay for each of its vouchers, or a claim in all, to be free of any fee.
    pub min_redeem: u128,
    /// What a settler has at stake in each batch, whatever its size.
    pub settler_bond: u128,
    /// What a settler has at stake beside it: this part of what the batch says it moves.
    pub bond_share: Permill,
    /// What the first open challenge of a leaf has at stake; it doubles with every eight open ones.
    pub challenger_bond: u128,
    /// The part of what a payee is paid that goes to the treasury, rounded down over the whole of a lane or leaf.
    pub protocol_share: Permill,
}

impl Parameters {
    /// For a chain that serves people, with blocks of six seconds.
    pub const fn real() -> Self {
        Self {
            thaw_delay: 14_400,
            epoch_length: 600,
            dispute_window: 600,
            response_window: 300,
            claim_window: 432_000,
            call_fee: CREDIT / 1_000,
            min_redeem: CREDIT / 100,
            settler_bond: 1_000 * CREDIT,
            bond_share: Permill::from_percent(1),
            challenger_bond: 5 * CREDIT,
            protocol_share: Permill::from_percent(2),
        }
    }

    /// For a chain on one desk: a dispute takes five blocks.
    pub const fn development() -> Self {
        Self {
            thaw_delay: 31,
            epoch_length: 10,
            dispute_window: 5,
            response_window: 3,
            claim_window: 100,
            ..Self::real()
        }
    }

    /// Whether a pallet can keep its promises under these: nothing is free of cost, and escrow that is asked back
    /// outlasts the longest way of a voucher through a batch.
    pub fn sound(&self) -> bool {
        let windows = [self.epoch_length, self.dispute_window, self.response_window, self.claim_window];
        let amounts = [self.call_fee, self.min_redeem, self.settler_bond, self.challenger_bond];
        // An epoch to spend, one to submit in, the window, and an answer and what it gives rise to.
        let longest = self
            .epoch_length
            .checked_mul(2)
            .and_then(|blocks| blocks.checked_add(self.dispute_window))
            .and_then(|blocks| blocks.checked_add(self.response_window.checked_mul(2)?));
        !windows.contains(&0)
            && !amounts.contains(&0)
            && self.protocol_share <= Permill::from_percent(50)
            && longest.is_some_and(|longest| self.thaw_delay >= longest)
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self::real()
    }
}

/// Names a lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct LaneKey {
    /// Zeros for the public pool, whose lanes are redeemed one by one; else the settler whose batches count it.
    pub pool: Pool,
    /// Who pays.
    pub payer: Account,
    /// Who is paid.
    pub payee: Account,
    /// Any number in the public pool; with a settler, the epoch.
    pub lane: u32,
}

impl From<&Voucher> for LaneKey {
    fn from(voucher: &Voucher) -> Self {
        Self { pool: voucher.pool, payer: voucher.payer, payee: voucher.payee, lane: voucher.lane }
    }
}

/// What a lane has come to. Amounts are in micro-credits since its beginning.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Lane {
    /// The nonce of the voucher that set `cumulative`.
    pub nonce: u64,
    /// The most that a voucher was shown for in time.
    pub cumulative: u128,
    /// What of it has been paid.
    pub redeemed: u128,
}

/// Escrow that its payer asked back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Thaw {
    /// How much, in micro-credits. Until it is withdrawn, vouchers are paid from it.
    pub amount: u128,
    /// The first block in which it can be withdrawn.
    pub at: u32,
}

/// How much of a payer's escrow the batches of one settler may take.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Allowance {
    /// Of each batch, in micro-credits.
    pub limit: u128,
    /// The same for epochs before `from`: what was promised is not taken back.
    pub before: u128,
    /// The first epoch that `limit` is for.
    pub from: Epoch,
    /// The block in which it was last lowered.
    pub lowered_at: Option<u32>,
}

impl Allowance {
    /// What a batch of this epoch may take.
    pub fn of(&self, epoch: Epoch) -> u128 {
        if epoch < self.from { self.before } else { self.limit }
    }
}

/// What a payee should know of a payer before it works.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Escrow {
    /// All of it, in micro-credits.
    pub held: u128,
    /// What the payer has asked back of it.
    pub thawing: u128,
    /// The block from which the payer can take that.
    pub thawed_at: Option<u32>,
}

/// Where a batch stands, as far as calls have changed it: it becomes final by time alone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Standing {
    /// It can be disputed, and is final once that time is over.
    #[codec(index = 0)]
    Submitted,
    /// It was shown to be wrong: its vouchers are redeemed one by one.
    #[codec(index = 1)]
    Void,
    /// It was final, and is settled for good.
    #[codec(index = 2)]
    Closed,
}

/// What a settler says an epoch of its vouchers nets to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Batch {
    /// Who submitted it, and is bonded for it.
    pub settler: AccountId32,
    /// The epoch whose vouchers it counts.
    pub epoch: Epoch,
    /// Over all leaves; its sum is zero.
    pub root: SumNode,
    /// How many leaves there are.
    pub leaf_count: u32,
    /// The most that it may take from payers, in micro-credits.
    pub gross: u128,
    /// What is still held of the settler for it, in micro-credits.
    pub bond: u128,
    /// The block it came in.
    pub submitted: u32,
    /// The last block in which a leaf can be challenged.
    pub challenges_until: u32,
    /// The last block in which a fault can be proven, while nothing waits for an answer.
    pub proofs_until: u32,
    /// The first block in which it may be closed with leaves unsettled.
    pub closable_from: u32,
    /// Challenges that wait for an answer, or, of a void batch, for their bond.
    pub open: u32,
    /// What payers were debited, in micro-credits.
    pub debited: u128,
    /// What of that has not been paid out yet.
    pub pot: u128,
    /// Leaves that are wholly settled.
    pub settled: u32,
    /// Where it stands.
    pub standing: Standing,
}

impl Batch {
    /// Whether it can no longer be disputed.
    pub fn is_final(&self, now: u32) -> bool {
        match self.standing {
            Standing::Submitted => self.open == 0 && now > self.proofs_until,
            Standing::Void => false,
            Standing::Closed => true,
        }
    }

    /// Whether faults of it can be proven.
    pub fn disputable(&self, now: u32) -> bool {
        self.standing == Standing::Submitted && !self.is_final(now)
    }
}

/// A challenge of a leaf: "show the vouchers".
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub enum Challenge {
    /// It waits for an answer.
    #[codec(index = 0)]
    Open {
        /// Who asks.
        challenger: AccountId32,
        /// What is held of them for it, in micro-credits.
        bond: u128,
        /// The last block in which it can be answered.
        answer_by: u32,
    },
    /// It was answered: nobody can ask for this leaf again.
    #[codec(index = 1)]
    Answered,
}

/// What is wrong with a batch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Fault {
    /// The vouchers of a leaf were not shown in time.
    #[codec(index = 0)]
    Unanswered,
    /// A stated sum is not the sum of what is beneath it.
    #[codec(index = 1)]
    BadSum,
    /// Two leaves of one account, or leaves out of order.
    #[codec(index = 2)]
    Duplicate,
    /// A leaf counts less of a lane than the settler knew of.
    #[codec(index = 3)]
    Stale,
}

/// What a batch says of the lanes of one account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub enum Evidence {
    /// Its leaf, and all the vouchers that the leaf counts, in their order.
    #[codec(index = 0)]
    Listed {
        /// The leaf.
        leaf: Leaf,
        /// That it is in the batch.
        proof: SumProof,
        /// What its `vouchers_root` is over.
        listed: BoundedVec<Voucher, ConstU32<MAX_LISTED>>,
    },
    /// It has none: the leaves before and after where it would be.
    #[codec(index = 1)]
    Absent {
        /// The last leaf of a smaller account; none where the account would come first.
        before: Option<(Leaf, SumProof)>,
        /// The first leaf of a greater account; none where the account would come last.
        after: Option<(Leaf, SumProof)>,
    },
}

/// How it is known that a settler had a voucher.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub enum Knowledge {
    /// The settler's signature of [`acknowledgement`](crate::acknowledgement).
    #[codec(index = 0)]
    Acknowledged(SignatureBytes),
    /// Another leaf of the batch counts it.
    #[codec(index = 1)]
    Counted {
        /// That leaf.
        leaf: Leaf,
        /// That it is in the batch.
        proof: SumProof,
        /// That the voucher is under the leaf's `vouchers_root`.
        membership: MerkleProof,
    },
}

/// Why a voucher was not redeemed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Refusal {
    /// Its pool is neither the public one nor a settler.
    #[codec(index = 0)]
    UnknownPool,
    /// The settler may still submit a batch for its epoch.
    #[codec(index = 1)]
    AwaitsBatch,
    /// A batch for its epoch is open or final.
    #[codec(index = 2)]
    InBatch,
    /// Payer and payee are one.
    #[codec(index = 3)]
    OneParty,
    /// It came too late.
    #[codec(index = 4)]
    Expired,
    /// All that its lane is worth has been paid.
    #[codec(index = 5)]
    NothingDue,
    /// The payer has no escrow.
    #[codec(index = 6)]
    EscrowEmpty,
    /// Its payer did not sign it for this chain.
    #[codec(index = 7)]
    Forged,
    /// The ledger could not move the amount.
    #[codec(index = 8)]
    Unpayable,
}

/// What an item of a redemption, or a claim, has moved, in micro-credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paid {
    /// What left the payer or the pot.
    pub(crate) amount: u128,
    /// What of it went to the treasury.
    pub(crate) share: u128,
}
