//! What can be wrong with a native object. Every variant names the section or symbol, and the compiler flag where one helps.
#![deny(unsafe_code)]

use super::relocation::RelocationProblem;
use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;
use runtime_port::memory::MemoryError;
use thiserror::Error;

/// Why a native object cannot become a cell.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NativeError {
    /// The bytes are something else. Compile with `rustc --emit=obj` or `cc -c`.
    #[error("no relocatable ELF64 x86-64 object: {0}. Compile with `rustc --emit=obj` or `cc -c`")]
    NotRelocatable(String),
    /// The file contradicts itself. Compile it again.
    #[error("damaged object: {0}. Compile it again")]
    Damaged(String),
    /// A section that cannot be loaded.
    #[error("section `{section}`: {reason}")]
    Section {
        /// Its name.
        section: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Thread-local storage: tasks that run already have no room for it.
    #[error(
        "`{symbol}` is thread-local: cells have no thread-local storage. Use an atomic or a static behind a lock instead"
    )]
    ThreadLocal {
        /// The symbol.
        symbol: String,
    },
    /// A function that chooses its implementation when it is linked.
    #[error("`{symbol}` is an indirect function (STT_GNU_IFUNC): choose the implementation in an ordinary function")]
    IndirectFunction {
        /// The symbol.
        symbol: String,
    },
    /// Larger than a cell may be.
    #[error("its sections need {0} bytes, more than a cell may have (kernel_config::limits::CELL_BYTES)")]
    TooLarge(usize),
    /// Relocations that cannot be applied: all of them.
    #[error("{} cannot be linked{}", count(.0.len(), "reference"), lines(.0))]
    Relocations(Vec<RelocationProblem>),
    /// Symbols that nobody defines: all of them.
    #[error("{} not found{}", count(.0.len(), "symbol"), lines(.0))]
    Missing(Vec<MissingSymbol>),
    /// Two cells define the same symbol.
    #[error(
        "symbol `{symbol}` is defined by cell `{holder}` already: rename one, make one `static`, or unload that cell"
    )]
    Duplicate {
        /// The symbol.
        symbol: String,
        /// Who has it.
        holder: Arc<str>,
    },
    /// A typed description that says something impossible.
    #[error("export description {index}: {reason}")]
    Export {
        /// Its position.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// An initialiser panicked.
    #[error("its initialiser `{function}` panicked: {message}")]
    Init {
        /// The function.
        function: String,
        /// The panic's message.
        message: String,
    },
    /// No memory for it.
    #[error("no memory for its {what}: {source}")]
    Memory {
        /// For what.
        what: &'static str,
        /// The port's reason.
        source: MemoryError,
    },
    /// The code generator refused an adapter.
    #[error("no adapter for `{symbol}`: {reason}")]
    Adapter {
        /// The function.
        symbol: String,
        /// What the compiler says.
        reason: String,
    },
}

impl NativeError {
    pub(super) fn damaged(text: impl Into<String>) -> NativeError {
        NativeError::Damaged(text.into())
    }
}

/// A symbol that nobody defines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingSymbol {
    /// Its name, demangled.
    pub symbol: String,
    /// Symbols that exist and are spelled alike, or differ in the compiler's hash only.
    pub nearest: Vec<String>,
    /// Why a cell that could have defined it was not loaded.
    pub because: Option<String>,
}

impl fmt::Display for MissingSymbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.symbol)?;
        for (i, name) in self.nearest.iter().enumerate() {
            write!(f, "{} `{name}`", if i == 0 { "; there is" } else { "," })?;
        }
        match &self.because {
            Some(why) => write!(f, "; {why}"),
            None => Ok(()),
        }
    }
}

fn count(n: usize, what: &str) -> String {
    alloc::format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// How many problems an error shows.
const SHOWN: usize = 20;

fn lines<T: fmt::Display>(items: &[T]) -> String {
    let mut text: String = items.iter().take(SHOWN).map(|i| alloc::format!("\n  {i}")).collect();
    if items.len() > SHOWN {
        text.push_str(&alloc::format!("\n  and {} more", items.len() - SHOWN));
    }
    text
}
