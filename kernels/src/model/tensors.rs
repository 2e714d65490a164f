//! Named tensors of either file format, fetched with the shape they must have.

use super::ModelError;
use half::{bf16, f16};

use crate::{backend::RawMatrix, dtype::DType, gguf::Gguf};

/// A tensor as its file holds it.
#[derive(Clone, Debug)]
pub struct RawTensor<'a> {
    /// Encoding of `data`.
    pub dtype: DType,
    /// Row-major shape: the last dimension runs fastest.
    pub shape: Vec<usize>,
    /// The bytes.
    pub data: &'a [u8],
}

/// A file with named tensors.
pub trait TensorSource {
    /// The tensor of this name.
    fn find(&self, name: &str) -> Option<RawTensor<'_>>;
}

impl TensorSource for Gguf {
    fn find(&self, name: &str) -> Option<RawTensor<'_>> {
        let info = self.tensor(name)?;
        let shape = info.dims.iter().rev().copied().collect();
        Some(RawTensor { dtype: info.dtype, shape, data: self.data(info) })
    }
}

fn need<'a>(
    source: &'a (impl TensorSource + ?Sized),
    name: &str,
    expected: &[usize],
) -> Result<RawTensor<'a>, ModelError> {
    let tensor = source.find(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
    if tensor.shape == expected {
        return Ok(tensor);
    }
    Err(ModelError::TensorShape { name: name.to_owned(), expected: expected.to_vec(), got: tensor.shape })
}

/// Decodes float data; norms, biases and small tables are never quantised.
///
/// # Errors
/// [`ModelError::Unsupported`] for a quantised type.
pub(crate) fn decode(name: &str, dtype: DType, data: &[u8], out: &mut [f32]) -> Result<(), ModelError> {
    match dtype {
        DType::F32 => {
            out.iter_mut().zip(data.as_chunks::<4>().0).for_each(|(o, b)| *o = f32::from_le_bytes(*b));
        }
        DType::F16 => out
            .iter_mut()
            .zip(data.as_chunks::<2>().0)
            .for_each(|(o, b)| *o = f16::from_le_bytes(*b).to_f32()),
        DType::BF16 => out
            .iter_mut()
            .zip(data.as_chunks::<2>().0)
            .for_each(|(o, b)| *o = bf16::from_le_bytes(*b).to_f32()),
        _ => return Err(ModelError::Unsupported { what: format!("a vector `{name}` stored as {dtype}") }),
    }
    Ok(())
}

/// The matrix of this name, which must be `rows × cols`.
///
/// # Errors
/// [`ModelError::MissingTensor`] or [`ModelError::TensorShape`].
pub fn matrix<'a>(
    source: &'a (impl TensorSource + ?Sized),
    name: &str,
    rows: usize,
    cols: usize,
) -> Result<RawMatrix<'a>, ModelError> {
    let tensor = need(source, name, &[rows, cols])?;
    Ok(RawMatrix { dtype: tensor.dtype, rows, cols, data: tensor.data })
}

/// The vector of this name as f32, which must have `len` values.
///
/// # Errors
/// [`ModelError::MissingTensor`] or [`ModelError::TensorShape`].
pub fn vector(source: &(impl TensorSource + ?Sized), name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
    let tensor = need(source, name, &[len])?;
    let mut out = vec![0.0; len];
    decode(name, tensor.dtype, tensor.data, &mut out)?;
    Ok(out)
}

/// As [`vector`], but it may be missing.
///
/// # Errors
/// [`ModelError::TensorShape`].
pub fn optional_vector(
    source: &(impl TensorSource + ?Sized),
    name: &str,
    len: usize,
) -> Result<Option<Vec<f32>>, ModelError> {
    if source.find(name).is_none() { Ok(None) } else { vector(source, name, len).map(Some) }
}
