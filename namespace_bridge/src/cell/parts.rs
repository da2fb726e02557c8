//! The parts of a wasm cell's image as sections: `.text`, `.rodata`, `.data`, `.eh_frame`.
//!
//! They are made when somebody first asks: a cell that imports nothing and that nobody inspects does without them.
#![deny(unsafe_code)]

use super::LoadedCrate;
use crate::code::LoadedCode;
use crate::section::{LoadedSection, SectionItem, SectionType, StrongSectionRef};
use alloc::sync::Weak;
use core::ops::Range;
use spin::Once;

/// Position of `.data`.
const DATA: usize = 2;

/// The sections of a cell's image, once they were asked for.
pub(super) struct ImageParts {
    cell: Weak<LoadedCrate>,
    made: Once<[StrongSectionRef; 4]>,
}

impl ImageParts {
    /// Those of this cell.
    pub(super) fn of(cell: Weak<LoadedCrate>) -> ImageParts {
        ImageParts { cell, made: Once::new() }
    }

    /// All of them, in the order of the image, `.eh_frame`, which is the end of `.rodata`, last. Always the same ones.
    pub(super) fn all(&self, code: &LoadedCode) -> &[StrongSectionRef; 4] {
        if let Some(made) = self.made.get() {
            return made;
        }
        // Made before the cell is locked: there may be no memory.
        let made = self.make(code);
        self.made.call_once(|| made)
    }

    /// The section in which dependencies on others are written.
    pub(super) fn data(&self, code: &LoadedCode) -> &StrongSectionRef {
        &self.all(code)[DATA]
    }

    /// The same, if there is one: without it there are no dependencies.
    pub(super) fn data_if_made(&self) -> Option<&StrongSectionRef> {
        self.made.get().map(|all| &all[DATA])
    }

    fn make(&self, code: &LoadedCode) -> [StrongSectionRef; 4] {
        let (image, text) = (code.metadata().image, code.text());
        let behind_text = |offset: u32, size: u32| {
            let start = text.start + offset as usize;
            start..start + size as usize
        };
        let part = |typ: SectionType, range: Range<usize>| {
            LoadedSection::new(typ.name().into(), typ, range, self.cell.clone(), SectionItem::Part)
        };
        [
            part(SectionType::Text, text.clone()),
            part(SectionType::Rodata, behind_text(image.rodata_offset, image.rodata_size)),
            part(SectionType::Data, behind_text(image.data_offset, image.data_size)),
            part(SectionType::EhFrame, behind_text(image.eh_frame_offset, image.eh_frame_size)),
        ]
    }
}
