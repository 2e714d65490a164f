//! Whose a namespace is, and the end of those whose process is gone.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, Signal};

/// Where `ip netns` keeps the names.
const FOLDER: &str = "/run/netns";
/// What all names begin with.
const OURS: &str = "potluck-";

/// How many labs this process made.
static LABS: AtomicU32 = AtomicU32::new(0);

/// What the names of a new lab's namespaces begin with: the process, when it started, and a serial number.
pub(super) fn prefix(lab: &str) -> String {
    let pid = process::id();
    let started = started(pid).expect("/proc knows this process");
    let serial = LABS.fetch_add(1, Ordering::Relaxed);
    format!("{OURS}{pid}-{started}-{serial}-{}-", plain(lab))
}

/// A name without what a path or a command line would stumble over, at most 40 characters.
pub(super) fn plain(name: &str) -> String {
    name.chars().take(40).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// The path of a named namespace.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// When a process started, in ticks since the machine did: a later process with the same id has another one.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets that may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the process that made this namespace is gone; `false` for names that are not ours.
fn orphaned(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(OURS) else { return false };
    let mut fields = rest.split('-');
    let pid = fields.next().and_then(|field| field.parse().ok());
    let since: Option<u64> = fields.next().and_then(|field| field.parse().ok());
    match (pid, since) {
        (Some(pid), Some(since)) => started(pid) != Some(since),
        _ => false,
    }
}

/// Ends what dead processes left.
pub(super) fn sweep() {
    end(orphaned);
}

/// Ends the namespaces with these names, and the processes in them.
pub(super) fn end(which: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    let names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|n| which(n))
        .collect();
    if names.is_empty() {
        return;
    }
    // Held open while their processes are looked for: the system gives the number of one that is gone to the next.
    let held: Vec<File> = names.iter().filter_map(|name| File::open(path(name)).ok()).collect();
    let inodes = held.iter().filter_map(|file| file.metadata().ok()).map(|about| inode(&about)).collect();
    kill(&inodes, &names.iter().map(|name| entering(&path(name))).collect());
    for name in &names {
        // Another process may sweep the same one right now.
        let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
    }
}

fn inode(about: &fs::Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// The argument with which `nsenter` is told where to go.
pub(super) fn entering(namespace: &Path) -> String {
    format!("--net={}", namespace.display())
}

/// Kills the processes that live in these namespaces, or are about to, until there are none: they may fork
/// meanwhile.
fn kill(namespaces: &BTreeSet<(u64, u64)>, arguments: &BTreeSet<String>) {
    for _ in 0..100 {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if pid == process::id() || !lives_in(&entry.path(), namespaces, arguments) {
                continue;
            }
            found = true;
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if !found {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn lives_in(process: &Path, namespaces: &BTreeSet<(u64, u64)>, arguments: &BTreeSet<String>) -> bool {
    // In this order: what is no longer on its way has arrived.
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let enters = line.split(|byte| *byte == 0).any(|word| {
        word.starts_with(b"--net=") && std::str::from_utf8(word).is_ok_and(|word| arguments.contains(word))
    });
    let net = fs::metadata(process.join("ns/net"));
    enters || net.is_ok_and(|net| namespaces.contains(&inode(&net)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_orphaned() {
        assert!(!orphaned(&prefix("mine")));
        let pid = process::id();
        assert!(orphaned(&format!("{OURS}{pid}-1-0-an-earlier-process-with-this-id-0-a")));
        assert!(orphaned(&format!("{OURS}4194999-77-0-nobody-0-a")));
        for foreign in ["blue", "potluck-", "potluck-x-1-0", "potluck-4194999", "potluck-4194999-x-0"] {
            assert!(!orphaned(foreign), "{foreign}");
        }
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(plain("a b/../c\n"), "a-b----c-");
        assert_eq!(plain(&"x".repeat(100)).len(), 40);
    }
}
