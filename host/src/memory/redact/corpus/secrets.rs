//! Secrets of every kind, each put into several places.

use super::{ALNUM, BASE64, DIGITS, HEX, Item, LOWER, Rng, UPPER, URL64};

/// How a secret is made, and the name it has in a file of settings.
type Maker = (&'static str, &'static str, fn(&mut Rng) -> String);

/// Secrets that their form gives away; any place will do.
const FORMS: &[Maker] = &[
    ("aws-access-key", "AWS_ACCESS_KEY_ID", |r| {
        "AK".to_owned() + "IA" + r.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16).as_str()
    }),
    ("aws-access-key", "AWS_ACCESS_KEY_ID", |r| {
        "AS".to_owned() + "IA" + r.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16).as_str()
    }),
    ("github-token", "GITHUB_TOKEN", |r| {
        "gh".to_owned() + r.pick(&["p_", "o_", "s_", "u_"]) + r.of(ALNUM, 36).as_str()
    }),
    ("github-token", "GH_TOKEN", |r| {
        "github".to_owned() + "_pat_" + r.of(ALNUM, 22).as_str() + "_" + r.of(ALNUM, 59).as_str()
    }),
    ("gitlab-token", "GITLAB_TOKEN", |r| "gl".to_owned() + "pat-" + r.of(URL64, 19).as_str() + "a"),
    ("slack-token", "SLACK_TOKEN", |r| {
        "xo".to_owned()
            + "xb-"
            + r.of(DIGITS, 12).as_str()
            + "-"
            + r.of(DIGITS, 13).as_str()
            + "-"
            + r.of(ALNUM, 24).as_str()
    }),
    ("slack-webhook", "SLACK_URL", |r| {
        "https://hooks.slack".to_owned()
            + ".com/services/T"
            + r.of(UPPER, 9).as_str()
            + "/B"
            + r.of(UPPER, 9).as_str()
            + "/"
            + r.of(ALNUM, 24).as_str()
    }),
    ("stripe-key", "STRIPE_KEY", |r| {
        r.pick(&["sk", "rk"]).to_owned() + "_li" + "ve_" + r.of(ALNUM, 24).as_str()
    }),
    ("openai-key", "OPENAI_API_KEY", |r| {
        "s".to_owned() + "k-" + r.of(ALNUM, 20).as_str() + "T3Blbk" + r.of(ALNUM, 20).as_str()
    }),
    ("openai-key", "OPENAI_API_KEY", |r| "s".to_owned() + "k-proj-" + r.of(URL64, 47).as_str() + "z"),
    ("anthropic-key", "ANTHROPIC_API_KEY", |r| {
        "s".to_owned() + "k-ant-api03-" + r.of(URL64, 92).as_str() + "AA"
    }),
    ("google-api-key", "GOOGLE_API_KEY", |r| "AI".to_owned() + "za" + r.of(URL64, 34).as_str() + "b"),
    ("google-oauth", "GOOGLE_SECRET", |r| "GOC".to_owned() + "SPX-" + r.of(URL64, 27).as_str() + "Q"),
    ("huggingface-token", "HF_TOKEN", |r| "h".to_owned() + "f_" + r.of(ALNUM, 34).as_str()),
    ("npm-token", "NPM_TOKEN", |r| "np".to_owned() + "m_" + r.of(ALNUM, 36).as_str()),
    ("pypi-token", "TWINE_PASSWORD", |r| {
        "py".to_owned() + "pi-AgEIcHlwaS5vcmc" + r.of(URL64, 70).as_str() + "g"
    }),
    ("docker-token", "DOCKER_TOKEN", |r| "dckr".to_owned() + "_pat_" + r.of(URL64, 26).as_str() + "k"),
    ("twilio-key", "TWILIO_API_KEY", |r| "S".to_owned() + "K" + r.of(HEX, 32).as_str()),
    ("sendgrid-key", "SENDGRID_API_KEY", |r| {
        "S".to_owned() + "G." + r.of(URL64, 22).as_str() + "." + r.of(URL64, 42).as_str() + "w"
    }),
    ("telegram-token", "BOT_TOKEN", |r| {
        "7".to_owned() + r.of(DIGITS, 9).as_str() + ":AA" + r.of(URL64, 32).as_str() + "s"
    }),
    ("discord-token", "DISCORD_TOKEN", |r| {
        "MT".to_owned()
            + r.of(ALNUM, 24).as_str()
            + "."
            + r.of(ALNUM, 6).as_str()
            + "."
            + r.of(URL64, 37).as_str()
            + "m"
    }),
    ("shopify-token", "SHOPIFY_TOKEN", |r| "shp".to_owned() + "at_" + r.of(HEX, 32).as_str()),
    ("digitalocean-token", "DO_TOKEN", |r| "do".to_owned() + "p_v1_" + r.of(HEX, 64).as_str()),
    ("databricks-token", "DATABRICKS_TOKEN", |r| "da".to_owned() + "pi" + r.of(HEX, 32).as_str()),
    ("age-key", "AGE_KEY", |r| {
        "AGE-SEC".to_owned() + "RET-KEY-1" + r.of("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58).as_str()
    }),
    ("jwt", "SESSION_JWT", |r| {
        "ey".to_owned()
            + "J"
            + r.of(ALNUM, 33).as_str()
            + ".ey"
            + "J"
            + r.of(URL64, 60).as_str()
            + "."
            + r.of(URL64, 42).as_str()
            + "c"
    }),
    ("hashicorp-token", "VAULT_TOKEN", |r| "hv".to_owned() + "s.CAES" + r.of(URL64, 90).as_str() + "d"),
    ("grafana-token", "GRAFANA_TOKEN", |r| {
        "gl".to_owned() + "sa_" + r.of(ALNUM, 32).as_str() + "_" + r.of(HEX, 8).as_str()
    }),
    ("atlassian-token", "JIRA_TOKEN", |r| {
        "ATA".to_owned() + "TT3xFfGF0" + r.of(URL64, 150).as_str() + "=" + r.of(UPPER, 8).as_str()
    }),
    ("ai-service-key", "GROQ_API_KEY", |r| "gs".to_owned() + "k_" + r.of(ALNUM, 52).as_str()),
    ("developer-token", "LINEAR_KEY", |r| "lin".to_owned() + "_api_" + r.of(ALNUM, 40).as_str()),
    ("credit-card", "TEST_CARD", |r| {
        let lead = r.pick(&["4", "51", "55", "2231"]).to_owned();
        r.luhn(&lead, 16)
    }),
    ("credit-card", "TEST_CARD", |r| {
        let n = r.luhn("4", 16);
        format!("{} {} {} {}", &n[..4], &n[4..8], &n[8..12], &n[12..])
    }),
    ("credit-card", "AMEX", |r| r.luhn("37", 15)),
    ("iban", "IBAN", iban),
    ("url-credentials", "REPO_URL", |r| {
        format!("https://deploy:{}@git.acme-corp.io/team/app.git", r.of(ALNUM, 18))
    }),
    ("database-password", "DATABASE_URL", |r| {
        format!(
            "postgres{}://app:{}@db-{}.internal:5432/app",
            r.pick(&["", "ql"]),
            r.of(ALNUM, 14),
            r.below(90)
        )
    }),
    ("database-password", "REDIS_URL", |r| format!("redis://:{}@cache:6379/0", r.of(ALNUM, 20))),
];

