//! A small HTTP/1.1 client that keeps its connection, as agents' clients do: what it times is a request, not a
//! handshake.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest silence before a request counts as hung; an import of many records is silent for long.
const SILENCE: Duration = Duration::from_secs(900);

/// Where requests go, and with which key.
#[derive(Debug)]
pub struct Client {
    host: String,
    key: Option<String>,
    socket: Option<BufReader<TcpStream>>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    Close,
}

#[derive(Debug)]
struct Head {
    status: u16,
    framing: Framing,
    keep: bool,
}

impl Client {
    /// A client of the node at `url` (`http://host:port`).
    ///
    /// # Errors
    /// When it is no such address.
    pub fn new(url: &str, key: Option<String>) -> Result<Self> {
        let host = url.trim_end_matches('/').strip_prefix("http://");
        let host = host.with_context(|| format!("{url} is no address like http://127.0.0.1:8080"))?;
        ensure!(!host.is_empty() && !host.contains('/'), "{url} must name a host and a port, and no path");
        Ok(Self { host: host.to_owned(), key, socket: None })
    }

    /// A second client of the same node, with a connection of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { host: self.host.clone(), key: self.key.clone(), socket: None }
    }

    /// GET of JSON.
    ///
    /// # Errors
    /// What the socket says, or the node's refusal.
    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        let body = self.send("GET", path, "", b"")?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to GET {path}"))
    }

    /// POST of JSON that is answered with JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post<T: DeserializeOwned>(&mut self, path: &str, body: &Value) -> Result<T> {
        let body = self.send("POST", path, "application/json", body.to_string().as_bytes())?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to POST {path}"))
    }

    /// POST of JSON Lines that is answered with JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post_lines<T: DeserializeOwned>(&mut self, path: &str, lines: &[u8]) -> Result<T> {
        let body = self.send("POST", path, "application/x-ndjson", lines)?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to POST {path}"))
    }

    /// GET of JSON Lines, each handed out as it comes.
    ///
    /// # Errors
    /// As [`Self::get`], or the first error of `take`.
    pub fn get_lines(&mut self, path: &str, mut take: impl FnMut(Value) -> Result<()>) -> Result<()> {
        let head = self.ask("GET", path, "", b"")?;
        let mut socket = self.socket.take().context("the connection is gone")?;
        let mut body = BufReader::new(Body::new(&mut socket, head.framing));
        if head.status != 200 {
            let mut text = String::new();
            body.read_to_string(&mut text)?;
            return Err(refusal("GET", path, head.status, text.as_bytes()));
        }
        let mut line = String::new();
        while body.read_line(&mut line)? > 0 {
            if !line.trim().is_empty() {
                take(serde_json::from_str(&line).with_context(|| format!("a line of GET {path}"))?)?;
            }
            line.clear();
        }
        drop(body);
        self.socket = Some(socket).filter(|_| head.keep);
        Ok(())
    }

    fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Vec<u8>> {
        let head = self.ask(method, path, kind, body)?;
        let mut socket = self.socket.take().context("the connection is gone")?;
        let mut answer = Vec::new();
        let read = Body::new(&mut socket, head.framing).read_to_end(&mut answer);
        read.with_context(|| format!("reading the answer to {method} {path}"))?;
        self.socket = Some(socket).filter(|_| head.keep);
        if (200..300).contains(&head.status) {
            Ok(answer)
        } else {
            Err(refusal(method, path, head.status, &answer))
        }
    }

    /// Sends a request and reads the head of the answer.
    fn ask(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Head> {
        let reused = self.socket.is_some();
        match self.try_ask(method, path, kind, body) {
            // The node may have closed an idle connection; that says nothing about the request.
            Ok(None) if reused => self.try_ask(method, path, kind, body)?,
            other => other?,
        }
        .with_context(|| format!("{method} {path}: the node closed the connection without an answer"))
    }

    /// `None` when the connection ended before an answer began.
    fn try_ask(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Option<Head>> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        if let Some(key) = &self.key {
            request += &format!("authorization: Bearer {key}\r\n");
        }
        if method != "GET" {
            request += &format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len());
        }
        request += "\r\n";
        // One write for small requests, so that no packet waits for another's acknowledgement.
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        let sent = socket.get_mut().write_all(&bytes);
        match read_head(&mut socket) {
            Ok(None) => Ok(None),
            Ok(Some(head)) => {
                self.socket = Some(socket);
                Ok(Some(head))
            }
            Err(error) if gone(&error) => Ok(None),
            Err(error) => {
                sent.with_context(|| format!("sending {method} {path}"))?;
                Err(anyhow!(error).context(format!("{method} {path}")))
            }
        }
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let mut addresses = self.host.to_socket_addrs().with_context(|| format!("the host {}", self.host))?;
        let address = addresses.next().with_context(|| format!("the host {} has no address", self.host))?;
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10));
        let socket = socket.with_context(|| format!("connecting to {}", self.host))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        socket.set_nodelay(true)?;
        Ok(BufReader::with_capacity(64 << 10, socket))
    }
}

fn gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

