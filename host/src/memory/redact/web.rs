//! Secrets in URLs and cookies.

use std::sync::LazyLock;

use regex::Regex;

use super::SecretKind;
use super::scan::{Rank, Scan, compile};
use super::value;

/// What cookies that stand for a session are named by, and the headers they travel in.
pub(super) const COOKIE_ANCHORS: &[&str] = &[
    "Cookie:",
    "Cookie\":",
    "Cookie':",
    "cookies=",
    "--cookie",
    "document.cookie",
    "PHPSESSID",
    "JSESSIONID",
    "connect.sid",
    "sessionid",
    "ASP.NET_SessionId",
    "ASPXAUTH",
    "laravel_session",
    "_session=",
    "session-token",
    "session_token",
    "cf_clearance",
    "wordpress_logged_in",
    "csrftoken",
    "XSRF-TOKEN",
    "remember_token",
    "ASPSESSIONID",
    "CFTOKEN",
    "user_session",
    "__Host-",
    "__Secure-",
    "session=",
    "session_key=",
    "sid=",
];

/// Schemes of databases and queues, whose passwords have a kind of their own.
const DATABASES: &[&str] = &[
    "postgres",
    "mysql",
    "mariadb",
    "mongodb",
    "redis",
    "amqp",
    "mssql",
    "sqlserver",
    "oracle",
    "clickhouse",
    "cockroach",
    "cassandra",
    "neo4j",
    "bolt",
    "memcached",
    "couchdb",
    "influx",
    "jdbc",
    "nats",
    "kafka",
    "sqlite",
    "libsql",
    "valkey",
    "snowflake",
    "db2",
];

static AUTHORITY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    compile(r#"^([^\s/@:?#"'<>\\]{0,256})(?::([^\s"'<>\\]{1,512}?))?@([A-Za-z0-9\[$%{][^\s"'<>]*)"#)
});

/// Looks at the part of a URL between `://` and the host.
pub(super) fn at_url(scan: &mut Scan<'_>, start: usize, end: usize) {
    let window = scan.window(end, 800);
    let stop = window
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`'))
        .unwrap_or(window.len());
    let url = window.get(..stop).unwrap_or_default();
    if let Some(at) = url.find('@')
        && !url.get(..at).is_some_and(|head| head.contains('/') && !head.contains(':'))
    {
        credentials(scan, start, end, url);
    }
    webhook(scan, end, url);
}

fn credentials(scan: &mut Scan<'_>, start: usize, end: usize, url: &str) {
    // A password may hold `@` and `/`, as long as what follows the last `@` is a host.
    let Some(found) = AUTHORITY.as_ref().and_then(|regex| regex.captures(url)) else { return };
    let user = found.get(1).map_or("", |m| m.as_str());
    let before = scan.before(start, 24).to_ascii_lowercase();
    let database = DATABASES.iter().any(|name| before.contains(name));
    let kind = if database { SecretKind::DatabasePassword } else { SecretKind::UrlCredentials };
    if let Some(pass) = found.get(2) {
        let mut stop = pass.end();
        let tail = url.get(stop..).unwrap_or_default();
        // The host begins behind the last `@` before the path.
        if !pass.as_str().contains('/') {
            let authority = tail.split(['/', '?', '#']).next().unwrap_or_default();
            stop += authority.rfind('@').unwrap_or(0);
        }
        let secret = url.get(pass.start()..stop).unwrap_or_default();
        if is_url_password(secret) {
            scan.push(end + pass.start(), end + stop, kind, Rank::Place);
        }
        // `https://TOKEN:x-oauth-basic@host` has it the other way round.
        if user.len() >= 20 && value::is_random(user) {
            scan.push(end, end + user.len(), kind, Rank::Place);
        }
    } else if user.len() >= 16 && value::is_random(user) {
        scan.push(end, end + user.len(), kind, Rank::Place);
    }
}

fn is_url_password(secret: &str) -> bool {
    let port = secret.split(['/', '?']).next().unwrap_or_default();
    let path = port.len() < secret.len() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let variable = secret.starts_with('$') || secret.starts_with('{') || secret.starts_with('%');
    let filled = !variable || secret.contains(|c: char| c.is_ascii_digit());
    !path && filled && !value::is_placeholder(secret)
}

