//! Everything that must not be believed. After each piece of it the node still answers, and has said no in the
//! right words.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use potluck_tests::{
    gguf::{File, Tiny, array, kind, string},
    http::{Client, Response, read_head},
    node::{Node, NodeOptions},
    process,
};
use serde_json::{Value, json};

use crate::common::{bounded, is_a_clear_message, names, still_answers};

const MIB: u64 = 1 << 20;

fn changed(change: impl FnOnce(&mut File)) -> Vec<u8> {
    let mut file = Tiny { name: "bad".into(), ..Tiny::default() }.file();
    change(&mut file);
    file.bytes()
}

/// Files that lie, each in one way.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let good = Tiny::default().bytes();
    let huge = 1u64 << 60;
    let tensor = |name: &str, change: &dyn Fn(&mut potluck_tests::gguf::Tensor)| {
        changed(|file| change(file.tensors.iter_mut().find(|t| t.name == name.as_bytes()).expect("a tensor")))
    };
    vec![
        ("empty", Vec::new()),
        ("only-magic", b"GGUF".to_vec()),
        ("no-model-at-all", b"#!/bin/sh\necho this is not a model\n".repeat(100)),
        ("version-0", changed(|f| f.version = 0)),
        ("version-99", changed(|f| f.version = 99)),
        ("big-endian", changed(|f| f.version = 3u32.swap_bytes())),
        ("cut-in-the-header", good[..20].to_vec()),
        ("cut-in-the-keys", good[..400].to_vec()),
        ("cut-in-the-data", good[..good.len() - 1000].to_vec()),
        ("keys-2-60", changed(|f| f.key_count = Some(huge))),
        ("tensors-2-60", changed(|f| f.tensor_count = Some(huge))),
        ("keys-max", changed(|f| f.key_count = Some(u64::MAX))),
        ("tensors-max", changed(|f| f.tensor_count = Some(u64::MAX))),
        ("keys-one-more", changed(|f| f.key_count = Some(f.keys.len() as u64 + 1))),
        ("tensors-one-more", changed(|f| f.tensor_count = Some(f.tensors.len() as u64 + 1))),
        ("no-tensors", changed(|f| f.tensors.clear())),
        ("key-length-max", changed(|f| f.keys[0].2 = u64::MAX.to_le_bytes().to_vec())),
        ("string-longer-than-file", changed(|f| f.keys[1].2 = (1u64 << 40).to_le_bytes().to_vec())),
        (
            "array-2-60",
            changed(|f| {
                f.set("x", kind::ARRAY, [&kind::F32.to_le_bytes()[..], &huge.to_le_bytes()].concat())
            }),
        ),
        (
            "array-of-arrays",
            changed(|f| {
                let inner = array(kind::U32, [&[0u8; 4][..]].into_iter());
                f.set("x", kind::ARRAY, array(kind::ARRAY, [inner.as_slice()].into_iter()));
            }),
        ),
        (
            "arrays-nested-deeply",
            changed(|f| {
                let nest = [&kind::ARRAY.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
                f.set("x", kind::ARRAY, nest.repeat(100_000));
            }),
        ),
        ("value-type-99", changed(|f| f.set("x", 99, vec![0; 8]))),
        ("bool-7", changed(|f| f.set("x", kind::BOOL, vec![7]))),
        ("key-twice", changed(|f| f.keys.push(f.keys[0].clone()))),
        ("key-not-utf8", changed(|f| f.keys.push((b"\xff\xfe".to_vec(), kind::BOOL, vec![1])))),
        ("value-not-utf8", changed(|f| f.set("general.name", kind::STRING, string(b"\xff\xfe\xfd")))),
        ("alignment-0", changed(|f| f.set_u32("general.alignment", 0))),
        ("alignment-3", changed(|f| f.set_u32("general.alignment", 3))),
        ("alignment-2-31", changed(|f| f.set_u32("general.alignment", 1 << 31))),
        ("tensor-twice", changed(|f| f.tensors.push(f.tensors[0].clone()))),
        ("tensor-type-99", tensor("output.weight", &|t| t.kind = 99)),
        ("tensor-type-iq2", tensor("output.weight", &|t| t.kind = 16)),
        ("tensor-past-the-end", tensor("output.weight", &|t| t.offset = 1 << 40)),
        ("tensor-offset-max", tensor("output.weight", &|t| t.offset = u64::MAX - 31)),
        ("tensor-unaligned", tensor("output.weight", &|t| t.offset += 1)),
        ("dims-overflow", tensor("output.weight", &|t| t.dims = vec![1 << 33, 1 << 33])),
        ("dims-zero", tensor("output.weight", &|t| t.dims = vec![64, 0])),
        ("dims-none", tensor("output.weight", &|t| t.dims = vec![])),
        ("dims-many", tensor("output.weight", &|t| t.dims = vec![1; 4000])),
        ("dims-wrong", tensor("output.weight", &|t| t.dims = vec![64, 3])),
        ("dims-swapped", tensor("blk.0.ffn_down.weight", &|t| t.dims.reverse())),
        ("name-too-long", tensor("output.weight", &|t| t.name = vec![b'x'; 100_000])),
        ("no-architecture", changed(|f| f.unset("general.architecture"))),
        ("unknown-architecture", changed(|f| f.set_str("general.architecture", "nonsense"))),
        ("architecture-is-a-number", changed(|f| f.set_u32("general.architecture", 1))),
        ("layers-2-31", changed(|f| f.set_u32("llama.block_count", 1 << 31))),
        ("layers-max", changed(|f| f.set_u32("llama.block_count", u32::MAX))),
        ("layers-0", changed(|f| f.set_u32("llama.block_count", 0))),
        ("layers-one-more", changed(|f| f.set_u32("llama.block_count", 3))),
        ("context-0", changed(|f| f.set_u32("llama.context_length", 0))),
        ("heads-0", changed(|f| f.set_u32("llama.attention.head_count", 0))),
        ("kv-heads-0", changed(|f| f.set_u32("llama.attention.head_count_kv", 0))),
        ("kv-heads-odd", changed(|f| f.set_u32("llama.attention.head_count_kv", 3))),
        ("heads-max", changed(|f| f.set_u32("llama.attention.head_count", u32::MAX))),
        ("width-0", changed(|f| f.set_u32("llama.embedding_length", 0))),
        ("width-max", changed(|f| f.set_u32("llama.embedding_length", u32::MAX))),
        ("rope-odd", changed(|f| f.set_u32("llama.rope.dimension_count", 7))),
        ("rope-max", changed(|f| f.set_u32("llama.rope.dimension_count", u32::MAX))),
        ("epsilon-nan", changed(|f| f.set_f32("llama.attention.layer_norm_rms_epsilon", f32::NAN))),
        ("rope-base-nan", changed(|f| f.set_f32("llama.rope.freq_base", f32::NAN))),
        ("rope-base-negative", changed(|f| f.set_f32("llama.rope.freq_base", -1.0))),
        ("no-tokens", changed(|f| f.unset("tokenizer.ggml.tokens"))),
        (
            "tokens-few",
            changed(|f| {
                f.set(
                    "tokenizer.ggml.tokens",
                    kind::ARRAY,
                    array(kind::STRING, [string(b"a").as_slice()].into_iter()),
                )
            }),
        ),
        (
            "tokens-are-numbers",
            changed(|f| {
                f.set(
                    "tokenizer.ggml.tokens",
                    kind::ARRAY,
                    array(kind::U32, [&[0u8; 4][..]; 354].into_iter()),
                )
            }),
        ),
        (
            "tokens-all-the-same",
            changed(|f| {
                let same = string(b"x");
                f.set(
                    "tokenizer.ggml.tokens",
                    kind::ARRAY,
                    array(kind::STRING, vec![same.as_slice(); 354].into_iter()),
                );
            }),
        ),
        ("tokenizer-unknown", changed(|f| f.set_str("tokenizer.ggml.model", "nonsense"))),
        ("start-token-outside", changed(|f| f.set_u32("tokenizer.ggml.bos_token_id", 1 << 30))),
        ("end-token-outside", changed(|f| f.set_u32("tokenizer.ggml.eos_token_id", u32::MAX))),
        ("vocabulary-larger-than-weights", changed(|f| f.set_u32("llama.vocab_size", 1 << 30))),
        ("template-is-no-template", changed(|f| f.set_str("tokenizer.chat_template", "{% for %}{{{{"))),
    ]
}

