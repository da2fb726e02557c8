//! Segments, task state and interrupt gates.
//!
//! Every exception runs on a stack of its own (SDM vol. 3, 6.14.5): a fault on an exhausted stack can be handled, and the
//! red zone of interrupted code stays whole. Double faults, NMIs and machine checks can come while another exception is
//! handled, so each has one to itself. Interrupts and switches of tasks have one too: a fault in their handlers is
//! reported with what led to it.

use crate::{boot::GuardedStack, exceptions};
use kernel_config::{
    bare_metal::{INTERRUPT_VECTOR, SPURIOUS_VECTOR},
    task::ALTERNATE_STACK,
};
use x86_64::{
    VirtAddr,
    instructions::{
        segmentation::{CS, SS, Segment},
        tables::{lidt, load_tss},
    },
    structures::{
        DescriptorTablePointer,
        gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
        tss::TaskStateSegment,
    },
};

/// Vectors that have a gate: the processor's exceptions, and the interrupts of `kernel_config::bare_metal`.
pub const VECTORS: usize = SPURIOUS_VECTOR as usize + 1;

/// Number of exception stacks.
pub const STACKS: usize = 5;

/// Stacks for exceptions, by their number in the task state less one.
pub static mut EXCEPTION_STACKS: [GuardedStack<ALTERNATE_STACK>; STACKS] = [const { GuardedStack::new() }; STACKS];

/// An interrupt gate (SDM vol. 3, figure 6-8): interrupts are masked on entry.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

impl Gate {
    const ABSENT: Self =
        Self { offset_low: 0, selector: 0, stack: 0, kind: 0, offset_middle: 0, offset_high: 0, reserved: 0 };

    fn new(handler: usize, code: SegmentSelector, stack: u8) -> Self {
        /// Present, ring 0, 64-bit interrupt gate.
        const INTERRUPT: u8 = 0x8e;
        Self {
            offset_low: handler as u16,
            selector: code.0,
            stack,
            kind: INTERRUPT,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// The tables that the processor refers to.
struct Tables {
    task_state: TaskStateSegment,
    segments: GlobalDescriptorTable,
    gates: [Gate; VECTORS],
}

static mut TABLES: Tables = Tables {
    task_state: TaskStateSegment::new(),
    segments: GlobalDescriptorTable::new(),
    gates: [Gate::ABSENT; VECTORS],
};

/// Index of the exception stack for a vector, counted from 1.
fn stack_of(vector: usize) -> u8 {
    const FIRST_INTERRUPT: usize = INTERRUPT_VECTOR as usize;
    match vector {
        FIRST_INTERRUPT.. => 5,
        2 => 2,  // NMI
        8 => 3,  // double fault
        18 => 4, // machine check
        _ => 1,
    }
}

/// Loads the tables.
///
/// # Safety
/// Once, on the boot processor, before anything can fault.
pub unsafe fn load() {
    let tables = &raw mut TABLES;
    // SAFETY: called once and alone, so this is the only reference; nobody writes the tables again, but for the busy bit
    // that the processor sets.
    let Tables { task_state, segments, gates } = unsafe { &mut *tables };
    let stacks = (&raw const EXCEPTION_STACKS).cast::<GuardedStack<ALTERNATE_STACK>>();
    // A packed structure: no references into it.
    let mut tops = task_state.interrupt_stack_table;
    for (i, top) in tops.iter_mut().take(STACKS).enumerate() {
        *top = VirtAddr::from_ptr(stacks.wrapping_add(i + 1));
    }
    task_state.interrupt_stack_table = tops;
    let code = segments.append(Descriptor::kernel_code_segment());
    let data = segments.append(Descriptor::kernel_data_segment());
    let state = segments.append(Descriptor::tss_segment(task_state));
    for (vector, gate) in gates.iter_mut().enumerate() {
        *gate = Gate::new(exceptions::entry(vector), code, stack_of(vector));
    }
    segments.load();
    // SAFETY: the table just loaded has these selectors, and the gates lead to the exception entries.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        load_tss(state);
        lidt(&DescriptorTablePointer {
            limit: (size_of::<[Gate; VECTORS]>() - 1) as u16,
            base: VirtAddr::from_ptr(gates),
        });
    }
}
