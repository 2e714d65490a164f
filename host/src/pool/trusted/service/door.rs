//! The door: machines that come with an invite.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant, timeout},
};

use super::super::{
    clock::{Clock, draw},
    join::{self, Answer, Applicant, Bucket, Ended, JOIN_TIME},
    papers::{Delegation, InviteId, Paper, Statement},
    roster::{Admission, JoinRefusal},
};
use super::actor::{Actor, Event};
use crate::mesh::streams::{Inbound, Stream};

/// Invites whose use is counted at a time.
const KNOCKS: usize = 512;

impl Actor {
    /// Lets a machine prove what it has, or tells it to come back later. Floods end here: a few at a time, 30 a
    /// minute, 10 a minute with one invite.
    pub(super) fn knock(&mut self, Inbound { peer, mut stream }: Inbound) {
        let Some(home) = &self.home else { return };
        let now = Instant::now();
        if self.knocks.len() >= KNOCKS {
            let guests = &home.view.guests;
            self.knocks.retain(|key, _| guests.contains_key(&InviteId(*key)));
        }
        let bucket = self.knocks.entry(peer).or_insert_with(|| Bucket::new(10, Duration::from_secs(6), now));
        let free = bucket.take(now).and_then(|()| self.door.take(now));
        let chair = Arc::clone(&self.chairs).try_acquire_owned();
        let (Ok(()), Ok(chair)) = (free, chair) else {
            let wait = free.err().unwrap_or(Duration::from_secs(2));
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            self.note(
                None,
                "more machines try to join than can be let in: some were told to come back later",
            );
            if let Ok(place) = Arc::clone(&self.porch).try_acquire_owned() {
                tokio::spawn(async move {
                    let busy = join::answer(&mut stream, Err(JoinRefusal::Busy { wait }));
                    let _ = timeout(Duration::from_secs(2), busy).await;
                    drop(place);
                });
            }
            return;
        };
        let nonce = match draw(&*self.random) {
            Ok(nonce) => nonce,
            Err(error) => return self.note(None, format!("nobody can join: {error}")),
        };
        let by = home.view.name_of(self.me());
        let desk = Desk {
            whose: (home.roster.pool(), self.me(), by),
            nonce,
            clock: Arc::clone(&self.clock),
            events: self.events.clone(),
        };
        tokio::spawn(async move {
            let end = timeout(JOIN_TIME, desk.serve(&mut stream, peer)).await;
            let what = match end {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it took too long".to_owned()),
            };
            if let Some(what) = what {
                let what = format!("a machine with the invite {} did not join: {what}", peer.short());
                let _ = desk.events.send(Event::Turned { what }).await;
            }
            drop(chair);
        });
    }

    /// Decides about a machine that proved itself. When this says yes, that is on disk.
    pub(super) async fn apply(&mut self, applicant: Applicant) -> Result<Answer, JoinRefusal> {
        let (now, me, life) = (self.now(), self.me(), self.settings.life);
        let failed = |by: &str, what: String| JoinRefusal::Failed { by: by.to_owned(), what };
        let Some(home) = &mut self.home else { return Err(JoinRefusal::Unknown) };
        let view = home.roster.view(now);
        let by = view.name_of(me);
        if !view.is_issuer(me) {
            return Err(JoinRefusal::NotIssuer { by });
        }
        let Applicant { invite, node, name } = applicant;
        let certificate = match home.roster.admit(&view, invite, node, &name, life)? {
            Admission::Held => None,
            Admission::Issue(certificate) => Some(*certificate),
        };
        let mut papers = Vec::new();
        if let Some(certificate) = certificate {
            if certificate.grants.admin && !view.is_issuer(node) {
                let root = home.root.as_ref().ok_or_else(|| JoinRefusal::NeedsRoot { by: by.clone() })?;
                let delegation = Delegation { pool: view.pool, node, issued: now };
                papers.push(Paper::sign(Statement::Delegation(delegation), &root.signer));
            }
            papers.push(Paper::sign(Statement::Certificate(certificate), &self.signer));
        }
        let papers =
            papers.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| failed(&by, e.to_string()))?;
        let (fresh, refused) =
            home.record(papers, None, now).await.map_err(|e| failed(&by, e.to_string()))?;
        if let Some(error) = refused.first() {
            return Err(failed(&by, error.to_string()));
        }
        let answer = Answer {
            discovery: home.discovery().and(home.key.as_ref()).map(|key| key.sealed().clone()),
            papers: home.roster.papers().map(|paper| paper.sealed().clone()).collect(),
        };
        self.push(&fresh, None);
        self.settle().await;
        Ok(answer)
    }
}

/// What a task needs to hear one machine.
struct Desk {
    whose: (super::super::papers::PoolId, crate::identity::NodeId, String),
    nonce: [u8; 32],
    clock: Arc<dyn Clock>,
    events: mpsc::Sender<Event>,
}

impl Desk {
    async fn serve(&self, stream: &mut Stream, peer: crate::identity::NodeId) -> Result<(), Ended> {
        let (pool, me, by) = &self.whose;
        let applicant = join::hear(stream, peer, (*pool, *me, by), self.nonce, &*self.clock).await?;
        let (reply, outcome) = oneshot::channel();
        let _ = self.events.send(Event::Apply { applicant, reply }).await;
        let outcome = outcome.await.unwrap_or_else(|_| {
            Err(JoinRefusal::Failed { by: by.clone(), what: "it is shutting down".into() })
        });
        let refusal = outcome.as_ref().err().cloned();
        join::answer(stream, outcome).await?;
        refusal.map_or(Ok(()), |refusal| Err(Ended::Refused(refusal)))
    }
}
