//! The policies that the chain approves, as the policy host asks for them.

use std::{fmt, sync::Arc};

use potluck_chain_client::{query::ApprovedPolicy, watch::Listening};
use potluck_primitives::{PolicyKind, PoolClass};
use tokio::sync::watch;

use crate::policy::{Approvals, Approved, Kind, PolicyHash};

/// Milliseconds between blocks. Only the order of moments follows from it, not when a policy begins to decide.
const BLOCK_MS: u64 = 6_000;

/// What is approved for the public pool. A policy decides from the block on that the chain names: as soon as that block
/// is final, and not by any clock. One that is to come has a moment that never comes, so that it is fetched and tried
/// beforehand.
pub struct ChainApprovals(watch::Receiver<Arc<Vec<Approved>>>);

impl fmt::Debug for ChainApprovals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChainApprovals").field(&self.0.borrow().len()).finish()
    }
}

impl ChainApprovals {
    /// Follows the chain until the node ends.
    pub fn follow(listening: &Listening) -> Self {
        let (mut heads, mut policies) = (listening.head(), listening.policies());
        let (told, approved) = watch::channel(Arc::default());
        tokio::spawn(async move {
            loop {
                let block = heads.borrow_and_update().map_or(0, |head| head.number);
                let now = moments(&policies.borrow_and_update().policies, block);
                told.send_if_modified(|before: &mut Arc<Vec<Approved>>| {
                    let changed = **before != now;
                    *before = Arc::new(now);
                    changed
                });
                let changed = tokio::select! {
                    changed = heads.changed() => changed,
                    changed = policies.changed() => changed,
                    () = told.closed() => return,
                };
                if changed.is_err() {
                    return;
                }
            }
        });
        Self(approved)
    }
}

impl Approvals for ChainApprovals {
    fn watch(&self) -> watch::Receiver<Arc<Vec<Approved>>> {
        self.0.clone()
    }
}

fn moments(policies: &[ApprovedPolicy], block: u32) -> Vec<Approved> {
    let public = policies.iter().filter(|it| it.class == PoolClass::PUBLIC);
    let read = |it: &ApprovedPolicy| Approved {
        kind: kind(it.kind),
        hash: PolicyHash::from_bytes(it.hash.0),
        from_ms: if it.from <= block { u64::from(it.from) * BLOCK_MS } else { u64::MAX },
        by: format!("the chain, from block {} on", it.from),
    };
    public.map(read).collect()
}

/// What a policy of the chain decides.
pub(super) fn kind(kind: PolicyKind) -> Kind {
    match kind {
        PolicyKind::Routing => Kind::Routing,
        PolicyKind::Pricing => Kind::Pricing,
        PolicyKind::Slashing => Kind::Slashing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_decides_from_its_block_on() {
        let policy = |from, class| ApprovedPolicy {
            kind: PolicyKind::Pricing,
            class: PoolClass(class),
            from,
            hash: potluck_primitives::PolicyHash([3; 32]),
            uri: String::new(),
        };
        let policies = [policy(10, 0), policy(20, 0), policy(5, 7)];
        let begun =
            |block| moments(&policies, block).iter().map(|it| it.from_ms != u64::MAX).collect::<Vec<_>>();
        assert_eq!(begun(9), [false, false], "another class of pool is not ours");
        assert_eq!(begun(10), [true, false]);
        assert_eq!(begun(20), [true, true]);
        let later = moments(&policies, 20);
        assert!(later[0].from_ms < later[1].from_ms, "the later one decides");
    }
}
