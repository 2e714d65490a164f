//! Mutated components: whatever comes, the loader answers, in bounded time and without breaking off.

use std::time::{Duration, Instant};

use super::fixture::{Guest, config, question};
use crate::policy::{Engine, EngineConfig, sample::Sampler};

/// Mutants that are tried; `POTLUCK_FUZZ` sets another number.
const MUTANTS: u64 = 600;

fn mutate(sampler: &mut Sampler, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |sampler: &mut Sampler, bound: usize| {
        usize::try_from(sampler.below(u64::try_from(bound).unwrap())).unwrap()
    };
    let seed = pick(sampler, seeds.len());
    let mut bytes = seeds[seed].clone();
    for _ in 0..=sampler.below(4) {
        let at = pick(sampler, bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        let byte = u8::try_from(sampler.below(256)).unwrap();
        match sampler.below(8) {
            0..=2 => bytes[at] ^= 1 << sampler.below(8),
            3 => bytes[at] = byte,
            4 => bytes.insert(at, byte),
            5 => drop(bytes.remove(at)),
            6 => bytes.truncate(at.max(1)),
            _ => {
                // A piece of another, or of itself, in another place.
                let other = &seeds[pick(sampler, seeds.len())];
                let from = pick(sampler, other.len());
                let len = pick(sampler, 64).min(other.len() - from).min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&other[from..from + len]);
            }
        }
        if bytes.is_empty() {
            bytes.push(byte);
        }
    }
    bytes
}

#[test]
fn mutated_components_are_refused_or_behave() {
    let mutants = std::env::var("POTLUCK_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTANTS);
    let config = EngineConfig { fuel: 2_000_000, slots: 4, warm: 2, ..config() };
    let engine = Engine::new(config).unwrap();
    let guest = Guest::default();
    let seeds = [guest.routing(), guest.pricing(), guest.slashing()];
    let (job, candidates) = question(3);
    let (mut loaded, mut slowest) = (0, Duration::ZERO);
    for n in 0..mutants {
        let bytes = mutate(&mut Sampler::new(n), &seeds);
        let start = Instant::now();
        match engine.load(&bytes) {
            Ok(policy) => {
                loaded += 1;
                // Whether it answers or fails, it does so within its bounds.
                for seed in 0..3 {
                    let _ = policy.rank(&job, &candidates, 1, seed);
                }
            }
            Err(error) => assert!(error.to_string().len() < 3000, "mutant {n}: {error}"),
        }
        slowest = slowest.max(start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(60), "mutant {n} took {:?}", start.elapsed());
    }
    // Some mutations change nothing that matters; if none got through, nothing behind the parser was tried.
    assert!(loaded > mutants / 100, "{loaded} of {mutants}");
    println!("{loaded} of {mutants} mutants were loaded; the slowest took {slowest:?}");
}
