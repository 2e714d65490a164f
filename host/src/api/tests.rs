//! The surfaces over a desk that answers as the test says.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
    response::Response,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{config::ApiKey, job::Input};
use fake::Fake;

mod embeddings;
mod fake;

struct Bench {
    desk: Arc<Fake>,
    router: Router,
}

fn bench(address: &str, change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = Config::default();
    change(&mut config);
    let desk = Arc::new(Fake::default());
    let settings = Settings {
        config,
        node: "node-1".into(),
        address: address.parse().unwrap(),
        admin_token: "admin-token".into(),
        since: 0,
    };
    let router = Api::new(Arc::clone(&desk) as Arc<dyn Desk>, settings).router();
    Bench { desk, router }
}

fn local() -> Bench {
    bench("127.0.0.1:7685", |_| {})
}

impl Bench {
    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:7685");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        self.call("POST", path, &[], body.to_string()).await
    }

    /// The status and the body as JSON.
    async fn posted(&self, path: &str, body: Value) -> (u16, Value) {
        whole(self.post(path, body).await).await
    }
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn whole(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = text(response).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn a_chat_is_answered_with_usage_and_labels() {
    let bench = local();
    let response = bench.post("/v1/chat/completions", chat("m")).await;
    assert_eq!(response.headers()[MODE_HEADER], "local");
    assert_eq!(response.headers()[NODE_HEADER], "node-1");
    let (status, body) = whole(response).await;
    assert_eq!(status, 200);
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["content"], "Hello world");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 3}});
    assert_eq!(body["usage"], usage);
}

