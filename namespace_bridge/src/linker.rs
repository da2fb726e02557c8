//! Linking: finds what each import names and checks that it fits (core spec, 4.5.4 and 3.4 "Matching").
//!
//! All problems of a module are reported at once, each with the expected type and the nearest names that exist.
#![deny(unsafe_code)]

use crate::code::CellModule;
use crate::error::{ImportProblem, LinkError, LoadError};
use crate::namespace::CrateNamespace;
use crate::options::LoadOptions;
use crate::section::{SectionItem, StrongSectionRef};
use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};
use wasm_cell::{
    metadata::Import,
    types::{ExternType, GlobalType, MemoryStyle, TableType, ValType},
};

/// Cells that are not in a namespace yet, or not any more, by their names and those of exports. `None`: it says nothing of a cell of this name.
/// `Some(None)`: there is no such export.
pub(crate) type Over<'a> = dyn Fn(&str, &str) -> Option<Option<StrongSectionRef>> + 'a;

/// Where imports are looked up: a namespace, and cells that are not in it yet, or not any more.
pub(crate) struct Scope<'a> {
    /// The namespace.
    pub namespace: &'a CrateNamespace,
    /// What counts instead, where it says anything.
    pub over: &'a Over<'a>,
}

impl<'a> Scope<'a> {
    /// A namespace as it is.
    pub(crate) fn of(namespace: &'a CrateNamespace) -> Scope<'a> {
        Scope { namespace, over: &|_, _| None }
    }
}

/// Finds a section for every import of the module, in order.
pub(crate) fn resolve(
    scope: &Scope<'_>,
    cell: &Arc<str>,
    module: &CellModule,
    options: &LoadOptions,
    loading: &mut Vec<Arc<str>>,
) -> Result<Vec<StrongSectionRef>, LoadError> {
    let m = module.metadata();
    let mut found = Vec::with_capacity(m.imports.len());
    let mut problems = Vec::new();
    let mut memories = 0;
    for import in &m.imports {
        let style = matches!(import.ty, ExternType::Memory(_)).then(|| {
            memories += 1;
            m.memories.get(memories - 1).map_or(MemoryStyle::Checked, |m| m.style)
        });
        let coming = (scope.over)(&import.module, &import.name);
        // The entries of a cell that comes may be those of one that was unloaded.
        let is_new = coming.is_some();
        let section = match coming.map_or_else(|| find(scope.namespace, import, options, loading), Ok) {
            Ok(section) => section,
            Err(e @ (LoadError::Cycle(_) | LoadError::ChainTooLong { .. })) => return Err(e),
            Err(error) => {
                problems.push(ImportProblem::Provider { module: import.module.clone(), error: error.to_string() });
                continue;
            }
        };
        match section {
            None => problems.push(missing(scope.namespace, import)),
            Some(section) if matches!(section.item, SectionItem::Native(_)) => {
                match native_symbol(cell, import, &section, options)? {
                    Some(assumed) => found.push(assumed),
                    None => problems.push(ImportProblem::Undescribed {
                        module: import.module.clone(),
                        name: import.name.clone(),
                        expected: import.ty.clone(),
                    }),
                }
            }
            Some(section) => match check(&import.ty, style, &section.item, is_new) {
                Ok(()) => found.push(section),
                Err(reason) => problems.push(mismatch(import, &section.item, reason)),
            },
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(LinkError { cell: cell.clone(), problems }.into()) }
}

/// A symbol of a native cell under the type that an import gives it, if the caller vouched for that.
fn native_symbol(
    cell: &Arc<str>,
    import: &Import,
    section: &StrongSectionRef,
    options: &LoadOptions,
) -> Result<Option<StrongSectionRef>, LoadError> {
    match &import.ty {
        ExternType::Func(ty) if options.assumes_native_types => crate::native::assume_type(cell, section, ty),
        _ => Ok(None),
    }
}

/// Finds what an import names in a namespace as it is, or with its providers.
pub(crate) fn find(
    namespace: &CrateNamespace,
    import: &Import,
    options: &LoadOptions,
    loading: &mut Vec<Arc<str>>,
) -> Result<Option<StrongSectionRef>, LoadError> {
    if let Some(section) = namespace.find_export(&import.module, &import.name) {
        return Ok(Some(section));
    }
    if !options.providers || namespace.get_crate(&import.module).is_some() {
        return Ok(None);
    }
    match namespace.load_from_providers(&import.module, loading)? {
        Some(cell) => Ok(cell.export(&import.name)),
        None => Ok(None),
    }
}

/// Whether an item may stand for an import of this type. The error says what the types alone do not show.
fn check(
    expected: &ExternType,
    style: Option<MemoryStyle>,
    item: &SectionItem,
    is_new: bool,
) -> Result<(), &'static str> {
    let fits = |condition: bool| if condition { Ok(()) } else { Err("") };
    match (expected, item) {
        (ExternType::Func(want), SectionItem::Func(have)) => {
            if have.is_gone() && !is_new {
                return Err("its cell has been unloaded");
            }
            // Types are equal when their canonical structures are; the registry proved the hashes unique.
            fits(want.hash == have.ty().hash)
        }
        (ExternType::Memory(want), SectionItem::Memory(memory)) => {
            let have = memory.ty();
            fits(
                want.is64 == have.is64
                    && want.shared == have.shared
                    && want.page_size_log2 == have.page_size_log2
                    && limits_fit((want.min, want.max), (have.min, have.max)),
            )?;
            match style {
                Some(style) if style != memory.style() => {
                    Err("the importer is compiled for another memory style: recompile it")
                }
                _ => Ok(()),
            }
        }
        (ExternType::Table(want), SectionItem::Table(table)) => {
            let have: TableType = table.ty();
            fits(
                want.element == have.element
                    && want.is64 == have.is64
                    && limits_fit((want.min, want.max), (have.min, have.max)),
            )
        }
        (ExternType::Global(want), SectionItem::Global(global)) => fits(global_fits(*want, global.ty())),
        _ => Err(""),
    }
}

fn limits_fit(want: (u64, Option<u64>), have: (u64, Option<u64>)) -> bool {
    have.0 >= want.0 && want.1.is_none_or(|w| have.1.is_some_and(|h| h <= w))
}

fn global_fits(want: GlobalType, have: GlobalType) -> bool {
    want.mutable == have.mutable
        && have.content.is_subtype_of(&want.content)
        && (!want.mutable || want.content.is_subtype_of(&have.content))
}

fn mismatch(import: &Import, item: &SectionItem, reason: &'static str) -> ImportProblem {
    let found = item.ty().unwrap_or(ExternType::Global(GlobalType { content: ValType::I32, mutable: false }));
    ImportProblem::Mismatch {
        module: import.module.clone(),
        name: import.name.clone(),
        expected: import.ty.clone(),
        found,
        reason,
    }
}

fn missing(namespace: &CrateNamespace, import: &Import) -> ImportProblem {
    let nearest = match namespace.get_crate(&import.module) {
        Some(cell) => {
            let sections = cell.global_sections();
            let names = nearest(&import.name, sections.iter().map(|s| s.export_name()));
            names.iter().map(|n| format!("{}::{n}", import.module)).collect()
        }
        None => {
            // Another cell has an export of this very name, or a cell's own name is alike.
            let cells = namespace.crate_names(true);
            let exact = cells.iter().filter(|c| namespace.find_export(c, &import.name).is_some());
            let mut names: Vec<String> = exact.take(NEAREST).map(|c| format!("{c}::{}", import.name)).collect();
            for cell in nearest(&import.module, cells.iter().map(|c| &**c)) {
                let name = format!("{cell}::{}", import.name);
                if names.len() < NEAREST && !names.contains(&name) {
                    names.push(cell);
                }
            }
            names
        }
    };
    ImportProblem::Missing {
        module: import.module.clone(),
        name: import.name.clone(),
        expected: import.ty.clone(),
        nearest,
    }
}

/// How many similar names an error shows.
const NEAREST: usize = 3;

/// The candidates spelled most like `wanted`, nearest first.
pub(crate) fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let limit = (wanted.chars().count() / 3).clamp(2, 16);
    let mut scored: Vec<(usize, &str)> =
        candidates.filter_map(|c| distance(wanted, c, limit).map(|d| (d, c))).collect();
    scored.sort_unstable();
    scored.dedup_by_key(|s| s.1);
    scored.into_iter().take(NEAREST).map(|(_, c)| c.to_string()).collect()
}

/// Edit distance (insertions, deletions, replacements), if it is at most `limit`. Case does not count.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let up = *cell;
            left = (diagonal + usize::from(x != y)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = left;
        }
    }
    row.last().copied().filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_are_those_with_few_edits() {
        let names = ["memory_grow", "memory_size", "fd_write", "fd_wirte", "proc_exit"];
        assert_eq!(nearest("fd_writ", names.into_iter()), ["fd_write"]);
        assert_eq!(nearest("fd_write", names.into_iter()), ["fd_write", "fd_wirte"]);
        assert_eq!(nearest("FD_WRITE", names.into_iter()).first().map(String::as_str), Some("fd_write"));
        assert!(nearest("zzz", names.into_iter()).is_empty());
    }

    #[test]
    fn limits_match_when_the_exporter_stays_inside_the_importers() {
        assert!(limits_fit((1, None), (2, None)));
        assert!(!limits_fit((2, None), (1, None)));
        assert!(!limits_fit((1, Some(4)), (1, None)));
        assert!(limits_fit((1, Some(4)), (1, Some(3))));
        assert!(!limits_fit((1, Some(4)), (1, Some(5))));
    }
}
