//! Audits of real models on real backends: what is exactly the same, what is nearly, and what is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/models.rs"]
mod models;

use models::{small, test_data, text};
use potluck_kernels::{
    audit::{
        Answer, AuditError, Auditor, Committer, Fault, Finish, Limits, Numerics, OUTSIDE, Outcome, Request,
        Trace, Usage, referee,
    },
    backend::{Backend, Batch},
    cpu::{CpuBackend, Simd},
    dtype::DType,
    engine::{Generator, generator},
    gguf::Gguf,
    model::{Architecture, Decoder, LoadOptions},
    sample::{LEAST_MARGIN, Sampler, SamplingParams},
    synthetic::requantize,
};
use proptest::prelude::*;

const PAGES: usize = 12;

fn on<B: Backend + 'static>(gguf: &Gguf, backend: B, step: usize) -> Box<dyn Generator> {
    let options = LoadOptions { max_batch_tokens: step, max_outputs: step.min(48), cache_pages: PAGES };
    generator(Decoder::load(gguf, backend, options, &mut |_, _| {}).unwrap(), 0)
}

fn cpu(gguf: &Gguf, threads: usize, simd: Option<Simd>, step: usize) -> Box<dyn Generator> {
    on(gguf, CpuBackend::new(threads, simd).unwrap(), step)
}

fn pages() -> Vec<u32> {
    (0..PAGES as u32).map(|i| (i * 7 + 3) % PAGES as u32).collect()
}

/// An honest provider: token by token.
fn answer(model: &mut dyn Generator, request: &Request, ends: &[u32], numerics: Numerics) -> Answer {
    let (vocab, width) = (model.config().vocab, model.config().width);
    let mut sampler = Sampler::new(request.params.clone(), vocab).unwrap();
    let mut committer = Committer::new(width);
    let prompt = request.prompt.len();
    let mut tokens = request.prompt.clone();
    let mut fed = 0;
    let mut finish = Finish::Limit;
    while tokens.len() - prompt < request.limit as usize {
        let end = tokens.len().min(fed + model.max_batch_tokens());
        let outputs = if end == tokens.len() { vec![(end - fed - 1) as u32] } else { vec![] };
        let batch = Batch {
            tokens: tokens[fed..end].to_vec(),
            positions: (fed as u32..end as u32).collect(),
            sequence: vec![0; end - fed],
            tables: vec![pages()],
            outputs,
        };
        fed = end;
        let logits = model.forward(&batch).unwrap().to_vec();
        if logits.is_empty() {
            continue;
        }
        let token = sampler.sample(&logits, &tokens, prompt, None).unwrap().token;
        if ends.contains(&token) {
            finish = Finish::End;
            break;
        }
        committer.push(model.hidden().unwrap()).unwrap();
        tokens.push(token);
    }
    let completion = tokens.len() - prompt + usize::from(finish == Finish::End);
    Answer {
        tokens: tokens[prompt..].to_vec(),
        finish,
        usage: Usage { prompt: prompt as u32, completion: completion as u32 },
        numerics,
        commitments: committer.finish().unwrap(),
    }
}

fn gguf(architecture: Architecture, dtype: DType) -> Gguf {
    Gguf::from_bytes(small(architecture, dtype)).unwrap()
}

fn ways_to_draw() -> [SamplingParams; 4] {
    let base = SamplingParams { seed: 11, ..SamplingParams::default() };
    [
        SamplingParams::greedy(),
        base.clone(),
        SamplingParams { temperature: 0.7, top_k: 40, top_p: 0.9, ..base.clone() },
        SamplingParams { temperature: 1.3, min_p: 0.02, repeat_penalty: 1.2, presence_penalty: 0.3, ..base },
    ]
}

fn request(params: SamplingParams) -> Request {
    Request { prompt: text(37, 512), params, limit: 90 }
}

fn trace(model: &mut dyn Generator, request: &Request, answer: &Answer, ends: &[u32]) -> Trace {
    let auditor = Auditor { ends: ends.to_vec() };
    auditor.trace(model, &pages(), request, answer).unwrap()
}

fn assert_exact(trace: &Trace, what: &str) {
    let score = trace.score(&Limits::EXACT);
    let verdict = Limits::EXACT.judge(&score);
    assert!(!verdict.failed(), "{what}: {verdict:?} {score:?}");
    assert!(trace.margins.iter().all(|m| *m == 0) && trace.end.is_none_or(|m| m == 0), "{what}");
}

