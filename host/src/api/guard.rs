//! Who may ask at all: host name, browser origin, key; and which mode a request runs in.
//!
//! A loopback node answers without a key unless one is required, but only under a loopback host name (a
//! rebound DNS name is refused) and never to another site's page unless its origin was allowed. A node
//! that listens anywhere else answers nothing but `/healthz` without a key.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use potluck_primitives::MicroCredits;
use sha2::{Digest, Sha256};

use super::{Api, ApiError, MODE_HEADER, PRICE_HEADER};
use crate::{
    config::ApiKey,
    job::{Mode, Spend},
};

/// Who asks, as the guard found out. Every request carries it as an extension.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Modes it may use.
    pub modes: Vec<Mode>,
    /// Mode of its requests that name none.
    pub mode: Mode,
    /// Whether it may manage models.
    pub admin: bool,
    /// Whether it may read and write the memory.
    pub memory: bool,
    /// The name of its key; `None`: the owner's token, or no key.
    pub key: Option<String>,
}

/// The outermost check of every request.
pub(super) async fn check(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match admit(&api, request.method(), request.uri(), request.headers()) {
        Err(error) => error.respond(&path),
        Ok(admitted) => {
            let preflight = request.method() == Method::OPTIONS && admitted.origin.is_some();
            request.extensions_mut().insert(admitted.caller);
            let mut response =
                if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
            if let Some(origin) = admitted.origin {
                allow(response.headers_mut(), origin);
            }
            response
        }
    }
}

struct Admitted {
    caller: Caller,
    /// The allowed origin of another site, for the CORS headers.
    origin: Option<HeaderValue>,
}

