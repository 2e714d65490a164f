//! Talking to a node: the one that runs, or one started for the duration of the command.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde_json::Value;

use super::{CliError, Context};
use crate::{
    api::MODE_HEADER,
    node::{
        Node,
        home::{Advert, read_token, url_of},
    },
};

/// Longest line of a streamed answer.
const LINE: usize = 16 << 20;

/// A client of one node.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    mode: Option<&'static str>,
}

/// A client, and the node behind it when it lives only for this command.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    guest: Option<Node>,
}

impl Session {
    /// The running node, or else one of our own; `model` may be a file that such a one should offer.
    pub(super) async fn open(context: &Context, model: Option<&str>) -> Result<Self, CliError> {
        match Client::connect(context).await {
            Ok(client) => return Ok(Self { client, guest: None }),
            Err(error) if context.url.is_some() => return Err(error),
            Err(_) => {}
        }
        let mut config = context.config.clone();
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.http.keys.clear();
        config.http.require_key = true;
        if let Some(model) =
            model.filter(|model| model.ends_with(".gguf") && std::path::Path::new(model).is_file())
        {
            config.inference.models.push(model.to_owned());
        }
        let node = Node::bind_guest(config).await?;
        if model.is_some() && !context.json {
            eprintln!("no node is running; this command brings its own (`potluck up` keeps one)");
        }
        let client = Client::new(&node.url(), Some(node.admin_token().to_owned()), context)?;
        Ok(Self { client, guest: Some(node) })
    }

    /// Ends the node that was started for this command.
    pub(super) async fn close(self) {
        if let Some(node) = self.guest {
            node.shutdown().await;
        }
    }
}

impl Client {
    fn new(base: &str, token: Option<String>, context: &Context) -> Result<Self, CliError> {
        let base = Url::parse(base)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
            .ok_or_else(|| {
                CliError::Usage(format!("`{base}` is no address; write e.g. http://127.0.0.1:7685"))
            })?;
        // The program may be built without a default crypto provider; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| CliError::Broken(reason(&error)))?;
        Ok(Self { http, base, token, mode: context.flags.mode.map(crate::job::Mode::as_str) })
    }

    /// A client of the running node.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] when nothing answers.
    pub(super) async fn connect(context: &Context) -> Result<Self, CliError> {
        let key = context.flags.api_keys.iter().flatten().next().cloned();
        let (base, token) = match &context.url {
            Some(url) => (url.clone(), key),
            None => {
                let home = context.config.home()?;
                let base =
                    Advert::read(&home).map_or_else(|| url_of(context.config.listen), |advert| advert.url);
                (base, key.or_else(|| read_token(&home)))
            }
        };
        let client = Self::new(&base, token, context)?;
        let health = client.url("/healthz")?;
        let answer = client.http.get(health).timeout(Duration::from_secs(3)).send().await;
        match answer {
            Ok(answer) if answer.headers().contains_key(crate::api::NODE_HEADER) => Ok(client),
            Ok(_) => Err(CliError::Unreachable {
                url: base,
                reason: "what answers there is no Potluck node".into(),
            }),
            Err(error) => Err(CliError::Unreachable { url: base, reason: reason(&error) }),
        }
    }

    /// Where the node is.
    pub(super) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn url(&self, path: &str) -> Result<Url, CliError> {
        self.base.join(path).map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The admin address of a model, whatever is in its name.
    fn model_url(&self, model: &str) -> Result<Url, CliError> {
        let mut url = self.url("/potluck/v1/models")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(model.split('/'));
        }
        Ok(url)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(mode) = self.mode {
            request = request.header(MODE_HEADER, mode);
        }
        request
    }

    /// A request to an address of the node, to be built further.
    pub(super) fn to(&self, method: Method, path: &str) -> Result<RequestBuilder, CliError> {
        Ok(self.request(method, self.url(path)?))
    }

