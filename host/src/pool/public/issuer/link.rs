//! Asking an issuer.

use std::{sync::Arc, time::Duration};

use potluck_primitives::{Account, Genesis};

use super::{
    super::token::{Mint, TokenError},
    wire::{self, Answer, ISSUER, Question, Refusal},
};
use crate::{
    identity::NodeId,
    mesh::{
        frame::FrameError,
        streams::{OpenError, Streams},
    },
};

/// How long an answer may take; RSA for 128 tokens takes a second or two of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an issuer did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No stream could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error("the issuer's answer did not come: {0}")]
    Frame(#[from] FrameError),
    /// It took too long.
    #[error("the issuer did not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// It refuses.
    #[error("the issuer refuses: {0}")]
    Refused(Refusal),
    /// It answers something else.
    #[error("the issuer answers what was not asked")]
    Nonsense,
    /// Its keys.
    #[error("the issuer's keys: {0}")]
    Keys(#[from] TokenError),
}

/// The way to one issuer. The connection is not its user's name: what an account asks for is signed by it, inside.
#[derive(Clone, Debug)]
pub struct IssuerLink {
    streams: Arc<dyn Streams>,
    node: NodeId,
    genesis: Genesis,
}

impl IssuerLink {
    /// The way to the issuer of this node id, over these streams.
    pub fn new(streams: Arc<dyn Streams>, node: NodeId, genesis: Genesis) -> Self {
        Self { streams, node, genesis }
    }

    /// The issuer's account.
    pub fn issuer(&self) -> Account {
        self.node.0
    }

    /// The chain its vouchers are for.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Asks; a refusal is an answer.
    ///
    /// # Errors
    /// [`LinkError::Open`], [`LinkError::Frame`], [`LinkError::Late`]
    pub async fn ask(&self, question: &Question) -> Result<Answer, LinkError> {
        let asked = async {
            let mut stream = self.streams.open(self.node, ISSUER).await?;
            wire::write(&mut stream, question, wire::MAX_QUESTION).await?;
            Ok(wire::read(&mut stream, wire::MAX_ANSWER).await?)
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| LinkError::Late)?
    }

    /// Its keys, checked.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn mint(&self) -> Result<Mint, LinkError> {
        match self.ask(&Question::Catalogue).await? {
            Answer::Catalogue(catalogue) if catalogue.said.issuer == self.issuer() => {
                Ok(Mint::open(catalogue, &self.genesis)?)
            }
            Answer::Refused(refusal) => Err(LinkError::Refused(refusal)),
            _ => Err(LinkError::Nonsense),
        }
    }
}
