//! From a file and options to a model on a device.

use std::path::Path;

use super::{Device, Embedder, EngineError, EngineOptions, Generator, Loaded, Memory, kv::PagePool};
use crate::{
    backend::BackendError,
    cpu::CpuBackend,
    dtype::DType,
    gguf::Gguf,
    model::{
        Decoder, DecoderConfig, Encoder, EncoderConfig, EncoderFormat, LoadOptions, ModelError,
        decoder::{Progress, activation_bytes, weights_bytes},
        tensors::TensorSource,
    },
    safetensors::Safetensors,
};

/// Most rows of logits in one step; each costs a row of the vocabulary in memory.
const MAX_OUTPUTS: usize = 64;

/// Resolves options against a model: what a decoder has to allocate.
fn plan(config: &DecoderConfig, options: &EngineOptions) -> Result<LoadOptions, EngineError> {
    let refuse = |name, value, reason: String| Err(EngineError::Option { name, value, reason });
    let context = if options.context == 0 { config.context } else { options.context };
    if context > config.context {
        let reason = format!("the model was trained for {} positions", config.context);
        return refuse("context", context, reason);
    }
    if !(1..=1024).contains(&options.parallel) {
        return refuse("parallel", options.parallel, "it must be 1 to 1024".into());
    }
    if !(1..=8192).contains(&options.max_batch_tokens) {
        return refuse("max_batch_tokens", options.max_batch_tokens, "it must be 1 to 8192".into());
    }
    let max_batch_tokens = options.max_batch_tokens.max(options.parallel);
    Ok(LoadOptions {
        max_batch_tokens,
        max_outputs: MAX_OUTPUTS.max(options.parallel).min(max_batch_tokens),
        cache_pages: PagePool::pages_for(context) * options.parallel,
    })
}

/// What a decoder will take with these options, from its metadata alone.
///
/// # Errors
/// [`EngineError`] when the file does not describe a supported decoder or an option makes no sense for it.
pub fn estimate(gguf: &Gguf, options: &EngineOptions) -> Result<Memory, EngineError> {
    let config = DecoderConfig::from_gguf(gguf)?;
    let load = plan(&config, options)?;
    Ok(Memory {
        weights: weights_bytes(gguf),
        cache: config.cache_bytes(load.cache_pages),
        activations: activation_bytes(&config, &load),
    })
}

/// Loads a decoder. `progress` is called with bytes done and bytes in all, from the start again when a GPU turned
/// out too small and the CPU takes over.
///
/// # Errors
/// [`EngineError`] when the model is not supported, does not fit, or the device asked for is missing.
pub fn load_decoder(
    gguf: &Gguf,
    options: &EngineOptions,
    progress: Progress<'_>,
) -> Result<Box<dyn Generator>, EngineError> {
    let memory = estimate(gguf, options)?;
    let load = plan(&DecoderConfig::from_gguf(gguf)?, options)?;
    let weights = memory.weights;
    if let Some(backend) = gpu(options.device)? {
        match Decoder::load(gguf, backend, load, progress) {
            Ok(decoder) => return Ok(Box::new(Loaded { decoder, weights })),
            Err(error) => give_up_on_gpu(options.device, error)?,
        }
    }
    if let Some(available) = available_memory()
        && memory.total() > available
    {
        return Err(EngineError::Memory { needed: memory, available });
    }
    let decoder = Decoder::load(gguf, cpu(options)?, load, progress)?;
    Ok(Box::new(Loaded { decoder, weights }))
}

