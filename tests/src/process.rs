//! What the system says about a process.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// A field of `/proc/PID/status` in bytes.
fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Resident memory of a process in bytes; `None` where there is no `/proc`.
pub fn rss(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS")
}

/// The most memory a process ever had resident, in bytes.
pub fn peak_rss(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM")
}

/// Threads of a process.
pub fn threads(pid: u32) -> Option<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(entries.count() as u64)
}

/// Open files and sockets of a process.
pub fn descriptors(pid: u32) -> Option<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(entries.count() as u64)
}

/// The median of resident memory over a second, which a passing peak does not move.
pub fn settled_rss(pid: u32) -> Option<u64> {
    let mut seen = Vec::new();
    for _ in 0..11 {
        seen.push(rss(pid)?);
        thread::sleep(Duration::from_millis(100));
    }
    seen.sort_unstable();
    Some(seen[seen.len() / 2])
}

/// Whether this program is on the path and answers `--version`.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits until `what` holds; `false` when it does not within `limit`.
pub fn eventually(limit: Duration, mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if what() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
