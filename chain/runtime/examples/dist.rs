//! Writes what goes into `chain/dist/` beside the runtime itself: `dist FOLDER RUNTIME.wasm`.
//!
//! The metadata is what clients are generated from. The chain specifications are raw, with the runtime inside, as
//! tools want them that fork or run a chain without a node of ours.

use std::{error::Error, fs, path::Path};

use potluck_runtime::{Runtime, RuntimeGenesisConfig, genesis};
use serde_json::{Map, Value, json};
use sp_runtime::BuildStorage;

/// The version of metadata that clients are generated from.
const METADATA: u32 = 16;
/// What decompressing the runtime may take at most.
const CODE_LIMIT: usize = 50 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(wasm)) = (arguments.next(), arguments.next()) else {
        return Err("usage: dist FOLDER RUNTIME.wasm".into());
    };
    let folder = Path::new(&folder);
    let wasm = fs::read(wasm)?;
    let code =
        sp_maybe_compressed_blob::compress_strongly(&wasm, CODE_LIMIT).ok_or("the runtime is too large")?;
    fs::write(folder.join("potluck_runtime.compact.wasm"), &code)?;
    let metadata = sp_io::TestExternalities::default()
        .execute_with(|| Runtime::metadata_at_version(METADATA))
        .ok_or("the runtime does not know this version of metadata")?;
    fs::write(folder.join("metadata.scale"), &*metadata)?;
    for (preset, name, kind) in
        [("development", "Potluck Development", "Development"), ("local", "Potluck Local", "Local")]
    {
        let spec = specification(preset, name, kind, &code)?;
        fs::write(folder.join(format!("{preset}.json")), serde_json::to_string(&spec)? + "\n")?;
    }
    Ok(())
}

fn specification(preset: &str, name: &str, kind: &str, code: &[u8]) -> Result<Value, Box<dyn Error>> {
    let mut config = serde_json::to_value(RuntimeGenesisConfig::default())?;
    let patch = genesis::preset(&preset.into()).ok_or("there is no such preset")?;
    merge(&mut config, serde_json::from_slice(&patch)?);
    let config: RuntimeGenesisConfig = serde_json::from_value(config)?;
    let mut storage = config.build_storage()?;
    storage.top.insert(sp_core::storage::well_known_keys::CODE.to_vec(), code.to_vec());
    let top: Map<String, Value> =
        storage.top.iter().map(|(key, value)| (hex(key), Value::String(hex(value)))).collect();
    Ok(json!({
        "name": name,
        "id": format!("potluck-{preset}"),
        "chainType": kind,
        "bootNodes": [],
        "telemetryEndpoints": null,
        "protocolId": format!("potluck-{preset}"),
        "properties": { "tokenSymbol": "POT", "tokenDecimals": 12, "ss58Format": 42 },
        "relay_chain": "rococo-local",
        "para_id": genesis::PARA_ID,
        "codeSubstitutes": {},
        "genesis": { "raw": { "top": top, "childrenDefault": {} } },
    }))
}

/// Lays a patch over a value: objects by key, all else whole.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