fn refusal(method: &str, path: &str, status: u16, body: &[u8]) -> anyhow::Error {
    let text = String::from_utf8_lossy(body);
    let said = serde_json::from_slice::<Value>(body).ok();
    let said = said.as_ref().and_then(|value| value.pointer("/error/message")).and_then(Value::as_str);
    let short: String = said.unwrap_or(&text).chars().take(500).collect();
    anyhow!("{method} {path}: status {status}: {short}")
}

fn read_head(socket: &mut impl BufRead) -> std::io::Result<Option<Head>> {
    let mut line = String::new();
    if socket.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let wrong = || std::io::Error::other(format!("not an HTTP answer: {}", line.trim_end()));
    let status = line.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    let mut head = Head { status, framing: Framing::Close, keep: true };
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase());
        match name.as_str() {
            "transfer-encoding" if value == "chunked" => head.framing = Framing::Chunked,
            "content-length" if head.framing != Framing::Chunked => {
                head.framing = value.parse().map(Framing::Length).map_err(std::io::Error::other)?;
            }
            "connection" => head.keep = value != "close",
            _ => {}
        }
    }
    head.keep &= head.framing != Framing::Close;
    Ok(Some(head))
}

/// The body of an answer, without its framing.
struct Body<'a, R> {
    from: &'a mut R,
    framing: Framing,
    /// Bytes left of the chunk; `None` after the last.
    chunk: Option<u64>,
}

impl<'a, R: BufRead> Body<'a, R> {
    const fn new(from: &'a mut R, framing: Framing) -> Self {
        Self { from, framing, chunk: Some(0) }
    }

    /// Goes on to the next chunk.
    fn next(&mut self) -> std::io::Result<()> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let digits = line.trim().split(';').next().unwrap_or_default();
        let length = u64::from_str_radix(digits, 16);
        let length = length.map_err(|_| std::io::Error::other(format!("not a chunk: {}", line.trim())))?;
        if length == 0 {
            // The empty line after the last chunk.
            self.from.read_line(&mut line)?;
        }
        self.chunk = Some(length).filter(|&length| length > 0);
        Ok(())
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.framing == Framing::Chunked && self.chunk == Some(0) {
            self.next()?;
        }
        let left = match self.framing {
            Framing::Close => return self.from.read(out),
            Framing::Length(left) => left,
            Framing::Chunked => self.chunk.unwrap_or(0),
        };
        if left == 0 || out.is_empty() {
            return Ok(0);
        }
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.from.read(out.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let left = left - count as u64;
        match &mut self.framing {
            Framing::Length(length) => *length = left,
            _ => {
                self.chunk = Some(left);
                if left == 0 {
                    // The line end after a chunk.
                    self.from.read_line(&mut String::new())?;
                }
            }
        }
        Ok(count)
    }
}

/// Leaves no doubt about what a value in an address means.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

/// Refuses an answer without a field that it must have.
///
/// # Errors
/// Which field is missing.
pub fn number(value: &Value, field: &str) -> Result<f64> {
    match value.get(field).and_then(Value::as_f64) {
        Some(number) => Ok(number),
        None => bail!("the node's answer has no number `{field}`"),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, net::TcpListener, thread};

    use super::*;

    fn body(raw: &str) -> (Head, String) {
        let mut from = Cursor::new(raw.as_bytes().to_vec());
        let head = read_head(&mut from).unwrap().unwrap();
        let mut text = String::new();
        Body::new(&mut from, head.framing).read_to_string(&mut text).unwrap();
        let mut rest = String::new();
        from.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, if head.framing == Framing::Close { "" } else { "next" });
        (head, text)
    }

    #[test]
    fn bodies_of_every_framing_are_read() {
        let (head, text) = body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellonext");
        assert_eq!((head.status, head.keep, text.as_str()), (200, true, "hello"));
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\nnext";
        assert_eq!(body(chunked).1, "hello");
        let (head, text) = body("HTTP/1.1 404 No\r\nconnection: close\r\n\r\nhello");
        assert_eq!((head.status, head.keep, text.as_str()), (404, false, "hello"));
    }

    #[test]
    fn a_closed_connection_is_opened_again_and_refusals_have_words() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            for (status, body) in [("200 OK", "7"), ("400 No", r#"{"error":{"message":"not like this"}}"#)] {
                let (mut socket, _) = listener.accept().unwrap();
                let mut seen = [0; 512];
                assert!(socket.read(&mut seen).unwrap() > 0);
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                socket.write_all((head + body).as_bytes()).unwrap();
            }
        });
        let mut client = Client::new(&url, Some("k".into())).unwrap();
        assert_eq!(client.get::<u32>("/a").unwrap(), 7);
        let error = client.get::<u32>("/b").unwrap_err().to_string();
        assert!(error.contains("400") && error.ends_with("not like this"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn addresses_are_checked_and_escaped() {
        assert!(Client::new("https://x:1", None).is_err());
        assert!(Client::new("http://x:1/v1", None).is_err());
        assert_eq!(escaped("a b&c=ä"), "a%20b%26c%3D%C3%A4");
        assert!(number(&serde_json::json!({"a": "1"}), "a").is_err());
    }
}
