//! Relocation types: how each computes its field, and what the field can hold (System V psABI x86-64, table 4.9).
#![deny(unsafe_code)]

use alloc::{format, string::String};
use core::fmt;
use goblin::elf::reloc::*;

/// `R_X86_64_CODE_4_GOTPCRELX` and what follows it: instructions of processors to come.
const FIRST_UNKNOWN: u32 = 43;

/// What a field is computed from. `S` symbol, `A` addend, `P` place, `G` slot, `GOT` table of slots, `L` stub, `Z` size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Formula {
    /// `S + A`
    Absolute,
    /// `S + A - P`
    Relative,
    /// `L + A - P`
    Stub,
    /// `G + A - P`
    SlotRelative,
    /// `G - GOT + A`
    SlotOffset,
    /// `GOT + A - P`
    TableRelative,
    /// `S + A - GOT`
    TableOffset,
    /// `L + A - GOT`
    StubOffset,
    /// `Z + A`
    Size,
}

/// A field and the values it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Word64,
    Unsigned32,
    Signed32,
    /// Signed or unsigned; bytes.
    Narrow(usize),
    /// Signed; bytes.
    NarrowSigned(usize),
}

impl Field {
    /// Bytes.
    pub fn width(self) -> usize {
        match self {
            Field::Word64 => 8,
            Field::Unsigned32 | Field::Signed32 => 4,
            Field::Narrow(n) | Field::NarrowSigned(n) => n,
        }
    }

    /// The bytes of a value, if the field can hold it.
    pub fn encode(self, value: i128) -> Option<[u8; 8]> {
        let bits = 8 * self.width() as u32;
        // Addresses have 64 bits, of which the upper half is negative to fields with a sign.
        let value = match self {
            Field::Unsigned32 => i128::from(value as u64),
            _ => i128::from(value as i64),
        };
        let (low, high) = match self {
            // Addresses wrap.
            Field::Word64 => return Some((value as u64).to_le_bytes()),
            Field::Unsigned32 => (0, (1i128 << 32) - 1),
            Field::Signed32 | Field::NarrowSigned(_) => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
            Field::Narrow(_) => (-(1i128 << (bits - 1)), (1i128 << bits) - 1),
        };
        (low..=high).contains(&value).then(|| (value as u64).to_le_bytes())
    }
}

/// Formula and field of a type; the error says why it cannot be applied.
pub(super) fn rule(typ: u32) -> Result<(Formula, Field), Reason> {
    use Field::*;
    use Formula::*;
    Ok(match typ {
        R_X86_64_64 => (Absolute, Word64),
        R_X86_64_32 => (Absolute, Unsigned32),
        R_X86_64_32S => (Absolute, Signed32),
        R_X86_64_16 => (Absolute, Narrow(2)),
        R_X86_64_8 => (Absolute, Narrow(1)),
        R_X86_64_PC64 => (Relative, Word64),
        R_X86_64_PC32 => (Relative, Signed32),
        R_X86_64_PC16 => (Relative, NarrowSigned(2)),
        R_X86_64_PC8 => (Relative, NarrowSigned(1)),
        R_X86_64_PLT32 => (Stub, Signed32),
        R_X86_64_GOTPCREL | R_X86_64_GOTPCRELX | R_X86_64_REX_GOTPCRELX => (SlotRelative, Signed32),
        R_X86_64_GOTPCREL64 => (SlotRelative, Word64),
        R_X86_64_GOT32 => (SlotOffset, Signed32),
        R_X86_64_GOT64 | R_X86_64_GOTPLT64 => (SlotOffset, Word64),
        R_X86_64_GOTPC32 => (TableRelative, Signed32),
        R_X86_64_GOTPC64 => (TableRelative, Word64),
        R_X86_64_GOTOFF64 => (TableOffset, Word64),
        R_X86_64_PLTOFF64 => (StubOffset, Word64),
        R_X86_64_SIZE32 => (Size, Unsigned32),
        R_X86_64_SIZE64 => (Size, Word64),
        R_X86_64_DTPMOD64
        | R_X86_64_DTPOFF64
        | R_X86_64_TPOFF64
        | R_X86_64_TLSGD
        | R_X86_64_TLSLD
        | R_X86_64_DTPOFF32
        | R_X86_64_GOTTPOFF
        | R_X86_64_TPOFF32
        | R_X86_64_GOTPC32_TLSDESC
        | R_X86_64_TLSDESC_CALL
        | R_X86_64_TLSDESC => return Err(Reason::ThreadLocal),
        R_X86_64_COPY | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT | R_X86_64_RELATIVE | R_X86_64_IRELATIVE
        | R_X86_64_RELATIVE64 => return Err(Reason::Dynamic),
        _ => return Err(Reason::Unknown),
    })
}

