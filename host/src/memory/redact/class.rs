//! What a name announces: `DB_PASSWORD` a password, `clientSecret` a secret, `max_tokens` nothing.

use super::SecretKind;
use super::value;

/// What wakes a look at a name: a part of every name that can announce a secret.
pub(super) const NAMES: &[&str] = &[
    "passw",
    "passph",
    "passcode",
    "pwd",
    "pass",
    "pswd",
    "pw",
    "psk",
    "token",
    "secret",
    "key",
    "cred",
    "auth",
    "pin",
    "otp",
    "cvv",
    "cvc",
    "cvn",
    "jwt",
    "code",
    "invite",
    "bearer",
    "PAT",
    "creds",
    "senha",
    "parola",
    "heslo",
    "lösenord",
    "adgangskode",
    "salasana",
    "Passwort",
    "Kennwort",
    "wachtwoord",
    "contraseña",
    "contrasena",
    "clave",
    "mot de passe",
    "hasło",
    "haslo",
    "şifre",
    "пароль",
    "Пароль",
    "密码",
    "密碼",
    "パスワード",
    "비밀번호",
    "クレデンシャル",
    "كلمة المرور",
];

/// What sort of value a name announces, and with it how a value has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A password: short and made up by people, so nearly any value will do where the name is plain.
    Password,
    /// A password in a name that has other uses: `pass`, `pw`, `auth`, `creds`.
    Loose,
    /// A key, token or secret: made by chance.
    Key(SecretKind),
    /// A private key of an account on a chain, or of another sort.
    PrivateKey,
    /// A number of 4 to 8 digits.
    Pin,
    /// A code sent or kept to confirm a login.
    Code,
    /// The three or four digits on the back of a card.
    CardCode,
}

/// Words after the telling one that do not change what a name announces.
const SUFFIXES: &[&str] = &[
    "value",
    "val",
    "str",
    "string",
    "text",
    "raw",
    "plain",
    "plaintext",
    "b64",
    "base64",
    "prod",
    "production",
    "dev",
    "staging",
    "live",
    "test",
    "old",
    "new",
    "current",
    "default",
    "primary",
    "secondary",
    "main",
    "backup",
    "env",
    "hex",
];

/// Words that make a password of a name they end.
const PASSWORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "pswd",
    "passwort",
    "kennwort",
    "contraseña",
    "contrasena",
    "senha",
    "wachtwoord",
    "psk",
    "passw",
    "heslo",
    "parola",
    "lösenord",
    "adgangskode",
    "salasana",
    "hasło",
    "haslo",
    "şifre",
    "пароль",
    "密码",
    "密碼",
    "パスワード",
    "비밀번호",
    "mot de passe",
    "passwrd",
    "كلمة المرور",
];

/// Words before `key` that make a secret of it.
const KEY_WORDS: &[&str] = &[
    "api",
    "access",
    "secret",
    "encryption",
    "encrypt",
    "decryption",
    "signing",
    "sign",
    "signature",
    "master",
    "auth",
    "account",
    "storage",
    "shared",
    "consumer",
    "admin",
    "session",
    "security",
    "webhook",
    "hmac",
    "aes",
    "jwt",
    "cipher",
    "crypto",
    "fernet",
    "subscription",
    "ingest",
    "write",
    "vault",
    "unseal",
    "integration",
    "rest",
    "function",
    "functions",
    "service",
    "stripe",
    "openai",
    "anthropic",
    "claude",
    "sendgrid",
    "twilio",
    "google",
    "gemini",
    "maps",
    "aws",
    "azure",
    "dd",
    "datadog",
    "mailgun",
    "mailchimp",
    "github",
    "groq",
    "mistral",
    "cohere",
    "deepseek",
    "algolia",
    "tavily",
    "serper",
    "pinecone",
    "elevenlabs",
    "replicate",
    "hf",
    "huggingface",
    "cloudflare",
    "cf",
    "relic",
    "newrelic",
    "heroku",
    "app",
    "application",
    "bot",
    "base",
    "ssh",
    "license",
    "cookie",
    "client",
    "django",
    "flask",
    "rails",
    "user",
    "root",
    "wg",
    "preshared",
    "personal",
    "live",
    "prod",
    "server",
    "team",
    "org",
    "internal",
    "partner",
    "vendor",
    "weather",
    "openweather",
    "news",
    "okta",
    "auth0",
];

