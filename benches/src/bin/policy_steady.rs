//! Asks every policy of a folder made-up questions in several ways and compares the bytes of the answers: fresh and
//! warm instances, one thread and several, this machine's instructions and the oldest ones.
//!
//! `policy_steady FOLDER… [--inputs N] [--seed N] [--threads N] [--json]`. The digest it prints is the same on every
//! machine for the same component, number and seed.

use std::{fs, path::PathBuf, time::Instant};

use potluck::policy::{
    Engine, EngineConfig,
    steady::{self, Way},
};

struct Options {
    folders: Vec<PathBuf>,
    inputs: u64,
    seed: u64,
    threads: usize,
    json: bool,
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options { folders: Vec::new(), inputs: 100_000, seed: 1, threads: 4, json: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--inputs" => options.inputs = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--threads" => options.threads = value()?.parse()?,
            "--json" => options.json = true,
            _ => options.folders.push(arg.into()),
        }
    }
    if options.folders.is_empty() {
        return Err("usage: policy_steady FOLDER… [--inputs N] [--seed N] [--threads N] [--json]".into());
    }
    Ok(options)
}

/// The components of folders, or the files themselves.
fn components(folders: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders {
        if folder.is_file() {
            found.push(folder.clone());
            continue;
        }
        for entry in fs::read_dir(folder)? {
            found.push(entry?.path());
        }
    }
    found.retain(|path| path.extension().is_some_and(|ending| ending == "wasm"));
    found.sort();
    Ok(found)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let native = Engine::new(EngineConfig::default())?;
    let mut config = EngineConfig::default();
    config.baseline = true;
    let baseline = Engine::new(config)?;
    let way = |engine: &Engine, threads: usize, warm: bool, name: &str| Way {
        engine: engine.clone(),
        threads,
        warm,
        name: name.to_owned(),
    };
    let ways = [
        way(&native, 1, false, "this machine's instructions, 1 thread"),
        way(&native, options.threads, false, "this machine's instructions, several threads"),
        way(&native, options.threads, true, "this machine's instructions, warm instances"),
        way(&baseline, options.threads, false, "the oldest instructions, several threads"),
        way(&baseline, 1, true, "the oldest instructions, one warm instance"),
    ];
    let mut bad = 0;
    for path in components(&options.folders)? {
        let start = Instant::now();
        let found = steady::check(&fs::read(&path)?, &ways, options.inputs, options.seed);
        let seconds = start.elapsed().as_secs_f64();
        match found {
            Ok(steady) if options.json => {
                bad += u32::from(steady.failed > 0);
                let file = path.display().to_string();
                println!(
                    "{}",
                    serde_json::json!({"file": file, "ways": ways.len(), "seconds": seconds, "found": steady})
                );
            }
            Ok(steady) => {
                bad += u32::from(steady.failed > 0);
                println!("{}\n  {steady}\n  the same in {} ways, {seconds:.1} s", path.display(), ways.len());
            }
            Err(error) => {
                bad += 1;
                println!("{}: {error}", path.display());
            }
        }
    }
    if bad > 0 { Err(format!("{bad} of them did not pass").into()) } else { Ok(()) }
}
