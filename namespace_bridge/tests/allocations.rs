//! The way of a trap to its catch allocates nothing: neither in exception context nor behind it.

use namespace_bridge::{CrateNamespace, LoadOptions, Trap, kill_task};
use runtime_port::task;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wasm_cell::trap::TrapCode;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the calls of each thread.
struct Counting;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller.
        unsafe { System.dealloc(p, layout) }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A branch, a guard page, an invalid opcode, a null reference, a stack without an end, a gate that is left; all below some frames.
const TRAPS: &str = r#"(module (memory 1) (table 1 funcref) (type $t (func)) (global $n (mut i32) (i32.const 0))
    (func $unreachable unreachable)
    (func $bounds (drop (i32.load (i32.const -1))))
    (func $convert (drop (i32.trunc_f32_s (f32.load (i32.const 0)))))
    (func $null (call_indirect (type $t) (i32.const 0)))
    (func $divide (drop (i32.div_u (i32.const 1) (global.get $n))))
    (func $fill (memory.fill (i32.const 65000) (i32.const 0) (i32.const 1000)))
    (func $deep (call $deep) (call $deep))
    (func (export "unreachable") (call $unreachable) (nop))
    (func (export "bounds") (call $bounds))
    (func (export "convert") (call $convert))
    (func (export "null") (call $null))
    (func (export "divide") (call $divide))
    (func (export "fill") (call $fill))
    (func (export "deep") (call $deep))
    (func (export "loop") (loop (br 0)))
    (data (i32.const 0) "\00\00\c0\7f"))"#;

#[test]
fn a_trap_on_its_way_to_the_catch_allocates_nothing() {
    let ns = CrateNamespace::new("allocations", None);
    let cell = ns.load_wasm("traps", &wat::parse_str(TRAPS).unwrap(), LoadOptions::default()).unwrap();
    let me = task::current().id.get();
    for (name, code) in [
        ("unreachable", TrapCode::Unreachable),
        ("bounds", TrapCode::MemoryOutOfBounds),
        ("convert", TrapCode::BadConversionToInteger),
        ("null", TrapCode::IndirectCallToNull),
        ("divide", TrapCode::IntegerDivisionByZero),
        ("fill", TrapCode::MemoryOutOfBounds),
        ("deep", TrapCode::StackOverflow),
    ] {
        let function = cell.typed_func::<(), ()>(name).unwrap();
        let fails = || -> Trap { function.call(()).unwrap_err() };
        // What is made once: the record of the fault.
        drop(fails());
        let before = ALLOCATIONS.get();
        for _ in 0..100 {
            let trap = fails();
            assert_eq!(trap.code(), code, "{name}");
            assert!(trap.depth() > 1);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{name}");
    }
    // A kill: of the call that comes next, and of a loop by an interrupt that finds it anywhere.
    let endless = cell.typed_func::<(), ()>("loop").unwrap();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(2));
                kill_task(me).unwrap();
            });
            let before = ALLOCATIONS.get();
            let trap = endless.call(()).unwrap_err();
            assert_eq!((trap.code(), ALLOCATIONS.get() - before), (TrapCode::Killed, 0));
            killer.join().unwrap();
        });
    }
}
