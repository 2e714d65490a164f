//! The invite as it is passed on: the signed terms, the secret, and where its issuers are.

use std::fmt;

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::address::{self, MAX_ADDRESSES, Route};
use super::{InviteId, InviteTerms, Paper, PaperError, PoolId, Sealed, Statement, pack, text};
use crate::{
    identity::{NodeId, Signer},
    mesh::frame,
};

/// How an invite begins; the digit is its version.
const PREFIX: &str = "potluck1";
/// Longest text that is read as an invite, in bytes.
pub const MAX_INVITE_TEXT: usize = 8_192;

/// An invite with its secret: whoever has it can join.
#[derive(Clone)]
pub struct Invite {
    terms: Paper,
    details: InviteTerms,
    delegation: Option<Paper>,
    seed: Zeroizing<[u8; 32]>,
    routes: Vec<Route>,
}

/// Text that is no invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It begins otherwise.
    #[error(
        "this is no invite: an invite begins with `{PREFIX}`; paste all of what `potluck pool invite` printed"
    )]
    NotOne,
    /// It belongs to a newer program.
    #[error("this invite was made by a newer potluck: update potluck on this machine")]
    Newer,
    /// Mistyped or cut.
    #[error("this invite is incomplete or mistyped ({0}): paste it again, the whole line")]
    Damaged(String),
    /// Its papers contradict each other.
    #[error("this invite is forged or damaged ({0}): ask for a new one")]
    Forged(PaperError),
    /// Its maker may not invite.
    #[error("this invite is signed by {author}, whom the pool's root did not let invite: ask for a new one")]
    NotIssuer {
        /// Who signed it.
        author: NodeId,
    },
    /// Too many addresses, or too long ones.
    #[error("an invite holds at most {MAX_ADDRESSES} addresses of at most 255 bytes")]
    Addresses,
}

/// What lies in the text, before packing.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Body {
    #[n(0)]
    terms: Sealed,
    #[n(1)]
    delegation: Option<Sealed>,
    #[n(2)]
    routes: Vec<ShortRoute>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct ShortRoute {
    #[n(0)]
    node: NodeId,
    #[n(1)]
    addresses: Vec<minicbor::bytes::ByteVec>,
}

impl Invite {
    /// An invite of its parts: the signed terms, the delegation of their author unless that is the root, the
    /// seed of the key in the terms, and where its issuers can be dialled.
    ///
    /// # Errors
    /// [`InviteError`] when the parts do not belong together.
    pub fn new(
        terms: Paper,
        delegation: Option<Paper>,
        seed: [u8; 32],
        routes: Vec<Route>,
    ) -> Result<Self, InviteError> {
        let damaged = |what: &str| InviteError::Damaged(what.into());
        let Statement::Invite(details) = terms.statement().clone() else {
            return Err(damaged("its terms are another paper"));
        };
        let author = terms.author();
        match delegation.as_ref().map(|paper| (paper.author(), paper.statement())) {
            None if author == details.pool.0 => {}
            Some((root, Statement::Delegation(it))) if root == details.pool.0 && it.node == author => {}
            _ => return Err(InviteError::NotIssuer { author }),
        }
        if Signer::from_seed(seed).node() != details.invite.0 {
            return Err(damaged("its secret belongs to another one"));
        }
        if routes.iter().map(|route| route.addresses.len()).sum::<usize>() > MAX_ADDRESSES
            || routes.len() > MAX_ADDRESSES
        {
            return Err(InviteError::Addresses);
        }
        Ok(Self { terms, details, delegation, seed: Zeroizing::new(seed), routes })
    }

