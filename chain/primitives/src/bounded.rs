//! A vector that is never longer than its type says: a longer one is refused before memory is taken for it.

use alloc::vec::Vec;
use core::{fmt, ops::Deref};

use parity_scale_codec::{
    Compact, Decode, DecodeWithMemTracking, Encode, EncodeLike, Error, Input, MaxEncodedLen, Output,
    decode_vec_with_len,
};
use scale_info::{Type, TypeInfo};

/// At most `N` items, written as a plain vector is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<T, const N: u32>(Vec<T>);

/// More items than the type can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// How many it holds at most.
    pub most: u32,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} items", self.most)
    }
}

impl core::error::Error for TooMany {}

impl<T, const N: u32> Bounded<T, N> {
    /// The most items it can hold.
    pub const MOST: u32 = N;

    /// No items.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// These items.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn new(items: Vec<T>) -> Result<Self, TooMany> {
        if fits::<N>(items.len()) { Ok(Self(items)) } else { Err(TooMany { most: N }) }
    }

    /// Adds an item at the end.
    ///
    /// # Errors
    /// [`TooMany`]: it is full, and stays as it was.
    pub fn push(&mut self, item: T) -> Result<(), TooMany> {
        if !fits::<N>(self.0.len().saturating_add(1)) {
            return Err(TooMany { most: N });
        }
        self.0.push(item);
        Ok(())
    }

    /// The items as a vector without a bound.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

fn fits<const N: u32>(length: usize) -> bool {
    u32::try_from(length).is_ok_and(|length| length <= N)
}

impl<T, const N: u32> Default for Bounded<T, N> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T, const N: u32> Deref for Bounded<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: u32> TryFrom<Vec<T>> for Bounded<T, N> {
    type Error = TooMany;

    fn try_from(items: Vec<T>) -> Result<Self, TooMany> {
        Self::new(items)
    }
}

impl<T, const N: u32> From<Bounded<T, N>> for Vec<T> {
    fn from(items: Bounded<T, N>) -> Self {
        items.0
    }
}

impl<T, const N: u32> IntoIterator for Bounded<T, N> {
    type Item = T;
    type IntoIter = alloc::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: u32> IntoIterator for &'a Bounded<T, N> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Encode, const N: u32> Encode for Bounded<T, N> {
    fn size_hint(&self) -> usize {
        self.0.size_hint()
    }

    fn encode_to<O: Output + ?Sized>(&self, output: &mut O) {
        self.0.encode_to(output);
    }
}

impl<T: Encode, const N: u32> EncodeLike for Bounded<T, N> {}
impl<T: Encode, const N: u32> EncodeLike<Vec<T>> for Bounded<T, N> {}

impl<T: Decode, const N: u32> Decode for Bounded<T, N> {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        let length = Compact::<u32>::decode(input)?.0;
        if length > N {
            return Err("more items than allowed".into());
        }
        let length = usize::try_from(length).map_err(|_| "more items than can be counted")?;
        decode_vec_with_len(input, length).map(Self)
    }
}

impl<T: DecodeWithMemTracking, const N: u32> DecodeWithMemTracking for Bounded<T, N> {}

impl<T: MaxEncodedLen, const N: u32> MaxEncodedLen for Bounded<T, N> {
    fn max_encoded_len() -> usize {
        let most = usize::try_from(N).unwrap_or(usize::MAX);
        T::max_encoded_len().saturating_mul(most).saturating_add(Compact(N).encoded_size())
    }
}

/// Described as the plain vector that it is written as.
impl<T: TypeInfo + 'static, const N: u32> TypeInfo for Bounded<T, N> {
    type Identity = Vec<T>;

    fn type_info() -> Type {
        <Vec<T> as TypeInfo>::type_info()
    }
}
