//! The cable between a namespace and a net, and the address at its end.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{Lab, Link, Net, Shape, link::End, namespace::Namespace};

/// What has a cable in a [`Net`]: a host, or a router's outer side.
pub trait Plugged: fmt::Debug {
    /// The name of its port on this net; `None` when its cable is in another one.
    fn port_on(&self, net: &Net) -> Option<String>;
}

/// A cable: one end is an interface of a host or router, the other a port of a net's bridge.
#[derive(Debug)]
pub(super) struct Cable {
    space: Arc<Namespace>,
    device: &'static str,
    port: String,
    net: Net,
    number: u16,
    link: Option<Link>,
}

impl Cable {
    /// Plugs a namespace into a net under the net's next free address, or under the gateway's.
    pub(super) fn plug(
        lab: &Lab,
        space: &Arc<Namespace>,
        device: &'static str,
        net: &Net,
        shape: Option<Shape>,
        gateway: bool,
    ) -> Self {
        let port = lab.port();
        let link = shape.map(|shape| {
            Link::between(&End::new(space.path(), device), &End::new(net.space().path(), &port), shape)
        });
        if link.is_none() {
            net.space().ip(&format!("link add {port} type veth peer name {device} netns {}\n", space.name()));
        }
        let number = if gateway { Net::GATEWAY } else { net.next() };
        let cable = Self { space: space.clone(), device, port, net: net.clone(), number, link };
        cable.attach();
        cable
    }

    /// Joins the port to the bridge, and gives the other end its addresses and its way out.
    fn attach(&self) {
        let Self { device, port, net, .. } = self;
        net.space().ip(&format!("link set {port} master {} up\n", Net::BRIDGE));
        self.patience();
        let mut lines = format!("addr add {}/{} dev {device}\n", self.v4(), net.prefix());
        if self.number == Net::GATEWAY {
            // The next router has it too, so that nobody looks for the last one.
            lines += &format!("link set {device} address 02:00:00:00:00:01\n");
        }
        if let Some(v6) = self.v6() {
            lines += &format!("addr add {v6}/64 dev {device} nodad\n");
        }
        lines += &format!("link set {device} up\n");
        if self.number != Net::GATEWAY {
            lines += &format!("route replace default via {} dev {device}\n", net.v4(Net::GATEWAY));
            if let Some(gateway) = net.v6(Net::GATEWAY).filter(|_| net.has_public_v6()) {
                lines += &format!("route replace ::/0 via {gateway} dev {device}\n");
            }
        }
        self.space.ip(&lines);
    }

    /// How long the system looks for who does not answer. A host of a private net learns after three seconds that
    /// its neighbour is gone, as in any home. On the internet, where there would be routers between, it never
    /// does. Asking ten times a second makes that a healed host is found at once.
    fn patience(&self) {
        let tries = if self.net.is_internet() { "1000000" } else { "30" };
        self.space.enter(|| {
            for family in ["ipv4", "ipv6"] {
                super::set(&format!("net/{family}/neigh/{}/retrans_time_ms", self.device), "100");
                super::set(&format!("net/{family}/neigh/{}/mcast_solicit", self.device), tries);
            }
        });
    }

    /// Pulls the cable out of its net and plugs it into another one. The interface stays; its addresses do not.
    pub(super) fn move_to(&mut self, net: &Net) {
        self.heal();
        let Self { device, port, .. } = &*self;
        self.space.ip(&format!("addr flush dev {device} scope global\n"));
        self.net
            .space()
            .ip(&format!("link set {port} nomaster\nlink set {port} netns {}\n", net.space().name()));
        self.net = net.clone();
        self.number = net.next();
        self.attach();
    }

    /// Takes the net's next free address instead of the present one.
    pub(super) fn renumber(&mut self) {
        self.space.ip(&format!("addr flush dev {} scope global\n", self.device));
        self.number = self.net.next();
        self.attach();
    }

    /// Takes the interface down; the system tells programs so.
    pub(super) fn unplug(&self) {
        self.space.ip(&format!("link set {} down\n", self.device));
    }

    /// Takes the interface up again, with the same addresses.
    pub(super) fn replug(&self) {
        self.space.ip(&format!("link set {0} down\naddr flush dev {0}\n", self.device));
        self.attach();
    }

    pub(super) fn cut(&self) {
        self.net.silence(&self.port);
    }

    pub(super) fn heal(&self) {
        self.net.hear(&self.port);
    }

    pub(super) fn v4(&self) -> Ipv4Addr {
        self.net.v4(self.number)
    }

    pub(super) fn v6(&self) -> Option<Ipv6Addr> {
        self.net.v6(self.number)
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(super) fn port_on(&self, net: &Net) -> Option<String> {
        (self.net == *net).then(|| self.port.clone())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The system takes its time with a namespace that nobody needs; until then the port would carry on.
        if self.link.is_none() {
            let _ = self.net.space().try_ip(&format!("link delete {}\n", self.port));
        }
    }
}
