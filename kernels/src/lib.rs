//! Model files in, tokens and vectors out.
//!
//! The crate knows nothing of networks, HTTP or policies. One model graph (`model`) runs over one small
//! op set ([`backend::Backend`]) with two implementations: `cpu` (native SIMD, bit-identical for any number
//! of threads and any x86 instruction set) and `cube` (CubeCL kernels over wgpu).

pub mod audit;
pub mod backend;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod cube;
pub mod dtype;
pub mod engine;
pub mod gguf;
pub mod mapped;
pub mod model;
pub mod quant;
pub mod reference;
pub mod safetensors;
pub mod sample;
pub mod scan;
pub mod synthetic;
pub mod tokenizer;
