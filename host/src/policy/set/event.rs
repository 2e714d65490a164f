use std::fmt;

use serde::Serialize;

use crate::policy::{Kind, PolicyHash};

/// Something happened to a set of policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A policy decides from now on.
    Activated {
        /// What it decides.
        kind: Kind,
        /// Which.
        hash: PolicyHash,
        /// Who chose it.
        by: String,
        /// From when on it was to decide, in milliseconds since 1970.
        from_ms: u64,
        /// What decided before.
        replaced: Option<PolicyHash>,
    },
    /// No policy decides any more.
    Deactivated {
        /// What it decided.
        kind: Kind,
        /// Which.
        hash: PolicyHash,
    },
    /// Somebody went back to what decided before.
    RolledBack {
        /// About what.
        kind: Kind,
        /// What decided until now.
        from: Option<PolicyHash>,
        /// What decides now; `None`: the native default.
        to: Option<PolicyHash>,
    },
    /// A policy failed too often and is not asked any more.
    SetAside {
        /// What it decided.
        kind: Kind,
        /// Which.
        hash: PolicyHash,
        /// Failures in a row.
        failures: u32,
        /// The last of them.
        error: String,
    },
    /// An approved policy cannot be used.
    Unusable {
        /// What it was to decide.
        kind: Kind,
        /// Which.
        hash: PolicyHash,
        /// Why.
        error: String,
    },
    /// An approved policy is not there yet.
    Missing {
        /// What it is to decide.
        kind: Kind,
        /// Which.
        hash: PolicyHash,
        /// Why.
        error: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named =
            |hash: &Option<PolicyHash>| hash.map_or_else(|| "the default".into(), |hash| hash.to_string());
        match self {
            Self::Activated { kind, hash, by, .. } => {
                write!(f, "{kind} is decided by {hash} from now on, says {by}")
            }
            Self::Deactivated { kind, hash } => write!(f, "{kind} is no longer decided by {hash}"),
            Self::RolledBack { kind, from, to } => {
                write!(f, "{kind} went back from {} to {}", named(from), named(to))
            }
            Self::SetAside { kind, hash, failures, error } => {
                write!(
                    f,
                    "the {kind} policy {hash} failed {failures} times in a row and was set aside: {error}"
                )
            }
            Self::Unusable { kind, hash, error } => {
                write!(f, "the approved {kind} policy {hash} cannot be used: {error}")
            }
            Self::Missing { kind, hash, error } => {
                write!(f, "the approved {kind} policy {hash} is not there: {error}")
            }
        }
    }
}
