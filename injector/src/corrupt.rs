//! Corruption: bits and words change in what a cell runs on, in the middle of its work.
//!
//! Each fault has a fresh cell, which calls the host at a random step; there the damage is done ([`Damage::strike`]), and the cell
//! goes on. Then it is called once more, to trap. Whatever it does, the caller must get control back; damage to what must not
//! change must be seen by [`InstanceRecord::verify`]; and the cell, loaded again from its object, must be right.
//!
//! What is not changed: the stack and the runtime's own structures in native memory, and, in metadata, the bytes that stand for
//! variants of an enumeration: reading an impossible one is undefined in Rust, whoever wrote it.
#![allow(unsafe_code, reason = "writes where nobody may write")]

use crate::fault::GUEST_FAULTS;
use crate::kind::Kind;
use crate::random::Random;
use crate::verdict::{Outcome, Verdict};
use crate::watchdog::Watchdog;
use crate::workload::WORKLOADS;
use crate::world::{SetupError, Subject, World};
use alloc::{format, string::String, vec::Vec};
use core::ops::Range;
use kernel_config::memory::PAGE_SIZE;
use namespace_bridge::{InstanceRecord, Trap, kill};
use runtime_port::memory::PteFlags;
use runtime_port::platform;
use runtime_port::unwind::{KillReason, catch_unwind_with_arg};
use wasm_cell::trap::TrapCode;

/// What a workload calls the host for instead of making a fault.
const STRIKE: i32 = GUEST_FAULTS.len() as i32;

/// Functions that all workloads share, in `workloads/faults.wat`: the faults, and six more.
const SHARED: usize = GUEST_FAULTS.len() + 1 + 6;

/// Workloads that work in memory, and where.
const MEMORY_USERS: [usize; 3] = [1, 5, 6];
const MEMORY_IN_USE: [Range<usize>; 4] = [0x400..0x2400, 0x4000..0x4400, 0x8000..0x8080, 0x9000..0x9200];

/// Workloads that call through a table.
const TABLE_USERS: [usize; 3] = [2, 2, 4];

/// Damage that waits for the cell to reach its step.
#[derive(Debug, Clone)]
pub struct Damage {
    kind: Kind,
    word: bool,
    /// An element of `$faults` that will be called.
    element: usize,
    random: Random,
}

