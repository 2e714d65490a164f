//! `potluck doctor`

use std::{collections::BTreeMap, io, path::Path};

use clap::Args;
use potluck_kernels::cpu::Simd;
use serde_json::{Value, json};

use super::{
    CliError, Context,
    client::{Client, Session},
    output, print, print_line,
};
use crate::{
    config::{Config, ConfigError},
    inference::Device,
    node::ports,
};

/// Say what this machine can do, and what is wrong.
///
/// Each line is ok, warn or fail; the last two say what to do next. Fails with code 1 when a line does.
///
/// With a member of the pool named, it looks at every layer between here and a token of that machine instead.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// A member of the trusted pool: its name, or the beginning of its id.
    pub(super) peer: Option<String>,
    /// The model to ask it for; without it one that it has loaded.
    #[arg(long, value_name = "NAME", requires = "peer")]
    pub(super) model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    next: Option<String>,
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, found: found.into(), next: None }
}

fn warn(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Warn, found: found.into(), next: Some(next.into()) }
}

fn bad(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Fail, found: found.into(), next: Some(next.into()) }
}

/// Makes every check and prints it.
pub(super) async fn run(context: Context, problem: Option<ConfigError>) -> Result<(), CliError> {
    let mut checks = vec![ok("program", concat!("potluck ", env!("CARGO_PKG_VERSION")))];
    checks.push(configuration(&context, problem));
    checks.push(processor(&context.config));
    checks.push(memory());
    checks.push(graphics(&context.config));
    checks.extend(home(&context.config));
    let client = Client::connect(&context).await;
    checks.push(port(&context, client.as_ref().ok()).await);
    checks.extend(models(&context).await);
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if context.json {
        let lines: Vec<_> = checks
            .iter()
            .map(|check| json!({"check": check.name, "verdict": check.verdict.word(), "found": check.found, "next": check.next}))
            .collect();
        print_line(&json!({"checks": lines, "failed": failed}).to_string())?;
    } else {
        print(&text(&checks, output::colours(&io::stdout())))?;
    }
    if failed == 0 { Ok(()) } else { Err(CliError::Unwell(failed)) }
}

fn text(checks: &[Check], coloured: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let word = match (coloured, check.verdict) {
            (true, Verdict::Ok) => "\x1b[32mok  \x1b[0m",
            (true, Verdict::Warn) => "\x1b[33mwarn\x1b[0m",
            (true, Verdict::Fail) => "\x1b[31mfail\x1b[0m",
            (false, Verdict::Ok) => "ok  ",
            (false, Verdict::Warn) => "warn",
            (false, Verdict::Fail) => "fail",
        };
        text.push_str(&format!("{word}  {:width$}  {}\n", check.name, check.found));
        if let Some(next) = &check.next {
            text.push_str(&format!("      {:width$}  → {next}\n", ""));
        }
    }
    text
}

fn configuration(context: &Context, problem: Option<ConfigError>) -> Check {
    if let Some(problem) = problem {
        return bad(
            "configuration",
            problem.to_string(),
            "mend or remove the value; `potluck config print-default` shows all",
        );
    }
    let path = context.flags.config.clone().map_or_else(Config::default_path, Ok);
    match path {
        Ok(path) if path.exists() => ok("configuration", path.display().to_string()),
        Ok(path) => ok("configuration", format!("defaults ({} does not exist)", path.display())),
        Err(error) => warn("configuration", error.to_string(), "set HOME or pass --config"),
    }
}

fn processor(config: &Config) -> Check {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let simd = Simd::detect();
    let found = format!("{threads} threads, {simd} kernels");
    if config.inference.threads.is_some_and(|wanted| wanted > threads) {
        return warn(
            "processor",
            found,
            format!("inference.threads asks for more than {threads}; answers will be slower"),
        );
    }
    if simd == Simd::Scalar {
        return warn(
            "processor",
            found,
            "models run, but slowly; a processor with AVX2, AVX-512 VNNI or NEON is much faster",
        );
    }
    ok("processor", found)
}

