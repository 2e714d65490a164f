//! What is written is what is read, and nothing that is read does harm.

use std::time::Duration;

use potluck_kernels::sample::SamplingParams;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{convert, wire};
use crate::{
    job::{Event, FinishReason, Format, Input, Job, JobError, KeepAlive, Message, Mode, TokenLogprob, Usage},
    mesh::frame,
};

fn through<T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>>(message: &T) -> T {
    frame::decode(&minicbor::to_vec(message).unwrap()).unwrap()
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::btree_map("[a-z]{1,6}", any::<Option<i32>>(), 0..4)
        .prop_map(|map| map.into_iter().map(|(key, value)| (key, json!({"v": [value]}))).collect())
}

fn input() -> impl Strategy<Value = Input> {
    let message = (any::<String>(), any::<String>(), object()).prop_map(|(role, content, extra)| Message {
        role,
        content,
        extra,
    });
    prop_oneof![
        (proptest::collection::vec(message, 0..5), proptest::collection::vec(object(), 0..3), object())
            .prop_map(|(messages, tools, template_vars)| Input::Chat {
                messages,
                tools: tools.into_iter().map(Value::Object).collect(),
                template_vars
            }),
        (any::<String>(), any::<bool>()).prop_map(|(text, special)| Input::Text { text, special }),
        proptest::collection::vec(any::<u32>(), 0..50).prop_map(Input::Tokens),
    ]
}

