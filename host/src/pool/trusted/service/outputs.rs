//! What the pool tells the rest of the node: who may connect, who is admitted, and what each may do.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;
use tokio::sync::watch;

use super::super::{
    clock::{Clock, Millis},
    grants::Grants,
    papers::Motion,
};
use super::GateView;
use crate::identity::NodeId;

/// A member that is admitted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admitted {
    /// The machine.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub grants: Grants,
    /// Which way the connection takes, for people.
    pub path: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Millis,
}

/// Who is admitted, for everybody who serves members.
pub trait Membership: Send + Sync + Debug {
    /// This machine.
    fn me(&self) -> NodeId;

    /// What this machine, as a member, or a member that is admitted now may do; `None` for everyone else.
    fn grants(&self, node: NodeId) -> Option<Grants>;

    /// Who is admitted now; changes when somebody joins, is revoked, comes or goes.
    fn watch(&self) -> watch::Receiver<Arc<Vec<Admitted>>>;
}

/// What each admitted member may do, and until when.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) me: NodeId,
    pub(super) clock: Arc<dyn Clock>,
    rights: RwLock<BTreeMap<NodeId, (Grants, Millis)>>,
    admitted: watch::Sender<Arc<Vec<Admitted>>>,
    gate: watch::Sender<GateView>,
    approved: watch::Sender<Arc<Vec<Motion>>>,
}

impl Access {
    pub(super) fn new(me: NodeId, clock: Arc<dyn Clock>) -> Self {
        Self {
            me,
            clock,
            rights: RwLock::default(),
            admitted: watch::Sender::new(Arc::default()),
            gate: watch::Sender::new(GateView::default()),
            approved: watch::Sender::new(Arc::default()),
        }
    }

    pub(super) fn gate(&self) -> watch::Receiver<GateView> {
        self.gate.subscribe()
    }

    pub(super) fn approved(&self) -> watch::Receiver<Arc<Vec<Motion>>> {
        self.approved.subscribe()
    }

    /// Publishes which policies are approved.
    pub(super) fn approve(&self, motions: Vec<Motion>) {
        self.approved.send_if_modified(|held| {
            let changed = **held != motions;
            *held = Arc::new(motions);
            changed
        });
    }

    /// Publishes what holds from now on. Rights are taken away before anybody is told.
    pub(super) fn publish(
        &self,
        gate: GateView,
        own: Option<(Grants, Millis)>,
        admitted: Vec<(Admitted, Millis)>,
    ) {
        let others = admitted.iter().map(|(it, expires)| (it.node, (it.grants.clone(), *expires)));
        let rights = others.chain(own.map(|own| (self.me, own))).collect();
        *self.rights.write().unwrap_or_else(PoisonError::into_inner) = rights;
        self.gate.send_if_modified(|held| {
            let changed = *held != gate;
            *held = gate;
            changed
        });
        let admitted: Vec<Admitted> = admitted.into_iter().map(|(it, _)| it).collect();
        self.admitted.send_if_modified(|held| {
            let changed = **held != admitted;
            *held = Arc::new(admitted);
            changed
        });
    }
}

impl Membership for Access {
    fn me(&self) -> NodeId {
        self.me
    }

    fn grants(&self, node: NodeId) -> Option<Grants> {
        let rights = self.rights.read().unwrap_or_else(PoisonError::into_inner);
        let (grants, expires) = rights.get(&node)?;
        // A certificate may run out between two looks at the time.
        (*expires > self.clock.now()).then(|| grants.clone())
    }

    fn watch(&self) -> watch::Receiver<Arc<Vec<Admitted>>> {
        self.admitted.subscribe()
    }
}
