//! Writing GGUF v3 files: for tools that quantise, and for tests.

use std::io::{self, Write};

use super::value::{Array, Metadata, Value, id};
use crate::dtype::DType;

const ALIGNMENT: usize = 32;

/// Collects metadata and tensors, then writes them in one go.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    metadata: Metadata,
    tensors: Vec<(String, Vec<usize>, DType, Vec<u8>)>,
}

impl GgufWriter {
    /// A writer with this metadata.
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, tensors: Vec::new() }
    }

    /// Adds a tensor; `dims` as in the file, the first runs fastest.
    pub fn tensor(&mut self, name: impl Into<String>, dims: &[usize], dtype: DType, data: Vec<u8>) {
        self.tensors.push((name.into(), dims.to_vec(), dtype, data));
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Whatever `out` returns.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let head = self.head();
        out.write_all(&head)?;
        out.write_all(&vec![0; padding(head.len())])?;
        for (_, _, _, data) in &self.tensors {
            out.write_all(data)?;
            out.write_all(&vec![0; padding(data.len())])?;
        }
        out.flush()
    }

    fn head(&self) -> Vec<u8> {
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.metadata.iter().count() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            string(&mut head, key.as_bytes());
            put_value(&mut head, value);
        }
        let mut offset = 0usize;
        for (name, dims, dtype, data) in &self.tensors {
            string(&mut head, name.as_bytes());
            head.extend(u32::try_from(dims.len()).unwrap_or(u32::MAX).to_le_bytes());
            dims.iter().for_each(|&d| head.extend((d as u64).to_le_bytes()));
            head.extend(dtype.gguf_id().to_le_bytes());
            head.extend((offset as u64).to_le_bytes());
            offset += data.len().next_multiple_of(ALIGNMENT);
        }
        head
    }
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT) - len
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    // The common readers ask for u32, i32 and f32 by exact type, so the narrow types are used where they fit.
    #[allow(clippy::cast_possible_truncation, reason = "floats are written as f32 on purpose")]
    match value {
        Value::Unsigned(v) => match u32::try_from(*v) {
            Ok(small) => put(id::U32, &small.to_le_bytes()),
            Err(_) => put(id::U64, &v.to_le_bytes()),
        },
        Value::Signed(v) => match i32::try_from(*v) {
            Ok(small) => put(id::I32, &small.to_le_bytes()),
            Err(_) => put(id::I64, &v.to_le_bytes()),
        },
        Value::Float(v) => put(id::F32, &(*v as f32).to_le_bytes()),
        Value::Bool(v) => put(id::BOOL, &[u8::from(*v)]),
        Value::String(s) => {
            put(id::STRING, &[]);
            string(out, s.as_bytes());
        }
        Value::Array(array) => {
            put(id::ARRAY, &[]);
            put_array(out, array);
        }
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut head = |kind: u32| {
        out.extend(kind.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    match array {
        Array::Unsigned(v) => {
            head(id::U64);
            v.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Array::Signed(v) => {
            head(id::I32);
            v.iter().for_each(|&n| out.extend(i32::try_from(n).unwrap_or(i32::MAX).to_le_bytes()));
        }
        Array::F32(v) => {
            head(id::F32);
            v.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Array::F64(v) => {
            head(id::F64);
            v.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Array::Bool(v) => {
            head(id::BOOL);
            out.extend(v.iter().map(|&b| u8::from(b)));
        }
        Array::Strings(v) => {
            head(id::STRING);
            v.iter().for_each(|s| string(out, s));
        }
    }
}
