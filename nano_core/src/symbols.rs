//! Names of the base image and of other code: for reports, for backtraces, and for native cells, which link to the base image.
//!
//! The base image's are in a file of the boot archive, where `xtask` and `planks boot` put it: a line for each symbol, its address and
//! size in hexadecimal, its kind and its name, sorted by address. Kind `F` is a function and `D` is data that can be linked to;
//! `f` and `d` are there for reports, which neither allocate nor lock.

use alloc::{format, string::ToString, sync::Arc, vec::Vec};
use core::fmt;
use namespace_bridge::text_index::TEXT;
use nano_core::archive::Archive;
use runtime_port::backtrace::{Definition, Symbol, SymbolSource, add_symbol_source};

/// Name of the file.
const FILE: &str = "nano_core.sym";

static TABLE: spin::Once<&'static str> = spin::Once::new();

/// Takes the names of the base image from the boot archive, if it has them.
pub fn init(archive: &Archive<'static>) {
    if let Some(text) = archive.file(FILE).and_then(|bytes| core::str::from_utf8(bytes).ok()) {
        TABLE.call_once(|| text);
        // For as long as the kernel runs.
        core::mem::forget(add_symbol_source(Arc::new(BaseImage::of(text))));
    }
}

/// A line of the table.
struct Line {
    address: usize,
    size: usize,
    kind: u8,
    name: &'static str,
}

impl Line {
    fn parse(line: &'static str) -> Option<Line> {
        let mut words = line.splitn(4, ' ');
        let mut number = || usize::from_str_radix(words.next()?, 16).ok();
        let (address, size) = (number()?, number()?);
        let kind = *words.next()?.as_bytes().first()?;
        Some(Line { address, size, kind, name: words.next()? })
    }

    fn is_function(&self) -> bool {
        self.kind.eq_ignore_ascii_case(&b'f')
    }
}

/// The base image as a source of symbols.
struct BaseImage {
    text: &'static str,
    /// Offsets of the lines of what can be linked to, ascending by name. Empty when memory was short: then all lines are read.
    by_name: Vec<u32>,
}

impl BaseImage {
    fn of(text: &'static str) -> BaseImage {
        let mut by_name = Vec::new();
        if by_name.try_reserve_exact(text.lines().count()).is_ok() {
            let start = text.as_ptr().addr();
            let offset = |line: &str| u32::try_from(line.as_ptr().addr() - start).ok();
            let linkable = |line: &&'static str| Line::parse(line).is_some_and(|l| l.kind.is_ascii_uppercase());
            by_name.extend(text.lines().filter(linkable).filter_map(offset));
        }
        let mut this = BaseImage { text, by_name };
        let mut by_name = core::mem::take(&mut this.by_name);
        by_name.sort_unstable_by_key(|offset| this.line_at(*offset).map(|l| l.name));
        this.by_name = by_name;
        this
    }

    fn line_at(&self, offset: u32) -> Option<Line> {
        Line::parse(self.text.get(offset as usize..)?.lines().next()?)
    }
}

impl SymbolSource for BaseImage {
    fn find(&self, symbol: &str) -> Option<Definition> {
        let line = if self.by_name.is_empty() {
            let lines = self.text.lines().filter_map(Line::parse);
            lines.into_iter().find(|l| l.name == symbol && l.kind.is_ascii_uppercase())?
        } else {
            let name = |offset: &u32| self.line_at(*offset).map_or("", |l| l.name);
            let at = self.by_name.binary_search_by(|offset| name(offset).cmp(symbol)).ok()?;
            self.line_at(*self.by_name.get(at)?)?
        };
        Some(Definition { address: line.address, size: line.size, is_function: line.is_function() })
    }

    fn resolve(&self, pc: usize) -> Option<Symbol> {
        let image = crate::image::text();
        let (name, offset) = (image.0..image.1).contains(&pc).then(|| in_table(self.text, pc)).flatten()?;
        let name = format!("{:#}", rustc_demangle::demangle(name));
        Some(Symbol { name, offset: Some(offset), module: Some("nano_core".to_string()), location: None })
    }
}

/// Writes what is known about the code at an address.
pub struct Place(pub usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = crate::image::text();
        if (image.0..image.1).contains(&self.0) {
            return match TABLE.get().and_then(|table| in_table(table, self.0)) {
                Some((name, offset)) => write!(f, "{:#}+{offset:#x}", rustc_demangle::demangle(name)),
                None => f.write_str("base image"),
            };
        }
        let reader = TEXT.read();
        let Some(text) = reader.find(self.0) else { return f.write_str("outside of all code") };
        let offset = self.0 - text.start();
        let Some(code) = text.code() else { return write!(f, "entry or adapter+{offset:#x}") };
        let metadata = code.metadata();
        let function = u32::try_from(offset).ok().and_then(|at| metadata.func_at(at));
        match function.map(|i| (i, metadata.func_name(i))) {
            Some((_, Some(name))) => write!(f, "{}!{name} (text+{offset:#x})", code.cell()),
            Some((i, None)) => write!(f, "{}!func[{i}] (text+{offset:#x})", code.cell()),
            None => write!(f, "{}!text+{offset:#x}", code.cell()),
        }
    }
}

/// The last function of the table whose address is not above this one, and the distance from it.
fn in_table(table: &'static str, address: usize) -> Option<(&'static str, usize)> {
    let functions = table.lines().filter_map(Line::parse).take_while(|line| line.address <= address);
    functions.filter(Line::is_function).last().map(|line| (line.name, address - line.address))
}
