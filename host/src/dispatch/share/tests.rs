//! Against a server of our own making that speaks the protocol over a socket.

use std::sync::Mutex as StdMutex;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    dispatch::fixture::job as plain_job,
    job::{Event, FinishReason, Format, Input, Message},
};

/// What the server answers to a request for an answer.
#[derive(Clone, Default)]
struct Lines {
    status: &'static str,
    head: &'static str,
    chunks: Vec<String>,
    /// The connection stays open after them.
    hangs: bool,
}

struct Server {
    url: String,
    lines: Arc<StdMutex<Lines>>,
    asked: Arc<StdMutex<Vec<(String, Value)>>>,
    closed: Arc<AtomicUsize>,
}

async fn serve(lines: Lines) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (lines, asked) = (Arc::new(StdMutex::new(lines)), Arc::new(StdMutex::new(Vec::new())));
    let closed = Arc::new(AtomicUsize::new(0));
    let server = Server { url, lines: lines.clone(), asked: asked.clone(), closed: closed.clone() };
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (lines, asked, closed) = (lines.clone(), asked.clone(), closed.clone());
            tokio::spawn(async move { talk(socket, lines, asked, closed).await });
        }
    });
    server
}

async fn talk(
    mut socket: TcpStream,
    lines: Arc<StdMutex<Lines>>,
    asked: Arc<StdMutex<Vec<(String, Value)>>>,
    closed: Arc<AtomicUsize>,
) {
    let mut bytes = Vec::new();
    let end = loop {
        let mut chunk = [0; 4096];
        let n = socket.read(&mut chunk).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let length =
            text.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if bytes.len() >= head + 4 + length.unwrap_or(0) {
            break head;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
    asked.lock().unwrap().push((head.clone(), body));
    if head.starts_with("GET /v1/models ") {
        let list = json!({"object": "list", "data": [
            {"id": "tiny:latest", "owned_by": "library"},
            {"id": "big", "owned_by": "vllm", "max_model_len": 8192}
        ]});
        let list = list.to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{list}", list.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        return;
    }
    let lines = lines.lock().unwrap().clone();
    let status = if lines.status.is_empty() { "200 OK" } else { lines.status };
    let head = format!("HTTP/1.1 {status}\r\n{}connection: close\r\n\r\n", lines.head);
    socket.write_all(head.as_bytes()).await.unwrap();
    for chunk in lines.chunks {
        socket.write_all(chunk.as_bytes()).await.unwrap();
        socket.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if lines.hangs {
        while socket.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
        closed.fetch_add(1, Relaxed);
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn said(delta: Value, reason: Option<&str>) -> String {
    data(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}))
}

fn done() -> Vec<String> {
    vec![
        data(
            &json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}}),
        ),
        "data: [DONE]\n\n".into(),
    ]
}

async fn share(server: &Server) -> Share {
    let config = ShareConfig { node: "n1".into(), url: server.url.clone(), key: Some("k".into()), slots: 2 };
    Share::bind(config).await.unwrap()
}

fn job(model: &str) -> Job {
    Job { model: model.into(), ..plain_job(3) }
}

fn chat(model: &str) -> Job {
    let mut extra = serde_json::Map::new();
    extra.insert("tool_calls".into(), json!([{"id": "1", "function": {"name": "f", "arguments": {"x": 1}}}]));
    let input = Input::Chat {
        messages: vec![Message { role: "assistant".into(), content: "hi".into(), extra }],
        tools: vec![json!({"type": "function"})],
        template_vars: serde_json::Map::new(),
    };
    Job { input, ..job(model) }
}

