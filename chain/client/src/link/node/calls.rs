//! Calls as transactions of the runtime that this program was built with.

use potluck_primitives::{BadSum, Duplicate, SignedVerdict, blake2_256};
use subxt::{
    SubstrateConfig,
    config::DefaultExtrinsicParamsBuilder,
    error::ExtrinsicError,
    transactions::Payload,
    utils::{AccountId32, H256, Static},
};

use super::{At, Node, PERIOD};
use crate::{
    call::{Call, Conviction, Disclosure, Proposal},
    key::Key,
    link::Head,
    runtime::{
        self,
        runtime_types::{self as types, bounded_collections::bounded_vec::BoundedVec},
    },
};

/// Longest call that a proposal holds in itself, in bytes; a longer one is noted on the chain beside it.
const MAX_INLINE: usize = 128;

impl Node {
    /// The bytes of a call's transaction.
    pub(super) fn bytes(
        &self,
        at: &At,
        call: &Call,
        nonce: u64,
        birth: Head,
    ) -> Result<Vec<u8>, ExtrinsicError> {
        let signed = Signed { at, key: &self.key, nonce, birth };
        let (credits, providers) = (runtime::tx().credits(), runtime::tx().providers());
        let account = AccountId32;
        let listed = |of: &Disclosure| BoundedVec(of.vouchers.iter().cloned().map(Static).collect());
        match call {
            Call::Deposit(amount) => signed.bytes(&credits.deposit(amount.0)),
            Call::StartWithdraw(amount) => signed.bytes(&credits.start_withdraw(amount.0)),
            Call::CancelWithdraw => signed.bytes(&credits.cancel_withdraw()),
            Call::Withdraw => signed.bytes(&credits.withdraw()),
            Call::Redeem(vouchers) => {
                let vouchers = BoundedVec(vouchers.iter().cloned().map(Static).collect());
                Ok(at.tx().create_unsigned(&credits.redeem(vouchers))?.into_encoded())
            }
            Call::Register(registration) => {
                Ok(at.tx().create_unsigned(&providers.register(Static(registration.clone())))?.into_encoded())
            }
            Call::Deregister => signed.bytes(&providers.deregister()),
            Call::Stake(amount) => signed.bytes(&providers.stake(amount.0)),
            Call::Unstake(amount) => signed.bytes(&providers.unstake(amount.0)),
            Call::WithdrawUnstaked => signed.bytes(&providers.withdraw_unstaked()),
            Call::JoinVerifiers => signed.bytes(&providers.register_verifier()),
            Call::LeaveVerifiers => signed.bytes(&providers.leave_verifiers()),
            Call::Propose(proposal) => propose(&signed, proposal),
            Call::Vote { referendum, aye, conviction, tokens } => {
                use types::pallet_conviction_voting::vote::{AccountVote, Vote};
                let vote = Vote(vote_byte(*aye, *conviction));
                let vote = AccountVote::Standard { vote, balance: *tokens };
                signed.bytes(&runtime::tx().conviction_voting().vote(*referendum, vote))
            }
            Call::PlaceDeposit { referendum } => {
                signed.bytes(&runtime::tx().referenda().place_decision_deposit(*referendum))
            }
            Call::AllowSettler { settler, limit } => {
                signed.bytes(&credits.allow_settler(account(*settler), limit.0))
            }
            Call::RegisterSettler => signed.bytes(&credits.register_settler()),
            Call::SubmitBatch { epoch, root, leaf_count, gross } => {
                signed.bytes(&credits.submit_batch(*epoch, Static(*root), *leaf_count, gross.0))
            }
            Call::ChallengeLeaf { batch, index } => signed.bytes(&credits.challenge_leaf(*batch, *index)),
            Call::AnswerLeaf(of) => signed.bytes(&credits.answer_leaf(
                of.batch,
                Static(of.leaf),
                Static(of.proof.clone()),
                listed(of),
            )),
            Call::ExpireChallenge { batch, index } => signed.bytes(&credits.expire_challenge(*batch, *index)),
            Call::ReclaimChallenge { batch, index } => {
                signed.bytes(&credits.reclaim_challenge(*batch, *index))
            }
            Call::ProveBadSum { batch, fault } => {
                signed.bytes(&credits.prove_bad_sum(*batch, Static(BadSum::clone(fault))))
            }
            Call::ProveDuplicate { batch, fault } => {
                signed.bytes(&credits.prove_duplicate(*batch, Static(Duplicate::clone(fault))))
            }
            Call::ProveStale(of) => signed.bytes(&credits.prove_stale(
                of.batch,
                Static(of.evidence.clone()),
                Static(of.voucher.clone()),
                Static(of.knowledge.clone()),
            )),
            Call::Claim(of) => {
                let claim = credits.claim(of.batch, Static(of.leaf), Static(of.proof.clone()));
                Ok(at.tx().create_unsigned(&claim)?.into_encoded())
            }
            Call::RedeemOmitted(of) => {
                let (evidence, voucher) = (Static(of.evidence.clone()), Static(of.voucher.clone()));
                let redeem = credits.redeem_omitted(of.batch, evidence, voucher);
                Ok(at.tx().create_unsigned(&redeem)?.into_encoded())
            }
            Call::ReleaseBond { batch } => signed.bytes(&credits.release_bond(*batch)),
            Call::CloseBatch { batch } => signed.bytes(&credits.close_batch(*batch)),
            Call::SubmitVerdict(verdict) => {
                signed.bytes(&providers.submit_verdict(Static(SignedVerdict::clone(verdict))))
            }
            Call::Appeal { job } => signed.bytes(&providers.appeal(*job)),
            Call::ExecuteVerdict { provider, job } => {
                signed.bytes(&providers.execute(account(*provider), *job))
            }
        }
    }
}

