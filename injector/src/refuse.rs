//! A port that refuses one request, and the kind of fault that is made with it: every request to the platform that the
//! [lives](crate::life) of cells make is refused once.
//!
//! [`install`] puts it in front of the real port, before anybody asks for the platform.

use crate::life::{self, Known};
use crate::verdict::Verdict;
use crate::world::{SetupError, World};
use alloc::{boxed::Box, vec::Vec};
use core::any::Any;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use runtime_port::{
    Platform,
    backtrace::SymbolSource,
    console::ConsolePort,
    fs::DirRef,
    heap::HeapStatistics,
    memory::{MemoryError, MemoryPort, MemoryStatistics, PteFlags},
    random::RandomPort,
    task::TaskPort,
    time::ClockPort,
    trap::TrapPort,
    unwind::{UnwindError, UnwindPort},
};
use spin::Once;

/// The port in front of another.
struct Refusing {
    port: Once<&'static dyn Platform>,
}

static REFUSING: Refusing = Refusing { port: Once::new() };

/// Requests until one is refused; 0: none.
static COUNTDOWN: AtomicU32 = AtomicU32::new(0);

/// Requests made.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

/// Whether the next request is to be refused.
fn refuse() -> bool {
    REQUESTS.fetch_add(1, Relaxed);
    COUNTDOWN.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)) == Ok(1)
}

/// Installs a port that can refuse requests in front of `port`. `false` when a port is installed already.
pub fn install(port: &'static dyn Platform) -> bool {
    REFUSING.port.call_once(|| port);
    runtime_port::install(&REFUSING)
}

/// Whether it is installed.
pub fn is_installed() -> bool {
    core::ptr::addr_eq(runtime_port::platform(), &REFUSING)
}

impl Refusing {
    fn inner(&self) -> &'static dyn Platform {
        *self.port.get().expect("it is installed together with the port behind it")
    }
}

impl Platform for Refusing {
    fn name(&self) -> &'static str {
        self.inner().name()
    }
    fn memory(&self) -> &dyn MemoryPort {
        self
    }
    fn traps(&self) -> &dyn TrapPort {
        self.inner().traps()
    }
    fn unwinder(&self) -> &dyn UnwindPort {
        self
    }
    fn tasks(&self) -> &dyn TaskPort {
        self.inner().tasks()
    }
    fn clock(&self) -> &dyn ClockPort {
        self.inner().clock()
    }
    fn random(&self) -> &dyn RandomPort {
        self.inner().random()
    }
    fn console(&self) -> &dyn ConsolePort {
        self.inner().console()
    }
    fn files(&self) -> Option<DirRef> {
        self.inner().files()
    }
    fn symbols(&self) -> Option<&dyn SymbolSource> {
        self.inner().symbols()
    }
    fn heap_statistics(&self) -> Option<HeapStatistics> {
        self.inner().heap_statistics()
    }
    fn disable_interrupts(&self) -> bool {
        self.inner().disable_interrupts()
    }
    fn restore_interrupts(&self, were_on: bool) {
        self.inner().restore_interrupts(were_on);
    }
}