fn job() -> impl Strategy<Value = Job> {
    let sampling = (any::<(u64, u32, u32)>(), proptest::collection::vec((any::<u32>(), -9.0f32..9.0), 0..4))
        .prop_map(|((seed, top_k, repeat_last_n), logit_bias)| SamplingParams {
            temperature: 0.5,
            top_k,
            top_p: 0.25,
            min_p: 0.125,
            repeat_penalty: 1.5,
            repeat_last_n,
            presence_penalty: -1.0,
            frequency_penalty: 2.0,
            logit_bias,
            seed,
            top_logprobs: 3,
        });
    let format = prop_oneof![
        Just(Format::Text),
        Just(Format::JsonObject),
        object().prop_map(|schema| Format::JsonSchema(Value::Object(schema))),
    ];
    let keep = prop_oneof![
        Just(None),
        Just(Some(KeepAlive::Forever)),
        (0u64..1 << 40).prop_map(|ms| Some(KeepAlive::For(Duration::from_millis(ms)))),
    ];
    let rest = (
        proptest::collection::vec(any::<String>(), 0..4),
        any::<(Option<u32>, Option<u8>)>(),
        proptest::collection::vec(any::<u32>(), 0..20),
    );
    (any::<u128>(), "[ -~]{1,30}", input(), sampling, format, keep, rest).prop_map(
        |(id, model, input, sampling, format, keep_alive, (stop, (max_tokens, logprobs), resume))| Job {
            id: Uuid::from_u128(id),
            model,
            mode: Mode::Trusted,
            input,
            sampling,
            max_tokens,
            stop,
            format,
            logprobs,
            keep_alive,
            resume,
            spend: Default::default(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn a_job_arrives_as_it_was(job in job(), probe: bool) {
        let sent = wire::ToServer::Ask { ask: Box::new(convert::ask(&job, probe)) };
        let wire::ToServer::Ask { ask } = through(&sent) else { panic!("another message") };
        prop_assert_eq!(ask.probe, probe);
        let got = convert::job(*ask).unwrap();
        // A job of a member never leaves the machine that it asked.
        prop_assert_eq!(format!("{got:?}"), format!("{:?}", Job { mode: Mode::Local, ..job }));
    }

    #[test]
    fn an_answer_arrives_as_it_was(
        text in ".{0,40}",
        words in proptest::collection::vec((any::<Vec<u8>>(), -9.0f32..0.0), 0..40),
        scale in 0usize..5000,
    ) {
        let logprob = |(bytes, logprob): &(Vec<u8>, f32)| TokenLogprob {
            token: String::from_utf8_lossy(bytes).into_owned(),
            bytes: bytes.clone(),
            logprob: *logprob,
            top: vec![("other text".into(), bytes.clone(), *logprob); 3],
        };
        let logprobs: Vec<_> = words.iter().map(logprob).collect();
        let tokens: Vec<u32> = (0..logprobs.len() as u32).collect();
        let text = text.repeat(scale);
        let (mut said, mut logs, mut ids) = (String::new(), Vec::new(), Vec::new());
        for message in convert::event(Event::Text { text: text.clone(), logprobs: logprobs.clone(), tokens: tokens.clone() }) {
            prop_assert!(minicbor::to_vec(&message).unwrap().len() <= wire::MAX_FRAME);
            let wire::ToAsker::Text { text, logprobs, tokens } = through(&message) else { panic!() };
            said.push_str(&text);
            prop_assert_eq!(logprobs.len(), tokens.len());
            logs.extend(logprobs.into_iter().map(convert::logprob));
            ids.extend(tokens);
        }
        prop_assert_eq!((said, logs, ids), (text, logprobs, tokens));
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = frame::decode::<wire::ToAsker>(&bytes);
        if let Ok(wire::ToServer::Ask { ask }) = frame::decode(&bytes) {
            let _ = convert::job(*ask);
        }
    }

    #[test]
    fn a_message_with_a_wrong_byte_does_no_harm(job in job(), at: prop::sample::Index, byte: u8) {
        let mut bytes = minicbor::to_vec(wire::ToServer::Ask { ask: Box::new(convert::ask(&job, false)) }).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(wire::ToServer::Ask { ask }) = frame::decode(&bytes) {
            let _ = convert::job(*ask);
        }
    }
}

#[test]
fn lists_have_limits_of_their_own() {
    let mut job = Job {
        id: Uuid::nil(),
        model: "m".into(),
        mode: Mode::Local,
        input: Input::Tokens(Vec::new()),
        sampling: SamplingParams::default(),
        max_tokens: None,
        stop: vec![String::new(); wire::MAX_STOPS],
        format: Format::Text,
        logprobs: None,
        keep_alive: None,
        resume: Vec::new(),
        spend: Default::default(),
    };
    let decode = |job: &Job| frame::decode::<wire::Ask>(&minicbor::to_vec(convert::ask(job, false)).unwrap());
    assert!(decode(&job).is_ok());
    job.stop.push(String::new());
    assert!(decode(&job).is_err());
    job.stop.clear();
    job.resume = vec![0; wire::MAX_TOKENS + 1];
    assert!(decode(&job).is_err());
    job.resume.clear();
    job.format = Format::JsonSchema(json!({"x": "y".repeat(wire::MAX_JSON)}));
    let refused = convert::job(decode(&job).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("4 MiB"), "{refused}");
    // A list that claims more than there is reserves nothing.
    let mut endless = vec![0x9b];
    endless.extend(u64::MAX.to_be_bytes());
    assert!(frame::decode::<wire::ToAsker>(&endless).is_err());
}

#[test]
fn every_failure_has_a_name_and_unknown_ones_are_internal() {
    let all = [
        JobError::ModelNotFound { model: "m".into() },
        JobError::EmbedderMissing { model: "m".into() },
        JobError::ModelUnusable { model: "m".into(), reason: "r".into() },
        JobError::ContextLengthExceeded { model: "m".into(), needed: 9, available: 7 },
        JobError::Invalid { field: "f".into(), reason: "r".into() },
        JobError::Busy { queued: 4, retry_after: Duration::from_millis(1500) },
        JobError::ModeUnavailable { mode: Mode::Public, reason: "r".into() },
        JobError::Payment { reason: "dear".into() },
        JobError::Cancelled,
        JobError::ShuttingDown,
        JobError::Internal { reason: "r".into() },
    ];
    for error in all {
        assert_eq!(convert::error(through(&convert::failure(&error))), error);
    }
    let later =
        wire::Failure { code: 999, message: "a word of a later version".into(), ..Default::default() };
    assert_eq!(convert::error(later), JobError::Internal { reason: "a word of a later version".into() });
    let long = JobError::Internal { reason: "ö".repeat(100_000) };
    assert!(minicbor::to_vec(convert::failure(&long)).unwrap().len() < 8192);
}

#[test]
fn the_end_arrives_as_it_was() {
    let usage = Usage {
        prompt_tokens: 1,
        cached_tokens: 2,
        completion_tokens: 3,
        load: Duration::from_micros(4),
        prompt: Duration::from_micros(5),
        decode: Duration::from_micros(6),
        total: Duration::from_micros(7),
    };
    for reason in [FinishReason::Stop, FinishReason::Length] {
        let messages = convert::event(Event::Done { reason, usage });
        let wire::ToAsker::Done { reason: r, usage: u } = through(&messages[0]) else { panic!() };
        assert_eq!((convert::reason(r), convert::usage(u)), (reason, usage));
    }
}

/// The fields of a request. A new one is looked at: nothing may name who of the asking machine's users wants it.
#[test]
fn a_request_names_no_user() {
    let job = Job {
        id: Uuid::nil(),
        model: "m".into(),
        mode: Mode::Trusted,
        input: Input::Chat { messages: Vec::new(), tools: Vec::new(), template_vars: Map::new() },
        sampling: SamplingParams::default(),
        max_tokens: None,
        stop: Vec::new(),
        format: Format::Text,
        logprobs: None,
        keep_alive: None,
        resume: Vec::new(),
        spend: Default::default(),
    };
    let bytes = minicbor::to_vec(convert::ask(&job, false)).unwrap();
    let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let want = concat!(
        "8b",                                                                         // eleven fields:
        "5000000000000000000000000000000000",                                         // the job's id
        "616d",                                                                       // the model
        "820083808040", // a chat: messages, tools, template variables
        "8bfa3f80000000fa3f800000fa00000000fa3f8000001840fa00000000fa00000000800000", // sampling
        "f6",           // max_tokens
        "80",           // stop
        "820080",       // format
        "f6",           // logprobs
        "f6",           // keep_alive
        "80",           // resume
        "f4",           // probe
    );
    assert_eq!(shown, want);
}
