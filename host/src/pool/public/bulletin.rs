//! `/potluck/offers/1`: the offers that a node has heard, for who has just arrived.
//!
//! Offers travel by gossip as they are made; a newcomer would wait minutes for the first. It asks a node that it meets
//! for the newest. An offer is signed by its provider, so it does not matter who passes it on; a node that leaves some
//! out is made up for by the next.

use std::{sync::Arc, time::Duration};

use minicbor::{Decode, Encode, bytes::ByteVec};
use potluck_primitives::UnixMillis;
use tokio::{sync::Semaphore, time::timeout};

use super::{market::Market, offer::MAX_OFFER, receipts::now_ms, wire::at_most};
use crate::{
    identity::NodeId,
    mesh::{
        frame,
        streams::{Inbound, Incoming, Streams},
    },
};

/// The protocol's name.
pub const PROTOCOL: &str = "/potluck/offers/1";
/// Most offers in an answer.
pub const MOST: usize = 256;
/// Longest answer, in bytes.
const MAX_ANSWER: usize = MOST * (MAX_OFFER + 8);
/// Time for an answer as a whole.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers at the same time.
const ANSWERS: usize = 16;

#[derive(Debug, Encode, Decode)]
struct Answer {
    #[cbor(n(0), decode_with = "at_most::<_, _, MOST>")]
    offers: Vec<ByteVec>,
}

/// Answers whoever asks, until nobody can any more.
pub async fn serve(mut incoming: Incoming, market: Arc<Market>) {
    let places = Arc::new(Semaphore::new(ANSWERS));
    while let Some(Inbound { mut stream, .. }) = incoming.recv().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let offers = market.encoded(MOST, UnixMillis(now_ms())).into_iter().map(ByteVec::from).collect();
        tokio::spawn(async move {
            let answer = Answer { offers };
            let _ = timeout(PATIENCE, frame::write(&mut stream, &answer, MAX_ANSWER)).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            drop(place);
        });
    }
}

/// The offers that a node has heard, unchecked; none where it does not answer.
pub async fn fetch(streams: &dyn Streams, node: NodeId) -> Vec<Vec<u8>> {
    let asked = async {
        let mut stream = streams.open(node, PROTOCOL).await.ok()?;
        frame::expect::<Answer, _>(&mut stream, MAX_ANSWER).await.ok()
    };
    let answer = timeout(PATIENCE, asked).await.ok().flatten();
    answer.map_or_else(Vec::new, |answer| answer.offers.into_iter().take(MOST).map(Into::into).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        mesh::streams::{BoxFuture, OpenError, Stream},
        pool::public::{
            market::tests::Known,
            offer::{SignedOffer, tests::offer, tests::signer},
        },
    };

    #[derive(Debug)]
    struct Wire(mpsc::Sender<Inbound>);

    impl Streams for Wire {
        fn open(&self, peer: NodeId, _: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
            Box::pin(async move {
                let (ours, theirs) = tokio::io::duplex(1 << 12);
                let _ = self.0.send(Inbound { peer, stream: Box::new(theirs) }).await;
                Ok(Box::new(ours) as Stream)
            })
        }
    }

    #[tokio::test]
    async fn a_newcomer_hears_what_was_heard_before() {
        let market = || Arc::new(Market::new(Arc::new(Known(Mutex::default(), true))));
        let (old, new) = (market(), market());
        for n in 1..=3 {
            let signed = SignedOffer::sign(offer(n, now_ms()), &signer(n)).unwrap();
            old.take(&parity_scale_codec::Encode::encode(&signed), UnixMillis(now_ms())).unwrap();
        }
        let (door, incoming) = mpsc::channel(4);
        tokio::spawn(serve(incoming, old));
        for bytes in fetch(&Wire(door), signer(9).node()).await {
            new.take(&bytes, UnixMillis(now_ms())).unwrap();
        }
        assert_eq!(new.of("stories", UnixMillis(now_ms())).len(), 3);
    }
}
