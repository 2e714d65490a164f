//! The behaviours of the public swarm, and the swarm itself.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc, time::Duration};

use libp2p::{
    StreamProtocol, Swarm, autonat, connection_limits,
    core::upgrade::Version,
    gossipsub, identify,
    identity::Keypair,
    kad,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{
    Config, IDLE, Limits, MESSAGE_BYTES, NetError, QUERY, RECORD_LIFE, RECORDS, TOPIC, brake::Brake,
};
use crate::mesh::{
    behaviour::direct_transport,
    door::{Board, Door},
    limits,
    roll::Roll,
};

/// The protocol of the routing table and the provider records.
pub(super) const KAD: StreamProtocol = StreamProtocol::new("/potluck/kad/1");
/// What identifies the network. Nobody is told more of the software: strangers would tell nodes apart by it.
const IDENTITY: &str = "potluck-public/1";
/// What a signed message may have beside its data: key, signature, number, topic.
const ENVELOPE: usize = 512;
/// The most bytes that may have arrived and not been looked at. libp2p holds them against the size of one message, also
/// when they are several small ones, and stops listening to whoever exceeds it: room for a few reads of 8 KiB.
const ARRIVED: usize = 64 << 10;

type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, gossipsub::WhitelistSubscriptionFilter>;

/// All behaviours. The order matters: the brake is asked first.
#[derive(NetworkBehaviour)]
pub(super) struct Rooms {
    pub(super) brake: Brake,
    limits: connection_limits::Behaviour,
    pub(super) door: Door,
    identify: identify::Behaviour,
    pub(super) kad: kad::Behaviour<kad::store::MemoryStore>,
    pub(super) gossip: Gossip,
    /// Only where this node listens: whoever does not is of no help to others.
    reach: Toggle<autonat::v2::client::Behaviour>,
    reach_server: Toggle<autonat::v2::server::Behaviour>,
}

/// A swarm of strangers.
pub(super) fn swarm(key: &Keypair, config: &Config, board: Arc<Board>) -> Result<Swarm<Rooms>, NetError> {
    let me = key.public().to_peer_id();
    let identify = identify::Config::new(IDENTITY.into(), key.public())
        .with_agent_version("potluck".into())
        .with_hide_listen_addrs(true)
        .with_cache_size(0);
    let listens = !config.listen.is_empty();
    let rooms = Rooms {
        brake: Brake::new(config.limits.per_prefix),
        limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
        door: Door::new(board, Roll::everybody()),
        identify: identify::Behaviour::new(identify),
        kad: kademlia(me, config),
        gossip: gossip(key)?,
        reach: listens.then(autonat::v2::client::Behaviour::default).into(),
        reach_server: listens.then(autonat::v2::server::Behaviour::default).into(),
    };
    let config = swarm::Config::with_tokio_executor()
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_max_negotiating_inbound_streams(limits::NEGOTIATING_PER_CONNECTION)
        .with_idle_connection_timeout(IDLE)
        .with_smart_dial();
    Ok(Swarm::new(direct_transport(key)?, rooms, me, config))
}

fn connection_limits(caps: &Limits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits::PENDING_INBOUND))
        .with_max_pending_outgoing(Some(limits::PENDING_OUTBOUND))
        .with_max_established(Some(caps.connections))
        .with_max_established_incoming(Some(caps.inbound))
        .with_max_established_per_peer(Some(caps.per_peer))
}

fn kademlia(me: libp2p::PeerId, config: &Config) -> kad::Behaviour<kad::store::MemoryStore> {
    let store = kad::store::MemoryStoreConfig {
        // No values are kept for anybody, and provider records only after a look at who sends them.
        max_records: 0,
        max_value_bytes: 0,
        max_provided_keys: RECORDS,
        ..Default::default()
    };
    let mut own = kad::Config::new(KAD);
    own.set_query_timeout(QUERY)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(RECORD_LIFE))
        .set_provider_publication_interval(Some(RECORD_LIFE / 3))
        .set_max_packet_size(16 << 10)
        .disjoint_query_paths(true);
    if let Some(parallel) = NonZeroUsize::new(5) {
        own.set_parallelism(parallel);
    }
    let store = kad::store::MemoryStore::with_config(me, store);
    let mut kademlia = kad::Behaviour::with_config(me, store, own);
    let listens = !config.listen.is_empty() || !config.announce.is_empty();
    match config.reachable {
        Some(true) if listens => kademlia.set_mode(Some(kad::Mode::Server)),
        None if listens => kademlia.set_mode(None),
        _ => kademlia.set_mode(Some(kad::Mode::Client)),
    }
    kademlia
}

fn gossip(key: &Keypair) -> Result<Gossip, NetError> {
    let refused = |reason: String| NetError::Key(reason);
    let topic = gossipsub::IdentTopic::new(TOPIC);
    let config = gossipsub::ConfigBuilder::default()
        .max_transmit_size(ARRIVED)
        .max_transmit_size_for_topic(MESSAGE_BYTES + ENVELOPE, topic.hash())
        .validation_mode(gossipsub::ValidationMode::Strict)
        // Passed on only once the sieve has looked at it.
        .validate_messages()
        .heartbeat_initial_delay(Duration::from_secs(1))
        .connection_handler_queue_len(1_024)
        .max_publish_messages(256)
        .max_control_messages_sent(256)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let authenticity = gossipsub::MessageAuthenticity::Signed(key.clone());
    // What a peer subscribes to beside it is not even remembered.
    let filter = gossipsub::WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let gossip = Gossip::new_with_subscription_filter(authenticity, config, filter);
    let mut gossip = gossip.map_err(|error| refused(error.to_owned()))?;
    gossip.subscribe(&topic).map_err(|error| refused(error.to_string()))?;
    Ok(gossip)
}
