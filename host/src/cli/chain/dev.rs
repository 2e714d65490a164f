//! `potluck chain dev`

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use clap::Args;
use potluck_chain_client::spec::Clock;
use serde_json::json;
use tokio::{net::TcpStream, process::Child};

use super::{
    super::{CliError, Context, print_line},
    engine::Engine,
    genesis,
};
use crate::{config::value::parse_duration, node::ports};

/// How long the chain may take to answer.
const READY: Duration = Duration::from_secs(90);

/// Start a chain for development on this machine, in the foreground.
///
/// It runs the real runtime and forgets everything when it ends. This machine's account has credits and tokens in it.
/// Runs polkadot-omni-node where it is on the PATH, chopsticks from npm otherwise (fetched once).
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck chain dev\n  potluck chain dev --port 9955 --block-time 1s\n\nThen, in another terminal:\n  potluck up --chain-endpoint ws://127.0.0.1:9944\n  potluck credits deposit 5"
)]
pub(super) struct Dev {
    /// Port to serve on, on this machine only; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 9944)]
    port: u16,
    /// Time between blocks; a transaction is taken at once by chopsticks.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = parse_duration)]
    block_time: Duration,
    /// What runs it [default: omni-node where it is installed].
    #[arg(long, value_parser = ["omni-node", "chopsticks"])]
    engine: Option<String>,
    /// Folder in which npm has installed chopsticks and Node.js already [default: one in the home, filled once].
    #[arg(long, env = "POTLUCK_CHOPSTICKS", value_name = "DIR")]
    chopsticks: Option<PathBuf>,
}

impl Dev {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let folder = genesis::folder(&context.config)?;
        let engine = Engine::choose(self.engine.as_deref(), &folder, self.chopsticks)?;
        let address = free(self.port)?;
        engine.prepare(context.json, context.config.offline).await?;
        let spec = genesis::write(&context.config)?;
        let log = folder.join("log");
        let block_ms = u64::try_from(self.block_time.as_millis()).unwrap_or(u64::MAX);
        let mut child = engine.start(&spec, address.port(), block_ms, &log)?;
        wait(&mut child, address, &log).await?;
        let endpoint = format!("ws://{address}");
        if context.json {
            print_line(
                &json!({"event": "ready", "endpoint": endpoint, "engine": engine.word(), "log": log})
                    .to_string(),
            )?;
        } else {
            print_line(&format!("ready {endpoint}"))?;
            eprintln!(
                "{} runs the chain; its log is {}\nin another terminal: potluck up --chain-endpoint {endpoint}",
                engine.word(),
                log.display()
            );
        }
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = tick(&engine, &endpoint, self.block_time) => None,
            _ = tokio::signal::ctrl_c() => None,
            () = terminated() => None,
        };
        match ended {
            Some(ended) => Err(stopped(&log, ended.ok())),
            None => {
                let _ = child.kill().await;
                Ok(())
            }
        }
    }
}

/// Where to serve, if nobody else does.
fn free(port: u16) -> Result<SocketAddr, CliError> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    std::net::TcpListener::bind(wanted).and_then(|listener| listener.local_addr()).map_err(|error| {
        let why = ports::explain(&error, wanted);
        CliError::Usage(format!("cannot serve the chain on {wanted}: {why}; take another --port"))
    })
}

/// Waits until the chain answers.
async fn wait(child: &mut Child, address: SocketAddr, log: &Path) -> Result<(), CliError> {
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Err(stopped(log, Some(status))),
            Err(_) => return Err(stopped(log, None)),
        }
        if began.elapsed() > READY {
            return Err(CliError::Usage(format!(
                "the chain does not answer after {} s; its log is {}",
                READY.as_secs(),
                log.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn stopped(log: &Path, status: Option<ExitStatus>) -> CliError {
    let how = status.map(|status| format!(" ({status})")).unwrap_or_default();
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
    CliError::Usage(format!("the chain ended by itself{how}; the end of {} says:\n{last}", log.display()))
}

/// Lets time pass on a chain that makes blocks when told to.
async fn tick(engine: &Engine, endpoint: &str, every: Duration) {
    if matches!(engine, Engine::Omni(_)) || every.is_zero() {
        return std::future::pending().await;
    }
    let mut clock = None;
    loop {
        tokio::time::sleep(every).await;
        if clock.is_none() {
            clock = Clock::connect(endpoint).await.ok();
        }
        if let Some(told) = &clock
            && let Err(error) = told.make_blocks(1).await
        {
            tracing::warn!(%error, "no block could be made");
        }
    }
}

/// SIGTERM.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}
