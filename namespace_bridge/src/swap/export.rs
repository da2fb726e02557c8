//! Export: the old version writes its state down, the new one reads it (docs/SWAPPING.md).
#![deny(unsafe_code)]

use super::error::{SwapProblem, TransferError};
use super::request::StatePlan;
use super::transaction::{Change, Plan};
use super::transfer::Version;
use crate::call::CallError;
use crate::cell::StrongCrateRef;
use crate::code::CellModule;
use crate::error::FuncError;
use crate::instance::InstanceRecord;
use crate::linear_memory::LinearMemory;
use crate::typed::TypedFunc;
use crate::val::Val;
use alloc::{format, string::String, sync::Arc, vec, vec::Vec};
use wasm_cell::metadata::{ExportItem, Metadata};
use wasm_cell::types::ValType;

/// `plank_save: [] -> [i64]` (length in the upper half, address in the lower), `[] -> [i32 i32]` or `[] -> [i64 i64]` (address, length).
pub(super) const SAVE: &str = "plank_save";
/// `plank_restore: [i32 i32] -> [i32]` or `[i64 i64] -> [i32]` (address, length; 0 for success).
pub(super) const RESTORE: &str = "plank_restore";
/// `plank_alloc: [i32] -> [i32]` or `[i64] -> [i64]` (length; address, 0 for no room). Optional.
const ALLOC: &str = "plank_alloc";

/// A length that says that the version refuses; the address is its error number.
const REFUSED: u32 = u32::MAX;

/// An exported function with these parameters (`i32` or `i64` each) and this result.
pub(super) fn function(m: &Metadata, name: &str, params: &[&str], result: &str) -> Option<u32> {
    let index = m.exports.iter().find(|e| e.name == name).and_then(|e| match e.item {
        ExportItem::Func(i) => Some(i),
        _ => None,
    })?;
    let ty = m.func_type(index)?;
    let is = |ty: &ValType, name: &str| matches!((ty, name), (ValType::I32, "i32") | (ValType::I64, "i64"));
    let same = |types: &[ValType], names: &[&str]| {
        types.len() == names.len() && types.iter().zip(names).all(|(t, n)| is(t, n))
    };
    let results: Vec<&str> = result.split(' ').collect();
    (same(&ty.params, params) && same(&ty.results, &results)).then_some(index)
}

fn saver(m: &Metadata) -> Option<u32> {
    ["i64", "i32 i32", "i64 i64"].iter().find_map(|result| function(m, SAVE, &[], result))
}

fn restorer(m: &Metadata) -> Option<u32> {
    [["i32", "i32"], ["i64", "i64"]].iter().find_map(|params| function(m, RESTORE, params, "i32"))
}

/// What the old version lacks, if the plan is to export. `Err`: it cannot be exported at all.
fn old_lacks(change: &Change) -> Option<Result<Vec<String>, SwapProblem>> {
    if !matches!(change.plan, Plan::State(StatePlan::Export)) {
        return None;
    }
    let Some(old) = change.old.as_ref().and_then(|o| o.module()) else {
        return Some(Err(match change.old {
            // Nothing keeps callers out of a native cell while it saves.
            Some(_) => SwapProblem::NativeState { cell: change.name(), plan: "export" },
            None => SwapProblem::NoState { cell: change.name(), plan: "export" },
        }));
    };
    let (mut lacks, m): (Vec<String>, _) = (Vec::new(), old.metadata());
    if saver(m).is_none() {
        lacks.push(format!("the old version has no `{SAVE}` of type [] -> [i64], [i32 i32] or [i64 i64]"));
    }
    if m.memories.is_empty() {
        lacks.push(String::from("the old version has no memory"));
    }
    Some(Ok(lacks))
}

/// Why the state cannot be exported to a native cell, if that is the plan.
pub(super) fn problem_of_native(change: &Change) -> Option<SwapProblem> {
    let mut lacks = match old_lacks(change)? {
        Ok(lacks) => lacks,
        Err(problem) => return Some(problem),
    };
    let new = change.new.as_ref()?;
    if native_restorer(new).is_err() {
        lacks.push(format!("the new version has no `{RESTORE}` of type [i64 i64] -> [i32]"));
    }
    (!lacks.is_empty()).then(|| SwapProblem::CannotExport { cell: change.name(), lacks })
}

/// Why a version that comes back cannot get the state, if it was exported and is to go back the same way.
pub(super) fn problem_of_return(change: &Change) -> Option<SwapProblem> {
    old_lacks(change).filter(|_| !change.fresh)?.err()
}

/// Why the state cannot be exported, if that is the plan.
pub(super) fn problem(change: &Change, new: &CellModule) -> Option<SwapProblem> {
    let mut lacks = match old_lacks(change)? {
        Ok(lacks) => lacks,
        Err(problem) => return Some(problem),
    };
    let b = new.metadata();
    if restorer(b).is_none() {
        lacks.push(format!("the new version has no `{RESTORE}` of type [i32 i32] -> [i32] or [i64 i64] -> [i32]"));
    }
    if b.memories.is_empty() {
        lacks.push(String::from("the new version has no memory"));
    }
    (!lacks.is_empty()).then(|| SwapProblem::CannotExport { cell: change.name(), lacks })
}

