//! The sieve: which messages are taken and passed on.
//!
//! A message is charged to three accounts: the peer that brought it, the prefix that peer is in, and the key that
//! signed it. What exceeds any of them is dropped and goes no further, so a flood ends at its first honest peer. A
//! peer that goes on beyond its own account is banned; one that only passes on what a third one signed too often is
//! not, as long as it stays within its own.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use super::Prefix;
use crate::identity::NodeId;

/// Messages that one peer may bring at once, and a second after that: a network of 4,096 providers that renew their
/// offers every five minutes has 14 a second.
pub const PER_PEER: Rate = Rate { burst: 512, each: Duration::from_millis(16) };
/// The same for all peers of a prefix.
pub const PER_PREFIX: Rate = Rate { burst: 2_048, each: Duration::from_millis(4) };
/// Messages that one key may sign at once, and how often after that: an offer is good for minutes.
pub const PER_SOURCE: Rate = Rate { burst: 8, each: Duration::from_secs(15) };
/// Messages beyond its account after which a peer is banned.
pub const STRIKES: u32 = 128;
/// How long a ban lasts.
pub const BAN: Duration = Duration::from_secs(600);
/// Accounts of one kind that are kept. When there are more all begin anew.
pub const ACCOUNTS: usize = 16_384;

/// So many at once, and one each so often after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a pause.
    pub burst: u32,
    /// One more after this.
    pub each: Duration,
}

/// Accounts of one kind.
#[derive(Debug)]
pub(super) struct Accounts<K> {
    rate: Rate,
    /// When each would be even at its rate.
    even: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Accounts<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, even: HashMap::new() }
    }

    /// Charges one; whether it is within the rate.
    pub(super) fn charge(&mut self, key: K, now: Instant) -> bool {
        if self.even.len() >= ACCOUNTS && !self.even.contains_key(&key) {
            self.even.retain(|_, even| *even > now);
            if self.even.len() >= ACCOUNTS {
                self.even.clear();
            }
        }
        let even = self.even.entry(key).or_insert(now);
        let next = (*even).max(now) + self.rate.each;
        let within = next.saturating_duration_since(now) <= self.rate.each * self.rate.burst;
        if within {
            *even = next;
        }
        within
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken and passed on.
    Take,
    /// Neither.
    Drop,
    /// Neither, and whoever brought it is banned.
    Ban,
}

/// The sieve.
#[derive(Debug)]
pub(super) struct Sieve {
    peers: Accounts<NodeId>,
    prefixes: Accounts<Prefix>,
    sources: Accounts<NodeId>,
    strikes: HashMap<NodeId, u32>,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Self {
            peers: Accounts::new(PER_PEER),
            prefixes: Accounts::new(PER_PREFIX),
            sources: Accounts::new(PER_SOURCE),
            strikes: HashMap::new(),
        }
    }

    /// What becomes of a message of `bytes` that `source` signed and `peer`, in `prefix`, brought.
    pub(super) fn judge(
        &mut self,
        (peer, prefix): (NodeId, Option<Prefix>),
        source: NodeId,
        bytes: usize,
        now: Instant,
    ) -> Verdict {
        if !self.peers.charge(peer, now) || bytes > super::MESSAGE_BYTES {
            return self.strike(peer);
        }
        if prefix.is_some_and(|prefix| !self.prefixes.charge(prefix, now)) {
            return Verdict::Drop;
        }
        match self.sources.charge(source, now) {
            true => Verdict::Take,
            // Its own messages, too many of them.
            false if source == peer => self.strike(peer),
            false => Verdict::Drop,
        }
    }

    fn strike(&mut self, peer: NodeId) -> Verdict {
        if self.strikes.len() >= ACCOUNTS {
            self.strikes.clear();
        }
        let strikes = self.strikes.entry(peer).or_default();
        *strikes += 1;
        if *strikes < STRIKES {
            return Verdict::Drop;
        }
        self.strikes.remove(&peer);
        Verdict::Ban
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(bytes)
    }

    fn prefix(n: u8) -> Option<Prefix> {
        Some(Prefix::V4([10, 0, n]))
    }

    #[test]
    fn a_source_is_heard_now_and_then_and_banned_when_it_floods() {
        let (mut sieve, now) = (Sieve::new(), Instant::now());
        let mut judge = |at| sieve.judge((node(1), prefix(1)), node(1), 100, at);
        for _ in 0..PER_SOURCE.burst {
            assert_eq!(judge(now), Verdict::Take);
        }
        assert_eq!(judge(now), Verdict::Drop);
        assert_eq!(judge(now + PER_SOURCE.each), Verdict::Take);
        let verdicts: Vec<_> = (0..STRIKES).map(|_| judge(now + PER_SOURCE.each)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Ban).count(), 1);
    }

    #[test]
    fn who_passes_on_the_flood_of_another_is_not_banned_for_it() {
        let (mut sieve, now) = (Sieve::new(), Instant::now());
        let passed = (0..PER_PEER.burst).map(|_| sieve.judge((node(1), prefix(1)), node(2), 100, now));
        let passed: Vec<_> = passed.collect();
        assert!(!passed.contains(&Verdict::Ban));
        assert_eq!(passed.iter().filter(|verdict| **verdict == Verdict::Take).count(), 8);
        // Others are still heard through the same peer a moment later, as long as it does not exceed its own.
        assert_eq!(sieve.judge((node(1), prefix(1)), node(3), 100, now + PER_PEER.each), Verdict::Take);
        let flood: Vec<_> =
            (0..STRIKES + 1).map(|n| sieve.judge((node(1), prefix(1)), node(9 + n), 100, now)).collect();
        assert!(flood.contains(&Verdict::Ban));
    }

    #[test]
    fn many_keys_in_one_place_have_the_share_of_one_place() {
        let (mut sieve, now) = (Sieve::new(), Instant::now());
        let judge = |sieve: &mut Sieve, n: u32, place| sieve.judge((node(n), place), node(n), 100, now);
        let taken = (0..10_000).filter(|n| judge(&mut sieve, *n, prefix(1)) == Verdict::Take).count();
        assert_eq!(taken, PER_PREFIX.burst as usize);
        assert_eq!(judge(&mut sieve, 20_000, prefix(2)), Verdict::Take, "elsewhere nothing is missed");
    }

    #[test]
    fn accounts_are_bounded() {
        let (mut accounts, now) = (Accounts::new(PER_SOURCE), Instant::now());
        for n in 0..3 * ACCOUNTS {
            assert!(accounts.charge(n, now));
        }
        assert!(accounts.even.len() <= ACCOUNTS);
    }
}