/// Files that may be refused or used, but must do no harm.
const HARMLESS: [&str; 10] = [
    "end-token-outside",
    "bool-7",
    "tensors-one-more",
    "epsilon-nan",
    "rope-base-nan",
    "rope-base-negative",
    "context-0",
    "template-is-no-template",
    "vocabulary-larger-than-weights",
    "tokens-all-the-same",
];

fn is_typed_refusal(name: &str, answer: &Response) {
    let status = answer.status;
    assert!((400..500).contains(&status), "{name}: status {status}: {}", answer.text());
    let error = answer.openai_error(status);
    assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{name}: {error}");
}

#[test]
fn a_file_that_lies_is_refused_and_costs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("user/.cache/llama.cpp");
    fs::create_dir_all(&folder).unwrap();
    let files = hostile();
    for (name, bytes) in &files {
        fs::write(folder.join(format!("bad-{name}.gguf")), bytes).unwrap();
    }
    let node = Node::start(bounded(home.path()).home(home.path()));
    let client = node.client();
    still_answers(&client);
    let before = node.rss();
    let listed = names(&client);
    for (name, _) in &files {
        // The listing does not open files: each is there, and refused when it is asked for.
        let asked = format!("bad-{name}");
        assert!(listed.contains(&asked), "{asked} is not in {listed:?}");
        let started = Instant::now();
        let body = json!({ "model": asked, "prompt": "abc", "max_tokens": 3 });
        let answer = client.post("/v1/completions", &body);
        if !(HARMLESS.contains(name) && answer.status == 200) {
            is_typed_refusal(name, &answer);
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{name} took {:?}", started.elapsed());
        let shown = client.post("/api/show", &json!({ "model": asked }));
        assert!(shown.status < 500, "{name}: show: {}", shown.text());
        still_answers(&client);
    }
    let grown = node.rss().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} files left {} MiB behind", files.len(), grown / MIB);
    assert_eq!(listed, names(&client), "the listing changed");
    node.shutdown();
}