fn admit(api: &Api, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Admitted, ApiError> {
    let config = &api.settings.config;
    let loopback = api.settings.address.ip().is_loopback();
    let host = uri
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .or_else(|| headers.get(header::HOST)?.to_str().ok().map(str::to_owned));
    // A request without a host name comes from no browser.
    if let Some(name) = host.as_deref().map(host_name).filter(|_| loopback)
        && !is_loopback_name(name)
        && !config.http.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    {
        let message = format!(
            "this node is not known as `{name}`; ask it as 127.0.0.1 or localhost, or add the name to http.hosts"
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
    }
    let origin = foreign_origin(headers, host.as_deref(), &config.http.origins, uri.path())?;
    if method == Method::OPTIONS && origin.is_some() {
        // A preflight carries no key by design.
        let (modes, mode) = (Vec::new(), config.mode);
        let caller = Caller { modes, mode, admin: false, memory: false, key: None };
        return Ok(Admitted { caller, origin });
    }
    let token = presented(headers);
    let caller = if token.is_some_and(|token| same(&digest(token), &digest(&api.settings.admin_token))) {
        owner(config.mode)
    } else if let Some(key) = token.and_then(|token| find(&config.http.keys, token)) {
        Caller {
            modes: key.modes.clone(),
            mode: key.mode.unwrap_or_else(|| default_of(&key.modes, config.mode)),
            admin: key.admin,
            memory: key.memory,
            key: Some(key.name.clone()),
        }
    } else if uri.path() == "/healthz" || (loopback && !config.http.require_key) {
        owner(config.mode)
    } else {
        let message = if token.is_some() {
            "this key is not known here; ask the node's owner for one"
        } else {
            "a key is needed: send it as `Authorization: Bearer KEY`"
        };
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"));
    };
    Ok(Admitted { caller, origin })
}

fn owner(mode: Mode) -> Caller {
    let modes = vec![Mode::Local, Mode::Trusted, Mode::Public];
    Caller { modes, mode, admin: true, memory: true, key: None }
}

fn default_of(modes: &[Mode], wanted: Mode) -> Mode {
    if modes.contains(&wanted) { wanted } else { modes.iter().min().copied().unwrap_or(wanted) }
}

/// The name in `name:port` or `[v6]:port`.
fn host_name(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback_name(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `Some` for another site's page that may ask, an error for one that may not.
fn foreign_origin(
    headers: &HeaderMap,
    host: Option<&str>,
    allowed: &[String],
    path: &str,
) -> Result<Option<HeaderValue>, ApiError> {
    let refused = |who: &str| {
        let message =
            format!("pages of {who} may not ask this node; its owner can add the origin to http.origins");
        Err(ApiError::new(StatusCode::FORBIDDEN, message).code("origin_not_allowed"))
    };
    let Some(origin) = headers.get(header::ORIGIN) else {
        let cross = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        let navigation = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
        if cross && !(navigation && path == "/") {
            return refused("another site");
        }
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or("null");
    let same_site = text
        .split_once("://")
        .is_some_and(|(_, authority)| host.is_some_and(|host| authority.eq_ignore_ascii_case(host)));
    if same_site {
        return Ok(None);
    }
    if allowed.iter().any(|known| known == "*" || known.trim_end_matches('/').eq_ignore_ascii_case(text)) {
        return Ok(Some(origin.clone()));
    }
    refused(text)
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PATCH, DELETE"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "authorization, content-type, accept, x-api-key, x-potluck-mode, x-potluck-max-price, mcp-session-id, \
             mcp-protocol-version, mcp-method, mcp-name, last-event-id",
        ),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "x-potluck-mode, x-potluck-node, x-potluck-job, x-potluck-cost, x-potluck-audit, \
             x-potluck-receipt, retry-after, mcp-session-id",
        ),
    );
}

/// The key a request carries.
fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get("x-api-key") {
        return value.to_str().ok();
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn find<'a>(keys: &'a [ApiKey], token: &str) -> Option<&'a ApiKey> {
    let presented = digest(token);
    let mut found = None;
    for key in keys {
        let known = match (&key.token, &key.sha256) {
            (Some(token), _) => digest(token),
            (None, Some(hex)) => unhex(hex),
            (None, None) => continue,
        };
        // Every key is compared, so that time says nothing about which one matched.
        if same(&known, &presented) {
            found = Some(key);
        }
    }
    found
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn unhex(hex: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte =
            std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    bytes
}

/// Compares in constant time.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

/// The model without its mode suffix, and the mode: header, then suffix, then the caller's default.
///
/// # Errors
/// 400 for a word that is no mode, 403 for a mode the caller may not use.
pub(crate) fn resolve(headers: &HeaderMap, model: &str, caller: &Caller) -> Result<(String, Mode), ApiError> {
    let unknown = |error: crate::job::UnknownMode, param: &str| {
        let mut refusal = ApiError::invalid(param, error);
        refusal.code = Some("unknown_mode");
        refusal
    };
    let (name, suffix) = match model.rsplit_once('@') {
        Some((name, word)) if !name.is_empty() => {
            (name, Some(word.parse::<Mode>().map_err(|error| unknown(error, "model"))?))
        }
        _ => (model, None),
    };
    let header = match headers.get(MODE_HEADER) {
        None => None,
        Some(value) => {
            let word = value.to_str().unwrap_or("?");
            Some(word.parse::<Mode>().map_err(|error| unknown(error, "x-potluck-mode"))?)
        }
    };
    let mode = header.or(suffix).unwrap_or(caller.mode);
    if !caller.modes.contains(&mode) {
        let message = format!("this key may not use mode `{mode}`");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).code("mode_not_allowed"));
    }
    Ok((name.to_owned(), mode))
}

/// What a caller's request may cost: header [`PRICE_HEADER`], in credits for the whole request.
///
/// # Errors
/// 400 for a header that is no sum of credits.
pub(crate) fn spend(headers: &HeaderMap, caller: &Caller) -> Result<Spend, ApiError> {
    let max_price = match headers.get(PRICE_HEADER) {
        None => None,
        Some(value) => {
            let amount = value.to_str().unwrap_or("?").trim().parse::<MicroCredits>();
            let amount = amount.map_err(|error| ApiError::invalid("x-potluck-max-price", error))?;
            Some(u64::try_from(amount.0).unwrap_or(u64::MAX))
        }
    };
    Ok(Spend { max_price, key: caller.key.clone() })
}

