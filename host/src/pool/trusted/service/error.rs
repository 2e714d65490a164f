//! What the owner of a machine is told.

use super::super::{
    grants::GrantError,
    join::JoinError,
    journal::JournalError,
    ledger::LedgerError,
    names::NameError,
    papers::{ExportError, InviteError, PaperError, PoolId},
};
use crate::{identity::SignerError, mesh::streams::OpenError};

/// Why something about the pool was not done.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// There is no pool.
    #[error("this machine is in no pool: run `potluck pool create NAME`, or `potluck join INVITE`")]
    NoPool,
    /// A machine is in one pool at most.
    #[error(
        "this machine is in the pool `{name}` already, and a machine is in one pool at most: run `potluck pool leave` first"
    )]
    AlreadyIn {
        /// The name of that pool.
        name: String,
        /// The pool.
        pool: PoolId,
    },
    /// Only administrators may.
    #[error("only an administrator of the pool may do this; administrators are: {}", admins.join(", "))]
    NotAdmin {
        /// Their names.
        admins: Vec<String>,
    },
    /// Only the holder of the root key may.
    #[error(
        "this needs the pool's root key, which is not on this machine: do it where `pool create` was run, or import the key"
    )]
    NotOwner,
    /// This machine was thrown out.
    #[error(
        "this machine was revoked from the pool{}: run `potluck pool leave`; to come back it needs a new key and an invite",
        why(reason)
    )]
    Revoked {
        /// Why.
        reason: Option<String>,
    },
    /// Nothing is called so.
    #[error("no {what} of this pool is called `{wanted}`: see `potluck pool members`")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// What it should be called.
        wanted: String,
    },
    /// More than one is.
    #[error("`{wanted}` can be any of {}: give more of its id", matches.join(", "))]
    Ambiguous {
        /// What it should be called.
        wanted: String,
        /// What it could be.
        matches: Vec<String>,
    },
    /// A machine does not revoke itself.
    #[error("this is this machine itself: run `potluck pool leave`")]
    Oneself,
    /// Nobody could invite or revoke any more.
    #[error(
        "nobody else holds the pool's key, so nobody could invite or renew any more: export the key first (`potluck pool export-key FILE`), or leave with --force"
    )]
    LastAdmin,
    /// The name is taken.
    #[error("`{name}` is the name of another member: choose another")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A grant cannot be given.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// A paper cannot be made.
    #[error("this cannot be written down: {0}")]
    Paper(#[from] PaperError),
    /// An invite cannot be made or read.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// It did not become a member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// No issuer can be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file of the pool.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The root key's file.
    #[error(transparent)]
    Key(#[from] SignerError),
    /// The root key cannot be taken out or in.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// Nobody could reach this machine.
    #[error("the other members cannot reach this machine: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// A file of the owner's wishes cannot be read or written.
    #[error("{} cannot be used: {reason}; mend it, or remove it to begin anew", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The memory cannot be shared.
    #[error("the memory cannot be shared: {0}")]
    Memory(String),
    /// Policies cannot be run or kept.
    #[error("the policies of the pool cannot be used: {0}")]
    Policies(String),
    /// It has ended.
    #[error("the pool is shutting down")]
    Closed,
}

fn why(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}