/// A vote as one byte: the highest bit is for or against, the rest the conviction.
fn vote_byte(aye: bool, conviction: Conviction) -> u8 {
    let strength = match conviction {
        Conviction::None => 0,
        Conviction::Locked1x => 1,
        Conviction::Locked2x => 2,
        Conviction::Locked3x => 3,
        Conviction::Locked4x => 4,
        Conviction::Locked5x => 5,
        Conviction::Locked6x => 6,
    };
    if aye { 0b1000_0000 | strength } else { strength }
}

/// What a signature needs to know.
struct Signed<'a> {
    at: &'a At,
    key: &'a Key,
    nonce: u64,
    birth: Head,
}

impl Signed<'_> {
    fn bytes(&self, payload: &impl Payload) -> Result<Vec<u8>, ExtrinsicError> {
        let params = DefaultExtrinsicParamsBuilder::<SubstrateConfig>::new()
            .nonce(self.nonce)
            .mortal_from_unchecked(u64::from(PERIOD), u64::from(self.birth.number), H256(self.birth.hash))
            .build();
        let mut signable = self.at.tx().create_signable_offline(payload, params)?;
        Ok(signable.sign(self.key)?.into_encoded())
    }
}

fn propose(signed: &Signed<'_>, proposal: &Proposal) -> Result<Vec<u8>, ExtrinsicError> {
    use types::{
        frame_support::traits::{preimages::Bounded, schedule::DispatchTime},
        potluck_runtime::{OriginCaller, RuntimeCall, origins::pallet::Origin},
    };
    let (policies, providers) = (runtime::tx().policies(), runtime::tx().providers());
    let tx = signed.at.tx();
    let bytes = match proposal {
        Proposal::Approve { kind, class, hash, activates_at, uri } => tx.call_data(&policies.approve(
            Static(*kind),
            Static(*class),
            Static(*hash),
            activates_at.0,
            BoundedVec(uri.clone()),
        ))?,
        Proposal::Revoke { kind, class, hash } => {
            tx.call_data(&policies.revoke(Static(*kind), Static(*class), Static(*hash)))?
        }
        Proposal::Rule { provider, job, upheld } => {
            tx.call_data(&providers.rule(AccountId32(*provider), *job, *upheld))?
        }
    };
    let origin = || OriginCaller::Origins(Origin::Policies);
    if bytes.len() <= MAX_INLINE {
        let call = Bounded::Inline(BoundedVec(bytes));
        return signed.bytes(&runtime::tx().referenda().submit(origin(), call, DispatchTime::After(1)));
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let call = Bounded::Lookup { hash: H256(blake2_256(&[&bytes])), len: length };
    let note = RuntimeCall::Preimage(types::pallet_preimage::pallet::Call::note_preimage { bytes });
    let submit = RuntimeCall::Referenda(types::pallet_referenda::pallet::Call::submit {
        proposal_origin: Box::new(origin()),
        proposal: call,
        enactment_moment: DispatchTime::After(1),
    });
    signed.bytes(&runtime::tx().utility().batch_all(vec![note, submit]))
}
