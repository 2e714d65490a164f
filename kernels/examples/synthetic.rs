//! Writes a model with random weights: `synthetic ARCH SIZE DTYPE PATH`, e.g. `synthetic llama 1b Q4_K /tmp/m.gguf`.
//! ARCH: llama mistral qwen2 qwen3 bert. SIZE: small 0.5b 1b 1.1b.

use std::{error::Error, fs::File, io::BufWriter};

use potluck_kernels::{
    dtype::DType,
    model::Architecture,
    synthetic::{Kind, Spec},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [arch, size, dtype, path] = args.as_slice() else {
        return Err("usage: synthetic ARCH SIZE DTYPE PATH".into());
    };
    let kind = match arch.as_str() {
        "bert" => Kind::Bert,
        name => Architecture::ALL
            .into_iter()
            .find(|a| a.name() == name)
            .map(Kind::Decoder)
            .ok_or_else(|| format!("no architecture {name}"))?,
    };
    let spec = Spec::preset(kind, size).ok_or_else(|| format!("no size {size}"))?;
    let dtype = parse(dtype)?;
    spec.build(dtype)?.write(&mut BufWriter::new(File::create(path)?))?;
    println!("{path}: {arch} {size} {dtype}, {} MB", std::fs::metadata(path)?.len() / 1_000_000);
    Ok(())
}

fn parse(name: &str) -> Result<DType, String> {
    let found = DType::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("no type {name}; there are {}", DType::ALL.map(DType::name).join(" ")))
}
