//! Any bytes as a model file: refused or whole, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use potluck_kernels::gguf::Gguf;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return };
    for tensor in file.tensors() {
        assert_eq!(file.data(tensor).len(), tensor.len);
        let _ = file.matrix(&tensor.name);
    }
});
