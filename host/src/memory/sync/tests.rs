//! Replication between memories on paper, over streams in memory.

mod converge;
mod grants;
mod hostile;
pub(in crate::memory) mod net;
mod paper;
mod pure;
mod speed;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use self::{
    net::Net,
    paper::{Disk, Paper},
};
use super::*;
use crate::{identity::NodeId, memory::record::Millis};

/// Members and their grants, the same for all.
#[derive(Clone, Debug)]
pub(in crate::memory) struct Club {
    grants: Arc<Mutex<BTreeMap<NodeId, Grants>>>,
    /// Those who were members once.
    former: Arc<Mutex<BTreeMap<NodeId, Author>>>,
    list: watch::Sender<Arc<Vec<Admitted>>>,
}

#[derive(Debug)]
pub(in crate::memory) struct Seat(pub(in crate::memory) NodeId, pub(in crate::memory) Club);

impl Club {
    pub(in crate::memory) fn new() -> Self {
        Self { grants: Arc::default(), former: Arc::default(), list: watch::Sender::default() }
    }

    pub(in crate::memory) fn admit(&self, node: NodeId, memory: Vec<MemoryGrant>) {
        self.grants.lock().unwrap().insert(node, Grants { memory, ..Grants::default() });
        self.publish();
    }

    pub(in crate::memory) fn admit_fully(&self, node: NodeId) {
        self.admit(node, vec![grant(None, true, true)]);
    }

    fn revoke(&self, node: NodeId, until: Millis) {
        if let Some(grants) = self.grants.lock().unwrap().remove(&node) {
            let author = Author { writes: Reach::writes(&grants.memory), until: Some(until) };
            self.former.lock().unwrap().insert(node, author);
        }
        self.publish();
    }

    fn publish(&self) {
        let grants = self.grants.lock().unwrap();
        let all = grants.iter().map(|(node, grants)| Admitted {
            node: *node,
            name: node.short(),
            grants: grants.clone(),
            path: "test".into(),
            since: 0,
        });
        let all: Vec<_> = all.collect();
        drop(grants);
        self.list.send_replace(Arc::new(all));
    }
}

impl Membership for Seat {
    fn me(&self) -> NodeId {
        self.0
    }

    fn grants(&self, node: NodeId) -> Option<Grants> {
        self.1.grants.lock().unwrap().get(&node).cloned()
    }

    fn watch(&self) -> watch::Receiver<Arc<Vec<Admitted>>> {
        self.1.list.subscribe()
    }
}

impl Authors for Seat {
    fn author(&self, origin: NodeId) -> Option<Author> {
        let now =
            self.grants(origin).map(|grants| Author { writes: Reach::writes(&grants.memory), until: None });
        now.or_else(|| self.1.former.lock().unwrap().get(&origin).cloned())
    }
}

pub(in crate::memory) fn grant(project: Option<&str>, read: bool, write: bool) -> MemoryGrant {
    MemoryGrant { project: project.map(str::to_owned), read, write }
}

/// Short times, so that tests need not wait.
pub(in crate::memory) fn quick() -> Options {
    let ms = Duration::from_millis;
    Options {
        repair: ms(300),
        audit: Duration::from_secs(3_600),
        retry: ms(50),
        backoff: ms(10),
        backoff_most: ms(60),
        penalty: ms(400),
        ..Options::default()
    }
}

/// A machine: what survives it, and what runs.
struct Machine {
    seed: u8,
    disk: Disk,
    paper: Arc<Paper>,
    sync: Option<Sync>,
}

struct World {
    net: Net,
    club: Club,
    options: Options,
    machines: Vec<Machine>,
}

impl World {
    fn new() -> Self {
        Self { net: Net::default(), club: Club::new(), options: quick(), machines: Vec::new() }
    }

    /// Machines with all rights.
    fn of(count: u8) -> Self {
        let mut world = Self::new();
        for seed in 1..=count {
            let place = world.add(seed);
            world.club.admit_fully(world.node(place));
            world.start(place);
        }
        world
    }

    fn add(&mut self, seed: u8) -> usize {
        let disk = Disk::default();
        let paper = Paper::open(seed, disk.clone(), 0);
        self.machines.push(Machine { seed, disk, paper, sync: None });
        self.machines.len() - 1
    }

    fn start(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        let node = machine.paper.signer.node();
        let (streams, incoming) = self.net.join(node);
        let seat = Arc::new(Seat(node, self.club.clone()));
        let parts = Parts {
            streams,
            incoming,
            membership: Arc::clone(&seat) as Arc<dyn Membership>,
            authors: seat,
            replica: Arc::clone(&machine.paper) as Arc<dyn Replica>,
        };
        machine.sync = Some(Sync::bind(parts, self.options));
    }

    /// The machine stops without warning and comes back with what was on its disk.
    async fn crash(&mut self, place: usize) {
        self.stop(place).await;
        let machine = &mut self.machines[place];
        machine.paper = Paper::open(machine.seed, machine.disk.clone(), 0);
        self.start(place);
    }

    async fn stop(&mut self, place: usize) {
        if let Some(sync) = self.machines[place].sync.take() {
            sync.shutdown().await;
        }
    }

    fn paper(&self, place: usize) -> &Arc<Paper> {
        &self.machines[place].paper
    }

    fn node(&self, place: usize) -> NodeId {
        self.paper(place).signer.node()
    }

    fn status(&self, place: usize) -> Status {
        self.machines[place].sync.as_ref().unwrap().handle().status()
    }

    fn peer(&self, place: usize, other: usize) -> PeerStatus {
        let node = self.node(other);
        self.status(place).peers.into_iter().find(|peer| peer.node == node).unwrap()
    }

    /// Waits until all have the same entries.
    async fn converge(&self) {
        until("all have the same entries", || {
            let first = self.paper(0).entries();
            self.machines.iter().all(|machine| machine.paper.entries() == first)
        })
        .await;
    }

    async fn end(mut self) {
        for place in 0..self.machines.len() {
            self.stop(place).await;
        }
    }
}

pub(in crate::memory) async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "not in time: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
