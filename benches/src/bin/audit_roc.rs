//! Honest answers and others under audit; see `--help` and docs/src/benchmarks/audit.md.

use anyhow::Result;
use clap::Parser as _;
use potluck_benches::audit::cli::Cli;

fn main() -> Result<()> {
    Cli::parse().run()
}
