//! A charge: the transcripts that convict a provider, and what the slashing policy makes of them.
//!
//! Whoever reads a charge needs nothing else: every transcript has the provider's own signature, and everybody with the
//! model finds the same in it. The policy is asked with what all verifiers that were drawn find if they find what this
//! machine found; those who find the same sign the same verdict.

use std::fmt::Debug;

use parity_scale_codec::{Decode, DecodeAll, Encode};
use potluck_primitives::{Account, Block, Bounded, Hash, MicroCredits, PolicyHash, Verdict, blake2_256};

use super::{
    examine::{Answered, ExamineError, Examiner, Report},
    transcript::{Transcript, TranscriptError},
};
use crate::{
    identity::NodeId,
    policy::{
        Policies,
        types::{Audit, Evidence, Judgement, Method, Outcome},
    },
};

/// Keeps the digest of a charge apart from every other hash.
const DOMAIN: &[u8] = b"potluck public charge 1\0";
/// Most transcripts in a charge.
pub const MAX_TRANSCRIPTS: u32 = 64;
/// Most bytes of a charge.
pub const MAX_CHARGE: usize = 2 << 20;

/// What a provider is charged with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Charge {
    /// Whose answers they are.
    pub provider: Account,
    /// The answers, the oldest first.
    pub transcripts: Bounded<Transcript, MAX_TRANSCRIPTS>,
}

/// Why a charge comes to no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ChargeError {
    /// Too many bytes.
    #[error("a charge of {0} bytes, where at most {MAX_CHARGE} are allowed")]
    TooLong(usize),
    /// Bytes that are none.
    #[error("bytes that are no charge")]
    Malformed,
    /// One of its transcripts does not hold.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// One of its transcripts is of another provider, or there twice.
    #[error("its transcripts are not different answers of the provider it names")]
    Mixed,
    /// One of its answers cannot be examined here.
    #[error(transparent)]
    Examine(#[from] ExamineError),
    /// The policy gives no verdict.
    #[error("the slashing policy gives no verdict: {0}")]
    Policy(String),
    /// The policy does not convict.
    #[error("the slashing policy does not convict: {0}")]
    Acquitted(String),
}

/// Who judges a charge, as the chain draws them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// The block whose hash drew them.
    pub at: u32,
    /// The verifiers.
    pub verifiers: Vec<Account>,
    /// How many of them must agree.
    pub quorum: u32,
    /// What the provider has at stake.
    pub stake: MicroCredits,
}

/// The approved slashing policy.
pub trait Judge: Send + Sync + Debug {
    /// What it makes of evidence, and which policy it is.
    ///
    /// # Errors
    /// In words: there is none, or it failed.
    fn judge(
        &self,
        evidence: &Evidence,
        now: u64,
    ) -> Result<(crate::policy::types::Verdict, PolicyHash), String>;
}

impl Judge for Policies {
    fn judge(
        &self,
        evidence: &Evidence,
        now: u64,
    ) -> Result<(crate::policy::types::Verdict, PolicyHash), String> {
        let (verdict, hash) = Self::judge(self, evidence, now).map_err(|why| why.to_string())?;
        Ok((verdict, PolicyHash(*hash.as_bytes())))
    }
}

/// The number by which a policy knows an account.
fn number(account: &Account) -> u64 {
    account.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

impl Charge {
    /// What names it in a verdict.
    pub fn digest(&self) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, bytes]))
    }

    /// The job whose number draws the verifiers: the first answer's.
    pub fn job(&self) -> [u8; 16] {
        self.transcripts.first().map_or([0; 16], |first| first.answer.statement.job)
    }

    /// Reads one from anybody.
    ///
    /// # Errors
    /// [`ChargeError::TooLong`], [`ChargeError::Malformed`], and as [`Charge::check`].
    pub fn open(bytes: &[u8]) -> Result<Self, ChargeError> {
        if bytes.len() > MAX_CHARGE {
            return Err(ChargeError::TooLong(bytes.len()));
        }
        let this = Self::decode_all(&mut &*bytes).map_err(|_| ChargeError::Malformed)?;
        this.check()?;
        Ok(this)
    }

    /// Checks that it is made of different answers that the provider signed.
    ///
    /// # Errors
    /// [`ChargeError::Transcript`], [`ChargeError::Mixed`].
    pub fn check(&self) -> Result<(), ChargeError> {
        let mut jobs = Vec::new();
        for transcript in &self.transcripts {
            let case = transcript.check()?;
            if case.provider != NodeId(self.provider) || jobs.contains(&case.id) {
                return Err(ChargeError::Mixed);
            }
            jobs.push(case.id);
        }
        if jobs.is_empty() { Err(ChargeError::Malformed) } else { Ok(()) }
    }

    /// Examines all its answers here, and asks the policy.
    ///
    /// # Errors
    /// [`ChargeError`]; [`ChargeError::Acquitted`] when this machine finds it wrong.
    pub async fn judge(
        &self,
        examiner: &Examiner,
        judge: &dyn Judge,
        drawn: &Drawn,
    ) -> Result<Verdict, ChargeError> {
        self.check()?;
        let mut reports = Vec::new();
        for transcript in &self.transcripts {
            reports.push(examiner.examine(transcript).await?);
        }
        self.rule(&reports, judge, drawn)
    }

    /// The verdict, from what was found in its answers.
    ///
    /// # Errors
    /// [`ChargeError::Policy`], [`ChargeError::Acquitted`].
    pub fn rule(&self, reports: &[Report], judge: &dyn Judge, drawn: &Drawn) -> Result<Verdict, ChargeError> {
        let (evidence, now) = self.evidence(reports, drawn);
        let (verdict, policy) = judge.judge(&evidence, now).map_err(ChargeError::Policy)?;
        match verdict.judgement {
            Judgement::Convict(parts) => Ok(Verdict {
                job: self.job(),
                provider: self.provider,
                evidence: self.digest(),
                policy,
                parts,
                at: Block(drawn.at),
            }),
            Judgement::Acquit | Judgement::Undecided => Err(ChargeError::Acquitted(verdict.reason)),
        }
    }

    /// What the policy is asked: one audit of each answer by each verifier, and the time of the last answer.
    fn evidence(&self, reports: &[Report], drawn: &Drawn) -> (Evidence, u64) {
        let (mut audits, mut now) = (Vec::new(), 0);
        for (transcript, report) in self.transcripts.iter().zip(reports) {
            let time = transcript.answer.statement.started_at.0;
            now = now.max(time);
            let Answered { method, distance, .. } = worst(report);
            let (outcome, tokens) = (report.outcome(), report.tokens.into());
            audits.extend(drawn.verifiers.iter().map(|verifier| {
                let verifier = number(verifier);
                Audit { verifier, method, outcome, distance, tokens, time }
            }));
        }
        let evidence = Evidence {
            provider: number(&self.provider),
            audits,
            drawn: u32::try_from(drawn.verifiers.len()).unwrap_or(u32::MAX),
            quorum: drawn.quorum,
            stake: u64::try_from(drawn.stake.0).unwrap_or(u64::MAX),
            ..Evidence::default()
        };
        (evidence, now)
    }
}

/// The question that says most against an answer; that of its tokens where nothing does.
fn worst(report: &Report) -> Answered {
    let failed = report.answers.iter().find(|answer| answer.outcome == Outcome::Failed);
    let forced = report.answers.iter().find(|answer| answer.method == Method::Forced);
    let none = Answered { method: Method::Forced, outcome: Outcome::Unclear, distance: 0 };
    failed.or(forced).copied().unwrap_or(none)
}
