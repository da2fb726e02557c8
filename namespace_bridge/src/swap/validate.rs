//! Validate: reasons against a swap, all at once, by name.
#![deny(unsafe_code)]

use super::SwapError;
use super::error::{Refusal, SwapProblem};
use super::step::SwapStep;
use super::transaction::{Change, Transaction, timed};
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::code::CellModule;
use crate::function::Function;
use crate::instance::InstanceRecord;
use crate::section::{NativeSymbol, SectionItem, StrongSectionRef};
use alloc::{collections::BTreeMap, format, string::String, string::ToString, sync::Arc, vec::Vec};
use wasm_cell::metadata::{ExportItem, Metadata};
use wasm_cell::types::ExternType;

/// Exports by name.
type Exports = BTreeMap<String, Option<ExternType>>;

fn exports_of_module(m: &Metadata) -> Exports {
    m.exports.iter().map(|e| (e.name.clone(), export_type(m, e.item))).collect()
}

fn exports_of(cell: &StrongCrateRef) -> Exports {
    match cell.module() {
        Some(module) => exports_of_module(module.metadata()),
        None => cell.global_sections().iter().map(|s| (s.export_name().into(), s.item.ty())).collect(),
    }
}

/// What the new version exports, of which there may be the module only.
fn new_exports(change: &Change, module: Option<&Arc<CellModule>>) -> Exports {
    match (module, &change.new) {
        (Some(module), _) => exports_of_module(module.metadata()),
        (None, Some(new)) => exports_of(new),
        (None, None) => Exports::new(),
    }
}

/// Notes what the new version exports otherwise than the old one.
pub(super) fn compare(change: &mut Change, module: Option<&Arc<CellModule>>) {
    let new = new_exports(change, module);
    let old = change.old.as_ref().map(exports_of).unwrap_or_default();
    let lists = &mut change.lists;
    lists.added = new.keys().filter(|n| !old.contains_key(*n)).cloned().collect();
    lists.removed = old.keys().filter(|n| !new.contains_key(*n)).cloned().collect();
    let differs = |(name, ty): (&String, &Option<ExternType>)| {
        new.get(name).filter(|new| !same_type(ty.as_ref(), new.as_ref())).map(|_| name.clone())
    };
    lists.retyped = old.iter().filter_map(differs).collect();
}

fn export_type(m: &Metadata, item: ExportItem) -> Option<ExternType> {
    Some(match item {
        ExportItem::Func(i) => ExternType::Func(m.func_type(i)?.clone()),
        ExportItem::Memory(i) => ExternType::Memory(m.memories.get(i as usize)?.ty),
        ExportItem::Table(i) => ExternType::Table(m.tables.get(i as usize)?.ty),
        ExportItem::Global(i) => ExternType::Global(m.globals.get(i as usize)?.ty),
    })
}

/// Whether users of one can go on with the other, as far as types tell.
fn same_type(old: Option<&ExternType>, new: Option<&ExternType>) -> bool {
    match (old, new) {
        (Some(ExternType::Func(a)), Some(ExternType::Func(b))) => a.hash == b.hash,
        (a, b) => a == b,
    }
}

impl Transaction {
    /// Looks for reasons against the swap.
    pub(super) fn validate(&mut self) -> Result<(), SwapError> {
        let mut phases = self.phases;
        let result = timed(&mut phases.validate, || {
            self.step(SwapStep::Validate)?;
            let modules: Vec<_> =
                self.changes.iter().map(|c| c.new.as_ref().and_then(|n| n.module()).cloned()).collect();
            let mut problems = Vec::new();
            self.find_problems(&modules, &mut problems);
            if problems.is_empty() { Ok(()) } else { Err(Refusal { problems }.into()) }
        });
        self.phases = phases;
        result
    }

