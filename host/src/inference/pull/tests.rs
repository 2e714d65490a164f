//! Pulls from a server that misbehaves in every way one has been seen to.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use potluck_kernels::{
    dtype::DType,
    gguf::{GgufWriter, Metadata},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;

mod embedder;
mod members;

/// What the server does with a download.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    /// Sends at most this many bytes per connection, then breaks it off.
    Drops(usize),
    WrongBytes,
    WrongTotal,
    WrongStart,
    IgnoresRange,
    TooMuch,
    NeverRange,
    Status(u16),
    BusyOnce,
    Elsewhere,
    Loop,
    WebPage,
}

/// Who was asked, with which token.
type Seen = (String, Option<String>);

#[derive(Clone)]
struct Server {
    mood: Arc<Mutex<Mood>>,
    file: Arc<Vec<u8>>,
    oid: Option<String>,
    hits: Arc<AtomicUsize>,
    /// Another origin, and the tokens that were seen by whom.
    elsewhere: Arc<Mutex<String>>,
    tokens: Arc<Mutex<Vec<Seen>>>,
}

fn model() -> Vec<u8> {
    let mut writer = GgufWriter::new(Metadata::default());
    writer.tensor("t", &[256, 256], DType::F32, (0..=255u8).cycle().take(256 * 256 * 4).collect());
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

async fn list(
    State(server): State<Server>,
    UrlPath((user, repo)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    note(&server, "list", &headers);
    if user == "private" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if repo == "gone" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let size = server.file.len();
    let entry = |path: &str| match &server.oid {
        Some(oid) => json!({"type": "file", "path": path, "size": size, "lfs": {"oid": oid, "size": size}}),
        None => json!({"type": "file", "path": path, "size": size}),
    };
    let files = [
        entry("Tiny-Q8_0.gguf"),
        entry("Tiny-Q4_K_M.gguf"),
        entry("mmproj-Tiny.gguf"),
        json!({"type": "file", "path": "README.md", "size": 3}),
        entry("Big-F16-00001-of-00002.gguf"),
    ];
    axum::Json(json!(files)).into_response()
}

fn note(server: &Server, who: &str, headers: &HeaderMap) {
    let token = headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
    server.tokens.lock().unwrap().push((who.into(), token));
}

async fn download(State(server): State<Server>, headers: HeaderMap) -> Response {
    note(&server, "file", &headers);
    let hit = server.hits.fetch_add(1, Ordering::Relaxed);
    let mood = *server.mood.lock().unwrap();
    let whole = server.file.as_slice();
    let range = headers.get(header::RANGE).map(|v| {
        v.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
    });
    let start = range.unwrap_or(0);
    let partial = |body: Body, length: usize, total: usize, from: usize| {
        let last = whole.len() - 1;
        let mut response = Response::builder().header("content-length", length).header("etag", "\"v1\"");
        if range.is_some() {
            response = response.status(206).header("content-range", format!("bytes {from}-{last}/{total}"));
        }
        response.body(body).unwrap()
    };
    let rest = || Bytes::copy_from_slice(&whole[start..]);
    let good = || partial(Body::from(rest()), whole.len() - start, whole.len(), start);
    match mood {
        Mood::Good => good(),
        Mood::Drops(n) => {
            let piece = Bytes::copy_from_slice(&whole[start..(start + n).min(whole.len())]);
            let ended = piece.len() == whole.len() - start;
            let broken = async_stream::stream! {
                yield Ok(piece);
                if !ended {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    yield Err(std::io::Error::other("dropped"));
                }
            };
            partial(Body::from_stream(broken), whole.len() - start, whole.len(), start)
        }
        Mood::WrongBytes => {
            let mut bytes = whole[start..].to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            partial(Body::from(bytes), whole.len() - start, whole.len(), start)
        }
        Mood::WrongTotal => {
            let more = [&whole[start..], b"more"].concat();
            partial(Body::from(more), whole.len() - start + 4, whole.len() + 4, start)
        }
        Mood::WrongStart => {
            partial(Body::from(rest()), whole.len() - start, whole.len(), start.saturating_sub(1))
        }
        Mood::IgnoresRange => Response::new(Body::from(whole.to_vec())),
        Mood::TooMuch => {
            let bytes = Bytes::copy_from_slice(whole);
            Response::new(Body::from_stream(async_stream::stream! {
                for _ in 0..1000 {
                    yield Ok::<_, std::io::Error>(bytes.clone());
                }
            }))
        }
        Mood::NeverRange if start > 0 => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Mood::NeverRange => good(),
        Mood::Status(code) => StatusCode::from_u16(code).unwrap().into_response(),
        Mood::BusyOnce if hit == 0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]).into_response(),
        Mood::BusyOnce => good(),
        Mood::Elsewhere => {
            let to = format!("{}/cdn/file?signature=secret", server.elsewhere.lock().unwrap());
            (StatusCode::FOUND, [("location", to)]).into_response()
        }
        Mood::Loop => (StatusCode::FOUND, [("location", "/u/r/resolve/main/x.gguf")]).into_response(),
        Mood::WebPage => Response::new(Body::from("<!doctype html>".repeat(10))),
    }
}

