//! What `plugins/build` needs beside a compiler: makes components of core modules, and writes the list of what is
//! shipped.
//!
//! ```text
//! potluck-plugin-tool wrap WIT-FOLDER MODULE GOLDEN|- COMPONENT
//! potluck-plugin-tool bindings WIT-FOLDER WORLD FOLDER
//! potluck-plugin-tool manifest DIST 'NAME|KIND|VERSION|TOOLCHAIN' …
//! potluck-plugin-tool compare DIST OTHER-DIST
//! ```

#![allow(clippy::arithmetic_side_effects, reason = "never part of a component")]

mod manifest;
#[path = "../../../host/src/policy/scaffold/wrap.rs"]
#[allow(unreachable_pub, dead_code, reason = "the node's own code, of which this program uses a part")]
mod wrap;

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["wrap", wit, module, golden, component] => wrap(wit, module, golden, component),
        ["bindings", wit, world, folder] => bindings(wit, world, Path::new(folder)),
        ["manifest", dist, built @ ..] => manifest::write(Path::new(dist), built),
        ["compare", dist, other] => manifest::compare(Path::new(dist), Path::new(other)),
        _ => bail!("use it through plugins/build"),
    }
}

fn wrap(wit: &str, module: &str, golden: &str, component: &str) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(wit).with_context(|| format!("reading {wit}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            // The name alone: nothing of this machine's folders may matter.
            let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    files.sort();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let bytes = fs::read(module).with_context(|| format!("reading {module}"))?;
    let golden = match golden {
        "-" => None,
        path => Some(fs::read(path).with_context(|| format!("reading {path}"))?),
    };
    let wrapped =
        wrap::wrap(&bytes, &files, golden.as_deref()).with_context(|| format!("wrapping {module}"))?;
    fs::write(component, wrapped.bytes).with_context(|| format!("writing {component}"))?;
    Ok(())
}

/// Writes the C bindings of a world.
fn bindings(wit: &str, world: &str, folder: &Path) -> anyhow::Result<()> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = wit_bindgen_core::Files::default();
    // What the object file would hold is put in when the module is wrapped.
    let options = wit_bindgen_c::Opts { no_object_file: true, ..Default::default() };
    options.build().generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(folder)?;
    for (name, content) in files.iter() {
        fs::write(folder.join(name), content).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}