/// Secrets that only their name gives away.
const NAMED: &[Maker] = &[
    ("aws-secret-key", "AWS_SECRET_ACCESS_KEY", |r| r.of(BASE64, 38) + "9a"),
    ("azure-storage-key", "AZURE_STORAGE_KEY", |r| r.of(BASE64, 86) + "=="),
    ("cloudflare-token", "CLOUDFLARE_API_TOKEN", |r| r.of(URL64, 39) + "k"),
    ("twilio-auth", "TWILIO_AUTH_TOKEN", |r| r.of(HEX, 32)),
    ("monitoring-token", "DD_API_KEY", |r| r.of(HEX, 32)),
    ("api-key", "WEATHER_API_KEY", |r| r.of(LOWER, 24)),
    ("access-token", "ACCESS_TOKEN", |r| r.of(URL64, 43) + "e"),
    ("client-secret", "CLIENT_SECRET", |r| r.of(ALNUM, 32)),
    ("secret-key", "SECRET_KEY", |r| r.of(HEX, 64)),
    ("crypto-private-key", "ETH_PRIVATE_KEY", |r| format!("0x{}", r.of(HEX, 64))),
    ("password", "DB_PASSWORD", Rng::password),
    ("password", "SMTP_PASSWORD", Rng::password),
    ("password", "ADMIN_PASSWORD", Rng::password),
];

