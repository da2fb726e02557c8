//! Names of code, for reports: of cells from their own tables, of the base image from a file of the boot archive.
//!
//! `xtask` and `planks boot` put the file there: a line for each function, its address in hexadecimal and its name, sorted by
//! address. Nothing here allocates or locks.

use core::fmt;
use namespace_bridge::text_index::TEXT;
use nano_core::archive::Archive;

/// Name of the file.
const FILE: &str = "nano_core.sym";

static TABLE: spin::Once<&'static str> = spin::Once::new();

/// Takes the names of the base image from the boot archive, if it has them.
pub fn init(archive: &Archive<'static>) {
    if let Some(text) = archive.file(FILE).and_then(|bytes| core::str::from_utf8(bytes).ok()) {
        TABLE.call_once(|| text);
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

/// The last name of the table whose address is not above this one, and the distance from it.
fn in_table(table: &'static str, address: usize) -> Option<(&'static str, usize)> {
    let entries = table.lines().filter_map(|line| {
        let (start, name) = line.split_once(' ')?;
        Some((usize::from_str_radix(start, 16).ok()?, name))
    });
    entries.take_while(|(start, _)| *start <= address).last().map(|(start, name)| (name, address - start))
}
