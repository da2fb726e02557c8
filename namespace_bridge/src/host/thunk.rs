//! Thunks: the code address by which one importer calls one host function.
//!
//! A thunk is 32 bytes of code, `[type id] mov r11, [rip + 4096 - …]; jmp [rip + 4096 - …]`, that take environment and target from
//! a record in the data page behind. So the code page is written once, before it becomes executable, and handing out a thunk is two
//! stores. All thunks of a code page have one type id, which makes them function references of that type.

use super::HostFunc;
use super::trampoline::{Environment, routine};
use crate::call::gone_routine;
use crate::instance::InstanceRecord;
use crate::retire::{Retirement, retire};
use crate::types_registry::TypeShares;
use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hashbrown::HashMap;
use kernel_config::cell::{ENTRY_CODE_OFFSET, ENTRY_SIZE};
use kernel_config::memory::PAGE_SIZE;
use runtime_port::memory::{AllocatedPages, MappedPages, MemoryError, PteFlags};
use spin::Mutex;
use wasm_cell::types::TypeId;

/// Thunks of one page.
const PER_PAGE: usize = PAGE_SIZE / ENTRY_SIZE;

/// Why no thunk could be made.
pub type ThunkError = MemoryError;

/// A code page and the records of its thunks.
struct ThunkPage {
    code: MappedPages,
    records: MappedPages,
    free: Mutex<Vec<u16>>,
}

/// What the code of a thunk reads.
#[repr(C)]
struct Record {
    environment: AtomicUsize,
    target: AtomicUsize,
    unused: [usize; 2],
}

const _: () = assert!(size_of::<Record>() == ENTRY_SIZE);

/// Pages with a free thunk, by type.
static POOL: Mutex<Option<HashMap<TypeId, Vec<Arc<ThunkPage>>>>> = Mutex::new(None);

/// A host function's code address for one importer. When dropped the address is reused, unless it has escaped: then it traps
/// for ever.
pub struct Thunk {
    page: Arc<ThunkPage>,
    id: TypeId,
    index: u16,
    escaped: AtomicBool,
    /// Keeps the id what it is.
    types: TypeShares,
    /// Taken only when dropped.
    environment: ManuallyDrop<Box<Environment>>,
}