#[test]
fn a_bad_file_given_by_hand_is_refused_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let pick = [
        "empty",
        "no-model-at-all",
        "cut-in-the-data",
        "tensors-2-60",
        "tensor-type-iq2",
        "unknown-architecture",
    ];
    for (name, bytes) in hostile().into_iter().filter(|(name, _)| pick.contains(name)) {
        let path = folder.path().join(format!("bad-{name}.gguf"));
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let output = node_output(folder.path(), &path);
        match output {
            Ok(node) => {
                // It serves the others; the bad one is refused when it is asked for.
                let stem = format!("bad-{name}");
                let body = json!({ "model": stem, "prompt": "abc", "max_tokens": 3 });
                is_typed_refusal(name, &node.client().post("/v1/completions", &body));
                still_answers(&node.client());
                node.shutdown();
            }
            Err(stderr) => is_a_clear_message(&stderr, &[&format!("bad-{name}")]),
        }
        if name == "tensor-type-iq2" {
            let said = potluck_tests::node::command(folder.path(), ["run", &path, "abc"]).output().unwrap();
            let said = potluck_tests::node::failed(&said);
            assert!(said.contains("IQ2_XXS") || said.contains("16"), "the type is not named: {said}");
        }
    }
}

/// A node with one more model, or what it said when it refused to start.
fn node_output(folder: &Path, model: &str) -> Result<Node, String> {
    let mut child = potluck_tests::node::command(
        folder,
        ["up", "--listen", "127.0.0.1:0", "--device", "cpu", "--model", model],
    );
    let mut child =
        child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let ended = process::eventually(Duration::from_secs(2), || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    if ended {
        assert!(!output.status.success());
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(Node::start(bounded(folder).model(model)))
}

/// A chat with a model that has this template.
fn chat_with(client: &Client, model: &str) -> std::io::Result<Response> {
    let body = json!({ "model": model, "max_tokens": 2, "messages": [{ "role": "user", "content": "hi" }] });
    let json = [("content-type", "application/json")];
    client.send("POST", "/v1/chat/completions", &json, body.to_string().as_bytes())
}

fn with_template(folder: &Path, name: &str, template: &str) -> String {
    let model = Tiny { template: Some(template.into()), name: name.into(), ..Tiny::default() };
    model.write(&folder.join(format!("{name}.gguf")))
}

#[test]
fn a_template_that_loops_or_fails_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let templates = [
        ("loops", "{% for i in range(1000000000) %}{% for j in range(1000000000) %}{% endfor %}{% endfor %}"),
        ("loops-less", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"),
        (
            "prints",
            "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        ),
        ("calls-itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        ("raises", "{{ raise_exception('this model takes no such messages') }}"),
        ("reads", "{% include '/etc/passwd' %}"),
        ("unknown", "{{ messages | no_such_filter }}"),
        ("divides", "{{ 1 // 0 }}"),
        ("indexes", "{{ messages[99].content.nothing.at.all }}"),
    ];
    let mut options = bounded(folder.path());
    for (name, template) in &templates {
        options = options.model(with_template(folder.path(), name, template));
    }
    let node = Node::start(options);
    let client = node.client();
    still_answers(&client);
    for (name, _) in &templates {
        let started = Instant::now();
        let answer = chat_with(&client, name).unwrap();
        is_typed_refusal(name, &answer);
        assert!(started.elapsed() < Duration::from_secs(10), "`{name}` took {:?}", started.elapsed());
        still_answers(&client);
        if *name == "raises" {
            assert!(answer.text().contains("this model takes no such messages"), "{}", answer.text());
        }
    }
    node.shutdown();
}

#[test]
fn a_template_that_grows_is_stopped() {
    let templates = [
        ("doubles", "{% set n = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}".to_owned()),
        ("doubles-a-line", format!("{{% set x = 'xxxxxxxxxxxxxxxx' %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(60))),
        ("doubles-a-sum", "{% set n = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}".to_owned()),
        ("doubles-a-list", "{% set n = namespace(x=[1,2,3,4,5,6,7,8]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x|length }}".to_owned()),
        ("doubles-a-capture", "{% set n = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}{{ n.x }}".to_owned()),
        ("doubles-a-call", "{% macro d(x, n) %}{% if n > 0 %}{{ d(x ~ x, n - 1) }}{% endif %}{% endmacro %}{{ d('xxxxxxxxxxxxxxxx', 60) }}".to_owned()),
        ("repeats", "{{ 'xxxxxxxxxxxxxxxx' * 10000000000 }}".to_owned()),
        ("repeats-a-list", "{{ ([1,2,3,4] * 10000000000) | length }}".to_owned()),
        ("pads", "{{ '%010000000000d' % 5 }}".to_owned()),
        ("indents", "{{ 'x\ny' | indent(10000000000) }}".to_owned()),
        ("joins", "{{ (range(99999) | list) | join('x' * 99999) | length }}".to_owned()),
        ("replaces", "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x | replace('x', 'xxxxxxxx') %}{% endfor %}{{ n.x }}".to_owned()),
    ];
    let mut harmed = Vec::new();
    for (name, template) in &templates {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(bounded(folder.path()).model(with_template(folder.path(), name, template)));
        let client = node.client();
        still_answers(&client);
        let started = Instant::now();
        match chat_with(&client, name) {
            Err(error) => {
                harmed.push(format!("{name}: {error}: {}", node.stderr().lines().last().unwrap_or_default()));
                continue;
            }
            Ok(answer) => is_typed_refusal(name, &answer),
        }
        let took = started.elapsed();
        if took > Duration::from_secs(75) {
            harmed.push(format!("{name} took {took:?}"));
        }
        still_answers(&client);
        let peak = process::peak_rss(node.pid()).unwrap();
        if peak > 1024 * MIB {
            harmed.push(format!("{name} took {} MiB", peak / MIB));
        }
        node.shutdown();
    }
    assert!(harmed.is_empty(), "{harmed:#?}");
}

#[test]
fn requests_that_are_too_large_are_refused_cheaply() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(bounded(folder.path()));
    let client = node.client();
    still_answers(&client);
    let before = node.rss();

    // A hundred megabytes, announced.
    let refused = upload(&client, 100 * MIB, false);
    refused.openai_error(413);
    still_answers(&client);
    // The same in chunks of unknown number.
    let refused = upload(&client, 100 * MIB, true);
    refused.openai_error(413);
    still_answers(&client);
    let peak = process::peak_rss(node.pid()).unwrap();
    assert!(peak < before + 128 * MIB, "a large body took {} MiB", (peak.saturating_sub(before)) / MIB);

    // A million tokens, in words and in ids.
    for (path, field, body) in [
        ("/v1/completions", "prompt", json!("a b ".repeat(500_000))),
        ("/v1/completions", "prompt", json!(vec![70u32; 1_000_000])),
        (
            "/v1/chat/completions",
            "messages",
            json!([{ "role": "user", "content": "word ".repeat(1_000_000) }]),
        ),
        ("/v1/chat/completions", "messages", json!(vec![json!({ "role": "user", "content": "x" }); 60_000])),
    ] {
        // The guide's template takes the last question only, so many messages are not too many for it.
        let models = if field == "messages" && body.as_array().is_some_and(|m| m.len() > 1) {
            &["tiny"][..]
        } else {
            &["tiny", "guide"]
        };
        for model in models {
            let mut request = json!({ "model": model, "max_tokens": 1 });
            request[field] = body.clone();
            let started = Instant::now();
            let error = client.post(path, &request).openai_error(400);
            let took = started.elapsed();
            assert_eq!(error["code"], "context_length_exceeded", "{model}: {error}");
            assert!(took < Duration::from_secs(5), "saying no to {model} took {took:?}");
            still_answers(&client);
        }
    }
    let error = client.post("/api/generate", &json!({ "model": "tiny", "prompt": "a b ".repeat(500_000) }));
    error.ollama_error(400);
    let grown = node.rss().saturating_sub(before);
    assert!(grown < 192 * MIB, "memory grew by {} MiB", grown / MIB);
    node.shutdown();
}

/// Sends this many bytes as a body, as far as the node takes them.
fn upload(client: &Client, size: u64, chunked: bool) -> Response {
    let mut socket = client.connect().unwrap();
    let length = [("content-type", "application/json"), ("content-length", &size.to_string())];
    let chunks = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
    let head = client.head("POST", "/v1/chat/completions", if chunked { &chunks } else { &length }, 0);
    socket.write_all(head.as_bytes()).unwrap();
    let piece = vec![b' '; 64 << 10];
    for _ in 0..size / piece.len() as u64 {
        let sent = if chunked {
            socket
                .write_all(b"10000\r\n")
                .and_then(|()| socket.write_all(&piece))
                .and_then(|()| socket.write_all(b"\r\n"))
        } else {
            socket.write_all(&piece)
        };
        if sent.is_err() {
            break;
        }
    }
    if chunked {
        let _ = socket.write_all(b"0\r\n\r\n");
    }
    read_head(socket).and_then(potluck_tests::http::Streaming::rest).expect("a refusal that can be read")
}

#[test]
fn requests_that_make_no_sense_are_refused_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(bounded(folder.path()));
    let client = node.client();
    let turn = "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]";
    let chat = |field: &str| format!("{{\"model\": \"tiny\", {turn}, {field}}}");
    let mut bad: Vec<(&str, Vec<u8>, u16)> = vec![
        ("/v1/chat/completions", b"".to_vec(), 400),
        ("/v1/chat/completions", b"null".to_vec(), 400),
        ("/v1/chat/completions", b"[]".to_vec(), 400),
        ("/v1/chat/completions", b"{".to_vec(), 400),
        ("/v1/chat/completions", b"{} trailing".to_vec(), 400),
        ("/v1/chat/completions", b"\xff\xfe{}".to_vec(), 400),
        (
            "/v1/chat/completions",
            b"{\"model\": \"tiny\", \"messages\": [{\"role\": \"user\", \"content\": \"\xff\xff\"}]}"
                .to_vec(),
            400,
        ),
        (
            "/v1/chat/completions",
            format!("{{\"model\": {}1{}}}", "[".repeat(200_000), "]".repeat(200_000)).into_bytes(),
            400,
        ),
        ("/v1/chat/completions", format!("{{\"model\": {}}}", "{\"a\":".repeat(100_000)).into_bytes(), 400),
        ("/v1/chat/completions", format!("{{{turn}}}").into_bytes(), 400),
        ("/v1/chat/completions", format!("{{\"model\": 5, {turn}}}").into_bytes(), 400),
        ("/v1/chat/completions", format!("{{\"model\": \"\", {turn}}}").into_bytes(), 400),
        ("/v1/chat/completions", format!("{{\"model\": \"../../../etc/passwd\", {turn}}}").into_bytes(), 404),
        ("/v1/chat/completions", format!("{{\"model\": \"/etc/passwd\", {turn}}}").into_bytes(), 404),
        (
            "/v1/chat/completions",
            format!("{{\"model\": \"{}\", {turn}}}", "x".repeat(1_000_000)).into_bytes(),
            404,
        ),
        ("/v1/chat/completions", b"{\"model\": \"tiny\"}".to_vec(), 400),
        ("/v1/chat/completions", b"{\"model\": \"tiny\", \"messages\": \"hi\"}".to_vec(), 400),
        ("/v1/chat/completions", b"{\"model\": \"tiny\", \"messages\": [5]}".to_vec(), 400),
        (
            "/v1/chat/completions",
            b"{\"model\": \"tiny\", \"messages\": [{\"role\": 5, \"content\": \"x\"}]}".to_vec(),
            400,
        ),
        ("/v1/completions", b"{\"model\": \"tiny\", \"prompt\": [1, -1]}".to_vec(), 400),
        ("/v1/completions", b"{\"model\": \"tiny\", \"prompt\": [1, 4000000000]}".to_vec(), 400),
        ("/v1/completions", b"{\"model\": \"tiny\", \"prompt\": [1, 99999999999999999999999]}".to_vec(), 400),
        ("/v1/completions", b"{\"model\": \"tiny\", \"prompt\": [1.5]}".to_vec(), 400),
        ("/v1/completions", b"{\"model\": \"tiny\", \"prompt\": [[[[1]]]]}".to_vec(), 400),
        ("/v1/completions", b"{\"model\": \"tiny\", \"prompt\": {}}".to_vec(), 400),
    ];
    for field in [
        "\"temperature\": 1e999",
        "\"temperature\": -1e999",
        "\"temperature\": NaN",
        "\"temperature\": \"NaN\"",
        "\"temperature\": \"nan\"",
        "\"temperature\": -0.1",
        "\"temperature\": {}",
        "\"top_p\": -1",
        "\"top_p\": 1.5",
        "\"top_p\": \"inf\"",
        "\"max_tokens\": -1",
        "\"max_tokens\": 1.5",
        "\"max_tokens\": 1e30",
        "\"max_tokens\": \"many\"",
        "\"n\": -1",
        "\"n\": 1000000000",
        "\"seed\": \"x\"",
        "\"stop\": 7",
        "\"stop\": [7]",
        "\"frequency_penalty\": 1e999",
        "\"presence_penalty\": \"NaN\"",
        "\"top_logprobs\": -1",
        "\"top_logprobs\": 1000000",
        "\"logit_bias\": \"x\"",
        "\"stream\": \"yes\"",
        "\"response_format\": 5",
        "\"response_format\": {\"type\": \"json_schema\"}",
        "\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": {\"$ref\": \"http://192.0.2.1/x\"}}}",
        "\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": {\"type\": \"string\", \"pattern\": \"(((\"}}}",
    ] {
        bad.push(("/v1/chat/completions", chat(field).into_bytes(), 400));
    }
    for (path, body, status) in &bad {
        let answer = client.post_bytes(path, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        assert_eq!(answer.status, *status, "{path} {shown}: {}", answer.text());
        let error = answer.openai_error(*status);
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.len() < 2000, "{shown}: a message of {} bytes", message.len());
    }
    for options in [
        "{\"temperature\": 1e999}",
        "{\"num_predict\": -7}",
        "{\"temperature\": \"NaN\"}",
        "{\"top_k\": -5.5}",
        "7",
        "{\"num_ctx\": -1}",
    ] {
        let body = format!("{{\"model\": \"tiny\", \"prompt\": \"x\", \"options\": {options}}}");
        client.post_bytes("/api/generate", body.as_bytes()).ollama_error(400);
    }
    for body in [
        "",
        "5",
        "{\"model\": 5}",
        "{\"model\": \"tiny\", \"format\": 5}",
        "{\"model\": \"tiny\", \"keep_alive\": \"soon\"}",
    ] {
        client.post_bytes("/api/chat", body.as_bytes()).ollama_error(400);
    }
    still_answers(&client);

    // What a field that nobody knows means is said or ignored, but never breaks anything.
    let body = json!({ "model": "tiny", "prompt": "x", "max_tokens": 1, "no_such_field": { "a": [1, 2] } });
    let answer = client.post("/v1/completions", &body);
    assert!([200, 400].contains(&answer.status), "{}", answer.text());

    for (method, path, status) in [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/no-such-model", 404),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
    ] {
        client.send(method, path, &[], b"").unwrap().openai_error(status);
    }
    let wrong = client.send("POST", "/v1/completions", &[("content-type", "text/html")], b"<html>").unwrap();
    assert!([400, 415].contains(&wrong.status), "{}", wrong.text());
    wrong.openai_error(wrong.status);
    node.shutdown();
}

#[test]
fn broken_http_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(bounded(folder.path()));
    let client = node.client();
    let pieces: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ".to_vec(), vec![b'x'; 4 << 20], b"\r\n\r\n".to_vec()].concat(),
        [b"GET /".to_vec(), vec![b'x'; 1 << 20], b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n".to_vec(), b"a: b\r\n".repeat(100_000), b"\r\n".to_vec()].concat(),
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999999999999999999999\r\n\r\n".to_vec(),
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".to_vec(),
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_vec(),
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nxx".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
    ];
    for piece in &pieces {
        let mut socket = client.connect().unwrap();
        let _ = socket.write_all(piece);
        let _ = socket.shutdown(Shutdown::Write);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        let _ = socket.take(1 << 20).read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1."), "{text}");
        assert!(
            !text.starts_with("HTTP/1.1 2"),
            "{text} for {}",
            String::from_utf8_lossy(&piece[..piece.len().min(80)])
        );
        still_answers(&client);
    }
    assert!(node.alive());
    assert!(!node.stderr().contains("panicked"), "{}", node.stderr());
    node.shutdown();
}

#[test]
fn slow_senders_are_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let node =
        Node::start(bounded(folder.path()).args(["--client-timeout", "2s", "--max-connections", "256"]));
    let client = node.client();
    still_answers(&client);
    let before = node.rss();
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..100 {
        let mut socket = client.connect().unwrap();
        let start: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ",
            _ => b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{",
        };
        socket.write_all(start).unwrap();
        slow.push(socket);
    }
    // While they dawdle, others are served.
    for _ in 0..5 {
        let asked = Instant::now();
        still_answers(&client);
        assert!(asked.elapsed() < Duration::from_secs(5), "an honest client waited {:?}", asked.elapsed());
    }
    // A byte now and then does not keep a connection for ever.
    let mut open = slow;
    while !open.is_empty() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(500));
        open.retain_mut(|socket| {
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let closed = matches!(socket.read(&mut [0; 4096]), Ok(0)) || socket.write_all(b"x").is_err();
            !closed
        });
    }
    assert!(open.is_empty(), "{} of 100 slow connections are still open after 20 s", open.len());
    let grown = node.rss().saturating_sub(before);
    assert!(grown < 32 * MIB, "memory grew by {} MiB", grown / MIB);
    still_answers(&client);
    node.shutdown();
}

#[test]
fn more_connections_than_allowed_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let node =
        Node::start(bounded(folder.path()).args(["--max-connections", "32", "--client-timeout", "2s"]));
    let client = node.client();
    let crowd: Vec<TcpStream> = (0..200).filter_map(|_| client.connect().ok()).collect();
    assert!(crowd.len() > 32);
    std::thread::sleep(Duration::from_millis(500));
    drop(crowd);
    still_answers(&client);
    node.shutdown();
}

#[test]
fn a_reader_that_does_not_read_blocks_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Tiny { context: 8192, ..Tiny::default() }.write(&folder.path().join("long.gguf"));
    let options = bounded(folder.path()).model(slow).args([
        "--client-timeout",
        "3s",
        "--parallel",
        "2",
        "--max-queue",
        "8",
    ]);
    let node = Node::start(options);
    let client = node.client();
    let body = json!({ "model": "long", "prompt": "abc", "max_tokens": 8000, "temperature": 1, "stream": true, "logprobs": 5 });
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let answer = client.stream("/v1/completions", &body).unwrap();
        assert_eq!(answer.status, 200);
        deaf.push(answer);
    }
    // Both slots of that model belong to clients that read nothing; a third client gets its answer all the same.
    let third = json!({ "model": "long", "prompt": "abc", "max_tokens": 4 });
    let answer: Value = client.post("/v1/completions", &third).expect(200);
    assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
    still_answers(&client);
    drop(deaf);
    let idle = process::eventually(Duration::from_secs(5), || potluck_tests::load::in_flight(&client) == 0);
    assert!(idle, "slots of clients that left are still taken");
    node.shutdown();
}

