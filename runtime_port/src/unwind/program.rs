//! Runs the programs of call frame information: which register was saved where at an instruction (DWARF 5, 6.4.2 and 6.4.3).
#![deny(unsafe_code)]

use super::eh_frame::Record;
use super::reader::Reader;

/// Columns that are kept: the general registers by their DWARF numbers, and the return address (psABI, figure 3.36).
pub(super) const COLUMNS: usize = 17;

/// DWARF numbers.
pub(super) mod column {
    pub const RAX: usize = 0;
    pub const RDX: usize = 1;
    pub const RBX: usize = 3;
    pub const RBP: usize = 6;
    pub const RSP: usize = 7;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
    pub const RETURN_ADDRESS: usize = 16;
}

/// Rows that `DW_CFA_remember_state` may have pending. Compilers use one or two.
const REMEMBERED: usize = 4;

/// Where the caller's value of a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Rule<'a> {
    /// Nothing was said: as the caller left it, for all an unwinder can do.
    #[default]
    Unspecified,
    /// It is lost. Of the return address: this is the outermost frame.
    Undefined,
    /// Unchanged.
    Same,
    /// At CFA + n.
    Offset(i64),
    /// It is CFA + n.
    ValueOffset(i64),
    /// In another column.
    Register(usize),
    /// At the address that the expression computes.
    Expression(&'a [u8]),
    /// What the expression computes.
    ValueExpression(&'a [u8]),
}

/// How to compute the canonical frame address: the caller's stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CfaRule<'a> {
    /// Register plus offset.
    Register(usize, i64),
    /// What the expression computes.
    Expression(&'a [u8]),
}

/// One row of the virtual unwind table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub cfa: CfaRule<'a>,
    pub rules: [Rule<'a>; COLUMNS],
    /// Bytes of arguments that the callee pushed (`DW_CFA_GNU_args_size`).
    pub args_size: u64,
}

const EMPTY: Row<'static> =
    Row { cfa: CfaRule::Register(usize::MAX, 0), rules: [Rule::Unspecified; COLUMNS], args_size: 0 };

/// The row of a record that holds at `pc`, an address inside an instruction. `None` when the program is malformed.
pub(super) fn row_at<'a>(record: &Record<'a>, pc: usize) -> Option<Row<'a>> {
    let mut machine = Machine { record, row: EMPTY, initial: EMPTY, remembered: [EMPTY; REMEMBERED], depth: 0 };
    machine.run(record.cie.initial, record.start, usize::MAX)?;
    machine.initial = machine.row;
    machine.run(record.program, record.start, pc)?;
    match machine.row.cfa {
        CfaRule::Register(register, _) if register >= COLUMNS => None,
        _ => Some(machine.row),
    }
}

struct Machine<'a, 'r> {
    record: &'r Record<'a>,
    row: Row<'a>,
    /// What `DW_CFA_restore` goes back to.
    initial: Row<'a>,
    remembered: [Row<'a>; REMEMBERED],
    depth: usize,
}

impl<'a> Machine<'a, '_> {
    /// Runs until the location passes `pc`.
    fn run(&mut self, mut r: Reader<'a>, start: usize, pc: usize) -> Option<()> {
        let mut location = start;
        while !r.is_at_end() {
            let opcode = r.u8()?;
            let low = usize::from(opcode & 0x3f);
            let advance = match opcode {
                0x40..=0x7f => low as u64,
                0x80..=0xbf => {
                    let offset = self.factored(r.uleb()?)?;
                    self.set(low, Rule::Offset(offset));
                    continue;
                }
                0xc0..=0xff => {
                    self.restore(low);
                    continue;
                }
                // DW_CFA_set_loc
                0x01 => {
                    let to = r.pointer(self.record.cie.fde_encoding, 0)?;
                    if to < location {
                        return None;
                    }
                    location = to;
                    if location > pc {
                        return Some(());
                    }
                    continue;
                }
                // DW_CFA_advance_loc1, 2, 4
                0x02 => u64::from(r.u8()?),
                0x03 => u64::from(r.u16()?),
                0x04 => u64::from(r.u32()?),
                _ => {
                    self.execute(opcode, &mut r)?;
                    continue;
                }
            };
            let by = usize::try_from(advance.checked_mul(self.record.cie.code_align)?).ok()?;
            location = location.checked_add(by)?;
            if location > pc {
                return Some(());
            }
        }
        Some(())
    }

