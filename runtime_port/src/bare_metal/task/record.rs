//! The record of a task.

use super::super::{
    context::{Registers, VectorState},
    memory::BareMemory,
};
use crate::{
    memory::{MemoryPort, PteFlags},
    task::{LOCAL_SLOTS, TaskError, TaskLocals, stack_pointer},
};
use alloc::{alloc::alloc, boxed::Box, format, string::String};
use core::{
    alloc::Layout,
    cell::{Cell, UnsafeCell},
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU32},
};
use kernel_config::{
    bare_metal::PRIORITIES,
    memory::PAGE_SIZE,
    task::{OVERFLOW_RESERVE, RED_RESERVE, YELLOW_ZONE},
};

/// How urgent a task is: a ready task of a higher priority runs before all of lower ones, those of one priority take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Runs when nothing else does.
    pub const LOWEST: Priority = Priority(0);
    /// That of the boot task.
    pub const NORMAL: Priority = Priority(PRIORITIES as u8 / 2);
    /// Runs before everything else.
    pub const HIGHEST: Priority = Priority(PRIORITIES as u8 - 1);

    /// A priority from 0 (lowest) to `PRIORITIES - 1`; `None` beyond.
    pub const fn new(number: u8) -> Option<Priority> {
        if (number as usize) < PRIORITIES { Some(Priority(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// The processor is on it.
    Running,
    /// It waits for the processor.
    Ready,
    /// It waits for something else.
    Blocked,
    /// It has ended; its record goes away as soon as its stack is left.
    Ended,
}

/// Name of a task, cut to 31 bytes: reports read it where nothing can be allocated.
#[derive(Clone, Copy)]
pub(super) struct TaskName {
    bytes: [u8; Self::LEN],
    used: u8,
}

impl TaskName {
    const LEN: usize = 31;

    pub(super) const fn new(name: &str) -> Self {
        let (mut bytes, from) = ([0; Self::LEN], name.as_bytes());
        let mut used = if from.len() < Self::LEN { from.len() } else { Self::LEN };
        while used < from.len() && !name.is_char_boundary(used) {
            used -= 1;
        }
        let mut i = 0;
        while i < used {
            bytes[i] = from[i];
            i += 1;
        }
        Self { bytes, used: used as u8 }
    }

    pub(super) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.used)]).unwrap_or("?")
    }
}

/// Why a blocked task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    ByOthers,
    ByTimeout,
}

/// A task's record.
///
/// `locals`, `zone_closed` and `overflow_closed` belong to the task and to handlers that interrupted it. `context` and `vectors` hold its processor
/// state while it does not run. The cells behind them belong to the scheduler's lock.
pub(super) struct TaskRecord {
    pub(super) locals: TaskLocals,
    pub(super) context: UnsafeCell<Registers>,
    pub(super) vectors: UnsafeCell<VectorState>,
    pub(super) name: TaskName,
    /// Lowest address of the stack; 0 while it is unknown.
    pub(super) stack_bottom: Cell<usize>,
    /// Whether the yellow zone is inaccessible.
    pub(super) zone_closed: Cell<bool>,
    /// Whether the lowest part of the stack is inaccessible.
    overflow_closed: Cell<bool>,
    /// Somebody wants the task's handlers to run.
    pub(super) interrupted: AtomicBool,
    /// Ticks after which what it does in wasm is stopped; 0: no such limit. Belongs to the task and to the timer's handler.
    pub(super) limit: AtomicU32,

