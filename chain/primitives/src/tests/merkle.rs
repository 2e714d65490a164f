use super::*;

fn items(count: u8) -> Vec<Hash> {
    (0..count).map(|at| [at; 32]).collect()
}

#[test]
fn the_format_stays() {
    let root = receipts_root(&items(5));
    assert_eq!(hex(&root), "b2b047a37695b94e83200507cffb4c86d2b66739b9e1bd1ae53f9bc091378465");
    let signed = SignedVoucher::sign(voucher::voucher(), &GENESIS, &key(1));
    let root = vouchers_root(&[signed], &GENESIS);
    assert_eq!(hex(&root), "a08906bb3cbcfe914f48754d6f4d251dad4fe274031058fad3d9f9525a1b3265");
    assert_eq!(receipts_root(&[]), [0; 32]);
}

#[test]
fn an_inner_node_is_no_leaf() {
    let two = merkle_root(&items(2));
    assert_ne!(merkle_root(&[two]), two);
    assert_ne!(merkle_root(&items(1)), items(1)[0]);
}

#[test]
fn every_changed_bit_breaks_a_proof() {
    let (items, at) = (items(5), 2);
    let root = merkle_root(&items);
    let proof = MerkleProof::of(&items, at).unwrap();
    comes_back(&proof);
    let holds = |proof: &MerkleProof| proof.leaf_count == 5 && proof.verify(&items[2], &root);
    assert!(holds(&proof));
    assert!(!flips(&proof.encode()).filter_map(|bytes| read(&bytes)).any(|proof| holds(&proof)));
}

proptest! {
    #[test]
    fn each_item_is_proven_where_it_lies(
        items in proptest::collection::vec(any::<[u8; 32]>(), 1..40), at: u32, other: u32, noise: [u8; 32],
    ) {
        let count = items.len() as u32;
        let (at, other) = (at % count, other % count);
        let root = merkle_root(&items);
        let proof = MerkleProof::of(&items, at).unwrap();
        prop_assert!(proof.verify(&items[at as usize], &root));
        prop_assert!(!proof.verify(&noise, &root));
        prop_assert!(!proof.verify(&items[at as usize], &noise));
        if other != at {
            prop_assert!(!proof.verify(&items[other as usize], &root));
            let moved = MerkleProof { index: other, ..proof.clone() };
            prop_assert!(!moved.verify(&items[at as usize], &root));
        }
        let mut longer = proof.clone();
        if longer.siblings.push(noise).is_ok() {
            prop_assert!(!longer.verify(&items[at as usize], &root));
        }
        prop_assert_eq!(MerkleProof::of(&items, count), None);
        let beyond = MerkleProof { index: count, ..proof };
        prop_assert!(!beyond.verify(&items[at as usize], &root));
    }
}
