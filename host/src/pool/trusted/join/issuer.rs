//! The issuer's side.

use super::super::{
    clock::Clock,
    names,
    papers::{InviteId, PoolId, Sealed},
    roster::JoinRefusal,
};
use super::{MAX_ANSWER, MAX_ASK, PAGE, ToIssuer, ToJoiner, Transcript};
use crate::{
    identity::NodeId,
    mesh::frame::{self, FrameError},
    mesh::streams::Duplex,
};

/// A machine that proved its key and that it holds an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// The invite.
    pub invite: InviteId,
    /// The machine.
    pub node: NodeId,
    /// The name it wants, cleaned.
    pub name: String,
}

/// What an admitted machine is told.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The signed key under which members find each other.
    pub discovery: Option<Sealed>,
    /// The papers of the pool; those that others depend on first.
    pub papers: Vec<Sealed>,
}

/// Why nobody was admitted.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The joiner was told why.
    #[error("refused: {0}")]
    Refused(JoinRefusal),
    /// It went away or sent something else.
    #[error(transparent)]
    Broken(#[from] FrameError),
}

/// Hears who wants to join which pool, and lets it prove that. `peer` is the key that the connection was
/// authenticated with, `nonce` 32 random bytes, `by` the name of this machine. The caller sets the time limit.
///
/// # Errors
/// [`Ended`]; the joiner was told of a refusal.
pub async fn hear<S: Duplex + ?Sized>(
    stream: &mut S,
    peer: NodeId,
    (pool, me, by): (PoolId, NodeId, &str),
    nonce: [u8; 32],
    clock: &dyn Clock,
) -> Result<Applicant, Ended> {
    match examine(stream, peer, (pool, me, by), nonce, clock).await {
        Err(Ended::Refused(refusal)) => {
            answer(stream, Err(refusal.clone())).await?;
            Err(Ended::Refused(refusal))
        }
        other => other,
    }
}

async fn examine<S: Duplex + ?Sized>(
    mut stream: &mut S,
    peer: NodeId,
    (pool, me, by): (PoolId, NodeId, &str),
    nonce: [u8; 32],
    clock: &dyn Clock,
) -> Result<Applicant, Ended> {
    let refuse = |refusal| Err(Ended::Refused(refusal));
    let ToIssuer::Hello { pool: wanted, invite, nonce: theirs, now } =
        frame::expect(&mut stream, MAX_ASK).await?
    else {
        return refuse(JoinRefusal::Proof);
    };
    if wanted != pool {
        return refuse(JoinRefusal::OtherPool { by: by.to_owned() });
    }
    if peer != invite.0 {
        return refuse(JoinRefusal::Proof);
    }
    super::super::roster::clocks(now.saturating_sub(clock.now()), by).map_err(Ended::Refused)?;
    let challenge = ToJoiner::Challenge { nonce, issuer: me, now: clock.now() };
    frame::write(&mut stream, &challenge, MAX_ANSWER).await?;
    let ToIssuer::Proof { node, name, by_node, by_invite } = frame::expect(&mut stream, MAX_ASK).await?
    else {
        return refuse(JoinRefusal::Proof);
    };
    let transcript =
        Transcript { pool, invite, joiner_nonce: theirs, issuer_nonce: nonce, issuer: me, node, name: &name };
    let transcript = transcript.bytes();
    if !node.signed(&transcript, by_node) || !invite.0.signed(&transcript, by_invite) {
        return refuse(JoinRefusal::Proof);
    }
    match names::clean(&name) {
        Ok(name) => Ok(Applicant { invite, node, name }),
        Err(error) => refuse(JoinRefusal::Name { what: error.to_string() }),
    }
}

/// Tells the joiner what came of it. Whatever admits it must be on disk before.
///
/// # Errors
/// [`FrameError`] when the joiner is gone; it may ask again with the same invite.
pub async fn answer<S: Duplex + ?Sized>(
    mut stream: &mut S,
    outcome: Result<Answer, JoinRefusal>,
) -> Result<(), FrameError> {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(refusal) => return frame::write(&mut stream, &ToJoiner::Refused(refusal), MAX_ANSWER).await,
    };
    frame::write(&mut stream, &ToJoiner::Admitted { discovery: answer.discovery }, MAX_ANSWER).await?;
    for page in answer.papers.chunks(PAGE) {
        frame::write(&mut stream, &ToJoiner::Papers(page.to_vec()), MAX_ANSWER).await?;
    }
    frame::write(&mut stream, &ToJoiner::End, MAX_ANSWER).await
}
