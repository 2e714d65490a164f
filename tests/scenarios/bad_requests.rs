//! Requests that must not be believed: too large, senseless, broken, slow, or without end.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use potluck_tests::{
    gguf::Tiny,
    http::{Client, Response, read_head},
    node::{Node, NodeOptions},
    process,
};
use serde_json::{Value, json};

use crate::common::{bounded, still_answers};

const MIB: u64 = 1 << 20;

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
