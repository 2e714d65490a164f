//! Harmless text that looks like secrets, or speaks of them.

use super::{ALNUM, BASE64, DIGITS, HEX, Item, LOWER, Rng, URL64};

type Maker = (&'static str, fn(&mut Rng) -> String);

/// Sorts of values that are made by chance and no secrets.
const RANDOM: &[Maker] = &[
    ("uuid", |r| format!("request {} took {} ms", r.uuid(), r.below(900))),
    ("uuid-json", |r| format!("{{\"id\": \"{}\", \"session_id\": \"{}\"}}", r.uuid(), r.uuid())),
    ("git-sha", |r| format!("commit {}\nAuthor: Bob <bob@acme.io>", r.of(HEX, 40))),
    ("git-short", |r| format!("fixed in {} and {}..{}", r.of(HEX, 7), r.of(HEX, 8), r.of(HEX, 8))),
    ("sha256", |r| format!("{}  potluck-{}.tar.gz", r.of(HEX, 64), r.below(9))),
    ("sha256-json", |r| format!("\"sha256\": \"{}\", \"size\": {}", r.of(HEX, 64), r.below(99999))),
    ("md5", |r| format!("md5sum: {} file.bin", r.of(HEX, 32))),
    ("integrity", |r| format!("\"integrity\": \"sha512-{}==\",", r.of(BASE64, 86))),
    ("cargo-lock", |r| {
        format!("name = \"tokio\"\nversion = \"1.{}.0\"\nchecksum = \"{}\"", r.below(50), r.of(HEX, 64))
    }),
    ("docker-digest", |r| format!("image: ghcr.io/acme/app@sha256:{}", r.of(HEX, 64))),
    ("base64-image", |r| format!("<img src=\"data:image/png;base64,iVBORw0KGgo{}=\">", r.of(BASE64, 400))),
    ("base64-text", |r| format!("payload: {}==", r.of(BASE64, 120))),
    ("ssh-public", |r| format!("ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB{} bob@laptop", r.of(BASE64, 300))),
    ("ed25519-public", |r| format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} me", r.of(BASE64, 43))),
    ("public-pem", |r| format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", r.of(BASE64, 64))),
    ("certificate", |r| {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", r.of(BASE64, 64))
    }),
    ("etag", |r| format!("ETag: W/\"{}\"\r\nVary: *", r.of(HEX, 32))),
    ("trace", |r| format!("traceparent: 00-{}-{}-01", r.of(HEX, 32), r.of(HEX, 16))),
    ("order", |r| format!("order number {} arrives {}", r.of(DIGITS, 16), r.below(28) + 1)),
    ("order-group", |r| format!("Bestellung 30{}-{}-{}", r.of(DIGITS, 1), r.of(DIGITS, 7), r.of(DIGITS, 7))),
    ("phone", |r| {
        format!(
            "call +49 {} {} or (555) {}-{}",
            r.of(DIGITS, 3),
            r.of(DIGITS, 8),
            r.of(DIGITS, 3),
            r.of(DIGITS, 4)
        )
    }),
    ("isbn", |r| format!("ISBN 978-3-{}-{}-{}", r.of(DIGITS, 2), r.of(DIGITS, 6), r.of(DIGITS, 1))),
    ("isbn13", |r| format!("the book 978{} is out", r.of(DIGITS, 10))),
    ("date", |r| {
        format!("2026-0{}-1{}T12:0{}:00.{}Z done", r.below(9) + 1, r.below(9), r.below(9), r.of(DIGITS, 6))
    }),
    ("timestamp", |r| format!("ts=17{} seq={}", r.of(DIGITS, 17), r.of(DIGITS, 13))),
    ("float", |r| format!("loss 0.{} grad {}.{}", r.of(DIGITS, 16), r.below(9), r.of(DIGITS, 15))),
    ("tx-hash", |r| format!("tx 0x{} to 0x{}", r.of(HEX, 64), r.of(HEX, 40))),
    ("peer-id", |r| format!("/ip4/10.0.0.{}/udp/4001/quic-v1/p2p/12D3KooW{}", r.below(255), r.of(ALNUM, 44))),
    ("nix", |r| format!("/nix/store/{}-rust-1.95.0", r.of(LOWER, 32))),
    ("aws-id", |r| format!("arn:aws:iam::{}:role/deploy-{}", r.of(DIGITS, 12), r.of(LOWER, 6))),
    ("public-api", |r| format!("publicKey: pk_{}_{}", "live", r.of(ALNUM, 24))),
    ("cache-key", |r| format!("cache key: {}-linux-{}", r.pick(&["cargo", "npm", "pip"]), r.of(HEX, 64))),
    ("page-token", |r| format!("next_page_token={}&limit=20", r.of(URL64, 40))),
    ("url", |r| {
        format!("http://localhost:{}/@me/{}?page={}", 1000 + r.below(60000), r.of(LOWER, 8), r.below(99))
    }),
    ("video", |r| format!("https://youtu.be/{}?t={}", r.of(URL64, 11), r.below(500))),
    ("minified", |r| {
        format!(
            "function {}(e,t){{return e.token?t(e.key[{}]):void 0}}var n={{key:\"a{}\"}};",
            r.of("abc", 2),
            r.below(9),
            r.below(9)
        )
    }),
    ("version", |r| {
        format!("token-kit v{}.{}.{}-rc{} on x86_64", r.below(9), r.below(40), r.below(9), r.below(4))
    }),
];

/// Texts that speak of secrets and hold none; `#` is a digit.
const TALK: &[(&str, &[&str])] = &[
    (
        "placeholder",
        &[
            "api_key=YOUR_API_KEY",
            "API_KEY=<your-api-key>",
            "token: \"<token>\"",
            "password: ********",
            "SECRET=xxxxxxxxxxxxxxxx",
            "OPENAI_API_KEY=sk-...",
            "export TOKEN=your_token_here",
            "api_key: \"xxxx-xxxx-xxxx\"",
            "password = \"changeme\"",
            "secret: REPLACE_ME",
            "token=[REDACTED]",
            "DB_PASSWORD=",
            "password: \"\"",
            "postgres://user:password@localhost:5432/db",
            "https://<user>:<password>@host/",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "Authorization: Bearer <token>",
            "Authorization: Bearer YOUR_TOKEN",
            "sk-your-api-key-here",
        ],
    ),
    (
        "template",
        &[
            "password: ${DB_PASSWORD}",
            "token: {{ vault_token }}",
            "PASSWORD=$PASSWORD",
            "password=\"$DB_PASS\"",
            "token: ${{ secrets.GITHUB_TOKEN }}",
            "Authorization: Bearer ${TOKEN}",
            "postgres://app:${PGPASSWORD}@db/app",
            "password: %(pw)s",
            "secret = \"%SECRET%\"",
            "https://$USER:$PASS@host",
            "curl -H \"Authorization: Bearer $TOKEN\" x",
            "mysql -u root -p$MYSQL_PWD",
            "api_key: !ENV API_KEY",
            "secret: <%= ENV['S'] %>",
        ],
    ),
    (
        "code",
        &[
            "password = os.environ['X']",
            "password = os.getenv(\"DB_PASSWORD\")",
            "let token = lexer.next_token();",
            "const apiKey = process.env.API_KEY;",
            "api_key=config.api_key",
            "fn login(user: &str, password: &str) -> Result<Token>",
            "if password == confirm_password {",
            "password = getpass.getpass()",
            "token := r.Header.Get(\"Authorization\")",
            "self.token = token",
            "password: String,",
            "password?: string;",
            "secret = Secret::new(bytes)",
            "token = tokens[#]",
            "<input type=\"password\" name=\"password\" placeholder=\"Enter your password\">",
            "password: z.string().min(#)",
            "user.password = hash(password)",
            "login(user=user, password=password2)",
            "token: Token::Ident,",
            "secretKeyRef: {name: db, key: password}",
            "credentials: \"include\"",
            "headers.set(\"Authorization\", `Bearer ${token}`)",
            "\"Authorization\": \"Bearer \" + token",
            "let key = \"user:#:profile\";",
            "password VARCHAR(25#) NOT NULL",
            "private_key = load_key(path)",
            "auth=(user, password)",
            "token = generate_token(3#)",
            "api_key: str = Field(...)",
            "for token in tokens: print(token)",
        ],
    ),
    (
        "rule",
        &[
            "password: required",
            "the password policy says 12 characters",
            "Password: at least # characters",
            "password must contain a digit",
            "passwords expire after 9# days",
            "the password is required",
            "the password is wrong",
            "password is stored as SHA-256",
            "password is case-sensitive",
            "the password is hashed with argon2id",
            "Password reset link was sent",
            "forgot your password? click here",
            "password_min_length: 1#",
            "password_policy: strict",
            "the token is expired",
            "token is invalid or missing",
            "password field is empty",
            "password is incorrect, try again",
            "The password is in 1Password",
            "the passphrase is optional",
            "password manager: bitwarden",
            "my password is too long",
            "his password was leaked in 202#",
        ],
    ),
    (
        "tokens",
        &[
            "token limit: 4096",
            "max_tokens=20#8",
            "# tokens per second",
            "tokens: 1#34",
            "token_count = 51#",
            "pad_token: \"<pad>\"",
            "eos_token_id: #",
            "the token budget is 32k",
            "tokenizer: cl100k_base",
            "prompt tokens 1#, completion tokens 9#",
            "\"bos_token\": \"<|begin_of_text|>\"",
            "token usage: 12.#k",
            "each token costs 0.00#",
        ],
    ),
    (
        "words",
        &[
            "secret santa is on friday",
            "AKIA is the prefix of access keys",
            "sk- keys are OpenAI's",
            "the key is to start early",
            "press any key to go on",
            "key: value",
            "monkey patching the keyboard",
            "a bearer token is needed",
            "basic authentication is off",
            "cookie banner: accept all",
            "the secret sauce is butter",
            "pass: 21# fail: #",
            "compass: north",
            "the author is Jane",
            "authority: example.com",
            "primary key: id",
            "pin: GPIO#",
            "pin # is ground",
            "pin the version to 1.#",
            "passenger: Bob",
            "secret: true",
            "private key stays on the laptop",
            "JWT has three parts: eyJ header, payload, signature",
            "the access key is under the mat",
            "authentication: oauth2",
            "public key authentication only",
            "git@github.com:acme/app.git",
            "ssh://git@host:22/repo",
            "http://host:808#/path",
            "invite bob to the pool",
            "seed: 4#",
            "random seed is 12#4",
            "the seed phrase has 12 or 24 words, never share it with anyone on the internet please",
            "write your recovery phrase on paper and keep the paper somewhere safe from water and fire",
            "error code: 40#",
            "zip code 1234#",
            "exit code 13#",
            "status code is 20#",
            "code: E0#99",
            "-----BEGIN PRIVATE KEY----- is the header of a key",
            "model qwen2.5-coder-32b-instruct-q4_k_m",
            "session length: 45 minutes",
            "secretName: my-tls-secret",
            "secret: db-credentials",
            "api key rotation is every 9# days",
            "token: see the vault",
            "keyboard shortcut: ctrl+shift+#",
            "Cookie: theme=dark; lang=en",
            "license key: ask Bob",
            "the database password is kept in vault",
            "username and password are required",
            "user guide with v#0 notes",
            "mailto:bob@acme.io",
            "login: bob with admin rights",
            "potluck: a meal where each brings a dish",
        ],
    ),
    (
        "prose",
        &[
            concat!(
                "We met on Monday to plan the release; Anna writes the notes and Bob tests the installer on ",
                "a clean machine.",
            ),
            "Remember that the owner prefers short answers, and that dinner on 12 May is at eight.",
            "Das Treffen ist am Dienstag um 1#:30 Uhr in Raum 20#.",
            "会议在星期#下午三点。",
            "The build took #1 minutes on two cores; the tests another 4.",
            "path /home/bob/projects/potluck/host/src/memory/redact.rs line 12#",
            "RUST_LOG=potluck=debug,tower_http=info cargo run --release",
        ],
    ),
];

/// Every harmless text.
pub(in super::super) fn all(seed: u64) -> Vec<Item> {
    let mut rng = Rng::new(seed);
    let mut out = Vec::new();
    for (sort, make) in RANDOM {
        for _ in 0..60 {
            out.push(Item { sort, text: make(&mut rng), secret: None });
        }
    }
    for (sort, texts) in TALK {
        for text in *texts {
            for (head, tail) in
                [("", ""), ("note: ", "\n"), ("  ", "\r\nnext line"), ("- ", "\n- more"), ("", " // later")]
            {
                let digit = rng.of("123456789", 1);
                out.push(Item {
                    sort,
                    text: format!("{head}{}{tail}", text.replace('#', &digit)),
                    secret: None,
                });
            }
        }
    }
    out
}
