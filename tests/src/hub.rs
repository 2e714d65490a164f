//! A model hub that misbehaves on demand.
//!
//! It answers the questions that Hugging Face's hub answers (model info, file tree, file download with
//! ranges, entity tags and commit headers), and does to each download what the test asks for. It counts the
//! bytes it sends and notes every request, so that a test can prove what was and was not asked.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What the hub does to one download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Serves it as asked, ranges included.
    Serve,
    /// Serves as asked but closes the connection after this many bytes of the body.
    DropAfter(usize),
    /// Announces this many bytes more than it sends, then closes.
    ClaimMore(usize),
    /// Announces this many bytes fewer than the file has, and sends all of it.
    ClaimLess(usize),
    /// Sends the whole file with 200 whatever range was asked for.
    IgnoreRange,
    /// Answers a range with 206 but with bytes from the start of the file.
    WrongRange,
    /// Sends other bytes in the second half.
    Corrupt,
    /// Announces no length and never stops sending.
    Endless,
    /// Answers with this status and an optional `Retry-After` in seconds.
    Status(u16, Option<u32>),
    /// Redirects to the same path on another host.
    Redirect(String),
    /// Redirects to itself for ever.
    Loop,
    /// Sends the head and this many bytes, then nothing more, and keeps the connection.
    Stall(usize),
}

/// One request as the hub saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// Bytes of the body sent in answer.
    pub sent: u64,
}

impl Seen {
    /// Whether a file's bytes were asked for.
    pub fn is_download(&self) -> bool {
        self.method == "GET" && self.path.contains("/resolve/")
    }
}

#[derive(Debug, Default)]
struct State {
    files: Vec<(String, Vec<u8>)>,
    acts: VecDeque<Act>,
    always: Option<Act>,
    key: Option<String>,
    seen: Vec<Seen>,
}

/// A running hub. Dropping it stops it.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

/// The commit every file belongs to.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// SHA-256 as hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("writing to a text");
    }
    text
}

impl Hub {
    /// Serves these files: `(USER/REPO/FILE, bytes)`.
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let over = Arc::new(AtomicBool::new(false));
        let (kept, stop) = (Arc::clone(&state), Arc::clone(&over));
        thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let (state, stop) = (Arc::clone(&kept), Arc::clone(&stop));
                thread::spawn(move || {
                    // A client that goes away is not the hub's business.
                    let _ = serve(socket, &state, &stop, address);
                });
            }
        });
        Self { address, state, over }
    }

    /// Its URL, for `HF_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its URL under another name for the same machine, which is another host to a client.
    pub fn other_host(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// Does these to the next downloads, one each; after them it serves properly.
    pub fn then(&self, acts: &[Act]) {
        let mut state = self.state.lock().expect("no hub thread panics");
        state.acts.extend(acts.iter().cloned());
    }

    /// Does this to every download from now on.
    pub fn always(&self, act: Option<Act>) {
        self.state.lock().expect("no hub thread panics").always = act;
    }

    /// Refuses every request without this bearer token.
    pub fn require(&self, key: &str) {
        self.state.lock().expect("no hub thread panics").key = Some(key.to_owned());
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().expect("no hub thread panics").seen.clone()
    }

    /// The downloads so far.
    pub fn downloads(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(Seen::is_download).collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.lock().expect("no hub thread panics").seen.clear();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// What `Content-Length` says; `None`: it is left out.
    announced: Option<usize>,
    /// Bytes after which the connection is closed.
    cut: Option<usize>,
    endless: bool,
    stall: bool,
}

impl Answer {
    fn new(status: u16, body: Vec<u8>) -> Self {
        let announced = Some(body.len());
        Self { status, headers: Vec::new(), body, announced, cut: None, endless: false, stall: false }
    }

    fn json(body: &Value) -> Self {
        let mut answer = Self::new(200, body.to_string().into_bytes());
        answer.headers.push(("content-type".into(), "application/json".into()));
        answer
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn serve(
    mut socket: TcpStream,
    state: &Mutex<State>,
    over: &AtomicBool,
    address: SocketAddr,
) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    socket.set_write_timeout(Some(Duration::from_secs(30)))?;
    let Some(mut seen) = read_request(&socket)? else { return Ok(()) };
    let head_only = seen.method == "HEAD";
    let answer = {
        let mut state = state.lock().expect("no hub thread panics");
        let answer = decide(&mut state, &seen, address);
        state.seen.push(seen.clone());
        answer
    };
    let index = state.lock().expect("no hub thread panics").seen.len() - 1;
    let note = |sent: u64| {
        if let Some(entry) = state.lock().expect("no hub thread panics").seen.get_mut(index) {
            entry.sent = sent;
        }
    };

    let mut head = format!("HTTP/1.1 {} Answer\r\nconnection: close\r\n", answer.status);
    if let Some(length) = answer.announced {
        write!(head, "content-length: {length}\r\n").expect("writing to a text");
    }
    for (name, value) in &answer.headers {
        write!(head, "{name}: {value}\r\n").expect("writing to a text");
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes())?;
    if head_only {
        return Ok(());
    }
    let end = answer.cut.unwrap_or(answer.body.len()).min(answer.body.len());
    for piece in answer.body[..end].chunks(16 << 10) {
        socket.write_all(piece)?;
        seen.sent += piece.len() as u64;
        note(seen.sent);
    }
    if answer.endless {
        let piece = vec![0x5a; 64 << 10];
        while !over.load(Ordering::Relaxed) {
            socket.write_all(&piece)?;
            seen.sent += piece.len() as u64;
            note(seen.sent);
        }
    }
    if answer.stall {
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
    socket.flush()?;
    // Closing at once would throw away what the client has not read yet.
    socket.shutdown(Shutdown::Write)?;
    let mut rest = [0; 64];
    while matches!(io::Read::read(&mut socket, &mut rest), Ok(1..)) {}
    Ok(())
}

fn read_request(socket: &TcpStream) -> io::Result<Option<Seen>> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let mut seen = Seen { method, path, range: None, authorization: None, sent: 0 };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(seen));
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.trim().to_owned()),
            "authorization" => seen.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
}

