//! Tests over whole components.

mod cached;
mod fixture;
mod followed;
mod fuzz;
mod good;
mod hostile;
mod kept;
mod printed;
mod swapped;