/// What calls that are inside still use.
struct Used(#[expect(dead_code, reason = "held, not read")] Box<Environment>);

// SAFETY: as for `Thunk`.
unsafe impl Send for Used {}
// SAFETY: as for `Thunk`.
unsafe impl Sync for Used {}

// SAFETY: the environment's body is `Send + Sync`; its importer is only handed out as a shared reference.
unsafe impl Send for Thunk {}
// SAFETY: as above.
unsafe impl Sync for Thunk {}

impl Thunk {
    /// Makes a thunk for `func`, to be called by `importer` (null: by nobody in particular). `id` is the registered id of
    /// its type.
    ///
    /// # Safety
    /// `importer` must stay valid while the thunk may be called; a thunk that its importer's record owns is.
    pub unsafe fn new(func: &HostFunc, id: TypeId, importer: *const InstanceRecord) -> Result<Thunk, ThunkError> {
        // First what may fail for want of memory: a place that was taken must not be lost.
        let environment = Box::new(Environment { pop: func.stack_bytes(), body: func.body().clone(), importer });
        let (escaped, types) = (AtomicBool::new(false), TypeShares::again(id));
        let (page, index) = take(id)?;
        page.set(index, &*environment as *const Environment as usize, routine(environment.pop));
        Ok(Thunk { page, id, index, escaped, types, environment: ManuallyDrop::new(environment) })
    }

    /// Notes that the address may be held where no dependency edge shows it: it never becomes another function's.
    pub(crate) fn mark_escaped(&self) {
        self.escaped.store(true, Ordering::Relaxed);
    }

    /// Makes every later call trap. Calls that are inside go on: the environment stays.
    pub(crate) fn close(&self) {
        self.page.set_target(self.index, gone_routine());
    }

    /// Addresses of what calls that are inside use: the trampoline keeps the address in its frame.
    pub(crate) fn environment(&self) -> Range<usize> {
        range_of(&self.environment)
    }

    /// Its code address, with the type id 4 bytes before it.
    pub fn address(&self) -> usize {
        self.page.code.start_address().value() + usize::from(self.index) * ENTRY_SIZE + ENTRY_CODE_OFFSET
    }
}

impl Drop for Thunk {
    fn drop(&mut self) {
        // A call by an address that is still held traps.
        self.page.set(self.index, 0, gone_routine());
        // SAFETY: taken once, here.
        let environment = unsafe { ManuallyDrop::take(&mut self.environment) };
        if *self.escaped.get_mut() {
            // Who calls by such an address need not hold anything that keeps the thunk.
            let (name, bytes) = ("a host function".into(), size_of::<Environment>());
            let ranges = vec![range_of(&environment)];
            retire(Retirement {
                name,
                version: 0,
                bytes,
                ranges,
                shows_in_frames: true,
                what: Arc::new(Used(environment)),
            });
            // The place is not free, its page stays, and the type id in it must not come to stand for another type: 64
            // bytes for every thunk that escaped.
            core::mem::forget(self.page.clone());
            core::mem::forget(core::mem::take(&mut self.types));
            return;
        }
        let mut free = self.page.free.lock();
        free.push(self.index);
        let count = free.len();
        drop(free);
        let mut pool = POOL.lock();
        let Some(pages) = pool.as_mut().and_then(|p| p.get_mut(&self.id)) else { return };
        if count == PER_PAGE && pages.len() > 1 {
            // Keep one page of each type; what is over goes back.
            pages.retain(|p| !Arc::ptr_eq(p, &self.page));
        }
    }
}

impl fmt::Debug for Thunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thunk({:#x}, importer {:p})", self.address(), self.environment.importer)
    }
}

fn range_of(environment: &Environment) -> Range<usize> {
    let start = core::ptr::from_ref(environment) as usize;
    start..start + size_of::<Environment>()
}

/// Takes a free thunk of a page with this type id, or makes a page.
fn take(id: TypeId) -> Result<(Arc<ThunkPage>, u16), ThunkError> {
    let mut pool = POOL.lock();
    let pages = pool.get_or_insert_with(HashMap::new).entry(id).or_default();
    for page in pages.iter().rev() {
        if let Some(index) = page.free.lock().pop() {
            return Ok((page.clone(), index));
        }
    }
    let page = Arc::new(ThunkPage::new(id)?);
    let index = page.free.lock().pop();
    pages.push(page.clone());
    index.map(|i| (page, i)).ok_or(MemoryError::OutOfFrames(PAGE_SIZE))
}

impl ThunkPage {
    fn new(id: TypeId) -> Result<ThunkPage, ThunkError> {
        let (low, high) = AllocatedPages::reserve_for_code(2 * PAGE_SIZE)?.split(PAGE_SIZE).map_err(|(e, _)| e)?;
        let mut code = MappedPages::map(low, PteFlags::VALID | PteFlags::WRITABLE)?;
        for thunk in code.as_slice_mut::<u8>(0, PAGE_SIZE)?.chunks_exact_mut(ENTRY_SIZE) {
            thunk.copy_from_slice(&thunk_code(id));
        }
        code.remap(PteFlags::VALID | PteFlags::EXECUTABLE)?;
        let records = MappedPages::map(high, PteFlags::VALID | PteFlags::WRITABLE)?;
        let page = ThunkPage { code, records, free: Mutex::new((0..PER_PAGE as u16).rev().collect()) };
        (0..PER_PAGE as u16).for_each(|i| page.set(i, 0, gone_routine()));
        Ok(page)
    }

    fn record(&self, index: u16) -> &Record {
        let at = self.records.start_address().value() + usize::from(index) * ENTRY_SIZE;
        // SAFETY: a record of this page, which is mapped writable while `self` lives and only used as atomics.
        unsafe { &*(at as *const Record) }
    }

    fn set_target(&self, index: u16, target: usize) {
        self.record(index).target.store(target, Ordering::Release);
    }

    fn set(&self, index: u16, environment: usize, target: usize) {
        self.set_target(index, target);
        self.record(index).environment.store(environment, Ordering::Release);
    }
}

/// The code of a thunk; the same for every thunk of a page.
fn thunk_code(id: TypeId) -> [u8; ENTRY_SIZE] {
    let mut code = [0xcc; ENTRY_SIZE];
    let id_at = ENTRY_CODE_OFFSET - 4;
    // From the end of each instruction to this thunk's record, one page on.
    let to_record = |end: usize, field: usize| ((PAGE_SIZE + field - ENTRY_CODE_OFFSET - end) as u32).to_le_bytes();
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in code.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(id_at, &id.0.to_le_bytes());
    // mov r11, [rip + environment]
    put(ENTRY_CODE_OFFSET, &[0x4c, 0x8b, 0x1d]);
    put(ENTRY_CODE_OFFSET + 3, &to_record(7, 0));
    // jmp [rip + target]
    put(ENTRY_CODE_OFFSET + 7, &[0xff, 0x25]);
    put(ENTRY_CODE_OFFSET + 9, &to_record(13, 8));
    code
}
