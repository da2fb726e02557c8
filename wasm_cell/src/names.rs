//! The name section: module and function names. A defect in it is ignored, as the core spec asks (7.4.1).

use crate::func_names::FuncNames;
use crate::metadata::Metadata;
use alloc::string::ToString;
use wasmparser::{BinaryReader, Name, NameSectionReader};

/// Takes the names that can be read. `functions`: size of the function index space.
pub(crate) fn read(meta: &mut Metadata, functions: usize, section: BinaryReader<'_>) {
    for name in NameSectionReader::new(section) {
        match name {
            Ok(Name::Module { name, .. }) => meta.module_name = Some(name.to_string()),
            Ok(Name::Function(map)) => {
                let named = map.into_iter().map_while(Result::ok).filter(|n| (n.index as usize) < functions);
                meta.func_names = FuncNames::of(named.map(|n| (n.index, n.name)).collect());
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
}
