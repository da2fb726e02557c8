//! `.eh_frame` of a cell: one CIE, one FDE per function, one for the trap stubs (D9).
//!
//! The rows are our own, because Cranelift's describe the frame only behind the inline stack probes, where an overflow
//! has faulted already. Our prologues have few shapes:
//!
//! ```text
//! 0   push rbp                  CFA = rsp+8
//! 1   mov rbp, rsp              CFA = rsp+16, rbp at CFA-16
//! 4   [probes]                  CFA = rbp+16
//!     [sub rsp, d; mov rbp, rsp; four moves that carry rbp and the return address down by d]
//!                               a function that tail-calls one with more stack arguments than its own
//!                               from the second `mov` on: CFA = rbp+16+d; behind the moves: rbp at CFA-16-d,
//!                               return address at CFA-8-d
//!     sub rsp, n; mov [rsp+..], callee-saved
//!                               registers where `UnwindInst::SaveReg` says
//! ```
//!
//! A function that pops stack arguments of `a` bytes has its CFA `a` higher throughout: the CFA is the stack pointer that the caller goes on
//! with. Who called it may have pushed fewer of them, or none: every tail call that needs more moves the return address down by
//! what it adds, so that this place is the same for the whole chain of tail calls. A native caller below such a chain, which may be
//! described by its stack pointer, is found by that.
//!
//! There are no rows for epilogues: an unwinder that starts inside one steps over the tail first. Addresses are
//! PC-relative, so the section needs no relocation and serves every instance of the cell.
//! Format: Linux Standard Base 5.0, "Exception Frames"; DWARF 5, 6.4.

use alloc::vec::Vec;
use cranelift_codegen::isa::unwind::UnwindInst;

const DW_CFA_DEF_CFA: u8 = 0x0c;
const DW_CFA_DEF_CFA_REGISTER: u8 = 0x0d;
const DW_CFA_DEF_CFA_OFFSET: u8 = 0x0e;
const DW_CFA_OFFSET: u8 = 0x80;
const DW_CFA_ADVANCE_LOC: u8 = 0x40;
const DW_CFA_ADVANCE_LOC1: u8 = 0x02;
const DW_CFA_ADVANCE_LOC2: u8 = 0x03;
const DW_CFA_ADVANCE_LOC4: u8 = 0x04;
const DW_EH_PE_PCREL_SDATA4: u8 = 0x1b;

/// DWARF numbers (System V psABI, figure 3.36).
const RBP: u8 = 6;
const RSP: u8 = 7;
const RETURN_ADDRESS: u8 = 16;

/// Data alignment factor.
const DATA_ALIGN: i64 = -8;

/// Length of `mov rbp, rsp`.
const MOV_LEN: u32 = 3;

/// Writes `.eh_frame`. Addresses of functions are offsets in the text section until [`EhFrame::finish`].
#[derive(Default)]
pub(crate) struct EhFrame {
    bytes: Vec<u8>,
    /// Positions of the `pc_begin` fields.
    starts: Vec<u32>,
}

impl EhFrame {
    /// Starts with the CIE.
    pub fn new() -> Self {
        let mut e = EhFrame { bytes: Vec::with_capacity(128), starts: Vec::new() };
        let start = e.begin();
        e.bytes.extend_from_slice(&0u32.to_le_bytes()); // CIE id
        e.bytes.push(1); // version
        e.bytes.extend_from_slice(b"zR\0");
        e.uleb(1); // code alignment
        e.sleb(DATA_ALIGN);
        e.bytes.push(RETURN_ADDRESS);
        e.uleb(1); // augmentation data
        e.bytes.push(DW_EH_PE_PCREL_SDATA4);
        e.def_cfa(RSP, 8);
        e.offset(RETURN_ADDRESS, 8);
        e.end(start);
        e
    }

    /// Describes code without a frame of its own: CFA = rsp+8 throughout.
    pub fn add_frameless(&mut self, text_offset: u32, size: u32) {
        let start = self.begin_fde(text_offset, size);
        self.end(start);
    }

    /// Describes a function by rows that were written before: the instructions of its entry in another section.
    pub fn add_rows(&mut self, text_offset: u32, size: u32, rows: &[u8]) {
        let start = self.begin_fde(text_offset, size);
        self.bytes.extend_from_slice(rows);
        self.end(start);
    }

    /// Describes a function that pops `popped` bytes of arguments, from the prologue events of the code generator.
    pub fn add_function(&mut self, text_offset: u32, size: u32, popped: u32, events: &[(u32, UnwindInst)]) {
        let start = self.begin_fde(text_offset, size);
        let mut at = 0;
        let popped = i64::from(popped);
        if popped > 0 {
            self.def_cfa_offset(8 + popped as u64);
            self.offset(RETURN_ADDRESS, 8 + popped);
        }
        let mut clobbers_below_cfa = 0;
        for (offset, event) in events {
            match event {
                UnwindInst::PushFrameRegs { .. } => {
                    self.advance(&mut at, *offset);
                    self.def_cfa_offset(16 + popped as u64);
                    self.offset(RBP, 16 + popped);
                    self.advance(&mut at, *offset + MOV_LEN);
                    self.def_cfa_register(RBP);
                }
                UnwindInst::DefineNewFrame { offset_upward_to_caller_sp: up, offset_downward_to_clobbers: down } => {
                    let frame_below_cfa = i64::from(*up) + popped;
                    clobbers_below_cfa = frame_below_cfa + i64::from(*down);
                    let grown = up.saturating_sub(16);
                    if grown > 0 {
                        self.advance(&mut at, offset.saturating_sub(moves_len(grown)));
                        self.def_cfa_offset(frame_below_cfa as u64);
                        self.advance(&mut at, *offset);
                        self.offset(RBP, frame_below_cfa);
                        self.offset(RETURN_ADDRESS, frame_below_cfa - 8);
                    }
                }
                UnwindInst::SaveReg { clobber_offset, reg } => {
                    if let Some(reg) = dwarf_number(reg.hw_enc()) {
                        self.advance(&mut at, *offset);
                        self.offset(reg, clobbers_below_cfa - i64::from(*clobber_offset));
                    }
                }
                // Not made for x86-64 frames with a frame pointer.
                UnwindInst::StackAlloc { .. }
                | UnwindInst::RegStackOffset { .. }
                | UnwindInst::Aarch64SetPointerAuth { .. } => {}
            }
        }
        self.end(start);
    }

