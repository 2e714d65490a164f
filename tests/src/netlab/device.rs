//! Interfaces whose packets a program reads and writes.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::set_current_timer_slack,
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::namespace::go_into;

/// More than the longest frame or packet of an interface here.
pub(super) const LONGEST: usize = 65_600;

/// What an interface carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carries {
    /// Ethernet frames: it can be a port of a bridge.
    Frames,
    /// IP packets.
    Packets,
}

/// A virtual interface of a namespace. It disappears when this is dropped.
pub(super) struct Device(SyncDevice);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.0.name().unwrap_or_default()).finish()
    }
}

impl Device {
    /// Makes an interface in a namespace; panics when that is not possible.
    pub(super) fn open(namespace: &Path, name: &str, carries: Carries) -> Self {
        let layer = match carries {
            Carries::Frames => Layer::L2,
            Carries::Packets => Layer::L3,
        };
        // On a thread of its own, because the thread stays in the namespace.
        let opened = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                go_into(namespace);
                let device = DeviceBuilder::new().name(name).layer(layer).tx_queue_len(1000).build_sync()?;
                device.set_nonblocking(true)?;
                io::Result::Ok(device)
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let opened = opened.unwrap_or_else(|error| {
            panic!("cannot make interface {name} in {}: {error}", namespace.display())
        });
        Self(opened)
    }

    /// The next packet that waits; `None` when there is none.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        self.0.recv(buffer).ok().filter(|length| *length > 0)
    }

    /// Hands a packet to the system, which loses it when the interface is down.
    pub(super) fn write(&self, packet: &[u8]) {
        let _ = self.0.send(packet);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the calling thread wake when it wants to, not when that suits the system.
pub(super) fn wake_precisely() {
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1));
    // Where a test may not, it is merely less exact on a busy machine.
    let _ = rustix::process::setpriority_process(None, -15);
}

/// Waits until one of these can be read, until `due`, or for `longest`.
pub(super) fn wait(fds: &[BorrowedFd<'_>], due: Option<Instant>, longest: Duration) {
    let left = due.map_or(longest, |due| due.saturating_duration_since(Instant::now()).min(longest));
    let left = Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    // A signal ends the wait early, which its caller cannot tell from a packet that another reader took.
    let _ = poll(&mut fds, Some(&left));
}
