//! The typed key-value section.

use std::collections::BTreeMap;

use super::{GgufError, MAX_ARRAY, MAX_NAME, MAX_STRING, cursor::Cursor};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of GGUF's unsigned integers.
    Unsigned(u64),
    /// Any of GGUF's signed integers.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// A list of one element type.
    Array(Array),
}

/// A metadata array.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Elements of any unsigned integer type.
    Unsigned(Vec<u64>),
    /// Elements of any signed integer type.
    Signed(Vec<i64>),
    /// f32 elements.
    F32(Vec<f32>),
    /// f64 elements.
    F64(Vec<f64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Strings as bytes: tokens of some vocabularies are not UTF-8.
    Strings(Vec<Box<[u8]>>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Unsigned(v) => v.len(),
            Self::Signed(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Strings(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// What the value is, for messages: short, never the whole of a long string or array.
    fn describe(&self) -> String {
        match self {
            Self::Unsigned(v) => v.to_string(),
            Self::Signed(v) => v.to_string(),
            Self::Float(v) => v.to_string(),
            Self::Bool(v) => v.to_string(),
            Self::String(s) => format!("a string of {} bytes", s.len()),
            Self::Array(a) => format!("an array of {} elements", a.len()),
        }
    }
}

/// All metadata of a file, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Sets a value (for files that are about to be written, and for tests).
    pub fn insert(&mut self, key: impl Into<String>, value: Value) {
        self.entries.insert(key.into(), value);
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// A key that must be text.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        match self.need(key)? {
            Value::String(s) => Ok(s),
            other => Err(wrong(key, "a string", other)),
        }
    }

    /// A key that must be a whole number from 0.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        match self.need(key)? {
            Value::Unsigned(v) => Ok(*v),
            Value::Signed(v) if *v >= 0 => Ok(v.unsigned_abs()),
            other => Err(wrong(key, "a whole number from 0", other)),
        }
    }

    /// A key that must be a whole number that fits u32.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        let value = self.u64(key)?;
        u32::try_from(value).map_err(|_| GgufError::Type {
            key: key.to_owned(),
            expected: "a number below 2^32",
            got: value.to_string(),
        })
    }

    /// A key that must be a finite number.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "f32 is what models use"
        )]
        match self.need(key)? {
            Value::Float(v) if v.is_finite() => Ok(*v as f32),
            Value::Unsigned(v) => Ok(*v as f32),
            Value::Signed(v) => Ok(*v as f32),
            other => Err(wrong(key, "a finite number", other)),
        }
    }

    /// A key that must be true or false.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        match self.need(key)? {
            Value::Bool(v) => Ok(*v),
            other => Err(wrong(key, "true or false", other)),
        }
    }

    /// A key that must be a list of strings, as bytes.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn strings(&self, key: &str) -> Result<&[Box<[u8]>], GgufError> {
        match self.need(key)? {
            Value::Array(Array::Strings(v)) => Ok(v),
            other => Err(wrong(key, "a list of strings", other)),
        }
    }

    /// A key that must be a list of f32.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn floats(&self, key: &str) -> Result<&[f32], GgufError> {
        match self.need(key)? {
            Value::Array(Array::F32(v)) => Ok(v),
            other => Err(wrong(key, "a list of f32", other)),
        }
    }

    /// A key that must be a list of whole numbers, signed or not.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Type`].
    pub fn integers(&self, key: &str) -> Result<Vec<i64>, GgufError> {
        match self.need(key)? {
            Value::Array(Array::Signed(v)) => Ok(v.clone()),
            Value::Array(Array::Unsigned(v)) => {
                Ok(v.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect())
            }
            other => Err(wrong(key, "a list of whole numbers", other)),
        }
    }

    /// `None` when the key is missing, an error only when it is there with a wrong type.
    ///
    /// # Errors
    /// Whatever `read` returns other than [`GgufError::Missing`].
    pub fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, GgufError>,
    ) -> Result<Option<T>, GgufError> {
        if self.get(key).is_none() { Ok(None) } else { read(self, key).map(Some) }
    }

    fn need(&self, key: &str) -> Result<&Value, GgufError> {
        self.get(key).ok_or_else(|| GgufError::Missing(key.to_owned()))
    }

    pub(super) fn read(at: &mut Cursor<'_>, count: u64) -> Result<Self, GgufError> {
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let key = at.string("key", MAX_NAME)?;
            let id = at.u32("value type")?;
            let value = read_value(at, &key, id)?;
            if entries.insert(key.clone(), value).is_some() {
                return Err(GgufError::Duplicate { what: "key", name: key });
            }
        }
        Ok(Self { entries })
    }
}