    pub(super) state: Cell<TaskState>,
    /// How urgent it is now, and how urgent its owner wants it: a scheduling policy may change the first.
    pub(super) priority: Cell<Priority>,
    pub(super) base: Cell<Priority>,
    /// Ticks of a turn, and how many of them are left.
    pub(super) slice: Cell<u8>,
    pub(super) left: Cell<u8>,
    /// Ticks that found the processor on it.
    pub(super) ran: Cell<u64>,
    /// Neighbours in the one list that it is in.
    pub(super) previous: Cell<Option<TaskRef>>,
    pub(super) next: Cell<Option<TaskRef>>,
    /// Address of the word that it waits on.
    pub(super) word: Cell<usize>,
    pub(super) woken: Cell<Woken>,
    /// Time until which it sleeps, and its place among the deadlines.
    pub(super) deadline: Cell<u64>,
    pub(super) deadline_index: Cell<usize>,
    /// Since when it is ready.
    pub(super) ready_since: Cell<u64>,
    /// What it is to do, taken when it starts.
    pub(super) body: Cell<Option<Box<dyn FnOnce() + Send>>>,
}

// SAFETY: see the type's description: every part belongs to the task itself, or to the holder of the scheduler's lock.
unsafe impl Sync for TaskRecord {}
// SAFETY: as above; `body` is `Send`.
unsafe impl Send for TaskRecord {}

/// A record, by address: records do not move. Valid until the scheduler has given the record back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskRef(NonNull<TaskRecord>);

// SAFETY: a reference to something `Sync`, followed only while the record lives.
unsafe impl Send for TaskRef {}

impl TaskRef {
    pub(super) const fn to(record: NonNull<TaskRecord>) -> Self {
        Self(record)
    }

    pub(super) fn as_ptr(self) -> *mut TaskRecord {
        self.0.as_ptr()
    }
}

impl core::ops::Deref for TaskRef {
    type Target = TaskRecord;

    fn deref(&self) -> &TaskRecord {
        // SAFETY: by the type's description.
        unsafe { self.0.as_ref() }
    }
}

impl TaskRecord {
    pub(super) const fn new(id: u64, name: TaskName, priority: Priority) -> Self {
        Self {
            locals: TaskLocals {
                slots: [const { Cell::new(0) }; LOCAL_SLOTS],
                stack_limit: Cell::new(0),
                stack_top: Cell::new(0),
                kill_requested: AtomicU32::new(0),
                id: Cell::new(id),
                reserve_use: Cell::new(0),
            },
            context: UnsafeCell::new(NO_REGISTERS),
            vectors: UnsafeCell::new(VectorState::new()),
            name,
            stack_bottom: Cell::new(0),
            zone_closed: Cell::new(false),
            overflow_closed: Cell::new(false),
            interrupted: AtomicBool::new(false),
            limit: AtomicU32::new(0),
            state: Cell::new(TaskState::Running),
            priority: Cell::new(priority),
            base: Cell::new(priority),
            slice: Cell::new(1),
            left: Cell::new(1),
            ran: Cell::new(0),
            previous: Cell::new(None),
            next: Cell::new(None),
            word: Cell::new(0),
            woken: Cell::new(Woken::ByOthers),
            deadline: Cell::new(0),
            deadline_index: Cell::new(usize::MAX),
            ready_since: Cell::new(0),
            body: Cell::new(None),
        }
    }

    /// The stack.
    pub(super) fn stack(&self) -> Range<usize> {
        self.stack_bottom.get()..self.locals.stack_top.get()
    }

    fn yellow_zone(&self) -> Range<usize> {
        let start = self.stack_bottom.get() + RED_RESERVE;
        start..start + YELLOW_ZONE
    }

    /// The timer found the processor on it. Returns whether its turn ends.
    pub(super) fn charge_tick(&self) -> bool {
        self.ran.set(self.ran.get() + 1);
        let left = self.left.get().saturating_sub(1);
        self.left.set(if left == 0 { self.slice.get() } else { left });
        left == 0
    }

    /// Whether an address lies in the page below the stack, which is never mapped, or in the part that is inaccessible now.
    pub(super) fn is_guard(&self, address: usize) -> bool {
        let bottom = self.stack_bottom.get();
        let first = if self.overflow_closed.get() { self.overflow_reserve().end } else { bottom };
        bottom != 0 && (bottom - PAGE_SIZE..first).contains(&address)
    }

