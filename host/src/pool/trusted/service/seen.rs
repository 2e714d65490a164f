//! When the members were last heard of, over restarts.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use super::{super::clock::Millis, actor::Actor};
use crate::{atomic, identity::NodeId};

const FILE: &str = "seen.json";
/// Longest file that is read, in bytes: more than a full pool needs.
const LONGEST: u64 = 1 << 20;

/// What is on disk. It is for people to look at only: a file that cannot be read is an empty one.
pub(super) fn read(folder: &Path) -> BTreeMap<NodeId, Millis> {
    let path = folder.join(FILE);
    let short = fs::metadata(&path).is_ok_and(|file| file.len() <= LONGEST);
    let bytes = if short { fs::read(&path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&bytes).unwrap_or_default()
}

impl Actor {
    /// Writes it down.
    pub(super) async fn keep_seen(&mut self) {
        let now = self.now();
        self.seen_kept = now;
        if self.home.is_none() {
            return;
        }
        let talking = self.talks.iter().filter(|(_, talk)| talk.admitted.is_some());
        self.last_seen.extend(talking.map(|(node, _)| (*node, now)).collect::<Vec<_>>());
        let path = self.settings.folder.join(FILE);
        let bytes = serde_json::to_vec(&self.last_seen).unwrap_or_default();
        let written =
            tokio::task::spawn_blocking(move || atomic::write(&path, |file| file.write_all(&bytes))).await;
        if let Ok(Err(error)) = written {
            self.note(None, format!("when members were last seen could not be written down: {error}"));
        }
    }
}