async fn cdn(State(server): State<Server>, headers: HeaderMap) -> Response {
    note(&server, "cdn", &headers);
    Response::new(Body::from(server.file.to_vec()))
}

struct Bench {
    server: Server,
    puller: Puller,
    store: Arc<Store>,
    url: String,
    _dir: tempfile::TempDir,
}

async fn bench(with_digest: bool) -> Bench {
    let file = model();
    let server = Server {
        mood: Arc::new(Mutex::new(Mood::Good)),
        oid: with_digest.then(|| hex(&Sha256::digest(&file))),
        file: Arc::new(file),
        hits: Arc::default(),
        elsewhere: Arc::default(),
        tokens: Arc::default(),
    };
    let mut urls = Vec::new();
    for _ in 0..2 {
        let app = Router::new()
            .route("/api/models/{user}/{repo}/tree/main", get(list))
            .route("/u/r/resolve/main/{file}", get(download))
            .route("/cdn/file", get(cdn))
            .with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }
    *server.elsewhere.lock().unwrap() = urls[1].clone();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), &[], None).unwrap());
    let settings = Settings {
        endpoint: urls[0].clone(),
        token: Some("hf_secret".into()),
        index: format!("{}/simple", urls[0]),
        offline: false,
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        pause: Duration::from_millis(1),
        tries: 4,
    };
    let puller = Puller { store: store.clone(), settings, turns: Mutex::default() };
    Bench { server, puller, store, url: urls[0].clone(), _dir: dir }
}

impl Bench {
    async fn pull(&self, mood: Mood, reference: &str) -> Result<String, PullError> {
        *self.server.mood.lock().unwrap() = mood;
        let (progress, mut steps) = mpsc::channel(4);
        let drain = tokio::spawn(async move { while steps.recv().await.is_some() {} });
        let result = self.puller.pull(reference, &progress).await;
        drop(progress);
        drain.await.unwrap();
        result
    }

    fn partials(&self) -> usize {
        std::fs::read_dir(self.store.partial()).unwrap().count()
    }
}

