//! From a vote to a policy: what nodes are told, and at which block.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use potluck_chain_client::{Proposal, watch::Event};
use potluck_primitives::{Block, PolicyHash, PolicyKind, PoolClass};

use super::chain::{Chain, Person};

const KIND: PolicyKind = PolicyKind::Pricing;
const FIRST: PolicyHash = PolicyHash([1; 32]);
const SECOND: PolicyHash = PolicyHash([2; 32]);

/// Reads events until this block is final; the numbers of the final blocks that word of the policies came with.
async fn told_until(events: &mut (impl Stream<Item = Event> + Unpin), block: u32) -> Vec<u32> {
    let (mut told, mut waiting) = (Vec::new(), 0);
    let reading = async {
        while let Some(event) = events.next().await {
            match event {
                Event::Policies => waiting += 1,
                Event::Final(head) => {
                    told.extend((0..std::mem::take(&mut waiting)).map(|_| head.number));
                    if head.number >= block {
                        return;
                    }
                }
                Event::Missed => panic!("an event was missed"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap();
    told
}

/// What decides at a block, by the query and by the client's own set; both must agree.
async fn in_force(who: &Person, block: u32) -> Option<PolicyHash> {
    let at = who.at(block).await;
    let queried = who.live.node.policies(&at).await.unwrap();
    let queried = queried
        .iter()
        .filter(|it| it.kind == KIND && it.class == PoolClass::PUBLIC && it.from <= block)
        .max_by_key(|it| it.from)
        .map(|it| it.hash);
    let mut set = who.live.listening.policies().borrow().clone();
    assert!(set.block <= block);
    set.block = block;
    assert_eq!(set.in_force(KIND, PoolClass::PUBLIC), queried, "at block {block}");
    queried
}

/// One block more, and what is told with it.
async fn step(chain: &Chain, who: &Person, events: &mut (impl Stream<Item = Event> + Unpin)) -> (u32, usize) {
    let next = who.head().await.number + 1;
    chain.go_to(who, next).await;
    let told = told_until(events, next).await;
    assert!(told.iter().all(|block| *block == next));
    (next, told.len())
}

/// Has a policy voted that begins at a block, and sees it begin there and not before.
async fn begins(
    chain: &Chain,
    (voter, node): (&Person, &Person),
    events: &mut (impl Stream<Item = Event> + Unpin),
    (hash, before): (PolicyHash, Option<PolicyHash>),
) {
    let height = voter.head().await.number + 25;
    let proposal = Proposal::Approve {
        kind: KIND,
        class: PoolClass::PUBLIC,
        hash,
        activates_at: Block(height),
        uri: b"https://example.org/a/component/whose/address/is/long/enough/to/be/noted/beside/the/call.wasm"
            .repeat(2),
    };
    chain.pass(voter, proposal).await;
    let now = node.head().await.number;
    assert!(now < height - 2, "the vote took longer than it should");
    let told = told_until(events, now).await;
    assert_eq!(told.len(), 1, "the decision is told once: {told:?}");
    let policies = node.live.listening.policies().borrow().clone();
    let to_come = policies.policies.iter().find(|it| it.hash == hash).unwrap();
    assert_eq!((to_come.from, to_come.uri.len() > 100), (height, true));
    chain.go_to(node, height - 2).await;
    assert_eq!(told_until(events, height - 2).await, [0; 0]);
    for block in [height - 1, height, height + 1] {
        assert_eq!(step(chain, node, events).await, (block, usize::from(block == height)));
        let expected = if block < height { before } else { Some(hash) };
        assert_eq!(in_force(node, block).await, expected, "at block {block}");
    }
    assert_eq!(node.live.listening.policies().borrow().block, height);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voted_policy_is_seen_at_its_height_and_no_block_earlier() {
    let name = "a_voted_policy_is_seen_at_its_height_and_no_block_earlier";
    let Some(chain) = Chain::start(name, &[]).await else { return };
    let (alice, dave) = (chain.person("alice").await, chain.person("dave").await);
    let mut events = Box::pin(dave.live.listening.events());
    let head = dave.head().await.number;
    chain.go_to(&dave, head + 1).await;
    assert_eq!(told_until(&mut events, head + 1).await, [0; 0]);
    begins(&chain, (&alice, &dave), &mut events, (FIRST, None)).await;
    begins(&chain, (&alice, &dave), &mut events, (SECOND, Some(FIRST))).await;
    let revoke = Proposal::Revoke { kind: KIND, class: PoolClass::PUBLIC, hash: SECOND };
    chain.pass(&alice, revoke).await;
    let now = dave.head().await.number;
    assert_eq!(told_until(&mut events, now).await.len(), 1, "a revocation holds at once");
    assert_eq!(in_force(&dave, now).await, None);
    // A set that was in force stays known for what was decided under it.
    let past = dave.live.node.policies(&dave.at(now - 12).await).await.unwrap();
    assert!(past.iter().any(|it| it.hash == SECOND));
    chain.report_times();
}
