//! Which native cell and function an address belongs to: for backtraces, and for faults of native code, which are defects of
//! the kernel and fatal, but not nameless.
//!
//! Wasm text stands in the text index, which exception handlers read; native text must not, since a trap would take it for
//! frames that it may jump over.
#![deny(unsafe_code)]

use alloc::{collections::BTreeMap, string::String, string::ToString, sync::Arc, vec::Vec};
use core::ops::Range;
use runtime_port::backtrace::{SourceRegistration, Symbol, SymbolSource, add_symbol_source};
use runtime_port::sync::RwLock;

/// Names of one cell's code.
#[derive(Debug)]
pub(super) struct CodeNames {
    cell: Arc<str>,
    text: Range<usize>,
    /// Functions by address: start, size, name.
    functions: Vec<(usize, usize, Arc<str>)>,
}

static CELLS: RwLock<BTreeMap<usize, Arc<CodeNames>>> = RwLock::new(BTreeMap::new());
static SOURCE: spin::Once<SourceRegistration> = spin::Once::new();

/// Names in force; the addresses are nobody's when this is dropped.
#[derive(Debug)]
pub(super) struct NameRegistration(Arc<CodeNames>);

impl NameRegistration {
    /// Makes the names of a cell's code known.
    pub fn new(cell: &Arc<str>, text: Range<usize>, mut functions: Vec<(usize, usize, Arc<str>)>) -> NameRegistration {
        SOURCE.call_once(|| add_symbol_source(Arc::new(NativeSymbols)));
        functions.sort_unstable();
        let names = Arc::new(CodeNames { cell: cell.clone(), text, functions });
        CELLS.write().insert(names.text.start, names.clone());
        NameRegistration(names)
    }

    /// Name of the function at an address.
    pub fn function(&self, address: usize) -> Option<Arc<str>> {
        self.0.function(address).map(|(name, _)| name)
    }
}

impl Drop for NameRegistration {
    fn drop(&mut self) {
        let gone = CELLS.write().remove(&self.0.text.start);
        drop(gone);
    }
}

impl CodeNames {
    /// Name of the function at an address, and the offset in it.
    fn function(&self, address: usize) -> Option<(Arc<str>, usize)> {
        let at = self.functions.partition_point(|f| f.0 <= address).checked_sub(1)?;
        let (start, size, name) = self.functions.get(at)?;
        let offset = address - start;
        (*size == 0 || offset < *size).then(|| (name.clone(), offset))
    }
}

/// Names native cells in backtraces.
struct NativeSymbols;

impl SymbolSource for NativeSymbols {
    fn resolve(&self, pc: usize) -> Option<Symbol> {
        let cells = CELLS.read();
        let names = cells.range(..=pc).next_back().map(|(_, n)| n.clone()).filter(|n| n.text.contains(&pc))?;
        drop(cells);
        let function = names.function(pc);
        let name = function.as_ref().map_or_else(|| String::from("?"), |(name, _)| short(name).to_string());
        let module = Some(names.cell.to_string());
        Some(Symbol { name, offset: function.map(|f| f.1), module, location: None })
    }
}

/// Without the compiler's hash.
fn short(name: &str) -> &str {
    super::names::section_name_without_hash(name).trim_end_matches("::h")
}
