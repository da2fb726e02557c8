//! Backtraces: the return addresses of a stack, and names for them.
//!
//! Walking costs two loads a frame and needs no lock, so a trap records only addresses; names are looked up when
//! somebody reads them. Who has code registers a [`SymbolSource`] for it; the port's own native code comes last.

mod frames;
mod symbols;
#[cfg(test)]
#[cfg(feature = "hosted")]
mod tests;

pub use frames::{Frame, FramePointers, Frames, capture};
pub use symbols::{
    Definition, Location, SourceRegistration, Symbol, SymbolSource, add_symbol_source, find, resolve, resolve_inlined,
};
