//! Components for tests: core modules in text, wrapped with the tools that authors use.

use std::sync::{Arc, OnceLock};

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::policy::{
    Engine, EngineConfig, Kind, Policy,
    sample::Sampler,
    types::{Candidate, Job},
};

/// Where the WIT lies, seen from the crate's folder.
const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/policy");

/// The usual bounds, but all the time in the world: tests run on machines that do other things at the same time.
pub(super) fn config() -> EngineConfig {
    let long = std::time::Duration::from_secs(60);
    EngineConfig { deadline: long, patience: long, ..EngineConfig::default() }
}

/// An engine that all tests share.
pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(config()).unwrap())
}

/// Wraps a core module into a component of a world.
pub(super) fn component(world: &str, wat: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(WIT).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Appends a custom section.
pub(super) fn with_section(mut component: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    fn leb(mut value: usize, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    let mut body = Vec::new();
    leb(name.len(), &mut body);
    body.extend(name.as_bytes());
    body.extend(data);
    component.push(0);
    leb(body.len(), &mut component);
    component.extend(body);
    component
}

/// Parts of a guest; each is WebAssembly text.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    /// Further fields of the module.
    pub(super) fields: String,
    /// Pages of memory.
    pub(super) pages: u32,
    /// Pointer and length of its name.
    pub(super) name: (u32, u32),
    /// What runs before it answers.
    pub(super) prelude: String,
    /// Routing: how many choices there are.
    pub(super) count: String,
    /// Routing: the candidate in place `$i`.
    pub(super) candidate: String,
    /// Routing: the score in place `$i`. Slashing: the share.
    pub(super) score: String,
    /// Pricing: the price of the job as such.
    pub(super) start: String,
    /// Pricing: the price of a thousand tokens of an answer.
    pub(super) answer: String,
    /// Pointer and length of its note.
    pub(super) note: (u32, u32),
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            fields: String::new(),
            pages: 2,
            name: (16, 11),
            prelude: String::new(),
            count: "(local.get $machines)".into(),
            candidate: "(local.get $i)".into(),
            score: "(i64.const 1)".into(),
            start: "(i64.const 0)".into(),
            answer: "(i64.load offset=152 (local.get $args))".into(),
            note: (16, 11),
        }
    }
}

impl Guest {
    pub(super) fn routing(&self) -> Vec<u8> {
        component("routing-policy", &self.module(Kind::Routing))
    }

    pub(super) fn pricing(&self) -> Vec<u8> {
        component("pricing-policy", &self.module(Kind::Pricing))
    }

    pub(super) fn slashing(&self) -> Vec<u8> {
        component("slashing-policy", &self.module(Kind::Slashing))
    }