/// Chooses the answer to a request.
fn decide(state: &mut State, seen: &Seen, address: SocketAddr) -> Answer {
    let allowed = |key: &String| seen.authorization.as_deref() == Some(&format!("Bearer {key}"));
    if !state.key.as_ref().is_none_or(allowed) {
        return Answer::new(401, b"{\"error\":\"a token is needed\"}".to_vec());
    }
    let path = seen.path.split('?').next().unwrap_or_default();
    if let Some(rest) = path.strip_prefix("/api/models/") {
        return about(state, rest);
    }
    let Some((repo, file)) = path.trim_start_matches('/').split_once("/resolve/") else {
        return Answer::new(404, b"{\"error\":\"no such page\"}".to_vec());
    };
    let file = file.split_once('/').map_or(file, |(_revision, file)| file);
    let name = format!("{repo}/{file}");
    let Some(bytes) = state.files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.clone()) else {
        return Answer::new(404, b"Entry not found".to_vec()).header("x-error-code", "EntryNotFound");
    };
    let act = match seen.method.as_str() {
        "GET" => state.acts.pop_front().or_else(|| state.always.clone()).unwrap_or(Act::Serve),
        // A redirect is where the hub says a file is, so it holds for questions about the file too.
        _ => match state.acts.front().or(state.always.as_ref()) {
            Some(act @ Act::Redirect(_)) => act.clone(),
            _ => Act::Serve,
        },
    };
    download(&bytes, &act, seen, address)
}

