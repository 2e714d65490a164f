//! Secrets known by their place: in a header, behind an option of a command, in a file of a known form.

use std::sync::LazyLock;

use regex::Regex;

use super::SecretKind::{self, *};
use super::scan::{Rank, Scan, compile};
use super::value;

/// How a value has to look where its place alone does not say enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Anything that is no placeholder and no reference.
    Any,
    /// Varied letters and digits.
    Body,
    /// Made by chance, 16 characters or more.
    Random,
}

/// A place: what it begins with and the form that follows; group 1 is the secret.
struct Rule {
    kind: SecretKind,
    anchors: &'static [&'static str],
    pattern: &'static str,
    look: Look,
}

const fn rule(kind: SecretKind, anchors: &'static [&'static str], look: Look, pattern: &'static str) -> Rule {
    Rule { kind, anchors, pattern, look }
}

const RULES: &[Rule] = &[
    rule(
        BearerToken,
        &["authorization"],
        Look::Body,
        concat!(
            r#"(?i)^authorization["'\]]*[ \t]*[:=,)][ \t]*\\?["'`]?[ \t]*(?:f["'])?(?:bearer|token|apikey|a"#,
            r#"pi-key|splunk|genie ?key|ssws|key|bot|klaviyo-api-key)[ \t:=]+["']?([A-Za-z0-9_.~+/=:%-]{8,}"#,
            r#")"#,
        ),
    ),
    rule(
        BasicAuth,
        &["authorization"],
        Look::Body,
        r#"(?i)^authorization["'\]]*[ \t]*[:=,)][ \t]*\\?["'`]?[ \t]*basic[ \t]+([A-Za-z0-9+/_-]{8,}={0,2})"#,
    ),
    rule(
        BearerToken,
        &["authorization"],
        Look::Random,
        r#"(?i)^authorization["'\]]*[ \t]*[:=,][ \t]*\\?["'`]?[ \t]*([A-Za-z0-9_.~+/=-]{16,})"#,
    ),
    rule(BearerToken, &["bearer "], Look::Random, r#"(?i)^bearer[ \t]+["']?([A-Za-z0-9_.~+/=-]{16,})"#),
    rule(BasicAuth, &["basic "], Look::Random, r"(?i)^basic[ \t]+([A-Za-z0-9+/_-]{16,}={0,2})"),
    rule(
        Password,
        &["curl", "wget", "http "],
        Look::Any,
        concat!(
            r#"^(?:curl|wget|https?)\b[^\n]{0,300}?\s(?:-[a-zA-Z]*u|--user|--proxy-user|-a|--auth)[ =]?["']"#,
            r#"?[^\s:"'-][^\s:"']{0,80}:([^\s"']{3,})"#,
        ),
    ),
    rule(
        Password,
        &["mysql", "mariadb"],
        Look::Any,
        r#"^(?:mysql|mariadb)[a-z]*\b[^\n]{0,200}?\s-p["']?([^\s"'-][^\s"']{2,})"#,
    ),
    rule(Password, &["sshpass"], Look::Any, r#"^sshpass\s+-p\s*["']?([^\s"']{3,})"#),
    rule(Password, &["redis-cli"], Look::Any, r#"^redis-cli\b[^\n]{0,200}?\s-a\s+["']?([^\s"']{3,})"#),
    rule(
        Password,
        &[
            "docker login",
            "podman login",
            "helm registry login",
            "az login",
            "oc login",
            "npm login",
            "mongosh",
            "mongo ",
        ],
        Look::Any,
        r#"^(?:docker|podman|helm|az|oc|npm|mongo)[a-z ]*\b[^\n]{0,200}?\s-p[ =]?["']?([^\s"'-][^\s"']{2,})"#,
    ),
    rule(
        Password,
        &["ldapsearch", "ldapadd", "ldapmodify"],
        Look::Any,
        r#"^ldap[a-z]+\b[^\n]{0,200}?\s-w\s*["']?([^\s"']{3,})"#,
    ),
    rule(
        Password,
        &["htpasswd"],
        Look::Any,
        r#"^htpasswd\s+-[a-zA-Z]*b[a-zA-Z]*\s+(?:-[a-zA-Z]+\s+)*\S+\s+\S+\s+["']?([^\s"']{3,})"#,
    ),
    rule(
        Password,
        &["smbclient", "mount -t cifs"],
        Look::Any,
        r#"^(?:smbclient|mount)\b[^\n]{0,200}?-U\s*["']?[^\s%"']+%([^\s"']{3,})"#,
    ),
    rule(Password, &["net use"], Look::Any, r#"(?i)^net use\b[^\n]{0,200}?/user:\S+\s+["']?([^\s"'/]{3,})"#),
    rule(Password, &["chpasswd"], Look::Any, r#"^chpasswd\s*<<<\s*["']?[^\s:"']+:([^\s"']{3,})"#),
    rule(
        Password,
        &["echo ", "printf "],
        Look::Any,
        concat!(
            r#"^(?:echo|printf)\s+(?:-n\s+|'%s'\s+)?["']?(?:[a-z_][a-z0-9_-]*:)?([^\s"'|:]{3,})["']?\s*\|\s"#,
            r#"*(?:sudo\s+)?(?:-S\s+)?(?:chpasswd|docker login|podman login|sudo -S|gh auth login|passwd|cr"#,
            r#"yptsetup|helm registry|npm login|gpg --batch)"#,
        ),
    ),
    rule(
        Password,
        &["identified by", "with password", "identified with"],
        Look::Any,
        concat!(
            r#"(?i)^(?:identified (?:by|with \w+ by)|with (?:encrypted )?password)\s+(?:password\s+)?["'](["#,
            r#"^"'\s]{3,})["']"#,
        ),
    ),
    rule(
        Password,
        &["-passin", "-passout", "--passphrase"],
        Look::Any,
        r#"^-?-pass(?:in|out|phrase)[ =](?:pass:)?["']?([^\s"':]{3,})"#,
    ),
    rule(Password, &["pass:"], Look::Body, r#"^pass:([^\s"']{6,})"#),
    rule(
        Password,
        &["machine ", "default login"],
        Look::Any,
        r"^(?:machine\s+\S+\s+)?(?:default\s+)?login\s+\S+\s+password\s+(\S{3,})",
    ),
    rule(
        Password,
        &["ConvertTo-SecureString"],
        Look::Any,
        r#"(?i)^ConvertTo-SecureString\s+(?:-String\s+)?["']([^"']{3,})["']"#,
    ),
    rule(
        Password,
        &["BasicAuth(", "basicAuth(", "HTTPBasicAuth(", "auth=(", "basic_auth(", ".login("],
        Look::Body,
        r#"(?i)^[a-z_.]*(?:auth|login)=?\(\s*["'][^"'\n]{1,80}["']\s*,\s*(?:Some\()?["']([^"'\n]{4,})["']"#,
    ),
    rule(
        WifiPassword,
        &["WIFI:"],
        Look::Any,
        r"(?i)^WIFI:(?:[STHEAI]+:(?:\\.|[^;\\\n])*;)*P:((?:\\.|[^;\\\n]){4,})",
    ),
    rule(
        NpmToken,
        &["_authToken", "_auth=", "_auth ="],
        Look::Body,
        r#"^_auth(?:Token)?\s*[=:]\s*["']?([A-Za-z0-9_.+/=-]{8,})"#,
    ),
    rule(DockerToken, &["\"auth\""], Look::Body, r#"^"auth"\s*:\s*"([A-Za-z0-9+/]{12,}={0,2})""#),
    rule(
        PotluckInvite,
        &["potluck:"],
        Look::Random,
        r"(?i)^potluck:(?://)?(?:invite[/:?])?([A-Za-z0-9_.=-]{24,})",
    ),
    rule(
        PotluckInvite,
        &["potluck join"],
        Look::Random,
        r#"^potluck join\s+(?:--?[a-z-]+[ =])?["']?([A-Za-z0-9_.:/=-]{20,})"#,
    ),
    rule(
        TwilioKey,
        &["AC"],
        Look::Random,
        r#"^AC[0-9a-f]{32}["']?\s*(?:[:,/|]|and|auth\w*|token|=|\s){1,4}\s*["']?([0-9a-f]{32})\b"#,
    ),
    rule(PasswordHash, &[":$1$", ":$5$", ":$6$", ":$y$"], Look::Any, r"^:(\$[156y]\$[^\s:]{20,})"),
    rule(AzureSecret, &["sig="], Look::Random, r"^sig=([A-Za-z0-9%+/]{40,}(?:%3D|=){0,2})"),
    rule(OtpSecret, &["secret="], Look::Any, r"^secret=([A-Z2-7]{16,})\b"),
    rule(
        Password,
        &["login", "creds", "credentials", "log in", "sign in", "username", "user"],
        Look::Body,
        concat!(
            r#"(?i)^(?:login|creds|credentials|log in|sign in|username|user)(?:[ \t]+(?:is|are|as|with|usin"#,
            r#"g|details))?[ \t]*:?[ \t]+["'`]?[A-Za-z0-9_.@+-]{2,40}["'`]?[ \t]*(?:/|\||with|and|,)[ \t]*("#,
            r#"?:(?:the[ \t]+)?(?:pass(?:word)?|pw|pwd)[ \t:=]+)?["'`]?([^\s"'`,;/]{6,64})"#,
        ),
    ),
    rule(
        Password,
        &["creds", "credentials", "login"],
        Look::Body,
        concat!(
            r#"(?i)^(?:creds|credentials|login)(?:[ \t]+(?:is|are|for[ \t]+\S+))?[ \t]*[:=]?[ \t]+["'`]?[A-"#,
            r#"Za-z0-9_.@+-]{2,40}:([^\s"'`,;/]{6,64})"#,
        ),
    ),
];

static COMPILED: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| RULES.iter().map(|rule| compile(rule.pattern)).collect());

/// The anchors, each with the rule it wakes.
pub(super) fn anchors() -> impl Iterator<Item = (&'static str, usize)> {
    RULES.iter().enumerate().flat_map(|(at, rule)| rule.anchors.iter().map(move |anchor| (*anchor, at)))
}

/// Whether a rule's anchors count only in their own case.
pub(super) fn is_exact(index: usize) -> bool {
    RULES.get(index).is_some_and(|rule| !rule.pattern.contains("(?i)"))
}

/// The patterns that do not compile; for a test.
#[cfg(test)]
pub(super) fn bad() -> Vec<&'static str> {
    let pairs = RULES.iter().zip(COMPILED.iter());
    pairs.filter(|(_, regex)| regex.is_none()).map(|(rule, _)| rule.pattern).collect()
}

/// Looks at the place that may begin at `start`.
pub(super) fn at(scan: &mut Scan<'_>, index: usize, start: usize) {
    let (Some(rule), Some(Some(regex))) = (RULES.get(index), COMPILED.get(index)) else { return };
    if !scan.begins(start) {
        return;
    }
    let window = scan.window(start, if rule.kind == BearerToken { 4096 } else { 600 });
    let Some(found) = regex.captures(window).and_then(|c| c.get(1)) else { return };
    let secret = found.as_str().trim_end_matches(['.', ',', ')', '"', '\'']);
    if fits(rule.look, secret) && !is_invite_talk(scan, rule.kind, start, window) {
        scan.push(start + found.start(), start + found.start() + secret.len(), rule.kind, Rank::Place);
    }
}

fn fits(look: Look, secret: &str) -> bool {
    if value::is_placeholder(secret) || value::is_reference(secret, false) {
        return false;
    }
    match look {
        Look::Any => !value::is_state(secret) || secret.contains(|c: char| c.is_ascii_digit()),
        Look::Body => is_strong(secret),
        Look::Random => value::is_random(secret),
    }
}

/// Whether a value of 4 characters or more mixes letters with digits or symbols, and is no term of the trade.
fn is_strong(secret: &str) -> bool {
    let shape = value::shape(secret);
    let mixed = shape.letters() > 0 && (shape.digit > 0 || shape.symbol > 0 && shape.upper > 0);
    let chance = shape.len >= 12 && value::is_body(secret);
    (mixed || chance) && !value::is_technical(secret) && !secret.contains("://") && shape.distinct > 3
}

/// Whether a Potluck address stands without a word of an invite: then it is a name and not a capability.
fn is_invite_talk(scan: &mut Scan<'_>, kind: SecretKind, start: usize, window: &str) -> bool {
    if kind != PotluckInvite || window.starts_with("potluck join") {
        return false;
    }
    let before = scan.before(start, 80).to_ascii_lowercase();
    let own = window.get(..24.min(window.len())).unwrap_or_default().to_ascii_lowercase();
    !["invite", "join", "invitation"].iter().any(|cue| before.contains(cue) || own.contains(cue))
}
