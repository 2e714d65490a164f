//! Every cap and timer of the mesh, in one place. The table in the module's introduction names them.

use std::time::Duration;

/// The longest an inbound or outbound handshake may take, from the first byte to the authenticated connection.
pub const HANDSHAKE: Duration = Duration::from_secs(8);
/// Inbound handshakes that may be under way at once.
pub const PENDING_INBOUND: u32 = 64;
/// Inbound handshakes that may be under way at once from one IP address.
pub const PENDING_PER_IP: usize = 8;
/// Outbound dials that may be under way at once.
pub const PENDING_OUTBOUND: u32 = 64;
/// Connections that may stand at once.
pub const CONNECTIONS: u32 = 4_096;
/// Connections that may stand at once with one peer.
pub const CONNECTIONS_PER_PEER: u32 = 8;
/// Streams that may be open at once on one connection, in both directions together.
pub const STREAMS_PER_CONNECTION: usize = 256;
/// Streams on one connection whose opening may be under way at once; further ones are refused.
pub const OPENING_PER_CONNECTION: usize = 64;
/// Inbound streams on one connection that may be choosing their protocol at once.
pub const NEGOTIATING_PER_CONNECTION: usize = 32;
/// The longest a stream may take to choose its protocol.
pub const NEGOTIATION: Duration = Duration::from_secs(10);
/// Streams of one protocol that others opened and nobody has taken yet; further ones are dropped.
pub const INCOMING_QUEUE: usize = 64;
/// Callers that may wait at once for a connection with one peer.
pub const WAITERS_PER_PEER: usize = 256;
/// The longest a caller waits for a stream.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one hello.
pub const HELLO_BYTES: usize = 16 << 10;
/// A stream that was shut down and dropped before the other side agreed to take it is kept so long for that.
pub const LINGER: Duration = Duration::from_secs(5);
/// Commands that may wait for the actor.
pub const COMMANDS: usize = 256;
/// Events a slow listener may lag behind before it loses some.
pub const EVENTS: usize = 256;

/// Bytes under way that one QUIC stream may have.
pub const QUIC_STREAM_WINDOW: u32 = 8 << 20;
/// Bytes under way that one QUIC connection may have.
pub const QUIC_CONNECTION_WINDOW: u32 = 24 << 20;
/// A QUIC connection without any packet for so long is dead.
pub const QUIC_IDLE: Duration = Duration::from_secs(30);
/// A packet is sent on a silent QUIC connection so often, which also keeps the mapping of a NAT.
pub const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(8);
/// A guest's connection without streams is closed after this.
pub const GUEST_IDLE: Duration = Duration::from_secs(30);

/// How often the actor looks after its timers.
pub const TICK: Duration = Duration::from_millis(200);
/// The first pause before a member is dialled again; doubled each time.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest pause before a member is dialled again.
pub const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// The longest pause before a relay is dialled, or asked for a reservation, again.
pub const BACKOFF_RELAY: Duration = Duration::from_secs(5);
/// Members that are dialled at once.
pub const DIALLING: usize = 16;
/// The start that QUIC gets over TCP.
pub const TCP_DELAY: Duration = Duration::from_millis(300);
/// The start that direct addresses get over relays.
pub const RELAY_DELAY: Duration = Duration::from_millis(500);
/// The longest a dial waits for a relay that is itself being dialled.
pub const RELAY_WAIT: Duration = Duration::from_secs(5);
/// A caller that waits for a member which no relay has (yet) makes the relays be asked again this often …
pub const RELAY_AGAIN: Duration = Duration::from_millis(500);
/// … for so long: after a restart all come back to a relay at about the same time.
pub const RELAY_PATIENCE: Duration = Duration::from_secs(2);
/// The first try to turn a relayed path into a direct one, counted from its beginning; doubled each time.
pub const UPGRADE_FIRST: Duration = Duration::from_secs(5);
/// The longest pause between such tries.
pub const UPGRADE_LAST: Duration = Duration::from_secs(600);
/// A connection that a better one replaces is left alone for so long, and then closed once it has no streams.
pub const TRIM_AFTER: Duration = Duration::from_secs(5);
/// The same for a relayed one, on which a hole may be being punched.
pub const TRIM_RELAYED_AFTER: Duration = Duration::from_secs(20);
/// Relays at which this node holds reservations at once.
pub const RESERVATIONS: usize = 2;

