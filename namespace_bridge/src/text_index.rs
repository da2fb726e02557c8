//! Which code an address belongs to: the index of all wasm text, which exception handlers may read.
//!
//! It is a [`RangeIndex`]: readers take no lock and allocate nothing, so [`TextIndex::read`] may be called anywhere, exception
//! context included. Text is registered by a guard, [`TextRegistration`].
#![deny(unsafe_code)]

use crate::code::LoadedCode;
use alloc::sync::Arc;
use core::ops::Range;
use runtime_port::range_index::{self, Found, RangeIndex, RangeIndexError};

/// What a range stands for: a cell's code; `None` for glue without a function of its own.
type Owner = Option<Arc<LoadedCode>>;

/// The index. One serves the whole system: [`TEXT`].
#[derive(Debug, Default)]
pub struct TextIndex(RangeIndex<Owner>);

/// The index of all wasm text and of the frames that a trap may jump over.
pub static TEXT: TextIndex = TextIndex::new();

/// What an address belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Text<'r>(Found<'r, Owner>);

impl<'r> Text<'r> {
    /// Whether the address is in this range.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        self.0.contains(address)
    }

    /// First address.
    pub fn start(&self) -> usize {
        self.0.start
    }

    /// All addresses.
    pub(crate) fn range(&self) -> Range<usize> {
        self.0.start..self.0.end
    }

    /// The cell's code; `None` for adapters and other glue without a function of its own.
    #[inline]
    pub fn code(&self) -> Option<&'r Arc<LoadedCode>> {
        self.0.value.as_ref()
    }
}

/// Owner of a place in the index; drop it before the pages of the text are freed.
#[derive(Debug)]
#[must_use = "the text is forgotten when this is dropped"]
pub struct TextRegistration {
    index: &'static TextIndex,
    start: usize,
}

impl Drop for TextRegistration {
    fn drop(&mut self) {
        self.index.0.remove(self.start);
    }
}

/// Registers a cell's text with the system's index.
///
/// # Errors
/// The text is empty or overlaps registered text, which is a defect of the caller; no memory.
pub fn register(code: Arc<LoadedCode>) -> Result<TextRegistration, RangeIndexError> {
    TEXT.register(code.text(), Some(code))
}

/// Registers code that makes frames but owns nothing to clean up (adapters, gates): traps may jump over it.
///
/// # Errors
/// As for [`register`].
pub fn register_glue(range: Range<usize>) -> Result<TextRegistration, RangeIndexError> {
    TEXT.register(range, None)
}

/// A reader's presence in the index. Short-lived; what it returns is valid while it lives.
#[derive(Debug)]
pub struct Reader<'i>(range_index::Reader<'i, Owner>);

impl Reader<'_> {
    /// What is registered at this address.
    #[inline]
    pub fn find(&self, address: usize) -> Option<Text<'_>> {
        self.0.find(address).map(Text)
    }

    /// What is registered at this address or next below it, and what is next above: the text that an entry beside it
    /// belongs to is one of them.
    pub(crate) fn near(&self, address: usize) -> [Option<Text<'_>>; 2] {
        self.0.near(address).map(|found| found.map(Text))
    }
}

impl TextIndex {
    /// An empty index.
    pub const fn new() -> Self {
        TextIndex(RangeIndex::new())
    }

    /// Starts reading. Lock-free; allowed in exception context.
    #[inline]
    pub fn read(&self) -> Reader<'_> {
        Reader(self.0.read())
    }

    /// See [`RangeIndex::removals`].
    #[inline]
    pub(crate) fn removals(&self) -> usize {
        self.0.removals()
    }

    fn register(&'static self, range: Range<usize>, code: Owner) -> Result<TextRegistration, RangeIndexError> {
        let start = range.start;
        self.0.insert(range, code)?;
        Ok(TextRegistration { index: self, start })
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no range is registered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
