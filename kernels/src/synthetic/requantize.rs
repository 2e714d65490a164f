//! Another storage type for a whole model.

use crate::{
    dtype::DType,
    gguf::{Gguf, GgufWriter},
    quant::{self, QuantError},
};

/// A copy of a model with its 2-D weights stored as `dtype` where their rows are whole blocks of it. Norms, biases,
/// position and type tables stay as they are, as does anything that does not fit.
///
/// # Errors
/// [`QuantError`] when a row cannot be decoded or encoded.
pub fn requantize(gguf: &Gguf, dtype: DType) -> Result<GgufWriter, QuantError> {
    let mut writer = GgufWriter::new(gguf.metadata().clone());
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        let matrix = tensor.dims.len() == 2 && tensor.name.ends_with(".weight");
        let table = ["position_embd.weight", "token_types.weight"].contains(&tensor.name.as_str());
        let cols = tensor.dims.first().copied().unwrap_or(0);
        if !matrix || table || cols == 0 || !cols.is_multiple_of(dtype.block()) {
            writer.tensor(&tensor.name, &tensor.dims, tensor.dtype, data.to_vec());
            continue;
        }
        let mut out = Vec::with_capacity(dtype.bytes_for(tensor.elements()).unwrap_or(0));
        let mut row = vec![0.0; cols];
        for stored in data.chunks_exact(tensor.dtype.bytes_for(cols).unwrap_or(1)) {
            quant::dequantize_row(tensor.dtype, stored, &mut row)?;
            quant::quantize_row(dtype, &row, &mut out)?;
        }
        writer.tensor(&tensor.name, &tensor.dims, dtype, out);
    }
    Ok(writer)
}
