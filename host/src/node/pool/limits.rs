//! How much each member may take from this machine, on disk.

use std::{fs, io::Write, path::Path};

use crate::{
    identity::NodeId,
    pool::trusted::{
        ledger::{Ledger, Limits},
        service::PoolError,
    },
};

const FILE: &str = "limits.json";

/// The limits kept in a folder.
///
/// # Errors
/// [`PoolError::File`] for a file that is not what it should be: no limit is better than a wrong one for nobody.
pub(super) fn read(folder: &Path) -> Result<Limits, PoolError> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| PoolError::File { path, reason: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Limits::default()),
        Err(error) => Err(PoolError::File { path, reason: error.to_string() }),
    }
}

/// Changes one, on disk first.
pub(super) fn set(
    folder: &Path,
    ledger: &Ledger,
    node: NodeId,
    micros: Option<u64>,
) -> Result<(), PoolError> {
    let mut limits = read(folder)?;
    match micros {
        Some(micros) => limits.members.insert(node, Some(micros)),
        None => limits.members.remove(&node),
    };
    let path = folder.join(FILE);
    let bytes = serde_json::to_vec_pretty(&limits).unwrap_or_default();
    crate::atomic::write(&path, |file| file.write_all(&bytes))
        .map_err(|error| PoolError::File { path, reason: error.to_string() })?;
    ledger.set_limits(limits);
    Ok(())
}
