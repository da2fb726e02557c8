//! Names for addresses.

use crate::platform::platform;
use crate::sync::RwLock;
use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

/// What is known about an address in code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Name of the function, demangled.
    pub name: String,
    /// Distance of the address from the function's start, in bytes, if that is known.
    pub offset: Option<usize>,
    /// What the function belongs to: a cell, an executable file.
    pub module: Option<String>,
    /// Place in the source text.
    pub location: Option<Location>,
}

/// A place in a source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// File name as the compiler recorded it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "{module}!")?;
        }
        f.write_str(&self.name)?;
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
        }
        match &self.location {
            Some(at) => write!(f, " at {at}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// Something that has a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Its address.
    pub address: usize,
    /// Its size in bytes; 0 if unknown.
    pub size: usize,
    /// Whether it is code.
    pub is_function: bool,
}

/// Somebody who knows names of code. Never called in exception context.
pub trait SymbolSource: Send + Sync {
    /// What has this symbol, spelled as in an object file. Only for what stays where it is for ever: code of the base
    /// image.
    fn find(&self, symbol: &str) -> Option<Definition> {
        let _ = symbol;
        None
    }

    /// What is known about this address (of an instruction, not a return address); `None` if it is not this source's.
    fn resolve(&self, pc: usize) -> Option<Symbol>;

    /// The function at this address and those it was inlined into, innermost first.
    fn resolve_inlined(&self, pc: usize) -> Vec<Symbol> {
        self.resolve(pc).into_iter().collect()
    }
}

static SOURCES: RwLock<Vec<Arc<dyn SymbolSource>>> = RwLock::new(Vec::new());

/// A source in force; it is asked no more when this is dropped.
#[must_use = "the source is asked no more when this is dropped"]
pub struct SourceRegistration(Arc<dyn SymbolSource>);

/// Makes a source known. It is asked before those that were there.
pub fn add_symbol_source(source: Arc<dyn SymbolSource>) -> SourceRegistration {
    SOURCES.write().push(source.clone());
    SourceRegistration(source)
}

impl Drop for SourceRegistration {
    fn drop(&mut self) {
        let mut sources = SOURCES.write();
        if let Some(i) = sources.iter().rposition(|s| Arc::ptr_eq(s, &self.0)) {
            let source = sources.remove(i);
            drop(sources);
            drop(source);
        }
    }
}

impl fmt::Debug for SourceRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceRegistration")
    }
}

/// What any source knows about this address.
pub fn resolve(pc: usize) -> Option<Symbol> {
    ask(|s| s.resolve(pc))
}

/// Like [`resolve`], with the functions that the function was inlined into. Empty if nobody knows the address.
pub fn resolve_inlined(pc: usize) -> Vec<Symbol> {
    ask(|s| Some(s.resolve_inlined(pc)).filter(|v| !v.is_empty())).unwrap_or_default()
}

/// What has this symbol (spelled as in an object file) in the base image.
pub fn find(symbol: &str) -> Option<Definition> {
    ask(|s| s.find(symbol))
}

/// Asks the registered sources, newest first, and then the platform. Sources are asked without the lock.
fn ask<R>(question: impl Fn(&dyn SymbolSource) -> Option<R>) -> Option<R> {
    let sources = SOURCES.read().clone();
    let registered = sources.iter().rev().find_map(|s| question(&**s));
    registered.or_else(|| platform().symbols().and_then(question))
}
