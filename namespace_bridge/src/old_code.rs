//! The machine code of a module in use, mapped to be read by the compiler of its next version.
#![deny(unsafe_code)]

use crate::code::CellModule;
use alloc::sync::Arc;
use runtime_port::memory::{AllocatedPages, MappedPages, MemoryError, PteFlags};
use wasm_cell::reuse::OldVersion;

/// A module's frames, mapped readable for as long as this lives.
pub(crate) struct OldCode {
    module: Arc<CellModule>,
    frames: MappedPages,
}

impl OldCode {
    /// Maps the frames of a module. No instance of it needs to be loaded.
    pub fn map(module: &Arc<CellModule>) -> Result<OldCode, MemoryError> {
        let frames = module.frames();
        let pages = AllocatedPages::reserve(frames.size_in_bytes())?;
        let frames = MappedPages::from_frames(pages, frames, 0, PteFlags::new())?;
        Ok(OldCode { module: module.clone(), frames })
    }

    /// The module as the compiler wants it. A part that does not lie in the frames is empty; nothing is taken over then.
    pub fn version(&self) -> OldVersion<'_> {
        let (metadata, layout) = (self.module.metadata(), self.module.layout());
        let image = &metadata.image;
        let part = |offset: u32, size: u32| {
            self.frames.as_slice::<u8>(layout.text + offset as usize, size as usize).unwrap_or_default()
        };
        OldVersion {
            text: part(0, image.text_size),
            eh_frame: part(image.eh_frame_offset, image.eh_frame_size),
            metadata,
            reuse: self.module.reuse_table(),
        }
    }

    /// Bytes of a data segment.
    pub fn segment(&self, index: usize) -> Option<&[u8]> {
        let segment = self.module.metadata().data.get(index)?;
        let rodata = self.module.layout().text + self.module.metadata().image.rodata_offset as usize;
        self.frames.as_slice::<u8>(rodata + segment.rodata_offset as usize, segment.size as usize).ok()
    }
}
