//! Conversations with other members: who begins them, and what is answered to what.

use std::sync::Arc;

use tokio::time::{Duration, Instant, timeout};

use super::super::{
    clock::{Millis, SKEW, spoken},
    exchange::{Bye, GREETING, HAVE, MAX_HAVE, MAX_WRONG, Message, PAGE, REPEAT, ROSTER},
    papers::{Paper, PaperError, PoolId, Sealed, Statement},
};
use super::{
    actor::{Actor, Event, StreamBox},
    talk::{Said, Talk},
};
use crate::{
    identity::{Digest, NodeId},
    mesh::streams::Stream,
};

/// How long the machine with the higher key waits for the other to begin. That one may still be in a conversation
/// with an earlier run of this machine.
const COURTESY: Duration = Duration::from_millis(500);
/// How long two conversations may lie apart that were begun without knowing of each other.
const CROSSING: Duration = Duration::from_secs(1);
/// How long a conversation that was begun waits for the other side's greeting, where that side begins another.
const UNGREETED: Duration = Duration::from_secs(5);
/// How long a machine that misbehaves is left alone.
const SHUN: Duration = Duration::from_secs(600);
/// Runs of a program that are remembered.
const RUNS: usize = 8;
/// How long two listings of one conversation lie apart, at least.
const RELIST: Duration = Duration::from_secs(5);

impl Actor {
    /// The connected members with whom there is no conversation, and when one is due. The lower key begins at once,
    /// the higher one when that does not happen.
    fn lonely(&self) -> impl Iterator<Item = (NodeId, Instant)> {
        let me = self.me();
        self.links.iter().filter_map(move |(peer, link)| {
            let courtesy = if me < *peer { Duration::ZERO } else { COURTESY };
            let wanted = !link.dialling && !self.talks.contains_key(peer) && self.eligible(*peer);
            wanted.then(|| (*peer, link.dial_at.max(link.since + courtesy)))
        })
    }

    /// When [`dial_due`](Self::dial_due) has something to do.
    pub(super) fn next_dial(&self) -> Option<Instant> {
        self.lonely().map(|(_, at)| at).min()
    }

    /// Opens the conversations that are due.
    pub(super) fn dial_due(&mut self) {
        let now = Instant::now();
        let due: Vec<NodeId> = self.lonely().filter(|(_, at)| *at <= now).map(|(peer, _)| peer).collect();
        for peer in due {
            if let Some(link) = self.links.get_mut(&peer) {
                link.dialling = true;
            }
            let (streams, events) = (Arc::clone(&self.streams), self.events.clone());
            tokio::spawn(async move {
                let stream = match timeout(GREETING, streams.open(peer, ROSTER)).await {
                    Ok(Ok(stream)) => Ok(StreamBox(stream)),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no stream could be opened in time".to_owned()),
                };
                let _ = events.send(Event::Dialled { peer, stream }).await;
            });
        }
    }

    pub(super) fn dialled(&mut self, peer: NodeId, stream: Result<StreamBox, String>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.dialling = false;
        match stream {
            Ok(StreamBox(stream)) if !self.talks.contains_key(&peer) => self.begin(peer, stream, true),
            Ok(_) => {}
            Err(what) => {
                self.retry(peer);
                self.note(Some(peer), format!("its papers cannot be compared: {what}"));
            }
        }
    }

    /// Puts the next attempt off, for longer each time.
    fn retry(&mut self, peer: NodeId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let wait = Duration::from_millis(200).saturating_mul(1 << link.failures.min(8));
        link.failures = link.failures.saturating_add(1);
        link.dial_at = Instant::now() + wait.min(Duration::from_secs(30));
    }

    /// A conversation that another machine opened. Of two that crossed, the one of the lower key stays.
    pub(super) fn answer_roster(&mut self, peer: NodeId, stream: Stream) {
        let crossed = self.talks.get(&peer).is_some_and(|talk| {
            // A machine that has greeted and begins anew was started anew.
            let patience = if talk.greeted { CROSSING } else { UNGREETED };
            talk.ours && self.me() < peer && talk.since.elapsed() < patience
        });
        if !crossed && peer != self.me() {
            self.begin(peer, stream, false);
        }
    }

