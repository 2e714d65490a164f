//! What a node asks of the chain, in words of its own.
//!
//! The outbox keeps these and not the runtime's bytes: after an upgrade of the runtime the same bytes could mean
//! something else, the same words cannot.

use std::fmt;

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{
    Account, BadSum, Block, Duplicate, MicroCredits, PolicyHash, PolicyKind, PoolClass, SignedRegistration,
    SignedVerdict, SignedVoucher, SumNode, blake2_256,
};
use serde::{Serialize, Serializer};

pub use evidence::{Disclosure, Evidence, Knowledge, MAX_LISTED, Omission, Shown, Stale};

mod evidence;

/// Keeps the name of a call from being taken for the hash of anything else.
const DOMAIN: &[u8] = b"potluck call 1\0";
/// Most vouchers of one [`Call::Redeem`].
pub const MAX_VOUCHERS: usize = 32;
/// Longest address of a component that a proposal names, in bytes.
pub const MAX_URI: usize = 256;

/// Names a call: two calls that ask the same are the same call while one of them is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CallId(pub [u8; 32]);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

impl Serialize for CallId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How strongly a vote counts: the tokens are locked for so many enactment periods, and count so often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Conviction {
    /// A tenth, without a lock.
    #[default]
    None,
    /// Once.
    Locked1x,
    /// Twice, two periods.
    Locked2x,
    /// Three times, four periods.
    Locked3x,
    /// Four times, eight periods.
    Locked4x,
    /// Five times, 16 periods.
    Locked5x,
    /// Six times, 32 periods.
    Locked6x,
}

/// A change of the approved policies, as the members vote on it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Proposal {
    /// Let a component decide.
    #[codec(index = 0)]
    Approve {
        /// What it decides.
        kind: PolicyKind,
        /// For which pools.
        class: PoolClass,
        /// The component.
        hash: PolicyHash,
        /// From which block on.
        activates_at: Block,
        /// Where the component is to be had, at most [`MAX_URI`] bytes.
        uri: Vec<u8>,
    },
    /// Let what decides no longer do so.
    #[codec(index = 1)]
    Revoke {
        /// What it decides.
        kind: PolicyKind,
        /// For which pools.
        class: PoolClass,
        /// The component.
        hash: PolicyHash,
    },
    /// Rule on a provider's appeal against a verdict.
    #[codec(index = 2)]
    Rule {
        /// Whose appeal.
        provider: Account,
        /// The job that the verdict is about.
        job: [u8; 16],
        /// Whether the verdict stands.
        upheld: bool,
    },
}