#[test]
fn an_honest_answer_is_exact_whatever_it_was_made_and_audited_on() {
    for (architecture, dtype) in [
        (Architecture::Llama, DType::Q8_0),
        (Architecture::Qwen3, DType::Q4_K),
        (Architecture::Qwen2, DType::F16),
        (Architecture::Mistral, DType::Q4_0),
    ] {
        let gguf = gguf(architecture, dtype);
        for params in ways_to_draw() {
            let request = request(params);
            let mut first: Option<Answer> = None;
            for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
                for (threads, step) in [(1, 64), (3, 5)] {
                    let mut provider = cpu(&gguf, threads, Some(simd), step);
                    let answer = answer(provider.as_mut(), &request, &[7], Numerics::Exact);
                    let same = first.get_or_insert_with(|| answer.clone());
                    assert_eq!(*same, answer, "{} {dtype} {simd} {threads} {step}", architecture.name());
                }
            }
            let answer = first.unwrap();
            for (threads, simd, step) in [(1, None, 128), (2, Some(Simd::Scalar), 31), (2, None, 1)] {
                let mut verifier = cpu(&gguf, threads, simd, step);
                let trace = trace(verifier.as_mut(), &request, &answer, &[7]);
                assert_eq!(trace.margins.len(), answer.tokens.len());
                assert_eq!(trace.groups.len(), answer.tokens.len().div_ceil(32));
                assert_exact(&trace, &format!("{} {dtype} {threads} {simd:?} {step}", architecture.name()));
            }
        }
    }
}

#[test]
fn two_verifiers_find_the_same_numbers_about_a_cheat() {
    let right = gguf(Architecture::Llama, DType::Q8_0);
    let mut bytes = Vec::new();
    requantize(&right, DType::Q4_0).unwrap().write(&mut bytes).unwrap();
    let cheap = Gguf::from_bytes(bytes).unwrap();
    for params in ways_to_draw() {
        let request = request(params);
        let answer = answer(cpu(&cheap, 1, None, 64).as_mut(), &request, &[], Numerics::Exact);
        let a = trace(cpu(&right, 1, None, 128).as_mut(), &request, &answer, &[]);
        let b = trace(cpu(&right, 3, Some(Simd::Scalar), 17).as_mut(), &request, &answer, &[]);
        let c = trace(
            referee(&right, 2, PAGES * potluck_kernels::backend::PAGE).unwrap().as_mut(),
            &request,
            &answer,
            &[],
        );
        assert_eq!(a, b);
        assert_eq!(a.margins, c.margins);
        let score = a.score(&Limits::EXACT);
        assert!(Limits::EXACT.judge(&score).failed());
        assert!(score.first.is_some() && score.margins > 0, "{score:?}");
        assert_eq!(Limits::EXACT.judge(&score).activations, Outcome::Failed);
    }
}

#[test]
fn ends_that_are_false_are_seen() {
    let gguf = gguf(Architecture::Llama, DType::Q8_0);
    let mut model = cpu(&gguf, 1, None, 128);
    let request = request(SamplingParams { seed: 3, ..SamplingParams::default() });
    // Some token that the answer comes to draw serves as its end.
    let whole = answer(model.as_mut(), &request, &[], Numerics::Exact);
    let ends = [whole.tokens[60]];
    let short = answer(model.as_mut(), &request, &ends, Numerics::Exact);
    assert_eq!(short.finish, Finish::End);
    assert_exact(&trace(model.as_mut(), &request, &short, &ends), "an end where it should be");

    let early = cut(&short, short.tokens.len() / 2);
    let found = trace(model.as_mut(), &request, &early, &ends);
    assert!(found.faults.is_empty() || found.faults.iter().all(|f| matches!(f, Fault::Commitments { .. })));
    assert!(found.end.unwrap() > Limits::FLOAT.end, "{:?}", found.end);
    assert!(found.margins.iter().all(|m| *m == 0));

    // Draws the end never: goes on past it with a token of its own.
    let bias = SamplingParams { logit_bias: vec![(ends[0], -1e4)], ..request.params.clone() };
    let past = answer(model.as_mut(), &Request { params: bias, ..request.clone() }, &[], Numerics::Exact);
    let found = trace(model.as_mut(), &request, &past, &ends);
    assert_eq!(found.past[0].0, short.tokens.len());
    assert!(Limits::FLOAT.judge(&found.score(&Limits::FLOAT)).forced == Outcome::Failed, "{:?}", found.past);

    // Draws it and goes on.
    let found = trace(model.as_mut(), &request, &whole, &ends);
    assert_eq!(found.faults, [Fault::PastEnd { place: short.tokens.len() as u32 }]);
}

