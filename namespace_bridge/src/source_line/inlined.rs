//! The function at an address, those inlined into it there, and their names (DWARF 5, 3.3.8).

use super::unit::{Index, OpenUnit, Pcs, Row};
use super::{Budget, Reader};
use alloc::{format, string::String, vec::Vec};
use gimli::{Attribute, AttributeValue, UnitOffset};

/// Inlined functions at one place that are listed.
const DEPTH: usize = 32;
/// References that are followed from an entry to the one that has its name.
const HOPS: usize = 8;

/// A function that covers the address.
pub(super) struct Function {
    /// Its entry in the unit.
    pub(super) entry: UnitOffset,
    /// Where it was inlined.
    pub(super) called_from: Option<Row>,
    depth: isize,
}

/// The function that covers an address, then those inlined there, outermost first.
pub(super) fn find(unit: &OpenUnit<'_, '_>, address: u64, budget: &mut Budget) -> Vec<Function> {
    let mut functions = Vec::new();
    // What was found before DWARF or budget ended is still right.
    walk(unit, address, budget, &mut functions);
    functions
}

fn walk(unit: &OpenUnit<'_, '_>, address: u64, budget: &mut Budget, functions: &mut Vec<Function>) -> Option<()> {
    let mut entries = unit.unit.entries_raw(None).ok()?;
    while !entries.is_empty() {
        let (entry, depth) = (entries.next_offset(), entries.next_depth());
        budget.spend(1)?;
        let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
        if functions.first().is_some_and(|f: &Function| depth <= f.depth) {
            // The function has ended.
            return Some(());
        }
        budget.spend(abbreviation.attributes().len())?;
        let wanted = match functions.is_empty() {
            true => gimli::DW_TAG_subprogram,
            false => gimli::DW_TAG_inlined_subroutine,
        };
        if abbreviation.tag() != wanted {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        let (mut pcs, mut call) = (Pcs::default(), Call::default());
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec).ok()?;
            pcs.note(&attribute);
            call.note(&attribute);
        }
        let inside = functions.last().is_none_or(|f| depth > f.depth);
        if inside && functions.len() < DEPTH && pcs.contain(unit, address, budget) {
            functions.push(Function { entry, called_from: call.row(), depth });
        }
    }
    Some(())
}

/// The place an inlined function is called from.
#[derive(Default)]
struct Call {
    file: Option<u64>,
    line: Option<u64>,
    column: Option<u64>,
}

impl Call {
    fn note(&mut self, attribute: &Attribute<Reader<'_>>) {
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_call_file, AttributeValue::FileIndex(file)) => self.file = Some(file),
            (gimli::DW_AT_call_file, other) => self.file = other.udata_value(),
            (gimli::DW_AT_call_line, line) => self.line = line.udata_value(),
            (gimli::DW_AT_call_column, column) => self.column = column.udata_value(),
            _ => {}
        }
    }

    fn row(&self) -> Option<Row> {
        let narrow = |n: u64| u32::try_from(n).ok();
        let column = self.column.and_then(narrow).unwrap_or(0);
        Some(Row { file: self.file?, line: self.line.and_then(narrow)?, column })
    }
}

/// Name of a function: a Rust function's path, else the name as it is written in the source.
pub(super) fn name(
    unit: &OpenUnit<'_, '_>,
    index: &Index,
    mut entry: UnitOffset,
    budget: &mut Budget,
) -> Option<String> {
    let mut other: Option<OpenUnit<'_, '_>> = None;
    for _ in 0..HOPS {
        let unit = other.as_ref().unwrap_or(unit);
        let named = names(unit, entry, budget)?;
        if let Some(name) = named.best(unit) {
            return Some(name);
        }
        match named.origin? {
            AttributeValue::UnitRef(at) => entry = at,
            AttributeValue::DebugInfoRef(at) => {
                let next = OpenUnit::new(unit.dwarf, index.unit_of(at)?, budget)?;
                entry = at.to_unit_offset(&next.unit.header)?;
                other = Some(next);
            }
            _ => return None,
        }
    }
    None
}

/// What an entry says about a function's name.
#[derive(Default)]
struct Names<'d> {
    plain: Option<AttributeValue<Reader<'d>>>,
    linkage: Option<AttributeValue<Reader<'d>>>,
    /// The entry that says more.
    origin: Option<AttributeValue<Reader<'d>>>,
}

fn names<'d>(unit: &OpenUnit<'_, 'd>, entry: UnitOffset, budget: &mut Budget) -> Option<Names<'d>> {
    let mut entries = unit.unit.entries_raw(Some(entry)).ok()?;
    let abbreviation = entries.read_abbreviation().ok()??;
    let mut names = Names::default();
    for spec in abbreviation.attributes() {
        budget.spend(1)?;
        let attribute = entries.read_attribute(*spec).ok()?;
        match attribute.name() {
            gimli::DW_AT_name => names.plain = Some(attribute.value()),
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => names.linkage = Some(attribute.value()),
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => names.origin = Some(attribute.value()),
            _ => {}
        }
    }
    Some(names)
}

impl<'d> Names<'d> {
    fn best(&self, unit: &OpenUnit<'_, 'd>) -> Option<String> {
        let linkage = self.linkage.and_then(|name| unit.text(name));
        if let Some(path) = linkage.as_deref().and_then(|name| rustc_demangle::try_demangle(name).ok()) {
            return Some(format!("{path:#}"));
        }
        self.plain.and_then(|name| unit.text(name)).or(linkage)
    }
}
