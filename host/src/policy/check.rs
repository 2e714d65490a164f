//! What is looked at in a component before any of it is compiled.
//!
//! A policy imports nothing that could be called, has no start function, and exports the interfaces of exactly one
//! world. Tools describe records that interfaces share as an import of their types; such an import holds nothing, and
//! is the only one allowed.
//!
//! No start function at all is allowed, not even one that only calls the program's own initialiser: making an instance
//! then runs no code of the guest, costs the same for every policy, and a policy has no moment to act in but the calls
//! it is there for. Tools for Rust and for freestanding C make none.
//!
//! The other bounds keep what is made from a component in proportion to its size: components that are made of others
//! can grow without one.

use wasmparser::{
    ComponentTypeRef, Encoding, Instance, Parser, Payload, ValidPayload, Validator, WasmFeatures,
    component_types::ComponentEntityType, types::Types,
};

use super::{
    Kind, LoadError,
    abi::{Abi, Interface},
    engine::limits::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE, MAX_TABLES},
};

/// The custom section that holds a component's own vectors.
pub const GOLDEN_SECTION: &str = "potluck-golden";

/// The package whose interfaces are exported.
const PACKAGE: &str = "potluck:policy/";
/// Functions of all core modules together.
const MAX_FUNCTIONS: u32 = 10_000;
/// Largest function body, in bytes: compilers need more than linear time for one function.
const MAX_BODY: usize = 128 << 10;
/// Local variables of one function.
const MAX_LOCALS: u32 = 4096;
/// Core modules, and components within the component.
const MAX_PARTS: u32 = 16;
/// Component instances.
const MAX_INSTANCES: u32 = 64;

/// What was found in a component that is fine so far.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) interface: Interface,
    /// Functions of all core modules.
    pub(crate) functions: u32,
    /// Bytes of memory at the start.
    pub(crate) memory: u64,
    /// The content of the section with vectors.
    pub(crate) golden: Option<Vec<u8>>,
}

/// Checks a component within bounds of memory in bytes.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(bytes: &[u8], features: WasmFeatures, memory: usize) -> Result<Found, LoadError> {
    // Told apart before anything else, since it is the mistake that people make.
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    let mut survey = Survey { most_memory: u64::try_from(memory).unwrap_or(u64::MAX), ..Survey::default() };
    let mut validator = Validator::new_with_features(features);
    let mut allocations = Default::default();
    let mut types = None;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        survey.take(&payload)?;
        match validator.payload(&payload).map_err(invalid)? {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(allocations);
                function.validate(&body).map_err(invalid)?;
                allocations = function.into_allocations();
            }
            ValidPayload::End(end) => types = Some(end),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    let types = types.ok_or_else(|| LoadError::Invalid("it ends too early".into()))?;
    survey.imports_nothing(&types)?;
    let interface = interface(&survey.exports)?;
    Ok(Found { interface, functions: survey.functions, memory: survey.memory, golden: survey.golden })
}

fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    // The message can hold names out of the component.
    LoadError::Invalid(clean(&error.to_string(), 300))
}

