//! Knocking: how a machine that holds an invite reaches the pool before it is a member.
//!
//! It does so under the invite's key, with a swarm of its own that lives as long as the stream it opens and
//! speaks nothing but the protocol for joining. The node's own key is shown to nobody before that stream stands.

use std::{sync::Arc, time::Duration};

use crate::{
    identity::NodeId,
    mesh::streams::{self, OpenError, Stream},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::multiaddr::Protocol,
    relay,
    swarm::{
        self, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::mesh::{
    address, behaviour,
    door::{BROKE, Board, Door, JOIN, Wanted},
    handle::Gate,
    limits, peer,
    probe::explain,
    roll::Roll,
};

/// The time the last bytes of a dropped stream get to leave.
const LINGER: Duration = Duration::from_millis(500);

/// What it means when the handshake works and nothing more.
const HUNG_UP: &str =
    "it hung up after the handshake: the invite has been used up or revoked, or has expired";

#[derive(NetworkBehaviour)]
struct Porch {
    door: Door,
    relay_client: relay::client::Behaviour,
}

/// Opens `/potluck/join/1` at the node `at` under the key of `seed`, by one of `addresses`, which may lead
/// through relays. The stream keeps its connection alive until it is dropped.
///
/// # Errors
/// [`OpenError::Unreachable`] with what came of each address; or if the node hangs up, since it does not know the
/// key (any longer).
pub async fn knock(seed: [u8; 32], at: NodeId, addresses: Vec<Multiaddr>) -> Result<Stream, OpenError> {
    let unreachable = |reason: &str| OpenError::Unreachable { peer: at, reason: reason.into() };
    let key = peer::keypair(seed).ok_or_else(|| unreachable("the invite holds no key"))?;
    let peer = peer::peer_id(at).ok_or_else(|| unreachable("the invite names no node"))?;
    let addresses = dialable(&addresses, peer);
    if addresses.is_empty() {
        return Err(unreachable("the invite has no address that can be dialled"));
    }
    let (transport, relay_client) =
        behaviour::transport(&key).map_err(|error| unreachable(&error.to_string()))?;
    let me = peer::node_of(&key.public()).unwrap_or(at);
    let door = Door::new(Arc::new(Board::default()), expected(at, &addresses, me));
    let config = swarm::Config::with_tokio_executor().with_smart_dial();
    let swarm = Swarm::new(transport, Porch { door, relay_client }, key.public().to_peer_id(), config);
    let (reply, opened) = oneshot::channel();
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let wanted = Wanted { node: at, protocol: JOIN, reply };
    tokio::spawn(drive(swarm, peer, addresses, wanted, stop));
    match timeout(limits::KNOCK, opened).await {
        Ok(Ok(Ok(stream))) => Ok(streams::guarded(stream, guard)),
        Ok(Ok(Err(OpenError::Unreachable { reason, .. }))) if reason.starts_with(BROKE) => {
            Err(unreachable(HUNG_UP))
        }
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => Err(unreachable(HUNG_UP)),
        Err(_) => Err(unreachable("no answer in time")),
    }
}

/// Whom the temporary swarm may be connected to: the node, and the relays on the way.
fn expected(at: NodeId, addresses: &[Multiaddr], me: NodeId) -> Roll {
    let roll = Roll::default();
    let named = addresses.iter().flat_map(|address| address.iter().collect::<Vec<_>>());
    let relays = named.filter_map(|part| match part {
        Protocol::P2p(peer) => peer::node_id(&peer),
        _ => None,
    });
    roll.set(&Gate { members: relays.chain([at]).collect(), ..Gate::default() }, me);
    roll
}

/// The addresses of an invite that can be dialled, each ending with the node's name.
fn dialable(addresses: &[Multiaddr], peer: PeerId) -> Vec<Multiaddr> {
    let sane = |address: &&Multiaddr| {
        let direct: Multiaddr = address.iter().take_while(|part| !matches!(part, Protocol::P2p(_))).collect();
        address::is_dialable(&direct) && address.len() <= 2 * limits::ADDRESS_BYTES
    };
    let mut sane: Vec<_> =
        addresses.iter().filter(sane).map(|address| address::named(address, peer)).collect();
    address::order(&mut sane);
    sane.dedup();
    sane.truncate(limits::DIAL_ADDRESSES);
    sane
}

/// Runs the temporary swarm until the stream is dropped, or cannot be opened.
async fn drive(
    mut swarm: Swarm<Porch>,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    wanted: Wanted,
    stop: CancellationToken,
) {
    let options =
        DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses.clone()).build();
    let dial = options.connection_id();
    if let Err(error) = swarm.dial(options) {
        return wanted.unreachable(error.to_string());
    }
    let mut wanted = Some(wanted);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = swarm.select_next_some() => event,
        };
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } if peer_id == peer => {
                if let Some(wanted) = wanted.take() {
                    swarm.behaviour_mut().door.open(peer, connection_id, wanted);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, .. } if peer_id == peer => return,
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } if connection_id == dial => {
                let tried = explain(&error, &addresses);
                let tried: Vec<_> = tried.iter().map(|(at, outcome)| format!("{at}: {outcome}")).collect();
                if let Some(wanted) = wanted.take() {
                    wanted.unreachable(tried.join("; "));
                }
                return;
            }
            _ => {}
        }
    }
    let _ = timeout(LINGER, async {
        loop {
            swarm.select_next_some().await;
        }
    })
    .await;
}
