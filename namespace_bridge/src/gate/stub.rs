//! The code of a module's gate stubs: one per stable entry, in the shared frames of the module, behind the entries.
//!
//! ```text
//! 0   mov r10, [rip + gate word]
//! 7   rax = the task's record               as the port says: two instructions
//! 24  cmp [r10], rax                        is the task inside?
//! 27  je body
//! 33  lea r11, [rip + data]
//! 40  jmp [rip + routine]                   planks_gate, or planks_gate_stack
//! 48  data: distances from here to the gate word, the body, and the slot of the stable entry; bytes of stack arguments
//! ```
//!
//! `rax`, `r10` and `r11` are free in the wasm convention when a function is entered. No byte belongs to one instance: the gate word
//! lies behind the data block, at a distance that is the same for all. The addresses of the routines stand before the first stub.

use super::enter::{planks_gate, planks_gate_find, planks_gate_find_stack, planks_gate_stack};
use crate::call::stack_arguments;
use crate::code::ModuleLayout;
use crate::instance::InstanceRecord;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, Ordering};
use runtime_port::platform;
use runtime_port::task::TaskPointer;
use wasm_cell::metadata::Metadata;

/// Bytes of a stub, and its alignment.
pub(crate) const STUB_SIZE: usize = 64;

const POINTER: usize = 7;
const COMPARE: usize = 24;
const BRANCH: usize = 27;
const LOAD_DATA: usize = 33;
const JUMP: usize = 40;
const DATA: usize = 48;

/// What the routine behind a stub needs to know. Distances are from this record. Known to the assembly in `gate/enter.rs`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct StubData {
    gate_word: i32,
    body: i32,
    slot: i32,
    /// Bytes of stack arguments, which the function pops.
    pop: u32,
}

const _: () = assert!(DATA + size_of::<StubData>() == STUB_SIZE);

/// Bytes of the region of entries and stubs that starts, aligned to a stub, with this many bytes of entries.
pub(crate) fn region(entries_bytes: usize, count: usize) -> usize {
    first(entries_bytes) + count * STUB_SIZE
}

/// Offset in the region of the first stub; the addresses of the routines stand in the 16 bytes before it.
pub(crate) fn first(entries_bytes: usize) -> usize {
    (entries_bytes + 16).next_multiple_of(STUB_SIZE)
}

/// Puts the stubs behind the entries of a module that is gated.
pub(crate) fn append(region_bytes: &mut Vec<u8>, m: &Metadata, layout: ModuleLayout) {
    let first = first(region_bytes.len());
    region_bytes.resize(first + layout.entries * STUB_SIZE, 0xcc);
    let pointer = platform().tasks().task_pointer();
    let (by_registers, by_stack) = match pointer {
        Some(_) => (planks_gate as *const (), planks_gate_stack as *const ()),
        None => (planks_gate_find as *const (), planks_gate_find_stack as *const ()),
    };
    let (_, rest) = region_bytes.split_at_mut(first - 16);
    let (routines, stubs) = rest.split_at_mut(16);
    routines[..8].copy_from_slice(&(by_registers as usize).to_le_bytes());
    routines[8..].copy_from_slice(&(by_stack as usize).to_le_bytes());
    let imported = m.imported_funcs.len();
    for (k, (func, stub)) in m.escaped_funcs.iter().zip(stubs.chunks_exact_mut(STUB_SIZE)).enumerate() {
        let defined = (*func as usize).checked_sub(imported).and_then(|i| m.funcs.get(i));
        let (Some(defined), Some(ty), Some(slot)) = (defined, m.func_type(*func), m.layout.escaped_slots.get(k)) else {
            continue;
        };
        let pop = stack_arguments(ty) as u32;
        let at = layout.first_stub + k * STUB_SIZE;
        let routine = layout.first_stub - if pop == 0 { 16 } else { 8 };
        let body = layout.text + defined.offset as usize;
        write(
            stub,
            at,
            Targets { gate_word: layout.gate, body, slot: layout.data + *slot as usize, routine },
            pop,
            pointer,
        );
    }
}

/// Offsets in the image of what a stub refers to.
struct Targets {
    gate_word: usize,
    body: usize,
    slot: usize,
    routine: usize,
}