fn iban(rng: &mut Rng) -> String {
    let number = rng.of(DIGITS, 18);
    // D is 13, E is 14; the check digits are what is missing to 98.
    let rest =
        format!("{number}131400").bytes().fold(0_u32, |rest, b| (rest * 10 + u32::from(b - b'0')) % 97);
    let plain = format!("DE{:02}{number}", 98 - rest);
    if rng.below(2) == 0 {
        return plain;
    }
    plain.as_bytes().chunks(4).map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>().join(" ")
}

/// A place for a secret with a name.
fn place(rng: &mut Rng, n: usize, name: &str, secret: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower.replace('_', " ");
    let camel: String = words
        .split(' ')
        .enumerate()
        .map(|(i, w)| if i == 0 { w.into() } else { w[..1].to_uppercase() + &w[1..] })
        .collect();
    match n % 20 {
        0 => format!("{name}={secret}\nDEBUG=1\n"),
        1 => format!("export {name}=\"{secret}\"\r\necho done\r\n"),
        2 => format!("{{\"{lower}\": \"{secret}\", \"retries\": 3}}"),
        3 => format!("service:\n  {lower}: {secret}\n  port: 8080\n"),
        4 => format!("let {lower} = \"{secret}\"; // rotate"),
        5 => format!("The {words} is {secret} and it works for staging."),
        6 => format!("hey, {words}: {secret} – pls don't share"),
        7 => format!("curl -X POST https://api.acme.io/v1 --{} {secret} -v", lower.replace('_', "-")),
        8 => format!(
            "2026-03-0{}T10:11:12Z WARN client rejected {lower}={secret} status=401",
            rng.below(9) + 1
        ),
        9 => format!("const {camel} = '{secret}';"),
        10 => format!("| {words} | `{secret}` |"),
        11 => format!("**{words}:** `{secret}`"),
        12 => format!("<{lower}>{secret}</{lower}>"),
        13 => format!("- name: {name}\n  value: \"{secret}\"\n"),
        14 => format!("<add key=\"{camel}\" value=\"{secret}\"/>"),
        15 => format!("'{lower}' => '{secret}',"),
        16 => format!("{{\\\"{lower}\\\":\\\"{secret}\\\"}}"),
        17 => format!("define('{name}', '{secret}');"),
        18 => format!("{lower}: Optional[str] = \"{secret}\""),
        _ => format!("设置 {name}=“{secret}”。"),
    }
}

