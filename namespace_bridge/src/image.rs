//! The image of one instance: shared entries, text and rodata beside a private data block.
//!
//! Everything in it lies at fixed distances, so the code finds its data block and the entries their version word without
//! a relocation. The image lives as long as anybody holds a share: the instance, its globals. Its entries have a share of the pages
//! alone: if their addresses may be held anywhere, what they need of the pages stays when the image goes.

use crate::code::CellModule;
use crate::code::ModuleLayout;
use crate::entries::EntryPlace;
use crate::gate::STUB_SIZE;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::{AtomicBool, Ordering};
use kernel_config::cell::ENTRY_SIZE;
use runtime_port::memory::{ImageMapping, KeptPages, MemoryError};
use spin::Mutex;

/// A mapped image.
#[derive(Debug)]
pub struct CellImage {
    start: usize,
    pages: Arc<ImagePages>,
    layout: ModuleLayout,
    text_size: usize,
    rodata: Range<usize>,
    eh_frame: Range<usize>,
    data_size: usize,
}

impl CellImage {
    /// Maps the module's frames beside a zeroed data block.
    pub(crate) fn map(module: &CellModule) -> Result<Arc<CellImage>, MemoryError> {
        let (layout, sizes) = (module.layout(), &module.metadata().image);
        let mapping = ImageMapping::new(module.frames(), layout.ranges)?;
        let start = mapping.start_address().value();
        let text = start + layout.text;
        let part = |offset: u32, size: u32| text + offset as usize..text + offset as usize + size as usize;
        Ok(Arc::new(CellImage {
            layout,
            text_size: sizes.text_size as usize,
            rodata: part(sizes.rodata_offset, sizes.rodata_size),
            eh_frame: part(sizes.eh_frame_offset, sizes.eh_frame_size),
            data_size: sizes.data_size as usize,
            start,
            pages: Arc::new(ImagePages {
                entries: start + layout.first_entry..start + layout.first_entry + layout.entries * ENTRY_SIZE,
                words: start + layout.version_word..start + layout.ranges.total(),
                mapped: Mutex::new(Mapped::Whole(mapping)),
                in_use: AtomicBool::new(true),
                keep: AtomicBool::new(false),
            }),
        }))
    }

    fn start(&self) -> usize {
        self.start
    }

    /// Its pages, for the entries in them.
    pub(crate) fn pages(&self) -> &Arc<ImagePages> {
        &self.pages
    }

    /// Addresses of the whole image.
    pub fn range(&self) -> Range<usize> {
        self.start()..self.start() + self.layout.ranges.total()
    }

    /// Addresses of the text section.
    pub fn text(&self) -> Range<usize> {
        let start = self.start() + self.layout.text;
        start..start + self.text_size
    }

    /// Addresses of the read-only data.
    pub fn rodata(&self) -> Range<usize> {
        self.rodata.clone()
    }

    /// Addresses of `.eh_frame`.
    pub fn eh_frame(&self) -> Range<usize> {
        self.eh_frame.clone()
    }

    /// Addresses of the data block.
    pub fn data(&self) -> Range<usize> {
        let start = self.start() + self.layout.data;
        start..start + self.data_size
    }

    /// Addresses of the stable entries.
    pub fn entries(&self) -> Range<usize> {
        let start = self.start() + self.layout.first_entry;
        start..start + self.layout.entries * ENTRY_SIZE
    }

    /// Addresses of the stable entries and the gate stubs behind them.
    pub(crate) fn entry_code(&self) -> Range<usize> {
        let offsets = self.layout.entry_code();
        self.start() + offsets.start..self.start() + offsets.end
    }

    /// Bytes of a data segment.
    pub fn segment(&self, offset: u32, size: u32) -> &[u8] {
        let start = (self.rodata.start + offset as usize).min(self.rodata.end);
        let end = (start + size as usize).min(self.rodata.end);
        // SAFETY: the range was cut to the rodata, which is mapped readable while `self` lives and written by nobody.
        unsafe { core::slice::from_raw_parts(start as *const u8, end - start) }
    }