/// Something asked of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Call {
    /// Puts credits into the escrow that vouchers are paid from.
    #[codec(index = 0)]
    Deposit(MicroCredits),
    /// Begins to take credits out of the escrow.
    #[codec(index = 1)]
    StartWithdraw(MicroCredits),
    /// Keeps them in after all.
    #[codec(index = 2)]
    CancelWithdraw,
    /// Takes out what has thawed.
    #[codec(index = 3)]
    Withdraw,
    /// Has vouchers paid; their signatures authorise it, and it costs nothing.
    #[codec(index = 4)]
    Redeem(Vec<SignedVoucher>),
    /// Says that this machine serves; its proof of work pays for it.
    #[codec(index = 5)]
    Register(SignedRegistration),
    /// Says that it no longer does.
    #[codec(index = 6)]
    Deregister,
    /// Puts credits at stake.
    #[codec(index = 7)]
    Stake(MicroCredits),
    /// Begins to take credits back from the stake.
    #[codec(index = 8)]
    Unstake(MicroCredits),
    /// Takes back what is no longer at stake.
    #[codec(index = 9)]
    WithdrawUnstaked,
    /// Puts a change of the policies to the vote.
    #[codec(index = 10)]
    Propose(Proposal),
    /// Votes with tokens.
    #[codec(index = 11)]
    Vote {
        /// Which referendum.
        referendum: u32,
        /// For or against.
        aye: bool,
        /// How strongly.
        conviction: Conviction,
        /// How many of the native token's smallest units.
        tokens: u128,
    },
    /// Pays the deposit that a referendum needs before it is decided.
    #[codec(index = 12)]
    PlaceDeposit {
        /// Which referendum.
        referendum: u32,
    },
    /// Stands for the sample of machines that judge evidence.
    #[codec(index = 13)]
    JoinVerifiers,
    /// No longer does.
    #[codec(index = 14)]
    LeaveVerifiers,
    /// Lets each batch of a settler take so much of this account's escrow.
    #[codec(index = 15)]
    AllowSettler {
        /// Which settler.
        settler: Account,
        /// The most, of each batch.
        limit: MicroCredits,
    },
    /// Makes this account a settler: vouchers that name it as their pool are netted by it.
    #[codec(index = 16)]
    RegisterSettler,
    /// Submits what the last epoch's vouchers net to, under a bond.
    #[codec(index = 17)]
    SubmitBatch {
        /// The epoch.
        epoch: u32,
        /// Over all leaves; its sum is zero.
        root: SumNode,
        /// How many leaves there are.
        leaf_count: u32,
        /// The most that the batch takes from payers; the bond grows with it.
        gross: MicroCredits,
    },
    /// Asks a settler to show the vouchers of a leaf, under a bond.
    #[codec(index = 18)]
    ChallengeLeaf {
        /// Which batch.
        batch: u32,
        /// Which leaf.
        index: u32,
    },
    /// Shows the vouchers of a challenged leaf.
    #[codec(index = 19)]
    AnswerLeaf(Box<Disclosure>),
    /// Voids a batch whose settler did not answer a challenge in time.
    #[codec(index = 20)]
    ExpireChallenge {
        /// Which batch.
        batch: u32,
        /// Which leaf.
        index: u32,
    },
    /// Takes back the bond of a challenge that another proof made needless.
    #[codec(index = 21)]
    ReclaimChallenge {
        /// Which batch.
        batch: u32,
        /// Which leaf.
        index: u32,
    },
    /// Voids a batch by a node whose stated sum is not that of what is beneath it.
    #[codec(index = 22)]
    ProveBadSum {
        /// Which batch.
        batch: u32,
        /// What shows it.
        fault: Box<BadSum>,
    },
    /// Voids a batch by two leaves of one account, or two out of order.
    #[codec(index = 23)]
    ProveDuplicate {
        /// Which batch.
        batch: u32,
        /// What shows it.
        fault: Box<Duplicate>,
    },
    /// Voids a batch that counts less of a lane than a voucher that its settler had.
    #[codec(index = 24)]
    ProveStale(Box<Stale>),
    /// Settles a leaf of a final batch; costs nothing, and anybody can.
    #[codec(index = 25)]
    Claim(Box<Shown>),
    /// Has a voucher paid that a final batch left out; costs nothing, and anybody can.
    #[codec(index = 26)]
    RedeemOmitted(Box<Omission>),
    /// Gives a settler the bond of a final batch back.
    #[codec(index = 27)]
    ReleaseBond {
        /// Which batch.
        batch: u32,
    },
    /// Ends a final batch for good.
    #[codec(index = 28)]
    CloseBatch {
        /// Which batch.
        batch: u32,
    },
    /// Brings a verdict to the chain; the signatures in it are what counts.
    #[codec(index = 29)]
    SubmitVerdict(Box<SignedVerdict>),
    /// Appeals a verdict about this account, under a bond.
    #[codec(index = 30)]
    Appeal {
        /// The job that the verdict is about.
        job: [u8; 16],
    },
    /// Executes a verdict that stands.
    #[codec(index = 31)]
    ExecuteVerdict {
        /// Whom it is about.
        provider: Account,
        /// The job that it is about.
        job: [u8; 16],
    },
}

/// Why a call cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// None, or too many.
    #[error("a call redeems from 1 to {MAX_VOUCHERS} vouchers, not {0}")]
    Vouchers(usize),
    /// Nothing would move.
    #[error("the amount must be more than 0")]
    Nothing,
    /// Too long.
    #[error("the address of a component may have {MAX_URI} bytes, not {0}")]
    Uri(usize),
}

impl Call {
    /// What names it.
    pub fn id(&self) -> CallId {
        CallId(blake2_256(&[DOMAIN, &self.encode()]))
    }

    /// Whether the account signs it. What is not signed carries signatures of its own, can be sent by anybody, and does
    /// nothing the second time.
    pub fn is_signed(&self) -> bool {
        !matches!(self, Self::Redeem(_) | Self::Register(_) | Self::Claim(_) | Self::RedeemOmitted(_))
    }

