//! Speed of the CPU backend's matrix products next to the memory's read bandwidth.
//!
//! `cargo run --release -p potluck-kernels --no-default-features --example cpu_bench -- [threads] [type] [simd]`

use std::time::{Duration, Instant};

use potluck_kernels::backend::{Backend, BackendError, RawMatrix};
use potluck_kernels::cpu::{CpuBackend, Simd};
use potluck_kernels::dtype::DType;

/// Bytes per second that `threads` threads read from memory, the best of a few passes.
fn read_bandwidth(threads: usize, data: &[u64]) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..5 {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let parts: Vec<_> = data
                .chunks(data.len().div_ceil(threads))
                .map(|part| {
                    scope.spawn(move || {
                        let mut sums = [0u64; 32];
                        for chunk in part.chunks_exact(32) {
                            sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum = sum.wrapping_add(*v));
                        }
                        sums.into_iter().fold(0, u64::wrapping_add)
                    })
                })
                .collect();
            parts.into_iter().filter_map(|part| part.join().ok()).fold(0, u64::wrapping_add)
        });
        std::hint::black_box(sum);
        best = best.max(size_of_val(data) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Memory to read, on huge pages where there are such.
fn memory(bytes: usize) -> std::io::Result<memmap2::MmapMut> {
    let mut map = memmap2::MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.fill(1);
    Ok(map)
}

/// Median time of one call, over a few tenths of a second.
fn time(mut work: impl FnMut() -> Result<(), BackendError>) -> Result<f64, BackendError> {
    work()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || (start.elapsed() < Duration::from_millis(400) && times.len() < 1000) {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}

/// Bytes of some valid encoding: pseudo-random, with scales that are neither huge nor tiny.
fn weights(dtype: DType, bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut data: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    let size = dtype.block_bytes();
    for block in data.chunks_exact_mut(size) {
        // The high byte of every f16 (and of every f32) of a block becomes that of about 0.01.
        let high: &[usize] = match dtype {
            DType::F32 => &[3],
            DType::F16 | DType::BF16 | DType::Q8_0 | DType::Q4_0 | DType::Q5_0 => &[1],
            DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[1, 3],
            DType::Q6_K => &[209],
        };
        for at in high {
            if let Some(byte) = block.get_mut(*at) {
                *byte = if matches!(dtype, DType::F32 | DType::BF16) { 0x3c } else { 0x21 };
            }
        }
    }
    data
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(0), |v| v.parse())?;
    let only = args.next().filter(|name| name != "all");
    let simd = args.next().and_then(|name| {
        Simd::ALL.into_iter().find(|simd| simd.name().to_lowercase().starts_with(&name.to_lowercase()))
    });
    let mut backend = CpuBackend::new(threads, simd)?;
    let map = memory(256 << 20)?;
    let map: &[u64] = bytemuck::cast_slice(&map);
    println!("{}", backend.describe());
    println!(
        "| type | rows × cols | memory GB/s | GB/s at 1 token | of memory | GOP/s at 8 | 8 tokens cost | GOP/s at 512 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for dtype in DType::ALL {
        if only.as_ref().is_some_and(|name| name != dtype.name()) {
            continue;
        }
        for (rows, cols) in [(2048, 2048), (8192, 2048), (2048, 8192), (128_256, 2048)] {
            let Some(bytes) = dtype.bytes_for(rows * cols) else { continue };
            // Enough copies that the caches cannot hold them.
            let copies = ((192 << 20) / bytes).clamp(1, 64);
            let data = weights(dtype, bytes);
            let mut matrices = Vec::new();
            for _ in 0..copies {
                matrices.push(backend.matrix(&[RawMatrix { dtype, rows, cols, data: &data }])?);
            }
            // Other guests of the machine take their share, which changes by the second.
            let bandwidth = read_bandwidth(backend.threads(), map);
            let packed = matrices.first().map_or(0, |m| m.bytes()) as f64;
            let mut seconds = [0.0; 3];
            for (tokens, seconds) in [1, 8, 512].into_iter().zip(&mut seconds) {
                if rows > 100_000 && tokens == 512 {
                    continue;
                }
                let x = backend.activation(tokens, cols)?;
                let mut out = backend.activation(tokens, rows)?;
                let mut turn = 0;
                *seconds = time(|| {
                    turn += 1;
                    match matrices.get(turn % copies) {
                        Some(w) => backend.matmul(tokens, w, &x, None, false, &mut out),
                        None => Ok(()),
                    }
                })?;
            }
            let [one, eight, many] = seconds;
            let ops = |tokens: f64, s: f64| 2.0 * tokens * rows as f64 * cols as f64 / s / 1e9;
            println!(
                "| {dtype} | {rows} × {cols} | {:.1} | {:.1} | {:.0} % | {:.0} | ×{:.2} | {:.0} |",
                bandwidth / 1e9,
                packed / one / 1e9,
                100.0 * packed / one / bandwidth,
                ops(8.0, eight),
                eight / one,
                if many > 0.0 { ops(512.0, many) } else { f64::NAN },
            );
        }
    }
    Ok(())
}
