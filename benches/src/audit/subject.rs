//! Models that a pool serves, and cheaper ones that somebody might serve instead.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use potluck_kernels::{
    dtype::DType,
    gguf::{Gguf, GgufWriter, TensorInfo, Value},
    model::{Architecture, DecoderConfig},
    quant,
    synthetic::{Kind, Spec, requantize},
    tokenizer::Tokenizer,
};

/// A model as it is meant to be served.
#[derive(Debug)]
pub struct Subject {
    /// Its name in tables.
    pub name: String,
    /// The file.
    pub gguf: Gguf,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// The token that begins a text; `None` for a random model, whose prompts are random tokens.
    pub start: Option<u32>,
    /// Most tokens of an answer.
    pub limit: u32,
    /// Storage types to serve instead, the nearest first.
    pub lower: Vec<DType>,
}

/// A change to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Stored in another type.
    Stored(u32),
    /// Without its middle layer.
    Dropped,
    /// Without every second layer but the first and the last.
    Small,
    /// Without the weaker half of the feed-forward channels.
    Pruned,
}

/// Names of all subjects.
pub const SUBJECTS: [&str; 5] = ["stories-f32", "stories-q8_0", "llama-q8_0", "qwen3-q8_0", "llama-q4_k"];

/// A finished file, read again.
fn file(writer: &GgufWriter) -> Result<Gguf> {
    let mut bytes = Vec::new();
    writer.write(&mut bytes)?;
    Ok(Gguf::from_bytes(bytes)?)
}

impl Subject {
    /// One of [`SUBJECTS`]. `stories` is the file of stories260K in f32.
    ///
    /// # Errors
    /// An unknown name, or a file that cannot be read.
    pub fn load(name: &str, stories: &Path) -> Result<Self> {
        let Some((family, stored)) = name.split_once('-') else { bail!("there is no subject `{name}`") };
        let dtype = DType::ALL.into_iter().find(|dtype| dtype.to_string().eq_ignore_ascii_case(stored));
        let dtype = dtype.with_context(|| format!("there is no storage type `{stored}`"))?;
        let lower = match dtype {
            DType::F32 => vec![DType::F16, DType::Q8_0, DType::Q5_0, DType::Q4_0],
            DType::Q8_0 if family == "stories" => vec![DType::Q5_0, DType::Q4_0],
            DType::Q8_0 => vec![DType::Q6_K, DType::Q5_K, DType::Q4_K, DType::Q4_0],
            _ => vec![DType::Q4_0],
        };
        if family == "stories" {
            let source = Gguf::open(stories)?;
            let tokenizer = Tokenizer::from_metadata(source.metadata())?;
            let start = tokenizer.bos().context("the model has no first token")?;
            let mut ends = tokenizer.eog_tokens().to_vec();
            // Its stories were trained one after the other: the next one's beginning is the end.
            ends.push(start);
            let gguf = if dtype == DType::F32 { source } else { file(&requantize(&source, dtype)?)? };
            return Ok(Self { name: name.into(), gguf, ends, start: Some(start), limit: 300, lower });
        }
        let architecture = Architecture::ALL.into_iter().find(|a| a.name() == family);
        let architecture = architecture.with_context(|| format!("there is no family `{family}`"))?;
        let gguf = file(&Spec::small(Kind::Decoder(architecture)).build(dtype)?)?;
        Ok(Self { name: name.into(), gguf, ends: vec![2, 3], start: None, limit: 200, lower })
    }

    /// The model after a change.
    ///
    /// # Errors
    /// A row that cannot be stored so, or a model that has too few layers.
    pub fn changed(&self, change: Change) -> Result<Gguf> {
        let layers = DecoderConfig::from_gguf(&self.gguf)?.layers;
        match change {
            Change::Stored(id) => {
                let dtype = DType::from_gguf(id).context("an unknown storage type")?;
                file(&requantize(&self.gguf, dtype)?)
            }
            Change::Dropped => self.without(&[layers / 2]),
            Change::Small => self.without(&(1..layers - 1).step_by(2).collect::<Vec<_>>()),
            Change::Pruned => self.pruned(),
        }
    }

    /// Without these layers.
    fn without(&self, dropped: &[usize]) -> Result<Gguf> {
        let config = DecoderConfig::from_gguf(&self.gguf)?;
        let mut metadata = self.gguf.metadata().clone();
        let left = u64::try_from(config.layers - dropped.len())?;
        metadata.insert(format!("{}.block_count", config.architecture.name()), Value::Unsigned(left));
        let mut writer = GgufWriter::new(metadata);
        for tensor in self.gguf.tensors() {
            let Some(name) = renamed(&tensor.name, dropped) else { continue };
            writer.tensor(name, &tensor.dims, tensor.dtype, self.gguf.data(tensor).to_vec());
        }
        file(&writer)
    }

    /// With the columns of `ffn_down` that are small set to nothing, half of them.
    fn pruned(&self) -> Result<Gguf> {
        let mut writer = GgufWriter::new(self.gguf.metadata().clone());
        for tensor in self.gguf.tensors() {
            let data = if tensor.name.ends_with("ffn_down.weight") {
                self.halved(tensor)?
            } else {
                self.gguf.data(tensor).to_vec()
            };
            writer.tensor(&tensor.name, &tensor.dims, tensor.dtype, data);
        }
        file(&writer)
    }

    fn halved(&self, tensor: &TensorInfo) -> Result<Vec<u8>> {
        let cols = tensor.dims.first().copied().unwrap_or(0);
        let bytes = tensor.dtype.bytes_for(cols).context("rows of whole blocks")?;
        let mut rows = Vec::new();
        for stored in self.gguf.data(tensor).chunks_exact(bytes) {
            let mut row = vec![0.0f32; cols];
            quant::dequantize_row(tensor.dtype, stored, &mut row)?;
            rows.push(row);
        }
        let strength = |col: usize| rows.iter().filter_map(|row| row.get(col)).map(|x| x * x).sum::<f32>();
        let mut order: Vec<(usize, f32)> = (0..cols).map(|col| (col, strength(col))).collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut out = Vec::new();
        for row in &mut rows {
            for (col, _) in order.iter().take(cols / 2) {
                if let Some(value) = row.get_mut(*col) {
                    *value = 0.0;
                }
            }
            quant::quantize_row(tensor.dtype, row, &mut out)?;
        }
        Ok(out)
    }
}

/// A tensor's name when layers are missing before it; `None` when its own is.
fn renamed(name: &str, dropped: &[usize]) -> Option<String> {
    let split = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((layer, part)) = split.and_then(|(layer, part)| Some((layer.parse::<usize>().ok()?, part)))
    else {
        return Some(name.to_owned());
    };
    if dropped.contains(&layer) {
        return None;
    }
    Some(format!("blk.{}.{part}", layer - dropped.iter().filter(|d| **d < layer).count()))
}