/// A connection with a node that somebody attends to is asked so often whether it lives.
pub const PULSE_ATTENDED: Duration = Duration::from_millis(250);
/// Any other with open streams is asked so often.
pub const PULSE_BUSY: Duration = Duration::from_secs(5);
/// An attended node from which nothing arrived for so long after a question, and [`QUIET_RTTS`] round trips, is
/// reported to be quiet.
pub const QUIET: Duration = Duration::from_millis(600);
/// See [`QUIET`].
pub const QUIET_RTTS: u32 = 3;
/// Beside a newer connection with the same node, one is closed after so much silence, and [`QUIET_RTTS`] round trips.
pub const DOUBT: Duration = Duration::from_secs(1);
/// A connection with a relay is asked so often.
pub const PULSE_RELAY: Duration = Duration::from_secs(3);
/// Any other is asked so often.
pub const PULSE_IDLE: Duration = Duration::from_secs(15);
/// Bytes of one such question.
pub const PULSE_BYTES: usize = 64;
/// A connection on which nothing at all arrived for so long after a question is closed (or for
/// [`PULSE_RTTS`] round trips, where that is longer).
pub const PULSE_PATIENCE: Duration = Duration::from_secs(4);
/// See [`PULSE_PATIENCE`].
pub const PULSE_RTTS: u32 = 8;

/// The longest life of one relayed connection: 12 hours, since members' jobs stream for long.
pub const CIRCUIT_DURATION: Duration = Duration::from_secs(12 * 3600);
/// The most bytes one relayed connection may carry, each way together: 64 GiB.
pub const CIRCUIT_BYTES: u64 = 64 << 30;
/// Relayed connections at once through this node.
pub const CIRCUITS: usize = 256;
/// Relayed connections at once from one member.
pub const CIRCUITS_PER_PEER: usize = 32;
/// Reservations that this node grants at once.
pub const RESERVATIONS_GRANTED: usize = 1_024;
/// How long a reservation holds unless it is renewed; its holder renews it after three quarters.
pub const RESERVATION_DURATION: Duration = Duration::from_secs(3600);

/// Addresses remembered of one node.
pub const BOOK_ADDRESSES: usize = 16;
/// Nodes of which addresses are remembered.
pub const BOOK_NODES: usize = 1_024;
/// Bytes the file of the address book may have.
pub const BOOK_BYTES: u64 = 4 << 20;
/// Bytes one address may have.
pub const ADDRESS_BYTES: usize = 256;
/// The pause between a change of the address book and its writing; a node that was not in it is written at once.
pub const BOOK_DELAY: Duration = Duration::from_secs(2);

/// Bytes one beacon may have.
pub const BEACON_BYTES: usize = 1_200;
/// Addresses one beacon may name.
pub const BEACON_ADDRESSES: usize = 12;
/// The pause between beacons at first, for the first [`BEACON_EAGER`] of them.
pub const BEACON_FIRST: Duration = Duration::from_secs(5);
/// The pause between beacons later.
pub const BEACON_LATER: Duration = Duration::from_secs(30);
/// See [`BEACON_FIRST`].
pub const BEACON_EAGER: u32 = 12;
/// Beacons from others that are opened per second; further ones are dropped unread.
pub const BEACONS_PER_SECOND: u32 = 100;
/// A beacon whose clock differs by more than this is not believed.
pub const BEACON_SKEW: Duration = Duration::from_secs(600);

/// The longest a knock may take until its stream is open.
pub const KNOCK: Duration = Duration::from_secs(20);
/// The longest a probe waits for all its addresses.
pub const PROBE: Duration = Duration::from_secs(12);
/// Addresses of one node that are dialled or probed at once.
pub const DIAL_ADDRESSES: usize = 16;
