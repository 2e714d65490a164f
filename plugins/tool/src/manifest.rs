//! The list of what is shipped, with hashes.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use blake2::{Blake2b, Digest as _, digest::consts::U32};
use serde::{Deserialize, Serialize};

use crate::wrap::PACKAGE;

/// `manifest.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// The WIT package that the components implement.
    wit: String,
    /// The compiler that all but those of another `language` were built with. The same one gives the same bytes.
    toolchain: String,
    /// By kind and name.
    components: Vec<Component>,
}

/// One component.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    kind: String,
    name: String,
    version: String,
    /// `rust`, or what else it was written in.
    language: String,
    file: String,
    /// In bytes.
    size: usize,
    /// BLAKE2b-256 of the file: the hash that is proposed and approved.
    hash: String,
}

/// Writes the list. Each of `built` is `NAME:KIND:VERSION:LANGUAGE`, and its file `NAME.wasm`.
pub(crate) fn write(dist: &Path, toolchain: &str, built: &[&str]) -> anyhow::Result<()> {
    let mut components = Vec::new();
    for one in built {
        let fields: Vec<&str> = one.split(':').collect();
        let [name, kind, version, language] = fields.as_slice() else {
            bail!("`{one}` is no NAME:KIND:VERSION:LANGUAGE")
        };
        let file = format!("{name}.wasm");
        let bytes = fs::read(dist.join(&file)).with_context(|| format!("reading {file}"))?;
        components.push(Component {
            kind: (*kind).to_owned(),
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            language: (*language).to_owned(),
            file,
            size: bytes.len(),
            hash: Blake2b::<U32>::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        });
    }
    components.sort();
    let manifest = Manifest { wit: PACKAGE.to_owned(), toolchain: toolchain.to_owned(), components };
    fs::write(dist.join("manifest.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    for component in &manifest.components {
        println!("{:<16} {:>7} bytes  {}", component.name, component.size, component.hash);
    }
    Ok(())
}

/// Compares what is shipped with what was built again. Fails where a component is another.
pub(crate) fn compare(dist: &Path, other: &Path) -> anyhow::Result<()> {
    let read = |folder: &Path| -> anyhow::Result<Manifest> {
        let path = folder.join("manifest.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    };
    let (shipped, built) = (read(dist)?, read(other)?);
    for component in &shipped.components {
        let bytes =
            fs::read(dist.join(&component.file)).with_context(|| format!("reading {}", component.file))?;
        let hash: String = Blake2b::<U32>::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if hash != component.hash {
            bail!("dist/{} is not what dist/manifest.json says; run plugins/build", component.file);
        }
    }
    let other: Vec<&str> = (built.components.iter())
        .filter(|component| !shipped.components.contains(component))
        .map(|component| component.file.as_str())
        .collect();
    let gone: Vec<&str> = (shipped.components.iter())
        .filter(|component| !built.components.iter().any(|other| other.file == component.file))
        .map(|component| component.file.as_str())
        .collect();
    if shipped.toolchain != built.toolchain {
        println!(
            "shipped was built with: {}\nthis is:                {}",
            shipped.toolchain, built.toolchain
        );
        if let Some(first) = gone.first() {
            bail!("{first} is shipped and was not built");
        }
        // Another compiler makes other bytes of the same source.
        println!("another toolchain: bytes are not compared");
        return Ok(());
    }
    if let Some(first) = other.first().or_else(|| gone.first()) {
        bail!(
            "dist/{first} is not what its source gives ({} in all differ); run plugins/build and commit dist/",
            other.len() + gone.len()
        );
    }
    println!("the same bytes: {} components", shipped.components.len());
    Ok(())
}
