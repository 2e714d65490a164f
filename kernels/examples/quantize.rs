//! Stores a model's matrices as another type: `quantize INPUT DTYPE OUTPUT`.

use std::{error::Error, fs::File, io::BufWriter, path::Path};

use potluck_kernels::{dtype::DType, gguf::Gguf, synthetic::requantize};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, dtype, output] = args.as_slice() else {
        return Err("usage: quantize INPUT DTYPE OUTPUT".into());
    };
    let found = DType::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(dtype));
    let dtype = found
        .ok_or_else(|| format!("no type {dtype}; there are {}", DType::ALL.map(DType::name).join(" ")))?;
    let gguf = Gguf::open(Path::new(input))?;
    requantize(&gguf, dtype)?.write(&mut BufWriter::new(File::create(output)?))?;
    println!("{output}: {} MB", std::fs::metadata(output)?.len() / 1_000_000);
    Ok(())
}