    fn begin(&mut self, peer: NodeId, stream: Stream, ours: bool) {
        let refused = self.refusal(peer);
        let Some(home) = &self.home else { return };
        self.sessions = self.sessions.wrapping_add(1);
        let (pool, digest) = (home.roster.pool(), home.roster.digest());
        let whose = (peer, self.sessions, ours);
        let talk = Talk::start(whose, stream, (pool, digest), self.events.clone());
        if let Some(bye) = refused {
            // Told why, as far as that is not a secret, and nothing else.
            talk.end(bye);
            let standing = home.view.standing(peer);
            let how = standing.map_or("unknown".into(), |standing| format!("{standing:?}").to_lowercase());
            return self.note(Some(peer), format!("turned away: {how} here"));
        }
        let hello = Message::Hello { pool, boot: self.boot, now: self.clock.now(), digest };
        talk.say(vec![hello]);
        // One that was there before ends by being dropped: the newer connection is the one that works.
        self.talks.insert(peer, talk);
    }

    /// Whether `peer` may compare papers with this machine.
    pub(super) fn eligible(&self, peer: NodeId) -> bool {
        self.home.is_some() && self.refusal(peer).is_none()
    }

    /// Why `peer` may not.
    pub(super) fn refusal(&self, peer: NodeId) -> Option<Bye> {
        let shunned = self.runs.get(&peer).and_then(|runs| runs.shunned);
        if let Some((_, bye)) = shunned.filter(|(until, _)| *until > Instant::now()) {
            return Some(bye);
        }
        let view = &self.home.as_ref()?.view;
        let renewable = view.is_issuer(self.me()) && view.lapsed(peer);
        if view.revoked.contains_key(&peer) {
            Some(Bye::Revoked)
        } else if view.is_member(peer) || view.issuers.contains(&peer) || renewable {
            None
        } else {
            Some(Bye::NotMember)
        }
    }

    /// What a member said.
    pub(super) async fn said(&mut self, peer: NodeId, session: u64, said: Said) {
        let Some(talk) = self.talks.get_mut(&peer).filter(|talk| talk.session == session) else { return };
        self.last_seen.insert(peer, self.clock.now());
        let message = match said {
            Said::Papers(papers) if talk.greeted => return self.take_in(peer, papers).await,
            Said::Message(message) => message,
            Said::Papers(_) => return self.shun(peer, Bye::Unruly, "it sends papers before a greeting"),
        };
        match message {
            Message::Hello { pool, boot, now, digest } if !talk.greeted => {
                talk.greeted = true;
                self.hello(peer, (pool, boot, now, digest));
            }
            Message::Bye(bye) => self.goodbye(peer, bye),
            _ if !talk.greeted => self.shun(peer, Bye::Unruly, "it does not greet"),
            Message::State { now, digest } => {
                self.compare_clock(peer, now);
                if self.home.as_ref().is_some_and(|home| home.roster.digest() != digest) {
                    self.list(peer);
                }
            }
            Message::Have { digests, last } => self.supply(peer, digests, last),
            Message::Done => talk.complete = true,
            Message::Ready => talk.accepted = true,
            Message::Key(sealed) => self.take_key(peer, sealed).await,
            Message::Hello { .. } => self.shun(peer, Bye::Unruly, "it greets twice"),
            Message::Papers(_) => {}
        }
        self.settle().await;
    }

    fn hello(&mut self, peer: NodeId, (pool, boot, now, digest): (PoolId, [u8; 16], Millis, Digest)) {
        if self.home.as_ref().is_none_or(|home| home.roster.pool() != pool) {
            if let Some(talk) = self.talks.remove(&peer) {
                talk.end(Bye::OtherPool);
            }
            self.retry(peer);
            return self.note(Some(peer), "it is in another pool");
        }
        if self.copied(peer, boot) {
            return self.shun(
                peer,
                Bye::Copied,
                "two machines use its key (one was copied from the other), so neither is let in: revoke it, give \
                 each machine a key of its own, and let both join anew",
            );
        }
        self.compare_clock(peer, now);
        let Some(talk) = self.talks.get_mut(&peer) else { return };
        // Both sides compare the same two digests, so that both list their papers, or neither.
        if talk.digest == digest {
            talk.complete = true;
        } else {
            self.list(peer);
        }
    }

    /// Whether a run of a program that had ended is back: a restart only ever makes new ones.
    fn copied(&mut self, peer: NodeId, boot: [u8; 16]) -> bool {
        let boots = &mut self.runs.entry(peer).or_default().boots;
        if boots.back() == Some(&boot) {
            return false;
        }
        let copied = boots.contains(&boot);
        boots.retain(|known| *known != boot);
        boots.push_back(boot);
        if boots.len() > RUNS {
            boots.pop_front();
        }
        copied
    }

