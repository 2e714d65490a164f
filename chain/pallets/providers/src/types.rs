//! What the pallet keeps and how long its windows are.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{BoundedVec, traits::ConstU32};
use potluck_primitives::{Account, MAX_SIGNERS, MicroCredits, SignedRegistration, Verdict};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};
use sp_runtime::Permill;

/// A job, as its receipt names it.
pub type Job = [u8; 16];
/// Most parts of a stake that are on their way out at once, per account.
pub const MAX_UNBONDING: u32 = 16;
/// Most verifiers.
pub const MAX_VERIFIERS: u32 = 256;
/// Most sets of verifiers that are remembered.
pub const MAX_SETS: u32 = 64;
/// Most verdicts that wait for an account at once.
pub const MAX_CASES: u32 = 64;
/// One credit, in micro-credits.
const CREDIT: u128 = MicroCredits::CREDIT.0;
/// Blocks in an hour, for the values that a real chain begins with.
const HOURS: u32 = 600;

/// Verifiers with their stakes in micro-credits, by rising account.
pub type VerifierSet = BoundedVec<(Account, MicroCredits), ConstU32<MAX_VERIFIERS>>;

/// How long windows last and what things cost. Times are in blocks, amounts in micro-credits.
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
    /// Leading zero bits that a registration costs.
    pub work_bits: u32,
    /// How old a registration may be when it arrives.
    pub registration_age: u32,
    /// After which a registration that was not renewed may be removed by anyone.
    pub registration_life: u32,
    /// In which a stake that is on its way out can still be slashed.
    pub unbonding_period: u32,
    /// The least stake of a verifier.
    pub verifier_stake: u128,
    /// How often the set of verifiers changes.
    pub era_length: u32,
    /// How old the block may be that draws a verdict's verifiers.
    pub verdict_age: u32,
    /// How many verifiers are drawn for a job.
    pub sample: u32,
    /// How many of them have to sign.
    pub quorum: u32,
    /// In which a verdict can be appealed.
    pub appeal_window: u32,
    /// In which governance rules on an appeal; a verdict stands when it does not.
    pub ruling_window: u32,
    /// What an appeal has at stake.
    pub appeal_bond: u128,
    /// The part of a slash that those who signed share; the treasury has the rest.
    pub signer_share: Permill,
}

impl Parameters {
    /// What a chain begins with that serves people.
    pub const fn real() -> Self {
        Self {
            work_bits: 20,
            registration_age: HOURS / 2,
            registration_life: 24 * 30 * HOURS,
            unbonding_period: 24 * 7 * HOURS,
            verifier_stake: 100 * CREDIT,
            era_length: HOURS / 3,
            verdict_age: 4 * HOURS,
            sample: 7,
            quorum: 5,
            appeal_window: 24 * 2 * HOURS,
            ruling_window: 24 * 14 * HOURS,
            appeal_bond: 10 * CREDIT,
            signer_share: Permill::from_percent(20),
        }
    }

    /// What a chain on one desk begins with: an appeal takes five blocks.
    pub const fn development() -> Self {
        Self {
            work_bits: 8,
            registration_life: 1_000,
            unbonding_period: 60,
            era_length: 2,
            verdict_age: 60,
            sample: 3,
            quorum: 2,
            appeal_window: 5,
            ruling_window: 40,
            ..Self::real()
        }
    }

    /// Whether they do not contradict each other.
    pub fn sound(&self) -> bool {
        let sets = self.verdict_age.checked_div(self.era_length);
        self.work_bits <= 64
            && self.registration_age <= self.registration_life
            // A stake must not leave before its holder can be judged.
            && self.verdict_age <= self.unbonding_period
            && 0 < self.verifier_stake
            && 0 < self.quorum
            && self.quorum <= self.sample
            && self.sample <= MAX_SIGNERS
            // The sets that old verdicts need must still be there, and one that just begins.
            && sets.is_some_and(|sets| sets < MAX_SETS.saturating_sub(2))
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self::real()
    }
}

/// A provider that offers itself.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, MaxEncodedLen, TypeInfo)]
pub struct Entry {
    /// What it signed.
    pub signed: SignedRegistration,
    /// The block it arrived in.
    pub since: u32,
}

/// A part of a stake that is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, MaxEncodedLen, TypeInfo)]
pub struct Unbonding {
    /// Micro-credits.
    pub amount: u128,
    /// The first block at which it can be withdrawn.
    pub at: u32,
}

/// What an account has at stake.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode, MaxEncodedLen, TypeInfo)]
pub struct Stake {
    /// Micro-credits that count as stake.
    pub active: u128,
    /// What is on its way out, the earliest first. It can be slashed as well.
    pub unbonding: BoundedVec<Unbonding, ConstU32<MAX_UNBONDING>>,
}

impl Stake {
    /// All that can be slashed; `None` where it cannot be counted.
    pub fn total(&self) -> Option<u128> {
        self.unbonding.iter().try_fold(self.active, |sum, it| sum.checked_add(it.amount))
    }

    /// Takes an amount away: of the active stake first, then of what leaves last. Returns what could be taken.
    pub fn take(&mut self, amount: u128) -> u128 {
        let mut left = amount;
        let mut cut = |part: &mut u128| {
            let gone = left.min(*part);
            *part = part.saturating_sub(gone);
            left = left.saturating_sub(gone);
        };
        cut(&mut self.active);
        self.unbonding.iter_mut().rev().for_each(|it| cut(&mut it.amount));
        self.unbonding.retain(|it| it.amount > 0);
        amount.saturating_sub(left)
    }
}

/// How far a verdict is.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub enum Stage {
    /// The provider may appeal until this block, with it.
    #[codec(index = 0)]
    Open {
        /// The last block for an appeal.
        until: u32,
    },
    /// The provider did. Governance may rule; from the block after this one on the verdict stands without.
    #[codec(index = 1)]
    Appealed {
        /// The last block in which the verdict cannot be executed.
        until: u32,
        /// What the appeal has at stake, in micro-credits.
        bond: u128,
    },
    /// Governance upheld it.
    #[codec(index = 2)]
    Upheld,
}

/// A verdict that waits.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, MaxEncodedLen, TypeInfo)]
pub struct Case {
    /// What was found.
    pub verdict: Verdict,
    /// Who signed it.
    pub signers: BoundedVec<Account, ConstU32<MAX_SIGNERS>>,
    /// How far it is.
    pub stage: Stage,
}

/// Whether a slashing policy was approved for the public pool at a block.
pub trait SlashingPolicies {
    /// Whether this one was in force then.
    fn in_force(policy: &potluck_primitives::PolicyHash, at: u32) -> bool;
}

/// How a call is paid in credits.
pub trait CallFee<AccountId> {
    /// Takes the fee of one call.
    ///
    /// # Errors
    /// The account has too few free credits.
    fn take(who: &AccountId) -> sp_runtime::DispatchResult;
}