/// Words before `token` that make it a piece of text, or a place in a list, and no secret.
const PLAIN_TOKENS: &[&str] = &[
    "pad",
    "eos",
    "bos",
    "unk",
    "sep",
    "cls",
    "mask",
    "next",
    "special",
    "max",
    "min",
    "num",
    "total",
    "stop",
    "start",
    "end",
    "image",
    "prompt",
    "completion",
    "input",
    "output",
    "page",
    "continuation",
    "sync",
    "cancellation",
    "cursor",
    "lexer",
    "peek",
    "previous",
    "prev",
    "nft",
    "per",
    "each",
    "first",
    "last",
    "continue",
    "cancel",
    "resume",
    "pagination",
];

/// Words before `code` that make it one to log in with.
const CODE_WORDS: &[&str] = &[
    "verification",
    "otp",
    "2fa",
    "mfa",
    "totp",
    "recovery",
    "backup",
    "login",
    "security",
    "auth",
    "authentication",
    "authorization",
    "confirmation",
    "access",
    "one-time",
    "time",
    "unlock",
    "door",
    "alarm",
    "gate",
    "sms",
    "factor",
    "entry",
    "pairing",
    "scratch",
    "authenticator",
];

/// Reads a name: what it announces, if anything. `before` is the text in front of it.
pub(super) fn classify(name: &str, before: &str) -> Option<Class> {
    let lowered = value::pieces(name).iter().map(|piece| piece.to_lowercase()).collect::<Vec<_>>();
    let mut words: Vec<&str> = lowered.iter().map(String::as_str).collect();
    // "API key" is one name in two words.
    let earlier: Vec<String> = previous_words(before);
    if words.len() == 1 {
        words = earlier.iter().map(String::as_str).chain(words).collect();
    }
    while words.len() > 1
        && words
            .last()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) || SUFFIXES.contains(last))
    {
        words.pop();
    }
    let (last, front) = words.split_last()?;
    let near = front.last().copied().unwrap_or_default();
    if let Some(class) = joined(last) {
        return Some(class);
    }
    match *last {
        "pass" | "pw" | "userpass" | "passwords" if near != "all" => Some(Class::Loose),
        "creds" | "credentials" | "credential" | "login" => Some(Class::Loose),
        "auth" => Some(Class::Key(SecretKind::GenericSecret)),
        "passe" if near == "de" => Some(Class::Password),
        "word" if near == "pass" => Some(Class::Password),
        "phrase" if near == "pass" => Some(Class::Password),
        "pin" => Some(Class::Pin),
        "pincode" => Some(Class::Pin),
        "otp" => Some(Class::Code),
        "cvv" | "cvc" | "cvn" | "cvv2" | "cvc2" => Some(Class::CardCode),
        "code" if near == "pin" => Some(Class::Pin),
        "code" if matches!(near, "cvv" | "cvc") => Some(Class::CardCode),
        "code" | "codes" if CODE_WORDS.contains(&near) => Some(Class::Code),
        "token" if PLAIN_TOKENS.contains(&near) => None,
        "token" | "pat" | "bearer" => Some(Class::Key(SecretKind::AccessToken)),
        "jwt" => Some(Class::Key(SecretKind::Jwt)),
        "secret" if near == "kubernetes" => None,
        "secret" if matches!(near, "totp" | "otp" | "2fa" | "mfa") => Some(Class::Key(SecretKind::OtpSecret)),
        "secret" => Some(Class::Key(SecretKind::GenericSecret)),
        "base" if near == "key" => Some(Class::Key(SecretKind::GenericSecret)),
        "invite" => Some(Class::Key(SecretKind::PotluckInvite)),
        "key" => key(near, front),
        _ => None,
    }
}

