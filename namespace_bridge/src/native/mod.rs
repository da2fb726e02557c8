//! Native cells: relocatable ELF64 x86-64 objects as rustc, gcc and clang emit them, loaded like wasm cells.
//!
//! An object becomes a cell in a *session* (`session`), together with the objects it needs: it is read and checked (`read`,
//! `object`), planned (`plan`: places, entries, slots, stubs), mapped (`image`), its imports are found (`resolve`), it is
//! relocated (`relocate`), and published with a section per symbol (`cell`). The file may be damaged, and then gives an error;
//! its code is trusted (D13).
//!
//! - Every exported function, and every other one whose address is written anywhere, has a stable entry (`entry_pages`, D6).
//! - Rust names are demangled as in Theseus (`names`): `crate::path::name::h<hash>`.
//! - Functions that are described (`export`; crate `cell_export`, `cell_export.h`) have a wasm type and can be imported by
//!   wasm cells as `CELL::EXPORT`.
//! - `.eh_frame` is rebuilt (`unwind_info`) and registered, so panics unwind through native cells.
//! - Initialisers run before the cell is visible, finalisers when it is unloaded (`lifecycle`).

mod adapters;
mod assume;
mod attribution;
mod cell;
mod entry_pages;
mod error;
mod export;
mod image;
mod implied;
mod lifecycle;
mod names;
mod object;
mod plan;
mod read;
mod relocate;
mod relocation;
mod resolve;
mod session;
mod stage;
mod unwind_info;

pub use error::{MissingSymbol, NativeError};
pub use image::NativeImage;
pub use names::{crate_name_from_path, section_name_without_hash};
pub use read::is_wasm_cell_object;
pub use relocation::{Reason, RelocationProblem, name as relocation_name};

pub(crate) use assume::assume_type;
pub(crate) use cell::ObjectBody;
pub(crate) use entry_pages::EntryPages;
pub(crate) use session::{Pending, Successor, SuccessorRequest, load, prepare};
