//! Functions and data that are in the image for native cells, though the kernel itself may have no use for them.
//!
//! Optimising over all crates drops what nobody refers to, and changes how functions are called whose callers are all known. What has
//! its address in a table is spared both. The build writes the table (`build.rs`): `.native_cells` has the addresses, `.native_cells.names` the names in the
//! same order, each with a zero byte behind it. The second is not loaded; who makes `nano_core.sym` reads both, because equal functions
//! become one, which has but one of their names in the symbol table.
//!
//! A crate has other declarations of some of these functions; here only addresses are taken, so types do not matter, but that they unwind does.
#![allow(unsafe_code)]

/// The address of a function or of data.
#[repr(transparent)]
struct Address(*const u8);

// SAFETY: nobody does anything with it here.
unsafe impl Sync for Address {}

include!(concat!(env!("OUT_DIR"), "/linkable.rs"));