    /// One instruction that changes the row.
    fn execute(&mut self, opcode: u8, r: &mut Reader<'a>) -> Option<()> {
        let register = |r: &mut Reader<'a>| r.uleb().and_then(|n| usize::try_from(n).ok());
        let bytes = |r: &mut Reader<'a>| r.uleb().and_then(|n| r.slice(usize::try_from(n).ok()?));
        match opcode {
            0x00 => {} // DW_CFA_nop
            // DW_CFA_offset_extended
            0x05 => {
                let (column, offset) = (register(r)?, r.uleb()?);
                self.set(column, Rule::Offset(self.factored(offset)?));
            }
            0x06 => self.restore(register(r)?), // DW_CFA_restore_extended
            0x07 => self.set(register(r)?, Rule::Undefined),
            0x08 => self.set(register(r)?, Rule::Same),
            // DW_CFA_register
            0x09 => {
                let (column, other) = (register(r)?, register(r)?);
                self.set(column, Rule::Register(Some(other).filter(|o| *o < COLUMNS)?));
            }
            // DW_CFA_remember_state
            0x0a => {
                *self.remembered.get_mut(self.depth)? = self.row;
                self.depth += 1;
            }
            // DW_CFA_restore_state
            0x0b => {
                self.depth = self.depth.checked_sub(1)?;
                self.row = *self.remembered.get(self.depth)?;
            }
            // DW_CFA_def_cfa
            0x0c => self.row.cfa = CfaRule::Register(register(r)?, i64::try_from(r.uleb()?).ok()?),
            // DW_CFA_def_cfa_register
            0x0d => match &mut self.row.cfa {
                CfaRule::Register(column, _) => *column = register(r)?,
                CfaRule::Expression(_) => return None,
            },
            // DW_CFA_def_cfa_offset
            0x0e => self.set_cfa_offset(i64::try_from(r.uleb()?).ok()?)?,
            0x0f => self.row.cfa = CfaRule::Expression(bytes(r)?), // DW_CFA_def_cfa_expression
            // DW_CFA_expression
            0x10 => {
                let column = register(r)?;
                self.set(column, Rule::Expression(bytes(r)?));
            }
            // DW_CFA_offset_extended_sf
            0x11 => {
                let (column, offset) = (register(r)?, r.sleb()?);
                self.set(column, Rule::Offset(self.factored_signed(offset)?));
            }
            // DW_CFA_def_cfa_sf
            0x12 => {
                let (column, offset) = (register(r)?, r.sleb()?);
                self.row.cfa = CfaRule::Register(column, self.factored_signed(offset)?);
            }
            // DW_CFA_def_cfa_offset_sf
            0x13 => {
                let offset = r.sleb()?;
                self.set_cfa_offset(self.factored_signed(offset)?)?;
            }
            // DW_CFA_val_offset
            0x14 => {
                let (column, offset) = (register(r)?, r.uleb()?);
                self.set(column, Rule::ValueOffset(self.factored(offset)?));
            }
            // DW_CFA_val_offset_sf
            0x15 => {
                let (column, offset) = (register(r)?, r.sleb()?);
                self.set(column, Rule::ValueOffset(self.factored_signed(offset)?));
            }
            // DW_CFA_val_expression
            0x16 => {
                let column = register(r)?;
                self.set(column, Rule::ValueExpression(bytes(r)?));
            }
            0x2e => self.row.args_size = r.uleb()?, // DW_CFA_GNU_args_size
            // DW_CFA_GNU_negative_offset_extended
            0x2f => {
                let (column, offset) = (register(r)?, i64::try_from(r.uleb()?).ok()?);
                self.set(column, Rule::Offset(self.factored_signed(offset.checked_neg()?)?));
            }
            _ => return None,
        }
        Some(())
    }

    /// Columns that are not kept (vector registers) have rules that nobody needs.
    fn set(&mut self, column: usize, rule: Rule<'a>) {
        if let Some(place) = self.row.rules.get_mut(column) {
            *place = rule;
        }
    }

    fn restore(&mut self, column: usize) {
        if let Some(rule) = self.initial.rules.get(column).copied() {
            self.set(column, rule);
        }
    }

    fn set_cfa_offset(&mut self, to: i64) -> Option<()> {
        match &mut self.row.cfa {
            CfaRule::Register(_, offset) => *offset = to,
            CfaRule::Expression(_) => return None,
        }
        Some(())
    }

    fn factored(&self, n: u64) -> Option<i64> {
        self.factored_signed(i64::try_from(n).ok()?)
    }

    fn factored_signed(&self, n: i64) -> Option<i64> {
        n.checked_mul(self.record.cie.data_align)
    }
}