/// Secrets with places of their own; `{}` is the secret.
fn special(rng: &mut Rng, out: &mut Vec<Item>) {
    for _ in 0..6 {
        let mut add = |sort: &'static str, places: &[&str], secret: String| {
            for place in places {
                out.push(Item { sort, text: place.replace("{}", &secret), secret: Some(secret.clone()) });
            }
        };
        add(
            "bearer",
            &[
                "Authorization: Bearer {}",
                "curl -H \"Authorization: Bearer {}\" https://x.io",
                "headers = {\"Authorization\": \"Bearer {}\"}",
                "-H 'authorization: token {}'",
            ],
            rng.of(URL64, 39) + "7",
        );
        add(
            "basic",
            &["Authorization: Basic {}", "authorization: basic {}", "\"Authorization\": \"Basic {}\","],
            rng.of(ALNUM, 23) + "=",
        );
        add(
            "cookie",
            &[
                "Cookie: theme=dark; sessionid={}; lang=en",
                "Set-Cookie: PHPSESSID={}; Path=/; HttpOnly",
                "curl --cookie 'session={}' https://x.io",
                "document.cookie = \"auth_token={}\"",
            ],
            rng.of(LOWER, 31) + "4",
        );
        add(
            "seed-phrase",
            &[
                "my seed phrase is {}",
                "Seed phrase: {}.",
                "wallet recovery phrase:\n{}\n",
                "MNEMONIC=\"{}\"",
                "BIP39 mnemonic (keep safe): {}",
            ],
            rng.wallet_words(12),
        );
        add(
            "seed-phrase",
            &["recovery phrase: {}", "mnemonic = '{}'", "here is the 24 word seed: {}"],
            rng.wallet_words(24),
        );
        add(
            "spoken",
            &[
                "my password is {}",
                "the wifi password: {}",
                "use {} as the password for the router",
                "btw the pw is {} now",
                "password for staging = {}",
                "{} is the password for admin",
                "I set the database password to {}.",
                "Login: admin / {}",
                "username: bob password: {}",
                "Passwort: {}",
                "mot de passe : {}",
                "пароль: {}",
                "密码是{}",
                "la contraseña es {}",
            ],
            rng.password(),
        );
        add(
            "command",
            &[
                "mysql -u root -p{} app",
                "sshpass -p {} ssh box",
                "curl -u admin:{} https://x.io",
                "PGPASSWORD={} psql -h db",
                "docker login -u bob -p {}",
                "redis-cli -h c -a {} ping",
                "ALTER USER app WITH PASSWORD '{}';",
                "CREATE USER 'a'@'%' IDENTIFIED BY '{}';",
                "machine api.x.io login bob password {}",
                "Server=db;Database=app;User Id=sa;Password={};Encrypt=true",
                "https://x.io/cb?user=bob&password={}&next=1",
            ],
            rng.of(ALNUM, 12) + "8",
        );
        add(
            "pin",
            &["PIN is {}", "my card's PIN: {}", "the pin code is {}.", "pin={}"],
            format!("4{}", rng.of("123456789", 3)),
        );
        add(
            "one-time-code",
            &["your verification code is {}", "OTP: {}", "2FA code: {}"],
            rng.of("123456789", 6),
        );
        add("wifi", &["WIFI:T:WPA;S:Home;P:{};;", "wifi passphrase is {}"], rng.password().replace('!', "7"));
        add("npmrc", &["//npm.example.org/:_authToken={}"], rng.uuid());
        add(
            "potluck-invite",
            &["join with this invite: potluck:{}", "potluck join {}"],
            rng.of(URL64, 60) + "x",
        );
        add(
            "totp",
            &["otpauth://totp/Acme:bob?secret={}&issuer=Acme"],
            rng.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 32),
        );
        let body = (0..8).map(|_| rng.of(BASE64, 64)).collect::<Vec<_>>();
        for (n, label) in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA "].into_iter().enumerate() {
            let (head, tail) = (
                format!("-----BEG{} {label}PRIV{} KEY-----", "IN", "ATE"),
                format!("-----E{} {label}PRIV{} KEY-----", "ND", "ATE"),
            );
            let text = match n % 4 {
                0 => format!("key:\n{head}\n{}\n{tail}\nend", body.join("\n")),
                1 => format!("\"private_key\": \"{head}\\n{}\\n{tail}\\n\",", body.join("\\n")),
                2 => format!("see {head}\r\n{}\r\n", body[..3].join("\r\n")),
                _ => format!("  {head}\n    {}\n  {tail}", body.join("\n    ")),
            };
            out.push(Item { sort: "private-key", text, secret: Some(body[2].clone()) });
        }
        let token = format!("gh{}{}", "p_", rng.of(ALNUM, 36));
        let (a, b) = token.split_at(17);
        out.push(Item { sort: "split", text: format!("t = \"{a}\" + \"{b}\""), secret: Some(b.to_owned()) });
        let pass = rng.password();
        out.push(Item {
            sort: "split",
            text: format!("password = \"{}\" \\\n  \"{}\"", &pass[..4], &pass[4..]),
            secret: Some(pass[4..].to_owned()),
        });
    }
}

/// All secrets, each in its places.
pub(in super::super) fn all(seed: u64) -> Vec<Item> {
    let mut rng = Rng::new(seed);
    let mut out = Vec::new();
    for round in 0..4 {
        for (sort, name, make) in FORMS.iter().chain(NAMED) {
            let secret = make(&mut rng);
            for n in 0..5 {
                let text = place(&mut rng, round * 5 + n, name, &secret);
                out.push(Item { sort, text, secret: Some(secret.clone()) });
            }
        }
        for (sort, _, make) in FORMS {
            let secret = make(&mut rng);
            for (head, tail) in [("see ", " in the log"), ("(", ")"), ("found „", "“ there"), ("x\\n", "\\n")]
            {
                out.push(Item { sort, text: format!("{head}{secret}{tail}"), secret: Some(secret.clone()) });
            }
        }
    }
    special(&mut rng, &mut out);
    out
}
