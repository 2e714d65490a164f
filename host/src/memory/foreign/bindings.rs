//! What the WIT of importers is in Rust.

#![allow(missing_docs, unreachable_pub, reason = "the text is made from the WIT, which documents it")]

wasmtime::component::bindgen!({
    path: "../wit/importer",
    world: "potluck:importer/importer",
});
