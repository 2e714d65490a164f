//! The joiner's side.

use super::super::{
    clock::Clock,
    names::{self, NameError},
    papers::{Invite, Paper, PaperError, Statement},
    roster::{JoinRefusal, Roster, Standing},
};
use super::{JOIN_TIME, MAX_ANSWER, MAX_ASK, MAX_PAPERS, ToIssuer, ToJoiner, Transcript};
use crate::{
    identity::{NodeId, Signer},
    mesh::frame::{self, FrameError},
    mesh::streams::Duplex,
};

/// What a joiner brings.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The invite.
    pub invite: &'a Invite,
    /// The key of its machine.
    pub signer: &'a Signer,
    /// The name it wants.
    pub name: &'a str,
    /// 32 random bytes, never used before.
    pub nonce: [u8; 32],
    /// Its clock.
    pub clock: &'a dyn Clock,
}

/// What a joiner gets.
#[derive(Debug)]
pub struct Joined {
    /// The papers of the pool, its own certificate among them.
    pub roster: Roster,
    /// The key under which members find each other.
    pub discovery: Option<Paper>,
    /// Who admitted it.
    pub issuer: NodeId,
}

/// Why a machine did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The issuer says no.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// The stream broke.
    #[error("the conversation with the pool broke off ({0}): try again; the invite is not used up by that")]
    Broken(#[from] FrameError),
    /// Nothing came.
    #[error("the pool did not answer within {} s: try again; the invite is not used up by that", JOIN_TIME.as_secs())]
    Timeout,
    /// Something that does not belong there was said.
    #[error("the other side does not follow the protocol ({0}): update potluck on both machines")]
    Protocol(&'static str),
    /// A paper is wrong.
    #[error("the pool sent {0}")]
    Paper(#[from] PaperError),
    /// The papers do not make this machine a member.
    #[error("the pool's papers do not make this machine a member ({0}): ask for a new invite")]
    NotAdmitted(String),
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Asks for membership over `stream`, and verifies all that comes against the pool of the invite.
///
/// # Errors
/// Any [`JoinError`].
pub async fn request<S: Duplex + ?Sized>(stream: &mut S, ask: Ask<'_>) -> Result<Joined, JoinError> {
    let name = names::clean(ask.name)?;
    tokio::time::timeout(JOIN_TIME, converse(stream, &ask, name)).await.map_err(|_| JoinError::Timeout)?
}

async fn converse<S: Duplex + ?Sized>(
    mut stream: &mut S,
    ask: &Ask<'_>,
    name: String,
) -> Result<Joined, JoinError> {
    let (pool, invite) = (ask.invite.pool(), ask.invite.id());
    let hello = ToIssuer::Hello { pool, invite, nonce: ask.nonce, now: ask.clock.now() };
    frame::write(&mut stream, &hello, MAX_ASK).await?;
    let (issuer_nonce, issuer, theirs) = match frame::expect(&mut stream, MAX_ANSWER).await? {
        ToJoiner::Challenge { nonce, issuer, now } => (nonce, issuer, now),
        ToJoiner::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(JoinError::Protocol("it does not challenge")),
    };
    // The issuer says the same; this is for one that lets it pass.
    super::super::roster::clocks(ask.clock.now().saturating_sub(theirs), "the pool")?;
    let node = ask.signer.node();
    let transcript =
        Transcript { pool, invite, joiner_nonce: ask.nonce, issuer_nonce, issuer, node, name: &name }.bytes();
    let by_node = ask.signer.sign(&transcript);
    let by_invite = ask.invite.key().sign(&transcript);
    let proof = ToIssuer::Proof { node, name, by_node, by_invite };
    frame::write(&mut stream, &proof, MAX_ASK).await?;
    receive(stream, ask, issuer).await
}

async fn receive<S: Duplex + ?Sized>(
    mut stream: &mut S,
    ask: &Ask<'_>,
    issuer: NodeId,
) -> Result<Joined, JoinError> {
    let pool = ask.invite.pool();
    let discovery = match frame::expect(&mut stream, MAX_ANSWER).await? {
        ToJoiner::Admitted { discovery } => discovery,
        ToJoiner::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(JoinError::Protocol("it neither admits nor refuses")),
    };
    let mut roster = Roster::new(pool);
    let mut count = 0;
    loop {
        match frame::expect(&mut stream, MAX_ANSWER).await? {
            ToJoiner::Papers(papers) => {
                count += papers.len();
                if count > MAX_PAPERS {
                    return Err(JoinError::Protocol("it sends too many papers"));
                }
                for sealed in papers {
                    roster.receive(sealed, ask.clock.now())?;
                }
            }
            ToJoiner::End => break,
            _ => return Err(JoinError::Protocol("something else comes between the papers")),
        }
    }
    let view = roster.view(ask.clock.now());
    let node = ask.signer.node();
    match view.standing(node) {
        Some(Standing::Member) => {}
        Some(other) => return Err(JoinError::NotAdmitted(format!("it counts as {other:?}").to_lowercase())),
        None => return Err(JoinError::NotAdmitted("its certificate is missing".into())),
    }
    let discovery = discovery.map(|sealed| Paper::open(sealed, pool)).transpose()?;
    let discovery = discovery.filter(|paper| {
        matches!(paper.statement(), Statement::Discovery(_)) && view.is_issuer(paper.author())
    });
    Ok(Joined { roster, discovery, issuer })
}