#[tokio::test]
async fn a_dropped_download_is_resumed_and_checked() {
    let bench = bench(true).await;
    let name = bench.pull(Mood::Drops(100_000), "hf.co/u/r").await.unwrap();
    assert_eq!(name, "u/r:Q4_K_M");
    assert!(bench.server.hits.load(Ordering::Relaxed) >= 3);
    let entry = bench.store.resolve("u/r").unwrap();
    assert_eq!(std::fs::read(entry.path.unwrap()).unwrap(), *bench.server.file);
    assert_eq!(entry.digest, bench.server.oid);
    assert_eq!(bench.partials(), 0);
    // The bytes are there already: the other name needs no download.
    let before = bench.server.hits.load(Ordering::Relaxed);
    assert_eq!(bench.pull(Mood::Status(500), "u/r:q8_0").await.unwrap(), "u/r:Q8_0");
    assert_eq!(bench.server.hits.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn what_was_downloaded_survives_a_failed_pull() {
    let bench = bench(true).await;
    // Every connection breaks without a byte after the first part.
    bench.pull(Mood::Drops(50_000), "hf.co/u/r:Q9").await.unwrap_err();
    let part = bench.store.partial().join(format!("{}.part", bench.server.oid.as_ref().unwrap()));
    std::fs::write(&part, &bench.server.file[..70_000]).unwrap();
    match bench.pull(Mood::Status(503), "hf.co/u/r").await.unwrap_err() {
        PullError::Network { completed, .. } => assert_eq!(completed, 70_000),
        error => panic!("{error:?}"),
    }
    for mood in [Mood::IgnoresRange, Mood::Good, Mood::NeverRange] {
        std::fs::write(&part, &bench.server.file[..70_000]).unwrap();
        bench.pull(mood, "hf.co/u/r").await.unwrap();
        bench.store.remove("u/r").unwrap();
    }
}

#[tokio::test]
async fn lies_are_found_out() {
    let bench = bench(true).await;
    let part = bench.store.partial().join(format!("{}.part", bench.server.oid.as_ref().unwrap()));
    assert!(matches!(bench.pull(Mood::WrongBytes, "hf.co/u/r").await, Err(PullError::Digest { .. })));
    assert_eq!(bench.partials(), 0, "wrong bytes are not kept");
    std::fs::write(&part, &bench.server.file[..70_000]).unwrap();
    for mood in [Mood::WrongTotal, Mood::WrongStart, Mood::TooMuch, Mood::Loop] {
        let error = bench.pull(mood, "hf.co/u/r").await.unwrap_err();
        assert!(matches!(error, PullError::Protocol { .. }), "{mood:?}: {error:?}");
    }
    assert!(bench.store.list().iter().all(|e| e.origin != crate::inference::Origin::Store));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let bench = bench(true).await;
    for code in [401, 403] {
        let error = bench.pull(Mood::Status(code), "hf.co/u/r").await.unwrap_err();
        assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    }
    assert!(matches!(bench.pull(Mood::Status(404), "hf.co/u/r").await, Err(PullError::NotFound { .. })));
    assert!(matches!(bench.pull(Mood::Good, "hf.co/private/r").await, Err(PullError::Forbidden { .. })));
    assert!(matches!(bench.pull(Mood::Good, "hf.co/u/gone").await, Err(PullError::NotFound { .. })));
    assert!(matches!(bench.pull(Mood::Good, "hf.co/u/r:F16").await, Err(PullError::Split { parts: 2, .. })));
    let error = bench.pull(Mood::Good, "hf.co/u/r:Q2_K").await.unwrap_err().to_string();
    assert!(error.contains("Q8_0") && error.contains("Q4_K_M") && !error.contains("mmproj"), "{error}");
    assert!(matches!(bench.pull(Mood::Good, "nonsense").await, Err(PullError::Reference(_))));
    assert_eq!(bench.pull(Mood::BusyOnce, "hf.co/u/r").await.unwrap(), "u/r:Q4_K_M");
}

#[tokio::test]
async fn the_token_stays_with_the_hub() {
    let bench = bench(true).await;
    bench.pull(Mood::Elsewhere, "hf.co/u/r").await.unwrap();
    let tokens = bench.server.tokens.lock().unwrap().clone();
    let seen = |who: &str| tokens.iter().filter(|(w, _)| w == who).all(|(_, t)| t.is_some());
    assert!(seen("list") && seen("file"));
    assert_eq!(tokens.iter().filter(|(w, _)| w == "cdn").collect::<Vec<_>>(), [&("cdn".to_owned(), None)]);
}

#[tokio::test]
async fn an_address_works_without_a_promised_digest() {
    let bench = bench(false).await;
    let url = format!("{}/u/r/resolve/main/plain.gguf", bench.url);
    assert_eq!(bench.pull(Mood::Good, &url).await.unwrap(), "plain");
    let digest = bench.store.resolve("plain").unwrap().digest.unwrap();
    assert_eq!(digest, hex(&Sha256::digest(bench.server.file.as_slice())));
    let before = bench.server.hits.load(Ordering::Relaxed);
    let url = format!("{}/u/r/resolve/main/dropped.gguf", bench.url);
    assert_eq!(bench.pull(Mood::Drops(100_000), &url).await.unwrap(), "dropped");
    assert!(bench.server.hits.load(Ordering::Relaxed) - before >= 3, "it was resumed");
    assert_eq!(bench.store.resolve("dropped").unwrap().digest.unwrap(), digest);
    let error =
        bench.pull(Mood::WebPage, &format!("{}/u/r/resolve/main/page.gguf", bench.url)).await.unwrap_err();
    assert!(matches!(error, PullError::NotAModel { .. }), "{error:?}");
    assert_eq!(bench.partials(), 0);
    let mut offline = bench.puller.settings.clone();
    offline.offline = true;
    let puller = Puller { store: bench.store.clone(), settings: offline, turns: Mutex::default() };
    let (progress, _steps) = mpsc::channel(4);
    assert_eq!(puller.pull("hf.co/u/r", &progress).await, Err(PullError::Offline));
}
