//! The development chain's specification, with an account for the machine that starts it.

use std::{fs, path::PathBuf};

use potluck_chain_client::spec;
use serde_json::Value;

use super::super::CliError;
use crate::{config::Config, identity::Signer};

/// The specification that the runtime's own tests use, as it is built with the runtime.
const SPEC: &str = include_str!("../../../../chain/dist/development.json");

/// Where a development chain's files are.
pub(super) fn folder(config: &Config) -> Result<PathBuf, CliError> {
    let folder = config.home()?.join("chain-dev");
    fs::create_dir_all(&folder).map_err(|source| CliError::Io {
        what: "the folder of the development chain could not be made",
        source,
    })?;
    Ok(folder)
}

/// Writes the specification; this machine's account has in it what alice has.
pub(super) fn write(config: &Config) -> Result<PathBuf, CliError> {
    let broken = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let mut chain: Value = serde_json::from_str(SPEC).map_err(|error| broken(&error))?;
    let home = config.home()?;
    // The node makes the same key when it starts first.
    let signer = Signer::load_or_create(&home.join("node.key")).map_err(|error| broken(&error))?;
    let alice = spec::known_key("alice").account();
    spec::fund(&mut chain, signer.node().0, alice).map_err(|error| broken(&error))?;
    let path = folder(config)?.join("development.json");
    let failed = |source| CliError::Io { what: "the specification could not be written", source };
    fs::write(&path, chain.to_string()).map_err(failed)?;
    Ok(path)
}
