//! What a host holds: a model on whichever device, behind one object-safe trait.

pub mod kv;