/// Where an encoder comes from.
#[derive(Clone, Copy, Debug)]
pub enum EncoderSource<'a> {
    /// A GGUF file of architecture `bert`.
    Gguf(&'a Gguf),
    /// A folder with `config.json` and `model.safetensors`.
    Folder(&'a Path),
}

/// Loads an encoder. `progress` is called with layers done and layers in all.
///
/// # Errors
/// As [`load_decoder`].
pub fn load_encoder(
    source: EncoderSource<'_>,
    options: &EngineOptions,
    progress: Progress<'_>,
) -> Result<Box<dyn Embedder>, EngineError> {
    load_encoder_as(DType::F32, source, options, progress)
}

/// As [`load_encoder`], with matrices that the file has as f32 stored as `single`; see [`Encoder::load_as`].
///
/// # Errors
/// As [`load_decoder`].
pub fn load_encoder_as(
    single: DType,
    source: EncoderSource<'_>,
    options: &EngineOptions,
    progress: Progress<'_>,
) -> Result<Box<dyn Embedder>, EngineError> {
    match source {
        EncoderSource::Gguf(gguf) => {
            let config = EncoderConfig::from_gguf(gguf)?;
            let embedder = encoder(single, gguf, &EncoderFormat::Gguf, &config, options, progress)?;
            gguf.release_pages();
            Ok(embedder)
        }
        EncoderSource::Folder(folder) => {
            let config = EncoderConfig::from_folder(folder)?;
            let file = Safetensors::open(&folder.join("model.safetensors")).map_err(ModelError::from)?;
            encoder(single, &file, &EncoderFormat::of(&file), &config, options, progress)
        }
    }
}

fn encoder(
    single: DType,
    source: &dyn TensorSource,
    format: &EncoderFormat,
    config: &EncoderConfig,
    options: &EngineOptions,
    progress: Progress<'_>,
) -> Result<Box<dyn Embedder>, EngineError> {
    // One input of full length always fits.
    let tokens = options.max_batch_tokens.max(config.positions);
    if let Some(backend) = gpu(options.device)? {
        match Encoder::load_as(single, source, format, config.clone(), backend, tokens, progress) {
            Ok(encoder) => return Ok(Box::new(encoder)),
            Err(error) => give_up_on_gpu(options.device, error)?,
        }
    }
    Ok(Box::new(Encoder::load_as(single, source, format, config.clone(), cpu(options)?, tokens, progress)?))
}

fn cpu(options: &EngineOptions) -> Result<CpuBackend, EngineError> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(cores);
    if !(1..=1024).contains(&threads) {
        let reason = "it must be 1 to 1024".into();
        return Err(EngineError::Option { name: "threads", value: threads, reason });
    }
    Ok(CpuBackend::new(threads, None)?)
}

/// The GPU to try, when one may be and there is one.
#[cfg(feature = "gpu")]
fn gpu(device: Device) -> Result<Option<crate::cube::CubeBackend>, EngineError> {
    use crate::cube::{CubeBackend, Selection};
    if device == Device::Cpu {
        return Ok(None);
    }
    match CubeBackend::new(Selection::Auto) {
        Ok(backend) => Ok(Some(backend)),
        Err(error @ BackendError::Unavailable { .. }) if device == Device::Auto => {
            tracing::info!(%error, "running on the CPU");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A build without GPU support has no device to try.
#[cfg(not(feature = "gpu"))]
fn gpu(device: Device) -> Result<Option<CpuBackend>, EngineError> {
    match device {
        Device::Auto | Device::Cpu => Ok(None),
        Device::Gpu => Err(EngineError::NoGpuSupport),
    }
}

/// A model that is too large for the GPU may still fit the CPU; every other error stays one.
fn give_up_on_gpu(device: Device, error: ModelError) -> Result<(), EngineError> {
    match error {
        ModelError::Backend(error @ BackendError::OutOfMemory { .. }) if device == Device::Auto => {
            tracing::warn!(%error, "the model does not fit the GPU; running on the CPU");
            Ok(())
        }
        other => Err(other.into()),
    }
}

/// Memory that can be had without swapping, where the system says so.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dtype::DType,
        model::Architecture,
        synthetic::{Kind, Spec},
    };

    fn small() -> Gguf {
        let spec = Spec::small(Kind::Decoder(Architecture::Llama));
        Gguf::from_bytes(spec.bytes(DType::Q8_0).unwrap()).unwrap()
    }

    #[test]
    fn senseless_options_are_refused_by_name() {
        let gguf = small();
        let base = EngineOptions { context: 1024, ..EngineOptions::default() };
        for (options, expected) in [
            (EngineOptions { context: 1025, ..base }, "context"),
            (EngineOptions { parallel: 0, ..base }, "parallel"),
            (EngineOptions { max_batch_tokens: 0, ..base }, "max_batch_tokens"),
        ] {
            match estimate(&gguf, &options) {
                Err(EngineError::Option { name, .. }) => assert_eq!(name, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn estimates_grow_with_what_is_asked() {
        let gguf = small();
        let options = |parallel| EngineOptions { context: 0, parallel, ..EngineOptions::default() };
        let (one, four) = (estimate(&gguf, &options(1)).unwrap(), estimate(&gguf, &options(4)).unwrap());
        // 1024 positions × 3 layers × (keys and values of 4 heads × 32 channels) × 2 bytes.
        assert_eq!(one.cache, 1024 * 3 * 2 * 128 * 2);
        assert_eq!(four.cache, 4 * one.cache);
        assert_eq!(one.weights, four.weights);
        assert!(available_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
