//! An importer that was read, checked and compiled.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
};

use blake2::{Blake2bVar, digest::VariableOutput as _};
use wasmparser::Parser;
use wasmtime::component::Component;

use super::{
    bindings::ImporterPre,
    error::ForeignError,
    gate,
    grant::Grant,
    guest::Guest,
    limits::Limits,
    run::{self, Import},
};

/// An importer that can be run: checked and compiled, nothing of it has run.
#[derive(Clone)]
pub struct Importer {
    pub(super) pre: Arc<ImporterPre<Guest>>,
    pub(super) limits: Arc<Limits>,
    hash: [u8; 32],
}

impl fmt::Debug for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Importer").field("hash", &self.hash_text()).finish_non_exhaustive()
    }
}

impl Importer {
    /// Reads, checks and compiles a component. Takes about a second per megabyte of machine code, so that it belongs
    /// on a thread that may block.
    ///
    /// # Errors
    /// [`ForeignError::Unreadable`], and those of [`from_bytes`](Self::from_bytes).
    pub fn open(path: &Path, limits: Limits) -> Result<Self, ForeignError> {
        let failed = |source| ForeignError::Unreadable { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(limits.component.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        Self::from_bytes(&bytes, limits)
    }

    /// Checks and compiles a component.
    ///
    /// # Errors
    /// [`ForeignError::Large`], [`ForeignError::NotComponent`], [`ForeignError::Imports`] with what it asks for and
    /// does not get, [`ForeignError::World`] when it does not export what importers do, [`ForeignError::Engine`].
    pub fn from_bytes(bytes: &[u8], limits: Limits) -> Result<Self, ForeignError> {
        if bytes.len() as u64 > limits.component {
            return Err(ForeignError::Large { most: limits.component });
        }
        if !Parser::is_component(bytes) {
            let reason = if Parser::is_core_wasm(bytes) {
                "it is a module and not a component"
            } else {
                "it is not WebAssembly"
            };
            return Err(ForeignError::NotComponent { reason: reason.into() });
        }
        let engine = gate::engine()?;
        let component = Component::from_binary(engine, bytes)
            .map_err(|error| ForeignError::NotComponent { reason: format!("{error:#}") })?;
        gate::check_imports(&component)?;
        let linker = gate::linker(&component)?;
        let pre = linker
            .instantiate_pre(&component)
            .and_then(ImporterPre::new)
            .map_err(|error| ForeignError::World { reason: format!("{error:#}") })?;
        Ok(Self { pre: Arc::new(pre), limits: Arc::new(limits), hash: hash(bytes) })
    }

    /// The same importer under other limits.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self { limits: Arc::new(limits), ..self.clone() }
    }

    /// BLAKE2b-256 of the component's bytes, as for all components; in hexadecimal digits.
    pub fn hash_text(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The name of an importer as a record's source has it: the name and the first eight digits of the hash.
    pub fn agent(&self, name: &str) -> String {
        format!("{name}@{}", self.hash_text().get(..8).unwrap_or_default())
    }

    /// Starts it over a file or folder, on a thread of its own.
    ///
    /// # Errors
    /// [`ForeignError::Stopped`] where there is no thread for it, or it does not say properly what it is.
    pub fn import(&self, grant: Grant) -> Result<Import, ForeignError> {
        run::start(self, grant)
    }
}

/// The hash that names a component.
fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // Neither fails: 32 is a length that BLAKE2b has, and a hasher takes every byte.
    if let Ok(mut hasher) = Blake2bVar::new(out.len()) {
        let _ = hasher.write_all(bytes);
        let _ = hasher.finalize_variable(&mut out);
    }
    out
}
