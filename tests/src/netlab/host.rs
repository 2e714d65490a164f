//! A host: a namespace with one cable.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Lab, Link, Net, Shape, cable::Cable, cable::Plugged, link::End, namespace::Namespace};

/// The name of a host's interface.
const DEVICE: &str = "eth0";

/// A machine on a net. Clones are the same host; when the last is dropped, its processes are killed.
#[must_use = "a host that is dropped is gone"]
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // The cable goes first: a link that carries it holds the namespace.
    cable: Mutex<Cable>,
    space: Arc<Namespace>,
    _lab: Lab,
}

impl Host {
    pub(super) fn new(lab: &Lab, name: &str, net: &Net, shape: Option<Shape>) -> Self {
        let space = Arc::new(Namespace::create(lab.name(name)));
        let cable = Cable::plug(lab, &space, DEVICE, net, shape, false);
        Self(Arc::new(Inner { cable: Mutex::new(cable), space, _lab: lab.clone() }))
    }

    fn cable(&self) -> MutexGuard<'_, Cable> {
        self.0.cable.lock().expect("no holder panics")
    }

    /// Its IPv4 address.
    pub fn addr_v4(&self) -> Ipv4Addr {
        self.cable().v4()
    }

    /// Its IPv6 address; `None` where its net has none.
    pub fn addr_v6(&self) -> Option<Ipv6Addr> {
        self.cable().v6()
    }

    /// A command that runs on this host. It keeps its process id, its environment and its folder, and dies with
    /// the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.0.space.command(program)
    }

    /// The words that, put before a command, run it on this host; the process id stays.
    pub fn before(&self) -> [String; 3] {
        self.0.space.before()
    }

    /// Does this on a thread of the test that is on this host. Sockets made in it stay on the host, wherever
    /// they are used afterwards.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.space.enter(work)
    }

    /// The name of its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        self.0.space.name()
    }

    /// The file that stands for its namespace.
    pub fn namespace_path(&self) -> &Path {
        self.0.space.path()
    }

    /// An interface of this host as the end of a [`Link`].
    pub fn end(&self, device: &str) -> End {
        End::new(self.namespace_path(), device)
    }

    /// Does lines of `ip`; panics with its words when one fails.
    pub fn ip(&self, lines: &str) {
        self.0.space.ip(lines);
    }

    /// Loses everything it sends and everything sent to it, without a word to anybody.
    pub fn cut(&self) {
        self.cable().cut();
    }

    /// Ends [`cut`](Self::cut).
    pub fn heal(&self) {
        self.cable().heal();
    }

    /// Takes its interface down, which its system tells its programs.
    pub fn unplug(&self) {
        self.cable().unplug();
    }

    /// Takes its interface up again, with the addresses it had.
    pub fn replug(&self) {
        self.cable().replug();
    }

    /// Carries it to another net: the interface stays, its addresses are new ones. Gives the IPv4 one.
    pub fn move_to(&self, net: &Net) -> Ipv4Addr {
        let mut cable = self.cable();
        cable.move_to(net);
        cable.v4()
    }

    /// Gives it another address in its net, and takes the old one away.
    pub fn renumber(&self) -> Ipv4Addr {
        let mut cable = self.cable();
        cable.renumber();
        cable.v4()
    }

    /// The net it is on.
    pub fn net(&self) -> Net {
        self.cable().net().clone()
    }

    /// Works with the link that is its cable; panics when the cable is a plain one.
    pub fn link<T>(&self, work: impl FnOnce(&Link) -> T) -> T {
        work(self.cable().link().expect("this host's cable is a plain one: make it with `host_over`"))
    }
}

impl Plugged for Host {
    fn port_on(&self, net: &Net) -> Option<String> {
        self.cable().port_on(net)
    }
}
