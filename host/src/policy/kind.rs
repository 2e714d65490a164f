use std::{fmt, str::FromStr};

use parity_scale_codec::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What a policy decides.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Who serves a job.
    Routing,
    /// What a job costs.
    Pricing,
    /// What counts as cheating.
    Slashing,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Routing, Self::Pricing, Self::Slashing];

    /// The word used in commands, files and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Pricing => "pricing",
            Self::Slashing => "slashing",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no kind of policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of policy; use routing, pricing or slashing")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let lower = word.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| kind.as_str() == lower).ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), serde_json::json!(kind.as_str()));
        }
        assert_eq!("weather".parse::<Kind>(), Err(UnknownKind("weather".into())));
    }
}