fn write(stub: &mut [u8], at: usize, to: Targets, pop: u32, pointer: Option<TaskPointer>) {
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(place) = stub.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    let from = |end: usize, target: usize| (target.wrapping_sub(at + end) as i32).to_le_bytes();
    put(0, &[0x4c, 0x8b, 0x15]);
    put(3, &from(POINTER, to.gate_word));
    match pointer {
        Some(pointer) => put(POINTER, &load_task(pointer)),
        // The routine finds the task: jmp to `LOAD_DATA`.
        None => put(POINTER, &[0xeb, (LOAD_DATA - POINTER - 2) as u8]),
    }
    put(COMPARE, &[0x49, 0x39, 0x02]);
    put(BRANCH, &[0x0f, 0x84]);
    put(BRANCH + 2, &from(LOAD_DATA, to.body));
    put(LOAD_DATA, &[0x4c, 0x8d, 0x1d]);
    put(LOAD_DATA + 3, &from(JUMP, at + DATA));
    put(JUMP, &[0xff, 0x25]);
    put(JUMP + 2, &from(JUMP + 6, to.routine));
    put(DATA, &from(DATA, to.gate_word));
    put(DATA + 4, &from(DATA, to.body));
    put(DATA + 8, &from(DATA, to.slot));
    put(DATA + 12, &pop.to_le_bytes());
}

/// Code that puts the address of the task's record into `rax`.
fn load_task(pointer: TaskPointer) -> [u8; COMPARE - POINTER] {
    let mut code = [0x90; COMPARE - POINTER];
    let distance = match pointer {
        TaskPointer::ThreadBase(distance) => {
            // mov rax, fs:[0]
            code[..9].copy_from_slice(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0]);
            distance
        }
        TaskPointer::PerProcessor { offset, distance } => {
            // mov rax, gs:[offset]
            code[..5].copy_from_slice(&[0x65, 0x48, 0x8b, 0x04, 0x25]);
            code[5..9].copy_from_slice(&offset.to_le_bytes());
            distance
        }
        TaskPointer::Word { address, distance } => {
            // movabs rax, [address]
            code[..2].copy_from_slice(&[0x48, 0xa1]);
            code[2..10].copy_from_slice(&address.to_le_bytes());
            distance
        }
    };
    // lea rax, [rax + distance]
    code[10..13].copy_from_slice(&[0x48, 0x8d, 0x80]);
    code[13..].copy_from_slice(&distance.to_le_bytes());
    code
}

impl StubData {
    /// The data of a stub, by its address.
    ///
    /// # Safety
    /// `address` must be what a stub hands to its routine; the image must stay while the result is used.
    pub(super) unsafe fn at<'s>(address: usize) -> &'s StubData {
        // SAFETY: the caller's promise.
        unsafe { &*core::ptr::with_exposed_provenance(address) }
    }

    fn offset(&self, by: i32) -> usize {
        core::ptr::from_ref(self).expose_provenance().wrapping_add_signed(by as isize)
    }

    /// First instruction of the stub.
    pub(super) fn stub(&self) -> usize {
        self.offset(-(DATA as i32))
    }

    /// The function itself.
    pub(super) fn body(&self) -> usize {
        self.offset(self.body)
    }

    /// The stable entry that everybody calls the function by.
    pub(super) fn entry(&self) -> usize {
        // SAFETY: a slot of the instance's data block, which never changes once code of the cell runs.
        unsafe { *core::ptr::with_exposed_provenance::<usize>(self.offset(self.slot)) }
    }

    /// The instance.
    pub(super) fn instance(&self) -> &InstanceRecord {
        // SAFETY: the linker wrote the record's address behind the gate word, and the record lives as long as code of the cell runs.
        unsafe {
            let word: &AtomicPtr<InstanceRecord> =
                &*core::ptr::with_exposed_provenance(self.offset(self.gate_word) + 8);
            &*word.load(Ordering::Acquire)
        }
    }
}

/// The function behind an address that an entry leads to: the body behind a stub, the address itself if it is none.
///
/// # Safety
/// `address` must be code with at least [`STUB_SIZE`] readable bytes.
pub(crate) unsafe fn behind(address: usize) -> usize {
    // SAFETY: the caller's promise.
    let code = unsafe { &*core::ptr::with_exposed_provenance::<[u8; STUB_SIZE]>(address) };
    let is_stub = code[..3] == [0x4c, 0x8b, 0x15]
        && code[COMPARE..BRANCH] == [0x49, 0x39, 0x02]
        && code[LOAD_DATA..LOAD_DATA + 3] == [0x4c, 0x8d, 0x1d]
        && code[JUMP..JUMP + 2] == [0xff, 0x25];
    // SAFETY: a stub is followed by its data.
    if is_stub { unsafe { StubData::at(address + DATA) }.body() } else { address }
}
