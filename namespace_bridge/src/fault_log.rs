//! What failed: one record per place and cause, counted, in a buffer of fixed size (Theseus: `fault_log`).
//!
//! The buffer is part of the program's data: recording allocates nothing, and what is in it can be read after everything
//! else has failed. Equal faults (the same code at the same place for the same reason) share a record; recording one again
//! is a short search and two stores. A new one copies names, so a record outlives its cell. When the places that a record can
//! take are full, the record that was counted last the longest ago goes; [`lost`] says how many have.

mod text;

use crate::code::LoadedCode;
use crate::trap::{locate, name_of};
use alloc::{string::String, vec::Vec};
use core::arch::x86_64::_rdtsc;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use runtime_port::{task, time::Instant};
use spin::Mutex;
use text::ShortText;
use wasm_cell::trap::TrapCode;

/// Number of records.
pub const CAPACITY: usize = 256;

/// Places that a record can take, from the one its hash gives.
const WINDOW: usize = 16;

/// Why a cell failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultType {
    /// It trapped, or was killed.
    Trap(TrapCode),
    /// A panic of native code crossed it.
    Panic,
}

/// What was done about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecoveryAction {
    /// The caller got its `Err`; nothing else.
    #[default]
    None,
    /// The cell is closed until nobody is inside, or until its time to restart.
    Poisoned,
    /// The cell got a fresh instance.
    Reset,
    /// Another cell took over its entries.
    Swapped,
    /// The cell is out of service.
    Quarantined,
    /// The recovery itself failed; the cell is out of service.
    Failed,
    /// Somebody else dealt with it and said so.
    Handled,
}

/// A record.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FaultEntry {
    /// What happened.
    pub fault_type: FaultType,
    /// Name of the cell; cut after 47 bytes.
    pub cell: String,
    /// Version of the cell.
    pub version: u32,
    /// Index of the function.
    pub function: Option<u32>,
    /// Name of the function; cut after 47 bytes. Empty when it has none.
    pub function_name: String,
    /// Offset of the instruction in the wasm module, in bytes.
    pub wasm_offset: Option<u32>,
    /// Address of the instruction, or return address of the call to the trap.
    pub instruction_pointer: usize,
    /// The task it happened in first.
    pub task: u64,
    /// When it happened first and last, in nanoseconds on the monotonic clock.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// How often.
    pub count: u64,
    /// What was done about it, most recently.
    pub action_taken: RecoveryAction,
}

/// A record's place, as long as the record is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FaultId {
    slot: usize,
    serial: u64,
    pc: usize,
}

/// What identifies a record, and its count. Read and counted without a lock: a record that is replaced at that very moment
/// may get one count too many. All of that is in one cache line.
#[repr(C, align(64))]
struct Slot {
    /// Serial number of the code; 0 when the slot is free.
    serial: AtomicU64,
    pc: AtomicUsize,
    kind: AtomicU32,
    count: AtomicU64,
    /// Time stamp counter at the last count.
    last: AtomicU64,
    detail: Mutex<Detail>,
}

struct Detail {
    cell: ShortText,
    version: u32,
    function: Option<u32>,
    function_name: ShortText,
    wasm_offset: Option<u32>,
    task: u64,
    first: u64,
    action: RecoveryAction,
}

static SLOTS: [Slot; CAPACITY] = [const { Slot::EMPTY }; CAPACITY];

/// Held by who changes which record a slot has, and by who reads them all.
static CHANGE: Mutex<Clock> = Mutex::new(Clock { stamp: 0, nanos: 0 });

static LOST: AtomicU64 = AtomicU64::new(0);

/// One moment on both clocks.
#[derive(Clone, Copy)]
struct Clock {
    stamp: u64,
    nanos: u64,
}

impl FaultType {
    fn number(self) -> u32 {
        match self {
            FaultType::Panic => 0,
            FaultType::Trap(code) => code as u32,
        }
    }

    fn of(number: u32) -> FaultType {
        TrapCode::from_u8(number as u8).map_or(FaultType::Panic, FaultType::Trap)
    }
}

impl fmt::Display for FaultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultType::Trap(code) => code.fmt(f),
            FaultType::Panic => f.write_str("panic"),
        }
    }
}

impl fmt::Display for RecoveryAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecoveryAction::None => "none",
            RecoveryAction::Poisoned => "poisoned",
            RecoveryAction::Reset => "reset",
            RecoveryAction::Swapped => "swapped",
            RecoveryAction::Quarantined => "quarantined",
            RecoveryAction::Failed => "recovery failed",
            RecoveryAction::Handled => "handled",
        })
    }
}

