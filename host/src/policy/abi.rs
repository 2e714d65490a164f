//! The versions of the interface that this host speaks, each in a file of its own. Which one a component speaks is
//! seen from its exports. Everything outside this module knows the newest words only, those of [`super::types`].

mod v0_1;

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmtime::{
    Store,
    component::{Component, Linker},
};

use super::{
    Kind, LoadError,
    engine::{limits::Limits, short},
    types::{Candidate, Description, Input, Job, Output, Ranking},
};

/// A version of the interface `potluck:policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Abi {
    /// `potluck:policy@0.1`.
    #[serde(rename = "0.1")]
    V0_1,
}

impl Abi {
    /// All versions, the oldest first.
    pub const ALL: [Self; 1] = [Self::V0_1];

    /// The version in text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1 => "0.1",
        }
    }

    /// The version that the name of an interface belongs to, such as `0.1.3`: an older one's patches are its own.
    pub(crate) fn of(version: &str) -> Option<Self> {
        let patch_of = |abi: &Self| {
            let rest = version.strip_prefix(abi.as_str()).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
        };
        Self::ALL.into_iter().find(patch_of)
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a component exports: the answer to one kind of question, in one version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) kind: Kind,
    pub(crate) abi: Abi,
}

/// A compiled component whose exports were found and have the right types.
#[derive(Clone)]
pub(crate) enum Program {
    V0_1(v0_1::Program),
}

impl Program {
    pub(crate) fn new(
        linker: &Linker<Limits>,
        component: &Component,
        interface: Interface,
    ) -> Result<Self, LoadError> {
        let pre = linker.instantiate_pre(component).map_err(|error| LoadError::Shape(short(&error)))?;
        let program = match interface.abi {
            Abi::V0_1 => v0_1::Program::new(pre, interface.kind).map(Self::V0_1),
        };
        program.map_err(|error| LoadError::Shape(short(&error)))
    }

    pub(crate) fn instantiate(&self, store: &mut Store<Limits>) -> wasmtime::Result<Guest> {
        match self {
            Self::V0_1(program) => program.instantiate(store).map(Guest::V0_1),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::V0_1(program) => program.kind(),
        }
    }

    pub(crate) const fn abi(&self) -> Abi {
        match self {
            Self::V0_1(_) => Abi::V0_1,
        }
    }
}

/// An instance.
pub(crate) enum Guest {
    V0_1(v0_1::Guest),
}

impl Guest {
    pub(crate) fn describe(&self, store: &mut Store<Limits>) -> wasmtime::Result<Description> {
        match self {
            Self::V0_1(guest) => guest.describe(store),
        }
    }

    /// Asks; `None`: it decides other things.
    pub(crate) fn decide(
        &self,
        store: &mut Store<Limits>,
        input: &Input,
    ) -> wasmtime::Result<Option<Output>> {
        match self {
            Self::V0_1(guest) => guest.decide(store, input),
        }
    }

    /// Asks for an order; `None`: it decides other things.
    pub(crate) fn rank(
        &self,
        store: &mut Store<Limits>,
        job: &Job,
        candidates: &[Candidate],
        now: u64,
        seed: u64,
    ) -> wasmtime::Result<Option<Result<Ranking, String>>> {
        match self {
            Self::V0_1(guest) => guest.rank(store, job, candidates, now, seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_belongs_to_its_version() {
        assert_eq!(Abi::of("0.1.0"), Some(Abi::V0_1));
        assert_eq!(Abi::of("0.1.12"), Some(Abi::V0_1));
        for other in ["0.1", "0.10.0", "0.2.0", "1.1.0", "0.1.0-rc1", "0.1.", ""] {
            assert_eq!(Abi::of(other), None, "{other}");
        }
    }
}
