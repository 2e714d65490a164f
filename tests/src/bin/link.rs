//! A cable between two network namespaces with delay, jitter, loss and a rate, changed by lines on stdin.
//!
//! `link --a NETNS --b NETNS --a-address 10.0.0.1/24 --b-address 10.0.0.2/24 --delay-ms 50`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a panic is how it reports"
)]

use std::{
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use potluck_tests::netlab::{End, Link, Shape, Way};

const USAGE: &str = "usage: link --a NETNS --b NETNS [--a-device NAME] [--b-device NAME] [--a-address CIDR]
    [--b-address CIDR] [--delay-ms N] [--jitter-ms N] [--loss PART] [--rate-mbit N] [--queue-kib N]
NETNS is a name of `ip netns` or a path. Lines on stdin change the link: delay MS, jitter MS, loss PART,
rate MBIT, queue KIB, down, up; `counts` prints what passed. It ends when stdin does.";

#[derive(Default)]
struct Side {
    namespace: Option<String>,
    device: Option<String>,
    address: Option<String>,
}

impl Side {
    fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("link0")
    }

    fn end(&self) -> Option<End> {
        let name = self.namespace.as_deref()?;
        let path = if name.contains('/') { PathBuf::from(name) } else { Path::new("/run/netns").join(name) };
        Some(End::new(&path, self.device()))
    }

    /// Gives the interface its address; without one, somebody else sees to it.
    fn set_up(&self) -> Result<(), String> {
        let (Some(name), Some(address)) = (&self.namespace, &self.address) else { return Ok(()) };
        for words in
            [["addr", "add", address, "dev", self.device()], ["link", "set", "dev", self.device(), "up"]]
        {
            let mut command = Command::new("nsenter");
            let path = if name.contains('/') { name.clone() } else { format!("/run/netns/{name}") };
            command.args([&format!("--net={path}"), "--", "ip"]).args(words);
            let status = command.status().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("{command:?} failed: {status}"));
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut a, mut b, mut shape) = (Side::default(), Side::default(), Shape::default());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| USAGE.to_owned())?;
        match arg.as_str() {
            "--a" => a.namespace = Some(value),
            "--b" => b.namespace = Some(value),
            "--a-device" => a.device = Some(value),
            "--b-device" => b.device = Some(value),
            "--a-address" => a.address = Some(value),
            "--b-address" => b.address = Some(value),
            "--delay-ms" => shape.tell(&format!("delay {value}"))?,
            "--jitter-ms" => shape.tell(&format!("jitter {value}"))?,
            "--loss" => shape.tell(&format!("loss {value}"))?,
            "--rate-mbit" => shape.tell(&format!("rate {value}"))?,
            "--queue-kib" => shape.tell(&format!("queue {value}"))?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (Some(first), Some(second)) = (a.end(), b.end()) else { return Err(USAGE.to_owned()) };
    let link = Link::between(&first, &second, shape);
    a.set_up()?;
    b.set_up()?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("cannot read stdin: {error}"))?;
        match line.trim() {
            "" => {}
            "counts" => println!("{:?} {:?}", link.counts(Way::Up), link.counts(Way::Down)),
            line => match link.tell(line) {
                Ok(()) => println!("ok"),
                Err(error) => println!("error: {error}"),
            },
        }
        let _ = std::io::stdout().flush();
    }
    Ok(())
}