    /// Adds what stands against the swap. New versions that could not be linked are judged by their modules.
    pub(super) fn find_problems(&mut self, modules: &[Option<Arc<CellModule>>], problems: &mut Vec<SwapProblem>) {
        let olds: Vec<StrongCrateRef> = self.changes.iter().filter_map(|c| c.old.clone()).collect();
        let force = self.settings.force;
        for (change, module) in self.changes.iter_mut().zip(modules) {
            let Some(old) = change.old.clone() else { continue };
            let used = Users::of(&old, &olds);
            change.lists.dependents = used.cells();
            match module {
                Some(module) => find_in_cell(change, &old, Some(module), &used, force, problems),
                None if change.new.is_some() => find_in_cell(change, &old, None, &used, force, problems),
                None if change.new_name.is_none() && !force && !used.0.is_empty() => {
                    problems.push(SwapProblem::InUse { cell: old.crate_name.clone(), users: used.lines() });
                }
                None => {}
            }
        }
        let back: Vec<StrongCrateRef> = self.changes.iter().filter_map(|c| c.new.clone()).collect();
        self.changes.iter().for_each(|change| find_lost_imports(change, &back, problems));
        problems.extend(self.changes.iter().filter_map(super::export::problem_of_return));
    }
}

/// Who uses which section of a cell, cells of the request aside.
struct Users(Vec<(StrongSectionRef, Vec<Arc<LoadedCrate>>)>);

impl Users {
    fn of(cell: &StrongCrateRef, except: &[StrongCrateRef]) -> Users {
        let counts = |user: &Arc<LoadedCrate>| {
            LoadedCrate::counts_as_dependent(user, cell) && !except.iter().any(|e| Arc::ptr_eq(e, user))
        };
        let of_section = |section: StrongSectionRef| {
            let users: Vec<_> = section.dependents().into_iter().filter(counts).collect();
            (!users.is_empty()).then_some((section, users))
        };
        Users(cell.global_sections().into_iter().filter_map(of_section).collect())
    }