fn cut(answer: &Answer, len: usize) -> Answer {
    let mut answer = answer.clone();
    answer.tokens.truncate(len);
    answer.usage.completion = len as u32 + 1;
    answer.commitments.truncate(len.div_ceil(32));
    answer
}

#[test]
fn what_a_provider_sends_cannot_break_a_verifier() {
    let gguf = gguf(Architecture::Llama, DType::Q8_0);
    let mut model = cpu(&gguf, 1, None, 64);
    let request = request(SamplingParams::default());
    let sound = answer(model.as_mut(), &request, &[], Numerics::Exact);
    let with = |change: &dyn Fn(&mut Answer)| {
        let mut answer = sound.clone();
        change(&mut answer);
        answer
    };
    let found = trace(model.as_mut(), &request, &with(&|a| a.tokens[5] = u32::MAX), &[]);
    assert_eq!(found.faults, [Fault::UnknownToken { place: 5, token: u32::MAX }]);
    assert!(found.margins.is_empty());
    let found = trace(model.as_mut(), &request, &with(&|a| a.commitments.clear()), &[]);
    assert_eq!(found.faults, [Fault::Commitments { expected: 3, got: 0 }]);
    assert!(found.groups.is_empty() && found.margins.len() == 90);
    let nothing = with(&|a| (a.tokens.clear(), a.commitments.clear()).1);
    assert!(trace(model.as_mut(), &request, &nothing, &[]).margins.is_empty());
    let long = with(&|a| a.tokens = vec![1; 5000]);
    let refused = Auditor::default().trace(model.as_mut(), &pages(), &request, &long);
    assert!(matches!(refused, Err(AuditError::Room { positions: 5036, room: 384 })), "{refused:?}");
    let empty = Request { prompt: vec![], ..request.clone() };
    let refused = Auditor::default().trace(model.as_mut(), &pages(), &empty, &sound);
    assert!(matches!(refused, Err(AuditError::Request(_))), "{refused:?}");
}

/// A trained model, where there is one: the same in exact arithmetic, and its first token that leaves the model.
#[test]
fn a_trained_model_is_audited_to_the_token() {
    let Some(path) = test_data("models/stories260K-f32.gguf") else { return };
    let gguf = Gguf::open(&path).unwrap();
    let request = Request {
        prompt: vec![1],
        params: SamplingParams { temperature: 0.8, seed: 5, ..SamplingParams::default() },
        limit: 200,
    };
    let mut answer = answer(cpu(&gguf, 2, None, 64).as_mut(), &request, &[1, 2], Numerics::Exact);
    assert!(answer.tokens.len() > 64);
    let mut judge = referee(&gguf, 1, 256).unwrap();
    let auditor = Auditor { ends: vec![1, 2] };
    let all: Vec<u32> = (0..judge.pages() as u32).collect();
    let (score, verdict) = auditor.score(judge.as_mut(), &all, &request, &answer).unwrap();
    assert!(!verdict.failed() && score.first.is_none(), "{score:?}");
    answer.tokens[40] = (answer.tokens[40] + 1) % 512;
    let (score, verdict) = auditor.score(judge.as_mut(), &all, &request, &answer).unwrap();
    assert_eq!((score.first, verdict.forced), (Some(40), Outcome::Failed));
}

