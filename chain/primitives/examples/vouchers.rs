//! Measures how many vouchers one core signs and checks in a second: `cargo run --release --example vouchers [COUNT]`.

use std::{env, error::Error, time::Instant};

use potluck_primitives::{
    Block, Genesis, Leaf, MicroCredits, PUBLIC_POOL, SignedVoucher, SigningKey, SumTree, Voucher,
    verify_batch,
};

const GENESIS: Genesis = Genesis([7; 32]);

fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = env::args().nth(1).map_or(Ok(20_000), |count| count.parse())?;
    for payers in [1, 64, count.max(1)] {
        vouchers(count, payers)?;
    }
    let leaf = |at: u32| {
        let mut account = [0; 32];
        account.iter_mut().zip(at.to_be_bytes()).for_each(|(to, from)| *to = from);
        Leaf { account, delta: 0, gross: 1, vouchers_root: [3; 32] }
    };
    let start = Instant::now();
    let tree = SumTree::build((0..count).map(leaf).collect())?;
    rate("leaves put into a tree", count, start);
    let (root, start) = (tree.root(), Instant::now());
    let proven = |(at, leaf)| tree.prove(at).is_some_and(|proof| proof.verify(leaf, &root));
    let good = (0..count).zip(tree.leaves()).filter(|leaf| proven(*leaf)).count();
    rate("leaves proven and checked", count, start);
    if good == tree.leaves().len() { Ok(()) } else { Err("a leaf was not proven".into()) }
}

fn vouchers(count: u32, payers: u32) -> Result<(), Box<dyn Error>> {
    let key = |at: u32| {
        let mut seed = [9; 32];
        seed.iter_mut().zip(at.to_le_bytes()).for_each(|(to, from)| *to = from);
        SigningKey::from_bytes(&seed)
    };
    let keys: Vec<SigningKey> = (0..payers).map(key).collect();
    // Sorted by payer, as a settler has them.
    let each = count.div_ceil(payers).max(1);
    let ordered = (0..count).filter_map(|at| keys.get(usize::try_from(at / each).ok()?).map(|key| (at, key)));
    let voucher = |at: u32, key: &SigningKey| Voucher {
        pool: PUBLIC_POOL,
        payer: key.verifying_key().to_bytes(),
        payee: [2; 32],
        lane: 0,
        nonce: at.into(),
        cumulative: MicroCredits(at.into()),
        expires: Block(100),
        receipts_root: [4; 32],
    };
    let start = Instant::now();
    let signed: Vec<SignedVoucher> =
        ordered.map(|(at, key)| SignedVoucher::sign(voucher(at, key), &GENESIS, key)).collect();
    println!("{payers} payers");
    rate("  signed", count, start);
    let start = Instant::now();
    let good = signed.iter().filter(|voucher| voucher.verify(&GENESIS).is_ok()).count();
    rate("  checked one by one", count, start);
    let start = Instant::now();
    verify_batch(&signed, &GENESIS).map_err(|bad| format!("{} were refused", bad.len()))?;
    rate("  checked together", count, start);
    if good == signed.len() { Ok(()) } else { Err("a voucher was refused".into()) }
}

fn rate(what: &str, count: u32, start: Instant) {
    let took = start.elapsed().as_secs_f64();
    println!("{what}: {:.0} a second, {:.1} µs each", f64::from(count) / took, took * 1e6 / f64::from(count));
}
