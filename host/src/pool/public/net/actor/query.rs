//! Questions to the network, and what this node keeps for others.

use std::{collections::BTreeSet, time::Instant};

use libp2p::{
    Multiaddr, PeerId,
    kad::{self, store::RecordStore},
};
use tokio::sync::oneshot;

use super::Actor;
use crate::{
    identity::NodeId,
    mesh::{address, limits, peer},
    pool::public::net::{NetError, Prefix},
};

/// The most providers of one key that are returned.
const PROVIDERS: usize = 256;
/// Addresses kept with a provider record.
const RECORD_ADDRESSES: usize = 8;

/// A question under way, and who asked.
pub(super) enum Query {
    Providers { found: BTreeSet<NodeId>, reply: oneshot::Sender<Vec<NodeId>> },
    Provide { reply: oneshot::Sender<Result<(), NetError>> },
    Node(NodeId),
}

impl Actor {
    pub(super) fn provide(&mut self, key: [u8; 32], reply: oneshot::Sender<Result<(), NetError>>) {
        match self.swarm.behaviour_mut().kad.start_providing(kad::RecordKey::new(&key)) {
            Ok(id) => {
                self.queries.insert(id, Query::Provide { reply });
            }
            Err(error) => {
                let _ = reply.send(Err(NetError::Refused(error.to_string())));
            }
        }
    }

    pub(super) fn withdraw(&mut self, key: [u8; 32]) {
        self.swarm.behaviour_mut().kad.stop_providing(&kad::RecordKey::new(&key));
    }

    pub(super) fn providers(&mut self, key: [u8; 32], reply: oneshot::Sender<Vec<NodeId>>) {
        let id = self.swarm.behaviour_mut().kad.get_providers(kad::RecordKey::new(&key));
        self.queries.insert(id, Query::Providers { found: BTreeSet::new(), reply });
    }

    /// Asks where a node is; `false` if that was asked already, or nobody waits for it.
    pub(super) fn seek(&mut self, node: NodeId) -> bool {
        let Some(peer_id) = peer::peer_id(node) else { return false };
        if !self.waiting.contains_key(&node) || !self.sought.insert(node) {
            return false;
        }
        let id = self.swarm.behaviour_mut().kad.get_closest_peers(peer_id);
        self.queries.insert(id, Query::Node(node));
        true
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.progressed(id, result, step.last);
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => self.keep_record(record),
            _ => {}
        }
    }

    fn progressed(&mut self, id: kad::QueryId, result: kad::QueryResult, last: bool) {
        let Some(query) = self.queries.remove(&id) else { return };
        match (query, result) {
            (Query::Providers { mut found, reply }, result) => {
                if let kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders {
                    providers,
                    ..
                })) = result
                {
                    let room = PROVIDERS.saturating_sub(found.len());
                    found.extend(providers.iter().filter_map(peer::node_id).take(room));
                }
                if last {
                    let _ = reply.send(found.into_iter().collect());
                } else {
                    self.queries.insert(id, Query::Providers { found, reply });
                }
            }
            (Query::Provide { reply }, result) => {
                let failed = match result {
                    kad::QueryResult::StartProviding(Err(error)) => Err(NetError::Refused(error.to_string())),
                    _ => Ok(()),
                };
                let _ = reply.send(failed);
            }
            (Query::Node(node), kad::QueryResult::GetClosestPeers(result)) => {
                let peers = match result {
                    Ok(found) => found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                let its = peers.into_iter().find(|found| peer::node_id(&found.peer_id) == Some(node));
                let addresses = its.map(|found| found.addrs).unwrap_or_default();
                self.sought(node, &addresses);
            }
            (Query::Node(node), _) => self.sought(node, &[]),
        }
    }

    /// Keeps where a provider can be found, as long as its part of the network does not send too many.
    fn keep_record(&mut self, mut record: kad::ProviderRecord) {
        let from = self.connections.values().find(|connection| connection.peer == record.provider);
        let Some(from) = from.and_then(|connection| Prefix::at(&connection.address)) else { return };
        if !self.records.charge(from, Instant::now()) {
            tracing::debug!(provider = %record.provider, "provider record dropped: too many from there");
            return;
        }
        record.addresses.retain(|at| address::is_dialable(&address::bare(at)));
        record.addresses.truncate(RECORD_ADDRESSES);
        if let Err(error) = self.swarm.behaviour_mut().kad.store_mut().add_provider(record) {
            tracing::debug!(%error, "provider record dropped");
        }
    }

    /// Who is in the routing table.
    #[cfg(test)]
    pub(super) fn table(&mut self) -> Vec<NodeId> {
        let buckets = self.swarm.behaviour_mut().kad.kbuckets();
        let peers = buckets
            .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>());
        peers.filter_map(|peer| peer::node_id(&peer)).collect()
    }

    /// Takes a peer into the routing table, unless its part of the network has its share of it: whoever has many
    /// keys in one place must not be all that this node sees.
    pub(super) fn take_into_table(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let Some(prefix) = addresses.iter().find_map(Prefix::at) else { return };
        let (kad, share) = (&mut self.swarm.behaviour_mut().kad, self.config.limits.table_per_prefix);
        let mut neighbours = 0;
        for bucket in kad.kbuckets() {
            for entry in bucket.iter() {
                if *entry.node.key.preimage() == peer {
                    continue;
                }
                neighbours += usize::from(entry.node.value.iter().find_map(Prefix::at) == Some(prefix));
            }
        }
        if neighbours >= share {
            tracing::debug!(%peer, %prefix, "left out of the routing table: its prefix has its share");
            return;
        }
        for address in addresses.iter().take(limits::BOOK_ADDRESSES) {
            kad.add_address(&peer, address::bare(address));
        }
    }
}
