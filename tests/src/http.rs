//! A plain HTTP/1.1 client over one socket per request.
//!
//! Clients that people use keep connections, retry and hide what came over the wire. This one sends exactly
//! the bytes it is given, tells what came back, and goes away in the middle when a test wants it to.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest silence on a socket before a request counts as hung.
const SILENCE: Duration = Duration::from_secs(90);

/// Where requests go, and with which key.
#[derive(Clone, Debug)]
pub struct Client {
    /// The node's address.
    pub address: SocketAddr,
    /// Sent as a bearer token.
    pub key: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}: not JSON ({error}): {}", self.status, self.text()))
    }

    /// The body as JSON of an answer that must have this status.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "body: {}", self.text());
        self.json()
    }

    /// The error object of an answer in OpenAI's shape; panics on any other shape.
    pub fn openai_error(&self, status: u16) -> Value {
        let body = self.expect(status);
        let error = body.get("error").unwrap_or_else(|| panic!("no `error` in {body}"));
        for field in ["message", "type"] {
            let text = error.get(field).and_then(Value::as_str).unwrap_or_default();
            assert!(!text.is_empty(), "`error.{field}` is missing or empty in {body}");
        }
        assert!(error.get("code").is_some(), "`error.code` is missing in {body}");
        error.clone()
    }

    /// The error text of an answer in Ollama's shape; panics on any other shape.
    pub fn ollama_error(&self, status: u16) -> String {
        let body = self.expect(status);
        let text = body.get("error").and_then(Value::as_str).unwrap_or_default();
        assert!(!text.is_empty(), "`error` is not a text in {body}");
        text.to_owned()
    }
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Streaming {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    body: BufReader<Body>,
}

impl Streaming {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The next line without its end; `None` when the body is over.
    ///
    /// # Errors
    /// What the socket says, or that the body broke off.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        if self.body.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        while line.ends_with(['\n', '\r']) {
            line.pop();
        }
        Ok(Some(line))
    }

    /// The next server-sent event's data; `None` after `[DONE]` or at the end.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn event(&mut self) -> io::Result<Option<Value>> {
        while let Some(line) = self.line()? {
            let Some(data) = line.strip_prefix("data:") else { continue };
            let data = data.trim();
            if data == "[DONE]" {
                return Ok(None);
            }
            return serde_json::from_str(data).map(Some).map_err(io::Error::other);
        }
        Ok(None)
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// What the socket says, or that the body broke off.
    pub fn rest(mut self) -> io::Result<Response> {
        let mut body = Vec::new();
        self.body.read_to_end(&mut body)?;
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

impl Client {
    /// A client without a key.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, key: None }
    }

    /// The same with a key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { address: self.address, key: Some(key.to_owned()) }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// GET; panics when the node does not answer.
    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// POST of JSON; panics when the node does not answer.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// POST of bytes that claim to be JSON; panics when the node does not answer.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Response {
        let json = [("content-type", "application/json")];
        self.send("POST", path, &json, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Any request, to the end of its answer.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        self.open(method, path, headers, body)?.rest()
    }

    /// POST of JSON whose answer is read piece by piece.
    ///
    /// # Errors
    /// What the socket says.
    pub fn stream(&self, path: &str, body: &Value) -> io::Result<Streaming> {
        let json = [("content-type", "application/json")];
        self.open("POST", path, &json, body.to_string().as_bytes())
    }

    /// Any request, to the end of its answer's head.
    ///
    /// # Errors
    /// What the socket says.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Streaming> {
        let mut socket = self.connect()?;
        let head = self.head(method, path, headers, body.len());
        socket.write_all(head.as_bytes())?;
        // A node that refuses early stops reading: the answer counts, not the broken pipe.
        let sent = socket.write_all(body);
        match read_head(socket) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// A socket to the node.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&self.address, Duration::from_secs(10))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// The head of a request, as it goes over the wire.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("host") {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        if let Some(key) = self.key.as_ref().filter(|_| !given("authorization")) {
            head.push_str(&format!("authorization: Bearer {key}\r\n"));
        }
        if !given("content-length") && !given("transfer-encoding") && method != "GET" {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    }

    /// Asks `what` of a path until it holds; `false` when it does not within `limit`.
    pub fn eventually(&self, path: &str, limit: Duration, mut what: impl FnMut(&Value) -> bool) -> bool {
        let until = Instant::now() + limit;
        loop {
            if what(&self.get(path).json()) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Reads an answer's head from a socket on which a request was sent.
///
/// # Errors
/// What the socket says, or that there is no answer.
pub fn read_head(socket: TcpStream) -> io::Result<Streaming> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed without an answer",
        ));
    }
    let status = line.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not an HTTP answer: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the head broke off"));
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let framing = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        Framing::Chunked { left: 0, over: false }
    } else if let Some(length) = header("content-length").and_then(|v| v.parse().ok()) {
        Framing::Length(length)
    } else {
        Framing::Close
    };
    Ok(Streaming { status, headers, body: BufReader::new(Body { reader, framing }) })
}

#[derive(Debug)]
enum Framing {
    Chunked { left: u64, over: bool },
    Length(u64),
    Close,
}

#[derive(Debug)]
struct Body {
    reader: BufReader<TcpStream>,
    framing: Framing,
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Framing::Chunked { left: 0, over: false } = self.framing {
            let left = next_chunk(&mut self.reader)?;
            self.framing = Framing::Chunked { left, over: left == 0 };
        }
        let left = match &mut self.framing {
            Framing::Close => return self.reader.read(out),
            Framing::Chunked { over: true, .. } | Framing::Length(0) => return Ok(0),
            Framing::Chunked { left, .. } | Framing::Length(left) => left,
        };
        let most = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut out[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body broke off"));
        }
        *left -= count as u64;
        if let Framing::Chunked { left: 0, .. } = self.framing {
            let mut end = [0; 2];
            self.reader.read_exact(&mut end)?;
        }
        Ok(count)
    }
}

/// The length of the next chunk; 0 ends the body.
fn next_chunk(reader: &mut BufReader<TcpStream>) -> io::Result<u64> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body broke off between chunks"));
    }
    let digits = line.trim().split(';').next().unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| io::Error::other(format!("not a chunk length: {line:?}")))
}