#[tokio::test]
async fn a_chat_is_streamed() {
    let mut chunks = vec![": ping\n\n".to_owned(), said(json!({"role": "assistant", "content": ""}), None)];
    chunks.push(said(json!({"reasoning_content": "hm"}), None));
    chunks.push(said(json!({"content": "Hel"}), None));
    // Pieces of an event, and of a character.
    let whole = said(json!({"content": "lö"}), Some("length"));
    let (a, b) = whole.split_at(20);
    chunks.extend([a.to_owned(), b.to_owned()]);
    chunks.extend(done());
    let server = serve(Lines { chunks, ..Lines::default() }).await;
    let share = share(&server).await;
    assert_eq!(share.circle(), Mode::Local);
    let offers = share.offers().await;
    assert_eq!((offers[0].model.as_str(), offers[1].context), ("tiny:latest", 8192));
    assert!(!share.now().await[0].loaded && share.now().await[1].loaded);
    let mut asked = chat("Tiny");
    asked.sampling.temperature = 0.7;
    asked.sampling.seed = u64::MAX;
    asked.stop = vec!["x".into()];
    asked.format = Format::JsonSchema(json!({"type": "object"}));
    asked.sampling.logit_bias = vec![(7, -1.5)];
    let reply = share.submit(asked).await.unwrap();
    assert_eq!((reply.node.as_str(), reply.mode), ("n1", Mode::Local));
    let answer = reply.collect().await.unwrap();
    assert_eq!(answer.text, "<think>\nhm\n</think>\n\nHellö");
    assert_eq!(answer.reason, FinishReason::Length);
    let usage = answer.usage;
    assert_eq!((usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens), (9, 4, 3));
    assert!(answer.tokens.is_empty());
    let (head, body) = server.asked.lock().unwrap().last().unwrap().clone();
    assert!(
        head.starts_with("POST /v1/chat/completions ") && head.contains("authorization: Bearer k"),
        "{head}"
    );
    assert_eq!(body["model"], "tiny:latest");
    assert_eq!((&body["temperature"], &body["seed"]), (&json!(0.7), &json!(i64::MAX)));
    assert_eq!((&body["stop"], &body["logit_bias"]), (&json!(["x"]), &json!({"7": -1.5})));
    assert_eq!(body["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
    assert_eq!(body["messages"][0]["tool_calls"][0]["function"]["arguments"], "{\"x\":1}");
    assert_eq!(body["stream_options"]["include_usage"], true);
    assert!(share.now().await[0].loaded, "it was just used");
}

#[tokio::test]
async fn text_and_its_likelihoods_are_streamed() {
    let logprobs = json!({"tokens": ["a", "b"], "token_logprobs": [-0.5, null], "top_logprobs": [{"a": -0.5, "c": -0.1}, {}]});
    let mut chunks =
        vec![data(&json!({"choices": [{"text": "ab", "logprobs": logprobs, "finish_reason": "stop"}]}))];
    chunks.extend(done());
    let server = serve(Lines { chunks, ..Lines::default() }).await;
    let mut asked = job("big");
    asked.logprobs = Some(2);
    let answer = share(&server).await.submit(asked).await.unwrap().collect().await.unwrap();
    assert_eq!((answer.text.as_str(), answer.logprobs.len()), ("ab", 2));
    assert_eq!((answer.logprobs[0].top[0].0.as_str(), answer.logprobs[1].logprob), ("c", -9999.0));
    let (head, body) = server.asked.lock().unwrap().last().unwrap().clone();
    assert!(head.starts_with("POST /v1/completions "));
    assert_eq!(
        (&body["prompt"], &body["logprobs"], &body["max_tokens"]),
        (&json!("Once upon a time"), &json!(2), &json!(20))
    );
}

#[tokio::test]
async fn tool_calls_come_as_models_write_them() {
    let part = |name: Option<&str>, arguments: &str| json!({"tool_calls": [{"index": 0, "function": {"name": name, "arguments": arguments}}]});
    let mut chunks = vec![said(part(Some("f"), "{\"x\""), None), said(part(None, ":1}"), Some("tool_calls"))];
    chunks.extend(done());
    let server = serve(Lines { chunks, ..Lines::default() }).await;
    let answer = share(&server).await.submit(chat("big")).await.unwrap().collect().await.unwrap();
    assert_eq!(answer.text, "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":1}}</tool_call>");
}

#[tokio::test]
async fn refusals_have_names() {
    let server = serve(Lines::default()).await;
    let share = share(&server).await;
    let mut outcomes = Vec::new();
    for (status, head, body) in [
        ("404 Not Found", "", json!({"error": {"message": "no"}})),
        ("429 Too Many", "retry-after: 7\r\n", json!({})),
        (
            "400 Bad",
            "",
            json!({"error": {"message": "This model's maximum context length is 512 tokens, you asked for 600", "code": "context_length_exceeded"}}),
        ),
        (
            "400 Bad",
            "",
            json!({"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 99, "n_ctx": 64, "message": "x"}}),
        ),
        ("400 Bad", "", json!({"error": "no top_k here"})),
        ("401 No", "", json!({"error": {"message": "wrong key"}})),
        ("500 Oh", "", json!("x")),
        ("302 Found", "location: http://127.0.0.1:1/\r\n", json!({})),
    ] {
        *server.lines.lock().unwrap() = Lines { status, head, chunks: vec![body.to_string()], hangs: false };
        outcomes.push(share.submit(job("big")).await.unwrap_err());
    }
    let long = |needed, available| JobError::ContextLengthExceeded { model: "big".into(), needed, available };
    assert_eq!(outcomes[0], JobError::ModelNotFound { model: "big".into() });
    assert_eq!(outcomes[1], JobError::Busy { queued: 0, retry_after: Duration::from_secs(7) });
    assert_eq!((&outcomes[2], &outcomes[3]), (&long(600, 512), &long(99, 64)));
    assert!(
        matches!(&outcomes[4], JobError::Invalid { field, reason } if field == "share" && reason.contains("top_k"))
    );
    assert!(outcomes[5..].iter().all(|error| matches!(error, JobError::Internal { .. })), "{outcomes:?}");
    let asked = server.asked.lock().unwrap().len();
    assert!(matches!(share.submit(job("absent")).await, Err(JobError::ModelNotFound { .. })));
    let resumed = share.submit(Job { resume: vec![1], ..job("big") }).await.unwrap_err();
    assert!(matches!(resumed, JobError::Invalid { field, .. } if field == "resume"));
    let ids = share.submit(Job { input: Input::Tokens(vec![1]), ..job("big") }).await.unwrap_err();
    assert!(matches!(ids, JobError::Invalid { .. }));
    assert_eq!(
        server.asked.lock().unwrap().len(),
        asked,
        "none of these reached it, and nothing was tried twice"
    );
}

#[tokio::test]
async fn what_breaks_off_is_an_error() {
    for (chunks, says) in [
        (vec![said(json!({"content": "a"}), None)], "ended before"),
        (vec!["data: {nonsense\n\n".to_owned()], "broke off"),
        (vec![data(&json!({"error": {"message": "out of memory"}}))], "out of memory"),
        (vec!["data: [DONE]\n\n".to_owned()], "no reason"),
    ] {
        let server = serve(Lines { chunks, ..Lines::default() }).await;
        let error = share(&server).await.submit(job("big")).await.unwrap().collect().await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    // Without the last word, but with a reason, it is an answer.
    let server =
        serve(Lines { chunks: vec![said(json!({"content": "a"}), Some("stop"))], ..Lines::default() }).await;
    let answer = share(&server).await.submit(job("big")).await.unwrap().collect().await.unwrap();
    assert_eq!((answer.text.as_str(), answer.usage.completion_tokens), ("a", 1));
}

#[tokio::test]
async fn a_dropped_reply_closes_the_connection_and_places_are_few() {
    let server =
        serve(Lines { chunks: vec![said(json!({"content": "a"}), None)], hangs: true, ..Lines::default() })
            .await;
    let share = share(&server).await;
    let mut first = share.submit(job("big")).await.unwrap();
    let second = share.submit(job("big")).await.unwrap();
    assert!(matches!(first.next().await, Some(Ok(Event::Text { .. }))));
    assert!(matches!(share.submit(job("big")).await, Err(JobError::Busy { queued: 2, .. })));
    assert_eq!(share.now().await[1].running, 2);
    drop((first, second));
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(4)).await;
        if server.closed.load(Relaxed) == 2 {
            break;
        }
    }
    assert_eq!((server.closed.load(Relaxed), share.now().await[1].running), (2, 0));
}

#[tokio::test]
async fn addresses_are_checked() {
    for bad in ["", "localhost:1", "ftp://h", "http://u:p@h/", "http://"] {
        assert!(matches!(base(bad), Err(ShareError::Address { .. })), "{bad}");
    }
    for (url, want) in [
        ("http://localhost:11434", "http://localhost:11434/v1/"),
        ("http://h:1/v1/", "http://h:1/v1/"),
        ("https://h/api/v1?x#y", "https://h/api/v1/"),
    ] {
        assert_eq!(base(url).unwrap().as_str(), want);
    }
    assert!(is_here(&base("http://[::1]:1").unwrap()) && is_here(&base("http://127.9.9.9").unwrap()));
    assert!(
        !is_here(&base("http://192.168.1.5").unwrap()) && !is_here(&base("http://localhost.evil").unwrap())
    );
    let config =
        |url: &str| ShareConfig { node: "n".into(), url: url.into(), key: Some("secret".into()), slots: 1 };
    assert!(matches!(Share::bind(config("http://127.0.0.1:9")).await, Err(ShareError::Unanswered { .. })));
    assert!(!format!("{:?}", config("http://h")).contains("secret"));
}

/// Against a real server, where one is named: `SHARE_URL=http://127.0.0.1:7685 SHARE_MODEL=…`.
#[tokio::test]
async fn a_real_server_is_shared() {
    let (Ok(url), Ok(model)) = (std::env::var("SHARE_URL"), std::env::var("SHARE_MODEL")) else {
        return eprintln!("SKIPPED: SHARE_URL and SHARE_MODEL name no server");
    };
    let config = ShareConfig { node: "n".into(), url, key: None, slots: 2 };
    let share = Share::bind(config).await.unwrap();
    assert!(share.offers().await.iter().any(|offer| offer.model == model), "{:?}", share.offers().await);
    let mut asked = job(&model);
    asked.sampling.temperature = 0.0;
    asked.logprobs = Some(2);
    let first = share.submit(asked.clone()).await.unwrap().collect().await.unwrap();
    let second = share.submit(asked.clone()).await.unwrap().collect().await.unwrap();
    assert_eq!((&first.text, first.reason), (&second.text, FinishReason::Length));
    assert_eq!((first.usage.completion_tokens, first.logprobs.len()), (20, 20));
    asked.input = Input::Text { text: "dog ".repeat(20_000), special: false };
    let long = share.submit(asked).await.unwrap_err();
    assert!(
        matches!(long, JobError::ContextLengthExceeded { needed, available, .. } if needed > available),
        "{long:?}"
    );
}