    pub(super) fn module(&self, kind: Kind) -> String {
        let Self { fields, pages, name: (name, name_len), .. } = self;
        let decide = match kind {
            Kind::Routing => self.rank(),
            Kind::Pricing => self.quote(),
            Kind::Slashing => self.judge(),
        };
        format!(
            r#"(module
  (memory (export "memory") {pages})
  (global $top (mut i32) (i32.const 65536))
  (global $calls (mut i64) (i64.const 0))
  (data (i32.const 16) "test-policy")
  (data (i32.const 32) "\ff\fe\fd")
  (func $alloc (export "cabi_realloc") (param i32 i32 i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $len)))
    (block $fits (loop $again
      (br_if $fits (i32.le_u (global.get $top) (i32.shl (memory.size) (i32.const 16))))
      (drop (memory.grow (i32.const 1)))
      (br $again)))
    (local.get $at))
  (func (export "potluck:policy/about@0.1.0#describe") (result i32)
    (i32.store (i32.const 256) (i32.const {name})) (i32.store (i32.const 260) (i32.const {name_len}))
    (i32.store (i32.const 264) (i32.const 16)) (i32.store (i32.const 268) (i32.const 4))
    (i32.store (i32.const 272) (i32.const 16)) (i32.store (i32.const 276) (i32.const 11))
    (i32.store (i32.const 280) (i32.const 16)) (i32.store (i32.const 284) (i32.const 4))
    (i32.const 256))
  {fields}
  {decide})"#
        )
    }

    fn rank(&self) -> String {
        let Self { prelude, count, candidate, score, note: (note, note_len), .. } = self;
        format!(
            r#"(func (export "cabi_post_potluck:policy/routing@0.1.0#rank") (param i32)
    (global.set $top (i32.const 65536)))
  (func (export "potluck:policy/routing@0.1.0#rank")
    (param $model i32) (param i32 i32 i64 i64 i64 i64 i64 i32 i32 i32 i64)
    (param $list i32) (param $machines i32) (param $now i64) (param $seed i64) (result i32)
    (local $i i32) (local $at i32) (local $out i32) (local $count i32) (local $note i32) (local $note_len i32)
    (local.set $note (i32.const {note})) (local.set $note_len (i32.const {note_len}))
    (local.set $count {count})
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    {prelude}
    (local.set $out (call $alloc (i32.const 0) (i32.const 0) (i32.const 8)
      (i32.mul (local.get $count) (i32.const 16))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
      (local.set $at (i32.add (local.get $out) (i32.mul (local.get $i) (i32.const 16))))
      (i32.store (local.get $at) {candidate})
      (i64.store offset=8 (local.get $at) {score})
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.store8 (i32.const 512) (i32.const 0))
    (i32.store offset=4 (i32.const 512) (local.get $out))
    (i32.store offset=8 (i32.const 512) (local.get $count))
    (i32.store offset=12 (i32.const 512) (local.get $note))
    (i32.store offset=16 (i32.const 512) (local.get $note_len))
    (i32.const 512))"#
        )
    }

    fn quote(&self) -> String {
        let Self { prelude, start, answer, note: (note, note_len), .. } = self;
        format!(
            r#"(func (export "potluck:policy/pricing@0.1.0#quote") (param $args i32) (result i32)
    {prelude}
    (i32.store8 (i32.const 512) (i32.const 0))
    (i64.store offset=8 (i32.const 512) {start})
    (i64.store offset=16 (i32.const 512) (i64.const 0))
    (i64.store offset=24 (i32.const 512) {answer})
    (i64.store offset=32 (i32.const 512) (i64.const 60000))
    (i32.store offset=40 (i32.const 512) (i32.const {note}))
    (i32.store offset=44 (i32.const 512) (i32.const {note_len}))
    (i32.const 512))"#
        )
    }

    fn judge(&self) -> String {
        let Self { prelude, score, note: (note, note_len), .. } = self;
        format!(
            r#"(func (export "potluck:policy/slashing@0.1.0#judge")
    (param $provider i64) (param i32) (param $audits i32) (param i32 i32) (param $stake i64) (param i64 i32 i64 i64)
    (result i32)
    {prelude}
    (i32.store8 (i32.const 512) (i32.const 0))
    (i32.store8 offset=4 (i32.const 512) (i32.const 2))
    (i32.store offset=8 (i32.const 512) (i32.wrap_i64 {score}))
    (i32.store offset=12 (i32.const 512) (i32.const {note}))
    (i32.store offset=16 (i32.const 512) (i32.const {note_len}))
    (i32.const 512))"#
        )
    }
}

/// Code that runs for one seed only: vectors do not use it, so that the policy can be loaded.
pub(super) fn when(seed: u64, code: &str) -> String {
    format!("(if (i64.eq (local.get $seed) (i64.const {seed})) (then {code}))")
}

/// The seed that [`when`] is used with.
pub(super) const BAD: u64 = 0xbad;

pub(super) fn load(bytes: &[u8]) -> Arc<Policy> {
    engine().load(bytes).unwrap()
}

/// A policy that keeps the order and gives every machine this score.
pub(super) fn scoring(score: i64) -> Vec<u8> {
    Guest { score: format!("(i64.const {score})"), ..Guest::default() }.routing()
}

pub(super) fn question(count: usize) -> (Job, Vec<Candidate>) {
    let mut sampler = Sampler::new(77);
    (sampler.job(), sampler.candidates(count))
}
