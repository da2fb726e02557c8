//! Segments, task state and interrupt gates.
//!
//! Every exception runs on a stack of its own (SDM vol. 3, 6.14.5): a fault on an exhausted stack can be handled, and the
//! red zone of interrupted code stays whole. Double faults, NMIs and machine checks can come while another exception is
//! handled, so each has one to itself.

use crate::{boot::GuardedStack, exceptions};
use kernel_config::{bare_metal::INTERRUPT_VECTOR, task::ALTERNATE_STACK};
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

/// Vectors that have a gate: the processor's exceptions, and the interrupt of a task.
pub const VECTORS: usize = INTERRUPT_VECTOR as usize + 1;

/// Stacks for exceptions, by their number in the task state less one.
pub static mut EXCEPTION_STACKS: [GuardedStack<ALTERNATE_STACK>; 4] = [const { GuardedStack::new() }; 4];

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

static mut TASK_STATE: TaskStateSegment = TaskStateSegment::new();
static mut SEGMENTS: GlobalDescriptorTable = GlobalDescriptorTable::new();
static mut GATES: [Gate; VECTORS] = [Gate::ABSENT; VECTORS];

/// Index of the exception stack for a vector, counted from 1.
fn stack_of(vector: usize) -> u8 {
    match vector {
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
    // SAFETY: called once and alone, so these are the only references to the statics; they are never written again, but
    // for the busy bit that the processor sets.
    unsafe {
        let task_state = &mut *(&raw mut TASK_STATE);
        let mut tops = [VirtAddr::zero(); 7];
        for (top, stack) in tops.iter_mut().zip(&*(&raw const EXCEPTION_STACKS)) {
            *top = VirtAddr::from_ptr(core::ptr::from_ref(stack).add(1));
        }
        task_state.interrupt_stack_table = tops; // a packed structure: no references into it
        let segments = &mut *(&raw mut SEGMENTS);
        let code = segments.append(Descriptor::kernel_code_segment());
        let data = segments.append(Descriptor::kernel_data_segment());
        let state = segments.append(Descriptor::tss_segment(&*(&raw const TASK_STATE)));
        let segments = &*(&raw const SEGMENTS);
        segments.load();
        CS::set_reg(code);
        SS::set_reg(data);
        load_tss(state);
        let gates = &mut *(&raw mut GATES);
        for (vector, gate) in gates.iter_mut().enumerate() {
            *gate = Gate::new(exceptions::entry(vector), code, stack_of(vector));
        }
        lidt(&DescriptorTablePointer {
            limit: (size_of::<[Gate; VECTORS]>() - 1) as u16,
            base: VirtAddr::from_ptr(&raw const GATES),
        });
    }
}
