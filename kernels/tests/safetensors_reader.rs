//! The safetensors reader on good and hostile files.

use potluck_kernels::{
    dtype::DType,
    model::tensors::TensorSource,
    safetensors::{Safetensors, SafetensorsError},
};
use proptest::prelude::*;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn good() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
        "ids":{"dtype":"I64","shape":[1],"data_offsets":[24,32]},
        "b":{"dtype":"BF16","shape":[4],"data_offsets":[32,40]}}"#;
    file(header, &(0u8..40).collect::<Vec<_>>())
}

#[test]
fn tensors_are_found_by_name() {
    let file = Safetensors::from_bytes(good()).unwrap();
    let a = file.find("a").unwrap();
    assert_eq!((a.dtype, a.shape, a.data), (DType::F32, vec![2, 3], &(0u8..24).collect::<Vec<_>>()[..]));
    assert_eq!(file.find("b").unwrap().dtype, DType::BF16);
    assert!(file.find("ids").is_none(), "whole numbers are no weights");
    assert!(file.find("c").is_none());
    assert_eq!(file.names().count(), 3);
}

#[test]
fn malformed_files_are_refused() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for (what, bytes) in [
        ("nothing", vec![]),
        ("half a length", vec![1, 2, 3]),
        ("a header longer than the file", 100u64.to_le_bytes().to_vec()),
        ("no JSON", file("hello", &[])),
        ("an unknown type", file(&tensor("F33", "[1]", "[0,4]"), &[0; 4])),
        ("a shape that is too large", file(&tensor("F32", "[2]", "[0,4]"), &[0; 4])),
        ("a shape that overflows", file(&tensor("F32", "[9223372036854775807,8]", "[0,4]"), &[0; 4])),
        ("offsets past the end", file(&tensor("F32", "[2]", "[0,8]"), &[0; 4])),
        ("offsets going back", file(&tensor("F32", "[1]", "[4,0]"), &[0; 4])),
        ("a negative offset", file(&tensor("F32", "[1]", "[-4,0]"), &[0; 4])),
        ("bytes left over", file(&tensor("F32", "[1]", "[0,4]"), &[0; 8])),
        ("too many dimensions", file(&tensor("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), &[0; 4])),
        ("a truncated file", good()[..60].to_vec()),
    ] {
        assert!(matches!(Safetensors::from_bytes(bytes), Err(SafetensorsError::Malformed(_))), "{what}");
    }
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    assert!(matches!(Safetensors::from_bytes(huge), Err(SafetensorsError::HeaderTooLarge { .. })));
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(position in 0usize..300, value: u8) {
        let mut bytes = good();
        let at = position % bytes.len();
        bytes[at] = value;
        if let Ok(file) = Safetensors::from_bytes(bytes) {
            for name in file.names() {
                if let Some(tensor) = file.find(name) {
                    let elements: usize = tensor.shape.iter().product();
                    prop_assert_eq!(tensor.dtype.bytes_for(elements), Some(tensor.data.len()));
                }
            }
        }
    }
}
