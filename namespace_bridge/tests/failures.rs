//! A load that fails leaves the namespace as it was: every call to the platform is made to fail once.
//!
//! One test in a process of its own: it installs a port that refuses its n-th request and otherwise is the hosted one.

use namespace_bridge::{CrateNamespace, LoadOptions, text_index::TEXT, types_registry::registered_types};
use runtime_port::{
    Platform,
    console::ConsolePort,
    hosted::HOSTED,
    memory::{MemoryError, MemoryPort, MemoryStatistics, PteFlags},
    random::RandomPort,
    task::TaskPort,
    time::ClockPort,
    trap::TrapPort,
    unwind::{UnwindError, UnwindPort},
};
use std::any::Any;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

struct Faulty;

static FAULTY: Faulty = Faulty;
/// Requests until one is refused; 0: none.
static COUNTDOWN: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);

fn refuse() -> bool {
    let refuse = COUNTDOWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) == Ok(1);
    REFUSED.fetch_add(refuse.into(), Ordering::Relaxed);
    refuse
}

impl Platform for Faulty {
    fn name(&self) -> &'static str {
        "hosted, with failures"
    }
    fn memory(&self) -> &dyn MemoryPort {
        self
    }
    fn traps(&self) -> &dyn TrapPort {
        HOSTED.traps()
    }
    fn unwinder(&self) -> &dyn UnwindPort {
        self
    }
    fn tasks(&self) -> &dyn TaskPort {
        HOSTED.tasks()
    }
    fn clock(&self) -> &dyn ClockPort {
        HOSTED.clock()
    }
    fn random(&self) -> &dyn RandomPort {
        HOSTED.random()
    }
    fn console(&self) -> &dyn ConsolePort {
        HOSTED.console()
    }
}

// SAFETY: everything that is not refused is the hosted port's doing.
unsafe impl MemoryPort for Faulty {
    fn reserve(&self, size: usize) -> Result<usize, MemoryError> {
        if refuse() { Err(MemoryError::OutOfAddressSpace(size)) } else { HOSTED.memory().reserve(size) }
    }
    unsafe fn release(&self, start: usize, size: usize) {
        // SAFETY: passed on.
        unsafe { HOSTED.memory().release(start, size) }
    }
    fn reserve_committed(&self, size: usize, committed: usize) -> Result<usize, MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(committed));
        }
        HOSTED.memory().reserve_committed(size, committed)
    }
    unsafe fn release_committed(&self, start: usize, size: usize, committed: usize) {
        // SAFETY: passed on.
        unsafe { HOSTED.memory().release_committed(start, size, committed) }
    }
    fn statistics(&self) -> MemoryStatistics {
        HOSTED.memory().statistics()
    }
    unsafe fn commit(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(size));
        }
        // SAFETY: passed on.
        unsafe { HOSTED.memory().commit(start, size, flags) }
    }
    unsafe fn decommit(&self, start: usize, size: usize) {
        // SAFETY: passed on.
        unsafe { HOSTED.memory().decommit(start, size) }
    }
    unsafe fn protect(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(size));
        }
        // SAFETY: passed on.
        unsafe { HOSTED.memory().protect(start, size, flags) }
    }
    fn create_frames(&self, content: &[&[u8]], size: usize) -> Result<u64, MemoryError> {
        if refuse() { Err(MemoryError::OutOfFrames(size)) } else { HOSTED.memory().create_frames(content, size) }
    }
    unsafe fn map_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(size));
        }
        // SAFETY: passed on.
        unsafe { HOSTED.memory().map_frames(start, frames, offset, size, flags) }
    }
    unsafe fn free_frames(&self, frames: u64, size: usize) {
        // SAFETY: passed on.
        unsafe { HOSTED.memory().free_frames(frames, size) }
    }
}

