//! The policies that decide in the public pool: what the chain approves, loaded beforehand and swapped at its block.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use potluck_chain_client::watch::Listening;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{approvals::ChainApprovals, unix_ms};
use crate::policy::{Components, Engine, Event, Kind, Policies, PoliciesConfig, PolicyHash, Soonest, follow};

/// Most components of which it is remembered why they cannot be used.
const MAX_TROUBLES: usize = 64;

/// What runs policies on this machine, and where their components come from.
#[derive(Clone, Debug)]
pub struct PolicyHost {
    /// Runs them.
    pub engine: Engine,
    /// Where they come from.
    pub components: Arc<dyn Components>,
}

/// The policies of the public pool on this machine. Cloning it is cheap, and clones are the same.
#[derive(Clone, Debug)]
pub struct PublicPolicies {
    policies: Policies,
    troubles: Arc<Mutex<BTreeMap<PolicyHash, String>>>,
}

impl PublicPolicies {
    /// Follows the chain until `stop` is cancelled.
    pub(super) fn follow(host: &PolicyHost, listening: &Listening, stop: CancellationToken) -> Self {
        let policies = Policies::new("public", PoliciesConfig::default(), Arc::new(Soonest));
        let here = Self { policies: policies.clone(), troubles: Arc::default() };
        tokio::spawn(here.clone().note(policies.events(), stop.clone()));
        let approvals = Arc::new(ChainApprovals::follow(listening));
        let (engine, components) = (host.engine.clone(), Arc::clone(&host.components));
        tokio::spawn(follow(policies, engine, approvals, components, unix_ms, stop));
        here
    }

    /// What decides.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Whether this policy decides here now.
    pub fn decides(&self, kind: Kind, hash: PolicyHash) -> bool {
        self.policies.active(kind).is_some_and(|active| active.hash() == hash && !active.is_aside())
    }

    /// Why a policy that is approved cannot decide here.
    pub fn trouble(&self, hash: PolicyHash) -> Option<String> {
        self.troubles().get(&hash).cloned()
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<PolicyHash, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn note(self, mut events: Receiver<Event>, stop: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(Event::Missing { hash, error, .. } | Event::Unusable { hash, error, .. }) => {
                    let mut troubles = self.troubles();
                    if troubles.len() >= MAX_TROUBLES {
                        troubles.pop_first();
                    }
                    troubles.insert(hash, error);
                }
                Ok(Event::SetAside { hash, error, .. }) => {
                    self.troubles().insert(hash, format!("it failed too often: {error}"));
                }
                Ok(Event::Activated { hash, .. }) => {
                    self.troubles().remove(&hash);
                }
                Ok(_) => {}
                // What was missed is told once more when it happens again.
                Err(RecvError::Lagged(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(RecvError::Closed) => return,
            }
        }
    }
}