static WEBHOOK: LazyLock<Vec<(SecretKind, Regex)>> = LazyLock::new(|| {
    [
        (
            SecretKind::SlackWebhook,
            r"^hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_+-]{20,})",
        ),
        (
            SecretKind::DiscordWebhook,
            r"^(?:[a-z]+\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/(\d{15,21}/[A-Za-z0-9_-]{40,})",
        ),
        (SecretKind::MessagingToken, r"^[a-z0-9-]+\.webhook\.office\.com/(webhookb2/[A-Za-z0-9@/-]{60,})"),
        (SecretKind::OtpSecret, r"^(?:totp|hotp)/[^?\s]*\?(?:[a-z]+=[^&\s]*&)*secret=([A-Za-z2-7=]{12,})"),
        (SecretKind::TelegramToken, r"^api\.telegram\.org/(?:file/)?bot(\d{6,12}:[A-Za-z0-9_-]{25,})"),
        (SecretKind::MonitoringToken, r"^([a-f0-9]{32}(?::[a-f0-9]{32})?)@[a-z0-9.-]*sentry\.io/"),
        (SecretKind::AzureSecret, r"^[^\s?]+\?[^\s]*?\bsig=([A-Za-z0-9%+/=]{30,})"),
        (SecretKind::CloudToken, r"^[^\s?]+\?[^\s]*?X-(?:Amz|Goog)-Signature=([a-f0-9]{64,})"),
        (SecretKind::CloudToken, r"^[^\s?]+\?[^\s]*?X-Amz-Security-Token=([A-Za-z0-9%+/=]{60,})"),
    ]
    .into_iter()
    .filter_map(|(kind, pattern)| compile(pattern).map(|regex| (kind, regex)))
    .collect()
});

/// How many of the webhook patterns compile; for a test.
#[cfg(test)]
pub(super) fn sound() -> (usize, bool) {
    (WEBHOOK.len(), AUTHORITY.is_some())
}

fn webhook(scan: &mut Scan<'_>, end: usize, url: &str) {
    if url.len() < 40 {
        return;
    }
    for (kind, regex) in WEBHOOK.iter() {
        if let Some(found) = regex.captures(url).and_then(|c| c.get(1))
            && value::is_body(found.as_str())
        {
            scan.push(end + found.start(), end + found.end(), *kind, Rank::Place);
        }
    }
}

static PAIR: LazyLock<Option<Regex>> =
    LazyLock::new(|| compile(r#"([A-Za-z0-9_.$-]{1,80})["']?(?:=|:[ \t]*["'])([^;\s"',]{6,})"#));

/// Looks at the cookies of the line that an anchor stands in.
pub(super) fn at_cookie(scan: &mut Scan<'_>, start: usize) {
    let before = scan.before(start, 80);
    let back = before.len()
        - before.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c))).map_or(0, |at| at + 1);
    let from = start - back.min(start);
    let window = scan.window(from, 1200);
    let line = window.split(['\n', '\r']).next().unwrap_or_default();
    let header = line.to_ascii_lowercase().find("cookie").is_some_and(|at| at < 16);
    let Some(regex) = PAIR.as_ref() else { return };
    for (n, found) in regex.captures_iter(line).enumerate() {
        let (Some(name), Some(secret)) = (found.get(1), found.get(2)) else { continue };
        if !header && n > 0 {
            break;
        }
        if is_session(name.as_str(), secret.as_str(), header) {
            scan.push(from + secret.start(), from + secret.end(), SecretKind::SessionCookie, Rank::Place);
        }
    }
}

/// Whether a cookie of this name and value stands for a session.
fn is_session(name: &str, secret: &str, header: bool) -> bool {
    const NAMES: [&str; 12] = [
        "sess",
        "sid",
        "auth",
        "token",
        "jwt",
        "csrf",
        "xsrf",
        "clearance",
        "logged_in",
        "remember",
        "login",
        "secure-",
    ];
    const TRACKING: [&str; 6] = ["_ga", "_gid", "_fbp", "utm", "consent", "__cfruid"];
    let lower = name.to_ascii_lowercase();
    if TRACKING.iter().any(|tracking| lower.starts_with(tracking))
        || value::is_placeholder(secret)
        || value::is_reference(secret, false)
    {
        return false;
    }
    let named = NAMES.iter().any(|part| lower.contains(part));
    let uuid = secret.len() == 36 && secret.matches('-').count() == 4;
    // "session=" also names what is no cookie: a number, or an identifier in a log.
    let telling = header || !(lower == "session" || lower == "sid" || lower.ends_with("_session")) || !uuid;
    let shape = value::shape(secret);
    let short = named && header && shape.len >= 8 && shape.digit > 0 && shape.letters() > 0;
    (named && telling && value::is_random(secret))
        || short
        || (header && value::is_random(secret) && shape.len >= 24)
}