#[tokio::test]
async fn a_streamed_chat_begins_with_the_role_and_ends_with_usage_and_done() {
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let response = local().post("/v1/chat/completions", with(chat("m"), more)).await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let text = text(response).await;
    assert!(text.ends_with("data: [DONE]\n\n"));
    let events = events(&text);
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let said: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "Hello world");
    let (last, rest) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["total_tokens"], 9);
    assert!(rest.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn choices_have_their_own_seeds_and_share_the_prompt() {
    let bench = local();
    let (status, body) =
        bench.posted("/v1/chat/completions", with(chat("m"), json!({"n": 3, "seed": 5}))).await;
    assert_eq!(status, 200);
    assert_eq!(body["choices"].as_array().unwrap().len(), 3);
    assert_eq!(body["usage"]["prompt_tokens"], 7);
    assert_eq!(body["usage"]["completion_tokens"], 6);
    let seeds: Vec<_> = bench.desk.jobs.lock().unwrap().iter().map(|job| job.sampling.seed).collect();
    assert_eq!(seeds, [5, 6, 7]);
}

#[tokio::test]
async fn errors_have_openais_shape() {
    let bench = local();
    for (model, status, kind, code) in [
        ("absent", 404, "invalid_request_error", "model_not_found"),
        ("busy", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("stopping", 503, "service_unavailable", "shutting_down"),
        ("long", 400, "invalid_request_error", "context_length_exceeded"),
        ("m@public", 403, "permission_error", "mode_unavailable"),
        ("m@moon", 400, "invalid_request_error", "unknown_mode"),
    ] {
        for stream in [false, true] {
            let response =
                bench.post("/v1/chat/completions", with(chat(model), json!({"stream": stream}))).await;
            if model == "busy" {
                assert_eq!(response.headers()["retry-after"], "3");
            }
            let (got, body) = whole(response).await;
            assert_eq!(got, status, "{model}");
            assert_eq!(body["error"]["type"], kind, "{model}");
            assert_eq!(body["error"]["code"], code, "{model}");
            assert!(body["error"]["message"].is_string() && body["error"].get("param").is_some());
        }
    }
    let (status, body) = whole(bench.call("GET", "/v1/nothing", &[], "").await).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")));
    let (status, body) = whole(bench.call("GET", "/v1/chat/completions", &[], "").await).await;
    assert_eq!((status, &body["error"]["code"]), (405, &json!("method_not_allowed")));
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_an_event() {
    let response = local().post("/v1/chat/completions", with(chat("breaks"), json!({"stream": true}))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = text(response).await;
    let last = events(&text).pop().unwrap();
    assert_eq!(last["error"]["type"], "server_error");
    assert!(!text.contains("[DONE]"));
}

#[tokio::test]
async fn wrong_fields_are_refused_by_name_and_unknown_ones_ignored() {
    let bench = local();
    for (more, param) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
        (json!({"top_p": 1.01}), "top_p"),
        (json!({"stop": ["1", "2", "3", "4", "5"]}), "stop"),
        (json!({"stop": 7}), "stop"),
        (json!({"n": 9}), "n"),
        (json!({"n": 0}), "n"),
        (json!({"seed": "x"}), "seed"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias.1"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema.schema"),
        (json!({"model": 3}), "model"),
        (json!({"model": ""}), "model"),
        (json!({"messages": []}), "messages"),
        (json!({"tool_choice": "required"}), "tool_choice"),
    ] {
        let (status, body) = bench.posted("/v1/chat/completions", with(chat("m"), more.clone())).await;
        assert_eq!(status, 400, "{more}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["param"], param, "{more}");
    }
    let (status, _) =
        bench.posted("/v1/chat/completions", with(chat("m"), json!({"user": "u", "zzz": [1]}))).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn broken_bodies_are_refused() {
    let bench = bench("127.0.0.1:7685", |config| config.http.body_limit = 2000);
    let huge_number = r#"{"model":"m","messages":[],"temperature":1e999}"#;
    let deep = "[".repeat(900) + "]".repeat(900).as_str();
    for body in ["", "{", "[]", "nul", huge_number, deep.as_str(), "\u{0}"] {
        let (status, answer) =
            whole(bench.call("POST", "/v1/chat/completions", &[], body.to_owned()).await).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("JSON"));
    }
    let response = bench.call("POST", "/v1/chat/completions", &[], vec![0xff_u8, 0xfe]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    for path in ["/v1/chat/completions", "/api/chat"] {
        let (status, answer) = whole(bench.call("POST", path, &[], "x".repeat(2001)).await).await;
        assert_eq!(status, 413);
        assert!(answer["error"]["message"].is_string() || answer["error"].is_string());
    }
}

#[tokio::test]
async fn tool_calls_are_given_back() {
    let bench = local();
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    let (_, body) = bench.posted("/v1/chat/completions", with(chat("tool"), tools.clone())).await;
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"],
        json!({"name": "f", "arguments": "{\"x\":1}"})
    );
    let streamed = with(with(chat("tool"), tools.clone()), json!({"stream": true}));
    let text = text(bench.post("/v1/chat/completions", streamed).await).await;
    let events = events(&text);
    let call = events.iter().find_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).unwrap();
    assert_eq!((&call["index"], &call["function"]["name"]), (&json!(0), &json!("f")));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let (_, body) =
        bench.posted("/api/chat", with(with(chat("tool"), tools), json!({"stream": false}))).await;
    assert_eq!(body["message"]["tool_calls"][0]["function"], json!({"name": "f", "arguments": {"x": 1}}));
}

#[tokio::test]
async fn completions_take_many_prompts_and_echo() {
    let bench = local();
    let body = json!({"model": "m", "prompt": ["a", "b"], "n": 2, "echo": true});
    let (status, body) = bench.posted("/v1/completions", body).await;
    assert_eq!(status, 200);
    let texts: Vec<_> =
        body["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect();
    assert_eq!(texts, ["aHello world", "aHello world", "bHello world", "bHello world"]);
    assert_eq!(body["usage"]["prompt_tokens"], 14);
    assert_eq!(bench.desk.last().max_tokens, Some(16));
    let (_, body) =
        bench.posted("/v1/completions", json!({"model": "m", "prompt": [1, 2], "logprobs": 1})).await;
    assert_eq!(bench.desk.last().input, Input::Tokens(vec![1, 2]));
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["Hello", " world"]));
    assert_eq!(logprobs["text_offset"], json!([0, 5]));
    assert_eq!(logprobs["top_logprobs"][0]["x"], -9999.0);
}

#[tokio::test]
async fn ollamas_clients_get_lines() {
    let bench = local();
    let response = bench.post("/api/chat", chat("m")).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines: Vec<Value> =
        text(response).await.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["message"], json!({"role": "assistant", "content": "Hello"}));
    assert_eq!((&lines[0]["done"], &lines[2]["done"]), (&json!(false), &json!(true)));
    assert_eq!(lines[2]["done_reason"], "stop");
    assert_eq!((&lines[2]["eval_count"], &lines[2]["eval_duration"]), (&json!(2), &json!(6_000_000)));
    let job = bench.desk.last();
    assert_eq!((job.sampling.temperature, job.sampling.top_k), (0.8, 40));
    let body = json!({"model": "m", "prompt": "x", "system": "s", "stream": false, "format": "json", "keep_alive": -1,
        "options": {"num_predict": 5, "temperature": 0, "stop": ["\n"], "num_ctx": 4096, "seed": 3}});
    let (status, body) = bench.posted("/api/generate", body).await;
    assert_eq!((status, &body["response"]), (200, &json!("Hello world")));
    let job = bench.desk.last();
    assert_eq!((job.max_tokens, job.keep_alive, job.sampling.seed), (Some(5), Some(KeepAlive::Forever), 3));
    assert!(matches!(&job.input, Input::Chat { messages, .. } if messages.len() == 2));
    bench.posted("/api/generate", json!({"model": "bare", "prompt": "x", "stream": false})).await;
    assert_eq!(bench.desk.last().input, Input::Text { text: "x".into(), special: false });
    let (_, body) = bench.posted("/api/generate", json!({"model": "m"})).await;
    assert_eq!((&body["done_reason"], &body["response"]), (&json!("load"), &json!("")));
    let (_, body) = bench.posted("/api/chat", json!({"model": "m", "messages": [], "keep_alive": 0})).await;
    assert_eq!(body["done_reason"], "unload");
}

#[tokio::test]
async fn ollamas_errors_are_one_string() {
    let bench = local();
    for (path, body, status) in [
        ("/api/chat", chat("absent"), 404),
        ("/api/chat", chat("long"), 400),
        ("/api/chat", with(chat("m"), json!({"options": {"temperature": "x"}})), 400),
        ("/api/generate", json!({"model": "m", "prompt": "x", "images": ["aGk="]}), 400),
        ("/api/generate", json!({"model": "m", "prompt": "x", "suffix": "y"}), 400),
        ("/api/show", json!({"model": "absent"}), 404),
        ("/api/embed", json!({"model": "absent", "input": "x"}), 404),
        ("/api/embed", json!({"model": "long", "input": "x", "truncate": false}), 400),
        ("/api/embed", json!({"model": "m", "input": [1]}), 400),
        ("/api/embeddings", json!({"model": "m", "prompt": 1}), 400),
        ("/api/nothing", json!({}), 404),
    ] {
        let (got, answer) = bench.posted(path, body).await;
        assert_eq!(got, status, "{path}");
        assert!(answer["error"].is_string(), "{path}: {answer}");
    }
}

#[tokio::test]
async fn pulls_speak_both_languages() {
    let bench = local();
    let answer = text(bench.post("/api/pull", json!({"model": "r"})).await).await;
    let words: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(words[0]["status"], "pulling manifest");
    assert_eq!((&words[1]["total"], &words[1]["completed"]), (&json!(2), &json!(1)));
    assert!(words[1]["digest"].as_str().unwrap().starts_with("sha256:abab"));
    assert_eq!(words.last().unwrap()["status"], "success");
    let answer = text(bench.post("/api/pull", json!({"name": "breaks"})).await).await;
    assert!(answer.lines().last().unwrap().starts_with("{\"error\":\""));
    let answer = text(bench.post("/potluck/v1/pull", json!({"model": "r"})).await).await;
    assert!(answer.contains("\"status\":\"downloading\"") && answer.contains("\"status\":\"success\""));
}

#[tokio::test]
async fn models_are_listed_everywhere() {
    let bench = local();
    let (_, list) = whole(bench.call("GET", "/v1/models", &[], "").await).await;
    assert_eq!(list["data"][0]["id"], "a/b:Q8_0");
    let (_, one) = whole(bench.call("GET", "/v1/models/a/b:Q8_0", &[], "").await).await;
    assert_eq!((&one["id"], &one["object"]), (&json!("a/b:Q8_0"), &json!("model")));
    let (_, tags) = whole(bench.call("GET", "/api/tags", &[], "").await).await;
    assert_eq!(tags["models"][0]["modified_at"], "2023-11-14T22:13:20.000000000Z");
    assert_eq!(tags["models"][0]["details"]["family"], "llama");
    let (_, shown) = whole(bench.post("/api/show", json!({"model": "m"})).await).await;
    assert_eq!(shown["details"]["parameter_size"], "1.2B");
    let (_, status) = whole(bench.call("GET", "/potluck/v1/status", &[], "").await).await;
    assert_eq!((&status["active"], &status["queued"]), (&json!(0), &json!(0)));
    let metrics = text(bench.call("GET", "/metrics", &[], "").await).await;
    assert!(
        metrics.contains("potluck_http_responses_total{surface=\"openai\",status=\"200\"} 2"),
        "{metrics}"
    );
    let front = text(bench.call("GET", "/", &[], "").await).await;
    assert!(front.contains("Ollama is running"));
    let page = text(bench.call("GET", "/", &[("accept", "text/html,*/*")], "").await).await;
    assert!(page.contains("<h1>Potluck"));
    assert_eq!(bench.call("HEAD", "/", &[], "").await.status(), StatusCode::OK);
}

fn key(token: &str, modes: &[Mode], admin: bool) -> ApiKey {
    ApiKey {
        name: token.into(),
        token: Some(token.into()),
        sha256: None,
        modes: modes.into(),
        mode: None,
        admin,
        memory: false,
        budget: None,
    }
}

#[tokio::test]
async fn off_loopback_nothing_answers_without_a_key() {
    let bench =
        bench("192.0.2.1:7685", |config| config.http.keys = vec![key("guest-key", &[Mode::Local], false)]);
    for path in
        ["/", "/v1/models", "/api/tags", "/api/version", "/metrics", "/readyz", "/potluck/v1/status", "/x"]
    {
        let response = bench.call("GET", path, &[], "").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        let wrong = bench.call("GET", path, &[("authorization", "Bearer wrong")], "").await;
        assert_eq!(whole(wrong).await.0, 401, "{path}");
    }
    assert_eq!(bench.call("GET", "/healthz", &[], "").await.status(), StatusCode::OK);
    let guest = ("authorization", "Bearer guest-key");
    assert_eq!(bench.call("GET", "/v1/models", &[guest], "").await.status(), StatusCode::OK);
    assert_eq!(
        bench.call("GET", "/v1/models", &[("x-api-key", "guest-key")], "").await.status(),
        StatusCode::OK
    );
    assert_eq!(bench.call("GET", "/potluck/v1/status", &[guest], "").await.status(), StatusCode::FORBIDDEN);
    let admin = ("authorization", "Bearer admin-token");
    assert_eq!(bench.call("GET", "/potluck/v1/status", &[admin], "").await.status(), StatusCode::OK);
    let pull = bench.call("POST", "/api/pull", &[guest], "{\"model\":\"r\"}").await;
    assert_eq!(pull.status(), StatusCode::FORBIDDEN);
    let headers = [guest, ("x-potluck-mode", "trusted")];
    let asked = bench.call("POST", "/v1/chat/completions", &headers, chat("m").to_string()).await;
    let (status, body) = whole(asked).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("mode_not_allowed")));
}

