//! What a chain could read, too: formats that need neither a system nor this program.
//!
//! Nothing here uses more than `core`, `alloc`, SCALE and ed25519; integers carry their unit in their type.

mod receipt;
#[cfg(test)]
mod tests;

pub use receipt::{
    Class, MAX_CLASS, MAX_JOB, MAX_RECEIPT, Micros, Party, Receipt, ReceiptError, Signed, Tokens, UnixMillis,
};