/// What one word announces that others may be part of: `dbpassword`, `accesstoken`, `apikey`.
fn joined(word: &str) -> Option<Class> {
    const LOOSE: [&str; 12] = [
        "dbpass",
        "userpass",
        "smtppass",
        "rootpass",
        "sshpass",
        "adminpass",
        "mypass",
        "authpass",
        "mailpass",
        "keypass",
        "storepass",
        "rootpw",
    ];
    const TOKENS: [&str; 9] = [
        "accesstoken",
        "authtoken",
        "refreshtoken",
        "bearertoken",
        "bottoken",
        "apitoken",
        "usertoken",
        "idtoken",
        "authtok",
    ];
    const SECRETS: [&str; 6] =
        ["clientsecret", "appsecret", "apisecret", "secretkey", "sharedsecret", "webhooksecret"];
    if PASSWORDS.iter().any(|password| word.ends_with(password)) && word != "wepsk" {
        Some(Class::Password)
    } else if LOOSE.contains(&word) {
        Some(Class::Loose)
    } else if TOKENS.contains(&word) {
        Some(Class::Key(SecretKind::AccessToken))
    } else if SECRETS.contains(&word) {
        Some(Class::Key(SecretKind::GenericSecret))
    } else if matches!(
        word,
        "apikey"
            | "accesskey"
            | "authkey"
            | "appkey"
            | "masterkey"
            | "encryptionkey"
            | "signingkey"
            | "accountkey"
    ) {
        Some(Class::Key(SecretKind::ApiKey))
    } else if matches!(word, "privatekey" | "privkey") {
        Some(Class::PrivateKey)
    } else {
        None
    }
}

fn key(near: &str, front: &[&str]) -> Option<Class> {
    match near {
        "private" | "priv" | "wallet" | "ethereum" | "eth" | "solana" | "bitcoin" | "btc" | "deployer"
        | "signer" => Some(Class::PrivateKey),
        "secret" => Some(Class::Key(SecretKind::GenericSecret)),
        "access" if front.contains(&"secret") => Some(Class::Key(SecretKind::AwsSecretKey)),
        "api" | "apikey" => Some(Class::Key(SecretKind::ApiKey)),
        _ if KEY_WORDS.contains(&near) => Some(Class::Key(SecretKind::ApiKey)),
        _ => None,
    }
}

/// The two words in front of a name, as long as only a space or a dash parts them.
fn previous_words(before: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = before;
    while words.len() < 2 {
        let cut = rest.trim_end_matches([' ', '-']);
        if rest.len() - cut.len() != 1 {
            break;
        }
        let at = cut
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |at| at + cut.get(at..).and_then(|t| t.chars().next()).map_or(1, char::len_utf8));
        let word = cut.get(at..).unwrap_or_default();
        if word.is_empty() {
            break;
        }
        words.push(word.to_lowercase());
        rest = cut.get(..at).unwrap_or_default();
    }
    words.reverse();
    words
}

/// The kind of a key whose name, or the words around it, name the service it belongs to.
pub(super) fn vendor(around: &str, value: &str) -> Option<SecretKind> {
    const VENDORS: [(&str, SecretKind); 30] = [
        ("cloudflare", SecretKind::CloudflareToken),
        ("cf_", SecretKind::CloudflareToken),
        ("twilio", SecretKind::TwilioKey),
        ("stripe", SecretKind::StripeKey),
        ("shopify", SecretKind::ShopifyToken),
        ("sendgrid", SecretKind::SendgridKey),
        ("mailgun", SecretKind::MailKey),
        ("mailchimp", SecretKind::MailKey),
        ("datadog", SecretKind::MonitoringToken),
        ("dd_", SecretKind::MonitoringToken),
        ("newrelic", SecretKind::MonitoringToken),
        ("sentry", SecretKind::MonitoringToken),
        ("heroku", SecretKind::CloudToken),
        ("vercel", SecretKind::CloudToken),
        ("netlify", SecretKind::CloudToken),
        ("digitalocean", SecretKind::DigitaloceanToken),
        ("databricks", SecretKind::DatabricksToken),
        ("discord", SecretKind::DiscordToken),
        ("telegram", SecretKind::TelegramToken),
        ("slack", SecretKind::SlackToken),
        ("github", SecretKind::GithubToken),
        ("gitlab", SecretKind::GitlabToken),
        ("docker", SecretKind::DockerToken),
        ("openai", SecretKind::OpenaiKey),
        ("anthropic", SecretKind::AnthropicKey),
        ("hugging", SecretKind::HuggingfaceToken),
        ("npm", SecretKind::NpmToken),
        ("paypal", SecretKind::PaymentKey),
        ("wandb", SecretKind::AiServiceKey),
        ("potluck", SecretKind::PotluckInvite),
    ];
    let lower = around.to_ascii_lowercase();
    let base64 = |len: usize| {
        value.len() == len && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    if lower.contains("aws") && base64(40) {
        return Some(SecretKind::AwsSecretKey);
    }
    if (lower.contains("azure") || lower.contains("storage") || lower.contains("account")) && base64(88) {
        return Some(SecretKind::AzureStorageKey);
    }
    VENDORS.iter().find(|(name, _)| lower.contains(name)).map(|(_, kind)| *kind)
}
