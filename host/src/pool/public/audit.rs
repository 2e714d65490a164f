//! Whether strangers answer with the model that they offer.
//!
//! Every answer comes with the provider's signature of what it was: the request, the tokens, why it ended, and
//! commitments to hidden states ([`transcript`]). A verifier asks as everybody does ([`canary`]), replays the answer on
//! its own copy of the model ([`examine`], [`rounds`]), and keeps count in a sequential test for each provider ([`record`]). What a
//! test comes to is a charge ([`charge`]), which a committee re-checks from the signed transcripts alone ([`committee`]).

pub mod canary;
pub mod charge;
pub mod committee;
pub mod examine;
pub mod record;
pub mod rounds;
#[cfg(test)]
mod tests;
pub mod transcript;
