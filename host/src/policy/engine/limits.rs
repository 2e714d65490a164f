use wasmtime::ResourceLimiter;

/// Bounds what one instance may hold. Where memory cannot grow the call ends at once, and the guest never learns how
/// much there would have been: otherwise its answer could depend on this machine's limits.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes of memory.
    pub(crate) memory: usize,
}

/// Elements of one table. Rust and C guests have some tens: functions that are called through a pointer.
pub(crate) const MAX_TABLE: usize = 8192;
/// Core instances of one component. Tools make one for the program and two or three around it.
pub(crate) const MAX_CORE_INSTANCES: u32 = 8;
/// Tables of one component.
pub(crate) const MAX_TABLES: u32 = 4;
/// Memories of one component.
pub(crate) const MAX_MEMORIES: u32 = 1;

/// A guest wanted more than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more was wanted than an instance may have")]
pub(crate) struct Grew;

fn within(desired: usize, limit: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
    if desired > limit || maximum.is_some_and(|maximum| desired > maximum) {
        Err(Grew.into())
    } else {
        Ok(true)
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        within(desired, self.memory, maximum)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Grew.into())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        within(desired, MAX_TABLE, maximum)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Grew.into())
    }

    fn instances(&self) -> usize {
        usize::try_from(MAX_CORE_INSTANCES).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(MAX_TABLES).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MAX_MEMORIES).unwrap_or(usize::MAX)
    }
}
