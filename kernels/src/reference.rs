//! Whole models in plain f32, one token at a time, without the op set: slow, short, and what the backends are
//! checked against. Weights are decoded to f32 once, keys and values are kept as f32.

mod decoder;
mod encoder;

pub use decoder::ReferenceDecoder;
pub use encoder::ReferenceEncoder;

use crate::{
    dtype::DType,
    model::{ModelError, tensors, tensors::TensorSource},
    quant,
};

/// A dense f32 matrix.
#[derive(Clone, Debug)]
struct Matrix {
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn load(source: &dyn TensorSource, name: &str, rows: usize, cols: usize) -> Result<Self, ModelError> {
        let raw = tensors::matrix(source, name, rows, cols)?;
        let mut data = vec![0.0; rows * cols];
        decode(name, raw.dtype, raw.data, &mut data)?;
        Ok(Self { cols, data })
    }

    fn row(&self, index: usize) -> &[f32] {
        self.data.get(index * self.cols..(index + 1) * self.cols).unwrap_or_default()
    }

    /// `w · x (+ bias)`.
    fn times(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let mut out: Vec<f32> = self.data.chunks_exact(self.cols).map(|row| dot(row, x)).collect();
        if let Some(bias) = bias {
            add(&mut out, bias);
        }
        out
    }
}

fn decode(name: &str, dtype: DType, data: &[u8], out: &mut [f32]) -> Result<(), ModelError> {
    quant::dequantize_row(dtype, data, out).map_err(|e| ModelError::config(name, dtype, e.to_string()))
}

/// In 16 partial sums, which is faster and nearer to the exact sum than one.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// The channels of one head in a row of all heads.
fn head_of(row: &[f32], head: usize, dim: usize) -> &[f32] {
    row.get(head * dim..(head + 1) * dim).unwrap_or_default()
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
}

#[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let n = values.len() as f32;
    values.sum::<f32>() / n
}
