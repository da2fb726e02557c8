//! Native cells: relocatable ELF64 x86-64 objects as rustc, gcc and clang emit them, loaded like wasm cells.

mod entry_pages;

pub(crate) use entry_pages::EntryPages;
