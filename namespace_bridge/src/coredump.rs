//! Core dumps of traps, in the format of WebAssembly's tool conventions.
//!
//! A dump is itself a wasm module: the custom sections `core`, `coremodules`, `coreinstances` and `corestack` say which
//! frames of which instances were on the stack, and the memory, global and data sections hold their state. It is
//! planned first ([`Coredump::new`]), which takes little memory, and then written piece by piece, so that a guest of
//! gigabytes needs no buffer of gigabytes.
//!
//! What a dump does not hold: native frames and tables, which the format lacks; the values of locals and operands, which
//! compiled code keeps wherever it likes: each parameter is written as *missing*, and other locals and operands not at
//! all. References are written as null. Pages of zeroes are left out, as a memory is zero where no segment lies.
//!
//! Source of the format: <https://github.com/WebAssembly/tool-conventions/blob/main/Coredump.md>, with the instances
//! and modules that its readers expect.
#![deny(unsafe_code)]

mod encoding;
#[cfg(test)]
mod tests;

use crate::cell::StrongCrateRef;
use crate::code::LoadedCode;
use crate::global::Global;
use crate::instance::InstanceRecord;
use crate::linear_memory::LinearMemory;
use crate::trap::{Trap, WasmFrame};
use alloc::{collections::TryReserveError, sync::Arc, vec::Vec};
use encoding::{Encoder, int32, int64, section_head, uint};
use kernel_config::memory::PAGE_SIZE;

/// Bytes of memory contents a dump may hold unless somebody says otherwise.
pub const DEFAULT_MEMORY_LIMIT: u64 = 1 << 30;
/// What the size field of the data section allows, with room for what describes the segments.
const MEMORY_LIMIT_MAX: u64 = 1 << 31;
/// Data segments that readers accept (WebAssembly JavaScript interface, "Limits").
const SEGMENTS: usize = 100_000;

/// A planned dump.
pub struct Coredump<'t> {
    trap: &'t Trap,
    modules: Vec<&'t LoadedCode>,
    instances: Vec<Instance<'t>>,
    memories: Vec<Arc<LinearMemory>>,
    globals: Vec<Arc<Global>>,
    runs: Vec<Run>,
    left_out: u64,
}

struct Instance<'t> {
    code: &'t LoadedCode,
    module: usize,
    memories: Vec<u64>,
    globals: Vec<u64>,
}

/// Bytes of a memory that become a data segment.
struct Run {
    memory: usize,
    offset: u64,
    len: u64,
}

/// The cells whose state a dump can hold: shares of their instances.
pub struct State(Vec<Arc<InstanceRecord>>);

impl State {
    /// Of all these cells that are wasm and still loaded.
    pub fn of(cells: &[StrongCrateRef]) -> State {
        State(cells.iter().filter_map(|c| c.instance()).collect())
    }
}