    /// Reads the printed form. White space and line breaks anywhere in it, and its case, do not matter.
    ///
    /// # Errors
    /// [`InviteError`] when it is not one, was damaged on the way, or is not signed by the pool that it names.
    pub fn parse(printed: &str) -> Result<Self, InviteError> {
        let damaged = |what: &str| InviteError::Damaged(what.into());
        if printed.len() > MAX_INVITE_TEXT {
            return Err(InviteError::NotOne);
        }
        let bytes = text::read(PREFIX, printed).map_err(|error| match error {
            text::TextError::Prefix if newer(printed) => InviteError::Newer,
            text::TextError::Prefix => InviteError::NotOne,
            text::TextError::Digit(c) => InviteError::Damaged(format!("`{c}` never occurs in one")),
            text::TextError::Checksum => damaged("its checksum differs"),
        })?;
        let split = || {
            let (pool, rest) = bytes.split_first_chunk::<32>()?;
            let (seed, rest) = rest.split_first_chunk::<32>()?;
            let (author, rest) = rest.split_first_chunk::<32>()?;
            Some((PoolId(NodeId(*pool)), *seed, NodeId(*author), rest))
        };
        let (pool, seed, author, packed) = split().ok_or_else(|| damaged("it is too short"))?;
        let blob =
            pack::unpack(&keys(pool, &seed, author), packed).ok_or_else(|| damaged("it does not unpack"))?;
        let body: Body = frame::decode(&blob).map_err(|error| InviteError::Damaged(error.to_string()))?;
        let open = |sealed| Paper::open(sealed, pool).map_err(InviteError::Forged);
        let (terms, delegation) = (open(body.terms)?, body.delegation.map(open).transpose()?);
        let routes = body.routes.into_iter().map(ShortRoute::grow).collect::<Option<Vec<_>>>();
        Self::new(terms, delegation, seed, routes.ok_or_else(|| damaged("it has an unreadable address"))?)
    }

    /// The printed form: one line, lower case, with the secret in it.
    ///
    /// # Errors
    /// [`InviteError::Addresses`] when an address is too long.
    pub fn print(&self) -> Result<String, InviteError> {
        let routes = self.routes.iter().map(ShortRoute::shrink).collect::<Option<Vec<_>>>();
        let body = Body {
            terms: self.terms.sealed().clone(),
            delegation: self.delegation.as_ref().map(|paper| paper.sealed().clone()),
            routes: routes.ok_or(InviteError::Addresses)?,
        };
        let blob = minicbor::to_vec(&body).map_err(|error| InviteError::Damaged(error.to_string()))?;
        let (pool, author) = (self.details.pool, self.terms.author());
        let packed = pack::pack(&keys(pool, &self.seed, author), &blob);
        let bytes = Zeroizing::new([&pool.0.0, self.seed.as_slice(), &author.0, &packed].concat());
        Ok(text::write(PREFIX, &bytes))
    }

    /// The pool that it leads to.
    pub fn pool(&self) -> PoolId {
        self.details.pool
    }

    /// Its public name.
    pub fn id(&self) -> InviteId {
        self.details.invite
    }

    /// What it says.
    pub fn terms(&self) -> &InviteTerms {
        &self.details
    }

    /// Who made it.
    pub fn issuer(&self) -> NodeId {
        self.terms.author()
    }

    /// The key that was made for it: whoever uses the invite dials as this.
    pub fn key(&self) -> Signer {
        Signer::from_seed(*self.seed)
    }

    /// Where issuers can be dialled.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("terms", &self.details)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl ShortRoute {
    fn shrink(route: &Route) -> Option<Self> {
        let addresses = route.addresses.iter().map(|text| address::shrink(text).map(Into::into));
        Some(Self { node: route.node, addresses: addresses.collect::<Option<_>>()? })
    }

    fn grow(self) -> Option<Route> {
        let addresses = self.addresses.iter().map(|bytes| address::grow(bytes)).collect::<Option<_>>()?;
        Some(Route { node: self.node, addresses })
    }
}

/// The keys that occur again and again.
fn keys(pool: PoolId, seed: &[u8; 32], author: NodeId) -> [[u8; 32]; 3] {
    [pool.0.0, Signer::from_seed(*seed).node().0, author.0]
}

/// Whether text looks like an invite of a version to come.
fn newer(printed: &str) -> bool {
    let rest = printed.trim().get(..8).and_then(|start| start.strip_prefix("potluck"));
    rest.is_some_and(|digit| digit.chars().all(|c| ('2'..='9').contains(&c)))
}
