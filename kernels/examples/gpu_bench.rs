//! Speed of the GPU backend's products on this machine's GPU, beside what a plain copy reaches.
//!
//! `cargo run --release -p potluck-kernels --example gpu_bench [rows] [cols]`
//!
//! For each weight type: GB/s of packed weights read by a product with one token, and TFLOP/s of a product
//! with 512 tokens. The ceiling is a device-to-device copy by the backend's own page copy (bytes read plus
//! bytes written), measured in the same run. Median of 7 runs of enough launches to take about 50 ms each.
#![cfg(feature = "gpu")]

use std::time::Instant;

use potluck_kernels::backend::{Backend, BackendError, Batch, CacheShape, PAGE, RawMatrix};
use potluck_kernels::cube::{CubeBackend, Selection};
use potluck_kernels::dtype::DType;

const RUNS: usize = 7;
const TOKENS: usize = 512;

/// Median seconds of one call of `work`, and the spread (fastest to slowest, as a share of the median).
fn time(
    gpu: &mut CubeBackend,
    mut work: impl FnMut(&mut CubeBackend) -> Result<(), BackendError>,
) -> Result<(f64, f64), BackendError> {
    let mut batch = 1usize;
    loop {
        let start = Instant::now();
        for _ in 0..batch {
            work(gpu)?;
        }
        gpu.sync()?;
        if start.elapsed().as_secs_f64() > 0.05 || batch >= 4096 {
            break;
        }
        batch *= 2;
    }
    let mut seconds = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..batch {
            work(gpu)?;
        }
        gpu.sync()?;
        seconds.push(start.elapsed().as_secs_f64() / batch as f64);
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(RUNS / 2).copied().unwrap_or(f64::NAN);
    let spread = seconds.last().copied().unwrap_or(median) - seconds.first().copied().unwrap_or(median);
    Ok((median, spread / median))
}

fn step(tokens: usize) -> Batch {
    Batch {
        tokens: vec![0; tokens],
        positions: (0..tokens as u32).collect(),
        sequence: vec![0; tokens],
        tables: vec![Vec::new()],
        outputs: Vec::new(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rows: usize = args.next().map_or(Ok(14_336), |v| v.parse())?;
    let cols: usize = args.next().map_or(Ok(4_096), |v| v.parse())?;
    let mut gpu = CubeBackend::new(Selection::Auto)?;
    println!("{}, planes: {}", gpu.describe(), gpu.uses_planes());

    // 32 MiB of keys and as much of values.
    let (kv_heads, head_dim) = (512, 128);
    let pages = 8;
    let mut cache = gpu.cache(&CacheShape { layers: 1, pages: 2 * pages, kv_heads, head_dim })?;
    let bytes = (pages * kv_heads * head_dim * PAGE * 2 * 2 * 2) as f64;
    let (seconds, spread) = time(&mut gpu, |gpu| {
        for page in 0..pages as u32 {
            gpu.copy_page(&mut cache, page, page + pages as u32)?;
        }
        Ok(())
    })?;
    println!("copy: {:.1} GB/s (spread {:.0} %), read and written", bytes / seconds / 1e9, spread * 100.0);
    drop(cache);

    println!("{rows} × {cols}: type, MB, GB/s at 1 token, ms, TFLOP/s at {TOKENS} tokens, ms");
    gpu.begin(&step(TOKENS))?;
    let x = gpu.activation(TOKENS, cols)?;
    let mut out = gpu.activation(TOKENS, rows)?;
    for dtype in DType::ALL {
        let Some(row_bytes) = dtype.bytes_for(cols) else { continue };
        // Scales and quants of zero: the kernels do not look at values.
        let data = vec![0u8; rows * row_bytes];
        let w = gpu.matrix(&[RawMatrix { dtype, rows, cols, data: &data }])?;
        let (one, one_spread) = time(&mut gpu, |gpu| gpu.matmul(1, &w, &x, None, false, &mut out))?;
        let (many, many_spread) = time(&mut gpu, |gpu| gpu.matmul(TOKENS, &w, &x, None, false, &mut out))?;
        let flops = 2.0 * (rows * cols * TOKENS) as f64;
        println!(
            "{:>5} {:8.1} {:8.1} {:8.3} (±{:.0} %) {:8.2} {:8.3} (±{:.0} %)",
            dtype.name(),
            w.bytes() as f64 / 1e6,
            w.bytes() as f64 / one / 1e9,
            one * 1e3,
            one_spread * 100.0,
            flops / many / 1e12,
            many * 1e3,
            many_spread * 100.0,
        );
    }
    Ok(())
}
