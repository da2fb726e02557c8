//! Evaluates the DWARF expressions that call frame information may contain (DWARF 5, 2.5 and 6.4.2).
//!
//! Signal trampolines, procedure linkage tables and hand-written assembly need them. Locations, calls and types of the
//! debugger's side have no place there and are refused. Branches are allowed; a limit on steps ends a damaged loop.
#![deny(unsafe_code)]

use super::reader::Reader;

/// Values on the stack of an expression.
const STACK: usize = 16;
/// Operations of one expression, counted as they are executed.
const STEPS: usize = 1000;

/// What an expression may look at.
pub(super) trait Machine {
    /// Value of a register in the frame that is being unwound.
    fn register(&self, column: u64) -> Option<usize>;
    /// Reads `size` bytes (1, 2, 4 or 8) of memory. `None` where that is not allowed.
    fn read(&self, address: usize, size: usize) -> Option<usize>;
}

/// Evaluates with `initial` on the stack, if there is any. `None` when the expression is malformed or reads what it must not.
pub(super) fn evaluate(expression: &[u8], initial: Option<usize>, machine: &impl Machine) -> Option<usize> {
    let mut r = Reader::new(expression, 0, 0);
    let mut stack = Stack { values: [0; STACK], len: 0 };
    if let Some(value) = initial {
        stack.push(value)?;
    }
    for _ in 0..STEPS {
        if r.is_at_end() {
            return stack.pop();
        }
        step(&mut r, &mut stack, machine)?;
    }
    None
}

struct Stack {
    values: [usize; STACK],
    len: usize,
}

