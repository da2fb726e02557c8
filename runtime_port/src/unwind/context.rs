//! The state of a frame that is being unwound, and the step to its caller.
//!
//! The head of a [`Context`] is laid out as libgcc's own contexts are on x86-64 (`struct _Unwind_Context` of `unwind-dw2.c`, since
//! GCC 4.3, with all registers "by value"). Rust and C++ code only pass contexts through to accessor functions; but in a process
//! there may be C++ libraries whose personality routines are bound to libgcc's accessors, and those then work on ours, just
//! as several copies of libgcc in one process work on each other's.

use super::compact::{self, CompactRow, LOST, SAVED};
use super::expression::{self, evaluate};
use super::finder::{Asker, keeps_frame_pointers, with_record};
use super::program::{COLUMNS, CfaRule, Row, Rule, column, row_at};

/// Registers of libgcc's contexts: those of [`COLUMNS`] and one that is never used.
const REGISTERS: usize = COLUMNS + 1;

/// Integer registers, in the order of their DWARF numbers: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15 (psABI, figure 3.36).
pub const INTEGER_REGISTERS: usize = 16;

/// `SIGNAL_FRAME_BIT`: `ra` is the address of an instruction that was interrupted, not a return address.
const INTERRUPTED: usize = 1 << 63;
/// `EXTENDED_CONTEXT_BIT`: there is a `by_value`.
const EXTENDED: usize = 1 << 62;

/// Bytes below the stack pointer that code without calls may use (System V psABI, 3.2.2).
const RED_ZONE: usize = 128;

/// Signal frames that one walk passes at most: only they can lead downwards, so this bounds every walk.
const SIGNAL_FRAMES: u32 = 64;

/// A frame.
#[repr(C)]
#[derive(Clone)]
pub struct Context {
    registers: [usize; REGISTERS],
    /// The stack pointer: CFA of the frame below.
    cfa: usize,
    /// Where it goes on.
    pub(super) ra: usize,
    pub(super) lsda: usize,
    text_base: usize,
    data_base: usize,
    pub(super) function: usize,
    flags: usize,
    version: usize,
    pub(super) args_size: usize,
    by_value: [u8; REGISTERS],
    // From here on it is ours alone.
    asker: Asker,
    /// Registers whose values are known, as bits.
    known: u32,
    signal_frames: u32,
    stack: Stack,
}

/// Registers as a routine of [`super::abi`] saves them, and as the walk of a stack starts with.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved {
    pub rbx: usize,
    pub rbp: usize,
    pub r12: usize,
    pub r13: usize,
    pub r14: usize,
    pub r15: usize,
    pub rsp: usize,
    pub rip: usize,
}

/// Addresses that may be read.
#[derive(Debug, Clone, Copy)]
struct Stack {
    /// Behind the last address; `usize::MAX` where the stack is not known.
    top: usize,
}

/// Why there is no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// This is the outermost frame, or nothing is known about its code.
    End,
    /// The unwind info is damaged, or leads where no stack is.
    Damaged,
}

/// What is known about the code of a frame.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(any(feature = "hosted", feature = "bare_metal")), allow(dead_code, reason = "for `two_phase`"))]
pub(super) struct Facts {
    pub function: usize,
    pub lsda: usize,
    pub personality: usize,
    pub args_size: usize,
    /// How to step, unless that must be decoded anew.
    compact: Option<CompactRow>,
}

impl Facts {
    #[inline(always)]
    fn of(row: CompactRow) -> Facts {
        Facts { function: row.function, lsda: row.lsda, personality: row.personality, args_size: 0, compact: Some(row) }
    }
}

impl Context {
    /// The frame that `saved` belongs to.
    #[inline]
    pub(super) fn new(saved: &Saved, asker: Asker) -> Context {
        let mut c = Context {
            registers: [0; REGISTERS],
            cfa: saved.rsp,
            ra: saved.rip,
            lsda: 0,
            text_base: 0,
            data_base: 0,
            function: 0,
            flags: EXTENDED,
            version: 0,
            args_size: 0,
            by_value: [1; REGISTERS],
            asker,
            known: 0,
            signal_frames: 0,
            stack: Stack::around(saved.rsp),
        };
        for (i, value) in [
            (column::RBX, saved.rbx),
            (column::RBP, saved.rbp),
            (column::R12, saved.r12),
            (column::R13, saved.r13),
            (column::R14, saved.r14),
            (column::R15, saved.r15),
            (column::RSP, saved.rsp),
        ] {
            c.set(i, value);
        }
        c
    }

