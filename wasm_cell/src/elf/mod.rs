//! A cell object as an ELF64 relocatable file, for every ordinary tool (D2).
//!
//! | section | content |
//! | --- | --- |
//! | `.text` | the code, one `STT_FUNC` symbol per function and trap stub; exported functions are global |
//! | `.rodata` | bytes of the data segments |
//! | `.eh_frame` | unwind info, without the terminator (the final link adds it) |
//! | `.bss` | the data block: all zero until the linker fills it |
//! | `.planks.metadata` | magic, format version, then [`ObjectHeader`](crate::header::ObjectHeader) and [`Metadata`](crate::metadata::Metadata) |
//! | `.planks.reuse` | [`ReuseTable`](crate::reuse::ReuseTable): what the next version needs to take over unchanged functions |
//! | `.note.GNU-stack` | empty: no executable stack |
//! | `.rela.text` | `R_X86_64_PC32` against `.bss`: references to the data block |
//! | `.rela.eh_frame` | `R_X86_64_PC32` against `.text`: where the functions begin |
//! | `.planks.seal` | the trailer of [`crate::seal`], the file's last bytes |
//!
//! The fields under the relocations already hold the values for the distances of `ImageLayout`, so our own
//! loader applies none; `ld` overwrites them for whatever layout it chooses. The `object` crate reads and writes the
//! format (ELF-64 Object File Format 1.5; System V psABI x86-64, 4.4 for the relocations).

pub(crate) mod frames;
mod name;
mod read;
mod write;

#[cfg(test)]
mod tests;

/// Section names, as in the table above.
mod section {
    pub const TEXT: &[u8] = b".text";
    pub const RODATA: &[u8] = b".rodata";
    pub const EH_FRAME: &[u8] = b".eh_frame";
    pub const BSS: &[u8] = b".bss";
    pub const METADATA: &[u8] = b".planks.metadata";
    pub const GNU_STACK: &[u8] = b".note.GNU-stack";
    pub const RELA_TEXT: &[u8] = b".rela.text";
    pub const RELA_EH_FRAME: &[u8] = b".rela.eh_frame";
    pub const REUSE: &[u8] = b".planks.reuse";
    pub const SEAL: &[u8] = b".planks.seal";
}

/// First bytes of the metadata section; the format version follows as a little-endian `u32`.
const METADATA_MAGIC: [u8; 8] = *b"PLNKCELL";
/// Bytes before the serialised header.
const METADATA_PREFIX: usize = METADATA_MAGIC.len() + 4;

/// Bytes of the zero length that ends `.eh_frame` in an image (LSB 10.6.1).
const TERMINATOR: [u8; 4] = [0; 4];