/// Words of a stranger in one line of bounded length.
fn clean(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

#[derive(Debug, Default)]
struct Survey {
    /// How deep in components and modules we are; 1 is the component itself.
    depth: u32,
    most_memory: u64,
    imports: Vec<String>,
    exports: Vec<String>,
    golden: Option<Vec<u8>>,
    modules: u32,
    components: u32,
    core_instances: u32,
    instances: u32,
    functions: u32,
    tables: u32,
    memories: u32,
    memory: u64,
}

/// Counts up and refuses what goes beyond the bound.
fn add(count: &mut u32, more: u32, what: &'static str, most: u32) -> Result<(), LoadError> {
    *count = count.saturating_add(more);
    if *count > most {
        Err(LoadError::Many { what, most: usize::try_from(most).unwrap_or(usize::MAX) })
    } else {
        Ok(())
    }
}

impl Survey {
    fn take(&mut self, payload: &Payload<'_>) -> Result<(), LoadError> {
        match payload {
            Payload::Version { encoding, .. } => self.enter(*encoding),
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => Err(LoadError::Start),
            Payload::FunctionSection(section) => {
                add(&mut self.functions, section.count(), "functions", MAX_FUNCTIONS)
            }
            Payload::CodeSectionEntry(body) => check_body(body),
            Payload::MemorySection(section) => self.take_memories(section.clone()),
            Payload::TableSection(section) => self.take_tables(section.clone()),
            Payload::InstanceSection(section) => self.take_core_instances(section.clone()),
            Payload::ComponentInstanceSection(section) => {
                self.only_outside("instances of components")?;
                add(&mut self.instances, section.count(), "component instances", MAX_INSTANCES)
            }
            Payload::ComponentImportSection(section) if self.depth == 1 => self.take_imports(section.clone()),
            Payload::ComponentExportSection(section) if self.depth == 1 => {
                for export in section.clone() {
                    self.exports.push(clean(export.map_err(invalid)?.name.name, 200));
                }
                Ok(())
            }
            Payload::CustomSection(section) if self.depth == 1 && section.name() == GOLDEN_SECTION => {
                if self.golden.replace(section.data().to_vec()).is_some() {
                    return Err(LoadError::Many { what: "sections with vectors", most: 1 });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, encoding: Encoding) -> Result<(), LoadError> {
        self.depth += 1;
        match (self.depth, encoding) {
            (1, _) => Ok(()),
            (_, Encoding::Module) => {
                if self.depth > 2 {
                    return Err(LoadError::Nested("core modules"));
                }
                add(&mut self.modules, 1, "core modules", MAX_PARTS)
            }
            (depth, Encoding::Component) => {
                if depth > 2 {
                    return Err(LoadError::Nested("components"));
                }
                add(&mut self.components, 1, "components", MAX_PARTS)
            }
        }
    }

    /// Refuses what makes instances within a component within the component: made many times over, it would multiply.
    fn only_outside(&self, what: &'static str) -> Result<(), LoadError> {
        if self.depth > 1 { Err(LoadError::Nested(what)) } else { Ok(()) }
    }

    fn take_memories(&mut self, section: wasmparser::MemorySectionReader<'_>) -> Result<(), LoadError> {
        add(&mut self.memories, section.count(), "memories", MAX_MEMORIES)?;
        for memory in section {
            let pages = memory.map_err(invalid)?.initial;
            self.memory = self.memory.saturating_add(pages.saturating_mul(1 << 16));
        }
        if self.memory > self.most_memory {
            return Err(LoadError::Memory { wants: self.memory, most: self.most_memory });
        }
        Ok(())
    }

    fn take_tables(&mut self, section: wasmparser::TableSectionReader<'_>) -> Result<(), LoadError> {
        add(&mut self.tables, section.count(), "tables", MAX_TABLES)?;
        for table in section {
            if table.map_err(invalid)?.ty.initial > u64::try_from(MAX_TABLE).unwrap_or(u64::MAX) {
                return Err(LoadError::Many { what: "table elements", most: MAX_TABLE });
            }
        }
        Ok(())
    }

    fn take_core_instances(
        &mut self,
        section: wasmparser::InstanceSectionReader<'_>,
    ) -> Result<(), LoadError> {
        self.only_outside("instances of core modules")?;
        for instance in section {
            if let Instance::Instantiate { .. } = instance.map_err(invalid)? {
                add(&mut self.core_instances, 1, "core instances", MAX_CORE_INSTANCES)?;
            }
        }
        Ok(())
    }

    fn take_imports(
        &mut self,
        section: wasmparser::ComponentImportSectionReader<'_>,
    ) -> Result<(), LoadError> {
        for import in section {
            let import = import.map_err(invalid)?;
            if !matches!(import.ty, ComponentTypeRef::Instance(_)) {
                return Err(LoadError::Import(clean(import.name.name, 200)));
            }
            self.imports.push(import.name.name.to_owned());
        }
        Ok(())
    }

    /// Every import is an interface of this package that holds types only.
    fn imports_nothing(&self, types: &Types) -> Result<(), LoadError> {
        let refuse = |name: &String| Err(LoadError::Import(clean(name, 200)));
        for name in &self.imports {
            let Some(item) = types.component_item_for_import(name) else { return refuse(name) };
            let ComponentEntityType::Instance(instance) = item.ty else { return refuse(name) };
            let Some(instance) = types.as_ref().get(instance) else { return refuse(name) };
            let holds_types = instance.exports.values().all(|item| {
                use wasmparser::component_types::ComponentAnyTypeId as Any;
                matches!(&item.ty, ComponentEntityType::Type { created: Any::Defined(_), .. })
            });
            if !name.starts_with(PACKAGE) || !holds_types {
                return refuse(name);
            }
        }
        Ok(())
    }
}

fn check_body(body: &wasmparser::FunctionBody<'_>) -> Result<(), LoadError> {
    let size = body.range().len();
    if size > MAX_BODY {
        return Err(LoadError::Many { what: "bytes in one function", most: MAX_BODY });
    }
    let mut locals = 0;
    for group in body.get_locals_reader().map_err(invalid)? {
        add(&mut locals, group.map_err(invalid)?.0, "local variables in one function", MAX_LOCALS)?;
    }
    Ok(())
}

/// Finds the world that the exports make up.
fn interface(exports: &[String]) -> Result<Interface, LoadError> {
    let world = || LoadError::World { exports: exports.to_vec() };
    let mut about = None;
    let mut found = None;
    for export in exports {
        let name = export.strip_prefix(PACKAGE).ok_or_else(world)?;
        let (name, version) = name.split_once('@').ok_or_else(world)?;
        let abi = Abi::of(version).ok_or_else(|| LoadError::Version { export: export.clone() })?;
        let twice = match name {
            "about" => about.replace(abi).is_some(),
            _ => {
                let kind: Kind = name.parse().map_err(|_| world())?;
                found.replace(Interface { kind, abi }).is_some()
            }
        };
        if twice {
            return Err(world());
        }
    }
    found.filter(|interface| about == Some(interface.abi)).ok_or_else(world)
}
