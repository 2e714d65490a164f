use parity_scale_codec::{Compact, DecodeWithMemTracking, Error, Input};
use scale_info::TypeInfo;

use super::*;

type Three = Bounded<u16, 3>;

#[test]
fn one_item_too_many_is_refused() {
    let mut items = Three::new([1, 2].to_vec()).unwrap();
    assert_eq!(items.push(3), Ok(()));
    assert_eq!(items.push(4), Err(TooMany { most: 3 }));
    assert_eq!(items[..], [1, 2, 3]);
    assert_eq!(Three::new([0; 4].to_vec()), Err(TooMany { most: 3 }));
    assert_eq!(read::<Three>(&[0_u16; 4].to_vec().encode()), None);
    assert_eq!(read::<Bounded<u16, 0>>(&[0]), Some(Bounded::empty()));
}

#[test]
fn it_is_written_and_described_as_a_plain_vector() {
    let items = Three::new([1, 2, 3].to_vec()).unwrap();
    assert_eq!(items.encode(), [1_u16, 2, 3].to_vec().encode());
    assert_eq!(items.encode().len(), Three::max_encoded_len());
    assert_eq!(Three::type_info(), Vec::<u16>::type_info());
    comes_back(&items);
}

/// Has as many zeros as anyone wants, and notes what memory it was asked for.
struct Endless {
    head: Vec<u8>,
    asked: usize,
}

impl Input for Endless {
    fn remaining_len(&mut self) -> Result<Option<usize>, Error> {
        Ok(None)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        into.fill(0);
        let taken = into.len().min(self.head.len());
        into[..taken].copy_from_slice(&self.head[..taken]);
        self.head.drain(..taken);
        Ok(())
    }

    fn on_before_alloc_mem(&mut self, size: usize) -> Result<(), Error> {
        self.asked += size;
        Ok(())
    }
}

fn asked<T: DecodeWithMemTracking>(length: u32) -> (bool, usize) {
    let mut input = Endless { head: Compact(length).encode(), asked: 0 };
    let read = T::decode(&mut input).is_ok();
    (read, input.asked)
}

#[test]
fn no_memory_is_taken_for_what_is_too_long() {
    assert_eq!(asked::<Three>(4), (false, 0));
    assert_eq!(asked::<Three>(u32::MAX), (false, 0));
    assert_eq!(asked::<Bounded<Hash, 32>>(33), (false, 0));
    assert_eq!(asked::<Bounded<Hash, 32>>(32), (true, 32 * 32));
    assert_eq!(asked::<Class>(65), (false, 0));
    // Zeros are no text, but memory was asked for before they were read.
    assert_eq!(asked::<Class>(64), (false, 64));
}