impl<'t> Coredump<'t> {
    /// Plans a dump of a trap: its stack, and the memories and globals of `state` with at most `memory_limit` bytes of
    /// contents. Cells on the stack that are not in `state` (unloaded since, or a module whose start function trapped)
    /// appear without memories and globals.
    ///
    /// The state is what it is now, not what it was: call this before anybody runs the cells again.
    pub fn new(trap: &'t Trap, state: &'t State, memory_limit: u64) -> Coredump<'t> {
        let mut dump = Coredump {
            trap,
            modules: Vec::new(),
            instances: Vec::new(),
            memories: Vec::new(),
            globals: Vec::new(),
            runs: Vec::new(),
            left_out: 0,
        };
        state.0.iter().for_each(|record| dump.add(record));
        for frame in trap.frames().filter_map(|f| f.wasm) {
            if dump.instance_of(frame.code()).is_none() {
                dump.add_instance(frame.code());
            }
        }
        dump.plan_runs(memory_limit.min(MEMORY_LIMIT_MAX));
        dump
    }

    /// Bytes of memory contents that did not fit in the limit.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn instance_of(&self, code: &LoadedCode) -> Option<usize> {
        self.instances.iter().position(|i| core::ptr::eq(i.code, code))
    }

    fn add_instance(&mut self, code: &'t LoadedCode) -> usize {
        let known = self.modules.iter().position(|m| Arc::ptr_eq(m.module(), code.module()));
        let module = known.unwrap_or_else(|| {
            self.modules.push(code);
            self.modules.len() - 1
        });
        self.instances.push(Instance { code, module, memories: Vec::new(), globals: Vec::new() });
        self.instances.len() - 1
    }

    fn add(&mut self, record: &'t InstanceRecord) {
        let i = self.add_instance(record.code());
        let memories = record.memories().iter().map(|m| index_of(&mut self.memories, m.clone(), Arc::ptr_eq)).collect();
        // Shares of one global may be different objects.
        let same = |a: &Arc<Global>, b: &Arc<Global>| a.address() == b.address();
        let all = (0..record.metadata().globals.len() as u32).filter_map(|g| record.global(g));
        let globals = all.map(|g| index_of(&mut self.globals, g, same)).collect();
        if let Some(instance) = self.instances.get_mut(i) {
            (instance.memories, instance.globals) = (memories, globals);
        }
    }

    /// Finds the pages that are not zero.
    fn plan_runs(&mut self, limit: u64) {
        let mut left = limit;
        let mut page = [0; PAGE_SIZE];
        for memory in 0..self.memories.len() {
            let mut offset = 0;
            while let Some(len) = self.next_page(memory, offset, &mut page) {
                if page.iter().take(len).any(|b| *b != 0) {
                    let len = len as u64;
                    if len <= left && self.plan(memory, offset, len) {
                        left -= len;
                    } else {
                        self.left_out += len;
                    }
                }
                offset += len as u64;
            }
        }
    }

    /// Reads up to a page at an offset. Returns its length; `None` at the end of the memory.
    fn next_page(&self, memory: usize, offset: u64, page: &mut [u8; PAGE_SIZE]) -> Option<usize> {
        let memory = self.memories.get(memory)?;
        let len = memory.bytes().checked_sub(offset)?.min(PAGE_SIZE as u64) as usize;
        let bytes = page.get_mut(..len).filter(|b| !b.is_empty())?;
        memory.read(offset, bytes)?;
        Some(len)
    }

    /// Plans a segment, or more of the last one. `false` when there can be no more segments.
    fn plan(&mut self, memory: usize, offset: u64, len: u64) -> bool {
        match self.runs.last_mut() {
            Some(last) if last.memory == memory && last.offset + last.len == offset => {
                last.len += len;
                return true;
            }
            _ => {}
        }
        let room = self.runs.len() < SEGMENTS && self.runs.try_reserve(1).is_ok();
        if room {
            self.runs.push(Run { memory, offset, len });
        }
        room
    }

    /// Hands the dump to `sink`, in pieces of a page at most where it is memory. Ends with the sink's first error.
    pub fn write<E>(&self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        sink(b"\0asm\x01\0\0\0")?;
        let custom = |name: &str, contents: &dyn Fn(&mut Encoder)| Encoder::custom_section(name, contents);
        sink(&custom("core", &|e| {
            e.byte(0);
            e.name(self.trap.cell().unwrap_or(""));
        }))?;
        sink(&custom("coremodules", &|e| {
            e.vec(&self.modules, |e, code| {
                e.byte(0);
                e.name(code.cell());
            })
        }))?;
        sink(&custom("coreinstances", &|e| e.vec(&self.instances, |e, instance| instance.encode(e))))?;
        sink(&custom("corestack", &|e| self.stack(e)))?;
        if !self.memories.is_empty() {
            sink(&Encoder::section(encoding::MEMORY, |e| e.vec(&self.memories, |e, m| e.memory_type(&m.ty()))))?;
        }
        if !self.globals.is_empty() {
            sink(&Encoder::section(encoding::GLOBAL, |e| {
                e.vec(&self.globals, |e, g| e.constant_global(g.ty().content, g.bits()))
            }))?;
        }
        self.data(&mut sink)
    }

    /// The whole dump; an error when there is no room for it.
    pub fn to_vec(&self) -> Result<Vec<u8>, TryReserveError> {
        let mut all = Vec::new();
        self.write(|bytes| -> Result<(), TryReserveError> {
            all.try_reserve(bytes.len())?;
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    fn stack(&self, e: &mut Encoder) {
        let frames: Vec<(usize, u32, WasmFrame<'_>)> = self
            .trap
            .frames()
            .filter_map(|f| f.wasm)
            .filter_map(|f| Some((self.instance_of(f.code())?, f.function?, f)))
            .collect();
        e.byte(0);
        e.name("main");
        e.vec(&frames, |e, (instance, function, frame)| {
            let metadata = frame.code().metadata();
            let defined = (*function as usize).checked_sub(metadata.imported_funcs.len());
            let start = defined.and_then(|i| metadata.funcs.get(i)).map_or(0, |f| f.wasm_offset);
            e.byte(0);
            e.uint(*instance as u64);
            e.uint(u64::from(*function));
            e.uint(u64::from(frame.wasm_offset.map_or(0, |o| o.saturating_sub(start))));
            let parameters = metadata.func_type(*function).map_or(0, |ty| ty.params.len());
            e.uint(parameters as u64);
            (0..parameters).for_each(|_| e.byte(encoding::MISSING));
            e.uint(0);
        });
    }

    /// The data section, whose size is known from the plan.
    fn data<E>(&self, sink: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let count = uint(self.runs.len() as u64);
        let size: u64 = self.runs.iter().map(|r| self.segment_head(r).len() as u64 + r.len).sum();
        sink(&section_head(encoding::DATA, count.len() as u64 + size))?;
        sink(&count)?;
        let mut page = [0; PAGE_SIZE];
        for run in &self.runs {
            sink(&self.segment_head(run))?;
            let mut done = 0;
            while done < run.len {
                let len = (run.len - done).min(PAGE_SIZE as u64);
                let Some(bytes) = page.get_mut(..len as usize) else { break };
                if let Some(memory) = self.memories.get(run.memory) {
                    // Always there: a memory never shrinks.
                    memory.read(run.offset + done, bytes);
                }
                sink(bytes)?;
                done += len;
            }
        }
        Ok(())
    }

    /// What stands before the bytes of a segment.
    fn segment_head(&self, run: &Run) -> Vec<u8> {
        let mut head = Vec::new();
        if run.memory == 0 {
            head.push(0);
        } else {
            head.push(2);
            head.extend(uint(run.memory as u64));
        }
        if self.memories.get(run.memory).is_some_and(|m| m.ty().is64) {
            head.push(encoding::I64_CONST);
            head.extend(int64(run.offset as i64));
        } else {
            head.push(encoding::I32_CONST);
            head.extend(int32(run.offset as u32 as i32));
        }
        head.push(encoding::END);
        head.extend(uint(run.len));
        head
    }
}

impl Instance<'_> {
    fn encode(&self, e: &mut Encoder) {
        e.byte(0);
        e.uint(self.module as u64);
        e.vec(&self.memories, |e, i| e.uint(*i));
        e.vec(&self.globals, |e, i| e.uint(*i));
    }
}

/// Position of `what` in `all`, where it is put if it is not there.
fn index_of<T>(all: &mut Vec<T>, what: T, same: impl Fn(&T, &T) -> bool) -> u64 {
    let at = all.iter().position(|known| same(known, &what)).unwrap_or_else(|| {
        all.push(what);
        all.len() - 1
    });
    at as u64
}
