//! The sampler: what it cuts, what it draws, what it refuses, and how fast it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use potluck_kernels::sample::{Sampler, SamplingError, SamplingParams};
use proptest::prelude::*;

fn sampler(params: SamplingParams, vocab: usize) -> Sampler {
    Sampler::new(params, vocab).unwrap()
}

/// Logits of a flat-topped distribution with a long tail.
fn logits(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin() * 3.0 - (i % 97) as f32 * 0.05).collect()
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> =
        logits.iter().map(|&l| ((f64::from(l) - f64::from(max)) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// How often each token is drawn at `n` positions.
fn histogram(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    let history = vec![0; n];
    for position in 0..n {
        counts[sampler.sample(logits, &history[..position], position, None).unwrap().token as usize] += 1;
    }
    counts
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut s = sampler(SamplingParams { top_logprobs: 3, ..SamplingParams::greedy() }, 5);
    let sampled = s.sample(&[0.0, 2.0, 1.0, 2.0, f32::NEG_INFINITY], &[], 0, None).unwrap();
    assert_eq!(sampled.token, 1);
    let p = softmax(&[0.0, 2.0, 1.0, 2.0, f32::NEG_INFINITY], 1.0);
    assert!((f64::from(sampled.logprob) - p[1].ln()).abs() < 1e-6);
    assert_eq!(sampled.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2]);
    assert!((f64::from(sampled.top[2].1) - p[2].ln()).abs() < 1e-6);
}

#[test]
fn draws_follow_the_softmax() {
    let logits = [1.0f32, 0.5, 0.0, -0.5, -1.0, 2.0, 0.25, -3.0];
    for temperature in [0.5f32, 1.0, 1.7] {
        let mut s = sampler(SamplingParams { temperature, seed: 42, ..SamplingParams::default() }, 8);
        let n = 20_000;
        let counts = histogram(&mut s, &logits, n);
        // Chi-square with 7 degrees of freedom: 24.3 is passed once in a thousand; the seed is fixed.
        let expected = softmax(&logits, temperature.into());
        let chi: f64 = counts
            .iter()
            .zip(&expected)
            .map(|(&c, p)| (c as f64 - p * n as f64).powi(2) / (p * n as f64))
            .sum();
        assert!(chi < 24.3, "{temperature}: {chi} {counts:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
    let logits = logits(1000);
    let run = |seed| {
        let mut s = sampler(SamplingParams { seed, ..SamplingParams::default() }, 1000);
        (0..50).map(|i| s.sample(&logits, &vec![0; i], 0, None).unwrap().token).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    // Fixed for good: a change of the generator would break the promise of seeds.
    println!("seed 1: {:?}", &run(1)[..8]);
}

#[test]
fn cuts_keep_exactly_what_they_should() {
    let logits = logits(600);
    let p = softmax(&logits, 0.8);
    let mut order: Vec<usize> = (0..600).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let drawn = |params: SamplingParams| {
        let mut s = sampler(SamplingParams { temperature: 0.8, seed: 3, ..params }, 600);
        let counts = histogram(&mut s, &logits, 4000);
        (0..600).filter(|&i| counts[i] > 0).collect::<Vec<_>>()
    };
    let within = |drawn: Vec<usize>, allowed: &[usize]| {
        assert!(drawn.iter().all(|t| allowed.contains(t)), "{drawn:?} {allowed:?}");
        assert!(drawn.len() > allowed.len() / 2);
    };
    within(drawn(SamplingParams { top_k: 5, ..SamplingParams::default() }), &order[..5]);
    let mut sum = 0.0;
    let nucleus = order.iter().take_while(|&&i| (sum < 0.3, sum += p[i]).0).count();
    within(drawn(SamplingParams { top_p: 0.3, ..SamplingParams::default() }), &order[..nucleus]);
    let likely = order.iter().filter(|&&i| p[i] >= 0.4 * p[order[0]]).count();
    within(drawn(SamplingParams { min_p: 0.4, ..SamplingParams::default() }), &order[..likely]);
    // Top-p is of what top-k left.
    let four: f64 = order[..4].iter().map(|&i| p[i]).sum();
    let mut sum = 0.0;
    let both = order[..4].iter().take_while(|&&i| (sum < 0.6 * four, sum += p[i]).0).count();
    within(drawn(SamplingParams { top_k: 4, top_p: 0.6, ..SamplingParams::default() }), &order[..both]);
    assert_eq!(drawn(SamplingParams { top_p: 0.0, ..SamplingParams::default() }), [order[0]]);
}

#[test]
fn penalties_and_bias_change_the_choice_but_not_the_logprob() {
    let logits = [3.0f32, 2.9, -1.0, 0.0];
    let base = SamplingParams::greedy();
    let choose = |params: SamplingParams, tokens: &[u32], prompt: usize| {
        let sampled = sampler(params, 4).sample(&logits, tokens, prompt, None).unwrap();
        let expected = softmax(&logits, 1.0)[sampled.token as usize].ln();
        assert!((f64::from(sampled.logprob) - expected).abs() < 1e-6);
        sampled.token
    };
    assert_eq!(choose(base.clone(), &[0, 0], 0), 0);
    let repeat = SamplingParams { repeat_penalty: 1.2, repeat_last_n: 2, ..base.clone() };
    assert_eq!(choose(repeat.clone(), &[0, 3], 2), 1, "the prompt counts");
    assert_eq!(choose(repeat, &[0, 3, 3], 0), 0, "it is out of the last two");
    let presence = SamplingParams { presence_penalty: 0.5, ..base.clone() };
    assert_eq!(choose(presence.clone(), &[0], 1), 0, "the prompt does not count");
    assert_eq!(choose(presence, &[0], 0), 1);
    let frequency = SamplingParams { frequency_penalty: 0.06, ..base.clone() };
    assert_eq!(choose(frequency.clone(), &[0], 0), 0);
    assert_eq!(choose(frequency, &[0, 0], 0), 1);
    assert_eq!(choose(SamplingParams { logit_bias: vec![(2, 5.0)], ..base }, &[], 0), 2);
}

#[test]
fn only_allowed_tokens_are_chosen() {
    let logits = logits(100);
    for temperature in [0.0, 1.0] {
        let mut s = sampler(SamplingParams { temperature, ..SamplingParams::default() }, 100);
        let mut allowed = vec![0u32; 4];
        assert_eq!(s.sample(&logits, &[], 0, Some(&allowed)), Err(SamplingError::NothingAllowed));
        allowed[1] = 1 << 5 | 1 << 6;
        for position in 0..50 {
            let token = s.sample(&logits, &vec![0; position], 0, Some(&allowed)).unwrap().token;
            assert!([37, 38].contains(&token));
        }
        // A mask that is too short allows nothing past its end.
        assert_eq!(s.sample(&logits, &[], 0, Some(&[1])).unwrap().token, 0);
    }
}

#[test]
fn wrong_parameters_are_refused_by_name() {
    let base = SamplingParams::default();
    for (name, params) in [
        ("temperature", SamplingParams { temperature: f32::NAN, ..base.clone() }),
        ("temperature", SamplingParams { temperature: -0.1, ..base.clone() }),
        ("temperature", SamplingParams { temperature: f32::INFINITY, ..base.clone() }),
        ("top_p", SamplingParams { top_p: 1.1, ..base.clone() }),
        ("top_p", SamplingParams { top_p: f32::NAN, ..base.clone() }),
        ("min_p", SamplingParams { min_p: -0.5, ..base.clone() }),
        ("repeat_penalty", SamplingParams { repeat_penalty: 0.0, ..base.clone() }),
        ("presence_penalty", SamplingParams { presence_penalty: f32::NEG_INFINITY, ..base.clone() }),
        ("frequency_penalty", SamplingParams { frequency_penalty: f32::NAN, ..base.clone() }),
        ("top_logprobs", SamplingParams { top_logprobs: 1000, ..base.clone() }),
        ("logit_bias", SamplingParams { logit_bias: vec![(0, f32::NAN)], ..base.clone() }),
    ] {
        match params.validate(10) {
            Err(SamplingError::Parameter { name: found, .. }) => assert_eq!(found, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let unknown = SamplingParams { logit_bias: vec![(10, 1.0)], ..base };
    assert_eq!(unknown.validate(10), Err(SamplingError::BiasToken { token: 10, vocab: 10 }));
}

#[test]
fn broken_logits_are_an_error() {
    for bad in [vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0], vec![f32::NEG_INFINITY; 2]] {
        for temperature in [0.0, 1.0] {
            let mut s = sampler(SamplingParams { temperature, ..SamplingParams::default() }, 2);
            assert_eq!(s.sample(&bad, &[], 0, None), Err(SamplingError::NotFinite), "{bad:?}");
        }
    }
    let mut s = sampler(SamplingParams::greedy(), 2);
    assert_eq!(s.sample(&[1.0], &[], 0, None), Err(SamplingError::Length { got: 1, vocab: 2 }));
}

#[test]
fn a_large_vocabulary_costs_little() {
    let logits = logits(128_256);
    let time = |params: SamplingParams| {
        let mut s = sampler(params, logits.len());
        let run = |i: usize| {
            let start = std::time::Instant::now();
            s.sample(&logits, &[1, 2, 3, 4][..i % 4], 0, None).unwrap();
            start.elapsed()
        };
        (0..60).map(run).min().unwrap()
    };
    let base = SamplingParams::default();
    let greedy = time(SamplingParams::greedy());
    println!("128k: greedy {greedy:?}");
    println!(
        "128k: greedy, 20 logprobs {:?}",
        time(SamplingParams { top_logprobs: 20, ..SamplingParams::greedy() })
    );
    println!("128k: temperature 1 {:?}", time(base.clone()));
    println!("128k: top-k 40 {:?}", time(SamplingParams { top_k: 40, ..base.clone() }));
    println!("128k: top-p 0.9 {:?}", time(SamplingParams { top_p: 0.9, ..base.clone() }));
    println!(
        "128k: top-k 40, top-p 0.9, penalty {:?}",
        time(SamplingParams { top_k: 40, top_p: 0.9, repeat_penalty: 1.1, ..base })
    );
    assert!(greedy.as_micros() < 3000, "{greedy:?}");
}

proptest! {
    #[test]
    fn anything_valid_gives_a_token_and_never_panics(
        logits in proptest::collection::vec(-50f32..50.0, 1..400),
        temperature in 0f32..3.0,
        top_k in 0u32..500,
        top_p in 0f32..=1.0,
        min_p in 0f32..=1.0,
        seed: u64,
    ) {
        let vocab = logits.len();
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed, top_logprobs: 5, ..Default::default() };
        let sampled = sampler(params, vocab).sample(&logits, &[0, 0], 1, None).unwrap();
        prop_assert!((sampled.token as usize) < vocab);
        prop_assert!(sampled.logprob <= 1e-5);
        prop_assert_eq!(sampled.top.len(), vocab.min(5));
        prop_assert!(sampled.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
}