impl Stack {
    fn push(&mut self, value: usize) -> Option<()> {
        *self.values.get_mut(self.len)? = value;
        self.len += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<usize> {
        self.len = self.len.checked_sub(1)?;
        self.values.get(self.len).copied()
    }

    /// The value below `depth` others.
    fn pick(&self, depth: usize) -> Option<usize> {
        self.values.get(self.len.checked_sub(depth.checked_add(1)?)?).copied()
    }

    /// Replaces the two topmost values, the upper one second.
    fn binary(&mut self, f: impl FnOnce(usize, usize) -> Option<usize>) -> Option<()> {
        let (b, a) = (self.pop()?, self.pop()?);
        self.push(f(a, b)?)
    }

    fn unary(&mut self, f: impl FnOnce(usize) -> usize) -> Option<()> {
        let a = self.pop()?;
        self.push(f(a))
    }
}

fn step(r: &mut Reader<'_>, stack: &mut Stack, machine: &impl Machine) -> Option<()> {
    let signed = |f: fn(&i64, &i64) -> bool| move |a: usize, b: usize| Some(usize::from(f(&(a as i64), &(b as i64))));
    let shift = |b: usize| u32::try_from(b).unwrap_or(u32::MAX);
    match r.u8()? {
        // DW_OP_addr, const8u, const8s
        0x03 | 0x0e | 0x0f => stack.push(r.u64()? as usize),
        // DW_OP_deref
        0x06 => {
            let address = stack.pop()?;
            stack.push(machine.read(address, 8)?)
        }
        0x08 => stack.push(usize::from(r.u8()?)),              // DW_OP_const1u
        0x09 => stack.push(r.u8()? as i8 as usize),            // DW_OP_const1s
        0x0a => stack.push(usize::from(r.u16()?)),             // DW_OP_const2u
        0x0b => stack.push(r.u16()? as i16 as usize),          // DW_OP_const2s
        0x0c => stack.push(r.u32()? as usize),                 // DW_OP_const4u
        0x0d => stack.push(r.u32()? as i32 as usize),          // DW_OP_const4s
        0x10 => stack.push(r.uleb()? as usize),                // DW_OP_constu
        0x11 => stack.push(r.sleb()? as usize),                // DW_OP_consts
        0x12 => stack.push(stack.pick(0)?),                    // DW_OP_dup
        0x13 => stack.pop().map(drop),                         // DW_OP_drop
        0x14 => stack.push(stack.pick(1)?),                    // DW_OP_over
        0x15 => stack.push(stack.pick(usize::from(r.u8()?))?), // DW_OP_pick
        // DW_OP_swap
        0x16 => {
            let (b, a) = (stack.pop()?, stack.pop()?);
            stack.push(b)?;
            stack.push(a)
        }
        // DW_OP_rot: the top goes below the next two
        0x17 => {
            let (c, b, a) = (stack.pop()?, stack.pop()?, stack.pop()?);
            stack.push(c)?;
            stack.push(a)?;
            stack.push(b)
        }
        0x19 => stack.unary(|a| (a as i64).wrapping_abs() as usize), // DW_OP_abs
        0x1a => stack.binary(|a, b| Some(a & b)),
        0x1b => stack.binary(|a, b| (a as i64).checked_div(b as i64).map(|n| n as usize)), // DW_OP_div
        0x1c => stack.binary(|a, b| Some(a.wrapping_sub(b))),
        0x1d => stack.binary(|a, b| a.checked_rem(b)), // DW_OP_mod
        0x1e => stack.binary(|a, b| Some(a.wrapping_mul(b))),
        0x1f => stack.unary(usize::wrapping_neg),
        0x20 => stack.unary(|a| !a),
        0x21 => stack.binary(|a, b| Some(a | b)),
        0x22 => stack.binary(|a, b| Some(a.wrapping_add(b))),
        // DW_OP_plus_uconst
        0x23 => {
            let n = r.uleb()? as usize;
            stack.unary(|a| a.wrapping_add(n))
        }
        0x24 => stack.binary(|a, b| Some(a.checked_shl(shift(b)).unwrap_or(0))),
        0x25 => stack.binary(|a, b| Some(a.checked_shr(shift(b)).unwrap_or(0))),
        0x26 => stack.binary(|a, b| Some(((a as i64) >> shift(b).min(63)) as usize)), // DW_OP_shra
        0x27 => stack.binary(|a, b| Some(a ^ b)),
        // DW_OP_bra
        0x28 => {
            let by = r.u16()? as i16;
            match stack.pop()? {
                0 => Some(()),
                _ => jump(r, by),
            }
        }
        0x29 => stack.binary(signed(i64::eq)),
        0x2a => stack.binary(signed(i64::ge)),
        0x2b => stack.binary(signed(i64::gt)),
        0x2c => stack.binary(signed(i64::le)),
        0x2d => stack.binary(signed(i64::lt)),
        0x2e => stack.binary(signed(i64::ne)),
        // DW_OP_skip
        0x2f => {
            let by = r.u16()? as i16;
            jump(r, by)
        }
        op @ 0x30..=0x4f => stack.push(usize::from(op - 0x30)), // DW_OP_lit0 to lit31
        // DW_OP_breg0 to breg31
        op @ 0x70..=0x8f => {
            let offset = r.sleb()? as usize;
            stack.push(machine.register(u64::from(op - 0x70))?.wrapping_add(offset))
        }
        // DW_OP_bregx
        0x92 => {
            let register = r.uleb()?;
            let offset = r.sleb()? as usize;
            stack.push(machine.register(register)?.wrapping_add(offset))
        }
        // DW_OP_deref_size
        0x94 => {
            let size = usize::from(r.u8()?);
            let address = stack.pop()?;
            stack.push(machine.read(address, Some(size).filter(|s| matches!(s, 1 | 2 | 4 | 8))?)?)
        }
        0x96 => Some(()), // DW_OP_nop
        _ => None,
    }
}

fn jump(r: &mut Reader<'_>, by: i16) -> Option<()> {
    let to = r.at().checked_add_signed(isize::from(by))?;
    *r = Reader::at_offset(*r, to);
    Some(())
}
