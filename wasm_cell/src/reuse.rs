//! Incremental compilation: a new version of a module takes over the machine code of what did not change.
//!
//! Every compilation keeps, for each function, a hash over everything its code depends on ([`fingerprint`]) and where the
//! code refers to what ([`ReuseTable`]). A later version is read and validated as a whole, as always; a function whose
//! hash is known is copied from the old version's text, with its references, trap sites, wasm offsets and unwind rows put
//! in order, and only the others are compiled. The result is the same, byte for byte, as if all had been compiled.
//!
//! So that functions stay unchanged, the data block is laid out with the offsets that the old version had
//! ([`crate::inheritance`]). Equal hashes are taken for equal contents: the hash is BLAKE3, 256 bits.

mod donor;
pub(crate) mod fingerprint;
mod table;

pub(crate) use donor::Donor;
pub use table::ReuseTable;

use crate::builtin::Builtin;
use crate::compiler::{CompileOptions, CompilerSettings};
use crate::header::ObjectHeader;
use crate::inheritance::LayoutChange;
use crate::metadata::Metadata;
use crate::object::CellObject;
use crate::optimize;

/// Version of the code generator: code of another one is as good, and not the same.
pub const CODE_GENERATOR: &str = cranelift_codegen::VERSION;

/// Version of what is done between the code generator's optimiser and its back end.
pub const OPTIMIZER: u32 = optimize::VERSION;

/// What a compilation may take over. The parts must be of one object that came from this compiler: the machine code is
/// taken as it is.
#[derive(Clone, Copy)]
pub struct OldVersion<'a> {
    /// Its text section.
    pub text: &'a [u8],
    /// Its `.eh_frame`, with or without terminator.
    pub eh_frame: &'a [u8],
    /// Its metadata.
    pub metadata: &'a Metadata,
    /// What it kept for this.
    pub reuse: &'a ReuseTable,
}

impl<'a> OldVersion<'a> {
    /// A whole object as old version.
    pub fn of(object: &'a CellObject) -> OldVersion<'a> {
        let image = &object.metadata.image;
        let at = image.eh_frame_offset.saturating_sub(image.rodata_offset) as usize;
        OldVersion {
            text: &object.text,
            eh_frame: object.rodata.get(at..).unwrap_or_default(),
            metadata: &object.metadata,
            reuse: &object.reuse,
        }
    }
}

/// What a compilation took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReuseReport {
    /// Functions whose code was taken over.
    pub reused: u32,
    /// Functions that were compiled.
    pub compiled: u32,
    /// Bytes of machine code that were taken over.
    pub reused_bytes: u64,
    /// Bytes of machine code that were generated.
    pub compiled_bytes: u64,
    /// What became of the offsets in the data block.
    pub layout: LayoutChange,
}

impl ReuseReport {
    /// Counts a function of `bytes` bytes of code.
    pub(crate) fn count(&mut self, taken_over: bool, bytes: usize) {
        let (functions, total) = match taken_over {
            true => (&mut self.reused, &mut self.reused_bytes),
            false => (&mut self.compiled, &mut self.compiled_bytes),
        };
        *functions += 1;
        *total += bytes as u64;
    }
}

/// The beginning of the hash of what concerns every function of a module: what all modules of a compiler have in common.
pub(crate) struct Common {
    hasher: blake3::Hasher,
    /// The whole hash for modules without builtins: without and with a full address map.
    plain: [[u8; 32]; 2],
}

impl Common {
    /// Of the code generator, its settings and the processor.
    pub(crate) fn of(header: &ObjectHeader, settings: &CompilerSettings) -> Common {
        let mut hasher = blake3::Hasher::new();
        add(&mut hasher, env!("CARGO_PKG_VERSION").as_bytes());
        add(&mut hasher, CODE_GENERATOR.as_bytes());
        add(&mut hasher, &OPTIMIZER.to_le_bytes());
        add(&mut hasher, &kernel_config::cell::OBJECT_FORMAT_VERSION.to_le_bytes());
        add(&mut hasher, header.settings.as_bytes());
        settings.cpu.settings().into_iter().for_each(|(name, on)| {
            add(&mut hasher, name.as_bytes());
            add(&mut hasher, &[u8::from(on)]);
        });
        let plain = [false, true].map(|full| hash(&hasher, full, NO_SLOTS, &[]));
        Common { hasher, plain }
    }

    /// The hash for a module: with the builtins and where their slots lie.
    pub(crate) fn base(&self, options: &CompileOptions<'_>, meta: &Metadata) -> [u8; 32] {
        let (full, slots) = (options.full_address_map, meta.layout.builtin_slots);
        if meta.builtins.is_empty() && slots == NO_SLOTS {
            return self.plain[usize::from(full)];
        }
        hash(&self.hasher, full, slots, &meta.builtins)
    }
}

/// Where the slots of builtins lie in a module that has none.
const NO_SLOTS: u32 = crate::abi::HEADER_SIZE;

fn hash(common: &blake3::Hasher, full_address_map: bool, slots: u32, builtins: &[Builtin]) -> [u8; 32] {
    let mut hasher = common.clone();
    add(&mut hasher, &[u8::from(full_address_map)]);
    add(&mut hasher, &slots.to_le_bytes());
    builtins.iter().for_each(|b| add(&mut hasher, &(*b as u32).to_le_bytes()));
    *hasher.finalize().as_bytes()
}

fn add(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
}
