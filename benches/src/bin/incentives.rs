//! Plays the credits of a public pool with agents of several kinds; see `--help` and docs/src/design/incentives.md.

use anyhow::Result;
use clap::Parser as _;
use potluck_benches::incentives::cli::Cli;

fn main() -> Result<()> {
    Cli::parse().run()
}
