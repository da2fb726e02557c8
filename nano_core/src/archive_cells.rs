//! Cells that are needed but not loaded, from the files of the boot archive: `NAME.o`, `NAME-HASH.o`, `NAME.wasm`, in any folder of it.

use alloc::sync::Arc;
use namespace_bridge::{CellSource, CrateNamespace, CrateProvider, native::crate_name_from_path};
use nano_core::archive::{Archive, Entry};
use runtime_port::{heap, println};

/// The cells of a folder of the boot archive, and of the folders in it.
struct ArchiveCells {
    archive: Archive<'static>,
    folder: &'static str,
}

/// Lets a namespace load what it needs from the files of the boot archive whose path begins with `folder`.
pub fn provide(namespace: &CrateNamespace, archive: Archive<'static>, folder: &'static str) {
    namespace.add_provider(Arc::new(ArchiveCells { archive, folder }));
}

impl ArchiveCells {
    fn could_be(&self, entry: &Entry<'_>, name: &str) -> bool {
        let is_crate = entry.name.ends_with(".o") || entry.name.ends_with(".wasm");
        let is_here = entry.name.starts_with(self.folder);
        is_crate && is_here && entry.is_file() && crate_name_from_path(entry.name) == Some(name)
    }
}

impl CrateProvider for ArchiveCells {
    fn find(&self, name: &str) -> Option<CellSource> {
        let mut files = self.archive.entries().filter(|entry| self.could_be(entry, name));
        let file = files.next()?;
        if let Some(other) = files.next() {
            println!("`{name}` is not loaded: both {} and {} of the boot archive could be it", file.name, other.name);
            return None;
        }
        match heap::try_to_vec(file.content) {
            Ok(bytes) => CellSource::of_bytes(bytes),
            Err(_) => {
                println!("`{name}` is not loaded: no memory for {} ({} bytes)", file.name, file.content.len());
                None
            }
        }
    }
}
