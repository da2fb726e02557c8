//! The name section: module and function names. A defect in it is ignored, as the core spec asks (7.4.1).

use crate::metadata::Metadata;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use wasmparser::{BinaryReader, Name, NameSectionReader};

/// Takes the names that can be read. `functions`: size of the function index space.
pub(crate) fn read(meta: &mut Metadata, functions: usize, section: BinaryReader<'_>) {
    for name in NameSectionReader::new(section) {
        match name {
            Ok(Name::Module { name, .. }) => meta.module_name = Some(name.to_string()),
            Ok(Name::Function(map)) => {
                let mut names: Vec<(u32, String)> = Vec::new();
                for naming in map.into_iter().map_while(Result::ok) {
                    if (naming.index as usize) < functions {
                        names.push((naming.index, naming.name.to_string()));
                    }
                }
                names.sort_by_key(|(index, _)| *index);
                names.dedup_by_key(|(index, _)| *index);
                meta.func_names = names;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
}