    fn compare_clock(&mut self, peer: NodeId, theirs: Millis) {
        let ahead = theirs.saturating_sub(self.now());
        let Some(talk) = self.talks.get_mut(&peer) else { return };
        // Said again only when it changed by more than a stream can delay a message.
        let known = talk.ahead.saturating_sub(ahead).saturating_abs() < SKEW / 10;
        talk.ahead = ahead;
        if ahead.saturating_abs() > SKEW && !known {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            let what = format!(
                "its clock is {} {side} this machine's: set the wrong one (for instance with NTP); until then \
                 papers from the future are refused",
                spoken(ahead)
            );
            self.note(Some(peer), what);
        }
    }

    /// Lists our papers to a member, so that it sends what we lack.
    fn list(&mut self, peer: NodeId) {
        let Some(home) = &self.home else { return };
        let Some(talk) = self.talks.get_mut(&peer) else { return };
        if talk.listed.is_some_and(|at| at.elapsed() < RELIST) {
            return;
        }
        talk.listed = Some(Instant::now());
        let digests: Vec<Digest> = home.roster.digests().into_iter().collect();
        let pages = digests.len().div_ceil(HAVE).max(1);
        let messages = (1..=pages).map(|page| Message::Have {
            digests: digests.iter().skip((page - 1) * HAVE).take(HAVE).copied().collect(),
            last: page == pages,
        });
        let messages = messages.collect();
        self.say(peer, messages);
    }

    /// Answers a member's list with what it lacks.
    fn supply(&mut self, peer: NodeId, digests: Vec<Digest>, last: bool) {
        let Some(home) = &self.home else { return };
        let Some(talk) = self.talks.get_mut(&peer) else { return };
        // Whoever asks again and again does not make this machine send everything again and again.
        if talk.supplied.is_some_and(|at| at.elapsed() < RELIST / 2) {
            return;
        }
        talk.have.extend(digests);
        if talk.have.len() > MAX_HAVE {
            return self.shun(peer, Bye::Unruly, "it lists more papers than a pool can have");
        }
        if last {
            talk.supplied = Some(Instant::now());
            let known = std::mem::take(&mut talk.have);
            let mut messages = pages(home.roster.lacking(&known));
            messages.push(Message::Done);
            self.say(peer, messages);
        }
    }

    /// Takes in papers; when others hear of them, they are on disk.
    async fn take_in(&mut self, peer: NodeId, papers: Vec<Result<Paper, PaperError>>) {
        let now = self.now();
        let Some(home) = &mut self.home else { return };
        let (good, mut refused): (Vec<_>, Vec<_>) = papers.into_iter().partition(Result::is_ok);
        let good: Vec<Paper> = good.into_iter().flatten().collect();
        match home.record(good, None, now).await {
            Ok((fresh, wrong)) => {
                refused.extend(wrong.into_iter().map(Err));
                self.push(&fresh, Some(peer));
                let budget = &mut self.runs.entry(peer).or_default().budget;
                if fresh.iter().any(|_| budget.take(Instant::now()).is_err()) {
                    self.shun(peer, Bye::Unruly, "it makes new papers without end");
                }
            }
            Err(error) => {
                // What it sent is not kept, so it is not up to date either: begin again later.
                self.drop_talk(peer, Bye::Leaving);
                self.note(None, error.to_string());
            }
        }
        for error in refused.into_iter().filter_map(Result::err) {
            self.refuse_paper(peer, &error);
        }
        self.settle().await;
    }

    fn refuse_paper(&mut self, peer: NodeId, error: &PaperError) {
        self.note(Some(peer), format!("sent {error}"));
        // A clock may be wrong, a pool may be full; anything else an honest member would have refused itself.
        let innocent = matches!(
            error,
            PaperError::Early { .. }
                | PaperError::Expired { .. }
                | PaperError::Full { .. }
                | PaperError::Version { .. }
        );
        let Some(talk) = self.talks.get_mut(&peer) else { return };
        talk.wrong += u32::from(!innocent);
        if talk.wrong > MAX_WRONG {
            self.shun(peer, Bye::Unruly, "it sends papers that are wrong, again and again");
        }
    }

