//! `potluck mcp` over stdio: messages are passed on to the node's `/mcp` and back, unread where possible.
//!
//! The client's `initialize` goes through as it is, so that versions are negotiated by both ends and the node
//! knows the agent's name. What this end adds is that the agent never notices a node that was restarted: the
//! session is opened again with the words that opened it first.

use std::{
    io::{self, BufRead, Read, Write},
    sync::Arc,
    time::Duration,
};

use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    super::{
        CliError, Context,
        client::{Client, Lines, reason, refusal},
    },
    start,
};

/// Longest message from the client, in bytes.
const MESSAGE: u64 = 16 << 20;
/// Requests that may be under way.
const UNDER_WAY: usize = 32;
/// Messages that may wait for a slow reader or writer.
const WAITING: usize = 16;
/// Time the last answers get when the client has closed its end.
const GOODBYE: Duration = Duration::from_secs(30);
/// The first version of the protocol without sessions, which wants its words in headers too.
const WITHOUT_SESSIONS: &str = "2026-07-28";
const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
/// How often a message is sent while the node or the session is gone.
const TRIES: usize = 3;
/// JSON-RPC: the message is no JSON.
const NO_JSON: i32 = -32700;
/// JSON-RPC: what the implementation has to say.
const FAILED: i32 = -32000;

