//! Makes components of what compilers write: `wrap CORE OUT` turns a core module with bindings into a component,
//! `rename IN OUT FROM TO` gives an export of a component another name, `imports FILE` lists what one imports.

use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use wasm_encoder::{
    Component, ComponentExportSection,
    reencode::{Error, Reencode, ReencodeComponent, component_utils},
};
use wasmparser::{ComponentExternalKind, Parser, Payload};
use wit_component::ComponentEncoder;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["wrap", core, out] => write(out, &wrap(&read(core)?)?),
        ["rename", component, out, from, to] => write(out, &rename(&read(component)?, from, to)?),
        ["imports", component] => {
            imports(&read(component)?)?.iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        _ => bail!("use: wrap CORE OUT | rename COMPONENT OUT FROM TO | imports COMPONENT"),
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{path} cannot be read"))
}

fn write(path: &str, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("{path} cannot be written"))
}

fn wrap(core: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(core)?.encode()
}

fn imports(component: &[u8]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.push(import?.name.name.to_owned());
                }
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(names)
}

/// Gives exports of the outermost component that bear one name another.
struct Renamer<'a> {
    from: &'a str,
    to: &'a str,
    depth: usize,
    renamed: usize,
}

impl Reencode for Renamer<'_> {
    type Error = std::convert::Infallible;
}

impl ReencodeComponent for Renamer<'_> {
    fn push_depth(&mut self) {
        self.depth += 1;
    }

    fn pop_depth(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn parse_component_export(
        &mut self,
        exports: &mut ComponentExportSection,
        export: wasmparser::ComponentExport<'_>,
    ) -> Result<(), Error<Self::Error>> {
        let is_function = export.kind == ComponentExternalKind::Func;
        if self.depth == 0 && is_function && export.name.name == self.from {
            // The name's lifetime is that of the component; the new one is written at once.
            let name = wasmparser::ComponentExternName { name: self.to, ..export.name };
            self.renamed += 1;
            let renamed = wasmparser::ComponentExport { name, ..export };
            return component_utils::parse_component_export(self, exports, renamed);
        }
        component_utils::parse_component_export(self, exports, export)
    }
}

fn rename(component: &[u8], from: &str, to: &str) -> Result<Vec<u8>> {
    let mut renamer = Renamer { from, to, depth: 0, renamed: 0 };
    let mut out = Component::new();
    renamer
        .parse_component(&mut out, Parser::new(0), component)
        .map_err(|error| anyhow::anyhow!("the component cannot be read: {error}"))?;
    ensure!(renamer.renamed == 1, "there is not one function `{from}`, but {}", renamer.renamed);
    let bytes = out.finish();
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(&bytes)?;
    Ok(bytes)
}
