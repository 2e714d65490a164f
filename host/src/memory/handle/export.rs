//! Everything out again: entries with their provenance, in the order of each machine's log.

use std::{ops::ControlFlow, sync::Arc};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::memory::{Filter, MemoryError, engine::Engine, record::Entry, show};

/// Lines that wait for a slow reader.
const BUFFER: usize = 64;

/// Sends every entry that the filter describes; tombstones always, since they speak for others.
pub(super) fn export(
    engine: Arc<Engine>,
    filter: Filter,
    vectors: bool,
) -> mpsc::Receiver<Result<Value, MemoryError>> {
    let (send, receive) = mpsc::channel(BUFFER);
    tokio::task::spawn_blocking(move || {
        let everything = filter == Filter::default();
        let outcome = engine.reader.for_each(None, 0, |_, entry| {
            let wanted = everything || fits(&engine, &filter, &entry);
            if !wanted || !vectors && matches!(entry, Entry::Vectors(_)) {
                return ControlFlow::Continue(());
            }
            // The receiver is gone when nobody reads any more.
            if send.blocking_send(Ok(show::line(&entry))).is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        if let Err(error) = outcome {
            let _ = send.blocking_send(Err(error.into()));
        }
    });
    receive
}

fn fits(engine: &Engine, filter: &Filter, entry: &Entry) -> bool {
    if let Entry::Version(version) = entry
        && version.header.is_tombstone()
    {
        return true;
    }
    let state = engine.read();
    let Some(known) = state.table.known(filter) else { return false };
    state.table.ordinal(entry.version()).is_some_and(|ordinal| state.table.fits(ordinal, &known))
}
