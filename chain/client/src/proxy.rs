//! A websocket proxy between a client and a node that does what networks and bad nodes do: for tests.
//!
//! It forwards whole messages and, with given probabilities, drops the connection, swallows a message, delays it, lets
//! a later answer overtake it, or gives garbage in place of an answer. A seed makes a run repeatable as far as the
//! order of messages is.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use soketto::{
    Sender,
    handshake::{self, ClientRequest, ServerResponse, server},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// Messages under way in each direction.
const WAITING: usize = 256;
/// Longest message, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

type Stream = Compat<TcpStream>;

/// What goes wrong, in parts of 1,000 of all messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The connection is dropped instead.
    pub disconnect: u32,
    /// A request is swallowed.
    pub lost_request: u32,
    /// An answer is swallowed.
    pub lost_answer: u32,
    /// An answer is delayed by up to [`Faults::delay`].
    pub delayed: u32,
    /// The longest delay.
    pub delay: Duration,
    /// An answer waits until the next one has passed.
    pub reordered: u32,
    /// Garbage is given in place of an answer.
    pub garbage: u32,
    /// Nobody can connect.
    pub refuse: bool,
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    random: AtomicU64,
    connections: AtomicU64,
    harmed: AtomicU64,
}

impl Shared {
    /// A number below `below`.
    fn random(&self, below: u32) -> u32 {
        let next =
            |seed: u64| seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seed| Some(next(seed)));
        let high = (next(before.unwrap_or_else(|seed| seed)) >> 33) % u64::from(below.max(1));
        u32::try_from(high).unwrap_or_default()
    }

    fn happens(&self, parts: u32) -> bool {
        let happens = self.random(1_000) < parts;
        if happens {
            self.harmed.fetch_add(1, Ordering::Relaxed);
        }
        happens
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Listens on a free port of this machine and forwards to `upstream`; faultless at first.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::default(),
            random: AtomicU64::new(seed),
            connections: AtomicU64::new(0),
            harmed: AtomicU64::new(0),
        });
        let task = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// What goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Messages and connections that something was done to so far.
    pub fn harmed(&self) -> u64 {
        self.shared.harmed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if shared.faults().refuse {
            continue;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // However it ends, both sides see their connection closed.
            let _ = connection(stream, &shared).await;
        });
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn connection(stream: TcpStream, shared: &Shared) -> Result<(), Failure> {
    let mut server = handshake::Server::new(stream.compat());
    let key = {
        let request: ClientRequest<'_> = server.receive_request().await?;
        request.key()
    };
    server.send_response(&server::Response::Accept { key, protocol: None }).await?;
    let mut builder = server.into_builder();
    builder.set_max_message_size(MAX_MESSAGE);
    let (mut to_client, mut from_client) = builder.finish();

    let upstream = TcpStream::connect(shared.upstream).await?;
    let host = shared.upstream.to_string();
    let mut client = handshake::Client::new(upstream.compat(), &host, "/");
    if !matches!(client.handshake().await?, ServerResponse::Accepted { .. }) {
        return Err("the node takes no websocket".into());
    }
    let mut builder = client.into_builder();
    builder.set_max_message_size(MAX_MESSAGE);
    let (mut to_node, mut from_node) = builder.finish();

    let (answers, mut ready) = mpsc::channel::<Vec<u8>>(WAITING);
    let requests = async {
        loop {
            let mut message = Vec::new();
            from_client.receive_data(&mut message).await?;
            let faults = shared.faults();
            if shared.happens(faults.disconnect) {
                return Err::<(), Failure>("dropped".into());
            }
            if !shared.happens(faults.lost_request) {
                send(&mut to_node, &message).await?;
            }
        }
    };
    let coming = async {
        let mut held: Option<Vec<u8>> = None;
        loop {
            let mut message = Vec::new();
            from_node.receive_data(&mut message).await?;
            let faults = shared.faults();
            if shared.happens(faults.disconnect) {
                return Err::<(), Failure>("dropped".into());
            }
            if shared.happens(faults.lost_answer) {
                continue;
            }
            if shared.happens(faults.garbage) {
                message = garbage(&message, shared.random(4));
            }
            if held.is_none() && shared.happens(faults.reordered) {
                held = Some(message);
                continue;
            }
            let wait = if shared.happens(faults.delayed) {
                let most = u32::try_from(faults.delay.as_millis()).unwrap_or(u32::MAX);
                Duration::from_millis(u64::from(shared.random(most)))
            } else {
                Duration::ZERO
            };
            let overtaken = held.take();
            let answers = answers.clone();
            // Delayed ones do not hold up those behind them.
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                for message in std::iter::once(message).chain(overtaken) {
                    let _ = answers.send(message).await;
                }
            });
        }
    };
    let going = async {
        while let Some(message) = ready.recv().await {
            send(&mut to_client, &message).await?;
        }
        Ok::<(), Failure>(())
    };
    tokio::select! {
        ended = requests => ended,
        ended = coming => ended,
        ended = going => ended,
    }
}

async fn send(to: &mut Sender<Stream>, message: &[u8]) -> Result<(), Failure> {
    to.send_text(std::str::from_utf8(message)?).await?;
    Ok(to.flush().await?)
}

/// What a broken or hostile node may say instead.
fn garbage(message: &[u8], kind: u32) -> Vec<u8> {
    let text = String::from_utf8_lossy(message).into_owned();
    match kind {
        // No JSON.
        0 => b"{]".to_vec(),
        // Half of it.
        1 => text.chars().take(text.len() / 2).collect::<String>().into_bytes(),
        // An answer of another type.
        2 => text.replace("\"result\":\"", "\"result\":[\"").into_bytes(),
        // Other hexadecimal digits.
        _ => text.replace("\"0x0", "\"0xf").into_bytes(),
    }
}
