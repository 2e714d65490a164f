use tokio::io::duplex;

use super::*;
use crate::identity::Signer;

fn provider() -> NodeId {
    Signer::from_seed([3; 32]).node()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fixed(bytes: &[u8]) -> [u8; CELL] {
    bytes.try_into().unwrap()
}

#[tokio::test]
async fn what_is_sealed_comes_out_and_nothing_of_it_shows() {
    let keys = SealingKeys::new(provider(), at(0)).unwrap();
    let (ours, theirs) = duplex(1 << 16);
    let mut inside = open(Box::new(ours), &keys.current(at(1)).unwrap()).await.unwrap();
    let mut served = accept(Box::new(theirs), &keys, None).await.unwrap();
    inside.write_all(b"a question").await.unwrap();
    inside.shutdown().await.unwrap();
    let mut question = Vec::new();
    served.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"a question");
    served.write_all(b"an answer").await.unwrap();
    served.shutdown().await.unwrap();
    let mut answer = Vec::new();
    inside.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"an answer");
}

#[test]
fn a_hello_opens_once_and_only_unchanged_and_only_for_whom_it_is_meant() {
    let keys = SealingKeys::new(provider(), at(0)).unwrap();
    let key = keys.current(at(0)).unwrap();
    let (sealed, ours) = hello(&key).unwrap();
    assert_eq!(sealed.len(), CELL);
    for byte in (0..CELL).step_by(7) {
        let mut changed = fixed(&sealed);
        changed[byte] ^= 0x10;
        let refused = keys.open(&changed).map(|_| ());
        assert!(matches!(refused, Err(SealError::Altered | SealError::Expired)), "byte {byte}: {refused:?}");
    }
    let theirs = keys.open(&fixed(&sealed)).unwrap();
    assert!(ours.send == theirs.receive && ours.receive == theirs.send);
    assert!(ours.send != ours.receive);
    assert!(matches!(keys.open(&fixed(&sealed)), Err(SealError::Replayed)));

    let other = SealingKeys::new(provider(), at(0)).unwrap();
    assert!(matches!(other.open(&fixed(&hello(&key).unwrap().0)), Err(SealError::Expired)));
    // The same key under another provider's name.
    let borrowed = SealingKey { provider: Signer::from_seed([4; 32]).node(), ..key };
    assert!(matches!(keys.open(&fixed(&hello(&borrowed).unwrap().0)), Err(SealError::Altered)));
}

#[test]
fn keys_live_an_hour_and_a_grace_and_are_then_gone() {
    let keys = SealingKeys::new(provider(), at(0)).unwrap();
    let first = keys.current(at(3_599)).unwrap();
    let second = keys.current(at(3_600)).unwrap();
    assert_ne!(first, second);
    assert!(keys.open(&fixed(&hello(&first).unwrap().0)).is_ok(), "an offer of before is still good");
    assert!(keys.open(&fixed(&hello(&second).unwrap().0)).is_ok());
    assert_eq!(keys.current(at(3_600) + GRACE).unwrap(), second);
    assert!(matches!(keys.open(&fixed(&hello(&first).unwrap().0)), Err(SealError::Expired)));
    assert!(keys.open(&fixed(&hello(&second).unwrap().0)).is_ok());
}

#[test]
fn a_key_that_opened_too_many_is_replaced_and_refuses_more() {
    let keys = SealingKeys::new(provider(), at(0)).unwrap();
    let key = keys.current(at(0)).unwrap();
    keys.lock().0.seen = (0..HELLOS as u128).map(u128::to_be_bytes).collect();
    assert!(matches!(keys.open(&fixed(&hello(&key).unwrap().0)), Err(SealError::Full)));
    assert_ne!(keys.current(at(1)).unwrap(), key);
}

#[tokio::test]
async fn a_key_that_is_none_and_a_hello_that_never_comes_are_refused() {
    let (ours, _theirs) = duplex(1 << 16);
    let none = SealingKey { provider: provider(), public: [0; 32] };
    assert!(matches!(open(Box::new(ours), &none).await, Err(SealError::Key { .. })));
    let keys = SealingKeys::new(provider(), at(0)).unwrap();
    let (ours, theirs) = duplex(64);
    drop(ours);
    assert!(matches!(accept(Box::new(theirs), &keys, None).await, Err(SealError::Io(_))));
    tokio::time::pause();
    let (_ours, theirs) = duplex(64);
    assert!(matches!(accept(Box::new(theirs), &keys, None).await, Err(SealError::Late)));
}
