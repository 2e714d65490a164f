//! The list of what is shipped, with hashes.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use blake2::{Blake2b, Digest as _, digest::consts::U32};
use serde::{Deserialize, Serialize};

use crate::wrap::{GOLDEN_SECTION, PACKAGE};

/// `manifest.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// The WIT package that the components implement.
    wit: String,
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
    /// The compiler. The same one gives the same bytes of the same source.
    toolchain: String,
    file: String,
    /// In bytes.
    size: usize,
    /// BLAKE2b-256 of the file: the hash that is proposed and approved.
    hash: String,
}

/// Writes the list. Each of `built` is `NAME|KIND|VERSION|TOOLCHAIN`, and its file `NAME.wasm`.
pub(crate) fn write(dist: &Path, built: &[&str]) -> anyhow::Result<()> {
    let mut components = Vec::new();
    for one in built {
        let fields: Vec<&str> = one.split('|').collect();
        let [name, kind, version, toolchain] = fields.as_slice() else {
            bail!("`{one}` is no NAME|KIND|VERSION|TOOLCHAIN")
        };
        let file = format!("{name}.wasm");
        let bytes = fs::read(dist.join(&file)).with_context(|| format!("reading {file}"))?;
        components.push(Component {
            kind: (*kind).to_owned(),
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            toolchain: (*toolchain).to_owned(),
            file,
            size: bytes.len(),
            hash: hash(&bytes),
        });
    }
    components.sort();
    let manifest = Manifest { wit: PACKAGE.to_owned(), components };
    fs::write(dist.join("manifest.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    for component in &manifest.components {
        println!("{:<16} {:>7} bytes  {}", component.name, component.size, component.hash);
    }
    Ok(())
}

/// Compares what is shipped with what was built again: bytes where the compiler is the same, and otherwise the vectors
/// that each component carries. Fails where a component is another.
pub(crate) fn compare(dist: &Path, other: &Path) -> anyhow::Result<()> {
    let (shipped, built) = (read(dist)?, read(other)?);
    if shipped.wit != built.wit {
        bail!("dist/ is for {}, and the WIT is {}; run plugins/build", shipped.wit, built.wit);
    }
    let (mut same, mut alike, mut absent) = (0, Vec::new(), Vec::new());
    for component in &shipped.components {
        let file = &component.file;
        let bytes = fs::read(dist.join(file)).with_context(|| format!("reading {file}"))?;
        if hash(&bytes) != component.hash {
            bail!("dist/{file} is not what dist/manifest.json says; run plugins/build");
        }
        let Some(again) = built.components.iter().find(|again| again.file == *file) else {
            absent.push(file.as_str());
            continue;
        };
        if again.toolchain == component.toolchain {
            if again != component {
                bail!("dist/{file} is not what its source gives; run plugins/build and commit dist/");
            }
            same += 1;
        } else {
            if golden(&bytes)? != golden(&fs::read(other.join(file))?)? {
                bail!(
                    "dist/{file} carries other vectors than its source; run plugins/build with {}",
                    component.toolchain
                );
            }
            alike.push(component);
        }
    }
    if let Some(new) =
        built.components.iter().find(|new| !shipped.components.iter().any(|it| it.file == new.file))
    {
        bail!("dist/{} is missing; run plugins/build and commit dist/", new.file);
    }
    println!("{same} of {} components: the same bytes", shipped.components.len());
    for component in alike {
        println!(
            "{}: built by {}, which is not here: compared by vectors",
            component.file, component.toolchain
        );
    }
    for file in absent {
        println!("{file}: its compiler is not here: not built again");
    }
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<Manifest> {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

fn hash(bytes: &[u8]) -> String {
    Blake2b::<U32>::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The vectors that a component carries.
fn golden(component: &[u8]) -> anyhow::Result<Vec<u8>> {
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        if let wasmparser::Payload::CustomSection(section) = payload?
            && section.name() == GOLDEN_SECTION
        {
            return Ok(section.data().to_vec());
        }
    }
    Ok(Vec::new())
}
