//! A trained model says, token for token, what its reference says, over HTTP.

use std::{fs, path::Path, time::Instant};

use potluck_tests::{
    data::{file_or_skip, skipped},
    node::{Node, NodeOptions},
};
use serde_json::json;

use crate::common::text;

/// The text of 256 greedy tokens after nothing.
fn greedy(node: &Node) -> String {
    let started = Instant::now();
    let body = json!({ "model": "stories260K-f32", "prompt": [1], "max_tokens": 256, "temperature": 0 });
    let ids = node.client().post("/v1/completions", &body).expect(200);
    println!("256 tokens in {:?}", started.elapsed());
    let body = json!({ "model": "stories260K-f32", "prompt": "", "max_tokens": 256, "temperature": 0 });
    let words = node.client().post("/v1/completions", &body).expect(200);
    // After ids the answer goes on in the middle of a text, so it keeps the space before its first word.
    assert_eq!(text(&words).trim_start(), text(&ids).trim_start(), "an empty prompt is not the start token alone");
    text(&words).trim_end().to_owned()
}

fn check(options: NodeOptions) {
    let wanted = "models/greedy_256.txt";
    let (Some(model), Some(wanted)) = (file_or_skip("models/stories260K-f32.gguf"), file_or_skip(wanted))
    else {
        return;
    };
    let wanted = fs::read_to_string(wanted).unwrap();
    let node = Node::start(options.model(model.to_str().unwrap()));
    assert_eq!(greedy(&node), wanted.trim_end());
    node.shutdown();
}

#[test]
fn greedy_text_on_the_cpu() {
    check(NodeOptions::new().args(["--device", "cpu"]));
}

#[test]
fn greedy_text_on_one_thread_and_on_three() {
    check(NodeOptions::new().args(["--device", "cpu", "--threads", "1"]));
    check(NodeOptions::new().args(["--device", "cpu", "--threads", "3"]));
}

#[test]
fn greedy_text_on_a_gpu_made_of_software() {
    let driver = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";
    if !Path::new(driver).exists() {
        return skipped("no software Vulkan driver (Debian: mesa-vulkan-drivers)");
    }
    check(
        NodeOptions::new()
            .args(["--device", "gpu"])
            .env("VK_ICD_FILENAMES", driver)
            .env("CUBECL_WGPU_DEFAULT_DEVICE", "Cpu"),
    );
}