    /// A frame of which only this much is known. `is_interrupted`: `pc` is the address of an instruction, not a return address.
    pub fn at(pc: usize, stack_pointer: usize, frame_pointer: usize, is_interrupted: bool, asker: Asker) -> Context {
        let saved = Saved { rbx: 0, rbp: frame_pointer, r12: 0, r13: 0, r14: 0, r15: 0, rsp: stack_pointer, rip: pc };
        let mut c = Context::new(&saved, asker);
        c.known = 1 << column::RBP | 1 << column::RSP;
        if is_interrupted {
            c.flags |= INTERRUPTED;
        }
        c
    }

    /// The frame of code that was interrupted before the instruction at `pc`, with these integer registers, on a stack that ends at
    /// `stack_top`. For exception handlers, and for who looks at tasks that stand still.
    pub fn interrupted(pc: usize, registers: &[usize; INTEGER_REGISTERS], stack_top: usize) -> Context {
        let rsp = registers[column::RSP];
        let saved = Saved { rbx: 0, rbp: 0, r12: 0, r13: 0, r14: 0, r15: 0, rsp, rip: pc };
        let mut c = Context::new(&saved, Asker::Exception);
        for (i, value) in registers.iter().enumerate() {
            c.set(i, *value);
        }
        c.flags |= INTERRUPTED;
        c.stack = Stack { top: stack_top };
        c
    }

    /// Whether this is where the walk of an intact stack ends: behind the outermost frame, which says that it returns nowhere.
    pub fn is_behind_outermost(&self) -> bool {
        self.ra == 0
    }

    /// Where the frame goes on: a return address, or where it was interrupted.
    pub fn pc(&self) -> usize {
        self.ra
    }

    /// Whether [`pc`](Context::pc) is the address of an instruction that was interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// An address inside the instruction that is being executed.
    #[inline]
    pub fn lookup_pc(&self) -> usize {
        self.ra.wrapping_sub(usize::from(!self.is_interrupted()))
    }

    /// Stack pointer of the frame.
    pub fn stack_pointer(&self) -> usize {
        self.cfa
    }

    /// Frame pointer register, which may be anything.
    pub fn frame_pointer(&self) -> usize {
        self.register(column::RBP)
    }

    /// What distinguishes a frame while it lives (as libgcc does).
    #[cfg_attr(not(any(feature = "hosted", feature = "bare_metal")), allow(dead_code, reason = "for `two_phase`"))]
    pub(super) fn identity(&self) -> usize {
        self.cfa.wrapping_sub(usize::from(self.is_interrupted()))
    }

    /// Where the frame goes on after the personality routine says so: at a landing pad, with two values for it (psABI, 6.2.5).
    pub fn land(&mut self, pad: usize, first: usize, second: usize) {
        self.ra = pad;
        self.set(column::RAX, first);
        self.set(column::RDX, second);
    }

    /// Address of the function's language-specific data, or 0. For personality routines.
    pub fn language_specific_data(&self) -> usize {
        self.lsda
    }

    /// Start of the function. For personality routines.
    pub fn region_start(&self) -> usize {
        self.function
    }

    #[inline(always)]
    pub(super) fn register(&self, i: usize) -> usize {
        self.registers.get(i).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub(super) fn set(&mut self, i: usize, value: usize) {
        if let Some(place) = self.registers.get_mut(i) {
            *place = value;
            self.known |= 1 << i;
        }
    }

    #[inline(always)]
    fn knows(&self, i: usize) -> bool {
        self.known >> i & 1 != 0
    }

    /// Whether code of this frame could go on: all registers that it may rely on are known.
    #[cfg(any(feature = "hosted", feature = "bare_metal"))]
    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        const NEEDED: u32 = 1 << column::RBX
            | 1 << column::RBP
            | 1 << column::RSP
            | 1 << column::R12
            | 1 << column::R13
            | 1 << column::R14
            | 1 << column::R15;
        self.known & NEEDED == NEEDED
    }

    /// What is known about the code of this frame.
    #[inline(always)]
    pub(super) fn facts(&self) -> Result<Facts, Stop> {
        match compact::cached(self.lookup_pc()) {
            Some(row) => Ok(Facts::of(row)),
            None => self.decode(),
        }
    }

