//! Unloading: refused while others depend on the cell, unless by force.
#![deny(unsafe_code)]

use super::CrateNamespace;
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::error::UnloadError;
use crate::linker::nearest;
use crate::retire;
use alloc::{format, string::String, sync::Arc, vec::Vec};
use runtime_port::heap::{guarded, without_failing};

/// Why a cell is in use, if it is. The cells looked at go to `held`, to be dropped when the namespace is unlocked: dropping
/// the last share of a cell locks it.
pub(super) fn in_use(cell: &StrongCrateRef, held: &mut Vec<StrongCrateRef>) -> Option<UnloadError> {
    let mut dependents: Vec<String> = Vec::new();
    for section in cell.global_sections() {
        for dependent in section.dependents() {
            let line = format!("`{}` (through `{}`)", dependent.crate_name, section.name);
            if LoadedCrate::counts_as_dependent(&dependent, cell) && !dependents.contains(&line) {
                dependents.push(line);
            }
            held.push(dependent);
        }
    }
    if dependents.is_empty() { None } else { Some(UnloadError::InUse { cell: cell.crate_name.clone(), dependents }) }
}

impl CrateNamespace {
    /// Unloads a cell of this very namespace. Its memory goes as soon as no task can be inside. Refused, naming the
    /// dependents, while another cell depends on it.
    pub fn unload(&self, name: &str) -> Result<(), UnloadError> {
        guarded(|| {
            retire::on_clear_stack(|| {
                let mut held = Vec::new();
                self.unload_if(name, |cell| in_use(cell, &mut held).map_or(Ok(()), Err))
            })
        })?
    }

    /// Unloads a cell even if others depend on it: calls of its functions then trap with `FunctionGone`; memories, tables
    /// and globals that others use stay as long as they do.
    pub fn unload_force(&self, name: &str) -> Result<(), UnloadError> {
        guarded(|| retire::on_clear_stack(|| self.unload_if(name, |_| Ok(()))))?
    }

    fn unload_if(
        &self,
        name: &str,
        allowed: impl FnOnce(&StrongCrateRef) -> Result<(), UnloadError>,
    ) -> Result<(), UnloadError> {
        // Dropped after the tables are open again: the last share of a cell needs them.
        let cell;
        let mut tables = self.tables.write();
        let Some(found) = tables.crates.get(name) else {
            let nearest = nearest(name, tables.crates.keys().map(|k| &**k));
            return Err(UnloadError::NotFound { namespace: self.name.clone(), cell: name.into(), nearest });
        };
        cell = found.clone();
        allowed(&cell)?;
        // Whatever takes memory comes before the first change.
        retire::reserve()?;
        let sections = cell.global_sections();
        let same = |(alias, c): (&Arc<str>, &StrongCrateRef)| Arc::ptr_eq(c, &cell).then(|| alias.clone());
        let aliases: Vec<_> = tables.aliases.iter().filter_map(same).collect();
        without_failing(|| {
            tables.crates.remove(name);
            for alias in aliases {
                tables.aliases.remove(&alias);
            }
            tables.remove_sections(&cell, &sections);
            drop(tables);
            self.finish(&cell);
        });
        Ok(())
    }
}
