//! The door on one connection.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use crate::mesh::streams::OpenError;
use libp2p::{
    Stream, StreamProtocol,
    core::{InboundUpgrade, UpgradeInfo, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{Board, PULSE, Wanted};
use crate::mesh::hello::HELLO;
use crate::mesh::{
    limits,
    line::{Channel, Line},
    roll::Role,
};

/// What is said when a connection ends under a stream that is being opened.
pub(crate) const BROKE: &str = "the connection broke";

/// The protocols offered for one inbound stream.
pub(crate) struct Offer(Vec<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

/// Opens and takes the streams of one connection.
pub(crate) struct Handler {
    line: Arc<Line>,
    board: Arc<Board>,
    wanted: VecDeque<Wanted>,
    /// Streams asked of the swarm and not there yet.
    opening: usize,
}

impl Handler {
    pub(super) fn new(line: Arc<Line>, board: Arc<Board>) -> Self {
        Self { line, board, wanted: VecDeque::new(), opening: 0 }
    }

    fn is_full(&self) -> bool {
        self.line.streams() >= limits::STREAMS_PER_CONNECTION
    }

    fn channel(&self, stream: Stream, protocol: &str) -> Box<Channel> {
        Box::new(Channel::new(stream, Arc::clone(&self.line), ![PULSE, HELLO].contains(&protocol)))
    }

    fn take(&mut self, stream: Stream, protocol: &StreamProtocol) {
        // Asked again, since a guest cannot be trusted to have chosen from what was offered to it.
        let allowed = self.line.role != Role::Guest || protocol.as_ref() == super::JOIN;
        if !allowed || self.is_full() || self.line.cut.is_cancelled() {
            tracing::debug!(node = %self.line.node, %protocol, "inbound stream refused");
            return;
        }
        let channel = self.channel(stream, protocol.as_ref());
        self.board.deliver(protocol.as_ref(), self.line.node, channel);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Wanted;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let offer = Offer(self.board.offered(self.line.role));
        SubstreamProtocol::new(offer, ()).with_timeout(limits::NEGOTIATION)
    }

    fn connection_keep_alive(&self) -> bool {
        // The actor decides when a member's connection is of no more use.
        self.line.role == Role::Member
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        if self.wanted.len() + self.opening >= limits::OPENING_PER_CONNECTION || self.is_full() {
            return wanted.unreachable("too many streams are open with it at once");
        }
        self.wanted.push_back(wanted);
        self.line.waker.wake();
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Wanted, Infallible>> {
        if let Some(wanted) = self.wanted.pop_front() {
            self.opening += 1;
            let protocol = ReadyUpgrade::new(StreamProtocol::new(wanted.protocol));
            let protocol = SubstreamProtocol::new(protocol, wanted).with_timeout(limits::NEGOTIATION);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.line.waker.register(cx.waker());
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Self::OutboundProtocol, (), Wanted>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.take(stream, &protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info: wanted }) => {
                self.opening = self.opening.saturating_sub(1);
                let channel = self.channel(protocol, wanted.protocol);
                let _ = wanted.reply.send(Ok(channel));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: wanted, error }) => {
                self.opening = self.opening.saturating_sub(1);
                fail(wanted, error);
            }
            _ => {}
        }
    }
}

fn fail<E>(wanted: Wanted, error: StreamUpgradeError<E>) {
    match error {
        StreamUpgradeError::NegotiationFailed => {
            let error = OpenError::Refused { peer: wanted.node, protocol: wanted.protocol };
            let _ = wanted.reply.send(Err(error));
        }
        StreamUpgradeError::Timeout => wanted.unreachable("it did not take the stream in time"),
        StreamUpgradeError::Io(error) => wanted.unreachable(format!("{BROKE}: {error}")),
        StreamUpgradeError::Apply(_) => wanted.unreachable("the stream could not be set up"),
    }
}
