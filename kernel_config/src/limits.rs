//! Limits on untrusted modules. Exceeding one is an error that names the limit, never an abort.
//!
//! Where the WebAssembly JavaScript Interface gives a figure ("Implementation-defined Limits"), it is taken from there.

/// Bytes of a module.
pub const MODULE_BYTES: usize = 1 << 30;
/// Functions of a module, imports included.
pub const FUNCTIONS: usize = 1_000_000;
/// Bytes of one function body.
pub const FUNCTION_BYTES: usize = 7_654_321;
/// Locals of one function, parameters included.
pub const LOCALS: usize = 50_000;
/// Parameters of a function type.
pub const PARAMS: usize = 1_000;
/// Results of a function type.
pub const RESULTS: usize = 1_000;
/// Types of a module.
pub const TYPES: usize = 1_000_000;
/// Nesting of blocks in a function.
pub const NESTING: usize = 10_000;
/// Globals of a module.
pub const GLOBALS: usize = 1_000_000;
/// Memories of a module.
pub const MEMORIES: usize = 100;
/// Tables of a module.
pub const TABLES: usize = 100_000;
/// Imports of a module.
pub const IMPORTS: usize = 100_000;
/// Exports of a module.
pub const EXPORTS: usize = 100_000;
/// Data segments of a module.
pub const DATA_SEGMENTS: usize = 100_000;
/// Bytes of all data segments of a module together.
pub const DATA_BYTES: usize = 1 << 30;
/// Element segments of a module.
pub const ELEMENT_SEGMENTS: usize = 10_000_000;
/// Elements of all element segments of a module together.
pub const ELEMENTS: usize = 10_000_000;
/// Bytes of machine code of a cell: text, rodata and data of a cell lie in one reservation of at most this size,
/// so that every distance fits a signed 32-bit displacement.
pub const CELL_BYTES: usize = 1 << 30;
/// Bytes of a function, export or import name.
pub const NAME_BYTES: usize = 100_000;
/// Cells that wait for each other while one is loaded on demand for the next: each takes some of the loading task's stack.
pub const LOAD_CHAIN: usize = 32;
