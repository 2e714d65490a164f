//! Talking to the hub: requests that never carry the token elsewhere, and the list of a repository's files.

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE},
};
use serde::Deserialize;

use super::{GGUF, MAX_SIZE, PullError, PullReference, Settings, Target, quant};

/// Largest list of files, in bytes.
const MAX_LIST: usize = 16 << 20;
/// Most redirects followed.
const MAX_HOPS: usize = 8;
/// Names listed in an error.
const MAX_NAMES: usize = 40;

/// A client for one pull.
pub(super) struct Web {
    client: Client,
    pub(super) settings: Settings,
    /// Scheme, host and port that may see the token.
    origin: Option<url_origin::Origin>,
}

mod url_origin {
    use reqwest::Url;

    /// What must be equal for a token to be sent.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(super) struct Origin(String, String, Option<u16>);

    pub(super) fn of(url: &Url) -> Origin {
        Origin(url.scheme().into(), url.host_str().unwrap_or_default().into(), url.port_or_known_default())
    }
}

/// A request that failed in a way that another try may mend.
pub(super) enum Failure {
    /// Try again; the words are for the final error.
    Again(String, Option<std::time::Duration>),
    /// Give up.
    Final(PullError),
}

impl Web {
    pub(super) fn new(settings: Settings) -> Result<Self, PullError> {
        let failed =
            |reason: String| PullError::Network { url: settings.endpoint.clone(), reason, completed: 0 };
        // Installed once per process; later calls find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.connect)
            .read_timeout(settings.silence)
            .user_agent(concat!("potluck/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let origin = Url::parse(&settings.endpoint).ok().map(|u| url_origin::of(&u));
        Ok(Self { client, settings, origin })
    }

    /// A GET that follows redirects by itself. `range`: the first byte wanted, if the file is still this version.
    pub(super) async fn get(
        &self,
        url: &str,
        range: Option<u64>,
        version: Option<&str>,
    ) -> Result<Response, Failure> {
        let protocol = |url: &Url, reason: &str| {
            Failure::Final(PullError::Protocol { url: shown(url.as_str()), reason: reason.to_owned() })
        };
        let mut at = Url::parse(url)
            .map_err(|e| Failure::Final(PullError::Protocol { url: shown(url), reason: e.to_string() }))?;
        for _ in 0..MAX_HOPS {
            let mut headers = HeaderMap::new();
            if let Some(token) =
                self.settings.token.as_ref().filter(|_| self.origin == Some(url_origin::of(&at)))
            {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                headers.extend(value.ok().map(|v| (AUTHORIZATION, v)));
            }
            if let Some(first) = range {
                let value = HeaderValue::from_str(&format!("bytes={first}-"));
                headers.extend(value.ok().map(|v| (RANGE, v)));
                let version = version.and_then(|v| HeaderValue::from_str(v).ok());
                headers.extend(version.map(|v| (IF_RANGE, v)));
            }
            let response = self.client.get(at.clone()).headers(headers).send().await;
            let response = response.map_err(|e| Failure::Again(describe(&e), None))?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return refuse(response, &at);
            }
            let next =
                response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).and_then(|l| at.join(l).ok());
            let next = next.ok_or_else(|| protocol(&at, "a redirect without a usable address"))?;
            if !matches!(next.scheme(), "https" | "http")
                || (at.scheme() == "https" && next.scheme() == "http")
            {
                return Err(protocol(&at, "a redirect from https to something less safe"));
            }
            at = next;
        }
        Err(protocol(&at, "too many redirects"))
    }

    /// The file that a reference means.
    pub(super) async fn resolve(&self, reference: &PullReference) -> Result<Target, PullError> {
        match reference {
            PullReference::Address { url, file } => {
                if let Some((_, parts)) = quant::split_part(file) {
                    return Err(PullError::Split { file: file.clone(), parts });
                }
                Ok(Target {
                    name: quant::stem(file).to_owned(),
                    file: file.clone(),
                    url: url.clone(),
                    source: url.clone(),
                    size: None,
                    digest: None,
                    magic: GGUF,
                    most: MAX_SIZE,
                })
            }
            PullReference::Hub { user, repo, quant } => {
                let files = self.list(user, repo).await?;
                let file = pick(&format!("{user}/{repo}"), &files, quant.as_deref())?;
                let path: Vec<String> = file.path.split('/').map(encode).collect();
                Ok(Target {
                    name: format!("{user}/{repo}:{}", quant::tag_of(&file.path)),
                    file: file.path.rsplit('/').next().unwrap_or(&file.path).to_owned(),
                    url: format!("{}/{user}/{repo}/resolve/main/{}", self.settings.endpoint, path.join("/")),
                    source: format!("hf.co/{user}/{repo}/{}", file.path),
                    size: file.lfs.as_ref().map(|l| l.size).or(file.size),
                    digest: file.lfs.as_ref().and_then(|l| crate::inference::caches::digest_of(&l.oid)),
                    magic: GGUF,
                    most: MAX_SIZE,
                })
            }
        }
    }

