//! Vectors that only memory holds.

use std::collections::HashMap;

/// Rows in the order of their arrival, with an index by unit.
#[derive(Debug)]
pub(super) struct Tail {
    dims: usize,
    units: Vec<u32>,
    scales: Vec<f32>,
    rows: Vec<u8>,
    index: HashMap<u32, u32>,
}

impl Tail {
    pub(super) fn new(dims: usize) -> Self {
        Self { dims, units: Vec::new(), scales: Vec::new(), rows: Vec::new(), index: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    pub(super) fn units(&self) -> &[u32] {
        &self.units
    }

    pub(super) fn rows(&self) -> &[u8] {
        &self.rows
    }

    pub(super) fn position(&self, unit: u32) -> Option<u32> {
        self.index.get(&unit).copied()
    }

    pub(super) fn scale(&self, position: u32) -> Option<f32> {
        self.scales.get(position as usize).copied()
    }

    pub(super) fn row(&self, position: u32) -> Option<&[u8]> {
        let start = position as usize * self.dims;
        self.rows.get(start..start + self.dims)
    }

    pub(super) fn get(&self, unit: u32) -> Option<(&[u8], f32)> {
        let position = self.position(unit)?;
        Some((self.row(position)?, self.scale(position)?))
    }

    pub(super) fn put(&mut self, unit: u32, row: &[i8], scale: f32) {
        self.remove(unit);
        self.index.insert(unit, self.units.len() as u32);
        self.units.push(unit);
        self.scales.push(scale);
        self.rows.extend(row.iter().map(|&value| value.cast_unsigned()));
    }

    /// Takes the unit's vector out; the last one moves into its place.
    pub(super) fn remove(&mut self, unit: u32) -> bool {
        let Some(position) = self.index.remove(&unit) else { return false };
        let (place, start) = (position as usize, position as usize * self.dims);
        let last = self.rows.len() - self.dims;
        self.rows.copy_within(last.., start);
        self.rows.truncate(last);
        self.scales.swap_remove(place);
        self.units.swap_remove(place);
        if let Some(&moved) = self.units.get(place) {
            self.index.insert(moved, position);
        }
        true
    }

    /// Takes the vectors of `other`, without the units that are in `self` already or that `skip` names.
    pub(super) fn absorb(&mut self, other: &Self, skip: impl Fn(u32) -> bool) {
        for (position, &unit) in (0u32..).zip(&other.units) {
            if self.position(unit).is_some() || skip(unit) {
                continue;
            }
            if let (Some(row), Some(scale)) = (other.row(position), other.scale(position)) {
                self.index.insert(unit, self.units.len() as u32);
                self.units.push(unit);
                self.scales.push(scale);
                self.rows.extend_from_slice(row);
            }
        }
    }
}