/// Calls a function of this very version.
fn call(instance: &Arc<InstanceRecord>, func: u32, args: &[Val]) -> Result<Vec<Val>, TransferError> {
    let none = || TransferError::Code(i64::MIN);
    let func = instance.func_of_this_version(func).ok_or_else(none)?;
    let mut results = vec![Val::I32(0); func.ty().results.len()];
    match func.call(args, &mut results) {
        Ok(()) => Ok(results),
        Err(CallError::Trap(trap)) => Err(trap.into()),
        Err(_) => Err(none()),
    }
}

fn integer(val: Option<&Val>) -> i64 {
    match val {
        Some(Val::I32(v)) => i64::from(*v),
        Some(Val::I64(v)) => *v,
        _ => 0,
    }
}

/// Calls a function whose result is 0 or an error number.
pub(super) fn call_for_code(instance: &Arc<InstanceRecord>, func: u32, args: &[Val]) -> Result<i64, TransferError> {
    Ok(integer(call(instance, func, args)?.first()))
}

/// The bytes that the old version gives.
pub(super) fn save(old: &Arc<InstanceRecord>) -> Result<Vec<u8>, TransferError> {
    let m = old.metadata();
    let (Some(func), Some(memory)) = (saver(m), old.memory(0)) else { return Err(TransferError::Code(i64::MIN)) };
    let results = call(old, func, &[])?;
    let (at, len) = match results.as_slice() {
        [Val::I64(both)] => {
            let (at, len) = (*both as u32, (*both as u64 >> 32) as u32);
            if len == REFUSED {
                return Err(TransferError::Code(i64::from(at)));
            }
            (u64::from(at), u64::from(len))
        }
        [Val::I32(at), Val::I32(len)] if *len as u32 == REFUSED => {
            return Err(TransferError::Code(i64::from(*at as u32)));
        }
        [Val::I32(at), Val::I32(len)] => (u64::from(*at as u32), u64::from(*len as u32)),
        [Val::I64(at), Val::I64(-1)] => return Err(TransferError::Code(*at)),
        [Val::I64(at), Val::I64(len)] => (*at as u64, *len as u64),
        _ => return Err(TransferError::Code(i64::MIN)),
    };
    let size = memory.bytes();
    if at.checked_add(len).is_none_or(|end| end > size) {
        return Err(TransferError::Range { at, len, size });
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len as usize).map_err(|_| TransferError::NoRoom(len))?;
    bytes.resize(len as usize, 0);
    memory.read(at, &mut bytes).ok_or(TransferError::Range { at, len, size })?;
    Ok(bytes)
}

/// Gives the bytes to the new version.
pub(super) fn restore(new: &Arc<InstanceRecord>, bytes: &[u8]) -> Result<(), TransferError> {
    let m = new.metadata();
    let (Some(func), Some(memory)) = (restorer(m), new.memory(0)) else { return Err(TransferError::Code(i64::MIN)) };
    let wide = m.func_type(func).is_some_and(|ty| ty.params.first() == Some(&ValType::I64));
    let number = |n: u64| if wide { Val::I64(n as i64) } else { Val::I32(n as i32) };
    let len = bytes.len() as u64;
    let at = room(new, memory, len)?;
    memory.write(at, bytes).ok_or(TransferError::Range { at, len, size: memory.bytes() })?;
    match call_for_code(new, func, &[number(at), number(len)])? {
        0 => Ok(()),
        code => Err(TransferError::Code(code)),
    }
}

/// The function by which a native cell takes state.
fn native_restorer(new: &StrongCrateRef) -> Result<TypedFunc<(i64, i64), i32>, FuncError> {
    Version::of(new).typed_func(RESTORE)
}

/// Gives the bytes to a native cell, where they are.
pub(super) fn restore_native(new: &StrongCrateRef, bytes: &[u8]) -> Result<(), TransferError> {
    let func = native_restorer(new).map_err(|e| TransferError::Custom(e.into()))?;
    match func.call((bytes.as_ptr() as i64, bytes.len() as i64))? {
        0 => Ok(()),
        code => Err(TransferError::Code(i64::from(code))),
    }
}

/// Room in the new version's memory: what it gives itself, else new pages.
fn room(new: &Arc<InstanceRecord>, memory: &Arc<LinearMemory>, len: u64) -> Result<u64, TransferError> {
    let m = new.metadata();
    let narrow = u32::try_from(len).ok().and_then(|_| function(m, ALLOC, &["i32"], "i32"));
    if let Some(func) = narrow.or_else(|| function(m, ALLOC, &["i64"], "i64")) {
        let arg = if narrow.is_some() { Val::I32(len as i32) } else { Val::I64(len as i64) };
        let at = match call(new, func, &[arg])?.first() {
            Some(Val::I32(at)) => u64::from(*at as u32),
            other => integer(other) as u64,
        };
        return if at == 0 && len > 0 { Err(TransferError::NoRoom(len)) } else { Ok(at) };
    }
    let page = 1u64 << memory.ty().page_size_log2;
    let before = memory.grow(len.div_ceil(page)).ok_or(TransferError::NoRoom(len))?;
    Ok(before * page)
}