    /// Bytes so far, with the terminator.
    pub fn len(&self) -> usize {
        self.bytes.len() + 4
    }

    /// Makes the addresses relative to their place, `eh_frame_offset` in the image (text starts at 0), and ends the
    /// section.
    pub fn finish(mut self, eh_frame_offset: u32) -> Vec<u8> {
        for start in &self.starts {
            let at = *start as usize;
            if let Some(field) = self.bytes.get_mut(at..at + 4) {
                let text_offset = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
                let place = eh_frame_offset.wrapping_add(*start);
                field.copy_from_slice(&text_offset.wrapping_sub(place).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(&0u32.to_le_bytes());
        self.bytes
    }

    // ---- records ----

    fn begin(&mut self) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_le_bytes());
        start
    }

    fn begin_fde(&mut self, text_offset: u32, size: u32) -> usize {
        let start = self.begin();
        // The CIE is the first record: its distance from here.
        let distance = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&distance.to_le_bytes());
        self.starts.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(&text_offset.to_le_bytes());
        self.bytes.extend_from_slice(&size.to_le_bytes());
        self.uleb(0); // augmentation data
        start
    }

    /// Pads a record to 8 bytes with `DW_CFA_nop` and sets its length.
    fn end(&mut self, start: usize) {
        let len = (self.bytes.len() - start).next_multiple_of(8);
        self.bytes.resize(start + len, 0);
        self.bytes[start..start + 4].copy_from_slice(&(len as u32 - 4).to_le_bytes());
    }

    // ---- instructions ----

    fn advance(&mut self, at: &mut u32, to: u32) {
        let delta = to.saturating_sub(*at);
        *at = (*at).max(to);
        match delta {
            0 => {}
            1..=0x3f => self.bytes.push(DW_CFA_ADVANCE_LOC | delta as u8),
            0x40..=0xff => self.bytes.extend_from_slice(&[DW_CFA_ADVANCE_LOC1, delta as u8]),
            0x100..=0xffff => {
                self.bytes.push(DW_CFA_ADVANCE_LOC2);
                self.bytes.extend_from_slice(&(delta as u16).to_le_bytes());
            }
            _ => {
                self.bytes.push(DW_CFA_ADVANCE_LOC4);
                self.bytes.extend_from_slice(&delta.to_le_bytes());
            }
        }
    }

    fn def_cfa(&mut self, register: u8, offset: u64) {
        self.bytes.extend_from_slice(&[DW_CFA_DEF_CFA, register]);
        self.uleb(offset);
    }

    fn def_cfa_register(&mut self, register: u8) {
        self.bytes.extend_from_slice(&[DW_CFA_DEF_CFA_REGISTER, register]);
    }

    fn def_cfa_offset(&mut self, offset: u64) {
        self.bytes.push(DW_CFA_DEF_CFA_OFFSET);
        self.uleb(offset);
    }

    /// The register's value stands `below` bytes below the CFA.
    fn offset(&mut self, register: u8, below: i64) {
        self.bytes.push(DW_CFA_OFFSET | register);
        self.uleb((below / -DATA_ALIGN) as u64);
    }

    fn uleb(&mut self, mut n: u64) {
        loop {
            let byte = n as u8 & 0x7f;
            n >>= 7;
            if n == 0 {
                self.bytes.push(byte);
                return;
            }
            self.bytes.push(byte | 0x80);
        }
    }

    fn sleb(&mut self, mut n: i64) {
        loop {
            let byte = n as u8 & 0x7f;
            n >>= 7;
            if (n == 0 && byte & 0x40 == 0) || (n == -1 && byte & 0x40 != 0) {
                self.bytes.push(byte);
                return;
            }
            self.bytes.push(byte | 0x80);
        }
    }
}

/// Length of the four moves that carry the saved rbp and the return address down by `grown` bytes: two loads from
/// `[rsp+grown]` and `[rsp+grown+8]`, stores to `[rsp]` and `[rsp+8]`, all through r11.
fn moves_len(grown: u32) -> u32 {
    let load = |displacement: u32| if displacement <= 127 { 5 } else { 8 };
    load(grown) + 4 + load(grown + 8) + 5
}

/// DWARF number of a general register by its hardware encoding (System V psABI, figure 3.36).
fn dwarf_number(encoding: u8) -> Option<u8> {
    const NUMBERS: [u8; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
    NUMBERS.get(usize::from(encoding)).copied()
}