fn download(bytes: &[u8], act: &Act, seen: &Seen, address: SocketAddr) -> Answer {
    let tag = sha256(bytes);
    let marks = |answer: Answer| {
        answer
            .header("etag", format!("\"{tag}\""))
            .header("x-linked-etag", format!("\"{tag}\""))
            .header("x-linked-size", bytes.len().to_string())
            .header("x-repo-commit", COMMIT)
            .header("accept-ranges", "bytes")
    };
    let asked = seen.range.as_deref().and_then(|range| start_of(range, bytes.len()));
    let proper = |from: &[u8]| match asked {
        Some((start, end)) => {
            let range = format!("bytes {start}-{end}/{}", from.len());
            marks(Answer::new(206, from[start..=end].to_vec())).header("content-range", range)
        }
        None if seen.range.is_some() => {
            marks(Answer::new(416, Vec::new())).header("content-range", format!("bytes */{}", from.len()))
        }
        None => marks(Answer::new(200, from.to_vec())),
    };
    match act {
        Act::Serve => proper(bytes),
        Act::DropAfter(count) => Answer { cut: Some(*count), ..proper(bytes) },
        Act::ClaimMore(count) => {
            let answer = proper(bytes);
            Answer { announced: Some(answer.body.len() + count), ..answer }
        }
        Act::ClaimLess(count) => {
            let answer = proper(bytes);
            Answer { announced: Some(answer.body.len().saturating_sub(*count)), ..answer }
        }
        Act::IgnoreRange => marks(Answer::new(200, bytes.to_vec())),
        Act::WrongRange => {
            let mut answer = proper(bytes);
            let length = answer.body.len();
            answer.body = bytes[..length].to_vec();
            answer
        }
        Act::Corrupt => {
            // The beginning is right, so that only a check of the whole can tell.
            let half = bytes.len() / 2;
            let wrong: Vec<u8> =
                bytes.iter().enumerate().map(|(i, b)| if i < half { *b } else { b ^ 0x55 }).collect();
            proper(&wrong)
        }
        Act::Endless => {
            let answer = marks(Answer::new(200, Vec::new()));
            Answer { announced: None, endless: true, ..answer }
        }
        Act::Status(status, wait) => {
            let answer = Answer::new(*status, b"{\"error\":\"not now\"}".to_vec());
            match wait {
                Some(seconds) => answer.header("retry-after", seconds.to_string()),
                None => answer,
            }
        }
        Act::Redirect(host) => {
            marks(Answer::new(302, Vec::new())).header("location", format!("{host}{}", seen.path))
        }
        Act::Loop => {
            Answer::new(302, Vec::new()).header("location", format!("http://{address}{}", seen.path))
        }
        Act::Stall(count) => Answer { cut: Some(*count), stall: true, ..proper(bytes) },
    }
}

/// First and last byte of `bytes=A-` or `bytes=A-B`; `None` when it lies outside.
fn start_of(range: &str, length: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = start.parse().ok()?;
    let end = if end.is_empty() { length.checked_sub(1)? } else { end.parse().ok()? };
    let end = end.min(length.checked_sub(1)?);
    (start <= end).then_some((start, end))
}

/// Model info and file trees.
fn about(state: &State, rest: &str) -> Answer {
    let parts: Vec<&str> = rest.split('/').collect();
    let [user, name, more @ ..] = parts.as_slice() else {
        return Answer::new(404, b"{\"error\":\"no such page\"}".to_vec());
    };
    let prefix = format!("{user}/{name}/");
    let files: Vec<(&str, &[u8])> = state
        .files
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix(&prefix)?, bytes.as_slice())))
        .collect();
    if files.is_empty() {
        return Answer::new(404, b"{\"error\":\"Repository not found\"}".to_vec())
            .header("x-error-code", "RepoNotFound");
    }
    let tree = |(path, bytes): &(&str, &[u8])| {
        json!({
            "type": "file", "path": path, "size": bytes.len(), "oid": COMMIT,
            "lfs": { "oid": sha256(bytes), "size": bytes.len(), "pointerSize": 134 },
        })
    };
    let sibling = |(path, bytes): &(&str, &[u8])| {
        json!({
            "rfilename": path, "size": bytes.len(), "blobId": COMMIT,
            "lfs": { "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 },
        })
    };
    match more.first() {
        Some(&"tree") => Answer::json(&Value::Array(files.iter().map(tree).collect())),
        None | Some(&"revision") => Answer::json(&json!({
            "id": format!("{user}/{name}"), "modelId": format!("{user}/{name}"), "sha": COMMIT,
            "private": false, "gated": false, "tags": ["gguf"],
            "siblings": files.iter().map(sibling).collect::<Vec<_>>(),
        })),
        Some(_) => Answer::new(404, b"{\"error\":\"no such page\"}".to_vec()),
    }
}
