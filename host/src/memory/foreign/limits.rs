//! What an importer may use.

use std::time::Duration;

/// What an importer may use. The default fits exports of several gigabytes and the Python interpreter.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest component, in bytes.
    pub component: u64,
    /// Memory of the guest in all, in bytes.
    pub memory: usize,
    /// Instructions for one call, in wasmtime's units of fuel.
    pub fuel: u64,
    /// Longest time of one call.
    pub call: Duration,
    /// Longest time of all calls together. The time in which nobody takes what was read does not count.
    pub total: Duration,
    /// Bytes that one call may give back, lists and texts together.
    pub batch: usize,
    /// Records and problems in all.
    pub items: u64,
    /// Bytes of all records' texts.
    pub texts: u64,
    /// Files, folders and streams open at once.
    pub handles: usize,
    /// Bytes kept of what it writes to stdout and stderr: the last ones.
    pub said: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component: 32 << 20,
            memory: 256 << 20,
            fuel: 50_000_000_000,
            call: Duration::from_secs(60),
            total: Duration::from_secs(3600),
            batch: 32 << 20,
            items: 5_000_000,
            texts: 8 << 30,
            handles: 256,
            said: 4 << 10,
        }
    }
}