/// Refuses a caller that may not manage models.
///
/// # Errors
/// 403.
pub(crate) fn admin_only(caller: &Caller) -> Result<(), ApiError> {
    if caller.admin {
        return Ok(());
    }
    let message = "this key may not manage models; the node's owner can set `admin = true` for it";
    Err(ApiError::new(StatusCode::FORBIDDEN, message).code("admin_only"))
}

/// Refuses a caller that may not use the memory.
///
/// # Errors
/// 403.
pub(crate) fn memory_only(caller: &Caller) -> Result<(), ApiError> {
    if caller.memory {
        return Ok(());
    }
    let message = "this key may not use the memory; the node's owner can set `memory = true` for it";
    Err(ApiError::new(StatusCode::FORBIDDEN, message).code("memory_only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        for host in ["127.0.0.1:7685", "localhost", "LOCALHOST:1", "[::1]:7685", "a.localhost:3", "127.1.2.3"]
        {
            assert!(is_loopback_name(host_name(host)), "{host}");
        }
        for host in ["evil.example:7685", "127.0.0.1.evil.example", "", "10.0.0.1", "localhost.evil"] {
            assert!(!is_loopback_name(host_name(host)), "{host}");
        }
    }

    #[test]
    fn foreign_pages_are_refused_unless_allowed() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
        let host = Some("127.0.0.1:7685");
        assert!(foreign_origin(&headers, host, &[], "/v1/models").is_err());
        assert!(foreign_origin(&headers, host, &["https://evil.example/".into()], "/").unwrap().is_some());
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://127.0.0.1:7685"));
        assert!(foreign_origin(&headers, host, &[], "/").unwrap().is_none());
        headers.insert(header::ORIGIN, HeaderValue::from_static("null"));
        assert!(foreign_origin(&headers, host, &[], "/").is_err());
    }

    #[test]
    fn the_strongest_word_names_the_mode() {
        let caller = Caller {
            modes: vec![Mode::Local, Mode::Trusted],
            mode: Mode::Local,
            admin: false,
            memory: false,
            key: None,
        };
        let mut headers = HeaderMap::new();
        assert_eq!(resolve(&headers, "m", &caller).unwrap(), ("m".into(), Mode::Local));
        assert_eq!(resolve(&headers, "m@trusted", &caller).unwrap(), ("m".into(), Mode::Trusted));
        assert_eq!(resolve(&headers, "m@public", &caller).unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(resolve(&headers, "m@moon", &caller).unwrap_err().status, StatusCode::BAD_REQUEST);
        headers.insert(MODE_HEADER, HeaderValue::from_static("local"));
        assert_eq!(resolve(&headers, "m@public", &caller).unwrap(), ("m".into(), Mode::Local));
    }

    #[test]
    fn what_a_request_may_cost_is_read_in_credits_and_goes_to_its_keys_budget() {
        let caller = Caller {
            modes: vec![Mode::Public],
            mode: Mode::Public,
            admin: false,
            memory: false,
            key: Some("guest".into()),
        };
        let mut headers = HeaderMap::new();
        let none = spend(&headers, &caller).unwrap();
        assert_eq!((none.max_price, none.key.as_deref()), (None, Some("guest")));
        headers.insert(PRICE_HEADER, HeaderValue::from_static("0.25"));
        assert_eq!(spend(&headers, &caller).unwrap().max_price, Some(250_000));
        for wrong in ["", "-1", "1e3", "0.0000001", "free"] {
            headers.insert(PRICE_HEADER, HeaderValue::from_static(wrong));
            let refused = spend(&headers, &caller).unwrap_err();
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn keys_are_found_by_token_and_by_digest() {
        let key = |token: Option<&str>, sha256: Option<&str>| ApiKey {
            name: "k".into(),
            token: token.map(Into::into),
            sha256: sha256.map(Into::into),
            modes: vec![Mode::Local],
            mode: None,
            admin: false,
            memory: false,
            budget: None,
        };
        // printf %s abc | sha256sum
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let keys = [key(Some("abc-token"), None), key(None, Some(abc))];
        assert_eq!(find(&keys, "abc").unwrap().sha256.as_deref(), Some(abc));
        assert!(find(&keys, "abc-token").unwrap().token.is_some());
        assert!(find(&keys, "abd").is_none());
    }
}