    /// Sends a request and reads the answer line by line.
    pub(super) async fn answer_lines(&self, request: RequestBuilder) -> Result<Lines, CliError> {
        Ok(Lines::of(self.send(request).await?))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        let request = self.request(Method::GET, self.url(path)?);
        self.json(request).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        let request = self.request(Method::POST, self.url(path)?).json(body);
        self.json(request).await
    }

    /// What a model's file says about itself.
    pub(super) async fn details(&self, model: &str) -> Result<Value, CliError> {
        let request = self.request(Method::GET, self.model_url(model)?);
        self.json(request).await
    }

    pub(super) async fn remove(&self, model: &str) -> Result<Value, CliError> {
        let request = self.request(Method::DELETE, self.model_url(model)?);
        self.json(request).await
    }

    /// Sends a request and reads its answer as JSON.
    pub(super) async fn answer(&self, request: RequestBuilder) -> Result<Value, CliError> {
        self.json(request).await
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let answer = self.send(request).await?;
        answer.json().await.map_err(|error| CliError::Broken(reason(&error)))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let answer = request.send().await.map_err(|error| {
            if error.is_connect() {
                CliError::Unreachable { url: self.base().to_owned(), reason: reason(&error) }
            } else {
                CliError::Broken(reason(&error))
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Err(refusal(status.as_u16(), &value))
    }

    /// Posts and reads the answer line by line: NDJSON lines, or the data of server-sent events.
    pub(super) async fn lines(&self, path: &str, body: &Value) -> Result<Lines, CliError> {
        let request = self.request(Method::POST, self.url(path)?).json(body);
        self.answer_lines(request).await
    }
}

/// A streamed answer.
pub(super) struct Lines {
    stream: std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    held: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// The lines of an answer, whatever its status.
    pub(super) fn of(answer: Response) -> Self {
        Self { stream: Box::pin(answer.bytes_stream()), held: Vec::new(), ended: false }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// The connection's, and an error the node wrote into the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, CliError> {
        while let Some(line) = self.line().await? {
            let text = line.trim();
            let text = text.strip_prefix("data:").map_or(text, str::trim);
            if text.is_empty() {
                continue;
            }
            if text == "[DONE]" {
                return Ok(None);
            }
            let value: Value =
                serde_json::from_str(text).map_err(|error| CliError::Broken(error.to_string()))?;
            if value.get("error").is_some() {
                return Err(refusal(500, &value));
            }
            return Ok(Some(value));
        }
        Ok(None)
    }

    /// The next line as it came; `None` at the end.
    ///
    /// # Errors
    /// The connection's, and a line that is too long.
    pub(super) async fn line(&mut self) -> Result<Option<String>, CliError> {
        loop {
            let line = match self.held.iter().position(|byte| *byte == b'\n') {
                Some(end) => self.held.drain(..=end).collect::<Vec<_>>(),
                None if self.ended && self.held.is_empty() => return Ok(None),
                None if self.ended => std::mem::take(&mut self.held),
                None => {
                    match self.stream.next().await {
                        None => self.ended = true,
                        Some(Ok(bytes)) if self.held.len() + bytes.len() <= LINE => {
                            self.held.extend_from_slice(&bytes)
                        }
                        Some(Ok(_)) => return Err(CliError::Broken("a line is too long".into())),
                        Some(Err(error)) => return Err(CliError::Broken(reason(&error))),
                    }
                    continue;
                }
            };
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

pub(super) fn refusal(status: u16, value: &Value) -> CliError {
    let error = value.get("error").unwrap_or(&Value::Null);
    let message = error
        .get("message")
        .or(Some(error))
        .and_then(Value::as_str)
        .map_or_else(|| format!("the node answered with status {status} and no message"), str::to_owned);
    let code = error.get("code").and_then(Value::as_str).map(str::to_owned);
    CliError::Refused { status, message, code }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The innermost reason of an error.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