    /// Checks what the chain would refuse anyway.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn check(&self) -> Result<(), CallError> {
        match self {
            Self::Redeem(vouchers) if vouchers.is_empty() || vouchers.len() > MAX_VOUCHERS => {
                Err(CallError::Vouchers(vouchers.len()))
            }
            Self::Deposit(amount)
            | Self::StartWithdraw(amount)
            | Self::Stake(amount)
            | Self::Unstake(amount)
                if amount.0 == 0 =>
            {
                Err(CallError::Nothing)
            }
            Self::Vote { tokens: 0, .. } => Err(CallError::Nothing),
            Self::Propose(Proposal::Approve { uri, .. }) if uri.len() > MAX_URI => {
                Err(CallError::Uri(uri.len()))
            }
            _ => Ok(()),
        }
    }

    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Deposit(_) => "deposit",
            Self::StartWithdraw(_) => "start_withdraw",
            Self::CancelWithdraw => "cancel_withdraw",
            Self::Withdraw => "withdraw",
            Self::Redeem(_) => "redeem",
            Self::Register(_) => "register",
            Self::Deregister => "deregister",
            Self::Stake(_) => "stake",
            Self::Unstake(_) => "unstake",
            Self::WithdrawUnstaked => "withdraw_unstaked",
            Self::Propose(_) => "propose",
            Self::Vote { .. } => "vote",
            Self::PlaceDeposit { .. } => "place_deposit",
            Self::JoinVerifiers => "join_verifiers",
            Self::LeaveVerifiers => "leave_verifiers",
            Self::AllowSettler { .. } => "allow_settler",
            Self::RegisterSettler => "register_settler",
            Self::SubmitBatch { .. } => "submit_batch",
            Self::ChallengeLeaf { .. } => "challenge_leaf",
            Self::AnswerLeaf(_) => "answer_leaf",
            Self::ExpireChallenge { .. } => "expire_challenge",
            Self::ReclaimChallenge { .. } => "reclaim_challenge",
            Self::ProveBadSum { .. } => "prove_bad_sum",
            Self::ProveDuplicate { .. } => "prove_duplicate",
            Self::ProveStale(_) => "prove_stale",
            Self::Claim(_) => "claim",
            Self::RedeemOmitted(_) => "redeem_omitted",
            Self::ReleaseBond { .. } => "release_bond",
            Self::CloseBatch { .. } => "close_batch",
            Self::SubmitVerdict(_) => "submit_verdict",
            Self::Appeal { .. } => "appeal",
            Self::ExecuteVerdict { .. } => "execute_verdict",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposit(amount) => write!(f, "deposit {amount} credits"),
            Self::StartWithdraw(amount) => write!(f, "begin to withdraw {amount} credits"),
            Self::CancelWithdraw => f.write_str("keep in escrow what was to be withdrawn"),
            Self::Withdraw => f.write_str("withdraw what has thawed"),
            Self::Redeem(vouchers) => write!(f, "redeem {} vouchers", vouchers.len()),
            Self::Register(_) => f.write_str("register as a provider"),
            Self::Deregister => f.write_str("deregister as a provider"),
            Self::Stake(amount) => write!(f, "stake {amount} credits"),
            Self::Unstake(amount) => write!(f, "begin to unstake {amount} credits"),
            Self::WithdrawUnstaked => f.write_str("take back what is no longer at stake"),
            Self::Propose(Proposal::Approve { .. }) => f.write_str("propose a policy"),
            Self::Propose(Proposal::Revoke { .. }) => f.write_str("propose to revoke a policy"),
            Self::Propose(Proposal::Rule { upheld, .. }) => {
                write!(f, "propose to {} a verdict", if *upheld { "uphold" } else { "overturn" })
            }
            Self::Vote { referendum, aye, .. } => {
                write!(f, "vote {} in referendum {referendum}", if *aye { "yes" } else { "no" })
            }
            Self::PlaceDeposit { referendum } => write!(f, "pay the deposit of referendum {referendum}"),
            Self::JoinVerifiers => f.write_str("join the verifiers"),
            Self::LeaveVerifiers => f.write_str("leave the verifiers"),
            Self::AllowSettler { limit, .. } => {
                write!(f, "let a settler's batches take {limit} credits each")
            }
            Self::RegisterSettler => f.write_str("register as a settler"),
            Self::SubmitBatch { epoch, leaf_count, .. } => {
                write!(f, "submit the batch of epoch {epoch} with {leaf_count} leaves")
            }
            Self::ChallengeLeaf { batch, index } => write!(f, "challenge leaf {index} of batch {batch}"),
            Self::AnswerLeaf(answer) => {
                write!(f, "show the vouchers of leaf {} of batch {}", answer.proof.index, answer.batch)
            }
            Self::ExpireChallenge { batch, index } => {
                write!(f, "void batch {batch} for its silence about leaf {index}")
            }
            Self::ReclaimChallenge { batch, index } => {
                write!(f, "take back the bond for leaf {index} of batch {batch}")
            }
            Self::ProveBadSum { batch, .. } => write!(f, "show that batch {batch} does not add up"),
            Self::ProveDuplicate { batch, .. } => write!(f, "show that batch {batch} is out of order"),
            Self::ProveStale(stale) => write!(f, "show that batch {} counts too little", stale.batch),
            Self::Claim(shown) => write!(f, "claim leaf {} of batch {}", shown.proof.index, shown.batch),
            Self::RedeemOmitted(of) => write!(f, "redeem a voucher that batch {} left out", of.batch),
            Self::ReleaseBond { batch } => write!(f, "take back the bond of batch {batch}"),
            Self::CloseBatch { batch } => write!(f, "close batch {batch}"),
            Self::SubmitVerdict(_) => f.write_str("submit a verdict"),
            Self::Appeal { .. } => f.write_str("appeal a verdict"),
            Self::ExecuteVerdict { .. } => f.write_str("execute a verdict"),
        }
    }
}

#[cfg(test)]
mod tests;
