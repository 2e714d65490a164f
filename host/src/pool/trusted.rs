//! The trusted pool: machines of people who know each other, with no token and no chain.
//!
//! * [`papers`]: the signed statements that a pool consists of, and the invite as people pass it on.
//! * [`roster`]: the set of papers that every member holds, and what follows from it.
//! * [`join`]: how a machine with an invite becomes a member.
//! * [`exchange`]: how two members bring each other up to date before they do anything else.
//! * [`service`]: the actor that owns all this, and its handle.
//! * [`ledger`]: who gave and took how much.

pub mod clock;
pub mod exchange;
pub mod grants;
pub mod join;
mod journal;
pub mod ledger;
pub mod names;
pub mod papers;
pub mod roster;
pub mod service;

pub use grants::{Grants, MemoryGrant, Scope};
pub use service::{Admitted, Membership, PoolHandle, TrustedPool};