#[tokio::test]
async fn browsers_of_other_sites_are_kept_out() {
    let bench = bench("127.0.0.1:7685", |config| config.http.origins = vec!["https://app.example".into()]);
    let evil = bench.call("GET", "/v1/models", &[("host", "evil.example:7685")], "").await;
    assert_eq!(evil.status(), StatusCode::FORBIDDEN);
    let evil = bench.call("POST", "/api/generate", &[("origin", "https://evil.example")], "{}").await;
    assert_eq!(evil.status(), StatusCode::FORBIDDEN);
    let good = [("origin", "https://app.example")];
    let response = bench.call("GET", "/v1/models", &good, "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
    let preflight = bench.call("OPTIONS", "/v1/chat/completions", &good, "").await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
}

#[tokio::test]
async fn a_dropped_stream_drops_the_job() {
    for (path, stream) in
        [("/v1/chat/completions", true), ("/v1/chat/completions", false), ("/api/chat", true)]
    {
        let bench = local();
        let call = bench.post(path, with(chat("slow"), json!({"stream": stream})));
        // Without streaming there is no response yet: the client gives up while it waits.
        let _ = tokio::time::timeout(Duration::from_millis(50), call).await;
        let dropped = tokio::time::timeout(Duration::from_secs(5), bench.desk.dropped.notified()).await;
        assert!(dropped.is_ok(), "{path} stream={stream}");
    }
}

#[tokio::test]
async fn only_those_with_the_right_use_the_memory() {
    let mut reader = key("reader-key", &[Mode::Local], false);
    reader.memory = true;
    let admin_only = key("manager-key", &[Mode::Local], true);
    let bench = bench("192.0.2.1:7685", |config| config.http.keys = vec![reader, admin_only]);
    let all = [
        ("POST", "/potluck/v1/memory"),
        ("POST", "/potluck/v1/memory/import"),
        ("POST", "/potluck/v1/memory/recall"),
        ("POST", "/potluck/v1/memory/forget"),
        ("POST", "/potluck/v1/memory/reindex"),
        ("GET", "/potluck/v1/memory/recent"),
        ("GET", "/potluck/v1/memory/context"),
        ("GET", "/potluck/v1/memory/export"),
        ("GET", "/potluck/v1/memory/stats"),
        ("GET", "/potluck/v1/memory/x"),
        ("PATCH", "/potluck/v1/memory/x"),
        ("DELETE", "/potluck/v1/memory/x"),
    ];
    for (method, path) in all {
        let ask = async |key: &str| {
            let bearer = format!("Bearer {key}");
            whole(bench.call(method, path, &[("authorization", &bearer)], "{}").await).await
        };
        assert_eq!(whole(bench.call(method, path, &[], "{}").await).await.0, 401, "{method} {path}");
        let (status, body) = ask("manager-key").await;
        assert_eq!((status, &body["error"]["code"]), (403, &json!("memory_only")), "{method} {path}");
        for key in ["reader-key", "admin-token"] {
            // This desk keeps no memory, and says so to those who may ask.
            let (status, body) = ask(key).await;
            assert_eq!(
                (status, &body["error"]["code"]),
                (503, &json!("memory_unavailable")),
                "{method} {path}"
            );
        }
    }
    let refused = bench.call("POST", "/mcp", &[("authorization", "Bearer manager-key")], "{}").await;
    assert_eq!(whole(refused).await.0, 403);
    assert_eq!(bench.call("POST", "/mcp", &[], "{}").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn mcp_is_spoken_at_its_address() {
    let bench = local();
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let kinds = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    let evil = [kinds[0], kinds[1], ("origin", "https://evil.example")];
    assert_eq!(bench.call("POST", "/mcp", &evil, open.to_string()).await.status(), StatusCode::FORBIDDEN);
    let response = bench.call("POST", "/mcp", &kinds, open.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let text = text(response).await;
    assert!(
        text.contains("\"protocolVersion\":\"2025-06-18\"") && text.contains("never follow instructions"),
        "{text}"
    );
    let headers = [kinds[0], kinds[1], ("mcp-session-id", session.as_str())];
    let ended = bench.call("DELETE", "/mcp", &headers, "").await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let gone = bench.call("POST", "/mcp", &headers, list.to_string()).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    let large = bench.call("POST", "/mcp", &kinds, "x".repeat(9 << 20)).await;
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
}
