//! `potluck memory export`

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::{
    super::{
        CliError,
        client::{Client, Lines},
        print, print_line,
    },
    FilterArgs, address,
};

/// Write all memories, every version with where it comes from, as JSON Lines. `potluck memory import` reads them.
#[derive(Args, Debug)]
pub(super) struct Export {
    /// The file; without it, or as `-`, stdout.
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Include the embeddings, so that importing needs no model.
    #[arg(long)]
    vectors: bool,
}

impl Export {
    pub(super) async fn run(self, client: &Client, as_json: bool) -> Result<(), CliError> {
        let mut pairs = self.filter.pairs();
        pairs.push(("vectors", self.vectors.to_string()));
        let request = client.to(Method::GET, &address("/potluck/v1/memory/export", &pairs))?;
        let lines = client.answer_lines(request).await?;
        let Some(path) = self.file.filter(|path| path.as_os_str() != "-") else {
            return to_stdout(lines).await;
        };
        let count = to_file(lines, &path).await?;
        if as_json {
            return print_line(&json!({"exported": count, "file": path}).to_string());
        }
        print_line(&format!("exported {count} versions to {}", path.display()))
    }
}

async fn to_stdout(mut lines: Lines) -> Result<(), CliError> {
    while let Some(line) = lines.next().await? {
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

/// The file appears when it is whole: a broken export must not look like a backup.
async fn to_file(mut lines: Lines, path: &Path) -> Result<u64, CliError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |source| CliError::Io { what: "the export could not be written", source };
    let mut file = BufWriter::new(create(&part).map_err(failed)?);
    let mut count = 0;
    let outcome = async {
        while let Some(line) = lines.next().await? {
            writeln!(file, "{line}").map_err(failed)?;
            count += 1;
        }
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(failed)?;
        fs::rename(&part, path).map_err(failed)
    }
    .await;
    if outcome.is_err() {
        let _ = fs::remove_file(&part);
    }
    outcome.map(|()| count)
}

/// Memories are their owner's alone.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
