//! The behaviours of the swarm, and the swarm itself.

use std::sync::Arc;

use libp2p::{
    PeerId, Swarm, Transport, autonat, connection_limits,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    dcutr, dns, identify,
    identity::Keypair,
    noise, quic, relay,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};

use crate::mesh::{
    Config, MeshError,
    door::{Board, Door},
    gatekeeper::Gatekeeper,
    limits,
    members::Members,
    roll::Roll,
};

/// What members tell each other they speak. Strangers and guests never see it.
const IDENTITY: &str = "potluck/1";

/// Room for the mesh's own streams on a connection (pulse, identify, relaying, punching): the door counts those of
/// the rest of the node.
const OWN_STREAMS: usize = 320;

/// All behaviours. The order matters: the gatekeeper is asked first.
#[derive(NetworkBehaviour)]
pub(crate) struct Rooms {
    pub(crate) gate: Gatekeeper,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) door: Door,
    pub(crate) identify: Members<identify::Behaviour>,
    pub(crate) relay_client: Members<relay::client::Behaviour>,
    /// The one behaviour besides the door that guests meet: it may take them to the node that invited them.
    pub(crate) relay: Toggle<relay::Behaviour>,
    pub(crate) punch: Toggle<Members<dcutr::Behaviour>>,
    pub(crate) reach: Members<autonat::v2::client::Behaviour>,
    pub(crate) reach_server: Members<autonat::v2::server::Behaviour>,
}

impl Rooms {
    fn new(
        key: &Keypair,
        config: &Config,
        relay_client: relay::client::Behaviour,
        board: Arc<Board>,
        roll: Roll,
    ) -> Self {
        let me = key.public().to_peer_id();
        // What is told is chosen address by address, so that nothing of this machine only goes out.
        let identify = identify::Config::new(IDENTITY.into(), key.public())
            .with_agent_version(concat!("potluck/", env!("CARGO_PKG_VERSION")).into())
            .with_hide_listen_addrs(true)
            .with_cache_size(0);
        let relay = config.relay.then(|| {
            let mut server = relay::Behaviour::new(me, relay_config());
            // Whoever configures a relay knows that it can be reached.
            server.set_status(Some(relay::Status::Enable));
            server
        });
        let punch =
            config.punch.then(|| Members::with_own_candidates(dcutr::Behaviour::new(me), roll.clone()));
        Self {
            gate: Gatekeeper::new(roll.clone()),
            limits: connection_limits::Behaviour::new(connection_limits()),
            door: Door::new(board, roll.clone()),
            identify: Members::new(identify::Behaviour::new(identify), roll.clone()),
            relay_client: Members::new(relay_client, roll.clone()),
            relay: relay.into(),
            punch: punch.into(),
            reach: Members::with_own_candidates(autonat::v2::client::Behaviour::default(), roll.clone()),
            reach_server: Members::new(autonat::v2::server::Behaviour::default(), roll),
        }
    }
}

fn connection_limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits::PENDING_INBOUND))
        .with_max_pending_outgoing(Some(limits::PENDING_OUTBOUND))
        .with_max_established(Some(limits::CONNECTIONS))
        .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER))
}

fn relay_config() -> relay::Config {
    relay::Config {
        max_reservations: limits::RESERVATIONS_GRANTED,
        max_reservations_per_peer: 4,
        reservation_duration: limits::RESERVATION_DURATION,
        // Members only, and they come back often after a restart: their number is the limit.
        reservation_rate_limiters: Vec::new(),
        max_circuits: limits::CIRCUITS,
        max_circuits_per_peer: limits::CIRCUITS_PER_PEER,
        max_circuit_duration: limits::CIRCUIT_DURATION,
        max_circuit_bytes: limits::CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    }
}

fn quic_config(key: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(key);
    config.handshake_timeout = limits::HANDSHAKE;
    config.max_idle_timeout = u32::try_from(limits::QUIC_IDLE.as_millis()).unwrap_or(u32::MAX);
    config.keep_alive_interval = limits::QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit =
        u32::try_from(limits::STREAMS_PER_CONNECTION + OWN_STREAMS).unwrap_or(u32::MAX);
    config.max_stream_data = limits::QUIC_STREAM_WINDOW;
    config.max_connection_data = limits::QUIC_CONNECTION_WINDOW;
    config
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(limits::STREAMS_PER_CONNECTION + OWN_STREAMS);
    config
}

pub(crate) type Muxed = Boxed<(PeerId, StreamMuxerBox)>;

/// QUIC, TCP and relayed connections, and the half of the relay client that goes with them.
pub(crate) fn transport(key: &Keypair) -> Result<(Muxed, relay::client::Behaviour), MeshError> {
    let me = key.public().to_peer_id();
    let noise = noise::Config::new(key).map_err(|error| MeshError::Key(error.to_string()))?;
    let (relayed, client) = relay::client::new(me);
    let relayed = relayed
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux_config())
        .timeout(limits::HANDSHAKE)
        .boxed();
    let direct = named(key, &noise);
    Ok((OrTransport::new(relayed, direct).map(|output, _| output.into_inner()).boxed(), client))
}

/// QUIC and TCP, without relayed connections.
#[cfg(feature = "public")]
pub(crate) fn direct_transport(key: &Keypair) -> Result<Muxed, MeshError> {
    let noise = noise::Config::new(key).map_err(|error| MeshError::Key(error.to_string()))?;
    Ok(named(key, &noise))
}

/// QUIC and TCP to addresses that may be names. A machine without a resolver configuration still dials those that
/// are not.
fn named(key: &Keypair, noise: &noise::Config) -> Muxed {
    match dns::tokio::Transport::system(direct(key, noise)) {
        Ok(named) => named.boxed(),
        Err(_) => direct(key, noise),
    }
}

/// QUIC and TCP.
fn direct(key: &Keypair, noise: &noise::Config) -> Muxed {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux_config())
        .timeout(limits::HANDSHAKE)
        .boxed();
    let quic = quic::tokio::Transport::new(quic_config(key))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    OrTransport::new(quic, tcp).map(|output, _| output.into_inner()).boxed()
}

/// A swarm that members, and nobody else, can connect to.
pub(crate) fn swarm(
    key: &Keypair,
    config: &Config,
    board: Arc<Board>,
    roll: Roll,
) -> Result<Swarm<Rooms>, MeshError> {
    let (transport, client) = transport(key)?;
    let rooms = Rooms::new(key, config, client, board, roll);
    let config = swarm::Config::with_tokio_executor()
        // A stream is used before the other side has said that it takes the protocol: one round trip less.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_max_negotiating_inbound_streams(limits::NEGOTIATING_PER_CONNECTION)
        .with_idle_connection_timeout(limits::GUEST_IDLE)
        .with_smart_dial();
    Ok(Swarm::new(transport, rooms, key.public().to_peer_id(), config))
}
