//! Servers that this machine shares with the pool: kept on disk, and shared again after a restart.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    dispatch::{
        load::LoadSource,
        several::{Part, Several},
        share::{Share, ShareConfig},
    },
    identity::NodeId,
    pool::trusted::service::PoolError,
};

const FILE: &str = "shares.json";
/// First wait for a server that is not there after a restart; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(2);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// A server as it is written down. The file is the owner's alone: it may hold a key.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    slots: usize,
}

/// A server that is shared, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    /// Its address.
    pub(super) url: String,
    /// Jobs it is given at the same time.
    pub(super) slots: usize,
    /// Whether it answered; one that is away is tried again.
    pub(super) there: bool,
    /// Its models.
    pub(super) models: Vec<String>,
}

/// The shared servers of this machine.
pub(super) struct Shares {
    folder: PathBuf,
    node: NodeId,
    engines: Several,
    state: Mutex<BTreeMap<String, (Kept, Option<Part>)>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shares").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Shares {
    /// Shares again what was shared before; servers that are away are waited for in the background.
    pub(super) fn open(
        folder: &Path,
        node: NodeId,
        engines: Several,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, PoolError> {
        let kept = read(folder)?;
        let state = kept.into_iter().map(|(url, kept)| (url, (kept, None))).collect();
        let shares = Self { folder: folder.to_owned(), node, engines, state: Mutex::new(state), stop };
        let shares = Arc::new(shares);
        let urls: Vec<String> = shares.lock().keys().cloned().collect();
        for url in urls {
            tokio::spawn(Arc::clone(&shares).bring(url));
        }
        Ok(shares)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Kept, Option<Part>)>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until the server is there, nobody wants it any more, or the node ends.
    async fn bring(self: Arc<Self>, url: String) {
        let mut wait = FIRST;
        loop {
            let kept = match self.lock().get(&url) {
                Some((kept, None)) => kept.clone(),
                _ => return,
            };
            match self.bind(&url, &kept).await {
                Ok(part) => {
                    self.put(&url, part);
                    return;
                }
                Err(reason) => tracing::info!(url, reason, "a shared server is away"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST),
            }
        }
    }

    async fn bind(&self, url: &str, kept: &Kept) -> Result<Part, String> {
        let config = ShareConfig {
            node: self.node.to_string(),
            url: url.to_owned(),
            key: kept.key.clone(),
            slots: kept.slots,
        };
        let share = Share::bind(config).await.map_err(|error| error.to_string())?;
        Ok(Part { provider: Arc::new(share.clone()), load: Arc::new(share) })
    }

    /// Offers a server's models, in place of what was offered under its address before.
    fn put(&self, url: &str, part: Part) {
        let mut state = self.lock();
        let Some((_, held)) = state.get_mut(url) else { return };
        if let Some(old) = held.replace(part.clone()) {
            self.engines.remove(&old);
        }
        self.engines.add(part);
    }

    /// Shares a server, which must be there; its models. On disk when this returns.
    ///
    /// # Errors
    /// What is wrong with the server or the disk, in words.
    pub(super) async fn share(
        &self,
        url: String,
        key: Option<String>,
        slots: usize,
    ) -> Result<Vec<String>, String> {
        let url = url.trim_end_matches('/').to_owned();
        let kept = Kept { key, slots };
        let part = self.bind(&url, &kept).await?;
        let models = names(&*part.load).await;
        {
            let mut state = self.lock();
            let old = state.get(&url).and_then(|(_, part)| part.clone());
            state.insert(url.clone(), (kept, old));
            write(&self.folder, &state).map_err(|error| error.to_string())?;
        }
        self.put(&url, part);
        Ok(models)
    }

    /// Shares a server no longer. `false` if it was not shared.
    ///
    /// # Errors
    /// [`PoolError::File`] when that cannot be written.
    pub(super) fn end(&self, url: &str) -> Result<bool, PoolError> {
        let mut state = self.lock();
        let Some((_, part)) = state.remove(url.trim_end_matches('/')) else { return Ok(false) };
        if let Some(part) = part {
            self.engines.remove(&part);
        }
        write(&self.folder, &state).map(|()| true)
    }

    /// What is shared.
    pub(super) async fn list(&self) -> Vec<Row> {
        let held: Vec<_> = self.lock().iter().map(|(url, held)| (url.clone(), held.clone())).collect();
        let mut rows = Vec::with_capacity(held.len());
        for (url, (kept, part)) in held {
            let models = match &part {
                Some(part) => names(&*part.load).await,
                None => Vec::new(),
            };
            rows.push(Row { url, slots: kept.slots, there: part.is_some(), models });
        }
        rows
    }
}

async fn names(load: &dyn LoadSource) -> Vec<String> {
    load.now().await.into_iter().map(|model| model.name).collect()
}

fn read(folder: &Path) -> Result<BTreeMap<String, Kept>, PoolError> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| PoolError::File { path, reason: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(PoolError::File { path, reason: error.to_string() }),
    }
}

fn write(folder: &Path, state: &BTreeMap<String, (Kept, Option<Part>)>) -> Result<(), PoolError> {
    let path = folder.join(FILE);
    let kept: BTreeMap<&String, &Kept> = state.iter().map(|(url, (kept, _))| (url, kept)).collect();
    let bytes = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    crate::atomic::write(&path, |file| file.write_all(&bytes))
        .map_err(|error| PoolError::File { path, reason: error.to_string() })
}
