//! Measures how well and how fast the memory of a node recalls; see `--help` and docs/src/benchmarks.md.

use anyhow::Result;
use clap::Parser as _;
use potluck_benches::memory::cli::Cli;

fn main() -> Result<()> {
    Cli::parse().run()
}