impl Damage {
    fn name(&self) -> &'static str {
        if self.word { "word" } else { "bit flip" }
    }

    /// Does the damage to a cell. Says where.
    pub fn strike(mut self, instance: &InstanceRecord) -> String {
        let places = self.places(instance);
        let sizes = || places.iter().map(Range::len);
        let all: usize = sizes().sum();
        if all == 0 {
            return String::from("nowhere");
        }
        let mut at = self.random.below(all);
        let place = places.iter().find(|p| {
            let inside = at < p.len();
            if !inside {
                at -= p.len();
            }
            inside
        });
        let Some(place) = place else { return String::from("nowhere") };
        let bits = self.random.bits();
        let (address, mask, what) = match self.word {
            true => {
                let address = place.start + (at & !7);
                (address, bits, format!("word at {:#x} ^ {bits:#x}", address - place.start))
            }
            false => {
                let address = place.start + at;
                (address, 1 << (bits & 7), format!("bit {} of {at:#x}", bits & 7))
            }
        };
        let len = if self.word { (place.end - address).min(8) } else { 1 };
        let result = match self.kind {
            Kind::Text => change_code(address, mask, len, PteFlags::VALID | PteFlags::EXECUTABLE),
            Kind::Unwind if instance.image().eh_frame().contains(&address) => {
                change_code(address, mask, len, PteFlags::VALID)
            }
            _ => {
                change(address, mask, len);
                Ok(())
            }
        };
        match result {
            Ok(()) => format!("{} of {} bytes: {what}", self.kind, place.len()),
            Err(e) => format!("the page could not be changed: {e}"),
        }
    }

    /// Where it can strike.
    fn places(&mut self, instance: &InstanceRecord) -> Vec<Range<usize>> {
        let (m, image) = (instance.metadata(), instance.image());
        let words = |start: usize, bytes: usize| start..start + bytes;
        match self.kind {
            // Most of a memory is never used; half of the damage goes to where the workloads work.
            Kind::Memory => match (instance.memory(0), self.random.bits() & 1) {
                (Some(memory), 0) => [words(memory.base(), memory.bytes() as usize)].into(),
                (Some(memory), _) => MEMORY_IN_USE.map(|r| memory.base() + r.start..memory.base() + r.end).into(),
                (None, _) => Vec::new(),
            },
            Kind::Global => {
                // The workloads import none.
                m.layout.globals.iter().map(|offset| words(image.data().start + *offset as usize, 8)).collect()
            }
            // Half of the damage goes to an element that will be called, the rest anywhere in one of the tables.
            Kind::Table => match (instance.table(2), self.random.bits() & 1) {
                (Some(faults), 0) => [words(faults.base() + 8 * self.element, 8)].into(),
                _ => {
                    let table = self.random.below(instance.tables().len());
                    instance.table(table as u32).map(|t| words(t.base(), 8 * t.len() as usize)).into_iter().collect()
                }
            },
            Kind::Text => match self.random.below(8) {
                0 => [image.entries()].into(),
                // Code that runs in every call: `$step`, `run`, and the workload's own functions.
                1..=4 => m
                    .funcs
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| matches!(i, 1 | 2) || *i >= SHARED)
                    .map(|(_, f)| f)
                    .map(|f| words(image.text().start + f.offset as usize, f.size as usize))
                    .collect(),
                _ => [image.text()].into(),
            },
            // The section as it is mapped, or what the unwinder made of it when the module was made.
            Kind::Unwind => match (instance.code().module().unwind_table(), self.random.below(4)) {
                (Some(table), 0) => table.places().into(),
                _ => [image.eh_frame()].into(),
            },
            Kind::Linkage => {
                let data = image.data().start;
                let l = &m.layout;
                let header = words(data, 16);
                let records = l.memories.iter().chain(&l.tables).map(|o| words(data + *o as usize, 16));
                let slots = l.func_import_slots.iter().chain(&l.escaped_slots).map(|o| words(data + *o as usize, 8));
                let builtins = words(data + l.builtin_slots as usize, 8 * m.builtins.len());
                let all = core::iter::once(header).chain(records).chain(slots).chain([builtins]);
                all.filter(|r| !r.is_empty()).collect()
            }
            Kind::Metadata => {
                let numbers = |p: *const u32, n: usize| words(p as usize, 4 * n);
                let l = &m.layout;
                let mut places: Vec<Range<usize>> = Vec::new();
                // Offsets in code and module, without the code of the trap behind them.
                places.extend(m.traps.sites.iter().map(|s| numbers(&raw const s.code_offset, 1)));
                places.extend(m.traps.sites.iter().map(|s| numbers(&raw const s.wasm_offset, 1)));
                places.push(numbers(m.addresses.as_ptr().cast(), 2 * m.addresses.len()));
                places.push(numbers(m.funcs.as_ptr().cast(), 4 * m.funcs.len()));
                places.push(numbers(m.escaped_funcs.as_ptr(), m.escaped_funcs.len()));
                places.push(numbers(m.imported_funcs.as_ptr(), m.imported_funcs.len()));
                places.push(numbers(l.func_import_slots.as_ptr(), l.func_import_slots.len()));
                places.push(numbers(l.escaped_slots.as_ptr(), l.escaped_slots.len()));
                places.push(numbers(l.globals.as_ptr(), l.globals.len()));
                places.push(numbers(l.memories.as_ptr(), l.memories.len()));
                places.push(numbers(l.tables.as_ptr(), l.tables.len()));
                places.retain(|p| !p.is_empty());
                places
            }
            _ => Vec::new(),
        }
    }
}

/// Flips bits of writable memory, bytewise: it may be used by others at the same time.
fn change(address: usize, mask: u64, len: usize) {
    for (i, byte) in mask.to_le_bytes().into_iter().take(len).enumerate() {
        let p = (address + i) as *mut u8;
        // SAFETY: the caller names live memory. That somebody relies on its value is the point.
        unsafe { p.write_volatile(p.read_volatile() ^ byte) };
    }
}

/// Flips bits of pages that are not writable; they are never writable and executable at once.
fn change_code(
    address: usize,
    mask: u64,
    len: usize,
    flags: PteFlags,
) -> Result<(), runtime_port::memory::MemoryError> {
    let page = address & !(PAGE_SIZE - 1);
    let size = (address + len - page).next_multiple_of(PAGE_SIZE);
    let memory = platform().memory();
    // SAFETY: pages of a live image. Nobody runs them meanwhile: the cell waits in the host function that does this.
    unsafe { memory.protect(page, size, PteFlags::VALID | PteFlags::WRITABLE)? };
    change(address, mask, len);
    // SAFETY: as above.
    unsafe { memory.protect(page, size, flags) }
}

