//! A load report, and how it is signed.

use minicbor::{Decode, Decoder, Encode, bytes::ByteVec, decode::Error as DecodeError};
use serde::Serialize;

use crate::{
    identity::{NodeId, Signature, Signer},
    mesh::frame,
};

/// Longest report, signature included, in bytes.
pub const MAX_REPORT: usize = 128 << 10;
/// Most models of a report.
const MAX_MODELS: usize = 512;
/// Longest name or digest, in bytes.
const MAX_NAME: usize = 512;
/// Most tokens per second that are believed.
const MAX_SPEED: f32 = 1e6;
/// What a signature is over, before the report: no other paper of the pool begins like it.
const CONTEXT: &[u8] = b"potluck load report 1\0";

/// One model of a machine.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode, Serialize)]
pub struct ModelLoad {
    /// The name to ask for.
    #[n(0)]
    pub name: String,
    /// SHA-256 of its file as 64 hex digits, where it is known: equal files give equal answers.
    #[n(1)]
    pub digest: Option<String>,
    /// Longest context, in tokens; 0 while it is not known.
    #[n(2)]
    pub context: u64,
    /// Whether it is in memory.
    #[n(3)]
    pub loaded: bool,
    /// Whether an answer that another machine began can be gone on with.
    #[n(4)]
    pub resumes: bool,
    /// Jobs it answers at the same time.
    #[n(5)]
    pub slots: u32,
    /// Jobs that it answers now.
    #[n(6)]
    pub running: u32,
    /// Jobs that wait.
    #[n(7)]
    pub queued: u32,
    /// Tokens for which there is room in the KV cache.
    #[n(8)]
    pub free_tokens: u64,
    /// Prompt tokens per second, as measured lately; 0: not measured.
    #[n(9)]
    pub prefill: f32,
    /// Tokens per second of one answer, as measured lately; 0: not measured.
    #[n(10)]
    pub decode: f32,
}

/// What a machine says of itself.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Report {
    /// The machine.
    #[n(0)]
    pub node: NodeId,
    /// When it was made by the machine's own clock, in milliseconds since 1970. Only for people to read.
    #[n(1)]
    pub time_ms: i64,
    /// For how long it holds, in milliseconds.
    #[n(2)]
    pub valid_ms: u32,
    /// Counts the machine's reports on this stream.
    #[n(3)]
    pub sequence: u64,
    /// The program's version.
    #[n(4)]
    pub version: String,
    /// Its models.
    #[cbor(n(5), decode_with = "capped")]
    pub models: Vec<ModelLoad>,
}

fn capped<'b, C>(d: &mut Decoder<'b>, context: &mut C) -> Result<Vec<ModelLoad>, DecodeError> {
    let at = d.position();
    let count = d.array()?.and_then(|count| usize::try_from(count).ok()).filter(|&n| n <= MAX_MODELS);
    let count = count.ok_or_else(|| DecodeError::message("too many models").at(at))?;
    (0..count).map(|_| d.decode_with(context)).collect()
}

/// A report with its signature. The signature makes it worth something to a third machine.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct SignedReport {
    /// The report as CBOR.
    #[n(0)]
    pub report: ByteVec,
    /// By the machine it is about.
    #[n(1)]
    pub signature: Signature,
}

/// Why a report is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not a report.
    #[error("it is no load report: {0}")]
    Malformed(String),
    /// Signed by another machine than it is about, or about another machine than the one that sent it.
    #[error("it is about {node} and not signed by it, or not meant to come from there")]
    Forged {
        /// Whom it is about.
        node: NodeId,
    },
    /// Older than the last one.
    #[error("it was sent before")]
    Replayed,
}

impl Report {
    /// The report with its signature.
    pub fn sign(&self, signer: &Signer) -> SignedReport {
        let report = minicbor::to_vec(self).unwrap_or_default();
        let signature = signer.sign(&[CONTEXT, &report].concat());
        SignedReport { report: report.into(), signature }
    }
}

impl SignedReport {
    /// The report, if `peer` signed it about itself and it is newer than the one numbered `last`. Numbers in it
    /// make sense.
    ///
    /// # Errors
    /// Any [`ReportError`].
    pub fn open(&self, peer: NodeId, last: Option<u64>) -> Result<Report, ReportError> {
        let malformed = |error: frame::FrameError| ReportError::Malformed(error.to_string());
        let mut report: Report = frame::decode(&self.report).map_err(malformed)?;
        let message = [CONTEXT, self.report.as_slice()].concat();
        if report.node != peer || !peer.signed(&message, self.signature) {
            return Err(ReportError::Forged { node: report.node });
        }
        if last.is_some_and(|last| report.sequence <= last) {
            return Err(ReportError::Replayed);
        }
        report.version = report.version.chars().take(64).collect();
        report.models.retain(|model| {
            let digest = model.digest.as_ref().is_none_or(|digest| digest.len() <= MAX_NAME);
            digest && !model.name.is_empty() && model.name.len() <= MAX_NAME
        });
        for model in &mut report.models {
            model.prefill = speed(model.prefill);
            model.decode = speed(model.decode);
            model.slots = model.slots.clamp(1, 4096);
        }
        Ok(report)
    }
}

fn speed(value: f32) -> f32 {
    if value.is_finite() { value.clamp(0.0, MAX_SPEED) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: NodeId) -> Report {
        let model = ModelLoad { name: "m".into(), decode: f32::NAN, ..ModelLoad::default() };
        Report { node, time_ms: -5, valid_ms: 1, sequence: 7, version: "v".repeat(99), models: vec![model] }
    }

    #[test]
    fn a_report_is_about_the_machine_that_signed_and_sent_it() {
        let (alice, bob) = (Signer::from_seed([1; 32]), Signer::from_seed([2; 32]));
        let signed = report(alice.node()).sign(&alice);
        let opened = signed.open(alice.node(), Some(6)).unwrap();
        assert_eq!((opened.version.len(), opened.models[0].decode, opened.models[0].slots), (64, 0.0, 1));
        assert_eq!(signed.open(alice.node(), Some(7)), Err(ReportError::Replayed));
        assert!(matches!(signed.open(bob.node(), None), Err(ReportError::Forged { .. })));
        let forged = report(alice.node()).sign(&bob);
        assert!(matches!(forged.open(alice.node(), None), Err(ReportError::Forged { .. })));
        let mut altered = signed.clone();
        let mut bytes: Vec<u8> = altered.report.into();
        *bytes.last_mut().unwrap() ^= 1;
        altered.report = bytes.into();
        assert!(altered.open(alice.node(), None).is_err());
    }
}