    #[cold]
    fn decode(&self) -> Result<Facts, Stop> {
        let pc = self.lookup_pc();
        let decoded = with_record(pc, self.asker, |record, validity| {
            let row = row_at(record, pc)?;
            let personality = match record.cie.personality {
                // SAFETY: the record says that the address of the routine is there, and is what it was when it was
                // registered.
                p if p != 0 && record.cie.personality_is_indirect => unsafe { *(p as *const usize) },
                p => p,
            };
            let compact = CompactRow::new(record, &row, personality);
            if let Some((compact, validity)) = compact.zip(validity) {
                compact::keep(pc, compact, validity);
            }
            let args_size = usize::try_from(row.args_size).ok()?;
            Some(Facts { function: record.start, lsda: record.lsda, personality, args_size, compact })
        });
        match decoded {
            Some(Some(facts)) => Ok(facts),
            // The record is damaged. If only calls are under way, the code's frame is known without it.
            _ if !self.is_interrupted() && keeps_frame_pointers(pc) => Ok(Facts::of(CompactRow::frame_pointers(pc))),
            Some(None) => Err(Stop::Damaged),
            None => Err(Stop::End),
        }
    }

    /// Becomes the caller's frame.
    #[inline(always)]
    pub(super) fn step(&mut self, facts: &Facts) -> Result<(), Stop> {
        match &facts.compact {
            Some(row) => self.step_compact(row),
            None => self.step_slowly(),
        }
    }

    /// The next frame outwards.
    ///
    /// # Errors
    /// There is none, or it cannot be found.
    pub fn step_out(&mut self) -> Result<(), Stop> {
        let facts = self.facts()?;
        self.step(&facts)
    }

    #[inline(always)]
    fn step_compact(&mut self, row: &CompactRow) -> Result<(), Stop> {
        let base = usize::from(row.cfa_register);
        if !self.knows(base) || row.is_signal_frame {
            return self.step_slowly();
        }
        let cfa = self.register(base).wrapping_add_signed(row.cfa_offset as isize);
        self.check_cfa(cfa)?;
        let (low, high) = (self.cfa.wrapping_sub(RED_ZONE), self.stack.top - 8);
        // Without branches that depend on which registers a function saves: what is not saved is loaded from where it is.
        let present = self.registers.as_ptr() as usize;
        let mut places = [0; SAVED.len()];
        let mut outside = false;
        self.registers[column::RETURN_ADDRESS] = 0;
        for ((place, i), rule) in places.iter_mut().zip(SAVED).zip(row.rules) {
            let at = cfa.wrapping_add_signed(isize::from(rule) * 8);
            let is_saved = rule > LOST;
            outside |= is_saved & ((at < low) | (at > high));
            self.known = (self.known | u32::from(is_saved) << i) & !(u32::from(rule == LOST) << i);
            *place = if is_saved { at } else { present + 8 * i };
        }
        if outside {
            return Err(Stop::Damaged);
        }
        for (place, i) in places.into_iter().zip(SAVED) {
            // SAFETY: on the stack, between its present end and its top, or the register itself.
            self.registers[i] = unsafe { (place as *const usize).read_unaligned() };
        }
        self.arrive(cfa, cfa, self.registers[column::RETURN_ADDRESS], false)
    }

    /// A stack grows downwards: the caller's part is above.
    #[inline(always)]
    fn check_cfa(&self, cfa: usize) -> Result<(), Stop> {
        if cfa <= self.cfa || cfa > self.stack.top { Err(Stop::Damaged) } else { Ok(()) }
    }

    #[inline(always)]
    fn arrive(&mut self, cfa: usize, rsp: usize, ra: usize, interrupted: bool) -> Result<(), Stop> {
        self.cfa = cfa;
        self.set(column::RSP, rsp);
        self.set(column::RETURN_ADDRESS, ra);
        self.ra = ra;
        self.flags = if interrupted { self.flags | INTERRUPTED } else { self.flags & !INTERRUPTED };
        if ra == 0 { Err(Stop::End) } else { Ok(()) }
    }

    #[cold]
    fn step_slowly(&mut self) -> Result<(), Stop> {
        let pc = self.lookup_pc();
        let stepped = with_record(pc, self.asker, |record, _| {
            let row = row_at(record, pc)?;
            self.step_by(&row, record.cie.is_signal_frame)
        });
        stepped.ok_or(Stop::End)?.ok_or(Stop::Damaged)?
    }

