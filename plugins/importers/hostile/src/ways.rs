//! The ways to misbehave.

use wasip2::{
    cli::{environment, exit, stderr, stdout},
    clocks::{monotonic_clock, wall_clock},
    filesystem::{
        preopens::get_directories,
        types::{Descriptor, DescriptorFlags, NewTimestamp, OpenFlags, PathFlags},
    },
    random::random::get_random_bytes,
    sockets::{instance_network, ip_name_lookup, network::IpAddressFamily, tcp_create_socket},
};

use super::{Kind, Out, entry};

/// Does one of them.
pub(super) fn act(way: &str, out: &mut Out) {
    match way {
        "climb" => climb(out),
        "links" => links(out),
        "write" => write(out),
        "list" => list(out),
        "socket" => out.tried("socket", tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4)),
        "lookup" => {
            let network = instance_network::instance_network();
            out.tried("lookup", ip_name_lookup::resolve_addresses(&network, "example.com"));
        }
        "look-around" => look_around(out),
        "sleep" => sleep(out),
        "bomb" => bomb(),
        "recursion" => out.did(format!("deep {}", deeper(1))),
        "many" => (0..10_000).for_each(|number| out.did(format!("entry {number}"))),
        "huge" => out.did("x".repeat(100 << 20)),
        "bounds" => bounds(out),
        "handles" => handles(out),
        "talk" => talk(),
        "exit" => exit::exit(Err(())),
        "pipe" => out.tried("pipe", read(&top(), "pipe", PathFlags::empty())),
        "endless" => (0..256).for_each(|number| out.did(format!("{number} {}", "x".repeat(4000)))),
        _ => out.did(format!("nothing for {way}")),
    }
}

