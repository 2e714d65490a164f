//! How much one member may ask at once and in a minute.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::ServeConfig;
use crate::identity::NodeId;

/// What a rate is counted over.
const WINDOW: Duration = Duration::from_secs(60);
/// Probes of one member in a window: they are not jobs, and cost little.
const PROBES: usize = 60;
/// Streams of one member that are open, so that a job that is too many can still be told so.
const STREAMS: usize = 64;
/// Streams of all members.
const ALL_STREAMS: usize = 1024;
/// Requests of one member that arrive at the same time: nobody can be slow for everybody.
const ARRIVING: usize = 2;
/// Members that are remembered beyond their jobs.
const REMEMBERED: usize = 4096;

/// The quotas of all members.
#[derive(Debug)]
pub(super) struct Quota {
    config: ServeConfig,
    members: Mutex<HashMap<NodeId, Member>>,
}

#[derive(Debug)]
struct Member {
    streams: usize,
    running: usize,
    /// When the last jobs began.
    jobs: VecDeque<Instant>,
    probes: VecDeque<Instant>,
    arriving: Arc<Semaphore>,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            streams: 0,
            running: 0,
            jobs: VecDeque::new(),
            probes: VecDeque::new(),
            arriving: Arc::new(Semaphore::new(ARRIVING)),
        }
    }
}

/// A stream of a member. Dropping it frees its place, and that of its job.
#[derive(Debug)]
pub(super) struct Slot {
    quota: Arc<Quota>,
    peer: NodeId,
    /// To be held while the request comes in.
    pub(super) arriving: Arc<Semaphore>,
    runs: bool,
}

impl Quota {
    pub(super) fn new(config: ServeConfig) -> Self {
        Self { config, members: Mutex::new(HashMap::new()) }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<NodeId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that run now.
    pub(super) fn running(&self) -> usize {
        self.members().values().map(|member| member.running).sum()
    }

    /// A place for a stream; `None` when there are too many.
    pub(super) fn open(self: &Arc<Self>, peer: NodeId) -> Option<Slot> {
        let mut members = self.members();
        if members.len() > REMEMBERED {
            members.retain(|_, member| member.streams > 0);
        }
        let all: usize = members.values().map(|member| member.streams).sum();
        let member = members.entry(peer).or_default();
        if member.streams >= STREAMS || all >= ALL_STREAMS {
            return None;
        }
        member.streams += 1;
        let arriving = member.arriving.clone();
        Some(Slot { quota: self.clone(), peer, arriving, runs: false })
    }
}

impl Slot {
    /// Starts the stream's job, or says after which time another try makes sense.
    pub(super) fn start(&mut self, rate: Option<u32>, probe: bool, now: Instant) -> Result<(), Duration> {
        let config = self.quota.config;
        let mut members = self.quota.members();
        let running: usize = members.values().map(|member| member.running).sum();
        let Some(member) = members.get_mut(&self.peer) else { return Err(WINDOW) };
        if running >= config.jobs || member.running >= config.jobs_per_member {
            return Err(Duration::from_secs(1));
        }
        let most = if probe { PROBES } else { rate.unwrap_or(config.rate) as usize };
        let began = if probe { &mut member.probes } else { &mut member.jobs };
        while began.front().is_some_and(|&at| now.saturating_duration_since(at) >= WINDOW) {
            began.pop_front();
        }
        if began.len() >= most {
            let since = began.front().map_or(Duration::ZERO, |&at| now.saturating_duration_since(at));
            return Err(WINDOW.saturating_sub(since));
        }
        began.push_back(now);
        member.running += 1;
        self.runs = true;
        Ok(())
    }

    /// Jobs of this member that run.
    pub(super) fn running(&self) -> usize {
        self.quota.members().get(&self.peer).map_or(0, |member| member.running)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(member) = self.quota.members().get_mut(&self.peer) {
            member.streams = member.streams.saturating_sub(1);
            if self.runs {
                member.running = member.running.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_jobs() {
        let quota = Arc::new(Quota::new(ServeConfig { jobs_per_member: 2, ..ServeConfig::default() }));
        let (peer, now) = (NodeId([1; 32]), Instant::now());
        let mut first = quota.open(peer).unwrap();
        let mut second = quota.open(peer).unwrap();
        let mut third = quota.open(peer).unwrap();
        first.start(Some(3), false, now).unwrap();
        second.start(Some(3), false, now).unwrap();
        assert_eq!(third.start(Some(3), false, now), Err(Duration::from_secs(1)));
        drop((first, second));
        third.start(Some(3), false, now + Duration::from_secs(20)).unwrap();
        let mut fourth = quota.open(peer).unwrap();
        let later = now + Duration::from_secs(50);
        assert_eq!(fourth.start(Some(3), false, later), Err(Duration::from_secs(10)));
        fourth.start(Some(3), false, later + Duration::from_secs(10)).unwrap();
        assert_eq!(quota.running(), 2);
        let held: Vec<_> = (0..STREAMS - 2).map(|_| quota.open(peer).unwrap()).collect();
        assert!(quota.open(peer).is_none(), "{}", held.len());
        assert!(quota.open(NodeId([2; 32])).is_some());
    }
}
