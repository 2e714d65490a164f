//! Keys that occur often in some bytes, written once.
//!
//! An invite repeats the same three keys in papers whose bytes must stay as they were signed. Packed bytes are
//! pieces: a byte `n` below 128 and `n` bytes as they are, or 128 plus the number of a key.

/// Length of a key, in bytes.
const KEY: usize = 32;
/// Longest piece of bytes as they are.
const RUN: usize = 127;
/// Most bytes that unpacking makes.
const MAX_UNPACKED: usize = 16 << 10;

/// `bytes` with each of `keys` written as one byte.
pub(super) fn pack(keys: &[[u8; KEY]], bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes.len());
    let mut plain = Vec::new();
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let found = keys.iter().position(|key| rest.starts_with(key));
        match found.and_then(|at| u8::try_from(at).ok()).filter(|at| *at < 128) {
            Some(at) => {
                flush(&mut packed, &mut plain);
                packed.push(128 | at);
                rest = rest.get(KEY..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    flush(&mut packed, &mut plain);
    packed
}

/// What was packed; `None` if it cannot have been.
pub(super) fn unpack(keys: &[[u8; KEY]], packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(packed.len());
    let mut rest = packed;
    while let Some((head, tail)) = rest.split_first() {
        rest = if *head >= 128 {
            bytes.extend(keys.get(usize::from(head & 127))?);
            tail
        } else {
            let (run, tail) = tail.split_at_checked(usize::from(*head))?;
            bytes.extend(run);
            tail
        };
        if bytes.len() > MAX_UNPACKED {
            return None;
        }
    }
    Some(bytes)
}

fn flush(packed: &mut Vec<u8>, plain: &mut Vec<u8>) {
    for run in plain.chunks(RUN) {
        packed.extend(u8::try_from(run.len()));
        packed.extend(run);
    }
    plain.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_loses_nothing(parts in proptest::collection::vec(
            prop_oneof![Just(vec![1; 32]), Just(vec![2; 32]), proptest::collection::vec(any::<u8>(), 0..300)],
            0..8,
        )) {
            let (keys, bytes) = ([[1; 32], [2; 32]], parts.concat());
            prop_assert_eq!(unpack(&keys, &pack(&keys, &bytes)), Some(bytes));
        }

        #[test]
        fn any_bytes_unpack_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack(&[[1; 32]], &bytes);
        }
    }
}
