//! Everything that must not be believed. After each piece of it the node still answers, and has said no in the
//! right words.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use potluck_tests::{
    gguf::{File, Tiny, array, kind, string},
    http::{Client, Response},
    node::Node,
    process,
};
use serde_json::json;

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
