//! The bounds that `wit/policy/types.wit` names, checked on what is passed and on what comes back.

use crate::policy::{
    Kind,
    types::{
        Candidate, Description, Evidence, Hardware, Input, Job, Judgement, Market, Output, Price, Ranking,
        Verdict,
    },
};

/// Most candidates in one question.
pub const MAX_CANDIDATES: usize = 1024;
/// Most blocks of a prefix.
pub const MAX_PREFIX: usize = 64;
/// Most audits in one case.
pub const MAX_AUDITS: usize = 4096;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 256;
/// Longest reason, note or refusal, in bytes.
pub const MAX_REASON: usize = 1024;
/// The whole, in millionths.
pub const MILLION: u32 = 1_000_000;

/// What is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A list or a text is too long.
    #[error("{what} has {len} {unit}, and at most {most} are allowed")]
    Long {
        /// Which.
        what: &'static str,
        /// Its length.
        len: usize,
        /// What is counted.
        unit: &'static str,
        /// The bound.
        most: usize,
    },
    /// A name holds other letters than it may.
    #[error("{what} `{text}` may hold lower case letters, digits and dashes only, and at least one of them")]
    Name {
        /// Which.
        what: &'static str,
        /// The name.
        text: String,
    },
    /// A share is no share.
    #[error("{what} is {share} millionths; it lies between {least} and 1000000")]
    Share {
        /// Which.
        what: &'static str,
        /// What it is.
        share: u32,
        /// The least it may be.
        least: u32,
    },
    /// The market's floor lies above its ceiling.
    #[error("the market's floor of {floor} micro-credits lies above its ceiling of {ceiling}")]
    Market {
        /// The floor, in micro-credits.
        floor: u64,
        /// The ceiling, in micro-credits.
        ceiling: u64,
    },
    /// An index that was not in the list.
    #[error("candidate {index} was ranked, but there are only {len}, counted from 0")]
    Unknown {
        /// The index.
        index: u32,
        /// How many there are.
        len: usize,
    },
    /// The same candidate more than once.
    #[error("candidate {index} was ranked more than once")]
    Twice {
        /// The index.
        index: u32,
    },
    /// Less than the market's floor.
    #[error(
        "{asked} micro-credits for a thousand tokens of an answer are below the market's floor of {floor}"
    )]
    BelowFloor {
        /// What was asked.
        asked: u64,
        /// The floor.
        floor: u64,
    },
    /// More than the market's ceiling.
    #[error("{asked} micro-credits for {what} are above the market's ceiling of {ceiling}")]
    AboveCeiling {
        /// For what.
        what: &'static str,
        /// What was asked.
        asked: u64,
        /// The ceiling.
        ceiling: u64,
    },
    /// The job's price has no room in 64 bits.
    #[error("the price of the whole job is more than can be counted")]
    Overflow,
    /// An answer to another question.
    #[error("a {asked} question was answered with a {answered} answer")]
    Kind {
        /// The question's kind.
        asked: Kind,
        /// The answer's kind.
        answered: Kind,
    },
}

fn list(what: &'static str, len: usize, unit: &'static str, most: usize) -> Result<(), Fault> {
    if len > most { Err(Fault::Long { what, len, unit, most }) } else { Ok(()) }
}

fn text(what: &'static str, text: &str, most: usize) -> Result<(), Fault> {
    list(what, text.len(), "bytes", most)
}

/// Checks a question before a policy is asked.
///
/// # Errors
/// The first bound that is broken.
pub fn check_input(input: &Input) -> Result<(), Fault> {
    match input {
        Input::Routing { job, candidates, .. } => check_job_and_candidates(job, candidates),
        Input::Pricing { job, hardware, market, .. } => check_pricing(job, hardware, market),
        Input::Slashing { evidence, .. } => check_evidence(evidence),
    }
}

fn check_job(job: &Job) -> Result<(), Fault> {
    text("the model's name", &job.model, MAX_NAME)?;
    list("the prefix", job.prefix.len(), "blocks", MAX_PREFIX)
}

pub(crate) fn check_job_and_candidates(job: &Job, candidates: &[Candidate]) -> Result<(), Fault> {
    check_job(job)?;
    list("the list of candidates", candidates.len(), "machines", MAX_CANDIDATES)
}