// SAFETY: everything that is not refused is the doing of the port behind it. It is left no images to keep (`keep_image`), so that a life
// makes the same requests whatever went before.
#[expect(unsafe_code, reason = "a port is unsafe to implement")]
unsafe impl MemoryPort for Refusing {
    fn reserve(&self, size: usize) -> Result<usize, MemoryError> {
        if refuse() { Err(MemoryError::OutOfAddressSpace(size)) } else { self.inner().memory().reserve(size) }
    }
    fn reserve_for_code(&self, size: usize) -> Result<usize, MemoryError> {
        if refuse() { Err(MemoryError::OutOfCodeSpace(size)) } else { self.inner().memory().reserve_for_code(size) }
    }
    fn reserve_low(&self, size: usize) -> Result<usize, MemoryError> {
        if refuse() { Err(MemoryError::OutOfAddressSpace(size)) } else { self.inner().memory().reserve_low(size) }
    }
    unsafe fn release(&self, start: usize, size: usize) {
        // SAFETY: passed on.
        unsafe { self.inner().memory().release(start, size) }
    }
    fn reserve_committed(&self, size: usize, committed: usize) -> Result<usize, MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(committed));
        }
        self.inner().memory().reserve_committed(size, committed)
    }
    unsafe fn release_committed(&self, start: usize, size: usize, committed: usize) {
        // SAFETY: passed on.
        unsafe { self.inner().memory().release_committed(start, size, committed) }
    }
    fn statistics(&self) -> MemoryStatistics {
        self.inner().memory().statistics()
    }
    unsafe fn commit(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(size));
        }
        // SAFETY: passed on.
        unsafe { self.inner().memory().commit(start, size, flags) }
    }
    unsafe fn decommit(&self, start: usize, size: usize) {
        // SAFETY: passed on.
        unsafe { self.inner().memory().decommit(start, size) }
    }
    unsafe fn protect(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        if refuse() {
            return Err(MemoryError::OutOfFrames(size));
        }
        // SAFETY: passed on.
        unsafe { self.inner().memory().protect(start, size, flags) }
    }
    fn create_frames(&self, content: &[&[u8]], size: usize) -> Result<u64, MemoryError> {
        if refuse() { Err(MemoryError::OutOfFrames(size)) } else { self.inner().memory().create_frames(content, size) }
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
        unsafe { self.inner().memory().map_frames(start, frames, offset, size, flags) }
    }
    unsafe fn replace_frames(
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
        unsafe { self.inner().memory().replace_frames(start, frames, offset, size, flags) }
    }
    unsafe fn free_frames(&self, frames: u64, size: usize) {
        // SAFETY: passed on.
        unsafe { self.inner().memory().free_frames(frames, size) }
    }
}

// SAFETY: everything that is not refused is the doing of the port behind it.
#[expect(unsafe_code, reason = "a port is unsafe to implement")]
unsafe impl UnwindPort for Refusing {
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
        unsafe { self.inner().unwinder().register(text, eh_frame, frame_pointers) }
    }
    unsafe fn deregister(&self, handle: u64) {
        // SAFETY: passed on.
        unsafe { self.inner().unwinder().deregister(handle) }
    }
    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: passed on.
        unsafe { self.inner().unwinder().catch(f, data) }
    }
    fn covers(&self, pc: usize) -> bool {
        self.inner().unwinder().covers(pc)
    }

    fn is_clear(&self, up_to: usize) -> bool {
        self.inner().unwinder().is_clear(up_to)
    }
    fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        self.inner().unwinder().resume(payload)
    }
}

/// Refuses the `n`-th request while `f` runs (0: none). Returns how many were made.
fn refusing(n: u64, f: &mut dyn FnMut()) -> u64 {
    let before = REQUESTS.load(Relaxed);
    COUNTDOWN.store(n as u32, Relaxed);
    f();
    COUNTDOWN.store(0, Relaxed);
    REQUESTS.load(Relaxed).wrapping_sub(before).into()
}

/// The state between faults of this kind: how many requests each life makes when none is refused.
#[derive(Debug)]
pub struct Refusals {
    known: Vec<Known>,
}

impl Refusals {
    /// Counts the requests.
    pub fn new(world: &World) -> Result<Refusals, SetupError> {
        if !is_installed() {
            return Err(SetupError("the port that refuses requests is not installed".into()));
        }
        Ok(Refusals { known: life::count(world, refusing).map_err(SetupError)? })
    }

    /// Number of requests that can be refused: that many faults in a row refuse each of them once.
    pub fn total(&self) -> u64 {
        life::total(&self.known)
    }

    /// Refuses one request of the lives, and looks at what that did.
    pub fn inject(&self, world: &mut World, number: u64) -> Verdict {
        life::inject(world, &self.known, number, "request", refusing)
    }
}
