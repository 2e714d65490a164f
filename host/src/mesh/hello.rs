//! Hellos: what has changed about a node since the connection began, told to every member that is connected: where
//! it can be dialled now, and which protocols it takes.
//!
//! What it was at the beginning is told by libp2p's identify protocol. Its way of telling changes is of no use
//! here: it closes its stream before the other side has agreed to take it, and over QUIC that loses the message
//! when streams are used before they are agreed on, as they are in this mesh.

use crate::{
    identity::NodeId,
    mesh::frame,
    mesh::streams::{Incoming, OpenError, Stream},
};
use libp2p::Multiaddr;
use minicbor::{Decode, Encode, bytes::ByteVec};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::mesh::limits;

/// The protocol.
pub(crate) const HELLO: &str = "/potluck/hello/1";

#[derive(Debug, Encode, Decode)]
struct Message {
    #[n(0)]
    addresses: Vec<ByteVec>,
    #[n(1)]
    protocols: Vec<String>,
}

/// A hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) protocols: Vec<String>,
}

/// Takes the hellos of others, until the mesh ends.
pub(crate) async fn serve(mut incoming: Incoming, heard: mpsc::Sender<(NodeId, Hello)>) {
    while let Some(mut inbound) = incoming.recv().await {
        let heard = heard.clone();
        tokio::spawn(async move {
            let read = frame::expect::<Message, _>(&mut inbound.stream, limits::HELLO_BYTES);
            let Ok(Ok(message)) = timeout(limits::NEGOTIATION, read).await else { return };
            let addresses = message.addresses.into_iter().take(2 * limits::BOOK_ADDRESSES);
            let addresses =
                addresses.filter_map(|bytes| Multiaddr::try_from(Vec::from(bytes)).ok()).collect();
            let protocols = message.protocols;
            let _ = heard.send((inbound.peer, Hello { addresses, protocols })).await;
        });
    }
}

/// Says hello on a stream that is being opened.
pub(crate) async fn say(opened: oneshot::Receiver<Result<Stream, OpenError>>, hello: Hello) {
    let Ok(Ok(mut stream)) = opened.await else { return };
    let addresses = hello.addresses.iter().map(|address| ByteVec::from(address.to_vec())).collect();
    let message = Message { addresses, protocols: hello.protocols };
    let said = async {
        frame::write(&mut stream, &message, limits::HELLO_BYTES).await?;
        Ok::<_, frame::FrameError>(stream.shutdown().await?)
    };
    if !matches!(timeout(limits::NEGOTIATION, said).await, Ok(Ok(()))) {
        tracing::debug!("hello not said: the connection broke");
    }
}