    /// The step by any row. `None` when it is damaged.
    fn step_by(&mut self, row: &Row<'_>, is_signal_frame: bool) -> Option<Result<(), Stop>> {
        let before = self.clone();
        let cfa = match row.cfa {
            CfaRule::Register(i, offset) if before.knows(i) => before.register(i).wrapping_add(offset as usize),
            CfaRule::Register(..) => return None,
            CfaRule::Expression(e) => evaluate(e, None, &before)?,
        };
        // A frame that an expression finds above is one like others.
        let is_expression = matches!(row.cfa, CfaRule::Expression(_)) && before.check_cfa(cfa).is_err();
        if is_signal_frame || is_expression {
            self.signal_frames += 1;
            if self.signal_frames > SIGNAL_FRAMES {
                return None;
            }
        }
        if !is_signal_frame && !is_expression {
            before.check_cfa(cfa).ok()?;
        }
        let mut rsp = cfa;
        let mut ra = None;
        for (i, rule) in row.rules.iter().enumerate() {
            let value = match *rule {
                Rule::Unspecified | Rule::Same => continue,
                Rule::Undefined => {
                    self.known &= !(1 << i);
                    if i == column::RETURN_ADDRESS {
                        ra = Some(0);
                    }
                    continue;
                }
                Rule::Offset(n) => before.load(cfa.wrapping_add(n as usize), cfa)?,
                Rule::ValueOffset(n) => cfa.wrapping_add(n as usize),
                Rule::Register(other) if before.knows(other) => before.register(other),
                Rule::Register(_) => {
                    self.known &= !(1 << i);
                    continue;
                }
                Rule::Expression(e) => before.load(evaluate(e, Some(cfa), &before)?, cfa)?,
                Rule::ValueExpression(e) => evaluate(e, Some(cfa), &before)?,
            };
            match i {
                column::RSP => rsp = value,
                column::RETURN_ADDRESS => ra = Some(value),
                _ => self.set(i, value),
            }
        }
        let arrived = self.arrive(cfa, rsp, ra?, is_signal_frame);
        if is_signal_frame || is_expression {
            // Where the stack is known, it is the same above.
            if rsp < before.cfa || rsp > before.stack.top {
                self.stack = Stack::around(rsp);
            }
        }
        Some(arrived)
    }

    /// A word that was saved by this frame, on its own stack or next to where the CFA is.
    fn load(&self, at: usize, cfa: usize) -> Option<usize> {
        let near_cfa = at.abs_diff(cfa) <= NEAR;
        if !near_cfa && !self.may_read(at, 8) {
            return None;
        }
        // SAFETY: on a stack, or where the unwind info of the code says that it saved the register.
        Some(unsafe { (at as *const usize).read_unaligned() })
    }

    fn may_read(&self, at: usize, size: usize) -> bool {
        at >= self.cfa.wrapping_sub(RED_ZONE) && at.checked_add(size).is_some_and(|end| end <= self.stack.top)
    }
}

/// Distance from the CFA, in bytes, within which a frame with an unusual row may have saved registers: its own exception frame or
/// context record.
const NEAR: usize = 4096;

impl expression::Machine for Context {
    fn register(&self, column: u64) -> Option<usize> {
        let i = usize::try_from(column).ok()?;
        match i {
            column::RETURN_ADDRESS => Some(self.ra),
            i if i < COLUMNS && self.knows(i) => Some(Context::register(self, i)),
            _ => None,
        }
    }

    fn read(&self, address: usize, size: usize) -> Option<usize> {
        // Records of exceptions lie on the stack in use, or, where expressions point, near some register's address.
        let near = |i: usize| self.knows(i) && address.abs_diff(Context::register(self, i)) <= NEAR;
        if !self.may_read(address, size) && !(0..column::RETURN_ADDRESS).any(near) {
            return None;
        }
        let p = address as *const u8;
        // SAFETY: on the stack, or beside what a register of the frame points to, as the unwind info of the code says.
        unsafe {
            Some(match size {
                1 => usize::from(p.read()),
                2 => usize::from(p.cast::<u16>().read_unaligned()),
                4 => p.cast::<u32>().read_unaligned() as usize,
                _ => p.cast::<usize>().read_unaligned(),
            })
        }
    }
}

impl Stack {
    /// The stack with this address in it: the task's own, if it is; otherwise nothing is known about it.
    fn around(rsp: usize) -> Stack {
        let top = crate::task::own_stack().filter(|s| s.contains(&rsp)).map_or(usize::MAX, |s| s.end);
        Stack { top }
    }
}

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Context(pc {:#x}, rsp {:#x})", self.ra, self.cfa)
    }
}

/// Offsets that the assembly of [`super::abi`] and libgcc's accessors rely on.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Context, cfa) == 144);
    assert!(offset_of!(Context, ra) == 152);
    assert!(offset_of!(Context, lsda) == 160);
    assert!(offset_of!(Context, function) == 184);
    assert!(offset_of!(Context, flags) == 192);
    assert!(offset_of!(Context, args_size) == 208);
    assert!(offset_of!(Context, by_value) == 216);
};