#[cfg(feature = "gpu")]
#[test]
fn other_arithmetic_is_near_and_a_cheat_is_not() {
    use potluck_kernels::cube::{CubeBackend, Selection};
    for (architecture, dtype) in [(Architecture::Llama, DType::Q8_0), (Architecture::Qwen3, DType::Q4_K)] {
        let backend = CubeBackend::new(Selection::Auto).or_else(|_| CubeBackend::new(Selection::Software));
        let backend = match backend {
            Ok(backend) => backend,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let gguf = gguf(architecture, dtype);
        let mut provider = on(&gguf, backend, 64);
        let mut verifier = cpu(&gguf, 1, None, 128);
        for params in ways_to_draw() {
            let request = request(params);
            let answer = answer(provider.as_mut(), &request, &[], Numerics::Float);
            let honest = trace(verifier.as_mut(), &request, &answer, &[]).score(&Limits::FLOAT);
            println!("{} {dtype} {:?}", architecture.name(), honest);
            assert!(!Limits::FLOAT.judge(&honest).failed(), "{honest:?}");
            let other =
                Request { params: SamplingParams { seed: 99, ..request.params.clone() }, ..request.clone() };
            if other.params.temperature > 0.0 {
                let cheat = trace(verifier.as_mut(), &other, &answer, &[]).score(&Limits::FLOAT);
                assert!(Limits::FLOAT.judge(&cheat).failed(), "{cheat:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_margin_is_nothing_for_the_choice_and_something_for_all_others(
        logits in proptest::collection::vec(-8f32..8.0, 2..200),
        temperature in prop_oneof![Just(0.0f32), 0.1f32..2.0],
        top_k in 0u32..50,
        top_p in 0.2f32..=1.0,
        min_p in 0f32..0.3,
        penalty in 1f32..1.5,
        seed: u64,
    ) {
        let params = SamplingParams {
            temperature, top_k, top_p, min_p, repeat_penalty: penalty, seed, ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(params, logits.len()).unwrap();
        let tokens = [0, 1, 1];
        let drawn = sampler.sample(&logits, &tokens, 1, None).unwrap().token;
        let margins: Vec<_> = (0..logits.len() as u32)
            .map(|id| sampler.margin(&logits, &tokens, 1, None, &[id]).unwrap())
            .collect();
        for (id, found) in (0u32..).zip(&margins) {
            prop_assert_eq!(found.chosen, drawn);
            match found.margin {
                Some(margin) if id == drawn => prop_assert_eq!(margin, 0.0),
                Some(margin) => prop_assert!(margin >= LEAST_MARGIN && margin.is_finite()),
                None => prop_assert!(false, "every token has a logit here"),
            }
        }
        // What a cut removes only gets farther away.
        let uncut = SamplingParams { top_k: 0, top_p: 1.0, min_p: 0.0, ..sampler.params().clone() };
        if temperature > 0.0 && sampler.margin(&logits, &tokens, 1, None, &[drawn]).unwrap().chosen
            == Sampler::new(uncut.clone(), logits.len()).unwrap().sample(&logits, &tokens, 1, None).unwrap().token
        {
            let mut uncut = Sampler::new(uncut, logits.len()).unwrap();
            for (id, found) in (0u32..).zip(&margins) {
                let without = uncut.margin(&logits, &tokens, 1, None, &[id]).unwrap();
                prop_assert!(top_k == 1 || found.margin >= without.margin);
            }
        }
        // Of several claims the nearest counts.
        let all: Vec<u32> = (0..logits.len() as u32).collect();
        prop_assert_eq!(sampler.margin(&logits, &tokens, 1, None, &all).unwrap().margin, Some(0.0));
        prop_assert_eq!(sampler.margin(&logits, &tokens, 1, None, &[]).unwrap().margin, None);
    }
}

#[test]
fn a_margin_is_the_lead_in_logits() {
    let logits = [1.0f32, 3.0, 2.5, f32::NEG_INFINITY];
    let mut greedy = Sampler::new(SamplingParams::greedy(), 4).unwrap();
    let mut margin = |claimed| greedy.margin(&logits, &[], 0, None, &[claimed]).unwrap().margin;
    assert_eq!([0, 1, 2, 3].map(&mut margin), [Some(2.0), Some(0.0), Some(0.5), None]);
    // At a low temperature noise hardly matters: the lead is nearly the same.
    let cold = SamplingParams { temperature: 0.01, seed: 9, ..SamplingParams::default() };
    let found = Sampler::new(cold, 4).unwrap().margin(&logits, &[], 0, None, &[2]).unwrap();
    assert!((found.margin.unwrap() - 0.5).abs() < 0.1, "{found:?}");
    // Below a cut: by how much it misses it comes on top.
    let cut = SamplingParams { top_k: 2, temperature: 0.01, seed: 9, ..SamplingParams::default() };
    let found = Sampler::new(cut, 4).unwrap().margin(&logits, &[], 0, None, &[0]).unwrap();
    assert!((found.margin.unwrap() - 3.5).abs() < 0.2, "{found:?}");
    // Ruled out by a mask.
    let allowed = [0b0101];
    let found = greedy.margin(&logits, &[], 0, Some(&allowed), &[1]).unwrap();
    assert_eq!((found.chosen, found.margin), (2, None));
    assert_eq!(OUTSIDE, i64::MAX);
    assert!(greedy.margin(&[f32::NAN, 1.0, 0.0, 0.0], &[], 0, None, &[1]).is_err());
}
