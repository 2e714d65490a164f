//! Makes a component of a core module: the only step between a compiler and a policy.
//!
//! The module's exports say which kind of policy it is. All custom sections are left behind, so that nothing of the
//! machine it was built on travels along, the interface is described from the WIT, and the golden vectors are put in.

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

/// The custom section of a component that holds its golden vectors, as JSON.
pub const GOLDEN_SECTION: &str = "potluck-golden";

/// The package whose worlds policies implement.
pub const PACKAGE: &str = "potluck:policy@0.1.0";

/// The kinds of policies.
const KINDS: [&str; 3] = ["routing", "pricing", "slashing"];

/// Why a module could not be made into a component.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The bytes are no core module.
    #[error(
        "this is no core WebAssembly module: {0}; build the crate as a `cdylib` for wasm32-unknown-unknown"
    )]
    Module(String),
    /// The module imports something.
    #[error(
        "the module imports `{module}` `{name}`, and a policy imports nothing; leave out what needs it, such as the \
         clock, random numbers, files or the environment"
    )]
    Import {
        /// From where.
        module: String,
        /// What.
        name: String,
    },
    /// The exports belong to no kind of policy.
    #[error(
        "the module exports the functions of no kind of policy; say `export_routing!`, `export_pricing!` or \
         `export_slashing!` once, for the type that implements the trait"
    )]
    NoKind,
    /// The exports belong to several kinds.
    #[error(
        "the module exports a {0} and a {1} policy, and a component is one of them; make a crate of each"
    )]
    TwoKinds(&'static str, &'static str),
    /// The interface could not be read.
    #[error("the WIT package `{PACKAGE}` cannot be used: {0}; take the files of wit/policy unchanged")]
    Wit(String),
    /// The module does not fit its interface.
    #[error("the module does not fit its interface: {0}; build it against the WIT of this version")]
    Encode(String),
    /// The golden vectors are no JSON.
    #[error("the golden vectors are no list in JSON: {0}; correct golden.json")]
    Golden(String),
}

/// A component, and what it turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// `routing`, `pricing` or `slashing`.
    pub kind: &'static str,
    /// The component.
    pub bytes: Vec<u8>,
}

/// Makes a component of `module`, with the files of the WIT package as pairs of name and text, and golden vectors.
///
/// The same arguments give the same bytes.
///
/// # Errors
/// [`WrapError`]: the module, the WIT or the vectors are not as they should be.
pub fn wrap(module: &[u8], wit: &[(&str, &str)], golden: Option<&[u8]>) -> Result<Wrapped, WrapError> {
    let (kind, mut module) = read(module)?;
    let mut resolve = Resolve::default();
    let mut sources = SourceMap::new();
    for (name, text) in wit {
        sources.push_str(name, *text);
    }
    let group = sources.parse().map_err(|(_, error)| WrapError::Wit(error.to_string()))?;
    let package = resolve.push_group(group).map_err(|error| WrapError::Wit(error.to_string()))?;
    let world = resolve
        .select_world(&[package], Some(&format!("{kind}-policy")))
        .map_err(|error| WrapError::Wit(error.to_string()))?;
    let encode = |error: &dyn std::fmt::Display| WrapError::Encode(error.to_string());
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| encode(&format_args!("{error:#}")))?;
    let mut bytes = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| encode(&format_args!("{error:#}")))?;
    if let Some(golden) = golden {
        section(&mut bytes, GOLDEN_SECTION, &compact(golden)?);
    }
    Ok(Wrapped { kind, bytes })
}

/// The kind of a module, and the module without its custom sections.
fn read(module: &[u8]) -> Result<(&'static str, Vec<u8>), WrapError> {
    let wrong = |error: &dyn std::fmt::Display| WrapError::Module(error.to_string());
    if !Parser::is_core_wasm(module) {
        return Err(wrong(&"it does not begin as one"));
    }
    let mut bare = module.get(..8).unwrap_or_default().to_vec();
    let mut kind = None;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(|error| wrong(&error))?;
        match &payload {
            Payload::ImportSection(imports) => {
                if let Some(import) = imports.clone().into_imports().next() {
                    let import = import.map_err(|error| wrong(&error))?;
                    return Err(WrapError::Import {
                        module: import.module.to_owned(),
                        name: import.name.to_owned(),
                    });
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let name = export.map_err(|error| wrong(&error))?.name;
                    let Some(found) = kind_of(name) else { continue };
                    if let Some(other) = kind.replace(found).filter(|other| *other != found) {
                        return Err(WrapError::TwoKinds(other, found));
                    }
                }
            }
            Payload::CustomSection(_) => continue,
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            let content = module.get(range).ok_or_else(|| wrong(&"it ends too early"))?;
            bare.push(id);
            leb(&mut bare, content.len());
            bare.extend_from_slice(content);
        }
    }
    Ok((kind.ok_or(WrapError::NoKind)?, bare))
}

/// The kind that a function such as `potluck:policy/routing@0.1.0#rank` belongs to.
fn kind_of(export: &str) -> Option<&'static str> {
    let (package, version) = PACKAGE.split_once('@')?;
    let (interface, _function) = export.strip_prefix(package)?.strip_prefix('/')?.split_once('#')?;
    let name = interface.strip_suffix(version)?.strip_suffix('@')?;
    KINDS.into_iter().find(|kind| *kind == name)
}

/// JSON without spaces and line ends.
fn compact(golden: &[u8]) -> Result<Vec<u8>, WrapError> {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_slice(golden).map_err(|error| WrapError::Golden(error.to_string()))?;
    serde_json::to_vec(&vectors).map_err(|error| WrapError::Golden(error.to_string()))
}

/// Appends a custom section.
fn section(bytes: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut inner = Vec::with_capacity(name.len() + content.len() + 2);
    leb(&mut inner, name.len());
    inner.extend_from_slice(name.as_bytes());
    inner.extend_from_slice(content);
    bytes.push(0);
    leb(bytes, inner.len());
    bytes.extend_from_slice(&inner);
}

/// A length as WebAssembly writes it: seven bits a byte, the lowest first.
fn leb(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}