    fn overflow_reserve(&self) -> Range<usize> {
        let bottom = self.stack_bottom.get();
        bottom..bottom + OVERFLOW_RESERVE
    }

    /// Makes the lowest part of the stack inaccessible, unless it is. It stays as it is when that is refused.
    pub(super) fn close_overflow_reserve(&self) {
        let reserve = self.overflow_reserve();
        let closed = !self.overflow_closed.get()
            // SAFETY: a part of the task's stack, mapped through this port, that nothing is in.
            && unsafe { BareMemory.protect(reserve.start, reserve.len(), PteFlags::empty()) }.is_ok();
        if closed {
            self.overflow_closed.set(true);
        }
    }

    /// Makes it accessible. Returns whether it was not.
    pub(super) fn open_overflow_reserve(&self) -> bool {
        let reserve = self.overflow_reserve();
        let opened = self.overflow_closed.get()
            // SAFETY: a part of the task's stack, mapped through this port.
            && unsafe { BareMemory.protect(reserve.start, reserve.len(), PteFlags::VALID | PteFlags::WRITABLE) }.is_ok();
        if opened {
            self.overflow_closed.set(false);
        }
        opened
    }

    /// Makes the yellow zone inaccessible, for the first time or after native code needed it.
    #[cold]
    pub(super) fn close_yellow_zone(&self) -> Result<(), TaskError> {
        if self.stack_bottom.get() == 0 {
            return Err(TaskError::Stack(String::from("the boot code did not say where the stack is")));
        }
        let zone = self.yellow_zone();
        if stack_pointer() < zone.end + RED_RESERVE {
            return Err(TaskError::Stack(String::from("less stack is left than a call needs")));
        }
        // SAFETY: the zone is part of our stack, mapped through this port, and below everything in use.
        unsafe { BareMemory.protect(zone.start, zone.len(), PteFlags::empty()) }
            .map_err(|e| TaskError::Stack(format!("the yellow zone: {e}")))?;
        self.zone_closed.set(true);
        self.locals.stack_limit.set(zone.end);
        Ok(())
    }

    /// For a fault that nobody claimed: if it lies in the yellow zone, the zone becomes ordinary stack.
    pub(super) fn open_yellow_zone(&self, fault: usize) -> bool {
        let zone = self.yellow_zone();
        let opened = self.zone_closed.get()
            && zone.contains(&fault)
            // SAFETY: the zone is part of the task's stack, mapped through this port.
            && unsafe { BareMemory.protect(zone.start, zone.len(), PteFlags::VALID | PteFlags::WRITABLE) }.is_ok();
        if opened {
            self.zone_closed.set(false);
        }
        opened
    }
}

/// A record on the heap; `None` when there is no memory.
pub(super) fn allocate(id: u64, name: TaskName, priority: Priority) -> Option<Box<TaskRecord>> {
    const { assert!(size_of::<TaskRecord>() > 0) };
    // SAFETY: the layout's size is not zero.
    let place = unsafe { alloc(Layout::new::<TaskRecord>()) }.cast::<TaskRecord>();
    // SAFETY: a fresh allocation with Box's layout, written before it becomes a box.
    (!place.is_null()).then(|| unsafe {
        place.write(TaskRecord::new(id, name, priority));
        Box::from_raw(place)
    })
}

/// All zero.
const NO_REGISTERS: Registers = Registers {
    r15: 0,
    r14: 0,
    r13: 0,
    r12: 0,
    r11: 0,
    r10: 0,
    r9: 0,
    r8: 0,
    rbp: 0,
    rdi: 0,
    rsi: 0,
    rdx: 0,
    rcx: 0,
    rbx: 0,
    rax: 0,
    vector: 0,
    error: 0,
    rip: 0,
    cs: 0,
    rflags: 0,
    rsp: 0,
    ss: 0,
};
