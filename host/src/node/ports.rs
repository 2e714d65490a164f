//! Who has a port, for errors that say what to do.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
};

/// Why an address could not be listened on, and what to do about it.
pub fn explain(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            let who = owner(address.port())
                .map_or_else(String::new, |(pid, name)| format!(" by {name} (process {pid})"));
            format!(
                "the port is in use{who}; stop that program, or pass --listen {}:0 for any free port",
                address.ip()
            )
        }
        ErrorKind::AddrNotAvailable => format!("{error}; the address is not one of this machine's"),
        ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need rights that this user does not have")
        }
        _ => error.to_string(),
    }
}

/// The process that listens on a TCP port of this machine, where the system tells (Linux, own processes).
pub fn owner(port: u16) -> Option<(u32, String)> {
    let wanted = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| table.lines().skip(1).find_map(|line| inode(line, port)))?;
    let link = format!("socket:[{wanted}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str()))
            .then(|| {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                (pid, name.trim().to_owned())
            })
    })
}

/// The socket's inode when the line of `/proc/net/tcp` is a listener on `port`.
fn inode(line: &str, port: u16) -> Option<u64> {
    let mut columns = line.split_ascii_whitespace();
    let local = columns.nth(1)?;
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?;
    let (_, hex) = local.rsplit_once(':')?;
    let listening = state == "0A" && u16::from_str_radix(hex, 16) == Ok(port);
    listening.then(|| inode.parse().ok()).flatten()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(owner(port).unwrap().0, std::process::id());
        drop(listener);
        assert_eq!(owner(port), None);
    }
}