/// Bytes of a type's field; 0 for those that cannot be applied.
pub(super) fn width(typ: u32) -> usize {
    rule(typ).map_or(0, |(_, field)| field.width())
}

/// A relocation type's name in the psABI.
pub fn name(typ: u32) -> String {
    match typ {
        R_X86_64_NONE..FIRST_UNKNOWN => {
            format!("R_{}", goblin::elf::reloc::r_to_str(typ, goblin::elf::header::EM_X86_64))
        }
        _ => format!("relocation type {typ}"),
    }
}

/// A relocation that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelocationProblem {
    /// The symbol referred to, demangled.
    pub symbol: String,
    /// The section that refers to it.
    pub section: String,
    /// Offset in that section.
    pub offset: usize,
    /// Name of the relocation's type.
    pub relocation: String,
    /// Why.
    pub reason: Reason,
}

/// Why a relocation cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The value does not fit into the field.
    Overflow,
    /// Another cell's data may be out of reach of a direct reference, and could not be moved.
    ForeignData,
    /// Thread-local storage.
    ThreadLocal,
    /// A relocation of linked files.
    Dynamic,
    /// A type that does not exist or is newer than this loader.
    Unknown,
    /// It refers to a section that is not loaded.
    NotLoaded,
    /// The symbol is something that cannot be called or read by an address.
    NoAddress,
}

impl fmt::Display for RelocationProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RelocationProblem { symbol, section, offset, relocation, reason } = self;
        write!(f, "`{symbol}` in {section}+{offset:#x} ({relocation}): {reason}")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Overflow => {
                "the address is too far away for the field. Compile with -fPIC (rustc: -C relocation-model=pic), or with \
                 -mcmodel=large (rustc: -C code-model=large)"
            }
            Reason::ForeignData => {
                "data of another cell cannot be referred to directly. Compile with -fPIC and without \
                 -mdirect-extern-access (rustc: -C relocation-model=pic)"
            }
            Reason::ThreadLocal => "cells have no thread-local storage. Use an atomic or a static behind a lock instead",
            Reason::Dynamic => "it belongs to executables and shared libraries. Compile with `-c` (rustc: --emit=obj)",
            Reason::Unknown => "its type is unknown. Compile for an older processor (-march=x86-64-v3)",
            Reason::NotLoaded => "its section is not loaded",
            Reason::NoAddress => "it is no function: native code can only call exports of other cells",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_hold_what_their_width_and_sign_allow() {
        assert_eq!(Field::Unsigned32.encode(0xffff_ffff), Some([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
        assert_eq!(Field::Unsigned32.encode(-1), None);
        assert_eq!(Field::Signed32.encode(0x8000_0000), None);
        assert!(Field::Signed32.encode(-0x8000_0000).is_some());
        assert_eq!(Field::Signed32.encode(0xffff_ffff_8000_0000), Field::Signed32.encode(-0x8000_0000));
        assert_eq!(Field::Unsigned32.encode(0xffff_ffff_8000_0000), None);
        assert!(Field::Narrow(1).encode(255).is_some() && Field::Narrow(1).encode(-128).is_some());
        assert_eq!(Field::Narrow(1).encode(256), None);
        assert_eq!(Field::NarrowSigned(2).encode(0x8000), None);
        assert_eq!(Field::Word64.encode(-1), Some([0xff; 8]));
    }

    #[test]
    fn types_have_the_names_of_the_psabi() {
        assert_eq!(name(R_X86_64_REX_GOTPCRELX), "R_X86_64_REX_GOTPCRELX");
        assert_eq!(name(99), "relocation type 99");
    }
}