    /// Address of `bytes` bytes at an offset of the data block.
    ///
    /// # Panics
    /// When they leave the block: `CellModule::new` checked every offset of the layout.
    pub fn data_address(&self, offset: u32, bytes: usize) -> usize {
        assert!(offset as usize + bytes <= self.data_size, "data layout was checked when the module was made");
        self.start() + self.layout.data + offset as usize
    }

    /// Writes a word of the data block.
    pub(crate) fn write_word(&self, offset: u32, value: usize) {
        // SAFETY: `data_address` checks the range; the block is mapped writable, and only words go through here.
        unsafe { (self.data_address(offset, 8) as *mut usize).write_unaligned(value) };
    }

    /// Reads a word of the data block.
    pub(crate) fn read_word(&self, offset: u32) -> usize {
        // SAFETY: as in `write_word`.
        unsafe { (self.data_address(offset, 8) as *const usize).read_unaligned() }
    }

    /// The word by which gate stubs find the gate, if there are stubs.
    pub(crate) fn gate_word(&self) -> Option<&AtomicUsize> {
        (self.layout.gate != 0).then(|| self.word_at(self.layout.gate))
    }

    /// The word by which the routine behind the stubs finds the instance's record, if there are stubs.
    pub(crate) fn gate_instance(&self) -> Option<&AtomicUsize> {
        (self.layout.gate != 0).then(|| self.word_at(self.layout.gate + 8))
    }

    /// Where the entries and what belongs to them lie.
    pub(crate) fn entry_place(&self) -> EntryPlace {
        let version_word = self.start() + self.layout.version_word;
        EntryPlace { first: self.entries().start, version_word, gone_table: version_word + 8 }
    }

    /// Addresses of the gate stubs, if there are any.
    pub(crate) fn gate_stubs(&self) -> Option<Range<usize>> {
        let start = self.gate_stub(0)?;
        Some(start..start + self.layout.entries * STUB_SIZE)
    }

    /// Address of the gate stub of the function with stable entry `k`, if there are stubs.
    pub(crate) fn gate_stub(&self, k: usize) -> Option<usize> {
        let stubs = (self.layout.first_stub != 0).then(|| self.start() + self.layout.first_stub)?;
        (k < self.layout.entries).then(|| stubs + k * STUB_SIZE)
    }

    fn word_at(&self, offset: usize) -> &AtomicUsize {
        // SAFETY: version word and table lie behind the data block in the writable part of the image (`ModuleLayout`),
        // 8-aligned, and are accessed atomically only.
        unsafe { &*((self.start() + offset) as *const AtomicUsize) }
    }
}

impl Drop for CellImage {
    fn drop(&mut self) {
        self.pages.in_use.store(false, Ordering::SeqCst);
        self.pages.keep_entries_only();
    }
}

/// The pages of an image.
#[derive(Debug)]
pub(crate) struct ImagePages {
    /// Addresses of the entries.
    entries: Range<usize>,
    /// Addresses of version word and table.
    words: Range<usize>,
    mapped: Mutex<Mapped>,
    /// Whether anybody uses more of them than the entries.
    in_use: AtomicBool,
    /// Whether the entries outlive the image.
    keep: AtomicBool,
}

#[derive(Debug)]
enum Mapped {
    Whole(ImageMapping),
    /// What the entries need.
    Entries(#[expect(dead_code, reason = "held, not read")] KeptPages),
    Nothing,
}

impl ImagePages {
    /// Has what the entries need stay when the image goes, and nothing else: text, read-only data and data block are given back.
    pub(crate) fn keep_entries(&self) {
        self.keep.store(true, Ordering::SeqCst);
        self.keep_entries_only();
    }

    fn keep_entries_only(&self) {
        if self.in_use.load(Ordering::SeqCst) || !self.keep.load(Ordering::SeqCst) {
            return;
        }
        let mut mapped = self.mapped.lock();
        *mapped = match core::mem::replace(&mut *mapped, Mapped::Nothing) {
            // SAFETY: nobody uses the image any more, and of the pages only the block of the entries has a share. Entries are only
            // executed and read.
            Mapped::Whole(image) => match unsafe { image.keep_only(self.entries.clone(), self.words.clone()) } {
                Ok(kept) => Mapped::Entries(kept),
                // There was no memory for it: everything stays.
                Err(image) => Mapped::Whole(image),
            },
            other => other,
        };
    }
}