    /// Takes over a newer discovery key.
    async fn take_key(&mut self, peer: NodeId, sealed: Sealed) {
        let now = self.now();
        let admitted = self.talks.get(&peer).is_some_and(|talk| talk.offered && talk.accepted);
        let Some(home) = self.home.as_mut().filter(|_| admitted) else { return };
        let opened = Paper::open(sealed, home.roster.pool());
        let key = match opened {
            Ok(key) if matches!(key.statement(), Statement::Discovery(_)) => key,
            Ok(other) => {
                let error =
                    PaperError::Unauthorised { kind: other.statement().kind(), author: other.author() };
                return self.refuse_paper(peer, &error);
            }
            Err(error) => return self.refuse_paper(peer, &error),
        };
        if !home.view.is_issuer(key.author()) {
            // Of an issuer that was revoked meanwhile, perhaps: no reason to think ill of who passed it on.
            return;
        }
        let held = home.discovery().and(home.key.as_ref());
        if held.is_some_and(|held| epoch(held) >= epoch(&key)) {
            return;
        }
        if let Err(error) = home.record(Vec::new(), Some(key), now).await {
            self.note(None, error.to_string());
        }
    }

    /// Sends new papers to everybody but the one they came from.
    pub(super) fn push(&mut self, papers: &[Paper], from: Option<NodeId>) {
        if papers.is_empty() {
            return;
        }
        let messages = pages(papers.iter().map(|paper| paper.sealed().clone()).collect());
        let peers: Vec<NodeId> = self.talks.keys().copied().filter(|peer| Some(*peer) != from).collect();
        for peer in peers {
            self.say(peer, messages.clone());
        }
    }

    /// Says something to a member; one that does not read is left.
    pub(super) fn say(&mut self, peer: NodeId, messages: Vec<Message>) {
        let Some(talk) = self.talks.get(&peer) else { return };
        if !talk.say(messages) {
            self.talks.remove(&peer);
            self.retry(peer);
            self.note(Some(peer), "it does not read what it is sent");
        }
    }

    /// Repeats the digest where it is due.
    pub(super) fn repeat(&mut self) {
        let Some(home) = &self.home else { return };
        let (now, digest) = (self.clock.now(), home.roster.digest());
        let due: Vec<NodeId> = self
            .talks
            .iter_mut()
            .filter(|(_, talk)| talk.greeted && talk.said_state.elapsed() >= REPEAT)
            .map(|(peer, talk)| {
                talk.said_state = Instant::now();
                *peer
            })
            .collect();
        for peer in due {
            self.say(peer, vec![Message::State { now, digest }]);
        }
    }

    fn goodbye(&mut self, peer: NodeId, bye: Bye) {
        self.talks.remove(&peer);
        self.retry(peer);
        match bye {
            Bye::Leaving => {}
            bye => self.note(Some(peer), format!("it ended the conversation: {bye}")),
        }
    }

    /// Leaves a machine alone for ten minutes.
    fn shun(&mut self, peer: NodeId, bye: Bye, what: &str) {
        let until = Instant::now() + SHUN;
        self.runs.entry(peer).or_default().shunned = Some((until, bye));
        self.drop_talk(peer, bye);
        self.note(Some(peer), what);
    }

    pub(super) fn drop_talk(&mut self, peer: NodeId, bye: Bye) {
        if let Some(talk) = self.talks.remove(&peer) {
            talk.end(bye);
        }
        self.retry(peer);
    }

    pub(super) async fn ended(&mut self, peer: NodeId, session: u64, why: Option<String>) {
        if self.talks.get(&peer).is_none_or(|talk| talk.session != session) {
            return;
        }
        self.talks.remove(&peer);
        self.retry(peer);
        if let Some(why) = why {
            self.note(Some(peer), format!("the comparison of papers broke off: {why}"));
        }
        self.settle().await;
    }

    /// Ends all conversations, and waits a moment until the last words are sent.
    pub(super) async fn hang_up(&mut self, bye: Bye) {
        let writers: Vec<_> =
            std::mem::take(&mut self.talks).into_values().map(|talk| talk.end(bye)).collect();
        let all = async {
            for writer in writers {
                let _ = writer.await;
            }
        };
        let _ = timeout(Duration::from_secs(1), all).await;
    }
}

/// Papers as messages.
fn pages(papers: Vec<Sealed>) -> Vec<Message> {
    papers.chunks(PAGE).map(|page| Message::Papers(page.to_vec())).collect()
}

/// The order of discovery keys.
fn epoch(key: &Paper) -> (u64, Digest) {
    match key.statement() {
        Statement::Discovery(it) => (it.epoch, key.digest()),
        _ => (0, key.digest()),
    }
}
