//! Attaching the process's main thread, whose stack grows on demand. Not a libtest program: its tests run on threads.

use core::sync::atomic::{AtomicUsize, Ordering};
use kernel_config::task::YELLOW_ZONE;
use runtime_port::trap::{ExceptionAction, ExceptionContext};
use runtime_port::{memory, platform, task};

static CODE: AtomicUsize = AtomicUsize::new(0);
static FAULT: AtomicUsize = AtomicUsize::new(0);

/// Skips `mov rax, [rdi]` in the code below.
fn skip(context: &mut ExceptionContext) -> ExceptionAction {
    if context.rip != CODE.load(Ordering::Relaxed) {
        return ExceptionAction::NotMine;
    }
    FAULT.store(context.fault_address.unwrap_or(0), Ordering::Relaxed);
    context.rip += 3;
    ExceptionAction::Resume
}

fn main() {
    let locals = platform().tasks().attach().expect("the main thread attaches");
    let (limit, top, here) = (locals.stack_limit.get(), locals.stack_top.get(), task::stack_pointer());
    assert!(limit < here && here < top, "{limit:#x} {here:#x} {top:#x}");
    println!("main stack: {} KiB usable", (here - limit) >> 10);

    let mut code = memory::create_mapping(4096, memory::PteFlags::WRITABLE).expect("a page");
    code.as_slice_mut::<u8>(0, 4).expect("in range").copy_from_slice(&[0x48, 0x8b, 0x07, 0xc3]);
    code.remap(memory::PteFlags::EXECUTABLE).expect("executable");
    CODE.store(code.start_address().value(), Ordering::Relaxed);
    platform().traps().install_handler(skip).expect("a place for a handler");
    // SAFETY: the code loads from its argument and returns; a fault in it is skipped by the handler.
    let load: extern "C" fn(usize) -> usize = unsafe { core::mem::transmute(code.start_address().value()) };
    for _ in 0..1000 {
        for address in [limit - 8, limit - YELLOW_ZONE] {
            FAULT.store(0, Ordering::Relaxed);
            load(address);
            assert_eq!(FAULT.load(Ordering::Relaxed), address, "the yellow zone faults");
        }
    }
    FAULT.store(0, Ordering::Relaxed);
    load(limit);
    assert_eq!(FAULT.load(Ordering::Relaxed), 0, "the limit itself is stack");
    // All of the stack above the limit can be used, and native code may go on below it.
    assert!(use_stack(task::stack_pointer() - limit - 64 * 1024) > 0);
    assert!(use_stack(task::stack_pointer() - limit + YELLOW_ZONE / 2) > 0);
    platform().tasks().attach().expect("attaches again");
    load(limit - 8);
    assert_eq!(FAULT.load(Ordering::Relaxed), limit - 8, "the zone is closed again");
    println!("main thread: ok");
}

#[inline(never)]
fn use_stack(bytes: usize) -> usize {
    let block = core::hint::black_box([1u8; 4096]);
    let below = if bytes > 8192 { use_stack(bytes - 4096 - 64) } else { 0 };
    below + usize::from(core::hint::black_box(&block)[7])
}