#[test]
fn a_context_is_never_cut_silently() {
    let folder = tempfile::tempdir().unwrap();
    let node =
        Node::start(NodeOptions::new().model(crate::common::tiny(folder.path())).args(["--context", "128"]));
    let client = node.client();
    let ask = |length: usize| {
        client.post(
            "/v1/completions",
            &json!({ "model": "tiny", "prompt": "x".repeat(length), "max_tokens": 1 }),
        )
    };
    // One token for the start, one for the space, one per letter, one to be made.
    let answer = ask(125).expect(200);
    assert_eq!(answer["usage"]["prompt_tokens"], 127, "{answer}");
    let error = ask(127).openai_error(400);
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("128"), "available tokens are not in: {message}");
    assert!(message.contains("129") || message.contains("130"), "needed tokens are not in: {message}");
    // An answer that fills the context ends there and says that it was cut.
    let messages = json!([{ "role": "user", "content": "x".repeat(90) }]);
    let answer = client
        .post("/v1/chat/completions", &json!({ "model": "tiny", "messages": messages, "temperature": 0 }));
    let answer = answer.expect(200);
    assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
    let total = answer["usage"]["total_tokens"].as_u64().unwrap();
    assert!((127..=129).contains(&total), "{answer}");
    node.shutdown();
}