fn memory() -> Check {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| -> Option<u64> {
        let line = table.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let (Some(total), Some(free)) = (of("MemTotal:"), of("MemAvailable:")) else {
        return warn(
            "memory",
            "unknown on this system",
            "set inference.memory_budget when models do not fit",
        );
    };
    let found = format!("{} free of {}", output::bytes(free), output::bytes(total));
    if free < 1 << 30 {
        return warn("memory", found, "close other programs, or use models of less than 1 GB");
    }
    ok("memory", found)
}

fn graphics(config: &Config) -> Check {
    let (adapters, built) = adapters();
    let wanted = config.inference.device;
    if adapters.iter().any(|(_, real)| *real) {
        let names: Vec<_> = adapters.into_iter().filter_map(|(name, real)| real.then_some(name)).collect();
        return ok("graphics", names.join("; "));
    }
    let found = match adapters.first() {
        _ if !built => "this build has no GPU backend; models run on the processor".to_owned(),
        Some((name, _)) => format!("only a software renderer, {name}; models run on the processor"),
        None => "no GPU driver found; models run on the processor".to_owned(),
    };
    if wanted == Device::Gpu {
        return bad("graphics", found, "install a Vulkan driver, or set inference.device to auto or cpu");
    }
    ok("graphics", found)
}

/// The adapters the GPU backend sees, best first, and whether there is such a backend. `true`: a real GPU.
fn adapters() -> (Vec<(String, bool)>, bool) {
    #[cfg(feature = "gpu")]
    {
        use potluck_kernels::cube::{AdapterKind, adapters};
        let found = adapters()
            .into_iter()
            .map(|adapter| {
                let real = adapter.kind != AdapterKind::Software;
                let kind = format!("{:?}", adapter.kind).to_lowercase();
                (format!("{} ({kind}, {}, {})", adapter.name, adapter.api, adapter.driver), real)
            })
            .collect();
        (found, true)
    }
    #[cfg(not(feature = "gpu"))]
    (Vec::new(), false)
}

fn home(config: &Config) -> Vec<Check> {
    let home = match config.home() {
        Ok(home) => home,
        Err(error) => return vec![bad("home", error.to_string(), "pass --home DIR")],
    };
    let mut checks = Vec::new();
    let existing = home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match tempfile_in(existing) {
        Ok(()) => checks.push(ok("home", home.display().to_string())),
        Err(error) => {
            let found = format!("{} cannot be written: {error}", home.display());
            checks.push(bad("home", found, "change its owner or permissions, or pass --home DIR"));
        }
    }
    if let Ok(disk) = rustix::fs::statvfs(existing) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let found = format!("{} free at {}", output::bytes(free), existing.display());
        checks.push(if free < 2 << 30 {
            warn(
                "disk",
                found,
                "models need room: delete some with `potluck rm`, or pass --home on a larger disk",
            )
        } else {
            ok("disk", found)
        });
    }
    checks
}

/// Whether a file can be made there.
fn tempfile_in(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".potluck-doctor-{}", std::process::id()));
    std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)
}

async fn port(context: &Context, client: Option<&Client>) -> Check {
    if let Some(client) = client {
        let version = match client.get("/potluck/v1/status").await {
            Ok(status) => {
                let text = |field: &str| status.get(field).and_then(Value::as_str).unwrap_or("?").to_owned();
                format!("version {}, home {}", text("version"), text("home"))
            }
            Err(error) => {
                return warn("node", format!("running at {}, but: {error}", client.base()), "pass --api-key");
            }
        };
        return ok("node", format!("running at {} ({version})", client.base()));
    }
    let listen = context.config.listen;
    match std::net::TcpListener::bind(listen) {
        Ok(_) => ok("node", format!("not running; {listen} is free (`potluck up` starts it)")),
        Err(error) => bad(
            "node",
            format!("not running, and cannot: {}", ports::explain(&error, listen)),
            "pass --listen with another port",
        ),
    }
}

async fn models(context: &Context) -> Vec<Check> {
    let listed = match Session::open(context, None).await {
        Ok(session) => {
            let answer = session.client.get("/potluck/v1/models").await;
            session.close().await;
            answer
        }
        Err(error) => Err(error),
    };
    let answer = match listed {
        Ok(answer) => answer,
        Err(error) => return vec![bad("models", error.to_string(), "see the lines above")],
    };
    let mut origins: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for model in answer.get("models").and_then(Value::as_array).into_iter().flatten() {
        let origin = model.get("origin").and_then(Value::as_str).unwrap_or("?").to_owned();
        let (count, bytes) = origins.entry(origin).or_default();
        *count += 1;
        *bytes += model.get("size").and_then(Value::as_u64).unwrap_or_default();
    }
    if origins.is_empty() {
        return vec![warn("models", "none found", "get one: potluck pull hf.co/USER/REPO:QUANT")];
    }
    let found: Vec<_> = origins
        .iter()
        .map(|(origin, (count, bytes))| format!("{count} from {origin} ({})", output::bytes(*bytes)))
        .collect();
    vec![ok("models", found.join(", "))]
}