/// Never ends.
pub(super) fn spin<T>() -> T {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

fn top() -> Descriptor {
    match get_directories().pop() {
        Some((folder, _)) => folder,
        None => panic!("no folder"),
    }
}

fn read(folder: &Descriptor, path: &str, flags: PathFlags) -> Result<String, String> {
    let file = folder
        .open_at(flags, path, OpenFlags::empty(), DescriptorFlags::READ)
        .map_err(|code| format!("{code:?}"))?;
    let (bytes, _) = file.read(4096, 0).map_err(|code| format!("{code:?}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Every way up and out that a path can name.
fn climb(out: &mut Out) {
    let count = get_directories().len();
    out.did(format!("folders {count}"));
    let folder = top();
    for path in [
        "../secret.txt",
        "sub/../../secret.txt",
        "./../secret.txt",
        "..",
        "/etc/passwd",
        "//etc/passwd",
        "sub/..//..//secret.txt",
        "..\\secret.txt",
    ] {
        match read(&folder, path, PathFlags::SYMLINK_FOLLOW) {
            Ok(text) => out.did(format!("DID {path}: {text}")),
            Err(code) => out.failed(path, code),
        }
        out.tried(&format!("stat {path}"), folder.stat_at(PathFlags::SYMLINK_FOLLOW, path));
    }
    if let Ok(up) = folder.open_at(PathFlags::empty(), "sub", OpenFlags::DIRECTORY, DescriptorFlags::READ) {
        out.tried("up from sub", read(&up, "../other.txt", PathFlags::empty()));
    }
}

/// Symbolic links: `out.txt` and `out` lead out, `up` to the folder above, `absolute` to a file, `within.txt` stays.
fn links(out: &mut Out) {
    let folder = top();
    for path in ["out.txt", "out/secret.txt", "up/secret.txt", "absolute", "loop", "chain"] {
        for (how, flags) in [("followed", PathFlags::SYMLINK_FOLLOW), ("itself", PathFlags::empty())] {
            out.tried(&format!("{path} {how}"), read(&folder, path, flags));
        }
    }
    match read(&folder, "within.txt", PathFlags::SYMLINK_FOLLOW) {
        Ok(text) => out.did(format!("within: {text}")),
        Err(code) => out.failed("within", code),
    }
}

fn write(out: &mut Out) {
    let folder = top();
    let (none, write) = (PathFlags::empty(), DescriptorFlags::WRITE);
    let both = DescriptorFlags::READ | write;
    out.tried("create", folder.open_at(none, "new.txt", OpenFlags::CREATE, both));
    out.tried("open to write", folder.open_at(none, "file.txt", OpenFlags::empty(), both));
    out.tried("truncate", folder.open_at(none, "file.txt", OpenFlags::TRUNCATE, both));
    out.tried(
        "truncate unseen",
        folder.open_at(none, "file.txt", OpenFlags::TRUNCATE, DescriptorFlags::READ),
    );
    out.tried("folder", folder.create_directory_at("new"));
    out.tried("remove", folder.unlink_file_at("file.txt"));
    out.tried("remove folder", folder.remove_directory_at("sub"));
    out.tried("rename", folder.rename_at("file.txt", &folder, "moved.txt"));
    out.tried("link", folder.link_at(none, "file.txt", &folder, "hard.txt"));
    out.tried("symlink", folder.symlink_at("/etc/passwd", "soft.txt"));
    let times = folder.set_times_at(none, "file.txt", NewTimestamp::Now, NewTimestamp::Now);
    out.tried("times", times);
    match folder.open_at(none, "file.txt", OpenFlags::empty(), DescriptorFlags::READ) {
        Ok(file) => {
            out.tried("write", file.write(b"spoilt", 0));
            out.tried("size", file.set_size(0));
            out.tried("stream", file.write_via_stream(0));
            out.tried("append", file.append_via_stream());
            out.tried("times of file", file.set_times(NewTimestamp::Now, NewTimestamp::Now));
        }
        Err(code) => out.failed("open to read", code),
    }
}

/// What it sees.
fn list(out: &mut Out) {
    let Ok(stream) = top().read_directory() else { return };
    while let Ok(Some(found)) = stream.read_directory_entry() {
        out.did(format!("sees {}", found.name));
    }
}

/// What a program learns of the machine it runs on.
fn look_around(out: &mut Out) {
    out.did(format!("environment {:?}", environment::get_environment()));
    out.did(format!("arguments {:?}", environment::get_arguments()));
    out.did(format!("folder {:?}", environment::initial_cwd()));
    out.did(format!("wall clock {:?}", wall_clock::now()));
    out.did(format!("clock {} {}", monotonic_clock::now(), monotonic_clock::now()));
    out.did(format!("random {:?}", get_random_bytes(16)));
    let input = wasip2::cli::stdin::get_stdin().blocking_read(100);
    out.did(format!("input {:?}", input.map_err(|_| "closed")));
}

/// Waits for a year.
fn sleep(out: &mut Out) {
    let year = 365 * 24 * 3600 * 1_000_000_000;
    monotonic_clock::subscribe_duration(year).block();
    monotonic_clock::subscribe_instant(u64::MAX).block();
    out.did("woke up");
}

/// Fills the memory, and crashes when there is no more.
fn bomb() {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

fn deeper(depth: u64) -> u64 {
    let held = std::hint::black_box([depth; 64]);
    if depth == 0 {
        0
    } else {
        deeper(depth + 1).wrapping_add(std::hint::black_box(held).iter().sum::<u64>())
    }
}

/// Records that do not keep the bounds, among some that do.
fn bounds(out: &mut Out) {
    out.did("good");
    out.did("x".repeat((1 << 20) + 1));
    let mut tagged = entry("many tags", Kind::Task, "hostile");
    tagged.tags = vec!["tag".into(); 65];
    out.batch.entries.push(tagged);
    out.batch.entries.push(entry("a far place", Kind::Task, &"s".repeat(300)));
    out.did("good too");
    out.failed("problem", "p".repeat(5000));
}

/// Opens one file again and again.
fn handles(out: &mut Out) {
    let folder = top();
    let mut held = Vec::new();
    for _ in 0..100_000 {
        held.push(folder.open_at(PathFlags::empty(), "behave", OpenFlags::empty(), DescriptorFlags::READ));
    }
    out.did(format!("DID open {}", held.len()));
}

/// Says a megabyte, and then something that matters, and crashes.
fn talk() {
    let (out, errors) = (stdout::get_stdout(), stderr::get_stderr());
    for _ in 0..256 {
        let _ = out.blocking_write_and_flush(&[b'.'; 4096]);
    }
    let _ = errors.blocking_write_and_flush(b"\x1b[31mthe last words\n");
    panic!("talked enough");
}
