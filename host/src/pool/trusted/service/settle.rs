//! What follows whenever something changed, or time passed: renewals, who is admitted, and what others are told.

use super::super::{
    clock::{Millis, draw},
    exchange::{Bye, Message},
    papers::{Certificate, Discovery, Paper, Statement},
    roster::{Standing, View},
};
use super::{Admitted, GateView, PoolError, actor::Actor};
use crate::identity::NodeId;

impl Actor {
    /// Brings everything in line with the papers and the time.
    pub(super) async fn settle(&mut self) {
        let now = self.now();
        if let Some(home) = &mut self.home {
            home.view = home.roster.view(now);
        }
        if let Err(error) = self.renew(now).await {
            self.note(None, format!("certificates are not renewed: {error}"));
        }
        self.part();
        self.offer(now);
        self.tell_key();
        self.publish();
    }

    /// Renews certificates that are due: of this machine, and of members that are up to date with it. Makes the
    /// discovery key if there is none.
    async fn renew(&mut self, now: Millis) -> Result<(), PoolError> {
        let me = self.me();
        let Some(home) = &mut self.home else { return Ok(()) };
        if home.issuer(&self.signer).is_none() {
            return Ok(());
        }
        let met = self.talks.iter().filter(|(_, talk)| talk.complete).map(|(peer, _)| *peer);
        let due = met.chain([me]).filter(|node| due(&home.view, *node, now));
        let mut papers = Vec::new();
        for node in due {
            if let Some(certificate) = home.roster.renewal(&home.view, node, self.settings.life) {
                papers.push(Paper::sign(Statement::Certificate(certificate), &self.signer)?);
            }
        }
        let key = match home.discovery() {
            Some(_) => None,
            None => {
                Some(Paper::sign(fresh_key(home.view.pool, None, now, draw(&*self.random)?), &self.signer)?)
            }
        };
        if papers.is_empty() && key.is_none() {
            return Ok(());
        }
        let (fresh, _) = home.record(papers, key, now).await?;
        self.push(&fresh, None);
        Ok(())
    }

    /// Leaves machines that may not compare papers any more.
    fn part(&mut self) {
        let leaving: Vec<(NodeId, Bye)> = match &self.home {
            Some(_) => self.talks.keys().filter_map(|peer| Some((*peer, self.refusal(*peer)?))).collect(),
            None => self.talks.keys().map(|peer| (*peer, Bye::Leaving)).collect(),
        };
        for (peer, bye) in leaving {
            self.drop_talk(peer, bye);
        }
    }

    /// Admits whoever is up to date and a member, once that is mutual.
    fn offer(&mut self, now: Millis) {
        let me = self.me();
        let Some(home) = &self.home else { return };
        let both = |peer: NodeId| home.view.is_member(me) && home.view.is_member(peer);
        let mut ready = Vec::new();
        for (peer, talk) in &mut self.talks {
            if talk.complete && !talk.offered && both(*peer) {
                talk.offered = true;
                ready.push(*peer);
            }
            let admitted = talk.offered && talk.accepted && both(*peer);
            talk.admitted = admitted.then(|| talk.admitted.unwrap_or(now));
            if let Some(link) = self.links.get_mut(peer).filter(|_| admitted) {
                link.failures = 0;
            }
        }
        for peer in ready {
            self.say(peer, vec![Message::Ready]);
        }
    }

    /// Tells admitted members the discovery key, once each.
    fn tell_key(&mut self) {
        let Some(home) = &self.home else { return };
        let Some(key) = home.key.clone().filter(|_| home.discovery().is_some()) else { return };
        let mut untold = Vec::new();
        for (peer, talk) in &mut self.talks {
            if talk.admitted.is_some() && talk.told != Some(key.digest()) {
                talk.told = Some(key.digest());
                untold.push(*peer);
            }
        }
        for peer in untold {
            self.say(peer, vec![Message::Key(key.sealed().clone())]);
        }
    }

    fn publish(&mut self) {
        let admitted = self.talks.iter().filter_map(|(peer, talk)| {
            let view = &self.home.as_ref()?.view;
            let member = view.members.get(peer)?;
            let link = self.links.get(peer)?;
            let admitted = Admitted {
                node: *peer,
                name: member.name.clone(),
                grants: view.grants(*peer)?,
                path: link.path.clone(),
                since: talk.admitted?,
            };
            Some((admitted, member.certificate.expires))
        });
        let admitted = admitted.collect();
        let me = self.me();
        let own = self.home.as_ref().and_then(|home| {
            let member = home.view.members.get(&me)?;
            Some((home.view.grants(me)?, member.certificate.expires))
        });
        self.access.publish(self.gate(), own, admitted);
        // Somebody who is no member any more is bound by nothing the pool decides, and serves nobody in it.
        let view = self.home.as_ref().map(|home| &home.view).filter(|view| view.is_member(me));
        let approved = view.iter().flat_map(|view| &view.ballots).filter(|ballot| ballot.approved);
        self.access.approve(approved.map(|ballot| ballot.motion).collect());
    }

    /// Which machines may connect.
    fn gate(&self) -> GateView {
        let me = self.me();
        let Some(home) = &self.home else { return GateView::default() };
        let view = &home.view;
        if !matches!(view.standing(me), Some(Standing::Member | Standing::Expired)) {
            return GateView::default();
        }
        let known = view.members.keys().chain(&view.issuers).copied();
        let members = known.filter(|node| *node != me && self.eligible(*node)).collect();
        let answers = |only_owner: bool| view.is_issuer(me) && (!only_owner || home.root.is_some());
        let guests = view.guests.iter().filter(|(_, only_owner)| answers(**only_owner));
        let guests = guests.map(|(invite, _)| invite.0).collect();
        let relays = view.current().filter(|member| member.node != me && member.certificate.grants.relay);
        let relays = relays.map(|member| member.node).collect();
        GateView {
            pool: Some(home.view.pool.0),
            members,
            guests,
            relays,
            discovery: home.discovery().map(|key| key.key),
        }
    }
}

/// The key after `held`.
pub(super) fn fresh_key(
    pool: super::super::papers::PoolId,
    held: Option<&Discovery>,
    now: Millis,
    key: [u8; 32],
) -> Statement {
    let epoch = held.map_or(0, |held| held.epoch).saturating_add(1);
    Statement::Discovery(Discovery { pool, epoch, key, at: now })
}

/// Whether a certificate has less than a third of its life left, or ran out lately.
fn due(view: &View, node: NodeId, now: Millis) -> bool {
    let third = |certificate: &Certificate| {
        let life = certificate.expires.saturating_sub(certificate.issued);
        certificate.expires.saturating_sub(now) < life / 3
    };
    let member = view.members.get(&node);
    member.is_some_and(|member| {
        (member.standing == Standing::Member && third(&member.certificate)) || view.lapsed(node)
    })
}