// SAFETY: everything that is not refused is the hosted port's doing.
unsafe impl UnwindPort for Faulty {
    unsafe fn register(
        &self,
        text: Range<usize>,
        eh_frame: Range<usize>,
        frame_pointers: bool,
    ) -> Result<u64, UnwindError> {
        if refuse() {
            return Err(UnwindError::OutOfMemory);
        }
        // SAFETY: passed on.
        unsafe { HOSTED.unwinder().register(text, eh_frame, frame_pointers) }
    }
    unsafe fn deregister(&self, handle: u64) {
        // SAFETY: passed on.
        unsafe { HOSTED.unwinder().deregister(handle) }
    }
    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: passed on.
        unsafe { HOSTED.unwinder().catch(f, data) }
    }
    fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        HOSTED.unwinder().resume(payload)
    }
}

/// Everything a load could leave behind.
fn state(ns: &CrateNamespace) -> (usize, usize, usize, usize, usize, usize, usize) {
    let memory = HOSTED.memory().statistics();
    let dependents = ns.get_crate("lib").map_or(0, |c| c.dependents().len());
    let unwind = runtime_port::unwind::registrations();
    let (cells, symbols) = (ns.crate_count(), ns.symbol_count());
    (cells, symbols, dependents, TEXT.len(), registered_types(), memory.reserved_bytes + memory.shared_bytes, unwind)
}

#[test]
fn a_load_that_fails_at_any_step_leaves_everything_as_it_was() {
    assert!(runtime_port::install(&FAULTY));
    let ns = CrateNamespace::new("test", None);
    let lib =
        wat::parse_str(r#"(module (memory (export "m") 1) (func (export "f") (result i32) i32.const 5))"#).unwrap();
    ns.load_wasm("lib", &lib, LoadOptions::default()).unwrap();
    ns.define("env", "host", |x: i32| x).unwrap();
    let ty = wasm_cell::types::FuncType::new([], []);
    extern "C-unwind" fn nothing() {}
    // SAFETY: `nothing` has this signature.
    unsafe { ns.define_native("env", "native", ty, nothing as *const () as usize) }.unwrap();
    let module = |n: u32| {
        wat::parse_str(format!(
            r#"(module (import "lib" "f" (func $f (result i32))) (import "lib" "m" (memory 1))
            (import "env" "host" (func $h (param i32) (result i32))) (import "env" "native" (func $n))
            (memory $own 2) (memory $wide i64 1) (table $t 3 funcref) (table (export "u") 2 8 funcref)
            (elem (table $t) (i32.const 0) func $f $h $n) (data (memory $own) (i32.const 0) "x")
            (func (export "run") (result i32) (call $h (i32.add (call $f) (i32.const {n})))))"#
        ))
        .unwrap()
    };
    // Things that stay once they are made: pools, thunk pages, the stub of the native function, the entries of `user`.
    for n in 0..3 {
        ns.load_wasm("user", &module(n), LoadOptions::default()).unwrap();
        ns.unload("user").unwrap();
    }
    let before = state(&ns);
    let mut failures = 0;
    for n in 1.. {
        let bytes = module(1000 + n);
        COUNTDOWN.store(n, Ordering::Relaxed);
        let refused = REFUSED.load(Ordering::Relaxed);
        let result = ns.load_wasm("user", &bytes, LoadOptions::default());
        COUNTDOWN.store(0, Ordering::Relaxed);
        match result {
            Err(error) => {
                failures += 1;
                assert!(error.to_string().contains("`user`"), "{error}");
                assert_eq!(state(&ns), before, "after request {n} was refused: {error}");
            }
            Ok(cell) => {
                assert_eq!(cell.typed_func::<(), i32>("run").unwrap().call(()).unwrap(), 5 + 1000 + n as i32);
                drop(cell);
                ns.unload("user").unwrap();
                if REFUSED.load(Ordering::Relaxed) == refused {
                    break;
                }
            }
        }
    }
    assert!(failures >= 5, "only {failures} steps were made to fail");
    // What was unloaded goes when no word on the stack looks like an address of it any more.
    for _ in 0..1000 {
        if namespace_bridge::reclaim() == 0 {
            break;
        }
        std::hint::black_box(&mut [0u64; 4096]);
    }
    assert_eq!(state(&ns), before);
}