    fn cells(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.0.iter().flat_map(|(_, u)| u).map(|u| u.crate_name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn lines(&self) -> String {
        let line = |(section, users): &(StrongSectionRef, Vec<Arc<LoadedCrate>>)| {
            format!("{} through `{}`", names_of(users), section.export_name())
        };
        self.0.iter().map(line).collect::<Vec<_>>().join(", ")
    }
}

fn names_of(users: &[Arc<LoadedCrate>]) -> String {
    users.iter().map(|u| format!("`{}`", u.crate_name)).collect::<Vec<_>>().join(", ")
}

fn find_in_cell(
    change: &Change,
    old: &StrongCrateRef,
    module: Option<&Arc<CellModule>>,
    used: &Users,
    force: bool,
    problems: &mut Vec<SwapProblem>,
) {
    let (before, after) = (exports_of(old), new_exports(change, module));
    let cell = change.name();
    for (section, users) in &used.0 {
        let export = section.export_name();
        let users = names_of(users);
        let is_func = matches!(section.item, SectionItem::Func(_) | SectionItem::Native(NativeSymbol::Func { .. }));
        let Some(new_type) = after.get(export).cloned() else {
            if !(force && is_func) {
                problems.push(SwapProblem::MissingExport { cell: cell.clone(), export: export.into(), users });
            }
            continue;
        };
        let old_item = before.get(export).cloned().flatten();
        if !same_type(old_item.as_ref(), new_type.as_ref()) {
            if !(force && is_func) {
                let text = |ty: &Option<ExternType>| ty.as_ref().map_or_else(String::new, |t| t.to_string());
                problems.push(SwapProblem::Retyped {
                    cell: cell.clone(),
                    export: export.into(),
                    old: text(&old_item),
                    new: text(&new_type),
                    users,
                });
            }
            continue;
        }
        if let Some((what, hint)) = split(change, section, module, export) {
            problems.push(SwapProblem::Split { cell: cell.clone(), export: export.into(), what, users, hint });
        }
    }
}

const ADOPT_INSTEAD: &str = "adopt the state, or swap its users in the same step";

/// Whether users of the old section would not come to the new one.
fn split(
    change: &Change,
    section: &StrongSectionRef,
    module: Option<&Arc<CellModule>>,
    export: &str,
) -> Option<(&'static str, &'static str)> {
    let instance = change.new_instance();
    let Some(module) = module else { return split_from_native(change, section, export) };
    let m = module.metadata();
    let new = m.exports.get(module.export_index(export)?)?.item;
    match (&section.item, new) {
        (SectionItem::Func(function), ExportItem::Func(index)) => {
            let follows = follows(change, function, module, index, instance.as_deref());
            (!follows).then_some(("function", "swap its users in the same step"))
        }
        (SectionItem::Native(_), _) => Some(("symbol", "native users have its address: swap them in the same step")),
        // Without an instance there is a reason against the swap already.
        (SectionItem::Memory(memory), ExportItem::Memory(i)) => {
            let same = instance?.memory(i).is_some_and(|m| Arc::ptr_eq(m, memory));
            (!same).then_some(("memory", ADOPT_INSTEAD))
        }
        (SectionItem::Table(table), ExportItem::Table(i)) => {
            let same = instance?.table(i).is_some_and(|t| Arc::ptr_eq(t, table));
            (!same).then_some(("table", ADOPT_INSTEAD))
        }
        (SectionItem::Global(global), ExportItem::Global(i)) => {
            let instance = instance?;
            let same = match global.ty().mutable {
                true => instance.global(i).is_some_and(|g| g.address() == global.address()),
                // Users have copies.
                false => instance.global_bits(i) == Some(global.bits()),
            };
            let hint = "its users have its address, or copies of its value: swap them in the same step";
            (!same).then_some(("global", hint))
        }
        _ => None,
    }
}

/// The same for a new version that is a native cell.
fn split_from_native(
    change: &Change,
    section: &StrongSectionRef,
    export: &str,
) -> Option<(&'static str, &'static str)> {
    let new = change.new.as_ref()?;
    let entry_of = |item: &SectionItem| match item {
        SectionItem::Func(Function::Wasm(f)) => Some(f.entry),
        SectionItem::Native(NativeSymbol::Func { entry, .. }) => Some(*entry),
        _ => None,
    };
    let followed = match (entry_of(&section.item), new.export(export)) {
        (Some(old), Some(new)) => entry_of(&new.item) == Some(old),
        _ => false,
    };
    let what = match &section.item {
        SectionItem::Memory(_) => "memory",
        SectionItem::Table(_) => "table",
        SectionItem::Global(_) => "global",
        SectionItem::Native(NativeSymbol::Data { .. }) => "datum",
        _ => "function",
    };
    (!followed).then_some((what, "swap its users in the same step"))
}

/// Whether the address that users of a function have leads to the new version's function of the same export.
fn follows(
    change: &Change,
    function: &Function,
    module: &Arc<CellModule>,
    index: u32,
    instance: Option<&InstanceRecord>,
) -> bool {
    let own_blocks = change.old.as_ref().and_then(|o| o.entries()).map(|e| e.in_use()).unwrap_or_default();
    if let Function::Wasm(f) = function
        && let Some(block) = own_blocks.iter().find(|b| Arc::ptr_eq(b, &f.block))
    {
        // The entry has one label, and the function two export names: a new version in which these are two functions.
        let label = block.position_of(f.entry).and_then(|k| block.labels().get(k).cloned());
        let k = label.and_then(|label| module.labels().position(&label));
        let leads_to = k.and_then(|k| module.metadata().escaped_funcs.get(k)).copied();
        let same_module = Arc::ptr_eq(block.labels(), module.labels());
        return same_module || leads_to == Some(index);
    }
    // A function of somebody else, imported and exported again: its users have that one's address.
    match (instance.and_then(|i| i.imported_func(index)), function) {
        (Some(Function::Wasm(a)), Function::Wasm(b)) => a.entry == b.entry,
        (Some(Function::Native(a)), Function::Native(b)) => a.address() == b.address(),
        (Some(Function::Host(a)), Function::Host(b)) => Arc::ptr_eq(a, b),
        (None, _) if instance.is_none() => true,
        _ => false,
    }
}

/// A version that comes back may import from cells that are gone. Those that come back with it are not.
fn find_lost_imports(change: &Change, back: &[StrongCrateRef], problems: &mut Vec<SwapProblem>) {
    let Some(new) = change.new.as_ref().filter(|_| !change.fresh) else { return };
    for (section, _) in new.dependencies() {
        let is_there = section.parent_crate.upgrade().is_some_and(|parent| {
            let serves = !parent.is_unloaded() && !parent.is_superseded();
            serves || back.iter().any(|cell| Arc::ptr_eq(cell, &parent))
        });
        if !is_there {
            problems.push(SwapProblem::LostImport { cell: change.name(), symbol: section.name.clone() });
        }
    }
}