impl fmt::Display for FaultEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cell)?;
        match (self.function_name.is_empty(), self.function) {
            (false, _) => write!(f, "!{}", self.function_name)?,
            (true, Some(i)) => write!(f, "!wasm[{i}]")?,
            (true, None) => {}
        }
        write!(f, " (version {}): {}", self.version, self.fault_type)?;
        if let Some(offset) = self.wasm_offset {
            write!(f, " at wasm offset {offset:#x}")?;
        }
        write!(f, ", {} times, {}", self.count, self.action_taken)
    }
}

/// Every record, the one that was counted last at the end.
pub fn entries() -> Vec<FaultEntry> {
    let mut all: Vec<FaultEntry> = {
        let clock = CHANGE.lock();
        let now = clock_now();
        SLOTS.iter().filter_map(|s| s.entry(*clock, now)).collect()
    };
    all.sort_by_key(|e| (e.last, e.first));
    all
}

/// The record that was counted last (Theseus: `get_last_entry`).
pub fn get_last_entry() -> Option<FaultEntry> {
    entries().pop()
}

/// Forgets every record. Returns how many there were.
pub fn clear() -> usize {
    take(|_| true).len()
}

/// Takes the records of faults that nothing was done about (Theseus: `remove_unhandled_exceptions`).
pub fn remove_unhandled_exceptions() -> Vec<FaultEntry> {
    take(|e| e.action_taken == RecoveryAction::None)
}

/// Notes that somebody has dealt with the faults of a cell so far (Theseus: `log_handled_fault`). Returns with how many records.
pub fn log_handled_fault(cell: &str) -> usize {
    let _change = CHANGE.lock();
    let of_cell =
        |s: &&Slot| s.serial.load(Relaxed) != 0 && s.detail.lock().cell.as_str() == ShortText::new(cell).as_str();
    SLOTS.iter().filter(of_cell).map(|s| s.detail.lock().action = RecoveryAction::Handled).count()
}

/// Number of records that had to go because there was no place left.
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Takes what `wanted` says.
fn take(wanted: impl Fn(&FaultEntry) -> bool) -> Vec<FaultEntry> {
    let mut taken = Vec::new();
    let clock = CHANGE.lock();
    let now = clock_now();
    for slot in &SLOTS {
        if let Some(entry) = slot.entry(*clock, now).filter(|e| wanted(e)) {
            slot.serial.store(0, Relaxed);
            taken.push(entry);
        }
    }
    taken
}

/// Records a fault (Theseus: `log_exception`).
#[inline]
pub(crate) fn log_exception(code: &LoadedCode, pc: usize, exact: bool, fault: FaultType) -> FaultId {
    let (serial, kind) = (code.serial(), fault.number());
    for at in window(serial, pc) {
        let Some(slot) = SLOTS.get(at) else { continue };
        if slot.is(serial, pc, kind) {
            slot.count_one();
            return FaultId { slot: at, serial, pc };
        }
    }
    log_first(code, pc, exact, kind)
}

/// Notes what was done about a fault, if its record is still there.
pub(crate) fn set_action(id: FaultId, action: RecoveryAction) {
    let _change = CHANGE.lock();
    if let Some(slot) = SLOTS.get(id.slot)
        && slot.serial.load(Relaxed) == id.serial
        && slot.pc.load(Relaxed) == id.pc
    {
        slot.detail.lock().action = action;
    }
}

/// What a record says happened, if it is still there.
pub(crate) fn fault_of(id: FaultId) -> Option<FaultType> {
    let slot = SLOTS.get(id.slot).filter(|s| s.serial.load(Relaxed) == id.serial && s.pc.load(Relaxed) == id.pc)?;
    Some(FaultType::of(slot.kind.load(Relaxed)))
}