fn wrong(key: &str, expected: &'static str, got: &Value) -> GgufError {
    GgufError::Type { key: key.to_owned(), expected, got: got.describe() }
}

pub(super) mod id {
    //! GGUF's numbers for value types.
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

fn read_value(at: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, GgufError> {
    const WHAT: &str = "value";
    Ok(match kind {
        id::U8 => Value::Unsigned(at.array(WHAT).map(u8::from_le_bytes)?.into()),
        id::I8 => Value::Signed(at.array(WHAT).map(i8::from_le_bytes)?.into()),
        id::U16 => Value::Unsigned(at.array(WHAT).map(u16::from_le_bytes)?.into()),
        id::I16 => Value::Signed(at.array(WHAT).map(i16::from_le_bytes)?.into()),
        id::U32 => Value::Unsigned(at.u32(WHAT)?.into()),
        id::I32 => Value::Signed(at.array(WHAT).map(i32::from_le_bytes)?.into()),
        id::F32 => Value::Float(at.array(WHAT).map(f32::from_le_bytes)?.into()),
        id::BOOL => Value::Bool(at.array::<1>(WHAT)? != [0]),
        id::STRING => Value::String(at.string(WHAT, MAX_STRING)?),
        id::ARRAY => Value::Array(read_array(at, key)?),
        id::U64 => Value::Unsigned(at.u64(WHAT)?),
        id::I64 => Value::Signed(at.array(WHAT).map(i64::from_le_bytes)?),
        id::F64 => Value::Float(at.array(WHAT).map(f64::from_le_bytes)?),
        other => return Err(GgufError::ValueType { key: key.to_owned(), id: other }),
    })
}

fn read_array(at: &mut Cursor<'_>, key: &str) -> Result<Array, GgufError> {
    const WHAT: &str = "array";
    let kind = at.u32("array element type")?;
    let count = at.count("array length", MAX_ARRAY)?;
    Ok(match kind {
        id::U8 => Array::Unsigned(numbers(at, count, u8::from_le_bytes)?),
        id::I8 => Array::Signed(numbers(at, count, i8::from_le_bytes)?),
        id::U16 => Array::Unsigned(numbers(at, count, u16::from_le_bytes)?),
        id::I16 => Array::Signed(numbers(at, count, i16::from_le_bytes)?),
        id::U32 => Array::Unsigned(numbers(at, count, u32::from_le_bytes)?),
        id::I32 => Array::Signed(numbers(at, count, i32::from_le_bytes)?),
        id::U64 => Array::Unsigned(numbers(at, count, u64::from_le_bytes)?),
        id::I64 => Array::Signed(numbers(at, count, i64::from_le_bytes)?),
        id::F32 => Array::F32(numbers(at, count, f32::from_le_bytes)?),
        id::F64 => Array::F64(numbers(at, count, f64::from_le_bytes)?),
        id::BOOL => Array::Bool(at.take(WHAT, count)?.iter().map(|&b| b != 0).collect()),
        id::STRING => {
            // Each string carries a length of 8 bytes, so the file's size bounds the allocation.
            at.need(WHAT, count.saturating_mul(8))?;
            (0..count)
                .map(|_| at.bytes(WHAT, MAX_STRING).map(Box::from))
                .collect::<Result<_, _>>()
                .map(Array::Strings)?
        }
        other => return Err(GgufError::ValueType { key: key.to_owned(), id: other }),
    })
}

fn numbers<const N: usize, T: Into<U>, U>(
    at: &mut Cursor<'_>,
    count: u64,
    decode: fn([u8; N]) -> T,
) -> Result<Vec<U>, GgufError> {
    let bytes = at.take("array", count.saturating_mul(N as u64))?;
    let (chunks, _) = bytes.as_chunks::<N>();
    Ok(chunks.iter().map(|&c| decode(c).into()).collect())
}