    async fn list(&self, user: &str, repo: &str) -> Result<Vec<Listed>, PullError> {
        let url = format!("{}/api/models/{user}/{repo}/tree/main?recursive=true", self.settings.endpoint);
        let bytes = self.page(&url).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| PullError::Protocol { url, reason: format!("no list of files: {e}") })
    }

    /// A small page, asked for again when the server hiccups.
    pub(super) async fn page(&self, url: &str) -> Result<Vec<u8>, PullError> {
        let mut tries = 0;
        loop {
            let failure = match self.get(url, None, None).await {
                Ok(response) => match self.body(response).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            tries += 1;
            match failure {
                Failure::Again(_, wait) if tries < self.settings.tries.min(4) => {
                    tokio::time::sleep(wait.unwrap_or(self.settings.pause * tries)).await;
                }
                Failure::Again(reason, _) => {
                    return Err(PullError::Network { url: shown(url), reason, completed: 0 });
                }
                Failure::Final(error) => return Err(error),
            }
        }
    }

    /// A whole body up to [`MAX_LIST`].
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let url = shown(response.url().as_str());
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= MAX_LIST => bytes.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    let reason = format!("a list of files larger than {MAX_LIST} bytes");
                    return Err(Failure::Final(PullError::Protocol { url, reason }));
                }
                Ok(None) => return Ok(bytes),
                Err(error) => return Err(Failure::Again(describe(&error), None)),
            }
        }
    }
}

/// An address without its query, which may hold signatures, and without name and password.
pub(super) fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let after = host.rsplit_once('@').map_or(0, |(user, _)| user.len() + 1);
            format!("{scheme}://{}", rest.get(after..).unwrap_or_default())
        }
        None => bare.to_owned(),
    }
}

/// An error with its causes, without the address.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut out = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(this) = cause {
        let text = this.to_string();
        if !out.contains(&text) && !text.contains("://") {
            if !out.is_empty() {
                out.push_str(": ");
            }
            out.push_str(&text);
        }
        cause = this.source();
    }
    if out.is_empty() { "the connection failed".into() } else { out }
}

/// Sorts answers that are no content into typed errors.
fn refuse(response: Response, url: &Url) -> Result<Response, Failure> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let what = url.path().trim_start_matches('/').trim_start_matches("api/models/").to_owned();
    match response.status().as_u16() {
        200 | 206 | 416 => Ok(response),
        status @ (401 | 403) => Err(Failure::Final(PullError::Forbidden { host, what, status })),
        404 | 410 => Err(Failure::Final(PullError::NotFound { host, what })),
        status @ (408 | 425 | 429 | 500..=599) => {
            let header =
                response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
            let wait = header.map(|s| std::time::Duration::from_secs(s.min(60)));
            Err(Failure::Again(format!("{host} answers {status}"), wait))
        }
        status => {
            let reason = format!("status {status}");
            Err(Failure::Final(PullError::Protocol { url: shown(url.as_str()), reason }))
        }
    }
}

/// A path segment of an address.
fn encode(part: &str) -> String {
    let mut out = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// One file of a repository.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) path: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// The file that was asked for, or the one most people want.
pub(super) fn pick<'a>(
    repo: &str,
    files: &'a [Listed],
    asked: Option<&str>,
) -> Result<&'a Listed, PullError> {
    let name = |f: &Listed| f.path.rsplit('/').next().unwrap_or(&f.path).to_ascii_lowercase();
    let mut models: Vec<&Listed> =
        files.iter().filter(|f| name(f).ends_with(".gguf") && !name(f).contains("mmproj")).collect();
    models.sort_by_key(|f| (f.path.len(), f.path.clone()));
    let found = match asked {
        Some(asked) => {
            let want = asked.to_ascii_lowercase();
            let stem = |f: &Listed| quant::stem(&name(f)).to_owned();
            let by_quant = |f: &&&Listed| quant::of(&f.path).is_some_and(|q| q.eq_ignore_ascii_case(asked));
            let by_name = |f: &&&Listed| name(f) == want || stem(f) == want;
            let by_end = |f: &&&Listed| {
                stem(f).ends_with(&format!("-{want}")) || stem(f).ends_with(&format!(".{want}"))
            };
            let fits = models.iter().find(by_name).or_else(|| models.iter().find(by_quant));
            fits.or_else(|| models.iter().find(by_end)).copied()
        }
        None => {
            let whole: Vec<&Listed> =
                models.iter().filter(|f| quant::split_part(&f.path).is_none()).copied().collect();
            let from = if whole.is_empty() { &models } else { &whole };
            let rank = |f: &Listed| {
                let quant = quant::of(&f.path);
                quant::PREFERRED.iter().position(|p| Some(*p) == quant).unwrap_or(usize::MAX)
            };
            from.iter().min_by_key(|f| rank(f)).copied()
        }
    };
    let Some(file) = found else {
        let mut available: Vec<String> = models.iter().map(|f| quant::tag_of(&f.path)).collect();
        available.dedup();
        available.truncate(MAX_NAMES);
        if available.is_empty() {
            available.push("no GGUF file at all".into());
        }
        let asked = asked.unwrap_or("a GGUF file").to_owned();
        return Err(PullError::NoSuchFile { repo: repo.to_owned(), asked, available });
    };
    match quant::split_part(&file.path) {
        Some((_, parts)) => Err(PullError::Split { file: name(file), parts }),
        None => Ok(file),
    }
}
