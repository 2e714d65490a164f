//! The kinds of secrets, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the enum together with its names, so that the two cannot drift apart.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One kind of secret; the only thing an audit may say about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum SecretKind {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl SecretKind {
            /// Every kind, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The kebab-case name, as it stands in the marker and in the audit.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// An age identity (`AGE-SECRET-KEY-1…`).
    AgeKey = "age-key",
    /// A key of a hosted model or a service around models that has no kind of its own.
    AiServiceKey = "ai-service-key",
    /// A key of the Anthropic API.
    AnthropicKey = "anthropic-key",
    /// A key that a name such as `api_key` announces.
    ApiKey = "api-key",
    /// A token that a name such as `access_token` announces.
    AccessToken = "access-token",
    /// A token of an Atlassian product.
    AtlassianToken = "atlassian-token",
    /// An AWS access key id.
    AwsAccessKey = "aws-access-key",
    /// An AWS secret access key or session token.
    AwsSecretKey = "aws-secret-key",
    /// A client secret or a shared access signature of Azure.
    AzureSecret = "azure-secret",
    /// The key of an Azure storage account.
    AzureStorageKey = "azure-storage-key",
    /// User and password in the Basic scheme.
    BasicAuth = "basic-auth",
    /// A token in an `Authorization` header.
    BearerToken = "bearer-token",
    /// The security code of a payment card.
    CardSecurityCode = "card-security-code",
    /// A token of a hosting or cloud service that has no kind of its own.
    CloudToken = "cloud-token",
    /// A token of Cloudflare.
    CloudflareToken = "cloudflare-token",
    /// The number of a payment card.
    CreditCard = "credit-card",
    /// The private key of a wallet or an account on a chain.
    CryptoPrivateKey = "crypto-private-key",
    /// A password in a database connection string.
    DatabasePassword = "database-password",
    /// A token of Databricks.
    DatabricksToken = "databricks-token",
    /// A token of a developer's tool that has no kind of its own.
    DeveloperToken = "developer-token",
    /// A token of DigitalOcean.
    DigitaloceanToken = "digitalocean-token",
    /// The token of a Discord bot.
    DiscordToken = "discord-token",
    /// A Discord webhook, which anyone who has it can post to.
    DiscordWebhook = "discord-webhook",
    /// A token of Docker Hub, or the login stored for a registry.
    DockerToken = "docker-token",
    /// The private key of a Google Cloud service account.
    GcpServiceAccount = "gcp-service-account",
    /// A secret that a name such as `client_secret` announces.
    GenericSecret = "generic-secret",
    /// A token of GitHub.
    GithubToken = "github-token",
    /// A token of GitLab.
    GitlabToken = "gitlab-token",
    /// An API key of Google.
    GoogleApiKey = "google-api-key",
    /// An OAuth token or client secret of Google.
    GoogleOauth = "google-oauth",
    /// A token of Grafana.
    GrafanaToken = "grafana-token",
    /// A token of Vault, Terraform or another tool of HashiCorp.
    HashicorpToken = "hashicorp-token",
    /// A token of Hugging Face.
    HuggingfaceToken = "huggingface-token",
    /// A bank account number.
    Iban = "iban",
    /// A signed JSON web token.
    Jwt = "jwt",
    /// A key of a mail service that has no kind of its own.
    MailKey = "mail-key",
    /// A token of a messaging service that has no kind of its own.
    MessagingToken = "messaging-token",
    /// A token of a monitoring service.
    MonitoringToken = "monitoring-token",
    /// A token of npm.
    NpmToken = "npm-token",
    /// A code that confirms a login once, or recovers an account.
    OneTimeCode = "one-time-code",
    /// The shared secret that one-time codes are made from.
    OtpSecret = "otp-secret",
    /// A key of the OpenAI API.
    OpenaiKey = "openai-key",
    /// A password or passphrase.
    Password = "password",
    /// A salted hash of a password.
    PasswordHash = "password-hash",
    /// A key of a payment service that has no kind of its own.
    PaymentKey = "payment-key",
    /// A PGP private key.
    PgpPrivateKey = "pgp-private-key",
    /// A personal identification number.
    Pin = "pin",
    /// An invite into a Potluck pool.
    PotluckInvite = "potluck-invite",
    /// A private key in PEM or a like form.
    PrivateKey = "private-key",
    /// A token of PyPI.
    PypiToken = "pypi-token",
    /// The words that restore a wallet.
    SeedPhrase = "seed-phrase",
    /// A key of SendGrid.
    SendgridKey = "sendgrid-key",
    /// A cookie or identifier that stands for a logged-in session.
    SessionCookie = "session-cookie",
    /// A token of Shopify.
    ShopifyToken = "shopify-token",
    /// A token of Slack.
    SlackToken = "slack-token",
    /// A Slack webhook, which anyone who has it can post to.
    SlackWebhook = "slack-webhook",
    /// An OpenSSH private key.
    SshPrivateKey = "ssh-private-key",
    /// A secret key of Stripe.
    StripeKey = "stripe-key",
    /// The token of a Telegram bot.
    TelegramToken = "telegram-token",
    /// A key or an auth token of Twilio.
    TwilioKey = "twilio-key",
    /// A password or token before the host of a URL.
    UrlCredentials = "url-credentials",
    /// The password of a wireless network.
    WifiPassword = "wifi-password",
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