fn check_pricing(job: &Job, hardware: &Hardware, market: &Market) -> Result<(), Fault> {
    check_job(job)?;
    text("the hardware's class", &hardware.class, MAX_NAME)?;
    if market.used > MILLION {
        return Err(Fault::Share { what: "the used capacity", share: market.used, least: 0 });
    }
    if market.floor > market.ceiling {
        return Err(Fault::Market { floor: market.floor, ceiling: market.ceiling });
    }
    Ok(())
}

fn check_evidence(evidence: &Evidence) -> Result<(), Fault> {
    list("the list of audits", evidence.audits.len(), "audits", MAX_AUDITS)
}

/// Checks an answer to a question that is within its bounds.
///
/// # Errors
/// The first bound that is broken.
pub fn check_output(input: &Input, output: &Output) -> Result<(), Fault> {
    if let Some(words) = output.refusal() {
        check_refusal(words)?;
    }
    match (input, output) {
        (Input::Routing { candidates, .. }, Output::Routing(Ok(ranking))) => {
            check_ranking(candidates.len(), ranking)
        }
        (Input::Pricing { job, market, .. }, Output::Pricing(Ok(price))) => check_price(job, market, price),
        (Input::Slashing { .. }, Output::Slashing(Ok(verdict))) => check_verdict(verdict),
        _ if input.kind() == output.kind() => Ok(()),
        _ => Err(Fault::Kind { asked: input.kind(), answered: output.kind() }),
    }
}

pub(crate) fn check_refusal(words: &str) -> Result<(), Fault> {
    text("the refusal", words, MAX_REASON)
}

pub(crate) fn check_ranking(candidates: usize, ranking: &Ranking) -> Result<(), Fault> {
    text("the note", &ranking.note, MAX_REASON)?;
    list("the ranking", ranking.order.len(), "places", candidates)?;
    let mut seen = [0u64; MAX_CANDIDATES / 64];
    for choice in &ranking.order {
        let index = choice.candidate;
        let place = usize::try_from(index).ok().filter(|place| *place < candidates);
        let word = place.and_then(|place| seen.get_mut(place / 64));
        let word = word.ok_or(Fault::Unknown { index, len: candidates })?;
        let bit = 1u64 << (index % 64);
        if *word & bit != 0 {
            return Err(Fault::Twice { index });
        }
        *word |= bit;
    }
    Ok(())
}

/// The floor and the ceiling are for a thousand tokens of an answer. The ceiling holds for a thousand tokens of the
/// prompt and for the start, too: otherwise it could be walked around.
fn check_price(job: &Job, market: &Market, price: &Price) -> Result<(), Fault> {
    text("the note", &price.note, MAX_REASON)?;
    if price.per_thousand_answer < market.floor {
        return Err(Fault::BelowFloor { asked: price.per_thousand_answer, floor: market.floor });
    }
    for (what, asked) in [
        ("a thousand tokens of an answer", price.per_thousand_answer),
        ("a thousand tokens of a prompt", price.per_thousand_prompt),
        ("the job as such", price.start),
    ] {
        if asked > market.ceiling {
            return Err(Fault::AboveCeiling { what, asked, ceiling: market.ceiling });
        }
    }
    price.total(job.prompt_most, job.answer_room).map(drop).ok_or(Fault::Overflow)
}

fn check_verdict(verdict: &Verdict) -> Result<(), Fault> {
    text("the reason", &verdict.reason, MAX_REASON)?;
    match verdict.judgement {
        Judgement::Convict(share) if !(1..=MILLION).contains(&share) => {
            Err(Fault::Share { what: "the share of the stake", share, least: 1 })
        }
        Judgement::Convict(_) | Judgement::Acquit | Judgement::Undecided => Ok(()),
    }
}

/// Checks what a policy says of itself.
///
/// # Errors
/// The first bound that is broken.
pub fn check_description(label: &Description) -> Result<(), Fault> {
    text("the policy's name", &label.name, MAX_NAME)?;
    text("the policy's version", &label.version, MAX_NAME)?;
    text("the policy's summary", &label.summary, MAX_REASON)?;
    text("the policy's licence", &label.licence, MAX_NAME)?;
    let fine = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if label.name.is_empty() || !label.name.bytes().all(fine) {
        return Err(Fault::Name { what: "the policy's name", text: label.name.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
