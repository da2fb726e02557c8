//! WASI in a namespace: each function as a host function that finds the memory of its caller.

use super::functions::FUNCTIONS;
use super::memory::GuestMemory;
use super::{Errno, MODULE, Wasi};
use namespace_bridge::val::Val;
use namespace_bridge::{Caller, CrateNamespace, DefineError, HostFunc, LinearMemory};
use std::sync::{Arc, Mutex, PoisonError};
use wasm_cell::types::{FuncType, ValType};

/// The guest has ended itself with a status; the trap that carries this is no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("exit with status {0}")]
pub struct Exit(pub u32);

/// A module that uses WASI must have a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a WASI function was called by a module without a memory")]
struct NoMemory;

/// The first memory of the calling cell.
struct Memory<'a>(&'a LinearMemory);

impl GuestMemory for Memory<'_> {
    fn size(&self) -> u64 {
        self.0.bytes()
    }

    fn read(&self, address: u32, into: &mut [u8]) -> Result<(), Errno> {
        self.0.read(address.into(), into).ok_or(Errno::Fault)
    }

    fn write(&mut self, address: u32, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write(address.into(), bytes).ok_or(Errno::Fault)
    }
}

/// Defines all functions in a namespace, for one guest.
pub fn define(namespace: &CrateNamespace, wasi: &Arc<Mutex<Wasi>>) -> Result<(), DefineError> {
    for function in FUNCTIONS {
        let params: Vec<ValType> =
            function.params.bytes().map(|p| if p == b'l' { ValType::I64 } else { ValType::I32 }).collect();
        let results = if function.has_result() { vec![ValType::I32] } else { vec![] };
        let wasi = wasi.clone();
        let body = move |caller: &Caller, args: &[Val], results: &mut [Val]| {
            let args: Vec<u64> = args.iter().map(|v| v.to_raw() as u64).collect();
            let memory = caller.instance().and_then(|i| i.memory(0)).ok_or(NoMemory)?;
            let mut wasi = wasi.lock().unwrap_or_else(PoisonError::into_inner);
            let errno = function.call(&mut wasi, &mut Memory(memory), &args).map_err(Exit)?;
            if let Some(result) = results.first_mut() {
                *result = Val::I32(errno as i32);
            }
            Ok(())
        };
        namespace.define_func(MODULE, function.name, HostFunc::dynamic(FuncType::new(params, results), body))?;
    }
    Ok(())
}