/// The slots that a record can be in.
#[inline(always)]
fn window(serial: u64, pc: usize) -> impl Iterator<Item = usize> {
    let hash = (pc as u64 ^ serial.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (0..WINDOW).map(move |i| (hash as usize + i) % CAPACITY)
}

/// The first of its kind.
#[cold]
fn log_first(code: &LoadedCode, pc: usize, exact: bool, kind: u32) -> FaultId {
    let serial = code.serial();
    let mut clock = CHANGE.lock();
    let now = clock_now();
    if clock.stamp == 0 {
        *clock = now;
    }
    let mut place = None;
    for at in window(serial, pc) {
        let Some(slot) = SLOTS.get(at) else { continue };
        if slot.is(serial, pc, kind) {
            // Another task was faster.
            slot.count_one();
            return FaultId { slot: at, serial, pc };
        }
        // A free one is the oldest.
        let age = if slot.serial.load(Relaxed) == 0 { 0 } else { slot.last.load(Relaxed) };
        if place.is_none_or(|(_, oldest)| age < oldest) {
            place = Some((at, age));
        }
    }
    let (at, age) = place.unwrap_or_default();
    if let Some(slot) = SLOTS.get(at) {
        if age != 0 {
            LOST.fetch_add(1, Relaxed);
        }
        slot.serial.store(0, Relaxed);
        *slot.detail.lock() = Detail::new(code, pc, exact, now.nanos);
        slot.pc.store(pc, Relaxed);
        slot.kind.store(kind, Relaxed);
        slot.count.store(1, Relaxed);
        slot.last.store(now.stamp, Relaxed);
        slot.serial.store(serial, core::sync::atomic::Ordering::Release);
    }
    FaultId { slot: at, serial, pc }
}

/// The time stamp counter: cheaper than the port's clock, and constant in rate on the processors this runs on.
#[inline(always)]
fn stamp() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { _rdtsc() }
}

fn clock_now() -> Clock {
    Clock { stamp: stamp(), nanos: Instant::now().as_nanos() }
}

/// The nanoseconds of a stamp, from two moments on both clocks.
fn nanos_of(at: u64, from: Clock, to: Clock) -> u64 {
    let ticks = u128::from(to.stamp.saturating_sub(from.stamp)).max(1);
    let nanos = u128::from(to.nanos.saturating_sub(from.nanos));
    let before = u128::from(to.stamp.saturating_sub(at)) * nanos / ticks;
    to.nanos.saturating_sub(before as u64)
}

impl Slot {
    #[expect(clippy::declare_interior_mutable_const, reason = "initial value of each slot, never used as a place")]
    const EMPTY: Slot = Slot {
        serial: AtomicU64::new(0),
        pc: AtomicUsize::new(0),
        kind: AtomicU32::new(0),
        count: AtomicU64::new(0),
        last: AtomicU64::new(0),
        detail: Mutex::new(Detail::EMPTY),
    };

    #[inline(always)]
    fn is(&self, serial: u64, pc: usize, kind: u32) -> bool {
        self.pc.load(Relaxed) == pc && self.serial.load(Relaxed) == serial && self.kind.load(Relaxed) == kind
    }

    #[inline(always)]
    fn count_one(&self) {
        self.count.fetch_add(1, Relaxed);
        self.last.store(stamp(), Relaxed);
    }

    fn entry(&self, from: Clock, to: Clock) -> Option<FaultEntry> {
        if self.serial.load(core::sync::atomic::Ordering::Acquire) == 0 {
            return None;
        }
        let detail = self.detail.lock();
        Some(FaultEntry {
            fault_type: FaultType::of(self.kind.load(Relaxed)),
            cell: detail.cell.as_str().into(),
            version: detail.version,
            function: detail.function,
            function_name: detail.function_name.as_str().into(),
            wasm_offset: detail.wasm_offset,
            instruction_pointer: self.pc.load(Relaxed),
            task: detail.task,
            first: detail.first,
            last: nanos_of(self.last.load(Relaxed), from, to).max(detail.first),
            count: self.count.load(Relaxed),
            action_taken: detail.action,
        })
    }
}

impl Detail {
    const EMPTY: Detail = Detail {
        cell: ShortText::EMPTY,
        version: 0,
        function: None,
        function_name: ShortText::EMPTY,
        wasm_offset: None,
        task: 0,
        first: 0,
        action: RecoveryAction::None,
    };

    fn new(code: &LoadedCode, pc: usize, exact: bool, first: u64) -> Detail {
        let metadata = code.metadata();
        let offset = pc.checked_sub(code.text().start).and_then(|o| u32::try_from(o).ok());
        let (function, wasm_offset) = offset.map_or((None, None), |o| locate(metadata, o, exact));
        Detail {
            cell: ShortText::new(code.cell()),
            version: code.version(),
            function,
            function_name: ShortText::new(function.and_then(|f| name_of(metadata, f)).unwrap_or("")),
            wasm_offset,
            task: task::current().id.get(),
            first,
            action: RecoveryAction::None,
        }
    }
}