/// The state between faults of these kinds.
#[derive(Debug)]
pub struct Corruption {
    kind: Kind,
    watchdog: Watchdog,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Value(i64),
    Trap(TrapCode),
    Panic,
}

impl Corruption {
    /// Starts the watchdog.
    pub fn new(kind: Kind) -> Result<Corruption, SetupError> {
        Ok(Corruption { kind, watchdog: Watchdog::start()? })
    }

    /// Does damage and looks at what it did.
    pub fn inject(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let workload = match self.kind {
            // The workloads that use what is damaged.
            Kind::Memory => *random.pick(&MEMORY_USERS),
            Kind::Table => *random.pick(&TABLE_USERS),
            _ => random.below(WORKLOADS.len()),
        };
        let word = random.below(4) == 0;
        let trap = match self.kind {
            // Only unwinding reads it: a panic, or a trap under native frames.
            Kind::Unwind => *random.pick(&[41, 43]),
            _ => random.below(GUEST_FAULTS.len()),
        };
        let damage = Damage { kind: self.kind, word, element: trap, random: random.clone() };
        let fault = damage.name();
        let mut place = String::from(WORKLOADS[workload].name);
        let (seen, outcome) = match self.attempt(world, workload, damage, random, &mut place) {
            Ok((seen, true)) => (seen, Outcome::Recovered),
            Ok((seen, false)) => (seen, Outcome::Quiet),
            Err(what) => (false, Outcome::Lost(what)),
        };
        Verdict { fault, place, detected: seen, outcome }
    }

    /// Returns whether the damage was seen, and whether it had an effect.
    fn attempt(
        &self,
        world: &mut World,
        workload: usize,
        damage: Damage,
        random: &mut Random,
        place: &mut String,
    ) -> Result<(bool, bool), String> {
        let n = match self.kind {
            // Enough to come by most of what is damaged.
            Kind::Memory => 2 + random.below(400) as i32,
            _ => 2 + random.below(40) as i32,
        };
        let steps = (WORKLOADS[workload].steps)(n as u32) as usize;
        let step = 1 + random.below(steps) as i32;
        let trap = damage.element;
        let trap_step = 1 + random.below(steps) as i32;
        let argument = random.bits() as i64;

        let subject = world.load(workload).map_err(|e| format!("{e}"))?;
        let right = self.call(&subject, (n, 0, 0, 0));
        world.strike_later(damage);
        let first = self.call(&subject, (n, STRIKE, step, 0));
        let second = self.call(&subject, (n, trap as i32, trap_step, argument));
        let second_right = GUEST_FAULTS[trap].trap_code(argument).map_or(End::Panic, End::Trap);
        let struck = world.struck();
        *place = format!("{} at step {step} of {steps}, {struck}", WORKLOADS[workload].name);
        let effect = first != right || second != second_right;
        let found = match subject.cell.instance() {
            Some(instance) => instance.verify().err(),
            None => return Err("the cell lost its instance".into()),
        };
        let checked = matches!(self.kind, Kind::Text | Kind::Unwind | Kind::Linkage | Kind::Metadata);
        if checked && found.is_none() {
            return Err(format!("the damage is not seen; calls ended {first:?} and {second:?}"));
        }
        if !checked && let Some(found) = found {
            return Err(format!("more is damaged than was: {found}"));
        }
        world.unload(subject)?;
        world.check_others()?;
        if checked || world.module(workload).is_suspect() {
            world.renew(workload).map_err(|e| format!("{e}"))?;
        }
        let fresh = world.load(workload).map_err(|e| format!("{e}"))?;
        let again = self.call(&fresh, (n, 0, 0, 0));
        world.unload(fresh)?;
        if again != right {
            return Err(format!("loaded again, the cell gives {again:?} instead of {right:?}"));
        }
        world.check_idle()?;
        Ok((checked || !matches!(first, End::Value(_)), effect))
    }

    /// Calls a cell, for a limited time.
    fn call(&self, subject: &Subject, arguments: (i32, i32, i32, i64)) -> End {
        self.watchdog.begin();
        let result: Result<Result<i64, Trap>, KillReason> = catch_unwind_with_arg(|()| subject.run.call(arguments), ());
        self.watchdog.end();
        kill::withdraw();
        match result {
            Ok(Ok(value)) => End::Value(value),
            Ok(Err(trap)) => End::Trap(trap.code()),
            Err(_) => End::Panic,
        }
    }
}