/// Serves until the client closes stdin.
pub(super) async fn run(context: Context) -> Result<(), CliError> {
    let client = start::find_or_start(&context).await?;
    let (out, written) = mpsc::channel(WAITING);
    let writer = tokio::task::spawn_blocking(move || write(written));
    let link = Link { client: Arc::new(client), session: None, version: None, opening: None, turn: 0 };
    let relay = Arc::new(Relay { context, link: Mutex::new(link), out });
    let mut messages = read();
    let slots = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks = JoinSet::new();
    while let Some(message) = messages.recv().await {
        let message = match message.and_then(|text| parse(&text)) {
            Ok(message) => message,
            Err(reason) => {
                relay.say(&failure(&Value::Null, NO_JSON, &reason)).await;
                continue;
            }
        };
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
        // What is no request, and what opens the session, keeps its place in the order.
        if message.get("id").is_none() || method.is_empty() || method == "initialize" {
            relay.pass(message).await;
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let relay = Arc::clone(&relay);
        tasks.spawn(async move {
            relay.pass(message).await;
            drop(slot);
        });
        while tasks.try_join_next().is_some() {}
        if writer.is_finished() {
            break;
        }
    }
    let _ = tokio::time::timeout(GOODBYE, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
    relay.close().await;
    drop(relay);
    let _ = writer.await;
    Ok(())
}

fn parse(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(message @ Value::Object(_)) => Ok(message),
        Ok(_) => Err("a message must be one JSON object".into()),
        Err(error) => Err(format!("the message is not valid JSON: {error}")),
    }
}

/// Lines of stdin, read by a thread because a terminal or pipe cannot be waited for in any other way.
fn read() -> mpsc::Receiver<Result<String, String>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(MESSAGE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let whole = line.ends_with(b"\n") || (line.len() as u64) < MESSAGE;
            if !whole && input.skip_until(b'\n').is_err() {
                return;
            }
            let text = match String::from_utf8(line) {
                _ if !whole => Err(format!("the message is longer than {MESSAGE} bytes")),
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => Ok(text),
                Err(_) => Err("the message is not UTF-8".into()),
            };
            if sender.blocking_send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Writes messages, a line each, until nobody sends or nobody reads.
fn write(mut messages: mpsc::Receiver<String>) {
    let mut out = io::stdout().lock();
    while let Some(message) = messages.blocking_recv() {
        if writeln!(out, "{}", message.trim_end()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn failure(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// The way to the node.
struct Link {
    client: Arc<Client>,
    session: Option<String>,
    /// What both ends agreed on.
    version: Option<String>,
    /// The client's `initialize`, to open the session again.
    opening: Option<Value>,
    /// Counts openings, so that of many requests that find the session gone one opens it again.
    turn: u64,
}

struct Relay {
    context: Context,
    link: Mutex<Link>,
    out: mpsc::Sender<String>,
}

/// Why a message was not passed on.
enum Lost {
    /// Nothing answers there any more.
    Node,
    /// The node does not know the session.
    Session,
    Other(String),
}

impl Relay {
    async fn say(&self, message: &Value) {
        let _ = self.out.send(message.to_string()).await;
    }

    /// Passes a message on, and its answers back; a request always gets one.
    async fn pass(&self, message: Value) {
        let opens = message.get("method").is_some_and(|method| method == "initialize");
        let mut tries = 0;
        loop {
            let turn = self.link.lock().await.turn;
            let outcome = if opens { self.open(&message).await } else { self.send(&message).await };
            let lost = match outcome {
                Ok(()) => return,
                Err(lost) => lost,
            };
            tries += 1;
            let mut reason = lost.words();
            if tries < TRIES && !matches!(lost, Lost::Other(_)) {
                match self.mend(&lost, turn, opens).await {
                    Ok(()) => continue,
                    Err(error) => reason = error.to_string(),
                }
            }
            if let Some(id) = message.get("id").filter(|_| message.get("method").is_some()) {
                self.say(&failure(id, FAILED, &reason)).await;
            } else {
                tracing::warn!(reason, "a notification was lost");
            }
            return;
        }
    }

    /// Sends `initialize` and keeps what is agreed.
    async fn open(&self, message: &Value) -> Result<(), Lost> {
        let mut link = self.link.lock().await;
        (link.session, link.version) = (None, None);
        let answer = post(&link, message).await?;
        link.session = session_of(&answer);
        link.version = each(answer, Some(&self.out)).await?;
        link.opening = Some(message.clone());
        link.turn += 1;
        Ok(())
    }

    async fn send(&self, message: &Value) -> Result<(), Lost> {
        let link = {
            let link = self.link.lock().await;
            let (session, version) = (link.session.clone(), link.version.clone());
            Link { client: Arc::clone(&link.client), session, version, opening: None, turn: link.turn }
        };
        let answer = post(&link, message).await?;
        each(answer, Some(&self.out)).await.map(drop)
    }

    /// Finds the node again, starting it if need be, and opens the session again.
    async fn mend(&self, lost: &Lost, turn: u64, opens: bool) -> Result<(), CliError> {
        let mut link = self.link.lock().await;
        if link.turn != turn {
            return Ok(());
        }
        match lost {
            Lost::Other(_) => return Ok(()),
            Lost::Node => link.client = Arc::new(start::find_or_start(&self.context).await?),
            Lost::Session => {}
        }
        link.turn += 1;
        let Some(opening) = link.opening.clone().filter(|_| !opens) else { return Ok(()) };
        (link.session, link.version) = (None, None);
        let refused = |lost: Lost| CliError::Broken(lost.words());
        let answer = post(&link, &opening).await.map_err(refused)?;
        link.session = session_of(&answer);
        link.version = each(answer, None).await.map_err(refused)?;
        let opened = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        post(&link, &opened).await.map_err(refused).map(drop)
    }

    /// Ends the session.
    async fn close(&self) {
        let link = self.link.lock().await;
        if let (Some(session), Ok(request)) = (&link.session, link.client.to(Method::DELETE, "/mcp")) {
            let _ = request.header(SESSION, session).timeout(Duration::from_secs(3)).send().await;
        }
    }
}

impl Lost {
    fn words(&self) -> String {
        match self {
            Self::Node => "the node does not answer; see node.log in its home folder".into(),
            Self::Session => "the node does not know this session any more".into(),
            Self::Other(reason) => reason.clone(),
        }
    }
}

async fn post(link: &Link, message: &Value) -> Result<Response, Lost> {
    let other = |error: CliError| Lost::Other(error.to_string());
    let mut request = link.client.to(Method::POST, "/mcp").map_err(other)?;
    request = request.header(header::ACCEPT, "application/json, text/event-stream").json(message);
    if let Some(session) = &link.session {
        request = request.header(SESSION, session);
    }
    let declared = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion");
    let declared = declared.and_then(Value::as_str);
    if let Some(version) = declared.or(link.version.as_deref()) {
        request = request.header(VERSION, version);
        if version >= WITHOUT_SESSIONS {
            request = with_words(request, message);
        }
    }
    let answer = request.send().await.map_err(|error| {
        if error.is_connect() || error.is_request() { Lost::Node } else { Lost::Other(reason(&error)) }
    })?;
    match answer.status() {
        status if status.is_success() => Ok(answer),
        StatusCode::NOT_FOUND if link.session.is_some() => Err(Lost::Session),
        status => refused(answer, status).await,
    }
}

/// Method and name in headers, where the protocol wants them.
fn with_words(request: reqwest::RequestBuilder, message: &Value) -> reqwest::RequestBuilder {
    let words = [("mcp-method", "/method"), ("mcp-name", "/params/name")];
    words.into_iter().fold(request, |request, (name, pointer)| {
        match message.pointer(pointer).and_then(Value::as_str) {
            Some(word) if word.bytes().all(|byte| byte.is_ascii_graphic()) => request.header(name, word),
            _ => request,
        }
    })
}

/// A refusal may be a JSON-RPC error, which belongs to the client as it is, or the node's own.
async fn refused(answer: Response, status: StatusCode) -> Result<Response, Lost> {
    let text = answer.text().await.unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if value.get("jsonrpc").is_some() {
        let message = value.pointer("/error/message").and_then(Value::as_str).unwrap_or(&text);
        return Err(Lost::Other(message.to_owned()));
    }
    match refusal(status.as_u16(), &value) {
        CliError::Refused { message, .. } if !value.is_null() => Err(Lost::Other(message)),
        _ => Err(Lost::Other(format!("the node answered with status {status}: {}", text.trim()))),
    }
}

fn session_of(answer: &Response) -> Option<String> {
    answer.headers().get(SESSION)?.to_str().ok().map(str::to_owned)
}

/// The version in the answer to `initialize`.
fn agreed(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    value.pointer("/result/protocolVersion")?.as_str().map(str::to_owned)
}

/// Gives every message of an answer, be it one JSON body or a stream of events, to `out`. The version that one of
/// them agrees to, if any.
async fn each(answer: Response, out: Option<&mpsc::Sender<String>>) -> Result<Option<String>, Lost> {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let events = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !events {
        let text = answer.text().await.map_err(|error| Lost::Other(reason(&error)))?;
        // A body may be laid out over many lines; a message is one.
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        return Ok(give(value.to_string(), out).await);
    }
    let mut lines = Lines::of(answer);
    let mut version = None;
    while let Some(line) = lines.line().await.map_err(|error| Lost::Other(error.to_string()))? {
        if let Some(data) = line.strip_prefix("data:").map(str::trim).filter(|data| !data.is_empty()) {
            version = give(data.to_owned(), out).await.or(version);
        }
    }
    Ok(version)
}

async fn give(text: String, out: Option<&mpsc::Sender<String>>) -> Option<String> {
    let version = agreed(&text);
    if let Some(out) = out {
        // A client that reads no more has gone; the loop over its messages finds that out.
        let _ = out.send(text).await;
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_are_messages() {
        assert!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).is_ok());
        for text in ["", "[]", "1", "{", "[{}]"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let version = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#;
        assert_eq!(agreed(version).as_deref(), Some("2025-06-18"));
        assert_eq!(agreed("{}"), None);
    }
}
