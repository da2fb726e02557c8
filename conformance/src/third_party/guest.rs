//! A cell with the little that its callers here need.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use namespace_bridge::{
    CellModule, CrateNamespace, HostFunc, LinearMemory, LoadOptions, SectionItem, StrongCrateRef, Val,
};
use wasm_cell::types::ExternType;

/// A cell and its memory. Every error is a text that says what went wrong.
#[derive(Debug)]
pub struct Guest {
    /// The cell.
    pub cell: StrongCrateRef,
    /// Its memory.
    pub memory: Arc<LinearMemory>,
}

/// A module, compiled.
pub fn compile(name: &str, wasm: &[u8]) -> Result<Arc<CellModule>, String> {
    namespace_bridge::compile_module(name, wasm, &LoadOptions::default()).map_err(|e| e.to_string())
}

/// Satisfies what a module imports and nobody has defined: functions by ones that return zeros (for imports that serve failures
/// or files only), memories as they are asked for.
pub fn define_rest(namespace: &CrateNamespace, module: &CellModule) -> Result<(), String> {
    for import in &module.metadata().imports {
        if namespace.get_crate(&import.module).is_some_and(|c| c.export(&import.name).is_some()) {
            continue;
        }
        let (from, name) = (&import.module, &import.name);
        let defined = match &import.ty {
            ExternType::Func(ty) => {
                namespace.define_func(from, name, HostFunc::dynamic(ty.clone(), |_, _, _| Ok(()))).map(drop)
            }
            ExternType::Memory(ty) => namespace.define_memory(from, name, *ty, &LoadOptions::default()).map(drop),
            other => return Err(format!("import {from}::{name} is {other:?}")),
        };
        defined.map_err(|e| e.to_string())?;
    }
    Ok(())
}

impl Guest {
    /// Loads a module as a cell that exports its memory under this name.
    pub fn load(
        namespace: &CrateNamespace,
        name: &str,
        module: &Arc<CellModule>,
        memory: &str,
    ) -> Result<Guest, String> {
        let cell = namespace.load_module(name, module, LoadOptions::default()).map_err(|e| e.to_string())?;
        Guest::new(cell, memory)
    }

    /// A cell that exports its memory under this name.
    pub fn new(cell: StrongCrateRef, memory: &str) -> Result<Guest, String> {
        let memory = memory_of(&cell, memory)?;
        Ok(Guest { cell, memory })
    }

    /// Calls a function of `i32`s with at most one result.
    pub fn call(&self, name: &str, args: &[i32]) -> Result<i32, String> {
        let func = self.cell.func(name).map_err(|e| e.to_string())?;
        let args: Vec<Val> = args.iter().map(|a| Val::I32(*a)).collect();
        let mut results = vec![Val::I32(0); func.ty().results.len()];
        func.call(&args, &mut results).map_err(|e| format!("{name}: {e}"))?;
        match results[..] {
            [] => Ok(0),
            [Val::I32(v)] => Ok(v),
            ref other => Err(format!("{name} returns {other:?}")),
        }
    }

    /// Writes to its memory.
    pub fn write(&self, at: i32, bytes: &[u8]) -> Result<(), String> {
        let outside = || format!("it wants {} bytes at {at:#x}, outside of its memory", bytes.len());
        self.memory.write(u64::from(at as u32), bytes).ok_or_else(outside)
    }

    /// Reads its memory.
    pub fn read(&self, at: i32, len: usize) -> Result<Vec<u8>, String> {
        let outside = || format!("it gives {len} bytes at {at:#x}, outside of its memory");
        // Before anything is allocated for a length that the guest says.
        self.memory.range(u64::from(at as u32), len as u64).ok_or_else(outside)?;
        let mut bytes = vec![0; len];
        self.memory.read(u64::from(at as u32), &mut bytes).ok_or_else(outside)?;
        Ok(bytes)
    }

    /// A word of its memory.
    pub fn word(&self, at: i32) -> Result<i32, String> {
        let bytes = self.read(at, 4)?;
        Ok(bytes.first_chunk().copied().map(i32::from_le_bytes).unwrap_or_default())
    }

    /// Text of its memory, up to a zero.
    pub fn text(&self, at: i32) -> Result<String, String> {
        let mut bytes = Vec::new();
        for at in at.. {
            match self.read(at, 1)?[..] {
                [0] => break,
                ref byte => bytes.extend(byte),
            }
        }
        String::from_utf8(bytes).map_err(|_| format!("what it gives at {at:#x} is not UTF-8"))
    }
}

/// The memory that a cell, defined or loaded, exports under this name.
pub(super) fn memory_of(cell: &StrongCrateRef, name: &str) -> Result<Arc<LinearMemory>, String> {
    match cell.export(name).as_deref().map(|section| &section.item) {
        Some(SectionItem::Memory(memory)) => Ok(memory.clone()),
        _ => Err(format!("`{name}` is no memory that it exports")),
    }
}
